"""Hands from labels without any training: plain triangulation, and a robust fit of the hand model to the whole sequence.

`raw_triangulation` is what everybody starts with. `fit_labels` is what a careful user would do: robust triangulation,
the hand fitted_mesh on it by inverse kinematics, then Levenberg-Marquardt on all frames together with one shape, joint limits,
smooth motion and labels believed as far as they deserve. `fit_observations` is the same for 2D distributions, such as a
network's. Left hands are fitted as right ones in the mirrored world.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d, median_filter
from threadpoolctl import threadpool_limits

from usthand.capture.rig import MIRROR, Rig
from usthand.common.errors import UsthandError
from usthand.fit.joint_model_selection import choose_soft
from usthand.fit.kinematics import articulation
from usthand.fit.mesh import FittedMesh, fit_mesh, skinned
from usthand.fit.metric_scale import in_own_unit, scaled_by_hand
from usthand.fit.objective import PointTerm
from usthand.fit.sequence import MIN_VIEWS, FitConfig, Fitter, Progress
from usthand.geometry.robust_triangulation import (
    UndistortedViews,
    interpolate_gaps,
    reprojection_mahalanobis2,
    undistorted_views,
)
from usthand.geometry.triangulation import triangulate_xy
from usthand.hand.io import right_hand
from usthand.hand.model import HandModel
from usthand.hand.result import Result
from usthand.labels.labels import Labels, Observations

MIN_JOINTS = 5  # joints seen by two views that make a frame count as seen
MAX_GAP_STD_M = 0.2  # bounds the covariance of bridged frames
MEDIAN_S, GAUSSIAN_S = (
    0.133,
    0.05,
)  # of the smoothed triangulation: 5 frames and a deviation of 1.5 frames at 30 per second


def fit_labels(
    rig: Rig,
    labels: Labels,
    config: FitConfig | None = None,
    hand: HandModel | None = None,
    progress: Progress | None = None,
) -> Result:
    """Fit the hand to a detector's labels.

    Raises:
        UsthandError: fewer than two views with labels, labels of a camera that the rig lacks, no frame seen by two views.
    """
    rig, labels = _aligned(rig, labels)
    return fit_observations(rig, Observations.from_labels(labels), config, labels.side, hand, progress)


def fit_observations(
    rig: Rig,
    observations: Observations,
    config: FitConfig | None = None,
    side: str = "right",
    hand: HandModel | None = None,
    progress: Progress | None = None,
) -> Result:
    """Fit the hand to 2D observations with 2x2 precisions, in the order of the rig's cameras, and optional 3D ones.

    Raises:
        UsthandError: see `fit_labels`.
    """
    config = config or FitConfig()
    if side == "left":
        return fit_observations(
            rig.mirrored(), _mirrored(observations, rig), config, "right", hand, progress
        ).mirrored()
    _check_views(rig, observations)
    hand = right_hand(hand)
    joints = articulation(hand)
    rig, unit_m = scaled_by_hand(rig, observations, joints)
    views = undistorted_views(
        rig.tensors(torch.float64), torch.from_numpy(observations.uv_px), torch.from_numpy(observations.precision)
    )
    with threadpool_limits(1, "blas"):  # thousands of small products: threads cost more than they bring
        soft = config.joint_model == "soft" or (config.joint_model == "auto" and choose_soft(joints, config, views))
        fitted = Fitter(
            joints,
            config,
            views,
            _point_term(observations, unit_m),
            soft,
            observations.predicts_model_joints,
            observations.sets_noise_scale,
        ).run(progress)
    fitted_mesh, kind = skinned(hand, joints, fitted.state), "soft" if soft else "rigid"
    result = _result(rig, hand, fitted.joints_world_m, fitted.covariance_m2, fitted_mesh, fitted.seen, "fit", kind)
    return in_own_unit(result, unit_m)


def raw_triangulation(
    rig: Rig, labels: Labels, hand: HandModel | None = None, smooth_fps: float | None = None
) -> Result:
    """Plain triangulation, the reference that everything is measured against: no robustness, no weights, no smoothing.

    Joints: unweighted DLT over all views with a label, per frame and joint; where fewer than two views have one, linear
    interpolation in time (`valid` is then False). Mesh: what a plain user would do next, the hand model fitted_mesh on those
    joints frame by frame by least squares, with one shape for the sequence (from the median bone lengths) and no temporal
    terms. Covariance: least squares' own, sigma^2 (J'J)^-1, with sigma^2 of each joint from its residuals in all frames.

    `smooth_fps` (frames per second; None for no smoothing) adds what most people do: every joint's track goes through a running
    median and a Gaussian. The covariance stays, since errors of labels last longer than the filters.

    Raises:
        UsthandError: as `fit_labels`.
    """
    rig, labels = _aligned(rig, labels)
    if labels.side == "left":
        mirrored = labels.mirrored(rig.widths)
        return raw_triangulation(rig.mirrored(), mirrored, hand, smooth_fps).mirrored()
    observations = Observations(labels.uv_px.astype(np.float64), labels.mask[..., None, None] * np.eye(2))
    _check_views(rig, observations)
    hand = right_hand(hand)
    model = articulation(hand)
    rig, unit_m = scaled_by_hand(rig, observations, model)
    cameras = rig.tensors(torch.float64)
    views = undistorted_views(cameras, torch.from_numpy(observations.uv_px), torch.from_numpy(observations.precision))
    points, normal = triangulate_xy(cameras, views.xy, views.precision, iterations=0)
    seen = labels.mask.sum(1) >= MIN_VIEWS
    joints = interpolate_gaps(points, torch.from_numpy(seen)).numpy()
    if smooth_fps is not None:
        window = 2 * round(MEDIAN_S * smooth_fps / 2) + 1
        joints = gaussian_filter1d(
            median_filter(joints, (window, 1, 1), mode="nearest"), GAUSSIAN_S * smooth_fps, 0, mode="nearest"
        )
    covariance = _residual_covariance(views, points, normal, seen)
    fitted_mesh = fit_mesh(hand, joints, seen)
    result = _result(
        rig, hand, joints, covariance, fitted_mesh, seen, "raw" if smooth_fps is None else "smooth", "free"
    )
    return in_own_unit(result, unit_m)


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


def _result(rig, hand, joints, covariance, fitted_mesh: FittedMesh, seen, method, kind) -> Result:
    """A right-handed result in the rig's own words; frames count where two views see enough joints."""
    valid = seen.sum(1) >= MIN_JOINTS
    return Result(
        **fitted_mesh._asdict(),
        joints_world_m=joints,
        joints_cov_m2=covariance,
        side="right",
        frame=np.arange(len(joints)),
        valid=valid,
        joint_valid=seen & valid[:, None],
        unit_source=rig.unit_source,
        metric=rig.metric,
        method=method,
        joint_model=kind,
        cameras=rig.names,
        faces=hand.faces.numpy(),
    )


# ---- the problem as it comes ---------------------------------------------------------------------------------------


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


def _check_views(rig: Rig, observations: Observations) -> None:
    """Raise `UsthandError` unless two views see something at once."""
    present = observations.precision.trace(axis1=-2, axis2=-1) > 0
    if present.shape[1] != len(rig):
        raise UsthandError(
            f"there are observations of {present.shape[1]} views and {len(rig)} cameras",
            "the rig and the observations are of different captures",
            "give the rig that the observations were made with",
        )
    with_labels = [name for name, some in zip(rig.names, present.any(axis=(0, 2)), strict=True) if some]
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
        observations.predicts_model_joints,
        observations.sets_noise_scale,
    )


def _point_term(observations: Observations, unit_m: float | None) -> PointTerm | None:
    if observations.points_world_m is None:
        return None
    unit_m = 1.0 if unit_m is None else unit_m
    # By eigenvalues, not Cholesky: points that were not observed have a precision of zero.
    value, vector = np.linalg.eigh(observations.points_precision / unit_m**2)
    root = np.sqrt(np.maximum(value, 0.0))[..., None] * vector.swapaxes(-1, -2)
    return PointTerm(observations.points_world_m * unit_m, root)
