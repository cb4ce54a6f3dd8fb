"""Soft joints: how far what a detector calls a joint lies from the rigid hand's, as far as several views agree on it.

A detector's joints are not a hand model's: its palm bends, its knuckles wander with the pose, in all views alike, so that
neither more cameras nor more frames take it away. Each observed joint is therefore the model's plus a deviation,
d ~ N(0, std^2 I) independently, and its labels see x + d. Views that see the model's own joints (`LabelTerm.soft`) see x. Given the model's joint x with labels of information N and
gradient g at x + d0, the posterior of d is Gaussian with covariance G = (N + I / std^2)^-1 and mean G (N d0 + g).
Numpy, float64. Legend: T frames, V views, J joints.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

from usthand.energy import LabelTerm, PointTerm


class Deviation(NamedTuple):
    """Posterior of the deviations."""

    mean_m: Float[np.ndarray, "T J 3"]
    """World, metres."""
    covariance_m2: Float[np.ndarray, "T J 3 3"]
    """Given the model's joints."""
    std_m: float

    def joint_covariance(self, model_m2: Float[np.ndarray, "T J 3 3"]) -> Float[np.ndarray, "T J 3 3"]:
        """Covariance of x + d where x has covariance `model_m2`: K C K' + G, with K = d(x + d)/dx = G / std^2."""
        gain = self.covariance_m2 / self.std_m**2
        return gain @ model_m2 @ gain.swapaxes(-1, -2) + self.covariance_m2


def no_deviation(n_frames: int, n_joints: int) -> Float[np.ndarray, "T J 3"]:
    """Rigid joints."""
    return np.zeros((n_frames, n_joints, 3))


def estimate_deviation(
    labels: LabelTerm, points: PointTerm | None, model_m: Float[np.ndarray, "T J 3"],
    current_m: Float[np.ndarray, "T J 3"], std_m: float, smooth_frames: float,
) -> Deviation:  # fmt: skip
    """Posterior of the deviations at the model's joints, linearised at `current_m`; its mean smoothed over time."""
    residual, rows = labels.residuals(model_m, current_m)
    if labels.soft is not None:
        residual, rows = residual[:, labels.soft], rows[:, labels.soft]
    turned = rows.swapaxes(-1, -2)
    information = (turned @ rows).sum(1)
    gradient = -(turned @ residual[..., None])[..., 0].sum(1)
    if points is not None:
        more = points.root.swapaxes(-1, -2) @ points.root
        information = information + more
        gradient = gradient + (more @ (points.points_world_m - model_m - current_m)[..., None])[..., 0]
    covariance = np.linalg.inv(information + np.eye(3) / std_m**2)
    mean = (covariance @ ((information @ current_m[..., None])[..., 0] + gradient)[..., None])[..., 0]
    seen = information.trace(axis1=-2, axis2=-1) > 0
    return Deviation(_smooth(mean, seen, smooth_frames), covariance, std_m)


def _smooth(
    mean: Float[np.ndarray, "T J 3"], seen: Bool[np.ndarray, "T J"], frames: float
) -> Float[np.ndarray, "T J 3"]:
    """Gaussian mean over the frames that saw the joint; others take their neighbours'."""
    if frames <= 0:
        return mean
    count = gaussian_filter1d(seen.astype(np.float64), frames, axis=0, mode="nearest")[..., None]
    total = gaussian_filter1d(mean * seen[..., None], frames, axis=0, mode="nearest")
    return np.where(count > 1e-3, total / np.maximum(count, 1e-3), 0.0)
