"""Commands that use the network: train and reconstruct. Their options are the fields of the package's configs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, Suppress, arg

from usthand.capture.capture import open_capture
from usthand.cli.options import CapturePath
from usthand.cli.progress import progress_bar
from usthand.cli.show import save_and_show, show_overlap
from usthand.common.files import refuse_existing
from usthand.data.prepare import choose_side, load_hand_2d
from usthand.fit.validity import placement_note
from usthand.hand.io import load_hand
from usthand.hand.model import HandModel
from usthand.reconstruction.reconstruct import ReconstructConfig
from usthand.reconstruction.reconstruct import reconstruct as run_reconstruction
from usthand.training.config import TrainConfig
from usthand.training.loop import train as run_training


@dataclass(frozen=True)
class TrainOptions(TrainConfig):
    """As `TrainConfig`, but presets can only be named."""

    preset: Literal["tiny", "resnet", "paper"] = "tiny"
    """`tiny` for a CPU; `resnet`, a thin ResNet that starts from nothing; `paper` for the published sizes."""


@dataclass(frozen=True)
class ReconstructOptions(ReconstructConfig):
    """As `ReconstructConfig`, less what the command line says otherwise or not at all."""

    hand: Suppress[HandModel | None] = None
    with_shipped: Suppress[bool] = True


def train(
    captures: Positional[Annotated[list[Path], arg(metavar="CAPTURE...")]],
    out: Path,
    config: OmitArgPrefixes[TrainOptions],
) -> None:
    """Train the network on the captures' labels. Started again with the same settings, it goes on where it was.

    Args:
        captures: One or more capture folders with labels.
        out: Folder of the run: config, metrics.jsonl, TensorBoard, best and last checkpoint.
        config: How, and on what.
    """
    best = run_training(captures, out, config, progress_bar("training"))
    print(f"{best}: the trained network, chosen by held-out labels.")


def reconstruct(
    capture: CapturePath,
    out: Path,
    run: Path | None = None,
    side: str | None = None,
    hand_model: Annotated[str, arg(name="hand")] = "embedded",
    overwrite: bool = False,
    *,
    config: OmitArgPrefixes[ReconstructOptions],
) -> None:
    """Hands from a trained network: its 2D distributions, then the sequence fit on them.

    Args:
        capture: Folder with rig.toml, videos and labels (which say where to look).
        out: Result file (npz).
        run: Folder of a training; without one the weights that come with usthand, not adapted to this footage.
        side: Which hand, right, left or a further one such as right-2; may be left out if only one has labels.
        hand_model: Of the mesh: embedded, mano, or a file; the mesh of the hand head is always the embedded one.
        overwrite: Write over a result that is there.
        config: Which result, and how.
    """
    refuse_existing([out], overwrite)
    opened, config = open_capture(capture), replace(config, hand=load_hand(hand_model))
    show_overlap(opened)
    result = run_reconstruction(opened, run, side, config, progress_bar("reconstructing"))
    labels = load_hand_2d(opened, choose_side(opened, side), config.leave_out).labels
    save_and_show(result, out, placement_note(labels, result))
