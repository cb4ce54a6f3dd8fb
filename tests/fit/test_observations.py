"""Observations: what a label's confidence and a hand's size make of its precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usthand.fit.observations import CONFIDENCE_FLOOR, DETECTOR, SIGMA_FRACTION, Observations, known_detector
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
    np.testing.assert_allclose(seen.precision[0, 0, 0, 0], np.eye(2) * (c / 4) ** 2, rtol=1e-6)
    assert (seen.precision[:, 0][~labels.mask] == 0).all()
    assert (seen.uv_px[:, 0][~labels.mask] == 0).all()
    assert seen.sources == (DETECTOR,) and seen.n_views == 3


def test_a_faint_label_is_not_nothing(labels):
    faint = replace(labels, confidence=np.where(labels.mask, 1e-6, 0))
    precision = Observations.from_labels(faint, sigma_px=1.0).precision
    np.testing.assert_allclose(precision[0, 0, 0, 0, 0, 0], CONFIDENCE_FLOOR**2)


def test_default_sigma_is_a_fraction_of_the_hand(labels):
    """Twice the hand in pixels, a quarter of the precision; one view without labels changes nothing in the others."""
    double = replace(labels, uv_px=labels.uv_px * 2)
    once, twice = (Observations.from_labels(each).precision for each in (labels, double))
    np.testing.assert_allclose(twice, once / 4, rtol=1e-5)
    sigma = SIGMA_FRACTION * hand_size_px(labels)[0, 1]
    np.testing.assert_allclose(once[0, 0, 1, 0, 0, 0], (labels.confidence[0, 1, 0] / sigma) ** 2, rtol=1e-5)


@pytest.mark.parametrize("name, known", [("synthetic-exact", False), ("synthetic", False), ("mediapipe", True)])
def test_where_the_detector_sees_the_joints_is_known_by_its_name(labels, name, known):
    """And where it is the model's own joints that it sees, there is nothing to know."""
    named = replace(labels, detector=name)
    for detector in (known_detector(named), Observations.from_labels(named).detector):
        assert (detector is not None) == known and (not known or detector.name == name)


def test_what_holds_for_a_source_holds_for_each_of_its_views(labels):
    seen = Observations.from_labels(labels)
    assert seen.per_view(np.array([3, 5])).tolist() == [3, 3, 3, 5, 5, 5]
