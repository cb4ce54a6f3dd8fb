"""Small networks and random inputs for them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from usthand.geometry.cameras import Cameras
from usthand.hand.io import load_hand
from usthand.network.config import ModelConfig
from usthand.network.model import Inputs, Prediction, UstHand

SMALL = ModelConfig(
    width=8,
    image_size=64,
    map_channels=16,
    graph_width=32,
    flow_hidden=16,
    couplings=2,
    point_width=32,
    hypotheses_train=3,
)


def make_cameras(views: int) -> Cameras:
    """On a circle of 0.7 m around the origin, looking at it."""
    rows = []
    for k in range(views):
        turn = Rotation.from_euler("yx", [2 * np.pi * k / views + 0.3, 0.4 * (-1) ** k]).as_matrix()
        rows.append(np.c_[turn, [0, 0, 0.7]])
    intrinsics = torch.tensor([[300.0, 300, 128, 128]]).expand(views, 4)
    distortion = torch.tensor([[-0.1, 0.02, 0.001, 0.002, *[0] * 8]]).expand(views, 12)
    return Cameras(torch.tensor(np.stack(rows)).float(), intrinsics, distortion, torch.zeros(views, dtype=torch.long))


def make_inputs(batch: int = 2, frames: int = 3, views: int = 3, seed: int = 0, size: int = 64) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, frames, views, 3, size, size, generator=generator)
    crop = torch.zeros(batch, frames, views, 2, 3)
    crop[..., 0, 0] = crop[..., 1, 1] = 2 / 150.0
    crop[..., 2] = -128 * 2 / 150.0
    cameras = Cameras(*(t.expand(batch, frames, *t.shape) for t in make_cameras(views)))
    return Inputs(images, crop, torch.ones(batch, frames, views, dtype=torch.bool), cameras)


def make_model(config: ModelConfig = SMALL) -> UstHand:
    """Random weights everywhere, those that start at zero too, or half of the network would not be tested."""
    torch.manual_seed(0)
    model = UstHand(config, load_hand())
    for name, parameter in model.named_parameters():
        if parameter.abs().max() == 0 or "out." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def run(model: UstHand, inputs: Inputs) -> Prediction:
    """With the same noise in every view, as the reconstruction has it."""
    shape = model.noise_shape(inputs, 3)
    noise = torch.randn(shape[-2:], generator=torch.Generator().manual_seed(1)).expand(shape)
    with torch.no_grad():
        return model(inputs, noise)
