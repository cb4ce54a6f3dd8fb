"""A capture and a training small enough for a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from support.networks import SMALL
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.hand.io import load_hand
from usthand.training.checkpoint import load_checkpoint
from usthand.training.config import OptimisationConfig, Preset

MODEL = replace(SMALL, hypotheses=4, blocks=1)


SHORT = Preset(MODEL, train=OptimisationConfig(steps=6, clips=2, clip_frames=2, warmup=2, average=0.5))


def small_capture(folder: Path) -> Path:
    """Three cameras, 24 frames, exact labels."""
    return make_capture(folder, SynthConfig(views=3, frames=24, labels="exact", size=128, seed=3))


def state_of(run: Path, name: str = "last") -> dict[str, Tensor]:
    """The weights of a run's checkpoint."""
    return load_checkpoint(run / name, load_hand())[0].state_dict()
