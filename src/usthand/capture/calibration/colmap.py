"""COLMAP: a sparse model's cameras and images, as .txt or .bin.

World->camera quaternion (w x y z) and translation, OpenCV axes, arbitrary unit. Pixel CORNERS lie at integers (the
first pixel's centre is at 0.5, 0.5): half a pixel is taken off cx and cy. Lenses: SIMPLE_PINHOLE, PINHOLE,
SIMPLE_RADIAL, RADIAL, OPENCV, FULL_OPENCV are OpenCV's pinhole; OPENCV_FISHEYE, SIMPLE_RADIAL_FISHEYE,
RADIAL_FISHEYE OpenCV's fisheye; RAD_TAN_THIN_PRISM_FISHEYE is FISHEYE624. FOV and THIN_PRISM_FISHEYE have other
formulas and are refused.
In images.txt every second line lists points, and may be empty.
Source: scripts/python/read_write_model.py, src/colmap/sensor/models.h, FAQ on OpenCV's calibrations.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from usthand.capture.calibration.base import (
    Calibration,
    bad_calibration,
    camera_entry,
    pinhole_matrix,
    rotation_from_wxyz,
)
from usthand.capture.calibration.documents import numbers, read_text
from usthand.capture.calibration.views import PosedImage, one_view_each

UNIT = "arbitrary unit of the structure from motion"
CORNER = 0.5  # px: what COLMAP's pixel coordinates exceed ours by


class ColmapModel(NamedTuple):
    """A lens of COLMAP: one or two focal lengths, the centre, then coefficients in the order of ours."""

    focals: int
    coefficients: int
    ours: str = ""
    """Our model; empty where we have none."""
    padded: int = 0
    """To so many coefficients, with zeros."""


MODELS = {
    "SIMPLE_PINHOLE": ColmapModel(1, 0, "pinhole", 0),
    "PINHOLE": ColmapModel(2, 0, "pinhole", 0),
    "SIMPLE_RADIAL": ColmapModel(1, 1, "pinhole", 4),
    "RADIAL": ColmapModel(1, 2, "pinhole", 4),
    "OPENCV": ColmapModel(2, 4, "pinhole", 4),
    "OPENCV_FISHEYE": ColmapModel(2, 4, "fisheye", 4),
    "FULL_OPENCV": ColmapModel(2, 8, "pinhole", 8),
    "FOV": ColmapModel(2, 1),
    "SIMPLE_RADIAL_FISHEYE": ColmapModel(1, 1, "fisheye", 4),
    "RADIAL_FISHEYE": ColmapModel(1, 2, "fisheye", 4),
    "THIN_PRISM_FISHEYE": ColmapModel(2, 8),
    "RAD_TAN_THIN_PRISM_FISHEYE": ColmapModel(2, 12, "fisheye624", 12),
}
"""By the name in cameras.txt, in order of the id in cameras.bin."""

Lenses = dict[int, tuple[str, tuple[int, int], list[float]]]
Images = list[tuple[str, int, list[float], list[float]]]


def find_colmap(folder: Path) -> Path | None:
    """The folder that holds the model: this one, or its sparse/0 or sparse."""
    for inner in (folder, folder / "sparse" / "0", folder / "sparse"):
        if any((inner / f"cameras{s}").is_file() and (inner / f"images{s}").is_file() for s in (".bin", ".txt")):
            return inner
    return None


def read_colmap(path: Path, images: Sequence[str] = ()) -> Calibration:
    """Cameras of a model's folder, or of the folder of one of its files.

    Args:
        path: The folder or file.
        images: Names of the images to take as cameras; see `one_view_each` for what is taken without.

    Raises:
        UsthandError: If a file is missing or damaged, or the camera model is not one of ours.
    """
    folder = find_colmap(path if path.is_dir() else path.parent)
    if folder is None:
        raise bad_calibration(
            path, "holds no COLMAP model", "cameras and images, .txt or .bin, must be in one folder", "check the path"
        )
    # Of a folder with both, the text was exported last, by hand.
    text = (folder / "cameras.txt").is_file() and (folder / "images.txt").is_file()
    if text:
        lenses, posed = _cameras_text(folder / "cameras.txt"), _images_text(folder / "images.txt")
    else:
        lenses = _cameras_binary((folder / "cameras.bin").read_bytes())
        posed = _images_binary((folder / "images.bin").read_bytes())
    entries = [
        PosedImage(name, str(camera), _entry(folder, name, lenses, camera, quaternion, translation))
        for name, camera, quaternion, translation in posed
    ]
    return Calibration(folder, "COLMAP", one_view_each(folder, entries, images), None, UNIT)


def _entry(
    path: Path, name: str, lenses: Lenses, camera: int, quaternion: list[float], translation: list[float]
) -> dict[str, Any]:
    if camera not in lenses:
        raise bad_calibration(path, f"image {name} is of camera {camera}", "cameras does not list it")
    kind, size, params = lenses[camera]
    if kind not in MODELS or not MODELS[kind].ours:
        raise bad_calibration(
            path,
            f"camera {camera} has the model {kind}",
            f"known are {', '.join(name for name, model in MODELS.items() if model.ours)}",
            "run COLMAP with --ImageReader.camera_model OPENCV or OPENCV_FISHEYE",
        )
    model = MODELS[kind]
    params = numbers(path, f"the parameters of camera {camera}", params, model.focals + 2 + model.coefficients)
    focal, centre = np.broadcast_to(params[: model.focals], 2), params[model.focals : model.focals + 2] - CORNER
    distortion = params[model.focals + 2 :]
    lens = (model.ours, np.pad(distortion, (0, model.padded - len(distortion))))
    pose = (rotation_from_wxyz(quaternion), np.array(translation, float))
    return camera_entry(None, size, pinhole_matrix(*focal, *centre), lens, pose)


# ---- text ----------------------------------------------------------------------------------------------------------


def _cameras_text(file: Path) -> Lenses:
    lines = [line.split() for line in read_text(file).splitlines() if line.strip() and not line.startswith("#")]
    return {int(w[0]): (w[1], (int(w[2]), int(w[3])), [float(v) for v in w[4:]]) for w in lines}


def _images_text(file: Path) -> Images:
    lines = iter(line for line in read_text(file).splitlines() if not line.startswith("#"))
    images = []
    for line in lines:
        if not line.strip():
            continue
        words = line.split(maxsplit=9)
        values = [float(v) for v in words[1:8]]
        images.append((words[9].strip(), int(words[8]), values[:4], values[4:]))
        next(lines, "")  # the image's points, possibly none
    return images


# ---- binary --------------------------------------------------------------------------------------------------------


def _cameras_binary(data: bytes) -> Lenses:
    (count,), at, lenses = struct.unpack_from("<Q", data), 8, {}
    for _ in range(count):
        camera, kind, width, height = struct.unpack_from("<iiQQ", data, at)
        name, model = dict(enumerate(MODELS.items()))[kind]
        parameters = model.focals + 2 + model.coefficients
        lenses[camera] = (name, (width, height), list(struct.unpack_from(f"<{parameters}d", data, at + 24)))
        at += 24 + 8 * parameters
    return lenses


def _images_binary(data: bytes) -> Images:
    (count,), at, images = struct.unpack_from("<Q", data), 8, []
    for _ in range(count):
        _, *values, camera = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        (points,) = struct.unpack_from("<Q", data, end + 1)
        images.append((data[at + 64 : end].decode(), camera, values[:4], values[4:]))
        at = end + 9 + 24 * points
    return images
