"""What each number means, in words for readers new to the field: used by the report and by tables.

The names of `usthand.evaluation.metrics` carry the alignment; here (in glossary.toml) they are explained.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

_TEXT = tomllib.loads((resources.files("usthand.evaluation") / "glossary.toml").read_text("utf-8"))
METHOD_NAMES: dict[str, str] = {key: method["name"] for key, method in _TEXT["method"].items()}
METHOD_MEANINGS: dict[str, str] = {key: method["meaning"] for key, method in _TEXT["method"].items()}
Row = Mapping[str, object]
"""Numbers of one method by name; what is no number is not shown."""


@dataclass(frozen=True)
class Measure:
    """One number: how it is called, in which unit, and what it means."""

    key: str
    name: str
    """In plain words."""
    term: str
    """What the literature calls it, with its alignment."""
    unit: str
    meaning: str
    better: Literal["lower", "higher", "neither"] = "lower"
    """Neither: a share that should equal a promise, or a plain count."""
    digits: int = 2
    factor: float = 1.0
    """Shown value over stored value: 100 for a share shown in per cent."""

    def text(self, value: object) -> str:
        """The value as shown, an en dash if there is none."""
        return "–" if not isinstance(value, int | float) else f"{value * self.factor:,.{self.digits}f}"

    @property
    def direction(self) -> str:
        """Which values are better, in words; empty where neither are."""
        return "" if self.better == "neither" else f"{self.better} is better"


MEASURES = tuple(Measure(**measure) for measure in _TEXT["measure"])
MAIN_KEYS = (
    "mpjpe_mm",
    "mpvpe_mm",
    "mpvpe_wrist_mm",
    "mpvpe_pa_mm",
    "f5",
    "accel_mm_s2",
    "coverage90",
    "leave_out_median_px",
    "leave_out_p90_px",
    "palm_spread_mm",
    "finger_bone_spread_mm",
)
# What a headline may be about, the most telling first: (what lies how far from where, on which average).
_HEADLINES = {
    "mpvpe_mm": ("hand surfaces lie", "mm from the truth on average"),
    "mpjpe_mm": ("hand joints lie", "mm from the truth on average"),
    "leave_out_median_px": ("joints lie", "px from the labels of a camera it never saw in the median"),
}
_IN_SENTENCES = {METHOD_NAMES["raw"]: "plain triangulation", METHOD_NAMES["fit"]: "the sequence fit without learning"}


def number_of(row: Row, key: str) -> float | None:
    """A row's number, or None where it has none."""
    value = row.get(key)
    return value if isinstance(value, int | float) else None


def present(rows: Mapping[str, Row]) -> list[Measure]:
    """The measures that some row has a number for."""
    return [m for m in MEASURES if any(number_of(row, m.key) is not None for row in rows.values())]


def best_rows(measure: Measure, rows: Mapping[str, Row]) -> set[str]:
    """The rows that are best as shown (ties share); none where no direction is better or only one row has it."""
    values = {name: value for name, row in rows.items() if (value := number_of(row, measure.key)) is not None}
    if measure.better == "neither" or len(values) < 2:
        return set()
    best = (min if measure.better == "lower" else max)(values.values())
    return {name for name, value in values.items() if measure.text(value) == measure.text(best)}


def headline(rows: Mapping[str, Row], method: str = "usthand") -> str:
    """One sentence: how much closer (or not) a method comes than the others, with the numbers."""
    own = {key: value for key in _HEADLINES if (value := number_of(rows.get(method, {}), key)) is not None}
    if not own:
        return "Hands with their uncertainty, from calibrated cameras and without any 3D label."
    # The first of those that most rows can be compared by.
    key = max(own, key=lambda key: sum(number_of(row, key) is not None for row in rows.values()))
    others = {
        name: value
        for name in ("fit", "raw", *rows)
        if name not in (method, "network") and (value := number_of(rows.get(name, {}), key)) is not None
    }
    parts = [_compared(own[key], name, value) for name, value in list(others.items())[:2]]
    what, where = _HEADLINES[key]
    text = f"{METHOD_NAMES.get(method, method)}'s {what} {own[key]:.1f} {where}"
    return f"{text}, {' and '.join(parts)}." if parts else f"{text}."


def _compared(own: float, name: str, other: float) -> str:
    """How much closer a number is than another method's."""
    percent = 100.0 * (1.0 - own / other) if other > 0 else 0.0
    if abs(percent) < 1.0:
        change = "as near as"
    elif percent < -100.0:
        change = f"{own / other:.1f} times as far as"
    else:
        change = f"{abs(percent):.0f} % {'closer than' if percent > 0 else 'farther than'}"
    full = METHOD_NAMES.get(name, name)
    return f"{change} {_IN_SENTENCES.get(full, full)} ({other:.1f})"
