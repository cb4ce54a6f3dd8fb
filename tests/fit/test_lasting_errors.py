"""Errors that last against the dense sandwich, and against fits of labels that have them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.fit_parts import (
    dense,
    dense_inverse_covariance,
    full_articulation,
    numeric_jacobian,
    smooth_state,
    two_views,
)
from usthand.fit.arrow_system import inverse_blocks, solve
from usthand.fit.detector_joints import load_detector_joints
from usthand.fit.kinematics import HandState
from usthand.fit.lasting_errors import lasting_covariance
from usthand.fit.objective import Energy
from usthand.fit.sequence import FitConfig, fit_prior

N_FRAMES, PART = 4, 0.3


@pytest.fixture(scope="module")
def hand():
    return full_articulation()


def problem(hand, detected: bool, share: bool) -> tuple[Energy, HandState]:
    rng = np.random.default_rng(3)
    state = smooth_state(hand, rng, N_FRAMES)
    seen = hand.detected(state) if detected else hand.joints(state)
    term = two_views(rng, N_FRAMES, 0.7, detected, near_m=seen)
    term = replace(term, root=20 * term.root)
    term = term.weighted(rng.uniform(0.1, 1, size=term.root.shape[:3]), *((0.1, 0.3) if share else (0.0, 0.0)))
    prior = fit_prior(hand, FitConfig(), load_detector_joints("mediapipe") if detected else None)
    return Energy(hand, prior, [term]), state


def lasting_covariance_of_labels(term) -> np.ndarray:
    """Of one image axis, dense, in units of the labels' standard deviations, for a lasting part of one.

    An error that never changes: the shifts of the hand and of each finger, and each label's own.
    """
    n_frames, n_views, n_joints = term.root.shape[:3]
    present = (term.root**2).sum((-1, -2)) > 0
    own = np.sqrt(np.broadcast_to(term.own, present.shape)) * present
    out = np.zeros((n_frames, n_views, n_joints, n_frames, n_views, n_joints))
    for v in range(n_views):
        for j in range(n_joints):
            out[:, v, j, :, v, j] += np.outer(own[:, v, j], own[:, v, j])
        if term.groups is not None:
            groups = term.groups[:, v] * present[:, v, :, None]
            out[:, v, :, :, v] += np.einsum("tjg,skg->tjsk", groups, groups)
    return out.reshape(present.size, -1)


@pytest.mark.parametrize("detected", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_what_lasts_adds_the_dense_sandwich(hand, detected, share):
    """H^-1 J'P S PJ H^-1 with S the covariance of errors that never change, P the inverse of the modelled one, J by
    central differences, which are good to 1e-6."""
    energy, state = problem(hand, detected, share)
    (term,) = energy.terms
    see = hand.detected if detected else hand.joints
    jacobian = numeric_jacobian(
        lambda s: np.moveaxis(term.residuals(see(s))[0], -1, 0), hand, state, energy.n_shared
    ).reshape(2, -1, N_FRAMES * hand.size + energy.n_shared)
    system = energy.normal_equations(state)
    inverse, modelled = np.linalg.inv(dense(system)[0]), dense_inverse_covariance(term)
    lasting = lasting_covariance_of_labels(term)
    middle = sum(a.T @ modelled @ lasting @ modelled @ a for a in jacobian)
    wanted = PART * inverse @ middle @ inverse
    posed = {detected: (hand.posed_detected if detected else hand.posed)(state)}
    found = lasting_covariance(energy, system, posed, {detected: PART})
    size, shared = hand.size, N_FRAMES * hand.size
    scale = np.sqrt(np.diag(wanted) + 1e-6 * np.diag(inverse))  # thickness is not moved at all
    for t in range(N_FRAMES):
        here = slice(t * size, (t + 1) * size)
        assert np.abs((found.frame[t] - wanted[here, here]) / scale[here, None] / scale[here]).max() < 1e-5
        assert np.abs((found.shared[t] - wanted[here, shared:]) / scale[here, None] / scale[shared:]).max() < 1e-5
    assert np.abs((found.corner - wanted[shared:, shared:]) / scale[shared:, None] / scale[shared:]).max() < 1e-5


def test_steps_of_the_fit_spread_as_stated_when_errors_last(hand):
    """Monte Carlo: every label is shifted by one constant error for the whole sequence, of the modelled variance, and
    the fit takes its Gauss-Newton step. The steps' variances are those that are added for a lasting part of one; 400
    draws leave each of them 7 %, and the mean ratio over unknowns, of which a tenth are independent, 2 %."""
    energy, state = problem(hand, False, False)
    (term,) = energy.terms
    system, rng, steps = energy.normal_equations(state), np.random.default_rng(1), []
    posed = hand.posed(state)
    wanted = lasting_covariance(energy, system, {False: posed}, {False: 1.0})
    calm, calm_shared = solve(system)
    for _ in range(400):
        whitened = rng.normal(size=(1, 2, 21, 2))  # in standard deviations of each label
        present = (term.root**2).sum((-1, -2)) > 0
        root = np.where(present[..., None, None], term.root, np.eye(2))
        xy = term.xy + np.linalg.solve(root, np.broadcast_to(whitened, term.xy.shape)[..., None])[..., 0]
        step, shared = solve(Energy(hand, energy.prior, [replace(term, xy=xy)]).normal_equations(state))
        steps.append(np.r_[(step - calm).ravel(), shared - calm_shared])
    spread = np.square(steps).mean(0)
    stated = np.r_[np.einsum("tdd->td", wanted.frame).ravel(), np.diag(wanted.corner)]
    short = inverse_blocks(system)
    moved = stated > 1e-3 * np.r_[np.einsum("tdd->td", short.frame).ravel(), np.diag(short.corner)]
    assert moved.sum() > N_FRAMES * hand.size
    ratio = spread[moved] / stated[moved]
    assert abs(ratio.mean() - 1) < 4 * 0.02 and np.abs(ratio - 1).max() < 5 * np.sqrt(2 / 400)


def test_no_lasting_part_adds_nothing(hand):
    energy, state = problem(hand, False, True)
    found = lasting_covariance(energy, energy.normal_equations(state), {False: hand.posed(state)}, {False: 0.0})
    assert not found.frame.any() and not found.corner.any()
