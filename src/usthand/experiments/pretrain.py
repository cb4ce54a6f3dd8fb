"""The weights that a training starts from: learned on many synthetic captures, from 2D labels alone.

`usthand pretrain OUT` makes the captures (resumable), trains on all of them, and writes OUT/weights, which are in the
package as `usthand/network/weights/tiny`. Subjects, rigs, lights, rooms and motions differ from capture to capture.
Their seeds begin at `FIRST_SEED`, far from those of demos, tests and benchmarks. The labels are exact 2D projections:
no 3D number reaches a loss. With `--method hamuco` the benchmarks' rival learns from the same captures and labels, on
top of the package's backbone. Costs and results are in docs/development/pretraining.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from tyro.conf import Positional

from usthand.common.progress import Progress, silent
from usthand.datasets.synthetic.subjects import require_learnable
from usthand.datasets.synthetic.write import SynthConfig, made_capture
from usthand.experiments.hamuco.model import HamucoLearner
from usthand.training.checkpoint import CONFIG, WEIGHTS
from usthand.training.config import PRESETS, Preset, TrainConfig
from usthand.training.loop import train
from usthand.training.objective import UstHandLearner

FIRST_SEED = 10_000
RATE = 1.5e-3
RATES = (30.0, 15.0, 6.0)  # frames per second, in turn: slow ones show more poses, fast ones more of the motion
STEPS = {"usthand": 36_000, "hamuco": 14_400}
HAMUCO_RATE = 1e-3  # the best of three (docs/benchmarks.md)
OBJECTS = ("none", "any", "none", "many")  # in turn
SUBJECTS = ("varied", "varied", "varied", "varied", "varied", "webxr", "own")  # in turn


@dataclass(frozen=True)
class PretrainConfig:
    """How much, and from where."""

    out: Positional[Path]
    """Folder for captures, training and weights."""
    captures: int = 640
    frames: int = 40
    views: int = 4
    steps: int | None = None
    """36,000, or 14,400 for the HaMuCo-like network, whose backbone has been trained before."""
    start: Literal["landmark", "shipped"] = "landmark"
    """From MediaPipe's trunk, or from the weights in the package."""
    method: Literal["usthand", "hamuco"] = "usthand"
    """The network of the package, or the HaMuCo-like one, which always starts from the package's backbone."""
    seed: int = 0


def capture_config(index: int, config: PretrainConfig) -> SynthConfig:
    """The settings of one capture; every second one has objects, every fourth its cameras on one side."""
    return SynthConfig(
        views=config.views,
        frames=config.frames,
        fps=RATES[index % len(RATES)],
        labels="exact",
        seed=FIRST_SEED + index,
        objects=OBJECTS[index % len(OBJECTS)],
        layout="side" if index % 8 in (1, 6) else "dome",
        subject=SUBJECTS[index % len(SUBJECTS)],
        looks="plain" if index % 9 == 0 else "real",
    )


def make_captures(config: PretrainConfig, progress: Progress = silent) -> list[Path]:
    """All captures; those of an interrupted run are used again.

    Raises:
        UsthandError: If those that are there were made with other settings, or show hands that nothing may learn from.
    """
    paths = [config.out / "captures" / f"{index:04d}" for index in range(config.captures)]
    for index, path in enumerate(paths):
        settings = capture_config(index, config)
        require_learnable(settings.subject)
        made_capture(path, settings)
        progress(index + 1, len(paths), "captures")
    return paths


def pretraining_preset(config: PretrainConfig) -> Preset:
    """The tiny network on labels as they are."""
    tiny = PRESETS["tiny"]
    train = replace(
        tiny.train,
        steps=config.steps or STEPS[config.method],
        targets="labels",
        points_from=0.75,
        start=config.start,
        learning_rate=RATE,
        seed=config.seed,
    )
    if config.method == "hamuco":
        train = replace(train, start="backbone", points_from=1.0, learning_rate=HAMUCO_RATE)
    varied = replace(tiny.crop, rotation_deg=30.0, shift=0.12, scale=(0.8, 1.15), colour=0.3)
    return replace(tiny, crop=varied, train=train)


def export_weights(checkpoint: Path, out: Path) -> None:
    """Write the weights in half precision, and their config.

    Rounding changes a value by a third of a thousandth, less than training's own noise.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = load_file(checkpoint / WEIGHTS)
    save_file({k: v.to(torch.float16) if v.is_floating_point() else v for k, v in state.items()}, out / WEIGHTS)
    data = json.loads((checkpoint / CONFIG).read_text())
    kept = {key: data[key] for key in ("version", "model", "crop", "step", "held_out_px", "preset")}
    (out / CONFIG).write_text(json.dumps(kept, indent=2) + "\n")


def pretrain(config: PretrainConfig, progress: Progress = silent) -> Path:
    """Make captures, train, and write the weights; returns the weights' folder.

    Raises:
        UsthandError: If `config.out` holds captures or a training with other settings.
    """
    paths = make_captures(config, progress)
    learner = HamucoLearner() if config.method == "hamuco" else UstHandLearner()
    training = TrainConfig(pretraining_preset(config), "right")
    best = train(paths, config.out / "run", training, progress, learner)
    export_weights(best, config.out / "weights")
    return config.out / "weights"
