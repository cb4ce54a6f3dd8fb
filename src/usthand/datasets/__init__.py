"""Readers of public data sets: each turns a folder, as its makers released it, into captures.

`base` says what a reader is, `importing` runs one; `reading`, `percamera` and `mano` hold what several readers share.
"""

from __future__ import annotations

from usthand.common.errors import UsthandError
from usthand.datasets import dexycb, hanco, ho3d, interhand, oakink
from usthand.datasets.base import Reader

DATASETS: dict[str, Reader] = {
    "hanco": hanco.recordings,
    "dexycb": dexycb.recordings,
    "dexycb-mv": dexycb.multi_view_recordings,
    "oakink-image": oakink.image_recordings,
    "oakink-mv": oakink.mv_recordings,
    "ho3d-v2": ho3d.v2_recordings,
    "ho3d-v3": ho3d.v3_recordings,
    "ho3d-mv": ho3d.mv_recordings,
    "interhand26m": interhand.recordings,
}
"""What `usthand import` knows, by name; see `usthand.datasets.base` for what a reader is."""


def reader(name: str) -> Reader:
    """The reader of a data set.

    Raises:
        UsthandError: If there is none of that name.
    """
    if name not in DATASETS:
        raise UsthandError(
            f"there is no reader for the data set {name!r}", f"there are {', '.join(DATASETS)}", "choose one of these"
        )
    return DATASETS[name]
