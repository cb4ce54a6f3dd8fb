"""One command a table: run what is missing, write its JSON, give its Markdown."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from usthand.common.device import check_device
from usthand.common.errors import UsthandError
from usthand.common.files import whole_file
from usthand.common.progress import Progress, silent
from usthand.experiments.bench.cells import Cell, is_whole, run_cell
from usthand.experiments.bench.tables import as_json, labels_of, make_table, markdown, put_into
from usthand.experiments.peers.environments import absence, missing_environments
from usthand.experiments.peers.footage import FOOTAGE_COLUMNS, footage_labels, measure_footage
from usthand.experiments.peers.run import PEERS

SCALES = {"tiny": "cpu", "paper": "gpu"}  # in the names of the JSON files


@dataclass(frozen=True)
class FillConfig:
    """How a table is filled."""

    cache: Path = Path("runs/bench")
    """Captures and trainings under way."""
    results: Path = Path("benchmarks/results")
    """Numbers of the cells, and the table's JSON."""
    seeds: tuple[int, ...] | None = None
    """Of the trainings; 0 to 2 for the headline, 0 to 4 for the spread, else 0, if not given."""
    run: bool = True
    """Run missing cells; --no-run prints what is there."""
    minutes: float | None = None
    """Begin no further cell after so long."""
    into: Path | None = None
    """A document to put the table into, between its markers."""
    preset: Literal["tiny", "paper"] = "tiny"
    """Networks of these sizes; `paper` (the headline) wants a GPU."""
    device: str = "cpu"
    """Where to train, in torch's words: cpu, cuda, cuda:1."""
    clip: Path | None = None
    """Of the table `peers`: a labelled capture of your own, measured by its left-out cameras in a table below."""


def fill(name: str, config: FillConfig, progress: Progress = silent) -> str:
    """Fill a table as far as time allows; returns its Markdown, and below it a sentence if other programs are missing.

    `progress` is told of every cell before it begins, as the task "cells" with its name, and of what the cell does.

    Raises:
        UsthandError: If there is no such table or device, the document has no place for it, or the table has no clip.
    """
    if config.clip is not None and name != "peers":
        raise UsthandError(f"the table {name!r} has no clip", "only `peers` has", "leave --clip out")
    check_device(config.device)  # before captures are made
    began, results = time.monotonic(), config.results
    table = make_table(name, config.seeds, config.preset)
    wanted = [cell for cell in table.cells() if not is_whole(cell, results)] if config.run else []
    absent = missing_environments() if config.clip or any(cell.method in PEERS for cell in wanted) else []
    missing = [cell for cell in wanted if _environment(cell) not in absent]
    for number, cell in enumerate(missing):
        if config.minutes is not None and time.monotonic() - began > 60 * config.minutes:
            break
        progress(number, len(missing), "cells", cell.name)
        run_cell(cell, config.cache, results, config.device, progress)
    data = as_json(table, results)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}-{SCALES[config.preset]}.json").write_text(json.dumps(data, indent=1) + "\n")
    if config.into is not None:
        config.into.write_text(put_into(config.into.read_text(), table, data))
    parts = [markdown(data, labels_of(table), table.columns)]
    if config.clip is not None:
        parts.append(_clip_table(name, config.clip, config, progress))
    return "\n\n".join([*parts, *([absence(absent)] if absent else [])])


def _clip_table(name: str, clip: Path, config: FillConfig, progress: Progress) -> str:
    """Footage without truth, under its name."""
    rows = measure_footage(clip, config.cache / "peers" / clip.resolve().name, progress=progress)
    with whole_file(config.results / f"{name}-{clip.resolve().name}.json") as part:
        part.write_text(json.dumps(rows, indent=1) + "\n")
    lines = {
        of: {key: {"mean": v, "std": 0.0, "seeds": [v]} for key, v in row.items() if v is not None}
        for of, row in rows.items()
    }
    data = {"regimes": {clip.resolve().name: lines}, "seeds": [0]}
    return markdown(data, footage_labels(), FOOTAGE_COLUMNS)


def _environment(cell: Cell) -> str | None:
    """The environment of another program that a cell needs."""
    return PEERS[cell.method].environment.name if cell.method in PEERS else None
