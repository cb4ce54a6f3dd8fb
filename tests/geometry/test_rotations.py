"""Rotations against roma and scipy, similarities against scipy."""

from __future__ import annotations

import numpy as np
import roma
import torch
from scipy.spatial.transform import Rotation

from usthand.geometry.rotations import (
    align_similarity,
    axis_angle_from_rotation,
    rotation_from_6d,
    rotation_from_axis_angle,
    rotation_matrix,
    rotation_vector,
    similarity_between,
)


def test_rotations_equal_roma():
    vectors = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrices = rotation_from_axis_angle(vectors)
    assert (matrices - roma.rotvec_to_rotmat(vectors)).abs().max() < 1e-12
    assert (axis_angle_from_rotation(matrices) - roma.rotmat_to_rotvec(matrices)).abs().max() < 1e-7
    sixd = torch.randn(200, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    reference = roma.special_gramschmidt(sixd.unflatten(-1, (2, 3)).transpose(-1, -2))
    assert (rotation_from_6d(sixd) - reference).abs().max() < 1e-12
    sixd = matrices[..., :2].transpose(-1, -2).flatten(-2)  # the first two columns
    assert (rotation_from_6d(sixd) - matrices).abs().max() < 1e-12


def test_numpy_rotations_take_any_batch_axes_and_keep_the_precision():
    vectors = np.random.default_rng(0).normal(size=(5, 4, 3)) * np.array([1.0, 1e-6, 2.0, 0.0])[:, None]
    matrices = rotation_matrix(vectors)
    ours = rotation_from_axis_angle(torch.from_numpy(vectors)).numpy()
    assert matrices.shape == (5, 4, 3, 3) and np.abs(matrices - ours).max() < 1e-12
    assert np.abs(rotation_matrix(rotation_vector(matrices)) - matrices).max() < 1e-12
    single = rotation_matrix(vectors[0, 0].astype(np.float32))
    assert single.shape == (3, 3) and single.dtype == rotation_vector(single).dtype == np.float32


def test_rotations_are_smooth_at_zero_and_half_turns():
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_from_axis_angle, (zero,))
    half = torch.tensor([[np.pi, 0, 0], [0, np.pi - 1e-9, 0], [1e-9, 0, 0]], dtype=torch.float64)
    matrices = rotation_from_axis_angle(half)
    assert (rotation_from_axis_angle(axis_angle_from_rotation(matrices)) - matrices).abs().max() < 1e-7


def test_alignment_equals_scipy_and_undoes_a_similarity():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(21, 3))
    turn = Rotation.random(random_state=1)
    target = 1.7 * turn.apply(source) + [0.1, -2.0, 3.0]
    aligned = align_similarity(torch.from_numpy(source), torch.from_numpy(target))
    assert np.abs(aligned.numpy() - target).max() < 1e-12
    noisy = target + rng.normal(size=target.shape) * 0.1
    centred, goal = source - source.mean(0), noisy - noisy.mean(0)
    reference, _ = Rotation.align_vectors(goal, centred)
    rigid = align_similarity(torch.from_numpy(source), torch.from_numpy(noisy), scale=False)
    assert np.abs(rigid.numpy() - (reference.apply(centred) + noisy.mean(0))).max() < 1e-10


def test_alignment_never_mirrors():
    source = torch.randn(21, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mirrored = source * torch.tensor([-1.0, 1, 1], dtype=torch.float64)
    _, rotation, _ = similarity_between(source, mirrored)
    assert torch.linalg.det(rotation) > 0.999
