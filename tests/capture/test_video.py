"""Long captures: any frame exactly, without decoding all before it; counts that are remembered; paths kept small."""

from __future__ import annotations

import json
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from support.small_rig import make_rig
from usthand.capture import probe, video
from usthand.capture.capture import IMAGE_SUFFIXES, open_capture
from usthand.capture.frames import ImagePaths
from usthand.capture.probe import COUNTS
from usthand.capture.rig import save_rig
from usthand.capture.video import decode, frame_times

SIZE, COUNT = (64, 48), 150


def pictures():
    """Frames that differ, and move so that an encoder has reason for B-frames."""
    room = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)).resize((400, 300))
    )
    for t in range(COUNT):
        yield np.ascontiguousarray(room[t : t + SIZE[1], 2 * t : 2 * t + SIZE[0]])


def write(path, codec="libx264", times=None, **options) -> None:
    """A video with the encoder's own options; `times` gives each frame's, in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if times is not None else Fraction(1, 25)
        stream.options = {"threads": "1", **{name.replace("_", "-"): value for name, value in options.items()}}
        for t, image in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (t if times is None else int(times[t])), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


UNEVEN = np.cumsum(np.random.default_rng(1).integers(7, 90, COUNT))
VIDEOS = {
    "mp4, B-frames, odd groups": ("v.mp4", {"g": "37", "bf": "3"}, True),
    "mp4, no B-frames": ("v.mp4", {"g": "11", "bf": "0"}, True),
    "mp4, open groups": ("v.mp4", {"g": "23", "x264_params": "open-gop=1:bframes=4:b-pyramid=normal"}, True),
    "mp4, no key frame but the first": ("v.mp4", {"g": "1000", "sc_threshold": "0"}, True),
    "mp4, uneven times": ("v.mp4", {"g": "20", "bf": "2", "times": UNEVEN}, True),
    "mkv": ("v.mkv", {"g": "37", "bf": "3"}, True),
    "mkv, uneven times": ("v.mkv", {"g": "20", "times": UNEVEN}, True),
    "mp4, refreshed little by little": ("v.mp4", {"g": "30", "x264_params": "intra-refresh=1:bframes=0"}, None),
    "avi, B-frames without times": ("v.avi", {"g": "20", "bf": "2"}, False),
    "mov, MPEG-4": ("v.mov", {"codec": "mpeg4", "g": "12"}, True),
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_every_frame_is_the_one_that_decoding_from_the_beginning_gives(kind, tmp_path, monkeypatch):
    name, options, jumps = VIDEOS[kind]
    write(tmp_path / name, **options)
    whole = [picture.rgb() for _, picture in decode(tmp_path / name, 0, COUNT)]
    assert len(whole) == COUNT and len({image.tobytes() for image in whole}) == COUNT
    monkeypatch.setattr(video, "JUMP_FROM", 1)
    real, from_beginning = video._from_beginning, []
    monkeypatch.setattr(video, "_from_beginning", lambda *a: from_beginning.append(a) or real(*a))
    for start in (1, 2, 10, 36, 37, 38, 73, 74, 75, 99, 100, 120, 148, 149):
        found = list(decode(tmp_path / name, start, min(start + 9, COUNT)))
        assert [frame for frame, _ in found] == list(range(start, min(start + 9, COUNT)))
        assert all(np.array_equal(picture.rgb(), whole[frame]) for frame, picture in found), start
    if jumps is not None:  # there the fallback may have served; that the frames are right is what matters
        assert len(from_beginning) == (0 if jumps else 14)
    assert not list(decode(tmp_path / name, COUNT, COUNT + 5))


def test_a_jump_decodes_little(tmp_path, monkeypatch):
    write(tmp_path / "v.mp4", g="20", bf="2")
    monkeypatch.setattr(video, "JUMP_FROM", 1)
    decoded, real = [], av.container.InputContainer
    opened = video._open

    class Counting:
        def __init__(self, container):
            self.container = container

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.container.close()

        def __getattr__(self, name):
            return getattr(self.container, name)

        def decode(self, **kind):
            for picture in self.container.decode(**kind):
                decoded.append(picture.pts)
                yield picture

    monkeypatch.setattr(video, "_open", lambda *how: Counting(opened(*how)))
    assert isinstance(opened(tmp_path / "v.mp4", 0), real)
    assert [frame for frame, _ in decode(tmp_path / "v.mp4", 140, 141)] == [140]
    assert len(decoded) <= 20 + video.REORDER + 2  # a group, the distance aimed before, and the frame after the last


def test_where_times_are_doubled_or_wrong_decoding_begins_at_the_beginning(tmp_path, monkeypatch):
    write(tmp_path / "v.mp4", g="20", bf="0")
    whole = [picture.rgb() for _, picture in decode(tmp_path / "v.mp4", 0, COUNT)]
    right = frame_times(tmp_path / "v.mp4")
    monkeypatch.setattr(video, "JUMP_FROM", 1)
    lost, late = np.delete(right, 70), np.where(np.arange(COUNT) == 72, right + 1, right)
    for wrong in (None, late, lost):
        monkeypatch.setattr(video, "frame_times", lambda path, wrong=wrong: wrong)
        start = 71 if wrong is not lost else 60
        found = list(decode(tmp_path / "v.mp4", start, 90))
        assert [frame for frame, _ in found] == list(range(start, 90))
        assert all(np.array_equal(picture.rgb(), whole[frame]) for frame, picture in found)


def test_times_are_read_again_when_the_file_has_changed(tmp_path):
    write(tmp_path / "v.mp4")
    first = frame_times(tmp_path / "v.mp4")
    write(tmp_path / "v.mp4", times=UNEVEN)
    assert len(first) == COUNT and not np.array_equal(first, frame_times(tmp_path / "v.mp4"))


# ---- opening -------------------------------------------------------------------------------------------------------


def test_what_a_container_does_not_count_is_counted_once(tmp_path, monkeypatch):
    save_rig(make_rig(), tmp_path / "rig.toml")
    for name in "ab":
        write(tmp_path / f"{name}.mkv")
    counted, real = [], probe.count_packets
    monkeypatch.setattr(probe, "count_packets", lambda container: counted.append(1) or real(container))
    assert open_capture(tmp_path).n_frames == open_capture(tmp_path).n_frames == COUNT
    assert len(counted) == 2 and set(json.loads((tmp_path / COUNTS).read_text())) == {"a.mkv", "b.mkv"}
    status = (tmp_path / "b.mkv").stat()
    os.utime(tmp_path / "b.mkv", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert open_capture(tmp_path).n_frames == COUNT and len(counted) == 3
    for rubbish in ("{", "[]", '{"a.mkv": 3, "b.mkv": {"bytes": 1}}'):
        (tmp_path / COUNTS).write_text(rubbish)
        assert open_capture(tmp_path).n_frames == COUNT


def test_a_capture_that_may_not_be_written_to_opens_all_the_same(tmp_path, monkeypatch):
    save_rig(make_rig(), tmp_path / "rig.toml")
    for name in "ab":
        write(tmp_path / f"{name}.mkv")

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    assert open_capture(tmp_path).n_frames == COUNT and not (tmp_path / COUNTS).exists()


def test_mp4_and_avi_need_no_counting(tmp_path, monkeypatch):
    save_rig(make_rig(), tmp_path / "rig.toml")
    write(tmp_path / "a.mp4")
    write(tmp_path / "b.avi")
    monkeypatch.setattr(probe, "count_packets", None)
    assert open_capture(tmp_path).n_frames == COUNT and not (tmp_path / COUNTS).exists()


def test_image_paths_are_what_they_were_made_from(tmp_path):
    names = ["b/ü.png", "", "/elsewhere/c.jpg", "a.png", ""]
    paths = ImagePaths.of(tmp_path, names)
    assert list(paths) == [tmp_path / "b/ü.png", None, (tmp_path / "/elsewhere/c.jpg"), tmp_path / "a.png", None]
    assert paths.present.tolist() == [True, False, True, True, False]
    assert paths[-2] == tmp_path / "a.png" and len(paths) == 5 and paths
    for part in (slice(1, 4), slice(2, None), slice(None), slice(3, 3), slice(4, 2)):
        assert list(paths[part]) == list(paths)[part]
    with pytest.raises(IndexError):
        paths[5]
    assert not ImagePaths.of(tmp_path, [])


def test_images_of_a_folder_come_in_order_of_name(tmp_path):
    for name in ("10.png", "9.PNG", "ü.jpg", "z.jpeg", "A.webp", "notes.txt", "png"):
        (tmp_path / name).touch()
    expected = sorted(p for p in tmp_path.iterdir() if p.name not in ("notes.txt", "png"))
    assert list(ImagePaths.in_folder(tmp_path, IMAGE_SUFFIXES)) == expected and len(expected) == 5


def test_a_long_list_of_images_takes_little_more_than_its_names(tmp_path):
    import tracemalloc

    names = [f"{k:08d}.jpg" for k in range(20_000)]
    tracemalloc.start()
    paths = ImagePaths.of(tmp_path, names)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000 * (12 + 8) + 10_000 and len(paths) == 20_000  # a name, where it ends, and little else
