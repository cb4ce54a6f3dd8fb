"""The hand itself, once the cameras agree: joint order, unit and side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from usthand.diagnostics import corrections
from usthand.diagnostics.agreement import error_px
from usthand.diagnostics.candidate_faults import CandidateFault
from usthand.diagnostics.findings import Finding, from_order
from usthand.diagnostics.hand_faults import (
    LIKELY_PALM_M,
    PALM_M,
    Hand,
    hands_in_space,
    in_order,
    joint_order,
    palm_length,
    unit_of,
    unlikeness,
    wrong_side,
)
from usthand.diagnostics.search import State
from usthand.diagnostics.work import Work

UNLIKE_A_HAND = 0.25
"""Bone lengths this far (root mean square of logs) from an average hand's: a sound one is at .03 to .08."""

UNKNOWN_UNIT = "unknown unit: lengths are not metric"


def check_hand(work: Work, final: State) -> tuple[float, str] | None:
    """Order, unit and side; returns (metres of the rig's unit, its name) if the unit is wrong, 0 metres if unknown."""
    if not final.plausible:
        sentence = (
            f"the cameras do not agree on the hand, and no known mistake explains it: the epipolar error is "
            f"{error_px(final.agreement.plain, final.views, np.isfinite(final.agreement.error)):.3g} px, "
            f"{100 * np.nanmax(final.agreement.rows()):.0f} % of the hand's size in the worst camera, where sound captures are below 5 %."
        )
        worst = tuple(
            work.names[v] for v in np.flatnonzero(final.agreement.rows() > 0.9 * np.nanmax(final.agreement.rows()))
        )
        fix = "check that calibration and videos belong together, that the cameras stood still, and calibrate again"
        work.findings.append(
            Finding("disagreement", worst, sentence, fix, {"error": float(np.nanmax(final.agreement.rows()))})
        )
        return None
    hands = hands_in_space(work.now)
    order = joint_order(hands)
    if order is not None:
        work.findings.append(from_order(order, work.names))
        everything = dict.fromkeys(range(len(work.names)), corrections.order_labels(corrections.ORDERS[order.name]))
        work.apply(CandidateFault("joint_order", "all", tuple(everything), {}, everything, order.name))
        hands = [in_order(hand, order.name) for hand in hands]
    unlike = np.nanmax([unlikeness(hand) for hand in hands], initial=0.0)
    if unlike > UNLIKE_A_HAND:
        sentence = (
            f"the cameras agree, but what they see is not a hand: its bone lengths are {100 * unlike:.0f} % off an average hand's, "
            "where sound captures are below 10 %."
        )
        fix = "look at the labels (joint order, mirrored images, one camera's images turned), and at the calibration"
        work.findings.append(Finding("not_a_hand", work.names, sentence, fix, {"unlikeness": float(unlike)}))
        return None
    _sides(work, hands)
    return _unit(work, hands)


def _sides(work: Work, hands: list[Hand]) -> None:
    sides = [one.side for one in work.labels]
    for n, (hand, side) in enumerate(zip(hands, sides, strict=True)):
        found = wrong_side(hand, side)
        if found is None:
            continue
        share, count = found
        other = "left" if side == "right" else "right"
        sentence = (
            f"the {side} hand's labels look like a {other} hand: its fingers bend to the side of a {other} hand's palm in "
            f"{100 * share:.0f} % of {count} frames."
        )
        fix = f"name them {other}; if the videos are mirrored (webcams often are), unmirror them and calibrate with them so"
        work.findings.append(
            Finding("wrong_side", work.names, sentence, fix, {"share": share, "frames": count, "side": side})
        )
        sides[n] = other
    if sides != [one.side for one in work.labels] and len(set(sides)) == len(sides):
        work.labels = tuple(replace(one, side=side) for one, side in zip(work.labels, sides, strict=True))
        work.labels_changed = True


def _unit(work: Work, hands: list[Hand]) -> tuple[float, str] | None:
    palm = palm_length(hands)
    if not work.facts.rig.metric or not np.isfinite(palm) or PALM_M[0] <= palm <= PALM_M[1]:
        return None
    unit = unit_of(palm)
    numbers = {"palm": palm}
    told = f"the palm (wrist to middle knuckle) is {palm:.3g} m long, and people's are {LIKELY_PALM_M[0]:.2f} to {LIKELY_PALM_M[1]:.2f} m"
    if unit is not None:
        name, metres = unit
        numbers |= {"factor": metres, "unit": name}
        sentence = f"the lengths of the rig look to be in {name}, not metres: {told}; in {name} it would be {100 * palm * metres:.1f} cm."
        work.findings.append(
            Finding("wrong_unit", work.names, sentence, f"multiply all translations by {metres:g}", numbers)
        )
        return metres, name
    middle = float(np.sqrt(LIKELY_PALM_M[0] * LIKELY_PALM_M[1]))
    numbers |= {"factor": middle / palm, "unit": "unknown"}
    sentence = (
        f"the lengths of the rig are not metres: {told}; one unit is about {100 * middle / palm:.3g} cm, perhaps a square of the "
        "calibration board."
    )
    fix = "multiply all translations by the length of the board's square in metres, or set metric = false"
    work.findings.append(Finding("wrong_unit", work.names, sentence, fix, numbers))
    return 0.0, UNKNOWN_UNIT
