"""The little YAML that DexYCB's files are written in: mappings, lists, numbers and strings, and Python's tuple tag.

A whole YAML reader refuses that tag when it is safe, and builds arbitrary objects when it is not; so this one knows
these files' shapes and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path

from usthand.errors import UserError

Value = str | int | float | list | dict

_LINE = re.compile(r"""(?P<key>'[^']*'|"[^"]*"|[^\s'"\[\]{}:#&*!|>-][^\s:]*)\s*:(?:\s+(?P<rest>.*))?$""")
_TAGS = ("!!python/tuple", "!!seq")
_INTEGER = re.compile(r"[-+]?[0-9]+$")
_REAL = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$")


def read_plain_yaml(file: Path) -> dict[str, Value]:
    """The mapping that a file holds. Keys are strings, quoted or not.

    Raises:
        UserError: if the file is missing or holds anything but the subset above.
    """
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"there is no {file}", "an archive of the data set is not unpacked", "see docs/datasets.md for the layout"
        ) from None
    except UnicodeDecodeError:
        raise _refused(file, 0, "is not text") from None
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        bare = raw.strip()
        if bare and not bare.startswith("#") and bare not in ("---", "..."):
            if "\t" in raw[: len(raw) - len(raw.lstrip())]:
                raise _refused(file, number, "is indented with a tab")
            lines.append((number, len(raw) - len(raw.lstrip(" ")), bare))
    if not lines:
        raise _refused(file, 0, "is empty")
    value, rest = _block(file, lines, 0)
    if rest < len(lines) or not isinstance(value, dict):
        raise _refused(file, lines[min(rest, len(lines) - 1)][0], "is no part of a mapping")
    return value


def _block(file: Path, lines: list[tuple[int, int, str]], at: int) -> tuple[Value, int]:
    """The mapping or list that starts at a line, and the line after it."""
    is_list = lines[at][2].startswith("-") and not _LINE.match(lines[at][2])
    return _sequence(file, lines, at) if is_list else _mapping(file, lines, at)


def _sequence(file: Path, lines: list[tuple[int, int, str]], at: int) -> tuple[list, int]:
    indent, values = lines[at][1], []
    while at < len(lines) and lines[at][1] == indent and lines[at][2].startswith("- "):
        number, item = lines[at][0], lines[at][2][2:].strip()
        if _LINE.match(item):
            raise _refused(file, number, f"has a mapping in a list, {item!r}")
        values.append(_scalar(file, number, item))
        at += 1
    if not values:
        raise _refused(file, lines[at][0], f"reads {lines[at][2]!r}")
    return values, at


def _mapping(file: Path, lines: list[tuple[int, int, str]], at: int) -> tuple[dict, int]:
    indent, found = lines[at][1], {}
    while at < len(lines) and lines[at][1] == indent:
        number, _, text = lines[at]
        match = _LINE.match(text)
        if match is None:
            break
        key, rest = match["key"].strip("'\""), (match["rest"] or "").strip()
        if key in found:
            raise _refused(file, number, f"has the key {key!r} twice")
        at += 1
        if rest and rest not in _TAGS:
            found[key] = _scalar(file, number, rest)
            continue
        # A list may stand as deep as its key; a mapping stands deeper.
        deeper = at < len(lines) and (lines[at][1] > indent or (lines[at][1] == indent and lines[at][2].startswith("- ")))
        if not deeper:
            raise _refused(file, number, f"gives {key!r} no value")
        found[key], at = _block(file, lines, at)
    if not found:
        raise _refused(file, lines[at][0], f"reads {lines[at][2]!r}")
    return found, at


def _scalar(file: Path, number: int, text: str) -> Value:
    if text[0] in "'\"":
        end = text.find(text[0], 1)
        if end < 0 or (text[end + 1 :].strip() and not text[end + 1 :].lstrip().startswith("#")):
            raise _refused(file, number, f"has the text {text!r}")
        return text[1:end]
    text = text.split(" #")[0].rstrip()
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [_scalar(file, number, part.strip()) for part in inner.split(",")] if inner else []
    if not text or (text[0] in "[{!&*|>%@`-" and not _REAL.match(text)):
        raise _refused(file, number, f"has the value {text!r}")
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _REAL.match(text) else text


def _refused(file: Path, number: int, fact: str) -> UserError:
    where = f", line {number}," if number else ""
    return UserError(
        f"{file}{where} {fact}", "it is damaged, or not as the data set's makers wrote it", "unpack the archive again"
    )
