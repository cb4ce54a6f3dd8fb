"""Gaps in tracks of points. The triangulation itself is tested with the fit that starts from it."""

from __future__ import annotations

import torch

from usthand.geometry.robust_triangulation import interpolate_gaps


def test_interpolation_holds_the_ends_and_is_linear_between():
    points = torch.zeros(6, 2, 3, dtype=torch.float64)
    points[1, 0], points[4, 0] = 1.0, 4.0
    seen = torch.zeros(6, 2, dtype=torch.bool)
    seen[[1, 4], 0] = True
    filled = interpolate_gaps(points, seen)
    assert torch.allclose(filled[:, 0, 0], torch.tensor([1.0, 1, 2, 3, 4, 4], dtype=torch.float64))
    assert torch.allclose(filled[:, 1], filled[:, 0])  # a joint never seen takes the mean of those that were
