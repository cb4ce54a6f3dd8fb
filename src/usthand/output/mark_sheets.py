"""What a person needs to mark fingertips: a page to click on, the same as sheets to read from, and a table to fill in.

The page needs no network and no other file. It shows footage of the hands alone: whole images stay where they are.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import jinja2
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator
from PIL import Image

from usthand.capture.capture import Capture
from usthand.common.files import refuse_filled_folder, whole_folder
from usthand.common.progress import Progress, silent
from usthand.evaluation.marks import COLUMNS
from usthand.output.mark_patches import HandView, TipPatch

PAGE, TABLE, SHEETS = "mark.html", "marks.csv", "sheets"
_COLUMNS, _ROWS, _PANEL_INCHES, _DPI = 3, 2, 5.2, 100
_NUMBERED_PX = 10
_RULER = "#ffd23f"


def write_mark_sheets(
    capture: Capture, views: Sequence[HandView], out: str | Path, progress: Progress = silent
) -> Path:
    """Write a folder with mark.html, marks.csv and sheets/frame-FRAME-CAMERA.png.

    Args:
        capture: The footage.
        views: What is to be marked (`usthand.output.mark_patches.plan_views`).
        out: The folder to make.
        progress: Called after each sheet.

    Returns:
        The page.

    Raises:
        UsthandError: If something is there already, or a frame cannot be read.
    """
    refuse_filled_folder(out, "a folder of marks")
    with whole_folder(out, "a folder of marks") as folder:
        (folder / SHEETS).mkdir()
        shown: dict[tuple[int, str], UInt8[np.ndarray, "_ _ 3"]] = {}
        for done, (view, image) in enumerate(_images(capture, views), 1):
            left, top, right, bottom = view.box
            shown[view.frame, view.camera] = image[top:bottom, left:right].copy()
            _sheet(view, image).savefig(
                folder / SHEETS / f"frame-{view.frame:04d}-{view.camera}.png",
                dpi=_DPI,
                pil_kwargs={"compress_level": 3},
            )
            progress(done, len(views))
        crops = [shown[view.frame, view.camera] for view in views]
        (folder / PAGE).write_text(_page(capture, views, crops), encoding="utf-8")
        with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for view in views:
                table.writerows((view.frame, view.camera, view.side, p.finger, "", "", "") for p in view.patches)
    return Path(out) / PAGE


def _images(capture: Capture, views: Sequence[HandView]) -> Iterator[tuple[HandView, UInt8[np.ndarray, "H W 3"]]]:
    """Every view with its image, camera by camera, so that no video is opened for longer than one frame needs."""
    by_camera = sorted(views, key=lambda view: (capture.rig.index(view.camera), view.frame))
    for camera, own in groupby(by_camera, key=lambda view: view.camera):
        for view in own:
            for _, image in capture.read(camera, view.frame, view.frame + 1):
                yield view, image


# ---- sheets -------------------------------------------------------------------------------------------------------


def _sheet(view: HandView, image: UInt8[np.ndarray, "H W 3"]) -> Figure:
    """A panel for each fingertip with rulers in pixels of the whole image, and one of the whole hand."""
    figure = Figure((_COLUMNS * _PANEL_INCHES, _ROWS * _PANEL_INCHES), facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.05, top=0.92, wspace=0.12, hspace=0.16)
    panels = figure.subplots(_ROWS, _COLUMNS).ravel()
    figure.suptitle(f"frame {view.frame}, {view.camera}, {view.side} hand: centres of the rounded fingertip caps")
    for panel in panels[len(view.patches) : -1]:
        panel.set_axis_off()
    for panel, patch in zip(panels[: len(view.patches)], view.patches, strict=True):
        zoom = _PANEL_INCHES * _DPI / patch.size_px
        title = f"{patch.finger}: first pixel {patch.corner}, {patch.size_px} px wide, shown about {zoom:.1f} times"
        _show(panel, image, _span(patch))
        panel.set_title(title, fontsize=9)
        _rulers(panel)
    left, top, right, bottom = view.box
    hand = panels[-1]
    _show(hand, image, (left, top, right, bottom))
    hand.set_title("the hand and the patches", fontsize=9)
    for patch in view.patches:
        (column, row), size = patch.corner, patch.size_px
        hand.add_patch(Rectangle((column - 0.5, row - 0.5), size, size, fill=False, color=_RULER))
        hand.text(column, row, patch.finger, color=_RULER, fontsize=9, va="top")
    return figure


def _span(patch: TipPatch) -> tuple[int, int, int, int]:
    (left, top), size = patch.corner, patch.size_px
    return left, top, left + size, top + size


def _show(panel: Axes, image: UInt8[np.ndarray, "H W 3"], span: tuple[int, int, int, int]) -> None:
    """Part of an image on axes in pixels of the whole: pixel centres at integers, v downwards. Outside it is grey."""
    left, top, right, bottom = span
    x, y = max(left, 0), max(top, 0)
    part = image[y:bottom, x:right]
    extent = (x - 0.5, x - 0.5 + part.shape[1], y - 0.5 + part.shape[0], y - 0.5)
    panel.set_facecolor("0.3")
    panel.imshow(part, extent=extent, interpolation="bicubic")
    panel.set_xlim(left - 0.5, right - 0.5)
    panel.set_ylim(bottom - 0.5, top - 0.5)
    panel.set_xlabel("u (px)", fontsize=8)
    panel.set_ylabel("v (px)", fontsize=8)
    panel.tick_params(labelsize=8)


def _rulers(panel: Axes) -> None:
    """A tick for each pixel, and a number and a faint line for every tenth."""
    panel.xaxis.set_major_locator(MultipleLocator(_NUMBERED_PX))
    panel.yaxis.set_major_locator(MultipleLocator(_NUMBERED_PX))
    # One collection a side: Matplotlib's minor ticks are objects each, and take most of a sheet's time.
    columns, rows = (np.arange(np.ceil(min(span)), max(span)) for span in (panel.get_xlim(), panel.get_ylim()))
    panel.vlines(columns, 0.0, 0.012, _RULER, linewidth=0.8, transform=panel.get_xaxis_transform())
    panel.hlines(rows, 0.0, 0.012, _RULER, linewidth=0.8, transform=panel.get_yaxis_transform())
    panel.grid(which="major", color=_RULER, alpha=0.35, linewidth=0.6)


# ---- the page -----------------------------------------------------------------------------------------------------


def _page(capture: Capture, views: Sequence[HandView], crops: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> str:
    shown = [
        {
            "frame": view.frame,
            "camera": view.camera,
            "side": view.side,
            "left": view.box[0],
            "top": view.box[1],
            "px_per_mm": round(view.px_per_mm, 4),
            "patches": [{"finger": p.finger, "corner": p.corner, "size": p.size_px} for p in view.patches],
            "image": _png_url(crop),
        }
        for view, crop in zip(views, crops, strict=True)
    ]
    # Progress in a browser belongs to one set of patches: another set, even of the same capture, begins anew.
    name = hashlib.sha256(repr((capture.path.name, views)).encode()).hexdigest()[:12]
    loader = jinja2.PackageLoader("usthand.output", "templates")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    data = {"id": name, "columns": COLUMNS, "views": shown}
    return pages.get_template("mark.html").render(data=data, capture=capture.path.resolve().name, side=views[0].side)


def _png_url(image: UInt8[np.ndarray, "h w 3"]) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
