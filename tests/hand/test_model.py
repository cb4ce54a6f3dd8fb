"""Skinning against an independent reference, gradients, batch axes and the mirror."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from support.pca import rotations_from_pca
from usthand.hand.io import load_hand
from usthand.hand.model import TIP_IDS, HandModel
from usthand.hand.skeleton import MANO_PARENTS, MANO_TO_OPENPOSE


@pytest.fixture(scope="module")
def hand() -> HandModel:
    return load_hand(dtype=torch.float64)


def random_state(seed: int, *batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    draw = [rng.normal(size=(*batch, n)) * s for n, s in ((10, 1.0), (48, 0.5), (3, 0.3))]
    return tuple(torch.from_numpy(x) for x in draw)


def reference(
    hand: HandModel, betas: np.ndarray, pose: np.ndarray, translation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """MANO's equations as its paper writes them: 4x4 transforms down the tree, one vertex sum over joints."""
    shaped = hand.v_template.numpy() + hand.shapedirs.numpy() @ betas
    joints = hand.joints_template.numpy() + hand.joints_shapedirs.numpy() @ betas
    rotations = Rotation.from_rotvec(pose.reshape(16, 3)).as_matrix()
    posed = shaped + hand.posedirs.numpy() @ (rotations[1:] - np.eye(3)).ravel()
    world = []
    for j, parent in enumerate(MANO_PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        local[:3, 3] = joints[j] - (joints[parent] if j else 0)
        world.append(local if j == 0 else world[parent] @ local)
    centres = np.stack([w[:3, 3] for w in world])
    vertices = np.zeros_like(posed)
    for j, w in enumerate(world):
        away = np.eye(4)
        away[:3, 3] = -joints[j]
        homogeneous = np.concatenate((posed, np.ones((len(posed), 1))), 1)
        vertices += hand.weights.numpy()[:, j : j + 1] * (homogeneous @ (w @ away).T)[:, :3]
    vertices += translation
    all_joints = np.concatenate((centres + translation, vertices[list(TIP_IDS)]))
    return vertices, all_joints[list(MANO_TO_OPENPOSE)]


@pytest.mark.parametrize("seed", range(4))
def test_skinning_follows_the_equations_of_mano(hand, seed):
    betas, pose, translation = random_state(seed)
    posed = hand.with_shape(betas).with_pose(hand.rotations(pose, flat_hand_mean=True), translation)
    vertices, joints = reference(hand, betas.numpy(), pose.numpy(), translation.numpy())
    np.testing.assert_allclose(posed.vertices.numpy(), vertices, atol=1e-12)
    np.testing.assert_allclose(posed.joints.numpy(), joints, atol=1e-12)


def test_the_mean_pose_is_added_by_name_only(hand):
    pose = random_state(0)[1]
    shifted = pose.clone()
    shifted[3:] += hand.hands_mean
    torch.testing.assert_close(hand.rotations(pose, flat_hand_mean=False), hand.rotations(shifted, flat_hand_mean=True))
    assert (hand.rotations(pose, False) - hand.rotations(pose, True)).abs().max() > 0.1


def test_principal_components_are_a_change_of_basis(hand):
    _, pose, _ = random_state(1, 5)
    torch.testing.assert_close(hand.hands_components @ hand.hands_components.T, torch.eye(45, dtype=torch.float64))
    coefficients = pose[:, 3:] @ hand.hands_components.T
    whole = rotations_from_pca(hand, pose[:, :3], coefficients, flat_hand_mean=True)
    torch.testing.assert_close(whole, hand.rotations(pose, flat_hand_mean=True))
    few = rotations_from_pca(hand, pose[:, :3], coefficients[:, :6], flat_hand_mean=False)
    padded = torch.cat((coefficients[:, :6], torch.zeros(5, 39)), -1)
    torch.testing.assert_close(few, rotations_from_pca(hand, pose[:, :3], padded, flat_hand_mean=False))


def test_the_root_turns_about_its_own_joint_and_translation_comes_last(hand):
    betas, pose, translation = random_state(2)
    pose[3:] = 0
    shaped = hand.with_shape(betas)
    posed = shaped.with_pose(hand.rotations(pose, True), translation)
    turn = torch.from_numpy(Rotation.from_rotvec(pose[:3].numpy()).as_matrix())
    root = shaped.rest_joints[0]
    torch.testing.assert_close(posed.vertices, (shaped.rest_vertices - root) @ turn.T + root + translation)
    torch.testing.assert_close(posed.joints[0], root + translation)


def test_batch_axes_broadcast_and_agree_with_one_by_one(hand):
    betas = random_state(3, 2, 1)[0]
    _, pose, translation = random_state(4, 2, 3)
    posed = hand.with_shape(betas).with_pose(hand.rotations(pose, True), translation)
    assert posed.vertices.shape == (2, 3, 778, 3)
    assert posed.joints.shape == (2, 3, 21, 3)
    assert posed.world_rotations.shape == (2, 3, 16, 3, 3)
    one = hand.with_shape(betas[1, 0]).with_pose(hand.rotations(pose[1, 2], True), translation[1, 2])
    torch.testing.assert_close(posed.vertices[1, 2], one.vertices)
    torch.testing.assert_close(posed.joints[1, 2], one.joints)


def test_gradients_equal_differences(hand):
    small = hand.skeleton_model()
    betas, pose, translation = random_state(5)

    def joints(b, p, t):
        return small.with_shape(b).with_pose(small.rotations(p, True), t).joints

    inputs = [x.requires_grad_() for x in (betas, pose, translation)]
    assert torch.autograd.gradcheck(joints, inputs, eps=1e-6, atol=1e-7)


def test_gradient_at_the_flat_hand_is_finite(hand):
    pose = torch.zeros(48, dtype=torch.float64, requires_grad=True)
    hand.with_shape(torch.zeros(10, dtype=torch.float64)).with_pose(
        hand.rotations(pose, True)
    ).joints.square().sum().backward()
    assert pose.grad.isfinite().all() and pose.grad.abs().max() > 0


def test_the_skeleton_model_has_the_same_joints(hand):
    betas, pose, translation = random_state(6, 7)
    small = hand.skeleton_model()
    whole = hand.with_shape(betas).with_pose(hand.rotations(pose, True), translation)
    cut = small.with_shape(betas).with_pose(small.rotations(pose, True), translation)
    assert cut.vertices.shape == (7, 5, 3)
    torch.testing.assert_close(cut.joints, whole.joints)


def test_fewer_shape_coefficients_mean_zeros(hand):
    betas = random_state(7)[0]
    full = torch.cat((betas[:4], torch.zeros(6)))
    torch.testing.assert_close(hand.with_shape(betas[:4]).rest_vertices, hand.with_shape(full).rest_vertices)


def test_the_left_hand_is_the_exact_mirror(hand):
    left = load_hand(side="left", dtype=torch.float64)
    betas, pose, translation = random_state(8)
    flip = torch.tensor((-1.0, 1.0, 1.0), dtype=torch.float64)
    for flat in (True, False):
        right_posed = hand.with_shape(betas).with_pose(hand.rotations(pose, flat), translation)
        mirrored_pose = (pose.unflatten(-1, (16, 3)) * -flip).flatten()
        left_posed = left.with_shape(betas).with_pose(left.rotations(mirrored_pose, flat), translation * flip)
        torch.testing.assert_close(left_posed.vertices, right_posed.vertices * flip, atol=1e-14, rtol=0)
        torch.testing.assert_close(left_posed.joints, right_posed.joints * flip, atol=1e-14, rtol=0)
    assert left.side == "left"
    assert torch.equal(left.faces, hand.faces.flip(-1))


def test_mirroring_twice_changes_nothing(hand):
    again = hand.mirrored().mirrored()
    for name in ("v_template", "shapedirs", "posedirs", "joints_template", "hands_mean", "hands_components", "faces"):
        assert torch.equal(getattr(again, name), getattr(hand, name)), name
    assert again.side == "right"


def test_mirrored_principal_components_give_mirrored_hands(hand):
    left = hand.mirrored()
    coefficients = random_state(9)[1][:8]
    root, zero = torch.zeros(3, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)
    a = hand.with_shape(zero).with_pose(rotations_from_pca(hand, root, coefficients, False)).vertices
    b = left.with_shape(zero).with_pose(rotations_from_pca(left, root, coefficients, False)).vertices
    torch.testing.assert_close(b, a * torch.tensor((-1.0, 1.0, 1.0), dtype=torch.float64), atol=1e-14, rtol=0)


def test_to_changes_real_tensors_only(hand):
    single = hand.to(torch.float32)
    assert single.weights.dtype == torch.float32 and single.fields["nail"].dtype == torch.float32
    assert single.faces.dtype == torch.int64 and single.tip_ids.dtype == torch.int64


def test_pose_blend_shapes_vanish_at_rest_and_nowhere_else(hand):
    bare = replace(hand, posedirs=torch.zeros_like(hand.posedirs))
    zero, pose = torch.zeros(10, dtype=torch.float64), torch.zeros(48, dtype=torch.float64)
    rest = [m.with_shape(zero).with_pose(m.rotations(pose, True)).vertices for m in (hand, bare)]
    torch.testing.assert_close(*rest, atol=0, rtol=0)
    bent = [m.with_shape(zero).with_pose(m.rotations(pose, False)).vertices for m in (hand, bare)]
    assert (bent[0] - bent[1]).norm(dim=-1).max() > 1e-3
