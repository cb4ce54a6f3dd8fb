"""Basalt: calibration.json.

{"value0": {"T_imu_cam": [{px py pz qx qy qz qw}], "intrinsics": [{"camera_type", "intrinsics": {fx fy cx cy ...}}],
"resolution": [[width height]], ...}}. CAMERA->IMU, OpenCV axes, metres, pixel centres at integers; the world of the rig
is the IMU's frame, or the first camera's before the IMU has been calibrated. Lenses: `ds`, the double sphere (xi
alpha); `kb4`, which is OpenCV's fisheye (k1 k2 k3 k4); `pinhole`. The others (eucm, ucm, fov, ...) have no place in
ours and are refused.
Source: Basalt's documentation (Calibration.md) and headers (camera/double_sphere_camera.hpp, serialization).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from usthand.capture.calibration.base import (
    Calibration,
    bad_calibration,
    camera_entry,
    inverted,
    pinhole_matrix,
    rotation_from_wxyz,
)
from usthand.capture.calibration.documents import keys, numbers, read_json

LENSES = {
    "ds": ("double_sphere", ("xi", "alpha")),
    "kb4": ("fisheye", ("k1", "k2", "k3", "k4")),
    "pinhole": ("pinhole", ()),
}
"""By `camera_type`: our model, and where its coefficients are."""


def is_basalt(data: object) -> bool:
    """True for a parsed JSON of Basalt."""
    return isinstance(data, dict) and isinstance(data.get("value0"), dict) and "T_imu_cam" in data["value0"]


def read_basalt(path: Path) -> Calibration:
    """The cameras of a calibration.json: cam0, cam1, ... in its order.

    Raises:
        UsthandError: If a key is missing or a lens model is not one of ours.
    """
    data = keys(path, "it", read_json(path), ["value0"])
    found = keys(path, "value0", data["value0"], ["T_imu_cam", "intrinsics", "resolution"])
    parts = [found[key] for key in ("T_imu_cam", "intrinsics", "resolution")]
    if not all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts):
        cause = "the file was cut short or put together by hand"
        raise bad_calibration(path, "has not as many poses as intrinsics and resolutions", cause)
    cameras = [_entry(path, f"cam{number}", *part) for number, part in enumerate(zip(*parts, strict=True))]
    return Calibration(path, "Basalt", tuple(cameras), 1.0, "metres")


def _entry(path: Path, name: str, pose: object, lens: object, size: object) -> dict[str, Any]:
    pose = keys(path, f"T_imu_cam of {name}", pose, ["px", "py", "pz", "qx", "qy", "qz", "qw"])
    lens = keys(path, f"intrinsics of {name}", lens, ["camera_type", "intrinsics"])
    kind = lens["camera_type"]
    if kind not in LENSES:
        raise bad_calibration(
            path,
            f"{name} has the camera type {kind}",
            f"known are {', '.join(LENSES)}",
            "calibrate with --cam-types ds or kb4",
        )
    model, names = LENSES[kind]
    inner = keys(path, f"intrinsics of {name}", lens["intrinsics"], ["fx", "fy", "cx", "cy", *names])
    focal_and_centre = numbers(path, f"intrinsics of {name}", [inner[key] for key in ("fx", "fy", "cx", "cy")], 4)
    coefficients = numbers(path, f"intrinsics of {name}", [inner[key] for key in names], len(names))
    place = numbers(path, f"T_imu_cam of {name}", [pose[key] for key in ("px", "py", "pz")], 3)
    turn = numbers(path, f"T_imu_cam of {name}", [pose[key] for key in ("qw", "qx", "qy", "qz")], 4)
    cam_from_imu = inverted(rotation_from_wxyz(turn), place)
    wide = numbers(path, f"resolution of {name}", size, 2).astype(int)
    return camera_entry(name, wide, pinhole_matrix(*focal_and_centre), (model, np.asarray(coefficients)), cam_from_imu)
