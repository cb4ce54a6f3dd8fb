"""What a calibration file says, in our terms but not yet checked: the common ground of all formats.

A reader turns directions, axes and lens models into ours; lengths stay in the file's own unit, which `metres_per_unit`
describes. `usthand.capture.rig.build_rig` makes a checked rig of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usthand.common.errors import UsthandError


@dataclass(frozen=True)
class Calibration:
    """Cameras as a file describes them."""

    path: Path
    format: str
    """Name of the format, for people."""
    cameras: tuple[dict[str, Any], ...]
    """One entry for each camera, with the keys of rig.toml: name, size (None where the file does not say), matrix,
    distortion, model, rotation (matrix or vector, cam_from_world), translation (cam_from_world, in the file's unit)."""
    metres_per_unit: float | None = None
    """None where the file does not say how long its unit is."""
    unit: str = ""
    """The file's unit of length, for people."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(entry["name"]) for entry in self.cameras)


def bad_calibration(
    path: Path, fact: str, cause: str, fix: str = "fix the file, or export the calibration again"
) -> UsthandError:
    """The error of a calibration that cannot be used."""
    return UsthandError(f"{path}: {fact}", cause, fix)


def natural(key: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts cam_2 before cam_10, which the order of strings turns round."""
    parts, digits = [], ""
    for ch in f"{key}\0":
        if ch.isdigit():
            digits += ch
            continue
        if digits:
            parts.append((0, int(digits)))
            digits = ""
        parts.append((1, ch))
    return tuple(parts)


def pinhole_matrix(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """3x3 intrinsics."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]], float)


def inverted(rotation: np.ndarray, translation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """world_from_cam to cam_from_world, or back."""
    rotation = np.asarray(rotation, float)
    return rotation.T, -rotation.T @ np.asarray(translation, float)


def rotation_from_wxyz(quaternion: Iterable[float]) -> np.ndarray:
    """3x3 of a quaternion (w, x, y, z) of any length; NaN, which is refused later, where it has none."""
    w, x, y, z = (float(v) for v in quaternion)
    norm = np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = np.array([w, x, y, z]) / norm if norm > 0 else np.full(4, np.nan)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
