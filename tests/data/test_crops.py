"""Crops: cut from a frame's planes as if from its RGB image, in order, wherever the frames come from."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from usthand.capture.capture import open_capture
from usthand.capture.frames import VideoPicture, planes_of
from usthand.capture.resample import resize_square
from usthand.capture.rig import Camera, Rig, save_rig
from usthand.capture.video import write_video
from usthand.common.errors import UsthandError
from usthand.data import crops as crops_module
from usthand.data.crops import Crops, cut_crop, read_crops

SIZE = (160, 120)


def scene(rng: np.random.Generator, size=SIZE, low=60, high=190) -> np.ndarray:
    """Smooth colours of a middling strength: none that RGB cannot hold."""
    coarse = rng.uniform(low, high, (8, 10, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.BICUBIC)).clip(low, high)


def plain_crop(image: np.ndarray, x: int, y: int, side: int, out: int) -> np.ndarray:
    """An independent way: Pillow's crop, black outside, and its bilinear filter."""
    cut = Image.fromarray(image).crop((x, y, x + side, y + side))
    return np.asarray(cut.resize((out, out), Image.BILINEAR)).astype(int)


SQUARES = [
    (30, 20, 64),
    (31, 21, 63),
    (-20, 40, 70),
    (120, 90, 55),
    (-30, -30, 240),
    (150, -40, 60),
    (3, 5, 24),
    (40, 30, 41),
]


@pytest.mark.parametrize("x, y, side", SQUARES)
def test_a_scaled_square_of_rgb_is_pillows(x, y, side):
    """Pillow rounds between its two passes and ours does not: half a level, hence one after the last rounding."""
    image = np.random.default_rng(1).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    out = np.empty((41, 41, 3), np.uint8)
    resize_square(planes_of(image), x, y, side, out)
    assert np.abs(out - plain_crop(image, x, y, side, 41)).max() <= 1


def test_a_mirrored_square_is_the_square_of_the_mirrored_image():
    image = np.random.default_rng(2).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    for x, y, side in SQUARES:
        ours, plain = np.empty((2, 40, 40, 3), np.uint8)
        cut_crop(planes_of(image), np.array([x, y]), side, True, ours)
        cut_crop(planes_of(np.ascontiguousarray(image[:, ::-1])), np.array([x, y]), side, False, plain)
        assert np.abs(ours.astype(int) - plain).max() <= 1  # sums in another order


def encoded(image: np.ndarray, name: str, space: int, limits: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format=name, dst_colorspace=space, dst_color_range=limits
    )
    frame.colorspace, frame.color_range = space, limits
    return frame


@pytest.mark.parametrize("name", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("space", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("limits", [1, 2])
def test_a_crop_from_planes_is_the_crop_of_the_rgb_image(name, space, limits):
    """In colours that RGB holds, the two ways differ by rounding alone.

    The converter to RGB truncates each of three products, by one level or less; Pillow rounds twice, by half a level.
    That makes 4 at the worst, 2 in the mean. A wrong matrix or range would be 10 and more.
    """
    if name == "yuvj420p" and limits == 1:
        pytest.skip("this format has the full range by its name")
    rng = np.random.default_rng(3)
    picture = VideoPicture(encoded(scene(rng), name, space, limits))
    plain = picture.rgb()
    for x, y, side in SQUARES:
        out = np.empty((41, 41, 3), np.uint8)
        resize_square(picture.planes(), x, y, side, out)
        error = np.abs(out - plain_crop(plain, x, y, side, 41))
        assert error.max() <= 4 and error.mean() < 2, (x, y, side)


def test_chroma_stands_where_the_converter_puts_it():
    """At a coloured edge, a crop at its own size equals the RGB image on both sides, at odd places too."""
    image = np.full((48, 64, 3), (90, 110, 130), np.uint8)
    image[:, 31:], image[20:] = (150, 100, 90), (120, 140, 100)
    picture = VideoPicture(encoded(image, "yuv420p", 1, 1))
    out = np.empty((16, 16, 3), np.uint8)
    for x in range(20, 28):
        resize_square(picture.planes(), x, x - 9, 16, out)
        assert np.abs(out.astype(int) - picture.rgb()[x - 9 : x + 7, x : x + 16]).max() <= 3


# ---- from a capture ------------------------------------------------------------------------------------------------


def film(count: int, seed: int):
    rng = np.random.default_rng(seed)
    room = scene(rng, (260, 220))
    for t in range(count):
        yield np.ascontiguousarray(room[t % 90 : t % 90 + SIZE[1], (2 * t) % 90 : (2 * t) % 90 + SIZE[0]])


def write_rig(folder, names) -> None:
    matrix = np.array([[200.0, 0, 80], [0, 200, 60], [0, 0, 1]])
    save_rig(
        Rig(
            tuple(
                Camera(n, *SIZE, matrix, np.zeros(5), "pinhole", np.eye(3), np.array([0.1 * i, 0, 1]))
                for i, n in enumerate(names)
            )
        ),
        folder / "rig.toml",
    )


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Two videos and a folder of images, 150 frames: more than two blocks."""
    folder = tmp_path_factory.mktemp("capture")
    write_rig(folder, "abc")
    for seed, name in enumerate("ab"):
        write_video(folder / f"{name}.mp4", film(150, seed), 30)
    (folder / "c").mkdir()
    for t, image in enumerate(film(150, 2)):
        Image.fromarray(image).save(folder / "c" / f"{t:04d}.png")
    return open_capture(folder)


@pytest.fixture(scope="module")
def crops():
    rng = np.random.default_rng(5)
    corner = rng.integers(-60, 130, (150, 3, 2)).astype(float)
    side, mask = rng.integers(24, 120, (150, 3)).astype(float), rng.random((150, 3)) < 0.8
    return Crops(corner, side, mask, np.zeros((150, 3, 21, 2)), np.zeros((150, 3)))


@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_of_a_capture_are_those_of_its_frames(capture, crops, mirrored):
    """Each against the plain way: the whole frame to RGB, mirrored, cropped and scaled by Pillow."""
    blocks = list(read_crops(capture, ("a", "b", "c"), crops, 32, mirrored))
    assert [first for first, _ in blocks] == list(np.cumsum([0, *(len(b) for _, b in blocks[:-1])]))
    images = np.concatenate([block for _, block in blocks])
    assert images.shape == (150, 3, 32, 32, 3)
    for view, name in enumerate("abc"):
        for frame, image in capture.read(name):
            image = np.ascontiguousarray(image[:, ::-1] if mirrored else image)
            side, (x, y) = int(crops.side_px[frame, view]), crops.corner_px[frame, view].astype(int)
            plain = plain_crop(image, x, y, side, 32) if crops.view_mask[frame, view] else np.zeros((32, 32, 3))
            assert np.abs(images[frame, view] - plain).max() <= 4, (frame, name)


def test_crops_are_the_same_each_time_and_from_any_frame_on(capture, crops):
    whole = np.concatenate([block for _, block in read_crops(capture, ("a", "c"), two(crops), 32, False)])
    again = np.concatenate([block for _, block in read_crops(capture, ("a", "c"), two(crops), 32, False)])
    parts = list(read_crops(capture, ("a", "c"), two(crops), 32, False, (70, 141)))
    assert np.array_equal(whole, again) and parts[0][0] == 70
    assert np.array_equal(np.concatenate([block for _, block in parts]), whole[70:141])


@pytest.mark.parametrize("cores", [1, 2, 3, 16])
def test_crops_do_not_depend_on_the_number_of_cores(capture, crops, monkeypatch, cores):
    """Fewer threads than cameras, as many, and decoders with threads of their own."""
    whole = np.concatenate([block for _, block in read_crops(capture, ("a", "c"), two(crops), 32, False)])
    monkeypatch.setattr(crops_module, "usable_cores", lambda: cores)
    again = np.concatenate([block for _, block in read_crops(capture, ("a", "c"), two(crops), 32, False)])
    assert np.array_equal(whole, again)


def two(crops: Crops) -> Crops:
    return Crops(*(values[:, [0, 2]] for values in crops))


def test_masked_frames_are_not_converted(capture, crops, monkeypatch):
    asked = []
    monkeypatch.setattr(
        VideoPicture, "planes", lambda self: asked.append(self) or planes_of(np.zeros((120, 160, 3), np.uint8))
    )
    masked = crops._replace(view_mask=np.zeros((150, 3), bool))
    assert not any(block.any() for _, block in read_crops(capture, ("a", "b"), masked, 32, False)) and not asked
    list(read_crops(capture, ("a",), crops, 32, False, (0, 20)))
    assert len(asked) == crops.view_mask[:20, 0].sum()


def test_a_reader_that_stops_early_ends_well_and_faults_are_told(capture, crops, tmp_path):
    reader = read_crops(capture, ("a", "b"), crops, 32, False)
    next(reader)
    reader.close()
    write_rig(tmp_path, "ab")
    for name in "ab":
        data = (capture.path / f"{name}.mp4").read_bytes()
        (tmp_path / f"{name}.mp4").write_bytes(data)
    opened = open_capture(tmp_path)
    write_video(tmp_path / "b.mp4", film(70, 1), 30)
    with pytest.raises(UsthandError, match="ends at frame 69 of 150"):
        list(read_crops(opened, ("a", "b"), crops, 32, False))
