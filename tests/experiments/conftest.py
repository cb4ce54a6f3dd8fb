"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.bench import SMALL
from usthand.experiments.bench import cells, regimes
from usthand.experiments.bench.methods import METHODS
from usthand.network.config import ModelConfig


@pytest.fixture
def small(monkeypatch):
    """Tiny captures and trainings in place of the real ones."""
    real = regimes.load_regime
    for module in (regimes, cells):
        monkeypatch.setattr(module, "load_regime", lambda name: replace(SMALL, name=name, subject=real(name).subject))
    model = ModelConfig(
        width=8, image_size=64, map_channels=16, graph_width=32, flow_hidden=16, couplings=2, point_width=32, blocks=1
    )
    for name in ("usthand", "hamuco"):
        preset = METHODS[name].preset
        preset = replace(preset, model=model, train=replace(preset.train, start="scratch", steps=3))
        monkeypatch.setitem(METHODS, name, replace(METHODS[name], preset=preset))
