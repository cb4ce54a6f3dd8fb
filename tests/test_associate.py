"""Association: exact projections of two hands, spoilt the way a detector spoils them, are sorted out exactly."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from usthand.associate import AssociateConfig, associate, chirality
from usthand.geometry import project, triangulate
from usthand.labels import Detection, Labels
from usthand.rig import Camera, Rig, load_rig

N_FRAMES = 12


def right_hand() -> np.ndarray:
    """A half-curled right hand, (21, 3) metres: fingers along y, palm facing z, thumb at positive x."""
    joints = [np.zeros(3)]
    for x, length, lean in (
        (0.03, 0.6, 0.9),
        (0.025, 1.0, 0.2),
        (0.005, 1.05, 0.0),
        (-0.015, 1.0, -0.1),
        (-0.03, 0.8, -0.2),
    ):
        base = np.array([x, 0.03 if lean > 0.5 else 0.09, 0.005])
        steps = np.array([0.0, 0.04, 0.065, 0.085]) * length
        bend = np.array([0.0, 0.2, 0.5, 0.8])
        joints += [base + s * np.array([lean, np.cos(b), np.sin(b)]) for s, b in zip(steps, bend, strict=True)]
    return np.array(joints)


def ring_rig(n_cameras: int = 4) -> Rig:
    """Cameras on an arc of radius 0.8 m that look at the origin."""
    cameras = []
    for k in range(n_cameras):
        angle = (k / max(n_cameras - 1, 1) - 0.5) * 2.0
        centre = 0.8 * np.array([np.sin(angle), 0.3 * np.cos(3 * angle), np.cos(angle)])
        z = -centre / np.linalg.norm(centre)
        x = np.cross([0, -1.0, 0], z)
        x /= np.linalg.norm(x)
        rotation = np.stack([x, np.cross(z, x), z])
        matrix = np.array([[900.0, 0, 640], [0, 900, 360], [0, 0, 1]])
        lens = np.array([0.1, -0.05, 0.001, 0.001, 0.0])
        cameras.append(Camera(f"c{k}", 1280, 720, matrix, lens, "pinhole", rotation, -rotation @ centre))
    return Rig(tuple(cameras))


def moving_hands(n_frames: int = N_FRAMES) -> dict[str, np.ndarray]:
    """Both hands turning and drifting, (T, 21, 3) each, about 20 cm apart."""
    t = np.linspace(0, 1, n_frames)
    hands = {}
    for side, sign in (("right", 1.0), ("left", -1.0)):
        joints = right_hand() * [sign, 1, 1]
        turn = sign * 0.8 * np.sin(2 * np.pi * t)
        c, s, o, i = np.cos(turn), np.sin(turn), np.zeros_like(turn), np.ones_like(turn)
        rotation = np.stack([np.stack([c, o, s], -1), np.stack([o, i, o], -1), np.stack([-s, o, c], -1)], -2)
        place = np.stack([-sign * 0.10 + 0.03 * t, -0.05 + 0.04 * np.sin(5 * t), 0.02 * t], -1)
        hands[side] = np.einsum("tij,kj->tki", rotation, joints) + place[:, None]
    return hands


def exact_uv(rig: Rig, joints: np.ndarray) -> np.ndarray:
    return project(rig.tensors(torch.float64), torch.from_numpy(joints))[0].numpy()


def detect(uv: np.ndarray, side: str, score: float = 0.9) -> Detection:
    return Detection(uv, np.full(21, 0.8), side, score)


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


# ---- several people -------------------------------------------------------------------------------------------------


def people(n_frames: int = N_FRAMES, places=((-0.16, 0.0), (0.16, 0.1))) -> dict[str, np.ndarray]:
    """Four hands: the two of `moving_hands` at each place (x, z), the second person turned by half a circle."""
    hands = {}
    for k, (x, z) in enumerate(places):
        turn = np.diag([-1.0, 1.0, -1.0]) if k % 2 else np.eye(3)
        for side, joints in moving_hands(n_frames).items():
            hands[f"{side} of {k}"] = joints @ turn.T + [x, 0.0, z]
    return hands


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

    Within 16 px, six standard deviations of the most noise that a test adds; two hands are further apart in some joint.
    """
    uv = {name: exact_uv(rig, joints) for name, joints in hands.items()}
    found = {}
    for key, one in labels.items():
        found[key] = set()
        for t, v in np.argwhere(one.mask.any(axis=-1)):
            gaps = {name: np.abs(one.uv_px[t, v] - true[t, v])[one.mask[t, v]].max() for name, true in uv.items()}
            nearest = min(gaps, key=gaps.__getitem__)
            found[key].add(nearest if gaps[nearest] < 16 else "nobody")
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


def test_people_whose_detections_are_spoilt(rig):
    """Noise, wrong sides, duplicates, inventions and missed hands at once: no file holds two people's hands."""
    rng = np.random.default_rng(12)
    hands, n_frames = people(24), 24
    detections = seen_by(rig, hands)
    for t in range(n_frames):
        for v in range(4):
            kept = [replace(one, uv_px=one.uv_px + rng.normal(0, 1.5, (21, 2))) for one in detections[t][v] if rng.random() > 0.15]
            swapped = [replace(one, side="left" if one.side == "right" else "right") if rng.random() < 0.2 else one for one in kept]
            again = [replace(one, uv_px=one.uv_px + rng.normal(0, 2.0, (21, 2)), score=0.6) for one in swapped if rng.random() < 0.3]
            invented = [detect(rng.uniform([100, 60], [1100, 600]) + rng.uniform(0, 110, (21, 2)), "right", 0.95)]
            detections[t][v] = [*again, *swapped, *invented]
    assert_told_apart(associate(rig, detections), rig, hands, least=0.7)


def test_hands_that_pass_each_other_keep_their_names(rig):
    """Two right hands swap places, 6 cm apart as they meet."""
    t = np.linspace(-1, 1, 40)
    hands = {
        f"right of {k}": right_hand() + np.stack([sign * 0.15 * t, np.full(40, sign * 0.03), np.full(40, 0.01)], -1)[:, None]
        for k, sign in ((0, 1.0), (1, -1.0))
    }
    labels = associate(rig, seen_by(rig, hands))
    assert not labels.pop("left").mask.any()
    assert_told_apart(labels, rig, hands, least=0.9)


def test_a_gap_does_not_let_a_track_jump_to_another_person(rig):
    """One right hand leaves; another, 40 cm away, comes three frames later: two tracks, beside a third that stays."""
    hands = {name: joints for name, joints in people(30, ((-0.3, 0.0), (0.3, 0.0), (0.0, 0.1))).items() if name.startswith("right")}
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


# ---- real detections ------------------------------------------------------------------------------------------------


def holistic_detections(folder: Path, n_instants: int) -> list[list[list[Detection]]]:
    """Hands of MediaPipe Holistic from four cameras: points 100 to 120 are called right, 200 to 220 left."""
    hands: dict[tuple[int, int, str], dict[int, tuple[float, float]]] = {}
    with (folder / "xy_HOLISTIC.csv").open() as file:
        for row in csv.DictReader(file):
            point = int(row["point_id"])
            if 100 <= point <= 120 or 200 <= point <= 220:
                key = (int(row["sync_index"]), int(row["port"]), "right" if point < 200 else "left")
                hands.setdefault(key, {})[point % 100] = (float(row["img_loc_x"]), float(row["img_loc_y"]))
    whole = {key: np.array([hand[j] for j in range(21)]) for key, hand in hands.items() if len(hand) == 21}
    instants = sorted({key[0] for key in whole})[:: max(1, len({k[0] for k in whole}) // n_instants)]
    return [
        [[detect(whole[t, v, s], s, 0.7) for s in ("right", "left") if (t, v, s) in whole] for v in range(4)]
        for t in instants
    ]


def as_given(rig: Rig, detections: list[list[list[Detection]]], side: str) -> Labels:
    """Labels that believe the detector's sides."""
    uv, confidence = np.zeros((len(detections), len(rig), 21, 2)), np.zeros((len(detections), len(rig), 21))
    for t, frame in enumerate(detections):
        for v, view in enumerate(frame):
            for one in view:
                if one.side == side:
                    uv[t, v], confidence[t, v] = one.uv_px, one.confidence
    return Labels(uv, confidence, rig.names, side, "holistic")


def residuals_px(rig: Rig, labels: Labels) -> np.ndarray:
    """Distances of all labels from the projection of what plain triangulation makes of them."""
    cameras, uv = rig.tensors(torch.float64), torch.from_numpy(labels.uv_px.astype(float))
    points = triangulate(cameras, uv, torch.from_numpy(labels.mask.astype(float)))
    distance = (project(cameras, points)[0] - uv).norm(dim=-1).numpy()
    return distance[labels.mask & (labels.mask.sum(axis=1, keepdims=True) >= 2)]


def test_real_detections_agree_after_association(shared_data):
    """Detections with duplicates and swapped sides: 23 px median as given, below 8 px once associated."""
    folder = shared_data / "holistic4"
    rig = load_rig(folder / "config.toml")
    detections = holistic_detections(folder, 60)
    given = [as_given(rig, detections, side) for side in ("right", "left")]
    kept = associate(rig, detections)
    before = np.concatenate([residuals_px(rig, labels) for labels in given])
    after = np.concatenate([residuals_px(rig, labels) for labels in kept.values()])
    assert np.median(before) > 15
    assert np.median(after) < 8
    assert np.percentile(after, 90) < np.percentile(before, 90) / 2
    assert len(after) > 0.5 * len(before)
