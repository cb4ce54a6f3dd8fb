"""Meshes from MANO's parameters as data sets release them, checked against the joints that they release beside them.

Two conventions are easily mixed up, which raises no error and costs about 100 mm: `flat_hand_mean` (are the fingers'
angles relative to the flat hand or to `hands_mean`?) and centring (does the translation move the hand, or its root
joint?).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from usthand.common.errors import UsthandError
from usthand.evaluation.truth import Truth
from usthand.geometry.rotations import rotation_matrix, rotation_vector
from usthand.hand.model import HandModel
from usthand.hand.skeleton import FINGER_TIPS, N_JOINTS

CHUNK = 256  # frames posed at once
MAX_MESH_ERROR_MM = 20.0
"""Released joints may be a detector's and not the model's: some millimetres off. A wrong convention costs far more."""


class ManoParameters(NamedTuple):
    """A hand over time as MANO has it."""

    pose: Float[np.ndarray, "T 48"]
    """Axis-angle, radians, relative to the flat hand; the first three are the wrist's."""
    shape: Float[np.ndarray, "T 10"]
    translation_m: Float[np.ndarray, "T 3"]


def official_left(hand: HandModel) -> HandModel:
    """The left hand of MANO's own file, from the right one: its mirror image except for the x of `shapedirs`.

    In MANO_LEFT.pkl `shapedirs[:, 0]` has the right hand's sign by mistake. Parameters that were fitted with that file
    need the same mistake to give the mesh that was meant.
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
    hand: HandModel, given: ManoParameters, rotation: Float[np.ndarray, "T 3 3"], shift_m: Float[np.ndarray, "T 3"]
) -> ManoParameters:
    """The hand after the rigid motion x -> R x + s (from a camera into the world, say); its shape is the first frame's.

    The root turns about its own joint j of the rest hand, so X = A (v - j) + j + t becomes R A (v - j) + R (j + t) + s:
    the new translation is R (j + t) + s - j, and not R t + s.
    """
    turned = rotation_vector(rotation @ rotation_matrix(np.asarray(given.pose[:, :3], np.float64)))
    shaped = hand.with_shape(torch.as_tensor(given.shape[0], dtype=hand.v_template.dtype))
    joint = shaped.rest_joints[0].double().numpy()
    translation = np.einsum("tij,tj->ti", rotation, joint + given.translation_m) + shift_m - joint
    return given._replace(pose=np.concatenate((turned, given.pose[:, 3:]), 1), translation_m=translation)


def pose_meshes(
    hand: HandModel, given: ManoParameters
) -> tuple[Float[np.ndarray, "T 778 3"], Float[np.ndarray, "T 21 3"]]:
    """Vertices and joints, metres. Computed in float64."""
    hand = hand.to(torch.float64)
    parts = []
    for start in range(0, len(given.pose), CHUNK):
        pick = slice(start, start + CHUNK)
        pose, shape, shift = (torch.from_numpy(np.array(values[pick], np.float64)) for values in given)
        posed = hand.with_shape(shape).with_pose(hand.rotations(pose, flat_hand_mean=True), shift)
        parts.append((posed.vertices.numpy(), posed.joints.numpy()))
    if not parts:
        return np.zeros((0, hand.v_template.shape[0], 3)), np.zeros((0, N_JOINTS, 3))
    vertices, joints = zip(*parts, strict=True)
    return np.concatenate(vertices), np.concatenate(joints)


def check_meshes(joints_m: Float[np.ndarray, "T 21 3"], released_m: Float[np.ndarray, "T 21 3"], name: str) -> None:
    """The mesh's joints must be the released ones: the worst joint's median over the frames is compared.

    Fingertips are left out: every tool takes another vertex for them.

    Raises:
        UsthandError: If they are far apart; `name` says in what.
    """
    if not len(joints_m):
        return
    inner = [joint for joint in range(N_JOINTS) if joint not in FINGER_TIPS]
    # A wrong mean pose leaves the palm where it is, so the worst joint counts. Its median forgives single bad frames.
    distance = np.linalg.norm(joints_m - released_m, axis=-1)[:, inner]
    error_mm = 1000.0 * float(np.median(distance, 0).max())
    if error_mm > MAX_MESH_ERROR_MM:
        raise UsthandError(
            f"the meshes of {name} lie {error_mm:.0f} mm from its joints",
            "the hand given is not the model that the data set was made with",
            "run `usthand hand install PATH` with MANO_RIGHT.pkl, or give it with --hand",
        )


def truth_with_meshes(hand: HandModel, bare: Truth, given: ManoParameters, name: str) -> Truth:
    """Truth of joints alone, completed by the meshes and poses of MANO's parameters in world coordinates.

    Raises:
        UsthandError: If the meshes are far from the joints; `name` says in what.
    """
    valid, joints = np.asarray(bare.valid), np.asarray(bare.joints_world_m)
    vertices, model_joints = pose_meshes(hand, given)
    check_meshes(model_joints[valid], joints[valid], name)

    def known(values: np.ndarray) -> np.ndarray:
        return np.where(valid.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0).astype(np.float32)

    return replace(
        bare,
        vertices_world_m=known(vertices),
        pose=known(given.pose),
        shape=np.median(given.shape[valid], 0).astype(np.float32),
        translation_m=known(given.translation_m),
    )
