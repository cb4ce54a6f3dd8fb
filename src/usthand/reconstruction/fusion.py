"""The final fit: the networks' 2D distributions and the detector's labels, each a source with a weight of its own.

Errors of a network are correlated over views, so that more of them average out less than they seem to. How large they
are the fit learns from the networks' residuals, as it does for labels. docs/development/gate.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from usthand.fit.canonical import CanonicalHand
from usthand.fit.fit import fit_observations
from usthand.fit.observations import Observations, Source
from usthand.fit.sequence import FitConfig
from usthand.hand.model import HandModel
from usthand.hand.result import Result
from usthand.reconstruction.inference import Estimates, observations

SHIPPED_COMMON_PART = 0.5
"""Of the variance of a network that did not learn this footage: what its views of a joint have in common."""
ADAPTED_VARIANCE_SCALE = 2.0
"""Of a network that learned this footage. Its errors are correlated with those of the labels, which are a source
too. It learned a fitted hand's projections, so its errors are a hand's: all views have them in common."""


@dataclass(frozen=True)
class NetworkSource:
    """One network's estimates of a hand, as a source for the final fit."""

    estimates: Estimates
    adapted: bool
    """Whether it learned this footage: then it predicts what the footage's detector sees, and errs with its labels."""

    @property
    def source(self) -> Source:
        """What the fit has to know of it."""
        if self.adapted:
            return Source("adapted network", detected=True, sets_noise_scale=False, common_part=1.0)
        return Source("shipped network", detected=False, common_part=SHIPPED_COMMON_PART)


def fit_networks_and_labels(
    hand: CanonicalHand, networks: list[NetworkSource], fps: float, model: HandModel | None = None
) -> Result:
    """The sequence fit on the networks' distributions and the labels.

    Args:
        hand: Rig and labels.
        networks: Frames that the first one sees in less than two views are not valid.
        fps: Frames per second.
        model: The hand to fit, a right one; the embedded one by default.
    """
    labelled = Observations.from_labels(hand.labels)
    seen = [observations(network.estimates) for network in networks]
    scale = [ADAPTED_VARIANCE_SCALE if network.adapted else 1.0 for network in networks]
    everything = Observations(
        np.concatenate([*(one.uv_px for one in seen), labelled.uv_px], 1),
        np.concatenate([*(one.precision / by for one, by in zip(seen, scale, strict=True)), labelled.precision], 1),
        sources=(*(network.source for network in networks), *labelled.sources),
        detector=labelled.detector,
    )
    result = fit_observations(hand.rig, everything, FitConfig(fps=fps), hand=model)
    first = networks[0].estimates
    return replace(
        result,
        method="usthand",
        valid=first.valid & result.valid,
        joint_valid=result.joint_valid & first.valid[:, None],
        source=first.source,
    )
