"""Proportions: each coefficient does what its name says, alone and alike on both hands."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usthand.fit.kinematics import HandState, articulation
from usthand.fit.mesh import skinned
from usthand.geometry.rotations import rotation_matrix
from usthand.hand.io import load_hand
from usthand.hand.mesh_joints import mesh_joints
from usthand.hand.model import N_SHAPES, HandModel
from usthand.hand.proportions import (
    BREADTH_STD,
    METACARPAL_STD,
    N_PROPORTIONS,
    PHALANX_STD,
    PROPORTIONS,
    with_proportions,
)
from usthand.hand.result import Result
from usthand.hand.skeleton import BONES, JOINTS

MIRROR = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
PARTS = {"proximal": 1, "middle": 2, "distal": 3}
THUMB = {"metacarpal": 1, "proximal": 2, "distal": 3}


@pytest.fixture(scope="module", params=["right", "left"])
def hand(request) -> HandModel:
    return with_proportions(load_hand(side=request.param, dtype=torch.float64))


def rest_joints(hand: HandModel, **coefficients: float) -> np.ndarray:
    """The 21 joints at rest; coefficients by name, with underscores for blanks."""
    shape = np.zeros(N_SHAPES + N_PROPORTIONS)
    for name, value in coefficients.items():
        shape[N_SHAPES + PROPORTIONS.index(name.replace("_", " "))] = value
    return articulation(hand).rest_joints(shape)


def lengths(joints: np.ndarray) -> np.ndarray:
    parent, child = np.array(BONES).T
    return np.linalg.norm(joints[child] - joints[parent], axis=-1)


def bone_of(name: str) -> int:
    """The index among `BONES` of the bone that a coefficient of length is named after."""
    finger, part, _ = name.split()
    chain = [k for k, joint in enumerate(JOINTS) if joint.startswith(finger)]
    step = THUMB[part] if finger == "thumb" else 0 if part == "metacarpal" else PARTS[part]
    return next(b for b, (_, child) in enumerate(BONES) if child == chain[step])


@pytest.mark.parametrize("name", [name for name in PROPORTIONS if name.endswith("length")])
def test_a_length_lengthens_its_bone_alone_by_its_standard_deviation(hand, name):
    before, after = lengths(rest_joints(hand)), lengths(rest_joints(hand, **{name.replace(" ", "_"): 1.0}))
    std = METACARPAL_STD if "metacarpal" in name and "thumb" not in name else PHALANX_STD
    expected = np.ones(len(before))
    expected[bone_of(name)] += std
    np.testing.assert_allclose(after / before, expected, rtol=1e-9)


def test_a_bone_carries_what_hangs_on_it_unturned(hand):
    moved = rest_joints(hand, middle_middle_length=1.0) - rest_joints(hand)
    names = {joint for k, joint in enumerate(JOINTS) if np.linalg.norm(moved[k]) > 1e-12}
    assert names == {"middle_dip", "middle_tip"}
    dip, tip = (moved[JOINTS.index(name)] for name in ("middle_dip", "middle_tip"))
    np.testing.assert_allclose(dip, tip, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in PROPORTIONS if name.endswith("thickness")])
def test_thickness_moves_flesh_and_no_joint(hand, name):
    column = N_SHAPES + PROPORTIONS.index(name)
    np.testing.assert_allclose(rest_joints(hand, **{name.replace(" ", "_"): 1.0}), rest_joints(hand), atol=1e-12)
    moved = hand.shapedirs[..., column].norm(dim=-1)
    finger = name.split()[0]
    if finger == "palm":
        return
    first = {"index": 1, "middle": 4, "little": 7, "ring": 10, "thumb": 13}[finger]
    own = hand.weights[:, first : first + 3].sum(1)
    assert (moved[own == 0] == 0).all() and 0.0003 < moved[own > 0.99].mean() < 0.002  # 8 % of half a finger's breadth


def test_breadth_spreads_the_knuckles(hand):
    knuckles = [JOINTS.index(name) for name in ("index_mcp", "little_mcp")]
    across = [np.subtract(*joints[knuckles]) for joints in (rest_joints(hand), rest_joints(hand, palm_breadth=1.0))]
    grown = across[1] - across[0]
    direction = grown / np.linalg.norm(grown)
    assert np.isclose(across[1] @ direction, (1 + BREADTH_STD) * (across[0] @ direction))
    assert abs(across[0] @ direction) > 0.9 * np.linalg.norm(across[0])


def test_directions_of_a_left_hand_are_the_mirror_images():
    right, left = (with_proportions(load_hand(side=side, dtype=torch.float64)) for side in ("right", "left"))
    for name in ("shapedirs", "joints_shapedirs"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name) * MIRROR[:, None], atol=1e-12)


def test_adding_them_again_changes_nothing_and_own_shapes_stay(hand):
    assert with_proportions(hand) is hand
    bare = load_hand(side=hand.side, dtype=torch.float64)
    assert torch.equal(hand.shapedirs[..., :N_SHAPES], bare.shapedirs)
    assert torch.equal(hand.joints_shapedirs[..., :N_SHAPES], bare.joints_shapedirs)
    assert hand.shapedirs.shape[-1] == N_SHAPES + N_PROPORTIONS == 40
    assert with_proportions(load_hand()).shapedirs.dtype == torch.float32


def test_the_flesh_follows_the_bones(hand):
    """None goes farther than the joints, the last phalanx goes as far as its joint, and other fingers stay."""
    column = N_SHAPES + PROPORTIONS.index("index middle length")
    moved, joints = hand.shapedirs[..., column].norm(dim=-1), hand.joints_shapedirs[..., column].norm(dim=-1)
    assert moved.max() <= joints.max() + 1e-12
    np.testing.assert_allclose(moved[hand.weights[:, 3] > 0.999], joints[3])  # MANO's last joint of the index
    assert not moved[hand.weights[:, 1:4].sum(1) == 0].any()


def test_joints_of_a_posed_result_are_the_hand_models(hand):
    """With all 40 shapes: the articulation's, the hand model's and those that a saved result leads to."""
    rng, joints_of = np.random.default_rng(0), articulation(hand)
    state = HandState(
        rotation_matrix(rng.normal(size=(3, 3))),
        0.1 * rng.normal(size=(3, 3)),
        rng.uniform(joints_of.low, joints_of.high, size=(3, len(joints_of.low))),
        rng.normal(size=40),
    )
    mesh = skinned(hand, joints_of, state)
    rotations = hand.rotations(torch.from_numpy(mesh.pose), flat_hand_mean=True)
    posed = hand.with_shape(torch.from_numpy(state.shape)).with_pose(rotations, torch.from_numpy(mesh.translation_m))
    np.testing.assert_allclose(joints_of.joints(state), posed.joints, atol=1e-9)
    result = Result(
        **mesh._asdict(),
        joints_world_m=joints_of.joints(state),
        joints_cov_m2=np.tile(1e-6 * np.eye(3), (3, 21, 1, 1)),
        side=hand.side,
        frame=np.arange(3),
        valid=np.ones(3, bool),
        joint_valid=np.ones((3, 21), bool),
        unit_source="metres",
        metric=True,
        method="fit",
        joint_model="rigid",
        cameras=("a", "b"),
    )
    np.testing.assert_allclose(mesh_joints(result), result.joints_world_m, atol=1e-6)
