"""Commands that measure results and draw them."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from usthand.cli.progress import progress_bar
from usthand.cli.show import show_numbers


def evaluate(
    result: Positional[Annotated[Path, arg(metavar="R.npz")]],
    capture: Path | None = None,
    leave_out: str | None = None,
    side: str | None = None,
    json: bool = False,
) -> None:
    """How good a result is: against truth where there is one, else against the labels and by its steadiness.

    For footage of a data set it also shows what papers print for the same protocol, and how far ours is from it.

    Args:
        result: A result file; or a folder of them, NAME.npz for each capture NAME, to be averaged over a data set.
        capture: The capture it was made from, for truth, labels and frame rate; or the folder of captures.
        leave_out: Measure in this camera, which must have been left out when the result was made.
        side: Whose labels, where there are several hands of the result's side: right, right-2 ...
        json: Print JSON.
    """
    from usthand.capture.capture import open_capture
    from usthand.evaluation import evaluate as measuring
    from usthand.evaluation.published import compare, comparison_table, has_annotated_labels
    from usthand.hand.result import load_result

    if result.is_dir():
        numbers, opened, left_out = measuring.evaluate_folder(result, capture, progress_bar("measuring"))
        for line in left_out:
            print(f"usthand: {line}", file=sys.stderr)
    else:
        opened = open_capture(capture) if capture else None
        numbers = measuring.evaluate(load_result(result), opened, leave_out, side)
    rows = compare(numbers, opened.dataset, opened.protocol, opened.split) if opened is not None else []
    if json and opened is not None and rows:
        numbers |= {"published": [row._asdict() for row in rows], "annotated_labels": has_annotated_labels(opened)}
    if json:
        print(dumps(numbers, indent=2))
        return
    show_numbers(numbers)
    if opened is not None and rows:
        print(f"\n{comparison_table(rows, opened, str(numbers.get('recordings', 'one recording')))}")


def overlay(
    results: Positional[Annotated[list[Path], arg(metavar="R.npz...")]],
    capture: Path,
    out: Path,
    crop: bool = False,
    colour: Literal["std", "plain"] = "std",
    overwrite: bool = False,
) -> None:
    """Draw meshes, joints and 90 % ellipses over the footage: a video per camera and a contact sheet.

    Args:
        results: One or more result files (for instance of both hands).
        capture: The capture they were made from.
        out: Folder to write.
        crop: Show only the surroundings of the hands.
        colour: Of the mesh: each vertex by its standard deviation, or plain, one colour for each side.
        overwrite: Write over files that are there.
    """
    from usthand.capture.capture import open_capture
    from usthand.hand.result import load_result
    from usthand.output.overlay import OverlayConfig, write_overlays

    loaded, opened = [load_result(path) for path in results], open_capture(capture)
    config = OverlayConfig(crop=crop, colour=colour)
    written = write_overlays(opened, loaded, out, config, overwrite, progress_bar("drawing"))
    for path, result in zip(results, loaded, strict=True):
        if colour == "std" and result.has_mesh and not result.has_vertices_cov:
            print(f"usthand: {path} has no uncertainty of the surface: its mesh has one colour", file=sys.stderr)
    for path in written:
        print(path)
