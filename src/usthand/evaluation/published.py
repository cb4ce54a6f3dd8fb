"""What papers print for a data set's protocol, set beside our own numbers."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from usthand.labels.labels import ANNOTATION, load_npz

if TYPE_CHECKING:
    from usthand.capture.capture import Capture

ALIGNMENTS = {"": "absolute", "_wrist": "wrist-relative", "_scale": "wrist and scale", "_pa": "Procrustes"}
"""The ending of a number of `usthand.evaluation.metrics`, and what is aligned before it is taken."""
OURS: dict[str, tuple[str, ...]] = {
    "MPVPE": ("mpvpe_mm", "mpvpe_wrist_mm", "mpvpe_scale_mm"),
    "MPJPE": (
        "mpjpe_mm",
        "mpjpe_wrist_mm",
        "mpjpe_scale_mm",
        "mesh_mpjpe_mm",
        "mesh_mpjpe_wrist_mm",
        "mesh_mpjpe_scale_mm",
    ),
    "PA-MPVPE": ("mpvpe_pa_mm",),
    "PA-MPJPE": ("mpjpe_pa_mm", "mesh_mpjpe_pa_mm"),
    "AUC-V": ("auc_v",),
}
"""Our numbers for a metric of the papers: several where the papers do not say how they aligned, and the mesh's own joints beside
soft ones, for data sets' truth is the hand model's joints."""


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


def compare(numbers: dict, dataset: str, protocol: str, split: str) -> list[Comparison]:
    """Every published figure beside each of our numbers that it may be compared with; none where we have no number."""
    rows = []
    for table in published(dataset, protocol, split):
        for figure in table["figures"]:
            for name in OURS[figure["metric"]]:
                ours = numbers.get(name)
                if ours is not None:
                    rows.append(_row(table, figure, name, ours))
    return rows


def _row(table: dict, figure: dict, name: str, ours: float) -> Comparison:
    return Comparison(
        figure["method"],
        figure["metric"],
        figure["alignment"],
        figure["value"],
        ours,
        _alignment(name),
        ours - figure["value"],
        table["views"],
        table.get("supervised", False),
        table["source"],
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
    head = ("method", "metric", "alignment", "paper", "ours", "ours aligned", "gap")
    lines = [head]
    for row in rows:
        digits = 3 if row.metric.startswith("AUC") else 2
        name = f"{row.method} (learns from 3D truth)" if row.supervised else row.method
        figures = f"{row.paper:.{digits}f}", f"{row.ours:.{digits}f}", f"{row.gap:+.{digits}f}"
        lines.append((name, row.metric, row.alignment, figures[0], figures[1], row.our_alignment, figures[2]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    views = sorted({row.views for row in rows})
    given = has_annotated_labels(capture)
    return "\n".join(
        [
            f"{capture.dataset}, protocol {capture.protocol}, split {capture.split}; mm, AUC from 0 to 1",
            f"paper: means over the whole split, {' or '.join(map(str, views))} views. "
            f"ours: {recordings}, {len(capture.rig)} cameras.",
            *(
                [
                    "NOT COMPARABLE: the labels here are the data set's own 2D truth (--annotated), which the papers' methods lack."
                ]
                if given
                else []
            ),
            *text,
            "sources: " + "; ".join(dict.fromkeys(row.source for row in rows)),
        ]
    )
