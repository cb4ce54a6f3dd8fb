"""usthand init: videos and a calibration become a capture, and whatever does not fit is told in one sentence."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from usthand.capture.capture import open_capture
from usthand.capture.create import CreateConfig, VideoSource, create_capture, list_videos, match_videos
from usthand.capture.rig import Camera, Rig, save_rig
from usthand.capture.video import write_video
from usthand.cli import main
from usthand.common.errors import UsthandError

SIZE = (64, 48)


def make_rig(names=("cam_0", "cam_1"), size=SIZE) -> Rig:
    matrix = np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]])
    shift = [np.array([0.1 * i, 0, 0.6]) for i in range(len(names))]
    return Rig(
        tuple(Camera(n, *size, matrix, np.zeros(5), "pinhole", np.eye(3), t) for n, t in zip(names, shift, strict=True))
    )


def film(path: Path, count: int = 6, size=SIZE, fps: float = 25) -> Path:
    """Frame k is of one grey level that tells its number."""
    write_video(path, (np.full((size[1], size[0], 3), 10 + 12 * k, np.uint8) for k in range(count)), fps)
    return path


@pytest.fixture
def raw(tmp_path) -> Path:
    """A folder of two videos beside their calibration."""
    (tmp_path / "raw").mkdir()
    for name in ("cam_0", "cam_1"):
        film(tmp_path / "raw" / f"{name}.mp4")
    save_rig(make_rig(), tmp_path / "raw" / "calibration.toml")
    return tmp_path / "raw"


def run(raw: Path, out: Path, *options: str) -> None:
    main(["init", str(raw), "--calibration", str(raw / "calibration.toml"), "--out", str(out), *options])


def fails(capsys, raw: Path, out: Path, *options: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(raw, out, *options)
    assert stopped.value.code == 1 and not out.exists(), "nothing is written when something does not fit"
    error = capsys.readouterr().err.strip()
    assert error.startswith("usthand: ") and len(error.splitlines()) == 1 and error.endswith(".")
    return error


def test_a_capture_is_made_and_said(raw, tmp_path, capsys):
    run(raw, tmp_path / "cap")
    said = capsys.readouterr().out
    assert "6 frames from 2 cameras, videos linked" in said and f"Next: usthand label {tmp_path / 'cap'}" in said
    assert "metres from the calibration." in said and "25, from the videos" in said
    capture = open_capture(tmp_path / "cap")
    assert capture.rig.names == ("cam_0", "cam_1") and capture.fps == 25 and capture.overlap is None
    assert (tmp_path / "cap" / "cam_0.mp4").is_symlink()
    assert os.path.samefile(tmp_path / "cap" / "cam_0.mp4", raw / "cam_0.mp4")


def test_copies_on_request_and_where_links_are_refused(raw, tmp_path, monkeypatch, capsys):
    run(raw, tmp_path / "copied", "--copy")
    assert not (tmp_path / "copied" / "cam_0.mp4").is_symlink() and "videos copied" in capsys.readouterr().out

    def refuse(*_args, **_kwargs):
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    run(raw, tmp_path / "fallen back")
    assert (tmp_path / "fallen back" / "cam_1.mp4").read_bytes() == (raw / "cam_1.mp4").read_bytes()
    assert "videos copied" in capsys.readouterr().out


def test_relative_paths_give_links_that_hold(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(raw.parent)
    create_capture(["raw"], "raw/calibration.toml", "deep/er/cap")
    monkeypatch.chdir(tmp_path / "deep")
    assert len(list(open_capture(tmp_path / "deep" / "er" / "cap").read("cam_1"))) == 6


def test_nothing_is_written_over(raw, tmp_path):
    (tmp_path / "cap").mkdir()
    (tmp_path / "cap" / "mine.txt").write_text("x")
    with pytest.raises(UsthandError, match="a capture is never written over"):
        create_capture(raw, raw / "calibration.toml", tmp_path / "cap")
    (tmp_path / "cap" / "mine.txt").unlink()
    create_capture(raw, raw / "calibration.toml", tmp_path / "cap")


def test_folders_of_images(raw, tmp_path, capsys):
    for name in ("cam_0", "cam_1"):
        (raw / f"{name}.mp4").unlink()
        (raw / name).mkdir()
        for k in range(4):
            Image.new("RGB", SIZE, (10 + k,) * 3).save(raw / name / f"color_{k:06d}.png")
    run(raw, tmp_path / "cap", "--fps", "12")
    capture = open_capture(tmp_path / "cap")
    assert capture.n_frames == 4 and capture.fps == 12 and "12, as given" in capsys.readouterr().out
    assert [int(image.mean()) for _, image in capture.read("cam_1")] == [10, 11, 12, 13]
    Image.new("L", SIZE).save(raw / "cam_0" / "depth_000000.png")
    assert "mixes images of several kinds (4 color_N.png, 1 depth_N.png)" in fails(capsys, raw, tmp_path / "other")


# ---- matching ------------------------------------------------------------------------------------------------------


def footage(*names: str) -> tuple[VideoSource, ...]:
    return tuple(VideoSource(Path("raw") / f"{name}.mp4", *SIZE, 6, 25.0) for name in names)


def matched(cameras, videos, **names) -> dict[str, str]:
    # A path that does not exist counts as a folder; its name is what matching sees.
    parts = [replace(part, path=part.path.with_suffix("")) for part in footage(*videos)]
    return {name: part.path.name for name, part in match_videos(cameras, parts, names).items()}


MATCHES = {
    "the same name": (("left", "right"), ("right", "left"), {"left": "left", "right": "right"}),
    "but for case": (("Left", "cam_2"), ("LEFT", "CAM_2"), {"Left": "LEFT", "cam_2": "CAM_2"}),
    "by number": (("cam_0", "cam_1"), ("Camera01", "Camera00"), {"cam_0": "Camera00", "cam_1": "Camera01"}),
    "by the number that tells apart": (
        ("cam_2", "cam_10"),
        ("2024-05-01_cam10", "2024-05-01_cam2"),
        {"cam_2": "2024-05-01_cam2", "cam_10": "2024-05-01_cam10"},
    ),
    "each in its own way": (
        ("left", "cam_1", "cam_2"),
        ("Left", "1", "v02"),
        {"left": "Left", "cam_1": "1", "cam_2": "v02"},
    ),
    "the same name before the number": (("1", "2"), ("2", "1"), {"1": "1", "2": "2"}),
}


@pytest.mark.parametrize("how", MATCHES)
def test_matching(how):
    cameras, videos, expected = MATCHES[how]
    assert matched(cameras, videos) == expected


LEFT_OVER = {
    "camera cam_1 has no video and the video cam_3 has no camera": (("cam_0", "cam_1"), ("cam_0", "cam_3")),
    "camera cam_2 has no video": (("cam_0", "cam_2"), ("cam_0",)),
    "video spare has no camera": (("cam_0",), ("cam_0", "spare")),
    "camera cam_0 has no video": (("cam_0", "cam_1"), ("a0", "b0")),  # both have the number 0: ambiguous
    "camera cam_00 has no video": (("cam_00", "cam_0"), ("v0", "v1")),
}


@pytest.mark.parametrize("fact", LEFT_OVER)
def test_what_is_left_over_is_told_with_both_sides(fact):
    cameras, videos = LEFT_OVER[fact]
    with pytest.raises(UsthandError, match=fact) as told:
        matched(cameras, videos)
    assert all(name in told.value.cause for name in (*cameras, *videos)) and "--names" in told.value.fix


def test_names_say_what_matching_cannot():
    cameras, videos = ("a", "b", "c"), ("x", "y")
    assert matched(cameras, videos, a="y", b="x", c="none") == {"a": "y", "b": "x"}
    for names, fact in (
        ({"d": "x"}, "speaks of a camera 'd'"),
        ({"a": "z"}, "a the video 'z'"),
        ({"a": "x", "b": "x"}, "b the video 'x'"),
    ):
        with pytest.raises(UsthandError, match=fact):
            matched(cameras, videos, **names)


def test_names_on_the_command_line(raw, tmp_path, capsys):
    (raw / "cam_0.mp4").rename(raw / "wide.mp4")
    (raw / "cam_1.mp4").rename(raw / "near.mp4")
    assert "--names cam_0=near.mp4" in fails(capsys, raw, tmp_path / "cap")
    for wrong in ("cam_0", "cam_0=", "=wide.mp4"):
        assert "is no pair" in fails(capsys, raw, tmp_path / "cap", "--names", wrong)
    assert "twice" in fails(capsys, raw, tmp_path / "cap", "--names", "cam_0=wide.mp4", "cam_0=near.mp4")
    run(raw, tmp_path / "cap", "--names", "cam_0=wide.mp4", "cam_1=near.mp4")
    assert os.path.samefile(tmp_path / "cap" / "cam_0.mp4", raw / "wide.mp4")


def test_a_camera_left_out_is_not_in_the_rig(raw, tmp_path):
    (raw / "cam_1.mp4").unlink()
    film(raw / "cam_2.mp4")
    save_rig(make_rig(("cam_0", "cam_1", "cam_2")), raw / "calibration.toml")
    config = CreateConfig(names={"cam_1": "none"})
    made = create_capture(raw, raw / "calibration.toml", tmp_path / "cap", config)
    assert made.capture.rig.names == ("cam_0", "cam_2")


@pytest.mark.parametrize("name", ["../cam_0", "a/b", ".."])
def test_a_name_that_leads_elsewhere(raw, tmp_path, name):
    save_rig(make_rig((name, "cam_1")), raw / "calibration.toml")
    with pytest.raises(UsthandError, match="cannot be a file's"):
        create_capture([raw], raw / "calibration.toml", tmp_path / "cap", CreateConfig(names={name: "cam_0"}))
    assert not (tmp_path / "cap").exists()


def test_videos_given_one_by_one(raw, tmp_path):
    film(raw / "calibration_board.mp4")
    with pytest.raises(UsthandError, match=r"calibration_board\.mp4 has no camera"):
        create_capture(raw, raw / "calibration.toml", tmp_path / "cap")
    create_capture([raw / "cam_0.mp4", raw / "cam_1.mp4"], raw / "calibration.toml", tmp_path / "cap")


# ---- offsets, sizes, rates -----------------------------------------------------------------------------------------


def test_videos_of_different_lengths_need_a_word(raw, tmp_path, capsys):
    film(raw / "cam_1.mp4", 9)
    assert "(cam_0 6, cam_1 9)" in (error := fails(capsys, raw, tmp_path / "cap")) and "--offset cam_0=0" in error
    run(raw, tmp_path / "cap", "--offset", "cam_0=0")
    assert "6 frames are shared by all cameras; outside are, of each camera, cam_1 3 after." in capsys.readouterr().out


def test_an_offset_is_kept_and_said(raw, tmp_path, capsys):
    """cam_1 started two frames late: its frame 0 is cam_0's frame 2."""
    run(raw, tmp_path / "cap", "--offset", "cam_1=2")
    assert "4 frames are shared" in (said := capsys.readouterr().out) and "cam_0 2 before, cam_1 2 after" in said
    capture = open_capture(tmp_path / "cap")
    first = {name: float(next(capture.read(name))[1].mean()) for name in capture.rig.names}
    assert abs(first["cam_0"] - (10 + 12 * 2)) < 5 and abs(first["cam_1"] - 10) < 5 and capture.n_frames == 4
    assert "how much later the camera started" in (tmp_path / "cap" / "capture.toml").read_text()
    for option, fact in (
        ("cam_1=x", "'x'"),
        ("cam_9=1", "offset for 'cam_9'"),
        ("cam_1=60", "no instant is in all videos"),
    ):
        assert fact in fails(capsys, raw, tmp_path / "other", "--offset", option)


def test_videos_of_another_size(raw, tmp_path, capsys):
    for size, hint in (((128, 96), "scale=64:48"), ((48, 64), "turned by 90 degrees"), ((64, 64), "another camera's")):
        film(raw / "cam_1.mp4", size=size)
        error = fails(capsys, raw, tmp_path / "cap")
        assert f"{size[0]}x{size[1]} px but camera cam_1 is calibrated at 64x48" in error and hint in error


def test_videos_of_different_rates(raw, tmp_path, capsys):
    film(raw / "cam_1.mp4", fps=30)
    assert "(cam_0 25, cam_1 30)" in fails(capsys, raw, tmp_path / "cap")
    assert "positive" in fails(capsys, raw, tmp_path / "cap", "--fps", "0")
    run(raw, tmp_path / "cap", "--fps", "25")


def test_videos_that_are_none(raw, tmp_path, capsys):
    (raw / "cam_1.mp4").write_bytes(b"no video")
    assert "cannot be decoded" in fails(capsys, raw, tmp_path / "cap")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsthandError, match="holds no video"):
        list_videos([tmp_path / "empty"])
    with pytest.raises(UsthandError, match="there is no"):
        list_videos([tmp_path / "nowhere"])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsthandError, match="is no video"):
        list_videos([tmp_path / "notes.txt"])


# ---- calibrations that need their videos ---------------------------------------------------------------------------


def test_sizes_come_from_the_videos_and_scale_from_the_user(raw, tmp_path, capsys):
    """EasyMocap says neither."""
    rows = {"K": "80, 0, 32, 0, 80, 24, 0, 0, 1", "dist": "0, 0, 0, 0, 0", "R": "0, 0, 0", "T": "1, 0, 6"}
    shapes = {"K": (3, 3), "dist": (1, 5), "R": (3, 1), "T": (3, 1)}
    for file, keys in (("intri.yml", ("K", "dist")), ("extri.yml", ("R", "T"))):
        text = '%YAML:1.0\n---\nnames:\n  - "0"\n  - "1"\n'
        for name in "01":
            for key in keys:
                r, c = shapes[key]
                text += f"{key}_{name}: !!opencv-matrix\n  rows: {r}\n  cols: {c}\n  dt: d\n  data: [{rows[key]}]\n"
        (raw / file).write_text(text)
    main(["init", str(raw), "--calibration", str(raw), "--out", str(tmp_path / "a"), "--format", "easymocap"])
    said = capsys.readouterr().out
    assert "EasyMocap files do not say" in said and "the hand's own size gives the scale" in said
    rig = open_capture(tmp_path / "a").rig
    assert rig.names == ("0", "1") and not rig.metric and (rig.cameras[0].width, rig.cameras[0].height) == SIZE
    main(["init", str(raw), "--calibration", str(raw), "--out", str(tmp_path / "b"), "--scale", "0.1"])
    rig = open_capture(tmp_path / "b").rig
    assert (
        rig.metric
        and "0.1 m for each unit" in rig.unit_source
        and np.allclose(rig.cameras[0].translation, [0.1, 0, 0.6])
    )


def test_the_real_clip(shared_data, tmp_path):
    folder = shared_data / "webcams4"
    made = create_capture([folder], folder / "config.toml", tmp_path / "hands")
    assert made.capture.n_frames == 111 and made.capture.fps == 6 and made.capture.rig.metric
