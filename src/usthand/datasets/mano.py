"""Meshes from MANO's parameters as data sets release them, checked against the joints that they release beside them.

Two conventions are mixed up without an error message and cost about 100 mm: `flat_hand_mean` (are the fingers' angles
relative to the flat hand or to `hands_mean`?) and centring (does the translation move the hand, or its root joint?).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.common.errors import UsthandError
from usthand.geometry.rotations import rotation_matrix, rotation_vector
from usthand.hand.model import HandModel
from usthand.hand.skeleton import FINGER_TIPS, N_JOINTS

CHUNK = 256  # frames posed at once
MAX_MESH_ERROR_MM = 20.0
"""Released joints may be a detector's rather than the model's: some millimetres off. A wrong convention is far beyond."""


def official_left(hand: HandModel) -> HandModel:
    """The left hand of MANO's own file, from the right one: its mirror image, but for the x of `shapedirs`.

    In MANO_LEFT.pkl `shapedirs[:, 0]` has the right hand's sign, by mistake. Parameters that were fitted with that file
    make the mesh that was meant only with the mistake.
    """
    flip = torch.tensor([-1.0, 1.0, 1.0]).to(hand.v_template)[:, None]
    left = hand.mirrored()
    return replace(left, shapedirs=left.shapedirs * flip, joints_shapedirs=left.joints_shapedirs * flip)


def flat_pose(hand: HandModel, pose: Float[np.ndarray, "T 48"]) -> Float[np.ndarray, "T 48"]:
    """Axis-angle relative to `hands_mean` turned into axis-angle relative to the flat hand."""
    pose = np.array(pose, np.float64)
    pose[:, 3:] += hand.hands_mean.double().numpy()
    return pose


def pose_from_pca(
    hand: HandModel, root: Float[np.ndarray, "T 3"], coefficients: Float[np.ndarray, "T 45"]
) -> Float[np.ndarray, "T 48"]:
    """Axis-angle relative to the flat hand from all 45 principal components, which are relative to `hands_mean`."""
    fingers = np.asarray(coefficients, np.float64) @ hand.hands_components.double().numpy()
    return flat_pose(hand, np.concatenate((root, fingers), 1))


def moved(
    hand: HandModel,
    pose: Float[np.ndarray, "T 48"],
    shape: Float[np.ndarray, "10"],
    translation_m: Float[np.ndarray, "T 3"],
    rotation: Float[np.ndarray, "T 3 3"],
    shift_m: Float[np.ndarray, "T 3"],
) -> tuple[np.ndarray, np.ndarray]:
    """Pose and translation of the hand after the rigid motion x -> R x + s (from a camera into the world, say).

    The root turns about its own joint j of the rest hand, so X = A (v - j) + j + t becomes R A (v - j) + R (j + t) + s:
    the new translation is R (j + t) + s - j, and not R t + s.
    """
    turned = rotation_vector(rotation @ rotation_matrix(np.asarray(pose[:, :3], np.float64)))
    shaped = hand.with_shape(torch.as_tensor(np.asarray(shape), dtype=hand.v_template.dtype))
    joint = shaped.rest_joints[0].double().numpy()
    translation = np.einsum("tij,tj->ti", rotation, joint + translation_m) + shift_m - joint
    return np.concatenate((turned, pose[:, 3:]), 1), translation


def pose_meshes(
    hand: HandModel,
    pose: Float[np.ndarray, "T 48"],
    shape: Float[np.ndarray, "T 10"],
    translation_m: Float[np.ndarray, "T 3"],
) -> tuple[Float[np.ndarray, "T 778 3"], Float[np.ndarray, "T 21 3"]]:
    """Vertices and joints, metres; `pose` is relative to the flat hand. Computed in float64."""
    hand = hand.to(torch.float64)
    parts = []
    for start in range(0, len(pose), CHUNK):
        pick = slice(start, start + CHUNK)
        pose_, shape_, shift_ = (torch.from_numpy(np.array(x[pick], np.float64)) for x in (pose, shape, translation_m))
        posed = hand.with_shape(shape_).with_pose(hand.rotations(pose_, flat_hand_mean=True), shift_)
        parts.append((posed.vertices.numpy(), posed.joints.numpy()))
    if not parts:
        return np.zeros((0, hand.v_template.shape[0], 3)), np.zeros((0, N_JOINTS, 3))
    vertices, joints = zip(*parts, strict=True)
    return np.concatenate(vertices), np.concatenate(joints)


def check_meshes(
    joints_m: Float[np.ndarray, "T 21 3"],
    released_m: Float[np.ndarray, "T 21 3"],
    valid: Bool[np.ndarray, "T"],
    name: str,
) -> None:
    """The mesh's joints must be the released ones, the worst of them in its median frame; fingertips are left out, for
    which every tool takes another vertex.

    Raises:
        UsthandError: if they are far apart in the median frame.
    """
    inner = [joint for joint in range(N_JOINTS) if joint not in FINGER_TIPS]
    if not valid.any():
        return
    distance = np.linalg.norm(joints_m - released_m, axis=-1)[valid][:, inner]
    # A wrong mean pose leaves the palm where it is: the worst joint tells. Its median forgives single bad frames.
    error_mm = 1000.0 * float(np.median(distance, 0).max())
    if error_mm > MAX_MESH_ERROR_MM:
        raise UsthandError(
            f"the meshes of {name} lie {error_mm:.0f} mm from its joints",
            "the hand given is not the model that the data set was made with",
            "run `usthand hand install PATH` with MANO_RIGHT.pkl, or give it with --hand",
        )
