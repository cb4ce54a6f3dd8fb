"""Batches: clips of consecutive frames, drawn from footages, augmented and put together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from usthand.capture.rig import Rig
from usthand.data.augmentation import augmentation, compose, upright_turn_rad, vary_colour
from usthand.data.crops import CropConfig
from usthand.data.footage import Footage
from usthand.geometry.affine import affine_apply, affine_inverse
from usthand.geometry.cameras import Cameras
from usthand.labels.labels import Labels
from usthand.network.heatmaps import Gate
from usthand.network.model import Inputs

GATE_DROPOUT = 0.25  # share of the clips that a training shows without their gate
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which its weights expect

Clip = tuple[Footage, Int[np.ndarray, "T"]]
"""A footage, and positions in it, which may repeat."""


class Targets(NamedTuple):
    """What the losses compare with: labels and nothing else."""

    uv_crop: Float[Tensor, "B T V J 2"]
    weight: Float[Tensor, "B T V J"]
    """Confidence of the label; 0 where there is none."""
    detected_uv_crop: Float[Tensor, "B T V J 2"]
    """The detector's labels as they are: how far they scatter teaches the network its confidence."""
    detected_weight: Float[Tensor, "B T V J"]


def sample_clips(footages: list[Footage], count: int, length: int, rng: np.random.Generator) -> list[Clip]:
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


def make_batch(
    clips: list[Clip],
    image_size: int,
    config: CropConfig,
    rng: np.random.Generator | None,
    device: torch.device | str = "cpu",
) -> tuple[Inputs, Targets]:
    """Assemble clips of equal length from footages that may have different numbers of views.

    Args:
        clips: What to show.
        image_size: Side of the network's crops, px.
        config: Ranges of the augmentation, width of the gate.
        rng: Draws the augmentation; None for none.
        device: Where the batch is made, pixels included.
    """
    views = max(len(footage.rig) for footage, _ in clips)
    padded = [_padded_clip(footage, at, views) for footage, at in clips]
    stacked = [np.stack(parts) for parts in zip(*padded, strict=True)]
    images, store_from_px, mask, expected_px, std_px, *labels = (torch.from_numpy(x).to(device) for x in stacked)
    lead = tuple(mask.shape)
    turn = upright_turn_rad(affine_apply(store_from_px, expected_px)) if config.upright else 0.0
    maps = np.array(np.broadcast_to(augmentation((lead[0], 1, views), config, rng, turn), (*lead, 2, 3)))
    store_from_crop = torch.from_numpy(maps).float().to(device)
    grid = F.affine_grid(store_from_crop.flatten(0, 2), [mask.numel(), 3, image_size, image_size], align_corners=False)
    flat = images.flatten(0, 2).permute(0, 3, 1, 2).float() / 255.0
    crops = F.grid_sample(flat, grid, align_corners=False).unflatten(0, lead)
    if rng is not None:
        crops = vary_colour(crops, config, rng)
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (IMAGE_MEAN, IMAGE_STD))
    crop_from_px = compose(affine_inverse(store_from_crop.double()), store_from_px)
    cameras = _padded_cameras([footage.rig for footage, _ in clips], views, lead[1]).to(device)
    std_crop = std_px * crop_from_px[..., 0, :2].norm(dim=-1)
    gate = make_gate(affine_apply(crop_from_px, expected_px), std_crop, mask, config.gate, rng)
    inputs = Inputs(((crops - mean) / std).float(), crop_from_px.float(), mask, cameras, gate)
    uv_px, weight, detected_px, detected_weight = labels
    return inputs, Targets(
        *_in_crop(crop_from_px, uv_px, weight, mask), *_in_crop(crop_from_px, detected_px, detected_weight, mask)
    )


def make_gate(
    expected_crop: Float[Tensor, "B T V J 2"],
    std_crop: Float[Tensor, "B T V"],
    mask: Bool[Tensor, "B T V"],
    sigma: float,
    rng: np.random.Generator | None,
) -> Gate | None:
    """The gate of a batch; None if `sigma`, its standard deviation in crop coordinates, is 0.

    Where the labels' fit is uncertain by `std_crop`, the gate is wider: the two variances add up.

    In training (`rng` given) its centre is drawn from the very Gaussian that the gate is. The network then learns what
    the images show, and not to copy the centre, which in training would be the right answer. A share of the clips has
    no gate, and no gate is wider, since only frames that the labels place are learned from.
    """
    if sigma <= 0:
        return None
    if rng is None:
        return Gate(expected_crop.float(), (mask / (sigma**2 + std_crop**2)).float())
    precision = mask / sigma**2
    centre = expected_crop + sigma * torch.from_numpy(rng.standard_normal(tuple(expected_crop.shape))).to(mask.device)
    kept = torch.from_numpy(rng.random((len(mask), 1, 1)) >= GATE_DROPOUT).to(mask.device)
    return Gate(centre.float(), (precision * kept).float())


def _in_crop(crop_from_px: Tensor, uv_px: Tensor, weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    uv_crop = affine_apply(crop_from_px, uv_px.double()).float()
    # A label outside the crop (swapped hands, wild errors) has no place on the heatmap and teaches nothing.
    near = (uv_crop.abs() <= 1.0).all(-1)
    return torch.where(near[..., None], uv_crop, 0.0), weight * near * mask[..., None]


def _padded_clip(footage: Footage, at: np.ndarray, views: int) -> tuple[np.ndarray, ...]:
    """One clip's arrays, padded to `views` views by masked copies of the first."""
    count = len(footage.rig)
    index = np.r_[np.arange(count), np.zeros(views - count, int)]
    here = np.arange(views) < count

    def padded(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        return labels.uv_px[at][:, index], (labels.confidence[at][:, index] * here[:, None]).astype(np.float32)

    return (
        footage.images[at][:, index],
        footage.store_from_px[at][:, index],
        footage.crops.view_mask[at][:, index] & here,
        footage.crops.expected_px[at][:, index],
        footage.crops.expected_std_px[at][:, index],
        *padded(footage.labels),
        *padded(footage.detected),
    )


def _padded_cameras(rigs: list[Rig], views: int, frames: int) -> Cameras:
    """Cameras with leading axes B T V."""
    rows = []
    for rig in rigs:
        index = torch.tensor([*range(len(rig)), *([0] * (views - len(rig)))])
        rows.append([t[index].unsqueeze(0).expand(frames, *t[index].shape) for t in rig.tensors()])
    return Cameras(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
