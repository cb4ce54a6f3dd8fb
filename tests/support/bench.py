"""Benchmarks in small: tiny captures, and cells that have been run in no time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from usthand.experiments.bench import cells
from usthand.experiments.bench.cells import KEYS, Cell
from usthand.experiments.bench.methods import METHODS
from usthand.experiments.bench.regimes import load_regime
from usthand.hand.result import Result

SMALL = replace(
    load_regime("oakink-like"),
    name="oakink-like",
    size=96,
    train_frames=10,
    test_frames=10,
    train_seeds=(5,),
    test_seeds=(6, 7),
    fresh_seeds=(8,),
)
MEASURED = dict.fromkeys(KEYS, 1.0) | {"frames": 2, "valid_fraction": 1.0}


def pretend_pretraining(cache: Path, shipped: str | None = None) -> Path:
    """A rival's pretraining as a cell looks at it; started from the package's weights."""
    best = cache / "pretrained-hamuco" / "run" / "best"
    best.mkdir(parents=True)
    (best / "config.json").write_text(json.dumps({"shipped": shipped or cells.weights_digest()}))
    return best


def fake_cell(results: Path, cell: Cell, value: float) -> None:
    path = results / "cells" / f"{cell.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {of: dict.fromkeys(cell.keys, value) for of in METHODS[cell.method].gives}
    path.write_text(json.dumps({"rows": rows, "seconds": 2.0, "weights": cell.weights}))


class Reconstructed(NamedTuple):
    """What a reconstruction returns, without any content."""

    final: Result = Result.__new__(Result)
    network: Result = Result.__new__(Result)
    head: Result = Result.__new__(Result)
