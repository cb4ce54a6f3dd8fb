"""The weights in the package: what they are made of, that they load, and that they find hands they have not seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.metrics import evaluate_truth
from usthand.evaluation.truth import load_truth
from usthand.experiments import pretrain as pretraining
from usthand.experiments.pretrain import FIRST_SEED, PretrainConfig, capture_config, export_weights, pretraining_preset
from usthand.geometry.cameras import project
from usthand.hand.io import load_hand
from usthand.network.config import PAPER, TINY
from usthand.reconstruction.reconstruct import reconstruct_all
from usthand.training.checkpoint import CONFIG, SHIPPED, WEIGHTS, landmark_weights, load_checkpoint, shipped_weights
from usthand.training.config import PRESETS, OptimisationConfig, Preset, from_nothing
from usthand.training.loop import start_training

MOST_BYTES = 15e6


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """A rig, subject, room and motion of a seed that no pretraining uses."""
    path = tmp_path_factory.mktemp("pretrain") / "unseen"
    return make_capture(path, SynthConfig(views=4, frames=24, labels="exact", seed=77))


def test_seeds_are_far_from_those_of_demos_and_benchmarks():
    config = PretrainConfig(out=Path())
    seeds = [capture_config(index, config).seed for index in range(config.captures)]
    assert len(set(seeds)) == config.captures and min(seeds) == FIRST_SEED >= 10_000
    kinds = {(c.objects, c.layout, c.fps) for c in (capture_config(index, config) for index in range(12))}
    assert len(kinds) >= 6, "objects, layouts and frame rates vary"


def test_shipped_weights_are_small_and_fit_the_preset():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < MOST_BYTES
    model, _, data = load_checkpoint(SHIPPED, load_hand())
    assert model.config == PRESETS["tiny"].model == TINY
    assert data["preset"]["train"]["targets"] == "labels" and data["crop"]["gate"] > 0
    with pytest.raises(UsthandError, match="--from-scratch"):
        shipped_weights(PAPER)


def test_a_training_starts_from_them_or_from_nothing(tmp_path):
    tiny = PRESETS["tiny"]
    state = start_training(tiny, [], [], tmp_path)
    weights = shipped_weights(TINY)
    assert all(torch.equal(value, weights[name]) for name, value in state.model.state_dict().items())
    known = landmark_weights()
    fresh = start_training(from_nothing(tiny), [], [], tmp_path).model.state_dict()
    assert all(torch.equal(fresh[f"backbone.trunk.{name}"], value) for name, value in known.items())
    others = {name for name in weights if not name.startswith("backbone.trunk.") and weights[name].ndim > 1}
    assert not any(torch.equal(fresh[name], weights[name]) for name in others)
    early = [name for name in known if name.startswith(("stem.", "blocks.0.", "blocks.4."))]
    assert early and all(torch.equal(weights[f"backbone.trunk.{name}"], known[name]) for name in early), "fixed"
    assert not torch.equal(weights["backbone.trunk.blocks.15.expand.weight"], known["blocks.15.expand.weight"])


@pytest.mark.slow
def test_unadapted_they_find_an_unseen_hand(unseen):
    """Without training: 2D within a fifteenth of the hand's size in the median, joints and mesh within centimetres."""
    capture = open_capture(unseen)
    truth = load_truth(capture.path, "right")
    both = reconstruct_all(capture, SHIPPED, "right")
    cameras = capture.rig.tensors(torch.float64)
    exact = torch.stack([project(cameras, torch.from_numpy(j).double())[0] for j in truth.joints_world_m]).numpy()
    size = np.median((exact.max(2) - exact.min(2)).max(-1))
    seen = both.estimates.confidence > 0
    error = np.linalg.norm(both.estimates.uv_px - exact, axis=-1)[seen]
    assert np.median(error) < size / 15
    numbers = evaluate_truth(both.network, truth, fps=capture.fps)
    assert numbers["mpjpe_mm"] < 15 and numbers["mpvpe_mm"] < 20


@pytest.mark.slow
def test_a_small_pretraining_runs_to_its_weights_and_again(tmp_path, monkeypatch):
    """Two captures, a few steps: captures are kept for a second run, weights are the training's in half precision."""
    monkeypatch.setattr(
        pretraining,
        "pretraining_preset",
        lambda config: Preset(TINY, train=OptimisationConfig(steps=config.steps, targets="labels")),
    )
    config = PretrainConfig(tmp_path, captures=2, frames=8, views=3, steps=3)
    folder = pretraining.pretrain(config)
    made = (tmp_path / "captures" / "0001" / "rig.toml").stat().st_mtime_ns
    model, _, _ = load_checkpoint(folder, load_hand())
    trained, _, _ = load_checkpoint(tmp_path / "run", load_hand())
    for (name, half), whole in zip(model.state_dict().items(), trained.state_dict().values(), strict=True):
        assert torch.allclose(half.float(), whole.float(), rtol=2e-3, atol=1e-6), name
    assert pretraining.pretrain(config) == folder
    assert (tmp_path / "captures" / "0001" / "rig.toml").stat().st_mtime_ns == made


def test_the_rival_is_pretrained_on_equal_terms():
    """Captures, labels, crops and images a step are the same; start, length and learning rate are its own."""
    ours, rival = (pretraining_preset(PretrainConfig(out=Path(), method=method)) for method in ("usthand", "hamuco"))
    same = replace(ours.train, start="backbone", learning_rate=rival.train.learning_rate, steps=14_400, points_from=1.0)
    assert rival == replace(ours, train=same) and rival.train.targets == "labels" and ours.train.steps == 36_000


def test_export_keeps_the_config(tmp_path):
    export_weights(SHIPPED, tmp_path)
    assert (tmp_path / WEIGHTS).is_file()
    assert json.loads((tmp_path / CONFIG).read_text()) == json.loads((SHIPPED / CONFIG).read_text())
