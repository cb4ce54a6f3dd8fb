"""One person's hand over several captures and both hands: what other results know of the shape.

The left hand of a person is nearly the mirror image of the right one, and a hand keeps its bones from one capture to
the next. So a result's shape, with its covariance, is a prior for the next one. Each result holds the population's
prior already: of several, what they have learned beyond it is added up,

    P = I + sum_k L_k,    P m = sum_k (L_k + I) m_k,    L_k = C_k^-1 - I,

with I the population's precision, in whose standard deviations shapes are counted. What two hands of a person differ
by is left open by `HANDS_DIFFER`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from usthand.common.errors import UsthandError
from usthand.hand.result import Result

HANDS_DIFFER = 0.3  # standard deviations of the population, per shape coefficient


@dataclass(frozen=True)
class PersonShape:
    """What is known of a person's shape."""

    mean: Float[np.ndarray, "S"]
    """In standard deviations of the population."""
    precision: Float[np.ndarray, "S S"]
    """Inverse covariance."""


def person_of(results: Sequence[Result]) -> PersonShape:
    """A person's shape from results of fits, of either hand.

    Raises:
        UsthandError: If a result has no covariance of its shape, or they are of different hand models.

    Examples:
        >>> import usthand
        >>> from usthand.fit.person import person_of
        >>> capture = usthand.open_capture("clip")
        >>> person = person_of([usthand.load_result("fit.npz")])
        >>> config = usthand.FitConfig(fps=capture.fps, person=person)
        >>> result = usthand.fit_labels(capture.rig, usthand.load_labels(capture, "right"), config)
    """
    size = len(results[0].shape)
    precision, pull = np.eye(size), np.zeros(size)
    for result in results:
        if result.shape_cov.shape != (size, size):
            raise UsthandError(
                f"a result of `{result.method}` does not say how certain its hand's shape is",
                "it is a triangulation or a network's, or of an older version or another hand model",
                "give results of usthand fit or usthand reconstruct, all with the same hand model",
            )
        known = np.linalg.inv(result.shape_cov + HANDS_DIFFER**2 * np.eye(size))
        # Of what is known less than the population knows nothing was learned.
        value, vector = np.linalg.eigh(known - np.eye(size))
        learned = (vector * np.maximum(value, 0.0)) @ vector.T
        precision += learned
        pull += (learned + np.eye(size)) @ result.shape
    return PersonShape(np.linalg.solve(precision, pull), precision)
