"""Does uncertainty rank errors? Take the most uncertain points away: what is left should be the most exact.

The *sparsification curve* is the mean error that is left when a share of the points has been removed, the most
uncertain first. The *oracle's* removes the largest errors first: nothing can lie below it (Ilg et al., "Uncertainty
Estimates and Multi-Hypotheses Networks for Optical Flow", ECCV 2018). AUSE is the area between the two, over the mean
error of all points.

Even a covariance that is exactly right does not reach the oracle, for it cannot know which of two equally uncertain
points is the worse: with equal standard deviations the area is 1.55 times the oracle's, with a spread of a factor e
1.12 times. `ideal_ratio` is what errors drawn from the stated covariances themselves reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from usthand.common.errors import UsthandError

REMOVED = tuple(np.round(np.arange(0.0, 0.95, 0.1), 2))
"""Shares at which the curve is given."""


@dataclass(frozen=True)
class Sparsification:
    """The curve, the oracle's, and the areas under both."""

    left: Float[np.ndarray, "L"]
    """Mean error left once each of `REMOVED` is gone, the most uncertain first; in the errors' unit."""
    oracle: Float[np.ndarray, "L"]
    """The same, the largest errors first."""
    ratio: float
    """Area under the curve over the area under the oracle's: 1 is as good as can be."""
    ause: float
    """Area between the two, over the mean error: 0 is as good as can be."""


def sparsification(error: Float[np.ndarray, "*b"], std: Float[np.ndarray, "*b"]) -> Sparsification:
    """The sparsification of errors by their standard deviations.

    The areas are exact, over all numbers of points removed. Points of one standard deviation share their mean error,
    which is what removing them in random order gives on average.

    Raises:
        UsthandError: If there is no error to rank.
    """
    error, std = np.ravel(error).astype(np.float64), np.ravel(std)
    if not len(error):
        raise UsthandError(
            "no error is left to rank", "no joint was estimated in the frames asked for", "choose other frames"
        )
    group = np.unique(std, return_inverse=True)[1]
    shared = np.bincount(group, error) / np.bincount(group)
    ours, best = (_means_of_smallest(one) for one in (shared[np.sort(group)], np.sort(error)))
    kept = np.maximum(np.round((1.0 - np.array(REMOVED)) * len(error)).astype(int), 1) - 1
    least = np.finfo(np.float64).tiny
    return Sparsification(
        ours[kept],
        best[kept],
        float(ours.mean() / max(best.mean(), least)),
        float((ours.mean() - best.mean()) / max(error.mean(), least)),
    )


def ideal_ratio(covariance: Float[np.ndarray, "*b d d"], std: Float[np.ndarray, "*b"]) -> float:
    """The `ratio` that errors drawn from these covariances reach: the best one can ask of them.

    Args:
        covariance: Stated covariances.
        std: What `sparsification` ranks by.
    """
    flat = covariance.reshape(-1, *covariance.shape[-2:])
    value, vector = np.linalg.eigh(flat)
    root = vector * np.sqrt(np.clip(value, 0.0, None))[:, None]
    draw = np.random.default_rng(0).normal(size=(len(flat), flat.shape[-1], 1))
    return sparsification(np.linalg.norm((root @ draw)[..., 0], axis=-1), np.ravel(std)).ratio


def _means_of_smallest(ordered: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
