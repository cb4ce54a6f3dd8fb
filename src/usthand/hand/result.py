"""What comes out: joints, mesh, pose and uncertainty of one hand over time, and the file that holds them.

World frame, metres, OpenPose joint order, one explicit side. Every number is finite; what could not be estimated is
marked by ``valid`` (per frame) and ``joint_valid`` (per joint), never by NaN.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from usthand.common.errors import UsthandError
from usthand.hand.skeleton import JOINTS, MANO_TO_OPENPOSE, SIDES

VERSION = 2
RENAMED = {"scale": "unit_source", "joints": "joint_model"}  # of version 1
KIND = "usthand result"
MM_PER_M = 1000.0
# x -> -x: the mirror that turns a left hand into a right one.
_MIRROR = np.array([-1.0, 1.0, 1.0])
_TEXT = ("side", "unit_source", "method", "joint_model")
JOINT_MODELS = ("rigid", "soft", "free")


@dataclass(frozen=True)
class Result:
    """One hand over T frames. The constructor copies nothing it can keep, and raises ValueError on a wrong
    shape or a number that is not finite."""

    joints_world_m: Float[np.ndarray, "T 21 3"]
    """Joints in OpenPose order (`usthand.hand.skeleton.JOINTS`), world frame, metres."""
    joints_cov_m2: Float[np.ndarray, "T 21 3 3"]
    """Covariance of each joint, world frame, square metres; symmetric."""
    vertices_world_m: Float[np.ndarray, "T vertices 3"]
    """Mesh, world frame, metres; zero vertices for a method that gives joints alone."""
    pose: Float[np.ndarray, "T 48"]
    """MANO's axis-angle pose about the flat hand, radians; the first three numbers turn the whole hand."""
    shape: Float[np.ndarray, "10"]
    """Shape coefficients, one set for the sequence."""
    translation_m: Float[np.ndarray, "T 3"]
    """MANO's translation, metres."""
    side: str
    """"left" or "right"."""
    frame: Int[np.ndarray, "T"]
    """Frame number in the capture, strictly increasing."""
    valid: Bool[np.ndarray, "T"]
    """False where too few views saw the hand: the numbers of that frame are a bridge, not a measurement."""
    joint_valid: Bool[np.ndarray, "T 21"]
    """The same for each joint."""
    unit_source: str
    """Where the unit of length comes from, in words, such as "metres from the calibration"."""
    metric: bool
    """Whether a metre here is a real metre."""
    method: str
    """What made this result, such as "fit" or "usthand"."""
    joint_model: str
    """How the joints belong to the hand of `pose` and `shape`: "rigid", they are its joints; "soft", they may leave them
    by some millimetres, where a detector's joints are not the model's; "free", nothing holds them."""
    cameras: tuple[str, ...]
    """Names of the cameras that were used."""
    faces: Int[np.ndarray, "F 3"] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    """Triangles of the mesh; none means those of the embedded hand."""
    unit_m: float = 1.0
    """Metres in this result's unit of length. Where the rig has no scale (`metric` is False) lengths are in its own unit, and this
    is how long that is if the hand is of mean size; whatever is named in millimetres follows from it."""
    version: int = VERSION

    def __post_init__(self) -> None:
        time = np.asarray(self.joints_world_m).shape[0]
        wanted = {
            "joints_world_m": (time, 21, 3),
            "joints_cov_m2": (time, 21, 3, 3),
            "vertices_world_m": (time, None, 3),
            "pose": (time, 48),
            "shape": (10,),
            "translation_m": (time, 3),
            "frame": (time,),
            "valid": (time,),
            "joint_valid": (time, 21),
            "faces": (None, 3),
        }
        for name, shape in wanted.items():
            dtype = {"frame": np.int64, "faces": np.int64, "valid": bool, "joint_valid": bool}.get(name, np.float64)
            array = np.asarray(getattr(self, name), dtype=dtype)
            if array.ndim != len(shape) or any(w not in (None, g) for w, g in zip(shape, array.shape, strict=True)):
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            if dtype is np.float64 and not np.isfinite(array).all():
                raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} numbers that are not finite")
            object.__setattr__(self, name, array)
        if self.side not in SIDES:
            raise ValueError(f"side is {self.side!r}, expected 'left' or 'right'")
        if self.joint_model not in JOINT_MODELS:
            raise ValueError(f"joint_model is {self.joint_model!r}, expected one of {', '.join(JOINT_MODELS)}")
        if self.faces.size and self.faces.max() >= self.vertices_world_m.shape[1]:
            raise ValueError("faces name vertices that the mesh does not have")
        if (np.diff(self.frame) <= 0).any():
            raise ValueError("frame numbers must increase")
        if not (np.isfinite(self.unit_m) and self.unit_m > 0):
            raise ValueError(f"a unit of {self.unit_m} m is no length")
        object.__setattr__(self, "metric", bool(self.metric))
        object.__setattr__(self, "unit_m", float(self.unit_m))
        object.__setattr__(self, "cameras", tuple(str(name) for name in self.cameras))

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def has_mesh(self) -> bool:
        """Whether there are vertices; raw triangulation may give joints alone."""
        return self.vertices_world_m.shape[1] > 0

    @property
    def std_mm(self) -> Float[np.ndarray, "T 21"]:
        """Standard deviation of each joint along its least certain direction, mm: the root of the covariance's
        largest eigenvalue. A joint seen by two neighbouring cameras is bad in depth alone; this is what tells."""
        largest = np.linalg.eigvalsh(self.joints_cov_m2)[..., -1]
        return MM_PER_M * self.unit_m * np.sqrt(np.clip(largest, 0.0, None))

    def joint(self, name: str) -> Float[np.ndarray, "T 3"]:
        """One joint's track in the world, metres. ValueError, with the known names, for an unknown one."""
        return self.joints_world_m[:, _joint_index(name)]

    def to_order(self, order: str | Sequence[str]) -> Float[np.ndarray, "T joints 3"]:
        """Joints in another order: "openpose" (ours), "mano" (16 joints of the model, then thumb to little tip), or
        any list of joint names. An array, not a Result, so that an order is never mistaken for ours."""
        if isinstance(order, str) and order not in ("openpose", "mano"):
            raise ValueError(f"unknown joint order {order!r}; known: 'openpose', 'mano', or a list of joint names")
        if order == "openpose":
            return self.joints_world_m.copy()
        ids = np.argsort(MANO_TO_OPENPOSE) if order == "mano" else [_joint_index(name) for name in order]
        return self.joints_world_m[:, ids]

    def keep(self, max_std_mm: float = 5.0) -> Result:
        """The same result with ``joint_valid`` narrowed to joints whose `std_mm` is at most ``max_std_mm``."""
        return replace(self, joint_valid=self.joint_valid & (self.std_mm <= max_std_mm))

    def mirrored(self) -> Result:
        """The exact mirror, world x -> -x, with the other side: how a left hand becomes a right one and back.

        A rotation by axis-angle (x, y, z) becomes one by (x, -y, -z); shape stays, since a left hand model is the
        mirror of the right one."""
        return replace(
            self,
            joints_world_m=self.joints_world_m * _MIRROR,
            joints_cov_m2=self.joints_cov_m2 * _MIRROR[:, None] * _MIRROR,
            vertices_world_m=self.vertices_world_m * _MIRROR,
            pose=self.pose * np.tile(-_MIRROR, 16),
            translation_m=self.translation_m * _MIRROR,
            faces=self.faces[:, ::-1],  # or a mirrored mesh would be inside out
            side=SIDES[1 - SIDES.index(self.side)],
        )

    def save(self, path: str | Path) -> Path:
        """Write an npz that `load_result` reads (also plain ``numpy.load``: no pickled object in it); returns its path.
        The file appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        # Single precision is 0.1 micrometres here and halves the one large array.
        arrays["vertices_world_m"] = self.vertices_world_m.astype(np.float32)
        arrays["faces"] = self.faces.astype(np.int32)
        arrays["cameras"] = np.array(self.cameras, dtype=np.str_)
        # A temporary name per process: two runs into one folder never tear each other's file.
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez_compressed(file, kind=np.array(KIND), joint_names=np.array(JOINTS), **arrays)
        part.replace(path)
        return path


def _joint_index(name: str) -> int:
    if name not in JOINTS:
        raise ValueError(f"unknown joint {name!r}; known: {', '.join(JOINTS)}")
    return JOINTS.index(name)


def load_result(path: str | Path) -> Result:
    """Read what `Result.save` wrote. UsthandError if the file is missing, no result, cut short, or of another version."""
    path = Path(path)
    if not path.is_file():
        raise UsthandError(
            f"{path} does not exist",
            "the name is wrong or nothing was reconstructed yet",
            f"make it with: usthand fit CAPTURE --out {path}",
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files} if hasattr(file, "files") else {}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, AttributeError, TypeError) as error:
        raise UsthandError(
            f"{path} cannot be read as a result file",
            "it is another kind of file, or was cut short while it was written or copied",
            "make it again with: usthand fit or usthand reconstruct",
        ) from error
    if str(data.get("kind")) != KIND:
        raise UsthandError(
            f"{path} is no usthand result",
            "it is an npz of another program or another of our files",
            "give the file that usthand fit or usthand reconstruct wrote with --out",
        )
    version = int(data.get("version", -1))
    if version == 1:
        data = {RENAMED.get(name, name): value for name, value in data.items()}
    elif version != VERSION:
        raise UsthandError(
            f"{path} has result version {version}, this program reads versions 1 to {VERSION}",
            "it was written by another release of usthand",
            "make it again with this release, or read it with the one that wrote it",
        )
    data.setdefault("unit_m", np.array(1.0))  # files of before it was kept
    missing = [f.name for f in fields(Result) if f.name not in data]
    if missing:
        raise UsthandError(
            f"{path} lacks {', '.join(missing)}",
            "the file was edited or written by another program",
            "make it again with: usthand fit or usthand reconstruct",
        )
    kept = {f.name: data[f.name] for f in fields(Result)}
    kept |= {name: str(kept[name]) for name in _TEXT}
    kept |= {"cameras": tuple(map(str, kept["cameras"])), "metric": bool(kept["metric"]), "version": VERSION}
    try:
        return Result(**kept)
    except (ValueError, TypeError) as error:
        raise UsthandError(
            f"{path} holds numbers that are no result: {error}",
            "the file was edited or written by another program",
            "make it again with: usthand fit or usthand reconstruct",
        ) from error
