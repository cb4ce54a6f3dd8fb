"""The quality of labels: exact for exact labels, in pixels for errors, None where nothing can be triangulated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.hands_in_views import exact_uv, moving_hands, right_hand
from usthand.labels.labels import Labels
from usthand.labels.quality import label_quality, reprojection_px


@pytest.fixture
def labels(rig, truth) -> Labels:
    return Labels(truth["right"], np.ones(truth["right"].shape[:3]), rig.names, "right", "exact")


def test_exact_labels(rig, labels):
    """Float32 pixels: residuals below a thousandth of a pixel, lengths of the hand itself."""
    quality, hand = label_quality(rig, labels), right_hand()
    assert quality.residual_px < 1e-3 and quality.two_view_share == 1 and set(quality.share.values()) == {1.0}
    assert quality.palm_mm == pytest.approx(1e3 * np.linalg.norm(hand[9] - hand[0]), abs=0.01)
    assert quality.palm_width_mm == pytest.approx(1e3 * np.linalg.norm(hand[17] - hand[5]), abs=0.01)
    assert quality.palm_spread_mm < 0.01


def test_one_wrong_camera_shows_in_the_residual(rig, labels):
    uv = labels.uv_px.copy()
    uv[:, 1] += 20
    assert label_quality(rig, replace(labels, uv_px=uv)).residual_px > 2


def test_shares_count_frames(rig, labels):
    """Of twelve frames c0 misses three; in two of them only c3 has labels."""
    confidence = labels.confidence.copy()
    confidence[:3, 0] = 0
    confidence[:2, 1:3] = 0
    quality = label_quality(rig, replace(labels, confidence=confidence))
    assert quality.share == {"c0": 0.75, "c1": 10 / 12, "c2": 10 / 12, "c3": 1.0}
    assert quality.two_view_share == pytest.approx(10 / 12)


def test_labels_of_one_view_have_no_residual(rig, labels):
    confidence = labels.confidence.copy()
    confidence[:, 1:] = 0
    quality = label_quality(rig, replace(labels, confidence=confidence))
    assert (quality.residual_px, quality.palm_mm, quality.palm_spread_mm, quality.palm_width_mm) == (None,) * 4
    assert quality.two_view_share == 0


def test_distance_and_side_of_the_camera(rig):
    joints = moving_hands()["right"]
    distance, in_front = reprojection_px(rig, joints, exact_uv(rig, joints) + np.array([3.0, 4.0]))
    np.testing.assert_allclose(distance, 5.0, atol=1e-9)
    assert in_front.all()
    assert not reprojection_px(rig, joints + np.array([0, 0, 5.0]), exact_uv(rig, joints))[1].all()
