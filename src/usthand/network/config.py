"""Sizes and switches of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of the network; the defaults are those of the preset `resnet`."""

    backbone: Literal["resnet18", "resnet34", "landmark"] = "resnet18"
    """A ResNet, or the trunk of MediaPipe's landmark model."""
    width: int = 24
    """Channels of a ResNet's first stage; 64 is the published one."""
    image_size: int = 96
    """Side of the square crops, px; a multiple of 32."""
    map_channels: int = 40
    graph_width: int = 96
    graph_layers: int = 2
    heads: int = 4
    flow: Literal["joint", "hand", "none"] = "joint"
    """`joint`: a 2-D flow shared by the joints; `hand`: one 42-D flow per view; `none`: the heatmap's own estimate."""
    couplings: int = 4
    flow_hidden: int = 64
    hypotheses_train: int = 4
    hypotheses: int = 16
    point_width: int = 48
    blocks: int = 2
    neighbours: int = 16
    window: int = 3
    """Frames that a frame's temporal attention reaches, itself included; odd."""
    attention: tuple[Literal["spatial", "temporal", "cross"], ...] = ("spatial", "temporal", "cross")
    use_confidence: bool = True
    use_casa: bool = True
    use_gcn: bool = True
    use_fusion: bool = True


THIN = ModelConfig()
TINY = ModelConfig(backbone="landmark", image_size=128)
PAPER = ModelConfig(
    backbone="resnet34",
    width=64,
    image_size=256,
    map_channels=128,
    graph_width=1024,
    couplings=6,
    flow_hidden=128,
    hypotheses_train=16,
    hypotheses=32,
    point_width=256,
    blocks=4,
    window=5,
)
