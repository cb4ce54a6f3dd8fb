"""nerfstudio (and instant-ngp): transforms.json.

`transform_matrix` of each frame is 4x4, CAMERA->WORLD with OPENGL axes (y up, looking along -z). Pixel CORNERS lie at
integers, as in COLMAP: half a pixel is taken off cx and cy. Intrinsics fl_x fl_y cx cy w h are global or per frame
(global ones win, as in nerfstudio), or a field of view camera_angle_x. Lenses: perspective with k1 k2 k3 p1 p2
(OpenCV's pinhole), or OPENCV_FISHEYE with k1..k4. Arbitrary unit.
Source: nerfstudio_dataparser.py, cameras/camera_utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from usthand.capture.calibration.base import Calibration, bad_calibration, inverted, pinhole_matrix
from usthand.capture.calibration.documents import keys, numbers, read_json
from usthand.capture.calibration.views import PosedImage, one_view_each

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])
PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
UNIT = "arbitrary unit of the structure from motion"
CORNER = 0.5  # px: what their pixel coordinates exceed ours by


def is_nerfstudio(data: object) -> bool:
    """True for a parsed JSON of this layout."""
    frames = data.get("frames") if isinstance(data, dict) else None
    return isinstance(frames, list) and bool(frames) and "transform_matrix" in frames[0]


def read_nerfstudio(path: Path, images: Sequence[str] = ()) -> Calibration:
    """Cameras of a transforms.json, or of the folder that holds it.

    Args:
        path: The file or its folder.
        images: Names of the frames to take as cameras; see `one_view_each` for what is taken without.

    Raises:
        UsthandError: If a key is missing or the camera model is not one of ours.
    """
    path = path / "transforms.json" if path.is_dir() else path
    data = keys(path, "it", read_json(path), ["frames"])
    posed = []
    for number, frame in enumerate(data["frames"]):
        frame = keys(path, f"frame {number}", frame, ["file_path", "transform_matrix"])
        entry = _entry(path, frame["file_path"], _merged(data, frame), frame["transform_matrix"])
        camera = repr((entry["size"], entry["matrix"].tolist(), list(entry["distortion"]), entry["model"]))
        posed.append(PosedImage(frame["file_path"].replace("\\", "/"), camera, entry))
    return Calibration(path, "nerfstudio", one_view_each(path, posed, images), None, UNIT)


def _merged(data: dict, frame: dict) -> dict[str, Any]:
    """The frame's intrinsics, with the global ones over them; distortion coefficients go together."""
    own = {key: value for key, value in frame.items() if key not in DISTORTION}
    bent = data if any(key in data for key in DISTORTION) else frame
    merged = {**own, **{key: value for key, value in data.items() if key not in DISTORTION}}
    return {**merged, **{key: bent[key] for key in DISTORTION if key in bent}}


def _entry(path: Path, name: str, data: dict[str, Any], pose: object) -> dict[str, Any]:
    world_from_cam = numbers(path, f"transform_matrix of {name}", pose, -1, 4)[:3]
    if world_from_cam.shape != (3, 4):
        raise bad_calibration(path, f"transform_matrix of {name} cannot be read", "it should be 4 x 4 numbers")
    rotation, translation = inverted(world_from_cam[:, :3] @ OPENCV_FROM_OPENGL, world_from_cam[:, 3])
    keys(path, name, data, ["w", "h"])
    width, height = numbers(path, f"the size of {name}", [data["w"], data["h"]], 2)
    fx = data.get("fl_x") or _focal(data.get("camera_angle_x"), width)
    fy = data.get("fl_y") or _focal(data.get("camera_angle_y"), height) or fx
    if not fx:
        raise bad_calibration(path, f"{name} has no focal length", "neither fl_x nor camera_angle_x is there")
    centre = np.array([data.get("cx", width / 2), data.get("cy", height / 2)], float) - CORNER
    model, distortion = _lens(path, name, data)
    return {
        "size": (int(width), int(height)),
        "matrix": pinhole_matrix(fx, fy, *centre),
        "distortion": distortion,
        "model": model,
        "rotation": rotation,
        "translation": translation,
    }


def _focal(angle: float | None, length: float) -> float:
    return 0.5 * length / np.tan(0.5 * angle) if angle else 0.0


def _lens(path: Path, name: str, data: dict[str, Any]) -> tuple[str, list[float]]:
    k1, k2, k3, k4, p1, p2 = (float(data.get(key, 0.0)) for key in DISTORTION)
    model = str(data.get("camera_model", "OPENCV_FISHEYE" if data.get("is_fisheye") else "OPENCV"))
    if model == "OPENCV_FISHEYE":
        return "fisheye", [k1, k2, k3, k4]
    if model not in PERSPECTIVE:
        raise bad_calibration(
            path, f"{name} has the camera model {model}", f"known are {', '.join(PERSPECTIVE)}, OPENCV_FISHEYE"
        )
    if k4:
        raise bad_calibration(
            path, f"{name} is a perspective camera with k4", "nerfstudio's fourth radial term is none of OpenCV's"
        )
    return "pinhole", [k1, k2, p1, p2, k3]
