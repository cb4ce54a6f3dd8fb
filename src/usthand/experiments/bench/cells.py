"""One cell of a table: a regime, a label level, a number of views, a method and a seed; run once, then read.

A cell's numbers are a JSON file of its own, so tables fill up cell by cell, and a run that is interrupted goes on: the
captures and the training's last checkpoint lie in the cache.
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
from usthand.common.progress import silent
from usthand.evaluation import metrics
from usthand.evaluation.truth import load_truth
from usthand.experiments.bench.methods import Method, method
from usthand.experiments.bench.regimes import SIDE, capture_name, captures, load_regime
from usthand.fit.fit import FitConfig, fit_labels
from usthand.labels.labels import load_labels
from usthand.output.overlay import progress_bar
from usthand.training.checkpoint import CONFIG, to_json, weights_digest
from usthand.training.config import TrainConfig
from usthand.training.loop import train

MADE_OF, ENDED = "made-of.json", "ended"
"""In a training's folder: its settings and captures; and that it has ended."""
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

    @property
    def name(self) -> str:
        """The cell's file name, without its ending."""
        views = "" if self.views is None else f".{self.views}-views"
        scale = "" if self.preset == "tiny" else f".{self.preset}"
        fresh = "" if self.tested_on == "test" else f".{self.tested_on}"
        return f"{self.regime}.{self.labels}{views}{scale}{fresh}.{self.method}.{self.seed}"

    @property
    def training(self) -> str:
        """The name of its training in the cache, which cells share that only differ in what they are tested on."""
        name = self.name if method(self.method).learns_from == "test" else replace(self, tested_on="test").name
        return f"{name}.{self.weights}" if self.weights else name

    def settled(self) -> Cell:
        """Methods without training have no randomness and no preset: all seeds are one cell."""
        return self if method(self.method).learner else replace(self, seed=0, preset="tiny")

    @property
    def weights(self) -> str | None:
        """Which shipped weights its numbers belong to; None if they have no part in it."""
        return weights_digest() if method(self.method).shipped and self.preset == "tiny" else None


def read_cell(cell: Cell, results: Path) -> dict | None:
    """The numbers of a cell, by the names that its method gives; None if it has not been run, or with other weights than the
    package's of today.
    """
    cell = cell.settled()
    path = results / "cells" / f"{cell.name}.json"
    data = json.loads(path.read_text()) if path.is_file() else {}
    return data.get("rows") if data.get("weights") == cell.weights else None


def is_whole(cell: Cell, results: Path) -> bool:
    """Whether a cell has been run, by a version whose method gave all numbers that today's gives."""
    rows = read_cell(cell, results)
    return rows is not None and all(set(KEYS) <= set(rows.get(of, ())) for of in method(cell.method).gives)


def run_cell(cell: Cell, cache: Path, results: Path, quiet: bool = False, device: str = "cpu") -> dict:
    """Run a cell, or what is left of it, and write its numbers.

    Raises:
        UsthandError: if the method is not compared at the cell's preset, or there is no such device.
    """
    cell = cell.settled()
    began, regime, chosen = time.monotonic(), load_regime(cell.regime), method(cell.method)
    views = cell.views or regime.views
    bar = (lambda done, total: None) if quiet else progress_bar(f"captures of {cell.regime}")
    pretrained = _pretrained(chosen, cache)
    run = _trained(cell, chosen, pretrained, cache, views, quiet, device) if chosen.learner else pretrained
    trained_s = time.monotonic() - began
    tests = [open_capture(path) for path in captures(regime, cell.tested_on, cell.labels, views, cache, bar)]
    measured = [_measure(capture, chosen.results(capture, run, cell.seed), cache) for capture in tests]
    rows = {name: _mean([numbers[name] for numbers in measured]) for name in chosen.gives}
    data = {
        "cell": vars(cell),
        "rows": rows,
        "test_captures": len(tests),
        "seconds": round(time.monotonic() - began, 1),
        "training_seconds": round(trained_s, 1) if chosen.learner else None,
        "weights": cell.weights,
        **provenance(),
    }
    path = results / "cells" / f"{cell.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1) + "\n")
    part.replace(path)
    return rows


def _pretrained(chosen: Method, cache: Path) -> Path | None:
    """The run of a pretraining that has been made before; None for methods without.

    Raises:
        UsthandError: if it has not been made, or started from other weights than the package's of today.
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


def _trained(
    cell: Cell, chosen: Method, pretrained: Path | None, cache: Path, views: int, quiet: bool, device: str
) -> Path:
    """The cell's training. Its best weights are kept: a cell whose numbers are wanted anew is only measured again."""
    preset = chosen.paper if cell.preset == "paper" else chosen.preset
    if preset is None:
        raise UsthandError(
            f"the method {cell.method!r} is not compared at the published sizes",
            "it starts from weights of the preset tiny",
            "leave --preset paper out",
        )
    preset = replace(preset, train=replace(preset.train, seed=cell.seed))
    run = cache / "runs" / cell.training
    regime, made_of = load_regime(cell.regime), run / MADE_OF
    split = cell.tested_on if chosen.learns_from == "test" else "train"
    names = [capture_name(regime.capture_config(seed, split)) for seed in regime.seeds(split)]
    wanted = json.dumps({"preset": to_json(preset), "captures": names}, indent=1) + "\n"
    if run.is_dir() and not (made_of.is_file() and made_of.read_text() == wanted):
        shutil.rmtree(run)
    run.mkdir(parents=True, exist_ok=True)
    made_of.write_text(wanted)
    if not (run / ENDED).is_file():
        learner = replace(chosen.learner, checkpoint=pretrained / "best") if pretrained else chosen.learner
        paths = captures(regime, split, cell.labels, views, cache)
        progress = silent if quiet else progress_bar("training")
        train(paths, run, TrainConfig(preset, SIDE, device=device), progress, learner)
        (run / ENDED).touch()
        shutil.rmtree(run / "last")
    return run


def _measure(capture: Capture, results: dict, cache: Path) -> dict[str, dict[str, float]]:
    """Numbers over the frames that the labels place by themselves: the same frames for every method."""
    truth = load_truth(capture.path, SIDE)
    frames = reference_frames(capture)
    return {name: metrics.evaluate_truth(result, truth, frames, fps=capture.fps) for name, result in results.items()}


def reference_frames(capture: Capture) -> np.ndarray:
    """Frames that the fit of the labels places by two views or more."""
    known = capture.path / "reference_frames.npy"
    if not known.is_file():
        fit = fit_labels(capture.rig, load_labels(capture, SIDE), FitConfig(fps=capture.fps))
        np.save(known, fit.frame[fit.valid])
    return np.load(known)


def _mean(rows: list[dict[str, float | int | None]]) -> dict[str, float]:
    """Over the test captures, weighted by their frames."""
    mean = metrics.pooled(rows)
    return {key: round(mean[key], 4) for key in KEYS if mean[key] is not None} | {"frames": mean["frames"]}


def provenance() -> dict[str, str]:
    """Machine and version, for the record."""
    here = Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return {"machine": f"{os.cpu_count()} {platform.machine()} cores", "git": git.stdout.strip() or "unknown"}
