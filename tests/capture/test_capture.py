"""Captures: lazily read, exactly addressed, and every fault told in one sentence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from support.small_rig import SIZE, make_rig
from support.type_checks import unchecked
from usthand.capture.capture import open_capture
from usthand.capture.rig import Rig, save_rig
from usthand.capture.settings import CaptureSettings, read_offsets, read_settings, save_settings
from usthand.capture.video import write_video
from usthand.common.errors import UsthandError
from usthand.evaluation.truth import Truth, load_truth, save_truth
from usthand.labels.labels import Labels, load_labels


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
    films = [[np.roll(room, (t * speed, t), (0, 1))[:, :96].astype(np.uint8) for t in range(48)] for speed in (0, 1, 2)]

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
    from usthand.capture import capture as module

    real = module._decode

    def counting(source, start, stop, threads):
        for item in real(source, start, stop, threads):
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
    with pytest.raises(UsthandError, match="unknown key 'fsp'"):
        open_capture(folder)


def test_a_missing_camera(folder):
    (folder / "b.mp4").unlink()
    with pytest.raises(UsthandError, match="camera 'b' of the rig has no video"):
        open_capture(folder)


def test_a_video_of_another_size(folder):
    write_video(folder / "b.mp4", frames(12, (32, 48)), 25)
    with pytest.raises(UsthandError, match="32x48 px but the rig says 64x48"):
        open_capture(folder)


def test_videos_of_different_lengths(folder):
    write_video(folder / "b.mp4", frames(9), 25)
    with pytest.raises(UsthandError, match=r"a 12, b 9.*--offset a=0"):
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
    outside = {
        name: first + (length - first - count) for name, first, length in zip("ab", firsts, (12, 9), strict=True)
    }
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
    with pytest.raises(UsthandError, match=fact):
        open_capture(folder)
    (folder / "capture.toml").write_text("offset = 3\n")
    with pytest.raises(UsthandError, match="no table"):
        open_capture(folder)


def test_a_truncated_video(folder):
    whole = (folder / "b.mp4").read_bytes()
    (folder / "b.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsthandError, match="truncated or damaged"):
        list(open_capture(folder).read("b"))


def test_a_stream_that_ends_early(folder, monkeypatch):
    from usthand.capture import capture as module

    opened = open_capture(folder)
    real = module._decode
    monkeypatch.setattr(module, "_decode", lambda source, start, stop, threads: real(source, start, 7, threads))
    with pytest.raises(UsthandError, match="ends at frame 6 of 12"):
        list(opened.read("a"))


def test_no_folder(tmp_path):
    with pytest.raises(UsthandError, match="no folder"):
        open_capture(tmp_path / "nothing")


def test_truth_is_kept_apart_and_comes_back_exactly(folder):
    rng = np.random.default_rng(0)
    truth = Truth(
        rng.normal(size=(2, 21, 3)),
        rng.normal(size=(2, 778, 3)),
        rng.random((2, 2, 21)) < 0.5,
        rng.normal(size=(2, 48)),
        rng.normal(size=10),
        rng.normal(size=(2, 3)),
    )
    assert load_truth(folder, "right") is None
    save_truth(folder, "right", truth)
    back = load_truth(folder, "right")
    assert all(np.array_equal(getattr(back, name), getattr(truth, name)) for name in vars(truth))
    assert not any("truth" in name for name in vars(open_capture(folder)))


def test_the_real_clip_opens(shared_data, tmp_path):
    import shutil

    for k in range(4):
        shutil.copy(shared_data / "webcams4" / f"cam_{k}.mp4", tmp_path)
    shutil.copy(shared_data / "webcams4" / "config.toml", tmp_path / "rig.toml")
    capture = open_capture(tmp_path)
    assert capture.n_frames == 111 and capture.fps == 6
    assert next(capture.read("cam_3"))[1].shape == (720, 1280, 3)


# ---- lists of images -----------------------------------------------------------------------------------------------


@pytest.fixture
def listed(tmp_path):
    """Camera a: three images and a gap; camera b: images of another folder by their absolute paths."""
    save_rig(make_rig(), tmp_path / "rig.toml")
    elsewhere = tmp_path / "some where"
    elsewhere.mkdir()
    for k, image in enumerate(frames(4)):
        Image.fromarray(image).save(elsewhere / f"{k}.png")
    (tmp_path / "a.txt").write_text("some where/0.png\nsome where/1.png\n\nsome where/3.png\n")
    (tmp_path / "b.txt").write_text("".join(f"{elsewhere / f'{k}.png'}\n" for k in range(3)) + "\n")
    return tmp_path


def test_a_list_of_images_is_a_camera_and_an_empty_line_a_missing_view(listed):
    capture = open_capture(listed)
    assert capture.n_frames == 4 and capture.fps == 30
    assert capture.present.tolist() == [[True, True], [True, True], [False, True], [True, False]]
    assert [int(image.mean()) for _, image in capture.read("a")] == [10, 22, 0, 46]
    assert [(frame, image.shape) for frame, image in capture.read("a", 2, 3)] == [(2, (48, 64, 3))]
    assert [int(image.mean()) for _, image in capture.read("b")] == [10, 22, 34, 0]


def test_videos_lack_no_frame(folder):
    assert open_capture(folder).present.shape == (12, 2) and open_capture(folder).present.all()


def test_opening_a_list_touches_no_image(listed):
    """100,000 lines name images that are not there; only reading one of them says so."""
    (listed / "a.txt").write_text("".join(f"gone/{k:06d}.jpg\n" for k in range(100_000)))
    (listed / "b.txt").write_text("".join(f"gone/{k:06d}.jpg\t1\t2.5\t0.5\n" for k in range(100_000)))
    capture = open_capture(listed)
    assert capture.n_frames == 100_000 and capture.present.all()
    with pytest.raises(
        UsthandError, match=r"frame 70000 of .*a\.txt cannot be read: .*gone/070000\.jpg: the image is missing"
    ):
        list(capture.read("a", 70_000, 70_001))


def test_a_listed_image_of_another_size(listed):
    Image.new("RGB", (32, 48)).save(listed / "some where" / "1.png")
    with pytest.raises(UsthandError, match=r"1\.png is 32x48 px but the rig says 64x48"):
        list(open_capture(listed).read("a"))


def test_a_listed_image_that_is_cut_short(listed):
    file = listed / "some where" / "1.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UsthandError, match="cut short or no image"):
        list(open_capture(listed).read("a"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("x.png\t1\t2", "after the path"),
        ("x.png\t1\ta\t1", "after the path"),
        ("x.png\t0\t0\t0", "impossible place"),
        ("x.png\tnan\t0\t1", "impossible place"),
    ],
)
def test_a_line_that_says_no_place(listed, line, told):
    (listed / "a.txt").write_text(f"y.png\n{line}\n\n\n")
    with pytest.raises(UsthandError, match=rf"a\.txt, line 2, .*{told}"):
        open_capture(listed)


@pytest.mark.parametrize(
    "place", [(5.0, 3.0, 1.0), (7.25, 4.5, 1.0), (3.3, 2.0, 1.7), (20.0, 12.5, 0.4), (-11.0, -6.4, 2.3)]
)
def test_a_placed_image_lies_where_its_pixels_say(listed, place):
    """Linear brightness survives any interpolation: pixel (X, Y) of the canvas shows ((X, Y) - (x, y)) / s."""
    x, y, scale = place
    u, v = np.meshgrid(np.arange(40), np.arange(30))
    image = np.stack((30 + 4 * u, 30 + 4 * v, np.full(u.shape, 200)), -1).astype(np.uint8)
    Image.fromarray(image).save(listed / "ramp.png")
    (listed / "a.txt").write_text(f"ramp.png\t{x}\t{y}\t{scale}\n\n\n\n")
    canvas = next(open_capture(listed).read("a"))[1].astype(float)
    column, row = np.meshgrid(np.arange(64), np.arange(48))
    at_u, at_v = (column - x) / scale, (row - y) / scale
    # A pixel is covered where its whole square is; the filter reaches max(1, 1 / s) pixels, so the rim is cut off.
    half, reach = 0.5 / scale, max(1.0, 1.0 / scale)
    covered = (np.abs(at_u - 19.5) <= 20 - half + 1e-6) & (np.abs(at_v - 14.5) <= 15 - half + 1e-6)
    inner = (np.abs(at_u - 19.5) <= 19.5 - reach) & (np.abs(at_v - 14.5) <= 14.5 - reach)
    assert inner.sum() > 30
    assert (canvas[~covered] == 0).all() and (canvas[covered][:, 2] == 200).all()
    # Half a grey level of the result's rounding, and as much of a pass between the two axes.
    np.testing.assert_allclose(canvas[inner][:, 0], 30 + 4 * at_u[inner], atol=1.01)
    np.testing.assert_allclose(canvas[inner][:, 1], 30 + 4 * at_v[inner], atol=1.01)


def test_whole_pixels_are_copied(listed):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 255, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(image).save(listed / "noise.png")
    (listed / "a.txt").write_text("noise.png\t60\t-4\t1\n\n\n\n")
    canvas = next(open_capture(listed).read("a"))[1]
    np.testing.assert_array_equal(canvas[:6, 60:], image[4:, :4])
    assert canvas[6:].max() == 0 and canvas[:, :60].max() == 0


def test_missing_views_are_masked_and_have_no_labels(listed):
    from usthand.data.crops import place_crops

    capture = open_capture(listed)
    labels = Labels(np.full((4, 2, 21, 2), 30.0), np.ones((4, 2, 21)), ("a", "b"), "right", "test")
    labels.save(capture.labels_path("right"))
    assert (load_labels(capture, "right").mask.all(-1) == capture.present).all()
    points = np.zeros((4, 21, 3)) + np.linspace(0, 0.02, 21)[:, None]
    every = place_crops(capture.rig, points, np.ones(4, bool), 1.7)
    some = place_crops(capture.rig, points, np.ones(4, bool), 1.7, capture.present)
    assert every.view_mask.all() and (some.view_mask == capture.present).all()


def test_footage_masks_the_views_that_are_missing(listed):
    """By name: the camera left out and the order of the rig do not shift the mask."""
    from support.stand_in import make_truth, result_of
    from usthand.data.crops import CropConfig
    from usthand.data.footage import footage_of
    from usthand.fit.canonical import CanonicalHand

    capture = open_capture(listed)
    rig = Rig(capture.rig.cameras[::-1])
    labels = Labels(np.zeros((4, 2, 21, 2)), np.zeros((4, 2, 21)), ("b", "a"), "right", "test")
    points = np.zeros((4, 21, 3)) + np.linspace(0, 0.02, 21)[:, None]
    fit = result_of(make_truth(np.random.default_rng(0), 4), joints=points)
    footage = footage_of(capture, CanonicalHand(rig, labels, False), fit, CropConfig(), 32)
    assert (footage.crops.view_mask == capture.present[:, ::-1]).all()
    assert (footage.images[~footage.crops.view_mask] == 0).all()


# ---- settings and truth --------------------------------------------------------------------------------------------


def test_a_capture_tells_its_data_set(folder):
    assert (open_capture(folder).dataset, open_capture(folder).protocol, open_capture(folder).split) == ("", "", "")
    (folder / "capture.toml").write_text('dataset = "hanco"\nprotocol = "hamuco"\nsplit = "test"\n')
    opened = open_capture(folder)
    assert (opened.dataset, opened.protocol, opened.split, opened.fps) == ("hanco", "hamuco", "test", 25)


def test_settings_come_back_as_they_were_written(tmp_path):
    file = tmp_path / "capture.toml"
    assert read_settings(file) == CaptureSettings() and read_offsets(file, ["cam 1"]) == {}
    written = CaptureSettings(30000 / 1001, {"dataset": 'a "b"', "split": "test"})
    save_settings(file, written, {"cam 1": -3})
    assert read_settings(file) == written and read_offsets(file, ["cam 1"]) == {"cam 1": -3}
    assert file.read_text().startswith("# offset, in frames: how much later the camera started")
    save_settings(file, CaptureSettings())
    assert file.read_text().strip() == ""


@pytest.mark.parametrize("line", ["fps = 0", 'fps = "fast"', "fps = true", "split = 3", "fps = nan"])
def test_impossible_settings(folder, line):
    (folder / "capture.toml").write_text(line + "\n")
    with pytest.raises(UsthandError, match="fix the value"):
        open_capture(folder)


def test_truth_of_joints_alone_and_with_gaps(folder):
    valid = np.array([True, False])
    save_truth(folder, "right", Truth.of_joints(np.zeros((2, 21, 3)), np.ones((2, 2, 21), bool), valid))
    back = load_truth(folder, "right")
    assert not back.has_mesh and back.valid.tolist() == [True, False] and back.pose.shape == (0, 48)


def test_truth_of_before_there_was_valid(folder):
    save_truth(folder, "right", Truth.of_joints(np.zeros((2, 21, 3)), np.ones((2, 2, 21), bool)))
    file = folder / "truth" / "right.npz"
    with np.load(file) as data:
        old = {key: data[key] for key in data.files if key != "valid"}
    np.savez_compressed(file, **old)
    assert load_truth(folder, "right").valid.tolist() == [True, True]


def test_truth_of_different_lengths():
    with unchecked(), pytest.raises(UsthandError, match="different captures"):
        Truth.of_joints(np.zeros((3, 21, 3)), np.ones((3, 2, 21), bool), np.ones(2, bool))
