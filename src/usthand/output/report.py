"""One page that shows what came out and how good it is: tables, figures and a film, in a single HTML file.

The page needs no network and no other file. It is written for readers who do not know MPJPE: every number says
what it is, in which unit and after which alignment. Its words are in templates/report.html.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import jinja2
import numpy as np
from jaxtyping import Float

from usthand.capture.capture import Capture
from usthand.common.files import refuse_existing, whole_file
from usthand.common.progress import Progress, silent
from usthand.evaluation import glossary, metrics
from usthand.evaluation.glossary import Row, number_of
from usthand.evaluation.reliability import expected_error_mm, reliability_of
from usthand.evaluation.truth import Truth
from usthand.hand.result import Result
from usthand.output import figures
from usthand.output.draw import FINGER_COLOURS
from usthand.output.film import film_of
from usthand.output.std_colours import SCALE_TITLE, STD_MARKS_MM, std_css_gradient
from usthand.training.log import read_log

BASELINE = "fit"
_BAR_KEYS_MM = {
    "mpjpe_mm": "joints",
    "mpvpe_mm": "surface",
    "mpvpe_wrist_mm": "surface,\nwrists together",
    "mpvpe_pa_mm": "surface,\nshape only",
}
_BAR_KEYS_PX = {"leave_out_median_px": "median", "leave_out_p90_px": "nine tenths are below"}


@dataclass(frozen=True)
class Report:
    """What a report may show; only `rows` is needed.

    Methods are named alike in `rows` and `results`: "raw", "fit", "network", "usthand", or any other name.
    """

    rows: Mapping[str, Row]
    """Numbers of `usthand.evaluation.metrics` for each method, in the order of the table."""
    capture: Capture | None = None
    """The footage, for the film."""
    results: Mapping[str, Result] = field(default_factory=dict)
    truth: Truth | None = None
    """For the figures of error and reliability."""
    history: Path | Sequence[Mapping[str, float]] | None = None
    """metrics.jsonl of the training, or its lines."""
    confidence: tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]] | None = None
    """2D confidences of points, and the same points' errors in per cent of the hand's size."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Short facts under the headline, such as {"Cameras": "4", "Training": "7 min on two cores"}."""
    limitations: Sequence[str] = ()
    """Sentences added to the limitations."""
    kicker: str = "Hands in 3D, with uncertainty, without any 3D label"
    main: str = "usthand"
    """The method that the headline, the film and the scatter are about."""


def write_report(path: str | Path, report: Report, overwrite: bool = False, progress: Progress = silent) -> Path:
    """Write the page.

    Args:
        path: Where to.
        report: What to show.
        overwrite: Write over a page that is there.
        progress: Called after each frame of the film.

    Raises:
        UsthandError: If a page is there already and `overwrite` is not set.
    """
    refuse_existing([path], overwrite)
    if report.main not in report.rows:
        report = replace(report, main=list(report.rows)[-1])
    loader = jinja2.PackageLoader("usthand.output", "templates")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    pages.filters["tied"] = _tied
    page = pages.get_template("report.html").render(
        report=report,
        version=_version(),
        number_of=number_of,
        colour_of=figures.colour_of,
        finger_colours=FINGER_COLOURS,
        method_names=glossary.METHOD_NAMES,
        method_meanings=glossary.METHOD_MEANINGS,
        measures={measure.key: measure for measure in glossary.MEASURES},
        main_keys=glossary.MAIN_KEYS,
        **_numbers(report),
        **_film(report, progress),
        **_errors(report),
        **_surface(report),
        confidence=_confidence_plot(report),
        training=figures.training_curves(history) if (history := read_history(report.history)) else "",
    )
    with whole_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return Path(path)


def _numbers(report: Report) -> dict[str, object]:
    """What the head, the tables and the limitations need."""
    rows, row = report.rows, report.rows[report.main]
    in_mm = "mpjpe_mm" in row
    keys = {
        key: name
        for key, name in (_BAR_KEYS_MM if in_mm else _BAR_KEYS_PX).items()
        if any(number_of(row, key) is not None for row in rows.values())
    }
    shown = glossary.present(rows)
    frames = {row.get("frames") for row in rows.values()} - {None}
    return {
        "row": row,
        "base": rows.get(BASELINE, {}),
        "headline": glossary.headline(rows, report.main),
        "has_truth": report.truth is not None or in_mm,
        "has_left_out": any(number_of(row, "leave_out_median_px") is not None for row in rows.values()),
        "not_metric": next((r.unit_source for r in report.results.values() if not r.metric), ""),
        "in_mm": in_mm,
        "bars": figures.error_bars(rows, keys, "mm" if in_mm else "px") if keys else "",
        "shown": shown,
        "best": {measure.key: glossary.best_rows(measure, rows) for measure in shown},
        "frames": f"{frames.pop():,}" if len(frames) == 1 else "",
    }


def _surface(report: Report) -> dict[str, object]:
    """The surface's uncertainty over time, of the methods that give one, and the scale of its colours in the film."""
    known = {name: result for name, result in report.results.items() if result.has_vertices_cov and result.valid.any()}
    std = {name: (r.vertices_std_mm[r.valid], r.frame[r.valid]) for name, r in known.items()}
    return {
        "surface": figures.surface_std(std, report.capture.fps if report.capture else 30.0) if known else "",
        "surface_methods": list(known),
        "no_surface": any(result.has_mesh for result in report.results.values()) and report.main not in known,
        "scale_title": SCALE_TITLE,
        "scale_marks": STD_MARKS_MM,
        "scale_gradient": std_css_gradient() if report.main in known else "",
    }


def _film(report: Report, progress: Progress) -> dict[str, str]:
    """Film and poster in base64; empty where there is nothing to show."""
    result = report.results.get(report.main)
    if report.capture is None or result is None or not result.valid.any():
        return {"film": "", "poster": ""}
    film, poster = film_of(report.capture, result, progress=progress)
    return {"film": base64.b64encode(film).decode(), "poster": base64.b64encode(poster).decode()}


def _errors(report: Report) -> dict[str, object]:
    """Figures of errors and reliability; empty without truth."""
    found: dict[str, object] = dict.fromkeys(("reliability", "scatter", "promise", "per_joint", "over_time"), "")
    results, truth = report.results, report.truth
    if truth is None or not results:
        return found
    frames = metrics.common_frames(list(results.values()))
    curves = {name: reliability_of(result, truth, frames) for name, result in results.items()}
    found["reliability"] = figures.reliability_plot(curves)
    if report.main in results:
        own, curve = results[report.main], curves[report.main]
        rows, at = metrics.select_truth(own, truth, frames)
        error = metrics.distance_mm(own.joints_world_m[rows], truth.joints_world_m[at])
        colour = figures.colour_of(report.main, list(results))
        found["scatter"] = figures.promise_scatter(expected_error_mm(own.joints_cov_m2[rows]), error, colour)
        right = 0.87 <= curve.factor <= 1.15
        found["promise"] = {
            "name": glossary.METHOD_NAMES.get(report.main, report.main),
            "held": f"{100 * float(np.interp(0.9, curve.expected, curve.observed)):.0f}",
            "verdict": "about right" if right else "too small" if curve.factor > 1 else "larger than needed",
            "factor": f"{curve.factor:.2f}",
        }
    tracks = {name: metrics.joint_errors_mm(result, truth, frames) for name, result in results.items()}
    found["per_joint"] = figures.per_joint({name: errors for name, (errors, _) in tracks.items()})
    found["over_time"] = figures.over_time(tracks, report.capture.fps if report.capture else 30.0)
    return found


def _confidence_plot(report: Report) -> str:
    if report.confidence is None:
        return ""
    return figures.confidence_plot(*report.confidence, figures.METHOD_COLOURS["network"])


def read_history(history: Path | Sequence[Mapping[str, float]] | None) -> list[dict]:
    """Lines of a metrics.jsonl, or those given; a last line cut short by an interrupted run is left out."""
    return read_log(history) if isinstance(history, Path) else [dict(line) for line in history or ()]


def _tied(text: str) -> str:
    """A number kept on one line with its unit."""
    return re.sub(r"(\d) (mm|px|%)", "\\1\u00a0\\2", text)


def _version() -> str:
    try:
        return metadata.version("usthand")
    except metadata.PackageNotFoundError:
        return ""
