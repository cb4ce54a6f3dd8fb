"""A rig of small images."""

from __future__ import annotations

import numpy as np

from usthand.capture.rig import Camera, Rig

SIZE = (64, 48)


def make_rig(names=("a", "b"), size=SIZE) -> Rig:
    matrix = np.array([[80.0, 0, size[0] / 2], [0, 80, size[1] / 2], [0, 0, 1]])
    return Rig(
        tuple(
            Camera(name, *size, matrix, np.zeros(5), "pinhole", np.eye(3), np.array([0.1 * i, 0, 0.6]))
            for i, name in enumerate(names)
        )
    )
