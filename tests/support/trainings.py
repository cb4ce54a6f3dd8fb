"""A training short enough for a test."""

from __future__ import annotations

from usthand.hand.io import load_hand
from usthand.network.model import ModelConfig
from usthand.training.checkpoint import load_checkpoint
from usthand.training.config import Preset, TrainConfig

MODEL = ModelConfig(
    width=8,
    image_size=64,
    map_channels=16,
    graph_width=32,
    flow_hidden=16,
    couplings=2,
    point_width=32,
    hypotheses_train=3,
    hypotheses=4,
    blocks=1,
)


SHORT = Preset(MODEL, train=TrainConfig(steps=6, clips=2, clip_frames=2, warmup=2, average=0.5))


def state_of(run, name="last"):
    return load_checkpoint(run / name, load_hand())[0].state_dict()
