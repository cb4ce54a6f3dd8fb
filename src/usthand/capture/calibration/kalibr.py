"""Kalibr: a camchain YAML with cam0, cam1, ...

`T_cn_cnm1` takes points from the camera before into this one, so the poses are a chain: cam2 from world = T_2 T_1,
where the world is cam0's frame. OpenCV axes, metres, pixel centres at integers. `intrinsics` [fu fv pu pv],
`resolution` [width height]. Lenses: pinhole with `radtan` (k1 k2 r1 r2, which are OpenCV's k1 k2 p1 p2), `equidistant`
(OpenCV's fisheye) or `none`; and the double sphere, `ds`, whose intrinsics are [xi alpha fu fv pu pv]. The models omni
and eucm, and the distortion fov, have no place in ours and are refused.
Source: Kalibr's wiki, "yaml formats" and "supported models".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from usthand.capture.calibration.base import Calibration, bad_calibration, camera_entry, natural, pinhole_matrix
from usthand.capture.calibration.documents import keys, numbers, read_yaml

MODELS = {"radtan": "pinhole", "equidistant": "fisheye", "equi": "fisheye", "none": "pinhole"}
AGAIN = "calibrate with --models pinhole-radtan, pinhole-equi or ds-none"


def is_kalibr(data: object) -> bool:
    """True for a parsed YAML that is a camchain."""
    return isinstance(data, dict) and isinstance(data.get("cam0"), dict) and "intrinsics" in data["cam0"]


def read_kalibr(path: Path) -> Calibration:
    """The cameras of a camchain file.

    Raises:
        UsthandError: If a key is missing, the chain is broken or a lens model is not one of ours.
    """
    data = keys(path, "it", read_yaml(path), ["cam0"])
    pose, cameras = np.eye(4), []
    for number, name in enumerate(sorted((key for key in data if key.startswith("cam")), key=natural)):
        if name != f"cam{number}":
            raise bad_calibration(path, f"has {name} but no cam{number}", "each camera's pose hangs on the one before")
        entry = keys(path, name, data[name], ["camera_model", "intrinsics", "resolution", "distortion_model"])
        if number:
            keys(path, name, entry, ["T_cn_cnm1"])
            pose = numbers(path, f"T_cn_cnm1 of {name}", entry["T_cn_cnm1"], 4, 4) @ pose
        cameras.append(_entry(path, name, entry, pose))
    return Calibration(path, "Kalibr", tuple(cameras), 1.0, "metres")


def _entry(path: Path, name: str, entry: dict[str, Any], pose: np.ndarray) -> dict[str, Any]:
    camera, lens = entry["camera_model"], entry["distortion_model"]
    size = numbers(path, f"resolution of {name}", entry["resolution"], 2).astype(int)
    placed = pose[:3, :3], pose[:3, 3]
    if camera == "ds" and lens == "none":
        values = numbers(path, f"intrinsics of {name}", entry["intrinsics"], 6)
        return camera_entry(name, size, pinhole_matrix(*values[2:]), ("double_sphere", values[:2]), placed)
    if camera != "pinhole":
        raise bad_calibration(
            path, f"{name} has the camera model {camera}", "known are pinhole, and ds without distortion", AGAIN
        )
    if lens not in MODELS:
        raise bad_calibration(
            path, f"{name} has the distortion model {lens}", "known are radtan, equidistant and none", AGAIN
        )
    coefficients = np.zeros(0)
    if lens != "none":
        coefficients = numbers(path, f"distortion_coeffs of {name}", entry.get("distortion_coeffs"), 4)
    matrix = pinhole_matrix(*numbers(path, f"intrinsics of {name}", entry["intrinsics"], 4))
    return camera_entry(name, size, matrix, (MODELS[lens], coefficients), placed)
