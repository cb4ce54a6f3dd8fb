"""From a recording to a capture folder, and the numbers that give a misread data set away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.stand_in import exact_labels, make_rig, make_truth
from usthand.capture.capture import ImageRef, open_capture
from usthand.common.errors import UsthandError
from usthand.datasets.base import HandData, Recording, as_labels, check_recording, write_recording
from usthand.datasets.importing import report_lines
from usthand.evaluation.truth import Truth, load_truth
from usthand.labels.labels import load_labels

T, V = 12, 3


@pytest.fixture
def truth():
    made = make_truth(np.random.default_rng(2))
    return replace(made, visible=np.ones((T, V, 21), bool))


@pytest.fixture
def recording(truth, tmp_path):
    rig = make_rig()
    (tmp_path / "images").mkdir()
    paths = [[tmp_path / "images" / f"{name} {t}.png" for name in rig.names] for t in range(T)]
    Image.new("RGB", (640, 480), (9, 9, 9)).save(paths[0][0])
    Image.new("RGB", (64, 48), (90, 90, 90)).save(paths[1][0])
    images = [list(row) for row in paths]
    images[1][0] = ImageRef(paths[1][0], 10.25, 1 / 3, 2.0)
    images[5][2] = None
    hands = (
        HandData("right", exact_labels(truth, rig), truth),
        HandData("left", None, truth, exact_labels(truth, rig, "left")),
    )
    return Recording("seq 1", rig, 12.5, tuple(map(tuple, images)), hands, "hanco", "hamuco", "test")


def test_a_recording_becomes_a_capture(recording, tmp_path, truth):
    capture = open_capture(write_recording(recording, tmp_path / "out"))
    assert capture.path == tmp_path / "out" / "seq 1" and capture.fps == 12.5
    assert (capture.dataset, capture.protocol, capture.split) == ("hanco", "hamuco", "test")
    assert (capture.present == recording.present).all() and not capture.present[5, 2]
    assert capture.sources[0].placements[:2] == (None, (10.25, 1 / 3, 2.0)) and capture.sources[1].placements == ()
    first, second = (image for _, image in capture.read("a", 0, 2))
    assert (first == 9).all() and second[:2].max() == 90 and second[120:].max() == 0
    for camera, other in zip(capture.rig.cameras, recording.rig.cameras, strict=True):
        np.testing.assert_array_equal(camera.matrix, other.matrix)
    assert capture.label_sides() == ("right",)
    labels = load_labels(capture, "right")
    assert (labels.mask.all(-1) == recording.present).all()
    for side in ("right", "left"):
        np.testing.assert_array_equal(load_truth(capture.path, side).joints_world_m, truth.joints_world_m)
    assert {p.suffix for p in capture.path.iterdir() if p.is_file()} == {".toml", ".txt"}  # no image was copied


def test_relative_roots_stay_valid(recording, tmp_path, monkeypatch):
    """Images found by way of a relative path are listed by their absolute one."""
    monkeypatch.chdir(tmp_path)
    rows = [[Path("images/a 0.png")] + [None] * (V - 1)] + [[None] * V] * (T - 1)
    folder = write_recording(replace(recording, images=tuple(map(tuple, rows))), Path("out"))
    monkeypatch.chdir("/")
    assert next(open_capture(tmp_path / folder).read("a"))[1].max() == 9


def test_annotation_becomes_labels_only_by_name(recording, tmp_path):
    both = open_capture(write_recording(as_labels(recording), tmp_path))
    assert both.label_sides() == ("left",)
    with pytest.raises(UsthandError, match="no annotated 2D joints"):
        as_labels(replace(recording, hands=recording.hands[:1]))


def test_the_numbers_of_the_check(recording, truth):
    found = check_recording(recording)
    palm = 1000 * np.median(np.linalg.norm(truth.joints_world_m[:, 5] - truth.joints_world_m[:, 17], axis=-1))
    for side in ("right", "left"):
        assert found[side]["residual_px"] < 1e-3 and found[side]["truth_px"] < 1e-3
        assert found[side]["palm_mm"] == pytest.approx(palm) and found[side]["frames"] == T
    lines = report_lines(recording)
    assert lines[0].startswith("seq 1  right: 12 of 12 frames, 2-3 views, residual 0 px, truth 0 px, palm ")
    assert len(lines) == 2 and "left" in lines[1]


def wrong(recording, **changes):
    hand = recording.hands[0]
    return check_recording(replace(recording, hands=(replace(hand, truth=replace(hand.truth, **changes)),)))["right"]


def test_what_each_number_catches(recording, truth):
    joints = truth.joints_world_m
    assert wrong(recording, joints_world_m=joints * 1000)["truth_px"] > 50
    assert wrong(recording, joints_world_m=joints * 1000)["palm_mm"] > 1000
    assert wrong(recording, joints_world_m=joints[:, ::-1])["truth_px"] > 5
    assert wrong(recording, joints_world_m=np.roll(joints, 1, 0) + 0.02)["truth_px"] > 5
    cameras = recording.rig.cameras
    swapped = replace(
        recording.rig,
        cameras=tuple(
            replace(c, rotation=o.rotation, translation=o.translation)
            for c, o in zip(cameras, (*cameras[1:], cameras[0]), strict=True)
        ),
    )
    assert check_recording(replace(recording, rig=swapped))["right"]["residual_px"] > 5


def test_what_a_data_set_lacks_is_none(recording, truth):
    def check(hand):
        return check_recording(replace(recording, hands=(hand,)))["right"]

    no_2d = check(HandData("right", truth=truth))
    assert no_2d["residual_px"] is None and no_2d["truth_px"] is None and no_2d["palm_mm"] and no_2d["inside"] > 0.5
    no_truth = check(HandData("right", recording.hands[0].labels))
    assert no_truth["truth_px"] is None and no_truth["inside"] is None and no_truth["residual_px"] is not None
    assert no_truth["palm_mm"] == pytest.approx(no_2d["palm_mm"], abs=1e-2)
    gaps = replace(
        truth, joints_world_m=truth.joints_world_m * (np.arange(T) < 3)[:, None, None], valid=np.arange(T) < 3
    )
    assert check(HandData("right", truth=gaps)) == {
        **no_2d,
        "frames": 3,
        "palm_mm": pytest.approx(no_2d["palm_mm"]),
        "inside": pytest.approx(no_2d["inside"], abs=0.2),
    }
    nothing = check(HandData("right"))
    assert nothing == {"frames": 0, "residual_px": None, "truth_px": None, "inside": None, "palm_mm": None}
    assert "residual -, truth -, palm -" in report_lines(replace(recording, hands=(HandData("right"),)))[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": ()}, "has no frame"),
        ({"name": "a/b"}, "no folder's"),
        ({"images": ((None,),) * T}, "another number of images than the 3 cameras"),
        ({"hands": ()}, "no hand"),
        ({"hands": (HandData("right"), HandData("right"))}, "one side twice"),
        ({"hands": (HandData("both"),)}, "side 'both'"),
    ],
)
def test_recordings_that_contradict_themselves(recording, tmp_path, changes, told):
    with pytest.raises(UsthandError, match=told):
        write_recording(replace(recording, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arrays_of_other_lengths(recording, tmp_path, truth):
    short = Truth.of_joints(truth.joints_world_m[:4], truth.visible[:4])
    with pytest.raises(UsthandError, match="has truth of shape"):
        write_recording(replace(recording, hands=(HandData("right", truth=short),)), tmp_path)
    with pytest.raises(UsthandError, match="has labels of 12 frames, 3 cameras and a right hand"):
        write_recording(replace(recording, hands=(HandData("left", recording.hands[0].labels),)), tmp_path)


def test_a_failed_write_leaves_nothing(recording, tmp_path):
    images = (((tmp_path / "a\tb.png"), *recording.images[0][1:]), *recording.images[1:])
    with pytest.raises(UsthandError, match="tab or line break"):
        write_recording(replace(recording, images=images), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    write_recording(recording, tmp_path / "out")
    with pytest.raises(UsthandError, match="exists"):
        write_recording(recording, tmp_path / "out")
