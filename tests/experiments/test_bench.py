"""The terms of the comparison: fair splits, equal settings, captures that are shared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.bench import SMALL, Reconstructed
from usthand.capture.capture import Capture, open_capture
from usthand.common.errors import UsthandError
from usthand.evaluation.truth import load_truth
from usthand.experiments.bench import methods
from usthand.experiments.bench.methods import METHODS, SCHEDULE
from usthand.experiments.bench.regimes import captures, load_regime, own_regime_names, regime_names
from usthand.experiments.pretrain import FIRST_SEED, PretrainConfig
from usthand.geometry.cameras import Cameras, project
from usthand.labels.labels import load_labels, load_npz
from usthand.network.config import TINY
from usthand.training.checkpoint import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_no_seed_is_in_two_places():
    """Captures of all splits and regimes, of the shipped weights and of the demos (below 100) share no seed."""
    config = PretrainConfig(out=Path())
    pretraining = set(range(FIRST_SEED, FIRST_SEED + config.captures))
    seen = pretraining | set(range(100))
    for name in regime_names():
        regime = load_regime(name)
        for seed in regime.train_seeds + regime.test_seeds + regime.fresh_seeds:
            assert seed not in seen
            seen.add(seed)


def test_regimes_are_the_promised_ones():
    assert regime_names() == ["dexycb-like", "foreign", "hanco-like", "oakink-like"]
    facts = {name: (load_regime(name).views, load_regime(name).objects) for name in own_regime_names()}
    assert facts == {"hanco-like": (8, "none"), "dexycb-like": (8, "held"), "oakink-like": (4, "many")}
    foreign = load_regime("foreign")
    assert (foreign.subject, foreign.views, foreign.train_seeds) == ("foreign", 8, ())
    with pytest.raises(UsthandError, match="no regime"):
        load_regime("freihand-like")


def test_trained_methods_have_equal_terms():
    """Backbone, start, steps and images a step; methods that start from all of their weights share theirs."""
    trained = {name: m for name, m in METHODS.items() if m.learner}
    assert len(trained) > 10
    for name, one in trained.items():
        train, model = one.preset.train, one.preset.model
        assert (model.backbone, model.width, model.image_size) == (TINY.backbone, TINY.width, TINY.image_size)
        assert train.single_frames == SCHEDULE.single_frames
        if name.endswith("adapted"):
            assert train.steps == METHODS["adapted"].preset.train.steps and (
                train.start == "shipped" or one.pretraining
            )
        else:
            assert (train.start, train.steps, one.pretraining) == ("backbone", SCHEDULE.steps, None)
        assert train.view_dropout == SCHEDULE.view_dropout and train.label_dropout == SCHEDULE.label_dropout


def test_equal_terms_end_with_equal_terms(monkeypatch):
    """A method that starts from the backbone does not use the shipped network; only the line of that name does."""
    used, made, capture = [], Reconstructed(), Capture.__new__(Capture)
    monkeypatch.setattr(
        methods, "reconstruct_all", lambda capture, run, side, *more: (used.append((run, *more)), made)[1]
    )
    for one in METHODS.values():
        if "network" in one.gives:
            one.results(capture, Path("run"))
    assert len(used) > 15 and all(run == Path("run") and not config.with_shipped for run, config in used)
    used.clear()
    assert set(METHODS["shipped"].results(capture, None)) == {"shipped", "shipped-network", "shipped-head"}
    assert used == [(SHIPPED,)]
    assert set(METHODS["adapted"].results(capture, Path("run"))) == {"adapted", "adapted-network"}
    assert used[1:] == [(Path("run"),)]


def test_levels_and_views_share_the_images(tmp_path):
    exact = captures(SMALL, "test", "exact", 4, tmp_path)
    heavy = captures(SMALL, "test", "heavy", 4, tmp_path)
    fewer = captures(SMALL, "test", "heavy", 2, tmp_path)
    assert len(exact) == len(heavy) == len(fewer) == 2
    for one, two, three in zip(exact, heavy, fewer, strict=True):
        whole, noisy, part = open_capture(one), open_capture(two), open_capture(three)
        assert whole.rig.names == noisy.rig.names and part.rig.names == ("cam0", "cam2")
        for name in part.rig.names:
            assert (one / f"{name}.mp4").samefile(three / f"{name}.mp4")
        truth = load_truth(one, "right")
        cameras = Cameras(*(t.expand(10, *t.shape) for t in whole.rig.tensors()))
        uv = project(cameras, torch.from_numpy(truth.joints_world_m))[0].numpy()
        np.testing.assert_allclose(load_labels(whole, "right").uv_px, uv, atol=5e-3)
        labels, some = (load_npz(one.labels_path("right")) for one in (noisy, part))
        assert not np.allclose(labels.uv_px, uv, atol=1.0)
        np.testing.assert_array_equal(some.uv_px, labels.uv_px[:, [0, 2]])
        np.testing.assert_array_equal(load_truth(three, "right").visible, truth.visible[:, [0, 2]])
    stamps = [path.stat().st_mtime_ns for path in heavy]
    assert (
        captures(SMALL, "test", "heavy", 4, tmp_path) == heavy and [path.stat().st_mtime_ns for path in heavy] == stamps
    )


def test_a_changed_regime_is_another_capture(tmp_path):
    one = captures(SMALL, "train", "exact", 4, tmp_path)
    two = captures(replace(SMALL, objects="none"), "train", "exact", 4, tmp_path)
    assert one != two and one[0].is_dir() and two[0].is_dir()
    with pytest.raises(UsthandError, match="label level"):
        captures(SMALL, "train", "medium", 4, tmp_path)
