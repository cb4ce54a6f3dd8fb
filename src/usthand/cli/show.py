"""What commands say about what they made or found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from usthand.cli.progress import progress_bar

if TYPE_CHECKING:
    from usthand.capture.capture import Capture
    from usthand.capture.create import CreatedCapture
    from usthand.common.progress import Progress
    from usthand.hand.result import Result
    from usthand.labels.report import LabelReport


NAMES = 12  # characters that the names of a table's rows have at least


def show_created(made: CreatedCapture, out: Path) -> None:
    """A new capture: its cameras, lengths and frame rate."""
    rig = made.capture.rig
    for camera in rig.cameras:
        part = made.footage[camera.name]
        print(f"{camera.name:<12} {part.path}  {camera.width}x{camera.height}, {camera.model}, {part.n_frames} frames")
    ending = "." if rig.metric else "; without --scale the hand's own size gives the scale."
    print(f"Lengths: {rig.unit_source}{ending}")
    print(f"Frame rate: {made.capture.fps:g}, {made.fps_from}.")
    show_overlap(made.capture)
    how = "copied" if made.copied else "linked"
    print(f"{out}: {made.capture.n_frames} frames from {len(rig)} cameras, videos {how}.")
    print(f"Next: usthand label {out}")


def show_overlap(capture: Capture) -> None:
    """Frames are never cut silently: which of them all cameras share, where some have more."""
    if capture.overlap is not None:
        print(capture.overlap)


def show_labels(report: LabelReport) -> None:
    """What was read, how good each hand's labels are, and how hands of several people were told apart."""
    for note in report.notes:
        print(note)
    show_table(report.rows(), "labels")
    if report.people:
        print(report.people)


def save_and_show(result: Result, out: Path, note: str | None = None) -> None:
    """Write a result, and say what it holds and what is to be noted about it."""
    from usthand.evaluation.evaluate import network_note

    out.parent.mkdir(parents=True, exist_ok=True)
    result.save(out)
    told = f"{out}: {int(result.valid.sum())} of {len(result.valid)} frames, {result.side} hand, {result.method}."
    if not result.metric:
        told += f" Lengths are not metric: {result.unit_source}."
    if result.joint_model == "soft":
        told += " Joints are the hand model's; the detector's own are kept beside them."
    print(told)
    for sentence in (network_note(result), note):
        if sentence is not None:
            print(sentence)


def show_numbers(numbers: dict[str, object]) -> None:
    """Numbers of an evaluation, one a line; those by joint are for JSON alone."""
    width = max(map(len, numbers))
    for name, value in numbers.items():
        if not isinstance(value, dict):
            print(f"{name:<{width}}  {value:.3f}" if isinstance(value, float) else f"{name:<{width}}  {value}")


def show_demo(numbers: dict[str, object]) -> None:
    """The demo's table."""
    from usthand.experiments.demo import CAPTION, TABLE, table_rows

    title = f"Error against truth, {numbers['frames']} frames; absolute unless said otherwise"
    show_table([("", *TABLE.values()), *table_rows(numbers)], title, CAPTION)


def show_table(rows: Sequence[Sequence[str]], title: str, caption: str | None = None) -> None:
    """A table for the terminal; the first row is the head, whose cells may have two lines.

    In a narrow terminal names are broken, and numbers and words of the head never.
    """
    table = Table(title=title, caption=caption)
    table.add_column(rows[0][0], overflow="fold", min_width=NAMES)
    widths = [max(map(len, (*column[0].split(), *column[1:]))) for column in zip(*rows, strict=True)][1:]
    for heading, width in zip(rows[0][1:], widths, strict=True):
        table.add_column(heading, justify="right", min_width=width)
    for row in rows[1:]:
        table.add_row(*row)
    console, frame = Console(), 5 * len(rows[0])  # two spaces a column more than it has: rich divides them unevenly
    Console(width=max(console.width, NAMES + sum(widths) + frame)).print(table)


def cell_progress() -> Progress:
    """A line on stderr for each cell of a benchmark, and bars for what is done in it."""
    bar = progress_bar("benchmark")

    def show(done: int, total: int, task: str = "", note: str = "") -> None:
        if task != "cells":
            bar(done, total, task, note)
        elif done < total:
            print(f"cell {done + 1} of {total}: {note}", file=sys.stderr)

    return show
