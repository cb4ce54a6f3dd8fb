"""The gate: it selects the part of the heatmap near the expected joint, and the image decides within it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.networks import make_inputs, make_model, run
from usthand.capture.capture import open_capture
from usthand.data.batches import GATE_DROPOUT, make_batch, make_gate
from usthand.data.crops import CropConfig
from usthand.data.footage import footage_of
from usthand.data.prepare import fit_hand, load_hand_2d
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.geometry.affine import affine_apply
from usthand.geometry.cameras import Cameras, project
from usthand.network.heatmaps import NO_PEAK, Gate, HeatmapHead, cell_centres, soft_argmax
from usthand.training.config import PRESETS

SIDE = 48


def peak(at: tuple[float, float], height: float = 12.0) -> torch.Tensor:
    """Logits of a narrow peak on a heatmap that is flat elsewhere."""
    axis = cell_centres(SIDE, torch.device("cpu"), torch.float64)
    distance = (axis - at[0]) ** 2 + (axis[:, None] - at[1]) ** 2
    return height * torch.exp(-0.5 * distance / 0.03**2)


def gate_at(x: float, y: float, sigma: float) -> torch.Tensor:
    return Gate(
        torch.tensor([[[[[x, y]]]]], dtype=torch.float64), torch.tensor([[[1 / sigma**2]]], dtype=torch.float64)
    ).log(SIDE)[0, 0, 0, 0]


def test_a_gate_chooses_between_two_peaks():
    both = torch.maximum(peak((-0.5, 0.1)), peak((0.5, 0.1)))
    for x in (-0.5, 0.5):
        found = soft_argmax(both + gate_at(x + 0.06, 0.05, 0.14))
        assert (found - torch.tensor([x, 0.1])).abs().max() < 0.02


def test_within_the_gate_the_image_decides_and_without_a_peak_the_gate_does():
    """Gaussian likelihood times Gaussian prior: the product's mean is the precision-weighted mean of both."""
    axis = cell_centres(SIDE, torch.device("cpu"), torch.float64)
    s, sigma = 0.1, 0.14
    likelihood = -0.5 * ((axis - 0.2) ** 2 + (axis[:, None] + 0.1) ** 2) / s**2
    mean = (torch.tensor([0.2, -0.1]) / s**2 + torch.tensor([0.3, 0.05]) / sigma**2) / (1 / s**2 + 1 / sigma**2)
    assert (soft_argmax(likelihood + gate_at(0.3, 0.05, sigma)) - mean).abs().max() < 1e-3
    assert (soft_argmax(gate_at(0.3, 0.05, sigma)) - torch.tensor([0.3, 0.05])).abs().max() < 1e-3


def test_only_peaks_within_the_gate_count_for_the_confidence():
    head = HeatmapHead(4).double()
    torch.nn.init.zeros_(head.out.weight)
    fine = torch.zeros(1, 4, SIDE, SIDE, dtype=torch.float64)
    near, far = gate_at(0.0, 0.0, 0.14)[None, None], gate_at(40.0, 0.0, 0.14)[None, None]
    _, _, open_everywhere = head(fine, None)
    _, _, inside = head(fine, near.expand(1, 21, -1, -1))
    _, uv, outside = head(fine, far.expand(1, 21, -1, -1))
    assert torch.equal(open_everywhere, inside)
    assert torch.allclose(outside, torch.tensor(NO_PEAK).sigmoid()) and torch.isfinite(uv).all()


def test_a_gate_without_precision_is_no_gate():
    model, inputs = make_model(), make_inputs()
    shape = inputs.view_mask.shape
    idle = Gate(torch.randn(*shape, 21, 2, generator=torch.Generator().manual_seed(3)), torch.zeros(shape))
    a, b = run(model, inputs), run(model, inputs._replace(gate=idle))
    assert torch.allclose(a.hypotheses, b.hypotheses, atol=1e-6) and torch.allclose(
        a.points[-1], b.points[-1], atol=1e-5
    )
    narrow = Gate(idle.uv_crop.clamp(-0.8, 0.8), torch.full(shape, 1 / 0.05**2))
    moved = run(model, inputs._replace(gate=narrow)).views.uv_crop - narrow.uv_crop
    assert moved.abs().max() < 0.15, "a network of random weights says nothing: its joints are where the gate is"


def test_in_training_the_middle_is_drawn_from_the_gate_itself():
    expected, mask = torch.zeros(400, 1, 2, 21, 2), torch.ones(400, 1, 2, dtype=torch.bool)
    mask[:, :, 1] = False
    uncertain = torch.full((400, 1, 2), 0.3)
    gate = make_gate(expected, uncertain, mask, 0.14, np.random.default_rng(0))
    # 33,600 draws: the standard deviation is known to 0.4 %; 3 % is seven of these.
    assert abs(float(gate.uv_crop.std()) - 0.14) < 0.03 * 0.14 and abs(float(gate.uv_crop.mean())) < 0.005
    open_share = float((gate.precision[:, 0, 0] == 0).float().mean())
    assert abs(open_share - GATE_DROPOUT) < 0.09, "4 standard deviations of 400 draws"
    assert not gate.precision[:, :, 1].any(), "a masked view has none"
    assert make_gate(expected, uncertain, mask, 0.0, None) is None and PRESETS["paper"].crop.gate == 0
    used = make_gate(expected + 0.3, 0 * uncertain, mask, 0.14, None)
    assert torch.equal(used.uv_crop, expected + 0.3) and torch.allclose(
        used.precision[:, 0, 0], torch.tensor(1 / 0.14**2)
    )


def test_in_use_the_gate_is_as_much_wider_as_the_place_is_uncertain():
    """The place is off by the gate's own error and by the fit's: independent, so their variances add up."""
    mask = torch.ones(1, 2, 1, dtype=torch.bool)
    std = torch.tensor([0.0, 0.5]).view(1, 2, 1)
    gate = make_gate(torch.zeros(1, 2, 1, 21, 2), std, mask, 0.14, None)
    assert torch.allclose(gate.precision[0, :, 0], 1 / torch.tensor([0.14**2, 0.14**2 + 0.5**2]))


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    path = make_capture(tmp_path_factory.mktemp("gate") / "c", SynthConfig(views=3, frames=8, seed=3, size=128))
    capture = open_capture(path)
    hand = load_hand_2d(capture, "right")
    fit = fit_hand(hand, capture.fps)
    return footage_of(capture, hand, fit, CropConfig(), 64), fit, hand


def test_the_gate_stands_where_the_labels_fit_expects_the_hand(footage):
    """It is turned and shifted as the images are: the fit's joints, projected and mapped by the batch's crop maps."""
    made, fit, hand = footage
    cameras = hand.rig.tensors(torch.float64)
    cameras = Cameras(*(t.expand(8, *t.shape) for t in cameras))
    uv = project(cameras, torch.from_numpy(np.asarray(fit.joints_world_m, np.float64)))[0]
    at = np.arange(8)
    plain, _ = make_batch([(made, at)], 64, CropConfig(), None)
    mask = plain.view_mask[0]
    assert (plain.gate.uv_crop[0] - affine_apply(plain.crop_from_px[0].double(), uv))[mask].abs().max() < 1e-4
    config = CropConfig(rotation_deg=90.0)
    turned, _ = make_batch([(made, at)], 64, config, np.random.default_rng(1))
    off = (turned.gate.uv_crop[0] - affine_apply(turned.crop_from_px[0].double(), uv))[mask]
    assert off.std() < 1.2 * config.gate, "it turns with the image; what is left is the noise of training"
    none, _ = make_batch([(made, at)], 64, replace(config, gate=0.0), None)
    assert none.gate is None
