"""Stages 1 to 3 together: what each view sees by itself, then with the knowledge of the other views."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from usthand.hand.skeleton import N_JOINTS
from usthand.network.backbone import Features
from usthand.network.confidence_attention import ConfidenceAttention
from usthand.network.config import ModelConfig
from usthand.network.heatmaps import Gate, HeatmapHead
from usthand.network.joint_graph import AdaptiveGcn, JointFeatures


class ViewEstimates(NamedTuple):
    """2D estimates of each view, and joint features fused over the views."""

    logits: Float[Tensor, "B T V J h h"]
    """Of the heatmaps, without the gate."""
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


class Views(nn.Module):
    """Heatmaps, joint features, then attention across views and graph convolution within them in turn."""

    def __init__(self, config: ModelConfig, deep_channels: int, deep_side: int) -> None:
        super().__init__()
        width, layers = config.graph_width, config.graph_layers
        self.use_confidence = config.use_confidence
        self.heatmap_head = HeatmapHead(config.map_channels)
        self.joint_features = JointFeatures(deep_channels, deep_side, config.map_channels, width)
        attention = (ConfidenceAttention(width, config.heads) for _ in range(layers if config.use_casa else 0))
        self.attention = nn.ModuleList(attention)
        self.gcn = nn.ModuleList(AdaptiveGcn(width) for _ in range(layers if config.use_gcn else 0))

    def forward(self, features: Features, view_mask: Bool[Tensor, "B T V"], gate: Gate | None = None) -> ViewEstimates:
        """Estimates from the feature maps of all views (n = B T V)."""
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
        return ViewEstimates(*(t.unflatten(0, (batch, frames, views)) for t in (logits, uv_crop, confidence, x)))
