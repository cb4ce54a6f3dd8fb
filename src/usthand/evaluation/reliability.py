"""Does the uncertainty keep its promise? Reliability, the factor that fixes it, and rank correlation.

A covariance promises that a share q of the errors falls inside its credible region of level q. *Reliability* is how far
that holds; it is measured here against truth and drawn in the report. Uncertainty is a 3D covariance in m^2 (shown in
mm); confidence, which is 2D and unitless, only has to *rank* errors, which `spearman` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.special import gammaincinv

from usthand.common.errors import UsthandError
from usthand.evaluation.metrics import joint_mahalanobis2, select_truth
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

    @property
    def miscalibration(self) -> float:
        """Mean distance between promised and measured coverage; 0 is perfect, 0.5 is the worst."""
        return float(np.abs(self.expected - self.observed).mean())


def chi2_radius2(level: float | np.ndarray, dimensions: int = 3) -> np.ndarray:
    """Squared Mahalanobis radius of the credible region of a ``level`` in (0, 1): the chi-squared quantile,
    2 P^-1(d/2, level) with P the regularised lower incomplete gamma function."""
    return 2.0 * gammaincinv(dimensions / 2.0, level)


def reliability(
    error_m: Float[np.ndarray, "*b 3"], covariance_m2: Float[np.ndarray, "*b 3 3"], levels: Sequence[float] = LEVELS
) -> Reliability:
    """The reliability curve of errors under their covariances. UsthandError without any error to count."""
    square = joint_mahalanobis2(np.asarray(error_m, np.float64), np.asarray(covariance_m2, np.float64)).ravel()
    if not len(square):
        raise UsthandError(
            "no error is left to count", "no joint was estimated in the frames asked for", "choose other frames"
        )
    expected = np.asarray(levels, np.float64)
    observed = np.searchsorted(np.sort(square), chi2_radius2(expected), side="right") / len(square)
    factor = np.sqrt(np.median(square) / chi2_radius2(0.5))
    return Reliability(expected, observed, float(factor), len(square))


def reliability_of(result: Result, truth: object, frames: np.ndarray | None = None) -> Reliability:
    """`reliability` of all joints of a result's valid frames; ``truth`` is a `usthand.evaluation.truth.Truth`."""
    rows, at = select_truth(result, truth, frames)
    error = result.joints_world_m[rows] - truth.joints_world_m[at]
    return reliability(error, result.joints_cov_m2[rows])


def std_mm(covariance_m2: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b"]:
    """One number for a covariance: the root-mean-square deviation over the three axes, mm, sqrt(trace / 3).

    `Result.std_mm` is the stricter one, along the worst axis; this one compares with a mean error."""
    return MM_PER_M * np.sqrt(np.clip(np.trace(covariance_m2, axis1=-2, axis2=-1), 0.0, None) / 3.0)


def expected_error_mm(covariance_m2: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b"]:
    """The mean error that a covariance promises, mm: E|e| of a normal e to second order in the spread of |e|^2,
    sqrt(t) (1 - |C|_F^2 / (4 t^2)) with t the trace. Low by 0.5 % for equal axes, by 6 % for a single one."""
    trace = np.clip(np.trace(covariance_m2, axis1=-2, axis2=-1), _TRACE_FLOOR_M2, None)
    spread = (covariance_m2**2).sum(axis=(-1, -2)) / trace**2
    return MM_PER_M * np.sqrt(trace) * (1.0 - spread / 4.0)


def scale_covariance(result: Result, factor: float) -> Result:
    """The result with all standard deviations multiplied by ``factor`` (covariances by its square)."""
    if not (np.isfinite(factor) and factor > 0):
        raise ValueError(f"factor is {factor}, expected a positive number")
    return replace(result, joints_cov_m2=result.joints_cov_m2 * factor**2)


def ranks(values: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Rank of each value from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def spearman(a: Float[np.ndarray, "*n"], b: Float[np.ndarray, "*n"]) -> float:
    """Spearman's rank correlation, -1 to 1; 0 where one of the two does not vary. UsthandError below two values."""
    a, b = np.ravel(a), np.ravel(b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}")
    if len(a) < 2:
        raise UsthandError(
            "no rank correlation of fewer than two values", "too little was selected", "select more frames"
        )
    a, b = (r - r.mean() for r in (ranks(a), ranks(b)))
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0
