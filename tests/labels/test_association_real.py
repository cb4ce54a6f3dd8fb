"""Association of a real detector's hands, many of which are duplicates of the other hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from usthand.capture.rig import Rig, load_rig
from usthand.geometry.cameras import project
from usthand.geometry.triangulation import triangulate
from usthand.labels.association.associate import associate
from usthand.labels.formats import holistic_csv
from usthand.labels.labels import Detection, Labels

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
    """For hands (N, 21, 2) in two views: the median distance of a hand's joints from their two-view triangulation.

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
    """No view's two hands of a frame coincide, as hundreds of the detector's do; camera 2 has no false right hands."""
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
    """Its labels of either hand lie where the other cameras see that hand, and not where the other hand is."""
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
    """Nine in ten of the hands that can be confirmed: by another view's hand of either side, within 8 px.

    A duplicate counts once.
    """
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
