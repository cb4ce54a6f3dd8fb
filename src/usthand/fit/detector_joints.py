"""Where a detector's joints lie on our hand: what is known of it before any image of a person is seen.

A detector's joint is the hand model's plus a displacement that all views share::

    d(t) = s * (mean + a + b(t)),   a ~ N(0, subject_cov), constant,   b(t) ~ N(0, pose_cov),
    correlation of b(t) and b(u): exp(-|t - u| / memory)

`s` is the hand's relative size, its palm's length over that of the mean shape (`relative_size`). Components are along
the axes of `bone_frames`, fixed to the bone that ends in the joint, so they mean the same in every pose and on both
hands.

Numbers come with the package for MediaPipe. They combine renders with anatomy (`benchmarks/detector_joints.py`,
docs/development/detector-joints.md). Legend: J = 21 joints in OpenPose's order.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float

from usthand.fit.kinematics import BONE_TURN, Articulation
from usthand.hand.limits import TWIST, palm_directions
from usthand.hand.skeleton import JOINTS, MANO_PARENTS, N_JOINTS, palm_length

MEDIAPIPE = "mediapipe"
_FILE_OF = {MEDIAPIPE: MEDIAPIPE, "holistic-csv": MEDIAPIPE, "synthetic-biased": MEDIAPIPE}
"""By the name in the labels. MediaPipe's whole-body model uses the same hand landmarks; the noise model imitates it."""
_IDEAL = ("synthetic", "synthetic-exact")
"""Noise levels that place the model's own joints."""


@dataclass(frozen=True)
class DetectorJoints:
    """Displacements of a detector's joints from the hand model's, of a hand of mean size, along `bone_frames`."""

    name: str
    """The detector's, as labels state it."""
    mean_m: Float[np.ndarray, "J 3"]
    """Of all people and poses."""
    subject_cov_m2: Float[np.ndarray, "J 3 3"]
    """Of what is constant for a person."""
    pose_cov_m2: Float[np.ndarray, "J 3 3"]
    """Of what changes with the pose."""
    memory_s: float
    """Seconds after which the correlation of what changes has fallen to 1/e."""

    @property
    def ideal(self) -> bool:
        """Whether its joints are the model's."""
        return not (self.mean_m.any() or self.subject_cov_m2.any() or self.pose_cov_m2.any())

    def scaled(self, size: float) -> DetectorJoints:
        """Those of a hand of this relative size."""
        return replace(
            self,
            mean_m=size * self.mean_m,
            subject_cov_m2=size**2 * self.subject_cov_m2,
            pose_cov_m2=size**2 * self.pose_cov_m2,
        )


def load_detector_joints(detector: str) -> DetectorJoints:
    """What is known of a detector's joints, by the `detector` of its labels.

    Synthetic labels that place the model's joints have no displacement at all. An unknown detector is expected half way
    from the model's joints to MediaPipe's, with either one standard deviation away.

    Args:
        detector: Such as "mediapipe"; any name is allowed.

    Examples:
        >>> from usthand.fit.detector_joints import load_detector_joints
        >>> 1000 * load_detector_joints("mediapipe").mean_m[8]  # index tip: across, dorsal, along its bone, mm
    """
    zero = np.zeros((N_JOINTS, 3, 3))
    if detector in _IDEAL:
        return DetectorJoints(detector, zero[:, 0], zero, zero, 1.0)
    known = _read(_FILE_OF.get(detector, MEDIAPIPE))
    if detector in _FILE_OF:
        return replace(known, name=detector)
    half = known.mean_m / 2
    between = half[:, :, None] * half[:, None, :]
    return replace(known, name=detector, mean_m=half, subject_cov_m2=known.subject_cov_m2 + between)


@cache
def _read(name: str) -> DetectorJoints:
    file = resources.files("usthand.fit") / "data" / f"{name}.toml"
    data = tomllib.loads(file.read_text())
    mean, subject, pose = (
        np.array([data["joints"][joint][key] for joint in JOINTS], dtype=np.float64)
        for key in ("mean_mm", "subject_mm2", "pose_mm2")
    )
    for values in (mean, subject, pose):
        values.setflags(write=False)  # shared by all who ask
    return DetectorJoints(name, 1e-3 * mean, 1e-6 * subject, 1e-6 * pose, float(data["memory_s"]))


def bone_frames(hand: Articulation) -> Float[np.ndarray, "J 3 3"]:
    """Unit axes (rows) at rest in which displacements are stated: across, dorsal, along.

    Of a joint at the end of a finger's bone they are the anatomical axes of that bone
    (`usthand.hand.limits.anatomical_axes`): flexion axis, abduction axis, from joint to tip. Of the wrist, the knuckles
    and the thumb's base they are the palm's: towards the thumb's side, out of the back of the hand, from the wrist to
    the knuckles. In frame t the displacement of components d is ``bone_turns[t, j] @ bone_frames[j].T @ d``. Those of a
    left hand are the mirror images, so that the same components mean the same place.
    """
    left = _is_left(hand)
    mirror = np.array([-1.0, 1.0, 1.0]) if left else np.ones(3)
    palmar, _ = palm_directions(hand.joint * mirror)
    knuckles = (hand.joint[[1, 4, 7, 10]].mean(0) - hand.joint[0]) * mirror
    along = knuckles / np.linalg.norm(knuckles)
    palm = np.stack([np.cross(along, palmar), -palmar, along]) * mirror
    # Rotation axes of a left hand are mirrored as rotations are, which turns them the other way than arrows.
    bones = -hand.axes if left else hand.axes
    return np.concatenate([palm[None], bones])[BONE_TURN]


def _is_left(hand: Articulation) -> bool:
    """Whether the twist axes point from tip to joint, as the mirrored rotations of a left hand have them."""
    first = [joint for joint in range(1, len(MANO_PARENTS)) if MANO_PARENTS[joint] == 0]
    bone = hand.joint[[joint + 1 for joint in first]] - hand.joint[first]
    return bool((hand.axes[[joint - 1 for joint in first], TWIST] * bone).sum() < 0)


def relative_size(hand: Articulation, shape: Float[np.ndarray, "S"]) -> float:
    """The palm's length, wrist to middle knuckle, over that of the mean shape."""
    return float(palm_length(hand.rest_joints(shape)) / palm_length(hand.rest_joints(np.zeros_like(shape))))
