"""The information that rays give about a point, against autograd, closed forms and symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from usthand.geometry.conditioning import LEAST_INFORMATION, ray_information, worst_std


def verged(degrees: float) -> np.ndarray:
    half = np.radians(degrees) / 2
    return np.array([[np.cos(half), np.sin(half), 0.0], [np.cos(half), -np.sin(half), 0.0]])


@pytest.mark.parametrize("degrees", [2.0, 8.0, 30.0, 90.0])
def test_two_verged_rays_leave_the_textbook_depth(degrees):
    across_m = 0.0036
    expected = across_m / (np.sqrt(2) * np.sin(np.radians(degrees) / 2))
    weight = torch.full((2,), across_m**-2, dtype=torch.float64)
    assert worst_std(ray_information(torch.from_numpy(verged(degrees)), weight)).item() == pytest.approx(
        expected, rel=1e-9
    )


def test_information_is_the_curvature_of_squared_distances():
    """Half the second derivative of the weighted squared distances of a point from lines, by autograd."""
    rays = torch.from_numpy(Rotation.random(4, random_state=0).as_matrix()[:, 0])
    weight = torch.from_numpy(np.random.default_rng(0).uniform(1, 9, 4))

    def cost(point: torch.Tensor) -> torch.Tensor:
        return (weight * torch.linalg.cross(point.expand(4, 3), rays).square().sum(-1)).sum()

    curvature = torch.autograd.functional.hessian(cost, torch.zeros(3, dtype=torch.float64)) / 2
    assert (ray_information(rays, weight) - curvature).abs().max() < 1e-12


@pytest.mark.parametrize("rays", [verged(0), np.vstack([verged(0)] * 4), verged(180), verged(20)[:1]])
def test_rays_on_one_line_leave_it_open(rays):
    """From one place, however many; from both sides; and one alone: nothing bounds the depth, and all is finite."""
    weight = torch.full((len(rays),), 1e4, dtype=torch.float64)
    std = worst_std(ray_information(torch.from_numpy(rays), weight)).item()
    assert np.isfinite(std) and std > 1e3


def test_a_ray_without_weight_says_nothing():
    weight = torch.tensor([1e4, 0.0], dtype=torch.float64)
    assert worst_std(ray_information(torch.from_numpy(verged(30)), weight)).item() > 1e3
    assert worst_std(torch.zeros(3, 3)).item() == pytest.approx(LEAST_INFORMATION**-0.5, rel=1e-3)


def test_it_turns_with_the_world():
    rays = torch.from_numpy(Rotation.random(5, random_state=0).as_matrix()[:, 0])
    weight = torch.from_numpy(np.random.default_rng(0).uniform(1, 9, 5))
    turn = torch.from_numpy(Rotation.random(random_state=1).as_matrix())
    turned = ray_information(rays @ turn.T, weight)
    assert (turned - turn @ ray_information(rays, weight) @ turn.T).abs().max() < 1e-12
