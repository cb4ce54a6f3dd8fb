"""A hand as 20 sticks with thickness: fast forward kinematics and self-contact, for composing poses.

Works on finger angles (15 joints x flexion, abduction, twist) in the hand's own frame, the wrist still. It takes a
hand's rest joints and knows nothing of its mesh; joints agree with the hand model's, tips up to its blend shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from usthand.geometry.rotations import rotation_matrix
from usthand.hand.limits import LIMITS_RAD, anatomical_axes
from usthand.hand.model import HandModel
from usthand.hand.skeleton import MANO_TO_OPENPOSE, inverse_order

MANO_FINGERS = ("index", "middle", "little", "ring", "thumb")  # order of MANO's finger joints, three each
FINGER_OF = {name: k for k, name in enumerate(MANO_FINGERS)}
_TIP_OF_MANO_FINGER = (17, 18, 20, 19, 16)  # MANO's tips come thumb to little, after its 16 joints

# Radii of the phalanges, base to tip, over the length wrist to middle knuckle (about 90 mm in an adult).
_FINGER_RADIUS = np.array([0.100, 0.088, 0.078])
_THUMB_RADIUS = np.array([0.130, 0.108, 0.098])
_PALM_RADIUS = 0.125
SOFTNESS = 0.85  # flesh gives: capsules count as touching at this part of their radii


@dataclass(frozen=True)
class Kinematics:
    """Rest skeleton of one subject. Metres, the hand's rest frame, origin at the root joint."""

    base: np.ndarray  # (5, 3) first joint of each finger
    bone: np.ndarray  # (5, 3, 3) from each finger joint to the next, the last to the tip
    axes: np.ndarray  # (15, 3, 3) rows: flexion, abduction, twist
    palm_length_m: float  # wrist to middle knuckle
    frame: np.ndarray  # (3, 3) rows: radial (to the thumb's side), distal, palmar
    radial_sign: np.ndarray  # (5,) sign of the base joint's abduction that moves the finger to the thumb's side

    @property
    def radius_m(self) -> np.ndarray:
        """Radii of the 15 phalanges (5, 3)."""
        radius = np.repeat(_FINGER_RADIUS[None], 5, 0)
        radius[FINGER_OF["thumb"]] = _THUMB_RADIUS
        return radius * self.palm_length_m

    def joints(self, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finger points and phalanx rotations for angles (..., 15, 3): (..., 5, 4, 3) m and (..., 5, 3, 3, 3)."""
        local = rotation_matrix(np.einsum("...ja,jax->...jx", angles, self.axes))
        local = local.reshape(*local.shape[:-3], 5, 3, 3, 3)
        turn = [local[..., 0, :, :]]
        turn.append(turn[0] @ local[..., 1, :, :])
        turn.append(turn[1] @ local[..., 2, :, :])
        points = [np.broadcast_to(self.base, (*turn[0].shape[:-2], 3))]
        for k in range(3):
            points.append(points[-1] + np.einsum("...ij,...j->...i", turn[k], self.bone[:, k]))
        return np.stack(points, axis=-2), np.stack(turn, axis=-3)

    def rest_angles(self) -> tuple[np.ndarray, np.ndarray]:
        """How the rest pose bends against the palm: flexions (5, 3) and leans to the thumb's side (5,), radians."""
        radial, distal, palmar = np.moveaxis(self.bone @ self.frame.T, -1, 0)
        droop = np.arctan2(palmar, np.hypot(radial, distal))
        return np.diff(droop, axis=1, prepend=0.0), np.arctan2(radial, distal)[:, 0]

    def palmar(self, turn: np.ndarray) -> np.ndarray:
        """Unit normals of the phalanges' palmar (pad) side: rotations (..., 5, 3, 3, 3) -> (..., 5, 3, 3)."""
        flexion = self.axes[:, 0].reshape(5, 3, 3)
        normal = np.cross(flexion, self.bone)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        return np.einsum("...fkij,fkj->...fki", turn, normal)

    def pads(self, points: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where fingertips touch, from what `joints` gives: points (..., 5, 3) m and outward normals (..., 5, 3)."""
        normal = self.palmar(turn)[..., 2, :]
        along = points[..., 3, :] - points[..., 2, :]
        along /= np.linalg.norm(along, axis=-1, keepdims=True)
        radius = self.radius_m[:, 2:]
        return points[..., 3, :] - radius * along + SOFTNESS * radius * normal, normal

    def capsules(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Starts, ends (..., 19, 3) and radii (19,) of phalanges, finger by finger, and metacarpals."""
        radius = self.radius_m
        end = points[..., 1:, :].copy()
        along = end[..., 2, :] - points[..., 2, :]
        length = np.linalg.norm(along, axis=-1, keepdims=True)
        end[..., 2, :] -= along / length * radius[:, 2:]
        lead = points.shape[:-3]
        palm = np.broadcast_to(self.base[:4], (*lead, 4, 3))
        start = np.concatenate([points[..., :3, :].reshape(*lead, 15, 3), 0.15 * palm], axis=-2)
        end = np.concatenate([end.reshape(*lead, 15, 3), palm], axis=-2)
        return start, end, np.concatenate([radius.ravel(), np.full(4, _PALM_RADIUS * self.palm_length_m)])

    def penetration_m(self, angles: np.ndarray) -> np.ndarray:
        """How deep each of `PAIRS` of capsules overlaps, softened: angles (..., 15, 3) -> (..., n_pairs), >= 0."""
        return self.overlap_m(self.joints(angles)[0])

    def overlap_m(self, points: np.ndarray) -> np.ndarray:
        """As `penetration_m`, from the finger points (..., 5, 4, 3) that `joints` gives."""
        start, end, radius = self.capsules(points)
        a, b = PAIRS.T
        gap = segment_distance(start[..., a, :], end[..., a, :], start[..., b, :], end[..., b, :])
        return np.maximum(0.0, SOFTNESS * (radius[a] + radius[b]) - gap)


def _pairs() -> np.ndarray:
    """Capsules that can collide: phalanges of different fingers, and the outer ones with the palm.

    What always touches is left out: bases of neighbouring fingers, and the thumb's base with all around it.
    """
    pairs = []
    thumb = FINGER_OF["thumb"]
    for i in range(15):
        for j in range(i + 1, 15):
            (f, a), (g, b) = divmod(i, 3), divmod(j, 3)
            web = (a == 0 and b == 0) or (thumb in (f, g) and (a if f == thumb else b) == 0)
            if f != g and not web:
                pairs.append((i, j))
        if i % 3 == 2:
            pairs.extend((i, 15 + m) for m in range(4))
    return np.array(pairs)


PAIRS = _pairs()


def kinematics(hand: HandModel, shape: np.ndarray) -> Kinematics:
    """The sticks of a right hand of the given shape (10,)."""
    dtype = hand.v_template.dtype
    shaped = hand.with_shape(torch.as_tensor(shape, dtype=dtype)[None])
    eye = torch.eye(3, dtype=dtype).expand(1, 16, 3, 3)
    joints = shaped.with_pose(eye, torch.zeros(1, 3, dtype=dtype)).joints[0].double().numpy()
    mano = joints[list(inverse_order(MANO_TO_OPENPOSE))]
    mano = mano - mano[0]
    points = np.concatenate([mano[1:16].reshape(5, 3, 3), mano[list(_TIP_OF_MANO_FINGER)][:, None]], axis=1)
    axes = np.asarray(anatomical_axes(hand), float).reshape(15, 3, 3)
    bone = np.diff(points, axis=1)
    base = points[:, 0]
    distal = base[FINGER_OF["middle"]] / np.linalg.norm(base[FINGER_OF["middle"]])
    radial = base[FINGER_OF["index"]] - base[FINGER_OF["little"]]
    radial -= (radial @ distal) * distal
    radial /= np.linalg.norm(radial)
    palmar = np.cross(radial, distal)
    first = 3 * np.arange(4)
    if (np.cross(axes[first, 0], bone[:4, 0]) @ palmar).sum() < 0:
        palmar = -palmar
    sideways = np.cross(axes[3 * np.arange(5), 1], bone[:, 0]) @ radial
    return Kinematics(
        base=base,
        bone=bone,
        axes=axes,
        palm_length_m=float(np.linalg.norm(base[FINGER_OF["middle"]])),
        frame=np.stack([radial, distal, palmar]),
        radial_sign=np.where(sideways >= 0, 1.0, -1.0),
    )


def limits_rad() -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest angles, each (15, 3)."""
    limits = np.asarray(LIMITS_RAD, float)
    return limits[..., 0], limits[..., 1]


def segment_distance(a0: np.ndarray, a1: np.ndarray, b0: np.ndarray, b1: np.ndarray) -> np.ndarray:
    """Least distance between segments (..., 3): closest points as in Ericson, Real-Time Collision Detection, 5.1.9."""
    u, v, w = a1 - a0, b1 - b0, a0 - b0
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    tiny = 1e-12
    s = np.clip((uv * vw - vv * uw) / np.maximum(uu * vv - uv * uv, tiny), 0, 1)
    t = np.clip((uv * s + vw) / np.maximum(vv, tiny), 0, 1)
    s = np.clip((uv * t - uw) / np.maximum(uu, tiny), 0, 1)
    return np.linalg.norm(w + s[..., None] * u - t[..., None] * v, axis=-1)
