"""Association: exact projections of two hands, spoilt the way a detector spoils them, are sorted out exactly."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from support.hands_in_views import N_FRAMES, detect, exact_uv, moving_hands, people, right_hand, ring_rig
from usthand.capture.rig import Rig, load_rig
from usthand.geometry.cameras import project
from usthand.geometry.triangulation import triangulate
from usthand.labels.association.associate import AssociateConfig, associate, chirality
from usthand.labels.formats import holistic_csv
from usthand.labels.labels import Detection, Labels


@pytest.fixture(scope="module")
def rig() -> Rig:
    return ring_rig()


@pytest.fixture(scope="module")
def truth(rig) -> dict[str, np.ndarray]:
    return {side: exact_uv(rig, joints) for side, joints in moving_hands().items()}


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


def test_wrong_sides_are_mended(rig, truth):
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
    assert chirality(right_hand()) > 0.2
    assert chirality(right_hand() * [-1, 1, 1]) == pytest.approx(-chirality(right_hand()))


# ---- several people ------------------------------------------------------------------------------------------------


def seen_by(rig: Rig, hands: dict[str, np.ndarray]) -> list[list[list[Detection]]]:
    """Exact detections of all hands, in an order of their own in every view and frame."""
    rng = np.random.default_rng(11)
    uv = {name: exact_uv(rig, joints) for name, joints in hands.items()}
    n_frames = len(next(iter(hands.values())))
    return [
        [[detect(uv[name][t, v], name.split()[0]) for name in rng.permutation(list(uv))] for v in range(len(rig))]
        for t in range(n_frames)
    ]


def whose(labels: dict[str, Labels], rig: Rig, hands: dict[str, np.ndarray]) -> dict[str, set[str]]:
    """For each file of labels, the hands whose exact projection its labels are; "nobody" for others.

    Within 10 px in the mean over the joints: of the most noise that a test adds (3.6 px) it is 2.9 px, give or take 0.3.
    """
    uv = {name: exact_uv(rig, joints) for name, joints in hands.items()}
    found = {}
    for key, one in labels.items():
        found[key] = set()
        for t, v in np.argwhere(one.mask.any(axis=-1)):
            gaps = {name: np.abs(one.uv_px[t, v] - true[t, v])[one.mask[t, v]].mean() for name, true in uv.items()}
            nearest = min(gaps, key=gaps.__getitem__)
            found[key].add(nearest if gaps[nearest] < 10 else "nobody")
    return found


def assert_told_apart(labels: dict[str, Labels], rig: Rig, hands: dict[str, np.ndarray], least: float = 1.0) -> None:
    """A file for each hand and side, each of one hand throughout, with at least this share of its labels."""
    owners = whose(labels, rig, hands)
    assert all(len(owner) == 1 for owner in owners.values()), owners
    assert sorted(o for owner in owners.values() for o in owner) == sorted(hands)
    for key, owner in owners.items():
        assert labels[key].side == key.split("-")[0] == next(iter(owner)).split()[0]
        assert labels[key].mask.any(axis=-1).mean() >= least, key


def test_two_people_have_four_hands(rig):
    labels = associate(rig, seen_by(rig, people()))
    assert list(labels) == ["right", "right-2", "left", "left-2"]
    assert_told_apart(labels, rig, people())


def test_three_hands(rig):
    hands = people()
    del hands["left of 1"]
    labels = associate(rig, seen_by(rig, hands))
    assert list(labels) == ["right", "right-2", "left"]
    assert_told_apart(labels, rig, hands)


def test_two_right_hands(rig):
    """Never more than two hands at once, and yet two people's; there is no left hand."""
    hands = {name: joints for name, joints in people().items() if name.startswith("right")}
    labels = associate(rig, seen_by(rig, hands))
    assert list(labels) == ["right", "right-2", "left"] and not labels.pop("left").mask.any()
    assert_told_apart(labels, rig, hands)


def test_three_people(rig):
    hands = people(places=((-0.3, 0.0), (0.0, 0.05), (0.3, 0.0)))
    assert_told_apart(associate(rig, seen_by(rig, hands)), rig, hands)


def test_the_main_hand_is_the_most_seen(rig):
    """The first person's right hand is there in the first half only."""
    detections, hands = seen_by(rig, people()), people()
    uv = exact_uv(rig, hands["right of 0"])
    for t in range(N_FRAMES // 2, N_FRAMES):
        for v in range(4):
            detections[t][v] = [one for one in detections[t][v] if not np.array_equal(one.uv_px, uv[t, v])]
    labels = associate(rig, detections)
    assert whose(labels, rig, hands)["right"] == {"right of 1"}
    assert whose(labels, rig, hands)["right-2"] == {"right of 0"}
    assert labels["right-2"].mask.any(axis=(1, 2)).sum() == N_FRAMES // 2


@pytest.mark.parametrize("seed", [0, 8])
def test_people_whose_detections_are_spoilt(rig, seed):
    """Noise, wrong sides, duplicates, inventions and missed hands at once: no file holds two people's hands."""
    rng, n_frames = np.random.default_rng(seed), 40
    hands = people(n_frames)
    detections = seen_by(rig, hands)
    for t in range(n_frames):
        for v in range(4):
            kept = [
                replace(one, uv_px=one.uv_px + rng.normal(0, 3, (21, 2)))
                for one in detections[t][v]
                if rng.random() > 0.2
            ]
            swapped = [
                replace(one, side="left" if one.side == "right" else "right") if rng.random() < 0.2 else one
                for one in kept
            ]
            again = [
                replace(one, uv_px=one.uv_px + rng.normal(0, 2, (21, 2)), score=0.6)
                for one in swapped
                if rng.random() < 0.3
            ]
            corners = rng.uniform([100, 60], [1100, 600], (rng.integers(0, 3), 1, 2))
            invented = [detect(corner + rng.uniform(0, 110, (21, 2)), "right", 0.95) for corner in corners]
            detections[t][v] = [*again, *swapped, *invented]
    assert_told_apart(associate(rig, detections), rig, hands, least=0.7)


def test_hands_that_pass_each_other_keep_their_names(rig):
    """Two right hands swap places, 6 cm apart as they meet."""
    t = np.linspace(-1, 1, 40)
    hands = {
        f"right of {k}": right_hand()
        + np.stack([sign * 0.15 * t, np.full(40, sign * 0.03), np.full(40, 0.01)], -1)[:, None]
        for k, sign in ((0, 1.0), (1, -1.0))
    }
    labels = associate(rig, seen_by(rig, hands))
    assert not labels.pop("left").mask.any()
    assert_told_apart(labels, rig, hands, least=0.9)


def test_a_gap_does_not_let_a_track_jump_to_another_person(rig):
    """One right hand leaves; another, 40 cm away, comes three frames later: two tracks, beside a third that stays."""
    hands = {
        name: joints
        for name, joints in people(30, ((-0.3, 0.0), (0.3, 0.0), (0.0, 0.1))).items()
        if name.startswith("right")
    }
    detections = seen_by(rig, hands)
    for name, gone in (("right of 0", range(13, 30)), ("right of 1", range(16))):
        uv = exact_uv(rig, hands[name])
        for t in gone:
            for v in range(4):
                detections[t][v] = [one for one in detections[t][v] if not np.array_equal(one.uv_px, uv[t, v])]
    labels = associate(rig, detections)
    assert not labels.pop("left").mask.any()
    assert_told_apart(labels, rig, hands, least=0.4)


def test_one_person_only_on_request(rig):
    """With max_hands=2 there are two files, however many hands are there."""
    labels = associate(rig, seen_by(rig, people()), AssociateConfig(max_hands=2))
    assert list(labels) == ["right", "left"]


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


# ---- real detections -----------------------------------------------------------------------------------------------

AGREE_PX = 8.0
COINCIDE = 0.12  # sizes of the hand


@pytest.fixture(scope="module")
def holistic(shared_data) -> tuple[Rig, list[list[list[Detection]]]]:
    """Four calibrated cameras and what MediaPipe Holistic saw in them, 267 instants.

    Seen from cameras 0 to 2 one hand often hides the other, and both crops of the detector then find the same hand: in
    camera 2 nine of ten "right" hands are the left one once more. Camera 3 sees both.
    """
    rig = load_rig(shared_data / "holistic4" / "config.toml")
    views = holistic_csv.read(shared_data / "holistic4" / "xy_HOLISTIC.csv", rig.names)
    return rig, [[views[name].get(t, []) for name in rig.names] for t in range(267)]


@pytest.fixture(scope="module")
def told_apart(holistic) -> dict[str, Labels]:
    return associate(*holistic)


def as_given(rig: Rig, detections: list[list[list[Detection]]], side: str) -> Labels:
    """Labels that believe the detector's sides."""
    uv, confidence = np.zeros((len(detections), len(rig), 21, 2)), np.zeros((len(detections), len(rig), 21))
    for t, frame in enumerate(detections):
        for v, view in enumerate(frame):
            for one in view:
                if one.side == side:
                    uv[t, v], confidence[t, v] = one.uv_px, one.confidence
    return Labels(uv, confidence, rig.names, side, "holistic")


def pair_residuals_px(rig: Rig, one: np.ndarray, other: np.ndarray, views: tuple[int, int]) -> np.ndarray:
    """For hands (N, 21, 2) in two views: the median distance of a hand's joints from where two-view triangulation puts them.

    Joints that one of the two lacks (zero) take no part; infinite if fewer than eight are left.
    """
    cameras = Rig(tuple(rig.cameras[v] for v in views)).tensors(torch.float64)
    both = (one != 0).any(axis=-1) & (other != 0).any(axis=-1)
    uv = torch.from_numpy(np.stack([one, other], axis=1).astype(float))
    points = triangulate(cameras, uv, torch.from_numpy(np.repeat(both[:, None], 2, axis=1).astype(float)))
    distance = (project(cameras, points)[0] - uv).norm(dim=-1).numpy()
    distance = np.where(both[:, None], distance, np.nan).reshape(len(one), -1)
    enough = both.sum(axis=-1) >= 8
    median = np.full(len(one), np.inf)
    median[enough] = np.nanmedian(distance[enough], axis=1)
    return median


def pair_medians_px(rig: Rig, labels: Labels) -> dict[tuple[int, int], float]:
    """The median over all frames that two views share, of every pair of views."""
    seen = labels.mask.any(axis=-1)
    pairs = {pair: seen[:, pair[0]] & seen[:, pair[1]] for pair in combinations(range(len(rig)), 2)}
    return {
        (a, b): float(np.median(pair_residuals_px(rig, labels.uv_px[both, a], labels.uv_px[both, b], (a, b))))
        for (a, b), both in pairs.items()
        if both.any()
    }


def coincide(one: np.ndarray, other: np.ndarray) -> bool:
    both = (one != 0).any(axis=-1) & (other != 0).any(axis=-1)
    if both.sum() < 8:
        return False
    gap = np.linalg.norm(one - other, axis=-1)[both].mean()
    return gap < COINCIDE * min(np.ptp(hand[both], axis=0).max() for hand in (one, other))


def test_real_views_disagree_as_given(holistic):
    """What is to be fixed: camera 2 contradicts the others, and so does camera 0 on the left hand."""
    rig, detections = holistic
    right, left = (pair_medians_px(rig, as_given(rig, detections, side)) for side in ("right", "left"))
    assert min(right[0, 2], right[1, 2], right[2, 3], left[0, 2], left[0, 3]) > AGREE_PX


def test_real_views_agree_once_told_apart(holistic, told_apart):
    """Every pair of cameras, of either hand, agrees within 8 px in the median."""
    rig, _ = holistic
    assert list(told_apart) == ["right", "left"]  # one person
    for labels in told_apart.values():
        medians = pair_medians_px(rig, labels)
        assert len(medians) == 6 and max(medians.values()) <= AGREE_PX, medians


def test_no_real_duplicate_is_kept(holistic, told_apart):
    """No view's two hands of a frame coincide, where the detector's do in hundreds; camera 2's false right hands are gone."""
    _, detections = holistic
    given = [
        (t, v)
        for t, f in enumerate(detections)
        for v, view in enumerate(f)
        if len(view) == 2 and coincide(*(d.uv_px for d in view))
    ]
    right, left = told_apart["right"], told_apart["left"]
    both = right.mask.any(axis=-1) & left.mask.any(axis=-1)
    kept = [(t, v) for t, v in np.argwhere(both) if coincide(right.uv_px[t, v], left.uv_px[t, v])]
    assert len(given) > 300 and not kept
    false = [t for t, v in given if v == 2]
    still = right.mask[:, 2].any(axis=-1)
    assert len(false) > 150 and still[false].mean() < 0.1


def test_camera_two_sees_the_hands_that_the_others_place(holistic, told_apart):
    """Its labels of either hand lie where the other cameras' labels of that hand put it, and not where the other hand is."""
    rig, _ = holistic
    for side, other in (("right", "left"), ("left", "right")):
        labels, wrong = told_apart[side], told_apart[other]
        for v in (0, 1, 3):
            own = labels.mask[:, 2].any(axis=-1) & labels.mask[:, v].any(axis=-1)
            rival = own & wrong.mask[:, v].any(axis=-1)
            if rival.sum() < 10:
                continue
            right = pair_residuals_px(rig, labels.uv_px[rival, 2], labels.uv_px[rival, v], (2, v))
            false = pair_residuals_px(rig, labels.uv_px[rival, 2], wrong.uv_px[rival, v], (2, v))
            assert np.median(right) < AGREE_PX and np.mean(right < false) > 0.8


def test_most_real_hands_are_kept(holistic, told_apart):
    """Of the hands that can be confirmed, nine in ten: a duplicate counts once, and a hand without any other view's hand
    that agrees with it within 8 px, of whatever side, not at all."""
    rig, detections = holistic
    pairs: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for t, frame in enumerate(detections):
        for a, b in combinations(range(len(rig)), 2):
            pairs.setdefault((a, b), []).extend((t, i, j) for i in range(len(frame[a])) for j in range(len(frame[b])))
    confirmed = set()
    for (a, b), entries in pairs.items():
        one, other = (
            np.stack([detections[t][v][(i, j)[k]].uv_px for t, i, j in entries]) for k, v in enumerate((a, b))
        )
        for (t, i, j), residual in zip(entries, pair_residuals_px(rig, one, other, (a, b)), strict=True):
            if residual <= AGREE_PX:
                confirmed |= {(t, a, i), (t, b, j)}
    distinct = 0
    for t, frame in enumerate(detections):
        for v, view in enumerate(frame):
            own = [i for i in range(len(view)) if (t, v, i) in confirmed]
            distinct += len(own) - (len(own) == 2 and coincide(view[0].uv_px, view[1].uv_px))
    kept = sum(int(labels.mask.any(axis=-1).sum()) for labels in told_apart.values())
    print(f"{kept} labels kept of {distinct} distinct hands that another view confirms")
    assert kept >= 0.9 * distinct
