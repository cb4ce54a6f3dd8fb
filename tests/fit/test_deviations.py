"""Deviations of a detector's joints: their posterior against dense conditioning, joint by joint and frame by frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from support.fit_scene import make_scene
from usthand.fit.deviations import DeviationPrior, estimate_deviations
from usthand.fit.evidence import LabelTerm, PointTerm, earlier_correlation

MEMORY = 9.0


@pytest.fixture(scope="module")
def scene():
    return make_scene(n_frames=24)


@pytest.fixture(scope="module")
def prior():
    """Some millimetres, another ellipsoid for every joint."""
    root = 0.004 * np.random.default_rng(9).normal(size=(21, 3, 3))
    return DeviationPrior(root @ root.swapaxes(-1, -2) + 1e-6 * np.eye(3), MEMORY)


def label_term(scene, rng, correlation: float = 0.0) -> LabelTerm:
    """Views that see the joints some pixels aside; some labels are missing, none where errors last."""
    cameras = scene.rig.tensors(torch.float64).cam_from_world.numpy()
    cam = scene.joints[:, None] @ cameras[..., :3].swapaxes(-1, -2) + cameras[:, None, :, 3]
    xy = cam[..., :2] / cam[..., 2:] + 0.004 * rng.normal(size=(*cam.shape[:-1], 2))
    present = (rng.random(cam.shape[:-1]) < 0.8) | (correlation > 0)
    root = np.broadcast_to(200 * np.eye(2), (*cam.shape[:-1], 2, 2)) * present[..., None, None]
    return LabelTerm(
        cameras[..., :3], cameras[..., 3], xy, root, earlier_correlation(present, correlation), correlation
    )


def some_points(scene, rng) -> PointTerm:
    root = 150 * rng.normal(size=(*scene.joints.shape, 3))
    return PointTerm(scene.joints + 0.01 * rng.normal(size=scene.joints.shape), root)


def random_turns(rng, shape) -> np.ndarray:
    return Rotation.random(int(np.prod(shape)), random_state=rng).as_matrix().reshape(*shape, 3, 3)


def dense_mean(term, points, places, turns, prior, joint: int) -> np.ndarray:
    """Mean of one joint's deviations (T, 3) by conditioning whole covariance matrices.

    Rows are whitened; the errors of a view are correlated in time, those of points are not.
    """
    residual, rows = (part[:, :, joint] for part in term.residuals(places))
    n_frames, n_views = rows.shape[:2]
    lag = np.abs(np.subtract.outer(np.arange(n_frames), np.arange(n_frames)))
    own = prior.covariance_m2[joint]
    process = np.einsum("ts,tab,bc,sdc->tasd", np.exp(-lag / MEMORY), turns[:, joint], own, turns[:, joint])
    process = process.reshape(3 * n_frames, -1)
    n_labels = 2 * n_views * n_frames
    design = np.zeros((n_labels + 3 * n_frames * (points is not None), 3 * n_frames))
    values, noise = np.zeros(len(design)), np.eye(len(design))
    for t in range(n_frames):
        at, columns = slice(2 * n_views * t, 2 * n_views * (t + 1)), slice(3 * t, 3 * t + 3)
        design[at, columns], values[at] = rows[t].reshape(-1, 3), -residual[t].ravel()
        if points is not None:
            at = slice(n_labels + 3 * t, n_labels + 3 * t + 3)
            design[at, columns] = points.root[t, joint]
            values[at] = points.root[t, joint] @ (points.points_world_m - places)[t, joint]
    noise[:n_labels, :n_labels] = np.kron(term.correlation**lag, np.eye(2 * n_views))
    seen = design @ process
    return (seen.T @ np.linalg.solve(seen @ design.T + noise, values)).reshape(n_frames, 3)


@pytest.mark.parametrize("with_points", [False, True])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_mean_equals_dense_conditioning(scene, prior, with_points, correlation):
    """Labels, points and process of one joint as whole covariance matrices over 24 frames."""
    rng = np.random.default_rng(0)
    term, turns = label_term(scene, rng, correlation), random_turns(rng, scene.joints.shape[:2])
    points = some_points(scene, rng) if with_points else None
    places = scene.joints + 0.002 * rng.normal(size=scene.joints.shape)
    found = estimate_deviations([term, points] if points else [term], places, turns, prior)
    for joint in (0, 12, 20):
        wanted = dense_mean(term, points, places, turns, prior, joint)
        assert np.abs(found.mean_m[:, joint] - wanted).max() < 1e-9
        assert np.abs(wanted).max() > 1e-3


def test_one_frame_and_two_are_enough(scene, prior):
    for count in (1, 2):
        part = replace(scene, joints=scene.joints[:count])
        term = label_term(part, np.random.default_rng(1), 0.7)
        turns = np.broadcast_to(np.eye(3), (count, 21, 3, 3))
        found = estimate_deviations([term], part.joints, turns, prior)
        wanted = dense_mean(term, None, part.joints, turns, prior, 7)
        assert np.abs(found.mean_m[:, 7] - wanted).max() < 1e-9


@pytest.mark.parametrize("with_points", [False, True])
def test_covariances_equal_those_of_conditioning_on_a_frames_own_data(scene, prior, with_points):
    """In the form of a Kalman filter: with H what sees e, B its prior and S = HBH' + 1, the gain on the data is
    K = BH'S^-1, the covariance of e is B - KHB, and of x, known to P, is left (1 - KH) P (1 - KH)' of x + e: the law of
    total variance. Frames that nothing sees keep B, and x + e is as wide as both together."""
    rng = np.random.default_rng(0)
    term, turns = label_term(scene, rng), random_turns(rng, scene.joints.shape[:2])
    terms = [term, some_points(scene, rng)] if with_points else [term]
    place = np.broadcast_to(np.diag([1e-6, 4e-6, 9e-6]), (*scene.joints.shape, 3))
    found = estimate_deviations(terms, scene.joints, turns, prior)
    both = found.joint_covariance(place)
    rows = term.residuals(scene.joints)[1]
    for t, j in ((0, 0), (5, 12), (9, 4), (23, 20)):
        see = rows[t, :, j].reshape(-1, 3)
        see = np.concatenate([see, terms[1].root[t, j]]) if with_points else see
        before = turns[t, j] @ prior.covariance_m2[j] @ turns[t, j].T
        gain = before @ see.T @ np.linalg.inv(see @ before @ see.T + np.eye(len(see)))
        left, after = np.eye(3) - gain @ see, before - gain @ see @ before
        np.testing.assert_allclose(found.covariance_m2[t, j], after, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(both[t, j], left @ place[t, j] @ left.T + after, rtol=1e-6, atol=1e-12)
    blind = replace(term, root=np.zeros_like(term.root))
    unseen = estimate_deviations([blind], scene.joints, turns, prior)
    before = turns @ prior.covariance_m2 @ turns.swapaxes(-1, -2)
    np.testing.assert_allclose(unseen.joint_covariance(place), place + before, rtol=1e-6, atol=1e-12)


def test_the_variance_of_what_a_detector_sees_is_that_of_samples(scene, prior):
    """x from N(0, P), e from its prior, labels y of x + e. The estimate places x at 0, x + e at 0 + E[e | y, x = 0] and
    states the spread of x + e about that if y tells nothing of x: drawn again and again, from the joint Gaussian
    of x and of e given y and x, the spread is the stated one. 4000 draws leave 2.2 % of a variance; four of that."""
    rng = np.random.default_rng(5)
    term, turns = label_term(scene, rng), random_turns(rng, scene.joints.shape[:2])
    place = np.diag([4e-6, 1e-6, 9e-6])
    found = estimate_deviations([term], scene.joints, turns, prior)
    t, j = 5, 12
    see = term.residuals(scene.joints)[1][t, :, j].reshape(-1, 3)
    target = -term.residuals(scene.joints)[0][t, :, j].ravel()
    before = np.linalg.inv(turns[t, j] @ prior.covariance_m2[j] @ turns[t, j].T)
    after = np.linalg.inv(see.T @ see + before)
    x = rng.multivariate_normal(np.zeros(3), place, 4000)
    e = (target - x @ see.T) @ see @ after + rng.multivariate_normal(np.zeros(3), after, 4000)
    stated = found.joint_covariance(np.broadcast_to(place, (*scene.joints.shape, 3)))[t, j]
    spread = np.cov((x + e).T)
    assert np.abs(spread - stated).max() < 4 * np.sqrt(2 / 4000) * np.diag(stated).max()


def test_frames_without_labels_take_their_neighbours_deviation_with_the_bone(scene, prior):
    """Half of it or more, turned as the bone has turned since."""
    term = label_term(scene, np.random.default_rng(1))
    root = term.root.copy()
    root[10] = 0
    turns = np.broadcast_to(np.eye(3), (*scene.joints.shape, 3)).copy()
    turns[10] = Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix()
    isotropic = DeviationPrior(np.tile(0.005**2 * np.eye(3), (21, 1, 1)), 30.0)
    found = estimate_deviations([replace(term, root=root)], scene.joints, turns, isotropic)
    around = 0.5 * (found.mean_m[9] + found.mean_m[11]) @ turns[10, 0].T
    assert np.abs(found.mean_m[10] - around).max() < 0.1 * np.abs(around).max()
    assert np.allclose(found.covariance_m2[10], 0.005**2 * np.eye(3))


def test_a_detector_that_does_not_stray_follows_the_model(scene):
    """And one that strays without limit follows the labels alone."""
    term = label_term(scene, np.random.default_rng(2))
    place = np.broadcast_to(1e-6 * np.eye(3), (*scene.joints.shape, 3))
    turns = random_turns(np.random.default_rng(3), scene.joints.shape[:2])
    stiff, loose = (
        estimate_deviations([term], scene.joints, turns, DeviationPrior(np.tile(v * np.eye(3), (21, 1, 1)), MEMORY))
        for v in (1e-10, 100.0)
    )
    assert np.allclose(stiff.joint_covariance(place), place, atol=1e-9)
    rows = term.residuals(scene.joints)[1]
    information = (rows.swapaxes(-1, -2) @ rows).sum(1)
    several = (term.root[..., 0, 0] > 0).sum(1) >= 2
    assert np.allclose(loose.joint_covariance(place)[several], np.linalg.inv(information[several]), rtol=1e-3)
