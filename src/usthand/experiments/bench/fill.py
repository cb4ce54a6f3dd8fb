"""One command a table: run what is missing, write its JSON, give its Markdown."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console

from usthand.common.device import check_device
from usthand.experiments.bench.cells import is_whole, run_cell
from usthand.experiments.bench.tables import as_json, labels_of, make_table, markdown, put_into

SCALES = {"tiny": "cpu", "paper": "gpu"}  # in the names of the JSON files


def fill(
    name: str,
    cache: Path,
    results: Path,
    seeds: tuple[int, ...] | None = None,
    run: bool = True,
    minutes: float | None = None,
    into: Path | None = None,
    preset: str = "tiny",
    device: str = "cpu",
) -> str:
    """Fill a table as far as time allows; returns its Markdown.

    Args:
        seeds: of the trainings; the table's own number of them if none are given.
        minutes: no cell is begun after so long; None for no limit.
        into: a document whose table of this name is replaced.
        preset, device: of the trained networks; see `usthand.training.loop`.

    Raises:
        UsthandError: if there is no such table or device, or the document has no place for it.
    """
    check_device(device)  # before captures are made
    console, began = Console(stderr=True), time.monotonic()
    table = make_table(name, seeds, preset)
    missing = [cell for cell in table.cells() if not is_whole(cell, results)]
    for number, cell in enumerate(missing if run else []):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            break
        console.print(f"cell {number + 1} of {len(missing)}: {cell.name}")
        run_cell(cell, cache, results, device=device)
    data = as_json(table, results)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}-{SCALES[preset]}.json").write_text(json.dumps(data, indent=1) + "\n")
    text = markdown(data, labels_of(table))
    if into is not None:
        into.write_text(put_into(into.read_text(), table, data))
    return text
