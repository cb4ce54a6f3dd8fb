"""One page that shows what came out and how good it is: tables, figures and a film, in a single HTML file.

The page needs no network and no other file. It is written for people who have never heard of MPJPE: every number says
what it is, in which unit and after which alignment.
"""

from __future__ import annotations

import base64
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import Float
from PIL import Image

from usthand.capture.capture import Capture
from usthand.capture.video import write_video
from usthand.evaluation import glossary as measures
from usthand.evaluation import metrics
from usthand.evaluation import reliability as uncertainty
from usthand.evaluation.glossary import METHOD_MEANINGS, METHOD_NAMES, Measure
from usthand.evaluation.truth import Truth
from usthand.hand.result import Result
from usthand.output import draw, figures
from usthand.output.overlay import VIEWING_CRF, OverlayConfig, overlay_frames, refuse_overwriting
from usthand.training.log import read_log

FILM_S = 4.0
FILM_CAMERAS = 4
FILM_PX = 256
MAIN, BASELINE = "usthand", "fit"
_BAR_KEYS_MM = {
    "mpjpe_mm": "joints",
    "mpvpe_mm": "surface",
    "mpvpe_wrist_mm": "surface,\nwrists together",
    "mpvpe_pa_mm": "surface,\nshape only",
}
_BARS = "Mean distance from the truth, absolute or after the alignment named; the table has the exact words."
_BARS_PX = "Distance from the labels of a camera that was not used."
_RELIABILITY = (
    "Reliability. For regions of every size, how many joints are really inside. Below the diagonal a method is too "
    "sure of itself, above it too timid."
)
_SCATTER = (
    "Expected against true error of every joint in every frame, both scales logarithmic. The more it rises to the "
    "right, the better one can tell good joints from bad."
)
_CONFIDENCE = (
    "Confidence of the network in each joint of each image, against how far that joint is off. It only has to rank: "
    "where confidence is low, the error should be large."
)
_BAR_KEYS_PX = {"leave_out_median_px": "median", "leave_out_p90_px": "nine tenths are below"}


@dataclass(frozen=True)
class Report:
    """What a report may show; only ``rows`` is needed. Methods are named alike in ``rows`` and ``results``:
    "raw", "fit", "network", "usthand", or any other name."""

    rows: Mapping[str, Mapping[str, object]]
    """Numbers of `usthand.evaluation.metrics` for each method, in the order of the table."""
    capture: Capture | None = None
    """The footage, for the film."""
    results: Mapping[str, Result] = field(default_factory=dict)
    truth: Truth | None = None
    """For the figures of error and reliability."""
    history: Path | Sequence[Mapping[str, float]] | None = None
    """metrics.jsonl of the training, or its lines."""
    confidence: tuple[np.ndarray, np.ndarray] | None = None
    """2D confidences and errors (per cent of the hand's size) of the same points: confidence should fall as errors grow."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Short facts under the headline, such as {"Cameras": "4", "Training": "7 min on two cores"}."""
    limitations: Sequence[str] = ()
    """Sentences added to the limitations."""
    kicker: str = "Hands in 3D, with uncertainty, without any 3D label"
    main: str = MAIN
    """The method that the headline, the film and the scatter are about."""


def write_report(
    path: str | Path, report: Report, overwrite: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write the page. UsthandError if it is there already and ``overwrite`` is not set. ``on_progress(done, total)`` is
    called for every frame of the film."""
    path = Path(path)
    refuse_overwriting([path], overwrite)
    if report.main not in report.rows:
        report = replace(report, main=list(report.rows)[-1])
    sections = [
        _film_section(report, on_progress),
        _numbers_section(report),
        _honesty_section(report),
        _where_section(report),
        _training_section(report),
        _limits_section(report),
    ]
    page = Template(resources.files("usthand.output").joinpath("report_page.html").read_text("utf-8")).substitute(
        title="usthand report",
        kicker=escape(report.kicker),
        headline=_tied(measures.headline(report.rows, report.main)),
        lead=_lead(report),
        facts="".join(f"<li>{escape(name)} <b>{escape(str(value))}</b></li>" for name, value in report.facts.items()),
        tiles="".join(_tiles(report)),
        sections="\n".join(filter(None, sections)),
        footer=f"Made by usthand {escape(_version())}. The page holds everything it shows and asks nothing of the "
        "network.",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


# ---- the head -----------------------------------------------------------------------------------------------------


def _lead(report: Report) -> str:
    cameras = f"{len(report.capture.rig)} calibrated cameras" if report.capture else "calibrated cameras"
    judged = (
        "The truth is known here because the footage is synthetic; it is used for these numbers only."
        if report.truth is not None or "mpjpe_mm" in report.rows[report.main]
        else "There is no truth for this footage; a camera that no method has used is the judge."
    )
    return (
        f"{cameras[0].upper() + cameras[1:]} film one hand. A detector marks its joints in each image, often "
        f"wrongly; from these 2D marks alone the hand is found in space. {judged}"
    )


def _tiles(report: Report) -> Iterator[str]:
    row, base = report.rows[report.main], report.rows.get(BASELINE, {})
    shown = {m.key: m for m in measures.MEASURES}

    def tile(key: str, text: str) -> Iterator[str]:
        if isinstance(row.get(key), int | float):
            value = f"<b>{shown[key].text(row[key])}<small>{shown[key].unit}</small></b>"
            yield f'<div class="tile">{value}<span>{escape(text)}</span></div>'

    against = _against(base, row)
    yield from tile("mpjpe_mm", f"from a joint to its true place, on average{against('mpjpe_mm')}")
    yield from tile("mpvpe_mm", f"from the surface to its true place, on average{against('mpvpe_mm')}")
    yield from tile("leave_out_median_px", f"from the labels of a camera never used{against('leave_out_median_px')}")
    yield from tile("coverage90", "of the joints lie in the region that promises to hold 90 % of them")
    yield from tile("accel_mm_s2", f"error of acceleration: how much the hand shakes{against('accel_mm_s2')}")
    if "accel_mm_s2" not in row:
        yield from tile("palm_spread_mm", f"change of palm bones, fixed in a real hand{against('palm_spread_mm')}")


def _against(base: Mapping, row: Mapping) -> Callable[[str], str]:
    measure = {m.key: m for m in measures.MEASURES}

    def text(key: str) -> str:
        known = isinstance(base.get(key), int | float) and base is not row
        return f" (sequence fit: {measure[key].text(base[key])})" if known else ""

    return text


# ---- the film ------------------------------------------------------------------------------------------------------


def _film_section(report: Report, on_progress) -> str:
    result = report.results.get(report.main)
    if report.capture is None or result is None or not result.valid.any():
        return ""
    film, poster = film_of(report.capture, result, on_progress=on_progress)
    colours = "".join(f"<span>{_dot(f'rgb{c}')}{finger}</span>" for finger, c in draw.FINGER_COLOURS.items())
    return f"""<h2>Watch it</h2>
<p>Above, what each camera saw; below, the hand that was found, drawn back into the same image. The ellipse around each
joint is where it should be with 90 % probability: large where the cameras disagree or do not see it.</p>
<figure><video src="data:video/mp4;base64,{_b64(film)}" poster="data:image/jpeg;base64,{_b64(poster)}"
autoplay loop muted playsinline controls></video>
<div class="key">{colours}</div></figure>"""


def film_of(
    capture: Capture, result: Result, cameras: Sequence[str] | None = None, on_progress=None
) -> tuple[bytes, bytes]:
    """An H.264 film of a few seconds, footage above and overlay below, one column a camera, cropped to the hand; and
    its middle frame as JPEG."""
    cameras = list(cameras or capture.rig.names)[:FILM_CAMERAS]
    frames = film_window(result, round(FILM_S * capture.fps))
    drawn = OverlayConfig(crop=True, size_px=FILM_PX)
    plain = replace(drawn, mesh=False, skeleton=False, ellipses=False, caption=False)
    columns = [
        zip(*(overlay_frames(capture, [result], name, config, frames) for config in (plain, drawn)), strict=True)
        for name in cameras
    ]
    poster = io.BytesIO()

    def pictures() -> Iterator[np.ndarray]:
        for done, cells in enumerate(zip(*columns, strict=True)):
            picture = np.concatenate([np.concatenate([above[1], below[1]]) for above, below in cells], axis=1)
            if done == len(frames) // 2:
                Image.fromarray(picture).save(poster, "JPEG", quality=85)
            if on_progress:
                on_progress(done + 1, len(frames))
            yield picture

    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "film.mp4", pictures(), capture.fps, VIEWING_CRF)
        return (Path(folder) / "film.mp4").read_bytes(), poster.getvalue()


def film_window(result: Result, length: int) -> range:
    """The stretch of at most ``length`` frames with most valid frames and, among those, most motion."""
    first, last = int(result.frame[0]), int(result.frame[-1])
    length = min(length, last - first + 1)
    valid, motion = np.zeros(last - first + 1), np.zeros(last - first + 1)
    rows = result.frame - first
    valid[rows] = result.valid
    step = np.linalg.norm(np.diff(result.joints_world_m, axis=0), axis=-1).mean(axis=-1)
    motion[rows[1:]] = np.minimum(step, 0.05) * (result.valid[1:] & result.valid[:-1])  # 5 cm a frame is no motion
    window = np.ones(length)
    score = np.convolve(valid, window, "valid") + 1e-3 * np.convolve(motion, window, "valid")
    start = first + int(score.argmax())
    return range(start, start + length)


# ---- the numbers ---------------------------------------------------------------------------------------------------


def _numbers_section(report: Report) -> str:
    keys, unit = (_BAR_KEYS_MM, "mm") if "mpjpe_mm" in report.rows[report.main] else (_BAR_KEYS_PX, "px")
    keys = {k: v for k, v in keys.items() if any(isinstance(r.get(k), int | float) for r in report.rows.values())}
    caption = _BARS if unit == "mm" else _BARS_PX
    bars = _figure(figures.error_bars(report.rows, keys, unit), caption, report.rows) if keys else ""
    shown = measures.present(report.rows)
    main = [m for m in shown if m.key in measures.MAIN_KEYS]
    frames = {row.get("frames") for row in report.rows.values()} - {None}
    over = f" over the same {frames.pop():,} frames" if len(frames) == 1 else ""
    return f"""<h2>How far from the truth</h2>
<p>All methods got the same labels and are measured{over}, on all 21 joints, also the hidden ones. The best of each
column is marked.</p>
{bars}
<div class="table">{_method_table(report.rows, main)}</div>
<details><summary>All numbers, and what each means</summary>
<div class="table">{_meaning_table(report.rows, shown)}</div></details>"""


def _method_table(rows: Mapping[str, Mapping], shown: Sequence[Measure]) -> str:
    head = "".join(f"<th>{_tied(m.name)}<small>{_tied(m.term)}</small><small>{_unit(m)}</small></th>" for m in shown)
    best = {m.key: measures.best_rows(m, rows) for m in shown}
    body = ""
    for name, row in rows.items():
        cells = "".join(_cell(m, row, name in best[m.key]) for m in shown)
        label = _dot(figures.colour_of(name, list(rows))) + escape(METHOD_NAMES.get(name, name))
        label += f"<small>{escape(METHOD_MEANINGS.get(name, ''))}</small>"
        body += f"<tr{' class=ours' if name == MAIN else ''}><td>{label}</td>{cells}</tr>"
    return f"<table><thead><tr><th>Method</th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _meaning_table(rows: Mapping[str, Mapping], shown: Sequence[Measure]) -> str:
    heads = "".join(f"<th>{escape(METHOD_NAMES.get(name, name))}</th>" for name in rows)
    body = ""
    for m in shown:
        best = measures.best_rows(m, rows)
        cells = "".join(_cell(m, row, name in best) for name, row in rows.items())
        arrow = {True: "lower is better", False: "higher is better", None: ""}[m.lower_is_better]
        meaning = "; ".join(filter(None, (m.meaning, arrow)))
        words = f"{_tied(m.name)}, {_tied(m.unit)}<small>{_tied(m.term)}: {_tied(meaning)}</small>"
        body += f"<tr><td>{words}</td>{cells}</tr>"
    return f"<table><thead><tr><th>Number</th>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(measure: Measure, row: Mapping[str, object], best: bool) -> str:
    return f"<td{' class=best' if best else ''}>{measure.text(row.get(measure.key))}</td>"


def _unit(measure: Measure) -> str:
    arrow = {True: "lower is better", False: "higher is better", None: ""}[measure.lower_is_better]
    honest = {"coverage90": "90 is honest", "coverage50": "50 is honest"}.get(measure.key, "")
    return _tied(measure.unit) + "".join(f"<br>{part}" for part in filter(None, (arrow, honest)))


# ---- the figures --------------------------------------------------------------------------------------------------


def _honesty_section(report: Report) -> str:
    parts, text = [], ""
    if report.truth is not None and report.results:
        frames = metrics.common_frames(list(report.results.values()))
        curves = {n: uncertainty.reliability_of(r, report.truth, frames) for n, r in report.results.items()}
        parts.append(_figure(figures.reliability_plot(curves), _RELIABILITY, curves))
        if report.main in curves:
            text = _honesty_text(curves[report.main], METHOD_NAMES.get(report.main, report.main))
            promised, error = _promised(report.results[report.main], report.truth, frames)
            colour = figures.colour_of(report.main, list(report.results))
            parts.append(_figure(figures.promise_scatter(promised, error, colour), _SCATTER))
    pair = f'<div class="pair">{"".join(parts)}</div>' if parts else ""
    if report.confidence is not None:
        pair += _figure(figures.confidence_plot(*report.confidence, figures.METHOD_COLOURS["network"]), _CONFIDENCE)
    return f"<h2>Does it know when it is wrong?</h2>{text}{pair}" if pair else ""


def _honesty_text(curve: uncertainty.Reliability, name: str) -> str:
    held = 100 * float(np.interp(0.9, curve.expected, curve.observed))
    verdict = (
        "about right" if 0.87 <= curve.factor <= 1.15 else "too small" if curve.factor > 1 else "larger than needed"
    )
    return (
        f"<p>{escape(name)} gives every joint a region in space. Its 90&nbsp;% regions hold {held:.0f}&nbsp;% of "
        f"the joints; the typical one is {verdict} (stretching all by {curve.factor:.2f} would make half of the "
        "joints lie in their 50&nbsp;% region).</p>"
    )


def _promised(result: Result, truth: Truth, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, at = metrics.select_truth(result, truth, frames)
    error = metrics.distance_mm(result.joints_world_m[rows], truth.joints_world_m[at])
    return uncertainty.expected_error_mm(result.joints_cov_m2[rows]), error


def _where_section(report: Report) -> str:
    if report.truth is None or not report.results:
        return ""
    frames = metrics.common_frames(list(report.results.values()))
    errors: dict[str, Float[np.ndarray, "N 21"]] = {}
    tracks = {}
    for name, result in report.results.items():
        errors[name], _, numbers = metrics.joint_errors_mm(result, report.truth, frames)
        tracks[name] = (numbers, errors[name])
    fps = report.capture.fps if report.capture else 30.0
    return (
        "<h2>Where and when it errs</h2>"
        + _figure(
            figures.per_joint(errors),
            "Mean error of each joint, from the base of a finger to its tip; the wrist at the left.",
            errors,
        )
        + _figure(figures.over_time(tracks, fps), "Mean error over the 21 joints in each frame.", errors)
    )


def _training_section(report: Report) -> str:
    history = read_history(report.history)
    if not history:
        return ""
    return (
        "<h2>What the training did</h2><p>The network learns from the 2D labels alone. Some frames are held out: "
        "the error there is against their labels, which are wrong themselves, so it cannot fall to zero.</p>"
        + _figure(figures.training_curves(history), "Terms of the loss, and the error on frames held out.")
    )


def read_history(history: Path | Sequence[Mapping[str, float]] | None) -> list[dict]:
    """Lines of a metrics.jsonl, or those given; a last line cut short by an interrupted run is left out."""
    if not isinstance(history, str | Path):
        return [dict(line) for line in history or ()]
    return read_log(Path(history))


def _limits_section(report: Report) -> str:
    items = [
        "Joints in images say little about the twist of a finger, the thickness of the hand and the surface between "
        "the joints: there the hand model and its prior decide.",
        "Systematic errors that all cameras share, such as a detector that always places a joint too high, cannot be "
        "found by agreement between cameras, and no uncertainty shows them.",
    ]
    if report.truth is not None or "mpjpe_mm" in report.rows[report.main]:
        items.insert(
            0,
            "This is one synthetic capture of one hand, with labels made wrong on purpose. It shows that "
            "the method works as a whole; it is no benchmark, and real labels err in other ways too.",
        )
    if any(isinstance(row.get("leave_out_median_px"), int | float) for row in report.rows.values()):
        items.insert(
            0,
            "The judge is a detector's labels in a camera that was left out. They err by several pixels "
            "themselves, so the numbers have a floor that no method can pass.",
        )
    if any(not result.metric for result in report.results.values()):
        items.append(f"Lengths are not metric: {escape(next(iter(report.results.values())).unit_source)}.")
    items += [escape(text) for text in report.limitations]
    return "<h2>What this does not show</h2><ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _figure(svg: str, caption: str, methods: Sequence[str] | Mapping = ()) -> str:
    return f'<figure><div class="plot">{svg}</div>{_key(methods)}<figcaption>{escape(caption)}</figcaption></figure>'


def _key(methods: Sequence[str] | Mapping) -> str:
    """The methods' colours, in the page's own type: a legend inside a figure would not fit every font."""
    items = "".join(
        f"<span>{_dot(figures.colour_of(name, list(methods)))}{escape(METHOD_NAMES.get(name, name))}</span>"
        for name in methods
    )
    return f'<div class="key">{items}</div>' if items else ""


def _dot(colour: str) -> str:
    return f'<i class="dot" style="background:{colour}"></i>'


def _tied(text: str) -> str:
    """Escaped, and a number kept on one line with its unit."""
    return re.sub(r"(\d) (mm|px|%)", "\\1\u00a0\\2", escape(text))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _version() -> str:
    try:
        return metadata.version("usthand")
    except metadata.PackageNotFoundError:
        return ""
