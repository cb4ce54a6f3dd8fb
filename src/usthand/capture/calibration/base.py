"""What a calibration file says, in our terms but not yet checked: the common ground of all formats.

A reader turns directions, axes and lens models into ours; lengths stay in the file's own unit, which `metres_per_unit`
describes. `usthand.capture.rig.build_rig` makes a checked rig of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

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
        """The cameras' names, in order."""
        return tuple(str(entry["name"]) for entry in self.cameras)


def bad_calibration(
    path: Path, fact: str, cause: str, fix: str = "fix the file, or export the calibration again"
) -> UsthandError:
    """The error of a calibration that cannot be used."""
    return UsthandError(f"{path}: {fact}", cause, fix)


def natural(key: str) -> tuple[tuple[int, int | str], ...]:
    """A key for sorting by which cam_2 comes before cam_10."""
    parts = re.findall(r"\d+|\D", f"{key}\0")  # the end counts as a character: cam1 comes before cam
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def pinhole_matrix(fx: float, fy: float, cx: float, cy: float) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of a camera without skew, px."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]], float)


def inverted(
    rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """World_from_cam turned into cam_from_world, or back."""
    return rotation.T, -rotation.T @ translation


def rotation_from_wxyz(quaternion: Iterable[float]) -> Float[np.ndarray, "3 3"]:
    """The rotation of a quaternion (w, x, y, z) of any length; NaN, which is refused later, for one of length zero."""
    w, x, y, z = (float(v) for v in quaternion)
    if not w * w + x * x + y * y + z * z > 0:
        return np.full((3, 3), np.nan)
    return Rotation.from_quat([x, y, z, w]).as_matrix()
