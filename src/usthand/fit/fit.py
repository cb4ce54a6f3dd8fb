"""Hands from labels without any training: plain triangulation, and a robust fit of the hand to the whole sequence.

`triangulate` is the usual starting point. `fit_labels` does what a careful user would do: robust triangulation, inverse
kinematics on its joints, then Levenberg-Marquardt on all frames together with one shape, joint limits, smooth motion
and labels weighted by how well they agree. `fit_observations` is the same for 2D distributions, such as a network's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d, median_filter
from threadpoolctl import threadpool_limits

from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.common.progress import Progress, silent
from usthand.fit.canonical import canonical_hand
from usthand.fit.detector_joints import load_detector_joints
from usthand.fit.evidence import PointTerm
from usthand.fit.kinematics import articulation
from usthand.fit.mesh import FittedMesh, fit_mesh, skinned
from usthand.fit.observations import Observations, known_detector
from usthand.fit.sequence import MIN_VIEWS, FitConfig, FitData, Fitter
from usthand.fit.validity import MIN_JOINTS, valid_joints
from usthand.fit.vertex_covariance import vertex_covariance
from usthand.geometry.cameras import Cameras
from usthand.geometry.robust_triangulation import (
    UndistortedViews,
    interpolate_gaps,
    reprojection_mahalanobis2,
    undistorted_views,
)
from usthand.geometry.triangulation import triangulate_xy
from usthand.hand.io import right_hand
from usthand.hand.model import HandModel
from usthand.hand.proportions import with_proportions
from usthand.hand.result import Result
from usthand.labels.labels import Labels

MAX_GAP_STD_M = 0.2  # bounds the covariance of interpolated frames
# Filters of the smoothed triangulation: 5 frames, and a standard deviation of 1.5 frames, at 30 per second.
MEDIAN_S, GAUSSIAN_S = 0.133, 0.05


def fit_labels(
    rig: Rig,
    labels: Labels,
    config: FitConfig | None = None,
    hand: HandModel | None = None,
    progress: Progress = silent,
) -> Result:
    """Fit the hand to a detector's labels: T frames, in metres, with a 3D covariance for each joint.

    Args:
        rig: The calibrated cameras; without a metric scale the hand's size gives it.
        labels: Of one hand, of some or all of the rig's cameras.
        config: Settings of the fit; its `fps` should be the capture's.
        hand: The hand model; the embedded one if none.
        progress: Told of each round of reweighting.

    Raises:
        UsthandError: If fewer than two views have labels, the rig lacks a camera of the labels, no frame is seen by
            two views, or the views place the hand in none (`usthand.fit.validity`).

    Examples:
        >>> import usthand
        >>> capture = usthand.open_capture("clip")
        >>> labels = usthand.load_labels(capture, "right")
        >>> result = usthand.fit_labels(capture.rig, labels, usthand.FitConfig(fps=capture.fps))
        >>> result.joints_world_m.shape, result.std_mm.shape  # (T, 21, 3), (T, 21)
    """
    rig, labels = _aligned(rig, labels)
    _check_views(rig, labels.mask)
    canonical = canonical_hand(rig, labels, hand)
    observations = Observations.from_labels(canonical.labels)
    return canonical.as_captured(fit_observations(canonical.rig, observations, config, hand, progress))


def fit_observations(
    rig: Rig,
    observations: Observations,
    config: FitConfig | None = None,
    hand: HandModel | None = None,
    progress: Progress = silent,
) -> Result:
    """Fit a right hand to 2D observations with 2x2 precisions and, optionally, 3D ones.

    Args:
        rig: Cameras in metres.
        observations: Of a right hand, in the order of the rig's cameras.
        config: Settings of the fit.
        hand: The hand model; the embedded one if none.
        progress: Told of each round of reweighting.

    Raises:
        UsthandError: As `fit_labels`.
        ValueError: If the rig is not in metres.
    """
    if not rig.metric:
        raise ValueError("the rig is not in metres; see usthand.fit.canonical")
    config = config or FitConfig()
    _check_views(rig, (observations.precision.trace(axis1=-2, axis2=-1) > 0).any(1))
    hand = with_proportions(right_hand(hand))
    joints = articulation(hand)
    views = source_views(rig, observations)
    joint_valid = valid_joints(rig, views)
    detector = None if config.joint_model == "rigid" else observations.detector
    if config.joint_model == "soft" and detector is None:
        detector = load_detector_joints("unknown")
    data = FitData(views, observations.sources, detector, _point_term(observations))
    with threadpool_limits(1, "blas"):  # thousands of small products: threads cost more than they bring
        fitted = Fitter(joints, config, data).run(progress)
    mesh = skinned(hand, joints, fitted.state)
    result = _result(rig, hand, mesh, fitted.joints_world_m, fitted.covariance_m2, joint_valid)
    vertices_cov_m2 = vertex_covariance(hand, joints, fitted.state, fitted.posterior)
    shape_cov = fitted.posterior.corner[: joints.n_shape, : joints.n_shape]
    known = {"vertices_cov_m2": vertices_cov_m2, "shape_cov": 0.5 * (shape_cov + shape_cov.T)}
    result = replace(result, method="fit", joint_model="rigid", **known)
    if detector is None:
        return result
    detected = {"detector_joints_world_m": fitted.detected_m, "detector_joints_cov_m2": fitted.detected_cov_m2}
    return replace(result, joint_model="soft", **detected)


def source_views(rig: Rig, observations: Observations) -> UndistortedViews:
    """Observations without the lens; each source has its own copy of the cameras, source by source."""
    flat = (observations.uv_px.shape[0], -1, *observations.uv_px.shape[3:4])
    cameras = rig.tensors(torch.float64)
    copies = Cameras(*(torch.cat([value] * len(observations.sources)) for value in cameras))
    uv_px, precision = observations.uv_px.reshape(*flat, 2), observations.precision.reshape(*flat, 2, 2)
    return undistorted_views(copies, torch.from_numpy(uv_px), torch.from_numpy(precision))


def triangulate(rig: Rig, labels: Labels, hand: HandModel | None = None, smooth_fps: float | None = None) -> Result:
    """Plain triangulation, the reference for every other method: no robustness, no weights, no smoothing.

    - Joints: unweighted DLT over all views with a label, per frame and joint; where fewer than two views have one,
      linear interpolation in time (`joint_valid` is then False).
    - Mesh: the hand model fitted to those joints frame by frame, by least squares, with one shape for the sequence from
      the median bone lengths.
    - Covariance: that of least squares, sigma^2 (J'J)^-1, with sigma^2 of each joint from its residuals in all frames.

    Args:
        rig: The calibrated cameras.
        labels: Of one hand, of some or all of the rig's cameras.
        hand: The hand model; the embedded one if none.
        smooth_fps: Frames per second. If given, each joint's track goes through a running median and a Gaussian, as
            most people do. The covariance stays, since errors of labels last longer than the filters.

    Raises:
        UsthandError: As `fit_labels`.

    Examples:
        >>> import usthand
        >>> capture = usthand.open_capture("clip")
        >>> labels = usthand.load_labels(capture, "right")
        >>> raw = usthand.triangulate(capture.rig, labels)
        >>> smoothed = usthand.triangulate(capture.rig, labels, smooth_fps=capture.fps)
    """
    rig, labels = _aligned(rig, labels)
    _check_views(rig, labels.mask)
    hand = with_proportions(right_hand(hand))
    canonical = canonical_hand(rig, labels, hand, _unweighted)
    views = source_views(canonical.rig, _unweighted(canonical.labels))
    stated = torch.from_numpy(Observations.from_labels(canonical.labels).precision[:, 0, ..., :1, :1])  # px^-2
    joint_valid = valid_joints(canonical.rig, views._replace(precision=views.precision * stated))
    points, normal = triangulate_xy(views.cameras, views.xy, views.precision, iterations=0)
    seen = labels.mask.sum(1) >= MIN_VIEWS
    joints = interpolate_gaps(points, torch.from_numpy(seen)).numpy()
    if smooth_fps is not None:
        window = 2 * round(MEDIAN_S * smooth_fps / 2) + 1
        joints = median_filter(joints, (window, 1, 1), mode="nearest")
        joints = gaussian_filter1d(joints, GAUSSIAN_S * smooth_fps, 0, mode="nearest")
    covariance = _residual_covariance(views, points, normal, seen)
    mesh = fit_mesh(hand, joints, seen, detector=known_detector(labels))
    result = _result(canonical.rig, hand, mesh, joints, covariance, joint_valid)
    return canonical.as_captured(replace(result, method="raw" if smooth_fps is None else "smooth"))


def _unweighted(labels: Labels) -> Observations:
    """All labels alike, 1 px each."""
    return Observations(labels.uv_px.astype(np.float64)[:, None], (labels.mask[..., None, None] * np.eye(2))[:, None])


def _residual_covariance(
    views: UndistortedViews, points: torch.Tensor, normal: torch.Tensor, seen: Bool[np.ndarray, "T J"]
) -> Float[np.ndarray, "T J 3 3"]:
    """Covariance (m^2) of unweighted triangulation: pixel variance of each joint over the frames, times (J'J)^-1."""
    squared = reprojection_mahalanobis2(views, points).numpy()
    count = (views.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0).numpy().sum(1)
    freedom = np.where(seen, 2 * count - 3, 0).sum(0)
    variance_px2 = np.where(seen, squared.sum(1), 0.0).sum(0) / np.maximum(freedom, 1)
    information = normal.numpy() * seen[..., None, None] / np.maximum(variance_px2, 1e-6)[:, None, None]
    return np.linalg.inv(information + np.eye(3) / MAX_GAP_STD_M**2)


def _result(
    rig: Rig,
    hand: HandModel,
    mesh: FittedMesh,
    joints_world_m: Float[np.ndarray, "T 21 3"],
    covariance_m2: Float[np.ndarray, "T 21 3 3"],
    joint_valid: Bool[np.ndarray, "T 21"],
) -> Result:
    """A right-handed result of a plain triangulation."""
    return Result(
        **mesh._asdict(),
        joints_world_m=joints_world_m,
        joints_cov_m2=covariance_m2,
        side="right",
        frame=np.arange(len(joint_valid)),
        valid=joint_valid.sum(1) > 0,
        joint_valid=joint_valid,
        unit_source=rig.unit_source,
        metric=rig.metric,
        method="raw",
        joint_model="free",
        cameras=rig.names,
        faces=hand.faces.numpy(),
    )


def _aligned(rig: Rig, labels: Labels) -> tuple[Rig, Labels]:
    """Rig and labels with the same cameras in the rig's order: those that have labels."""
    for name in labels.cameras:
        if name not in rig.names:
            raise UsthandError(
                f"the labels know a camera '{name}' that the rig lacks",
                f"the rig's cameras are {', '.join(rig.names)}",
                "name the cameras alike in rig.toml and in the labels, or leave that camera out of both",
            )
    names = [name for name in rig.names if name in labels.cameras]
    kept = replace(rig, cameras=tuple(rig.cameras[rig.index(name)] for name in names))
    return kept, labels.subset(names)


def _check_views(rig: Rig, present: Bool[np.ndarray, "T V J"]) -> None:
    """Raise `UsthandError` unless two views see something at once."""
    if present.shape[1] != len(rig):
        raise UsthandError(
            f"there are observations of {present.shape[1]} views and {len(rig)} cameras",
            "the rig and the observations are of different captures",
            "give the rig that the observations were made with",
        )
    with_labels = [name for view, name in enumerate(rig.names) if present[:, view].any()]
    if not with_labels:
        raise UsthandError(
            "no camera has a label in any frame",
            "the detector never found the hand",
            "run `usthand label` again, or look at the videos",
        )
    if len(with_labels) < MIN_VIEWS:
        raise UsthandError(
            f"only camera '{with_labels[0]}' has labels",
            "a hand cannot be placed in space from one view",
            "label a second camera: usthand label CAPTURE",
        )
    if not ((present.sum(1) >= MIN_VIEWS).sum(1) >= MIN_JOINTS).any():
        raise UsthandError(
            "no frame has labels in two views",
            "the cameras see the hand at different times, or are not synchronised",
            "check that frame k of every video is the same instant",
        )


def _point_term(observations: Observations) -> PointTerm | None:
    if observations.points_world_m is None or observations.points_precision is None:
        return None
    # By eigenvalues, not Cholesky: points that were not observed have a precision of zero.
    value, vector = np.linalg.eigh(observations.points_precision)
    return PointTerm(observations.points_world_m, np.sqrt(np.maximum(value, 0.0))[..., None] * vector.swapaxes(-1, -2))
