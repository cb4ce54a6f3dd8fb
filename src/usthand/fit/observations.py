"""What the sequence fit is given: 2D positions with their precision, from one source or several.

A source is a detector or a network that looks at the cameras' images. Several sources of one camera are still one view.
Legend: T frames, K sources, V views, J = 21 joints in OpenPose order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from usthand.fit.detector_joints import DetectorJoints, load_detector_joints
from usthand.labels.labels import Labels, hand_size_px

SIGMA_FRACTION = 0.025
"""Standard deviation of a fully confident label in sizes of the hand, per axis (docs/development/label-noise.md)."""

CONFIDENCE_FLOOR = 0.05
"""Least confidence that still counts: a label that is present never has a precision of 0."""


@dataclass(frozen=True)
class Source:
    """What is known of a source of observations."""

    name: str
    """Such as "detector" or "shipped network"."""
    detected: bool = True
    """Whether it predicts the joints as the footage's detector sees them, or the hand model's own."""
    sets_noise_scale: bool = True
    """Whether the scale of its errors is learned from its own residuals. A network that learned the labels errs
    with them: its residuals are too small, and the detector's scale counts for it."""
    common_part: float = 0.0
    """Part of its variance that all views of a joint have in common, which more views do not average out. (What a
    detector's views have in common is in `DetectorJoints`.)"""


DETECTOR = Source("detector")


@dataclass(frozen=True)
class Observations:
    """Positions with their precision, per source and view and, optionally, in space."""

    uv_px: Float[np.ndarray, "T K V J 2"]
    """Pixel positions, float64; 0 where missing."""
    precision: Float[np.ndarray, "T K V J 2 2"]
    """Inverse covariance of `uv_px`, px^-2; all zero where missing."""
    sources: tuple[Source, ...] = (DETECTOR,)
    """One for each of the K."""
    detector: DetectorJoints | None = None
    """Where the footage's detector sees the joints on the hand; None: exactly where the model has them."""
    points_world_m: Float[np.ndarray, "T J 3"] | None = None
    """Direct observations of the model's joints in the world frame, metres."""
    points_precision: Float[np.ndarray, "T J 3 3"] | None = None
    """Inverse covariance of `points_world_m`, m^-2; all zero where missing."""

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
        return Observations(
            labels.uv_px.astype(np.float64)[:, None],
            (scalar[..., None, None] * np.eye(2))[:, None],
            detector=known_detector(labels),
        )

    @property
    def n_views(self) -> int:
        """V."""
        return self.uv_px.shape[2]

    def per_view(self, of_source: np.ndarray) -> np.ndarray:
        """Something of each source, repeated for its views: (K,) to (K V,)."""
        return np.repeat(of_source, self.n_views)


def known_detector(labels: Labels) -> DetectorJoints | None:
    """Where the labels' detector sees the joints; None if exactly where the model has them."""
    detector = load_detector_joints(labels.detector)
    return None if detector.ideal else detector
