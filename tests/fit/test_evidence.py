"""Labels as whitened residuals: their modelled covariance written out in full, and how joints and frames share it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.fit_parts import dense_inverse_covariance, two_views
from usthand.fit.evidence import earlier_correlation, joint_information, joint_normal, matrix_root, sharing
from usthand.hand.skeleton import FINGERS

HAND, FINGER, RHO = 0.15, 0.35, 0.7


def alike(hand: float = HAND, finger: float = FINGER) -> np.ndarray:
    """Covariance of 21 equally good labels of a view that have a part in common."""
    out = np.full((21, 21), hand)
    for ids in FINGERS.values():
        out[np.ix_(ids, ids)] += finger
    np.fill_diagonal(out, 1.0)
    return out


def complete(rng: np.random.Generator, n_frames: int):
    """Equal labels in every frame and view."""
    term = two_views(rng, n_frames, RHO)
    root = np.broadcast_to(12 * np.eye(2), term.root.shape).copy()
    present = np.ones(root.shape[:3], bool)
    return replace(term, root=root, previous=earlier_correlation(present, RHO))


def test_sharing_inverts_the_covariance_that_it_stands_for():
    own, shared, groups = sharing(np.full((1, 1, 21), 4.0), HAND, FINGER)
    inverse = (np.eye(21) - shared[0, 0] @ shared[0, 0].T) / np.sqrt(own[0, 0][:, None] * own[0, 0])
    assert np.allclose(inverse, np.linalg.inv(alike()), atol=1e-10)
    assert np.allclose(np.diag(own[0, 0]) + groups[0, 0] @ groups[0, 0].T, alike())


def test_sharing_inverts_the_covariance_of_unequal_labels_too():
    precision = np.random.default_rng(1).uniform(0.05, 2, size=(3, 2, 21))
    precision[0, 0, 5:9] = 0
    own, shared, groups = sharing(precision, HAND, FINGER)
    covariance = own[..., None] * np.eye(21) + groups @ groups.swapaxes(-1, -2)
    root = 1 / np.sqrt(own)
    inverse = root[..., None] * (np.eye(21) - shared @ shared.swapaxes(-1, -2)) * root[..., None, :]
    assert np.allclose(inverse @ covariance, np.eye(21), atol=1e-10)
    assert np.allclose(np.einsum("tvjj->tvj", covariance), 1), "in units of each label's variance"


def test_a_bad_label_never_counts_against_its_own_side():
    precision = np.random.default_rng(6).uniform(0.01, 1, size=(50, 1, 21))
    own, shared, _ = sharing(precision, 0.3, 0.3)
    deviation = np.sqrt(precision / own)
    influence = (
        deviation - (shared @ (shared.swapaxes(-1, -2) @ deviation[..., None]))[..., 0]
    )  # of each on a common shift
    assert (influence > -0.3 * deviation).all()


def test_influence_inverts_correlation_in_time_and_sharing_between_joints():
    """Of complete, equal labels the covariance is a Kronecker product of rho^lag and the joints' common parts."""
    rng, n_frames = np.random.default_rng(0), 5
    term = complete(rng, n_frames).weighted(np.full((n_frames, 2, 21), 0.6), HAND, FINGER)
    lag = np.abs(np.subtract.outer(np.arange(n_frames), np.arange(n_frames)))
    covariance = np.kron(RHO**lag, alike())
    residual = rng.normal(size=(n_frames, 2, 21, 4))
    found = term.influence(residual)
    for view in range(2):
        wanted = np.linalg.solve(covariance, residual[:, view].reshape(-1, 4))
        np.testing.assert_allclose(found[:, view].reshape(-1, 4), wanted, atol=1e-9)


@pytest.mark.parametrize("share", [False, True])
def test_influence_and_energy_equal_those_of_the_dense_covariance(share):
    """With gaps and unequal weights, which limit what a label predicts of the next."""
    rng = np.random.default_rng(2)
    term = two_views(rng, 6, RHO)
    term = term.weighted(rng.uniform(0.1, 1, size=term.root.shape[:3]), *((0.2, 0.3) if share else (0.0, 0.0)))
    inverse = dense_inverse_covariance(term)
    assert np.linalg.eigvalsh(inverse).min() > 0
    residual = term.residuals(0.05 * rng.normal(size=(6, 21, 3)))[0]
    flat = residual.reshape(-1, 2)
    found = term.influence(residual).reshape(-1, 2)
    np.testing.assert_allclose(found, inverse @ flat, atol=1e-9 * np.abs(found).max())
    assert np.isclose(term.energy(*term.chain(residual)), np.einsum("na,nm,ma->", flat, inverse, flat))


@pytest.mark.parametrize("with_axes", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_information_about_joints_equals_dense_algebra(share, with_axes):
    """J'WJ over all frames at once, in the world's axes and in the bones'; without what joints share for
    `joint_information`."""
    rng, n_frames = np.random.default_rng(3), 5
    joints = 0.05 * rng.normal(size=(n_frames, 21, 3))
    term = two_views(rng, n_frames, RHO)
    term = term.weighted(rng.uniform(0.1, 1, size=term.root.shape[:3]), *((0.2, 0.3) if share else (0.0, 0.0)))
    axes = np.linalg.qr(rng.normal(size=(n_frames, 21, 3, 3)))[0] if with_axes else None
    residual, rows = term.residuals(joints)
    rows = rows if axes is None else rows @ axes[:, None]
    jacobian = np.zeros((n_frames, 2, 21, 2, n_frames, 21, 3))
    frame, joint = np.indices((n_frames, 21))
    jacobian[frame, :, joint, :, frame, joint] = rows.swapaxes(1, 2)
    flat = jacobian.reshape(-1, 2, n_frames * 63)
    inverse = dense_inverse_covariance(term)
    wanted = np.einsum("nap,nm,maq->pq", flat, inverse, flat, optimize=True)
    right = -np.einsum("nap,nm,ma->p", flat, inverse, residual.reshape(-1, 2), optimize=True)
    blocks, pull = joint_normal(term, joints, axes)
    scale = np.abs(wanted).max()
    wanted = wanted.reshape(n_frames, 63, n_frames, 63)
    for gap, block in enumerate(blocks):
        for t in range(n_frames - gap):
            assert np.allclose(0 if block is None else block[t], wanted[t + gap, :, t], atol=1e-10 * scale)
    assert np.allclose(pull.ravel(), right, atol=1e-10 * np.abs(right).max())
    if not share:
        for gap, block in enumerate(joint_information(term, joints, axes)[0]):
            for t in range(n_frames - gap):
                for j in range(21):
                    here = slice(3 * j, 3 * j + 3)
                    assert np.allclose(block[t, j], wanted[t + gap, here, t, here], atol=1e-10 * scale)


def test_correlation_bridges_gaps_of_one_frame_only():
    present = np.array([1, 1, 0, 1, 0, 0, 1], bool)[:, None, None]
    one, two = earlier_correlation(present, 0.8)
    assert np.allclose(one[:, 0, 0], [0, 0.8, 0, 0, 0, 0, 0])
    assert np.allclose(two[:, 0, 0], [0, 0, 0, 0.64, 0, 0, 0])


def test_a_root_times_itself_is_the_precision():
    rng = np.random.default_rng(4)
    factor = rng.normal(size=(50, 2, 2))
    precision = factor @ factor.swapaxes(-1, -2)
    precision[:3] = 0
    root = matrix_root(precision)
    np.testing.assert_allclose(root.swapaxes(-1, -2) @ root, precision, atol=1e-12)
    assert not root[:, 1, 0].any()
