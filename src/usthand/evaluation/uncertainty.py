"""Everything that shows whether covariances are right, in one set of numbers: of joints and of vertices alike.

* ``coverage10`` ... ``coverage90``, ``coverage95``, ``coverage99``: share of the points inside their own region;
* ``std_factor``: what standard deviations must be multiplied by so that half of the points lie in the 50 % region;
* ``nll``: mean negative log-likelihood of the errors under their own covariances, nats, errors in mm;
  ``nll_constant``: under one covariance for all points, the best there is for these very errors, so a generous rival;
* ``sparsification_ratio``, ``sparsification_ideal``, ``ause``: see `usthand.evaluation.sparsification`; points are
  ranked by the root of the covariance's trace, the standard deviation of the whole error;
* ``left_10_mm``, ``oracle_10_mm`` ...: mean error once 10 % of the points are removed, by uncertainty and by error;
* ``hidden_std_ratio``: standard deviation of joints that few cameras see over that of joints that many see;
  ``hidden_error_ratio``: the same of the errors.

Names of the vertices' numbers begin with ``vertex_``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from usthand.evaluation.metrics import Frames, Numbers, coverages, select_truth
from usthand.evaluation.reliability import reliability
from usthand.evaluation.sparsification import REMOVED, ideal_ratio, sparsification
from usthand.evaluation.truth import Truth
from usthand.hand.result import MM_PER_M, Result

LEVELS = (*np.round(np.arange(0.1, 0.95, 0.1), 2), 0.95, 0.99)
COVARIANCE_KEYS = (
    *(f"coverage{100 * level:.0f}" for level in LEVELS),
    *("std_factor", "nll", "nll_constant", "sparsification_ratio", "sparsification_ideal", "ause"),
    *(f"{kind}_{100 * share:.0f}_mm" for kind in ("left", "oracle") for share in REMOVED),
)
"""Names of what `covariance_numbers` gives."""
HIDDEN_KEYS = ("hidden_std_ratio", "hidden_error_ratio")
VERTEX_KEYS = tuple(f"vertex_{name}" for name in COVARIANCE_KEYS)
_MM2 = MM_PER_M**2
_FLOOR_MM2 = 1e-6  # as in the Mahalanobis distance: below a micrometre is rounding


def evaluate_uncertainty(
    result: Result,
    truth: Truth,
    frames: Frames = None,
    vertices_cov_m2: Float[np.ndarray, "T vertices 3 3"] | None = None,
) -> Numbers:
    """All numbers of a result's uncertainty against truth; the module's head says what each means.

    Args:
        result: What to measure.
        truth: Of the same capture.
        frames: Which frames to measure.
        vertices_cov_m2: Covariances of the result's vertices, its frames in order; none or no vertices where there are
            none.

    Raises:
        UsthandError: As `usthand.evaluation.metrics.select_truth`.
    """
    rows, at = select_truth(result, truth, frames)
    error_m = result.joints_world_m[rows] - truth.joints_world_m[at]
    found = covariance_numbers(error_m, result.joints_cov_m2[rows]) | {"frames": len(rows)}
    std, seen = _whole_std_mm(result.joints_cov_m2[rows]), truth.visible[at].sum(1)
    size = MM_PER_M * np.linalg.norm(error_m, axis=-1)
    found |= {name: hidden_ratio(value, seen) for name, value in zip(HIDDEN_KEYS, (std, size), strict=True)}
    if vertices_cov_m2 is not None and vertices_cov_m2.shape[1] and truth.has_mesh and not truth.of_other_mesh:
        apart_m = result.vertices_world_m[rows] - truth.vertices_world_m[at]
        mesh = covariance_numbers(apart_m, vertices_cov_m2[rows])
        found |= dict(zip(VERTEX_KEYS, mesh.values(), strict=True))
    return found


def covariance_numbers(error_m: Float[np.ndarray, "*b 3"], covariance_m2: Float[np.ndarray, "*b 3 3"]) -> Numbers:
    """The numbers of errors under their covariances, metres in.

    Raises:
        UsthandError: If there is no error to count.
    """
    error_m, covariance_m2 = np.asarray(error_m, np.float64), np.asarray(covariance_m2, np.float64)
    std, size = _whole_std_mm(covariance_m2), MM_PER_M * np.linalg.norm(error_m, axis=-1)
    curve = sparsification(size, std)
    values = (
        *coverages(error_m, covariance_m2, LEVELS).values(),
        reliability(error_m, covariance_m2).factor,
        negative_log_likelihood(MM_PER_M * error_m, _MM2 * covariance_m2),
        negative_log_likelihood(MM_PER_M * error_m, constant_covariance(MM_PER_M * error_m)),
        curve.ratio,
        ideal_ratio(covariance_m2, std),
        curve.ause,
        *curve.left.tolist(),
        *curve.oracle.tolist(),
    )
    return dict(zip(COVARIANCE_KEYS, values, strict=True))


def negative_log_likelihood(error_mm: Float[np.ndarray, "*b 3"], covariance_mm2: Float[np.ndarray, "*#b 3 3"]) -> float:
    """Mean over the errors of -log N(e; 0, C) = (e' C^-1 e + log det C + 3 log 2 pi) / 2, nats for millimetres.

    A proper scoring rule (Gneiting and Raftery, JASA 102, 2007): lowest in expectation for the true covariance.
    """
    whole = covariance_mm2 + _FLOOR_MM2 * np.eye(3)
    square = (error_mm * np.linalg.solve(whole, error_mm[..., None])[..., 0]).sum(-1)
    return float(0.5 * (square + np.linalg.slogdet(whole)[1] + 3.0 * np.log(2.0 * np.pi)).mean())


def constant_covariance(error: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "3 3"]:
    """The one covariance under which the errors are likeliest: their mean outer product (Gaussian, mean zero)."""
    flat = error.reshape(-1, 3)
    return flat.T @ flat / max(len(flat), 1)


def hidden_ratio(values: Float[np.ndarray, "T 21"], seen_by: Int[np.ndarray, "T 21"]) -> float | None:
    """How many times larger values are where fewer cameras see the joint; None where no joint's number varies.

    Each joint is compared with itself, for some are harder than others whatever hides them: its frames with fewer
    cameras than its median against those with more, or as many where there are none with more. Geometric mean over the
    joints of the ratio of the medians.
    """
    ratios = []
    for value, seen in zip(values.T, seen_by.T, strict=True):
        middle = np.median(seen)
        few, many = seen < middle, seen > middle
        many = many if many.any() else seen == middle
        few = few if few.any() else seen == middle
        if (few & many).any() or not few.any() or not many.any():
            continue
        low, high = np.median(value[many]), np.median(value[few])
        if low > 0 and high > 0:
            ratios.append(np.log(high / low))
    return float(np.exp(np.mean(ratios))) if ratios else None


def _whole_std_mm(covariance_m2: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b"]:
    return MM_PER_M * np.sqrt(np.clip(np.trace(covariance_m2, axis1=-2, axis2=-1), 0.0, None))
