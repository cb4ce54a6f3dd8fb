"""The information that views give about a point, against autograd, closed forms and symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from usthand.geometry.cameras import Cameras, project
from usthand.geometry.conditioning import LEAST_INFORMATION, ray_information, view_information, worst_std


def looking_at_origin(centres: np.ndarray, focal: float = 500.0) -> Cameras:
    poses = []
    for centre in centres:
        forward = -centre / np.linalg.norm(centre)
        right = np.cross(forward, [0.1, 0.2, 1.0])
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(forward, right), forward])
        poses.append(np.c_[turn, -turn @ centre])
    count = len(centres)
    inner = torch.tensor([[focal, focal, 320.0, 240.0]] * count, dtype=torch.float64)
    return Cameras(
        torch.tensor(np.stack(poses)),
        inner,
        torch.zeros(count, 12, dtype=torch.float64),
        torch.zeros(count, dtype=torch.int64),
    )


def verged(degrees: float, distance: float = 0.6) -> np.ndarray:
    half = np.radians(degrees) / 2
    return distance * np.array([[np.cos(half), np.sin(half), 0.0], [np.cos(half), -np.sin(half), 0.0]])


def pixel_precision(cameras: Cameras, sigma_px: float, points: int = 1) -> torch.Tensor:
    scale = (cameras.intrinsics[:, 0] / sigma_px) ** 2
    return scale[:, None, None, None] * torch.eye(2, dtype=torch.float64).expand(len(scale), points, 2, 2)


def test_information_is_that_of_the_projections_derivative():
    """Sum of J' J / sigma^2 with J of `project` by autograd, which has nothing in common with the closed form."""
    cameras = looking_at_origin(np.random.default_rng(0).uniform(0.3, 0.9, (4, 3)))
    points = torch.from_numpy(np.random.default_rng(1).uniform(-0.1, 0.1, (5, 3)))
    found = view_information(cameras, points, pixel_precision(cameras, 2.0, 5))
    for n, point in enumerate(points):
        jacobian = torch.autograd.functional.jacobian(lambda p: project(cameras, p[None])[0][:, 0], point).reshape(
            -1, 3
        )
        assert (found[n] - jacobian.T @ jacobian / 2.0**2).abs().max() < 1e-9 * found[n].abs().max()


@pytest.mark.parametrize("degrees", [2.0, 8.0, 30.0, 90.0])
def test_two_verged_views_leave_the_textbook_depth(degrees):
    cameras = looking_at_origin(verged(degrees))
    across_m = 3.0 / 500 * 0.6
    expected = across_m / (np.sqrt(2) * np.sin(np.radians(degrees) / 2))
    std = worst_std(view_information(cameras, torch.zeros(1, 3, dtype=torch.float64), pixel_precision(cameras, 3.0)))
    assert std.item() == pytest.approx(expected, rel=1e-9)
    rays = torch.from_numpy(-verged(degrees) / 0.6)
    assert worst_std(
        ray_information(rays, torch.full((2,), across_m**-2, dtype=torch.float64))
    ).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("centres", [verged(0), np.vstack([verged(0)] * 4), verged(180), verged(20)[:1]])
def test_views_on_one_line_leave_it_open(centres):
    """From one place, however many; from both sides; and one alone: nothing bounds the depth, and all is finite."""
    cameras = looking_at_origin(centres)
    std = worst_std(view_information(cameras, torch.zeros(1, 3, dtype=torch.float64), pixel_precision(cameras, 3.0)))
    assert np.isfinite(std.item()) and std.item() > 1e3


def test_a_view_without_precision_says_nothing():
    cameras = looking_at_origin(verged(30))
    precision = pixel_precision(cameras, 3.0).clone()
    precision[1] = 0
    assert worst_std(view_information(cameras, torch.zeros(1, 3, dtype=torch.float64), precision)).item() > 1e3
    assert worst_std(torch.zeros(3, 3)).item() == pytest.approx(LEAST_INFORMATION**-0.5, rel=1e-3)


def test_it_turns_with_the_world():
    rays = torch.from_numpy(Rotation.random(5, random_state=0).as_matrix()[:, 0])
    weight = torch.from_numpy(np.random.default_rng(0).uniform(1, 9, 5))
    turn = torch.from_numpy(Rotation.random(random_state=1).as_matrix())
    turned = ray_information(rays @ turn.T, weight)
    assert (turned - turn @ ray_information(rays, weight) @ turn.T).abs().max() < 1e-12
