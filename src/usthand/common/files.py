"""Files and folders that are there whole or not at all, and never written over by accident."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from usthand.common.errors import UsthandError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to; the file takes its name only once the block ends, and no trace is left if the block fails.

    The folder is made if need be. The temporary name is of this process, so two runs never tear each other's file.

    Args:
        path: Where the file is to be; one that is there already is replaced.

    Yields:
        The path to write to, with the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(out: str | Path, kind: str) -> Iterator[Path]:
    """A folder to fill; it appears under its name only once the block ends, and not at all if the block fails.

    Args:
        out: Where the folder is to be; an empty one may be there.
        kind: What the folder is, with its article, for the message: "a capture".

    Yields:
        The folder to fill.

    Raises:
        UsthandError: If something is there already.
    """
    refuse_filled_folder(out, kind)
    out = Path(out).resolve()  # "." has no name
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if not out.is_dir():
        partial.rename(out)
        return
    for entry in partial.iterdir():  # into the empty folder and not in its place: somebody may be working in it
        entry.rename(out / entry.name)
    partial.rmdir()


def refuse_filled_folder(out: str | Path, kind: str) -> None:
    """Stop before work begins that ends in `whole_folder(out, kind)`.

    Raises:
        UsthandError: If something is at `out` that is not an empty folder.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsthandError(f"{out} exists", f"{kind} is never written over", "choose another name, or remove it first")


def refuse_existing(
    paths: Iterable[str | Path],
    overwrite: bool = False,
    cause: str = "an earlier run wrote it",
    fix: str = "choose another --out, or add --overwrite",
) -> None:
    """Stop before work begins whose output would replace something.

    Args:
        paths: What is to be written.
        overwrite: Whether replacing is wanted; then nothing is refused.
        cause: Why something may be there, for the message.
        fix: What to do about it, for the message.

    Raises:
        UsthandError: If one of the paths exists and `overwrite` is not set.
    """
    there = [path for path in map(Path, paths) if path.exists()]
    if there and not overwrite:
        raise UsthandError(f"{there[0]} is there already", cause, fix)


def write_toml(path: str | Path, data: Mapping[str, Any], comment: str = "") -> None:
    """Write plain tables as TOML, each array on one line; the file appears whole or not at all.

    Args:
        path: The file; one that is there already is replaced.
        data: Strings, numbers, lists and tables of these. Floats come back exactly.
        comment: Lines for people at the top of the file.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    depth = 0  # of arrays; tomli_w puts each of their items on a line of its own
    for line in tomli_w.dumps(data).removesuffix("\n").split("\n"):
        item, closes = line.strip(), line.strip() in ("]", "],")
        if depth:
            lines[-1] = lines[-1].rstrip(", ") + item if closes else lines[-1] + item
            lines[-1] += " " if item.endswith(",") else ""
        else:
            lines.append(line)
        depth += item.endswith("[") - closes
    with whole_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
