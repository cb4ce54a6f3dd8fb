"""Geometry and lenses against OpenCV and scipy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from usthand.geometry import cameras as g
from usthand.geometry import lenses
from usthand.geometry.triangulation import inverse_3x3, triangulate, triangulate_precision

LENSES = {
    "none": (np.zeros(0), lenses.PINHOLE),
    "five": (np.array([-0.33, 0.05, -0.004, 0.004, 0.06]), lenses.PINHOLE),
    "eight": (np.array([0.2, -0.1, 0.001, -0.002, 0.03, 0.1, -0.05, 0.01]), lenses.PINHOLE),
    "prism": (
        np.array([0.2, -0.1, 0.001, -0.002, 0.03, 0.1, -0.05, 0.01, 0.004, -0.002, -0.003, 0.001]),
        lenses.THIN_PRISM,
    ),
    "fisheye": (np.array([0.05, -0.02, 0.004, -0.001]), lenses.FISHEYE),
    # FISHEYE624 without its own terms is OpenCV's fisheye.
    "fisheye as 624": (np.array([0.05, -0.02, 0.004, -0.001, 0, 0, 0, 0, 0, 0, 0, 0]), lenses.FISHEYE624),
}
ARIA = np.array([-0.0266, 0.0963, -0.0680, 0.0084, 0.0021, -0.0006, 6e-4, -3e-4, 1.1e-3, -6e-4, -8e-4, 4e-4])
"""FISHEYE624 coefficients of the size that calibrations of Project Aria have."""


def camera(lens: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intrinsics, rotation, translation and coefficients of a camera 0.7 m from the origin, looking at it."""
    rng = np.random.default_rng(seed)
    matrix = np.array([[600.0 + rng.uniform(-50, 50), 0, 320], [0, 610.0, 240], [0, 0, 1]])
    rotation = Rotation.from_rotvec(rng.uniform(-1, 1, 3)).as_matrix()
    return matrix, rotation, np.array([0.02, -0.01, 0.7]), LENSES[lens][0]


def cameras(lens: str, count: int = 3) -> g.Cameras:
    parts = [camera(lens, seed) for seed in range(count)]
    distortion = np.zeros((count, 12))
    for row, part in zip(distortion, parts, strict=True):
        row[: len(part[3])] = part[3]
    return g.Cameras(
        torch.tensor(np.stack([np.c_[r, t] for _, r, t, _ in parts])),
        torch.tensor(np.stack([m[[0, 1, 0, 1], [0, 1, 2, 2]] for m, *_ in parts])),
        torch.tensor(distortion),
        torch.tensor([LENSES[lens][1]] * count),
    )


def points(count: int = 21, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.12, 0.12, (count, 3))


def opencv_pixels(lens: str, seed: int, world: np.ndarray) -> np.ndarray:
    matrix, rotation, translation, k = camera(lens, seed)
    vector = cv2.Rodrigues(rotation)[0]
    if LENSES[lens][1] in (lenses.FISHEYE, lenses.FISHEYE624):
        return cv2.fisheye.projectPoints(world[:, None], vector, translation, matrix, k[:4])[0][:, 0]
    return cv2.projectPoints(world, vector, translation, matrix, k if len(k) else None)[0][:, 0]


@pytest.mark.parametrize("lens", LENSES)
def test_projection_equals_opencv(lens):
    world = points()
    uv, depth = g.project(cameras(lens), torch.from_numpy(world))
    for view in range(3):
        assert np.abs(uv[view].numpy() - opencv_pixels(lens, view, world)).max() < 1e-6
    assert (depth > 0).all()


@pytest.mark.parametrize("lens", LENSES)
def test_undistortion_undoes_the_lens_and_equals_opencv(lens):
    rig = cameras(lens)
    world = torch.from_numpy(points())
    uv, _ = g.project(rig, world)
    xy = g.undistort(rig, uv)
    cam = g.to_camera(rig, world)
    assert (xy - cam[..., :2] / cam[..., 2:]).abs().max() < 1e-6
    matrix, _, _, k = camera(lens, 0)
    if LENSES[lens][1] in (lenses.FISHEYE, lenses.FISHEYE624):
        reference = cv2.fisheye.undistortPoints(uv[0].numpy()[:, None], matrix, k[:4])[:, 0]
    else:
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
        reference = cv2.undistortPoints(uv[0].numpy()[:, None], matrix, k if len(k) else None, criteria=criteria)[:, 0]
    assert np.abs(xy[0].numpy() - reference).max() < 1e-6


@pytest.mark.parametrize("lens", LENSES)
def test_projection_has_the_right_gradient(lens):
    world = torch.from_numpy(points(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: g.project(cameras(lens), x)[0], (world,))


def meta_fisheye624(points_cam: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Meta's published projection, point by point: [fx, fy, cx, cy, k0..k5, p0, p1, s0..s3] as in projectaria_tools."""
    fx, fy, cx, cy = params[:4]
    k, (p0, p1), s = params[4:10], params[10:12], params[12:]
    out = []
    for x, y, z in points_cam:
        r = np.hypot(x / z, y / z)
        th, phi = np.arctan(r), np.arctan2(y / z, x / z)
        bent = th + sum(k[i] * th ** (2 * i + 3) for i in range(6))
        xr, yr = bent * np.cos(phi), bent * np.sin(phi)
        rd2 = xr**2 + yr**2
        u = xr + (2 * xr**2 + rd2) * p0 + 2 * xr * yr * p1 + s[0] * rd2 + s[1] * rd2**2
        v = yr + (2 * yr**2 + rd2) * p1 + 2 * xr * yr * p0 + s[2] * rd2 + s[3] * rd2**2
        out.append((fx * u + cx, fy * v + cy))
    return np.array(out)


def rays(limit_degrees: float = 70.0, count: int = 400) -> np.ndarray:
    """Unit directions in front of a camera, up to so far from its axis, the axis itself among them."""
    rng = np.random.default_rng(3)
    angle, turn = np.radians(limit_degrees) * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    angle[0], angle[1] = 0.0, np.radians(limit_degrees)
    return np.stack((np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)), -1)


def aria(dtype=torch.float64) -> g.Cameras:
    """One FISHEYE624 camera at the origin, in the size of Aria's."""
    eye = torch.eye(3, 4, dtype=dtype)[None]
    intrinsics = torch.tensor([[610.0, 612.0, 715.2, 707.9]], dtype=dtype)
    return g.Cameras(eye, intrinsics, torch.tensor(ARIA, dtype=dtype)[None], torch.tensor([lenses.FISHEYE624]))


def test_fisheye624_is_metas_formula():
    directions = rays()
    uv = g.project(aria(), torch.from_numpy(directions * 0.6))[0][0].numpy()
    reference = meta_fisheye624(directions, np.r_[610.0, 612.0, 715.2, 707.9, ARIA])
    # The axis itself has no direction to divide by; there Meta's limit is the centre.
    reference[0] = 715.2, 707.9
    assert np.abs(uv - reference).max() < 1e-9
    swapped = ARIA.copy()
    swapped[[6, 7]] = ARIA[[7, 6]]
    assert np.abs(reference - meta_fisheye624(directions, np.r_[610.0, 612.0, 715.2, 707.9, swapped])).max() > 0.5


def test_fisheye624_is_undone_up_to_70_degrees():
    """To 1e-6 px in double precision; in single, to what half a ulp of the pixel costs at the steepest angle."""
    directions = torch.from_numpy(rays())
    for dtype, tolerance_px in ((torch.float64, 1e-6), (torch.float32, 2e-3)):
        camera = aria(dtype)
        uv = g.project(camera, directions.to(dtype))[0]
        xy = g.undistort(camera, uv)
        again = g.project(camera, torch.cat((xy[0], torch.ones_like(xy[0, :, :1])), -1))[0]
        assert (again - uv).abs().max() < tolerance_px
        if dtype == torch.float64:
            assert (xy[0] - directions[:, :2] / directions[:, 2:]).abs().max() < 1e-8


def test_fisheye624_has_the_right_gradients():
    xy = torch.from_numpy(np.vstack((np.zeros(2), np.random.default_rng(0).uniform(-1.5, 1.5, (4, 2)))))[None]
    camera = aria()
    assert torch.autograd.gradcheck(lambda x: lenses.distort(x, camera.distortion, camera.lens), (xy.requires_grad_(),))
    uv = g.project(camera, torch.cat((xy[0], torch.ones(5, 1)), -1))[0].detach()[:, 1:]
    assert torch.autograd.gradcheck(lambda p: g.undistort(camera, p), (uv.requires_grad_(),), atol=1e-6)


def test_cameras_of_several_lenses_are_each_bent_by_their_own():
    """In one batch as alone, gradients included: another lens's numbers must not leak through the selection."""
    kinds = ("five", "prism", "fisheye", "eight", "fisheye as 624", "none")
    alone = [cameras(kind, 1) for kind in kinds]
    alone[4].distortion[0] = torch.from_numpy(ARIA)
    alone[5].distortion[0, :2], alone[5].lens[0] = torch.tensor([-0.2, 0.6]), lenses.DOUBLE_SPHERE
    mixed = g.Cameras(*(torch.cat(parts) for parts in zip(*alone, strict=True)))
    world = torch.from_numpy(points()).requires_grad_()
    uv = g.project(mixed, world)[0]
    for view, camera in enumerate(alone):
        assert (uv[view] - g.project(camera, world)[0][0]).abs().max() < 1e-12
        assert (g.undistort(mixed, uv)[view] - g.undistort(camera, uv[view : view + 1])[0]).abs().max() < 1e-12
    gradient = torch.autograd.grad(g.undistort(mixed, uv).sum() + uv.sum(), world)[0]
    assert torch.isfinite(gradient).all()


def test_the_renderer_bends_as_the_geometry_does():
    from usthand.capture.rig import Camera
    from usthand.datasets.synthetic.render import project_camera

    for model, k in (
        ("fisheye624", ARIA),
        ("pinhole", LENSES["prism"][0]),
        ("fisheye", LENSES["fisheye"][0]),
        ("double_sphere", np.array([-0.2, 0.6])),
    ):
        matrix, rotation, translation, _ = camera("none")
        one = Camera("c", 640, 480, matrix, k, model, rotation, translation)
        row = np.pad(k, (0, 12 - len(k)))[None]
        ours = g.Cameras(
            torch.tensor(np.c_[rotation, translation])[None],
            torch.tensor([[matrix[0, 0], matrix[1, 1], 320.0, 240.0]]),
            torch.tensor(row),
            torch.tensor([one.lens]),
        )
        uv = g.project(ours, torch.from_numpy(points()))[0][0].numpy()
        assert np.abs(project_camera(points(), one)[:, :2] - uv).max() < 1e-9


def test_a_point_behind_a_camera_is_finite():
    uv, depth = g.project(cameras("five"), torch.tensor([[0.0, 0.0, -5.0]], dtype=torch.float64))
    assert torch.isfinite(uv).all() and torch.isfinite(depth).all()


@pytest.mark.parametrize("lens", LENSES)
def test_triangulation_of_exact_pixels_is_exact(lens):
    rig, world = cameras(lens), torch.from_numpy(points())
    uv, _ = g.project(rig, world)
    found = triangulate(rig, uv, torch.ones(3, 21, dtype=torch.float64))
    assert (found - world).abs().max() < 1e-8


def test_triangulation_minimises_the_reprojection_error():
    """Without a lens the weighted pixel error is the objective: scipy's minimum is ours."""
    rig, world = cameras("none"), torch.from_numpy(points(1))
    uv, _ = g.project(rig, world)
    uv = uv + torch.randn(uv.shape, generator=torch.Generator().manual_seed(1), dtype=uv.dtype) * 2
    weight = torch.tensor([[1.0], [0.3], [2.0]], dtype=torch.float64)

    def residual(x: np.ndarray) -> np.ndarray:
        error = g.project(rig, torch.from_numpy(x)[None])[0] - uv
        return (error * weight.sqrt()[..., None]).numpy().ravel()

    best = least_squares(residual, world[0].numpy(), xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    assert np.abs(triangulate(rig, uv, weight, iterations=6)[0].numpy() - best).max() < 1e-7


def test_a_view_of_weight_zero_takes_no_part():
    rig, world = cameras("five"), torch.from_numpy(points())
    uv, _ = g.project(rig, world)
    wrong = uv.clone()
    wrong[2] += 300.0
    weight = torch.ones(3, 21, dtype=torch.float64)
    weight[2] = 0
    assert torch.equal(triangulate(rig, wrong, weight), triangulate(rig, torch.cat((uv[:2], wrong[2:])), weight))
    assert (triangulate(rig, wrong, weight) - world).abs().max() < 1e-6


@pytest.mark.parametrize("views", [0, 1])
def test_too_few_views_stay_finite(views):
    rig, world = cameras("five"), torch.from_numpy(points())
    uv, _ = g.project(rig, world)
    weight = (torch.arange(3) < views).double()[:, None].expand(3, 21)
    found, covariance = triangulate_precision(rig, uv, weight[..., None, None] * torch.eye(2, dtype=torch.float64))
    assert torch.isfinite(found).all() and torch.isfinite(covariance).all()
    # The prior's metre bounds what the views do not: along the ray of one, in all directions without any.
    assert torch.linalg.eigvalsh(covariance)[:, -1].sqrt().min() > 0.9


def test_covariance_is_that_of_repeated_measurements():
    """Monte Carlo: 4000 noisy triangulations scatter as the covariance says; a sample covariance of n has a relative
    error of about sqrt(2/n) = 2 % per entry, four of them are allowed."""
    rig = cameras("none")
    world = torch.tensor([[0.03, -0.02, 0.05]], dtype=torch.float64)
    uv, _ = g.project(rig, world)
    noise = torch.randn(4000, *uv.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    many = g.Cameras(*(t.expand(4000, *t.shape) for t in rig))
    precision = torch.eye(2, dtype=torch.float64).expand(4000, 3, 1, 2, 2)
    found, covariance = triangulate_precision(many, uv + noise, precision)
    sample = torch.cov(found[:, 0].T)
    assert (sample - covariance[0, 0]).abs().max() / covariance[0, 0].abs().max() < 0.09


def test_triangulation_moves_with_the_rig():
    rig, world = cameras("five"), torch.from_numpy(points())
    uv, _ = g.project(rig, world)
    uv = uv + torch.randn(uv.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turn = torch.from_numpy(Rotation.from_rotvec([0.3, 2.0, -1.0]).as_matrix())
    shift = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    rotation = rig.cam_from_world[..., :3] @ turn.T
    moved = rig._replace(
        cam_from_world=torch.cat((rotation, rig.cam_from_world[..., 3:] - (rotation @ shift)[..., None]), -1)
    )
    weight = torch.ones(3, 21, dtype=torch.float64)
    expected = triangulate(rig, uv, weight, 8) @ turn.T + shift
    assert (triangulate(moved, uv, weight, 8) - expected).abs().max() < 1e-9


def test_closed_form_solvers_equal_linalg():
    a = torch.randn(50, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (inverse_3x3(a) @ a - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-8
    m, b = a[:, :2, :2], a[:, 0, :2]
    assert (lenses.solve_2x2(m, b) - torch.linalg.solve(m, b)).abs().max() < 1e-8
