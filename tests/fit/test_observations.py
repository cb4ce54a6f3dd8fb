"""Observations: what a label's confidence and a hand's size make of its precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usthand.fit.observations import CONFIDENCE_FLOOR, SIGMA_FRACTION, Observations
from usthand.labels.labels import Labels, hand_size_px


@pytest.fixture
def labels() -> Labels:
    """Five frames of three views, one hand missing in one of them and one joint in another."""
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.1, 1, (5, 3, 21))
    confidence[1, 2] = 0
    confidence[3, 0, 4] = 0
    return Labels(rng.uniform(0, 600, (5, 3, 21, 2)), confidence, ("front", "side", "top"), "right", "test")


def test_precision_is_confidence_over_sigma_squared(labels):
    seen = Observations.from_labels(labels, sigma_px=4.0)
    c = float(labels.confidence[0, 0, 0])
    np.testing.assert_allclose(seen.precision[0, 0, 0], np.eye(2) * (c / 4) ** 2, rtol=1e-6)
    assert (seen.precision[~labels.mask] == 0).all()
    assert (seen.uv_px[~labels.mask] == 0).all()


def test_a_faint_label_is_not_nothing(labels):
    faint = replace(labels, confidence=np.where(labels.mask, 1e-6, 0))
    precision = Observations.from_labels(faint, sigma_px=1.0).precision
    np.testing.assert_allclose(precision[0, 0, 0, 0, 0], CONFIDENCE_FLOOR**2)


def test_default_sigma_is_a_fraction_of_the_hand(labels):
    """Twice the hand in pixels, a quarter of the precision; one view without labels changes nothing in the others."""
    double = replace(labels, uv_px=labels.uv_px * 2)
    once, twice = (Observations.from_labels(each).precision for each in (labels, double))
    np.testing.assert_allclose(twice, once / 4, rtol=1e-5)
    sigma = SIGMA_FRACTION * hand_size_px(labels)[0, 1]
    np.testing.assert_allclose(once[0, 1, 0, 0, 0], (labels.confidence[0, 1, 0] / sigma) ** 2, rtol=1e-5)
