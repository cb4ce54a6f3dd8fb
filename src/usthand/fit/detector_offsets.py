"""Soft joints: how far what a detector calls a joint lies from the rigid hand's, as far as several views agree on it.

A detector's joints are not a hand model's: its palm bends, its knuckles wander with the pose, in all views alike, so that
neither more cameras nor more frames take it away. But where on a bone it puts the joint it goes on to put it: each observed
joint is the model's plus a deviation d that, in the frame of the bone which ends in the joint, is a stationary Gauss-Markov
process, of N(0, std^2 I) at any time and of correlation exp(-t / memory) over a time t. Its labels see x + d; views that see the
model's own joints (`LabelTerm.soft`) see x.

Given the model's joints, d is Gaussian. Labels, with their errors' own memory, and the process couple a frame with two later
ones at most: the mean solves one banded system for each joint, exactly. Numpy, float64. Legend: T frames, V views, J joints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import solveh_banded

from usthand.fit.objective import LabelTerm, PointTerm, joint_information


class Deviation(NamedTuple):
    """Posterior of the deviations."""

    mean_m: Float[np.ndarray, "T J 3"]
    """World, metres."""
    covariance_m2: Float[np.ndarray, "T J 3 3"]
    """Given the model's joints, and of a frame by itself: an upper bound, for what the frames around say is left out."""
    std_m: float

    def joint_covariance(self, model_m2: Float[np.ndarray, "T J 3 3"]) -> Float[np.ndarray, "T J 3 3"]:
        """Covariance of x + d where x has covariance `model_m2`: K C K' + G, with K = d(x + d)/dx = G / std^2."""
        gain = self.covariance_m2 / self.std_m**2
        return gain @ model_m2 @ gain.swapaxes(-1, -2) + self.covariance_m2


def no_deviation(n_frames: int, n_joints: int) -> Float[np.ndarray, "T J 3"]:
    """Rigid joints."""
    return np.zeros((n_frames, n_joints, 3))


def estimate_deviation(
    labels: LabelTerm,
    points: PointTerm | None,
    model_m: Float[np.ndarray, "T J 3"],
    turns: Float[np.ndarray, "T J 3 3"],
    current_m: Float[np.ndarray, "T J 3"],
    std_m: float,
    memory_frames: float,
) -> Deviation:
    """Posterior of the deviations at the model's joints, linearised at `current_m`.

    Args:
        turns: of the frames in which the deviations last, world from bone.
        memory_frames: after which their correlation has fallen to 1/e.
    """
    if labels.soft is not None:
        labels = replace(labels, root=labels.root * labels.soft[:, None, None, None])
    information, right = joint_information(labels, points, model_m, current_m)
    right = right + _times(information, current_m)
    back = turns.swapaxes(-1, -2)
    blocks = [back[gap:] @ part[: len(part) - gap] @ turns[: len(part) - gap] for gap, part in enumerate(information)]
    for gap, part in enumerate(_process(len(model_m), std_m, memory_frames)):
        blocks[gap] = blocks[gap] + part[:, None, None, None] * np.eye(3)
    mean = _solve(blocks, (back @ right[..., None])[..., 0])
    return Deviation(
        (turns @ mean[..., None])[..., 0], _frame_covariance(labels, points, model_m, current_m, std_m), std_m
    )


def _times(information: list[np.ndarray], vector: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T J 3"]:
    """The symmetric matrix of blocks [same frame, one later, two later] times a vector."""
    out = np.zeros(vector.shape)
    for gap, part in enumerate(information):
        here = len(vector) - gap
        out[gap:] += (part[:here] @ vector[:here, ..., None])[..., 0]
        if gap:
            out[:here] += (part[:here].swapaxes(-1, -2) @ vector[gap:, ..., None])[..., 0]
    return out


def _process(n_frames: int, std_m: float, memory_frames: float) -> tuple[np.ndarray, np.ndarray]:
    """Precision of the Gauss-Markov process: its diagonal (T) and its first off-diagonal (T - 1)."""
    rho = np.exp(-1 / memory_frames)
    unit = 1 / (std_m**2 * (1 - rho**2))
    diagonal = np.full(n_frames, (1 + rho**2) * unit)
    diagonal[[0, -1]] = unit if n_frames > 1 else 1 / std_m**2
    return diagonal, np.full(n_frames - 1, -rho * unit)


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


def _frame_covariance(
    labels: LabelTerm, points: PointTerm | None, model_m: np.ndarray, current_m: np.ndarray, std_m: float
) -> Float[np.ndarray, "T J 3 3"]:
    """G = (N + I / std^2)^-1, N the information of a frame's own data."""
    rows = labels.residuals(model_m, current_m)[1]
    information = (rows.swapaxes(-1, -2) @ rows).sum(1)
    if points is not None:
        information = information + points.root.swapaxes(-1, -2) @ points.root
    return np.linalg.inv(information + np.eye(3) / std_m**2)
