"""One cell of a table: a regime, a label level, a number of views, a method and a seed; run once, then read.

A cell's numbers are a JSON file of its own, so tables fill up cell by cell. An interrupted run goes on: the cache has
the captures and the training's last checkpoint.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from usthand.capture.capture import Capture, open_capture
from usthand.common.errors import UsthandError
from usthand.common.files import whole_file
from usthand.common.progress import Progress, silent
from usthand.datasets.synthetic.subjects import require_learnable
from usthand.evaluation import metrics
from usthand.evaluation.surface import SURFACE_KEYS
from usthand.evaluation.truth import require_truth
from usthand.evaluation.uncertainty import COVARIANCE_KEYS, HIDDEN_KEYS, VERTEX_KEYS, evaluate_uncertainty
from usthand.experiments.bench.methods import Method, Run, method
from usthand.experiments.bench.regimes import SIDE, capture_name, captures, load_regime
from usthand.experiments.hamuco.model import HamucoLearner
from usthand.experiments.peers.measure import JOINT_KEYS, SOME_KEYS, joint_numbers
from usthand.experiments.peers.run import PEERS
from usthand.fit.fit import fit_labels
from usthand.fit.sequence import FitConfig
from usthand.hand.result import Result
from usthand.labels.labels import load_labels
from usthand.training.checkpoint import CONFIG, to_json, weights_digest
from usthand.training.config import TrainConfig
from usthand.training.loop import train

MADE_OF, ENDED = "made-of.json", "ended"
"""Files in a training's folder: its settings and captures; and that it has ended."""
Rows = dict[str, dict[str, float]]
"""Numbers by the names that a method gives, and by metric."""
KEYS = (
    "mpjpe_mm",
    "mpvpe_mm",
    "mpjpe_wrist_mm",
    "mpvpe_wrist_mm",
    "mpvpe_scale_mm",
    "mpjpe_pa_mm",
    "mpvpe_pa_mm",
    "auc_v",
    "f5",
    "f15",
    "accel_mm_s2",
    "coverage90",
)
OF_VERTICES = ("mpvpe_mm", "mpvpe_wrist_mm", "mpvpe_scale_mm", "mpvpe_pa_mm", "auc_v", "f5", "f15")
FOREIGN_KEYS = (*(key for key in KEYS if key not in OF_VERTICES), *SURFACE_KEYS)
"""Where the truth's mesh is another than ours."""
UNCERTAINTY_KEYS = (*COVARIANCE_KEYS, *HIDDEN_KEYS, *VERTEX_KEYS)
"""Of the cells that measure uncertainty; only the first are there in all of them."""
MAY_HAVE = {"errors": KEYS, "uncertainty": UNCERTAINTY_KEYS, "joints": (*JOINT_KEYS, *SOME_KEYS)}
"""The numbers of a cell, by what it measures."""
MUST_HAVE = {"uncertainty": COVARIANCE_KEYS, "joints": JOINT_KEYS}


@dataclass(frozen=True)
class Cell:
    """What a number belongs to."""

    regime: str
    method: str
    seed: int = 0
    labels: str = "heavy"
    views: int | None = None
    """None for all of the regime's."""
    preset: str = "tiny"
    """Of trained methods: `tiny` (CPU) or `paper` (GPU)."""
    tested_on: Literal["test", "fresh"] = "test"
    """Which of the regime's captures (`Regime.seeds`)."""
    measures: Literal["errors", "uncertainty", "joints"] = "errors"
    """`KEYS`; what shows whether the covariances are right; or what can be said of a method that gives joints alone."""

    @property
    def name(self) -> str:
        """The cell's file name, without its ending."""
        views = "" if self.views is None else f".{self.views}-views"
        scale = "" if self.preset == "tiny" else f".{self.preset}"
        fresh = "" if self.tested_on == "test" else f".{self.tested_on}"
        measured = "" if self.measures == "errors" else f".{self.measures}"
        return f"{self.regime}.{self.labels}{views}{scale}{fresh}{measured}.{self.method}.{self.seed}"

    @property
    def training(self) -> str:
        """The name of its training in the cache; cells that differ only in what is measured, and where, share it."""
        same = replace(self, measures="errors")
        name = same.name if method(self.method).learns_from == "test" else replace(same, tested_on="test").name
        return f"{name}.{self.weights}" if self.weights else name

    @property
    def keys(self) -> tuple[str, ...]:
        """The numbers that it may have."""
        foreign = self.measures == "errors" and load_regime(self.regime).of_other_mesh
        return FOREIGN_KEYS if foreign else MAY_HAVE[self.measures]

    def settled(self) -> Cell:
        """Methods without training have no randomness and no preset: all seeds are one cell."""
        return self if method(self.method).learner else replace(self, seed=0, preset="tiny")

    @property
    def weights(self) -> str | None:
        """The shipped weights, or the peer's release, that its numbers belong to; None if neither has a part in it."""
        if self.method in PEERS:
            return PEERS[self.method].environment.release
        return weights_digest() if method(self.method).shipped and self.preset == "tiny" else None


def read_cell(cell: Cell, results: Path, weights: str | None = None) -> Rows | None:
    """The numbers of a cell; None if it has not been run, or with other shipped weights than asked for.

    Those of the package today by default.
    """
    cell = cell.settled()
    wanted = cell.weights and (weights or cell.weights)
    path = results / "cells" / f"{cell.name}.json"
    data = json.loads(path.read_text()) if path.is_file() else {}
    return data.get("rows") if data.get("weights") == wanted else None


def is_whole(cell: Cell, results: Path) -> bool:
    """Whether a cell has been run, by a version whose method gave all numbers that today's gives."""
    must = cell.keys if cell.measures == "errors" else MUST_HAVE[cell.measures]
    rows, wanted = read_cell(cell, results), set(must)
    return rows is not None and all(wanted <= set(rows.get(of, ())) for of in method(cell.method).gives)


def run_cell(cell: Cell, cache: Path, results: Path, device: str = "cpu", progress: Progress = silent) -> Rows:
    """Run a cell, or what is left of it, and write its numbers.

    Raises:
        UsthandError: If the method is not compared at the cell's preset, or would learn from hands that are for
            measuring alone, or there is no such device.
    """
    cell = cell.settled()
    began, regime, chosen = time.monotonic(), load_regime(cell.regime), method(cell.method)
    pretrained = _pretrained(chosen, cache)
    run = _trained(cell, pretrained, cache, device, progress) if chosen.learner else pretrained
    trained_s = time.monotonic() - began
    views = cell.views or regime.views
    tests = [open_capture(path) for path in captures(regime, cell.tested_on, cell.labels, views, cache, progress)]
    measured = [_measured(cell, capture, run) for capture in tests]
    rows = {name: _mean([numbers[name] for numbers in measured], cell.keys) for name in chosen.gives}
    data = {
        "cell": vars(cell),
        "rows": rows,
        "test_captures": len(tests),
        "seconds": round(time.monotonic() - began, 1),
        "training_seconds": round(trained_s, 1) if chosen.learner else None,
        "weights": cell.weights,
        **provenance(),
    }
    with whole_file(results / "cells" / f"{cell.name}.json") as part:
        part.write_text(json.dumps(data, indent=1) + "\n")
    return rows


def _pretrained(chosen: Method, cache: Path) -> Path | None:
    """The run of a pretraining that has been made before; None for methods without one.

    Raises:
        UsthandError: If it has not been made, or started from other weights than the package has today.
    """
    if chosen.pretraining is None:
        return None
    folder = cache / f"pretrained-{chosen.pretraining}"
    config = folder / "run" / "best" / CONFIG
    again = f"run `usthand pretrain {folder} --method {chosen.pretraining}`"
    if not config.is_file():
        raise UsthandError(
            f"there is no pretraining in {folder}",
            "it takes over an hour, so it is made by a command of its own",
            again,
        )
    if json.loads(config.read_text()).get("shipped") != weights_digest():
        raise UsthandError(
            f"the pretraining in {folder} started from other weights than the package's",
            "these have changed since",
            f"remove its run and {again}",
        )
    return folder / "run"


def _trained(cell: Cell, pretrained: Path | None, cache: Path, device: str, progress: Progress) -> Path:
    """The cell's training. Its best weights are kept: a cell that is run again is only measured again."""
    regime, chosen = load_regime(cell.regime), method(cell.method)
    preset = chosen.paper if cell.preset == "paper" else chosen.preset
    if preset is None:
        raise UsthandError(
            f"the method {cell.method!r} is not compared at the published sizes",
            "it starts from weights of the preset tiny",
            "leave --preset paper out",
        )
    preset = replace(preset, train=replace(preset.train, seed=cell.seed))
    run = cache / "runs" / cell.training
    made_of = run / MADE_OF
    split = cell.tested_on if chosen.learns_from == "test" else "train"
    if split == "train":
        require_learnable(regime.subject)
    names = [capture_name(regime.capture_config(seed, split)) for seed in regime.seeds(split)]
    wanted = json.dumps({"preset": to_json(preset), "captures": names}, indent=1) + "\n"
    if run.is_dir() and not (made_of.is_file() and made_of.read_text() == wanted):
        shutil.rmtree(run)
    run.mkdir(parents=True, exist_ok=True)
    made_of.write_text(wanted)
    learner = HamucoLearner(pretrained / "best") if pretrained else chosen.learner
    if learner is not None and not (run / ENDED).is_file():
        paths = captures(regime, split, cell.labels, cell.views or regime.views, cache)
        train(paths, run, TrainConfig(preset, SIDE, device=device), progress, learner)
        (run / ENDED).touch()
        shutil.rmtree(run / "last")
    return run


def _measured(cell: Cell, capture: Capture, run: Run) -> dict[str, metrics.Numbers]:
    """The numbers of what the cell's method gives for one capture."""
    results, seconds = method(cell.method).timed(capture, run)
    if cell.measures == "joints":
        return _measure_joints(capture, results, seconds)
    return (_measure if cell.measures == "errors" else _measure_uncertainty)(capture, results)


def _measure_joints(capture: Capture, results: dict[str, Result], seconds: float) -> dict[str, metrics.Numbers]:
    """Numbers of the joints alone, over the same frames."""
    truth, frames = require_truth(capture.path, SIDE), reference_frames(capture)
    return {name: joint_numbers(result, truth, frames, capture.fps, seconds) for name, result in results.items()}


def _measure(capture: Capture, results: dict[str, Result]) -> dict[str, metrics.Numbers]:
    """Numbers over the frames that the labels alone place: the same frames for every method."""
    truth, frames = require_truth(capture.path, SIDE), reference_frames(capture)
    return {name: metrics.evaluate_truth(result, truth, frames, fps=capture.fps) for name, result in results.items()}


def _measure_uncertainty(capture: Capture, results: dict[str, Result]) -> dict[str, metrics.Numbers]:
    """What shows whether the covariances are right, over the same frames."""
    truth, frames = require_truth(capture.path, SIDE), reference_frames(capture)
    measured = {
        name: evaluate_uncertainty(result, truth, frames, result.vertices_cov_m2) for name, result in results.items()
    }
    return {name: numbers | {"valid_fraction": 1.0} for name, numbers in measured.items()}


def reference_frames(capture: Capture) -> np.ndarray:
    """Frames that the fit of the labels places by two views or more."""
    known = capture.path / "reference_frames.npy"
    if not known.is_file():
        fit = fit_labels(capture.rig, load_labels(capture, SIDE), FitConfig(fps=capture.fps))
        np.save(known, fit.frame[fit.valid])
    return np.load(known)


def _mean(rows: list[metrics.Numbers], keys: tuple[str, ...]) -> dict[str, float]:
    """Over the test captures, weighted by their frames."""
    mean = metrics.pooled(rows)
    rounded = {key: round(value, 4) for key in keys if (value := mean.get(key)) is not None}
    return rounded | {"frames": mean["frames"] or 0}


def provenance() -> dict[str, str]:
    """Machine and version, to be kept beside the numbers."""
    here = Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return {"machine": f"{os.cpu_count()} {platform.machine()} cores", "git": git.stdout.strip() or "unknown"}
