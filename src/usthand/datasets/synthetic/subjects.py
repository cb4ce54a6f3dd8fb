"""Whose hand a synthetic capture shows: its surface at rest, how it moves, and what truth keeps of it.

A kind of subject is a function that draws one person from a random generator. `own` is our hand model. `varied` is that
with bones, palm and fingers in other proportions, as the fit looks for them. `webxr` is
another mesh and skeleton (`usthand.datasets.synthetic.webxr`), which moves as ours does. `foreign` are hands of a third
one in motions of their own (`usthand.datasets.synthetic.foreign`), which nothing that learns may see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from usthand.common.errors import UsthandError
from usthand.datasets.synthetic import webxr
from usthand.datasets.synthetic.foreign import JOINT_DEFINITION, sample_foreign
from usthand.datasets.synthetic.foreign_motion import sample_foreign_motion
from usthand.datasets.synthetic.motion import Motion, finger_motion, sample_motion, sample_shape, turning, wandering
from usthand.datasets.synthetic.poses import grasp as close_around
from usthand.datasets.synthetic.poses import library
from usthand.datasets.synthetic.skinned import SkinnedHand
from usthand.datasets.synthetic.surface import HandSurface, hand_surface
from usthand.evaluation.truth import Truth
from usthand.hand.io import load_hand
from usthand.hand.model import HandModel
from usthand.hand.proportions import N_PROPORTIONS, with_proportions

LEARNABLE = ("own", "varied", "webxr")
"""The kinds that pretraining may draw."""
NO_POSTURE = np.zeros((0, 48)), np.zeros(0), np.zeros((0, 3))
CHUNK = 64  # frames posed at once: enough to be fast, little memory


@runtime_checkable
class Subject(Protocol):
    """One person's right hand."""

    @property
    def surface(self) -> HandSurface:
        """At rest."""
        ...

    def move(self, n_frames: int, fps: float, rng: np.random.Generator, held: np.ndarray | None = None) -> Moved:
        """Draw a motion; `held` is the surface of a held object, (N, 3) m in the palm's frame."""
        ...


@dataclass(frozen=True)
class Moved:
    """A hand over T frames, world, metres. A hand that is not our model's has no pose, shape and translation."""

    vertices_world_m: np.ndarray  # (T, N, 3) float32
    joints_world_m: np.ndarray  # (T, 21, 3)
    pose: np.ndarray  # (T, 48) or (0, 48)
    shape: np.ndarray  # (10,), (40,) or (0,)
    translation_m: np.ndarray  # (T, 3) or (0, 3)
    faces: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))  # none: our hand model's
    joint_definition: str = ""  # what the joints are, in words; empty: our hand model's

    def truth(self, visible: np.ndarray) -> Truth:
        """What is written for metrics; visible (T, V, 21)."""
        numbers = self.joints_world_m, self.vertices_world_m, self.pose, self.shape, self.translation_m
        joints, vertices, *posture = (values.astype(np.float32) for values in numbers)
        pose, shape, shift = posture
        of_mesh = self.faces, self.joint_definition
        valid = np.ones(len(joints), bool)
        return Truth(joints, vertices, visible, pose, shape, shift, valid, *of_mesh)


@dataclass(frozen=True)
class OwnHand:
    """A hand of our model."""

    hand: HandModel
    shape: np.ndarray  # (10,), or (40,) with the proportions

    @property
    def surface(self) -> HandSurface:
        """At rest."""
        return hand_surface(self.hand, self.shape)

    def move(self, n_frames: int, fps: float, rng: np.random.Generator, held: np.ndarray | None = None) -> Moved:
        """A walk through the pose library, or around a held object."""
        motion = sample_motion(self.hand, n_frames, fps, rng, held, self.shape)
        return Moved(*pose_hand(self.hand, motion), motion.pose, self.shape, motion.translation_m)


@dataclass(frozen=True)
class WebxrHand:
    """A hand of `usthand.datasets.synthetic.webxr`."""

    hand: SkinnedHand

    @property
    def surface(self) -> HandSurface:
        """At rest."""
        return self.hand.surface

    def move(self, n_frames: int, fps: float, rng: np.random.Generator, held: np.ndarray | None = None) -> Moved:
        """A walk through the pose library, solved for this skeleton, or around a held object."""
        kin, time = self.hand.sticks(), np.arange(n_frames) / fps
        grip = None if held is None else close_around(kin, held)
        angles, _ = finger_motion(kin, library(kin), n_frames, fps, rng, grip)
        turn, still = turning(time, kin.frame[1], rng), np.zeros((n_frames, 3))
        centre = self.hand.pose(angles, turn, still, still)[1].mean(1)
        posed = self.hand.pose(angles, turn, still, wandering(time, rng) - centre)
        return Moved(*posed, *NO_POSTURE, self.hand.faces, webxr.JOINT_DEFINITION)


@dataclass(frozen=True)
class OthersHand:
    """A hand of `usthand.datasets.synthetic.foreign`."""

    hand: SkinnedHand

    @property
    def surface(self) -> HandSurface:
        """At rest."""
        return self.hand.surface

    def move(self, n_frames: int, fps: float, rng: np.random.Generator, held: np.ndarray | None = None) -> Moved:
        """Random joint angles and grasps."""
        motion = sample_foreign_motion(self.hand, n_frames, fps, rng, held)
        posed = self.hand.pose(motion.angles, motion.turn, motion.wrist, motion.translation_m)
        return Moved(*posed, *NO_POSTURE, self.hand.faces, JOINT_DEFINITION)


def _own(rng: np.random.Generator) -> Subject:
    return OwnHand(load_hand(side="right"), sample_shape(rng))


def _varied(rng: np.random.Generator) -> Subject:
    hand = with_proportions(load_hand(side="right"))
    return OwnHand(hand, np.concatenate([sample_shape(rng), sample_shape(rng, N_PROPORTIONS)]))


def _webxr(rng: np.random.Generator) -> Subject:
    return WebxrHand(webxr.sample_webxr(rng))


def _foreign(rng: np.random.Generator) -> Subject:
    return OthersHand(sample_foreign(rng))


SUBJECTS: dict[str, Callable[[np.random.Generator], Subject]] = {
    "own": _own,
    "varied": _varied,
    "webxr": _webxr,
    "foreign": _foreign,
}


def sample_subject(kind: str, rng: np.random.Generator) -> Subject:
    """Draw a person of a kind.

    Raises:
        UsthandError: If there is no such kind, or it needs a package that is not installed.
    """
    if kind not in SUBJECTS:
        raise UsthandError(f"there is no subject {kind!r}", f"there are {', '.join(SUBJECTS)}", "choose one of these")
    return SUBJECTS[kind](rng)


def require_learnable(kind: str) -> None:
    """Refuse to learn from a kind of hand that is for measuring alone.

    Raises:
        UsthandError: If it is.
    """
    if kind not in LEARNABLE:
        raise UsthandError(
            f"nothing may learn from the subject {kind!r}",
            "tests and benchmarks measure by hands that no training has seen",
            f"choose {' or '.join(LEARNABLE)}",
        )


def pose_hand(hand: HandModel, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (T, 778, 3) float32 and joints (T, 21, 3) float64 of a motion, metres, world."""
    dtype = hand.v_template.dtype
    shaped = hand.with_shape(torch.as_tensor(motion.shape, dtype=dtype))
    vertices, joints = [], []
    with torch.no_grad():
        for start in range(0, len(motion.pose), CHUNK):
            part = slice(start, start + CHUNK)
            rotations = hand.rotations(torch.as_tensor(motion.pose[part], dtype=dtype), flat_hand_mean=True)
            posed = shaped.with_pose(rotations, torch.as_tensor(motion.translation_m[part], dtype=dtype))
            vertices.append(posed.vertices.float().numpy())
            joints.append(posed.joints.double().numpy())
    return np.concatenate(vertices), np.concatenate(joints)
