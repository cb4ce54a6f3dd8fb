"""What errors of labels have in common: how long they last, and which joints share them.

Detectors' errors hang together, and how much is known (`MOST`). Other labels, such as markers that people click, err
independently, and a fit that does not know that averages too little. The labels tell: the residuals of a plain
triangulation have the errors' correlations, whatever the hand does. Where neighbouring frames, or joints of the same
view, agree less than a detector's usually do, the structure is weakened in proportion. It is never strengthened:
longer memories and larger shares make results worse (docs/development/fit.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.fit.evidence import matrix_root
from usthand.geometry.cameras import MIN_DEPTH_M, to_camera
from usthand.geometry.robust_triangulation import UndistortedViews
from usthand.geometry.triangulation import triangulate_xy
from usthand.hand.skeleton import FINGERS, N_JOINTS

ITERATIONS = 3
CAP = 2.5  # robust standard deviations of a residual; larger ones are shortened, or a single mistake would tell
USUAL_LAGGED, USUAL_SHARED = 0.5, 0.3  # correlations of residuals from frame to frame, and in a finger, from here on
LEAST_PAIRS = 500  # of residuals, or nothing is learned


@dataclass(frozen=True)
class NoiseStructure:
    """Correlations of a label's error."""

    memory_s: float
    """Errors decorrelate over this time, seconds."""
    hand: float
    """Part of a label's variance that all joints of a view have in common."""
    finger: float
    """The same for the joints of one finger."""
    lasting: float
    """Part of a label's variance that comes back whenever the hand looks alike."""


MOST = NoiseStructure(memory_s=0.1, hand=0.35, finger=0.25, lasting=0.3)
"""What detectors show (docs/development/label-noise.md); of what comes back, the part that changes slowly."""
MOST_OF_VIEWS = NoiseStructure(memory_s=0.1, hand=0.1, finger=0.45, lasting=0.05)
"""The same, less what all views err in alike where that has a model of its own: docs/development/detector-joints.md."""


def estimate_structure(views: UndistortedViews, most: NoiseStructure = MOST) -> NoiseStructure:
    """The structure of the labels' errors, at most `most`, which is returned where there are too few labels to tell.

    Args:
        views: One detector's labels with their stated precision.
        most: What to expect of a detector.
    """
    residual, seen = _residuals(views)
    variance, pairs = _mean_product(residual, residual, seen)
    if pairs < LEAST_PAIRS or variance <= 0:
        return most
    lagged, _ = _mean_product(residual[1:], residual[:-1], seen[1:] & seen[:-1])
    in_time = float(np.clip(lagged / variance / USUAL_LAGGED, 0.0, 1.0))
    in_view = float(np.clip(_shared(residual, seen) / variance / USUAL_SHARED, 0.0, 1.0))
    return NoiseStructure(in_time * most.memory_s, in_view * most.hand, in_view * most.finger, in_time * most.lasting)


def _residuals(views: UndistortedViews) -> tuple[Float[np.ndarray, "T J R"], Bool[np.ndarray, "T J"]]:
    """Whitened residuals of all views of each joint, and whether two views see it."""
    present = views.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0
    seen = present.sum(1) >= 2
    points = triangulate_xy(views.cameras, views.xy, views.precision, iterations=ITERATIONS)[0]
    points = torch.where(seen[..., None], points, torch.zeros_like(points))
    cam = to_camera(views.cameras, points)
    off = (cam[..., :2] / cam[..., 2:].clamp_min(MIN_DEPTH_M) - views.xy).numpy()
    whole = (matrix_root(views.precision.numpy()) @ off[..., None])[..., 0]
    whole = np.where((present & seen[:, None]).numpy()[..., None], whole, 0.0)
    residual = np.moveaxis(whole, 1, 2).reshape(*seen.shape, -1)
    length = np.linalg.norm(residual, axis=-1)
    known = seen.numpy()
    limit = CAP * np.median(length[known]) / 0.6745 if known.any() else 1.0
    return residual * np.minimum(1.0, limit / np.maximum(length, 1e-12))[..., None], known


def _mean_product(
    one: Float[np.ndarray, "*b R"], other: Float[np.ndarray, "*b R"], seen: Bool[np.ndarray, "*b"]
) -> tuple[float, int]:
    count = int(seen.sum())
    return float(((one * other).sum(-1) * seen).sum() / max(count, 1)), count


def _shared(residual: Float[np.ndarray, "T J R"], seen: Bool[np.ndarray, "T J"]) -> float:
    """Mean product of the residuals of two joints of the same finger."""
    same = np.zeros((N_JOINTS, N_JOINTS), bool)
    for ids in FINGERS.values():
        same[np.ix_(ids, ids)] = True
    np.fill_diagonal(same, False)
    product = np.einsum("tjr,tkr->jk", residual, residual)
    count = np.einsum("tj,tk->jk", seen.astype(np.float64), seen.astype(np.float64))
    return float(product[same].sum() / max(count[same].sum(), 1))
