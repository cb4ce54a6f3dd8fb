"""From annotations that each camera has in its own frame to one truth in the world.

Legend: T frames, V views, J = 21 joints, N vertices. `cam` is OpenCV's camera frame, metres.
"""

from __future__ import annotations

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
"""Views that place a joint further apart than this show different instants, or their calibration is wrong."""


def world_from_camera(points_cam_m: Float[np.ndarray, "*b 3"], camera: Camera) -> Float[np.ndarray, "*b 3"]:
    """X_world = R' (X_cam - t)."""
    return (np.asarray(points_cam_m, np.float64) - camera.translation) @ camera.rotation


def pinhole(points_cam_m: Float[np.ndarray, "*b 3"], matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "*b 2"]:
    """Pixels of points in front of a camera without distortion; zeros for points behind it."""
    depth = points_cam_m[..., 2:]
    front = depth > 0
    uv = points_cam_m[..., :2] / np.where(front, depth, 1.0) * (matrix[0, 0], matrix[1, 1]) + matrix[:2, 2]
    return np.where(front, uv, 0.0)


def annotated_joints(
    joints_cam_m: Float[np.ndarray, "T V 21 3"], known: Bool[np.ndarray, "T V"], rig: Rig, side: str
) -> Labels:
    """2D truth: each camera's own joints through its own intrinsics, where they fall into its image.

    The extrinsics have no part in it, so that triangulating these joints is a test of them.
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
    note: str
    """On the frames whose views disagree; empty where there are none."""


def joints_in_world(
    joints_cam_m: Float[np.ndarray, "T V 21 3"], known: Bool[np.ndarray, "T V"], rig: Rig, name: str
) -> InWorld:
    """The mean over the views that have the hand; frames in which these disagree by `AGREEMENT_M` are not valid.

    Raises:
        UsthandError: If the views disagree in most of the frames with several; `name` says of which recording.
    """
    world = np.stack([world_from_camera(joints_cam_m[:, v], camera) for v, camera in enumerate(rig.cameras)], 1)
    weight = known[..., None, None].astype(float)
    mean = (world * weight).sum(1) / np.maximum(weight.sum(1), 1.0)
    distance = np.linalg.norm(world - mean[:, None], axis=-1) * weight[..., 0]
    spread = distance.max((1, 2), initial=0.0)
    valid = known.any(1) & (spread < AGREEMENT_M)
    several = known.sum(1) > 1
    apart, note = several & ~valid, ""
    if apart.any():
        millimetres = 1000 * float(np.median(spread[apart]))
        if apart.sum() > several.sum() / 2:
            raise UsthandError(
                f"the views of {name} place the hand {millimetres:.0f} mm apart",
                "annotations and camera poses are of different releases, or files were renamed",
                "download the annotations again and keep their layout",
            )
        note = f"{apart.sum()} frames are left without truth: their views place the hand {millimetres:.0f} mm apart"
    return InWorld(np.where(valid[:, None, None], mean, 0.0), valid, note)


def turn_root(pose: Float[np.ndarray, "T 48"], rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "T 48"]:
    """The pose of the hand after the rotation of its frame, axis-angle: only the root turns."""
    root = (Rotation.from_matrix(rotation) * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    return np.concatenate([root, pose[:, 3:]], -1)


def rest_wrist_m(hand: HandModel, shapes: Float[np.ndarray, "T 10"]) -> Float[np.ndarray, "T 3"]:
    """Where the wrist of the unposed hand is: MANO's translation is the wrist less this."""
    return hand.to(torch.float64).with_shape(torch.from_numpy(np.asarray(shapes, np.float64))).rest_joints[:, 0].numpy()
