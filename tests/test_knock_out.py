"""Parts taken out of the shipped network: each is really out, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_network import make_inputs, run

from usthand.bench.knock_out import PARTS, answer_without
from usthand.capture import open_capture
from usthand.checkpoint import SHIPPED, load_checkpoint
from usthand.hand.files import load_hand
from usthand.network.model import TINY
from usthand.reconstruct import reconstruct
from usthand.synthetic.write import SynthConfig, make_capture


def shipped():
    return load_checkpoint(SHIPPED, load_hand())[0]


@pytest.fixture(scope="module")
def inputs():
    return make_inputs(size=TINY.image_size)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_out_and_what_comes_before_it_is_as_it_was(inputs, part):
    whole, less = shipped(), shipped()
    PARTS[part](less)
    before, after = run(whole, inputs), run(less, inputs)
    assert not torch.equal(before.points[-1], after.points[-1]) or part == "stpt"
    assert torch.equal(before.views.logits, after.views.logits), "heatmaps come first"
    late = part in ("fusion", "stpt", "spatial", "temporal", "cross")
    assert torch.equal(before.cloud.query, after.cloud.query) == late
    assert torch.isfinite(after.points[-1]).all()


def test_without_stpt_points_stay_where_they_were_triangulated(inputs):
    model = shipped()
    PARTS["stpt"](model)
    after = run(model, inputs)
    assert torch.equal(after.points[-1], after.cloud.query) and not torch.equal(run(shipped(), inputs).points[-1], after.cloud.query)


def test_with_nothing_taken_out_it_is_the_networks_answer(tmp_path, monkeypatch):
    capture = open_capture(make_capture(tmp_path / "c", SynthConfig(views=3, frames=8, size=128, seed=6, labels="exact"), progress=False))
    monkeypatch.setitem(PARTS, "nothing", lambda model: None)
    mine, known = answer_without("nothing", capture), reconstruct(capture, SHIPPED, "right", answer="network")
    assert np.allclose(mine.joints_world_m, known.joints_world_m) and np.allclose(mine.vertices_world_m, known.vertices_world_m)
