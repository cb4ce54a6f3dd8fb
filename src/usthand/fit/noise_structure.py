"""What errors of labels have in common, from the labels themselves: how long they last, and which joints share them.

The residuals of a plain triangulation have the errors' correlations, whatever the hand does: neither its shape nor its
motion has a part in it. They are compared frame with frame, and joint with joint of the same view. Independent errors,
such as those of markers that people click, show none; a detector's show a lot. What is found is at most what detectors
are known to show (`MOST`): longer memories and larger shares were measured to make results worse
(docs/development/fit.md), because errors last in more ways than one process has.
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
LASTING_S = 0.4  # errors that are still there after this time last
LEAST_PAIRS = 500  # of residuals, or nothing is learned


@dataclass(frozen=True)
class NoiseStructure:
    """Correlations of a label's error."""

    memory_s: float
    """Errors that do not last decorrelate over this time, seconds."""
    hand: float
    """Part of a label's variance that all joints of a view have in common."""
    finger: float
    """The same for the joints of one finger."""
    lasting: float
    """Part of a label's variance that comes back whenever the hand looks alike."""


MOST = NoiseStructure(memory_s=0.1, hand=0.35, finger=0.25, lasting=0.5)
"""What detectors show (docs/development/label-noise.md)."""


def estimate_structure(views: UndistortedViews, fps: float, most: NoiseStructure = MOST) -> NoiseStructure:
    """The structure of the labels' errors, at most `most`, which is returned where there are too few labels to tell.

    Args:
        views: One detector's labels with their stated precision.
        fps: Frames per second.
        most: What to expect.
    """
    residual, seen = _residuals(views)
    variance, pairs = _mean_product(residual, residual, seen & seen)
    step = max(round(LASTING_S * fps), 1)
    if pairs < LEAST_PAIRS or len(residual) <= 2 * step or variance <= 0:
        return most
    next_frame = _lagged(residual, seen, 1) / variance
    later = _lagged(residual, seen, step) / variance
    lasting = float(np.clip(later, 0.0, most.lasting))
    fresh = np.clip((next_frame - lasting) / (1 - lasting), 0.0, 0.999)
    memory_s = min(most.memory_s, float(-1 / (fps * np.log(max(fresh, 1e-9)))))
    finger, hand = _shared(residual, seen)
    both = np.clip((finger / variance) / (most.hand + most.finger), 0.0, 1.0)
    hand = min(most.hand, max(hand / variance, 0.0))
    return NoiseStructure(memory_s, float(hand), float(min(most.finger * both, 1.0 - hand)), lasting)


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


def _lagged(residual: Float[np.ndarray, "T J R"], seen: Bool[np.ndarray, "T J"], step: int) -> float:
    return _mean_product(residual[step:], residual[:-step], seen[step:] & seen[:-step])[0]


def _shared(residual: Float[np.ndarray, "T J R"], seen: Bool[np.ndarray, "T J"]) -> tuple[float, float]:
    """Mean products of two joints' residuals: of the same finger, and of different ones."""
    product = np.einsum("tjr,tkr->jk", residual, residual)
    count = np.einsum("tj,tk->jk", seen.astype(np.float64), seen.astype(np.float64))
    finger = np.full(N_JOINTS, -1)
    for number, ids in enumerate(FINGERS.values()):
        finger[list(ids)] = number
    same = (finger[:, None] == finger) & (finger >= 0) & ~np.eye(N_JOINTS, dtype=bool)
    other = (finger[:, None] != finger) & (finger[:, None] >= 0) & (finger >= 0)
    return tuple(float((product * part).sum() / max((count * part).sum(), 1)) for part in (same, other))
