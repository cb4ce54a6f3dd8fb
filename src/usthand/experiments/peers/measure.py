"""Numbers of joints alone, the same for a peer and for ours.

* ``mpjpe_mm``: mean distance from the truth's joints, absolute, over all 21 joints of the frames measured; joints that
  a method leaves out are bridged by lines in time, as plain triangulation is, so that giving up is no gain;
* ``placed_mpjpe_mm``: the same over those that it places;
* ``less_offset_mm``: as the first, each joint less its mean offset in the frame of the palm: detectors and hand models
  do not mean the same points;
* ``jitter_mm``, ``bone_spread_mm``: `usthand.evaluation.metrics.steadiness`;
* ``placed``: share of the joints that the method places;
* ``coverage90``: share of the errors in their own 90 % regions, where the method gives covariances;
* ``seconds``: of the method's work on the whole capture, without start and imports.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from usthand.evaluation import metrics
from usthand.evaluation.truth import Truth
from usthand.hand.result import MM_PER_M, Result
from usthand.network.point_cloud import palm_frame

JOINT_KEYS = ("mpjpe_mm", "less_offset_mm", "jitter_mm", "bone_spread_mm", "placed", "seconds")
"""Of every method."""
SOME_KEYS = ("placed_mpjpe_mm", "coverage90")
"""Of those that place a joint in the frames measured, and that give covariances."""


def joint_numbers(
    result: Result, truth: Truth, frames: Int[np.ndarray, "n"], fps: float, seconds: float
) -> metrics.Numbers:
    """All numbers of a method on one capture.

    Args:
        result: With all frames of the capture.
        truth: Of the same capture.
        frames: Which to measure; those without truth do not count.
        fps: Frames per second.
        seconds: That the method took.
    """
    frames = frames[truth.valid[frames]]
    rows = np.searchsorted(result.frame, frames)
    true_m = np.asarray(truth.joints_world_m, np.float64)[frames]
    error_m, placed = result.joints_world_m[rows] - true_m, result.joint_valid[rows] & result.valid[rows, None]
    size_mm = MM_PER_M * np.linalg.norm(error_m, axis=-1)
    numbers: metrics.Numbers = {
        "mpjpe_mm": float(size_mm.mean()),
        "placed_mpjpe_mm": float(size_mm[placed].mean()) if placed.any() else None,
        "less_offset_mm": float(MM_PER_M * np.linalg.norm(less_offset(error_m, true_m), axis=-1).mean()),
        "placed": float(placed.mean()),
        "seconds": seconds,
        "frames": len(frames),
        "valid_fraction": 1.0,
    }
    if result.joints_cov_m2[rows].any():
        numbers["coverage90"] = metrics.coverages(error_m, result.joints_cov_m2[rows], (0.9,))["coverage90"]
    steady = metrics.steadiness(result, fps, frames)
    return numbers | {name: steady[name] for name in ("jitter_mm", "bone_spread_mm")}


def less_offset(
    error_m: Float[np.ndarray, "n 21 3"], true_joints_m: Float[np.ndarray, "n 21 3"]
) -> Float[np.ndarray, "n 21 3"]:
    """Errors in the frame of the true palm, each joint's less their mean over the frames; metres."""
    axes = palm_frame(torch.from_numpy(true_joints_m[None])).axes[0].numpy()
    inside = error_m @ axes
    return inside - inside.mean(0)
