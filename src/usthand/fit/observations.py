"""What a fit consumes: positions with their precision, in the images and, optionally, in space.

Legend of the shapes: T frames, V views, J = 21 joints in OpenPose order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from usthand.labels.labels import Labels, hand_size_px

SIGMA_FRACTION = 0.025
"""Standard deviation of a fully confident label in sizes of the hand, per axis (docs/development/label-noise.md)."""

CONFIDENCE_FLOOR = 0.05
"""Least confidence that still counts: a label that is present never has a precision of 0."""


@dataclass(frozen=True)
class Observations:
    """Positions with their precision, per view and, optionally, in space."""

    uv_px: Float[np.ndarray, "T V J 2"]
    """Pixel positions, float64; 0 where missing."""
    precision: Float[np.ndarray, "T V J 2 2"]
    """Inverse covariance of `uv_px`, px^-2; all zero where missing."""
    points_world_m: Float[np.ndarray, "T J 3"] | None = None
    """Direct observations of the joints in the world frame, metres."""
    points_precision: Float[np.ndarray, "T J 3 3"] | None = None
    """Inverse covariance of `points_world_m`, m^-2; all zero where missing."""
    predicts_model_joints: Bool[np.ndarray, "V"] | None = None
    """Views that predict the hand model's own joints even where the others give a detector's; None for no view.
    See `usthand.fit.detector_offsets`."""
    sets_noise_scale: Bool[np.ndarray, "V"] | None = None
    """Views whose residuals set the scale of all views' errors (`usthand.fit.reweighting`); None for all views.
    Views whose precision was lowered because their errors are correlated are left out: they say nothing of it."""

    @staticmethod
    def from_labels(labels: Labels, sigma_px: float | np.ndarray | None = None) -> Observations:
        """Labels with isotropic precisions (c / sigma_px)^2; c is the confidence, at least `CONFIDENCE_FLOOR`.

        Args:
            labels: A detector's labels.
            sigma_px: Standard deviation of a fully confident label, pixels, a number or (T, V). By default it is
                `SIGMA_FRACTION` of the hand's size in that view, since a detector's error grows with the hand's size.
        """
        sigma = SIGMA_FRACTION * hand_size_px(labels) if sigma_px is None else np.asarray(sigma_px, dtype=np.float64)
        sigma = np.broadcast_to(sigma, labels.uv_px.shape[:2])[..., None]
        stated = np.where(labels.mask, np.maximum(labels.confidence.astype(np.float64), CONFIDENCE_FLOOR), 0.0)
        scalar = (stated / sigma) ** 2
        return Observations(labels.uv_px.astype(np.float64), scalar[..., None, None] * np.eye(2))
