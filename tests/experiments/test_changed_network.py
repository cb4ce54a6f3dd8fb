"""Changes of the shipped network: each part is really out, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.networks import make_inputs, run
from usthand.capture.capture import open_capture
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.experiments.bench.changed_network import CHANGES, Change, reconstruct_changed
from usthand.geometry.cameras import project
from usthand.hand.io import load_hand
from usthand.network.config import TINY
from usthand.network.model import UstHand
from usthand.reconstruction.inference import observations
from usthand.reconstruction.reconstruct import ReconstructConfig, reconstruct, reconstruct_all
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


MIDDLE = slice(TINY.image_size // 4, -TINY.image_size // 4)  # of a crop, which has black corners where it is turned
PARTS = [name for name in CHANGES if name.startswith("without-") and name != "without-gate"] + ["with-1-block"]


@pytest.mark.parametrize("change", PARTS)
def test_a_part_is_out_and_what_comes_before_it_is_as_it_was(inputs, change):
    whole, less = shipped(), shipped()
    CHANGES[change].model(less)
    before, after = run(whole, inputs), run(less, inputs)
    assert not torch.equal(before.points[-1], after.points[-1]) or change == "without-stpt"
    assert torch.equal(before.views.logits, after.views.logits), "heatmaps come first"
    late = change.removeprefix("without-") in ("fusion", "stpt", "spatial", "temporal", "cross", "with-1-block")
    assert torch.equal(before.cloud.query, after.cloud.query) == late
    assert torch.isfinite(after.points[-1]).all()


def test_without_stpt_points_stay_where_they_were_triangulated(inputs):
    model = shipped()
    CHANGES["without-stpt"].model(model)
    after = run(model, inputs)
    assert torch.equal(after.points[-1], after.cloud.query) and not torch.equal(
        run(shipped(), inputs).points[-1], after.cloud.query
    )


def test_one_block_gives_what_the_first_of_two_gave(inputs):
    whole, less = shipped(), shipped()
    CHANGES["with-1-block"].model(less)
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
    monkeypatch.setitem(CHANGES, "nothing", Change())
    mine = reconstruct_changed("nothing", capture)
    known = reconstruct(capture, config=ReconstructConfig(answer="network"))
    assert np.allclose(mine.joints_world_m, known.joints_world_m) and np.allclose(
        mine.vertices_world_m, known.vertices_world_m
    )


def test_without_the_gate_the_network_gets_none_and_blind_it_gets_no_picture(capture, monkeypatch):
    seen = {}
    real = UstHand.forward

    def spy(model, inputs, noise):
        seen["gate"], seen["spread"] = (
            inputs.gate,
            float(inputs.images[inputs.view_mask][..., MIDDLE, MIDDLE].std((-1, -2)).max()),
        )
        return real(model, inputs, noise)

    monkeypatch.setattr(UstHand, "forward", spy)
    for change, gated, blind in (("without-gate", False, False), ("blind", True, True), ("triangulated", True, False)):
        reconstruct_changed(change, capture)
        assert (seen["gate"] is not None) == gated
        assert (seen["spread"] < 1e-6) == blind  # of a channel within a crop


def test_triangulated_points_are_where_the_views_place_them(capture):
    """Reprojected, they lie nearer to the 2D estimates, weighed by their precision, than the refined points do."""
    both = {name: reconstruct_changed(name, capture).joints_world_m for name in ("triangulated", "without-stpt")}
    estimates = reconstruct_all(capture).estimates
    precision = observations(estimates).precision[:, 0]

    def misfit(points):
        uv_px = np.stack([project(capture.rig.tensors(torch.float64), torch.from_numpy(p))[0] for p in points])
        apart = uv_px - estimates.uv_px
        return np.einsum("tvji,tvjik,tvjk->tj", apart, precision, apart)

    assert np.mean(misfit(both["triangulated"]) <= misfit(both["without-stpt"]) + 1e-6) > 0.99
