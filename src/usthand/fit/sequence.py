"""The sequence fit of one right hand in metres: alternating trust in the labels and Levenberg-Marquardt on all frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.fit.arrow_system import inverse_blocks
from usthand.fit.covariance import joint_covariance
from usthand.fit.detector_offsets import Deviation, estimate_deviation, no_deviation
from usthand.fit.initialisation import inverse_kinematics, median_shape
from usthand.fit.kinematics import Articulation, HandState
from usthand.fit.objective import Energy, LabelTerm, PointTerm, Prior, earlier_correlation, minimise
from usthand.fit.reweighting import ReweightingConfig, label_weights
from usthand.geometry.robust_triangulation import (
    UndistortedViews,
    interpolate_gaps,
    reprojection_mahalanobis2,
    triangulate_robust,
)

Progress = Callable[[int, int], None]
"""Called with (rounds done, rounds in all)."""

MIN_VIEWS = 2  # that must see a joint to place it
START_STD_M = 0.003  # of a triangulated joint against the model's, beside its own covariance
START_DOF = 3.0
START_ROUNDS, START_STEPS = 4, 3
RIGID_ROUNDS = 2  # of reweighting before joints may leave the rigid hand
FIRST_DOF = 64.0  # of Student's t in the first round of reweighting, halved every round
COVARIANCE_INFLATION = 1.8  # measured: what the error model leaves out (systematic errors), see docs/notes/fit.md
DIP_PER_PIP = 0.6  # the tendons couple the last two joints of a finger (Rijpkema and Girard 1991: two thirds)


@dataclass(frozen=True)
class MotionScales:
    """Typical accelerations and velocities of a hand: standard deviations, in physical units."""

    turn_rad_s2: float = 15.0
    wrist_m_s2: float = 1.5
    flexion_rad_s2: float = 40.0
    other_rad_s2: float = 12.0
    turn_rad_s: float = 6.0
    wrist_m_s: float = 1.0
    flexion_rad_s: float = 6.0
    other_rad_s: float = 3.0


@dataclass(frozen=True)
class FitConfig:
    """Settings of the sequence fit; the defaults come from the measurements in docs/notes/fit.md."""

    fps: float = 30.0
    """Frames per second of the capture."""
    joint_model: Literal["auto", "rigid", "soft"] = "auto"
    """`rigid`: the joints are the hand model's. `soft`: they may leave it as far as the views agree (`usthand.fit.detector_offsets`).
    `auto`: what predicts the labels of cameras left out better."""
    motion: MotionScales = field(default_factory=MotionScales)
    reweighting: ReweightingConfig = field(default_factory=ReweightingConfig)
    label_memory_s: float = 0.1
    """Errors of labels decorrelate over this time: 0.1 s is a correlation of 0.72 between frames at 30 per second."""
    shared_hand: float = 0.35
    shared_finger: float = 0.25
    """Parts of a label's variance that all joints, and the joints of a finger, have in common in a view; of rigid joints."""
    deviation_std_m: float = 0.002
    """How far a soft joint is expected to lie from the rigid hand's, along each axis: what predicts best, less than detectors' do
    (docs/notes/fit.md) ..."""
    deviation_memory_s: float = 1.0
    """... and how long it goes on to lie there, as the hand's bones see it: its correlation falls to 1/e in this time."""
    flexion_std_rad: float = 0.8
    other_std_rad: float = 0.25
    coupling_std_rad: float = 0.25
    """Spread of the last joint's flexion about `DIP_PER_PIP` of the middle one's."""
    limit_rad: float = 0.03
    shape_std: float = 1.0
    rounds: int = 8
    """Rounds of reweighting, each with `steps` Levenberg-Marquardt steps."""
    steps: int = 3


@dataclass(frozen=True)
class Fitted:
    """What was found."""

    state: HandState
    joints_world_m: Float[np.ndarray, "T J 3"]
    """Soft joints where they were allowed, else the model's."""
    covariance_m2: Float[np.ndarray, "T J 3 3"]
    seen: Bool[np.ndarray, "T J"]
    """Joints that two views or more see."""


class Fitter:
    """One problem under way; `soft` joints or rigid ones."""

    def __init__(
        self,
        hand: Articulation,
        config: FitConfig,
        views: UndistortedViews,
        points: PointTerm | None,
        soft: bool,
        predicts_model_joints: Bool[np.ndarray, "V"] | None = None,
        sets_noise_scale: Bool[np.ndarray, "V"] | None = None,
    ):
        """`predicts_model_joints`: views that see the model's own joints even if joints are soft. `sets_noise_scale`: see `label_weights`."""
        self.hand, self.config, self.views, self.points, self.soft = hand, config, views, points, soft
        self.precision = views.precision.numpy()
        self.stated = self.precision.trace(axis1=-2, axis2=-1)
        self.present = self.stated > 0
        self.start = triangulate_robust(views)
        self.weight = self.start.weight.numpy() / self.start.scale**2
        self.prior = motion_prior(hand, config)
        self.deviation_m = no_deviation(*self.present[:, 0].shape)
        self.sets_noise_scale = sets_noise_scale
        self.predicts_model_joints = (
            predicts_model_joints
            if soft and predicts_model_joints is not None and predicts_model_joints.any()
            else None
        )

    def run(self, progress: Progress | None = None) -> Fitted:
        """The best state found, with its covariance."""
        config = self.config
        state = self._begin()
        for done in range(config.rounds):
            self._reweight(state, FIRST_DOF / 2**done)
            if self.soft and done >= RIGID_ROUNDS:
                self.deviation_m = self._deviation(state).mean_m
            state = minimise(self.energy(), state, config.steps)
            if progress is not None:
                progress(done + 1, config.rounds)
        return self._fitted(state)

    def _begin(self) -> HandState:
        """Inverse kinematics on the triangulated joints, then the model fitted to them in 3D, over time."""
        start = self.start
        joints = interpolate_gaps(start.points_world, start.seen).numpy()
        seen = start.seen.numpy()
        shape = median_shape(self.hand, joints, seen)
        state = inverse_kinematics(self.hand, joints, shape)
        covariance = start.covariance.numpy() + np.eye(3) * START_STD_M**2
        root = np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-1, -2) * seen[..., None, None]
        for _ in range(START_ROUNDS):
            offset = (root @ (self.hand.posed(state, False).joints - joints)[..., None])[..., 0]
            weight = (START_DOF + 3) / (START_DOF + (offset**2).sum(-1))
            term = PointTerm(joints, root * np.sqrt(weight)[..., None, None])
            state = minimise(Energy(self.hand, self.prior, None, term), state, START_STEPS)
        return state

    def _reweight(self, state: HandState, least_dof: float) -> None:
        """Believe the labels as their residuals deserve; at first nearly alike, so that no view is written off early."""
        trust = replace(self.config.reweighting, dof=max(self.config.reweighting.dof, least_dof))
        model = self.hand.posed(state, derivatives=False).joints
        squared = reprojection_mahalanobis2(self.views, torch.from_numpy(model + self.deviation_m)).numpy()
        if self.predicts_model_joints is not None:
            squared = np.where(
                self.predicts_model_joints[:, None],
                reprojection_mahalanobis2(self.views, torch.from_numpy(model)).numpy(),
                squared,
            )
        self.weight = label_weights(squared, self.stated, self.present, trust, self.sets_noise_scale)

    def _deviation(self, state: HandState) -> Deviation:
        config, joints = self.config, self.hand.posed(state, derivatives=False).joints
        memory = config.deviation_memory_s * config.fps
        turns = self.hand.bone_turns(state)
        return estimate_deviation(
            self._labels(), self.points, joints, turns, self.deviation_m, config.deviation_std_m, memory
        )

    def _labels(self) -> LabelTerm:
        """The labels with their present weights. What rigid joints must explain by errors that joints of a view share,
        soft ones explain by the detector's joints: nothing is then shared."""
        memory = self.config.fps * self.config.label_memory_s
        rho = float(np.exp(-1 / memory)) if memory > 0 else 0.0
        cameras = self.views.cameras.cam_from_world.numpy()
        labels = LabelTerm(
            cameras[..., :3],
            cameras[..., 3],
            self.views.xy.numpy(),
            matrix_root(self.precision),
            earlier_correlation(self.present, rho),
            rho,
            soft=None if self.predicts_model_joints is None else ~self.predicts_model_joints,
        )
        hand, finger = (0.0, 0.0) if self.soft else (self.config.shared_hand, self.config.shared_finger)
        return labels.weighted(self.weight, hand, finger)

    def energy(self) -> Energy:
        """The cost with the present weights."""
        return Energy(self.hand, self.prior, self._labels(), self.points, self.deviation_m)

    def _fitted(self, state: HandState) -> Fitted:
        covariance = joint_covariance(self.hand, state, inverse_blocks(self.energy().normal_equations(state)))
        joints = self.hand.posed(state, derivatives=False).joints
        if self.soft:
            deviation = self._deviation(state)
            joints, covariance = joints + deviation.mean_m, deviation.joint_covariance(covariance)
        return Fitted(state, joints, COVARIANCE_INFLATION * covariance, self.present.sum(1) >= MIN_VIEWS)


def motion_prior(hand: Articulation, config: FitConfig, timeless: bool = False) -> Prior:
    """Priors in units of frames; `timeless` leaves the motion out, so that every frame stands by itself."""
    scales, fps = config.motion, config.fps
    axis = np.array([a for _, a in hand.free])
    acceleration = np.concatenate(
        [
            np.full(3, scales.turn_rad_s2),
            np.full(3, scales.wrist_m_s2),
            np.where(axis == 0, scales.flexion_rad_s2, scales.other_rad_s2),
        ]
    )
    velocity = np.concatenate(
        [
            np.full(3, scales.turn_rad_s),
            np.full(3, scales.wrist_m_s),
            np.where(axis == 0, scales.flexion_rad_s, scales.other_rad_s),
        ]
    )
    if timeless:
        acceleration, velocity = np.full_like(acceleration, np.inf), np.full_like(velocity, np.inf)
    mean = np.clip(np.where(axis == 0, 0.35, 0.0), hand.low, hand.high)
    rows = list(np.diag(1 / np.where(axis == 0, config.flexion_std_rad, config.other_std_rad)))
    for tip, (joint, which) in enumerate(hand.free):
        middle = (joint - 1, 0)
        if joint % 3 == 2 and joint < 12 and which == 0 and middle in hand.free:
            row = np.zeros(len(axis))
            row[tip], row[hand.free.index(middle)] = 1, -DIP_PER_PIP
            rows.append(row / config.coupling_std_rad)
    return Prior(acceleration / fps**2, velocity / fps, mean, np.array(rows), config.limit_rad, config.shape_std)


def matrix_root(precision: Float[np.ndarray, "*b 2 2"]) -> Float[np.ndarray, "*b 2 2"]:
    """Upper triangular R with R' R = P; zero for zero."""
    a, b, c = precision[..., 0, 0], precision[..., 0, 1], precision[..., 1, 1]
    first = np.sqrt(np.maximum(a, 0))
    root = np.zeros_like(precision)
    root[..., 0, 0] = first
    root[..., 0, 1] = np.where(first > 0, b / np.where(first > 0, first, 1), 0)
    root[..., 1, 1] = np.sqrt(np.maximum(c - root[..., 0, 1] ** 2, 0))
    return root
