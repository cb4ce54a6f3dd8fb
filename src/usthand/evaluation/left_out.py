"""Whether uncertainty keeps its promise in a camera that was left out: a check that needs no truth, on anyone's rig.

A label of the left-out camera is the projection of the joint X plus the detector's error: y = pi(X) + n. For a result
with mean X^ and covariance C, y - pi(X^) = J (X - X^) + n to first order, with J the projection's derivative. The first
part's covariance is A = J C J'. The second part is Student's t, whose scale s and degrees of freedom
`usthand.evaluation.label_noise` finds from the cameras that were used: the left-out errors have no part in it.

Regions are the ellipses of A + s^2 I. The sum of a normal and a t variable is no t variable, but given w, the t's own
chi-squared over its degrees of freedom, it is normal with covariance A + s^2 I / w. Along the eigenvectors of A, whose
eigenvalues are a_i, its variances over the ellipse's are k_i(w) = (a_i + s^2 / w) / (a_i + s^2), and the ellipse
through an error of square q holds, in polar coordinates of the two standard normals,

    E_w[ P(k_1 g_1^2 + k_2 g_2^2 <= q) ] = 1 - E_w[ 1 / 2 pi  integral exp(-q / (2 k_1 cos^2 + 2 k_2 sin^2)) ].

An error lies in the region of level p if that content is at most p. With many degrees of freedom it is chi-squared, of
labels alone (A = 0) it is the F distribution.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import chi2

from usthand.capture.rig import Rig
from usthand.evaluation import metrics
from usthand.evaluation.label_noise import LabelNoise, estimate_label_noise
from usthand.geometry.cameras import project, projection_jacobian
from usthand.hand.result import Result
from usthand.labels.labels import Labels

ROUNDS = 20
_N_SCALES, _N_ANGLES = 64, 16  # of the quadrature: good to .002 (tests)
_LEAST_PX2 = 1e-12


def evaluate_left_out_regions(
    result: Result, rig: Rig, labels: Labels, camera: str, frames: metrics.Frames = None
) -> metrics.Numbers:
    """Share of a left-out camera's labels inside the regions predicted for them.

    Args:
        result: What to measure, made without the camera.
        rig: All cameras of the capture.
        labels: Those of all cameras, indexed by frame number.
        camera: The one that was left out.
        frames: Which frames to measure.

    Returns:
        `leave_out_coverage50`, `leave_out_coverage90`: the share of the labels inside. `leave_out_own_px`: standard
        deviation that the result gives its joints in that image (median over joints, root mean square of the axes).
        `leave_out_noise_px`, `leave_out_noise_dof`: scale (median) and degrees of freedom of the labels' own errors.
        `leave_out_delay_frames`: by how much the camera's labels trail the motion, a constant that is fitted to its
        errors; `leave_out_in_time_coverage50` and `...90`: the shares without that delay. None where the cameras used
        have too few labels to tell their noise.

    Raises:
        UsthandError: As `usthand.evaluation.metrics.label_residuals_px`.
    """
    result = result.as_detected()
    seen = metrics.label_residuals_px(result, rig, labels, (camera,), frames)[1][:, 0]
    numbers = result.frame[metrics.select_frames(result, frames)]
    names = [f"leave_out_{when}coverage{100 * q:.0f}" for when in ("", "in_time_") for q in metrics.COVERAGE_LEVELS]
    keys = (*names, "leave_out_own_px", "leave_out_noise_px", "leave_out_noise_dof", "leave_out_delay_frames")
    noise = _noise_of_used(result, rig, labels, numbers)
    if noise is None or not seen.any():
        return dict.fromkeys(keys)
    metric = rig.in_metres(result.unit_m)
    uv, covariance = _seen_by(replace(metric, cameras=(metric.cameras[metric.index(camera)],)), result)
    speed = _speed(uv, result)
    rows = np.flatnonzero(np.isin(result.frame, numbers))
    own = labels.subset((camera,))
    error, own_px2 = (own.uv_px[numbers, 0] - uv[rows])[seen], covariance[rows][seen]
    scale, speed = noise.scale_px(own)[numbers, 0][seen], speed[rows][seen]
    delay = _delay_frames(error, own_px2, scale, noise.dof, speed)
    contents = [region_content(e, own_px2, scale, noise.dof) for e in (error, error + delay * speed)]
    shares = [float((content <= q).mean()) for content in contents for q in metrics.COVERAGE_LEVELS]
    found: metrics.Numbers = dict(zip(names, shares, strict=True))
    return found | {
        "leave_out_own_px": float(np.median(np.sqrt(0.5 * own_px2.trace(axis1=-2, axis2=-1)))),
        "leave_out_noise_px": float(np.median(scale)),
        "leave_out_noise_dof": noise.dof,
        "leave_out_delay_frames": delay,
    }


def region_content(
    error_px: Float[np.ndarray, "n 2"],
    own_px2: Float[np.ndarray, "n 2 2"],
    scale_px: Float[np.ndarray, "n"],
    dof: float,
) -> Float[np.ndarray, "n"]:
    """Probability of the ellipse through each error, for the sum of a normal and a t variable; the head has it.

    Args:
        error_px: Observed less predicted, px.
        own_px2: Covariance of the normal part, px^2.
        scale_px: Scale of the t part, the same on both axes, px.
        dof: Its degrees of freedom.
    """
    variance, axes = np.linalg.eigh(own_px2)
    variance, noise = np.clip(variance, 0.0, None)[:, None], scale_px[:, None, None] ** 2
    whole = variance + noise + _LEAST_PX2
    square = (np.einsum("nji,nj->ni", axes, error_px) ** 2 / whole[:, 0]).sum(-1)
    inverse_w = dof / chi2.ppf((np.arange(_N_SCALES) + 0.5) / _N_SCALES, dof)
    stretch = (variance + noise * inverse_w[:, None] + _LEAST_PX2) / whole  # (n, scales, 2)
    angle = 0.5 * np.pi * (np.arange(_N_ANGLES) + 0.5) / _N_ANGLES
    width = stretch[..., :1] * np.cos(angle) ** 2 + stretch[..., 1:] * np.sin(angle) ** 2
    return 1.0 - np.exp(-0.5 * square[:, None, None] / width).mean((1, 2))


def _noise_of_used(result: Result, rig: Rig, labels: Labels, numbers: np.ndarray) -> LabelNoise | None:
    """From the labels of the cameras that the result was made with, in the frames measured."""
    used = labels.subset([name for name in rig.names if name in result.cameras])
    used = replace(used, uv_px=used.uv_px[numbers], confidence=used.confidence[numbers])
    metric = rig.in_metres(result.unit_m)
    cameras = tuple(metric.cameras[metric.index(name)] for name in used.cameras)
    return estimate_label_noise(replace(metric, cameras=cameras), used)


def _seen_by(one: Rig, result: Result) -> tuple[Float[np.ndarray, "T 21 2"], Float[np.ndarray, "T 21 2 2"]]:
    """Joints and their covariances in a rig of one camera, px and px^2."""
    cameras, joints = one.tensors(torch.float64), torch.from_numpy(result.joints_world_m)
    derivative = projection_jacobian(cameras, joints)[:, 0].numpy()
    return project(cameras, joints)[0][:, 0].numpy(), derivative @ result.joints_cov_m2 @ derivative.swapaxes(-1, -2)


def _speed(uv_px: Float[np.ndarray, "T 21 2"], result: Result) -> Float[np.ndarray, "T 21 2"]:
    """Motion in px a frame by central differences; 0 where a neighbouring frame is missing or not valid."""
    speed = np.zeros_like(uv_px)
    whole: Bool[np.ndarray, " n"] = (
        (result.frame[2:] - result.frame[:-2] == 2) & result.valid[2:] & result.valid[:-2] & result.valid[1:-1]
    )
    middle = np.flatnonzero(whole) + 1
    speed[middle] = 0.5 * (uv_px[middle + 1] - uv_px[middle - 1])
    return speed


def _delay_frames(
    error: Float[np.ndarray, "n 2"],
    own_px2: Float[np.ndarray, "n 2 2"],
    scale: Float[np.ndarray, "n"],
    dof: float,
    speed: Float[np.ndarray, "n 2"],
) -> float:
    """The constant delay that explains most: the slope of the errors over the motion, reweighted as t errors are."""
    precision = np.linalg.inv(own_px2 + (scale**2 + _LEAST_PX2)[:, None, None] * np.eye(2))
    steep = np.einsum("ni,nij->nj", speed, precision)
    total = (steep * speed).sum(-1)
    if total.sum() < np.finfo(np.float64).tiny:  # nothing moves
        return 0.0
    delay = 0.0
    for _ in range(ROUNDS):
        left = error + delay * speed
        weight = (dof + 2) / (dof + np.einsum("ni,nij,nj->n", left, precision, left))
        delay = -float((weight * (steep * error).sum(-1)).sum() / (weight * total).sum())
    return delay
