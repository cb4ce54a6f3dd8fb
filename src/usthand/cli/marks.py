"""The command that makes what people mark fingertips on, and measures results by what they marked."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from tyro.conf import Positional, arg

from usthand.cli.options import CapturePath
from usthand.cli.progress import progress_bar
from usthand.cli.show import show_overlap, show_table
from usthand.common.errors import UsthandError
from usthand.common.files import refuse_filled_folder

if TYPE_CHECKING:
    from usthand.capture.capture import Capture
    from usthand.hand.result import Result

_CAPTION = (
    "Absolute distance, nothing is aligned. Less offset: without each finger's mean offset along its last bone, which "
    "is how differently the point is defined. The regions should hold .50 and .90 of the marks."
)


def mark(
    capture: CapturePath,
    results: Positional[Annotated[tuple[Path, ...], arg(metavar="R.npz...")]] = (),
    out: Path | None = None,
    side: str | None = None,
    frames: tuple[int, ...] = (),
    read: tuple[Path, ...] = (),
    max_residual_px: float = 6.0,
    hand: str = "embedded",
    json: bool = False,
) -> None:
    """Mark fingertips by eye, and measure results by the marks: truth from your own footage; docs/measure-your-rig.md.

    With --out it writes a folder to mark in: mark.html, a page to click on in any browser; sheets/, the same as
    pictures with rulers; and marks.csv, a table to fill in by hand. With --read it says how good the marks are, and how
    far each result's fingertips are from them.

    Args:
        capture: Folder with rig.toml and videos.
        results: With --out one result, which says roughly where the hand is, in place of a fit of the labels. With
            --read those to measure, of either hand.
        out: Folder to write.
        side: Which hand to mark, right, left or a further one such as right-2; may be left out if only one has labels.
        frames: Frames to mark; by default eight, spread over time, that show the hand in three views.
        read: CSV files of marks, of one marker or several.
        max_residual_px: Leave out a view that is farther from where the others place the tip.
        hand: The hand model that the results were made with.
        json: Print JSON.
    """
    from usthand.capture.capture import open_capture
    from usthand.hand.result import load_result

    if (out is None) == (not read):
        raise UsthandError(
            "usthand mark does one of two things",
            "--out writes what is to be marked, --read measures by what was marked",
            "give one of them",
        )
    opened = open_capture(capture)
    if out is not None:
        refuse_filled_folder(out, "a folder of marks")
        _write(opened, [load_result(path) for path in results], out, side, frames)
        return
    from usthand.evaluation.mark_errors import evaluate_marks
    from usthand.evaluation.marks import load_marks

    # `--read A.csv B.csv R.npz` takes all three.
    measured = (*results, *(path for path in read if path.suffix == ".npz"))
    marks = load_marks([path for path in read if path.suffix != ".npz"], opened)
    named = {name: load_result(path) for name, path in zip(_names(measured), measured, strict=True)}
    numbers = evaluate_marks(named, marks, opened.rig, hand, max_residual_px)
    if json:
        print(dumps(numbers, indent=1))
    else:
        _show(numbers)


def _write(capture: Capture, results: Sequence[Result], out: Path, side: str | None, frames: tuple[int, ...]) -> None:
    """Write the folder to mark in, and say what to do with it."""
    from usthand.data.prepare import choose_side
    from usthand.fit.fit import fit_labels
    from usthand.fit.sequence import FitConfig
    from usthand.labels.labels import hand_side, load_labels
    from usthand.output.mark_patches import plan_views
    from usthand.output.mark_sheets import SHEETS, TABLE, write_mark_sheets

    if len(results) > 1 or (results and side is not None and hand_side(side) != results[0].side):
        raise UsthandError(
            f"{len(results)} results were given to place the patches"
            if len(results) > 1
            else f"--side {side}, but the result is of the {results[0].side} hand",
            "a folder is for one hand",
            "give one result of this hand, or none: then a fit of the labels places the patches",
        )
    show_overlap(capture)
    name = side or (results[0].side if results else choose_side(capture, None))
    labels = load_labels(capture, name) if not results or capture.labels_path(name).is_file() else None
    if results:
        result = results[0]
    else:
        assert labels is not None
        result = fit_labels(capture.rig, labels, FitConfig(fps=capture.fps), progress=progress_bar("fitting"))
    views = plan_views(capture, result, labels, frames)
    page = write_mark_sheets(capture, views, out, progress_bar("drawing"))
    chosen = sorted({view.frame for view in views})
    count = sum(len(view.patches) for view in views)
    print(f"{out}: {count} fingertips in {len(views)} images, frames {', '.join(map(str, chosen))}, {name} hand.")
    print(f"Open {page} in a browser; or read from {out / SHEETS} and fill in {out / TABLE}.")
    print(f"Then: usthand mark {capture.path} RESULT.npz --read marks-A.csv marks-B.csv")


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names of files: without folder and suffix, unless two would be the same."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path.with_suffix("")) for path in paths]


def _show(numbers: dict[str, object]) -> None:
    """How good the marks are in sentences, the results in a table."""
    from usthand.evaluation.mark_errors import POINTS

    marks = cast("dict[str, object]", numbers["marks"])
    print(f"{marks['marks']} marks by {' and '.join(cast('list[str]', marks['markers']))}.")
    if marks["marked_twice"]:
        print(
            f"Markers agree to {marks['agreement_median_px']} px (median; 90 %: {marks['agreement_p90_px']} px) in the "
            f"{marks['marked_twice']} places that two of them marked."
        )
    print(
        f"{marks['tips_placed']} fingertips are placed, of {marks['tips']} marked and {marks['tips_in_3_views']} in "
        f"three views or more; a view's mark is good to {numbers['mark_px']} px on each axis."
    )
    dropped, residual = (cast("dict[str, float]", marks[key]) for key in ("views_dropped", "camera_residual_px"))
    print("Residual px (views left out): " + ", ".join(f"{n} {r} ({dropped[n]})" for n, r in residual.items()) + ".")
    results = cast("dict[str, dict]", numbers["results"])
    if not results:
        return
    head = ("", "tips", "mean", "median", "less offset:\nmean", "\nmedian", "in 50 %\nregion", "90 %")
    rows = [
        (
            f"{name}, {POINTS[point]}",
            str(found["tips"]),
            *(f"{part[key]:.2f}" for part in (row, row["less_offset"]) for key in ("mean_mm", "median_mm")),
            *(f"{row[key]:.2f}" for key in ("in_50_region", "in_90_region")),
        )
        for name, found in results.items()
        for point in POINTS
        if (row := found.get(point)) is not None
    ]
    noise = max(row["mark_std_mm"] for found in results.values() for row in found.values() if isinstance(row, dict))
    show_table(
        [head, *rows], f"Distance from the marked fingertips, mm (the marks' own error: {noise:.1f} mm)", _CAPTION
    )
