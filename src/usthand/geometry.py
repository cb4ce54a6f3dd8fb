"""Cameras, triangulation, rotations and alignment as pure, differentiable, batched functions.

Frames and units: `world` in metres; `cam` is OpenCV's camera frame (x right, y down, z forward), `X_cam = R X_world + t`;
`px` are pixels with pixel centres at integers. `xy` are undistorted image coordinates at depth 1.
Lenses are OpenCV's pinhole (with its thin prism) and fisheye, and Meta's FISHEYE624.
Shapes: `*b` any batch axes, V views, N points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

MIN_DEPTH_M = 1e-3  # points at or behind a camera are projected as if this far in front: finite, far outside the image
MIN_WEIGHT_SUM = 1e-9

PINHOLE, FISHEYE, FISHEYE624, THIN_PRISM = range(4)
"""Codes of the lens models in `Cameras.lens`."""
MAX_COEFFICIENTS = 12


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


# ---- lenses -----------------------------------------------------------------------------------------------------


def _prism(r2: Tensor, s: Tensor) -> Tensor:
    """Thin-prism shift (s1 r2 + s2 r4, s3 r2 + s4 r4), the same in OpenCV's and Meta's models."""
    s1, s2, s3, s4 = s.unbind(-1)
    return torch.stack((r2 * (s1 + r2 * s2), r2 * (s3 + r2 * s4)), -1)


def _prism_slope(xy: Tensor, r2: Tensor, s: Tensor) -> Tensor:
    """d prism / d xy, (..., 2, 2)."""
    s1, s2, s3, s4 = s.unbind(-1)
    along = torch.stack((2 * (s1 + 2 * r2 * s2), 2 * (s3 + 2 * r2 * s4)), -1)
    return along.unsqueeze(-1) * xy.unsqueeze(-2)


def _distort_pinhole(xy: Tensor, k: Tensor) -> Tensor:
    """OpenCV's rational model, `calib3d` reference: radial (1+k1r2+k2r4+k3r6)/(1+k4r2+k5r4+k6r6), then tangential, then
    the thin prism if there are twelve coefficients."""
    x, y = xy.unbind(-1)
    k1, k2, p1, p2, k3, k4, k5, k6 = k[..., :8].unbind(-1)
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    bent = torch.stack((x * radial + dx, y * radial + dy), -1)
    return bent if k.shape[-1] == 8 else bent + _prism(r2, k[..., 8:])


def _equidistant(xy: Tensor, k: Tensor) -> Tensor:
    """OpenCV's fisheye model, for any number of coefficients: theta_d = theta (1 + k1 theta^2 + k2 theta^4 + ...)."""
    r = torch.linalg.vector_norm(xy, dim=-1).clamp_min(1e-12)
    theta = torch.atan(r)
    t2 = theta * theta
    growth = torch.zeros_like(t2)
    for coefficient in k.flip(-1).unbind(-1):
        growth = t2 * (coefficient + growth)
    return xy * (theta * (1 + growth) / r).unsqueeze(-1)


def _decentre(xy: Tensor, p: Tensor, s: Tensor) -> Tensor:
    """The tangential and thin-prism part of FISHEYE624. Meta's p1 multiplies 2x2 + r2 in x: it is OpenCV's p2."""
    x, y = xy.unbind(-1)
    p1, p2 = p.unbind(-1)
    r2 = x * x + y * y
    dx = p1 * (r2 + 2 * x * x) + 2 * p2 * x * y
    dy = p2 * (r2 + 2 * y * y) + 2 * p1 * x * y
    return xy + torch.stack((dx, dy), -1) + _prism(r2, s)


def _distort_624(xy: Tensor, k: Tensor) -> Tensor:
    """FISHEYE624 (projectaria_tools, FisheyeRadTanThinPrism.h): six radial terms in theta, then tangential and thin
    prism on what they give."""
    return _decentre(_equidistant(xy, k[..., :6]), k[..., 6:8], k[..., 8:])


_DISTORT = {
    PINHOLE: lambda xy, k: _distort_pinhole(xy, k[..., :8]),
    FISHEYE: lambda xy, k: _equidistant(xy, k[..., :4]),
    FISHEYE624: _distort_624,
    THIN_PRISM: _distort_pinhole,
}


def _by_lens(functions: dict, lens: Tensor, points: Tensor, k: Tensor) -> Tensor:
    """Apply each camera's own lens function. One kind of lens, by far the usual case, costs no selection."""
    first, last = int(lens.min()), int(lens.max())
    if first == last:
        return functions[first](points, k)
    out = points
    for code, function in functions.items():
        mine = (lens == code)[..., None, None]
        if mine.any():
            # Other lenses' coefficients could give infinities here, whose gradients would poison the selection.
            out = torch.where(mine, function(points, torch.where(mine, k, 0)), out)
    return out


def distort(
    xy: Float[Tensor, "*b V N 2"], distortion: Float[Tensor, "*b V 12"], lens: Int[Tensor, "*b V"]
) -> Float[Tensor, "*b V N 2"]:
    """Bend ideal image coordinates the way the lens does (both at depth 1, unitless)."""
    return _by_lens(_DISTORT, lens, xy, distortion.unsqueeze(-2))


def _straighten_angle(bent: Tensor, k: Tensor, iterations: int) -> Tensor:
    """Undo `_equidistant`: Newton on the angle, kept below 89 degrees, where the pinhole ray is still finite."""
    theta_d = torch.linalg.vector_norm(bent, dim=-1).clamp_min(1e-12)
    theta = theta_d.clamp_max(1.5)
    for _ in range(iterations):
        t2 = theta * theta
        growth, slope = torch.zeros_like(t2), torch.zeros_like(t2)
        for power, coefficient in reversed(list(enumerate(k.unbind(-1), 1))):
            growth, slope = t2 * (coefficient + growth), t2 * ((2 * power + 1) * coefficient + slope)
        value = theta * (1 + growth) - theta_d
        theta = (theta - value / (1 + slope).clamp_min(0.1)).clamp(0.0, 1.553)
    return bent * (torch.tan(theta) / theta_d).unsqueeze(-1)


def _decentre_jacobian(xy: Tensor, p: Tensor, s: Tensor) -> Tensor:
    """d decentre / d xy, (..., 2, 2)."""
    x, y = xy.unbind(-1)
    p1, p2 = p.unbind(-1)
    xx, off, yy = 1 + 6 * p1 * x + 2 * p2 * y, 2 * (p1 * y + p2 * x), 1 + 6 * p2 * y + 2 * p1 * x
    tangential = torch.stack((torch.stack((xx, off), -1), torch.stack((off, yy), -1)), -2)
    return tangential + _prism_slope(xy, x * x + y * y, s)


def _undistort_624(bent: Tensor, k: Tensor, iterations: int) -> Tensor:
    """Newton back through the tangential and prism part, then on the angle. The first is nearly the identity in every
    real lens, so half the iterations are ample."""
    p, s = k[..., 6:8], k[..., 8:]
    xy = bent
    for _ in range(max(iterations // 2, 1)):
        step = solve_2x2(_decentre_jacobian(xy, p, s), _decentre(xy, p, s) - bent)
        xy = xy - step.clamp(-0.1, 0.1)
    return _straighten_angle(xy, k[..., :6], iterations)


def _undistort_pinhole(bent: Tensor, k: Tensor, iterations: int) -> Tensor:
    """OpenCV's fixed point, then two Newton steps with the analytic Jacobian for full precision."""
    xy = bent
    k1, k2, p1, p2, k3, k4, k5, k6 = k[..., :8].unbind(-1)
    for _ in range(iterations):
        x, y = xy.unbind(-1)
        r2 = x * x + y * y
        inverse = (1 + r2 * (k4 + r2 * (k5 + r2 * k6))) / (1 + r2 * (k1 + r2 * (k2 + r2 * k3))).clamp_min(0.1)
        dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        left = bent if k.shape[-1] == 8 else bent - _prism(r2, k[..., 8:])
        xy = torch.stack(((left[..., 0] - dx) * inverse, (left[..., 1] - dy) * inverse), -1)
    for _ in range(2):
        residual = _distort_pinhole(xy, k) - bent
        step = solve_2x2(_pinhole_distortion_jacobian(xy, k), residual)
        xy = xy - step.clamp(-0.1, 0.1)
    return xy


def _pinhole_distortion_jacobian(xy: Tensor, k: Tensor) -> Tensor:
    """d distort / d xy, (..., 2, 2)."""
    x, y = xy.unbind(-1)
    k1, k2, p1, p2, k3, k4, k5, k6 = k[..., :8].unbind(-1)
    r2 = x * x + y * y
    top, bottom = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = top / bottom
    d_top, d_bottom = k1 + r2 * (2 * k2 + r2 * 3 * k3), k4 + r2 * (2 * k5 + r2 * 3 * k6)
    slope = (d_top - radial * d_bottom) / bottom  # d radial / d r2
    xx = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    yy = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    off = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    jacobian = torch.stack((torch.stack((xx, off), -1), torch.stack((off, yy), -1)), -2)
    return jacobian if k.shape[-1] == 8 else jacobian + _prism_slope(xy, r2, k[..., 8:])


def undistort(cameras: Cameras, uv_px: Float[Tensor, "*b V N 2"], iterations: int = 10) -> Float[Tensor, "*b V N 2"]:
    """Pixels to undistorted image coordinates at depth 1. Differentiable through its iterations."""
    focal, centre = cameras.intrinsics[..., None, :2], cameras.intrinsics[..., None, 2:]
    bent = (uv_px - centre) / focal
    if not cameras.distortion.any() and not cameras.lens.any():
        return bent
    functions = {
        PINHOLE: lambda xy, k: _undistort_pinhole(xy, k[..., :8], iterations),
        FISHEYE: lambda xy, k: _straighten_angle(xy, k[..., :4], iterations),
        FISHEYE624: lambda xy, k: _undistort_624(xy, k, iterations),
        THIN_PRISM: lambda xy, k: _undistort_pinhole(xy, k, iterations),
    }
    return _by_lens(functions, cameras.lens, bent, cameras.distortion.unsqueeze(-2))


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


def solve_2x2(matrix: Float[Tensor, "*b 2 2"], right: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
    """Closed-form solution of 2x2 systems; a vanishing determinant is held away from zero."""
    (a, b), (c, d) = matrix[..., 0, :].unbind(-1), matrix[..., 1, :].unbind(-1)
    det = a * d - b * c
    det = torch.where(det.abs() < 1e-12, torch.full_like(det, 1e-12), det)
    x, y = right.unbind(-1)
    return torch.stack(((d * x - b * y) / det, (a * y - c * x) / det), -1)


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
    cameras: Cameras,
    xy: Float[Tensor, "*b V N 2"],
    precision: Float[Tensor, "*b V N 2 2"],
    iterations: int = 2,
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


# ---- rotations ----------------------------------------------------------------------------------------------------


def skew(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The matrix of the cross product: skew(a) b = a x b."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))


def rotation_from_axis_angle(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rodrigues' formula; smooth at zero (Taylor terms below 1e-4 rad)."""
    angle2 = (v * v).sum(-1)
    small = angle2 < 1e-8
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    a = torch.where(small, 1 - angle2 / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - angle2 / 24, (1 - torch.cos(angle)) / safe)
    k = skew(v)
    eye = torch.eye(3, dtype=v.dtype, device=v.device)
    return eye + a[..., None, None] * k + b[..., None, None] * (k @ k)


def axis_angle_from_rotation(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """The shortest rotation vector, radians; by way of the quaternion, so it is stable up to and at pi."""
    q = quaternion_from_rotation(rotation)
    q = torch.where(q[..., :1] < 0, -q, q)
    sin_half = torch.linalg.vector_norm(q[..., 1:], dim=-1)
    half = torch.atan2(sin_half, q[..., 0])
    factor = torch.where(sin_half < 1e-6, torch.full_like(half, 2.0), 2 * half / sin_half.clamp_min(1e-6))
    return q[..., 1:] * factor.unsqueeze(-1)


def quaternion_from_rotation(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions (w, x, y, z), from the best conditioned of the four formulas of Shepperd (1978)."""
    m = rotation
    xx, yy, zz = m.diagonal(dim1=-2, dim2=-1).unbind(-1)
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    candidates = torch.stack(
        (
            torch.stack((1 + xx + yy + zz, wx, wy, wz), -1),
            torch.stack((wx, 1 + xx - yy - zz, xy, xz), -1),
            torch.stack((wy, xy, 1 - xx + yy - zz, yz), -1),
            torch.stack((wz, xz, yz, 1 - xx - yy + zz), -1),
        ),
        -2,
    )
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    return F.normalize(chosen, dim=-1)


def rotation_from_6d(sixd: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Gram-Schmidt on two 3-vectors, the first two columns (Zhou et al., CVPR 2019)."""
    first = F.normalize(sixd[..., :3], dim=-1, eps=1e-8)
    second = sixd[..., 3:] - (first * sixd[..., 3:]).sum(-1, keepdim=True) * first
    second = F.normalize(second, dim=-1, eps=1e-8)
    return torch.stack((first, second, torch.linalg.cross(first, second)), -1)


def sixd_from_rotation(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """The first two columns."""
    return rotation[..., :2].transpose(-1, -2).flatten(-2)


# ---- alignment ------------------------------------------------------------------------------------------------------


def similarity_between(
    source: Float[Tensor, "*b N 3"], target: Float[Tensor, "*b N 3"], scale: bool = True
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3"]]:
    """Least-squares similarity (s, R, t) with `s R source + t ~ target`, proper rotation (Umeyama 1991)."""
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = source - source_mean, target - target_mean
    u, s, vh = torch.linalg.svd(b.transpose(-1, -2) @ a)
    sign = torch.ones_like(s)
    sign[..., 2] = torch.linalg.det(u @ vh).sign()
    rotation = u @ (sign.unsqueeze(-1) * vh)
    factor = (s * sign).sum(-1) / (a * a).sum((-1, -2)).clamp_min(1e-12) if scale else torch.ones_like(s[..., 0])
    shift = target_mean - factor[..., None, None] * (source_mean @ rotation.transpose(-1, -2))
    return factor, rotation, shift.squeeze(-2)


def align_similarity(
    source: Float[Tensor, "*b N 3"], target: Float[Tensor, "*b N 3"], scale: bool = True
) -> Float[Tensor, "*b N 3"]:
    """`source` laid over `target` by its best similarity (Procrustes), or rigid motion if `scale` is False."""
    factor, rotation, shift = similarity_between(source, target, scale)
    return factor[..., None, None] * (source @ rotation.transpose(-1, -2)) + shift.unsqueeze(-2)
