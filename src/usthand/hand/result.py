"""What comes out: joints, mesh, pose and uncertainty of one hand over time, and the file that holds them.

World frame, metres, OpenPose joint order, one explicit side. Every number is finite; what could not be estimated is
marked by `valid` (per frame) and `joint_valid` (per joint), never by NaN.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float, Int

from usthand.common.errors import UsthandError
from usthand.common.files import whole_file
from usthand.hand.skeleton import JOINTS, MANO_TO_OPENPOSE, SIDES

VERSION: Final = 3
KIND: Final = "usthand result"
MM_PER_M: Final = 1000.0
_MIN_SHAPES = 10  # MANO's betas
INTERPOLATED, BY_LABELS, BY_NETWORK = 0, 1, 2
"""What places the hand in a frame (`Result.source`)."""
JOINT_MODELS: Final = ("rigid", "soft", "free")
# x -> -x: the mirror that turns a left hand into a right one.
_MIRROR = np.array([-1.0, 1.0, 1.0])
_RENAMED = {"scale": "unit_source", "joints": "joint_model"}  # since version 1
_LENGTHS = {"joints_world_m": 1, "joints_cov_m2": 2, "vertices_world_m": 1, "translation_m": 1}  # and their powers
_TEXT = ("side", "unit_source", "method", "joint_model")
_SHAPES: dict[str, tuple[str | int, ...]] = {
    "joints_world_m": ("T", 21, 3),
    "joints_cov_m2": ("T", 21, 3, 3),
    "vertices_world_m": ("T", "any", 3),
    "pose": ("T", 48),
    "shape": ("any",),
    "translation_m": ("T", 3),
    "frame": ("T",),
    "valid": ("T",),
    "source": ("T",),
    "joint_valid": ("T", 21),
    "faces": ("any", 3),
    "detector_joints_world_m": ("T", "any", 3),
    "detector_joints_cov_m2": ("T", "any", 3, 3),
    "vertices_cov_m2": ("T", "any", 3, 3),
    "shape_cov": ("any", "any"),
}
_DTYPES = {
    "frame": np.int64,
    "faces": np.int64,
    "valid": bool,
    "joint_valid": bool,
    "source": np.int8,
    "vertices_cov_m2": np.float32,
}
_OPTIONAL = ("detector_joints_world_m", "detector_joints_cov_m2", "vertices_cov_m2")
_MAY_LACK = {
    1: ("unit_m", "source", "shape_cov", *_OPTIONAL),
    2: ("source", "shape_cov", *_OPTIONAL),
    VERSION: (),
}  # fields, in files of each version
# A symmetric matrix is kept in files by its upper triangle, row by row; these are the places of its nine entries there.
_UPPER, _PLACES = np.triu_indices(3), np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
_AGAIN = "make it again with: usthand fit or usthand reconstruct"


@dataclass(frozen=True)
class Result:
    """One hand over T frames, in metres.

    The constructor copies nothing it can keep.

    Raises:
        ValueError: On a wrong shape, a number that is not finite, or an unknown side or joint model.

    Examples:
        >>> import usthand
        >>> result = usthand.load_result("fit.npz")
        >>> result.joint("index_tip")  # (T, 3), metres, world
        >>> result.keep(max_std_mm=5).joint_valid.mean()  # share of the joints that are certain to 5 mm
        >>> result.to_order("mano").shape  # (T, 21, 3) in MANO's order
    """

    joints_world_m: Float[np.ndarray, "T 21 3"]
    """Joints in OpenPose order (`usthand.hand.skeleton.JOINTS`), world frame, metres: those of the hand of `pose` and
    `shape`, unless `joint_model` is "free"."""
    joints_cov_m2: Float[np.ndarray, "T 21 3 3"]
    """Covariance of each joint, world frame, square metres; symmetric."""
    vertices_world_m: Float[np.ndarray, "T vertices 3"]
    """Mesh, world frame, metres; zero vertices for a method that gives joints alone."""
    pose: Float[np.ndarray, "T 48"]
    """MANO's axis-angle pose about the flat hand, radians; the first three numbers turn the whole hand."""
    shape: Float[np.ndarray, "shapes"]
    """Shape coefficients, one set for the sequence, ten or more. The first ten are the hand model's own (MANO's betas).
    The others are this person's proportions (the length of each bone and so on), which an extended hand model adds."""
    translation_m: Float[np.ndarray, "T 3"]
    """MANO's translation, metres."""
    side: str
    """"left" or "right"."""
    frame: Int[np.ndarray, "T"]
    """Frame number in the capture, strictly increasing."""
    valid: Bool[np.ndarray, "T"]
    """False where too few views saw the hand, or saw it from nearly one place: the numbers of that frame are bridged or
    assumed, not measured."""
    joint_valid: Bool[np.ndarray, "T 21"]
    """The same for each joint."""
    unit_source: str
    """How the unit of length is known, in words, such as "metres from the calibration"."""
    metric: bool
    """Whether the calibration had a scale. If not, metres follow from the hand's size: all lengths are wrong by the
    factor by which this hand differs from the mean hand."""
    method: str
    """What made this result, such as "fit" or "usthand"."""
    joint_model: str
    """How the joints belong to the hand of `pose` and `shape`. "rigid": they are its joints, and a detector's are the
    same. "soft": they are its joints, and a detector's lie some millimetres off. "free": nothing ties them to it."""
    cameras: tuple[str, ...]
    """Names of the cameras that were used."""
    faces: Int[np.ndarray, "F 3"] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    """Triangles of the mesh; none means those of the embedded hand."""
    unit_m: float = 1.0
    """Metres in the calibration's own unit; 1.0 where the calibration is metric. This result projects into the cameras
    of `rig.in_metres(result.unit_m)`."""
    detector_joints_world_m: Float[np.ndarray, "T detector_joints 3"] = field(
        default_factory=lambda: np.zeros((0, 0, 3))
    )
    """Where this footage's detector places its joints, which may lie some millimetres off the hand model's; OpenPose
    order, world frame, metres. (T, 0, 3) where that is not known."""
    detector_joints_cov_m2: Float[np.ndarray, "T detector_joints 3 3"] = field(
        default_factory=lambda: np.zeros((0, 0, 3, 3))
    )
    """Covariance of each of these, world frame, square metres, symmetric."""
    vertices_cov_m2: Float[np.ndarray, "T covariances 3 3"] = field(
        default_factory=lambda: np.zeros((0, 0, 3, 3), np.float32)
    )
    """Covariance of each vertex, world frame, square metres, symmetric, single precision. (T, 0, 3, 3) where the method
    gives none."""
    source: Int[np.ndarray, "T"] = field(default_factory=lambda: np.zeros(0, np.int8))
    """What places the hand in each frame: the labels of two views or more (1, also what an empty array means for all
    valid frames); the network alone, where the detector missed the hand (2); or nothing, in frames not valid (0)."""
    shape_cov: Float[np.ndarray, "S S"] = field(default_factory=lambda: np.zeros((0, 0)))
    """Covariance of `shape`; (0, 0) where the method gives none."""
    version: int = VERSION

    def __post_init__(self) -> None:
        time = len(self.joints_world_m)
        if not len(self.source):
            object.__setattr__(self, "source", np.full(time, BY_LABELS))
        for name, wanted in _SHAPES.items():
            array = np.asarray(getattr(self, name), dtype=_DTYPES.get(name, np.float64))
            if name in _OPTIONAL and array.shape[1:2] == (0,):  # also when only the other fields are cut to some frames
                array = array.reshape(time, 0, *array.shape[2:])
            shape = tuple({"T": time, "any": None}.get(w) if isinstance(w, str) else w for w in wanted)
            if array.ndim != len(shape) or any(w not in (None, g) for w, g in zip(shape, array.shape, strict=True)):
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} numbers that are not finite")
            object.__setattr__(self, name, array)
        object.__setattr__(self, "source", np.where(self.valid, self.source, np.int8(INTERPOLATED)))
        self._check_counts()
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

    def _check_counts(self) -> None:
        """Raise `ValueError` where an axis or a code that may have several values has none of them."""
        if len(self.shape) < _MIN_SHAPES:
            raise ValueError(f"shape has {len(self.shape)} coefficients, expected {_MIN_SHAPES} or more")
        if self.shape_cov.shape not in ((0, 0), (len(self.shape),) * 2):
            raise ValueError(f"shape_cov has shape {self.shape_cov.shape}, expected {(len(self.shape),) * 2} or (0, 0)")
        full = dict.fromkeys(_OPTIONAL, len(JOINTS)) | {"vertices_cov_m2": self.vertices_world_m.shape[1]}
        for name in _OPTIONAL:
            count = getattr(self, name).shape[1]
            if count not in (0, full[name]):
                raise ValueError(f"{name} has {count} points, expected {full[name]} or none")
        if not np.isin(self.source, (INTERPOLATED, BY_LABELS, BY_NETWORK)).all():
            raise ValueError("source holds other numbers than 0, 1 and 2")

    def __repr__(self) -> str:
        frames = f"{int(self.valid.sum())} of {len(self)} frames"
        unit = "" if self.metric else ", scale from the hand's size"
        return f"<{frames}, {self.side} hand, {self.method}, {self.joint_model} joints{unit}>"

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def has_mesh(self) -> bool:
        """Whether there are vertices."""
        return self.vertices_world_m.shape[1] > 0

    @property
    def has_vertices_cov(self) -> bool:
        """Whether the vertices have covariances."""
        return self.vertices_cov_m2.shape[1] > 0

    @property
    def std_mm(self) -> Float[np.ndarray, "T 21"]:
        """Standard deviation of each joint along its least certain direction, mm: the root of the largest eigenvalue.

        A joint seen by two neighbouring cameras is uncertain in depth alone; a mean over the axes would hide that.
        """
        return _largest_std_mm(self.joints_cov_m2)

    @property
    def vertices_std_mm(self) -> Float[np.ndarray, "T covariances"]:
        """Standard deviation of each vertex along its least certain direction, mm, as `std_mm` is of the joints.

        (T, 0) where the method gives no covariance of the vertices.
        """
        return _largest_std_mm(self.vertices_cov_m2)

    def joint(self, name: str) -> Float[np.ndarray, "T 3"]:
        """One joint's track in the world, metres.

        Raises:
            ValueError: If there is no joint of this name; the message lists them.
        """
        return self.joints_world_m[:, _joint_index(name)]

    def to_order(self, order: str | Sequence[str]) -> Float[np.ndarray, "T joints 3"]:
        """Joints in another order, metres: an array, not a `Result`, so that an order is never mistaken for ours.

        Args:
            order: "openpose" (ours), "mano" (16 joints, then thumb to little tip), or a list of joint names.

        Raises:
            ValueError: If the order or a joint is unknown.
        """
        if isinstance(order, str) and order not in ("openpose", "mano"):
            raise ValueError(f"unknown joint order {order!r}; known: 'openpose', 'mano', or a list of joint names")
        if order == "openpose":
            return self.joints_world_m.copy()
        ids = np.argsort(MANO_TO_OPENPOSE) if order == "mano" else [_joint_index(name) for name in order]
        return self.joints_world_m[:, ids]

    def keep(self, max_std_mm: float = 5.0) -> Result:
        """The same result with `joint_valid` narrowed to joints whose `std_mm` is at most `max_std_mm`."""
        return replace(self, joint_valid=self.joint_valid & (self.std_mm <= max_std_mm))

    def as_detected(self) -> Result:
        """The same result with the detector's joints for the model's, where they are known.

        Labels of this footage are compared with these: the model's joints lie elsewhere on the hand.
        """
        if not self.detector_joints_cov_m2.shape[1]:
            return self
        found = {"joints_world_m": self.detector_joints_world_m, "joints_cov_m2": self.detector_joints_cov_m2}
        return replace(self, joint_model="free", **found)

    def mirrored(self) -> Result:
        """The exact mirror image, world x -> -x, of the other side.

        A rotation by axis-angle (x, y, z) becomes one by (x, -y, -z); the shape stays, since a left hand model is the
        mirror image of the right one.
        """
        return replace(
            self,
            joints_world_m=self.joints_world_m * _MIRROR,
            joints_cov_m2=self.joints_cov_m2 * np.outer(_MIRROR, _MIRROR),
            detector_joints_world_m=self.detector_joints_world_m * _MIRROR,
            detector_joints_cov_m2=self.detector_joints_cov_m2 * np.outer(_MIRROR, _MIRROR),
            vertices_world_m=self.vertices_world_m * _MIRROR,
            vertices_cov_m2=self.vertices_cov_m2 * np.outer(_MIRROR, _MIRROR),
            pose=self.pose * np.tile(-_MIRROR, 16),
            translation_m=self.translation_m * _MIRROR,
            faces=self.faces[:, ::-1],  # or a mirrored mesh would be inside out
            side=SIDES[1 - SIDES.index(self.side)],
        )

    def save(self, path: str | Path) -> Path:
        """Write an npz that `load_result` and plain `numpy.load` read, whole or not at all; returns its path.

        The file's `vertices_cov_m2` is (T, vertices, 6): xx, xy, xz, yy, yz, zz.
        """
        arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        # Single precision is 0.1 micrometres here and halves the one large array.
        arrays["vertices_world_m"] = self.vertices_world_m.astype(np.float32)
        arrays["vertices_cov_m2"] = self.vertices_cov_m2[..., _UPPER[0], _UPPER[1]]
        arrays["faces"] = self.faces.astype(np.int32)
        arrays["cameras"] = np.array(self.cameras, dtype=np.str_)
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, kind=np.array(KIND), joint_names=np.array(JOINTS), **arrays)
        return Path(path)


def _largest_std_mm(covariance_m2: Float[np.ndarray, "T points 3 3"]) -> Float[np.ndarray, "T points"]:
    """Root of the largest eigenvalue of each matrix, mm."""
    largest = np.linalg.eigvalsh(covariance_m2)[..., -1]
    return MM_PER_M * np.sqrt(np.clip(largest, 0.0, None))


def _joint_index(name: str) -> int:
    if name not in JOINTS:
        raise ValueError(f"unknown joint {name!r}; known: {', '.join(JOINTS)}")
    return JOINTS.index(name)


def load_result(path: str | Path) -> Result:
    """Read what `Result.save` wrote.

    Files of version 1 in a calibration's own unit are converted to metres. Before version 3 the joints of a "soft"
    result were the detector's: they are `detector_joints_world_m` now too, and the result is "free".

    Raises:
        UsthandError: If the file is missing, no result, cut short, edited, or of a later version.

    Examples:
        >>> import usthand
        >>> result = usthand.load_result("fit.npz")
        >>> result.side, result.method, len(result), int(result.valid.sum())
    """
    path = Path(path)
    data = _read_arrays(path)
    version = int(data.get("version", np.array(-1)))
    if not 1 <= version <= VERSION:
        raise UsthandError(
            f"{path} has result version {version}, this program reads versions 1 to {VERSION}",
            "it was written by another release of usthand",
            "make it again with this release, or read it with the one that wrote it",
        )
    if version == 1:
        data = {_RENAMED.get(name, name): value for name, value in data.items()}
    missing = [f.name for f in fields(Result) if f.name not in data and f.name not in _MAY_LACK[version]]
    if missing:
        raise UsthandError(
            f"{path} lacks {', '.join(missing)}", "the file was edited or written by another program", _AGAIN
        )
    kept: dict[str, Any] = {f.name: data[f.name] for f in fields(Result) if f.name in data}
    kept |= {name: str(data[name]) for name in _TEXT}
    kept |= {"cameras": tuple(map(str, data["cameras"])), "metric": bool(data["metric"]), "version": VERSION}
    try:
        kept["unit_m"] = float(data.get("unit_m", np.array(1.0)))
        if version == 1:  # lengths were in the calibration's own unit
            kept |= {name: kept[name] * kept["unit_m"] ** power for name, power in _LENGTHS.items()}
        if version < 3 and kept["joint_model"] == "soft":
            kept |= {"joint_model": "free", "detector_joints_world_m": kept["joints_world_m"]}
            kept["detector_joints_cov_m2"] = kept["joints_cov_m2"]
        if "vertices_cov_m2" in kept:
            kept["vertices_cov_m2"] = _whole_matrices(kept["vertices_cov_m2"])
        return Result(**kept)
    except (ValueError, TypeError) as error:
        raise UsthandError(
            f"{path} holds numbers that are no result: {error}",
            "the file was edited or written by another program",
            _AGAIN,
        ) from error


def _whole_matrices(upper: np.ndarray) -> Float[np.ndarray, "T points 3 3"]:
    """Symmetric matrices from what a file keeps of them.

    Raises:
        ValueError: On a wrong shape.
    """
    if upper.ndim != 3 or upper.shape[2] != len(_UPPER[0]):
        raise ValueError(f"vertices_cov_m2 has shape {upper.shape}, expected (T, vertices, {len(_UPPER[0])})")
    return upper[..., _PLACES]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a result's file, unchecked."""
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
            _AGAIN,
        ) from error
    if str(data.get("kind")) != KIND:
        raise UsthandError(
            f"{path} is no usthand result",
            "it is an npz of another program or another of our files",
            "give the file that usthand fit or usthand reconstruct wrote with --out",
        )
    return data
