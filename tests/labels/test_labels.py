"""Labels: round trips, alignment with a rig, and every complaint in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from support.label_files import told
from support.type_checks import unchecked
from usthand.common.errors import UsthandError
from usthand.labels.labels import Labels, hand_side, hand_size_px, load_labels, load_npz

NAMES = ("front", "left_of_me", "top")


@pytest.fixture
def labels() -> Labels:
    """Five frames of three views, one hand missing in one of them and one joint in another."""
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.1, 1, (5, 3, 21))
    confidence[1, 2] = 0
    confidence[3, 0, 4] = 0
    return Labels(rng.uniform(0, 600, (5, 3, 21, 2)), confidence, NAMES, "right", "test")


def capture_of(folder: Path, names: tuple[str, ...] = NAMES, n_frames: int = 5) -> SimpleNamespace:
    """What `load_labels` needs of a capture."""
    return SimpleNamespace(
        path=folder,
        rig=SimpleNamespace(names=names),
        n_frames=n_frames,
        present=np.ones((n_frames, len(names)), bool),
        labels_path=lambda side: folder / "labels" / f"{side}.npz",
    )


def same(a: Labels, b: Labels) -> bool:
    return (
        np.array_equal(a.uv_px, b.uv_px)
        and np.array_equal(a.confidence, b.confidence)
        and (a.cameras, a.side, a.detector) == (b.cameras, b.side, b.detector)
    )


# ---- in memory -----------------------------------------------------------------------------------------------------


def test_missing_joints_are_zero(labels):
    assert (labels.uv_px[~labels.mask] == 0).all()
    assert labels.mask.sum() == 5 * 3 * 21 - 21 - 1
    assert labels.uv_px.dtype == labels.confidence.dtype == np.float32


def test_mirroring_twice_is_nothing_and_once_is_the_other_side(labels):
    widths = [640, 800, 1280]
    once = labels.mirrored(widths)
    assert once.side == "left"
    u, mirrored_u = labels.uv_px[0, 1, 3, 0], once.uv_px[0, 1, 3, 0]
    assert mirrored_u == pytest.approx(800 - 1 - u, abs=1e-3)
    assert (once.uv_px[~once.mask] == 0).all()
    np.testing.assert_allclose(once.mirrored(widths).uv_px, labels.uv_px, atol=2e-4)  # float32 at 1e3 px


def test_aligned_labels_have_the_views_asked_for(labels):
    """Known views move; a view that the labels do not know has no label, and none of another view's positions."""
    aligned = labels.aligned(["new", "top", "front"])
    assert aligned.cameras == ("new", "top", "front") and not aligned.mask[:, 0].any() and not aligned.uv_px[:, 0].any()
    assert same(aligned.subset(["front", "top"]), labels.subset(["front", "top"]))


def test_subset_and_without_go_by_name(labels):
    assert same(labels.subset(["top", "front"]).subset(["front"]), labels.subset(["front"]))
    assert labels.without("front").cameras == ("left_of_me", "top")
    with pytest.raises(UsthandError) as error:
        labels.without("back")
    told(error, "back", "front, left_of_me, top")


def test_nan_is_refused_with_its_place(labels):
    uv = labels.uv_px.copy()
    uv[2, 1, 7, 0] = np.nan
    with pytest.raises(UsthandError) as error:
        replace(labels, uv_px=uv)
    told(error, "NaN", "frame 2", "left_of_me")


@pytest.mark.parametrize("shape", [(5, 3, 20, 2), (5, 2, 21, 2), (3, 21, 2)])
def test_wrong_shape_is_refused(labels, shape):
    with unchecked(), pytest.raises(UsthandError) as error:
        replace(labels, uv_px=np.zeros(shape))
    told(error, "shape", str(shape))


def test_unknown_side_is_refused(labels):
    with pytest.raises(UsthandError) as error:
        replace(labels, side="both")
    told(error, "both")


# ---- on disk -------------------------------------------------------------------------------------------------------


def test_npz_round_trip(labels, tmp_path):
    path = tmp_path / "labels" / "right.npz"
    labels.save(path)
    assert same(load_npz(path), labels)


# ---- with a capture ------------------------------------------------------------------------------------------------


def test_labels_follow_the_rig_by_name(labels, tmp_path):
    capture = capture_of(tmp_path, ("top", "back", "front", "left_of_me"))
    labels.save(capture.labels_path("right"))
    loaded = load_labels(capture, "right")
    assert loaded.cameras == capture.rig.names
    assert not loaded.mask[:, 1].any()
    assert same(loaded.subset(NAMES), labels)


def test_missing_file(tmp_path):
    with pytest.raises(UsthandError) as error:
        load_labels(capture_of(tmp_path), "left")
    told(error, "left.npz", f"usthand label {tmp_path}")


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "foreign", "single array"])
def test_broken_file(labels, tmp_path, kind):
    capture = capture_of(tmp_path)
    path = capture.labels_path("right")
    labels.save(path)
    if kind == "foreign":
        np.savez(path, something_else=np.zeros(3))
    elif kind == "single array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes({"empty": b"", "text": b"not a zip", "truncated": path.read_bytes()[:900]}[kind])
    with pytest.raises(UsthandError) as error:
        load_labels(capture, "right")
    told(error, "right.npz", "not a label file")


def test_file_of_another_version(labels, tmp_path):
    path = tmp_path / "labels" / "right.npz"
    labels.save(path)
    fields = dict(np.load(path))
    np.savez(path, **{**fields, "version": 99})
    with pytest.raises(UsthandError) as error:
        load_npz(path)
    told(error, "version 99")


def test_nan_on_disk(labels, tmp_path):
    capture = capture_of(tmp_path)
    path = capture.labels_path("right")
    labels.save(path)
    fields = dict(np.load(path))
    fields["uv_px"][4, 2, 0] = np.inf
    np.savez(path, **fields)
    with pytest.raises(UsthandError) as error:
        load_labels(capture, "right")
    told(error, "right.npz", "NaN or infinity", "frame 4")


def test_camera_that_the_rig_lacks(labels, tmp_path):
    capture = capture_of(tmp_path, ("front", "top"))
    labels.save(capture.labels_path("right"))
    with pytest.raises(UsthandError) as error:
        load_labels(capture, "right")
    told(error, "left_of_me", "front, top")


def test_other_number_of_frames(labels, tmp_path):
    capture = capture_of(tmp_path, n_frames=7)
    labels.save(capture.labels_path("right"))
    with pytest.raises(UsthandError) as error:
        load_labels(capture, "right")
    told(error, "5 frames", "have 7")


@pytest.mark.parametrize(("views", "words"), [((), ("no label in any frame",)), ((1,), ("one view only", "left"))])
def test_too_little_to_triangulate(labels, tmp_path, views, words):
    capture = capture_of(tmp_path)
    confidence = np.zeros_like(labels.confidence)
    confidence[:, list(views)] = 1
    replace(labels, confidence=confidence).save(capture.labels_path("right"))
    with pytest.raises(UsthandError) as error:
        load_labels(capture, "right")
    told(error, *words)


def test_a_further_hand_of_several_people(labels, tmp_path):
    capture = capture_of(tmp_path)
    labels.save(capture.labels_path("right-2"))
    assert same(load_labels(capture, "right-2"), labels)
    replace(labels, side="left").save(capture.labels_path("right-3"))
    with pytest.raises(UsthandError) as error:
        load_labels(capture, "right-3")
    told(error, "left hand")


@pytest.mark.parametrize("name", ["both", "right-1", "right-02", "left-", "right-two", "../right"])
def test_no_name_of_a_hand(name):
    assert [hand_side(good) for good in ("right", "left-2", "right-12")] == ["right", "left", "right"]
    with pytest.raises(UsthandError) as error:
        hand_side(name)
    told(error, name, "right-2")


def test_file_of_the_other_hand(labels, tmp_path):
    capture = capture_of(tmp_path)
    labels.save(capture.labels_path("left"))
    with pytest.raises(UsthandError) as error:
        load_labels(capture, "left")
    told(error, "right hand")


def test_hand_size_is_steady_and_survives_missing_views(labels):
    box = np.array([[0.0, 0.0], [100.0, 60.0]])
    uv = np.tile(box[np.arange(21) % 2], (5, 3, 1, 1))
    uv[2] *= 0.3  # a fist: the size is the sequence's, not the frame's
    confidence = np.ones((5, 3, 21))
    confidence[:, 1] = 0
    size = hand_size_px(replace(labels, uv_px=uv, confidence=confidence))
    np.testing.assert_allclose(size, 100.0)
