"""The block-banded system with an arrow against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import LinAlgError

from support.fit_parts import dense
from usthand.fit.arrow_system import ArrowSystem, InverseBlocks, inverse_blocks, solve, solve_many


def random_system(rng: np.random.Generator, n_frames: int, size: int = 4, shared: int = 3) -> ArrowSystem:
    system = ArrowSystem.zeros(n_frames, size, shared)
    if n_frames > 2:
        rows = tuple(rng.normal(size=(n_frames - 2, 5, size)) for _ in range(3))
        system.add_tied(rows, rng.normal(size=(n_frames - 2, 5)), rng.uniform(size=(n_frames - 2, 5)))
    system.diagonal += 2 * np.eye(size)
    system.arrow[:] = 0.3 * rng.normal(size=system.arrow.shape)
    system.corner[:] = (n_frames + 3) * np.eye(shared)
    system.right_shared[:] = rng.normal(size=shared)
    return system


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 7, 10])
def test_banded_solution_and_inverse_equal_dense_ones(n_frames):
    system = random_system(np.random.default_rng(n_frames), n_frames)
    matrix, right = dense(system)
    step, shared = solve(system)
    assert np.allclose(np.concatenate([step.ravel(), shared]), np.linalg.solve(matrix, right), atol=1e-12)
    inverse, blocks = np.linalg.inv(matrix), inverse_blocks(system)
    for t in range(n_frames):
        here = slice(4 * t, 4 * t + 4)
        assert np.allclose(blocks.frame[t], inverse[here, here], atol=1e-12)
        assert np.allclose(blocks.shared[t], inverse[here, 4 * n_frames :], atol=1e-12)
    assert np.allclose(blocks.corner, inverse[4 * n_frames :, 4 * n_frames :], atol=1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_many_right_hand_sides_at_once_equal_dense_solutions(damping):
    """The damping grows the diagonal; the system's own right-hand side does not count."""
    rng = np.random.default_rng(3)
    system = random_system(rng, 6)
    right, right_shared = rng.normal(size=(6, 4, 5)), rng.normal(size=(3, 5))
    matrix = dense(system)[0]
    wanted = np.linalg.solve(
        matrix + damping * np.diag(np.diag(matrix)), np.concatenate([right.reshape(24, 5), right_shared])
    )
    step, shared = solve_many(system, right, right_shared, damping)
    np.testing.assert_allclose(np.concatenate([step.reshape(24, 5), shared]), wanted, atol=1e-12)


def test_a_matrix_that_is_not_positive_gives_no_step():
    system = random_system(np.random.default_rng(0), 4)
    system.diagonal -= 100 * np.eye(4)
    assert solve(system) is None
    with pytest.raises(LinAlgError):
        solve_many(system, system.right[..., None], system.right_shared[:, None])


def test_covariances_add():
    rng = np.random.default_rng(1)
    one, other = (inverse_blocks(random_system(rng, 3)) for _ in range(2))
    both = one + other
    for name in InverseBlocks.__dataclass_fields__:
        np.testing.assert_allclose(getattr(both, name), getattr(one, name) + getattr(other, name))
