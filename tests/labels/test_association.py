"""Association: exact projections of two hands, with a detector's errors added, are told apart exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.hands_in_views import N_FRAMES, detect, exact_uv, moving_hands, right_hand, ring_rig
from usthand.capture.rig import Rig
from usthand.labels.association.associate import associate, chirality
from usthand.labels.association.candidates import AssociateConfig
from usthand.labels.labels import Detection, Labels


def clean(truth: dict[str, np.ndarray]) -> list[list[list[Detection]]]:
    n_frames, n_views = next(iter(truth.values())).shape[:2]
    return [[[detect(uv[t, v], side) for side, uv in truth.items()] for v in range(n_views)] for t in range(n_frames)]


def assert_recovered(labels: dict[str, Labels], truth: dict[str, np.ndarray], missing=()) -> None:
    """Every label is the true one; all are there but those of `missing`, (frame, view, side)."""
    for side, uv in truth.items():
        expected = np.ones(uv.shape[:2], bool)
        for t, v, gone in missing:
            if gone == side:
                expected[t, v] = False
        seen = labels[side].mask.any(axis=-1)
        np.testing.assert_array_equal(seen, expected, err_msg=side)
        np.testing.assert_allclose(labels[side].uv_px[seen], uv[seen], atol=1e-3)


def test_clean_detections(rig, truth):
    labels = associate(rig, clean(truth), detector="made up")
    assert_recovered(labels, truth)
    assert labels["left"].detector == "made up" and labels["left"].cameras == rig.names


def test_order_of_detections_does_not_matter(rig, truth):
    rng = np.random.default_rng(0)
    shuffled = [[[view[i] for i in rng.permutation(len(view))] for view in frame] for frame in clean(truth)]
    assert_recovered(associate(rig, shuffled), truth)


def test_wrong_sides_are_fixed(rig, truth):
    """A third of all sides is wrong, and in one view both hands are always given the same side."""
    rng = np.random.default_rng(1)
    spoilt = clean(truth)
    for t in range(N_FRAMES):
        for v, view in enumerate(spoilt[t]):
            spoilt[t][v] = [
                replace(one, side="right" if v == 2 or (one.side == "left") == (rng.random() < 1 / 3) else "left")
                for one in view
            ]
    sides = [one.side for frame in spoilt for view in frame for one in view]
    assert 0.3 < np.mean([side == "right" for side in sides]) < 0.8
    assert_recovered(associate(rig, spoilt), truth)


def test_sides_settled_by_chirality_when_the_detector_does_not_know(rig, truth):
    unsure = [[[replace(one, side="left", score=0.5) for one in view] for view in frame] for frame in clean(truth)]
    assert_recovered(associate(rig, unsure), truth)


def test_duplicates_and_inventions_are_dropped(rig, truth):
    """Each view sees the right hand once more, as a left one and a little off, and one hand that is not there."""
    rng = np.random.default_rng(2)
    spoilt = clean(truth)
    for frame in range(N_FRAMES):
        for v, view in enumerate(spoilt[frame]):
            again = detect(view[0].uv_px + rng.normal(0, 6, (21, 2)), "left", 0.7)
            invented = detect(rng.uniform(100, 1100) + rng.uniform(0, 120, (21, 2)), "right", 0.95)
            spoilt[frame][v] = [again, *view, invented]
    assert_recovered(associate(rig, spoilt), truth)


def test_one_hand_seen_twice_in_every_view_is_one_hand(rig, truth):
    """The second detections even agree over the views, on a place 15 mm away."""
    again = exact_uv(rig, moving_hands()["right"] + [0.0, 0.015, 0.0])
    spoilt = clean({"right": truth["right"], "left": again})
    labels = associate(rig, [[[replace(one, side="right") for one in view] for view in frame] for frame in spoilt])
    assert labels["right"].mask.any(axis=-1).all()
    assert not labels["left"].mask.any()


def test_hands_that_touch_are_two(rig):
    """Palm by palm, centres 40 mm apart, which is less than half a palm's length."""
    centred = {side: joints - joints.mean(axis=1, keepdims=True) for side, joints in moving_hands().items()}
    hands = {
        side: joints + np.array([x, 0.0, 0.0]) for (side, joints), x in zip(centred.items(), (-0.02, 0.02), strict=True)
    }
    truth = {side: exact_uv(rig, joints) for side, joints in hands.items()}
    assert_recovered(associate(rig, clean(truth)), truth)


def test_a_view_that_contradicts_the_others_is_dropped(rig, truth):
    """Beside the hand by a quarter of its size: too far to agree, and three views know better."""
    spoilt = clean({"right": truth["right"]})
    for frame in spoilt:
        uv = frame[1][0].uv_px
        frame[1] = [detect(uv + 0.27 * np.ptp(uv, axis=0).max() * np.array([0.6, 0.8]), "right")]
    seen = associate(rig, spoilt)["right"].mask.any(axis=-1)
    assert seen[:, [0, 2, 3]].all() and not seen[:, 1].any()


def test_missing_views(rig, truth):
    """Two views of four suffice; the rest stays missing."""
    spoilt = clean(truth)
    missing = []
    for t in range(N_FRAMES):
        for side, views in (("right", (t % 4, (t + 1) % 4)), ("left", ((t + 2) % 4,))):
            for v in views:
                spoilt[t][v] = [one for one in spoilt[t][v] if one.side != side]
                missing.append((t, v, side))
    assert_recovered(associate(rig, spoilt), truth, missing)


@pytest.mark.parametrize("side", ["right", "left"])
def test_one_hand_alone(rig, truth, side):
    only = {side: truth[side]}
    labels = associate(rig, clean(only))
    assert_recovered(labels, only)
    assert not labels["left" if side == "right" else "right"].mask.any()


def test_lone_view_is_kept_with_less_confidence_or_dropped(rig, truth):
    """Frame 5: one view only, next to frames that know the hand. Frame 6: a lone detection elsewhere in the image."""
    spoilt = clean({"right": truth["right"]})
    spoilt[5] = [spoilt[5][0], [], [], []]
    spoilt[6] = [[], [], [detect(spoilt[6][2][0].uv_px + 300, "right")], []]
    labels = associate(rig, spoilt)["right"]
    assert labels.mask[5].any(axis=-1).tolist() == [True, False, False, False]
    np.testing.assert_allclose(labels.confidence[5, 0], 0.8 * AssociateConfig().lone_confidence, rtol=1e-6)
    assert not labels.mask[6].any()


def test_partial_detections(rig, truth):
    """Joints that a detector leaves out stay missing and disturb nothing."""
    rng = np.random.default_rng(4)
    spoilt = clean(truth)
    dropped = rng.random((N_FRAMES, 4, 2, 21)) < 0.25
    for t in range(N_FRAMES):
        for v in range(4):
            for k, one in enumerate(spoilt[t][v]):
                gone = dropped[t, v, k]
                uv = np.where(gone[:, None], 0.0, one.uv_px)
                spoilt[t][v][k] = replace(one, uv_px=uv, confidence=np.where(gone, 0, one.confidence))
    labels = associate(rig, spoilt)
    for k, side in enumerate(("right", "left")):
        np.testing.assert_array_equal(labels[side].mask, ~dropped[:, :, k])


def test_noise_of_a_detector(rig, truth):
    """5 % of the hand's size, and a swapped pair of fingers: sides and views still come out right."""
    rng = np.random.default_rng(5)
    noisy = {side: uv + rng.normal(0, 0.05 * 110, uv.shape) for side, uv in truth.items()}
    swapped = noisy["right"][3, 1].copy()
    swapped[5:13] = noisy["right"][3, 1][[9, 10, 11, 12, 5, 6, 7, 8]]
    noisy["right"][3, 1] = swapped
    assert_recovered(associate(rig, clean(noisy)), noisy)


def test_mirrored_world_mirrors_the_sides(rig, truth):
    mirrored = {
        ("left" if side == "right" else "right"): np.stack([1279 - uv[..., 0], uv[..., 1]], -1)
        for side, uv in truth.items()
    }
    unsure = [[[replace(one, score=0.5) for one in view] for view in frame] for frame in clean(mirrored)]
    assert_recovered(associate(rig.mirrored(), unsure), mirrored)


def test_scale_of_the_rig_does_not_matter(rig, truth):
    """A rig in units of a fifth of a metre: nothing in the association knows millimetres."""
    scaled = Rig(tuple(replace(c, translation=c.translation * 5) for c in rig.cameras), metric=False)
    assert_recovered(associate(scaled, clean(truth)), truth)


def test_no_detections_give_no_labels(rig):
    labels = associate(rig, [[[], [], [], []]] * 3)
    assert not labels["right"].mask.any() and not labels["left"].mask.any()


@pytest.mark.parametrize("n_cameras", [2, 8])
def test_number_of_cameras(n_cameras):
    rig = ring_rig(n_cameras)
    truth = {side: exact_uv(rig, joints) for side, joints in moving_hands(6).items()}
    assert_recovered(associate(rig, clean(truth)), truth)


def test_chirality():
    right, left = chirality(np.stack([right_hand(), right_hand() * [-1, 1, 1]]))
    assert right > 0.2 and left == pytest.approx(-right)


def test_a_duplicate_is_never_a_second_hand(rig, truth):
    """Each view sees its right hand twice, by two crops that differ by 2 % of the hand, called right and left."""
    rng = np.random.default_rng(13)
    spoilt = clean(truth)
    for frame in spoilt:
        for view in frame:
            view.insert(0, replace(view[0], uv_px=view[0].uv_px + rng.normal(0, 2, (21, 2)), side="left"))
    labels = associate(rig, spoilt)
    assert list(labels) == ["right", "left"]
    np.testing.assert_allclose(labels["left"].uv_px, truth["left"], atol=1e-3)
    assert np.abs(labels["right"].uv_px - truth["right"]).max() < 12  # one of the two, six standard deviations at most


def test_hidden_hand_does_not_take_the_other_ones_duplicate(rig, truth):
    """The second view sees only the left hand, and twice: it must not be taken for the right hand behind it."""
    spoilt = clean(truth)
    for frame in spoilt:
        left = frame[1][1]
        frame[1] = [replace(left, side="right", uv_px=left.uv_px + 1.0), left]
    missing = [(t, 1, "right") for t in range(N_FRAMES)]
    seen = {side: one.mask.any(axis=-1) for side, one in associate(rig, spoilt).items()}
    assert seen["left"].all()
    assert not any(seen["right"][t, v] for t, v, _ in missing) and seen["right"][:, [0, 2, 3]].all()
