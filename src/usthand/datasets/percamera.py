"""From annotations that each camera has in its own frame to one truth in the world, for data sets that store them so,
and what else several of them need.

Legend: T frames, V views, J = 21 joints, N vertices. `cam` is OpenCV's camera frame, metres.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.hand.model import HandModel
from usthand.labels.labels import ANNOTATION, Labels

AGREEMENT_M = 0.005
"""Views that place the same joint further apart than this do not show the same instant, or are not calibrated so."""

MAX_STRETCH = 2


def choose(dataset: str, what: str, value: str, known: Sequence[str]) -> str:
    """`value`, or the first of `known` where it is empty.

    Raises:
        UsthandError: if it is not known.
    """
    value = value or known[0]
    if value not in known:
        raise UsthandError(
            f"{dataset} has no {what} {value!r}", f"it has {', '.join(known)}", f"choose one of these with --{what}"
        )
    return value


def timeline(frames: Iterable[int]) -> list[int]:
    """The frames' numbers in order, with those between them that are lost, so that a row is a step in time everywhere.

    The step is the commonest difference. Numbers that do not keep it, or of which most would be lost, stay as they are:
    then it is a choice of images rather than footage with gaps.
    """
    numbers = sorted(set(frames))
    steps = np.diff(numbers)
    if not len(steps):
        return numbers
    step = int(np.bincount(steps).argmax())
    whole = list(range(numbers[0], numbers[-1] + 1, step))
    return whole if not (steps % step).any() and len(whole) <= MAX_STRETCH * len(numbers) else numbers


def world_from_camera(points_cam_m: Float[np.ndarray, "*b 3"], camera: Camera) -> Float[np.ndarray, "*b 3"]:
    """X_world = R' (X_cam - t)."""
    return (np.asarray(points_cam_m, np.float64) - camera.translation) @ camera.rotation


def pinhole(points_cam_m: Float[np.ndarray, "*b 3"], matrix: np.ndarray) -> Float[np.ndarray, "*b 2"]:
    """Pixels of points in front of a camera without distortion; zeros for points behind it."""
    depth = points_cam_m[..., 2:]
    front = depth > 0
    uv = points_cam_m[..., :2] / np.where(front, depth, 1.0) * (matrix[0, 0], matrix[1, 1]) + matrix[:2, 2]
    return np.where(front, uv, 0.0)


def annotated_joints(
    joints_cam_m: Float[np.ndarray, "T V 21 3"], known: Bool[np.ndarray, "T V"], rig: Rig, side: str
) -> Labels:
    """2D truth: each camera's own joints through its own intrinsics, where they fall into its image.

    The extrinsics take no part in it, so that triangulating these joints is a test of them.
    """
    uv = np.stack([pinhole(joints_cam_m[:, v], camera.matrix) for v, camera in enumerate(rig.cameras)], 1)
    size = np.array([(camera.width, camera.height) for camera in rig.cameras])[:, None]
    inside = ((uv > -0.5) & (uv < size - 0.5)).all(-1) & (joints_cam_m[..., 2] > 0)
    seen = inside & known[..., None]
    return Labels(np.where(seen[..., None], uv, 0.0), seen.astype(np.float32), rig.names, side, ANNOTATION)


class InWorld(NamedTuple):
    """One hand in the world."""

    joints_world_m: Float[np.ndarray, "T 21 3"]
    """Zero where not valid."""
    valid: Bool[np.ndarray, " T"]
    """Annotated in a view at least, and all views that are agree."""
    spread_m: Float[np.ndarray, " T"]
    """Largest distance of a view's joint from the views' mean."""


def joints_in_world(joints_cam_m: Float[np.ndarray, "T V 21 3"], known: Bool[np.ndarray, "T V"], rig: Rig) -> InWorld:
    """The mean over the views that know the hand. Frames in which they disagree by `AGREEMENT_M` are not valid."""
    world = np.stack([world_from_camera(joints_cam_m[:, v], camera) for v, camera in enumerate(rig.cameras)], 1)
    weight = known[..., None, None].astype(float)
    mean = (world * weight).sum(1) / np.maximum(weight.sum(1), 1.0)
    distance = np.linalg.norm(world - mean[:, None], axis=-1) * weight[..., 0]
    spread = distance.max((1, 2), initial=0.0)
    valid = known.any(1) & (spread < AGREEMENT_M)
    return InWorld(np.where(valid[:, None, None], mean, 0.0), valid, spread)


def require_agreement(found: InWorld, known: Bool[np.ndarray, "T V"], name: str) -> str:
    """A note on the frames whose views disagree; empty where there is none.

    Raises:
        UsthandError: if they are most of the frames with several views.
    """
    several = known.sum(1) > 1
    apart = several & ~found.valid
    if not apart.any():
        return ""
    millimetres = 1000 * float(np.median(found.spread_m[apart]))
    if apart.sum() > several.sum() / 2:
        raise UsthandError(
            f"the views of {name} place the hand {millimetres:.0f} mm apart",
            "annotations and camera poses are of different releases, or files were renamed",
            "download the annotations again and keep their layout",
        )
    return f"{apart.sum()} frames are left without truth: their views place the hand {millimetres:.0f} mm apart"


def turn_root(pose: Float[np.ndarray, "T 48"], rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "T 48"]:
    """The pose of the hand after the rotation of its frame, axis-angle: only the root turns."""
    root = (Rotation.from_matrix(rotation) * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    return np.concatenate([root, pose[:, 3:]], -1)


def rest_wrist_m(hand: HandModel, shapes: Float[np.ndarray, "T 10"]) -> Float[np.ndarray, "T 3"]:
    """Where the wrist of the unposed hand lies: the translation of MANO is the wrist less this."""
    return hand.to(torch.float64).with_shape(torch.from_numpy(np.asarray(shapes, np.float64))).rest_joints[:, 0].numpy()
