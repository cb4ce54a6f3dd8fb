"""Tables from cells: the lines of each, as JSON, and as the Markdown that the README holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from usthand.common.errors import UsthandError
from usthand.experiments.bench.cells import Cell, provenance, read_cell
from usthand.experiments.bench.regimes import load_regime, own_regime_names
from usthand.experiments.peers.run import PEERS
from usthand.training.checkpoint import weights_digest

MISSING = "missing"
PRETRAINED = {
    "shipped": "**UST-Hand, shipped weights**, no training",
    "shipped-network": "its network alone",
    "hamuco-pretrained": "HaMuCo-like, pretrained alike, no training",
}
ADAPTED = {
    "adapted": "UST-Hand, adapted",
    "adapted-network": "its network alone",
    "hamuco-adapted": "HaMuCo-like, adapted",
}
FROM_BACKBONE = {
    "usthand": "UST-Hand, from the backbone",
    "network": "its network alone",
    "hamuco": "HaMuCo-like, from the backbone",
}
UNTRAINED = {"fit": "fit", "smooth": "triangulation, smoothed", "raw": "raw triangulation"}
RELIABILITY_LEVELS = ("mediapipe", "heavy", "light")  # the real detector first
SEEDS = {"headline": 3, "spread": 5}
"""The number of trainings that a table's lines are the mean of; 1 for the others."""
HEADLINE_METHODS = PRETRAINED | ADAPTED | FROM_BACKBONE | UNTRAINED
OF_SETTINGS = PRETRAINED | ADAPTED | UNTRAINED  # at other label levels and numbers of views
IN_SHORT = ("shipped", "adapted", "adapted-network", "hamuco-pretrained", "hamuco-adapted", "fit", "smooth", "raw")
"""Lines of a short table: mesh errors alone, regimes side by side."""
OF_FRESH = {
    name: HEADLINE_METHODS[name] for name in ("shipped", "shipped-network", "adapted", "adapted-network", *UNTRAINED)
}
"""On captures by which no constant was chosen: what a user gets."""
OF_TARGETS = ADAPTED | {
    "labels-adapted": "UST-Hand, adapted, each label as it is",
    "labels-adapted-network": "its network alone",
}
OF_FOREIGN = {name: HEADLINE_METHODS[name] for name in ("shipped", "shipped-network", "fit", "smooth", "raw")}
OF_RELIABILITY = {name: HEADLINE_METHODS[name] for name in ("shipped", "shipped-network", "fit", "raw")}
OF_DETECTOR = {name: HEADLINE_METHODS[name] for name in ("shipped", "shipped-network", "fit", "smooth", "raw")}
OF_PEERS = ("raw", "smooth", "fit", "shipped")
PARTS_OF = {
    "network": "usthand",
    "head": "usthand",
    "shipped-network": "shipped",
    "adapted-network": "adapted",
    "labels-adapted-network": "labels-adapted",
}  # what a method yields on the way
COLUMNS = {
    "mpvpe_mm": ("mesh", 2),
    "mpvpe_pa_mm": ("mesh, Procrustes", 2),
    "mpjpe_mm": ("joints", 2),
    "auc_v": ("AUC of mesh", 3),
    "f5": ("F@5", 3),
    "f15": ("F@15", 3),
}
FOREIGN_COLUMNS = {
    "surface_mm": ("surface", 2),
    "surface_to_true_mm": ("to the true surface", 2),
    "surface_from_true_mm": ("from it", 2),
    "mpjpe_mm": ("joints", 2),
    "mpjpe_pa_mm": ("joints, Procrustes", 2),
}
"""Of meshes whose vertices do not correspond."""
UNCERTAINTY_COLUMNS = {
    "coverage50": ("in 50 % region", 3),
    "coverage90": ("in 90 %", 3),
    "coverage95": ("in 95 %", 3),
    "vertex_coverage90": ("vertices in 90 %", 3),
    "sparsification_ratio": ("area to oracle's", 2),
    "sparsification_ideal": ("at best", 2),
    "nll": ("NLL", 2),
    "nll_constant": ("of a constant", 2),
    "hidden_std_ratio": ("std, hidden to seen", 2),
    "hidden_error_ratio": ("error, hidden to seen", 2),
}
JOINT_COLUMNS = {
    "mpjpe_mm": ("joints", 2),
    "placed_mpjpe_mm": ("of those placed", 2),
    "less_offset_mm": ("less offset", 2),
    "jitter_mm": ("jitter", 2),
    "bone_spread_mm": ("bone spread", 2),
    "placed": ("placed", 3),
    "coverage90": ("in 90 % region", 3),
    "seconds": ("seconds", 1),
}
COLUMNS_OF = {"errors": COLUMNS, "uncertainty": UNCERTAINTY_COLUMNS, "joints": JOINT_COLUMNS}
PEER_SETTINGS = (
    ("foreign", "mediapipe"),
    ("oakink-like", "mediapipe"),
    ("hanco-like", "mediapipe"),
    ("dexycb-like", "mediapipe"),
    ("oakink-like", "heavy"),
    ("hanco-like", "heavy"),
    ("dexycb-like", "heavy"),
)
"""Regimes and label levels on which other programs are measured; a line more is a setting more."""
MAX_VIEWS = {"anipose-ransac": 4}
"""It triangulates every set of two cameras or more: 11 of 4, 247 of 8, some 20 minutes for 100 frames."""
ABLATIONS = {
    "usthand": "all parts",
    "no-confidence": "no confidence",
    "no-fusion": "no projection fusion",
    "no-stpt": "no STPT attention",
    "no-spatial": "no spatial attention",
    "no-temporal": "no temporal attention",
    "no-cross": "no cross-set attention",
    "no-casa": "no CASA",
    "no-gcn": "no adaptive GCN",
    "gaussian": "Gaussian in place of the flow",
    "no-flow": "no distribution",
    "published-targets": "each label as it is (published)",
    "no-gate": "no gate (published)",
}
PARTS_TAKEN_OUT = {
    "shipped-network": "all parts",
    "without-confidence": "confidence 1",
    "without-casa": "no CASA",
    "without-gcn": "no adaptive GCN",
    "without-couplings": "no couplings in the flow",
    "without-fusion": "no projection fusion",
    "without-stpt": "points as STPT gets them",
    "without-spatial": "no spatial attention",
    "without-temporal": "no temporal attention",
    "without-cross": "no cross-set attention",
    "with-1-block": "one block of STPT in place of two",
    "with-1-hypothesis": "1 hypothesis in place of 16",
    "with-4-hypotheses": "4 hypotheses",
    "with-32-hypotheses": "32 hypotheses",
}


OF_GATE = {
    "shipped-network": "the network alone, as it is used",
    "without-gate": "no gate: the labels do not say where to look",
    "blind": "grey images within the gate",
    "triangulated": "points from the flow's covariances, no STPT",
}
"""What the network sees by itself, and what the labels tell it through the gate."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    group: str
    label: str
    cell: Cell
    """Of any seed."""
    of: str
    """Which of the names that the cell's method gives."""

    @property
    def name(self) -> str:
        """In the JSON."""
        known = self.cell.method in (*HEADLINE_METHODS, *OF_TARGETS, self.of)
        return self.of if known else f"{self.cell.method}/{self.of}"


@dataclass(frozen=True)
class Table:
    """A table: its lines, and the seeds that they are the mean of."""

    name: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]

    @property
    def columns(self) -> dict[str, tuple[str, int]]:
        """Heading and decimals of each number shown."""
        cell = self.rows[0].cell
        foreign = cell.measures == "errors" and load_regime(cell.regime).of_other_mesh
        return FOREIGN_COLUMNS if foreign else COLUMNS_OF[cell.measures]

    def cells(self) -> list[Cell]:
        """All distinct cells, first seeds first, so that a table is soon whole with one seed."""
        wanted = [replace(row.cell, seed=seed).settled() for seed in self.seeds for row in self.rows]
        return list(dict.fromkeys(wanted))


PAPER_METHODS = {"usthand": "UST-Hand", "network": "its network alone", "hamuco": "HaMuCo-like"} | UNTRAINED
"""Of the headline at the published sizes, where trainings start from nothing."""


def _methods(names: dict[str, str], group: str, like: Cell) -> Iterator[Row]:
    """A line for each method, in the setting of a cell."""
    for of, label in names.items():
        yield Row(group, label, replace(like, method=PARTS_OF.get(of, of)), of)


def _regimes(names: dict[str, str], like: Cell) -> tuple[Row, ...]:
    """Some methods in all regimes."""
    return tuple(row for name in own_regime_names() for row in _methods(names, name, replace(like, regime=name)))


def _variants(names: dict[str, str], of: str) -> tuple[Row, ...]:
    group = {"network": "the network alone", "usthand": "the final result"}[of]
    return tuple(Row(group, label, Cell("hanco-like", name), of) for name, label in names.items())


def _ablation() -> tuple[Row, ...]:
    """The parts are the network's: its own results show what they do, before the final fit evens them out."""
    head = Row("the network alone", "mesh of the hand head (published)", Cell("hanco-like", "usthand"), "head")
    return (*_variants(ABLATIONS, "network"), head, *_variants(ABLATIONS, "usthand"))


def _labels() -> tuple[Row, ...]:
    hanco = Cell("hanco-like", "")
    levels = "heavy", "light", "exact", "mediapipe"  # the level `biased` has no cells of its own yet
    return tuple(row for n in levels for row in _methods(OF_SETTINGS, n, replace(hanco, labels=n)))


def _views() -> tuple[Row, ...]:
    cells = {n: Cell("hanco-like", "", views=None if n == 8 else n) for n in (2, 4, 6, 8)}
    return tuple(row for n, cell in cells.items() for row in _methods(OF_SETTINGS, f"{n} views", cell))


def _foreign() -> tuple[Row, ...]:
    """Hands that are not our model's, as a user's are: the real detector's labels first."""
    cells = {
        f"{level} labels, {views or 8} cameras": Cell("foreign", "", labels=level, views=views)
        for level in ("mediapipe", "heavy")
        for views in (4, None)
    }
    return tuple(row for name, cell in cells.items() for row in _methods(OF_FOREIGN, name, cell))


def _reliability() -> tuple[Row, ...]:
    """Whether covariances are right, on captures by which nothing was chosen."""
    fresh = replace(ANY, tested_on="fresh", measures="uncertainty")
    settings = [(name, level) for level in RELIABILITY_LEVELS for name in own_regime_names()]
    return tuple(
        row
        for name, level in settings
        for row in _methods(OF_RELIABILITY, f"{name}, {level} labels", replace(fresh, regime=name, labels=level))
    )


def _peers() -> tuple[Row, ...]:
    """Other programs and ours on the same labels; joints alone, since none of them gives a mesh."""
    names = {name: peer.label for name, peer in PEERS.items()} | {name: OF_DETECTOR[name] for name in OF_PEERS}
    like = replace(ANY, measures="joints")
    return tuple(
        row
        for regime, level in PEER_SETTINGS
        for row in _methods(names, f"{regime}, {level} labels", replace(like, regime=regime, labels=level))
        if load_regime(regime).views <= MAX_VIEWS.get(row.of, 99)
    )


def _parts() -> tuple[Row, ...]:
    return tuple(
        row for name in ("hanco-like", "oakink-like") for row in _methods(PARTS_TAKEN_OUT, name, Cell(name, ""))
    )


def _gate() -> tuple[Row, ...]:
    return tuple(row for name in ("hanco-like", "oakink-like") for row in _methods(OF_GATE, name, Cell(name, "")))


ANY = Cell("", "")
TABLES: dict[str, Callable[[], tuple[Row, ...]]] = {
    "headline": lambda: _regimes(HEADLINE_METHODS, ANY),
    "spread": lambda: _regimes(FROM_BACKBONE, ANY),
    "fresh": lambda: _regimes(OF_FRESH, replace(ANY, tested_on="fresh")),
    "targets": lambda: _regimes(OF_TARGETS, ANY),
    "detector": lambda: _regimes(OF_DETECTOR, replace(ANY, labels="mediapipe")),
    "foreign": _foreign,
    "reliability": _reliability,
    "peers": _peers,
    "labels": _labels,
    "views": _views,
    "ablation": _ablation,
    "parts": _parts,
    "gate": _gate,
    "window": lambda: _variants({"window-1": "1", "usthand": "3", "window-5": "5", "window-7": "7"}, "network"),
    "blocks": lambda: _variants({"blocks-1": "1", "usthand": "2", "blocks-4": "4", "blocks-6": "6"}, "network"),
    "hypotheses": lambda: _variants(
        {"hypotheses-1": "1", "hypotheses-4": "4", "usthand": "16", "hypotheses-32": "32"}, "network"
    ),
}


def make_table(name: str, seeds: tuple[int, ...] | None = None, preset: str = "tiny") -> Table:
    """A table by its name, of networks of one preset, over the table's own number of seeds if none are given.

    Raises:
        UsthandError: If there is none of that name, or none of that preset.
    """
    seeds = tuple(range(SEEDS.get(name, 1))) if seeds is None else tuple(seeds)
    if name not in TABLES:
        raise UsthandError(f"there is no table {name!r}", f"there are {', '.join(TABLES)}", "choose one of these")
    if preset != "paper":
        return Table(name, TABLES[name](), seeds)
    if name != "headline":
        raise UsthandError(
            f"there is no table {name!r} at the published sizes", "only the headline is", "say `usthand bench headline`"
        )
    return Table(name, _regimes(PAPER_METHODS, replace(ANY, preset=preset)), seeds)


def summary(row: Row, seeds: tuple[int, ...], results: Path, weights: str | None = None) -> dict[str, dict]:
    """Mean, spread (sample standard deviation) and the seeds' numbers of a line, for the seeds that have been run."""
    cells = (read_cell(replace(row.cell, seed=seed), results, weights) for seed in seeds)
    found = [rows[row.of] for rows in cells if rows is not None and row.of in rows]
    return {
        key: {
            "mean": round(float(np.mean(v)), 4),
            "std": round(float(np.std(v, ddof=1)), 4) if len(v) > 1 else 0.0,
            "seeds": v,
        }
        for key in row.cell.keys
        if (v := [numbers[key] for numbers in found if key in numbers])
    }


def as_json(table: Table, results: Path, weights: str | None = None) -> dict:
    """All lines: {"regimes": {group: {method: {metric: {mean, std, seeds}}}}, ...}; missing lines are null.

    Of the shipped weights with the digest `weights`, today's by default; the table says which.
    """
    weights = weights or weights_digest()
    groups: dict[str, dict] = {}
    for row in table.rows:
        groups.setdefault(row.group, {})[row.name] = summary(row, table.seeds, results, weights) or None
    paths = [results / "cells" / f"{cell.name}.json" for cell in table.cells()]
    times = [json.loads(path.read_text())["seconds"] for path in paths if path.is_file()]
    told = {"seeds": list(table.seeds), "weights": weights, "time_s": round(sum(times), 1)}
    return {"regimes": groups, **told, **provenance()}


def markdown(data: dict, labels: dict[str, str], columns: dict[str, tuple[str, int]] = COLUMNS) -> str:
    """A table's JSON as Markdown, every group under its name."""
    lines = ["| | " + " | ".join(title for title, _ in columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for group, methods in data["regimes"].items():
        lines.append(f"| *{group}* |" + " |" * len(columns))
        for name, numbers in methods.items():
            shown = [_number(numbers, key, digits, len(data["seeds"])) for key, (_, digits) in columns.items()]
            lines.append(f"| {labels.get(name, name)} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def short_markdown(data: dict, labels: dict[str, str]) -> str:
    """The mesh errors of a table's most telling lines, its groups side by side."""
    groups = data["regimes"]
    names = [name for name in IN_SHORT if any(name in methods for methods in groups.values())]
    lines = ["| mesh error, mm | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
    for name in names:
        shown = [_number(methods.get(name), "mpvpe_mm", 2, len(data["seeds"])) for methods in groups.values()]
        lines.append(f"| {labels[name]} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _number(numbers: dict | None, key: str, digits: int, seeds: int) -> str:
    """Mean and spread, and the number of seeds where some of the table's are missing."""
    if numbers is None:
        return MISSING
    if key not in numbers:
        return ""
    mean, std, count = numbers[key]["mean"], numbers[key]["std"], len(numbers[key]["seeds"])
    spread = f" ± {std:.{digits}f}" if count > 1 and std > 0 else ""
    return f"{mean:.{digits}f}{spread}" + (f" ({count} of {seeds})" if count < seeds else "")


def labels_of(table: Table) -> dict[str, str]:
    """What a table's lines are called, by their names in the JSON."""
    return {row.name: row.label for row in table.rows}


def put_into(text: str, table: Table, data: dict) -> str:
    """A document with the table, its short form or both replaced, between their markers.

    Raises:
        UsthandError: If it has no such markers.
    """
    labels, found = labels_of(table), False
    whole = partial(markdown, columns=table.columns)
    for name, form in ((table.name, whole), (f"{table.name}, short", short_markdown)):
        begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        if begin in text and end in text:
            new = f"{begin}\n{form(data, labels)}\n{end}"
            pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
            found, text = True, re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
    if not found:
        begin, end = f"<!-- table: {table.name} -->", f"<!-- end: {table.name} -->"
        raise UsthandError(
            f"there is no place for the table {table.name!r}", "its markers are missing", f"add {begin} and {end}"
        )
    return text
