"""Commands that repeat the project's own experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from usthand.cli.progress import progress_bar
from usthand.cli.show import cell_progress, show_demo
from usthand.experiments.bench.fill import FillConfig, fill
from usthand.experiments.peers.environments import install as install_peers
from usthand.experiments.pretrain import PretrainConfig

Table = Literal[
    "headline",
    "spread",
    "fresh",
    "targets",
    "detector",
    "foreign",
    "reliability",
    "peers",
    "labels",
    "views",
    "ablation",
    "parts",
    "gate",
    "window",
    "blocks",
    "hypotheses",
]


def demo(out: Path = Path("runs/demo"), seed: int = 0, steps: int | None = None, frames: int = 400) -> None:
    """The whole method on a synthetic capture, from nothing to a report with pictures and a table.

    Args:
        out: Folder to write: capture, training, results, metrics.json, report.html.
        seed: Of the capture and the training.
        steps: Length of the training, if not the preset's.
        frames: Length of the capture.
    """
    from usthand.experiments.demo import run_demo

    made = run_demo(out, seed, steps, frames, progress_bar("demo"))
    show_demo(made.numbers)
    print(f"Report: {made.report}")


def bench(table: Positional[Table], config: OmitArgPrefixes[FillConfig], install: bool = False) -> None:
    """Fill a table of the evidence, cell by cell, and print it; cells that are there are not run again.

    Args:
        table: Which one; docs/benchmarks.md says what each shows.
        config: Where, and how much of it.
        install: First make the environments of the other programs that the table `peers` runs, some 6 GB.
    """
    if install:
        install_peers(progress_bar("peers"))
    print(fill(table, config, cell_progress()))


def pretrain(config: OmitArgPrefixes[PretrainConfig]) -> None:
    """Train the weights that come with the package, on many synthetic captures and their exact 2D labels.

    Args:
        config: How much, and from where.
    """
    from usthand.experiments.pretrain import pretrain as run

    print(run(config, progress_bar("pretraining")))
