"""Small rigs and labels that several tests need."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera, Rig
from usthand.labels.labels import Labels


def toy_rig(views: int = 3) -> Rig:
    """Cameras 0.7 m from the origin, looking at it."""
    turns = Rotation.random(views, random_state=0).as_matrix()
    matrix = np.array([[300.0, 0, 127.5], [0, 310, 127.5], [0, 0, 1]])
    k = np.array([-0.1, 0.02, 0.001, -0.002, 0.0])
    return Rig(
        tuple(
            Camera(f"cam{i}", 256, 256, matrix, k, "pinhole", turns[i], np.array([0.0, 0.01 * i, 0.7]))
            for i in range(views)
        )
    )


def toy_labels(frames: int = 5, views: int = 3) -> Labels:
    """Random pixels, every tenth joint missing."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1.0, (frames, views, 21)) * (rng.random((frames, views, 21)) > 0.1)
    return Labels(
        rng.uniform(0, 255, (frames, views, 21, 2)), confidence, tuple(f"cam{i}" for i in range(views)), "right", "toy"
    )
