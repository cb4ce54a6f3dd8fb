"""Frames that the detector missed: shown to the network where the labels' fit bridges the gap, used where it sees.

The fit has joints in every frame, interpolated where fewer than two views have labels, and says how certain they are.
That places a crop and a gate, whose width grows with the uncertainty. Whether the network saw the hand there is judged
by its heatmaps. docs/development/bridging.md has the measurements.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from usthand.data.footage import expected_std_m
from usthand.hand.result import BY_LABELS, BY_NETWORK, INTERPOLATED, Result
from usthand.reconstruction.inference import Estimates

MOST_STD_M = 0.06
"""Standard deviation of the fit, per axis, up to which a crop is cut: the hand then still lies in it."""
SURE_STD_M = 0.01
"""... up to which the crop is as good as those of frames with labels: half of the gate's own standard deviation."""
SEEN, SEEN_IF_SURE = 0.55, 0.15
"""Least mean heatmap maximum of a view, over the median of views in labelled frames, that shows that the hand is there;
the second one where the place is sure."""


def bridged(fit: Result) -> Result:
    """The labels' fit, valid in all frames that it places well enough for a crop."""
    return replace(fit, valid=fit.valid | (expected_std_m(fit) <= MOST_STD_M))


def trusted(estimates: Estimates, fit: Result) -> Estimates:
    """The estimates less views of bridged frames in which the network did not see the hand.

    Such a frame is valid if it is seen in two views, and in more than half of those that should show it.

    Args:
        estimates: Of crops that `bridged` placed.
        fit: The fit of the labels, valid where these place the hand.
    """
    shown = (estimates.heatmap_confidence > 0).any(-1)
    seen = shown & _sees_hand(estimates.heatmap_confidence.mean(-1), fit)
    placed = (seen.sum(1) >= 2) & (2 * seen.sum(1) > shown.sum(1))
    valid = np.where(fit.valid, estimates.valid, placed)
    kept = fit.valid[:, None] | seen & placed[:, None]
    return replace(
        estimates,
        confidence=estimates.confidence * kept[..., None],
        heatmap_confidence=estimates.heatmap_confidence * kept[..., None],
        valid=valid,
        source=np.where(valid, np.where(fit.valid, BY_LABELS, BY_NETWORK), INTERPOLATED),
    )


def _sees_hand(confidence: Float[np.ndarray, "T V"], fit: Result) -> Bool[np.ndarray, "T V"]:
    """Whether the network saw the hand in a view, by its confidence there and in frames that labels place."""
    usual = confidence[fit.valid][confidence[fit.valid] > 0]
    relative = confidence / (np.median(usual) if len(usual) else 1.0)
    sure = (expected_std_m(fit) <= SURE_STD_M)[:, None]
    return relative >= np.where(sure, SEEN_IF_SURE, SEEN)
