"""Distance of results from fingertips that people marked in the images: truth from real footage, on anyone's rig.

Two points of each result are judged: its fingertip joints, and the centres of its mesh's fingertip caps, which is what
was marked (`usthand.hand.fingertips`). The marks' own covariance is added to the result's, so that its regions are
asked to hold the marks and not the unknown tips. The cap's own covariance is the mean of its vertices', each with the
vertex's weight in the cap's centre: neighbouring vertices move as one, so that what they share does not average out.
Where the result has no covariances of vertices, it is the tip joint's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.evaluation.mark_triangulation import MAX_RESIDUAL_PX, MarkedTips, place_tips
from usthand.evaluation.marks import FINGER_NAMES, Mark, marker_agreement
from usthand.evaluation.metrics import coverages
from usthand.hand.fingertips import cap_centres, cap_weights
from usthand.hand.io import load_hand
from usthand.hand.mesh_joints import hand_of
from usthand.hand.result import MM_PER_M, Result
from usthand.hand.skeleton import FINGER_TIPS

POINTS = {"joint": "tip joints", "cap": "mesh's caps"}
"""What is judged of a result, in the JSON and in words."""


def evaluate_marks(
    results: Mapping[str, Result],
    marks: Sequence[Mark],
    rig: Rig,
    hand: str = "embedded",
    max_residual_px: float = MAX_RESIDUAL_PX,
) -> dict[str, object]:
    """How good the marks are, and how far results are from them.

    Args:
        results: By name, of either side; there may be none.
        marks: Of both sides, by one marker or several.
        rig: The cameras that were marked.
        hand: The hand model that the results were made with.
        max_residual_px: A view that is off by more is left out of a tip.

    Returns:
        `marks`: how many there are, whose, their agreement and residuals (px), and how many tips they place. `mark_px`:
        standard deviation of a view's mark on each axis. `results`: for each name `tips`, how many are judged, and for
        each of `POINTS` the errors (mm) with and without each finger's mean offset along its last bone (`offset_mm`,
        positive where the point lies beyond the mark, towards the finger's end), and the share of marks in the 50 and
        90 % regions. Rounded to two decimals.

    Raises:
        UsthandError: If the marks place no tip, or none that a result has.
    """
    agreement, tips = marker_agreement(marks), place_tips(marks, rig, max_residual_px)
    return {
        "marks": {
            "marks": len(marks),
            "markers": list(agreement.markers),
            "marked_twice": agreement.both,
            "agreement_median_px": _rounded(agreement.median_px),
            "agreement_p90_px": _rounded(agreement.p90_px),
            "tips": tips.marked,
            "tips_in_3_views": tips.in_views,
            "tips_placed": len(tips.tips),
            "views_dropped": tips.dropped,
            "camera_residual_px": {name: _rounded(value) for name, value in tips.camera_px.items()},
        },
        "mark_px": _rounded(tips.std_px),
        "results": {name: fingertip_errors(result, tips, rig, hand, name) for name, result in results.items()},
    }


def fingertip_errors(
    result: Result, tips: MarkedTips, rig: Rig, hand: str = "embedded", name: str = "the result"
) -> dict[str, object]:
    """Errors of a result's tip joints and of its mesh's cap centres; `evaluate_marks` says what is in them.

    Raises:
        UsthandError: If the result has none of the marked tips, or another hand model's mesh.
    """
    at = {int(frame): index for index, frame in enumerate(result.frame)}
    own = [
        tip
        for tip in tips.tips
        if tip.side == result.side and tip.frame in at and result.joint_valid[at[tip.frame], FINGER_TIPS[tip.finger]]
    ]
    if not own:
        raise _nothing_to_judge(result, tips, name)
    unit_m = 1.0 if rig.metric else result.unit_m
    rows, fingers = np.array([at[tip.frame] for tip in own]), np.array([tip.finger for tip in own])
    joint = np.array(FINGER_TIPS)[fingers]
    ends = result.joints_world_m[rows, joint]
    axis = ends - result.joints_world_m[rows, joint - 1]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    truth_m = unit_m * np.stack([tip.tip for tip in own])
    noise_m2 = unit_m**2 * np.stack([tip.covariance for tip in own])
    covariance_m2 = result.joints_cov_m2[rows, joint]
    found: dict[str, object] = {
        "tips": len(own),
        "joint": _judged(ends - truth_m, covariance_m2, noise_m2, axis, fingers),
    }
    if result.has_mesh:
        model = hand_of(result, load_hand(hand, result.side, torch.float64))
        person = model.with_shape(torch.from_numpy(result.shape))
        caps_m = cap_centres(person, result.vertices_world_m)[rows, fingers]
        if result.has_vertices_cov:
            weights = np.abs(cap_weights(person))
            weights /= weights.sum(1, keepdims=True)
            covariance_m2 = np.einsum("mv,mvij->mij", weights[fingers], result.vertices_cov_m2[rows])
        found["cap"] = _judged(caps_m - truth_m, covariance_m2, noise_m2, axis, fingers)
    return found


def _judged(
    error_m: Float[np.ndarray, "n 3"],
    covariance_m2: Float[np.ndarray, "n 3 3"],
    noise_m2: Float[np.ndarray, "n 3 3"],
    axis: Float[np.ndarray, "n 3"],
    fingers: Int[np.ndarray, "n"],
) -> dict[str, object]:
    """Errors and coverage, and both less each finger's mean offset along its last bone."""
    along = (error_m * axis).sum(-1)
    offset = {int(finger): float(along[fingers == finger].mean()) for finger in np.unique(fingers)}
    corrected = error_m - np.array([offset[int(finger)] for finger in fingers])[:, None] * axis
    return {
        **_errors(error_m, covariance_m2 + noise_m2),
        "offset_mm": {FINGER_NAMES[finger]: _rounded(MM_PER_M * value) for finger, value in offset.items()},
        "less_offset": _errors(corrected, covariance_m2 + noise_m2),
        "std_mm": _median_std_mm(covariance_m2),
        "mark_std_mm": _median_std_mm(noise_m2),
    }


def _errors(error_m: Float[np.ndarray, "n 3"], covariance_m2: Float[np.ndarray, "n 3 3"]) -> dict[str, float]:
    size = MM_PER_M * np.linalg.norm(error_m, axis=-1)
    shares = {
        f"in_{name.removeprefix('coverage')}_region": share for name, share in coverages(error_m, covariance_m2).items()
    }
    found = {"mean_mm": float(size.mean()), "median_mm": float(np.median(size)), **shares}
    return {name: round(value, 2) for name, value in found.items()}


def _median_std_mm(covariance_m2: Float[np.ndarray, "n 3 3"]) -> float:
    """The median over points of the standard deviation along each one's least certain direction."""
    largest = np.linalg.eigvalsh(covariance_m2)[:, -1]
    return round(float(MM_PER_M * np.median(np.sqrt(np.clip(largest, 0.0, None)))), 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _nothing_to_judge(result: Result, tips: MarkedTips, name: str) -> UsthandError:
    frames = sorted({tip.frame for tip in tips.tips if tip.side == result.side})
    if not frames:
        return UsthandError(
            f"{name} is of the {result.side} hand, the marks place no tip of it",
            "the other hand was marked",
            f"mark this one with `usthand mark CAPTURE --side {result.side}`, or give a result of the other",
        )
    listed = ", ".join(map(str, frames))
    return UsthandError(
        f"{name} has none of the tips that are marked in frames {listed}",
        "it is of other frames, or its tips are not valid there",
        "mark frames that it has, with --frames",
    )
