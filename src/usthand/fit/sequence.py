"""The sequence fit of one right hand in metres: it alternates between weighting the labels and Levenberg-Marquardt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from usthand.common.progress import Progress, silent
from usthand.fit.arrow_system import InverseBlocks, inverse_blocks
from usthand.fit.detector_joints import DetectorJoints, bone_frames, relative_size
from usthand.fit.deviations import DeviationPrior, Deviations, estimate_deviations
from usthand.fit.evidence import LabelTerm, PointTerm, earlier_correlation, matrix_root
from usthand.fit.initialisation import inverse_kinematics, likely_shape
from usthand.fit.kinematics import Articulation, HandState
from usthand.fit.lasting_errors import lasting_covariance
from usthand.fit.noise_structure import MOST, MOST_OF_VIEWS, NoiseStructure, estimate_structure
from usthand.fit.objective import Energy, Prior, minimise
from usthand.fit.observations import Source
from usthand.fit.person import PersonShape
from usthand.fit.reweighting import AXES, ReweightingConfig, label_weights
from usthand.geometry.robust_triangulation import (
    UndistortedViews,
    interpolate_gaps,
    reprojection_mahalanobis2,
    subset_views,
    triangulate_robust,
)
from usthand.hand.skeleton import N_JOINTS

MIN_VIEWS = 2  # that must see a joint to place it
START_STD_M = 0.003  # of a triangulated joint from the model's, beside its own covariance
START_DOF = 3.0
START_ROUNDS, START_STEPS = 4, 9
START_ACCELERATION = 0.2  # of the usual: where depth is noise, a calm start finds the better of two poses
LEVERAGE_ROUNDS = 4  # last rounds of reweighting, which know how far the fit follows each label
LEAST_FREEDOM = 0.15  # of a residual: what the fit leaves of an error
FIRST_DOF = 64.0  # of Student's t in the first round of reweighting, halved every round
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
    """`rigid`: the detector sees the hand model's own joints. `soft`: it sees them at places of its own on the bones,
    and strays from there with the pose (`usthand.fit.detector_joints`). `auto`: soft, unless the detector is known to
    see the model's."""
    motion: MotionScales = field(default_factory=MotionScales)
    reweighting: ReweightingConfig = field(default_factory=ReweightingConfig)
    noise: NoiseStructure = MOST
    """What errors of labels have in common, at most; less where the labels show less."""
    view_noise: NoiseStructure = MOST_OF_VIEWS
    """The same with soft joints, which take up what all views err in alike."""
    flexion_std_rad: float = 0.8
    other_std_rad: float = 0.25
    coupling_std_rad: float = 0.25
    """Spread of the last joint's flexion about `DIP_PER_PIP` of the middle one's."""
    limit_rad: float = 0.03
    person: PersonShape | None = None
    """What other results know of this person's shape (`usthand.fit.person.person_of`); the population's if None."""
    rounds: int = 8
    """Rounds of reweighting, each with `steps` Levenberg-Marquardt steps."""
    steps: int = 3


@dataclass(frozen=True)
class FitData:
    """What a hand is fitted to, in metres. O = K V: each source has its own copy of the views."""

    views: UndistortedViews
    """Of O views."""
    sources: tuple[Source, ...]
    """K of them."""
    detector: DetectorJoints | None = None
    """Where the detector sees the joints; None: where the model has them."""
    points: PointTerm | None = None
    """3D observations of the model's joints."""

    @property
    def source_of(self) -> Int[np.ndarray, "O"]:
        """Which source each view is of."""
        return np.repeat(np.arange(len(self.sources)), self.views.xy.shape[1] // len(self.sources))

    def count_views(self, present: Bool[np.ndarray, "T O J"]) -> Int[np.ndarray, "T J"]:
        """How many cameras have an observation from some source."""
        n_frames, _, n_joints = present.shape
        return present.reshape(n_frames, len(self.sources), -1, n_joints).any(1).sum(1)


@dataclass(frozen=True)
class Fitted:
    """A fitted sequence."""

    state: HandState
    joints_world_m: Float[np.ndarray, "T J 3"]
    """The model's."""
    covariance_m2: Float[np.ndarray, "T J 3 3"]
    """Of the model's joints."""
    detected_m: Float[np.ndarray, "T J 3"]
    """The joints as the detector sees them."""
    detected_cov_m2: Float[np.ndarray, "T J 3 3"]
    posterior: InverseBlocks
    """Covariance of the unknowns."""
    seen: Bool[np.ndarray, "T J"]
    """Joints that two views or more see."""


class Fitter:
    """The fit of one sequence."""

    def __init__(self, hand: Articulation, config: FitConfig, data: FitData) -> None:
        self.hand, self.config, self.data = hand, config, data
        self.precision = data.views.precision.numpy()
        self.stated = self.precision.trace(axis1=-2, axis2=-1)
        self.present = self.stated > 0
        self.start = triangulate_robust(data.views)
        self.weight = self.start.weight.numpy() / self.start.scale**2
        self.prior = fit_prior(hand, config, data.detector)
        self.deviation = deviation_prior(hand, config, data.detector)
        self.detected = np.array([source.detected and data.detector is not None for source in data.sources])
        self.noise = {kind: self._structure(kind) for kind in sorted(set(self.detected.tolist()))}

    def run(self, progress: Progress = silent) -> Fitted:
        """The best state found, with its covariance."""
        config = self.config
        state, posterior = self._begin(), None
        for done in range(config.rounds):
            self._reweight(state, FIRST_DOF / 2**done, posterior)
            state = minimise(self.energy(state), state, config.steps)
            needed = config.rounds - LEVERAGE_ROUNDS - 1 <= done < config.rounds - 1
            posterior = self._posterior(state) if needed else None
            progress(done + 1, config.rounds)
        return self._fitted(state, self._posterior(state, lasting=True))

    def _structure(self, detected: bool) -> NoiseStructure:
        """What the errors of a kind of sources have in common."""
        sets_scale = np.array([source.sets_noise_scale for source in self.data.sources])
        used = np.flatnonzero(((self.detected == detected) & sets_scale)[self.data.source_of])
        most = self.config.view_noise if detected else self.config.noise
        return estimate_structure(subset_views(self.data.views, used.tolist()), most) if len(used) else most

    def _begin(self) -> HandState:
        """Inverse kinematics on the triangulated joints, then the model fitted to them in 3D, over time."""
        start = self.start
        joints = interpolate_gaps(start.points_world, start.seen).numpy()
        seen, covariance = start.seen.numpy(), start.covariance.numpy()
        offsets = self.prior.offset_mean_m
        shape = likely_shape(self.hand, joints, seen, covariance, offsets)
        if self.data.detector is not None:
            detector = self.data.detector.scaled(relative_size(self.hand, shape))
            self.prior = fit_prior(self.hand, self.config, detector)
            self.deviation = deviation_prior(self.hand, self.config, detector)
            offsets = self.prior.offset_mean_m
        state = inverse_kinematics(self.hand, joints, shape, offsets)
        covariance = covariance + np.eye(3) * START_STD_M**2
        root = np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-1, -2) * seen[..., None, None]
        calm = replace(self.prior, offset_precision=None, acceleration=START_ACCELERATION * self.prior.acceleration)
        for _ in range(START_ROUNDS):
            offset = (root @ (self.hand.detected(state) - joints)[..., None])[..., 0]
            weight = (START_DOF + 3) / (START_DOF + (offset**2).sum(-1))
            term = PointTerm(joints, root * np.sqrt(weight)[..., None, None], detected=True)
            state = minimise(Energy(self.hand, calm, [term]), state, START_STEPS)
        return state

    def _reweight(self, state: HandState, least_dof: float, posterior: InverseBlocks | None) -> None:
        """Weight the labels by their errors; nearly alike at first, so that no view is discarded early.

        The fit follows its labels, so residuals are smaller than errors. With C the covariance of what a label with
        rows A (whitened by its own weight) sees, the residual's variance is I - A C A': residuals are divided by the
        mean of its two axes, at least `LEAST_FREEDOM`.
        """
        config = replace(self.config.reweighting, dof=max(self.config.reweighting.dof, least_dof))
        squared, freedom = np.zeros(self.stated.shape), np.ones(self.stated.shape)
        for detected in self.noise:
            views = self.detected[self.data.source_of] == detected
            if posterior is None:
                squared[:, views] = self._squared_errors(self._seen(detected, state))[:, views]
            else:
                seen_m, covariance = self._seen_with_covariance(detected, state, posterior)
                squared[:, views] = self._squared_errors(seen_m)[:, views]
                rows = self._labels(views, self.weight).residuals(seen_m)[1]
                lever = 0.5 * (rows @ covariance[:, None] @ rows.swapaxes(-1, -2)).trace(axis1=-2, axis2=-1)
                freedom[:, views] = np.clip(1 - lever, LEAST_FREEDOM, 1)
        squared = squared / freedom
        sets_scale = np.array([source.sets_noise_scale for source in self.data.sources])
        self.weight = np.zeros(self.stated.shape)
        for k, source in enumerate(self.data.sources):
            views = self.data.source_of == k
            if source.sets_noise_scale:
                used, learn = views, None
            else:  # with the scale of the sources that have one
                used = views | sets_scale[self.data.source_of]
                learn = sets_scale[self.data.source_of][used]
            weight = label_weights(squared[:, used], self.stated[:, used], self.present[:, used], config, learn)
            self.weight[:, views] = weight[:, views[used]]

    def _seen(self, detected: bool, state: HandState) -> Float[np.ndarray, "T J 3"]:
        """What sources of a kind see of the hand."""
        return self.hand.detected(state) + self._deviations(state).mean_m if detected else self.hand.joints(state)

    def _seen_with_covariance(
        self, detected: bool, state: HandState, posterior: InverseBlocks
    ) -> tuple[Float[np.ndarray, "T J 3"], Float[np.ndarray, "T J 3 3"]]:
        """The same with its covariance."""
        if not detected:
            posed = self.hand.posed(state)
            return posed.joints, posed.covariance(posterior)
        deviations, places = self._deviations(state), self.hand.posed_detected(state)
        return places.joints + deviations.mean_m, deviations.joint_covariance(places.covariance(posterior))

    def _squared_errors(self, joints_world_m: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T O J"]:
        return reprojection_mahalanobis2(self.data.views, torch.from_numpy(joints_world_m)).numpy()

    def _deviations(self, state: HandState) -> Deviations:
        views = self.detected[self.data.source_of]
        label_term = self._labels(views, self.weight)
        return estimate_deviations([label_term], self.hand.detected(state), self.hand.bone_turns(state), self.deviation)

    def _labels(
        self, views: Bool[np.ndarray, "O"], weight: Float[np.ndarray, "T O J"], share: bool = False
    ) -> LabelTerm:
        """The labels of some views with the given weights; `share`: with errors that the joints of a view share."""
        detected = bool(self.detected[self.data.source_of[views]].all())
        noise = self.noise[detected]
        rho = float(np.exp(-1 / max(noise.memory_s * self.config.fps, 1e-3)))
        cameras = self.data.views.cameras.cam_from_world.numpy()[views]
        labels = LabelTerm(
            cameras[..., :3],
            cameras[..., 3],
            self.data.views.xy.numpy()[:, views],
            matrix_root(self.precision[:, views]),
            earlier_correlation(self.present[:, views], rho),
            rho,
            detected=detected,
        )
        hand, finger = (noise.hand, noise.finger) if share else (0.0, 0.0)
        return labels.weighted(weight[:, views], hand, finger)

    def energy(self, state: HandState, part: float = 1.0) -> Energy:
        """The cost with the present weights, or a part of them."""
        terms: list[LabelTerm | PointTerm] = [] if self.data.points is None else [self.data.points]
        for detected in self.noise:
            views = self.detected[self.data.source_of] == detected
            terms.append(self._labels(views, self._marginal_weight(views, detected, state, part), share=True))
        return Energy(self.hand, self.prior, terms)

    def _marginal_weight(
        self, views: Bool[np.ndarray, "O"], detected: bool, state: HandState, part_of_weight: float
    ) -> Float[np.ndarray, "T O J"]:
        """Weights for labels that also err alike in all views.

        n labels of variance s^2 with a common error of variance c tell as much as n labels of variance s^2 + n c: that
        is what a detector's deviations do. Where a part p of s^2 is common, they are worth n of (1 + (n - 1) p) s^2.
        """
        seen_m = self.hand.detected(state) if detected else self.hand.joints(state)
        rows = self._labels(views, np.ones_like(self.weight)).residuals(seen_m)[1]
        common = np.zeros(rows.shape[:3])
        if detected:
            turns = self.hand.bone_turns(state)
            covariance = turns @ self.deviation.covariance_m2 @ turns.swapaxes(-1, -2)
            common += 0.5 * (rows @ covariance[:, None] @ rows.swapaxes(-1, -2)).trace(axis1=-2, axis2=-1)
        weight = part_of_weight * self.weight[:, views]
        information = weight * self.stated[:, views]
        count = (information.sum(1) ** 2 / np.maximum((information**2).sum(1), 1e-30))[:, None]
        part = np.array([self.data.sources[k].common_part for k in self.data.source_of[views]])[:, None]
        out = self.weight.copy()
        out[:, views] = weight / (1 + np.maximum(count - 1, 0) * part + weight * count * common)
        return out

    def _posterior(self, state: HandState, lasting: bool = False) -> InverseBlocks:
        """Covariance of the unknowns; for the result with what errors that last add to it.

        The weights that find the best state are not the information of Student's t errors: in the mean over such
        errors, of two axes, that is (dof + 2) / (dof + 4) of it.
        """
        if not lasting:
            return inverse_blocks(self.energy(state).normal_equations(state))
        dof = self.config.reweighting.dof
        energy = self.energy(state, (dof + AXES) / (dof + AXES + 2) if np.isfinite(dof) else 1.0)
        system = energy.normal_equations(state)
        found = inverse_blocks(system)
        posed = {kind: (self.hand.posed_detected if kind else self.hand.posed)(state) for kind in self.noise}
        return found + lasting_covariance(
            energy, system, posed, {kind: noise.lasting for kind, noise in self.noise.items()}
        )

    def _fitted(self, state: HandState, posterior: InverseBlocks) -> Fitted:
        joints, covariance = self._seen_with_covariance(False, state, posterior)
        detected = bool(self.detected.any())
        seen_m, seen_cov = self._seen_with_covariance(True, state, posterior) if detected else (joints, covariance)
        seen = self.data.count_views(self.present) >= MIN_VIEWS
        return Fitted(state, joints, covariance, seen_m, seen_cov, posterior, seen)


def deviation_prior(hand: Articulation, config: FitConfig, detector: DetectorJoints | None) -> DeviationPrior:
    """How far a detector strays from its places on the bones."""
    if detector is None:
        return DeviationPrior(np.tile(1e-12 * np.eye(3), (N_JOINTS, 1, 1)), 1.0)
    frames = bone_frames(hand)
    covariance = frames.swapaxes(-1, -2) @ detector.pose_cov_m2 @ frames
    return DeviationPrior(covariance, detector.memory_s * config.fps)


def fit_prior(
    hand: Articulation, config: FitConfig, detector: DetectorJoints | None = None, timeless: bool = False
) -> Prior:
    """Everything that is known before the data; see `motion_prior`."""
    prior = motion_prior(hand, config, timeless)
    if detector is None:
        return prior
    frames = bone_frames(hand)
    covariance = frames.swapaxes(-1, -2) @ detector.subject_cov_m2 @ frames
    mean = (frames.swapaxes(-1, -2) @ detector.mean_m[..., None])[..., 0]
    return replace(prior, offset_mean_m=mean, offset_precision=np.linalg.inv(covariance))


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
    return Prior(
        acceleration / fps**2,
        velocity / fps,
        mean,
        np.array(rows),
        config.limit_rad,
        np.zeros(hand.n_shape) if config.person is None else config.person.mean,
        np.eye(hand.n_shape) if config.person is None else config.person.precision,
        np.zeros((N_JOINTS, 3)),
    )
