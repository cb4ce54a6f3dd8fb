"""What papers print for a data set's protocol, set beside our own numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from usthand.labels.labels import ANNOTATION, load_npz

if TYPE_CHECKING:
    from usthand.capture.capture import Capture

ALIGNMENTS = {"": "absolute", "_wrist": "wrist-relative", "_scale": "wrist and scale", "_pa": "Procrustes"}
"""The ending of a number of `usthand.evaluation.metrics`, and what is aligned before it is taken."""
_SUFFIXES = ("_mm", "_wrist_mm", "_scale_mm")
OURS: dict[str, tuple[str, ...]] = {
    "MPVPE": tuple(f"mpvpe{suffix}" for suffix in _SUFFIXES),
    "MPJPE": tuple(f"{name}{suffix}" for name in ("mpjpe", "mesh_mpjpe") for suffix in _SUFFIXES),
    "PA-MPVPE": ("mpvpe_pa_mm",),
    "PA-MPJPE": ("mpjpe_pa_mm", "mesh_mpjpe_pa_mm"),
    "AUC-V": ("auc_v",),
}
"""Our numbers for a metric of the papers.

Several where the papers do not say how they aligned, and the mesh's own joints beside free ones: the truth of data sets
is the hand model's joints."""


class Comparison(NamedTuple):
    """One published figure and one of our numbers."""

    method: str
    metric: str
    alignment: str
    """Of the paper."""
    paper: float
    ours: float
    our_alignment: str
    gap: float
    """Ours less the paper's."""
    views: int
    """Of the paper."""
    supervised: bool
    source: str


def published(dataset: str, protocol: str, split: str) -> list[dict]:
    """The tables of a protocol, as published.toml holds them; none for footage of one's own."""
    text = (resources.files("usthand.evaluation") / "published.toml").read_text("utf-8")
    wanted = {"dataset": dataset, "protocol": protocol, "split": split}
    return [
        table for table in tomllib.loads(text)["table"] if all(table[key] == value for key, value in wanted.items())
    ]


def compare(numbers: Mapping[str, object], dataset: str, protocol: str, split: str) -> list[Comparison]:
    """Every published figure beside each of our numbers that it may be compared with; none where we have no number."""
    return [
        _row(table, figure, name, ours)
        for table in published(dataset, protocol, split)
        for figure in table["figures"]
        for name in OURS[figure["metric"]]
        if isinstance(ours := numbers.get(name), int | float)
    ]


def _row(table: dict, figure: dict, name: str, ours: float) -> Comparison:
    return Comparison(
        method=figure["method"],
        metric=figure["metric"],
        alignment=figure["alignment"],
        paper=figure["value"],
        ours=ours,
        our_alignment=_alignment(name),
        gap=ours - figure["value"],
        views=table["views"],
        supervised=table.get("supervised", False),
        source=table["source"],
    )


def _alignment(name: str) -> str:
    body = name.removesuffix("_mm")
    aligned = next(words for ending, words in reversed(ALIGNMENTS.items()) if body.endswith(ending))
    return f"{aligned}, of the mesh" if name.startswith("mesh_") else aligned


def has_annotated_labels(capture: Capture) -> bool:
    """Whether any hand's labels are a data set's 2D truth in place of a detector's."""
    return any(load_npz(capture.labels_path(side)).detector == ANNOTATION for side in capture.label_sides())


def comparison_table(rows: list[Comparison], capture: Capture, recordings: str) -> str:
    """The comparison as text, with what must be known to read it."""
    lines: list[tuple[str, ...]] = [("method", "metric", "alignment", "paper", "ours", "ours aligned", "gap")]
    for row in rows:
        digits = 3 if row.metric.startswith("AUC") else 2
        name = f"{row.method} (learns from 3D truth)" if row.supervised else row.method
        figures = f"{row.paper:.{digits}f}", f"{row.ours:.{digits}f}", f"{row.gap:+.{digits}f}"
        lines.append((name, row.metric, row.alignment, figures[0], figures[1], row.our_alignment, figures[2]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    views = " or ".join(map(str, sorted({row.views for row in rows})))
    head = [
        f"{capture.dataset}, protocol {capture.protocol}, split {capture.split}; mm, AUC from 0 to 1",
        f"paper: means over the whole split, {views} views. ours: {recordings}, {len(capture.rig)} cameras.",
    ]
    if has_annotated_labels(capture):
        own = "the labels here are the data set's own 2D truth (--annotated), which the papers' methods lack"
        head.append(f"NOT COMPARABLE: {own}.")
    return "\n".join([*head, *text, "sources: " + "; ".join(dict.fromkeys(row.source for row in rows))])
