"""Stage 1: heatmaps, from which a view's 2D joints and their confidence are read."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from usthand.hand.skeleton import N_JOINTS

LOG_GATE_EDGE = -2.0  # two standard deviations: where a gate ends for the confidence
NO_PEAK = -8.0  # logit of the confidence where the gate lies outside the crop
START_LOGIT = -4.0  # heatmaps start near zero (sigmoid(-4) = 0.02), as most of a Gaussian target is


class Gate(NamedTuple):
    """A Gaussian around the place where each joint is expected; it suppresses peaks of the heatmap far from there.

    It is a prior, and the heatmap is the likelihood that it multiplies. It is wide, so the image decides within it.
    """

    uv_crop: Float[Tensor, "B T V J 2"]
    """Its centre, crop coordinates."""
    precision: Float[Tensor, "B T V"]
    """1 / variance; 0 for no gate."""

    def log(self, side: int) -> Float[Tensor, "B T V J h h"]:
        """Logarithm of the Gaussian, 0 at its centre, at the cells of a heatmap."""
        axis = cell_centres(side, self.uv_crop.device, self.uv_crop.dtype)
        x, y = (-0.5 * (axis - c.unsqueeze(-1)) ** 2 for c in self.uv_crop.unbind(-1))
        return (y.unsqueeze(-1) + x.unsqueeze(-2)) * self.precision[..., None, None, None]


def cell_centres(side: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "h"]:
    """Crop coordinates of the centres of a map's cells along one axis."""
    return (2 * torch.arange(side, device=device, dtype=dtype) + 1) / side - 1


def soft_argmax(logits: Float[Tensor, "*b h h"]) -> Float[Tensor, "*b 2"]:
    """The mean of the softmax-normalised heatmap, crop coordinates (Sun et al., ECCV 2018)."""
    side = logits.shape[-1]
    p = logits.flatten(-2).softmax(-1).unflatten(-1, (side, side))
    axis = cell_centres(side, logits.device, logits.dtype)
    return torch.stack(((p.sum(-2) * axis).sum(-1), (p.sum(-1) * axis).sum(-1)), -1)


class HeatmapHead(nn.Module):
    """One heatmap per joint, whose logits are read in two ways.

    The softmax over the crop (normalised) gives the coordinate, the sigmoid (unnormalised) the confidence.
    """

    def __init__(self, map_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(map_channels, map_channels, 3, 1, 1), nn.ReLU())
        self.out = nn.Conv2d(map_channels, N_JOINTS, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        self.out.bias = nn.Parameter(torch.full((N_JOINTS,), START_LOGIT))

    def forward(
        self, fine: Float[Tensor, "n D h h"], log_gate: Float[Tensor, "n J h h"] | None
    ) -> tuple[Float[Tensor, "n J h h"], Float[Tensor, "n J 2"], Float[Tensor, "n J"]]:
        """Logits, 2D joints in crop coordinates, and confidence from 0 to 1; the last two within the gate."""
        logits = self.out(self.body(fine)).float()
        if log_gate is None:
            return logits, soft_argmax(logits), logits.amax((-1, -2)).sigmoid()
        within = logits.masked_fill(log_gate < LOG_GATE_EDGE, -math.inf).amax((-1, -2)).clamp_min(NO_PEAK)
        return logits, soft_argmax(logits + log_gate), within.sigmoid()
