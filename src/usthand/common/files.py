"""Folders that are there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from usthand.common.errors import UserError


@contextmanager
def whole_folder(out: str | Path, kind: str) -> Iterator[Path]:
    """A folder to fill; it appears under its name only once the block ends, and not at all if the block fails.

    Args:
        kind: what the folder is, with its article, for the message: "a capture".

    Raises:
        UserError: if something is there already; an empty folder may be.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists", f"{kind} is never written over", "choose another name, or remove it first")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if out.is_dir():
        out.rmdir()
    partial.rename(out)
