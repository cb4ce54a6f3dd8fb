"""Captures: lazily read, exactly addressed, and every fault told in one sentence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from usthand.capture import Truth, load_truth, open_capture, save_truth, write_video
from usthand.errors import UserError
from usthand.rig import Camera, Rig, save_rig

SIZE = (64, 48)


def make_rig(names=("a", "b"), size=SIZE) -> Rig:
    matrix = np.array([[80.0, 0, size[0] / 2], [0, 80, size[1] / 2], [0, 0, 1]])
    return Rig(
        tuple(
            Camera(name, *size, matrix, np.zeros(5), "pinhole", np.eye(3), np.array([0.1 * i, 0, 0.6]))
            for i, name in enumerate(names)
        )
    )


def frames(count: int, size=SIZE):
    """Frame k is of one grey level that tells its number."""
    for k in range(count):
        yield np.full((size[1], size[0], 3), 10 + 12 * k, np.uint8)


@pytest.fixture
def folder(tmp_path):
    save_rig(make_rig(), tmp_path / "rig.toml")
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", frames(12), 25)
    return tmp_path


def test_frames_come_in_order_with_their_number(folder):
    capture = open_capture(folder)
    assert capture.n_frames == 12 and capture.fps == 25
    for frame, image in capture.read("b", 3, 9):
        # The limited range of yuv420p and the codec round a grey level by a few steps; a frame is 12 apart.
        assert abs(float(image.mean()) - (10 + 12 * frame)) < 5 and image.shape == (48, 64, 3)
    assert [frame for frame, _ in capture.read("b", 3, 9)] == [3, 4, 5, 6, 7, 8]
    assert [frame for frame, _ in capture.read("a", 10)] == [10, 11]


def test_videos_do_not_depend_on_what_else_is_being_written(tmp_path):
    """The same moving frames, alone and beside other encoders: the same bytes."""
    rng = np.random.default_rng(0)
    room = rng.integers(0, 255, (96, 120, 3))
    films = [
        [np.roll(room, (t * speed, t), (0, 1))[:, :96].astype(np.uint8) for t in range(48)] for speed in (0, 1, 2)
    ]

    def write(name, film):
        write_video(tmp_path / name, film, 30)
        return (tmp_path / name).read_bytes()

    alone = [write("alone.mp4", film) for film in films]
    with ThreadPoolExecutor(len(films)) as pool:
        for _ in range(4):
            assert list(pool.map(write, ("0.mp4", "1.mp4", "2.mp4"), films)) == alone


def test_reading_is_lazy(folder, monkeypatch):
    """The generator decodes no frame before it is asked, and stops where its reader stops."""
    decoded = []
    from usthand import capture as module

    real = module._decode

    def counting(source, start, stop):
        for item in real(source, start, stop):
            decoded.append(1)
            yield item

    monkeypatch.setattr(module, "_decode", counting)
    reader = open_capture(folder).read("a")
    assert not decoded
    next(reader)
    assert len(decoded) == 1


def test_a_folder_of_images_is_a_camera_too(folder):
    (folder / "a.mp4").unlink()
    (folder / "a").mkdir()
    for k, image in enumerate(frames(12)):
        Image.fromarray(image).save(folder / "a" / f"{k:04d}.png")
    capture = open_capture(folder)
    assert [int(image.mean()) for _, image in capture.read("a", 2, 4)] == [34, 46]


def test_fps_from_capture_toml(folder):
    (folder / "capture.toml").write_text("fps = 12.5\n")
    assert open_capture(folder).fps == 12.5
    (folder / "capture.toml").write_text("fsp = 12.5\n")
    with pytest.raises(UserError, match="unknown key 'fsp'"):
        open_capture(folder)


def test_a_missing_camera(folder):
    (folder / "b.mp4").unlink()
    with pytest.raises(UserError, match="camera 'b' of the rig has no video"):
        open_capture(folder)


def test_a_video_of_another_size(folder):
    write_video(folder / "b.mp4", frames(12, (32, 48)), 25)
    with pytest.raises(UserError, match="32x48 px but the rig says 64x48"):
        open_capture(folder)


def test_videos_of_different_lengths(folder):
    write_video(folder / "b.mp4", frames(9), 25)
    with pytest.raises(UserError, match=r"a 12, b 9.*--offset a=0"):
        open_capture(folder)


@pytest.mark.parametrize(
    "offsets, firsts, count",
    [({"a": 0}, (0, 0), 9), ({"b": 2}, (2, 0), 9), ({"b": -4}, (0, 4), 5), ({"a": 5, "b": 9}, (4, 0), 8)],
)
def test_offsets_make_frame_k_one_instant(folder, offsets, firsts, count):
    """a has 12 frames and b 9; a camera with offset n started n frames late."""
    write_video(folder / "b.mp4", frames(9), 25)
    (folder / "capture.toml").write_text("[offset]\n" + "".join(f"{k} = {v}\n" for k, v in offsets.items()))
    capture = open_capture(folder)
    assert capture.n_frames == count
    for camera, first in zip(("a", "b"), firsts, strict=True):
        seen = [(k, float(image.mean())) for k, image in capture.read(camera, 1, 4)]
        assert [k for k, _ in seen] == [1, 2, 3]
        assert all(abs(grey - (10 + 12 * (k + first))) < 5 for k, grey in seen)
        assert len(list(capture.read(camera))) == count
    outside = {name: first + (length - first - count) for name, first, length in zip("ab", firsts, (12, 9), strict=True)}
    assert {name: sum(n) for name, n in capture.overlap.outside.items()} == {k: n for k, n in outside.items() if n}
    assert f"{count} frames are shared" in str(capture.overlap)


def test_offsets_of_images(folder):
    (folder / "a.mp4").unlink()
    (folder / "a").mkdir()
    for k, image in enumerate(frames(14)):
        Image.fromarray(image).save(folder / "a" / f"{k:04d}.png")
    (folder / "capture.toml").write_text("[offset]\nb = 2\n")
    capture = open_capture(folder)
    assert capture.n_frames == 12 and str(capture.overlap).endswith("of each camera, a 2 before.")
    assert [int(image.mean()) for _, image in capture.read("a", 0, 2)] == [34, 46]


@pytest.mark.parametrize(
    "line, fact",
    [("b = 40", "no instant is in all videos"), ("c = 1", "offset for 'c'"), ("b = 1.5", "the offset 1.5 for b")],
)
def test_impossible_offsets(folder, line, fact):
    (folder / "capture.toml").write_text(f"[offset]\n{line}\n")
    with pytest.raises(UserError, match=fact):
        open_capture(folder)
    (folder / "capture.toml").write_text("offset = 3\n")
    with pytest.raises(UserError, match="no table"):
        open_capture(folder)


def test_a_truncated_video(folder):
    whole = (folder / "b.mp4").read_bytes()
    (folder / "b.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="truncated or damaged"):
        list(open_capture(folder).read("b"))


def test_a_stream_that_ends_early(folder, monkeypatch):
    from usthand import capture as module

    opened = open_capture(folder)
    real = module._decode
    monkeypatch.setattr(module, "_decode", lambda source, start, stop: real(source, start, 7))
    with pytest.raises(UserError, match="ends at frame 6 of 12"):
        list(opened.read("a"))


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        open_capture(tmp_path / "nothing")


def test_truth_is_kept_apart_and_comes_back_exactly(folder):
    rng = np.random.default_rng(0)
    truth = Truth(
        rng.normal(size=(2, 21, 3)), rng.normal(size=(2, 778, 3)), rng.random((2, 2, 21)) < 0.5,
        rng.normal(size=(2, 48)), rng.normal(size=10), rng.normal(size=(2, 3)),
    )  # fmt: skip
    assert load_truth(folder, "right") is None
    save_truth(folder, "right", truth)
    back = load_truth(folder, "right")
    assert all((getattr(back, name) == getattr(truth, name)).all() for name in vars(truth))
    assert not any("truth" in name for name in vars(open_capture(folder)))


def test_the_real_clip_opens(shared_data, tmp_path):
    import shutil

    for k in range(4):
        shutil.copy(shared_data / "webcams4" / f"cam_{k}.mp4", tmp_path)
    shutil.copy(shared_data / "webcams4" / "config.toml", tmp_path / "rig.toml")
    capture = open_capture(tmp_path)
    assert capture.n_frames == 111 and capture.fps == 6
    assert next(capture.read("cam_3"))[1].shape == (720, 1280, 3)
