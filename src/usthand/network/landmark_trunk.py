"""The convolutional trunk of MediaPipe's hand landmark model, which was trained on real hands.

An EfficientNet-like stack of inverted residuals (Sandler et al., CVPR 2018) without normalisation layers: those are
folded into the convolutions. `tools/landmark_weights.py` reads its weights from MediaPipe's wheel (Apache-2.0).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STEM = 24
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # undone: the trunk takes RGB from 0 to 1


class Block(NamedTuple):
    """Sizes of one inverted residual."""

    expanded: int
    """Channels within; those of the input for none."""
    out: int
    """Channels after the projection; 0 for none."""
    kernel: int
    stride: int


BLOCKS = (
    Block(24, 16, 3, 1),
    Block(64, 24, 3, 2),
    Block(144, 24, 3, 1),
    Block(144, 40, 5, 2),
    Block(240, 40, 5, 1),
    Block(240, 80, 3, 2),
    Block(480, 80, 3, 1),
    Block(480, 80, 3, 1),
    Block(480, 112, 5, 1),
    Block(672, 112, 5, 1),
    Block(672, 112, 5, 1),
    Block(672, 192, 5, 2),
    Block(1152, 192, 5, 1),
    Block(1152, 192, 5, 1),
    Block(1152, 192, 5, 1),
    Block(1152, 0, 3, 1),
)
MAP_AFTER = (2, 4, 10, 15)
"""Blocks whose outputs are the feature maps."""
STRIDES = (4, 8, 16, 32)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: where the padding is odd, the larger half is right and below."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        even = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(channels_in, channels_out, kernel, stride, even, groups=groups)

    def forward(self, input: Float[Tensor, "n C h w"]) -> Float[Tensor, "n D H W"]:
        """The convolution; sides must be multiples of the stride."""
        if self.stride[0] > 1:
            total = self.kernel_size[0] - self.stride[0]
            input = F.pad(input, (total // 2, total - total // 2) * 2)
        return super().forward(input)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a shortcut where the shapes allow."""

    def __init__(self, channels_in: int, block: Block) -> None:
        super().__init__()
        inner = block.expanded
        self.expand = SameConv(channels_in, inner, 1) if inner != channels_in else None
        self.depthwise = SameConv(inner, inner, block.kernel, block.stride, groups=inner)
        self.project = SameConv(inner, block.out, 1) if block.out else None
        self.shortcut = block.stride == 1 and block.out == channels_in

    def forward(self, x: Float[Tensor, "n C h w"]) -> Float[Tensor, "n D H W"]:
        """The block's output, smaller by its stride."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = F.relu6(self.depthwise(y))
        if self.project is not None:
            y = self.project(y)
        return x + y if self.shortcut else y


class LandmarkTrunk(nn.Module):
    """The trunk, at any crop side that is a multiple of 32."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM, 3, 2)
        blocks, channels = [], STEM
        for block in BLOCKS:
            blocks.append(InvertedResidual(channels, block))
            channels = block.out or block.expanded
        self.blocks = nn.ModuleList(blocks)
        self.channels = tuple(BLOCKS[i].out or BLOCKS[i].expanded for i in MAP_AFTER)
        for name, values in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def fix(self, stride: int) -> None:
        """Take the layers up to a stride (4, 8, 16 or 32) out of the training."""
        last = MAP_AFTER[STRIDES.index(stride)]
        for layer in (self.stem, *self.blocks[: last + 1]):
            layer.requires_grad_(False)

    def forward(self, images: Float[Tensor, "n 3 S S"]) -> list[Tensor]:
        """Feature maps of normalised RGB images at strides 4, 8, 16, 32."""
        x = F.relu6(self.stem(images * self.std + self.mean))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in MAP_AFTER:
                maps.append(x)
        return maps
