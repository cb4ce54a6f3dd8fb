"""Association of the hands of several people: each hand gets a file of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.hands_in_views import N_FRAMES, detect, exact_uv, people, right_hand
from usthand.capture.rig import Rig
from usthand.labels.association.associate import associate
from usthand.labels.association.candidates import AssociateConfig
from usthand.labels.labels import Detection, Labels


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

    Within 10 px in the mean over the joints: the most noise that a test adds (3.6 px) makes it 2.9 +- 0.3 px.
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
