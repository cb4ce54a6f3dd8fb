"""Cameras on disk: our own TOML, Caliscope/pyxy3d's and Anipose's.

A rig holds calibrated cameras with `cam_from_world` in metres, OpenCV axes. Values are numpy float64.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usthand.errors import UserError
from usthand.geometry import Cameras, rotation_from_axis_angle

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

RIG_VERSION = 1
METRIC = "metres from the calibration"
MIRROR = np.array([-1.0, 1.0, 1.0])  # a left hand is handled as a right one in the world mirrored along x
PINHOLE_SIZES, FISHEYE_SIZES = (0, 4, 5, 8), (4,)
ROTATION_TOLERANCE = 1e-3  # calibrations are often printed with few digits
RIG_KEYS = {"version", "metric", "scale", "cameras"}
CAMERA_KEYS = {"name", "size", "matrix", "distortion", "model", "rotation", "translation"}


@dataclass(frozen=True)
class Camera:
    """One calibrated camera. Pixel centres lie at integer coordinates."""

    name: str
    width: int
    height: int
    matrix: np.ndarray
    """3x3 intrinsics, px; no skew."""
    distortion: np.ndarray
    """OpenCV's coefficients: 0, 4, 5 or 8 numbers (pinhole), 4 (fisheye)."""
    model: str
    """`pinhole` or `fisheye`."""
    rotation: np.ndarray
    """3x3, cam_from_world."""
    translation: np.ndarray
    """3, cam_from_world, metres."""

    @property
    def centre_world_m(self) -> np.ndarray:
        """Where the camera stands, (3,)."""
        return -self.rotation.T @ self.translation

    def mirrored(self) -> Camera:
        """The camera that sees, in the world mirrored along x, this camera's image mirrored left to right.

        From u -> width-1-u: cx -> width-1-cx; from x -> -x in the world and the camera: R -> MRM, t -> Mt; and the
        tangential term that is odd in x changes its sign (p2).
        """
        matrix, distortion = self.matrix.copy(), self.distortion.copy()
        matrix[0, 2] = self.width - 1 - matrix[0, 2]
        if self.model == "pinhole" and len(distortion) >= 4:
            distortion[3] = -distortion[3]
        return replace(
            self,
            matrix=matrix,
            distortion=distortion,
            rotation=MIRROR[:, None] * self.rotation * MIRROR,
            translation=MIRROR * self.translation,
        )


@dataclass(frozen=True)
class Rig:
    """Cameras that share one world frame."""

    cameras: tuple[Camera, ...]
    metric: bool = True
    """False where the calibration has no true scale: lengths are then in its own unit."""
    scale: str = METRIC
    """In words, where the scale comes from."""

    def __len__(self) -> int:
        return len(self.cameras)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @property
    def widths(self) -> np.ndarray:
        """(V,) px."""
        return np.array([camera.width for camera in self.cameras])

    def index(self, name: str) -> int:
        """The position of a camera.

        Raises:
            UserError: if the rig has no camera of that name.
        """
        if name not in self.names:
            raise UserError(
                f"the rig has no camera {name!r}",
                f"its cameras are {', '.join(self.names)}",
                "give one of these names, or add the camera to rig.toml",
            )
        return self.names.index(name)

    def without(self, name: str) -> Rig:
        """The rig less one camera."""
        self.index(name)
        return replace(self, cameras=tuple(c for c in self.cameras if c.name != name))

    def mirrored(self) -> Rig:
        """The rig that sees the mirrored world; see `Camera.mirrored`."""
        return replace(self, cameras=tuple(c.mirrored() for c in self.cameras))

    def tensors(self, dtype: torch.dtype = torch.float32) -> Cameras:
        """All cameras as tensors (V, ...)."""
        intrinsics = [(c.matrix[0, 0], c.matrix[1, 1], c.matrix[0, 2], c.matrix[1, 2]) for c in self.cameras]
        distortion = np.zeros((len(self), 8))
        for row, camera in zip(distortion, self.cameras, strict=True):
            row[: len(camera.distortion)] = camera.distortion
        cam_from_world = np.stack([np.c_[c.rotation, c.translation] for c in self.cameras])
        return Cameras(
            torch.tensor(cam_from_world, dtype=dtype),
            torch.tensor(intrinsics, dtype=dtype),
            torch.tensor(distortion, dtype=dtype),
            torch.tensor([c.model == "fisheye" for c in self.cameras]),
        )


# ---- reading ------------------------------------------------------------------------------------------------------


def _bad_rig(path: Path, fact: str, cause: str) -> UserError:
    return UserError(f"{path}: {fact}", cause, "mend the file, or export the calibration again")


def load_rig(path: str | Path) -> Rig:
    """Read a rig; the format (ours, Caliscope/pyxy3d, Anipose) is recognised by its keys.

    Raises:
        UserError: if the file is missing, is none of these formats, has an unknown key or an impossible value.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there is no {path}", "a capture needs its calibration", f"copy the cameras' calibration to {path}"
        )
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad_rig(path, f"is not TOML ({error})", "the file is damaged or of another format") from None
    rig = _read_own(path, data) if isinstance(data.get("cameras"), list) else _read_foreign(path, data)
    if len(set(rig.names)) != len(rig):
        raise _bad_rig(path, "names a camera twice", "each camera needs a name of its own")
    return rig


def _read_own(path: Path, data: dict[str, Any]) -> Rig:
    _refuse_unknown(path, set(data) - RIG_KEYS, RIG_KEYS)
    if data.get("version", RIG_VERSION) != RIG_VERSION:
        raise _bad_rig(path, f"has version {data['version']}", f"this program reads version {RIG_VERSION}")
    cameras = []
    for number, entry in enumerate(data["cameras"]):
        _refuse_unknown(path, set(entry) - CAMERA_KEYS, CAMERA_KEYS)
        cameras.append(_camera(path, entry, entry.get("name", f"cam_{number}")))
    return Rig(tuple(cameras), bool(data.get("metric", True)), str(data.get("scale", METRIC)))


def _refuse_unknown(path: Path, unknown: set[str], known: set[str]) -> None:
    if unknown:
        raise _bad_rig(path, f"has the unknown key {min(unknown)!r}", f"the keys are {', '.join(sorted(known))}")


def _read_foreign(path: Path, data: dict[str, Any]) -> Rig:
    """Caliscope/pyxy3d ([cam_N] or [cameras.N], rotation 3x3, metres) and Anipose ([cam_N], rotation vector)."""
    tables = data["cameras"] if isinstance(data.get("cameras"), dict) else data
    found = {
        key: entry
        for key, entry in tables.items()
        if isinstance(entry, dict) and "matrix" in entry and "rotation" in entry and not entry.get("ignore", False)
    }
    if not found:
        raise _bad_rig(path, "holds no camera", "neither [[cameras]] nor [cam_0] with matrix and rotation are there")
    cameras, anipose = [], False
    for key in sorted(found, key=_natural):
        entry = dict(found[key])
        vector = np.size(entry["rotation"]) == 3
        # Caliscope too stores rotation vectors in some versions; only Anipose has its `name` beside them.
        anipose = anipose or (vector and "name" in entry)
        entry["distortion"] = entry.get("distortions", entry.get("distortion", []))
        entry["model"] = "fisheye" if entry.get("fisheye", False) else "pinhole"
        name = str(entry["name"]) if anipose and "name" in entry else key if key.startswith("cam") else f"cam_{key}"
        cameras.append(_camera(path, entry, name))
    if anipose:
        return Rig(tuple(cameras), False, "unit of the calibration board (Anipose files do not say which)")
    return Rig(tuple(cameras))


def _natural(key: str) -> tuple[str, int]:
    """cam_2 before cam_10, which string order turns round."""
    digits = "".join(ch for ch in key if ch.isdigit())
    return key.rstrip("0123456789"), int(digits or 0)


def _camera(path: Path, entry: dict[str, Any], name: str) -> Camera:
    try:
        width, height = (int(n) for n in entry["size"])
        matrix = np.array(entry["matrix"], float).reshape(3, 3)
        distortion = np.array(entry.get("distortion", []), float).reshape(-1)
        rotation = np.array(entry["rotation"], float)
        translation = np.array(entry["translation"], float).reshape(3)
        if rotation.size == 3:
            rotation = rotation_from_axis_angle(torch.from_numpy(rotation.reshape(3))).numpy()
        rotation = rotation.reshape(3, 3)
    except (KeyError, ValueError, TypeError) as error:
        raise _bad_rig(path, f"camera {name!r} cannot be read ({error})", "a key is missing or misshapen") from None
    return _checked(path, Camera(name, width, height, matrix, distortion, entry.get("model", "pinhole"), rotation, translation))


def _checked(path: Path, camera: Camera) -> Camera:
    """Values that no camera has are refused here, so that nothing later meets NaN or a left-handed frame."""
    who = f"camera {camera.name!r}"
    arrays = (camera.matrix, camera.distortion, camera.rotation, camera.translation)
    if not all(np.isfinite(a).all() for a in arrays):
        raise _bad_rig(path, f"{who} has a value that is not finite", "the calibration failed for it")
    if min(camera.width, camera.height, camera.matrix[0, 0], camera.matrix[1, 1]) <= 0:
        raise _bad_rig(path, f"{who} has a size or focal length of zero or less", "the calibration failed for it")
    sizes = {"pinhole": PINHOLE_SIZES, "fisheye": FISHEYE_SIZES}.get(camera.model)
    if sizes is None:
        raise _bad_rig(path, f"{who} has the lens model {camera.model!r}", "known are pinhole and fisheye")
    if len(camera.distortion) not in sizes:
        count = len(camera.distortion)
        raise _bad_rig(path, f"{who} has {count} distortion coefficients", f"{camera.model} lenses have one of {sizes}")
    error = np.abs(camera.rotation @ camera.rotation.T - np.eye(3)).max()
    if error > ROTATION_TOLERANCE or np.linalg.det(camera.rotation) < 0:
        raise _bad_rig(path, f"the rotation of {who} is none", "it is mirrored, scaled, or rows and columns are mixed up")
    u, _, vh = np.linalg.svd(camera.rotation)
    return replace(camera, rotation=u @ vh)


# ---- writing ------------------------------------------------------------------------------------------------------


def _numbers(values: np.ndarray) -> str:
    if values.ndim > 1:
        return "[" + ", ".join(_numbers(row) for row in values) + "]"
    return "[" + ", ".join(repr(float(v)) for v in values) + "]"


def save_rig(rig: Rig, path: str | Path) -> None:
    """Write our own TOML. Numbers keep their full precision."""
    lines = [f"version = {RIG_VERSION}", f"metric = {str(rig.metric).lower()}", f'scale = "{rig.scale}"']
    for camera in rig.cameras:
        lines += [
            "",
            "[[cameras]]",
            f'name = "{camera.name}"',
            f"size = [{camera.width}, {camera.height}]  # px",
            f'model = "{camera.model}"',
            f"matrix = {_numbers(camera.matrix)}",
            f"distortion = {_numbers(camera.distortion)}",
            f"rotation = {_numbers(camera.rotation)}  # cam_from_world",
            f"translation = {_numbers(camera.translation)}  # cam_from_world, metres",
        ]
    Path(path).write_text("\n".join(lines) + "\n")
