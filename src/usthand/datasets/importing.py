"""`usthand import`: from a data set's folder to captures, with a line of report for each sequence."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np

from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.datasets.base import Reader, Recording, as_labels, check_recording, write_recording
from usthand.hand.io import INSTALLED, installed_path, load_hand
from usthand.hand.model import HandModel


def import_recordings(
    read: Reader,
    root: Path,
    out: Path,
    split: str,
    protocol: str = "",
    limit: int | None = None,
    hand: str | None = None,
    annotated: bool = False,
) -> list[Path]:
    """Write the recordings of a split as captures, and print a line for each.

    A capture that an earlier run wrote is kept, so that an import can go on where it was stopped.

    Raises:
        UsthandError: if the folder is no such data set, holds nothing of the split, or `out` has other captures.
    """
    if not root.is_dir():
        raise UsthandError(f"there is no folder {root}", "the data set is somewhere else", "check the path")
    if limit is not None and limit < 1:
        raise UsthandError(f"--limit is {limit}", "a limit is a number of sequences", "give 1 or more, or leave it out")
    model = _mano(hand)
    folders, bare = [], 0
    for recording in islice(read(root, split, protocol, model), limit):
        recording = as_labels(recording) if annotated else recording
        folder, kept = out / recording.name, False
        if folder.is_dir():
            _check_same(folder, recording)
            kept = True
        else:
            folder = write_recording(recording, out)
        print("\n".join(report_lines(recording, kept)), flush=True)
        folders.append(folder)
        bare += all(h.truth is not None and not h.truth.has_mesh for h in recording.hands)
    if not folders:
        raise UsthandError(
            f"{root} holds no recording of the split {split!r}",
            "the folder is incomplete, or of another data set",
            "compare it with the layout in docs/datasets.md",
        )
    print(f"{out}: {len(folders)} captures.")
    if bare and model is None:
        print(
            "The truth has joints only, no meshes: no MANO hand is installed. For the mesh's numbers run "
            "`usthand hand install PATH`, or add --hand FILE, and import into a new folder.",
            file=sys.stderr,
        )
    return folders


def _mano(hand: str | None) -> HandModel | None:
    if hand is None and not installed_path().is_file():
        return None
    return load_hand(hand or INSTALLED)


def _check_same(folder: Path, recording: Recording) -> None:
    there = open_capture(folder)
    if any(getattr(there, key) != getattr(recording, key) for key in ("dataset", "protocol", "split")):
        raise UsthandError(
            f"{folder} is there already, of {there.dataset or 'no data set'} {there.protocol} {there.split}",
            "another import wrote it",
            "choose another OUT",
        )


def report_lines(recording: Recording, kept: bool = False) -> list[str]:
    """A line for each hand: frames, views, residual of the 2D joints, distance of the truth, width of the palm; a note."""
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
