"""Sparsification, likelihood, hidden joints: against scipy, closed forms, brute force and sampled Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from support.stand_in import make_truth, result_of
from usthand.common.errors import UsthandError
from usthand.evaluation.sparsification import REMOVED, ideal_ratio, sparsification
from usthand.evaluation.uncertainty import (
    LEVELS,
    constant_covariance,
    covariance_numbers,
    evaluate_uncertainty,
    hidden_ratio,
    negative_log_likelihood,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(rng, n=20000, spread=0.5):
    """Errors (m) from covariances whose size differs by a log-normal factor."""
    root = rng.normal(size=(n, 3, 3)) * 2e-3 * np.exp(spread * rng.normal(size=(n, 1, 1)))
    return (root @ rng.normal(size=(n, 3, 1)))[..., 0], root @ root.swapaxes(-1, -2)


def test_the_curve_is_what_removing_points_leaves(rng):
    std, error = rng.permutation(200) + 1.0, rng.exponential(size=200)
    found = sparsification(error, std)
    for share, left, oracle in zip(REMOVED, found.left, found.oracle, strict=True):
        keep = round((1 - share) * 200)
        assert left == pytest.approx(error[np.argsort(std)][:keep].mean())
        assert oracle == pytest.approx(np.sort(error)[:keep].mean())
    by_hand = [
        np.mean([values[: k + 1].mean() for k in range(200)]) for values in (error[np.argsort(std)], np.sort(error))
    ]
    assert found.ratio == pytest.approx(by_hand[0] / by_hand[1])
    assert found.ause == pytest.approx((by_hand[0] - by_hand[1]) / error.mean())


def test_the_oracle_is_the_best_and_equal_uncertainty_says_nothing(rng):
    error = rng.exponential(size=500)
    best = sparsification(error, error)
    assert best.ratio == pytest.approx(1.0) and best.ause == pytest.approx(0.0, abs=1e-12)
    assert np.allclose(sparsification(error, np.ones(500)).left, error.mean())
    assert sparsification(error, -error).ratio > sparsification(error, np.ones(500)).ratio > 1.0
    # Exponential errors: the mean of the smallest share x is 1 + (1 - x) log(1 - x) / x; its integral 2 - pi^2 / 6.
    unranked = sparsification(rng.exponential(size=200000), np.ones(200000)).ratio
    assert unranked == pytest.approx(1.0 / (2.0 - np.pi**2 / 6.0), rel=0.02)
    with pytest.raises(UsthandError, match="no error"):
        sparsification(np.zeros(0), np.zeros(0))


def test_honest_covariances_reach_the_ideal_and_not_the_oracle(rng):
    error, covariance = drawn(rng)
    std = np.sqrt(np.trace(covariance, axis1=-2, axis2=-1))
    found = sparsification(np.linalg.norm(error, axis=-1), std).ratio
    assert found == pytest.approx(ideal_ratio(covariance, std), rel=0.02) and found > 1.05
    shuffled = sparsification(np.linalg.norm(error, axis=-1), rng.permutation(std)).ratio
    assert shuffled > 1.3 * ideal_ratio(covariance, std)


def test_the_likelihood_is_scipys(rng):
    error, covariance = drawn(rng, 50)
    error_mm, covariance_mm2 = 1e3 * error, 1e6 * covariance + 1e-2 * np.eye(3)
    expected = [-stats.multivariate_normal(cov=one).logpdf(e) for e, one in zip(error_mm, covariance_mm2, strict=True)]
    assert negative_log_likelihood(error_mm, covariance_mm2) == pytest.approx(np.mean(expected), rel=1e-4)
    best = constant_covariance(error_mm)
    # Of the likeliest constant covariance: (3 + log det + 3 log 2 pi) / 2.
    closed = 0.5 * (3 + np.linalg.slogdet(best)[1] + 3 * np.log(2 * np.pi))
    assert negative_log_likelihood(error_mm, best) == pytest.approx(closed, rel=1e-6)
    for factor in (0.8, 1.25):
        assert negative_log_likelihood(error_mm, factor * best) > closed


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_only_honest_covariances_pass(rng, factor):
    error, covariance = drawn(rng)
    found = covariance_numbers(error, factor * covariance)
    for level in LEVELS:  # four sigma of a share
        share = found[f"coverage{100 * level:.0f}"]
        expected = stats.chi2.cdf(stats.chi2.ppf(level, 3) * factor, 3)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(error)))
    assert found["std_factor"] == pytest.approx(factor**-0.5, rel=0.02)
    honest = covariance_numbers(error, covariance)
    assert found["nll"] >= honest["nll"] and honest["nll"] < honest["nll_constant"]
    assert found["sparsification_ratio"] == pytest.approx(honest["sparsification_ratio"])  # a factor ranks alike


def test_hidden_joints_are_compared_with_themselves(rng):
    seen = rng.integers(1, 9, size=(400, 21))
    base = np.arange(1.0, 22.0)  # some joints are harder whatever hides them
    values = base * np.where(seen < np.median(seen, axis=0), 3.0, 1.0)
    assert hidden_ratio(values, seen) == pytest.approx(3.0)
    assert hidden_ratio(values, 9 - seen) == pytest.approx(1 / 3.0, rel=1e-6)
    assert hidden_ratio(values, np.full((400, 21), 4)) is None
    mostly = np.where(rng.random((400, 21)) < 0.2, 3, 8)  # the median is the most there is
    assert hidden_ratio(np.where(mostly < 8, 2.0, 1.0), mostly) == pytest.approx(2.0)


def test_a_results_numbers_are_those_of_its_selected_frames_and_vertices(rng):
    truth = make_truth(rng, time=60)
    root = np.array([1.0, 2.0, 4.0]) * 1e-3
    covariance = np.tile(np.diag(root**2), (60, 21, 1, 1))
    joints = truth.joints_world_m + rng.normal(size=(60, 21, 3)) * root
    joints[30:] += 1.0
    vertices = truth.vertices_world_m + rng.normal(size=(60, 778, 3)) * root
    result = result_of(truth, joints, vertices, joints_cov_m2=covariance, valid=np.arange(60) < 30)
    spread = np.tile(np.diag(root**2).astype(np.float32), (60, 778, 1, 1))
    found = evaluate_uncertainty(result, truth, vertices_cov_m2=spread)
    assert found["frames"] == 30 and found["coverage90"] == pytest.approx(0.9, abs=0.05)
    assert found["vertex_coverage90"] == pytest.approx(0.9, abs=0.01)
    assert found["hidden_std_ratio"] is None  # every camera sees every joint
    plain = evaluate_uncertainty(result, truth, vertices_cov_m2=np.zeros((60, 0, 3, 3), np.float32))
    assert plain == {name: value for name, value in found.items() if not name.startswith("vertex_")}


def test_a_covariance_of_zero_gives_finite_numbers():
    found = covariance_numbers(np.full((10, 3), 1e-3), np.zeros((10, 3, 3)))
    assert all(np.isfinite(value) for value in found.values()) and found["coverage99"] == 0.0
