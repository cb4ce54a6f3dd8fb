"""The network's own results, frame by frame: refined points, and a mesh for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from usthand.capture.rig import Rig
from usthand.fit.mesh import FittedMesh, fit_mesh
from usthand.geometry.cameras import Cameras
from usthand.geometry.rotations import axis_angle_from_rotation
from usthand.geometry.triangulation import triangulate_precision
from usthand.hand.limits import anatomical_axes, angles_to_pose
from usthand.hand.model import HandModel
from usthand.hand.proportions import with_proportions
from usthand.hand.result import Result
from usthand.network.hand_head import HandParameters, pose_hand
from usthand.reconstruction.inference import Estimates, observations


def network_result(rig: Rig, estimates: Estimates, hand: HandModel) -> Result:
    """Refined points, covariances from the 2D distributions, and the hand fitted to the points, frame by frame.

    It uses no label and smooths nothing.

    Args:
        rig: In metres.
        estimates: The network's output.
        hand: A right hand in float64.
    """
    points, covariance, valid = estimates.points_world_m, triangulated(rig, estimates)[1], estimates.valid
    seen = np.repeat(valid[:, None], points.shape[1], 1)
    hand = with_proportions(hand)
    fitted_mesh = fit_mesh(hand, points, seen, covariance)
    return Result(
        **fitted_mesh._asdict(),
        joints_world_m=points,
        joints_cov_m2=covariance,
        side="right",
        frame=np.arange(len(valid)),
        valid=valid,
        joint_valid=seen,
        source=estimates.source,
        unit_source=rig.unit_source,
        metric=rig.metric,
        method="usthand network",
        joint_model="free",
        cameras=rig.names,
        faces=hand.faces.numpy(),
    )


def head_result(network: Result, estimates: Estimates, hand: HandModel) -> Result:
    """`network_result` with the published mesh, of the network's own hand head, which learns slower than the points.

    Args:
        network: What `network_result` gave.
        estimates: The network's output.
        hand: The embedded hand, for which the head has learned the parameters.
    """
    parameters = HandParameters(
        *(torch.from_numpy(x) for x in (estimates.angles, estimates.root, estimates.shape, estimates.translation_m))
    )
    axes = anatomical_axes(hand)
    posed = pose_hand(hand, axes, parameters)
    pose = torch.cat((axis_angle_from_rotation(parameters.root), angles_to_pose(parameters.angles, axes)), -1).numpy()
    fitted_mesh = FittedMesh(pose, estimates.shape, estimates.translation_m, posed.vertices.numpy())
    no_cov_m2 = network.vertices_cov_m2[:, :0]  # nothing says how certain the head is
    return replace(network, **fitted_mesh._asdict(), vertices_cov_m2=no_cov_m2, faces=hand.faces.numpy())


def triangulated(rig: Rig, estimates: Estimates) -> tuple[Float[np.ndarray, "T J 3"], Float[np.ndarray, "T J 3 3"]]:
    """Where the views' 2D distributions place each joint by themselves, metres, and its covariance, m²."""
    seen = observations(estimates)
    cameras = Cameras(*(t.expand(len(seen.uv_px), *t.shape) for t in rig.tensors(torch.float64)))
    uv_px, precision = torch.from_numpy(seen.uv_px[:, 0]), torch.from_numpy(seen.precision[:, 0])
    points, covariance = triangulate_precision(cameras, uv_px, precision)[:2]
    return points.numpy(), covariance.numpy()
