"""What a synthetic capture or a data set knows of its hands. For metrics alone: nothing that learns imports this."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from usthand.common.errors import UsthandError

VERSION = 2
"""Of files with a mesh that is not our hand model's; the others have no number."""
OF_OTHER_MESHES = ("faces", "joint_definition")


@dataclass(frozen=True)
class Truth:
    """Ground truth of a synthetic capture or a data set: for metrics only. No network and no loss takes this type.

    Where a data set has no meshes or no poses, those arrays have no rows. Frames without truth are zeros, not valid.
    """

    joints_world_m: Float[np.ndarray, "T 21 3"]
    vertices_world_m: Float[np.ndarray, "mesh_T vertices 3"]
    visible: Bool[np.ndarray, "T V 21"]
    pose: Float[np.ndarray, "pose_T 48"]
    """Axis-angle, radians, flat-hand mean; the first three numbers turn the whole hand."""
    shape: Float[np.ndarray, "shape"]
    """Ten coefficients, or none."""
    translation_m: Float[np.ndarray, "translation_T 3"]
    valid: Bool[np.ndarray, "T"] = field(default_factory=lambda: np.zeros(0, bool))
    """Frames that have truth; an empty array is turned into all of them."""
    faces: Int[np.ndarray, "F 3"] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    """Triangles of the vertices, counter-clockwise seen from outside; none where they are our hand model's. A mesh with
    faces of its own is another hand than ours: vertices do not correspond, surfaces are compared."""
    joint_definition: str = ""
    """What the 21 joints are, in words; empty where they are our hand model's or a data set's."""

    def __post_init__(self) -> None:
        count = len(self.joints_world_m)
        valid = np.asarray(self.valid, bool) if len(self.valid) else np.ones(count, bool)
        object.__setattr__(self, "valid", valid)
        if valid.shape != (count,) or len(self.vertices_world_m) not in (0, count):
            raise UsthandError(
                f"truth has {count} frames of joints, {len(self.vertices_world_m)} of vertices, {valid.shape} of valid",
                "the arrays belong to different captures",
                "write them with a row for each frame",
            )

    @property
    def has_mesh(self) -> bool:
        """Whether there are vertices."""
        return len(self.vertices_world_m) > 0

    @property
    def of_other_mesh(self) -> bool:
        """Whether the vertices are those of another mesh than our hand model's."""
        return self.has_mesh and len(self.faces) > 0

    @staticmethod
    def of_joints(
        joints_world_m: Float[np.ndarray, "T 21 3"],
        visible: Bool[np.ndarray, "T V 21"],
        valid: Bool[np.ndarray, "T"] | None = None,
    ) -> Truth:
        """Truth without mesh and pose; all frames are valid if not said otherwise."""
        mesh, pose, shape, shift = np.zeros((0, 778, 3), np.float32), np.zeros((0, 48)), np.zeros(0), np.zeros((0, 3))
        valid = np.ones(len(joints_world_m), bool) if valid is None else valid
        return Truth(joints_world_m, mesh, visible, pose, shape, shift, valid)


def save_truth(path: str | Path, side: str, truth: Truth) -> None:
    """Write `truth/<side>.npz` of the capture at `path`."""
    file = Path(path) / "truth" / f"{side}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {f.name: getattr(truth, f.name) for f in fields(Truth)}
    # Of our own hand model files are as they were before there were others; `version` keeps older programs from these.
    other = {name: np.asarray(values.pop(name)) for name in OF_OTHER_MESHES}
    if truth.of_other_mesh:
        values |= other | {"version": np.asarray(VERSION)}
    np.savez_compressed(file, **values)


def load_truth(path: str | Path, side: str) -> Truth | None:
    """The truth of a capture, or None where there is none (every capture of one's own).

    Raises:
        UsthandError: If a newer program wrote it.
    """
    file = Path(path) / "truth" / f"{side}.npz"
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as data:
        if "version" in data and int(data["version"]) > VERSION:
            raise UsthandError(
                f"{file} is of version {int(data['version'])}, this program knows {VERSION}",
                "a newer usthand wrote it",
                "update usthand",
            )
        # Files of before there was `valid` have truth in every frame.
        may_lack = ("valid", *OF_OTHER_MESHES)
        known = {f.name: data[f.name] for f in fields(Truth) if f.name in data or f.name not in may_lack}
    if "joint_definition" in known:
        known["joint_definition"] = str(known["joint_definition"])
    return Truth(**known)


def require_truth(path: str | Path, side: str) -> Truth:
    """The truth of a capture that must have one.

    Raises:
        UsthandError: If it has none of that side.
    """
    truth = load_truth(path, side)
    if truth is None:
        fix = "make it with `usthand synth` or `usthand import`"
        raise UsthandError(f"{path} has no truth of the {side} hand", "only synthetic captures and data sets have", fix)
    return truth
