"""Pose blend shapes, natural poses and their principal components, for the embedded hand."""

from __future__ import annotations

import numpy as np
import torch

from embedded_hand.anatomy import MM, Skeleton
from embedded_hand.flesh import Flesh
from embedded_hand.skinning import adjacency, smooth
from usthand.geometry.rotations import rotation_from_axis_angle
from usthand.hand.limits import FREE, LIMITS_RAD
from usthand.hand.model import forward_kinematics

N_POSES = 400
RIDGE = 1e-2
MAX_OFFSET_M = 7 * MM


def bone_transforms(skeleton: Skeleton, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (16, 3, 3) and shifts (16, 3) that carry rest points to the pose (45,) of the fingers."""
    full = torch.from_numpy(np.concatenate((np.zeros(3), pose)).reshape(16, 3))
    rest = torch.from_numpy(skeleton.joints)
    world, centres = forward_kinematics(rest, rotation_from_axis_angle(full))
    return world.numpy(), (centres - (world @ rest[..., None])[..., 0]).numpy()


def pose_directions(
    points: np.ndarray, faces: np.ndarray, weights: np.ndarray, skeleton: Skeleton, flesh: Flesh, axes: np.ndarray
) -> np.ndarray:
    """(n, 3, 135) pose blend shapes.

    Each joint alone is bent through its range; skinned vertices near it are carried on to the flesh of the bent hand,
    and the way there, taken back to the rest pose, is regressed on the nine entries of the joint's rotation less the
    identity (ridge). The sum over joints then keeps the volume that plain skinning loses.
    """
    edges = adjacency(len(points), faces)
    directions = np.zeros((len(points), 3, 15, 9))
    for joint in range(15):
        near = _flesh_near(flesh, joint)
        mixed = np.flatnonzero(_mixing(weights, joint + 1) > 0.02)
        still = _way_to_flesh(points[mixed], weights[mixed], near, *bone_transforms(skeleton, np.zeros(45)))
        features, offsets = [], []
        for angles in _joint_samples(joint):
            pose = np.zeros((15, 3))
            pose[joint] = axes[joint].T @ angles
            rotations, shifts = bone_transforms(skeleton, pose.ravel())
            offsets.append(_way_to_flesh(points[mixed], weights[mixed], near, rotations, shifts) - still)
            features.append(rotation_from_axis_angle(torch.from_numpy(pose[joint])).numpy().ravel() - np.eye(3).ravel())
        x, y = np.stack(features), np.stack(offsets).reshape(len(offsets), -1)
        fitted = np.linalg.solve(x.T @ x + RIDGE * np.eye(9), x.T @ y)
        directions[mixed, :, joint] = fitted.reshape(9, len(mixed), 3).transpose(1, 2, 0)
    flat = smooth(directions.reshape(len(points), -1), edges, 2, 0.35)
    return flat.reshape(len(points), 3, 135)


def _flesh_near(flesh: Flesh, joint: int) -> Flesh:
    """What can touch the skin around a joint: its finger, and the palm too for the first joints and the thumb."""
    finger, level = divmod(joint, 3)
    return Flesh(flesh.palm if level == 0 or finger == 4 else (), flesh.fingers[finger : finger + 1])


def _mixing(weights: np.ndarray, joint: int) -> np.ndarray:
    """How much a vertex lies between a joint's bone and the rest of the hand: zero on rigid parts."""
    below = weights[:, joint : joint + 3 - (joint - 1) % 3].sum(-1)
    return below * (1 - below)


def _joint_samples(joint: int) -> np.ndarray:
    """Angles (m, 3) through the range of one joint, radians."""
    low, high = LIMITS_RAD[joint].numpy().T
    flexion = np.linspace(low[0], high[0], 8)
    samples = [np.array((f, a, t)) for f in flexion for a in (low[1], 0.0, high[1]) for t in (0.0, high[2])]
    free = {axis for j, axis in FREE if j == joint}
    return np.unique(np.stack([s * [k in free for k in range(3)] for s in samples]), axis=0)


def _way_to_flesh(
    points: np.ndarray, weights: np.ndarray, flesh: Flesh, rotations: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Rest-frame offsets (m, 3) that bring skinned points on to the posed flesh, at most `MAX_OFFSET_M`."""
    linear = np.einsum("nj,jab->nab", weights, rotations)
    skinned = np.einsum("nab,nb->na", linear, points) + weights @ shifts
    way = flesh.project(skinned, rotations, shifts, iterations=4) - skinned
    length = np.sqrt((way**2).sum(-1, keepdims=True))
    way = way * np.minimum(1.0, MAX_OFFSET_M / np.maximum(length, 1e-9))
    # The blended linear part of two bones far apart shrinks; its inverse would magnify, so the nearest rotation serves.
    u, _, vt = np.linalg.svd(linear)
    return np.einsum("nba,nb->na", u @ vt, way)


def natural_poses(axes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 45) finger poses drawn from a few synergies: closing, spreading, single fingers, the thumb's opposition.

    After Santello, Flanders, Soechting, "Postural hand synergies for tool use", J. Neurosci. 18(23), 1998: closing all
    fingers together is the first synergy, and the two outer joints of a finger bend together (about two to three).
    """
    low, high = LIMITS_RAD[..., 0].numpy(), LIMITS_RAD[..., 1].numpy()
    angles = np.zeros((N_POSES, 15, 3))
    closing = rng.beta(1.2, 2.0, N_POSES)
    spread = rng.normal(0, 1, N_POSES)
    for f, slot in enumerate((1.0, 0.0, -1.3, -0.5)):
        own = np.clip(closing + 0.18 * rng.normal(size=N_POSES), -0.1, 1)
        curl = np.clip(closing + 0.2 * rng.normal(size=N_POSES), 0, 1)
        angles[:, 3 * f, 0] = np.deg2rad(80) * own + np.deg2rad(5) * rng.normal(size=N_POSES)
        angles[:, 3 * f, 1] = np.deg2rad(6) * slot * spread * (1 - own) + np.deg2rad(2) * rng.normal(size=N_POSES)
        angles[:, 3 * f + 1, 0] = np.deg2rad(95) * curl + np.deg2rad(4) * rng.normal(size=N_POSES)
        angles[:, 3 * f + 2, 0] = 0.6 * angles[:, 3 * f + 1, 0] + np.deg2rad(5) * rng.normal(size=N_POSES)
    oppose = np.clip(0.5 * closing + 0.3 * rng.normal(size=N_POSES), -0.2, 1)
    angles[:, 12, 0] = np.deg2rad(25) * oppose + np.deg2rad(6) * rng.normal(size=N_POSES)
    angles[:, 12, 1] = np.deg2rad(20) * oppose + np.deg2rad(8) * rng.normal(size=N_POSES)
    angles[:, 12, 2] = np.deg2rad(20) * oppose
    angles[:, 13, 0] = np.deg2rad(30) * np.clip(oppose, 0, 1) + np.deg2rad(6) * rng.normal(size=N_POSES)
    angles[:, 14, 0] = np.deg2rad(40) * np.clip(oppose, 0, 1) + np.deg2rad(8) * rng.normal(size=N_POSES)
    angles = np.clip(angles, low, high)
    return np.einsum("jac,nja->njc", axes, angles).reshape(N_POSES, 45)


def principal_components(poses: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal components (45, 45), rows by falling variance, and the poses' coefficients (n, 45)."""
    # The directions that never occur would be arbitrary: a trace of isotropic variance, growing by axis, orders them.
    covariance = (poses - mean).T @ (poses - mean) / len(poses) + np.diag(np.linspace(2e-6, 1e-6, 45))
    _, vectors = np.linalg.eigh(covariance)
    components = vectors.T[::-1]
    strongest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    components = components * np.sign(strongest)
    return components, (poses - mean) @ components.T
