"""Cameras, projection and triangulation as pure, differentiable, batched functions.

Frames and units: `world` in metres; `cam` is OpenCV's camera frame (x right, y down, z forward), `X_cam = R X_world + t`;
`px` are pixels with pixel centres at integers. `xy` are undistorted image coordinates at depth 1.
Shapes: `*b` any batch axes, V views, N points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from usthand.geometry.lenses import distort, undistort_xy

MIN_DEPTH_M = 1e-3  # points at or behind a camera are projected as if this far in front: finite, far outside the image
MIN_WEIGHT_SUM = 1e-9


class Cameras(NamedTuple):
    """V cameras as tensors."""

    cam_from_world: Float[Tensor, "*b V 3 4"]
    """Rotation and translation, metres."""
    intrinsics: Float[Tensor, "*b V 4"]
    """fx, fy, cx, cy in pixels."""
    distortion: Float[Tensor, "*b V 12"]
    """The lens's coefficients and zeros; only thin prism and FISHEYE624 use those past the eighth:
    pinhole k1 k2 p1 p2 k3 k4 k5 k6, with a thin prism also s1 s2 s3 s4 (OpenCV's order); fisheye k1 k2 k3 k4;
    FISHEYE624 k1 k2 k3 k4 k5 k6 p1 p2 s1 s2 s3 s4 (Meta's order and meaning)."""
    lens: Int[Tensor, "*b V"]
    """PINHOLE or THIN_PRISM (OpenCV's models), FISHEYE (OpenCV's equidistant model) or FISHEYE624 (Meta's)."""

    def to(self, device: torch.device | str) -> Cameras:
        """On another device."""
        return Cameras(*(t.to(device) for t in self))


def undistort(cameras: Cameras, uv_px: Float[Tensor, "*b V N 2"], iterations: int = 10) -> Float[Tensor, "*b V N 2"]:
    """Pixels to undistorted image coordinates at depth 1. Differentiable through its iterations."""
    focal, centre = cameras.intrinsics[..., None, :2], cameras.intrinsics[..., None, 2:]
    bent = (uv_px - centre) / focal
    if not cameras.distortion.any() and not cameras.lens.any():
        return bent
    return undistort_xy(bent, cameras.distortion, cameras.lens, iterations)


def to_camera(cameras: Cameras, points_world_m: Float[Tensor, "*b N 3"]) -> Float[Tensor, "*b V N 3"]:
    """World points in every camera's frame, metres."""
    rotation, translation = cameras.cam_from_world[..., :3], cameras.cam_from_world[..., 3]
    return points_world_m.unsqueeze(-3) @ rotation.transpose(-1, -2) + translation.unsqueeze(-2)


def project(
    cameras: Cameras, points_world_m: Float[Tensor, "*b N 3"]
) -> tuple[Float[Tensor, "*b V N 2"], Float[Tensor, "*b V N"]]:
    """World points in every view: pixels and depths (metres). Equal to OpenCV's projectPoints."""
    cam = to_camera(cameras, points_world_m)
    depth = cam[..., 2]
    xy = cam[..., :2] / depth.clamp_min(MIN_DEPTH_M).unsqueeze(-1)
    bent = distort(xy, cameras.distortion, cameras.lens)
    return bent * cameras.intrinsics[..., None, :2] + cameras.intrinsics[..., None, 2:], depth


# ---- triangulation ------------------------------------------------------------------------------------------------


def inverse_3x3(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Inverse by the adjugate: many times faster than LAPACK for large batches, and differentiable everywhere.

    The matrix must be well scaled; a determinant near zero is held away from it.
    """
    r0, r1, r2 = matrix.unbind(-2)
    c0, c1, c2 = torch.linalg.cross(r1, r2), torch.linalg.cross(r2, r0), torch.linalg.cross(r0, r1)
    det = (r0 * c0).sum(-1)
    det = torch.where(det.abs() < 1e-20, torch.full_like(det, 1e-20), det)
    return torch.stack((c0, c1, c2), -1) / det[..., None, None]


def _normal_equations(rows: Tensor, precision: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """sum over views of A' P A (3x3) and A' P b (3), for rows A (*b V N 2 3), P (*b V N 2 2), b (*b V N 2)."""
    weighted = rows.transpose(-1, -2) @ precision
    return (weighted @ rows).sum(-4), (weighted @ right.unsqueeze(-1)).squeeze(-1).sum(-3)


def _solve_damped(normal: Tensor, right: Tensor, relative: float) -> Tensor:
    """Solve with damping relative to the trace, so that rank-deficient systems (one view, none) stay finite."""
    trace = normal.diagonal(dim1=-2, dim2=-1).sum(-1)
    scaled = normal / trace.clamp_min(MIN_WEIGHT_SUM)[..., None, None]
    eye = torch.eye(3, dtype=normal.dtype, device=normal.device)
    solution = (inverse_3x3(scaled + relative * eye) @ right.unsqueeze(-1)).squeeze(-1)
    return solution / trace.clamp_min(MIN_WEIGHT_SUM).unsqueeze(-1)


def _linear_start(rotation: Tensor, translation: Tensor, xy: Tensor, weight: Tensor, origin: Tensor) -> Tensor:
    """Weighted DLT around `origin`: x (r3.X + t3) = r1.X + t1 for both coordinates, a 3x3 solve."""
    offset = (rotation @ origin[..., None, :, None]).squeeze(-1) + translation  # (*b V 3) origin in each camera
    rows = rotation[..., None, :2, :] - xy.unsqueeze(-1) * rotation[..., None, 2:, :]
    right = xy * offset[..., None, 2:] - offset[..., None, :2]
    precision = weight[..., None, None] * torch.eye(2, dtype=xy.dtype, device=xy.device)
    normal, moment = _normal_equations(rows, precision, right)
    return origin.unsqueeze(-2) + _solve_damped(normal, moment, 1e-7 if xy.dtype == torch.float32 else 1e-12)


def view_centre(cameras: Cameras) -> Float[Tensor, "*b 3"]:
    """The point that all optical axes pass closest to (least squares), metres: the natural origin of a rig."""
    rotation, translation = cameras.cam_from_world[..., :3], cameras.cam_from_world[..., 3]
    centres = -(rotation.transpose(-1, -2) @ translation.unsqueeze(-1)).squeeze(-1)
    axis = rotation[..., 2, :]
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    across = eye - axis.unsqueeze(-1) * axis.unsqueeze(-2)
    mean = centres.mean(-2)
    moment = (across @ (centres - mean.unsqueeze(-2)).unsqueeze(-1)).squeeze(-1).sum(-2)
    # Damping matters only for parallel axes, where the centre is then near the cameras: finite, merely less central.
    return mean + (inverse_3x3(across.sum(-3) + 1e-3 * eye) @ moment.unsqueeze(-1)).squeeze(-1)


def _projection_jacobian(rotation: Tensor, cam: Tensor) -> tuple[Tensor, Tensor]:
    """Ideal projection (*b V N 2) and its derivative by the world point (*b V N 2 3)."""
    depth = cam[..., 2:].clamp_min(MIN_DEPTH_M)
    xy = cam[..., :2] / depth
    rows = (rotation[..., None, :2, :] - xy.unsqueeze(-1) * rotation[..., None, 2:, :]) / depth.unsqueeze(-1)
    return xy, rows


def triangulate_xy(
    cameras: Cameras, xy: Float[Tensor, "*b V N 2"], precision: Float[Tensor, "*b V N 2 2"], iterations: int = 2
) -> tuple[Float[Tensor, "*b N 3"], Float[Tensor, "*b N 3 3"]]:
    """Weighted least-squares points from undistorted coordinates, with the normal matrix at the solution.

    Minimises sum_v (pi_v(X) - xy_v)' P_v (pi_v(X) - xy_v): a weighted DLT in coordinates centred on the rig, then
    Gauss-Newton. Views with zero precision take no part. With fewer than two views the result is finite but
    meaningless along the ray; the normal matrix then is singular, which is how a caller tells.

    Returns:
        points (metres, world) and the normal matrix sum_v J' P J: in 1/m^2 if `precision` is in 1/xy^2.
    """
    rotation, translation = cameras.cam_from_world[..., :3], cameras.cam_from_world[..., 3]
    weight = 0.5 * precision.diagonal(dim1=-2, dim2=-1).sum(-1)
    points = _linear_start(rotation, translation, xy, weight, view_centre(cameras))
    for step in range(iterations + 1):
        cam = to_camera(cameras, points)
        predicted, rows = _projection_jacobian(rotation, cam)
        normal, moment = _normal_equations(rows, precision, xy - predicted)
        if step < iterations:
            # A point with one view or none has no depth; steps longer than 5 cm mean just that, and are not taken.
            points = points + _solve_damped(normal, moment, 1e-6).clamp(-0.05, 0.05)
    return points, normal


def triangulate(
    cameras: Cameras, uv_px: Float[Tensor, "*b V N 2"], weight: Float[Tensor, "*b V N"], iterations: int = 2
) -> Float[Tensor, "*b N 3"]:
    """Points (metres, world) that minimise the weighted squared reprojection error in pixels.

    A view with weight 0 takes no part. Points seen by fewer than two views are finite but not to be trusted: count
    the positive weights. Differentiable; no SVD.
    """
    xy, precision = _pixel_precision(cameras, uv_px, weight)
    return triangulate_xy(cameras, xy, precision, iterations)[0]


def _pixel_precision(cameras: Cameras, uv_px: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    focal = cameras.intrinsics[..., None, :2]
    return undistort(cameras, uv_px), torch.diag_embed(weight.unsqueeze(-1) * focal * focal)


def triangulate_precision(
    cameras: Cameras,
    uv_px: Float[Tensor, "*b V N 2"],
    precision_px: Float[Tensor, "*b V N 2 2"],
    iterations: int = 2,
    prior_std_m: float = 1.0,
) -> tuple[Float[Tensor, "*b N 3"], Float[Tensor, "*b N 3 3"]]:
    """Maximum-likelihood points and their covariance (m^2) from per-view 2x2 precisions (px^-2).

    The lens's local stretch is neglected in the precision (it is a few per cent); the point itself is exact.
    `prior_std_m` bounds the covariance where the views do not: along the ray of a single view.
    """
    focal = cameras.intrinsics[..., None, :2]
    precision = precision_px * focal.unsqueeze(-1) * focal.unsqueeze(-2)
    points, normal = triangulate_xy(cameras, undistort(cameras, uv_px), precision, iterations)
    eye = torch.eye(3, dtype=points.dtype, device=points.device)
    information = normal + eye / prior_std_m**2
    scale = information.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    return points, inverse_3x3(information / scale) / scale
