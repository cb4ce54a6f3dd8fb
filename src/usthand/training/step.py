"""One optimiser step: the batch, what is dropped from it, the learning rate, and the running average of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from usthand.data.batches import Targets, make_batch, sample_clips
from usthand.data.footage import Footage
from usthand.labels.labels import Labels
from usthand.network.landmark_trunk import LandmarkTrunk
from usthand.training.config import OptimisationConfig, Preset
from usthand.training.losses import total
from usthand.training.objective import Batch, Learner, only_views

CLIP_GRADIENT = 1.0


@dataclass(frozen=True)
class TrainingState:
    """A training under way."""

    learner: Learner
    model: nn.Module
    average: nn.Module
    """The same network with the running average of the weights, for evaluation."""
    optimizer: torch.optim.Optimizer
    preset: Preset
    footages: list[Footage]
    checks: list[Labels]
    """Held-out labels of each footage, on its own (mirrored) rig."""
    out: Path
    device: torch.device


def learning_rate(step: int, config: OptimisationConfig) -> float:
    """Linear warm-up, then cosine to a hundredth or the published step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    if config.schedule == "step":
        return config.learning_rate * (1.0 if done < 2 / 3 else 0.1)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(done, 1.0))))


def fix_trunk(model: nn.Module, stride: int) -> None:
    """Take the layers of a landmark trunk up to a stride out of the training; other trunks have none to take out."""
    for module in model.modules():
        if isinstance(module, LandmarkTrunk):
            module.fix(stride)


def parameter_groups(model: nn.Module, trunk_rate: float) -> list[dict[str, Any]]:
    """The trunk's parameters and the others, each with its share `rate` of the learning rate."""
    trunk = {name for name, _ in model.named_parameters() if ".trunk." in f".{name}"}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    parts = [[p for name, p in named if (name in trunk) == inside] for inside in (True, False)]
    rates = zip(parts, (trunk_rate, 1.0), strict=True)
    return [{"params": parameters, "rate": rate} for parameters, rate in rates if parameters]


def drop_views(mask: Bool[Tensor, "B T V"], share: float, rng: np.random.Generator) -> Bool[Tensor, "B T V"]:
    """Mask views of whole clips at random, but never below two."""
    drop = torch.from_numpy(rng.random((mask.shape[0], 1, mask.shape[2])) < share).to(mask.device)
    kept = mask & ~drop
    return torch.where((kept.sum(-1, keepdim=True) >= 2), kept, mask)


def drop_labels(targets: Targets, share: float, rng: np.random.Generator) -> Targets:
    """Take a share of the views' labels out of the losses; their images stay."""
    keep = torch.from_numpy(rng.random(targets.weight.shape[:3]) >= share).unsqueeze(-1).to(targets.weight.device)
    return targets._replace(weight=targets.weight * keep, detected_weight=targets.detected_weight * keep)


def draw_batch(state: TrainingState, step: int) -> Batch:
    """The batch of one step; everything random in it comes from (seed, step), so a resumed run is the same run."""
    config = state.preset.train
    rng = np.random.default_rng((config.seed, step))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    count, length = (config.single_frames, 1) if only_views(step, config) else (config.clips, config.clip_frames)
    clips = sample_clips(state.footages, count, length, rng)
    inputs, targets = make_batch(clips, state.preset.model.image_size, state.preset.crop, rng, state.device)
    inputs = inputs._replace(view_mask=drop_views(inputs.view_mask, config.view_dropout, rng))
    return Batch(inputs, drop_labels(targets, config.label_dropout, rng), step, rng, generator)


def training_step(state: TrainingState, step: int) -> dict[str, float]:
    """Do one optimiser step; returns the weighted loss terms and their total."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(step, state.preset.train) * group["rate"]
    terms = state.learner.terms(state.model, draw_batch(state, step), state.preset)
    terms["total"] = total(terms)
    state.optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), CLIP_GRADIENT)
    if torch.isfinite(norm):  # one bad batch must not end a training
        state.optimizer.step()
        _update_average(state, step)
    return {name: float(value.detach()) for name, value in terms.items()}


def _update_average(state: TrainingState, step: int) -> None:
    """Follow the weights and buffers, faster at first; `decay` is nearly the share of the last weights that is kept."""
    decay = min(state.preset.train.average, (1 + step) / (10 + step))
    average = state.average.state_dict()
    for name, value in state.model.state_dict().items():
        if decay and value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
