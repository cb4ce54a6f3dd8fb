"""Shards of crops: plain tar files, written once, read at random, used again only where nothing has changed."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

from support.trainings import SHORT, state_of
from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.data import crop_cache as shards
from usthand.data import footage as footage_module
from usthand.data.crop_cache import CropSet, ShardedCrops, sharded
from usthand.data.footage import footage_of
from usthand.data.prepare import fit_hand, load_hand_2d
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.labels.labels import load_labels
from usthand.training.config import TrainConfig
from usthand.training.loop import train

FRAMES, SIDE = 23, 6


@pytest.fixture
def crops(monkeypatch):
    """Seven frames a shard: three shards of 7 and one of 2."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 7 * 2 * SIDE * SIDE * 3)
    rng = np.random.default_rng(0)
    mask = rng.random((FRAMES, 2)) < 0.8
    corner, side = rng.integers(-9, 99, (FRAMES, 2, 2)).astype(float), rng.integers(24, 99, (FRAMES, 2)).astype(float)
    return CropSet(
        "my.capture", ("a", "b"), SIDE, False, corner, side, mask, {"a": {"files": "1"}, "b": {"files": "2"}}
    )


@pytest.fixture
def images(crops):
    return (
        np.random.default_rng(1).integers(0, 256, crops.shape).astype(np.uint8) * crops.view_mask[..., None, None, None]
    )


def cutter(images, asked, fails_at=None):
    """What cuts the crops, in blocks of three; `asked` gets the frames that were cut."""

    def cut(start, stop):
        for first in range(start, stop, 3):
            if fails_at is not None and first >= fails_at:
                raise KeyboardInterrupt
            asked.extend(range(first, min(first + 3, stop)))
            yield first, images[first : min(first + 3, stop)]

    return cut


def test_crops_come_back_bit_for_bit_however_they_are_indexed(crops, images, tmp_path):
    stored = sharded(tmp_path, crops, cutter(images, []))
    assert len(stored) == FRAMES and stored.shape == images.shape
    for at in (slice(None), slice(5, 9), np.array([22, 0, 7, 7, 6, -1]), np.array([3]), np.array([], int)):
        assert np.array_equal(stored[at], images[at])
    assert np.array_equal(stored[8], images[8])


def test_other_programs_can_read_the_shards(crops, images, tmp_path):
    """By tarfile and numpy alone: samples in order, files of a sample together, a key without dots."""
    folder = sharded(tmp_path, crops, cutter(images, [])).folder
    seen = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, rest = member.name.partition(".")
                frame, data = int(key.rpartition("-")[2]), tar.extractfile(member).read()
                if rest == "json":
                    places = json.loads(data)
                    here = np.flatnonzero(crops.view_mask[frame])
                    assert places["frame"] == frame and list(places["crops"]) == ["ab"[v] for v in here]
                    for view in here:
                        assert places["crops"]["ab"[view]]["corner_px"] == list(crops.corner_px[frame, view])
                    seen.append(frame)
                else:
                    camera = rest.removesuffix(".npy")
                    assert np.array_equal(np.load(BytesIO(data)), images[frame, "ab".index(camera)])
                assert member.mtime == 0 and key.startswith("my_capture-")
    assert seen == list(range(FRAMES))
    assert len(list(folder.glob("*.tar"))) == 4


def test_webdataset_reads_them_too(crops, images, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    folder = sharded(tmp_path, crops, cutter(images, [])).folder
    samples = list(webdataset.WebDataset([str(p) for p in sorted(folder.glob("*.tar"))], shardshuffle=False).decode())
    assert len(samples) == FRAMES
    for sample in samples:
        frame = sample["json"]["frame"]
        for camera in sample["json"]["crops"]:
            assert np.array_equal(sample[f"{camera}.npy"], images[frame, "ab".index(camera)])


def test_whole_shards_are_used_again_and_missing_or_short_ones_written(crops, images, tmp_path):
    asked: list[int] = []
    folder = sharded(tmp_path, crops, cutter(images, asked)).folder
    assert asked == list(range(FRAMES))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "crops-00001.tar").unlink()
    (folder / "crops-00003.npy").unlink()
    os.truncate(folder / "crops-00002.tar", 3000)
    asked.clear()
    assert np.array_equal(sharded(tmp_path, crops, cutter(images, asked))[:], images)
    assert asked == list(range(7, FRAMES))
    asked.clear()
    sharded(tmp_path, crops, cutter(images, asked))
    assert not asked and {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_an_interrupted_writer_leaves_whole_shards_only_and_goes_on_after_them(crops, images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sharded(tmp_path, crops, cutter(images, [], fails_at=17))
    (folder,) = tmp_path.iterdir()
    assert {p.name for p in folder.iterdir()} == {
        "crops.json",
        *(f"crops-0000{n}{s}" for n in (0, 1) for s in (".tar", ".npy")),
    }
    left = folder / ".1.crops-00002.tar"
    left.write_bytes(b"left by a process that was killed")
    os.utime(left, (0, 0))
    asked: list[int] = []
    assert np.array_equal(sharded(tmp_path, crops, cutter(images, asked))[:], images)
    assert asked == list(range(14, FRAMES)) and not left.exists()


def test_a_shard_damaged_under_way_ends_in_one_sentence(crops, images, tmp_path):
    stored = sharded(tmp_path, crops, cutter(images, []))
    os.truncate(stored.folder / "crops-00000.tar", 600)
    with pytest.raises(UsthandError, match=r"crops-00000\.tar ends before"):
        stored[np.arange(3)]


def test_whatever_changes_the_pixels_changes_the_folder(crops, images, tmp_path):
    moved = crops.corner_px.copy()
    moved[4, 1, 0] += 1
    masked = crops.view_mask.copy()
    masked[0] ^= True
    others = [
        replace(crops, corner_px=moved),
        replace(crops, view_mask=masked),
        replace(crops, mirrored=True),
        replace(crops, side_px=crops.side_px + 1),
        replace(crops, footage={**crops.footage, "b": {"files": "3"}}),
        replace(crops, cameras=("a", "c")),
    ]
    folders = {sharded(tmp_path, c, cutter(images, [])).folder.name for c in (crops, *others)}
    assert len(folders) == 1 + len(others)
    assert sharded(tmp_path, replace(crops), cutter(images, [])).folder.name in folders


# ---- in a training -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "small"
    return make_capture(path, SynthConfig(views=3, frames=16, labels="exact", size=128, seed=3))


@pytest.mark.parametrize("side", ["right", "left"])
def test_footage_from_shards_is_footage_from_memory(side, tmp_path):
    path = make_capture(tmp_path / "made", SynthConfig(views=2, frames=6, size=128, seed=4, side=side))
    capture = open_capture(path)
    hand = load_hand_2d(capture, side)
    fit = fit_hand(hand, capture.fps)
    memory = footage_of(capture, hand, fit, SHORT.crop, 48)
    files = footage_of(capture, hand, fit, SHORT.crop, 48, tmp_path / "cache")
    assert isinstance(files.images, ShardedCrops) and isinstance(memory.images, np.ndarray)
    assert memory.images.any() and np.array_equal(files.images[:], memory.images)


def test_a_second_training_uses_the_crops_of_the_first_and_changed_labels_do_not(small, tmp_path, monkeypatch):
    cut, real = [], footage_module.read_crops
    monkeypatch.setattr(footage_module, "read_crops", lambda *a: cut.append(a) or real(*a))
    cache, short = tmp_path / "cache", replace(SHORT, train=replace(SHORT.train, steps=2, targets="labels"))
    train([small], tmp_path / "plain", TrainConfig(short))
    train([small], tmp_path / "first", TrainConfig(short, crop_cache=cache))
    assert len(cut) == 2 and len(list(cache.iterdir())) == 1
    changed = tmp_path / "small"
    shutil.copytree(small, changed, copy_function=shutil.copy2)  # the same files, elsewhere
    train([changed], tmp_path / "second", TrainConfig(short, crop_cache=cache))
    assert len(cut) == 2
    plain = state_of(tmp_path / "plain")
    for run in ("first", "second"):
        assert all((value == plain[name]).all() for name, value in state_of(tmp_path / run).items())
    labels = load_labels(open_capture(changed), "right")
    replace(labels, uv_px=labels.uv_px + 12.0).save(changed / "labels" / "right.npz")
    train([changed], tmp_path / "moved", TrainConfig(short, crop_cache=cache))
    assert len(cut) == 3 and len(list(cache.iterdir())) == 2
