"""Readers of public data sets: each turns a folder, as its makers released it, into captures."""

from __future__ import annotations

from usthand.adapters import dexycb, hanco
from usthand.adapters.base import Reader
from usthand.errors import UserError

DATASETS: dict[str, Reader] = {
    "hanco": hanco.recordings,
    "dexycb": dexycb.recordings,
    "dexycb-mv": dexycb.multi_view_recordings,
}
"""What `usthand import` knows, by name; see `usthand.adapters.base` for what a reader is."""


def reader(name: str) -> Reader:
    """The reader of a data set.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in DATASETS:
        raise UserError(
            f"there is no reader for the data set {name!r}", f"there are {', '.join(DATASETS)}", "choose one of these"
        )
    return DATASETS[name]
