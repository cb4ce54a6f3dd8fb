"""Label noise without truth, and regions in a left-out camera: against known noise, scipy's distributions, draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from support.stand_in import exact_labels, make_rig, moving_hand, result_of
from usthand.common.errors import UsthandError
from usthand.evaluation import metrics
from usthand.evaluation.label_noise import estimate_label_noise
from usthand.evaluation.left_out import evaluate_left_out_regions, region_content
from usthand.fit.fit import triangulate
from usthand.labels.labels import hand_size_px

SHARE, TIME = 0.02, 150


@pytest.fixture(scope="module")
def scene():
    """A slowly moving hand before three cameras, and its exact labels."""
    truth, rig = moving_hand(TIME), make_rig()
    return truth, rig, exact_labels(truth, rig)


def noisy(exact, dof: float, power: float = 1.0, seed: int = 0, share: float = SHARE):
    """Student's t errors of known scale, whose confidence tells their scale by a power."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.2, 1.0, size=exact.confidence.shape)
    scale = share * hand_size_px(exact)[..., None] * confidence**-power
    error = rng.normal(size=exact.uv_px.shape)
    if np.isfinite(dof):
        error /= np.sqrt(rng.chisquare(dof, size=confidence.shape) / dof)[..., None]
    return replace(exact, uv_px=exact.uv_px + scale[..., None] * error, confidence=confidence.astype(np.float32))


@pytest.mark.parametrize("cameras", [("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("dof", [3.0, 6.0])
def test_the_noise_is_found_though_a_fit_to_few_views_follows_its_labels(scene, cameras, dof):
    """Two views show one of four dimensions of the errors: without leverage the scale would be half.

    3150 joints: a median is good to 2 %, the ratio of the quantiles to 4 %, and .1 of 1 / dof is 6 % of it (two views).
    The hand's size is measured on noisy labels, which makes the box some per cent larger and the share smaller.
    """
    _, rig, exact = scene
    chosen = replace(rig, cameras=tuple(rig.cameras[rig.index(name)] for name in cameras))
    labels = noisy(exact, dof).subset(cameras)
    found = estimate_label_noise(chosen, labels)
    assert found is not None
    true_px = SHARE * hand_size_px(exact.subset(cameras))[..., None] / labels.confidence**1.0
    assert np.median(found.scale_px(labels) / true_px) == pytest.approx(1.0, abs=0.12)
    assert 1 / found.dof == pytest.approx(1 / dof, abs=0.1)


def test_normal_noise_has_many_degrees_of_freedom(scene):
    _, rig, exact = scene
    found = estimate_label_noise(rig, noisy(exact, np.inf))
    assert found is not None and found.dof > 20


def test_confidence_that_says_nothing_gets_no_weight(scene):
    _, rig, exact = scene
    none, all_of_it = (estimate_label_noise(rig, noisy(exact, np.inf, power)) for power in (0.0, 1.0))
    assert none is not None and all_of_it is not None
    assert none.power == pytest.approx(0.0, abs=0.1) and all_of_it.power == pytest.approx(1.0, abs=0.15)
    alike = replace(exact, confidence=np.full(exact.confidence.shape, 0.7))
    found = estimate_label_noise(rig, alike)
    assert found is not None and found.power == 0.0 and found.share < 1e-4  # exact labels: float32's rounding


def test_too_few_labels_tell_no_noise(scene):
    truth, rig, exact = scene
    few = replace(exact, confidence=exact.confidence * (np.arange(TIME) < 3)[:, None, None])
    assert estimate_label_noise(rig, few) is None
    found = evaluate_left_out_regions(result_of(truth), rig, few, "c")
    assert found["leave_out_coverage90"] is None and found["leave_out_delay_frames"] is None


def test_the_regions_content_is_that_of_its_limits():
    rng = np.random.default_rng(0)
    error = rng.normal(size=(200, 2)) * 3.0
    root = rng.normal(size=(200, 2, 2)) * 1.5
    own, none = root @ root.swapaxes(-1, -2), np.zeros((200, 2, 2))
    scale = rng.uniform(0.5, 3.0, 200)
    square = np.einsum("ni,nij,nj->n", error, np.linalg.inv(own + scale[:, None, None] ** 2 * np.eye(2)), error)
    assert np.abs(region_content(error, own, scale, 1e5) - stats.chi2.cdf(square, 2)).max() < 0.002
    alone = stats.f.cdf((error**2).sum(-1) / scale**2 / 2, 2, 4.0)
    assert np.abs(region_content(error, none, scale, 4.0) - alone).max() < 0.002
    only_own = np.einsum("ni,nij,nj->n", error, np.linalg.inv(own), error)
    assert np.abs(region_content(error, own, 0 * scale, 4.0) - stats.chi2.cdf(only_own, 2)).max() < 0.002


@pytest.mark.parametrize("dof", [2.0, 5.0])
def test_the_regions_content_is_the_share_of_draws_inside(dof):
    rng = np.random.default_rng(1)
    own, scale, n = np.array([[9.0, 2.0], [2.0, 1.0]]), 2.0, 200000
    drawn = rng.multivariate_normal((0, 0), own, n)
    drawn += scale * rng.normal(size=(n, 2)) / np.sqrt(rng.chisquare(dof, n) / dof)[:, None]
    content = region_content(drawn[:20000], np.tile(own, (20000, 1, 1)), np.full(20000, scale), dof)
    for level in (0.5, 0.9, 0.95):  # four sigma of a share, and the quadrature
        assert abs((content <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 20000) + 0.003


def test_an_honest_result_keeps_its_promise_and_others_do_not(scene):
    """Joints off by draws from their stated covariance, labels with t errors that the program is not told of."""
    truth, rig, exact = scene
    rng, labels = np.random.default_rng(2), noisy(exact, 4.0, seed=3, share=0.008)
    root = np.array([2.0, 3.0, 5.0]) * 1e-3
    result = result_of(
        truth,
        truth.joints_world_m + rng.normal(size=(TIME, 21, 3)) * root,
        joints_cov_m2=np.tile(np.diag(root**2), (TIME, 21, 1, 1)),
    )
    honest = evaluate_left_out_regions(result, rig, labels, "c")
    assert honest["leave_out_coverage50"] == pytest.approx(0.5, abs=0.05)
    assert honest["leave_out_coverage90"] == pytest.approx(0.9, abs=0.03)
    assert abs(honest["leave_out_delay_frames"]) < 0.2
    for factor, sure in ((0.05, True), (20.0, False)):
        lying = replace(result, joints_cov_m2=factor * result.joints_cov_m2)
        found = evaluate_left_out_regions(lying, rig, labels, "c")
        assert (found["leave_out_coverage50"] < 0.3) if sure else (found["leave_out_coverage50"] > 0.9)


def test_raw_triangulation_keeps_its_promise_with_normal_errors(scene):
    """Two views, so that a noise without leverage would be half of the true one and the regions far too small."""
    _, rig, exact = scene
    labels = noisy(exact, np.inf, power=0.0)
    labels = replace(labels, confidence=np.full(labels.confidence.shape, 0.9))
    pair = replace(rig, cameras=rig.cameras[:2])
    found = evaluate_left_out_regions(triangulate(pair, labels.without("c")), rig, labels, "c")
    assert found["leave_out_coverage50"] == pytest.approx(0.5, abs=0.05)
    assert found["leave_out_coverage90"] == pytest.approx(0.9, abs=0.03)


def test_a_late_camera_is_told_from_a_wrong_covariance(scene):
    truth, rig, exact = scene
    labels = noisy(exact, 8.0, share=0.003)
    uv, confidence = labels.uv_px.copy(), labels.confidence.copy()
    uv[2:, 2], confidence[2:, 2] = uv[:-2, 2], confidence[:-2, 2]
    late = replace(labels, uv_px=uv, confidence=confidence)
    sure = result_of(truth, joints_cov_m2=np.tile(np.eye(3) * 1e-8, (TIME, 21, 1, 1)))
    honest, found = (evaluate_left_out_regions(sure, rig, one, "c", np.arange(5, TIME)) for one in (labels, late))
    assert found["leave_out_delay_frames"] == pytest.approx(2.0, abs=0.1)
    assert found["leave_out_coverage90"] < honest["leave_out_coverage90"] - 0.05
    assert found["leave_out_in_time_coverage90"] == pytest.approx(honest["leave_out_coverage90"], abs=0.03)


def test_labels_of_the_other_hand_are_refused(scene):
    truth, rig, exact = scene
    with pytest.raises(UsthandError, match="the result of the right one"):
        evaluate_left_out_regions(result_of(truth), rig, replace(exact, side="left"), "c")
    assert metrics.COVERAGE_LEVELS == (0.5, 0.9)  # the names of the shares
