"""Stage 2: the joint graph. Two features for each joint of a view, and graph convolutions over its joints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from usthand.hand.skeleton import N_JOINTS
from usthand.network.backbone import Features, sample_map


class JointFeatures(nn.Module):
    """Two features per joint: spatially aware (SAIGB of HaMuCo) and joint-aligned; concatenated and projected."""

    def __init__(
        self, deep_channels: int, deep_side: int, map_channels: int, width: int, group_channels: int = 8
    ) -> None:
        super().__init__()
        self.group = nn.Conv2d(deep_channels, N_JOINTS * group_channels, 1)
        self.aligned = nn.Linear(2 * map_channels, width)
        self.spatial = nn.Linear(group_channels * deep_side**2, width)
        self.mix = nn.Linear(2 * width, width)
        self.joint_code = nn.Parameter(torch.randn(N_JOINTS, width) * 0.02)

    def forward(self, features: Features, uv_crop: Float[Tensor, "n J 2"]) -> Float[Tensor, "n J D"]:
        """Features of joints at these crop coordinates."""
        spatial = self.spatial(self.group(features.deep).unflatten(1, (N_JOINTS, -1)).flatten(2))
        samples = torch.cat((sample_map(features.fine, uv_crop), sample_map(features.coarse, uv_crop)), -1)
        return self.mix(F.relu(torch.cat((spatial, self.aligned(samples)), -1))) + self.joint_code


class AdaptiveGcn(nn.Module):
    """Graph convolution over the joints of one view; the 21x21 adjacency is learned, row-normalised, starts as I."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.adjacency = nn.Parameter(torch.eye(N_JOINTS))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "*b J D"]) -> Float[Tensor, "*b J D"]:
        """One residual layer."""
        adjacency = self.adjacency / self.adjacency.abs().sum(-1, keepdim=True).clamp_min(1e-6)
        return x + F.gelu(self.linear(adjacency @ self.norm(x)))
