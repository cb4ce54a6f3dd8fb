"""Where the fit starts: a hand on triangulated joints in closed form, frame by frame.

The shape follows from the median bone lengths, the palm from rigid alignment. Then, in every finger from base to tip, a
joint turns by the smallest angle that points its bone the right way, within the joint's free axes and limits.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.fit.kinematics import N_SHAPE, Articulation, HandState
from usthand.geometry.rotations import rotation_matrix, similarity_between
from usthand.hand.skeleton import BONES, FINGERS, MANO_TO_OPENPOSE, bone_lengths, median_bone_lengths

PALM = (0, 1, 5, 9, 13, 17)  # joints that move together, nearly
SHAPE_ITERATIONS = 6
BONE_STD_M = 0.004  # of a median bone length from bad labels; makes the unit prior of the shape matter as it should
LIMIT_MARGIN_RAD = 0.02


def metres_per_unit(hand: Articulation, points: Float[np.ndarray, "T 21 3"], seen: Bool[np.ndarray, "T 21"]) -> float:
    """Metres in the points' unit for a hand of mean size, from median bone lengths; 1 if no bone is seen."""
    length, known = median_bone_lengths(points, seen)
    if not known.any():
        return 1.0
    mean = bone_lengths(hand.rest_joints(np.zeros(N_SHAPE)))
    return float(mean[known].sum() / max(length[known].sum(), 1e-12))


def median_shape(
    hand: Articulation, points: Float[np.ndarray, "T 21 3"], seen: Bool[np.ndarray, "T 21"]
) -> Float[np.ndarray, "S"]:
    """Shape whose bones have the median lengths, by Gauss-Newton with a unit Gaussian prior; zero if none is seen."""
    target, known = median_bone_lengths(points, seen)
    parent, child = np.array(BONES).T
    by_shape = hand.rest_joints_by_shape()
    shape = np.zeros(N_SHAPE)
    for _ in range(SHAPE_ITERATIONS):
        rest = hand.rest_joints(shape)
        bone = rest[child] - rest[parent]
        length = np.linalg.norm(bone, axis=-1)
        rows = np.einsum("bi,bis->bs", bone / length[:, None], by_shape[child] - by_shape[parent])[known] / BONE_STD_M
        residual = (target - length)[known] / BONE_STD_M
        shape = np.linalg.solve(rows.T @ rows + np.eye(N_SHAPE), rows.T @ (residual + rows @ shape))
    return shape


def inverse_kinematics(
    hand: Articulation, points: Float[np.ndarray, "T 21 3"], shape: Float[np.ndarray, "S"]
) -> HandState:
    """The pose of a hand of this shape for finite joints, each frame by itself, without iterations."""
    rest = hand.rest_joints(shape)
    palm = list(PALM)
    source = torch.from_numpy(np.broadcast_to(rest[palm], (len(points), len(palm), 3)).copy())
    root = similarity_between(source, torch.from_numpy(np.ascontiguousarray(points[:, palm])), scale=False)[1].numpy()
    # The wrist is the least accurate of all labels, so the palm's mean places the hand.
    wrist = points[:, palm].mean(1) - (root @ rest[palm].mean(0))
    angles = np.zeros((len(points), 15, 3))
    free = np.zeros((15, 3), bool)
    low, high = np.zeros((15, 3)), np.zeros((15, 3))
    for (joint, axis), least, most in zip(hand.free, hand.low, hand.high, strict=True):
        free[joint, axis], low[joint, axis], high[joint, axis] = True, least, most
    for chain in FINGERS.values():
        turn = root
        for near, far in pairwise(chain):
            joint = MANO_TO_OPENPOSE[near] - 1
            wanted = np.einsum("tji,tj->ti", turn, points[:, far] - points[:, near])
            swing = _smallest_turn(rest[far] - rest[near], wanted) @ hand.axes[joint].T
            angles[:, joint] = np.clip(np.where(free[joint], swing, 0.0), low[joint], high[joint])
            turn = turn @ rotation_matrix(angles[:, joint] @ hand.axes[joint])
    chosen = np.array([angles[:, joint, axis] for joint, axis in hand.free]).T.reshape(len(points), -1)
    margin = np.minimum(LIMIT_MARGIN_RAD, 0.25 * (hand.high - hand.low))
    return HandState(root, wrist, np.clip(chosen, hand.low + margin, hand.high - margin), shape.copy())


def _smallest_turn(source: Float[np.ndarray, "3"], target: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T 3"]:
    """Rotation vectors that point `source` along each `target` without twist."""
    source = source / max(np.linalg.norm(source), 1e-9)
    target = target / np.maximum(np.linalg.norm(target, axis=-1, keepdims=True), 1e-9)
    axis = np.cross(source, target)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (target @ source)[:, None])
    return axis / np.maximum(sine, 1e-9) * angle
