"""Tables say what is missing, and the committed ones are made from committed cells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from support.bench import fake_cell
from usthand.cli import experiments as cli
from usthand.cli.experiments import Table
from usthand.common.errors import UsthandError
from usthand.experiments.bench import cells, methods, tables
from usthand.experiments.bench.cells import KEYS, Cell
from usthand.experiments.bench.fill import FillConfig, fill
from usthand.experiments.bench.methods import METHODS, Method
from usthand.experiments.bench.tables import (
    HEADLINE_METHODS,
    TABLES,
    as_json,
    labels_of,
    make_table,
    markdown,
    put_into,
)

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_a_missing_cell_is_printed_as_missing(tmp_path):
    for seed, value in enumerate((3.0, 5.0)):
        fake_cell(tmp_path, Cell("hanco-like", "usthand", seed), value)
    fake_cell(tmp_path, Cell("hanco-like", "fit"), 6.0)
    data = as_json(make_table("headline", (0, 1, 2)), tmp_path)
    ours = data["regimes"]["hanco-like"]["usthand"]["mpvpe_mm"]
    assert ours == {"mean": 4.0, "std": 1.4142, "seeds": [3.0, 5.0]} and data["time_s"] == 6.0
    assert data["regimes"]["hanco-like"]["hamuco"] is None
    text = markdown(data, labels_of(make_table("headline", (0,))))
    assert (
        "| UST-Hand, from the backbone | 4.00 ± 1.41 (2 of 3) |" in text
        and "| HaMuCo-like, from the backbone | missing |" in text
    )
    assert "| fit | 6.00 |" in text


def test_a_page_may_hold_a_short_form(tmp_path):
    """Mesh errors alone, regimes side by side; only that one where only its markers are."""
    fake_cell(tmp_path, Cell("hanco-like", "shipped"), 2.5)
    fake_cell(tmp_path, Cell("oakink-like", "shipped"), 3.5)
    table = make_table("headline", (0, 1))
    page = put_into(
        "a\n<!-- table: headline, short -->\n<!-- end: headline, short -->\nb", table, as_json(table, tmp_path)
    )
    lines = page.splitlines()
    assert lines[2] == "| mesh error, mm | dexycb-like | hanco-like | oakink-like |" and lines[-1] == "b"
    assert "| **UST-Hand, shipped weights**, no training | missing | 2.50 | 3.50 |" in lines
    assert len(lines) == 6 + len(tables.IN_SHORT)


@pytest.mark.parametrize("name", get_args(Table))
def test_every_table_is_made_of_known_methods(name):
    table = make_table(name, (0, 1))
    assert len({(row.group, row.label, row.of) for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert row.of in METHODS[row.cell.method].gives
    wanted = table.cells()
    assert len(set(wanted)) == len(wanted)
    assert [cell.seed for cell in wanted] == sorted(cell.seed for cell in wanted), "whole with one seed first"
    assert set(labels_of(table).values()) >= {row.label for row in table.rows}


def test_filling_stops_in_time_and_writes_into_a_document(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(
        "usthand.experiments.bench.fill.run_cell",
        lambda cell, cache, results, device, progress: (ran.append(cell), fake_cell(results, cell, 1.0)),
    )
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: window -->\nold\n<!-- end: window -->\nafter\n")
    config, told = FillConfig(tmp_path, tmp_path, (0,)), []
    fill("window", replace(config, minutes=0.0))
    assert not ran
    text = fill("window", replace(config, into=page), lambda *state: told.append(state))
    assert told[1] == (1, 4, "cells", ran[1].name) and len(told) == 4
    assert [cell.method for cell in ran] == ["window-1", "usthand", "window-5", "window-7"]
    assert page.read_text() == f"before\n<!-- table: window -->\n{text}\n<!-- end: window -->\nafter\n"
    assert (tmp_path / "window-cpu.json").is_file()
    with pytest.raises(UsthandError, match="no place"):
        put_into("nothing here", make_table("window", (0,)), {})


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*-cpu.json")), ids=lambda p: p.stem)
def test_committed_tables_are_made_from_committed_cells(path):
    """No number is typed by hand: the JSON follows from the cells, and every page's table from the JSON.

    A table may be of weights that the package had before, and then says so.
    """
    name = path.stem.removesuffix("-cpu")
    data = json.loads(path.read_text())
    table = make_table(name)
    made = as_json(table, RESULTS, data["weights"])
    assert list(table.seeds) == data["seeds"], "the command as it stands gives the committed table"
    assert made["regimes"] == data["regimes"]
    for page in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("benchmarks", "uncertainty"))):
        text = page.read_text()
        if f"<!-- table: {name}" in text:
            assert put_into(text, table, data) == text, f"run `usthand bench {name} --no-run --into {page.name}`"


def test_the_table_of_foreign_hands_shows_surfaces_in_place_of_vertices(tmp_path):
    """Its cells are whole without numbers of vertices, and its lines are four settings of the same methods."""
    table = make_table("foreign")
    assert {row.cell.regime for row in table.rows} == {"foreign"}
    assert {(row.cell.labels, row.cell.views) for row in table.rows} == {
        (level, views) for level in ("mediapipe", "heavy") for views in (4, None)
    }
    cell = table.rows[0].cell
    path = tmp_path / "cells" / f"{cell.name}.json"
    path.parent.mkdir(parents=True)
    numbers = dict.fromkeys(cells.FOREIGN_KEYS, 3.25)
    rows = dict.fromkeys(METHODS[cell.method].gives, numbers)
    path.write_text(json.dumps({"rows": rows, "seconds": 1.0, "weights": cell.weights}))
    assert cells.is_whole(cell, tmp_path) and not set(cells.OF_VERTICES) & set(cell.keys)
    lines = markdown(as_json(table, tmp_path), labels_of(table), table.columns).split("\n")
    assert "surface" in lines[0] and "mesh" not in lines[0] and "3.25" in lines[3]


def test_all_methods_of_a_setting_are_measured_on_the_same_frames():
    """A method that left out the hard ones would look better."""
    frames: dict[tuple, set[int]] = {}
    for path in (RESULTS / "cells").glob("*.json"):
        data = json.loads(path.read_text())
        setting = (
            data["cell"]["regime"],
            data["cell"]["labels"],
            data["cell"]["views"],
            data["cell"].get("tested_on", "test"),
        )
        frames.setdefault(setting, set()).update(row["frames"] for row in data["rows"].values())
    assert len(frames) > 5 and all(len(counts) == 1 for counts in frames.values()), frames


def test_headline_holds_what_was_asked_for():
    assert set(HEADLINE_METHODS) >= {"usthand", "hamuco", "fit", "raw"}
    assert isinstance(methods.METHODS["hamuco"], Method) and tables.COLUMNS.keys() <= set(KEYS)


def test_every_table_may_be_asked_for():
    assert set(get_args(cli.Table)) == set(TABLES)
