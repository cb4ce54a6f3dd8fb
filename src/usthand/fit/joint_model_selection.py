"""Rigid or soft joints? Each camera is left out in turn, and the joint model that predicts its labels better is taken.

Labels with independent errors are predicted best by a rigid hand, which averages the errors out. Labels of a detector
whose joints are offset from the model's, alike in all views, are predicted best by soft joints. Both kinds are common
(docs/development/fit.md), and only the labels of a camera that was not used tell them apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int

from usthand.fit.kinematics import Articulation
from usthand.fit.sequence import FitConfig, FitData, Fitter
from usthand.geometry.cameras import MIN_DEPTH_M, to_camera
from usthand.geometry.robust_triangulation import UndistortedViews, subset_views

MIN_CAMERAS = 3  # two must be left to triangulate
MAX_CAMERAS = 4  # left out, one after the other; more add nothing
MAX_FRAMES = 100
ROUNDS = 5
MIN_LABELS = 100  # of a left-out camera, or it is not counted


def choose_soft(hand: Articulation, config: FitConfig, views: UndistortedViews) -> bool:
    """Whether soft joints predict left-out labels better than rigid ones; False with too few labels to tell."""
    present = views.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0
    labelled = [v for v in range(present.shape[1]) if present[:, v].any()]
    if len(labelled) < MIN_CAMERAS:
        return False
    window = busiest_window(present.sum((1, 2)).numpy(), MAX_FRAMES)
    part = UndistortedViews(views.cameras, views.xy[window], views.precision[window])
    config = replace(config, rounds=min(config.rounds, ROUNDS))
    spread = np.linspace(0, len(labelled) - 1, min(MAX_CAMERAS, len(labelled))).round().astype(int)
    rigid, soft = 0.0, 0.0
    for view in (labelled[i] for i in spread):
        others = [v for v in labelled if v != view]
        rigid_error, soft_error = (
            left_out_error(hand, config, subset_views(part, others), subset_views(part, [view]), kind)
            for kind in (False, True)
        )
        if rigid_error is not None and soft_error is not None:
            rigid, soft = rigid + rigid_error, soft + soft_error
    return soft < rigid


def busiest_window(count: Int[np.ndarray, "T"], length: int) -> slice:
    """The `length` consecutive frames with the most labels; the first such."""
    if len(count) <= length:
        return slice(0, len(count))
    total = np.concatenate(([0], np.cumsum(count)))
    start = int(np.argmax(total[length:] - total[:-length]))
    return slice(start, start + length)


def left_out_error(
    hand: Articulation, config: FitConfig, used: UndistortedViews, left_out: UndistortedViews, soft: bool
) -> float | None:
    """Median distance in pixels of one view's labels from joints found without it; None if too few are there."""
    seen = (used.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0).sum(1) >= 2
    known = seen & (left_out.precision[:, 0].diagonal(dim1=-2, dim2=-1).sum(-1) > 0)
    if known.sum() < MIN_LABELS:
        return None
    fitted = Fitter(hand, config, FitData(used), soft).run()
    cam = to_camera(left_out.cameras, torch.from_numpy(fitted.joints_world_m))[:, 0]
    offset = cam[..., :2] / cam[..., 2:].clamp_min(MIN_DEPTH_M) - left_out.xy[:, 0]
    return float((offset * left_out.cameras.intrinsics[0, :2]).norm(dim=-1)[known].median())
