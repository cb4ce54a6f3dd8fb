"""How wrong a detector's labels are, without truth: from how far the views of one triangulation disagree.

Model: a label is the projection of the detector's point plus an error s g / sqrt(w) per axis, with g standard normal
and w chi-squared over its degrees of freedom nu, one w a label. This is Student's t. Its scale s is a share of the
hand's size in that view, over the confidence to some power.

Least squares hides a part of the errors: a fit to few views follows its labels. With the labels of one joint in n views
divided by their relative scales, the residual is r = M e, M = I - J J^+, whatever the point is; e are the errors and J
is the projections' derivative. M has rank 2n - 3: two views show one of four. As r mixes the errors of all views, its
tails are lighter than theirs. So share and nu are those for which simulated errors, sent through the same M, give
|r| / sqrt(2n - 3) the median and the 90 % quantile that the labels have (method of simulated moments, McFadden,
Econometrica 57, 1989). Beyond that quantile labels may be as wrong as they like.

An error that the views share in space, as where a detector puts a joint, is no error here. Errors that views from the
same direction share are seen by a view from another direction alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import brentq
from scipy.stats import chi2

from usthand.capture.rig import Rig
from usthand.fit.observations import CONFIDENCE_FLOOR
from usthand.geometry.cameras import project, projection_jacobian
from usthand.geometry.triangulation import triangulate
from usthand.labels.labels import Labels, hand_size_px

LEAST_POINTS = 100
"""Joints in a frame, seen by two views or more, that an estimate needs."""
MOST_POINTS, DRAWS = 4000, 20000
QUANTILES = (0.5, 0.9)
DOF_RANGE = (1.0, 100.0)
"""Of Cauchy's distribution, and of one that is as good as normal."""
POWER_RANGE = (0.0, 2.0)
N_BINS, POWER_ROUNDS = 8, 5  # of confidence, for its power
_LEAST_SHARE = 1e-9


@dataclass(frozen=True)
class LabelNoise:
    """The distribution of a detector's errors in an image: Student's t, the same on both axes."""

    share: float
    """Scale of a fully confident label, in sizes of the hand."""
    dof: float
    """Degrees of freedom: the fewer, the heavier the tails."""
    power: float
    """The scale grows as confidence ^ -power: 0 where confidence says nothing."""

    def scale_px(self, labels: Labels) -> Float[np.ndarray, "T V 21"]:
        """Scale of each label's error per axis, px; it is a standard deviation only where `dof` is large."""
        return self.share * relative_scale_px(labels, self.power)


def relative_scale_px(labels: Labels, power: float) -> Float[np.ndarray, "T V 21"]:
    """Size of the hand in each view over confidence to a power, px; for missing labels the size."""
    confidence = np.where(labels.mask, np.maximum(labels.confidence, CONFIDENCE_FLOOR), 1.0).astype(np.float64)
    return hand_size_px(labels)[..., None] * confidence**-power


def estimate_label_noise(rig: Rig, labels: Labels) -> LabelNoise | None:
    """The noise of some cameras' labels, from nothing but these; None where two views share too few joints.

    Args:
        rig: The cameras of `labels`, in the same order.
        labels: Of one hand, in the frames to be judged.
    """
    power = 0.0
    residual, projector, present, confidence = _residuals(rig, labels, power)
    if len(residual) < LEAST_POINTS:
        return None
    for _ in range(POWER_ROUNDS):
        slope = _confidence_slope(residual, projector, present, confidence)
        power = float(np.clip(power - slope, *POWER_RANGE))
        residual, projector, present, confidence = _residuals(rig, labels, power)
    freedom = 2 * present.sum(1) - 3
    middle, high = np.quantile(_length(residual, freedom), QUANTILES)
    if middle < _LEAST_SHARE:  # the views agree to within rounding
        return LabelNoise(_LEAST_SHARE, DOF_RANGE[1], power)
    rng = np.random.default_rng(0)
    draws = -(-DRAWS // len(residual))
    normal = rng.normal(size=(draws, *residual.shape[:2], 2))
    level = rng.random((draws, *residual.shape[:2], 1))

    def simulated(dof: float) -> np.ndarray:
        error = (normal / np.sqrt(chi2.ppf(level, dof) / dof)).reshape(draws, len(residual), -1)
        mixed = np.einsum("nab,snb->sna", projector, error).reshape(normal.shape)
        return np.quantile(_length(mixed, freedom), QUANTILES)

    def too_heavy(log_dof: float) -> float:
        low, far = simulated(np.exp(log_dof))
        return float(far / low - high / middle)

    ends = tuple(np.log(DOF_RANGE))
    signs = [too_heavy(end) for end in ends]
    if signs[0] <= 0:
        dof = DOF_RANGE[0]
    elif signs[1] >= 0:
        dof = DOF_RANGE[1]
    else:
        dof = float(np.exp(float(brentq(too_heavy, *ends, xtol=0.01))))  # pyright: ignore[reportArgumentType]
    return LabelNoise(float(middle / simulated(dof)[0]), dof, power)


def _residuals(
    rig: Rig, labels: Labels, power: float
) -> tuple[Float[np.ndarray, "n V 2"], Float[np.ndarray, "n VV VV"], Bool[np.ndarray, "n V"], Float[np.ndarray, "n V"]]:
    """Of each joint in a frame that two views see: residuals in relative scales (0 where missing), M, mask, confidence.

    At most `MOST_POINTS` of them, evenly chosen.
    """
    cameras, mask = rig.tensors(torch.float64), labels.mask
    scale = relative_scale_px(labels, power)
    uv, weight = labels.uv_px.astype(np.float64), np.where(mask, scale**-2.0, 0.0)
    points = triangulate(cameras, torch.from_numpy(uv), torch.from_numpy(weight), iterations=5)
    residual = (uv - project(cameras, points)[0].numpy()) / scale[..., None] * mask[..., None]
    derivative = projection_jacobian(cameras, points).numpy() / scale[..., None, None] * mask[..., None, None]
    frame, joint = np.nonzero(mask.sum(1) >= 2)
    some = np.unique(np.linspace(0, len(frame) - 1, min(len(frame), MOST_POINTS)).astype(int))
    frame, joint = frame[some], joint[some]
    residual, derivative, present, confidence = (
        one[frame, :, joint] for one in (residual, derivative, mask, labels.confidence)
    )
    flat, axes = derivative.reshape(len(frame), 2 * len(rig), 3), np.repeat(present, 2, axis=1)
    projector = axes[:, :, None] * np.eye(2 * len(rig)) - flat @ np.linalg.pinv(flat)
    return residual, projector, present, confidence.astype(np.float64)


def _length(residual: Float[np.ndarray, "*b V 2"], freedom: np.ndarray) -> Float[np.ndarray, "*b"]:
    return np.sqrt((residual**2).sum((-1, -2)) / freedom)


def _confidence_slope(
    residual: Float[np.ndarray, "n V 2"],
    projector: Float[np.ndarray, "n VV VV"],
    present: Bool[np.ndarray, "n V"],
    confidence: Float[np.ndarray, "n V"],
) -> float:
    """Slope of log median residual over log confidence; 0 where confidence does not vary.

    Residuals are divided by their leverage's root, so that with the right power they do not depend on confidence. With
    a wrong one each holds a part of the other views' errors and the slope is too flat: hence the rounds.
    """
    left = projector.diagonal(axis1=-2, axis2=-1).reshape(*present.shape, 2).sum(-1)
    known = present & (left > _LEAST_SHARE)
    stated, size = np.maximum(confidence[known], CONFIDENCE_FLOOR), np.linalg.norm(residual, axis=-1)[known]
    size = size / np.sqrt(left[known])
    bins = np.array_split(np.argsort(stated, kind="stable"), N_BINS)
    x = np.log([np.median(stated[one]) for one in bins])
    y = np.log([max(float(np.median(size[one])), _LEAST_SHARE) for one in bins])
    if np.ptp(x) < 1e-3:
        return 0.0
    return float((x - x.mean()) @ y / ((x - x.mean()) ** 2).sum())
