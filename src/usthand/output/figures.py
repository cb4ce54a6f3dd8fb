"""The report's figures, as SVG text that takes its ink from the page, so that it reads in light and in dark.

Every axis says what it shows and in which unit. Methods keep one colour throughout.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib.ticker
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from usthand.evaluation.glossary import Row, number_of
from usthand.evaluation.reliability import Reliability, spearman
from usthand.hand.skeleton import FINGERS, JOINTS

Arguments = ParamSpec("Arguments")
METHOD_COLOURS = {"raw": "#94a3b8", "smooth": "#64748b", "fit": "#e0912f", "network": "#14b8a6", "usthand": "#4f7df9"}
_SPARE_COLOURS = ("#c65bcf", "#d9534f", "#7a9e2e")
# A stand-in for the page's text colour: replaced by CSS's currentColor in the SVG.
_INK = "#010203"
_STYLE: dict[Any, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "usthand",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    **{f"{part}.color": _INK for part in ("text", "xtick", "ytick", "grid")},
    **{f"axes.{part}": _INK for part in ("labelcolor", "edgecolor", "titlecolor")},
}
# Inches at 96 px: as wide as the page shows them, so that text keeps its size.
_WIDE, _HALF = 10.2, 4.9
_PROGRESS = ("step", "epoch", "seconds", "lr")
_TERM_NAMES = {
    "total": "total",
    "hmap": "heatmaps",
    "hm2d": "2D joints",
    "nll": "flow: likelihood",
    "proj2d": "points: reprojection",
    "hand2d": "hand: reprojection",
    "hand": "hand: distance to points",
    "prior": "hand: prior",
    "held_out_px": "2D joints, frames held out",
}
_MANY_DECADES = 300.0
_MAX_DOTS = 1500  # a scatter of more dots is a blot, and a heavy page


def colour_of(method: str, methods: Iterable[str]) -> str:
    """The colour of a method: fixed for ours, else by its place."""
    others = [name for name in methods if name not in METHOD_COLOURS]
    return METHOD_COLOURS.get(method) or _SPARE_COLOURS[others.index(method) % len(_SPARE_COLOURS)]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element that scales with the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*" height="[^"]*"|(<svg[^>]*?) height="[^"]*"([^>]*?) width="[^"]*"',
        lambda m: m[1] or m[2] + m[3],
        svg,
        count=1,
    )


def _drawn(draw: Callable[Arguments, Figure]) -> Callable[Arguments, str]:
    """Run a drawing function in the report's style and return its SVG."""

    @wraps(draw)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        with matplotlib.rc_context(_STYLE):
            return _svg(draw(*args, **kwargs))

    return run


@_drawn
def error_bars(rows: Mapping[str, Row], keys: Mapping[str, str], unit: str) -> Figure:
    """Grouped bars: one group for each key (with its label), one bar for each method."""
    figure, (axes,) = _figure(_WIDE, 3.3)
    width = 0.8 / len(rows)
    for place, (method, row) in enumerate(rows.items()):
        heights = {at: value for at, key in enumerate(keys) if (value := number_of(row, key)) is not None}
        left = np.array([*heights]) + (place - (len(rows) - 1) / 2) * width
        bars = axes.bar(left, list(heights.values()), 0.9 * width, color=colour_of(method, rows))
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8.5)
    axes.set_xticks(range(len(keys)), list(keys.values()))
    axes.set_ylabel(f"error ({unit})")
    axes.margins(y=0.15)
    axes.grid(axis="x", visible=False)
    return figure


@_drawn
def reliability_plot(curves: Mapping[str, Reliability]) -> Figure:
    """Promised against measured coverage; on the diagonal the promise is kept."""
    figure, (axes,) = _figure(_HALF, 4.3)
    axes.plot([0, 100], [0, 100], color=_INK, lw=1, ls=(0, (4, 4)), alpha=0.5)
    axes.text(30, 33, "promise kept", rotation=45, va="bottom", alpha=0.7, fontsize=9, rotation_mode="anchor")
    axes.text(6, 92, "too timid", alpha=0.7, fontsize=9)
    axes.text(96, 5, "too sure of itself", alpha=0.7, fontsize=9, ha="right")
    for method, curve in curves.items():
        expected, observed = np.r_[0, curve.expected, 1] * 100, np.r_[0, curve.observed, 1] * 100
        axes.plot(expected, observed, color=colour_of(method, curves), lw=2.2)
    axes.set(
        xlabel="promised: size of the region (%)",
        ylabel="measured: joints inside it (%)",
        xlim=(0, 100),
        ylim=(0, 100),
        aspect="equal",
    )
    return figure


@_drawn
def promise_scatter(promised_mm: Float[np.ndarray, "*n"], error_mm: Float[np.ndarray, "*n"], colour: str) -> Figure:
    """Expected against true error of every joint, with the mean error in ten groups of equal size."""
    promised, error = np.ravel(promised_mm), np.ravel(error_mm)
    figure, (axes,) = _figure(_HALF, 4.3)
    order = np.argsort(promised, kind="stable")
    some = order[np.unique(np.linspace(0, len(order) - 1, min(_MAX_DOTS, len(order))).astype(int))]
    floor = max(np.percentile(error, 0.5), 1e-2)
    axes.scatter(promised[some], np.maximum(error[some], floor), s=5, color=colour, alpha=0.38, lw=0)
    groups = np.array_split(order, min(10, len(order)))
    means = [(promised[g].mean(), error[g].mean()) for g in groups]
    axes.plot(*zip(*means, strict=True), "o-", color=_INK, ms=4.5, lw=1.4, label="mean of a tenth of the joints")
    ends = np.array([min(promised.min(), floor), max(promised.max(), error.max())])
    axes.plot(ends, ends, color=_INK, lw=1, ls=(0, (4, 4)), alpha=0.5, label="error as expected")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="error that the method expects (mm)",
        ylabel="true error (mm)",
        title=_rank(promised, error),
    )
    axes.set_xlim(promised.min() * 0.8, promised.max() * 1.25)
    _plain_log(axes.xaxis, axes.yaxis)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


@_drawn
def per_joint(errors_mm: Mapping[str, Float[np.ndarray, "N 21"]]) -> Figure:
    """Mean error of each joint, by finger, one line of dots for each method."""
    figure, (axes,) = _figure(_WIDE, 3.6)
    place = np.array([0.0] + [1.4 + 4.6 * f + step for f in range(5) for step in range(4)])
    for method, errors in errors_mm.items():
        colour, mean = colour_of(method, errors_mm), errors.mean(axis=0)
        axes.plot(place[:1], mean[:1], "o", color=colour, ms=5.5)
        for ids in FINGERS.values():
            axes.plot(place[list(ids)], mean[list(ids)], "o-", color=colour, ms=5.5, lw=1.6, alpha=0.95)
    axes.set_xticks(place, [name.split("_")[-1] for name in JOINTS], rotation=90, fontsize=8.5)
    for finger, ids in FINGERS.items():
        axes.text(place[list(ids)].mean(), 1.02, finger, ha="center", transform=axes.get_xaxis_transform())
    axes.set_ylim(0, 1.08 * max(errors.mean(axis=0).max() for errors in errors_mm.values()))
    axes.set_ylabel("mean error (mm)")
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="x", visible=False)
    return figure


@_drawn
def over_time(errors_mm: Mapping[str, tuple[Float[np.ndarray, "N 21"], Int[np.ndarray, "N"]]], fps: float) -> Figure:
    """Error of each frame (mean of the joints) over time, from each method's errors and frame numbers."""
    figure, (axes,) = _figure(_WIDE, 3.0)
    for method, (errors, frames) in errors_mm.items():
        x, y = _with_gaps(frames, fps, errors.mean(axis=1))
        axes.plot(x, y, lw=1.4, alpha=0.95, color=colour_of(method, errors_mm))
    axes.set(xlabel="time (s)", ylabel="mean error (mm)")
    top = max(np.percentile(errors.mean(axis=1), 99.5) for errors, _ in errors_mm.values())
    axes.set_ylim(0, 1.15 * top)
    axes.margins(x=0.01)
    return figure


@_drawn
def surface_std(
    std_mm: Mapping[str, tuple[Float[np.ndarray, "N vertices"], Int[np.ndarray, "N"]]], fps: float
) -> Figure:
    """Mean standard deviation of the vertices over time, and between which values nine in ten of them lie.

    Takes each method's standard deviations (mm) and frame numbers.
    """
    figure, (axes,) = _figure(_WIDE, 3.0)
    top = 0.0
    for method, (std, frames) in std_mm.items():
        colour = colour_of(method, std_mm)
        low, high = np.percentile(std, (5, 95), axis=1)
        (x, mean), (_, low), (_, high) = (_with_gaps(frames, fps, values) for values in (std.mean(axis=1), low, high))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(x, mean, lw=1.6, color=colour)
        top = max(top, float(np.nanpercentile(high, 99.5)))
    axes.set(xlabel="time (s)", ylabel="std of the surface (mm)")
    axes.set_ylim(0, 1.15 * top)
    axes.margins(x=0.01)
    return figure


def _with_gaps(
    frames: Int[np.ndarray, "N"], fps: float, values: Float[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "M"], Float[np.ndarray, "M"]]:
    """Seconds and values of a line that is broken where frames are missing: it would claim what was not measured."""
    gap = np.flatnonzero(np.diff(frames) > 1) + 1
    return np.insert(frames / fps, gap, np.nan), np.insert(values.astype(float), gap, np.nan)


@_drawn
def confidence_plot(confidence: Float[np.ndarray, "N"], error_percent: Float[np.ndarray, "N"], colour: str) -> Figure:
    """Median and middle half of the 2D error in ten groups of equal size, by confidence."""
    figure, (axes,) = _figure(_WIDE, 3.2)
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(10, len(confidence)))
    x = [confidence[g].mean() for g in groups]
    low, middle, high = np.array([np.percentile(error_percent[g], (25, 50, 75)) for g in groups]).T
    axes.fill_between(x, low, high, color=colour, alpha=0.22, lw=0, label="middle half")
    axes.plot(x, middle, "o-", color=colour, ms=4.5, lw=1.8, label="median")
    axes.set(
        xlabel="confidence of the network (0 to 1)",
        ylabel="2D error (% of the hand)",
        title=_rank(confidence, error_percent),
    )
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


@_drawn
def training_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss terms (left) and errors in px or mm (right) over training, from the lines of metrics.jsonl."""
    x_key = next((key for key in _PROGRESS if any(key in line for line in history)), "")
    keys = list(dict.fromkeys(k for line in history for k, v in line.items() if isinstance(v, int | float)))
    errors = [k for k in keys if k.endswith(("_px", "_mm"))]
    losses = [k for k in keys if k not in errors and k not in _PROGRESS]
    groups = [group for group in (losses, errors) if group]
    figure, panels = _figure(_WIDE, 3.9, max(len(groups), 1))
    for axes, group in zip(panels, groups, strict=False):
        lowest = []
        for key in group:
            found = np.array([(line.get(x_key, i), line[key]) for i, line in enumerate(history) if key in line], float)
            lowest.append(found[:, 1].min())
            axes.plot(
                *found.T,
                lw=2.2 if key == "total" else 1.5,
                label=_TERM_NAMES.get(key, key.replace("_", " ")),
                color=_INK if key == "total" else None,
                marker="o" if len(found) < 30 else None,
                ms=3.5,
            )
        axes.set_xlabel(f"training {x_key or 'record'}s".replace("ss", "s"))
        axes.set_ylabel("loss (no unit)" if group is losses else "error (px)")
        axes.margins(y=0.08)
        if group is errors:
            axes.set_ylim(bottom=0)
        elif min(lowest) > 0:
            axes.set_yscale("log")
            _plain_log(axes.yaxis)
        axes.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return figure


def _rank(a: Float[np.ndarray, "N"], b: Float[np.ndarray, "N"]) -> str:
    return f"rank correlation {spearman(a, b):.2f}".replace("-", "\N{MINUS SIGN}")


def _plain_log(*axes_lines: Axis) -> None:
    """1, 2, 5, 10, 20 rather than powers of ten; decades alone where there are many."""
    for axis in axes_lines:
        low, high = axis.get_view_interval()
        marks = (1.0, 2.0, 5.0) if high < _MANY_DECADES * low else (1.0,)
        axis.set_major_locator(matplotlib.ticker.LogLocator(subs=marks))
        axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
