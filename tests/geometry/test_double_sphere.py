"""The double sphere against the closed form of its paper, point by point in three dimensions, and against a pinhole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from usthand.geometry import cameras as g
from usthand.geometry import lenses

INNER = (519.3, 521.4, 801.4, 660.7)
REAL = {"head rig": (0.0081, 0.5715), "TUM-VI": (-0.172, 0.593), "long": (0.183, 0.809), "small alpha": (-0.02, 0.3)}
"""(xi, alpha) as real lenses have them, and one below the alpha of a half, at which the domain changes."""


def one_camera(xi: float, alpha: float, dtype: torch.dtype = torch.float64) -> g.Cameras:
    """At the origin, looking along z."""
    distortion = torch.zeros(1, 12, dtype=dtype)
    distortion[0, :2] = torch.tensor([xi, alpha], dtype=dtype)
    eye, inner = torch.eye(3, 4, dtype=dtype)[None], torch.tensor([INNER], dtype=dtype)
    return g.Cameras(eye, inner, distortion, torch.tensor([lenses.DOUBLE_SPHERE]))


def paper(point: np.ndarray, xi: float, alpha: float) -> np.ndarray:
    """Usenko, Demmel and Cremers 2018: projection of a point of any length, px."""
    fx, fy, cx, cy = INNER
    x, y, z = point
    d1 = np.sqrt(x * x + y * y + z * z)
    d2 = np.sqrt(x * x + y * y + (xi * d1 + z) ** 2)
    below = alpha * d2 + (1 - alpha) * (xi * d1 + z)
    return np.array([fx * x / below + cx, fy * y / below + cy])


def w2(xi: float, alpha: float) -> float:
    w1 = alpha / (1 - alpha) if alpha <= 0.5 else (1 - alpha) / alpha
    return (w1 + xi) / np.sqrt(2 * w1 * xi + xi * xi + 1)


def directions(limit_degrees: float = 80.0, count: int = 300) -> np.ndarray:
    """Unit directions up to so far from the axis, the axis itself among them."""
    rng = np.random.default_rng(4)
    angle, turn = np.radians(limit_degrees) * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    angle[0], angle[1] = 0.0, np.radians(limit_degrees)
    return np.stack((np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)), -1)


@pytest.mark.parametrize("lens", REAL)
def test_projection_is_the_papers(lens):
    points = directions() * np.random.default_rng(0).uniform(0.2, 3, (300, 1))
    uv = g.project(one_camera(*REAL[lens]), torch.from_numpy(points))[0][0].numpy()
    assert np.abs(uv - [paper(point, *REAL[lens]) for point in points]).max() < 1e-9


@pytest.mark.parametrize("lens", REAL)
def test_undistortion_undoes_it(lens):
    """In double precision to rounding; in single to a few ulps of a pixel. And as a root finder has it, which knows
    only the projection."""
    for dtype, tolerance_px in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        camera = one_camera(*REAL[lens], dtype)
        uv = g.project(camera, torch.from_numpy(directions()).to(dtype))[0]
        xy = g.undistort(camera, uv)[0]
        again = g.project(camera, torch.cat((xy, torch.ones_like(xy[:, :1])), -1))[0]
        assert (again - uv).abs().max() < tolerance_px
    fx, _, cx, cy = INNER
    for degrees in (5.0, 40.0, 75.0):
        u = paper(np.array([np.sin(np.radians(degrees)), 0, np.cos(np.radians(degrees))]), *REAL[lens])[0]
        root = brentq(lambda r, u=u: paper(np.array([r, 0, 1.0]), *REAL[lens])[0] - u, 0, 20, xtol=1e-13)
        pixel = torch.tensor([[[u, cy]]], dtype=torch.float64)
        found = g.undistort(one_camera(*REAL[lens]), pixel)[0, 0].numpy()
        assert abs(found[0] - root) < 1e-8 and abs(found[1]) < 1e-12 and fx > 0 and cx > 0


def test_without_xi_and_alpha_it_is_a_pinhole():
    pinhole = one_camera(0.0, 0.0)._replace(lens=torch.tensor([lenses.PINHOLE]))
    points = torch.from_numpy(directions(70.0))
    uv = g.project(one_camera(0.0, 0.0), points)[0]
    assert (uv - g.project(pinhole, points)[0]).abs().max() < 1e-9
    assert (g.undistort(one_camera(0.0, 0.0), uv) - g.undistort(pinhole, uv)).abs().max() < 1e-12


@pytest.mark.parametrize("lens", REAL)
def test_gradients(lens):
    xy = torch.from_numpy(np.vstack((np.zeros(2), np.random.default_rng(0).uniform(-1.5, 1.5, (4, 2)))))[None]
    camera = one_camera(*REAL[lens])
    assert torch.autograd.gradcheck(lambda x: lenses.distort(x, camera.distortion, camera.lens), (xy.requires_grad_(),))
    uv = g.project(camera, torch.cat((xy[0], torch.ones(5, 1)), -1))[0].detach()
    assert torch.autograd.gradcheck(lambda p: g.undistort(camera, p), (uv.requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize("xi, alpha", [(-0.3, 0.1), (-0.6, 0.7), (-0.2, 0.0)])
def test_outside_its_domain_a_lens_is_finite_and_never_folds_back(xi, alpha):
    """Lenses that do not see all that is in front of them: z > -w2 |X| bounds the angle, roughly. Inside it the paper's
    formula holds; further out the pixel stays where it is at the edge, so no point outside is seen inside the image."""
    edge = np.arccos(-w2(xi, alpha))
    assert edge < np.radians(85)
    angle = np.linspace(0, np.radians(89.9), 900)
    ray = np.stack((np.sin(angle), 0 * angle, np.cos(angle)), -1)
    uv = g.project(one_camera(xi, alpha), torch.from_numpy(ray))[0][0, :, 0].numpy()
    inside = angle < edge - 0.01
    assert np.abs(uv - [paper(r, xi, alpha)[0] for r in ray])[inside].max() < 1e-6
    assert np.isfinite(uv).all() and (np.diff(uv) > -1e-3).all()
    far = torch.tensor([[[1e4, 0.0], [-1e5, 1e5], [0.0, 0.0]]], dtype=torch.float64)
    xy = g.undistort(one_camera(xi, alpha), far.requires_grad_())
    assert torch.isfinite(xy).all() and torch.isfinite(torch.autograd.grad(xy.sum(), far)[0]).all()


def test_rays_behind_the_camera_are_taken_at_89_degrees():
    """The lens of a headset sees further than to the side; coordinates at depth 1 cannot say so."""
    xi, alpha = REAL["TUM-VI"]
    ray = np.array([np.sin(np.radians(95)), 0, np.cos(np.radians(95))])
    assert ray[2] > -w2(xi, alpha)
    pixel = torch.from_numpy(paper(ray, xi, alpha))[None, None]
    x, y = g.undistort(one_camera(xi, alpha), pixel)[0, 0].tolist()
    assert 88.9 < np.degrees(np.arctan(x)) < 89.1 and abs(y) < 1e-9
