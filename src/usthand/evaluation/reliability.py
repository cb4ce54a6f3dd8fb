"""Does the uncertainty keep its promise? Reliability, the factor that fixes it, and rank correlation.

A covariance promises that a share q of the errors falls inside its credible region of level q. *Reliability* is how far
that holds; it is measured here against truth and drawn in the report. Uncertainty is a 3D covariance in m^2 (shown in
mm); confidence, which is 2D and unitless, only has to *rank* errors, which `spearman` measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2, rankdata

from usthand.common.errors import UsthandError
from usthand.evaluation.metrics import Frames, joint_mahalanobis2, select_truth
from usthand.evaluation.truth import Truth
from usthand.hand.result import MM_PER_M, Result

LEVELS = (*np.round(np.arange(0.05, 1.0, 0.05), 2), 0.99)
_TRACE_FLOOR_M2 = 1e-24  # a picometre squared: keeps the relative spread of a zero covariance finite


@dataclass(frozen=True)
class Reliability:
    """Promised against measured coverage."""

    expected: Float[np.ndarray, "L"]
    """Levels of the credible regions, 0 to 1."""
    observed: Float[np.ndarray, "L"]
    """Share of errors found inside."""
    factor: float
    """What standard deviations must be multiplied by so that half of the errors lie inside the 50 % region: above 1 the
    method is too sure of itself, below 1 too timid."""
    points: int
    """How many errors were counted."""


def reliability(error_m: Float[np.ndarray, "*b 3"], covariance_m2: Float[np.ndarray, "*b 3 3"]) -> Reliability:
    """The reliability curve of errors under their covariances.

    Raises:
        UsthandError: If there is no error to count.
    """
    square = np.sort(joint_mahalanobis2(error_m, covariance_m2), axis=None)
    if not len(square):
        raise UsthandError(
            "no error is left to count", "no joint was estimated in the frames asked for", "choose other frames"
        )
    expected = np.asarray(LEVELS)
    observed = np.searchsorted(square, chi2.ppf(expected, 3), side="right") / len(square)
    return Reliability(expected, observed, float(np.sqrt(np.median(square) / chi2.ppf(0.5, 3))), len(square))


def reliability_of(result: Result, truth: Truth, frames: Frames = None) -> Reliability:
    """`reliability` of all joints of a result's valid frames."""
    rows, at = select_truth(result, truth, frames)
    return reliability(result.joints_world_m[rows] - truth.joints_world_m[at], result.joints_cov_m2[rows])


def expected_error_mm(covariance_m2: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b"]:
    """The mean error that a covariance promises, mm.

    E|e| of a normal e to second order in the spread of |e|^2, sqrt(t) (1 - |C|_F^2 / (4 t^2)) with t the trace. Low by
    0.5 % for equal axes, by 6 % for a single one.
    """
    trace = np.clip(np.trace(covariance_m2, axis1=-2, axis2=-1), _TRACE_FLOOR_M2, None)
    spread = (covariance_m2**2).sum(axis=(-1, -2)) / trace**2
    return MM_PER_M * np.sqrt(trace) * (1.0 - spread / 4.0)


def spearman(a: Float[np.ndarray, "*n"], b: Float[np.ndarray, "*n"]) -> float:
    """Spearman's rank correlation, -1 to 1; 0 where one of the two does not vary.

    Raises:
        UsthandError: If there are fewer than two values.
    """
    if a.size < 2:
        raise UsthandError(
            "no rank correlation of fewer than two values", "too little was selected", "select more frames"
        )
    a, b = (rank - rank.mean() for rank in (rankdata(a), rankdata(b)))
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0
