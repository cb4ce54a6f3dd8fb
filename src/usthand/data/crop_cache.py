"""Crops on disk: shards in the WebDataset format, written once and read at random.

    CACHE/<capture>-<digest>/
      crops.json                what the crops were cut from, and how
      crops-00000.tar           a shard: consecutive frames, each a sample of files with one key
        <capture>-00000000.<camera>.npy     (S, S, 3) uint8 RGB; none where the view is masked
        <capture>-00000000.json             frame, sides of the crops and their corners in the image
      crops-00000.npy           where in the shard each crop's pixels begin, (N, V) int64, -1 where masked

A shard is a plain, uncompressed tar file: any tool can read it, and this module reads pixels in place. They are raw.
PNG would save two thirds of the disk, but writing it takes as long as decoding the video, and reading a batch of it
tens of times as long (docs/development/throughput.md). A shard takes its name only when it is whole, and a missing one
is written when it is next needed. The digest covers all that the pixels depend on: videos, place and size of the crops
(in which rig, labels and crop settings show), mirroring, and the decoder. Changed labels thus lead to another folder.
"""

from __future__ import annotations

import json
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from usthand.common.errors import UsthandError
from usthand.common.files import whole_file

VERSION = 1  # of this format and of how crops are cut; counted up whenever pixels would differ
SHARD_BYTES = 128e6  # of pixels in a shard
STALE_S = 3600.0  # a partial file that nobody has written to for so long was left behind
BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class CropSet:
    """All that the pixels of one hand's crops depend on."""

    capture: str
    cameras: tuple[str, ...]
    crop_px: int
    mirrored: bool
    corner_px: Float[np.ndarray, "T V 2"]
    side_px: Float[np.ndarray, "T V"]
    view_mask: Bool[np.ndarray, "T V"]
    footage: dict[str, dict[str, Any]]
    """Of each camera, what tells its footage from another's."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Of all the crops together: T V S S 3."""
        return (*self.side_px.shape, self.crop_px, self.crop_px, 3)

    @property
    def name(self) -> str:
        """The capture's name, fit for a key: WebDataset ends it at the first dot."""
        return re.sub(r"[^A-Za-z0-9_-]", "_", self.capture)[:60] or "capture"

    @property
    def per_shard(self) -> int:
        """Frames in a shard."""
        return max(int(SHARD_BYTES // np.prod(self.shape[1:])), 1)

    def description(self) -> dict[str, Any]:
        """For `crops.json`; small, and the same for the same crops."""
        places = sha256()
        for values, kind in ((self.corner_px, "<f8"), (self.side_px, "<f8"), (self.view_mask, "u1")):
            places.update(np.ascontiguousarray(values, kind).tobytes())
        return {
            "version": VERSION,
            "capture": self.capture,
            "cameras": list(self.cameras),
            "frames": self.shape[0],
            "frames_per_shard": self.per_shard,
            "crop_px": self.crop_px,
            "mirrored": self.mirrored,
            "places": places.hexdigest(),
            "footage": self.footage,
            "decoder": f"av {av.__version__}",
        }


@dataclass(frozen=True)
class ShardedCrops:
    """Crops in shards, indexed by frames like an array (T, V, S, S, 3). It holds no pixels and no open file."""

    folder: Path
    shape: tuple[int, int, int, int, int]
    per_shard: int
    offsets: Int[np.ndarray, "T V"]
    """Where the pixels begin in their shard, -1 where a view is masked."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: int | slice | Int[np.ndarray, "N"]) -> UInt8[np.ndarray, "*N V S S 3"]:
        at = np.arange(len(self))[frames]
        out = np.zeros((at.size, *self.shape[1:]), np.uint8)
        shards = at.ravel() // self.per_shard
        for shard in np.unique(shards):
            with (self.folder / shard_name(int(shard))).open("rb", buffering=0) as file:
                for row in np.flatnonzero(shards == shard):
                    self._read(file, int(at.flat[row]), out[row])
        return out.reshape(*at.shape, *self.shape[1:])

    def _read(self, file: FileIO, frame: int, out: UInt8[np.ndarray, "V S S 3"]) -> None:
        for view, offset in enumerate(self.offsets[frame]):
            if offset >= 0:
                file.seek(offset)
                if file.readinto(memoryview(out[view]).cast("B")) != out[view].nbytes:
                    raise UsthandError(
                        f"{file.name} ends before the crops of frame {frame}",
                        "it was damaged after it was written",
                        f"remove {self.folder}: the crops are cut again",
                    )


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"crops-{number:05d}.tar"


def sharded(
    cache: Path, crops: CropSet, cut: Callable[[int, int], Iterator[tuple[int, UInt8[np.ndarray, "N V S S 3"]]]]
) -> ShardedCrops:
    """The crops from the cache; shards that are not there are cut and written first.

    Args:
        cache: A folder that several captures and trainings may share.
        crops: What the crops depend on.
        cut: Gives the crops from one frame to another in blocks, each with its first frame.
    """
    description = crops.description()
    digest = sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    folder = Path(cache) / f"{crops.name}-{digest[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    with whole_file(folder / "crops.json") as partial:
        partial.write_text(json.dumps(description, indent=1) + "\n")
    for first, last in _missing(folder, crops):
        start, stop = first * crops.per_shard, min(last * crops.per_shard, crops.shape[0])
        _write_shards(folder, crops, range(start, stop), cut(start, stop))
    count = -(-crops.shape[0] // crops.per_shard)
    indices = [np.load((folder / shard_name(n)).with_suffix(".npy")) for n in range(count)]
    offsets = np.concatenate(indices) if indices else np.zeros(crops.shape[:2], np.int64)
    return ShardedCrops(folder, crops.shape, crops.per_shard, offsets)


def _missing(folder: Path, crops: CropSet) -> Iterator[tuple[int, int]]:
    """Runs of shards that are not there whole: first number, last number plus one."""
    count = -(-crops.shape[0] // crops.per_shard)
    there = np.array([False, *(_is_whole(folder / shard_name(n), crops.crop_px**2 * 3) for n in range(count)), False])
    there[[0, -1]] = True
    edges = np.flatnonzero(there[1:] != there[:-1])
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _is_whole(shard: Path, pixels: int) -> bool:
    """Whether a shard and its index are there, and the shard is as long as its last crop needs."""
    index = shard.with_suffix(".npy")
    if not (shard.is_file() and index.is_file()):
        return False
    last = int(np.load(index).max(initial=-1))
    return shard.stat().st_size >= (last + pixels if last >= 0 else 1)


def _remove_stale(folder: Path) -> None:
    for partial in folder.glob(".*"):
        if time.time() - partial.stat().st_mtime > STALE_S:
            partial.unlink(missing_ok=True)


# ---- writing -------------------------------------------------------------------------------------------------------


def _write_shards(folder: Path, crops: CropSet, span: range, blocks: Iterator[tuple[int, np.ndarray]]) -> None:
    """Write the shards of consecutive frames, each as soon as its frames are there."""
    frames = ((first + i, views) for first, block in blocks for i, views in enumerate(block))
    for start in span[:: crops.per_shard]:
        path = folder / shard_name(start // crops.per_shard)
        offsets = np.full((min(crops.per_shard, span.stop - start), len(crops.cameras)), -1, np.int64)
        with whole_file(path) as partial:
            with partial.open("wb") as file:
                for row, (frame, views) in zip(offsets, frames, strict=False):  # the shard's rows end first
                    _write_sample(file, crops, frame, views, row)
                file.write(bytes(2 * BLOCK))  # a tar file's end
            with whole_file(path.with_suffix(".npy")) as index:
                np.save(index, offsets)


def _write_sample(
    file: BinaryIO, crops: CropSet, frame: int, views: UInt8[np.ndarray, "V S S 3"], offsets: Int[np.ndarray, "V"]
) -> None:
    """One frame: a crop for each view that sees the hand, and their places. Fills in where the pixels begin."""
    key, header, places = f"{crops.name}-{frame:08d}", _npy_header(crops.crop_px), {}
    for view in np.flatnonzero(crops.view_mask[frame]):
        camera, pixels = crops.cameras[view], views[view]
        corner, side = crops.corner_px[frame, view], crops.side_px[frame, view]
        places[camera] = {"corner_px": [int(x) for x in corner], "side_px": int(side)}
        file.write(_tar_header(f"{key}.{camera}.npy", len(header) + pixels.nbytes))
        file.write(header)
        offsets[view] = file.tell()
        file.write(memoryview(pixels).cast("B"))
        file.write(bytes(-(len(header) + pixels.nbytes) % BLOCK))
    text = json.dumps({"frame": frame, "mirrored": crops.mirrored, "crops": places}).encode()
    file.write(_tar_header(f"{key}.json", len(text)) + text + bytes(-len(text) % BLOCK))


def _tar_header(name: str, size: int) -> bytes:
    """Without times and owners, so that the same crops make the same bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _npy_header(side: int) -> bytes:
    stream = BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (side, side, 3)}
    np.lib.format.write_array_header_1_0(stream, shape)
    return stream.getvalue()
