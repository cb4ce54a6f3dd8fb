"""What a training needs beside captures: how long, how, and the networks' sizes under their names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from usthand.data.windows import CropConfig
from usthand.network.model import PAPER, TINY, ModelConfig
from usthand.training.losses import LossConfig


@dataclass(frozen=True)
class TrainConfig:
    """How long and how."""

    steps: int = 1600
    clips: int = 2
    """Clips in a batch ..."""
    clip_frames: int = 3
    """... and consecutive frames in a clip."""
    learning_rate: float = 3e-3
    schedule: Literal["cosine", "step"] = "cosine"
    """`step` is the published one: a tenth of the rate after two thirds of the training."""
    warmup: int = 100
    average: float = 0.995
    """Decay of the weights' running average (less at first), which is what is saved and used; 0 for none."""
    points_from: float = 0.8
    """Share of the training before the 3D stages join: until heatmaps have formed there is nothing to lift, and a step
    costs two thirds. 0 trains all stages from the start (the paper's way)."""
    single_frames: int = 6
    """Frames in a batch of that first part: single ones, for neighbours in time teach the 2D stages little."""
    view_dropout: float = 0.1
    label_dropout: float = 0.05
    hypothesis_dropout: float = 0.25
    targets: Literal["consensus", "labels"] = "consensus"
    """Learn the labels' multi-view, temporal consensus, or each label as it is (the paper's way)."""
    start: Literal["shipped", "backbone", "scratch"] = "scratch"
    """From the weights in the package, learned on synthetic captures (`usthand.experiments.pretrain`); from their ResNet alone, as
    others start from ImageNet; or from nothing."""
    seed: int = 0


ADAPT = TrainConfig(start="shipped", steps=300, learning_rate=5e-4, points_from=0.5)
"""From weights that know hands, to a footage: short and gentle, or what they know is lost (docs/notes/pretraining.md)."""


@dataclass(frozen=True)
class Preset:
    """Everything that a training needs, but the captures."""

    model: ModelConfig = field(default_factory=ModelConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


PRESETS: dict[str, Preset] = {
    "tiny": Preset(TINY, train=ADAPT),
    # The published values; 30 epochs of 2500 windows, the size of the demo's capture times the paper's.
    "paper": Preset(
        PAPER,
        CropConfig(factor=2.0, rotation_deg=180.0, gate=0.0),
        LossConfig(cross_entropy=0.0),
        TrainConfig(
            steps=75_000,
            clips=8,
            clip_frames=5,
            learning_rate=3e-4,
            schedule="step",
            average=0.0,
            points_from=0.0,
            targets="labels",
        ),
    ),
}


def from_nothing(preset: Preset) -> Preset:
    """The same network with the longer training that it needs without the shipped weights."""
    return replace(preset, train=TrainConfig()) if preset.train.start == "shipped" else preset
