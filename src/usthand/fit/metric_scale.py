"""Rigs whose calibration has no scale: in metres by the size of the hand that they see, and results back in their own unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from usthand.capture.rig import Rig
from usthand.fit.initialisation import metres_per_unit
from usthand.fit.kinematics import Articulation
from usthand.geometry.robust_triangulation import triangulate_robust, undistorted_views
from usthand.hand.result import Result
from usthand.labels.labels import Observations

USUAL_REACH_M = (
    0.5  # of cameras from their middle; any number does that keeps depths and steps far from the bounds on them
)


def scaled_by_hand(rig: Rig, observations: Observations, model: Articulation) -> tuple[Rig, float | None]:
    """A rig in metres, and how many of them its own unit is if the hand is of the model's mean size.

    What follows may then state lengths (of noise, of priors, of bounds) in metres whatever the calibration is in. A rig
    with a scale is given back as it is, with None.

    Args:
        observations: of one right hand, in the order of the rig's cameras.
    """
    if rig.metric:
        return rig, None
    rough = USUAL_REACH_M / max(_reach(rig), 1e-12)
    views = undistorted_views(
        rig.in_metres(rough, "").tensors(torch.float64),
        torch.from_numpy(observations.uv_px),
        torch.from_numpy(observations.precision),
    )
    found = triangulate_robust(views)
    unit_m = rough * metres_per_unit(model, found.points_world.numpy(), found.seen.numpy())
    words = f"the calibration's own unit; {1000 * unit_m:.4g} mm if the hand is of mean size"
    return rig.in_metres(unit_m, words), unit_m


def in_own_unit(result: Result, unit_m: float | None) -> Result:
    """What was found in a rig of `scaled_by_hand`, in the calibration's unit, so that it projects into the images."""
    if unit_m is None:
        return result
    return replace(
        result,
        metric=False,
        unit_m=unit_m,
        joints_world_m=result.joints_world_m / unit_m,
        joints_cov_m2=result.joints_cov_m2 / unit_m**2,
        vertices_world_m=result.vertices_world_m / unit_m,
        translation_m=result.translation_m / unit_m,
    )


def _reach(rig: Rig) -> float:
    centres = np.stack([camera.centre_world for camera in rig.cameras])
    return float(np.linalg.norm(centres - centres.mean(0), axis=-1).mean())
