"""Soft joints: their posterior against dense conditioning, and the choice between joint models by left-out cameras."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation
from usthand.fit.detector_offsets import OffsetPrior, estimate_offsets
from usthand.fit.joint_model_selection import busiest_window

from support.fit_scene import error_mm, labels_of, make_scene
from usthand.fit.fit import fit_labels, fit_observations
from usthand.fit.objective import LabelTerm, PointTerm, earlier_correlation
from usthand.fit.observations import Observations
from usthand.fit.sequence import FitConfig
from usthand.geometry.cameras import project

FAST = FitConfig(rounds=5)


@pytest.fixture(scope="module")
def scene():
    return make_scene(n_frames=24)


@pytest.fixture(scope="module")
def bent(scene):
    """Labels of a detector whose joints lie elsewhere than the model's, alike in all views: 8 mm, turning with time."""
    rng = np.random.default_rng(3)
    phase = np.linspace(0, 3, len(scene.joints))[:, None, None]
    away = 0.008 * np.sin(phase + rng.uniform(0, 6, (1, 21, 3)))
    seen = scene.joints + away
    uv = project(scene.rig.tensors(torch.float64), torch.from_numpy(seen))[0].numpy()
    return seen, labels_of(scene.rig, uv + 0.5 * rng.normal(size=uv.shape))


@pytest.fixture(scope="module")
def jittered(scene):
    """Labels with independent errors in each view that joints of a hand and of a finger share in part."""
    rng = np.random.default_rng(5)
    shape = scene.labels.uv_px.shape
    hand, own = rng.normal(size=(*shape[:2], 1, 2)), rng.normal(size=shape)
    finger = np.concatenate(
        [np.zeros((*shape[:2], 1, 2)), rng.normal(size=(*shape[:2], 5, 2)).repeat(4, axis=2)], axis=2
    )
    return labels_of(scene.rig, scene.labels.uv_px + 2.5 * (0.6 * hand + 0.5 * finger + 0.6 * own))


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


def random_turns(rng, shape) -> np.ndarray:
    return Rotation.random(int(np.prod(shape)), random_state=rng).as_matrix().reshape(*shape, 3, 3)


def dense_posterior(rows, target, correlation: float, turns, std: float, memory: float, more=None) -> np.ndarray:
    """Mean of one joint's deviations (T, 3) by conditioning whole covariance matrices.

    `rows` (T, V, 2, 3) and `target` (T, V, 2) are whitened; `correlation` is that of a view's errors in time.
    `more`: rows (T, 3, 3) and targets (T, 3) of further, independent observations.
    """
    n_frames, n_views = rows.shape[:2]
    lag = np.abs(np.subtract.outer(np.arange(n_frames), np.arange(n_frames)))
    process = std**2 * np.exp(-lag / memory)
    prior = np.einsum("ts,tab,scb->tasc", process, turns, turns).reshape(3 * n_frames, -1)
    design = np.zeros((n_frames, n_views, 2, n_frames, 3))
    design[np.arange(n_frames), :, :, np.arange(n_frames)] = rows
    noise = np.einsum("ts,vw,ab->tvaswb", correlation**lag, np.eye(n_views), np.eye(2)).reshape(
        design[..., 0, 0].size, -1
    )
    design, values = design.reshape(-1, 3 * n_frames), target.reshape(-1)
    if more is not None:
        below = np.zeros((n_frames, 3, n_frames, 3))
        below[np.arange(n_frames), :, np.arange(n_frames)] = more[0]
        design, values = np.vstack((design, below.reshape(-1, 3 * n_frames))), np.concatenate((values, more[1].ravel()))
        noise = block_diag(noise, np.eye(3 * n_frames))
    seen = design @ prior
    return (seen.T @ np.linalg.solve(seen @ design.T + noise, values)).reshape(n_frames, 3)


@pytest.mark.parametrize("with_points", [False, True])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_posterior_equals_dense_conditioning(scene, with_points, correlation):
    """Labels, points and process of one joint as whole covariance matrices over 24 frames."""
    rng = np.random.default_rng(0)
    term, std, memory = label_term(scene, rng, correlation), 0.005, 9.0
    turns, current = random_turns(rng, scene.joints.shape[:2]), 0.002 * rng.normal(size=scene.joints.shape)
    points = None
    if with_points:
        points = PointTerm(
            scene.joints + 0.01 * rng.normal(size=scene.joints.shape),
            np.broadcast_to(150 * np.eye(3), (*scene.joints.shape, 3)),
        )
    found = estimate_offsets(term, points, scene.joints, turns, current, OffsetPrior(std, memory))
    residual, rows = term.residuals(scene.joints, current)
    for joint in (0, 12, 20):
        target = np.einsum("tvab,tb->tva", rows[:, :, joint], current[:, joint]) - residual[:, :, joint]
        more = points and (
            points.root[:, joint],
            np.einsum("tab,tb->ta", points.root[:, joint], (points.points_world_m - scene.joints)[:, joint]),
        )
        wanted = dense_posterior(rows[:, :, joint], target, correlation, turns[:, joint], std, memory, more)
        assert np.abs(found.mean_m[:, joint] - wanted).max() < 1e-9
        assert np.abs(wanted).max() > 1e-3


def test_covariance_is_that_of_a_frames_own_rows(scene):
    rng = np.random.default_rng(0)
    term = label_term(scene, rng)
    found = estimate_offsets(
        term,
        None,
        scene.joints,
        random_turns(rng, scene.joints.shape[:2]),
        np.zeros(scene.joints.shape),
        OffsetPrior(0.005, 9.0),
    )
    _, rows = term.residuals(scene.joints)
    for t, j in ((0, 0), (5, 12), (23, 20)):
        a = np.array([*rows[t, :, j].reshape(-1, 3), *np.eye(3) / 0.005])
        assert np.allclose(found.covariance_m2[t, j], np.linalg.inv(a.T @ a), rtol=1e-6)


def test_one_frame_and_two_are_enough(scene):
    for count in (1, 2):
        part = replace(scene, joints=scene.joints[:count], labels=scene.labels)
        term = label_term(part, np.random.default_rng(1), 0.7)
        turns = np.broadcast_to(np.eye(3), (count, 21, 3, 3))
        found = estimate_offsets(term, None, part.joints, turns, np.zeros(part.joints.shape), OffsetPrior(0.005, 9.0))
        residual, rows = term.residuals(part.joints)
        wanted = dense_posterior(rows[:, :, 7], -residual[:, :, 7], 0.7, turns[:, 7], 0.005, 9.0)
        assert np.abs(found.mean_m[:, 7] - wanted).max() < 1e-9


def test_frames_without_labels_take_their_neighbours_offset_with_the_bone(scene):
    """Half of it or more, turned as the bone has turned since."""
    term = label_term(scene, np.random.default_rng(1))
    root = term.root.copy()
    root[10] = 0
    turns = np.broadcast_to(np.eye(3), (*scene.joints.shape, 3)).copy()
    turns[10] = Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix()
    found = estimate_offsets(
        replace(term, root=root), None, scene.joints, turns, np.zeros(scene.joints.shape), OffsetPrior(0.005, 30.0)
    )
    around = 0.5 * (found.mean_m[9] + found.mean_m[11]) @ turns[10, 0].T
    assert np.abs(found.mean_m[10] - around).max() < 0.1 * np.abs(around).max()
    assert np.allclose(found.covariance_m2[10], 0.005**2 * np.eye(3))


def test_covariance_of_soft_joints_lies_between_its_limits(scene):
    """With a stiff hand it is the model's own; with a loose one the labels' alone."""
    term = label_term(scene, np.random.default_rng(2))
    none, model = np.zeros(scene.joints.shape), np.broadcast_to(1e-6 * np.eye(3), (*scene.joints.shape, 3))
    turns = random_turns(np.random.default_rng(3), scene.joints.shape[:2])
    stiff = estimate_offsets(term, None, scene.joints, turns, none, OffsetPrior(1e-5, 9.0)).joint_covariance(model)
    assert np.allclose(stiff, model, atol=1e-9)
    loose = estimate_offsets(term, None, scene.joints, turns, none, OffsetPrior(10.0, 9.0))
    _, rows = term.residuals(scene.joints)
    information = (rows.swapaxes(-1, -2) @ rows).sum(1)
    several = (term.root[..., 0, 0] > 0).sum(1) >= 2
    assert np.allclose(loose.joint_covariance(model)[several], np.linalg.inv(information[several]), rtol=1e-3)


def test_cameras_choose_soft_joints_for_a_detector_of_other_joints(bent, scene):
    seen, labels = bent
    free, rigid = (fit_labels(scene.rig, labels, replace(FAST, joint_model=kind)) for kind in ("auto", "rigid"))
    assert free.joint_model == "soft" and rigid.joint_model == "rigid"
    assert error_mm(free.joints_world_m, seen).mean() < 0.6 * error_mm(rigid.joints_world_m, seen).mean()
    assert (np.linalg.eigvalsh(free.joints_cov_m2) > 0).all()


def test_cameras_choose_rigid_joints_for_views_that_err_by_themselves(jittered, scene):
    chosen, soft = (fit_labels(scene.rig, jittered, replace(FAST, joint_model=kind)) for kind in ("auto", "soft"))
    assert chosen.joint_model == "rigid" and soft.joint_model == "soft"
    assert error_mm(chosen.joints_world_m, scene.joints).mean() < error_mm(soft.joints_world_m, scene.joints).mean()


def test_two_cameras_cannot_choose(bent, scene):
    names = scene.rig.names[:2]
    rig = replace(scene.rig, cameras=scene.rig.cameras[:2])
    assert fit_labels(rig, bent[1].subset(names), FAST).joint_model == "rigid"


def test_left_is_the_mirror_of_right_with_soft_joints(bent, scene):
    config = replace(FAST, joint_model="soft")
    right = fit_labels(scene.rig, bent[1], config)
    left = fit_labels(scene.rig.mirrored(), bent[1].mirrored(scene.rig.widths), config)
    assert error_mm(left.mirrored().joints_world_m, right.joints_world_m).max() < 0.01


def twice(scene, rng, seen_px, predicts_model_joints):
    """Each camera twice: one that sees the model's joints, noisily, and one that sees the detector's."""
    exact = project(scene.rig.tensors(torch.float64), torch.from_numpy(scene.joints))[0].numpy()
    copies = tuple(replace(camera, name=f"{camera.name} again") for camera in scene.rig.cameras)
    uv = np.concatenate([exact + 2 * rng.normal(size=exact.shape), seen_px], axis=1)
    precision = np.tile(np.eye(2) / 4, (*uv.shape[:-1], 1, 1))
    mask = np.repeat([predicts_model_joints, False], len(copies))
    return replace(scene.rig, cameras=copies + scene.rig.cameras), Observations(
        uv, precision, predicts_model_joints=mask
    )


def test_views_that_see_the_models_joints_hold_the_mesh_where_it_is(bent, scene):
    """A detector shifts all joints by 6 mm; as many views see the model's joints. If these are marked, the mesh is the
    hand's and the joints are the detector's; if not, both lie in between."""
    seen = scene.joints + np.array([0.006, 0, 0])
    uv = project(scene.rig.tensors(torch.float64), torch.from_numpy(seen))[0].numpy()
    config, errors = replace(FAST, joint_model="soft", offset_std_m=0.006), {}
    for predicts_model_joints in (True, False):
        rng = np.random.default_rng(8)
        result = fit_observations(*twice(scene, rng, uv + 2 * rng.normal(size=uv.shape), predicts_model_joints), config)
        errors[predicts_model_joints] = [
            error_mm(result.vertices_world_m, scene.vertices).mean(),
            error_mm(result.joints_world_m, seen).mean(),
        ]
    assert errors[True][0] < 0.6 * errors[False][0] and errors[True][0] < 2
    assert errors[True][1] < errors[False][1]


def test_offsets_are_learned_from_soft_views_alone(scene):
    """Views that see the model's joints change nothing."""
    rng = np.random.default_rng(6)
    term, current = label_term(scene, rng), 0.002 * rng.normal(size=scene.joints.shape)
    soft = np.array([True, False, True, True])
    parts = {name: getattr(term, name)[:, soft] for name in ("xy", "root")}
    previous = tuple(part[:, soft] for part in term.previous)
    fewer = replace(
        term, rotation=term.rotation[soft], translation_m=term.translation_m[soft], previous=previous, **parts
    )
    turns = random_turns(rng, scene.joints.shape[:2])
    one = estimate_offsets(replace(term, soft=soft), None, scene.joints, turns, current, OffsetPrior(0.005, 9.0))
    other = estimate_offsets(fewer, None, scene.joints, turns, current, OffsetPrior(0.005, 9.0))
    assert np.allclose(one.mean_m, other.mean_m) and np.allclose(one.covariance_m2, other.covariance_m2)


def test_busiest_window_holds_the_most_labels():
    count = np.random.default_rng(4).integers(0, 50, 300)
    window = busiest_window(count, 100)
    assert window.stop - window.start == 100
    assert count[window].sum() == max(count[k : k + 100].sum() for k in range(201))
    assert busiest_window(count, 400) == slice(0, 300)


def test_the_choice_does_not_depend_on_the_order_of_the_cameras(bent, scene):
    rig = replace(scene.rig, cameras=scene.rig.cameras[::-1])
    turned, plain = (fit_labels(r, bent[1].subset(r.names), FAST) for r in (rig, scene.rig))
    assert turned.joint_model == plain.joint_model
    assert error_mm(turned.joints_world_m, plain.joints_world_m).max() < 0.01
