"""Cameras on disk: our own TOML, and through `usthand.capture.calibration` that of others.

A rig holds calibrated cameras: cam_from_world, OpenCV axes, lengths in metres unless `Rig.metric` is False. Values are
NumPy float64.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from usthand.capture.calibration.base import Calibration, bad_calibration
from usthand.capture.calibration.caliscope_anipose import read_tables
from usthand.common.errors import UsthandError
from usthand.common.files import write_toml
from usthand.geometry.cameras import Cameras
from usthand.geometry.lenses import DOUBLE_SPHERE, FISHEYE, FISHEYE624, MAX_COEFFICIENTS, PINHOLE, THIN_PRISM
from usthand.geometry.rotations import rotation_matrix

RIG_VERSION = 1
METRIC = "metres from the calibration"
MIRROR = np.array([-1.0, 1.0, 1.0])  # a left hand is handled as a right one in the world mirrored along x
LENSES = {"pinhole": (0, 4, 5, 8, 12), "fisheye": (4,), "fisheye624": (12,), "double_sphere": (2,)}
"""Lens models and how many coefficients each may have."""
ROTATION_TOLERANCE = 1e-3  # calibrations are often printed with few digits
SKEW_TOLERANCE_PX = 0.5
RIG_KEYS = {"version", "metric", "scale", "cameras"}
CAMERA_KEYS = {"name", "size", "matrix", "distortion", "model", "rotation", "translation"}


@dataclass(frozen=True)
class Camera:
    """One calibrated camera. Pixel centres lie at integer coordinates.

    Examples:
        >>> import usthand
        >>> camera = usthand.load_calibration("config.toml").cameras[0]
        >>> camera.name, camera.size, camera.matrix[0, 0]  # name, (width, height) in px, focal length in px
        >>> camera.centre_world  # where it stands, in the rig's unit of length
    """

    name: str
    width: int
    height: int
    matrix: Float[np.ndarray, "3 3"]
    """Intrinsics, px; no skew."""
    distortion: Float[np.ndarray, "_"]
    """OpenCV's coefficients: 0, 4, 5, 8 or 12 numbers (pinhole), 4 (fisheye); Meta's twelve (fisheye624): k1 to k6, p1,
    p2, s1 to s4; or xi and alpha (double_sphere)."""
    model: str
    """`pinhole`, `fisheye`, `fisheye624` or `double_sphere`; `usthand.geometry.lenses` has the formulas."""
    rotation: Float[np.ndarray, "3 3"]
    """Cam_from_world."""
    translation: Float[np.ndarray, "3"]
    """Cam_from_world, in the rig's unit of length."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.width, self.height

    @property
    def centre_world(self) -> Float[np.ndarray, "3"]:
        """Where the camera stands, in the rig's unit of length."""
        return -self.rotation.T @ self.translation

    @property
    def lens(self) -> int:
        """The code of the lens in `Cameras.lens`."""
        if self.model == "pinhole":
            return PINHOLE if len(self.distortion) <= 8 else THIN_PRISM
        return {"fisheye": FISHEYE, "fisheye624": FISHEYE624, "double_sphere": DOUBLE_SPHERE}[self.model]

    @property
    def coefficients(self) -> Float[np.ndarray, "12"]:
        """The distortion padded with zeros."""
        return np.pad(np.asarray(self.distortion, float), (0, MAX_COEFFICIENTS - len(self.distortion)))

    def mirrored(self) -> Camera:
        """The camera that sees, in the world mirrored along x, this camera's image mirrored left to right.

        From u -> width-1-u: cx -> width-1-cx; from x -> -x in the world and the camera: R -> MRM, t -> Mt; and the lens
        terms that shift x by something even in x change their sign: one tangential coefficient (OpenCV's p2, Meta's p1)
        and the thin prism's s1 and s2.
        """
        matrix, distortion = self.matrix.copy(), self.distortion.copy()
        matrix[0, 2] = self.width - 1 - matrix[0, 2]
        if self.model == "pinhole":
            distortion[3:4] *= -1
            distortion[8:10] *= -1
        elif self.model == "fisheye624":
            distortion[[6, 8, 9]] *= -1
        rotation, translation = MIRROR[:, None] * self.rotation * MIRROR, MIRROR * self.translation
        return replace(self, matrix=matrix, distortion=distortion, rotation=rotation, translation=translation)


@dataclass(frozen=True)
class Rig:
    """Cameras that share one world frame.

    Examples:
        >>> import torch, usthand
        >>> from usthand.geometry.cameras import project
        >>> rig = usthand.open_capture("clip").rig
        >>> rig.names, rig.unit_source
        >>> uv_px, depth_m = project(rig.tensors(), torch.zeros(1, 3))  # where each camera sees the world's origin
    """

    cameras: tuple[Camera, ...]
    metric: bool = True
    """False where the calibration has no true scale: lengths are then in its own unit."""
    unit_source: str = METRIC
    """In words, where the unit of length comes from."""

    def __len__(self) -> int:
        return len(self.cameras)

    def in_metres(self, unit_m: float, unit_source: str = "") -> Rig:
        """The rig with its lengths in metres; itself if it is metric.

        Args:
            unit_m: Metres in the calibration's own unit, such as `Result.unit_m`.
            unit_source: How that is known, in words; by default what the rig says of its own unit.
        """
        return self if self.metric else self.rescaled(unit_m, unit_source or self.unit_source)

    def rescaled(self, metres_per_unit: float, unit_source: str) -> Rig:
        """A metric rig, with all lengths times `metres_per_unit` whatever the calibration says of its unit."""
        cameras = tuple(replace(c, translation=c.translation * metres_per_unit) for c in self.cameras)
        return Rig(cameras, True, unit_source)

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras' names, in order."""
        return tuple(camera.name for camera in self.cameras)

    @property
    def widths(self) -> Int[np.ndarray, "V"]:
        """Widths of the images, px."""
        return np.array([camera.width for camera in self.cameras])

    def index(self, name: str) -> int:
        """The position of a camera.

        Raises:
            UsthandError: If the rig has no camera of that name.
        """
        if name not in self.names:
            raise UsthandError(
                f"the rig has no camera {name!r}",
                f"its cameras are {', '.join(self.names)}",
                "give one of these names, or add the camera to rig.toml",
            )
        return self.names.index(name)

    def without(self, name: str) -> Rig:
        """The rig without one camera."""
        self.index(name)
        return replace(self, cameras=tuple(c for c in self.cameras if c.name != name))

    def mirrored(self) -> Rig:
        """The rig that sees the mirrored world; see `Camera.mirrored`."""
        return replace(self, cameras=tuple(c.mirrored() for c in self.cameras))

    def tensors(self, dtype: torch.dtype = torch.float32) -> Cameras:
        """All cameras as tensors (V, ...)."""
        intrinsics = [(c.matrix[0, 0], c.matrix[1, 1], c.matrix[0, 2], c.matrix[1, 2]) for c in self.cameras]
        cam_from_world = np.stack([np.c_[c.rotation, c.translation] for c in self.cameras])
        return Cameras(
            torch.tensor(cam_from_world, dtype=dtype),
            torch.tensor(intrinsics, dtype=dtype),
            torch.tensor(np.stack([c.coefficients for c in self.cameras]), dtype=dtype),
            torch.tensor([c.lens for c in self.cameras]),
        )


# ---- reading ------------------------------------------------------------------------------------------------------


def load_rig(path: str | Path) -> Rig:
    """Read rig.toml: our own, or a Caliscope, Anipose or FreeMoCap file in its place, recognised by its keys.

    Raises:
        UsthandError: If the file is missing, is none of these formats, has an unknown key or an impossible value.
    """
    path = Path(path)
    if not path.is_file():
        raise UsthandError(
            f"there is no {path}",
            "a capture needs its calibration",
            "make the capture with `usthand init VIDEOS --calibration FILE --out CAPTURE`",
        )
    return build_rig(read_toml(path))


def read_toml(path: Path, fmt: str = "auto") -> Calibration | Rig:
    """A TOML file of cameras: a checked `Rig` from our own, a `Calibration` from another program's.

    Raises:
        UsthandError: As `load_rig`.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise bad_calibration(path, f"is not TOML ({error})", "the file is damaged or of another format") from None
    return _read_own(path, data) if isinstance(data.get("cameras"), list) else read_tables(path, data, fmt)


def _read_own(path: Path, data: dict[str, Any]) -> Rig:
    _refuse_unknown(path, set(data) - RIG_KEYS, RIG_KEYS)
    if data.get("version", RIG_VERSION) != RIG_VERSION:
        raise bad_calibration(path, f"has version {data['version']}", f"this program reads version {RIG_VERSION}")
    cameras = []
    for number, entry in enumerate(data["cameras"]):
        _refuse_unknown(path, set(entry) - CAMERA_KEYS, CAMERA_KEYS)
        cameras.append(_camera(path, entry, entry.get("name", f"cam_{number}")))
    return _unique(path, Rig(tuple(cameras), bool(data.get("metric", True)), str(data.get("scale", METRIC))))


def _refuse_unknown(path: Path, unknown: set[str], known: set[str]) -> None:
    if unknown:
        raise bad_calibration(path, f"has the unknown key {min(unknown)!r}", f"the keys are {', '.join(sorted(known))}")


def build_rig(
    found: Calibration | Rig, scale: float | None = None, sizes: Mapping[str, tuple[int, int]] | None = None
) -> Rig:
    """A checked rig in metres, or in the file's own unit if nobody says how long that is (`Rig.metric` is then False).

    Args:
        found: What the file says; a `Rig` is checked already.
        scale: Metres per unit of the file; overrides what the file says.
        sizes: Width and height (px) of cameras by name, for files that do not say; the file's own come first.

    Raises:
        UsthandError: If the scale is no positive number, a size is missing, or a camera is impossible.
    """
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise UsthandError(
            f"the scale {scale:g} is no length", "it is the number of metres in one unit", "give a positive number"
        )
    given = f"{scale:g} m for each unit of the calibration, as given with --scale" if scale is not None else ""
    if isinstance(found, Rig):
        return found if scale is None else found.rescaled(scale, given)
    cameras = tuple(_camera(found.path, _sized(found, entry, sizes or {}), entry["name"]) for entry in found.cameras)
    rig = _unique(found.path, Rig(cameras))
    if scale is not None:
        return rig.rescaled(scale, given)
    if found.metres_per_unit is None:
        return replace(rig, metric=False, unit_source=found.unit)
    if found.metres_per_unit == 1:
        return rig
    return rig.rescaled(found.metres_per_unit, f"{found.unit} from the calibration ({found.format})")


def _sized(found: Calibration, entry: dict[str, Any], sizes: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The entry with its size: the file's, or else that of its video."""
    if entry.get("size", ()) is not None:
        return entry
    if entry["name"] not in sizes:
        raise bad_calibration(
            found.path,
            f"does not say the size of camera {entry['name']!r}",
            f"{found.format} files need not",
            "read it together with its videos by `usthand init`, whose size is then taken",
        )
    return {**entry, "size": sizes[entry["name"]]}


def _unique(path: Path, rig: Rig) -> Rig:
    if len(set(rig.names)) != len(rig):
        raise bad_calibration(path, "names a camera twice", "each camera needs a name of its own")
    return rig


def _camera(path: Path, entry: dict[str, Any], name: str) -> Camera:
    try:
        width, height = (int(n) for n in entry["size"])
        matrix = np.array(entry["matrix"], float).reshape(3, 3)
        distortion = np.array(entry.get("distortion", []), float).reshape(-1)
        rotation = np.array(entry["rotation"], float)
        translation = np.array(entry["translation"], float).reshape(3)
        if rotation.size == 3:
            rotation = rotation_matrix(rotation.reshape(3))
        rotation = rotation.reshape(3, 3)
    except (KeyError, ValueError, TypeError) as error:
        raise bad_calibration(
            path, f"camera {name!r} cannot be read ({error})", "a key is missing or misshapen"
        ) from None
    return _checked(
        path, Camera(name, width, height, matrix, distortion, entry.get("model", "pinhole"), rotation, translation)
    )


def _checked(path: Path, camera: Camera) -> Camera:
    """Values that no camera has are refused here, so that nothing later meets NaN or a left-handed frame."""
    who = f"camera {camera.name!r}"
    arrays = (camera.matrix, camera.distortion, camera.rotation, camera.translation)
    if not all(np.isfinite(a).all() for a in arrays):
        raise bad_calibration(path, f"{who} has a value that is not finite", "the calibration failed for it")
    if min(camera.width, camera.height, camera.matrix[0, 0], camera.matrix[1, 1]) <= 0:
        raise bad_calibration(
            path, f"{who} has a size or focal length of zero or less", "the calibration failed for it"
        )
    # In px at the image's edge: the skew shifts x by this much for each unit of y.
    skew_px = abs(camera.matrix[0, 1]) * camera.height / (2 * camera.matrix[1, 1])
    if skew_px > SKEW_TOLERANCE_PX or np.abs(camera.matrix[[1, 2, 2], [0, 0, 1]]).max() > 0 or camera.matrix[2, 2] != 1:
        raise bad_calibration(
            path,
            f"the matrix of {who} has more than focal lengths and a centre",
            "it has skew, or rows and columns are mixed up",
        )
    sizes = LENSES.get(camera.model)
    if sizes is None:
        raise bad_calibration(path, f"{who} has the lens model {camera.model!r}", f"known are {', '.join(LENSES)}")
    if len(camera.distortion) not in sizes:
        count = len(camera.distortion)
        raise bad_calibration(
            path, f"{who} has {count} distortion coefficients", f"{camera.model} lenses have one of {sizes}"
        )
    if camera.model == "double_sphere" and not (camera.distortion[0] > -1 and 0 <= camera.distortion[1] <= 1):
        raise bad_calibration(
            path,
            f"{who} has xi {camera.distortion[0]:g} and alpha {camera.distortion[1]:g}",
            "xi is above -1 and alpha between 0 and 1; they come in this order",
        )
    error = np.abs(camera.rotation @ camera.rotation.T - np.eye(3)).max()
    if error > ROTATION_TOLERANCE or np.linalg.det(camera.rotation) < 0:
        raise bad_calibration(
            path, f"the rotation of {who} is none", "it is mirrored, scaled, or rows and columns are mixed up"
        )
    u, _, vh = np.linalg.svd(camera.rotation)
    return replace(camera, rotation=u @ vh)


# ---- writing ------------------------------------------------------------------------------------------------------


def save_rig(rig: Rig, path: str | Path) -> None:
    """Write our own TOML. Numbers keep their full precision."""
    unit = "metres" if rig.metric else "the calibration's own unit"
    cameras = [
        {
            "name": camera.name,
            "size": list(camera.size),
            "model": camera.model,
            "matrix": camera.matrix.tolist(),
            "distortion": camera.distortion.tolist(),
            "rotation": camera.rotation.tolist(),
            "translation": camera.translation.tolist(),
        }
        for camera in rig.cameras
    ]
    data = {"version": RIG_VERSION, "metric": rig.metric, "scale": rig.unit_source, "cameras": cameras}
    write_toml(path, data, f"size and matrix: px; rotation and translation: cam_from_world, {unit}")
