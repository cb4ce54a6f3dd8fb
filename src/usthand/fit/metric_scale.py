"""Calibrations without scale: metres by the size of the hand that the cameras see."""

from __future__ import annotations

import numpy as np
import torch

from usthand.capture.rig import Rig
from usthand.fit.initialisation import metres_per_unit
from usthand.fit.kinematics import Articulation
from usthand.fit.observations import Observations
from usthand.geometry.robust_triangulation import triangulate_robust, undistorted_views

# Of cameras from their middle. Any number will do that keeps depths and steps far from the bounds on them.
USUAL_REACH_M = 0.5


def scaled_by_hand(rig: Rig, observations: Observations, model: Articulation) -> tuple[Rig, float | None]:
    """A rig in metres, and how many of them its own unit is if the hand is of the model's mean size.

    Lengths of noise, priors and bounds can then be stated in metres whatever unit the calibration is in.

    Args:
        rig: One with a scale is returned as it is, with None.
        observations: Of one right hand, in the order of the rig's cameras.
        model: The hand whose mean size counts.
    """
    if rig.metric:
        return rig, None
    rough = USUAL_REACH_M / max(_reach(rig), 1e-12)
    views = undistorted_views(
        rig.in_metres(rough).tensors(torch.float64),
        torch.from_numpy(observations.uv_px[:, 0]),
        torch.from_numpy(observations.precision[:, 0]),
    )
    found = triangulate_robust(views)
    unit_m = rough * metres_per_unit(model, found.points_world.numpy(), found.seen.numpy())
    words = f"the calibration has no scale; its own unit is {1000 * unit_m:.4g} mm if the hand is of mean size"
    return rig.in_metres(unit_m, words), unit_m


def _reach(rig: Rig) -> float:
    centres = np.stack([camera.centre_world for camera in rig.cameras])
    return float(np.linalg.norm(centres - centres.mean(0), axis=-1).mean())
