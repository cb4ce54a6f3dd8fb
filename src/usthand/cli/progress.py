"""The bar that a person sees while something long is under way."""

from __future__ import annotations

import atexit
import sys
import time

import rich.progress as bars
from rich.console import Console

from usthand.common.progress import Progress

BAR_AFTER_S = 2.0


def progress_bar(label: str) -> Progress:
    """A bar on stderr, shown once the work has taken two seconds, and only on a terminal.

    Args:
        label: What is under way. A task with a name of its own gets a bar of its own under that name.
    """
    began = time.monotonic()
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn("{task.percentage:3.0f} %"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[note]}"),
    )
    bar = bars.Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, bars.TaskID] = {}

    def show(done: int, total: int, task: str = "", note: str = "") -> None:
        if task not in tasks:
            if done >= total or time.monotonic() - began < BAR_AFTER_S or not sys.stderr.isatty():
                return
            tasks[task] = bar.add_task(task or label, total=total, note=note)
            atexit.register(bar.stop)  # gives the cursor back after an error, too
            bar.start()
        bar.update(tasks[task], completed=done, total=total, note=note)
        if bar.finished:
            bar.stop()
            for shown in tasks.values():  # a later task of the same name gets a new bar
                bar.remove_task(shown)
            tasks.clear()

    return show
