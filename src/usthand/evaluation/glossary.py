"""What each number means, in words for people who have never heard of it: used by the report and by tables.

The names of `usthand.evaluation.metrics` carry the alignment; here they are explained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

METHOD_NAMES = {
    "raw": "Plain triangulation",
    "smooth": "Plain triangulation, smoothed",
    "fit": "Sequence fit, no learning",
    "network": "UST-Hand, network alone",
    "usthand": "UST-Hand",
}
METHOD_MEANINGS = {
    "raw": "each joint from the cameras' 2D labels, frame by frame, all labels counting alike",
    "smooth": "the same, each joint's track smoothed by a running median and a Gaussian: what most people do",
    "fit": "one hand model fitted to the labels of the whole sequence, robustly and smoothly: today's careful way",
    "network": "what the trained network says of each frame by itself",
    "usthand": "the same sequence fit, on the network's probabilities and the labels together",
}


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
    lower_is_better: bool | None = True
    """None where neither is better: a share that should equal a promise, or a plain count."""
    digits: int = 2
    factor: float = 1.0
    """Shown value over stored value: 100 for a share shown in per cent."""

    def text(self, value: object) -> str:
        """The value as shown, an en dash if there is none."""
        return "–" if not isinstance(value, int | float) else f"{value * self.factor:,.{self.digits}f}"


def _point_measures(letter: str, word: str) -> list[Measure]:
    return [
        Measure(
            f"mp{letter}pe_mm",
            f"{word} error",
            f"MP{letter.upper()}PE, absolute",
            "mm",
            "mean distance from the true place in the room; nothing is aligned first",
        ),
        Measure(
            f"mp{letter}pe_wrist_mm",
            f"{word} error, wrists together",
            f"MP{letter.upper()}PE, wrist-relative",
            "mm",
            "the same after moving both hands so that their wrists coincide",
        ),
        Measure(
            f"mp{letter}pe_scale_mm",
            f"{word} error, wrists and size together",
            f"MP{letter.upper()}PE, scale-normalised",
            "mm",
            "and after scaling to the true size about the wrist",
        ),
        Measure(
            f"mp{letter}pe_pa_mm",
            f"{word} error, shape only",
            f"PA-MP{letter.upper()}PE, Procrustes",
            "mm",
            "after the best move, turn and scaling: what is left is the pose of the fingers",
        ),
    ]


_TRUTH = [
    *_point_measures("j", "Joint"),
    *_point_measures("v", "Surface"),
    Measure(
        "auc_j",
        "Joint score",
        "AUC-J, absolute, 0 to 50 mm",
        "0 to 1",
        "area under the share of joints within t of the truth; 1 is perfect",
        False,
        3,
    ),
    Measure("auc_v", "Surface score", "AUC-V, absolute, 0 to 50 mm", "0 to 1", "the same for the surface", False, 3),
    Measure(
        "f5",
        "Surface within 5 mm",
        "F@5, absolute",
        "%",
        "how much of both surfaces lies within 5 mm of the other (harmonic mean)",
        False,
        1,
        100,
    ),
    Measure("f15", "Surface within 15 mm", "F@15, absolute", "%", "within 15 mm", False, 1, 100),
    Measure(
        "f5_pa",
        "Surface within 5 mm, shape only",
        "F@5, Procrustes",
        "%",
        "after the best move, turn and scaling",
        False,
        1,
        100,
    ),
    Measure("f15_pa", "Surface within 15 mm, shape only", "F@15, Procrustes", "%", "after the same", False, 1, 100),
    Measure(
        "accel_mm_s2",
        "Shake",
        "acceleration error",
        "mm/s²",
        "mean difference from the true acceleration; a trembling hand has a large one",
        True,
        0,
    ),
    Measure(
        "coverage50",
        "Truth inside the 50 % region",
        "coverage, 50 %",
        "%",
        "share of joints that lie in their own 50 % region; 50 is honest",
        None,
        1,
        100,
    ),
    Measure(
        "coverage90",
        "Truth inside the 90 % region",
        "coverage, 90 %",
        "%",
        "share of joints that lie in their own 90 % region; 90 is honest",
        None,
        1,
        100,
    ),
]
_NO_TRUTH = [
    Measure(
        "leave_out_median_px",
        "Error in a camera never used",
        "left-out camera, median",
        "px",
        "distance from that camera's own labels, which are not exact themselves",
    ),
    Measure(
        "leave_out_p90_px",
        "the same, nine tenths are below",
        "left-out camera, 90th percentile",
        "px",
        "how bad the bad ones are",
    ),
    Measure(
        "label_residual_median_px",
        "Distance from the labels used",
        "label residual, median",
        "px",
        "how closely the labels are followed; low is not yet right, since labels err",
        None,
    ),
    Measure(
        "palm_spread_mm",
        "Palm bones change by",
        "bone-length spread, palm",
        "mm",
        "standard deviation over time of lengths that are fixed in a real hand",
    ),
    Measure("finger_bone_spread_mm", "Finger bones change by", "bone-length spread, fingers", "mm", "the same"),
    Measure(
        "jitter_mm_s2",
        "Acceleration",
        "jitter, root mean square",
        "mm/s²",
        "of the joints; true motion has some, trembling adds to it",
        None,
        0,
    ),
    Measure(
        "valid_fraction",
        "Frames with a hand",
        "share of frames marked valid",
        "%",
        "in the others too few cameras saw it",
        False,
        1,
        100,
    ),
]
MEASURES = (*_TRUTH, *_NO_TRUTH)
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
_HEADLINE_KEYS = ("mpvpe_mm", "mpjpe_mm", "leave_out_median_px")


def present(rows: Mapping[str, Mapping]) -> list[Measure]:
    """The measures that some row has a number for."""
    return [m for m in MEASURES if any(isinstance(row.get(m.key), int | float) for row in rows.values())]


def best_rows(measure: Measure, rows: Mapping[str, Mapping]) -> set[str]:
    """The rows that are best as shown (ties share); none where no direction is better or only one row has it."""
    values = {name: row[measure.key] for name, row in rows.items() if isinstance(row.get(measure.key), int | float)}
    if measure.lower_is_better is None or len(values) < 2:
        return set()
    best = (min if measure.lower_is_better else max)(values.values())
    return {name for name, value in values.items() if measure.text(value) == measure.text(best)}


def headline(rows: Mapping[str, Mapping], method: str = "usthand", names: Mapping[str, str] = METHOD_NAMES) -> str:
    """One sentence: how much closer (or not) ``method`` comes than the others, with the numbers."""
    own = rows.get(method, {})
    known = {
        k: sum(isinstance(row.get(k), int | float) for row in rows.values())
        for k in _HEADLINE_KEYS
        if isinstance(own.get(k), int | float)
    }
    if not known:
        return "Hands with their uncertainty, from calibrated cameras and without any 3D label."
    key = max(known, key=known.get)  # the first of those that most rows can be compared by
    others = {
        n: r[key]
        for n in ("fit", "raw", *rows)
        if n != method and n != "network" and (r := rows.get(n)) and isinstance(r.get(key), int | float)
    }
    what, unit, digits = {
        "mpvpe_mm": ("hand surfaces lie", "mm from the truth", 1),
        "mpjpe_mm": ("hand joints lie", "mm from the truth", 1),
        "leave_out_median_px": ("joints lie", "px from the labels of a camera it never saw", 1),
    }[key]
    text = f"{names.get(method, method)}'s {what} {own[key]:.{digits}f} {unit} on average"
    text = text.replace(" on average", " in the median") if key == "leave_out_median_px" else text
    parts = [
        f"{_change(own[key], value)} {_in_sentence(names.get(name, name))} ({value:.{digits}f})"
        for name, value in list(others.items())[:2]
    ]
    return f"{text}, {' and '.join(parts)}." if parts else f"{text}."


def _change(own: float, other: float) -> str:
    percent = 100.0 * (1.0 - own / other) if other > 0 else 0.0
    if abs(percent) < 1.0:
        return "as near as"
    if percent < -100.0:
        return f"{own / other:.1f} times as far as"
    return f"{abs(percent):.0f} % {'closer than' if percent > 0 else 'farther than'}"


def _in_sentence(name: str) -> str:
    own = {METHOD_NAMES["raw"]: "plain triangulation", METHOD_NAMES["fit"]: "the sequence fit without learning"}
    return own.get(name, name)
