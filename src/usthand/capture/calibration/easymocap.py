"""EasyMocap: intri.yml and extri.yml in one folder (OpenCV's FileStorage YAML).

Direction world->camera, OpenCV axes, pixel centres at integers. intri.yml: `names`, and for each name N `K_N` (3x3),
`dist_N` or `D_N` (OpenCV's pinhole), sometimes `H_N` and `W_N`. extri.yml: `R_N` is the rotation VECTOR, `Rot_N` the
matrix, `T_N` the translation. Lengths in the unit in which the calibration board was described, which the files do not
say.
Source: easymocap/mytools/camera_utils.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from usthand.capture.calibration.base import Calibration, bad_calibration
from usthand.capture.calibration.documents import keys, numbers, read_yaml
from usthand.geometry.rotations import rotation_matrix

ROTATION_TOLERANCE = 1e-3  # the files keep six decimals


def is_easymocap(folder: Path) -> bool:
    """True for a folder with both files."""
    return (folder / "intri.yml").is_file() and (folder / "extri.yml").is_file()


def read_easymocap(path: Path) -> Calibration:
    """The cameras of the folder, or of the folder of either file.

    Raises:
        UsthandError: If a file or a key is missing, or a rotation's vector and matrix disagree.
    """
    folder = path if path.is_dir() else path.parent
    inner, outer = folder / "intri.yml", folder / "extri.yml"
    intri, extri = keys(inner, "it", read_yaml(inner), ()), keys(outer, "it", read_yaml(outer), ())
    names = intri.get("names") or [key.removeprefix("K_") for key in intri if key.startswith("K_")]
    if not names:
        raise bad_calibration(inner, "holds no camera", "neither names nor K_ entries are there")
    unit = "unit of the calibration board (EasyMocap files do not say which)"
    cameras = tuple(_entry(inner, outer, intri, extri, name) for name in names)
    return Calibration(folder, "EasyMocap", cameras, None, unit)


def _entry(inner: Path, outer: Path, intri: dict, extri: dict, name: str) -> dict[str, Any]:
    keys(inner, "it", intri, [f"K_{name}"])
    keys(outer, "it", extri, [f"T_{name}"])
    distortion = intri.get(f"dist_{name}", intri.get(f"D_{name}"))
    width, height = intri.get(f"W_{name}"), intri.get(f"H_{name}")
    return {
        "name": name,
        "size": None if width is None or height is None else (int(float(width)), int(float(height))),
        "matrix": _matrix(inner, f"K_{name}", intri[f"K_{name}"], 3, 3),
        "distortion": [] if distortion is None else _matrix(inner, f"the distortion of {name}", distortion, -1),
        "model": "pinhole",
        "rotation": _rotation(outer, extri, name),
        "translation": _matrix(outer, f"T_{name}", extri[f"T_{name}"], 3),
    }


def _rotation(path: Path, extri: dict, name: str) -> np.ndarray:
    """R_ is a vector although its name looks like a matrix; where both are there they must say the same."""
    vector, matrix = extri.get(f"R_{name}"), extri.get(f"Rot_{name}")
    if matrix is None:
        vector = keys(path, "it", extri, [f"R_{name}"])[f"R_{name}"]
        return rotation_matrix(_matrix(path, f"R_{name} (a rotation vector)", vector, 3))
    rotation = _matrix(path, f"Rot_{name}", matrix, 3, 3)
    if vector is not None:
        of_vector = rotation_matrix(_matrix(path, f"R_{name} (a rotation vector)", vector, 3))
        if not np.abs(of_vector - rotation).max() < ROTATION_TOLERANCE:
            raise bad_calibration(path, f"R_{name} and Rot_{name} are different rotations", "one of them was edited")
    return rotation


def _matrix(path: Path, what: str, value: object, *shape: int) -> np.ndarray:
    """An `!!opencv-matrix` {rows, cols, dt, data}, or a plain list."""
    return numbers(path, what, value.get("data") if isinstance(value, dict) else value, *shape)
