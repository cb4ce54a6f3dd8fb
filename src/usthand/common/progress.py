"""How long work reports its progress: one protocol. The caller decides whether and how a person sees it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called again and again while something long is under way; `done == total` is the last call of a task."""

    def __call__(self, done: int, total: int, task: str = "", note: str = "") -> None:
        """Take the state of a task.

        Args:
            done: Units of work that are done.
            total: Units of work in all.
            task: Which part of the work, in a few words, such as "cropping"; "" where there is one part only.
            note: Anything worth seeing beside it, such as the current loss.
        """


def silent(done: int, total: int, task: str = "", note: str = "") -> None:
    """The `Progress` that shows nothing."""
