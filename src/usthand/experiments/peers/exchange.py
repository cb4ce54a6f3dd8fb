"""What every peer is given, and what comes back: cameras and labels in, 21 joints a frame out.

Cameras get names such as view00: some peers find a camera's files by its name within theirs, and cam1 is within cam10.
Peers that ignore the lens get ideal cameras, and labels where these would have seen them; so do the others where a lens
is not of OpenCV's five coefficients, which is what they know. Lengths are millimetres in Anipose's calibration files,
as its boards are measured, and metres in Pose2Sim's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.common.files import write_toml
from usthand.geometry.cameras import undistort
from usthand.geometry.robust_triangulation import interpolate_gaps
from usthand.geometry.rotations import rotation_vector
from usthand.hand.result import MM_PER_M, Result
from usthand.labels.labels import Labels

FEW_COEFFICIENTS = 5
"""Of OpenCV's pinhole lens that all programs read alike: k1 k2 p1 p2 k3."""
CALIBRATION = "calibration.toml"


@dataclass(frozen=True)
class Given:
    """Cameras in metres and their labels, for a peer."""

    rig: Rig
    labels: Labels
    """Of the rig's cameras, in its order."""
    fps: float


@dataclass(frozen=True)
class Placed:
    """Joints as a peer places them."""

    joints_world_m: Float[np.ndarray, "T 21 3"]
    """World frame, metres; gaps are bridged by lines in time."""
    placed: Bool[np.ndarray, "T 21"]
    """Whether the peer gave the joint; what it bridges itself counts as given."""
    joints_cov_m2: Float[np.ndarray, "T 21 3 3"] | None = None
    """Where the peer gives one."""


def given(rig: Rig, labels: Labels, fps: float, *, lens: bool) -> Given:
    """Cameras and labels for a peer.

    Args:
        rig: The calibrated cameras, in metres.
        labels: Of one hand, of some or all of the rig's cameras; a camera without any label is left out.
        fps: Frames per second.
        lens: Whether the peer knows OpenCV's lens.

    Raises:
        UsthandError: If the rig has no metric scale, or fewer than two cameras have labels.
    """
    if not rig.metric:
        raise UsthandError(
            "the rig has no metric scale",
            "the peers place joints in the calibration's unit",
            "make the capture again with `usthand init --scale METRES_PER_UNIT`",
        )
    seen = [name for name in rig.names if name in labels.cameras and labels.subset([name]).mask.any()]
    if len(seen) < 2:
        raise UsthandError(
            f"{len(seen)} cameras have labels", "depth needs two views or more", "label them with `usthand label`"
        )
    cameras, labels = tuple(rig.cameras[rig.index(name)] for name in seen), labels.subset(seen)
    names = tuple(f"view{number:02d}" for number in range(len(seen)))
    rig = replace(rig, cameras=tuple(replace(c, name=name) for c, name in zip(cameras, names, strict=True)))
    labels = replace(labels, cameras=names)
    if not lens or any(c.model != "pinhole" or len(c.distortion) > FEW_COEFFICIENTS for c in cameras):
        rig, labels = without_lens(rig, labels)
    return Given(rig, labels, fps)


def without_lens(rig: Rig, labels: Labels) -> tuple[Rig, Labels]:
    """The same cameras with ideal lenses, and the labels as these would have seen them."""
    cameras, matrix = rig.tensors(torch.float64), np.stack([c.matrix for c in rig.cameras])
    xy = undistort(cameras, torch.from_numpy(labels.uv_px.astype(np.float64))).numpy()
    focal, centre = matrix[:, None, [0, 1], [0, 1]], matrix[:, None, :2, 2]
    ideal = tuple(replace(c, model="pinhole", distortion=np.zeros(FEW_COEFFICIENTS)) for c in rig.cameras)
    return replace(rig, cameras=ideal), replace(labels, uv_px=xy * focal + centre)


def write_anipose_calibration(rig: Rig, path: Path) -> None:
    """Cameras as `aniposelib.CameraGroup.dump` writes them, in millimetres; three of the peers read that file."""
    tables: dict[str, Any] = {
        f"cam_{number}": {
            "name": camera.name,
            "size": list(camera.size),
            "matrix": camera.matrix.tolist(),
            "distortions": np.pad(camera.distortion, (0, FEW_COEFFICIENTS - len(camera.distortion))).tolist(),
            "rotation": rotation_vector(camera.rotation).tolist(),
            "translation": (MM_PER_M * camera.translation).tolist(),
        }
        for number, camera in enumerate(rig.cameras)
    }
    write_toml(path, tables | {"metadata": {"adjusted": False, "error": 0.0}})


def points_px(labels: Labels, missing: float = np.nan) -> Float[np.ndarray, "V T 21 2"]:
    """Labels camera by camera, in double precision, with `missing` where there is none."""
    return np.where(labels.mask[..., None], labels.uv_px.astype(np.float64), missing).swapaxes(0, 1)


def placed_joints(
    joints_m: Float[np.ndarray, "T 21 3"], joints_cov_m2: Float[np.ndarray, "T 21 3 3"] | None = None
) -> Placed:
    """A peer's joints, NaN where it gives none.

    Raises:
        UsthandError: If it places no joint at all.
    """
    placed = np.asarray(np.isfinite(joints_m).all(-1))
    if not placed.any():
        raise UsthandError(
            "the peer places no joint in any frame",
            "too few of the labels pass its thresholds",
            "measure it on labels of more views",
        )
    whole = interpolate_gaps(torch.from_numpy(np.where(placed[..., None], joints_m, 0.0)), torch.from_numpy(placed))
    return Placed(whole.numpy(), placed, joints_cov_m2)


def as_result(found: Placed, rig: Rig, side: str, method: str) -> Result:
    """Joints alone: no mesh, no pose, and a covariance of zero where the peer gives none.

    Args:
        found: What the peer places.
        rig: The cameras that it was given, under their own names.
        side: "right" or "left".
        method: The peer's name.
    """
    frames = len(found.placed)
    covariance = found.joints_cov_m2 if found.joints_cov_m2 is not None else np.zeros((frames, 21, 3, 3))
    return Result(
        joints_world_m=found.joints_world_m,
        joints_cov_m2=covariance,
        vertices_world_m=np.zeros((frames, 0, 3)),
        pose=np.zeros((frames, 48)),
        shape=np.zeros(10),
        translation_m=np.zeros((frames, 3)),
        side=side,
        frame=np.arange(frames),
        valid=np.asarray(found.placed.any(1)),
        joint_valid=found.placed,
        unit_source=rig.unit_source,
        metric=True,
        method=method,
        joint_model="free",
        cameras=rig.names,
    )
