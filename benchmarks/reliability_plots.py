"""Reliability plots from the committed table: coverage, and what is left when the most uncertain joints are removed.

    python benchmarks/reliability_plots.py benchmarks/results/reliability-cpu.json docs/images/reliability.svg

A row of panels for each label level, means over the regimes. Left: promised against measured coverage of joints, and of
vertices (dotted) where a result has their covariances; on the diagonal the promise is kept. Right: mean error of the
joints left when a share is removed, the most uncertain first (solid) and the largest errors first (dashed, the oracle).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import tyro
from matplotlib.figure import Figure
from tyro.conf import Positional

from usthand.evaluation.sparsification import REMOVED
from usthand.evaluation.uncertainty import LEVELS
from usthand.experiments.bench.tables import OF_RELIABILITY, RELIABILITY_LEVELS
from usthand.output.figures import METHOD_COLOURS

COLOURS = {"shipped": METHOD_COLOURS["usthand"], "shipped-network": METHOD_COLOURS["network"]} | METHOD_COLOURS
COVERAGE = [f"coverage{100 * level:.0f}" for level in LEVELS]
REMOVED_PERCENT = [100 * share for share in REMOVED]


@dataclass(frozen=True)
class Config:
    """What to draw, and where to."""

    table: Positional[Path]
    out: Positional[Path]


def means(groups: dict, level: str, method: str, keys: list[str]) -> np.ndarray | None:
    """A line's numbers at one label level, mean over the regimes that have them; None where none has."""
    rows = [methods.get(method) for group, methods in groups.items() if group.endswith(f", {level} labels")]
    found = [[row[key]["mean"] for key in keys] for row in rows if row and all(key in row for key in keys)]
    return np.mean(found, axis=0) if found else None


def draw(groups: dict) -> Figure:
    """The panels."""
    figure = Figure(figsize=(9.2, 3.9 * len(RELIABILITY_LEVELS)), layout="constrained")
    panels = figure.subplots(len(RELIABILITY_LEVELS), 2, squeeze=False)
    promised = 100 * np.array(LEVELS)
    for (shares, left), level in zip(panels, RELIABILITY_LEVELS, strict=True):
        shares.plot([0, 100], [0, 100], color="grey", lw=1, ls="--")
        for method, label in OF_RELIABILITY.items():
            style = {"color": COLOURS[method], "lw": 2}
            if (inside := means(groups, level, method, COVERAGE)) is not None:
                shares.plot(promised, 100 * inside, "o-", ms=4, label=label.replace("*", ""), **style)
            if (inside := means(groups, level, method, [f"vertex_{key}" for key in COVERAGE])) is not None:
                shares.plot(promised, 100 * inside, ":", **style)
            for kind, line in (("left", "-"), ("oracle", "--")):
                if (kept := means(groups, level, method, [f"{kind}_{p:.0f}_mm" for p in REMOVED_PERCENT])) is not None:
                    left.plot(REMOVED_PERCENT, kept, line, color=COLOURS[method], lw=2 if kind == "left" else 1)
        shares.set(xlabel="promised: size of the region (%)", ylabel="measured: inside it (%)", title=f"{level} labels")
        shares.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
        left.set(xlabel="removed, most uncertain first (%)", ylabel="mean error of the others (mm)", xlim=(0, 90))
        left.set_ylim(bottom=0)
        shares.grid(alpha=0.2)
        left.grid(alpha=0.2)
    shown = max((shares.get_legend_handles_labels() for shares in panels[:, 0]), key=lambda both: len(both[1]))
    figure.legend(*shown, loc="outside lower center", ncols=2)
    return figure


def main(config: Config) -> None:
    """Draw the plots."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "usthand"}):
        figure = draw(json.loads(config.table.read_text())["regimes"])
        config.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(config.out, metadata={"Date": None} if config.out.suffix == ".svg" else None)
    print(config.out)


if __name__ == "__main__":
    main(tyro.cli(Config))
