"""TOML tables of Caliscope (pyxy3d), Anipose and FreeMoCap.

All three: world->camera, OpenCV axes, OpenCV's pinhole lens (`fisheye = true`: OpenCV's fisheye), pixel centres at
integers. They differ in the rest:

    Caliscope   [cam_N] or [cameras.N]; rotation a 3x3 matrix (a vector in some versions); metres; cameras named by key
    Anipose     [cam_N] with name; rotation vector; the unit of the board's squares, which the file does not say
    FreeMoCap   as Anipose; millimetres, if metadata.charuco_square_size is one (1 means: in squares)

Keys sort as strings in the files (cam_10 before cam_2); here they come in order of their numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from usthand.capture.calibration.base import Calibration, bad_calibration, natural

MM = 1e-3
SMALLEST_SQUARE_MM = 5.0  # a board with smaller squares was not measured in millimetres


def read_tables(path: Path, data: dict[str, Any], fmt: str = "auto") -> Calibration:
    """Cameras of a parsed TOML file that is not our own.

    Args:
        path: The file, for messages.
        data: What it holds.
        fmt: caliscope, anipose or freemocap; auto tells them apart by their keys.

    Raises:
        UsthandError: If no table of it is a camera.
    """
    tables = data["cameras"] if isinstance(data.get("cameras"), dict) else data
    found = {
        key: entry
        for key, entry in tables.items()
        if isinstance(entry, dict) and "matrix" in entry and "rotation" in entry and not entry.get("ignore", False)
    }
    if not found:
        raise bad_calibration(
            path, "holds no camera", "neither [[cameras]] nor [cam_0] with matrix and rotation are there"
        )
    metadata = data["metadata"] if isinstance(data.get("metadata"), dict) else {}
    kind = _kind(found, metadata) if fmt == "auto" else fmt
    cameras = tuple(_entry(key, found[key], kind != "caliscope") for key in sorted(found, key=natural))
    if kind == "freemocap":
        square = metadata.get("charuco_square_size")
        if not isinstance(square, (int, float)) or square >= SMALLEST_SQUARE_MM:
            return Calibration(path, "FreeMoCap", cameras, MM, "millimetres")
        unit = f"unit in which the board's square was given as {square:g}"
        return Calibration(path, "FreeMoCap", cameras, None, unit)
    if kind == "anipose":
        unit = "unit of the calibration board (Anipose files do not say which)"
        return Calibration(path, "Anipose", cameras, None, unit)
    return Calibration(path, "Caliscope", cameras, 1.0, "metres")


def _kind(found: dict[str, dict], metadata: dict) -> str:
    if "charuco_square_size" in metadata or any("world_position" in entry for entry in found.values()):
        return "freemocap"
    # Caliscope too stores rotation vectors in some versions; only Anipose has its `name` beside them.
    if any(np.size(entry["rotation"]) == 3 and "name" in entry for entry in found.values()):
        return "anipose"
    return "caliscope"


def _entry(key: str, table: dict[str, Any], named: bool) -> dict[str, Any]:
    name = str(table["name"]) if named and "name" in table else key if key.startswith("cam") else f"cam_{key}"
    return {
        **{k: table[k] for k in ("size", "matrix", "rotation", "translation") if k in table},
        "name": name,
        "distortion": table.get("distortions", table.get("distortion", [])),
        "model": "fisheye" if table.get("fisheye", False) else "pinhole",
    }
