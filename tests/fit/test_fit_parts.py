"""The parts of the sequence fit against independent references: dense algebra, finite differences, the hand model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from usthand.fit.arrow_system import ArrowSystem, inverse_blocks, solve
from usthand.fit.initialisation import inverse_kinematics, median_shape
from usthand.fit.kinematics import N_SHAPE, Articulation, HandState, articulation, inverse_left_jacobian, left_jacobian
from usthand.fit.objective import Energy, LabelTerm, PointTerm, earlier_correlation, sharing
from usthand.fit.reweighting import ReweightingConfig, label_weights
from usthand.fit.sequence import FitConfig, motion_prior
from usthand.geometry.robust_triangulation import interpolate_gaps
from usthand.geometry.rotations import rotation_matrix
from usthand.hand.io import load_hand
from usthand.hand.skeleton import BONES, FINGER_TIPS

STEP = 1e-6


@pytest.fixture(scope="module")
def hand() -> Articulation:
    return articulation(load_hand(dtype=torch.float64))


def random_state(hand: Articulation, rng: np.random.Generator, n_frames: int) -> HandState:
    low, high = hand.low, hand.high
    return HandState(
        rotation_matrix(rng.normal(size=(n_frames, 3))),
        0.1 * rng.normal(size=(n_frames, 3)),
        rng.uniform(low, high, size=(n_frames, len(low))),
        rng.normal(size=10),
    )


def smooth_state(hand: Articulation, rng: np.random.Generator, n_frames: int) -> HandState:
    """Slow motion inside the limits."""
    phase = np.linspace(0, 1.5, n_frames)[:, None]
    middle, reach = 0.5 * (hand.low + hand.high), 0.35 * (hand.high - hand.low)
    angles = middle + reach * np.sin(phase + rng.uniform(0, 6, len(middle)))
    root = rotation_matrix(rng.normal(size=(1, 3)) + 0.3 * np.sin(phase + rng.uniform(0, 6, 3)))
    return HandState(root, 0.02 * np.sin(phase + rng.uniform(0, 6, 3)), angles, 0.5 * rng.normal(size=10))


def random_system(rng: np.random.Generator, n_frames: int, size: int = 4, shared: int = 3) -> ArrowSystem:
    system = ArrowSystem.zeros(n_frames, size, shared)
    if n_frames > 2:
        rows = tuple(rng.normal(size=(n_frames - 2, 5, size)) for _ in range(3))
        system.add_tied(rows, rng.normal(size=(n_frames - 2, 5)), rng.uniform(size=(n_frames - 2, 5)))
    system.diagonal += 2 * np.eye(size)
    system.arrow[:] = 0.3 * rng.normal(size=system.arrow.shape)
    system.corner[:] = (n_frames + 3) * np.eye(shared)
    system.right_shared[:] = rng.normal(size=shared)
    return system


def dense(system: ArrowSystem) -> tuple[np.ndarray, np.ndarray]:
    """The whole matrix and right-hand side."""
    n_frames, size, shared = system.arrow.shape
    matrix = np.zeros((n_frames * size + shared,) * 2)
    for t in range(n_frames):
        here = slice(t * size, (t + 1) * size)
        matrix[here, here] = system.diagonal[t]
        matrix[here, n_frames * size :] = system.arrow[t]
        matrix[n_frames * size :, here] = system.arrow[t].T
        for k in range(2):
            if t + k + 1 < n_frames:
                there = slice((t + k + 1) * size, (t + k + 2) * size)
                matrix[there, here] = system.below[k][t]
                matrix[here, there] = system.below[k][t].T
    matrix[n_frames * size :, n_frames * size :] = system.corner
    return matrix, np.concatenate([system.right.ravel(), system.right_shared])


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 7, 10])
def test_banded_solution_and_inverse_equal_dense_ones(n_frames):
    system = random_system(np.random.default_rng(n_frames), n_frames)
    matrix, right = dense(system)
    step, shared = solve(system)
    assert np.allclose(np.concatenate([step.ravel(), shared]), np.linalg.solve(matrix, right), atol=1e-12)
    inverse, blocks = np.linalg.inv(matrix), inverse_blocks(system)
    for t in range(n_frames):
        here = slice(4 * t, 4 * t + 4)
        assert np.allclose(blocks.frame[t], inverse[here, here], atol=1e-12)
        assert np.allclose(blocks.shared[t], inverse[here, 4 * n_frames :], atol=1e-12)
    assert np.allclose(blocks.corner, inverse[4 * n_frames :, 4 * n_frames :], atol=1e-12)


def test_a_matrix_that_is_not_positive_gives_no_step():
    system = random_system(np.random.default_rng(0), 4)
    system.diagonal -= 100 * np.eye(4)
    assert solve(system) is None


def test_rotation_jacobians():
    rng = np.random.default_rng(0)
    for scale in (1e-6, 0.1, 1.0, 3.0):
        v, d = scale * rng.normal(size=3), rng.normal(size=3)
        ahead = rotation_matrix(v + STEP * d) @ rotation_matrix(v).T
        spin = np.array([ahead[2, 1], ahead[0, 2], ahead[1, 0]]) / STEP
        assert np.allclose(left_jacobian(v) @ d, spin, atol=1e-5)
        assert np.allclose(inverse_left_jacobian(v) @ left_jacobian(v), np.eye(3), atol=1e-9)


def test_joints_are_the_hand_models(hand):
    state = random_state(hand, np.random.default_rng(1), 4)
    model = load_hand(dtype=torch.float64)
    rotations = model.rotations(torch.from_numpy(hand.pose(state)), flat_hand_mean=True)
    posed = model.with_shape(torch.from_numpy(state.shape)).with_pose(
        rotations, torch.from_numpy(hand.translation_m(state))
    )
    assert np.allclose(posed.joints.numpy(), hand.posed(state).joints, atol=1e-10)


def test_a_bone_lies_still_in_its_own_frame(hand):
    """However the hand moves; tips to the millimetre that skinning moves them. The wrist's frame is the palm's."""
    state = random_state(hand, np.random.default_rng(4), 6)
    turns, joints = hand.bone_turns(state), hand.posed(state).joints
    assert np.array_equal(turns[:, 0], state.root) and np.array_equal(turns[:, 5], state.root)
    for parent, child in BONES:
        bone = np.einsum("tji,tj->ti", turns[:, child], joints[:, child] - joints[:, parent])
        assert np.ptp(bone, axis=0).max() < (3e-3 if child in FINGER_TIPS else 1e-9), (parent, child)


def test_derivatives_of_the_joints_equal_finite_differences(hand):
    rng = np.random.default_rng(2)
    state = random_state(hand, rng, 3)
    state.shape = rng.normal(size=N_SHAPE)
    posed, none = hand.posed(state), np.zeros(N_SHAPE)

    def joints(step, shape):
        return hand.joints(state.moved(step, shape))

    for d in range(hand.size):
        step = np.zeros((3, hand.size))
        step[:, d] = STEP
        numeric = (joints(step, none) - joints(-step, none)) / (2 * STEP)
        assert np.allclose(posed.by_frame[..., d], numeric, atol=1e-8)
    for s in range(N_SHAPE):
        shape, still = STEP * np.eye(N_SHAPE)[s], np.zeros((3, hand.size))
        numeric = (joints(still, shape) - joints(still, -shape)) / (2 * STEP)
        assert np.allclose(posed.by_shape[..., s], numeric, atol=1e-8)


def small_energy(hand: Articulation, rng: np.random.Generator, n_frames: int) -> Energy:
    """Two cameras with gaps, correlated and shared errors, one of a detector's joints; and 3D points."""
    present = rng.uniform(size=(n_frames, 2, 1)) < 0.7
    present = np.broadcast_to(present, (n_frames, 2, 21))
    root = rng.normal(size=(n_frames, 2, 21, 2, 2)) * present[..., None, None] * 10
    labels = LabelTerm(
        rotation_matrix(np.array([[0.1, 0.0, 0.0], [0.0, 1.2, 0.0]])),
        np.array([[0, 0, 0.6], [0.1, 0, 0.7]]),
        0.1 * rng.normal(size=(n_frames, 2, 21, 2)),
        root,
        earlier_correlation(present, 0.7),
        0.7,
    )
    points = PointTerm(0.1 * rng.normal(size=(n_frames, 21, 3)), 20 * rng.normal(size=(n_frames, 21, 3, 3)))
    labels = labels.weighted(rng.uniform(0.1, 1, size=present.shape), 0.1, 0.3)
    labels = replace(labels, soft=np.array([True, False]))
    return Energy(hand, motion_prior(hand, FitConfig()), labels, points, 0.01 * rng.normal(size=(n_frames, 21, 3)))


def test_gradient_of_the_cost_equals_finite_differences(hand):
    rng = np.random.default_rng(3)
    energy, state = small_energy(hand, rng, 4), smooth_state(hand, rng, 4)
    state.angles = state.angles + 0.5 * rng.normal(size=state.angles.shape)  # some beyond their limits
    system = energy.normal_equations(state)

    def slope(step, shape):
        return (energy.cost(state.moved(step, shape)) - energy.cost(state.moved(-step, -shape))) / (2 * STEP)

    scale = np.abs(system.right).max()
    for t in range(4):
        for d in range(hand.size):
            step = np.zeros((4, hand.size))
            step[t, d] = STEP
            assert abs(slope(step, np.zeros(10)) + system.right[t, d]) < 1e-6 * scale
    for s in range(10):
        assert abs(slope(np.zeros((4, hand.size)), STEP * np.eye(10)[s]) + system.right_shared[s]) < 1e-6 * scale
    assert np.linalg.eigvalsh(dense(system)[0]).min() > 0


def test_sharing_inverts_the_covariance_that_it_stands_for():
    finger = np.array([0] + [k for k in range(1, 6) for _ in range(4)])
    same = (finger[:, None] == finger) & (finger > 0)
    alike = 0.15 + 0.35 * same + np.diag(1 - 0.15 - 0.35 * same.diagonal())
    own, shared = sharing(np.full((1, 1, 21), 4.0), 0.15, 0.35)
    inverse = (np.eye(21) - shared[0, 0] @ shared[0, 0].T) / np.sqrt(own[0, 0][:, None] * own[0, 0])
    assert np.allclose(inverse, np.linalg.inv(alike), atol=1e-10)


def test_a_bad_label_never_counts_against_its_own_side():
    precision = np.random.default_rng(6).uniform(0.01, 1, size=(50, 1, 21))
    own, shared = sharing(precision, 0.3, 0.3)
    deviation = np.sqrt(precision / own)
    influence = (
        deviation - (shared @ (shared.swapaxes(-1, -2) @ deviation[..., None]))[..., 0]
    )  # of each on a common shift
    assert (influence > -0.3 * deviation).all()


def test_correlation_bridges_gaps_of_one_frame_only():
    present = np.array([1, 1, 0, 1, 0, 0, 1], bool)[:, None, None]
    one, two = earlier_correlation(present, 0.8)
    assert np.allclose(one[:, 0, 0], [0, 0.8, 0, 0, 0, 0, 0])
    assert np.allclose(two[:, 0, 0], [0, 0, 0, 0.64, 0, 0, 0])


def test_inverse_kinematics_finds_the_hand_of_its_own_joints(hand):
    state = smooth_state(hand, np.random.default_rng(4), 20)
    joints = hand.posed(state).joints
    shape = median_shape(hand, joints, np.ones((20, 21), bool))
    found = inverse_kinematics(hand, joints, shape)
    # A start: the prior draws the shape to the mean, the thumb's twist is left to the optimiser.
    assert np.linalg.norm(hand.posed(found).joints - joints, axis=-1).mean() < 4e-3


def test_weights_find_a_bad_joint_and_a_wrong_precision():
    rng = np.random.default_rng(5)
    present = np.ones((200, 3, 21), bool)
    stated = np.exp(rng.normal(size=present.shape))
    honest = np.ones(present.shape)
    honest[..., 4] = 9.0
    squared = stated * honest * (rng.normal(size=(*present.shape, 2)) ** 2).sum(-1)  # whatever is `stated`
    effective = label_weights(squared, stated, present, ReweightingConfig(dof=1e6)) * stated
    assert np.log(effective).std() < 0.6
    assert 5 < np.median(effective[..., :4]) / np.median(effective[..., 4]) < 14


def test_weights_are_not_learned_from_views_that_do_not_set_the_noise_scale():
    """A third view fits far better than its stated precision: the others' weights stay, and it takes their scale."""
    rng = np.random.default_rng(6)
    present, stated = np.ones((200, 3, 21), bool), np.ones((200, 3, 21))
    squared = 0.5 * (rng.normal(size=(*present.shape, 2)) ** 2).sum(-1)
    squared[:, 2] /= 100
    alone = label_weights(squared[:, :2], stated[:, :2], present[:, :2], ReweightingConfig())
    beside = label_weights(squared, stated, present, ReweightingConfig(), np.array([True, True, False]))
    assert np.allclose(beside[:, :2], alone)
    assert np.allclose(np.median(beside[:, 2]), (4 + 2) / 4 * np.median(alone), rtol=0.3), (
        "at residuals of nought Student's t gives (dof + 2) / dof"
    )
    assert np.median(label_weights(squared, stated, present, ReweightingConfig())[:, :2]) > 1.3 * np.median(alone)


def test_interpolation_holds_the_ends_and_is_linear_between():
    points = torch.zeros(6, 2, 3, dtype=torch.float64)
    points[1, 0], points[4, 0] = 1.0, 4.0
    seen = torch.zeros(6, 2, dtype=torch.bool)
    seen[[1, 4], 0] = True
    filled = interpolate_gaps(points, seen)
    assert torch.allclose(filled[:, 0, 0], torch.tensor([1.0, 1, 2, 3, 4, 4], dtype=torch.float64))
    assert torch.allclose(filled[:, 1], filled[:, 0])  # a joint never seen takes the mean of those that were
