"""Settings of a training: the presets, and what a user chooses beside one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from usthand.data.crops import CropConfig
from usthand.network.config import PAPER, THIN, TINY, ModelConfig
from usthand.training.losses import LossConfig


@dataclass(frozen=True)
class OptimisationConfig:
    """Length and course of a training."""

    steps: int = 1600
    clips: int = 2
    """Clips in a batch."""
    clip_frames: int = 3
    """Consecutive frames in a clip."""
    learning_rate: float = 3e-3
    schedule: Literal["cosine", "step"] = "cosine"
    """`step` is the published one: a tenth of the rate after two thirds of the training."""
    warmup: int = 100
    average: float = 0.995
    """Decay of the weights' running average (less at first), which is what is saved and used; 0 for none."""
    points_from: float = 0.8
    """Share of the training before the 3D stages join. Until heatmaps have formed there is nothing to triangulate, and
    a step without 3D costs two thirds. 0 trains all stages from the start (the paper's way)."""
    single_frames: int = 6
    """Frames in a batch of that first part. They are single ones, as neighbours in time teach the 2D stages little."""
    view_dropout: float = 0.1
    label_dropout: float = 0.05
    hypothesis_dropout: float = 0.25
    targets: Literal["consensus", "labels"] = "consensus"
    """Learn the labels' multi-view, temporal consensus, or each label as it is (the paper's way)."""
    start: Literal["shipped", "backbone", "landmark", "scratch"] = "scratch"
    """From the weights in the package, learned on synthetic captures (`usthand.experiments.pretrain`); from their
    trunk alone, as others start from ImageNet; from the trunk of MediaPipe's landmark model; or from random weights."""
    trunk_rate: float = 1.0
    """Learning rate of the backbone's trunk over that of the rest: a trunk that has seen much must not forget it."""
    fixed_stride: int = 0
    """Of the landmark trunk, the layers up to this stride are not trained, which saves most of a step's time; 32 for
    all of it, 0 for none."""
    seed: int = 0


FROM_LANDMARKS = OptimisationConfig(start="landmark", trunk_rate=0.2, fixed_stride=8)
"""From MediaPipe's trunk, whose early layers stay as they are and whose late ones change slowly: it has seen real hands
(docs/development/pretraining.md)."""
ADAPT = replace(FROM_LANDMARKS, start="shipped", steps=300, learning_rate=5e-4, points_from=0.5)
"""From the shipped weights to one capture: short and at a low learning rate, or the network forgets what it learned
before (docs/development/pretraining.md)."""
UPRIGHT = CropConfig(factor=1.4, gate=0.17, upright=True)
"""As the landmark trunk has learned to see hands: upright, and so large that they fill most of the crop."""


@dataclass(frozen=True)
class Preset:
    """Everything that a training needs except captures."""

    model: ModelConfig = field(default_factory=ModelConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: OptimisationConfig = field(default_factory=OptimisationConfig)


PRESETS: dict[str, Preset] = {
    "tiny": Preset(TINY, UPRIGHT, train=ADAPT),
    "resnet": Preset(THIN),
    # The published values; 30 epochs of 2500 windows, the size of the demo's capture times the paper's.
    "paper": Preset(
        PAPER,
        CropConfig(factor=2.0, rotation_deg=180.0, gate=0.0),
        LossConfig(cross_entropy=0.0),
        OptimisationConfig(
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
    return replace(preset, train=FROM_LANDMARKS) if preset.train.start == "shipped" else preset


@dataclass(frozen=True)
class TrainConfig:
    """What a user chooses for a training (`usthand.training.loop.train`).

    Examples:
        >>> import usthand
        >>> config = usthand.TrainConfig(preset="paper", side="right", device="cuda")
    """

    preset: Literal["tiny", "resnet", "paper"] | Preset = "tiny"
    """`tiny` for a CPU; `resnet`, a thin ResNet that starts from nothing; `paper` for the published sizes; or settings
    of one's own."""
    side: str | None = None
    """Which hand: right, left, or a further one such as right-2; None for the only one that has labels."""
    leave_out: str | None = None
    """A camera not to use."""
    seed: int | None = None
    """Of weights, batches and augmentation; None for the preset's, which is 0."""
    steps: int | None = None
    """Length of the training; None for the preset's."""
    targets: Literal["consensus", "labels"] | None = None
    """See `OptimisationConfig.targets`; None for the preset's."""
    from_scratch: bool = False
    """Start without what the package's weights have learned; the trunk of `tiny` starts from MediaPipe's."""
    backbone_weights: Path | None = None
    """A file of ImageNet weights for the backbone (paper: ResNet-34); implies `from_scratch`."""
    crop_cache: Path | None = None
    """A folder that keeps the crops for other trainings; without one they lie in the run until it has ended."""
    device: str = "cpu"
    """In torch's words: cpu, cuda, cuda:1. A run may go on on another one."""

    def chosen(self) -> Preset:
        """The preset with these changes."""
        preset = PRESETS[self.preset] if isinstance(self.preset, str) else self.preset
        if self.from_scratch or self.backbone_weights is not None:
            preset = from_nothing(preset)
        # As on the command line, 0 steps are none chosen.
        changes = {"seed": self.seed, "steps": self.steps or None, "targets": self.targets}
        return replace(preset, train=replace(preset.train, **{k: v for k, v in changes.items() if v is not None}))
