"""Frames that the detector missed are shown to the network, and used where it sees the hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.stand_in import make_truth, result_of
from usthand.capture.capture import open_capture
from usthand.data.footage import footage_of
from usthand.data.prepare import fit_hand, load_hand_2d
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.truth import require_truth
from usthand.hand.io import load_hand
from usthand.hand.result import BY_LABELS, BY_NETWORK, INTERPOLATED
from usthand.reconstruction.bridging import MOST_STD_M, SEEN, SEEN_IF_SURE, SURE_STD_M, bridged, trusted
from usthand.reconstruction.inference import PULL, Estimates, estimate
from usthand.reconstruction.reconstruct import reconstruct_all
from usthand.training.checkpoint import SHIPPED, load_checkpoint
from usthand.training.config import PRESETS
from usthand.training.loop import load_hands, prepare_footages

GAP = slice(9, 15)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Two views; one of them has no label in six frames, in which the other has."""
    config = SynthConfig(views=2, frames=24, labels="heavy", size=160, seed=7)
    path = make_capture(tmp_path_factory.mktemp("captures") / "gap", config)
    capture = open_capture(path)
    exact = load_hand_2d(capture, "right").labels
    confidence = exact.confidence.copy()
    confidence[GAP, 0] = 0
    replace(exact, confidence=confidence).save(capture.labels_path("right"))
    return open_capture(path)


def made_fit(std_m: list[float], valid: list[bool]):
    fit = result_of(make_truth(np.random.default_rng(0), len(valid)))
    covariance = np.square(std_m)[:, None, None, None] * np.tile(np.eye(3), (len(valid), 21, 1, 1))
    return replace(fit, joints_cov_m2=covariance, valid=np.array(valid))


def made_estimates(confidence: np.ndarray) -> Estimates:
    n, views = confidence.shape
    each = np.repeat(confidence[..., None], 21, -1)
    return Estimates(
        uv_px=np.zeros((n, views, 21, 2)),
        cov_px2=np.tile(np.eye(2), (n, views, 21, 1, 1)),
        confidence=0.5 * (each > 0),
        heatmap_confidence=each,
        points_world_m=np.zeros((n, 21, 3)),
        angles=np.zeros((n, 15, 3)),
        root=np.tile(np.eye(3), (n, 1, 1)),
        shape=np.zeros(10),
        translation_m=np.zeros((n, 3)),
        valid=(confidence > 0).sum(1) >= 2,
        source=np.ones(n, int),
    )


def test_crops_are_cut_where_the_fit_is_certain_enough():
    fit = made_fit([0.003, 0.5, 0.01, 0.99 * MOST_STD_M, 1.01 * MOST_STD_M], [True, True, False, False, False])
    assert bridged(fit).valid.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("level", [0.3, 0.9])
def test_a_network_is_used_where_it_is_about_as_confident_as_in_labelled_frames(level):
    """Whatever its level is: it depends on the training."""
    far, near = 2 * SURE_STD_M, 0.5 * SURE_STD_M
    std_m, valid = [0.003, 0.003, far, far, far, near, near, 0.003], [True, True, *[False] * 5, True]
    confidence = level * np.array(
        [
            [1.0, 1.0, 1.0, 1.0],
            [1.0, 1.0, 1.0, 1.0],
            [1.1 * SEEN, 1.1 * SEEN, 0.9 * SEEN, 0.0],
            [1.1 * SEEN, 1.1 * SEEN, 0.9 * SEEN, 0.9 * SEEN],  # not by more than half of the views
            [1.0, 0.9 * SEEN, 0.0, 0.0],
            [1.1 * SEEN_IF_SURE, 1.1 * SEEN_IF_SURE, 0.9 * SEEN_IF_SURE, 0.0],
            [0.9 * SEEN_IF_SURE, 0.0, 1.0, 0.0],
            [0.01, 0.01, 0.01, 0.0],
        ]
    )
    found = trusted(made_estimates(confidence), made_fit(std_m, valid))
    expected = [BY_LABELS, BY_LABELS, BY_NETWORK, INTERPOLATED, INTERPOLATED, BY_NETWORK, INTERPOLATED, BY_LABELS]
    assert found.source.tolist() == expected
    assert (found.valid == (found.source != INTERPOLATED)).all()
    used = np.asarray((found.confidence > 0).all(-1))
    assert used[[2, 5]].tolist() == [[True, True, False, False]] * 2 and not used[[3, 4, 6]].any()
    assert np.array_equal(used[[0, 1, 7]], confidence[[0, 1, 7]] > 0), "labelled frames are used as they are"
    assert ((found.heatmap_confidence > 0).all(-1) == used).all()


def test_the_network_places_the_frames_that_the_detector_missed(capture):
    """Most of the gap is valid, better than the bridge, and said to be the network's; the rest says that it is not."""
    fit = fit_hand(load_hand_2d(capture, "right"), capture.fps)
    assert not fit.valid[GAP].any()
    both = reconstruct_all(capture, side="right")
    placed = both.estimates.source == BY_NETWORK
    assert placed[GAP].sum() >= 4 and (both.final.valid == (placed | fit.valid)).all()
    assert (both.estimates.source[fit.valid] == BY_LABELS).all()
    assert (both.estimates.source[~placed & ~fit.valid] == INTERPOLATED).all()
    for result in (both.final, both.network, both.head):
        assert np.array_equal(result.source, both.estimates.source)
    assert np.array_equal(fit.source, np.where(fit.valid, BY_LABELS, INTERPOLATED))
    truth = require_truth(capture.path, "right").joints_world_m
    error, of_fit = (np.linalg.norm(r.joints_world_m - truth, axis=-1).mean(-1) for r in (both.final, fit))
    assert error[placed].mean() < of_fit[placed].mean()
    placed_in_gap = error[GAP][placed[GAP]]
    assert placed_in_gap.mean() < 1.5 * error[fit.valid].mean(), "a short gap is nearly as good as labelled frames"


def test_a_crop_without_the_hand_places_nothing(capture):
    """The same gap, but its images show noise: the frames stay interpolated."""
    hand = load_hand_2d(capture, "right")
    fit = fit_hand(hand, capture.fps)
    model, crop, _ = load_checkpoint(SHIPPED, load_hand())
    footage = footage_of(capture, hand, bridged(fit), crop, model.config.image_size)
    assert footage.crops.view_mask[GAP].all()
    assert isinstance(footage.images, np.ndarray)
    images = footage.images.copy()
    images[GAP] = np.random.default_rng(0).integers(0, 256, images[GAP].shape)
    blind = trusted(estimate(model, replace(footage, images=images), crop), fit)
    assert (blind.source[GAP] == INTERPOLATED).all() and not blind.confidence[GAP].any()
    assert (blind.source[fit.valid] == BY_LABELS).all()


def test_a_training_learns_from_labelled_frames_alone(capture, tmp_path):
    hands = load_hands([capture.path], "right", None)
    (footage,), _ = prepare_footages(hands, PRESETS["tiny"], tmp_path)
    assert not footage.crops.view_mask[GAP].any()


def test_an_uncertain_place_makes_the_estimates_uncertain(capture):
    """By `PULL` of its own standard deviation, beside what the flow states; without a gate, so that this is alike."""
    hand = load_hand_2d(capture, "right")
    fit = fit_hand(hand, capture.fps)
    model, crop, _ = load_checkpoint(SHIPPED, load_hand())
    ungated = replace(crop, gate=0.0)
    size, shape = model.config.image_size, (len(fit), 21, 1, 1)
    stated = (replace(fit, joints_cov_m2=std_m**2 * np.tile(np.eye(3), shape)) for std_m in (0.0, 0.03))
    near, far = (footage_of(capture, hand, one, crop, size) for one in stated)
    one, two = (estimate(model, footage, ungated) for footage in (near, far))
    seen = fit.valid[:, None] & near.crops.view_mask
    added = (two.cov_px2 - one.cov_px2)[seen]
    expected = (PULL * far.crops.expected_std_px[seen]) ** 2
    np.testing.assert_allclose(
        added, expected[:, None, None, None] * np.broadcast_to(np.eye(2), added.shape), atol=1e-6
    )
