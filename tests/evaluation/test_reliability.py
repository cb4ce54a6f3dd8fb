from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from support.stand_in import make_truth, result_of
from usthand.common.errors import UsthandError
from usthand.evaluation import reliability as uncertainty


def errors_and_covariances(rng: np.random.Generator, n: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    factor = rng.normal(size=(n, 3, 3)) * 0.003
    return (factor @ rng.normal(size=(n, 3, 1)))[..., 0], factor @ factor.swapaxes(-1, -2)


def test_honest_covariances_are_reliable():
    error, covariance = errors_and_covariances(np.random.default_rng(0))
    found = uncertainty.reliability(error, covariance)
    # Four sigma of a binomial share of 20000.
    assert np.abs(found.expected - found.observed).max() < 4 * np.sqrt(0.25 / 20000)
    assert found.factor == pytest.approx(1.0, abs=0.02) and found.points == 20000


@pytest.mark.parametrize("lie", [0.3, 2.0])
def test_the_factor_fixes_a_lie(lie):
    error, covariance = errors_and_covariances(np.random.default_rng(1))
    honest = uncertainty.reliability(error, covariance)
    lying = uncertainty.reliability(error, covariance * lie**2)
    assert lying.factor == pytest.approx(honest.factor / lie, rel=1e-3)
    assert (lying.observed[:-1] < lying.expected[:-1]).all() if lie < 1 else (lying.observed > lying.expected).all()
    fixed = uncertainty.reliability(error, covariance * (lie * lying.factor) ** 2)
    assert fixed.observed[9] == pytest.approx(0.5, abs=1e-3)  # level 0.5 is the tenth


def test_reliability_of_a_result_uses_the_selected_frames():
    rng = np.random.default_rng(2)
    truth = make_truth(rng, time=200)
    joints = truth.joints_world_m + rng.normal(size=(200, 21, 3)) * 1e-3
    joints[100:] += 1.0
    result = result_of(truth, joints, valid=np.arange(200) < 100)
    found = uncertainty.reliability_of(result, truth)
    assert found.points == 2100 and found.factor == pytest.approx(1.0, abs=0.1)
    with pytest.raises(UsthandError, match="no error"):
        uncertainty.reliability(np.zeros((0, 3)), np.zeros((0, 3, 3)))


def test_expected_error():
    rng = np.random.default_rng(3)
    for axes in ([1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [3.0, 1.0, 0.2]):
        drawn = np.linalg.norm(rng.normal(size=(200000, 3)) * axes, axis=1).mean()
        promised = uncertainty.expected_error_mm(np.diag(np.square(axes))[None] * 1e-6)[0]
        assert promised == pytest.approx(drawn, rel=0.06)
    assert uncertainty.expected_error_mm(np.zeros((2, 3, 3))).max() < 1e-6


@pytest.mark.parametrize("levels", [0, 5])
def test_spearman_equals_scipy(levels):
    rng = np.random.default_rng(4)
    a = rng.normal(size=500)
    b = -a + rng.normal(size=500)
    if levels:  # many ties
        a, b = np.round(a * levels / 3), np.round(b * levels / 3)
    assert uncertainty.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert uncertainty.spearman(a, np.exp(a)) == pytest.approx(1.0)


def test_spearman_never_gives_nan():
    assert uncertainty.spearman(np.ones(5), np.arange(5.0)) == 0.0
    with pytest.raises(UsthandError):
        uncertainty.spearman(np.array([]), np.array([]))
