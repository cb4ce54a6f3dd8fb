"""Lenses: bending ideal image coordinates as a camera does, and back, differentiable and batched.

OpenCV's pinhole (with its thin prism) and fisheye, Meta's FISHEYE624, and the double sphere. All coordinates are at
depth 1, unitless.
Shapes: `*b` any batch axes, V views, N points. `usthand.geometry.cameras.Cameras` has the order of coefficients.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

PINHOLE, FISHEYE, FISHEYE624, THIN_PRISM, DOUBLE_SPHERE = range(5)
"""Codes of the lens models in `Cameras.lens`."""
MAX_COEFFICIENTS = 12
LEAST_COTANGENT = 0.0178  # of 88.98 degrees: the steepest ray whose coordinates at depth 1 are still worth having
FAR2 = 1e6  # squared radius at depth 1 (89.94 degrees); finite, since an infinity would poison gradients
EDGE = 0.999  # of a double sphere's domain: at its very edge a point may be imaged at infinity


def _prism(r2: Tensor, s: Tensor) -> Tensor:
    """Thin-prism shift (s1 r2 + s2 r4, s3 r2 + s4 r4), the same in OpenCV's and Meta's models."""
    s1, s2, s3, s4 = s.unbind(-1)
    return torch.stack((r2 * (s1 + r2 * s2), r2 * (s3 + r2 * s4)), -1)


def _prism_slope(xy: Tensor, r2: Tensor, s: Tensor) -> Tensor:
    """The derivative of `_prism` by xy, (..., 2, 2)."""
    s1, s2, s3, s4 = s.unbind(-1)
    along = torch.stack((2 * (s1 + 2 * r2 * s2), 2 * (s3 + 2 * r2 * s4)), -1)
    return along.unsqueeze(-1) * xy.unsqueeze(-2)


def _distort_pinhole(xy: Tensor, k: Tensor) -> Tensor:
    """OpenCV's rational model (`calib3d` reference).

    Radial (1+k1r2+k2r4+k3r6)/(1+k4r2+k5r4+k6r6), then tangential, then the thin prism if there are twelve coefficients.
    """
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
    """FISHEYE624 (projectaria_tools, FisheyeRadTanThinPrism.h).

    Six radial terms in theta, then tangential and thin prism on what they give.
    """
    return _decentre(_equidistant(xy, k[..., :6]), k[..., 6:8], k[..., 8:])


def _double_sphere_edge2(xi: Tensor, alpha: Tensor) -> Tensor:
    """Square of the largest radius at depth 1 that a double sphere images; `FAR2` if that is all in front of it.

    On the second sphere a ray's direction has the cosine s / d2, s = xi + c, d2^2 = 1 + xi^2 + 2 xi c, with c that of
    the ray itself. The image ends where it is -w1: there the denominator vanishes (alpha up to a half), or the radius
    is largest. Solved for c; the bound -w2 of the paper approximates it.
    """
    w1 = torch.where(alpha <= 0.5, alpha / (1 - alpha).clamp_min(0.5), (1 - alpha) / alpha.clamp_min(0.5))
    rest = 1 - w1 * w1
    cosine = -xi * rest - w1 * (1 - xi * xi * rest).clamp_min(0.0).sqrt()
    return torch.where(cosine > 0, 1 / cosine.clamp_min(1e-3) ** 2 - 1, FAR2)


def _distort_double_sphere(xy: Tensor, k: Tensor) -> Tensor:
    """The double sphere (Usenko, Demmel, Cremers: The Double Sphere Camera Model, 3DV 2018).

    Onto a unit sphere, onto another one shifted by xi, then a pinhole shifted by alpha / (1 - alpha). A point outside
    the lens's domain is taken at its edge.
    """
    xi, alpha = k[..., :2].unbind(-1)
    r2 = (xy * xy).sum(-1)
    inside = (EDGE**2 * _double_sphere_edge2(xi, alpha) / r2.clamp_min(1e-6)).clamp_max(1.0)
    xy, r2 = xy * inside.sqrt().unsqueeze(-1), r2 * inside
    z = xi * (r2 + 1).sqrt() + 1
    return xy / (alpha * (r2 + z * z).sqrt() + (1 - alpha) * z).unsqueeze(-1)


_DISTORT = {
    PINHOLE: lambda xy, k: _distort_pinhole(xy, k[..., :8]),
    FISHEYE: lambda xy, k: _equidistant(xy, k[..., :4]),
    FISHEYE624: _distort_624,
    THIN_PRISM: _distort_pinhole,
    DOUBLE_SPHERE: _distort_double_sphere,
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
    xy: Float[Tensor, "*b V N 2"], distortion: Float[Tensor, "*#b V 12"], lens: Int[Tensor, "*#b V"]
) -> Float[Tensor, "*b V N 2"]:
    """Bend ideal image coordinates the way the lens does (both at depth 1, unitless)."""
    return _by_lens(_DISTORT, lens, xy, distortion.unsqueeze(-2))


def _undistort_angle(bent: Tensor, k: Tensor, iterations: int) -> Tensor:
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
    """The derivative of `_decentre` by xy, (..., 2, 2)."""
    x, y = xy.unbind(-1)
    p1, p2 = p.unbind(-1)
    xx, off, yy = 1 + 6 * p1 * x + 2 * p2 * y, 2 * (p1 * y + p2 * x), 1 + 6 * p2 * y + 2 * p1 * x
    tangential = torch.stack((torch.stack((xx, off), -1), torch.stack((off, yy), -1)), -2)
    return tangential + _prism_slope(xy, x * x + y * y, s)


def _undistort_624(bent: Tensor, k: Tensor, iterations: int) -> Tensor:
    """Newton back through the tangential and prism part, then on the angle.

    The first is nearly the identity in every real lens, so half the iterations are ample.
    """
    p, s = k[..., 6:8], k[..., 8:]
    xy = bent
    for _ in range(max(iterations // 2, 1)):
        step = solve_2x2(_decentre_jacobian(xy, p, s), _decentre(xy, p, s) - bent)
        xy = xy - step.clamp(-0.1, 0.1)
    return _undistort_angle(xy, k[..., :6], iterations)


def _undistort_double_sphere(bent: Tensor, k: Tensor) -> Tensor:
    """In closed form, as in the paper. Rays steeper than 89 degrees are taken at that angle."""
    xi, alpha = k[..., :2].unbind(-1)
    m2 = (bent * bent).sum(-1)
    # With alpha above a half the image is a disc.
    disc2 = torch.where(alpha > 0.5, EDGE**2 / (2 * alpha - 1).clamp_min(1 / FAR2), FAR2)
    inside = (disc2 / m2.clamp_min(1e-6)).clamp_max(1.0)
    bent, m2 = bent * inside.sqrt().unsqueeze(-1), m2 * inside
    mz = (1 - alpha**2 * m2) / (alpha * (1 - (2 * alpha - 1) * m2).sqrt() + 1 - alpha)
    length = (mz * xi + (mz * mz + (1 - xi * xi) * m2).clamp_min(1e-24).sqrt()) / (mz * mz + m2)
    across = bent * length.unsqueeze(-1)
    radius = (across * across).sum(-1).clamp_min(1e-24).sqrt()
    return across / torch.maximum(length * mz - xi, LEAST_COTANGENT * radius).unsqueeze(-1)


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
    """The derivative of `_distort_pinhole` by xy, (..., 2, 2)."""
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


def undistort_xy(
    bent: Float[Tensor, "*b V N 2"],
    distortion: Float[Tensor, "*#b V 12"],
    lens: Int[Tensor, "*#b V"],
    iterations: int = 10,
) -> Float[Tensor, "*b V N 2"]:
    """Undo `distort`. Differentiable through its iterations."""
    functions = {
        PINHOLE: lambda xy, k: _undistort_pinhole(xy, k[..., :8], iterations),
        FISHEYE: lambda xy, k: _undistort_angle(xy, k[..., :4], iterations),
        FISHEYE624: lambda xy, k: _undistort_624(xy, k, iterations),
        THIN_PRISM: lambda xy, k: _undistort_pinhole(xy, k, iterations),
        DOUBLE_SPHERE: _undistort_double_sphere,
    }
    return _by_lens(functions, lens, bent, distortion.unsqueeze(-2))


def solve_2x2(matrix: Float[Tensor, "*b 2 2"], right: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
    """Closed-form solution of 2x2 systems; a vanishing determinant is held away from zero."""
    (a, b), (c, d) = matrix[..., 0, :].unbind(-1), matrix[..., 1, :].unbind(-1)
    det = a * d - b * c
    det = torch.where(det.abs() < 1e-12, torch.full_like(det, 1e-12), det)
    x, y = right.unbind(-1)
    return torch.stack(((d * x - b * y) / det, (a * y - c * x) / det), -1)
