"""The sequence fit of one right hand in metres: it alternates between weighting the labels and Levenberg-Marquardt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.common.progress import Progress, silent
from usthand.fit.arrow_system import InverseBlocks, inverse_blocks
from usthand.fit.detector_offsets import DetectorOffsets, OffsetPrior, estimate_offsets
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

MIN_VIEWS = 2  # that must see a joint to place it
START_STD_M = 0.003  # of a triangulated joint from the model's, beside its own covariance
START_DOF = 3.0
START_ROUNDS, START_STEPS = 4, 3
RIGID_ROUNDS = 2  # of reweighting before joints may leave the rigid hand
FIRST_DOF = 64.0  # of Student's t in the first round of reweighting, halved every round
COVARIANCE_INFLATION = 1.8  # measured (docs/development/fit.md): systematic errors, which the error model leaves out
DIP_PER_PIP = 0.6  # the tendons couple the last two joints of a finger (Rijpkema and Girard 1991: two thirds)
MEAN_FLEXION_RAD = 0.35


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
    """Settings of the sequence fit; the defaults come from the measurements in docs/development/fit.md.

    Examples:
        >>> import usthand
        >>> config = usthand.FitConfig(fps=60.0, joint_model="rigid")
    """

    fps: float = 30.0
    """Frames per second of the capture."""
    joint_model: Literal["auto", "rigid", "soft"] = "auto"
    """`rigid`: the joints are the hand model's. `soft`: they are the detector's, which may lie off the model's as far
    as the views agree (`usthand.fit.detector_offsets`). `auto`: whichever predicts the labels of left-out cameras
    better."""
    motion: MotionScales = field(default_factory=MotionScales)
    reweighting: ReweightingConfig = field(default_factory=ReweightingConfig)
    label_memory_s: float = 0.1
    """Errors of labels decorrelate over this time: 0.1 s is a correlation of 0.72 between frames at 30 per second."""
    shared_hand: float = 0.35
    """Part of a label's variance that all joints of a view have in common; for rigid joints."""
    shared_finger: float = 0.25
    """The same for the joints of one finger."""
    offset_std_m: float = 0.002
    """How far a detector's joint lies from the model's, along each axis. This value predicts best; it is less than the
    offsets that detectors show (docs/development/fit.md)."""
    offset_memory_s: float = 1.0
    """How long an offset lasts in the frame of its bone: its correlation falls to 1/e in this time."""
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
class FitData:
    """What a hand is fitted to, in metres."""

    views: UndistortedViews
    points: PointTerm | None = None
    """3D observations of the joints."""
    predicts_model_joints: Bool[np.ndarray, "V"] | None = None
    """Views that see the model's own joints even if joints are soft; none if None."""
    sets_noise_scale: Bool[np.ndarray, "V"] | None = None
    """Views whose residuals tell how large errors are; all if None. See `label_weights`."""


@dataclass(frozen=True)
class Fitted:
    """A fitted sequence."""

    state: HandState
    joints_world_m: Float[np.ndarray, "T J 3"]
    """The detector's joints if they are soft, else the model's."""
    covariance_m2: Float[np.ndarray, "T J 3 3"]
    seen: Bool[np.ndarray, "T J"]
    """Joints that two views or more see."""


class Fitter:
    """The fit of one sequence; `soft`: whether joints may leave the rigid hand."""

    def __init__(self, hand: Articulation, config: FitConfig, data: FitData, soft: bool) -> None:
        self.hand, self.config, self.data, self.soft = hand, config, data, soft
        self.precision = data.views.precision.numpy()
        self.stated = self.precision.trace(axis1=-2, axis2=-1)
        self.present = self.stated > 0
        self.start = triangulate_robust(data.views)
        self.weight = self.start.weight.numpy() / self.start.scale**2
        self.prior = motion_prior(hand, config)
        self.offset_m = np.zeros((*self.present[:, 0].shape, 3))
        model_views = data.predicts_model_joints
        self.model_views = model_views if soft and model_views is not None and model_views.any() else None

    def run(self, progress: Progress = silent) -> Fitted:
        """The best state found, with its covariance."""
        config = self.config
        state = self._begin()
        for done in range(config.rounds):
            self._reweight(state, FIRST_DOF / 2**done)
            if self.soft and done >= RIGID_ROUNDS:
                self.offset_m = self._offsets(state).mean_m
            state = minimise(self.energy(), state, config.steps)
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
            offset = (root @ (self.hand.joints(state) - joints)[..., None])[..., 0]
            weight = (START_DOF + 3) / (START_DOF + (offset**2).sum(-1))
            term = PointTerm(joints, root * np.sqrt(weight)[..., None, None])
            state = minimise(Energy(self.hand, self.prior, None, term), state, START_STEPS)
        return state

    def _reweight(self, state: HandState, least_dof: float) -> None:
        """Weight the labels by their residuals; nearly alike at first, so that no view is discarded early."""
        config = replace(self.config.reweighting, dof=max(self.config.reweighting.dof, least_dof))
        model = self.hand.joints(state)
        squared = self._squared_errors(model + self.offset_m)
        if self.model_views is not None:
            squared = np.where(self.model_views[:, None], self._squared_errors(model), squared)
        self.weight = label_weights(squared, self.stated, self.present, config, self.data.sets_noise_scale)

    def _squared_errors(self, joints_world_m: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T V J"]:
        return reprojection_mahalanobis2(self.data.views, torch.from_numpy(joints_world_m)).numpy()

    def _offsets(self, state: HandState) -> DetectorOffsets:
        prior = OffsetPrior(self.config.offset_std_m, self.config.offset_memory_s * self.config.fps)
        joints, turns = self.hand.joints(state), self.hand.bone_turns(state)
        return estimate_offsets(self._labels(), self.data.points, joints, turns, self.offset_m, prior)

    def _labels(self) -> LabelTerm:
        """The labels with their present weights.

        Rigid joints explain by errors that joints of a view share what soft ones explain by the detector's offsets, so
        soft joints share no error.
        """
        memory = self.config.fps * self.config.label_memory_s
        rho = float(np.exp(-1 / memory)) if memory > 0 else 0.0
        cameras = self.data.views.cameras.cam_from_world.numpy()
        labels = LabelTerm(
            cameras[..., :3],
            cameras[..., 3],
            self.data.views.xy.numpy(),
            matrix_root(self.precision),
            earlier_correlation(self.present, rho),
            rho,
            soft=None if self.model_views is None else ~self.model_views,
        )
        hand, finger = (0.0, 0.0) if self.soft else (self.config.shared_hand, self.config.shared_finger)
        return labels.weighted(self.weight, hand, finger)

    def energy(self) -> Energy:
        """The cost with the present weights."""
        return Energy(self.hand, self.prior, self._labels(), self.data.points, self.offset_m)

    def _fitted(self, state: HandState) -> Fitted:
        covariance = joint_covariance(self.hand, state, inverse_blocks(self.energy().normal_equations(state)))
        joints = self.hand.joints(state)
        if self.soft:
            offsets = self._offsets(state)
            joints, covariance = joints + offsets.mean_m, offsets.joint_covariance(covariance)
        return Fitted(state, joints, COVARIANCE_INFLATION * covariance, self.present.sum(1) >= MIN_VIEWS)


def joint_covariance(hand: Articulation, state: HandState, inverse: InverseBlocks) -> Float[np.ndarray, "T 21 3 3"]:
    """Covariance of every joint, world, m^2: J_f C_ff J_f' + J_f C_fs J_s' + its transpose + J_s C_ss J_s'.

    This is Laplace's approximation. The labels' errors are modelled as correlated in time and their precision is
    learned from the residuals, so the curvature of the cost is the inverse covariance.
    """
    posed = hand.posed(state)
    across = posed.by_frame @ inverse.shared[:, None] @ posed.by_shape.swapaxes(-1, -2)
    return (
        posed.by_frame @ inverse.frame[:, None] @ posed.by_frame.swapaxes(-1, -2)
        + across
        + across.swapaxes(-1, -2)
        + posed.by_shape @ inverse.corner @ posed.by_shape.swapaxes(-1, -2)
    )


def motion_prior(hand: Articulation, config: FitConfig, timeless: bool = False) -> Prior:
    """Priors in units of frames; `timeless` leaves motion out, so that every frame is fitted by itself."""
    scales, fps = config.motion, config.fps
    axis = np.array([a for _, a in hand.free])

    def of_unknowns(turn: float, wrist: float, flexion: float, other: float) -> Float[np.ndarray, "D"]:
        std = np.concatenate([np.full(3, turn), np.full(3, wrist), np.where(axis == 0, flexion, other)])
        return np.full_like(std, np.inf) if timeless else std

    acceleration = of_unknowns(scales.turn_rad_s2, scales.wrist_m_s2, scales.flexion_rad_s2, scales.other_rad_s2)
    velocity = of_unknowns(scales.turn_rad_s, scales.wrist_m_s, scales.flexion_rad_s, scales.other_rad_s)
    mean = np.clip(np.where(axis == 0, MEAN_FLEXION_RAD, 0.0), hand.low, hand.high)
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
