"""How far a detector's joints lie from their places on the bones, as far as several views agree on it.

A detector sees each joint at a place on a bone that it keeps (`HandState.offsets_m`, one for the sequence), and strays
from that place with the pose, alike in all views: neither more cameras nor more frames average this out. In the frame
of the bone that ends in the joint, the deviation e is a stationary Gauss-Markov process, N(0, C) at any time and of
correlation exp(-t / memory) over a time t. The detector's labels see x + d + e, with x the model's joint and d the
place.

Given x + d, e is Gaussian. The labels' correlated errors and the process couple a frame with two later ones at most, so
the mean solves one banded system for each joint, exactly. Legend: T frames, V views, J joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import solveh_banded

from usthand.fit.evidence import LabelTerm, PointTerm, joint_information


@dataclass(frozen=True)
class Deviations:
    """Posterior of the deviations."""

    mean_m: Float[np.ndarray, "T J 3"]
    """World, metres."""
    covariance_m2: Float[np.ndarray, "T J 3 3"]
    """Given the joints' places, from each frame's own data: an upper bound, since neighbouring frames are left out."""
    gain: Float[np.ndarray, "T J 3 3"]
    """d (x + d + e) / d (x + d): how far what the detector sees follows the model."""

    def joint_covariance(self, place_m2: Float[np.ndarray, "T J 3 3"]) -> Float[np.ndarray, "T J 3 3"]:
        """Covariance of x + d + e where x + d has covariance `place_m2`, by the law of total variance."""
        return self.gain @ place_m2 @ self.gain.swapaxes(-1, -2) + self.covariance_m2


@dataclass(frozen=True)
class DeviationPrior:
    """The process that the deviations follow in the frame of the bone."""

    covariance_m2: Float[np.ndarray, "J 3 3"]
    """In the rest pose's axes of the bone that ends in the joint; positive definite."""
    memory_frames: float
    """Frames after which the correlation has fallen to 1/e."""

    def precision(self, n_frames: int) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "gaps"]]:
        """Precision of T frames of a coordinate of unit variance: the diagonal and the first off-diagonal."""
        rho = np.exp(-1 / self.memory_frames)
        unit = 1 / (1 - rho**2)
        diagonal = np.full(n_frames, (1 + rho**2) * unit)
        diagonal[[0, -1]] = unit if n_frames > 1 else 1.0
        return diagonal, np.full(n_frames - 1, -rho * unit)


def estimate_deviations(
    terms: Sequence[LabelTerm | PointTerm],
    places_m: Float[np.ndarray, "T J 3"],
    turns: Float[np.ndarray, "T J 3 3"],
    prior: DeviationPrior,
) -> Deviations:
    """Posterior of the deviations, linearised about none.

    Args:
        terms: Weighted labels and points of the detector.
        places_m: The joints with their offsets, world, metres.
        turns: Rotations, world from bone, of the bones that end in the joints.
        prior: What is known of the deviations beforehand.
    """
    information = [np.zeros((*places_m.shape, 3)) for _ in range(3)]
    right, own = np.zeros(places_m.shape), np.zeros((*places_m.shape, 3))
    for term in terms:
        blocks, pull = joint_information(term, places_m)
        information = [whole + part for whole, part in zip(information, blocks, strict=True)]
        right += pull
        rows = term.root if isinstance(term, PointTerm) else term.residuals(places_m)[1].swapaxes(1, 2)
        rows = rows.reshape(*places_m.shape[:2], -1, 3)
        own += rows.swapaxes(-1, -2) @ rows
    back = turns.swapaxes(-1, -2)
    blocks = [back[gap:] @ part[: len(part) - gap] @ turns[: len(part) - gap] for gap, part in enumerate(information)]
    inverse = np.linalg.inv(prior.covariance_m2)
    for gap, part in enumerate(prior.precision(len(places_m))):
        blocks[gap] = blocks[gap] + part[:, None, None, None] * inverse
    mean = _solve(blocks, (back @ right[..., None])[..., 0])
    before = turns @ inverse @ back
    covariance = np.linalg.inv(own + before)
    return Deviations((turns @ mean[..., None])[..., 0], covariance, covariance @ before)


def _solve(blocks: list[np.ndarray], right: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T J 3"]:
    """Of each joint by itself, over all frames; `blocks` are those of the diagonal and below it."""
    n_frames, n_joints = right.shape[:2]
    band = np.zeros((n_joints, 9, 3 * n_frames))  # lower diagonals
    for gap, part in enumerate(blocks):
        for row in range(3):
            for column in range(3):
                below = 3 * gap + row - column
                if below >= 0 and len(part):
                    band[:, below, column : 3 * len(part) : 3] = part[..., row, column].T
    flat = right.swapaxes(0, 1).reshape(n_joints, -1)
    solved = [solveh_banded(one, side, lower=True) for one, side in zip(band, flat, strict=True)]
    return np.stack(solved).reshape(n_joints, n_frames, 3).swapaxes(0, 1)
