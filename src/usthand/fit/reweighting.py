"""The weight of each label, learned from how far the labels lie from the current fit.

Stated precisions are informative but not honest. The variance of a label is modelled as

    stated variance ^ power * scale of its joint * local scale

The power and the scales are estimated from the residuals, which correct an overconfident detector and a joint that is
hard for it. The local scale is an inverse gamma variable, which makes the errors Student's t: its expectation is the
weight of iteratively reweighted least squares. Detectors fail in bursts and by the finger, so a label's local scale is
estimated together with its neighbours in time and along the finger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import correlate1d

from usthand.hand.skeleton import FINGERS

AXES = 2  # residuals of a label
N_BINS = 8  # of stated precision, for the power
LEAST_PER_BIN = 60
POWER_RANGE = (0.0, 2.0)
SCALE_RANGE = (0.1, 10.0)  # standard deviation of a group's errors over the common one
PRIOR_COUNT = 30.0  # labels that the prior for a scale of one counts as
ROUNDS = 4


@dataclass(frozen=True)
class ReweightingConfig:
    """Model of the labels' errors."""

    dof: float = 4.0
    """Degrees of freedom of Student's t; infinity for Gaussian errors."""
    burst_frames: float = 2.0
    """Standard deviation in frames of the window in which a bad label lowers its neighbours' weights; 0 for none."""
    burst_share: float = 0.5
    """How much the neighbours in time and along the finger count beside the label itself."""
    learn_power: bool = True
    """Estimate the power of the stated variance."""
    learn_joints: bool = True
    """Estimate a scale for each joint."""


def _finger_mean(values: Float[np.ndarray, "T V J"], present: Bool[np.ndarray, "T V J"]) -> Float[np.ndarray, "T V J"]:
    """Mean over the present joints of the same finger (the wrist alone)."""
    out = values.copy()
    for ids in FINGERS.values():
        part = list(ids)
        count = present[..., part].sum(-1, keepdims=True)
        out[..., part] = (values * present)[..., part].sum(-1, keepdims=True) / np.maximum(count, 1)
    return out


def _neighbourhood(
    squared: Float[np.ndarray, "T V J"], present: Bool[np.ndarray, "T V J"], frames: float
) -> Float[np.ndarray, "T V J"]:
    """Gaussian mean over time of the finger's mean squared error."""
    finger = _finger_mean(squared, present)
    if frames <= 0:
        return finger
    reach = int(np.ceil(2.5 * frames))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    total = correlate1d(np.where(present, finger, 0.0), kernel, axis=0, mode="constant")
    count = correlate1d(present.astype(np.float64), kernel, axis=0, mode="constant")
    return total / np.maximum(count, 1e-12)


def robust_weight(
    squared: Float[np.ndarray, "T V J"], present: Bool[np.ndarray, "T V J"], config: ReweightingConfig
) -> Float[np.ndarray, "T V J"]:
    """Expected inverse local scale of labels whose squared errors are in units of their variance."""
    if not np.isfinite(config.dof):
        return present.astype(np.float64)
    share = config.burst_share
    pooled = squared
    if share > 0:
        pooled = (1 - share) * squared + share * _neighbourhood(squared, present, config.burst_frames)
    return np.where(present, (config.dof + AXES) / (config.dof + pooled), 0.0)


def label_weights(
    squared: Float[np.ndarray, "T V J"],
    stated: Float[np.ndarray, "T V J"],
    present: Bool[np.ndarray, "T V J"],
    config: ReweightingConfig,
    learn_from: Bool[np.ndarray, "V"] | None = None,
) -> Float[np.ndarray, "T V J"]:
    """Factor on each label's stated precision; 0 where missing.

    Args:
        squared: Squared errors in units of the stated variance. Errors of labels, not their residuals about a fit that
            followed them: see `Fitter._reweight`.
        stated: The precision, any unit, one number a label.
        present: Where there is a label.
        config: Model of the labels' errors.
        learn_from: Views from which power and scales are learned; all if None. They apply to the others too.
    """
    used = present if learn_from is None else present & learn_from[:, None]
    log_stated = np.zeros(squared.shape)
    log_stated[present] = np.log(stated[present])
    centre = np.median(log_stated[present])
    log_stated = np.where(present, log_stated - centre, 0.0)
    variance = np.ones(squared.shape)
    weight = robust_weight(squared, present, config)
    for _ in range(ROUNDS):
        variance = _variance(squared, log_stated, used, weight, config)
        weight = robust_weight(squared / variance, present, config)
    return weight / variance


def _variance(
    squared: Float[np.ndarray, "T V J"],
    log_stated: Float[np.ndarray, "T V J"],
    present: Bool[np.ndarray, "T V J"],
    weight: Float[np.ndarray, "T V J"],
    config: ReweightingConfig,
) -> Float[np.ndarray, "T V J"]:
    """Variance in units of the stated one: power and joint, by weighted means of the squared error."""
    energy = weight * squared / AXES
    log_variance = np.full(squared.shape, np.log(max(energy[present].mean(), 1e-6)))
    if config.learn_power:
        log_variance += _power(energy * np.exp(-log_variance), log_stated, present) * log_stated
    if config.learn_joints:
        # Of joints, not of views: with three views one of them fits better by chance, and would get all the weight.
        relative = np.where(present, energy * np.exp(-log_variance), 0.0)
        mean = (relative.sum((0, 1)) + PRIOR_COUNT) / (present.sum((0, 1)) + PRIOR_COUNT)
        log_variance = log_variance + np.log(np.clip(mean, SCALE_RANGE[0] ** 2, SCALE_RANGE[1] ** 2))
    return np.exp(log_variance)


def _power(
    relative: Float[np.ndarray, "T V J"], log_stated: Float[np.ndarray, "T V J"], present: Bool[np.ndarray, "T V J"]
) -> float:
    """Slope of log error over log stated precision: 0 if the stated precision is right, 1 if it is meaningless."""
    x, y = log_stated[present], relative[present]
    if len(x) < N_BINS * LEAST_PER_BIN or np.ptp(x) < 1e-6:
        return 0.0
    order = np.argsort(x, kind="stable")
    bins = np.array_split(order, N_BINS)
    mean_x = np.array([x[b].mean() for b in bins])
    log_y = np.log(np.array([max(y[b].mean(), 1e-6) for b in bins]))
    spread = mean_x - mean_x.mean()
    if (spread**2).sum() < 1e-6:
        return 0.0
    slope = float(spread @ log_y / (spread**2).sum())
    return float(np.clip(slope, 1 - POWER_RANGE[1], 1 - POWER_RANGE[0]))
