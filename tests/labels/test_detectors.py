"""The MediaPipe detector against a stand-in worker, the merging of two looks, and `detect_labels`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from usthand.capture.capture import open_capture
from usthand.capture.rig import Camera, Rig, save_rig
from usthand.capture.video import write_video
from usthand.common.errors import UsthandError
from usthand.geometry.cameras import project
from usthand.labels.association.associate import associate
from usthand.labels.detection import detect_labels
from usthand.labels.detectors import mediapipe as mediapipe_module
from usthand.labels.detectors.mediapipe import (
    PYTHON_VARIABLE,
    Look,
    MediaPipe,
    find_python,
    joint_confidence,
    merge_looks,
)
from usthand.labels.detectors.mediapipe_worker import read_exactly
from usthand.labels.labels import Detection, load_labels
from usthand.labels.quality import label_quality

FAKE_WORKER = """
import json, struct, sys
import numpy as np
header = struct.Struct("<IIB")
print(json.dumps({"ready": "fake"}), flush=True)
order = 0
while True:
    data = sys.stdin.buffer.read(header.size)
    if len(data) < header.size:
        break
    width, height, first = header.unpack(data)
    rgb = np.frombuffer(sys.stdin.buffer.read(width * height * 3), np.uint8).reshape(height, width, 3)
    order = 0 if first else order + 1
    if rgb.max() == 0:
        print("out of\\nmemory, said the worker.", file=sys.stderr)
        sys.exit(3)
    base = [[float(rgb[0, 0, 0]) + j, float(order) + 2 * j, 0.0] for j in range(21)]
    hand = {"pass": 0, "side": "right", "score": 0.9, "uvz_px": base}
    print(json.dumps([hand, {**hand, "pass": 1, "uvz_px": [[u + 1, v, z] for u, v, z in base]}]), flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    """A worker that says: a hand at (red of the first pixel, number of the frame); a black frame kills it."""
    worker = tmp_path / "worker.py"
    worker.write_text(FAKE_WORKER)
    monkeypatch.setattr(mediapipe_module, "WORKER", worker)
    return worker


def frame_of(red: int) -> np.ndarray:
    return np.full((6, 8, 3), red, np.uint8)


# ---- the process ---------------------------------------------------------------------------------------------------


def test_frames_reach_the_worker_and_hands_come_back(fake):
    with MediaPipe(sys.executable) as detector:
        for _ in range(2):  # the second video starts again at frame 0
            found = list(detector.detect(frame_of(red) for red in (10, 20, 30)))
            assert [len(hands) for hands in found] == [1, 1, 1]
            for order, (hands, red) in enumerate(zip(found, (10, 20, 30), strict=True)):
                np.testing.assert_allclose(hands[0].uv_px[3], [red + 3.5, order + 6])  # the mean of the two looks
                assert hands[0].side == "right" and hands[0].score == pytest.approx(0.9)
        process = detector._process
    assert process.poll() == 0


def test_detection_is_lazy(fake):
    taken = []

    def frames():
        for red in (1, 2, 3):
            taken.append(red)
            yield frame_of(red)

    with MediaPipe(sys.executable) as detector:
        hands = detector.detect(frames())
        next(hands)
        assert taken == [1]


def test_a_dead_worker_is_one_sentence(fake):
    detector = MediaPipe(sys.executable)
    with pytest.raises(UsthandError) as error:
        list(detector.detect([frame_of(5), frame_of(0), frame_of(5)]))
    detector.close()
    sentence = str(error.value)
    assert "ended before its work was done" in sentence and "memory, said the worker" in sentence
    assert "make detector" in sentence and "\n" not in sentence


def test_a_worker_that_never_starts(tmp_path, monkeypatch):
    with pytest.raises(UsthandError, match="cannot start"):
        MediaPipe(tmp_path / "no-python")
    broken = tmp_path / "worker.py"
    broken.write_text("import a_module_that_is_not_there")
    monkeypatch.setattr(mediapipe_module, "WORKER", broken)
    with pytest.raises(UsthandError, match="a_module_that_is_not_there"):
        MediaPipe(sys.executable)


def test_a_worker_that_talks_nonsense(tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text("print('hello', flush=True)")
    monkeypatch.setattr(mediapipe_module, "WORKER", worker)
    with pytest.raises(UsthandError, match="ended before its work was done"):
        MediaPipe(sys.executable)


def test_the_real_worker_imports_nothing_of_ours(tmp_path):
    """It runs where usthand is not installed: it fails for want of mediapipe, not of anything else, or is ready."""
    worker = tmp_path / "elsewhere.py"
    shutil.copy(mediapipe_module.WORKER, worker)
    code = (
        f"import sys; sys.modules['usthand'] = None; sys.argv = ['w', '0.3', '2']; exec(open({str(worker)!r}).read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code.replace("exec(", "__file__ = sys.argv[0]; exec(")], input=b"", capture_output=True
    )
    assert done.returncode == 0 or b"No module named 'mediapipe'" in done.stderr


def test_read_exactly(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(b"12345")
    with path.open("rb") as stream:
        assert read_exactly(stream, 3) == b"123"
        assert read_exactly(stream, 3) is None


# ---- which Python --------------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> Path:
    """No MediaPipe anywhere: an empty working folder, an empty prefix, no variable."""
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(mediapipe_module, "has_mediapipe", lambda: False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "install" / ".venv"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path


def python_in(folder: Path) -> Path:
    python = folder / ".venv-mediapipe" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return python


def test_no_mediapipe_names_the_command_that_fixes_it(nowhere):
    with pytest.raises(UsthandError) as error:
        find_python()
    assert "MediaPipe is not installed" in str(error.value) and "make detector" in str(error.value)


def test_places_are_searched_in_order(nowhere, monkeypatch):
    beside = python_in(nowhere / "install")
    assert find_python() == beside
    here = python_in(nowhere / "work")
    assert find_python() == here
    monkeypatch.setattr(mediapipe_module, "has_mediapipe", lambda: True)
    assert find_python() == Path(sys.executable)
    monkeypatch.setenv(PYTHON_VARIABLE, str(beside))
    assert find_python() == beside


def test_variable_that_names_nothing(nowhere, monkeypatch):
    monkeypatch.setenv(PYTHON_VARIABLE, str(nowhere / "gone"))
    with pytest.raises(UsthandError, match=rf"{PYTHON_VARIABLE} names .*gone"):
        find_python()


# ---- two looks -----------------------------------------------------------------------------------------------------


def look(shift: float = 0.0, side: str = "right", score: float = 0.9, depth: np.ndarray | None = None) -> Look:
    grid = np.stack([np.arange(21) % 5 * 20.0, np.arange(21) // 5 * 25.0], -1) + 100
    return Look(grid + np.array([shift, 0]), np.zeros(21) if depth is None else depth, side, score)


def test_two_looks_at_one_hand_are_averaged():
    (found,) = merge_looks([look(0)], [look(4)])
    np.testing.assert_allclose(found.uv_px, look(2).uv_px)


def test_looks_at_different_hands_stay_apart():
    found = merge_looks([look(0), look(400)], [look(401)])
    assert len(found) == 2
    np.testing.assert_allclose(found[0].uv_px, look(400.5).uv_px)
    np.testing.assert_allclose(found[1].uv_px, look(0).uv_px)


def test_disagreement_about_the_side_leaves_the_surer_one_and_little_certainty():
    (found,) = merge_looks([look(0, "right", 0.95)], [look(0, "left", 0.75)])
    assert found.side == "right" and found.score == pytest.approx((0.95 + 0.25) / 2)


def test_nothing_seen():
    assert merge_looks([], []) == []


def test_confidence_falls_with_spread_with_depth_and_edge_on():
    steady, shaky = joint_confidence(look(), np.full(21, 0.0)), joint_confidence(look(), np.full(21, 0.1))
    assert (steady > shaky).all()
    depth = np.linspace(-30, 30, 21)
    behind = joint_confidence(look(depth=depth), np.full(21, 0.02))
    fingers = behind[3:]
    assert (np.diff(fingers) <= 0).all() and fingers[0] > fingers[-1]
    flat = look()
    edge = Look(flat.uv_px * [0.05, 1], flat.z_px, flat.side, flat.score)
    assert (joint_confidence(edge, np.full(21, 0.02)) < joint_confidence(flat, np.full(21, 0.02))).all()
    for confidence in (steady, shaky, behind):
        assert (confidence > 0).all() and (confidence <= 1).all()


# ---- a capture -----------------------------------------------------------------------------------------------------


class Known:
    """A detector that knows where the hands are, one video after the other."""

    name = "known"

    def __init__(self, views: list[list[list[Detection]]]):
        self.views, self.closed = iter(views), False

    def detect(self, frames):
        for _, hands in zip(frames, next(self.views), strict=True):
            yield hands

    def close(self):
        self.closed = True


def hand_at(x: float, sign: float, n_frames: int = 5) -> np.ndarray:
    rng = np.random.default_rng(8)
    joints = rng.normal(0, 0.03, (21, 3))
    joints[0], joints[9] = [0, -0.09, 0], [0, 0, 0]
    return joints * [sign, 1, 1] + [x, 0, 0] + np.linspace(0, 0.02, n_frames)[:, None, None]


@pytest.fixture
def footage(tmp_path) -> tuple[Path, list[list[list[Detection]]]]:
    """A capture of three tiny videos, and the exact detections of two hands in it, per view and frame."""
    cameras = []
    for k, angle in enumerate((-0.8, 0.0, 0.8)):
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        matrix = np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])
        cameras.append(Camera(f"v{k}", 64, 48, matrix, np.zeros(5), "pinhole", rotation, np.array([0, 0, 0.7])))
    rig = Rig(tuple(cameras))
    save_rig(rig, tmp_path / "rig.toml")
    for camera in cameras:
        write_video(tmp_path / f"{camera.name}.mp4", [np.zeros((48, 64, 3), np.uint8)] * 5, fps=10)
    hands = {side: hand_at(x, sign) for side, x, sign in (("right", -0.1, 1), ("left", 0.1, -1))}
    uv = {side: project(rig.tensors(torch.float64), torch.from_numpy(p))[0].numpy() for side, p in hands.items()}
    views = [[[Detection(uv[s][t, v], np.ones(21), s, 0.95) for s in uv] for t in range(5)] for v in range(3)]
    return tmp_path, views


def test_detected_labels_are_written_and_reported(footage, capsys):
    folder, views = footage
    detector, told = Known(views), []
    written = detect_labels(open_capture(folder), detector, progress=lambda *state: told.append(state))
    assert detector.closed and list(written) == ["right", "left"] and not written.people
    assert told[0] == (1, 15, "detecting hands", "camera v0") and told[-1] == (5, 5, "telling hands apart")
    head, *rows = written.rows()
    assert "residual" in head[-2] and [row[0] for row in rows] == ["right", "left"]
    assert rows[0][1:] == ("100%", "100%", "100%", "0.0", "90.0 +- 0.0")
    for side in ("right", "left"):
        loaded = load_labels(open_capture(folder), side)
        np.testing.assert_array_equal(loaded.uv_px, written[side].uv_px)
        assert loaded.detector == "known" and loaded.mask.all()
        quality = label_quality(open_capture(folder).rig, loaded)
        assert quality.residual_px < 1e-3 and quality.two_view_share == 1.0
        assert quality.palm_mm == pytest.approx(90, abs=0.1) and quality.palm_spread_mm < 0.1
    assert capsys.readouterr().out == ""


def test_a_hand_that_is_not_there_is_not_written(footage):
    folder, views = footage
    alone = [[[one for one in hands if one.side == "right"] for hands in view] for view in views]
    assert list(detect_labels(open_capture(folder), Known(alone))) == ["right"]
    assert open_capture(folder).label_sides() == ("right",)


def test_nothing_is_written_over_unless_asked(footage):
    folder, views = footage
    detect_labels(open_capture(folder), Known(views))
    before = (folder / "labels" / "right.npz").read_bytes()
    with pytest.raises(UsthandError, match=r"exists.*--overwrite"):
        detect_labels(open_capture(folder), Known(views))
    assert (folder / "labels" / "right.npz").read_bytes() == before
    detect_labels(open_capture(folder), Known(views), overwrite=True)


def test_overwriting_leaves_no_labels_of_an_earlier_run(footage):
    folder, views = footage
    detect_labels(open_capture(folder), Known(views))
    alone = [[[one for one in hands if one.side == "left"] for hands in view] for view in views]
    detect_labels(open_capture(folder), Known(alone), overwrite=True)
    assert open_capture(folder).label_sides() == ("left",)


def test_people_that_a_detector_sees_get_a_file_each(footage):
    """Two people, four hands; made again with one of them there, no file of the other is left."""
    folder, views = footage
    rig = open_capture(folder).rig
    # The second person faces the first: turned by half a circle, 25 cm away.
    uv = {side: hand_at(x, sign) for side, x, sign in (("right", -0.1, 1), ("left", 0.1, -1))}
    turned = {
        side: project(rig.tensors(torch.float64), torch.from_numpy(p * [-1, 1, -1] + [0, 0, 0.25]))[0].numpy()
        for side, p in uv.items()
    }
    both = [
        [hands + [Detection(turned[s][t, v], np.ones(21), s, 0.95) for s in turned] for t, hands in enumerate(view)]
        for v, view in enumerate(views)
    ]
    written = detect_labels(open_capture(folder), Known(both), max_hands=4)
    assert open_capture(folder).label_hands() == ("right", "right-2", "left", "left-2")
    assert "4 hands" in written.people and "--side right-2" in written.people
    for hand in ("right-2", "left-2"):
        assert load_labels(open_capture(folder), hand).mask.all()
    with pytest.raises(UsthandError, match=r"exists.*--overwrite"):
        detect_labels(open_capture(folder), Known(both))
    detect_labels(open_capture(folder), Known(views), overwrite=True)
    assert open_capture(folder).label_hands() == ("right", "left")


def test_no_hand_at_all(footage):
    folder, views = footage
    nobody = [[[] for _ in view] for view in views]
    with pytest.raises(UsthandError, match="saw no hand in any image"):
        detect_labels(open_capture(folder), Known(nobody))
    one_view = [views[0], *nobody[1:]]
    with pytest.raises(UsthandError, match="saw 10 hands in single images"):
        detect_labels(open_capture(folder), Known(one_view))
    assert not (folder / "labels").exists()


def test_unknown_detector(footage):
    folder, _ = footage
    with pytest.raises(UsthandError, match="detector 'openpose' is unknown"):
        detect_labels(open_capture(folder), "openpose")


# ---- MediaPipe itself ----------------------------------------------------------------------------------------------


def mediapipe_python() -> Path | None:
    try:
        return find_python()
    except UsthandError:
        return None


@pytest.mark.slow
@pytest.mark.skipif(mediapipe_python() is None, reason="MediaPipe is not installed (`make detector`)")
def test_mediapipe_on_the_real_clip(shared_data, tmp_path):
    """Both hands in nine of ten frames of every camera; the views agree; the palm has a human length."""
    clip = shared_data / "webcams4"
    shutil.copy(clip / "config.toml", tmp_path / "rig.toml")
    for k in range(4):
        os.symlink(clip / f"cam_{k}.mp4", tmp_path / f"cam_{k}.mp4")
    capture = open_capture(tmp_path)
    with MediaPipe() as detector:
        views = [list(detector.detect(rgb for _, rgb in capture.read(name, 10, 26))) for name in capture.rig.names]
    labels = associate(capture.rig, list(zip(*views, strict=True)))
    for one in labels.values():
        assert (one.mask.any(axis=-1).mean(axis=0) > 0.9).all()
        quality = label_quality(capture.rig, one)
        assert quality.residual_px < 6
        assert 80 < quality.palm_mm < 105
