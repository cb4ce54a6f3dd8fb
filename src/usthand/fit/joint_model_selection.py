"""Rigid or soft joints? Ask the cameras: each is left out in turn, and the better prediction of its labels wins.

Labels that err by themselves are foretold best by a rigid hand, which averages their errors out; a detector whose joints
are not the hand model's, alike in all views, by joints that may leave it. Both kinds are common (docs/notes/fit.md), and
nothing but labels of a camera that took no part can tell them apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from usthand.fit.kinematics import Articulation
from usthand.fit.sequence import FitConfig, Fitter
from usthand.geometry.cameras import MIN_DEPTH_M, to_camera
from usthand.geometry.robust_triangulation import UndistortedViews, subset_views

MIN_CAMERAS = 3  # two must be left to triangulate
MAX_CAMERAS = 4  # left out, one after the other; more would tell the same again
MAX_FRAMES = 100
ROUNDS = 5
MIN_LABELS = 100  # of a left-out camera, or its word does not count


def choose_soft(hand: Articulation, config: FitConfig, views: UndistortedViews) -> bool:
    """Whether soft joints predict left-out labels better than rigid ones do; False where too little is there to tell."""
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
        errors = [left_out_error(hand, config, part, view, others, soft) for soft in (False, True)]
        if None not in errors:
            rigid, soft = rigid + errors[0], soft + errors[1]
    return soft < rigid


def busiest_window(count: Float[np.ndarray, "T"], length: int) -> slice:
    """The `length` consecutive frames with the most labels; the first such."""
    if len(count) <= length:
        return slice(0, len(count))
    total = np.concatenate(([0], np.cumsum(count)))
    start = int(np.argmax(total[length:] - total[:-length]))
    return slice(start, start + length)


def left_out_error(
    hand: Articulation, config: FitConfig, views: UndistortedViews, view: int, others: list[int], soft: bool
) -> float | None:
    """Median distance of a view's labels from joints found without it, pixels of that camera; None if too few are there."""
    chosen = subset_views(views, others)
    seen = (chosen.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0).sum(1) >= 2
    known = seen & (views.precision[:, view].diagonal(dim1=-2, dim2=-1).sum(-1) > 0)
    if known.sum() < MIN_LABELS:
        return None
    fitted = Fitter(hand, config, chosen, None, soft).run()
    cam = to_camera(subset_views(views, [view]).cameras, torch.from_numpy(fitted.joints_world_m))[:, 0]
    offset = cam[..., :2] / cam[..., 2:].clamp_min(MIN_DEPTH_M) - views.xy[:, view]
    return float((offset * views.cameras.intrinsics[view, :2]).norm(dim=-1)[known].median())
