"""The centres of the fingertips' caps: on ideal round-capped cylinders, on the embedded hand's own spheres, posed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation
from scipy.special import ellipe

from embedded_hand import generate
from embedded_hand.anatomy import FINGER_ORDER, rest_skeleton
from usthand.common.errors import UsthandError
from usthand.hand.fingertips import DISTAL_JOINTS, cap_centres, cap_weights
from usthand.hand.io import load_hand
from usthand.hand.skeleton import FINGERS, MANO_PARENTS

AROUND, RADII_M = 48, (0.009, 0.0075, 0.008, 0.007, 0.006)
LENGTH_M = 0.024  # from the distal joint to the cap's centre


@pytest.fixture(scope="module")
def hand():
    return load_hand(dtype=torch.float64)


def capsule(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A round-capped cylinder about z: its base at z = 0, its cap's centre at LENGTH_M; vertices on the skin, faces."""
    angles = 2 * np.pi * np.arange(AROUND) / AROUND
    lift = np.linspace(0.0, np.pi / 2, 20)[:-1]
    heights = np.concatenate((np.linspace(0.0, LENGTH_M, 25)[:-1], LENGTH_M + radius * np.sin(lift)))
    radii = np.concatenate((np.full(24, radius), radius * np.cos(lift)))
    rings = np.stack(
        (
            radii[:, None] * np.cos(angles),
            radii[:, None] * np.sin(angles),
            np.broadcast_to(heights[:, None], (len(radii), AROUND)),
        ),
        -1,
    )
    points = np.vstack((rings.reshape(-1, 3), [[0.0, 0.0, LENGTH_M + radius]]))
    return points, ConvexHull(points).simplices


@pytest.fixture(scope="module")
def cylinders(hand):
    """A hand of five capsules in different directions, whose cap centres are known, and these."""
    turns = Rotation.random(5, random_state=0)
    points, faces, owners, centres, joints = [], [], [], [], np.zeros((16, 3))
    for k, (joint, radius) in enumerate(zip(DISTAL_JOINTS, RADII_M, strict=True)):
        at = np.array([0.1 * k, 0.0, 0.05])
        own, triangles = capsule(radius)
        faces.append(triangles + sum(map(len, points)))
        points.append(turns[k].apply(own) + at)
        joints[joint] = at
        centres.append(turns[k].apply([0.0, 0.0, LENGTH_M]) + at)
        owners.append(np.full(len(own), joint))
    vertices = torch.from_numpy(np.concatenate(points))
    model = replace(
        hand,
        v_template=vertices,
        shapedirs=torch.zeros(len(vertices), 3, 10, dtype=torch.float64),
        posedirs=torch.zeros(len(vertices), 3, 135, dtype=torch.float64),
        joints_template=torch.from_numpy(joints),
        weights=torch.nn.functional.one_hot(torch.from_numpy(np.concatenate(owners)), 16).double(),
        faces=torch.from_numpy(np.concatenate(faces).astype(np.int64)),
    )
    return model, np.stack(centres)


def test_of_a_round_capped_cylinder_it_is_the_caps_centre(cylinders):
    """A regular n-gon's perimeter is short of its circle's by pi^2 / 6 n^2, and the hull's diagonals cut no deeper."""
    model, centres = cylinders
    off = np.linalg.norm(cap_centres(model, model.v_template.numpy()) - centres, axis=-1)
    assert (off < np.array(RADII_M) * 2 * np.pi**2 / (6 * AROUND**2)).all()


def test_it_turns_moves_and_grows_with_the_hand(cylinders):
    model, centres = cylinders
    turn, shift = Rotation.from_rotvec([0.3, -1.2, 0.7]), np.array([0.4, -0.2, 1.1])
    moved = 1.3 * turn.apply(model.v_template.numpy()) + shift
    assert np.allclose(cap_centres(model, moved), 1.3 * turn.apply(centres) + shift, rtol=0, atol=2e-5)


@pytest.mark.parametrize("number", range(5))
def test_on_the_embedded_hand_it_is_half_the_sections_mean_width_from_the_end(hand, number):
    """The flesh of a fingertip is an oval ball: half axes r along the finger and across it, f r deep.

    Its end is r from the known centre, and its section's mean width is the perimeter of an ellipse over pi. The mesh
    has its vertices on the skin, so that with edges of length e it lies at most e^2 / 8 f r inside.
    """
    finger = FINGER_ORDER.index(tuple(FINGERS)[number])
    cone = generate.rest_flesh(rest_skeleton())[0].fingers[finger][2]
    radius, flatness = cone.radii[1], cone.flatness[1]
    axis = cone.corners[1] - cone.corners[0]
    axis /= np.linalg.norm(axis)
    half_width = 4 * radius * ellipe(1 - flatness**2) / (2 * np.pi)
    ideal = cone.corners[1] + axis * (radius - half_width)
    weights, vertices = cap_weights(hand), hand.v_template.numpy()
    ring = np.flatnonzero(weights[number])
    cut = hand.faces.numpy()[np.isin(hand.faces.numpy(), ring).all(-1)]
    edge = np.linalg.norm(vertices[cut] - vertices[np.roll(cut, 1, -1)], axis=-1).max()
    off = weights[number] @ vertices - ideal
    bound = edge**2 / (8 * flatness * radius)
    assert np.linalg.norm(off) < 0.1 * radius  # in fact well within
    assert abs(off @ axis) < bound and np.linalg.norm(off - (off @ axis) * axis) < bound
    tip = vertices[hand.tip_ids[number]]
    assert 0.7 * radius < (tip - weights[number] @ vertices) @ axis < 1.1 * radius  # the tip's vertex lies beyond


def test_it_stays_on_its_bone_in_a_fist(hand):
    """The ring hangs on the distal bone, so that bending moves the point as it moves the bone."""
    pose = torch.zeros(48, dtype=torch.float64)
    pose[3:] = 1.5 * hand.hands_mean
    rest = hand.with_shape(torch.zeros(10, dtype=torch.float64))
    posed = rest.with_pose(hand.rotations(pose, True))
    for centre, before, joint in zip(
        cap_centres(hand, posed.vertices.numpy()),
        cap_centres(hand, hand.v_template.numpy()),
        DISTAL_JOINTS,
        strict=True,
    ):
        bone = posed.world_rotations[joint].numpy().T @ (centre - posed.mano_joints[joint].numpy())
        assert np.linalg.norm(bone - (before - rest.rest_joints[joint].numpy())) < 5e-4


def test_a_thicker_finger_has_it_further_from_the_end(hand):
    """The embedded hand's sixth direction thickens fingers by 7 % a unit and leaves their length."""
    thick = torch.zeros(10, dtype=torch.float64)
    thick[5] = 2.0
    person = hand.with_shape(thick)
    vertices = person.rest_vertices.numpy()
    inward = np.linalg.norm(cap_centres(person, vertices) - vertices[hand.tip_ids], axis=-1) - np.linalg.norm(
        cap_centres(hand, hand.v_template.numpy()) - hand.v_template.numpy()[hand.tip_ids], axis=-1
    )
    radii = [finger[2].radii[1] for finger in generate.rest_flesh(rest_skeleton())[0].fingers]
    expected = 0.14 * np.array(radii)[[FINGER_ORDER.index(name) for name in FINGERS]]
    assert (inward > 0.6 * expected).all() and (inward < 1.4 * expected).all()


def test_a_left_hand_mirrors_a_right_one(hand):
    left = hand.mirrored()
    assert np.allclose(
        cap_centres(left, left.v_template.numpy()),
        cap_centres(hand, hand.v_template.numpy()) * [-1, 1, 1],
        rtol=0,
        atol=1e-9,
    )


def test_weights_are_a_sparse_affine_ring_on_the_distal_bone(hand):
    weights = cap_weights(hand)
    assert np.allclose(weights.sum(1), 1.0) and ((weights != 0).sum(1) < 30).all() and weights.min() > -0.05
    for row, joint in zip(weights, DISTAL_JOINTS, strict=True):
        assert hand.weights[row != 0, joint].min() > 0.85 and MANO_PARENTS[MANO_PARENTS[MANO_PARENTS[joint]]] == 0


def test_what_is_no_whole_hand_is_refused(hand):
    with pytest.raises(UsthandError, match="does not close"):
        cap_weights(hand.skeleton_model())
    with pytest.raises(UsthandError, match="100 vertices"):
        cap_centres(hand, np.zeros((2, 100, 3)))
    with pytest.raises(UsthandError, match="2 hands"):
        cap_weights(hand.with_shape(torch.zeros(2, 10, dtype=torch.float64)))
