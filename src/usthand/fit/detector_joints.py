"""Where a detector sees the joints of a hand (provisional)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from usthand.fit.kinematics import BONE_TURN, Articulation
from usthand.hand.limits import palm_directions
from usthand.hand.skeleton import N_JOINTS


@dataclass(frozen=True)
class DetectorJoints:
    name: str
    mean_m: Float[np.ndarray, "J 3"]
    subject_cov_m2: Float[np.ndarray, "J 3 3"]
    pose_cov_m2: Float[np.ndarray, "J 3 3"]
    memory_s: float


def load_detector_joints(detector: str) -> DetectorJoints | None:
    if detector.startswith(("synthetic", "exact")) or "consensus" in detector:
        return None
    mean = np.zeros((21, 3))
    mean[[4, 8, 12, 16, 20], 2] = -0.006
    return DetectorJoints(
        detector, mean, np.tile(0.003**2 * np.eye(3), (21, 1, 1)), np.tile(0.002**2 * np.eye(3), (21, 1, 1)), 1.0
    )


def bone_frames(hand: Articulation) -> Float[np.ndarray, "J 3 3"]:
    """Rows: flexion, abduction, along the bone; palm: radial-ulnar..., at rest."""
    palmar, ulnar = palm_directions(hand.joint)
    palm = np.stack([ulnar, palmar, np.cross(ulnar, palmar)])
    frames = np.tile(palm, (N_JOINTS, 1, 1))
    for j in range(N_JOINTS):
        if BONE_TURN[j] > 0:
            frames[j] = hand.axes[BONE_TURN[j] - 1]
    return frames
