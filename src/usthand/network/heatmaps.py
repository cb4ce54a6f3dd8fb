"""Stages 1 to 3: heatmaps and confidence, the joint graph, confidence-aware attention across views (CASA)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from usthand.hand.skeleton import N_JOINTS
from usthand.network.backbone import Features, sample_map

LOG_GATE_EDGE = -2.0  # two standard deviations: where a gate ends for the confidence
NO_PEAK = -8.0  # logit of the confidence where the gate lies outside the crop
START_LOGIT = -4.0  # heatmaps start near zero (sigmoid(-4) = 0.02), as most of a Gaussian target is


class Gate(NamedTuple):
    """A Gaussian around the place where each joint is expected: peaks of the heatmap far from it are not heard.

    It is the prior that the heatmap, a likelihood, is multiplied by; wide enough that the image decides within it.
    """

    uv_crop: Float[Tensor, "B T V J 2"]
    """Its middle, crop coordinates."""
    precision: Float[Tensor, "B T V"]
    """1 / variance; 0 for no gate."""

    def log(self, side: int) -> Float[Tensor, "B T V J h h"]:
        """Logarithm of the Gaussian, 0 in its middle, at the cells of a heatmap."""
        axis = cell_centres(side, self.uv_crop.device, self.uv_crop.dtype)
        x, y = (-0.5 * (axis - c.unsqueeze(-1)) ** 2 for c in self.uv_crop.unbind(-1))
        return (y.unsqueeze(-1) + x.unsqueeze(-2)) * self.precision[..., None, None, None]


class ViewEstimates(NamedTuple):
    """What each view says by itself, then fused over the views."""

    logits: Float[Tensor, "B T V J h h"]
    """Of the heatmaps, which know no gate."""
    uv_crop: Float[Tensor, "B T V J 2"]
    """Soft-argmax within the gate, crop coordinates."""
    confidence: Float[Tensor, "B T V J"]
    """Maximum of the unnormalised heatmap within the gate, 0 to 1; 0 in a masked view."""
    joint_features: Float[Tensor, "B T V J D"]
    """F: fused across views and joints."""

    @property
    def heatmaps(self) -> Float[Tensor, "B T V J h h"]:
        """Unnormalised, 0 to 1."""
        return self.logits.sigmoid()


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
    """One heatmap per joint. The same logits give both readings of a heatmap: softmax over the crop (normalised, for
    the coordinate) and sigmoid (unnormalised, for the confidence)."""

    def __init__(self, map_channels: int):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(map_channels, map_channels, 3, 1, 1), nn.ReLU())
        self.out = nn.Conv2d(map_channels, N_JOINTS, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.constant_(self.out.bias, START_LOGIT)

    def forward(
        self, fine: Float[Tensor, "n D h h"], log_gate: Float[Tensor, "n J h h"] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.out(self.body(fine)).float()
        if log_gate is None:
            return logits, soft_argmax(logits), logits.amax((-1, -2)).sigmoid()
        within = logits.masked_fill(log_gate < LOG_GATE_EDGE, -math.inf).amax((-1, -2)).clamp_min(NO_PEAK)
        return logits, soft_argmax(logits + log_gate), within.sigmoid()


class JointFeatures(nn.Module):
    """Two features per joint: spatially aware (SAIGB of HaMuCo) and joint-aligned; concatenated and projected."""

    def __init__(self, deep_channels: int, deep_side: int, map_channels: int, width: int, group_channels: int = 8):
        super().__init__()
        self.group = nn.Conv2d(deep_channels, N_JOINTS * group_channels, 1)
        self.aligned = nn.Linear(2 * map_channels, width)
        self.spatial = nn.Linear(group_channels * deep_side**2, width)
        self.mix = nn.Linear(2 * width, width)
        self.joint_code = nn.Parameter(torch.randn(N_JOINTS, width) * 0.02)

    def forward(self, features: Features, uv_crop: Float[Tensor, "n J 2"]) -> Float[Tensor, "n J D"]:
        spatial = self.spatial(self.group(features.deep).unflatten(1, (N_JOINTS, -1)).flatten(2))
        samples = torch.cat((sample_map(features.fine, uv_crop), sample_map(features.coarse, uv_crop)), -1)
        return self.mix(F.relu(torch.cat((spatial, self.aligned(samples)), -1))) + self.joint_code


class AdaptiveGcn(nn.Module):
    """Graph convolution over the joints of one view; the 21x21 adjacency is learned, row-normalised, starts as I."""

    def __init__(self, width: int):
        super().__init__()
        self.adjacency = nn.Parameter(torch.eye(N_JOINTS))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "*b J D"]) -> Float[Tensor, "*b J D"]:
        adjacency = self.adjacency / self.adjacency.abs().sum(-1, keepdim=True).clamp_min(1e-6)
        return x + F.gelu(self.linear(adjacency @ self.norm(x)))


class ConfidenceAttention(nn.Module):
    """CASA: self-attention over the tokens of all views and joints; Q, K and V all see [feature; confidence]."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width + 1, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, x: Float[Tensor, "n tokens D"], confidence: Float[Tensor, "n tokens"], mask: Bool[Tensor, "n tokens"]
    ) -> Float[Tensor, "n tokens D"]:
        graph = torch.cat((self.norm(x), confidence.unsqueeze(-1)), -1)
        q, k, v = self.qkv(graph).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # A frame without any view would have an empty softmax: it attends to all its (masked) tokens and is ignored later.
        allowed = mask | ~mask.any(-1, keepdim=True)
        fused = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None, None, :])
        x = x + self.out(fused.transpose(1, 2).flatten(-2))
        return x + self.feed(x)


class Views(nn.Module):
    """From feature maps to joint features that know the other views."""

    def __init__(
        self,
        deep_channels: int,
        deep_side: int,
        map_channels: int,
        width: int,
        heads: int,
        layers: int,
        use_confidence: bool = True,
        use_casa: bool = True,
        use_gcn: bool = True,
    ):
        super().__init__()
        self.use_confidence = use_confidence
        self.heatmap_head = HeatmapHead(map_channels)
        self.joint_features = JointFeatures(deep_channels, deep_side, map_channels, width)
        self.attention = nn.ModuleList(ConfidenceAttention(width, heads) for _ in range(layers if use_casa else 0))
        self.gcn = nn.ModuleList(AdaptiveGcn(width) for _ in range(layers if use_gcn else 0))

    def forward(self, features: Features, view_mask: Bool[Tensor, "B T V"], gate: Gate | None = None) -> ViewEstimates:
        batch, frames, views = view_mask.shape
        log_gate = None if gate is None else gate.log(features.fine.shape[-1]).flatten(0, 2)
        logits, uv_crop, confidence = self.heatmap_head(features.fine, log_gate)
        x = self.joint_features(features, uv_crop)
        if not self.use_confidence:
            confidence = torch.ones_like(confidence)
        mask = view_mask.flatten().unsqueeze(-1).expand(-1, N_JOINTS)
        confidence = confidence * mask
        tokens = (batch * frames, views * N_JOINTS)
        for layer in range(max(len(self.attention), len(self.gcn))):
            if layer < len(self.attention):
                x = self.attention[layer](x.reshape(*tokens, -1), confidence.reshape(tokens), mask.reshape(tokens))
                x = x.reshape(batch * frames * views, N_JOINTS, -1)
            if layer < len(self.gcn):
                x = self.gcn[layer](x)
        lead = (batch, frames, views)
        return ViewEstimates(
            logits.unflatten(0, lead), uv_crop.unflatten(0, lead), confidence.unflatten(0, lead), x.unflatten(0, lead)
        )
