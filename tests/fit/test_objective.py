"""Cost and normal equations of the sequence fit against residuals written out in full and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from support.fit_parts import (
    dense,
    dense_inverse_covariance,
    full_articulation,
    numeric_jacobian,
    smooth_state,
    some_points,
    two_views,
)
from usthand.fit.detector_joints import load_detector_joints
from usthand.fit.evidence import PointTerm
from usthand.fit.kinematics import ROOT, WRIST, HandState
from usthand.fit.objective import Energy, Prior, minimise
from usthand.fit.sequence import FitConfig, fit_prior

STEP, N_FRAMES = 1e-6, 4


@pytest.fixture(scope="module")
def hand():
    return full_articulation()


def problem(hand, kinds: tuple[bool, ...], offsets: bool, share: bool, seed: int = 3) -> tuple[Energy, HandState]:
    """Labels of two cameras with gaps and correlated errors, and 3D points, of the model's and of a detector's joints;
    some angles beyond their limits. `offsets`: a detector's places are unknown."""
    rng = np.random.default_rng(seed)
    state = smooth_state(hand, rng, N_FRAMES)
    state.angles = state.angles + 0.5 * rng.normal(size=state.angles.shape)
    terms = []
    for detected in kinds:
        labels = two_views(rng, N_FRAMES, 0.7, detected)
        weight = rng.uniform(0.1, 1, size=labels.root.shape[:3])
        terms.append(labels.weighted(weight, *((0.1, 0.3) if share else (0.0, 0.0))))
        terms.append(some_points(rng, N_FRAMES, detected))
    prior = fit_prior(hand, FitConfig(), load_detector_joints("mediapipe") if offsets else None)
    prior = replace(prior, shape_mean=rng.normal(size=hand.n_shape))
    return Energy(hand, prior, terms), state


CASES = [
    pytest.param((False,), False, True, id="model"),
    pytest.param((False,), False, False, id="model, not shared"),
    pytest.param((True,), True, True, id="detector"),
    pytest.param((True,), True, False, id="detector, not shared"),
    pytest.param((True,), False, True, id="detector, places known"),
    pytest.param((False, True), True, True, id="both"),
    pytest.param((False, True), False, True, id="both, places known"),
    pytest.param((False,), True, True, id="places that nothing sees"),
]


def prior_residuals(hand, prior: Prior, state: HandState) -> np.ndarray:
    """Unit Gaussians of everything but the data, as the objective's words have them."""
    spin = Rotation.from_matrix(state.root[1:] @ state.root[:-1].swapaxes(-1, -2)).as_rotvec()
    linear = np.c_[state.wrist_m, state.angles]
    outside = np.maximum(state.angles - hand.high, 0) + np.minimum(state.angles - hand.low, 0)
    parts = [
        spin / prior.velocity[ROOT],
        np.diff(spin, axis=0) / prior.acceleration[ROOT],
        np.diff(linear, axis=0) / prior.velocity[WRIST.start :],
        np.diff(linear, 2, axis=0) / prior.acceleration[WRIST.start :],
        (state.angles - prior.pose_mean) @ prior.pose_root.T,
        outside / prior.limit_rad,
        np.linalg.cholesky(prior.shape_precision).T @ (state.shape - prior.shape_mean),
    ]
    if prior.offset_precision is not None:
        off = state.offsets_m - prior.offset_mean_m
        parts.append(np.linalg.cholesky(prior.offset_precision).swapaxes(-1, -2) @ off[..., None])
    return np.concatenate([part.ravel() for part in parts])


def whitened(energy: Energy) -> tuple[Callable[[HandState], np.ndarray], np.ndarray]:
    """All residuals of a state, and their inverse covariance, dense."""
    hand = energy.hand

    def residuals(state: HandState) -> np.ndarray:
        out = [prior_residuals(hand, energy.prior, state)]
        for term in energy.terms:
            joints = hand.detected(state) if term.detected else hand.joints(state)
            found = term.residuals(joints)
            out.append(found.ravel() if isinstance(term, PointTerm) else np.moveaxis(found[0], -1, 0).ravel())
        return np.concatenate(out)

    blocks = []
    for term in energy.terms:
        if isinstance(term, PointTerm):
            blocks.append(np.eye(term.points_world_m.size))
        else:
            blocks += [dense_inverse_covariance(term)] * 2
    total = sum(len(block) for block in blocks)
    n_prior = len(residuals(smooth_state(hand, np.random.default_rng(0), N_FRAMES))) - total
    inverse, at = np.eye(n_prior + total), n_prior
    for block in blocks:
        inverse[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return residuals, inverse


@pytest.mark.parametrize("kinds, offsets, share", CASES)
def test_normal_equations_equal_those_of_dense_residuals(hand, kinds, offsets, share):
    """J'WJ and -J'Wr, with J by central differences, whose rounding of 1e-16 / 1e-6 and of terms of second order is
    far below 1e-6 of the largest entries. Every entry of the unknowns' correlation matrix is held to that."""
    energy, state = problem(hand, kinds, offsets, share)
    residuals, inverse = whitened(energy)
    jacobian = numeric_jacobian(residuals, hand, state, energy.n_shared, STEP)
    residual = residuals(state)
    matrix, right = dense(energy.normal_equations(state))
    wanted = jacobian.T @ inverse @ jacobian
    scale = np.sqrt(np.diag(wanted))
    assert np.isclose(energy.cost(state), 0.5 * residual @ inverse @ residual, rtol=1e-10)
    assert np.abs((matrix - wanted) / scale[:, None] / scale).max() < 1e-6
    assert np.abs((right + jacobian.T @ inverse @ residual) / scale).max() < 1e-6 * np.linalg.norm(residual)
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_gradient_of_the_cost_equals_finite_differences(hand):
    energy, state = problem(hand, (False, True), True, True)
    system = energy.normal_equations(state)
    slope = numeric_jacobian(lambda s: np.array([energy.cost(s)]), hand, state, energy.n_shared)[0]
    right = np.concatenate([system.right.ravel(), system.right_shared])
    # Rounding of the cost, 1e-16 of it, over the step.
    assert np.abs(slope + right).max() < 1e-5 * np.abs(right).max()


def test_the_minimum_is_one(hand):
    """The gradient at the end, in units of the unknowns' standard deviations, is small; costs never rise."""
    energy, state = problem(hand, (False, True), True, True)
    costs = [energy.cost(state)]
    for _ in range(4):
        state = minimise(energy, state, 5)
        costs.append(energy.cost(state))
    assert (np.diff(costs) <= 0).all() and costs[-1] < 0.8 * costs[0]
    matrix, right = dense(energy.normal_equations(state))
    assert right @ np.linalg.solve(matrix, right) < 1e-2 * costs[-1]


def test_shape_and_places_stay_where_they_are_held(hand):
    energy, state = problem(hand, (True,), True, True)
    moved = minimise(energy, state, 2, fixed_shared=True)
    assert np.array_equal(moved.shape, state.shape) and np.array_equal(moved.offsets_m, state.offsets_m)
    assert energy.cost(moved) < energy.cost(state)
