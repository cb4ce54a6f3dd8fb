"""The hand model that a result is made of, and the joints that go with its mesh.

The joints of a rigid or soft result are the mesh's own. Those of a free one, such as a plain triangulation's, are not:
where a bone's length must not change, in animation or for a robot, the mesh's joints are the ones to take.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from usthand.common.errors import UsthandError
from usthand.hand.io import load_hand
from usthand.hand.model import HandModel
from usthand.hand.result import Result


def hand_of(result: Result, hand: HandModel | None = None) -> HandModel:
    """The hand that a result's `pose` and `shape` are of, in float64.

    Args:
        result: A result.
        hand: The model that it was made with, of the result's side; the embedded one if none is given.

    Raises:
        UsthandError: If the result has more shape coefficients than the hand.
    """
    hand = load_hand(side=result.side, dtype=torch.float64) if hand is None else hand.to(torch.float64)
    known = hand.shapedirs.shape[-1]
    if len(result.shape) > known:
        raise UsthandError(
            f"the result has {len(result.shape)} shape coefficients, the hand model {known}",
            "it was made with a hand model that knows more of a person's proportions",
            "give the hand that it was made with",
        )
    return hand


def mesh_joints(result: Result, hand: HandModel | None = None) -> Float[np.ndarray, "T 21 3"]:
    """The hand model's own joints, OpenPose order, world frame, metres.

    Args:
        result: A result with a mesh.
        hand: The model that the mesh was made with, of the result's side; the embedded one if none is given.

    Raises:
        UsthandError: If the result has no mesh, it is not this model's, or as `hand_of`.
    """
    hand = hand_of(result, hand)
    with torch.no_grad():
        rotations = hand.rotations(torch.from_numpy(result.pose), flat_hand_mean=True)
        posed = hand.with_shape(torch.from_numpy(result.shape)).with_pose(rotations)
    joints, vertices = posed.joints.numpy(), posed.vertices.numpy()
    there = result.vertices_world_m
    if vertices.shape != there.shape:
        raise UsthandError(
            f"the result's mesh has {there.shape[1]} vertices, the hand model {vertices.shape[1]}",
            "it was made with another hand model, or has none",
            "give the hand that it was made with",
        )
    middle, goal = vertices.mean(1, keepdims=True), there.mean(1, keepdims=True)
    # Files of before the unit was kept may be in a calibration's own, which the mesh tells by its size.
    unit = np.linalg.norm(there - goal) / np.linalg.norm(vertices - middle)
    if np.abs(unit * (vertices - middle) - (there - goal)).max() > 1e-3 * unit:
        raise UsthandError(
            "the result's mesh is not this hand model's",
            "it was made with another one",
            "give the hand that it was made with",
        )
    return unit * (joints - middle) + goal
