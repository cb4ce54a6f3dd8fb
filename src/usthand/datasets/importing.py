"""`usthand import`: from a data set's folder to captures, and the numbers that give a misread data set away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.datasets.base import DatasetPart, Reader, Recording, as_labels, check_recording, write_recording
from usthand.hand.io import INSTALLED, installed_path, load_hand
from usthand.hand.model import HandModel

NO_MESHES = (
    "The truth has joints only, no meshes: no MANO hand is installed. For the mesh's numbers run "
    "`usthand hand install PATH`, or add --hand FILE, and import into a new folder."
)
"""What to tell a user who has imported a recording that `lacks_meshes`."""


@dataclass(frozen=True)
class DatasetConfig:
    """What to import of a data set."""

    split: str
    protocol: str = ""
    """Empty for the data set's usual one."""
    limit: int | None = None
    """Number of sequences, from the first on; None for all."""
    hand: str | None = None
    """A hand in MANO's layout, as `load_hand` takes it; by default the installed one, if there is one."""
    annotated: bool = False
    """Write the 2D ground truth as labels."""


class ImportedRecording(NamedTuple):
    """A recording that has become a capture."""

    folder: Path
    report: list[str]
    """A line for each hand, and a note."""
    lacks_meshes: bool
    """The truth has joints alone because there is no MANO hand."""


def import_recordings(read: Reader, root: Path, out: Path, config: DatasetConfig) -> Iterator[ImportedRecording]:
    """Write the recordings of a split as captures `out/<name>`, one whenever the next is asked for.

    A capture that an earlier run wrote is kept, so that an import can go on where it was stopped.

    Raises:
        UsthandError: If the folder is no such data set, holds nothing of the split, or `out` has other captures.
    """
    if not root.is_dir():
        raise UsthandError(f"there is no folder {root}", "the data set is somewhere else", "check the path")
    if config.limit is not None and config.limit < 1:
        raise UsthandError(
            f"--limit is {config.limit}", "a limit is a number of sequences", "give 1 or more, or leave it out"
        )
    model = _mano(config.hand)
    empty = True
    for recording in islice(read(root, config.split, config.protocol, model), config.limit):
        empty = False
        recording = as_labels(recording) if config.annotated else recording
        folder = out / recording.name
        kept = folder.is_dir()
        if kept:
            _check_same(folder, recording)
        else:
            write_recording(recording, out)
        bare = all(hand.truth is not None and not hand.truth.has_mesh for hand in recording.hands)
        yield ImportedRecording(folder, report_lines(recording, kept), bare and model is None)
    if empty:
        raise UsthandError(
            f"{root} holds no recording of the split {config.split!r}",
            "the folder is incomplete, or of another data set",
            "compare it with the layout in docs/datasets.md",
        )


def _mano(hand: str | None) -> HandModel | None:
    if hand is None and not installed_path().is_file():
        return None
    return load_hand(hand or INSTALLED)


def _check_same(folder: Path, recording: Recording) -> None:
    there = open_capture(folder)
    if any(getattr(there, key) != getattr(recording, key) for key in DatasetPart._fields):
        raise UsthandError(
            f"{folder} is there already, of {there.dataset or 'no data set'} {there.protocol} {there.split}",
            "another import wrote it",
            "choose another OUT",
        )


def report_lines(recording: Recording, kept: bool = False) -> list[str]:
    """A line for each hand, and a note.

    A line has frames, views, residual of the 2D joints, distance of the truth and width of the palm.
    """
    views = recording.present.sum(1)
    span = f"{views.max()}" if views.min() == views.max() else f"{views.min()}-{views.max()}"
    lines = []
    for side, found in check_recording(recording).items():
        parts = [
            f"{recording.name}  {side}: {found['frames']} of {len(recording.images)} frames, {span} views",
            _number("residual", found["residual_px"], "px"),
            _number("truth", found["truth_px"], "px"),
            _number("palm", found["palm_mm"], "mm"),
            "" if found["inside"] is None else f"{100 * found['inside']:.0f} % of the truth inside the images",
            "kept as it was" if kept else "",
        ]
        lines.append(", ".join(part for part in parts if part))
    return [*lines, f"  {recording.note}"] if recording.note else lines


def _number(name: str, value: float | int | None, unit: str) -> str:
    return f"{name} -" if value is None else f"{name} {np.round(value, 2):g} {unit}"
