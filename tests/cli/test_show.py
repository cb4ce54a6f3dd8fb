"""What the commands print."""

from __future__ import annotations

import pytest

from usthand.cli.show import show_table


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_a_table_shows_every_number_in_a_narrow_terminal(columns, monkeypatch, capsys):
    """A number of which the end is missing is worse than a broken head."""
    monkeypatch.setenv("COLUMNS", columns)
    heads = ["", *(f"a long heading of column {k}" for k in range(6))]
    rows = [[f"a-result-with-a-long-name-{row}", *(f"{row}{k}.{k}{row}" for k in range(6))] for row in range(3)]
    show_table([heads, *rows], "a title")
    shown = capsys.readouterr().out
    assert all(number in shown for row in rows for number in row[1:])
    assert "…" not in shown
