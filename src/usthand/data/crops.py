"""Crops around the labelled hand: where they lie, and cutting them from the images.

They are centred on the hand as the labels have it, never on truth. The labels are triangulated over the views and
projected back, so a view whose label is missing has a crop too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Real, UInt8

from usthand.capture.capture import Capture
from usthand.capture.resample import Planes, resize_square
from usthand.capture.rig import Rig
from usthand.capture.video import usable_cores
from usthand.geometry.cameras import Cameras, project

STORE_MARGIN = 1.3  # the stored crop is this much larger than the network's, room for shifts, turns and scales
MIN_CROP_PX = 24.0
BLOCK = 64  # frames of one camera that are read before the next camera's: decoders are faster undisturbed
BLOCK_BYTES = 32e6  # ... and fewer where the crops of a block would take more memory
MIN_BLOCK = 4
MIN_INSIDE = 0.5  # share of the joints that must project into the image for a view to count as one

FrameBlock = tuple[int, UInt8[np.ndarray, "N V S S 3"]]
"""Consecutive frames' crops: the first frame's number, and the pixels."""


@dataclass(frozen=True)
class CropConfig:
    """How crops are cut and varied."""

    factor: float = 1.7
    """Side of the network's crop over the hand's longer side in the image."""
    scale: tuple[float, float] = (0.9, 1.1)
    rotation_deg: float = 15.0
    """In-plane turns up to this angle either way; the cameras follow."""
    shift: float = 0.08
    """Of the crop's side, either way."""
    upright: bool = False
    """Turn each crop so that the expected hand points up, from its wrist to its middle knuckle."""
    colour: float = 0.2
    """Brightness, contrast and each channel vary by this share."""
    gate: float = 0.14
    """Standard deviation, crop coordinates, of the gate around the place where the labels' fit expects a joint; 0 for
    none (the published network). Beyond the paper: docs/development/gate.md."""


class Crops(NamedTuple):
    """Where the crops lie in the images."""

    corner_px: Float[np.ndarray, "T V 2"]
    """Left and upper pixel, integers."""
    side_px: Float[np.ndarray, "T V"]
    """Integers."""
    view_mask: Bool[np.ndarray, "T V"]
    """False where the hand lies outside the image or is not known in space, and where the camera lacks the frame."""
    expected_px: Float[np.ndarray, "T V J 2"]
    """Where the labels' fit expects the joints; zeros in masked views."""
    expected_std_px: Float[np.ndarray, "T V"]
    """Standard deviation of `expected_px` along an axis, root mean square over the joints; zeros in masked views."""


def store_size(image_size: int) -> int:
    """Side of the stored crops, px, for a network that takes crops of `image_size`."""
    return round(image_size * STORE_MARGIN)


def place_crops(
    rig: Rig,
    joints_world_m: Float[np.ndarray, "T J 3"],
    valid: Bool[np.ndarray, "T"],
    factor: float,
    present: Bool[np.ndarray, "T V"] | None = None,
    std_m: Float[np.ndarray, "T"] | None = None,
) -> Crops:
    """Squares around the projected joints, `factor` times `STORE_MARGIN` as wide as the hand's longer side.

    Args:
        rig: In the joints' unit.
        joints_world_m: Where the hand is.
        valid: Frames in which that is known; the others are masked.
        factor: Side of the network's crop over the hand's longer side in the image.
        present: Views that have the frame, all by default; the others are masked.
        std_m: Standard deviation of the joints along an axis, 0 by default.
    """
    points = torch.from_numpy(np.asarray(joints_world_m, dtype=np.float64))
    cameras = Cameras(*(t.expand(len(points), *t.shape) for t in rig.tensors(torch.float64)))
    uv, depth = (x.numpy() for x in project(cameras, points))
    size = np.array([(c.width, c.height) for c in rig.cameras])[None, :, None]
    inside = ((uv > -0.5) & (uv < size - 0.5)).all(-1) & (depth > 0)
    low, high = uv.min(2), uv.max(2)
    side = np.round(np.clip((high - low).max(-1) * factor * STORE_MARGIN, MIN_CROP_PX, 4.0 * size.max()))
    corner = np.round(((low + high) - side[..., None]) / 2)
    mask = (inside.mean(-1) >= MIN_INSIDE) & np.asarray(valid)[:, None]
    if present is not None:
        mask &= present
    # A masked view is never read, and a hand behind its camera would project to huge numbers.
    corner = np.where(mask[..., None], corner, 0.0)
    expected = np.where(mask[..., None, None], uv, 0.0)
    focal = cameras.intrinsics[..., :2].mean(-1).numpy()
    std_px = focal / np.where(mask, depth.mean(-1), 1.0) * (0.0 if std_m is None else std_m[:, None])
    return Crops(corner, np.where(mask, side, MIN_CROP_PX), mask, expected, np.where(mask, std_px, 0.0))


def cut_crop(
    image: Planes, corner_px: Real[np.ndarray, "2"], side_px: float, mirrored: bool, out: UInt8[np.ndarray, "S S 3"]
) -> None:
    """Scale one square into `out`, with anti-aliasing; black outside the image.

    If `mirrored`, the result is mirrored, and corner (left, upper) and side are those in the mirrored image.
    """
    x, y, side = int(corner_px[0]), int(corner_px[1]), int(side_px)
    resize_square(image, image.size[0] - x - side if mirrored else x, y, side, out, mirrored)


def read_crops(
    capture: Capture,
    names: tuple[str, ...],
    crops: Crops,
    out_px: int,
    mirrored: bool,
    span: tuple[int, int] | None = None,
) -> Iterator[FrameBlock]:
    """The crops in blocks of consecutive frames, black where masked.

    A few threads each decode a block of one camera and cut every frame at once. While the caller has a block, the next
    one is under way. Memory does not grow with the number of frames.

    Args:
        capture: Where the images are.
        names: Cameras, in the order of the crops' views.
        crops: Where to cut.
        out_px: Side of the crops that come out.
        mirrored: Whether the crops are those of a mirrored left hand.
        span: First frame, and last frame plus one; all by default.
    """
    start, stop = span or (0, len(crops.side_px))
    cores = usable_cores()
    # With a core for each camera at most, a decoder's own threads would only cost more.
    readers = [capture.pictures(name, start, stop, max(1, cores // len(names))) for name in names]

    def cut(view: int, first: int, block: np.ndarray, before: Future[None] | None) -> None:
        if before is not None:
            before.result()  # a reader is used by one thread at a time, in order
        for frame, picture in islice(readers[view], len(block)):
            if crops.view_mask[frame, view]:
                corner, side = crops.corner_px[frame, view], crops.side_px[frame, view]
                cut_crop(picture.planes(), corner, side, mirrored, block[frame - first, view])

    with ThreadPoolExecutor(min(cores, len(names))) as pool:
        under_way: deque[tuple[int, np.ndarray, list[Future[None]]]] = deque()
        before: Sequence[Future[None] | None] = [None] * len(names)
        length = int(np.clip(BLOCK_BYTES // (3 * len(names) * out_px**2), MIN_BLOCK, BLOCK))
        for first in range(start, stop, length):
            block = np.zeros((min(length, stop - first), len(names), out_px, out_px, 3), np.uint8)
            before = tasks = [pool.submit(cut, view, first, block, task) for view, task in enumerate(before)]
            under_way.append((first, block, tasks))
            if len(under_way) > 1:
                yield _finished(*under_way.popleft())
        while under_way:
            yield _finished(*under_way.popleft())


def _finished(first: int, block: np.ndarray, tasks: list[Future[None]]) -> FrameBlock:
    for task in tasks:
        task.result()
    return first, block
