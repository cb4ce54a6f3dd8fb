"""Fingertips that people marked in the images, read from their CSV files. For measuring alone: nothing learns by them.

A file has a row a mark: `frame, camera, side, finger, u_px, v_px, marker`, in any order of columns; further columns are
left alone. Rows without a position are points that the marker could not see. What is marked is the centre of the
rounded fingertip cap (`usthand.hand.fingertips`), in pixels of the whole image with pixel centres at integers. Files as
spreadsheets save them are read as well: with a byte-order mark, with semicolons or tabs, with decimal commas.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite
from pathlib import Path

import numpy as np
from jaxtyping import Float

from usthand.capture.capture import Capture
from usthand.common.errors import UsthandError
from usthand.hand.skeleton import FINGERS, SIDES

COLUMNS = ("frame", "camera", "side", "finger", "u_px", "v_px", "marker")
FINGER_NAMES = tuple(FINGERS)
_OPTIONAL_COLUMNS = ("marker",)


@dataclass(frozen=True)
class Mark:
    """One fingertip in one image, as one person sees it."""

    frame: int
    camera: str
    side: str
    finger: str
    marker: str
    """Who marked it; the file's name where the file does not say."""
    u_px: float
    v_px: float

    @property
    def view(self) -> tuple[int, str, str, str]:
        """Which fingertip in which image."""
        return self.frame, self.side, self.finger, self.camera


@dataclass(frozen=True)
class MarkerAgreement:
    """How far apart two markers place the same fingertip in the same image."""

    markers: tuple[str, ...]
    both: int
    """Pairs of marks of the same fingertip in the same image."""
    median_px: float | None
    """None where nobody marked what another did."""
    p90_px: float | None


def load_marks(paths: Iterable[str | Path], capture: Capture) -> list[Mark]:
    """The marks of one or more files.

    Raises:
        UsthandError: If a file is missing or no such table, a row names a camera, frame, side or finger that there is
            not, a position is no number or outside the image, somebody marked a point twice, or there is no mark.
    """
    paths = [Path(path) for path in paths]
    marks: dict[tuple[object, ...], Mark] = {}
    for path in paths:
        for line, mark in _read(path, capture):
            key = (*mark.view, mark.marker)
            if key in marks:
                raise _bad(
                    path,
                    line,
                    f"marks the {mark.finger} tip of frame {mark.frame} in {mark.camera} by {mark.marker!r} again",
                    "the file was given twice, or two people used one name",
                    "remove the row, or give each marker a name of their own in the column marker",
                )
            marks[key] = mark
    if not marks:
        raise UsthandError(
            f"there is no mark in {', '.join(map(str, paths)) or 'no file'}",
            "no row has u_px and v_px" if paths else "only results were given",
            f"mark the tips on the page of `usthand mark {capture.path}` and save the CSV",
        )
    return list(marks.values())


def marker_agreement(marks: Sequence[Mark]) -> MarkerAgreement:
    """Distances between the marks of different markers of the same fingertip in the same image, all pairs together."""
    views: dict[tuple[int, str, str, str], list[Float[np.ndarray, "2"]]] = defaultdict(list)
    for mark in marks:
        views[mark.view].append(np.array([mark.u_px, mark.v_px]))
    apart = [float(np.linalg.norm(a - b)) for seen in views.values() for a, b in combinations(seen, 2)]
    median, p90 = (float(np.percentile(apart, q)) for q in (50, 90)) if apart else (None, None)
    return MarkerAgreement(tuple(sorted({mark.marker for mark in marks})), len(apart), median, p90)


def _read(path: Path, capture: Capture) -> Iterator[tuple[int, Mark]]:
    """The marks of one file, with the numbers of their lines."""
    text = _text(path)
    head = text.partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=head.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name.strip().lower() for name in next(rows, [])]
    missing = [name for name in COLUMNS if name not in (*columns, *_OPTIONAL_COLUMNS)]
    if missing:
        raise _bad(
            path,
            1,
            f"has no column {missing[0]}",
            "the first line must name the columns " + ", ".join(COLUMNS),
            f"fill in the marks.csv that `usthand mark {capture.path}` writes",
        )
    for row in rows:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if any(cells[len(columns) :]) or len(cells) < len(columns):
            raise _bad(
                path,
                rows.line_num,
                f"has {len(cells)} fields where the first line has {len(columns)}",
                "decimal commas between commas cannot be told apart, or the row is cut short",
                "save it with decimal points, or with semicolons between the fields",
            )
        entry = dict(zip(columns, cells, strict=False))
        if entry["u_px"] or entry["v_px"]:
            yield rows.line_num, _mark(path, rows.line_num, entry, capture)


def _text(path: Path) -> str:
    if not path.is_file():
        raise UsthandError(
            f"there is no file {path}", "the name is wrong, or the page has not saved its CSV yet", "check the path"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsthandError(
            f"{path} is no CSV file in UTF-8", "it is a spreadsheet or another kind of file", "save it as CSV (UTF-8)"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _mark(path: Path, line: int, entry: dict[str, str], capture: Capture) -> Mark:
    """One row as a mark, checked against the capture."""
    frame, camera, side, finger = (entry[name] for name in ("frame", "camera", "side", "finger"))
    if not frame.isdecimal() or int(frame) >= capture.n_frames:
        raise _bad(
            path,
            line,
            f"has frame {frame!r}, {capture.path} has frames 0 to {capture.n_frames - 1}",
            "frames are counted from 0 in the capture, or the marks are of another clip",
            "give the capture that was marked",
        )
    for what, value, known in (
        ("camera", camera, capture.rig.names),
        ("side", side, SIDES),
        ("finger", finger, FINGER_NAMES),
    ):
        if value not in known:
            raise _bad(
                path,
                line,
                f"has the {what} {value!r}",
                f"the {what}s of {capture.path} are {', '.join(known)}",
                "correct the row, or give the capture that was marked",
            )
    u, v = (_pixels(path, line, entry[name]) for name in ("u_px", "v_px"))
    width, height = capture.rig.cameras[capture.rig.index(camera)].size
    if not (-0.5 <= u <= width - 0.5 and -0.5 <= v <= height - 0.5):
        raise _bad(
            path,
            line,
            f"has ({u:g}, {v:g}), outside {camera}'s image of {width}x{height} px",
            "it was marked on images of another size",
            "mark on the pages of `usthand mark`, or scale the positions to this size",
        )
    return Mark(int(frame), camera, side, finger, entry.get("marker") or path.stem, u, v)


def _pixels(path: Path, line: int, text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise _bad(
            path,
            line,
            f"has the position {text!r}",
            "u_px and v_px are pixels, both or neither",
            "correct the row, or leave both empty where the tip cannot be seen",
        )
    return value


def _bad(path: Path, line: int, fact: str, cause: str, fix: str) -> UsthandError:
    return UsthandError(f"{path}, line {line}, {fact}", cause, fix)
