"""A hand of any mesh and skeleton with MANO's tree of joints, by linear blend skinning.

Finger angles are (flexion, abduction, twist) about axes from its own rest skeleton, in MANO's order of joints, as our
hand model's are; there are no blend shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usthand.datasets.synthetic.kinematics import FINGER_OF, MANO_FINGERS, Kinematics
from usthand.datasets.synthetic.surface import HandSurface, Stump, boundary_loop, palm_frame
from usthand.geometry.rotations import rotation_matrix
from usthand.hand.limits import axes_from_skeleton
from usthand.hand.skeleton import FINGERS, MANO_TO_OPENPOSE, inverse_order

_BONE_OF_JOINT = [1 + mano if mano < 16 else 1 + MANO_TO_OPENPOSE[j - 1] for j, mano in enumerate(MANO_TO_OPENPOSE)]
THUMB = 3 * FINGER_OF["thumb"]


@dataclass(frozen=True)
class SkinnedHand:
    """One person's right hand at rest, metres, the wrist joint at the origin.

    17 bones: the forearm, if the mesh has a piece of it, the hand with its metacarpals, and MANO's 15 finger joints in
    MANO's order. Tips move with the last bones.
    """

    faces: np.ndarray  # (F, 3)
    rest_m: np.ndarray  # (N, 3)
    weights: np.ndarray  # (N, 17), rows sum to one
    joints_m: np.ndarray  # (21, 3)
    arm: np.ndarray  # (3,) unit, from the wrist up the forearm
    axes: np.ndarray  # (15, 3, 3) rows: flexion, abduction, twist; MANO's order

    @property
    def surface(self) -> HandSurface:
        """What the textures and the scene need."""
        frame, joints = palm_frame(self.joints_m), self.joints_m
        dorsal = np.empty((5, 3, 3))
        for mano in range(1, 16):
            joint = MANO_TO_OPENPOSE.index(mano)
            back = np.cross(joints[joint + 1] - joints[joint], self.axes[mano - 1, 0])
            dorsal[(joint - 1) // 4, (joint - 1) % 4] = back / np.linalg.norm(back)
        if not self.weights[:, 0].any():
            return HandSurface(self.faces, self.rest_m, joints, dorsal)
        ring = self.rest_m[boundary_loop(self.faces)]
        radial = frame[0] - (frame[0] @ self.arm) * self.arm
        radial /= np.linalg.norm(radial)
        arm_frame = np.stack([radial, -self.arm, np.cross(radial, -self.arm)])
        return HandSurface(
            self.faces, self.rest_m, joints, dorsal, Stump(ring, arm_frame, float((ring @ self.arm).mean()))
        )

    def sticks(self) -> Kinematics:
        """The skeleton as `Kinematics`, with capsules as thick as this hand's fingers."""
        mano = self.joints_m[list(inverse_order(MANO_TO_OPENPOSE))]
        points = np.stack([self.joints_m[list(FINGERS[name])] for name in MANO_FINGERS])
        frame = palm_frame(self.joints_m)
        middle = FINGER_OF["middle"]
        a, b = points[middle, 1], points[middle, 2]
        own = self.rest_m[self.weights[:, 2 + 3 * middle + 1] > 0.5]
        off = own - a - ((own - a) @ (b - a) / ((b - a) @ (b - a)))[:, None] * (b - a)
        sideways = np.cross(self.axes[::3, 1], points[:, 1] - points[:, 0]) @ frame[0]
        thickness_m = float(np.linalg.norm(off, axis=1).mean())
        return Kinematics(
            base=mano[1:16:3],
            bone=np.diff(points, axis=1),
            axes=self.axes,
            palm_length_m=thickness_m / 0.088,  # what the sticks' radii are multiples of
            frame=frame,
            radial_sign=np.where(sideways >= 0, 1.0, -1.0),
        )

    def pose(
        self, angles: np.ndarray, turn: np.ndarray, wrist: np.ndarray, translation_m: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Skin the hand: vertices (T, N, 3) float32 and joints (T, 21, 3), metres.

        Args:
            angles: Finger angles (T, 15, 3) about `axes`, radians.
            turn: Rotation vectors of the whole hand about its wrist, (T, 3).
            wrist: How the forearm turns against the hand, rotation vectors in the hand's rest frame, (T, 3).
            translation_m: Of the wrist, (T, 3).
        """
        bones = self.bones(angles, turn, wrist, translation_m)
        vertices = np.empty((len(bones), len(self.rest_m), 3), np.float32)
        for out, frame in zip(vertices, bones, strict=True):
            blended = (self.weights @ frame.reshape(-1, 12)).reshape(-1, 3, 4)
            out[:] = (blended[..., :3] @ self.rest_m[..., None])[..., 0] + blended[..., 3]
        joints = np.empty((len(bones), 21, 3))
        for joint, bone in enumerate(_BONE_OF_JOINT):
            joints[:, joint] = bones[:, bone, :, :3] @ self.joints_m[joint] + bones[:, bone, :, 3]
        return vertices, joints

    def bones(self, angles: np.ndarray, turn: np.ndarray, wrist: np.ndarray, translation_m: np.ndarray) -> np.ndarray:
        """Rigid transforms (T, 17, 3, 4) of the bones from rest to the pose; arguments as of `pose`."""
        bones = np.empty((len(angles), 17, 3, 4))
        hand = rotation_matrix(turn)
        bones[:, 1, :, :3], bones[:, 1, :, 3] = hand, translation_m
        bones[:, 0, :, :3], bones[:, 0, :, 3] = hand @ rotation_matrix(wrist), translation_m
        local = rotation_matrix(np.einsum("tja,jax->tjx", angles, self.axes))
        for joint in range(15):
            parent = bones[:, 1 if joint % 3 == 0 else 1 + joint]
            centre = self.joints_m[MANO_TO_OPENPOSE.index(joint + 1)]
            rotation = parent[..., :3] @ local[:, joint]
            bones[:, 2 + joint, :, :3] = rotation
            bones[:, 2 + joint, :, 3] = parent[..., :3] @ centre + parent[..., 3] - rotation @ centre
        return bones


def bend_axes(joints_m: np.ndarray, last_m: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Axes (15, 3, 3) of the finger joints of a rest skeleton (21, 3), rows flexion, abduction, twist; MANO's order.

    A finger faces as the palm does, the thumb where its last phalanx, skin last_m (n, 3), is flattest. tilt (15, 3):
    rotation vectors, radians, by which a person's axes differ from these.
    """
    mano = joints_m[list(inverse_order(MANO_TO_OPENPOSE))]
    axes = axes_from_skeleton(mano[:16], mano[[17, 18, 20, 19, 16]])
    face = _thumb_face(joints_m, last_m)
    axes[THUMB : THUMB + 3] = [_axes_of(joints_m[k + 1] - joints_m[k], face) for k in FINGERS["thumb"][:3]]
    return np.einsum("jab,jkb->jka", rotation_matrix(tilt), axes)


def _thumb_face(joints_m: np.ndarray, last_m: np.ndarray) -> np.ndarray:
    """Where the thumb's pad faces, unit: the direction in which its last phalanx (n, 3) is flattest, inwards."""
    bone = joints_m[4] - joints_m[3]
    bone = bone / np.linalg.norm(bone)
    off = last_m - last_m.mean(0)
    off = off - (off @ bone)[:, None] * bone
    flat = np.linalg.svd(off, full_matrices=False)[2][1]
    inwards = joints_m[17] - joints_m[5]
    return flat * np.sign(flat @ inwards)


def _axes_of(bone: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Axes (3, 3) of a joint whose bone faces somewhere, as `axes_from_skeleton` has them."""
    bone = bone / np.linalg.norm(bone)
    flexion = np.cross(bone, face)
    flexion /= np.linalg.norm(flexion)
    return np.stack([flexion, np.cross(bone, flexion), bone])
