"""The interface between a network and the training loop: a `Learner` builds the network and computes its losses.

The loop makes batches, steps, averages, checks and saves; it uses a network only through its learner. A baseline has a
learner of its own (`usthand.experiments.hamuco`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from usthand.common.errors import UsthandError
from usthand.data.batches import Targets
from usthand.hand.io import load_hand
from usthand.network.backbone import ResNet
from usthand.network.config import TINY
from usthand.network.model import Inputs, UstHand
from usthand.training.checkpoint import landmark_weights, shipped_weights
from usthand.training.config import OptimisationConfig, Preset
from usthand.training.losses import point_losses, view_losses

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Batch:
    """What one optimiser step learns from; all randomness comes from its two generators."""

    inputs: Inputs
    targets: Targets
    step: int
    rng: np.random.Generator
    generator: torch.Generator


@runtime_checkable
class Learner(Protocol[Network]):
    """A network with its losses."""

    def build(self, preset: Preset) -> Network:
        """The network as a training starts with it; torch has been seeded with `preset.train.seed`."""
        ...

    def terms(self, model: Network, batch: Batch, preset: Preset) -> dict[str, Tensor]:
        """Weighted loss terms."""
        ...

    def uv_crop(self, model: Network, inputs: Inputs) -> Float[Tensor, "B T V J 2"]:
        """The network's 2D joints, crop coordinates, for the check on held-out labels."""
        ...


def only_views(step: int, config: OptimisationConfig) -> bool:
    """Whether the training is still in its first part, that of the 2D stages."""
    return step < config.points_from * config.steps


@dataclass(frozen=True)
class UstHandLearner:
    """The method itself."""

    backbone_weights: Path | None = None
    """A file of ImageNet weights for the backbone."""

    def build(self, preset: Preset) -> UstHand:
        """The network, with the weights that `preset.train.start` says."""
        model = UstHand(preset.model, load_hand())
        if preset.train.start == "shipped":
            model.load_state_dict(shipped_weights(preset.model))
        elif preset.train.start != "scratch":
            model.backbone.trunk.load_state_dict(trunk_weights(preset))
        if self.backbone_weights is not None:
            if not isinstance(model.backbone.trunk, ResNet):
                raise UsthandError(
                    f"the backbone {preset.model.backbone!r} takes no ImageNet weights",
                    "it is no ResNet",
                    "leave --backbone-weights out, or choose --preset paper",
                )
            model.backbone.trunk.load_imagenet(self.backbone_weights)
        return model

    def terms(self, model: UstHand, batch: Batch, preset: Preset) -> dict[str, Tensor]:
        """The 2D terms; in the second part of the training those of the points and the hand too."""
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

    def uv_crop(self, model: UstHand, inputs: Inputs) -> Float[Tensor, "B T V J 2"]:
        """The key hypotheses."""
        noise = torch.zeros(model.noise_shape(inputs, 1), device=inputs.images.device)
        return model(inputs, noise).hypotheses[..., 0, :]


def trunk_weights(preset: Preset) -> dict[str, Tensor]:
    """What the backbone's trunk starts from, under its own names: MediaPipe's weights, or those of the shipped network.

    The rest of the network may differ from the shipped one.
    """
    if preset.train.start == "landmark":
        return landmark_weights()
    of = replace(TINY, backbone=preset.model.backbone, width=preset.model.width)
    prefix = "backbone.trunk."
    return {k.removeprefix(prefix): v for k, v in shipped_weights(of).items() if k.startswith(prefix)}
