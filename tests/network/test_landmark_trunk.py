"""The landmark trunk against TensorFlow Lite, and its padding against the definition of SAME."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from landmark_reference import pattern
from usthand.network.backbone import Backbone
from usthand.network.landmark_trunk import MAP_AFTER, STRIDES, LandmarkTrunk, SameConv
from usthand.training.checkpoint import landmark_weights

REFERENCE = Path(__file__).parent / "data" / "landmark_reference.npz"  # tools/landmark_reference.py


@pytest.fixture(scope="module")
def trunk():
    module = LandmarkTrunk().eval()
    module.load_state_dict(landmark_weights())
    return module


def test_it_computes_what_tensorflow_lite_does(trunk):
    image = torch.from_numpy(pattern()).permute(2, 0, 1)[None]
    with torch.no_grad():
        maps = trunk((image - trunk.mean) / trunk.std)
    with np.load(REFERENCE) as reference:
        for stride, found in zip(STRIDES, (m[0].double().numpy() for m in maps), strict=True):
            wanted = reference[f"stride{stride}"]
            ours = np.stack([found.mean((1, 2)), found.max((1, 2)), found[:, 0, 0], found[:, -1, -1]])
            assert ours.shape == wanted.shape
            # Sums of up to 1152 products in single precision, in another order, through 33 layers.
            assert np.abs(ours - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 2, 8), (5, 2, 8), (3, 1, 5), (5, 1, 6)])
def test_padding_is_tensorflows_same(kernel, stride, side):
    """TensorFlow: out = ceil(in / stride), total = max((out - 1) stride + kernel - in, 0), the smaller half first."""
    torch.manual_seed(0)
    layer, x = SameConv(2, 3, kernel, stride), torch.randn(1, 2, side, side)
    out = -(-side // stride)
    total = max((out - 1) * stride + kernel - side, 0)
    before = total // 2
    padded = F.pad(x, (before, total - before) * 2)
    wanted = F.conv2d(padded, layer.weight, layer.bias, stride)
    assert wanted.shape[-1] == out
    torch.testing.assert_close(layer(x), wanted)


@pytest.mark.parametrize("side", [64, 96, 128])
def test_maps_have_their_strides_at_any_side(trunk, side):
    maps = trunk(torch.randn(1, 3, side, side))
    assert [m.shape[-1] for m in maps] == [side // stride for stride in STRIDES]
    assert tuple(m.shape[1] for m in maps) == trunk.channels


def test_fixed_layers_are_those_up_to_the_stride():
    backbone = Backbone("landmark", 0, 16)
    backbone.trunk.fix(8)
    fixed = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    wanted = {"trunk.stem.", *(f"trunk.blocks.{i}." for i in range(MAP_AFTER[1] + 1))}
    assert fixed and all(any(name.startswith(prefix) for prefix in wanted) for name in fixed)
    assert {name for name, _ in backbone.named_parameters() if name.startswith(tuple(wanted))} == fixed
    backbone(torch.randn(1, 3, 64, 64)).fine.sum().backward()
    moved = {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert not moved & fixed and any(name.startswith("trunk.blocks.15") for name in moved)
