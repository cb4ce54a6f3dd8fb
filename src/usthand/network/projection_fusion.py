"""Stage 6: projection fusion. A 3D point gets its feature from what the views show where it projects."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from usthand.geometry.cameras import Cameras
from usthand.network.backbone import Features, sample_map
from usthand.network.point_cloud import project_to_crops

CODE_OCTAVES = 4


class ViewEvidence(NamedTuple):
    """Features and 2D estimates of every view, with which points are compared."""

    features: Features
    uv_crop: Float[Tensor, "B T V J 2"]
    confidence: Float[Tensor, "B T V J"]
    view_mask: Bool[Tensor, "B T V"]
    cameras: Cameras
    crop_from_px: Float[Tensor, "B T V 2 3"]


def sinusoidal_code(x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 16"]:
    """Sine and cosine of pi 2^k x for both coordinates."""
    angles = x.unsqueeze(-1) * (math.pi * 2.0 ** torch.arange(CODE_OCTAVES, device=x.device, dtype=x.dtype))
    return torch.cat((angles.sin(), angles.cos()), -1).flatten(-2)


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with GELU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class ProjectionFusion(nn.Module):
    """A point's feature: samples of the views' maps, fused by a learned, masked weighting of the views.

    Each view gives the published image feature and position code. Beyond the paper, it also gives the point's offset
    from that view's own 2D estimate of its joint, and the view's confidence.
    """

    def __init__(self, map_channels: int, width: int) -> None:
        super().__init__()
        self.per_view = mlp(2 * map_channels + 4 * CODE_OCTAVES + 3, width, width)
        self.score = nn.Linear(width, 1)
        self.bottleneck = mlp(width, width // 2, width)

    def forward(
        self, points: Float[Tensor, "B T N 3"], joint: Int[Tensor, "N"], evidence: ViewEvidence
    ) -> Float[Tensor, "B T N D"]:
        """Features of points; `joint` says which joint each of them stands for."""
        uv = project_to_crops(evidence.cameras, evidence.crop_from_px, points)
        flat = uv.flatten(0, 2)
        samples = torch.cat((sample_map(evidence.features.fine, flat), sample_map(evidence.features.coarse, flat)), -1)
        offset = uv - evidence.uv_crop[..., joint, :]
        confidence = evidence.confidence[..., joint].unsqueeze(-1)
        x = torch.cat((samples.unflatten(0, uv.shape[:3]), sinusoidal_code(uv), offset, confidence), -1)
        x = self.per_view(x)
        masked = evidence.view_mask[..., None, None]
        weight = self.score(x).masked_fill(~masked, -1e4).softmax(2)
        return self.bottleneck((weight * x * masked).sum(2))
