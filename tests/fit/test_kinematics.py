"""Joints of a state and their derivatives, against the hand model and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.fit_parts import full_articulation, full_hand, numeric_jacobian, random_state
from usthand.fit.arrow_system import InverseBlocks
from usthand.fit.kinematics import N_OFFSETS, inverse_left_jacobian, left_jacobian
from usthand.geometry.rotations import rotation_matrix
from usthand.hand.skeleton import BONES, FINGER_TIPS

STEP = 1e-6


@pytest.fixture(scope="module")
def hand():
    return full_articulation()


def test_rotation_jacobians():
    rng = np.random.default_rng(0)
    for scale in (1e-6, 0.1, 1.0, 3.0):
        v, d = scale * rng.normal(size=3), rng.normal(size=3)
        ahead = rotation_matrix(v + STEP * d) @ rotation_matrix(v).T
        spin = np.array([ahead[2, 1], ahead[0, 2], ahead[1, 0]]) / STEP
        assert np.allclose(left_jacobian(v) @ d, spin, atol=1e-5)
        assert np.allclose(inverse_left_jacobian(v) @ left_jacobian(v), np.eye(3), atol=1e-9)


def test_joints_are_the_hand_models(hand):
    state, model = random_state(hand, np.random.default_rng(1), 4), full_hand()
    rotations = model.rotations(torch.from_numpy(hand.pose(state)), flat_hand_mean=True)
    posed = model.with_shape(torch.from_numpy(state.shape)).with_pose(
        rotations, torch.from_numpy(hand.translation_m(state))
    )
    for joints in (hand.posed(state).joints, hand.joints(state)):
        assert np.allclose(posed.joints.numpy(), joints, atol=1e-10)


def test_a_bone_lies_still_in_its_own_frame(hand):
    """However the hand moves; tips to the millimetre that skinning moves them. The wrist's frame is the palm's."""
    state = random_state(hand, np.random.default_rng(4), 6)
    turns, joints = hand.bone_turns(state), hand.posed(state).joints
    assert np.array_equal(turns[:, 0], state.root) and np.array_equal(turns[:, 5], state.root)
    for parent, child in BONES:
        bone = np.einsum("tji,tj->ti", turns[:, child], joints[:, child] - joints[:, parent])
        assert np.ptp(bone, axis=0).max() < (3e-3 if child in FINGER_TIPS else 1e-9), (parent, child)


def test_a_detectors_places_are_fixed_to_their_bones(hand):
    state = random_state(hand, np.random.default_rng(5), 4)
    away = hand.detected(state) - hand.joints(state)
    back = np.einsum("tjba,tjb->tja", hand.bone_turns(state), away)
    np.testing.assert_allclose(back, np.broadcast_to(state.offsets_m, back.shape), atol=1e-12)
    np.testing.assert_allclose(hand.posed_detected(state).joints, hand.detected(state), atol=1e-12)


@pytest.mark.parametrize("kind", ["model", "detector"])
def test_derivatives_of_the_joints_equal_finite_differences(hand, kind):
    """By the unknowns of the frame, by all of the shape and, of a detector's joints, by the offsets. Central
    differences of a step of 1e-6 leave a rounding of 1e-16 / 1e-6."""
    state, frames = random_state(hand, np.random.default_rng(2), 2), 2
    of, posed = {"model": (hand.joints, hand.posed(state)), "detector": (hand.detected, hand.posed_detected(state))}[
        kind
    ]
    shared = hand.n_shape + (N_OFFSETS if kind == "detector" else 0)
    numeric = numeric_jacobian(of, hand, state, shared).reshape(frames, 21, 3, -1)
    size = hand.size
    for t in range(frames):
        np.testing.assert_allclose(posed.by_frame[t], numeric[t, ..., t * size : (t + 1) * size], atol=1e-8)
        assert not numeric[t, ..., (1 - t) * size : (2 - t) * size].any()
    np.testing.assert_allclose(posed.by_shared, numeric[..., frames * size :], atol=1e-8)


def test_covariance_of_joints_is_that_of_linear_functions(hand):
    """Of all unknowns together, dense. The model's joints take the part of a posterior that is not of offsets."""
    rng, state = np.random.default_rng(3), random_state(hand, np.random.default_rng(3), 2)
    total = hand.size + hand.n_shape + N_OFFSETS
    root = rng.normal(size=(total, total))
    whole = root @ root.T
    of = InverseBlocks(
        np.tile(whole[: hand.size, : hand.size], (2, 1, 1)),
        np.tile(whole[: hand.size, hand.size :], (2, 1, 1)),
        whole[hand.size :, hand.size :],
    )
    for posed in (hand.posed(state), hand.posed_detected(state)):
        rows = np.concatenate([posed.by_frame, posed.by_shared], -1)
        known = whole[: rows.shape[-1], : rows.shape[-1]]
        np.testing.assert_allclose(posed.covariance(of), rows @ known @ rows.swapaxes(-1, -2), rtol=1e-9, atol=1e-9)
