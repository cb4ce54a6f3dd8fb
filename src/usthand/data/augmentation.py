"""Variation of crops in training: turns, scales and shifts, which the cameras follow, and colours."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from usthand.data.crops import STORE_MARGIN, CropConfig

WRIST, MIDDLE_KNUCKLE = 0, 9


def augmentation(
    shape: tuple[int, ...],
    config: CropConfig,
    rng: np.random.Generator | None,
    turn_rad: Float[np.ndarray, "*#b"] | float = 0.0,
) -> Float[np.ndarray, "*b 2 3"]:
    """Affine maps from the network's crop to the stored crop; without `rng` its centre.

    Args:
        shape: The leading axes, b.
        config: Ranges.
        rng: Draws the variation; None for none.
        turn_rad: A further turn of each crop, about its middle.
    """
    base = 1.0 / STORE_MARGIN
    angle, scale, shift = np.zeros(shape), np.full(shape, base), np.zeros((*shape, 2))
    if rng is not None:
        angle = np.deg2rad(rng.uniform(-config.rotation_deg, config.rotation_deg, shape))
        scale = base * rng.uniform(*config.scale, shape)
        shift = 2 * base * rng.uniform(-config.shift, config.shift, (*shape, 2))
    c, s = scale * np.cos(angle + turn_rad), scale * np.sin(angle + turn_rad)
    shift = np.broadcast_to(shift, (*c.shape, 2))
    return np.stack((np.stack((c, -s, shift[..., 0]), -1), np.stack((s, c, shift[..., 1]), -1)), -2)


def upright_turn_rad(expected: Float[Tensor, "*b J 2"]) -> Float[np.ndarray, "*b"]:
    """By how much a crop has to be turned for the hand to point up in it: from its wrist to its middle knuckle."""
    along = (expected[..., MIDDLE_KNUCKLE, :] - expected[..., WRIST, :]).cpu().numpy()
    return np.arctan2(along[..., 0], -along[..., 1])


def compose(outer: Float[Tensor, "*b 2 3"], inner: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b 2 3"]:
    """The affine map that applies `inner`, then `outer`."""
    linear = outer[..., :2] @ inner[..., :2]
    return torch.cat((linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]), -1)


def vary_colour(
    images: Float[Tensor, "B T V 3 S S"], config: CropConfig, rng: np.random.Generator
) -> Float[Tensor, "B T V 3 S S"]:
    """Brightness, contrast and white balance: one draw for all the frames of a clip's view."""
    batch, _, views = images.shape[:3]
    gain = torch.from_numpy(1 + config.colour * rng.uniform(-1, 1, (batch, 1, views, 3, 1, 1))).to(images)
    contrast = torch.from_numpy(1 + config.colour * rng.uniform(-1, 1, (batch, 1, views, 1, 1, 1))).to(images)
    mean = images.mean((-3, -2, -1), keepdim=True)
    return ((images - mean) * contrast + mean) * gain
