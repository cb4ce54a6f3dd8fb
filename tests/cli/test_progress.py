"""The bar on stderr: late, only for a person, one for each task, and gone at the end."""

from __future__ import annotations

import io
import sys

import pytest

from usthand.cli import progress
from usthand.cli.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved, for the bar alone."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_short_work_shows_nothing(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    show = progress_bar("drawing")
    for done in range(5):
        show(done + 1, 5)
    assert sys.stderr.getvalue() == ""


def test_nothing_is_shown_where_nobody_looks(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    show = progress_bar("drawing")
    clock[0] += 3.0
    show(1, 5)
    assert sys.stderr.getvalue() == ""


def test_long_work_has_a_bar_for_each_task(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    show = progress_bar("training")
    clock[0] += 3.0
    for done in range(1, 4):
        show(done, 3, "cropping")
    for done in range(1, 4):
        show(done, 3, note=f"loss {done}")
    text = sys.stderr.getvalue()
    assert "cropping" in text and "training" in text and "loss 1" in text
    before = len(text)
    show(3, 3, "another")  # over before it has begun
    assert len(sys.stderr.getvalue()) == before


def test_a_task_that_comes_again_has_a_bar_again(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    show = progress_bar("cells")
    clock[0] += 3.0
    for round_ in range(2):
        for done in range(1, 4):
            show(done, 3, "training", f"round {round_}")
    assert "round 0" in sys.stderr.getvalue() and "round 1" in sys.stderr.getvalue()
