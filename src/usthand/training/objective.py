"""What is trained, and on which terms: the interface between a network and the training loop.

The loop in `train` knows nothing of a network but this; it makes batches, steps, averages, checks and saves. A baseline
brings a learner of its own (`usthand.experiments.hamuco`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from usthand.data.windows import Targets
from usthand.hand.io import load_hand
from usthand.network.model import TINY, Inputs, UstHand
from usthand.training.checkpoint import shipped_weights
from usthand.training.config import Preset, TrainConfig
from usthand.training.losses import point_losses, view_losses


@dataclass(frozen=True)
class Batch:
    """What one optimiser step learns from; all randomness comes from its two generators."""

    inputs: Inputs
    targets: Targets
    step: int
    rng: np.random.Generator
    generator: torch.Generator


@runtime_checkable
class Learner(Protocol):
    """A network with its losses."""

    def build(self, preset: Preset) -> nn.Module:
        """The network as a training starts with it; `preset.train.seed` has been given to torch."""

    def terms(self, model: nn.Module, batch: Batch, preset: Preset) -> dict[str, Tensor]:
        """Weighted loss terms."""

    def uv_crop(self, model: nn.Module, inputs: Inputs) -> Float[Tensor, "B T V J 2"]:
        """Where the network sees the joints, crop coordinates; for the check on held-out labels."""


def only_views(step: int, config: TrainConfig) -> bool:
    """Whether the training is still in its first part, that of single views."""
    return step < config.points_from * config.steps


class UstHandLearner:
    """The method itself."""

    def build(self, preset: Preset) -> UstHand:
        model = UstHand(preset.model, load_hand())
        if preset.train.start == "shipped":
            model.load_state_dict(shipped_weights(preset.model))
        elif preset.train.start == "backbone":
            model.backbone.resnet.load_state_dict(shipped_backbone(preset))
        return model

    def terms(self, model: UstHand, batch: Batch, preset: Preset) -> dict[str, Tensor]:
        inputs, targets, generator, config = batch.inputs, batch.targets, batch.generator, preset.train
        # Random numbers are drawn on the CPU, so that they are the same on every device.
        label_noise = torch.randn(targets.uv_crop.shape, generator=generator).to(targets.uv_crop)
        if only_views(batch.step, config):
            return view_losses(model, model.see(inputs)[1], targets, preset.loss, label_noise)
        count = model.config.hypotheses_train if model.flow is not None else 1
        keep = torch.from_numpy(batch.rng.random(count) >= config.hypothesis_dropout)
        keep[0] = True
        noise = torch.randn(model.noise_shape(inputs, count), generator=generator).to(label_noise)
        prediction = model(inputs, noise, keep)
        terms = view_losses(model, prediction.views, targets, preset.loss, label_noise)
        return terms | point_losses(model, prediction, inputs, targets, preset.loss)

    def uv_crop(self, model: UstHand, inputs: Inputs) -> Tensor:
        return model(inputs, torch.zeros(model.noise_shape(inputs, 1), device=inputs.images.device)).hypotheses[
            ..., 0, :
        ]


def shipped_backbone(preset: Preset) -> dict[str, Tensor]:
    """The shipped network's ResNet alone, under the ResNet's own names; the rest of the network may differ."""
    of = replace(TINY, backbone=preset.model.backbone, width=preset.model.width)
    prefix = "backbone.resnet."
    return {k.removeprefix(prefix): v for k, v in shipped_weights(of).items() if k.startswith(prefix)}
