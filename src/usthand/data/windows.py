"""Crops around the labelled hand, and clips of consecutive frames cut from them: what the network eats.

A `Footage` is one hand of one capture, made ready: a right hand (a left one is mirrored with its cameras and images),
its cameras, its labels, and one stored crop per frame and view. Crops are centred on the hand as the labels have it
(triangulated over the views and projected back, so a view whose label is missing has its crop too), never on truth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from usthand.capture.capture import Capture
from usthand.capture.resample import Planes, resize_square
from usthand.capture.rig import Rig
from usthand.capture.video import usable_cores
from usthand.data.crop_cache import CropSet, ShardedCrops, sharded
from usthand.geometry.affine import affine_apply, affine_inverse
from usthand.geometry.cameras import Cameras, project
from usthand.labels.labels import Labels
from usthand.network.heatmaps import Gate
from usthand.network.model import Inputs

STORE_MARGIN = 1.3  # the stored crop is this much larger than the network's, room for shifts, turns and scales
MIN_CROP_PX = 24.0
GATE_DROPOUT = 0.25  # share of the clips that a training shows without their gate
BLOCK = 64  # frames of one camera that are read before the next camera's: decoders are faster undisturbed
BLOCK_BYTES = 32e6  # ... and fewer where the crops of a block would take more memory
MIN_BLOCK = 4
MIN_INSIDE = 0.5  # share of the joints that must project into the image for a view to count as one
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which its weights expect


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
    colour: float = 0.2
    """Brightness, contrast and each channel vary by this share."""
    gate: float = 0.14
    """Standard deviation, crop coordinates, of the gate around the place where the labels' fit expects a joint; 0 for none
    (the published network). Beyond the paper: docs/notes/gate.md."""


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


@dataclass(frozen=True)
class Footage:
    """One hand of one capture, ready for the network (always a right hand)."""

    rig: Rig
    labels: Labels
    """What to learn: the detector's labels, or their consensus."""
    detected: Labels
    """The detector's labels as they are."""
    images: np.ndarray | ShardedCrops
    """(T, V, S, S, 3) uint8, in memory or in files."""
    crops: Crops
    frames: np.ndarray
    """(T,) frame numbers in the capture."""

    @property
    def store_from_px(self) -> Float[np.ndarray, "T V 2 3"]:
        """Affine maps from image pixels to the stored crop's [-1, 1]."""
        scale = 2.0 / self.crops.side_px
        matrix = np.zeros((*scale.shape, 2, 3))
        matrix[..., 0, 0] = matrix[..., 1, 1] = scale
        matrix[..., 2] = (1.0 - 2.0 * self.crops.corner_px) / self.crops.side_px[..., None] - 1.0
        return matrix


class Targets(NamedTuple):
    """What the losses compare with: labels and nothing else."""

    uv_crop: Float[Tensor, "B T V J 2"]
    weight: Float[Tensor, "B T V J"]
    """Confidence of the label; 0 where there is none."""
    detected_uv_crop: Float[Tensor, "B T V J 2"]
    """The detector's labels as they are: how far they scatter teaches the network its confidence."""
    detected_weight: Float[Tensor, "B T V J"]


# ---- cutting -------------------------------------------------------------------------------------------------------


def place_crops(
    rig: Rig,
    joints_world_m: Float[np.ndarray, "T J 3"],
    valid: Bool[np.ndarray, "T"],
    factor: float,
    present: Bool[np.ndarray, "T V"] | None = None,
) -> Crops:
    """Squares around the projected joints, `factor` times `STORE_MARGIN` as wide as the hand's longer side.

    A view that is not `present` (all are by default) is masked.
    """
    points = torch.from_numpy(np.asarray(joints_world_m, dtype=np.float64))
    cameras = rig.tensors(torch.float64)
    cameras = Cameras(*(t.expand(len(points), *t.shape) for t in cameras))
    uv, depth = (x.numpy() for x in project(cameras, points))
    size = np.array([(c.width, c.height) for c in rig.cameras])[None, :, None]
    inside = ((uv > -0.5) & (uv < size - 0.5)).all(-1) & (depth > 0)
    low, high = uv.min(2), uv.max(2)
    side = np.clip((high - low).max(-1) * factor * STORE_MARGIN, MIN_CROP_PX, 4.0 * size.max())
    side = np.round(side)
    corner = np.round(((low + high) - side[..., None]) / 2)
    mask = (inside.mean(-1) >= MIN_INSIDE) & np.asarray(valid)[:, None]
    if present is not None:
        mask &= present
    # Far outside, behind a camera, nothing is ever read: keep the numbers small.
    corner = np.where(mask[..., None], corner, 0.0)
    expected = np.where(mask[..., None, None], uv, 0.0)
    return Crops(corner, np.where(mask, side, MIN_CROP_PX), mask, expected)


def cut_crop(
    image: Planes, corner_px: np.ndarray, side_px: float, mirrored: bool, out: UInt8[np.ndarray, "S S 3"]
) -> None:
    """Scale one square into `out`, with anti-aliasing; black outside the image.

    Args:
        corner_px, side_px: left and upper pixel and side, in the mirrored image if `mirrored`, which the result is too.
    """
    x, y, side = int(corner_px[0]), int(corner_px[1]), int(side_px)
    resize_square(image, image.size[0] - x - side if mirrored else x, y, side, out, mirrored)


def read_crops(
    capture: Capture,
    names: tuple[str, ...],
    crops: Crops,
    out_px: int,
    mirrored: bool,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[int, UInt8[np.ndarray, "N V S S 3"]]]:
    """The crops of frames `start` to `stop` in blocks of consecutive frames: (first frame, crops), black where masked.

    A few threads each decode a block of one camera, cutting every frame while it is near; while the caller has a block, the
    next one is under way. Memory does not grow with the number of frames.
    """
    stop = len(crops.side_px) if stop is None else stop
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
        tasks: list[Future[None] | None] = [None] * len(names)
        length = int(np.clip(BLOCK_BYTES // (3 * len(names) * out_px**2), MIN_BLOCK, BLOCK))
        for first in range(start, stop, length):
            block = np.zeros((min(length, stop - first), len(names), out_px, out_px, 3), np.uint8)
            tasks = [pool.submit(cut, view, first, block, before) for view, before in enumerate(tasks)]
            under_way.append((first, block, tasks))
            if len(under_way) > 1:
                yield _finished(under_way.popleft())
        while under_way:
            yield _finished(under_way.popleft())


def _finished(work: tuple[int, np.ndarray, list[Future[None]]]) -> tuple[int, np.ndarray]:
    first, block, tasks = work
    for task in tasks:
        task.result()
    return first, block


def store_size(image_size: int) -> int:
    """Side of the stored crops, px."""
    return round(image_size * STORE_MARGIN)


def make_footage(
    capture: Capture,
    rig: Rig,
    labels: Labels,
    detected: Labels,
    joints_world_m: np.ndarray,
    valid: np.ndarray,
    config: CropConfig,
    image_size: int,
    mirrored: bool,
    progress=None,
    cache: Path | None = None,
) -> Footage:
    """Cut all crops of one hand.

    Args:
        capture: where the images are.
        rig, labels, detected: already mirrored for a left hand, and less any camera that is left out.
        joints_world_m, valid: (T, 21, 3) the hand as the labels have it, in the rig's world; (T,).
        progress: called with (images done, images in all).
        cache: a folder to hold the crops in place of memory (`usthand.data.crop_cache`); crops that are there are used again.
    """
    present = capture.present[:, [capture.rig.index(name) for name in rig.names]]
    crops = place_crops(rig, joints_world_m, valid, config.factor, present)
    side = store_size(image_size)

    def cut(start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        for first, block in read_crops(capture, rig.names, crops, side, mirrored, start, stop):
            yield first, block
            if progress is not None:
                progress((first + len(block)) * len(rig), len(crops.side_px) * len(rig))

    if cache is None:
        images = np.zeros((*crops.side_px.shape, side, side, 3), np.uint8)
        for first, block in cut(0, len(images)):
            images[first : first + len(block)] = block
    else:
        identity = {name: capture.identity(name) for name in rig.names}
        places = (crops.corner_px, crops.side_px, crops.view_mask)
        images = sharded(cache, CropSet(capture.path.resolve().name, rig.names, side, mirrored, *places, identity), cut)
    return Footage(rig, labels, detected, images, crops, np.arange(len(crops.side_px)))


# ---- batches -------------------------------------------------------------------------------------------------------


def augmentation(
    shape: tuple[int, ...], config: CropConfig, rng: np.random.Generator | None
) -> Float[np.ndarray, "*b 2 3"]:
    """Affine maps from the network's crop to the stored crop; without `rng` the plain centre."""
    base = 1.0 / STORE_MARGIN
    if rng is None:
        return np.broadcast_to(np.array([[base, 0, 0], [0, base, 0]]), (*shape, 2, 3))
    angle = np.deg2rad(rng.uniform(-config.rotation_deg, config.rotation_deg, shape))
    scale = base * rng.uniform(*config.scale, shape)
    shift = 2 * base * rng.uniform(-config.shift, config.shift, (*shape, 2))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.stack((np.stack((c, -s, shift[..., 0]), -1), np.stack((s, c, shift[..., 1]), -1)), -2)


def compose(outer: Float[Tensor, "*b 2 3"], inner: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b 2 3"]:
    """The affine map that applies `inner`, then `outer`."""
    linear = outer[..., :2] @ inner[..., :2]
    return torch.cat((linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]), -1)


def _colour(images: Tensor, config: CropConfig, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast and white balance, one draw for all the frames of a clip's view; images (B T V 3 S S)."""
    batch, _, views = images.shape[:3]
    gain = torch.from_numpy(1 + config.colour * rng.uniform(-1, 1, (batch, 1, views, 3, 1, 1))).to(images)
    contrast = torch.from_numpy(1 + config.colour * rng.uniform(-1, 1, (batch, 1, views, 1, 1, 1))).to(images)
    mean = images.mean((-3, -2, -1), keepdim=True)
    return ((images - mean) * contrast + mean) * gain


def make_batch(
    clips: list[tuple[Footage, np.ndarray]],
    image_size: int,
    config: CropConfig,
    rng: np.random.Generator | None,
    device: torch.device | str = "cpu",
) -> tuple[Inputs, Targets]:
    """Assemble clips of equal length from footages that may have different numbers of views.

    Args:
        clips: footage and (T,) positions in it (positions may repeat).
        rng: draws the augmentation; None for none.
        device: where the batch is made, pixels included.
    """
    views = max(len(footage.rig) for footage, _ in clips)
    padded = [_padded_clip(footage, at, views) for footage, at in clips]
    stacked = [np.stack(parts) for parts in zip(*padded, strict=True)]
    images, store_from_px, mask, expected_px, *labels = (torch.from_numpy(x).to(device) for x in stacked)
    lead = tuple(mask.shape)
    store_from_crop = augmentation((lead[0], 1, views), config, rng)
    store_from_crop = torch.from_numpy(np.array(np.broadcast_to(store_from_crop, (*lead, 2, 3)))).float().to(device)
    grid = F.affine_grid(store_from_crop.flatten(0, 2), [mask.numel(), 3, image_size, image_size], align_corners=False)
    flat = images.flatten(0, 2).permute(0, 3, 1, 2).float() / 255.0
    crops = F.grid_sample(flat, grid, align_corners=False).unflatten(0, lead)
    if rng is not None:
        crops = _colour(crops, config, rng)
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (IMAGE_MEAN, IMAGE_STD))
    crop_from_px = compose(affine_inverse(store_from_crop.double()), store_from_px)
    cameras = _padded_cameras([footage.rig for footage, _ in clips], views, lead[1]).to(device)
    gate = make_gate(affine_apply(crop_from_px, expected_px), mask, config.gate, rng)
    inputs = Inputs(((crops - mean) / std).float(), crop_from_px.float(), mask, cameras, gate)
    uv_px, weight, detected_px, detected_weight = labels
    return inputs, Targets(
        *_in_crop(crop_from_px, uv_px, weight, mask), *_in_crop(crop_from_px, detected_px, detected_weight, mask)
    )


def make_gate(
    expected_crop: Float[Tensor, "B T V J 2"],
    mask: Bool[Tensor, "B T V"],
    sigma: float,
    rng: np.random.Generator | None,
) -> Gate | None:
    """The gate of a batch; None if it has no width.

    In training (`rng` given) its middle is drawn from the very Gaussian that the gate is: the network then learns what the
    images say, and never to copy the middle, which in training would be the answer. A share of the clips goes without.
    """
    if sigma <= 0:
        return None
    precision = mask / sigma**2
    if rng is None:
        return Gate(expected_crop.float(), precision.float())
    middle = expected_crop + sigma * torch.from_numpy(rng.standard_normal(tuple(expected_crop.shape))).to(mask.device)
    kept = torch.from_numpy(rng.random((len(mask), 1, 1)) >= GATE_DROPOUT).to(mask.device)
    return Gate(middle.float(), (precision * kept).float())


def _in_crop(crop_from_px: Tensor, uv_px: Tensor, weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    uv_crop = affine_apply(crop_from_px, uv_px.double()).float()
    # A label outside the crop (swapped hands, wild errors) has no place on the heatmap and teaches nothing.
    near = (uv_crop.abs() <= 1.0).all(-1)
    return torch.where(near[..., None], uv_crop, 0.0), weight * near * mask[..., None]


def _padded_clip(footage: Footage, at: np.ndarray, views: int) -> tuple[np.ndarray, ...]:
    """One clip's arrays, padded to `views` views by masked copies of the first."""
    extra = views - len(footage.rig)
    index = np.r_[np.arange(len(footage.rig)), np.zeros(extra, int)]
    here = np.r_[np.ones(len(footage.rig), bool), np.zeros(extra, bool)]
    return (
        footage.images[at][:, index],
        footage.store_from_px[at][:, index],
        footage.crops.view_mask[at][:, index] & here,
        footage.crops.expected_px[at][:, index],
        *_padded_labels(footage.labels, at, index, here),
        *_padded_labels(footage.detected, at, index, here),
    )


def _padded_labels(
    labels: Labels, at: np.ndarray, index: np.ndarray, here: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    confidence = labels.confidence[at][:, index] * here[:, None]
    return labels.uv_px[at][:, index], confidence.astype(np.float32)


def _padded_cameras(rigs: list[Rig], views: int, frames: int) -> Cameras:
    """(B, T, V, ...) cameras."""
    rows = []
    for rig in rigs:
        cameras = rig.tensors()
        index = torch.tensor([*range(len(rig)), *([0] * (views - len(rig)))])
        rows.append([t[index].unsqueeze(0).expand(frames, *t[index].shape) for t in cameras])
    return Cameras(*(torch.stack(parts) for parts in zip(*rows, strict=True)))


def sample_clips(
    footages: list[Footage], count: int, length: int, rng: np.random.Generator
) -> list[tuple[Footage, np.ndarray]]:
    """Random clips of consecutive frames; short footages repeat their last frame (replicate padding)."""
    lengths = np.array([len(f.frames) for f in footages], float)
    clips = []
    for which in rng.choice(len(footages), count, p=lengths / lengths.sum()):
        footage = footages[which]
        usable = np.flatnonzero(footage.crops.view_mask.sum(1) >= 2)
        centre = rng.choice(usable) if len(usable) else 0
        start = np.clip(centre - rng.integers(length), 0, max(len(footage.frames) - length, 0))
        clips.append((footage, np.minimum(start + np.arange(length), len(footage.frames) - 1)))
    return clips
