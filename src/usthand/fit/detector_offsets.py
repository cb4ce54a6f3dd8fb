"""Soft joints: how far the joints of a detector lie from those of the hand model, as far as several views agree on it.

A detector's joints are not a hand model's: they are offset from them, alike in all views, so neither more cameras nor
more frames average the offset out. But a detector keeps its place on a bone: each observed joint is the model's plus an
offset d. In the frame of the bone that ends in the joint, d is a stationary Gauss-Markov process, N(0, std^2 I) at any
time and of correlation exp(-t / memory) over a time t. The detector's labels see x + d; views that see the model's own
joints (`LabelTerm.soft`) see x.

Given the model's joints, d is Gaussian. The labels' correlated errors and the process couple a frame with two later
ones at most, so the mean solves one banded system for each joint, exactly. Legend: T frames, V views, J joints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.linalg import solveh_banded

from usthand.fit.objective import LabelTerm, PointTerm, joint_information


@dataclass(frozen=True)
class DetectorOffsets:
    """Posterior of the offsets."""

    mean_m: Float[np.ndarray, "T J 3"]
    """World, metres."""
    covariance_m2: Float[np.ndarray, "T J 3 3"]
    """Given the model's joints, from each frame's own data: an upper bound, since neighbouring frames are left out."""
    std_m: float
    """Of the prior, along each axis."""

    def joint_covariance(self, model_m2: Float[np.ndarray, "T J 3 3"]) -> Float[np.ndarray, "T J 3 3"]:
        """Covariance of x + d where x has covariance `model_m2`: K C K' + G, with K = d(x + d)/dx = G / std^2."""
        gain = self.covariance_m2 / self.std_m**2
        return gain @ model_m2 @ gain.swapaxes(-1, -2) + self.covariance_m2


@dataclass(frozen=True)
class OffsetPrior:
    """The Gauss-Markov process that the offsets follow in the frame of the bone."""

    std_m: float
    """Standard deviation along each axis."""
    memory_frames: float
    """Frames after which the correlation has fallen to 1/e."""

    def precision(self, n_frames: int) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "gaps"]]:
        """Precision of T frames of one coordinate: the diagonal and the first off-diagonal."""
        rho = np.exp(-1 / self.memory_frames)
        unit = 1 / (self.std_m**2 * (1 - rho**2))
        diagonal = np.full(n_frames, (1 + rho**2) * unit)
        diagonal[[0, -1]] = unit if n_frames > 1 else 1 / self.std_m**2
        return diagonal, np.full(n_frames - 1, -rho * unit)


def estimate_offsets(
    labels: LabelTerm,
    points: PointTerm | None,
    model_m: Float[np.ndarray, "T J 3"],
    turns: Float[np.ndarray, "T J 3 3"],
    current_m: Float[np.ndarray, "T J 3"],
    prior: OffsetPrior,
) -> DetectorOffsets:
    """Posterior of the offsets, linearised about the present ones.

    Args:
        labels: Weighted labels.
        points: 3D observations of the detector's joints, if any.
        model_m: The model's joints, world, metres.
        turns: Rotations, world from bone, of the bones that end in the joints.
        current_m: The present offsets, world, metres.
        prior: What is known of the offsets beforehand.
    """
    if labels.soft is not None:
        labels = replace(labels, root=labels.root * labels.soft[:, None, None, None])
    information, right = joint_information(labels, points, model_m, current_m)
    right = right + _times(information, current_m)
    back = turns.swapaxes(-1, -2)
    blocks = [back[gap:] @ part[: len(part) - gap] @ turns[: len(part) - gap] for gap, part in enumerate(information)]
    for gap, part in enumerate(prior.precision(len(model_m))):
        blocks[gap] = blocks[gap] + part[:, None, None, None] * np.eye(3)
    mean = _solve(blocks, (back @ right[..., None])[..., 0])
    rows = labels.residuals(model_m, current_m)[1]
    own = (rows.swapaxes(-1, -2) @ rows).sum(1)
    if points is not None:
        own = own + points.root.swapaxes(-1, -2) @ points.root
    covariance = np.linalg.inv(own + np.eye(3) / prior.std_m**2)
    return DetectorOffsets((turns @ mean[..., None])[..., 0], covariance, prior.std_m)


def _times(information: list[np.ndarray], vector: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T J 3"]:
    """The symmetric matrix of blocks [same frame, one later, two later] times a vector."""
    out = np.zeros(vector.shape)
    for gap, part in enumerate(information):
        here = len(vector) - gap
        out[gap:] += (part[:here] @ vector[:here, ..., None])[..., 0]
        if gap:
            out[:here] += (part[:here].swapaxes(-1, -2) @ vector[gap:, ..., None])[..., 0]
    return out


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
