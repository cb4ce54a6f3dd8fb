"""The hand model fitted to given joints, each frame by itself: it turns points into a mesh and smooths nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from threadpoolctl import threadpool_limits

from usthand.fit.detector_joints import DetectorJoints
from usthand.fit.evidence import PointTerm
from usthand.fit.initialisation import inverse_kinematics, likely_shape
from usthand.fit.kinematics import Articulation, HandState, articulation
from usthand.fit.objective import Energy, minimise
from usthand.fit.sequence import START_STD_M, FitConfig, fit_prior
from usthand.geometry.robust_triangulation import interpolate_gaps
from usthand.hand.model import HandModel

STEPS = 12  # of Levenberg-Marquardt; more change nothing
VERTEX_CHUNK = 256  # frames skinned at once


class FittedMesh(NamedTuple):
    """A right hand over time, world, metres."""

    pose: Float[np.ndarray, "T 48"]
    shape: Float[np.ndarray, "S"]
    translation_m: Float[np.ndarray, "T 3"]
    vertices_world_m: Float[np.ndarray, "T vertices 3"]


def fit_mesh(
    hand: HandModel,
    joints_world_m: Float[np.ndarray, "T 21 3"],
    seen: Bool[np.ndarray, "T 21"],
    covariance_m2: Float[np.ndarray, "T 21 3 3"] | float = 0.0,
    detector: DetectorJoints | None = None,
) -> FittedMesh:
    """Fit the mesh to joints, frame by frame, by least squares, with one shape from the bone lengths.

    Args:
        hand: A right hand in float64.
        joints_world_m: Joints of a right hand, metres.
        seen: Joints that are measured. The others are interpolated in time, and matter only where nothing else does.
        covariance_m2: Of the joints, beside `START_STD_M` of the model's own.
        detector: Where the joints lie on the hand; where the model has them if None.
    """
    model = articulation(hand)
    joints = (
        interpolate_gaps(torch.from_numpy(joints_world_m), torch.from_numpy(seen)).numpy()
        if seen.any()
        else joints_world_m
    )
    prior = replace(fit_prior(model, FitConfig(), detector, timeless=True), offset_precision=None)
    offsets = prior.offset_mean_m
    state = inverse_kinematics(model, joints, likely_shape(model, joints, seen, covariance_m2, offsets), offsets)
    covariance = np.broadcast_to(covariance_m2 + START_STD_M**2 * np.eye(3), (*joints.shape, 3))
    root = np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-1, -2)
    energy = Energy(model, prior, [PointTerm(joints, root, detected=True)])
    with threadpool_limits(1, "blas"):  # thousands of small products: threads cost more than they bring
        state = minimise(energy, state, STEPS, fixed_shared=True)
    return skinned(hand, model, state)


def skinned(hand: HandModel, model: Articulation, state: HandState) -> FittedMesh:
    """The mesh of every frame of a state."""
    pose, translation_m = model.pose(state), model.translation_m(state)
    shaped = hand.with_shape(torch.as_tensor(state.shape, dtype=torch.float64))
    out = []
    with torch.no_grad():
        for at in range(0, len(pose), VERTEX_CHUNK):
            part = slice(at, at + VERTEX_CHUNK)
            rotations = hand.rotations(torch.from_numpy(pose[part]), flat_hand_mean=True)
            out.append(shaped.with_pose(rotations, torch.from_numpy(translation_m[part])).vertices.numpy())
    return FittedMesh(pose, state.shape, translation_m, np.concatenate(out))
