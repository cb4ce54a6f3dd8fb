"""Where the fit starts: a hand on triangulated joints in closed form, frame by frame.

The shape follows from the bone lengths, the palm from rigid alignment. Then, in every finger from base to tip, a
joint turns by the smallest angle that points its bone the right way, within the joint's free axes and limits.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.fit.kinematics import Articulation, HandState
from usthand.geometry.rotations import rotation_matrix, similarity_between
from usthand.hand.skeleton import BONES, FINGERS, MANO_TO_OPENPOSE, N_JOINTS, bone_lengths, median_bone_lengths

PALM = (0, 1, 5, 9, 13, 17)  # joints that move together, nearly
SHAPE_ITERATIONS = 6
BONE_STD_M = 0.004  # of a bone's length from labels that all err alike, beside their own errors
MOST_SHAPE = 3.0  # standard deviations: where the fit may start from
LIMIT_MARGIN_RAD = 0.02


def metres_per_unit(hand: Articulation, points: Float[np.ndarray, "T 21 3"], seen: Bool[np.ndarray, "T 21"]) -> float:
    """Metres in the points' unit for a hand of mean size, from median bone lengths; 1 if no bone is seen."""
    length, known = median_bone_lengths(points, seen)
    if not known.any():
        return 1.0
    mean = bone_lengths(hand.rest_joints(np.zeros(hand.n_shape)))
    return float(mean[known].sum() / max(length[known].sum(), 1e-12))


def likely_shape(
    hand: Articulation,
    points: Float[np.ndarray, "T 21 3"],
    seen: Bool[np.ndarray, "T 21"],
    covariance_m2: Float[np.ndarray, "T 21 3 3"] | float = 0.0,
    offsets_m: Float[np.ndarray, "21 3"] | float = 0.0,
) -> Float[np.ndarray, "S"]:
    """Shape from bone lengths, by Gauss-Newton with a unit Gaussian prior, at most `MOST_SHAPE` from the mean.

    Errors make a bone too long: of ends with covariance C in all, along a bone of length b in direction u, |bone| is
    b + tr((I - uu') C) / 2b in the mean, to second order. That is taken off, and each frame counts by its u'Cu.

    Args:
        hand: The hand whose shape is sought.
        points: Joints as a detector sees them, metres.
        seen: Joints that are measured.
        covariance_m2: Of the points.
        offsets_m: Of the points from the model's joints, as `HandState.offsets_m`.
    """
    parent, child = np.array(BONES).T
    length, std = _likely_lengths(points, seen, np.broadcast_to(covariance_m2, (*points.shape, 3)))
    known = np.isfinite(std)
    by_shape = hand.rest_joints_by_shape()
    shape = np.zeros(hand.n_shape)
    weight = 1 / np.hypot(std[known], BONE_STD_M)
    for _ in range(SHAPE_ITERATIONS):
        rest = hand.rest_joints(shape) + offsets_m
        bone = rest[child] - rest[parent]
        modelled = np.linalg.norm(bone, axis=-1)
        rows = np.einsum("bi,bis->bs", bone / modelled[:, None], by_shape[child] - by_shape[parent])[known]
        rows, residual = rows * weight[:, None], (length - modelled)[known] * weight
        shape = np.linalg.solve(rows.T @ rows + np.eye(hand.n_shape), rows.T @ (residual + rows @ shape))
    return np.clip(shape, -MOST_SHAPE, MOST_SHAPE)


def _likely_lengths(
    points: Float[np.ndarray, "T 21 3"], seen: Bool[np.ndarray, "T 21"], covariance_m2: Float[np.ndarray, "T 21 3 3"]
) -> tuple[Float[np.ndarray, "20"], Float[np.ndarray, "20"]]:
    """Lengths of the bones, less what errors add to them, and their standard deviations; infinite if never seen."""
    parent, child = np.array(BONES).T
    bone = points[:, child] - points[:, parent]
    long = np.maximum(np.linalg.norm(bone, axis=-1), 1e-9)
    both = covariance_m2[:, child] + covariance_m2[:, parent]
    along = np.einsum("tbi,tbij,tbj->tb", bone, both, bone) / long**2
    known = seen[:, parent] & seen[:, child]
    length, std = np.zeros(len(BONES)), np.full(len(BONES), np.inf)
    for b in np.flatnonzero(known.any(0)):
        rows = known[:, b]
        less = long[rows, b] - (both[rows, b].trace(axis1=-2, axis2=-1) - along[rows, b]) / (2 * long[rows, b])
        weight = 1 / (along[rows, b] + BONE_STD_M**2)
        order = np.argsort(less, kind="stable")
        share = np.cumsum(weight[order])
        length[b] = max(less[order][np.searchsorted(share, 0.5 * share[-1])], 0.0)
        # Errors last, so frames do not average them out: the standard deviation of a typical frame.
        std[b] = np.sqrt(np.median(along[rows, b]))
    return length, std


def inverse_kinematics(
    hand: Articulation,
    points: Float[np.ndarray, "T 21 3"],
    shape: Float[np.ndarray, "S"],
    offsets_m: Float[np.ndarray, "21 3"] | None = None,
) -> HandState:
    """The pose of a hand of this shape for finite joints, each frame by itself, without iterations.

    Args:
        hand: The hand to pose.
        points: Joints as a detector sees them, metres.
        shape: Of the hand.
        offsets_m: Of the points from the model's joints, as `HandState.offsets_m`; none by default.
    """
    offsets_m = np.zeros((N_JOINTS, 3)) if offsets_m is None else offsets_m
    rest = hand.rest_joints(shape)
    palm, seen_rest = list(PALM), rest + offsets_m
    source = torch.from_numpy(np.broadcast_to(seen_rest[palm], (len(points), len(palm), 3)).copy())
    root = similarity_between(source, torch.from_numpy(np.ascontiguousarray(points[:, palm])), scale=False)[1].numpy()
    # The wrist is the least accurate of all labels, so the palm's mean places the hand.
    wrist = points[:, palm].mean(1) - (root @ seen_rest[palm].mean(0))
    angles = np.zeros((len(points), 15, 3))
    free = np.zeros((15, 3), bool)
    low, high = np.zeros((15, 3)), np.zeros((15, 3))
    for (joint, axis), least, most in zip(hand.free, hand.low, hand.high, strict=True):
        free[joint, axis], low[joint, axis], high[joint, axis] = True, least, most
    for chain in FINGERS.values():
        turn = root
        before = points[:, chain[0]] - root @ offsets_m[chain[0]]  # of the finger's first joint
        for near, far in pairwise(chain):
            joint = MANO_TO_OPENPOSE[near] - 1
            wanted = np.einsum("tji,tj->ti", turn, points[:, far] - before)
            swing = _smallest_turn(seen_rest[far] - rest[near], wanted) @ hand.axes[joint].T
            angles[:, joint] = np.clip(np.where(free[joint], swing, 0.0), low[joint], high[joint])
            turn = turn @ rotation_matrix(angles[:, joint] @ hand.axes[joint])
            before = points[:, far] - turn @ offsets_m[far]
    chosen = np.array([angles[:, joint, axis] for joint, axis in hand.free]).T.reshape(len(points), -1)
    margin = np.minimum(LIMIT_MARGIN_RAD, 0.25 * (hand.high - hand.low))
    start = np.clip(chosen, hand.low + margin, hand.high - margin)
    return HandState(root, wrist, start, shape.copy(), offsets_m.copy())


def _smallest_turn(source: Float[np.ndarray, "3"], target: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T 3"]:
    """Rotation vectors that point `source` along each `target` without twist."""
    source = source / max(np.linalg.norm(source), 1e-9)
    target = target / np.maximum(np.linalg.norm(target, axis=-1, keepdims=True), 1e-9)
    axis = np.cross(source, target)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (target @ source)[:, None])
    return axis / np.maximum(sine, 1e-9) * angle
