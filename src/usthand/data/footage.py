"""One hand of one capture, ready for the network: always a right hand (a left one is mirrored with its cameras)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from usthand.capture.capture import Capture
from usthand.capture.rig import Rig
from usthand.common.progress import Progress, silent
from usthand.data.crop_cache import CropSet, ShardedCrops, sharded
from usthand.data.crops import CropConfig, Crops, FrameBlock, place_crops, read_crops, store_size
from usthand.fit.canonical import CanonicalHand
from usthand.hand.result import Result
from usthand.labels.labels import Labels


@dataclass(frozen=True)
class Footage:
    """Cameras, labels, and one stored crop per frame and view."""

    rig: Rig
    labels: Labels
    """What to learn: the detector's labels, or their consensus."""
    detected: Labels
    """The detector's labels as they are."""
    images: UInt8[np.ndarray, "T V S S 3"] | ShardedCrops
    """In memory or in files."""
    crops: Crops
    frames: Int[np.ndarray, "T"]
    """Frame numbers in the capture."""

    @property
    def store_from_px(self) -> Float[np.ndarray, "T V 2 3"]:
        """Affine maps from image pixels to the stored crop's [-1, 1]."""
        scale = 2.0 / self.crops.side_px
        matrix = np.zeros((*scale.shape, 2, 3))
        matrix[..., 0, 0] = matrix[..., 1, 1] = scale
        matrix[..., 2] = (1.0 - 2.0 * self.crops.corner_px) / self.crops.side_px[..., None] - 1.0
        return matrix


def expected_std_m(fit: Result) -> Float[np.ndarray, "T"]:
    """Standard deviation of a fit's joints along an axis in each frame, metres: root mean square."""
    return np.sqrt(fit.joints_cov_m2.trace(axis1=-2, axis2=-1).mean(-1) / 3)


def footage_of(
    capture: Capture,
    hand: CanonicalHand,
    fit: Result,
    crop: CropConfig,
    image_size: int,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Footage:
    """Cut all crops of one hand, around its fit; the detector's labels are those to learn.

    Args:
        capture: Where the images are.
        hand: Rig and labels, of which the views are taken.
        fit: The fit of the labels, in the rig's unit.
        crop: How large the crops are.
        image_size: Side of the network's crops, px.
        cache: A folder to keep the crops in instead of memory (`usthand.data.crop_cache`); crops found there are used.
        progress: Counts images.
    """
    rig = hand.rig
    present = capture.present[:, [capture.rig.index(name) for name in rig.names]]
    crops = place_crops(rig, fit.joints_world_m, fit.valid, crop.factor, present, expected_std_m(fit))
    side = store_size(image_size)

    def cut(start: int, stop: int) -> Iterator[FrameBlock]:
        for first, block in read_crops(capture, rig.names, crops, side, hand.mirrored, (start, stop)):
            yield first, block
            progress((first + len(block)) * len(rig), crops.side_px.size)

    if cache is None:
        images = np.zeros((*crops.side_px.shape, side, side, 3), np.uint8)
        for first, block in cut(0, len(images)):
            images[first : first + len(block)] = block
    else:
        identity = {name: capture.identity(name) for name in rig.names}
        name, places = capture.path.resolve().name, (crops.corner_px, crops.side_px, crops.view_mask)
        images = sharded(cache, CropSet(name, rig.names, side, hand.mirrored, *places, identity), cut)
    return Footage(rig, hand.labels, hand.labels, images, crops, np.arange(len(crops.side_px)))
