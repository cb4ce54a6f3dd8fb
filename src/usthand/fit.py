"""Hands from labels without any training: plain triangulation, and a robust fit of the hand model to the whole sequence.

`raw_triangulation` is what everybody starts with. `fit_labels` is what a careful user would do: robust triangulation,
the hand laid on it by inverse kinematics, then Levenberg-Marquardt on all frames together with one shape, joint limits,
smooth motion and labels believed as far as they deserve. `fit_observations` is the same for 2D distributions, such as a
network's. Left hands are fitted as right ones in the mirrored world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.articulation import N_SHAPE, Articulation, HandState, articulation
from usthand.banded import inverse_blocks
from usthand.covariance import joint_covariance
from usthand.energy import Energy, LabelTerm, PointTerm, Prior, earlier_correlation, minimise
from usthand.errors import UserError
from usthand.geometry import triangulate_xy
from usthand.hand.files import load_hand
from usthand.hand.model import HandModel
from usthand.initial import bone_lengths, inverse_kinematics, median_bone_lengths, median_shape
from usthand.labels import Labels, Observations
from usthand.result import Result
from usthand.rig import MIRROR, Rig
from usthand.robust import StraightViews, interpolate_gaps, mahalanobis2, straighten, triangulate_robust
from usthand.trust import TrustConfig, label_trust

MIN_VIEWS = 2
MIN_JOINTS = 5  # joints seen by two views that make a frame count as seen
VERTEX_CHUNK = 256  # frames skinned at once
MAX_GAP_STD_M = 0.2  # bounds the covariance of bridged frames

Progress = Callable[[int, int], None]
"""Called with (rounds done, rounds in all)."""


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
    motion: MotionScales = field(default_factory=MotionScales)
    trust: TrustConfig = field(default_factory=TrustConfig)
    label_memory_s: float = 0.1
    """Errors of labels decorrelate over this time: 0.1 s is a correlation of 0.72 between frames at 30 per second."""
    shared_hand: float = 0.35
    shared_finger: float = 0.25
    """Parts of a label's variance that all joints, and the joints of a finger, have in common in a view."""
    flexion_std_rad: float = 0.8
    other_std_rad: float = 0.25
    coupling_std_rad: float = 0.25
    """Spread of the last joint's flexion about `DIP_PER_PIP` of the middle one's."""
    offset_std_m: float = 0.0
    """Typical distance, along each axis, between the wrist or the thumb's base of the model and of the detector; 0 for none."""
    limit_rad: float = 0.03
    shape_std: float = 1.0
    rounds: int = 8
    """Rounds of reweighting, each with `steps` Levenberg-Marquardt steps."""
    steps: int = 3


def fit_labels(
    rig: Rig, labels: Labels, config: FitConfig | None = None, hand: HandModel | None = None,
    progress: Progress | None = None,
) -> Result:  # fmt: skip
    """Fit the hand to a detector's labels.

    Raises:
        UserError: fewer than two views with labels, labels of a camera that the rig lacks, no frame seen by two views.
    """
    rig, labels = _aligned(rig, labels)
    return fit_observations(rig, Observations.from_labels(labels), config, labels.side, hand, progress)


def fit_observations(
    rig: Rig, observations: Observations, config: FitConfig | None = None, side: str = "right",
    hand: HandModel | None = None, progress: Progress | None = None,
) -> Result:  # fmt: skip
    """Fit the hand to 2D observations with 2x2 precisions, in the order of the rig's cameras, and optional 3D ones.

    Raises:
        UserError: see `fit_labels`.
    """
    config = config or FitConfig()
    if side == "left":
        return fit_observations(
            rig.mirrored(), _mirrored(observations, rig), config, "right", hand, progress
        ).mirrored()
    _check_views(rig, observations)
    hand = _right_hand(hand)
    joints = articulation(hand)
    unit_m = 1.0 if rig.metric else _metres_per_unit(rig, observations, joints)
    scaled = _scaled(rig, unit_m)
    views = straighten(
        scaled.tensors(torch.float64), torch.from_numpy(observations.uv_px), torch.from_numpy(observations.precision)
    )
    fitter = _Fitter(joints, config, views, _points_scaled(observations, unit_m))
    state = fitter.run(progress)
    return _in_rig_units(fitter.result(state, hand, rig), unit_m, rig)


def raw_triangulation(rig: Rig, labels: Labels, hand: HandModel | None = None) -> Result:
    """Plain triangulation, the reference that everything is measured against: no robustness, no weights, no smoothing.

    Joints: unweighted DLT over all views with a label, per frame and joint; where fewer than two views have one, linear
    interpolation in time (`valid` is then False). Mesh: what a plain user would do next, the hand model laid on those
    joints frame by frame by least squares, with one shape for the sequence (from the median bone lengths) and no temporal
    terms. Covariance: least squares' own, sigma^2 (J'J)^-1, with sigma^2 of each joint from its residuals in all frames.

    Raises:
        UserError: as `fit_labels`.
    """
    rig, labels = _aligned(rig, labels)
    if labels.side == "left":
        mirrored = labels.mirrored(rig.widths)
        return raw_triangulation(rig.mirrored(), mirrored, hand).mirrored()
    observations = Observations(labels.uv_px.astype(np.float64), labels.mask[..., None, None] * np.eye(2))
    _check_views(rig, observations)
    hand = _right_hand(hand)
    model = articulation(hand)
    unit_m = 1.0 if rig.metric else _metres_per_unit(rig, observations, model)
    scaled = _scaled(rig, unit_m)
    cameras = scaled.tensors(torch.float64)
    views = straighten(cameras, torch.from_numpy(observations.uv_px), torch.from_numpy(observations.precision))
    points, normal = triangulate_xy(cameras, views.xy, views.precision, iterations=0)
    seen = labels.mask.sum(1) >= MIN_VIEWS
    joints = interpolate_gaps(points, torch.from_numpy(seen)).numpy()
    covariance = _residual_covariance(views, points, normal, seen)
    state = _lay_frame_by_frame(model, joints, seen)
    pose, translation = model.pose(state), model.translation_m(state)
    vertices = skin(hand, pose, state.shape, translation)
    result = _result(rig, joints, covariance, vertices, pose, state.shape, translation, seen, "raw")
    return _in_rig_units(result, unit_m, rig)


def _residual_covariance(
    views: StraightViews, points: torch.Tensor, normal: torch.Tensor, seen: Bool[np.ndarray, "T J"]
) -> Float[np.ndarray, "T J 3 3"]:
    """Covariance (m^2) of unweighted triangulation: pixel variance of each joint over the frames, times (J'J)^-1."""
    squared = mahalanobis2(views, points).numpy()
    count = (views.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0).numpy().sum(1)
    freedom = np.where(seen, 2 * count - 3, 0).sum(0)
    variance_px2 = np.where(seen, squared.sum(1), 0.0).sum(0) / np.maximum(freedom, 1)
    information = normal.numpy() * seen[..., None, None] / np.maximum(variance_px2, 1e-6)[:, None, None]
    return np.linalg.inv(information + np.eye(3) / MAX_GAP_STD_M**2)


def _lay_frame_by_frame(model: Articulation, joints: np.ndarray, seen: np.ndarray) -> HandState:
    """The hand on given joints by least squares, each frame by itself."""
    state = inverse_kinematics(model, joints, median_shape(model, joints, seen))
    weight = np.ones(joints.shape[:2]) / START_STD_M
    energy = Energy(model, motion_prior(model, FitConfig(), timeless=True), None, PointTerm(joints, weight[..., None, None] * np.eye(3)))
    return minimise(energy, state, FRAME_STEPS, fixed_shape=True)


class _Fitter:
    """One right-handed problem in metres."""

    def __init__(self, hand: Articulation, config: FitConfig, views: StraightViews, points: PointTerm | None):
        self.hand, self.config, self.views, self.points = hand, config, views, points
        self.labelled = hand if config.offset_std_m <= 0 else hand.with_offsets(OFFSET_JOINTS, config.offset_std_m)
        self.precision = views.precision.numpy()
        self.stated = self.precision.trace(axis1=-2, axis2=-1)
        self.present = self.stated > 0
        self.start = triangulate_robust(views)
        self.weight = self.start.weight.numpy() / self.start.scale**2
        self.prior = motion_prior(hand, config)

    def run(self, progress: Progress | None) -> HandState:
        """The best state found."""
        config = self.config
        state = self._begin()
        state = replace(state, shape=np.pad(state.shape, (0, self.labelled.n_shared - N_SHAPE)))
        for done in range(config.rounds):
            self._reweight(state, FIRST_DOF / 2**done)
            state = minimise(self.energy(), state, config.steps)
            if progress is not None:
                progress(done + 1, config.rounds)
        return state  # its shape holds the detector's offsets too

    def _begin(self) -> HandState:
        """Inverse kinematics on the triangulated joints, then the model fitted to them in 3D, over time."""
        start = self.start
        joints = interpolate_gaps(start.points_world_m, start.seen).numpy()
        seen = start.seen.numpy()
        shape = median_shape(self.hand, joints, seen)
        state = inverse_kinematics(self.hand, joints, shape)
        covariance = start.covariance_m2.numpy() + np.eye(3) * START_STD_M**2
        root = np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-1, -2) * seen[..., None, None]
        for _ in range(START_ROUNDS):
            offset = (root @ (self.hand.posed(state, False).joints - joints)[..., None])[..., 0]
            weight = (START_DOF + 3) / (START_DOF + (offset**2).sum(-1))
            term = PointTerm(joints, root * np.sqrt(weight)[..., None, None])
            state = minimise(Energy(self.hand, self.prior, None, term), state, START_STEPS)
        return state

    def _reweight(self, state: HandState, least_dof: float) -> None:
        """Believe the labels as their residuals deserve; at first nearly alike, so that no view is written off early."""
        trust = replace(self.config.trust, dof=max(self.config.trust.dof, least_dof))
        points = torch.from_numpy(self.labelled.posed(state, derivatives=False).joints)
        squared = mahalanobis2(self.views, points).numpy()
        self.weight = label_trust(squared, self.stated, self.present, trust)

    def energy(self) -> Energy:
        """The cost with the present weights."""
        rho = float(np.exp(-1 / (self.config.fps * self.config.label_memory_s))) if self.config.label_memory_s > 0 else 0.0
        cameras = self.views.cameras.cam_from_world.numpy()
        labels = LabelTerm(
            cameras[..., :3], cameras[..., 3], self.views.xy.numpy(), matrix_root(self.precision),
            earlier_correlation(self.present, rho), rho,
        )  # fmt: skip
        return Energy(self.labelled, self.prior, labels.weighted(self.weight, self.config.shared_hand, self.config.shared_finger), self.points)

    def result(self, state: HandState, model: HandModel, rig: Rig) -> Result:
        """What was found, with its covariance."""
        inverse = inverse_blocks(self.energy().normal_equations(state))
        shape_part = slice(0, N_SHAPE)
        inverse = replace(inverse, shared=inverse.shared[..., shape_part], corner=inverse.corner[shape_part, shape_part])
        state = replace(state, shape=state.shape[shape_part])
        covariance = COVARIANCE_INFLATION * joint_covariance(self.hand, state, inverse)
        seen = self.present.sum(1) >= MIN_VIEWS
        pose, translation = self.hand.pose(state), self.hand.translation_m(state)
        joints = self.hand.posed(state, derivatives=False).joints
        vertices = skin(model, pose, state.shape, translation)
        return _result(rig, joints, covariance, vertices, pose, state.shape, translation, seen, "fit")


def _result(rig, joints, covariance, vertices, pose, shape, translation, seen, method) -> Result:
    """A right-handed result in the rig's own words; frames count where two views see enough joints."""
    valid = seen.sum(1) >= MIN_JOINTS
    return Result(
        joints_world_m=joints, joints_cov_m2=covariance, vertices_world_m=vertices, pose=pose, shape=shape,
        translation_m=translation, side="right", frame=np.arange(len(pose)), valid=valid, joint_valid=seen & valid[:, None],
        scale=rig.scale, metric=rig.metric, method=method, cameras=rig.names,
    )  # fmt: skip


def _right_hand(hand: HandModel | None) -> HandModel:
    """The hand to fit, as a right one in float64; the embedded one if none is given."""
    if hand is None:
        return load_hand(side="right", dtype=torch.float64)
    hand = hand.to(torch.float64)
    return hand if hand.side == "right" else hand.mirrored()


# ---- the problem as it comes ------------------------------------------------------------------------------------------


def _aligned(rig: Rig, labels: Labels) -> tuple[Rig, Labels]:
    """Rig and labels with the same cameras in the rig's order: those that have labels."""
    for name in labels.cameras:
        if name not in rig.names:
            raise UserError(
                f"the labels know a camera '{name}' that the rig lacks",
                f"the rig's cameras are {', '.join(rig.names)}",
                "name the cameras alike in rig.toml and in the labels, or leave that camera out of both",
            )
    names = [name for name in rig.names if name in labels.cameras]
    kept = replace(rig, cameras=tuple(rig.cameras[rig.index(name)] for name in names))
    return kept, labels.subset(names)


def _check_views(rig: Rig, observations: Observations) -> None:
    """Raise `UserError` unless two views see something at once."""
    present = observations.precision.trace(axis1=-2, axis2=-1) > 0
    if present.shape[1] != len(rig):
        raise UserError(
            f"there are observations of {present.shape[1]} views and {len(rig)} cameras",
            "the rig and the observations are of different captures",
            "give the rig that the observations were made with",
        )
    with_labels = [name for name, some in zip(rig.names, present.any(axis=(0, 2)), strict=True) if some]
    if not with_labels:
        raise UserError("no camera has a label in any frame", "the detector never found the hand", "run `usthand label` again, or look at the videos")
    if len(with_labels) < MIN_VIEWS:
        raise UserError(
            f"only camera '{with_labels[0]}' has labels", "a hand cannot be placed in space from one view",
            "label a second camera: usthand label CAPTURE",
        )  # fmt: skip
    if not ((present.sum(1) >= MIN_VIEWS).sum(1) >= MIN_JOINTS).any():
        raise UserError(
            "no frame has labels in two views", "the cameras see the hand at different times, or are not synchronised",
            "check that frame k of every video is the same instant",
        )  # fmt: skip


def _mirrored(observations: Observations, rig: Rig) -> Observations:
    """The observations in the mirrored images and world."""
    uv = observations.uv_px.copy()
    uv[..., 0] = (rig.widths[:, None] - 1) - uv[..., 0]
    flip = np.array([-1.0, 1.0])
    points, precision = observations.points_world_m, observations.points_precision
    return Observations(
        uv,
        observations.precision * flip[:, None] * flip,
        None if points is None else points * MIRROR,
        None if precision is None else precision * MIRROR[:, None] * MIRROR,
    )


def _points_scaled(observations: Observations, unit_m: float) -> PointTerm | None:
    if observations.points_world_m is None:
        return None
    # By eigenvalues, not Cholesky: points that were not observed have a precision of zero.
    value, vector = np.linalg.eigh(observations.points_precision / unit_m**2)
    root = np.sqrt(np.maximum(value, 0.0))[..., None] * vector.swapaxes(-1, -2)
    return PointTerm(observations.points_world_m * unit_m, root)


def _metres_per_unit(rig: Rig, observations: Observations, model: Articulation) -> float:
    """Size of the rig's unit if the hand is of the model's mean size: ratio of median bone lengths."""
    views = straighten(rig.tensors(torch.float64), torch.from_numpy(observations.uv_px), torch.from_numpy(observations.precision))
    found = triangulate_robust(views)
    length, known = median_bone_lengths(found.points_world_m.numpy(), found.seen.numpy())
    mean = bone_lengths(model.rest_joints(np.zeros(model.joint_by_shape.shape[-1])))
    return float(mean[known].sum() / max(length[known].sum(), 1e-12))


def _scaled(rig: Rig, unit_m: float) -> Rig:
    """The rig in metres."""
    return rig if unit_m == 1 else replace(rig, cameras=tuple(replace(c, translation=c.translation * unit_m) for c in rig.cameras))


def _in_rig_units(result: Result, unit_m: float, rig: Rig) -> Result:
    """Back in the unit of a rig without scale, so that the result projects into its images."""
    if rig.metric:
        return result
    return replace(
        result,
        joints_world_m=result.joints_world_m / unit_m,
        joints_cov_m2=result.joints_cov_m2 / unit_m**2,
        vertices_world_m=result.vertices_world_m / unit_m,
        translation_m=result.translation_m / unit_m,
        scale=f"the calibration's own unit; {1000 * unit_m:.4g} mm if the hand is of mean size",
    )


START_STD_M = 0.003  # of a triangulated joint against the model's, beside its own covariance
START_DOF = 3.0
START_ROUNDS, START_STEPS = 4, 3
OFFSET_JOINTS = (0, 1, 2)  # wrist and thumb base: where detectors and hand models differ most
FIRST_DOF = 64.0  # of Student's t in the first round of reweighting, halved every round
COVARIANCE_INFLATION = 1.8  # measured: what the error model leaves out (systematic errors), see docs/notes/fit.md
FRAME_STEPS = 12  # of the plain fit, frame by frame
DIP_PER_PIP = 0.6  # the tendons couple the last two joints of a finger (Rijpkema and Girard 1991: two thirds)


def motion_prior(hand: Articulation, config: FitConfig, timeless: bool = False) -> Prior:
    """Priors in units of frames; `timeless` leaves the motion out, so that every frame stands by itself."""
    scales, fps = config.motion, config.fps
    axis = np.array([a for _, a in hand.free])
    acceleration = np.concatenate(
        [np.full(3, scales.turn_rad_s2), np.full(3, scales.wrist_m_s2),
         np.where(axis == 0, scales.flexion_rad_s2, scales.other_rad_s2)]
    )  # fmt: skip
    velocity = np.concatenate(
        [np.full(3, scales.turn_rad_s), np.full(3, scales.wrist_m_s),
         np.where(axis == 0, scales.flexion_rad_s, scales.other_rad_s)]
    )  # fmt: skip
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


def skin(hand: HandModel, pose: np.ndarray, shape: np.ndarray, translation_m: np.ndarray) -> Float[np.ndarray, "T 778 3"]:
    """The mesh of every frame, world, metres."""
    shaped = hand.with_shape(torch.as_tensor(shape, dtype=torch.float64))
    out = []
    with torch.no_grad():
        for at in range(0, len(pose), VERTEX_CHUNK):
            part = slice(at, at + VERTEX_CHUNK)
            rotations = hand.rotations(torch.from_numpy(pose[part]), flat_hand_mean=True)
            out.append(shaped.with_pose(rotations, torch.from_numpy(translation_m[part])).vertices.numpy())
    return np.concatenate(out)
