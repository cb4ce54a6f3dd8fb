"""A synthetic detector's own joints: the hand model's, displaced alike in all views.

Of each joint j, along the axes of its bone (`usthand.fit.detector_joints`)::

    d_j = s * (mean_j + subject_cov_j^1/2 a_j + pose_cov_j^1/2 b_j(pose))

- ``s`` is the hand's relative size; mean and covariances are those measured of MediaPipe.
- ``a`` are unit Gaussians drawn for each capture, partly shared by the whole hand.
- ``b`` are fixed smooth random functions, the detector's own: the same pose meets the same displacement whenever it
  returns. One is a function of all bends and shared by the hand, the others are of the finger's bends. Over the poses
  of the library each has mean 0 and variance 1.

The truth stays the model's joints.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from usthand.datasets.synthetic.kinematics import kinematics
from usthand.datasets.synthetic.motion import finger_pose
from usthand.datasets.synthetic.noise import DETECTOR_SEED, FINGER_OF_JOINT, fourier_features
from usthand.datasets.synthetic.poses import library
from usthand.fit.detector_joints import bone_frames, load_detector_joints, relative_size
from usthand.fit.kinematics import BONE_TURN, articulation
from usthand.hand.io import load_hand
from usthand.hand.skeleton import FINGERS, MANO_TO_OPENPOSE, N_JOINTS

# Measured on renders (docs/development/detector-joints.md): what differs between subjects correlates by .3 between
# joints side by side, of one finger or of two; what changes with the pose by .7 within a finger and .4 between fingers.
SUBJECT_SHARED_HAND = 0.3
POSE_SHARED_HAND, POSE_SHARED_FINGER = 0.4, 0.3
BEND_SCALE_RAD = 0.3
"""Poses whose bends differ by this (root mean square) have displacements that correlate by exp(-1/2)."""


def displaced_joints(
    joints_world_m: np.ndarray, pose: np.ndarray, shape: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Where the detector sees the joints of a right hand, (T, 21, 3), world, metres.

    Args:
        joints_world_m: The hand model's, (T, 21, 3).
        pose: Axis-angle about the flat hand, (T, 48).
        shape: (10,).
        rng: Source of what is the subject's own.
    """
    hand = load_hand(dtype=torch.float64)
    parts = articulation(hand)
    known = load_detector_joints("synthetic-biased").scaled(relative_size(parts, np.asarray(shape, np.float64)))
    with torch.no_grad():
        rotations = hand.rotations(torch.as_tensor(pose, dtype=torch.float64), flat_hand_mean=True)
        turns = hand.skeleton_model().with_shape(torch.zeros(10).double()).with_pose(rotations).world_rotations.numpy()
    of_subject = np.sqrt(SUBJECT_SHARED_HAND) * rng.normal(size=(1, 3))
    of_subject = of_subject + np.sqrt(1 - SUBJECT_SHARED_HAND) * rng.normal(size=(N_JOINTS, 3))
    of_pose = pose_field(np.asarray(pose, np.float64))
    components = known.mean_m + _times(_root(known.subject_cov_m2), of_subject)
    components = components + _times(_root(known.pose_cov_m2), of_pose)
    frames = turns[:, BONE_TURN] @ bone_frames(parts).swapaxes(1, 2)
    return joints_world_m + _times(frames, components)


def pose_field(pose: np.ndarray) -> np.ndarray:
    """Three fixed functions per joint, (T, 21, 3), of the bends in the pose (T, 48)."""
    bends = pose[:, 3:].reshape(len(pose), 15, 3)
    whole = _functions(bends, list(range(15)), 1, 0)
    out = np.empty((len(pose), N_JOINTS, 3))
    for finger in range(6):  # 0 is the wrist
        joints = FINGER_OF_JOINT == finger
        own = _functions(bends, _bends_of(finger), 1 + int(joints.sum()), 1 + finger)
        out[:, joints] = (
            np.sqrt(POSE_SHARED_HAND) * whole
            + np.sqrt(POSE_SHARED_FINGER) * own[:, :1]
            + np.sqrt(1 - POSE_SHARED_HAND - POSE_SHARED_FINGER) * own[:, 1:]
        )
    return out


def _functions(bends: np.ndarray, of: list[int], count: int, stream: int) -> np.ndarray:
    """`count` functions of three values each, (T, count, 3), of some of the bends (T, 15, 3)."""
    rng = np.random.default_rng((DETECTOR_SEED, stream))
    known = np.concatenate([_library_bends(), bends])[:, of]
    features = fourier_features(known.reshape(len(known), -1), BEND_SCALE_RAD * np.sqrt(len(of)), rng)
    value = np.tensordot(features, rng.normal(size=(features.shape[1], count, 3)), axes=1)
    usual = value[: -len(bends)]
    return (value[-len(bends) :] - usual.mean(0)) / usual.std(0)


@cache
def _library_bends() -> np.ndarray:
    """Bends (poses, 15, 3) of the library's poses, of the mean hand."""
    kin = kinematics(load_hand(), np.zeros(10))
    return np.stack([finger_pose(kin, angles) for angles in library(kin).values()]).reshape(-1, 15, 3)


def _bends_of(finger: int) -> list[int]:
    """The three bends of a finger, 1 to 5 thumb to little, among MANO's 15; of the wrist, all."""
    if finger == 0:
        return list(range(15))
    return [MANO_TO_OPENPOSE[joint] - 1 for joint in list(FINGERS.values())[finger - 1][:3]]


def _root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric square roots (..., 3, 3)."""
    value, vector = np.linalg.eigh(covariance)
    return (vector * np.sqrt(np.maximum(value, 0))[..., None, :]) @ vector.swapaxes(-1, -2)


def _times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return (matrix @ vector[..., None])[..., 0]
