"""Changes of the shipped network: each part is really out, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.networks import make_inputs, run
from usthand.capture.capture import open_capture
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.experiments.bench.changed_network import CHANGES, reconstruct_changed
from usthand.hand.io import load_hand
from usthand.network.config import TINY
from usthand.network.model import UstHand
from usthand.reconstruction.reconstruct import ReconstructConfig, reconstruct
from usthand.training.checkpoint import SHIPPED, load_checkpoint


def shipped():
    return load_checkpoint(SHIPPED, load_hand())[0]


@pytest.fixture(scope="module")
def inputs():
    return make_inputs(size=TINY.image_size)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    config = SynthConfig(views=3, frames=8, size=128, seed=6, labels="exact")
    return open_capture(make_capture(tmp_path_factory.mktemp("capture") / "c", config))


@pytest.mark.parametrize("change", [name for name in CHANGES if "hypothes" not in name])
def test_a_part_is_out_and_what_comes_before_it_is_as_it_was(inputs, change):
    whole, less = shipped(), shipped()
    CHANGES[change](less)
    before, after = run(whole, inputs), run(less, inputs)
    assert not torch.equal(before.points[-1], after.points[-1]) or change == "without-stpt"
    assert torch.equal(before.views.logits, after.views.logits), "heatmaps come first"
    late = change.removeprefix("without-") in ("fusion", "stpt", "spatial", "temporal", "cross", "with-1-block")
    assert torch.equal(before.cloud.query, after.cloud.query) == late
    assert torch.isfinite(after.points[-1]).all()


def test_without_stpt_points_stay_where_they_were_triangulated(inputs):
    model = shipped()
    CHANGES["without-stpt"](model)
    after = run(model, inputs)
    assert torch.equal(after.points[-1], after.cloud.query) and not torch.equal(
        run(shipped(), inputs).points[-1], after.cloud.query
    )


def test_one_block_gives_what_the_first_of_two_gave(inputs):
    whole, less = shipped(), shipped()
    CHANGES["with-1-block"](less)
    assert torch.equal(run(less, inputs).points[-1], run(whole, inputs).points[0])


@pytest.mark.parametrize(
    ("change", "count"), [("with-1-hypothesis", 1), ("with-4-hypotheses", 4), ("with-32-hypotheses", 32)]
)
def test_so_many_hypotheses_reach_the_points(capture, monkeypatch, change, count):
    seen = set()
    real = UstHand.forward
    monkeypatch.setattr(
        UstHand, "forward", lambda model, inputs, noise: seen.add(noise.shape[-2]) or real(model, inputs, noise)
    )
    reconstruct_changed(change, capture)
    assert seen == {count} and shipped().config.hypotheses == 16


def test_with_nothing_taken_out_it_is_the_networks_result(capture, monkeypatch):
    monkeypatch.setitem(CHANGES, "nothing", lambda model: None)
    mine = reconstruct_changed("nothing", capture)
    known = reconstruct(capture, config=ReconstructConfig(answer="network"))
    assert np.allclose(mine.joints_world_m, known.joints_world_m) and np.allclose(
        mine.vertices_world_m, known.vertices_world_m
    )
