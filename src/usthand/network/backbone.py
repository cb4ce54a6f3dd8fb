"""ResNet-18/34 with a top-down decoder. The parameters bear torchvision's names, so ImageNet weight files load."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from usthand.common.errors import UsthandError
from usthand.network.landmark_trunk import LandmarkTrunk

# What reading a file of weights raises if it is something else: a web page, a download cut short, a pickled module.
UNREADABLE = (RuntimeError, AttributeError, OSError, ValueError, TypeError, EOFError, UnpicklingError, SafetensorError)
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Float[Tensor, "n C h w"]) -> Float[Tensor, "n ..."]:
        """The block's output, smaller by its stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet(nn.Module):
    """The convolutional part of a ResNet; `width` 64 is the published size."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels_in = width
        for stage, depth in enumerate(BLOCKS[kind]):
            channels = width * 2**stage
            blocks = [BasicBlock(channels_in, channels, 1 if stage == 0 else 2)]
            blocks += [BasicBlock(channels, channels, 1) for _ in range(depth - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            channels_in = channels
        self.channels = tuple(width * 2**stage for stage in range(4))

    def forward(self, images: Float[Tensor, "n 3 S S"]) -> list[Tensor]:
        """Feature maps at strides 4, 8, 16, 32."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        maps = []
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
            maps.append(x)
        return maps

    def load_imagenet(self, path: str | Path) -> None:
        """Load a file of the common ImageNet weights (safetensors or a PyTorch state dict, read safely).

        Raises:
            UsthandError: If the file is missing, is no state dict or belongs to another network.
        """
        path = Path(path)
        if not path.is_file():
            raise UsthandError(
                f"there is no {path}", "the path of the backbone's weights is wrong", "check --backbone-weights"
            )
        try:
            safe = path.suffix == ".safetensors"
            state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
        except UNREADABLE as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsthandError(
                f"{path} does not fit the backbone ({reason})",
                "it is not a ResNet of this depth and width",
                "give the weights of the preset's ResNet (paper: ResNet-34)",
            ) from None


class Features(NamedTuple):
    """Maps that the later stages sample from."""

    fine: Float[Tensor, "n D S/4 S/4"]
    coarse: Float[Tensor, "n D S/16 S/16"]
    deep: Float[Tensor, "n C S/32 S/32"]


def make_trunk(kind: str, width: int) -> ResNet | LandmarkTrunk:
    """The part of a backbone that may have been trained elsewhere."""
    return LandmarkTrunk() if kind == "landmark" else ResNet(kind, width)


class Backbone(nn.Module):
    """A trunk and a feature pyramid (Lin et al., CVPR 2017) down to stride 4."""

    def __init__(self, kind: str, width: int, map_channels: int) -> None:
        super().__init__()
        self.trunk = make_trunk(kind, width)
        self.lateral = nn.ModuleList(nn.Conv2d(c, map_channels, 1) for c in self.trunk.channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(map_channels, map_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(map_channels), nn.ReLU()
        )
        # pyright knows the other forms of `to` only.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # a tenth to a third faster on CPUs, and on GPUs in half precision

    def forward(self, images: Float[Tensor, "n 3 S S"]) -> Features:
        """Feature maps of normalised RGB images."""
        maps = self.trunk(images.contiguous(memory_format=torch.channels_last))
        x = self.lateral[3](maps[3])
        coarse = x
        for stage in (2, 1, 0):
            x = self.lateral[stage](maps[stage]) + F.interpolate(x, size=maps[stage].shape[-2:], mode="nearest")
            if stage == 2:
                coarse = x
        return Features(self.smooth(x), coarse, maps[3])


def sample_map(feature_map: Float[Tensor, "n D h w"], uv_crop: Float[Tensor, "n N 2"]) -> Float[Tensor, "n N D"]:
    """Bilinear samples at crop coordinates; zeros outside."""
    return F.grid_sample(feature_map, uv_crop.unsqueeze(1), align_corners=False).squeeze(2).transpose(1, 2)
