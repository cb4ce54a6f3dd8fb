"""Where a fingertip's cap has its centre: the point that people mark and detectors find, on any mesh of a hand.

The joint that MANO's layout calls a tip is a vertex on the skin. What a marker of images calls one, and MediaPipe with
him, is the centre of the rounded cap: on the axis of the distal bone, half the finger's width from the end. Here that
point is a fixed, sparse combination of vertices, so that it follows every pose and has a derivative.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from usthand.common.errors import UsthandError
from usthand.hand.model import HandModel, ShapedHand
from usthand.hand.skeleton import FINGER_TIPS, MANO_TO_OPENPOSE

DISTAL_JOINTS = tuple(MANO_TO_OPENPOSE[tip - 1] for tip in FINGER_TIPS)
"""MANO's ids of each finger's last joint, thumb to little finger."""
_ITERATIONS = 50
_SETTLED_M = 1e-9


def cap_centres(hand: HandModel | ShapedHand, vertices: Float[np.ndarray, "*b N 3"]) -> Float[np.ndarray, "*b 5 3"]:
    """The centres of the five fingertip caps, thumb to little finger, in the frame and unit of the vertices.

    Args:
        hand: The model that the meshes were made with, or better the person's hand of it (`HandModel.with_shape`): a
            thicker finger has its cap's centre further from the end. Either side, any dtype.
        vertices: Meshes of it in any pose.

    Raises:
        UsthandError: If the mesh is not of this hand's size, or the hand's fingers have no closed skin.

    Examples:
        >>> import torch, usthand
        >>> from usthand.hand.fingertips import cap_centres
        >>> from usthand.hand.mesh_joints import hand_of
        >>> result = usthand.load_result("fit.npz")
        >>> hand = hand_of(result).with_shape(torch.from_numpy(result.shape))
        >>> cap_centres(hand, result.vertices_world_m).shape  # (T, 5, 3), metres, world
    """
    weights = cap_weights(hand)
    if vertices.shape[-2] != weights.shape[1]:
        raise UsthandError(
            f"the mesh has {vertices.shape[-2]} vertices, the hand model {weights.shape[1]}",
            "it was made with another hand model, or there is none",
            "give the hand that it was made with",
        )
    return np.asarray(weights @ vertices)


def cap_weights(hand: HandModel | ShapedHand) -> Float[np.ndarray, "5 N"]:
    """The weights of `cap_centres`, thumb to little finger: rows sum to one, and are zero but for a ring of vertices.

    Found on the rest mesh. The plane through the sought point, across the line from the distal joint to it, cuts the
    skin of the distal bone in a section; the point is the section's centroid, and lies half the section's mean width
    from the finger's end. The mean width over all directions of a convex section is its perimeter over pi (Cauchy), so
    the cap is as round as it looks from cameras all around. Of all affine combinations of the vertices of the triangles
    cut that give this point, the one of least norm is taken: it is nearest to their plain mean.

    A mesh as coarse as MANO's lies inside the skin between its vertices, which puts the point up to .6 mm too far out.
    For the mean hand's weights a finger's thickness is the mean hand's: they err by its difference from this person's.

    Raises:
        UsthandError: If a finger's skin is not closed there: the hand has no faces, or is no hand.
    """
    model = hand if isinstance(hand, HandModel) else hand.model
    rest = (hand.v_template, hand.joints_template) if isinstance(hand, HandModel) else _one_person(hand)
    vertices, joints = (tensor.detach().cpu().double().numpy() for tensor in rest)
    owner, faces = model.weights.argmax(-1).cpu().numpy(), model.faces.cpu().numpy()
    weights = np.zeros((len(DISTAL_JOINTS), len(vertices)))
    for row, joint in zip(weights, DISTAL_JOINTS, strict=True):
        skin = faces[(owner[faces] == joint).all(-1)]
        if not len(skin):
            raise _open_finger(model)
        centre, ring = _cap_centre(vertices, skin, joints[joint], model)
        conditions = np.vstack((np.ones(len(ring)), (vertices[ring] - centre).T))
        row[ring] = np.linalg.lstsq(conditions, np.array([1.0, 0.0, 0.0, 0.0]), rcond=None)[0]
    return weights


def _one_person(hand: ShapedHand) -> tuple[Tensor, Tensor]:
    if hand.rest_vertices.ndim != 2:
        raise UsthandError(
            f"{hand.rest_vertices.shape[:-2].numel()} hands were given where one is needed",
            "the shape has batch axes",
            "give one person's shape, (10,)",
        )
    return hand.rest_vertices, hand.rest_joints


def _cap_centre(
    vertices: Float[np.ndarray, "N 3"], skin: Int[np.ndarray, "F 3"], joint: Float[np.ndarray, "3"], hand: HandModel
) -> tuple[Float[np.ndarray, "3"], Int[np.ndarray, "ring"]]:
    """The cap's centre by fixed point, and the vertices of the triangles that its section cuts."""
    points = vertices[np.unique(skin)]
    # From the middle of the segment outwards, where the section is not yet the cap's own.
    centre = 0.5 * (joint + points[np.linalg.norm(points - joint, axis=-1).argmax()])
    ring = skin[:0]
    for _ in range(_ITERATIONS):
        axis = (centre - joint) / np.linalg.norm(centre - joint)
        height = (vertices - centre) @ axis
        ring = skin[(height[skin].min(-1) < 0) & (height[skin].max(-1) >= 0)]
        start, end, closed = _section(vertices, height, ring)
        if not closed:
            raise _open_finger(hand)
        middle = start.mean(0)
        area = np.linalg.norm(np.cross(start - middle, end - middle), axis=-1)[:, None]
        centroid = (area * (start + end + middle)).sum(0) / (3.0 * area.sum())
        half_width = np.linalg.norm(end - start, axis=-1).sum() / (2.0 * np.pi)
        moved = centroid + axis * (((points - centroid) @ axis).max() - half_width)
        step, centre = np.linalg.norm(moved - centre), moved
        if step < _SETTLED_M:
            break
    return centre, np.unique(ring)


def _section(
    vertices: Float[np.ndarray, "N 3"], height: Float[np.ndarray, "N"], cut: Int[np.ndarray, "F 3"]
) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, "F 3"], bool]:
    """Both ends of each triangle's cut with the plane of height zero, and whether the cuts close to a loop."""
    edges = np.stack((cut, np.roll(cut, -1, -1)), -1)  # (F, 3, 2)
    crossing = (height[edges[..., 0]] < 0) != (height[edges[..., 1]] < 0)
    ends = np.sort(edges[crossing].reshape(-1, 2, 2), -1)  # two of each triangle's edges cross
    low, high = height[ends[..., 0]], height[ends[..., 1]]
    share = (low / (low - high))[..., None]
    where = vertices[ends[..., 0]] + share * (vertices[ends[..., 1]] - vertices[ends[..., 0]])
    counts = np.unique(ends.reshape(-1, 2), axis=0, return_counts=True)[1]
    return where[:, 0], where[:, 1], len(cut) > 2 and bool((counts == 2).all())


def _open_finger(hand: HandModel) -> UsthandError:
    return UsthandError(
        f"the skin of the hand model {hand.name} does not close around a fingertip",
        "it is cut to a skeleton, or its skinning weights are not those of a hand",
        "give a whole hand in MANO's layout",
    )
