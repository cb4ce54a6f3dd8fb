"""Check the hand itself, once the cameras agree: joint order, unit and side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from usthand.diagnostics import corrections
from usthand.diagnostics.agreement import error_px
from usthand.diagnostics.candidate_faults import CandidateFault
from usthand.diagnostics.diagnosis import Diagnosis
from usthand.diagnostics.findings import Evidence, Finding, from_order
from usthand.diagnostics.hand_faults import (
    LIKELY_PALM_M,
    PALM_M,
    TriangulatedHand,
    hands_in_space,
    in_order,
    joint_order,
    palm_length,
    unit_of,
    unlikeness,
    wrong_side,
)
from usthand.diagnostics.search import FixedCase

UNLIKE_A_HAND = 0.25
"""Bone lengths this far (root mean square of logs) from an average hand's: a sound one is at .03 to .08."""

UNKNOWN_UNIT = "unknown unit: lengths are not metric"


def check_hand(diagnosis: Diagnosis, final: FixedCase) -> tuple[float, str] | None:
    """Check order, unit and side.

    Args:
        diagnosis: With all fixes of cameras, labels and time.
        final: Its current case on the frames that evidence is taken from.

    Returns:
        (metres of the rig's unit, its name) if the unit is wrong, 0 metres if it is unknown; None if it is right.
    """
    if not final.plausible:
        diagnosis.add(_disagreement(diagnosis.names, final))
        return None
    hands = hands_in_space(diagnosis.current)
    order = joint_order(hands)
    if order is not None:
        diagnosis.add(from_order(order, diagnosis.names))
        views = tuple(range(len(diagnosis.names)))
        labels = dict.fromkeys(views, corrections.order_labels(corrections.ORDERS[order.name]))
        diagnosis.apply(CandidateFault("joint_order", "all", views, labels=labels, value=order.name))
        hands = [in_order(hand, order.name) for hand in hands]
    unlike = np.nanmax([unlikeness(hand) for hand in hands], initial=0.0)
    if unlike > UNLIKE_A_HAND:
        sentence = (
            f"the cameras agree, but what they see is not a hand: its bone lengths are {100 * unlike:.0f} % off an "
            "average hand's, where sound captures are below 10 %."
        )
        fix = "look at the labels (joint order, mirrored images, one camera's images turned), and at the calibration"
        diagnosis.add(Finding("not_a_hand", diagnosis.names, sentence, fix, {"unlikeness": float(unlike)}))
        return None
    _check_sides(diagnosis, hands)
    return _check_unit(diagnosis, hands)


def _disagreement(names: tuple[str, ...], final: FixedCase) -> Finding:
    rows, known = final.agreement.rows(), np.isfinite(final.agreement.error)
    worst = float(np.nanmax(rows))
    sentence = (
        f"the cameras do not agree on the hand, and no known mistake explains it: the epipolar error is "
        f"{error_px(final.agreement.plain, final.views, known):.3g} px, {100 * worst:.0f} % of the hand's size in the "
        "worst camera, where sound captures are below 5 %."
    )
    fix = "check that calibration and videos belong together, that the cameras stood still, and calibrate again"
    cameras = tuple(names[v] for v in np.flatnonzero(rows > 0.9 * worst))
    return Finding("disagreement", cameras, sentence, fix, {"error": worst})


def _check_sides(diagnosis: Diagnosis, hands: list[TriangulatedHand]) -> None:
    stated = [one.side for one in diagnosis.labels]
    sides = list(stated)
    for n, (hand, side) in enumerate(zip(hands, stated, strict=True)):
        found = wrong_side(hand, side)
        if found is None:
            continue
        share, count = found
        sides[n] = other = "left" if side == "right" else "right"
        sentence = (
            f"the {side} hand's labels look like a {other} hand: its fingers bend to the side of a {other} hand's palm "
            f"in {100 * share:.0f} % of {count} frames."
        )
        fix = f"name them {other}; if the videos are mirrored (as by webcams), unmirror them and use those to calibrate"
        numbers: Evidence = {"share": share, "frames": count, "side": side}
        diagnosis.add(Finding("wrong_side", diagnosis.names, sentence, fix, numbers))
    if sides != stated and len(set(sides)) == len(sides):
        named = zip(diagnosis.labels, sides, strict=True)
        diagnosis.labels, diagnosis.labels_changed = tuple(replace(one, side=side) for one, side in named), True


def _check_unit(diagnosis: Diagnosis, hands: list[TriangulatedHand]) -> tuple[float, str] | None:
    palm = palm_length(hands)
    if not diagnosis.facts.rig.metric or not np.isfinite(palm) or PALM_M[0] <= palm <= PALM_M[1]:
        return None
    told = (
        f"the palm (wrist to middle knuckle) is {palm:.3g} m long, and people's are {LIKELY_PALM_M[0]:.2f} to "
        f"{LIKELY_PALM_M[1]:.2f} m"
    )
    unit = unit_of(palm)
    if unit is not None:
        name, metres = unit
        numbers: Evidence = {"palm": palm, "factor": metres, "unit": name}
        sentence = (
            f"the lengths of the rig look to be in {name}, not metres: {told}; in {name} it would be "
            f"{100 * palm * metres:.1f} cm."
        )
        fix = f"multiply all translations by {metres:g}"
        diagnosis.add(Finding("wrong_unit", diagnosis.names, sentence, fix, numbers))
        return metres, name
    factor = float(np.sqrt(LIKELY_PALM_M[0] * LIKELY_PALM_M[1])) / palm
    sentence = (
        f"the lengths of the rig are not metres: {told}; one unit is about {100 * factor:.3g} cm, perhaps a square of "
        "the calibration board."
    )
    fix = "multiply all translations by the length of the board's square in metres, or set metric = false"
    numbers = {"palm": palm, "factor": factor, "unit": "unknown"}
    diagnosis.add(Finding("wrong_unit", diagnosis.names, sentence, fix, numbers))
    return 0.0, UNKNOWN_UNIT
