"""Soft joints: their posterior against dense linear algebra, and the cross-check of the cameras that chooses them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_scene import error_mm, labels_of, make_scene

from usthand.cross_check import busiest_window
from usthand.deviation import estimate_deviation
from usthand.energy import LabelTerm, PointTerm
from usthand.fit import FitConfig, fit_labels, fit_observations
from usthand.geometry import project
from usthand.labels import Observations

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
    """Labels of views that err each for itself, the joints of a hand and of a finger partly together, as detectors do."""
    rng = np.random.default_rng(5)
    shape = scene.labels.uv_px.shape
    hand, own = rng.normal(size=(*shape[:2], 1, 2)), rng.normal(size=shape)
    finger = np.concatenate([np.zeros((*shape[:2], 1, 2)), rng.normal(size=(*shape[:2], 5, 2)).repeat(4, axis=2)], axis=2)
    return labels_of(scene.rig, scene.labels.uv_px + 2.5 * (0.6 * hand + 0.5 * finger + 0.6 * own))


def label_term(scene, rng) -> LabelTerm:
    cameras = scene.rig.tensors(torch.float64).cam_from_world.numpy()
    cam = scene.joints[:, None] @ cameras[..., :3].swapaxes(-1, -2) + cameras[:, None, :, 3]
    xy = cam[..., :2] / cam[..., 2:] + 0.004 * rng.normal(size=(*cam.shape[:-1], 2))
    root = np.broadcast_to(200 * np.eye(2), (*cam.shape[:-1], 2, 2)) * (rng.random(cam.shape[:-1]) < 0.8)[..., None, None]
    none = np.zeros(cam.shape[:-1])
    return LabelTerm(cameras[..., :3], cameras[..., 3], xy, root, (none, none))


@pytest.mark.parametrize("with_points", [False, True])
def test_posterior_equals_dense_least_squares(scene, with_points):
    """Stacked whitened rows of labels, points and prior of one joint, solved by lstsq; covariance from the same rows."""
    rng = np.random.default_rng(0)
    term, std = label_term(scene, rng), 0.005
    current = 0.002 * rng.normal(size=scene.joints.shape)
    points = None
    if with_points:
        points = PointTerm(scene.joints + 0.01 * rng.normal(size=scene.joints.shape), np.broadcast_to(150 * np.eye(3), (*scene.joints.shape, 3)))
    found = estimate_deviation(term, points, scene.joints, current, std, 0.0)
    residual, rows = term.residuals(scene.joints + current)
    for t, j in ((0, 0), (5, 12), (23, 20)):
        a = [*rows[t, :, j].reshape(-1, 3), *np.eye(3) / std]
        b = [*(np.einsum("vab,b->va", rows[t, :, j], current[t, j]) - residual[t, :, j]).ravel(), 0, 0, 0]
        if with_points:
            a += list(points.root[t, j])
            b += list(points.root[t, j] @ (points.points_world_m - scene.joints)[t, j])
        a, b = np.array(a), np.array(b)
        assert np.allclose(found.mean_m[t, j], np.linalg.lstsq(a, b, rcond=None)[0], atol=1e-9)
        assert np.allclose(found.covariance_m2[t, j], np.linalg.inv(a.T @ a), rtol=1e-6)


def test_frames_without_labels_take_their_neighbours_deviation(scene):
    term = label_term(scene, np.random.default_rng(1))
    root = term.root.copy()
    root[10] = 0
    found = estimate_deviation(replace(term, root=root), None, scene.joints, np.zeros(scene.joints.shape), 0.005, 2.0)
    around = np.linalg.norm(found.mean_m[[9, 11]], axis=-1).mean()
    assert 0.5 * around < np.linalg.norm(found.mean_m[10], axis=-1).mean() < 2 * around
    assert np.allclose(found.covariance_m2[10], 0.005**2 * np.eye(3))


def test_covariance_of_soft_joints_lies_between_its_limits(scene):
    """With a stiff hand it is the model's own; with a loose one the labels' alone."""
    term = label_term(scene, np.random.default_rng(2))
    none, model = np.zeros(scene.joints.shape), np.broadcast_to(1e-6 * np.eye(3), (*scene.joints.shape, 3))
    stiff = estimate_deviation(term, None, scene.joints, none, 1e-5, 0.0).joint_covariance(model)
    assert np.allclose(stiff, model, atol=1e-9)
    loose = estimate_deviation(term, None, scene.joints, none, 10.0, 0.0)
    _, rows = term.residuals(scene.joints)
    information = (rows.swapaxes(-1, -2) @ rows).sum(1)
    several = (term.root[..., 0, 0] > 0).sum(1) >= 2
    assert np.allclose(loose.joint_covariance(model)[several], np.linalg.inv(information[several]), rtol=1e-3)


def test_cameras_choose_soft_joints_for_a_detector_of_other_joints(bent, scene):
    seen, labels = bent
    free, rigid = (fit_labels(scene.rig, labels, replace(FAST, joints=kind)) for kind in ("auto", "rigid"))
    assert free.joints == "soft" and rigid.joints == "rigid"
    assert error_mm(free.joints_world_m, seen).mean() < 0.6 * error_mm(rigid.joints_world_m, seen).mean()
    assert (np.linalg.eigvalsh(free.joints_cov_m2) > 0).all()


def test_cameras_choose_rigid_joints_for_views_that_err_by_themselves(jittered, scene):
    chosen, soft = (fit_labels(scene.rig, jittered, replace(FAST, joints=kind)) for kind in ("auto", "soft"))
    assert chosen.joints == "rigid" and soft.joints == "soft"
    assert error_mm(chosen.joints_world_m, scene.joints).mean() < error_mm(soft.joints_world_m, scene.joints).mean()


def test_two_cameras_cannot_choose(bent, scene):
    names = scene.rig.names[:2]
    rig = replace(scene.rig, cameras=scene.rig.cameras[:2])
    assert fit_labels(rig, bent[1].subset(names), FAST).joints == "rigid"


def test_left_is_the_mirror_of_right_with_soft_joints(bent, scene):
    config = replace(FAST, joints="soft")
    right = fit_labels(scene.rig, bent[1], config)
    left = fit_labels(scene.rig.mirrored(), bent[1].mirrored(scene.rig.widths), config)
    assert error_mm(left.mirrored().joints_world_m, right.joints_world_m).max() < 0.01


def twice(scene, rng, seen_px, firm):
    """Each camera stands there twice: as one that sees the model's joints, noisily, and as the detector's."""
    exact = project(scene.rig.tensors(torch.float64), torch.from_numpy(scene.joints))[0].numpy()
    copies = tuple(replace(camera, name=f"{camera.name} again") for camera in scene.rig.cameras)
    uv = np.concatenate([exact + 2 * rng.normal(size=exact.shape), seen_px], axis=1)
    precision = np.tile(np.eye(2) / 4, (*uv.shape[:-1], 1, 1))
    mask = np.repeat([firm, False], len(copies))
    return replace(scene.rig, cameras=copies + scene.rig.cameras), Observations(uv, precision, firm=mask)


def test_views_that_see_the_models_joints_hold_the_mesh_where_it_is(bent, scene):
    """A detector that shifts all joints alike by 6 mm, seen as often as the model's joints are: if these are firm, the mesh is
    the hand's and the joints are the detector's; if not, both lie in between."""
    seen = scene.joints + np.array([0.006, 0, 0])
    uv = project(scene.rig.tensors(torch.float64), torch.from_numpy(seen))[0].numpy()
    config, errors = replace(FAST, joints="soft"), {}
    for firm in (True, False):
        rng = np.random.default_rng(8)
        result = fit_observations(*twice(scene, rng, uv + 2 * rng.normal(size=uv.shape), firm), config)
        errors[firm] = [error_mm(result.vertices_world_m, scene.vertices).mean(), error_mm(result.joints_world_m, seen).mean()]
    assert errors[True][0] < 0.6 * errors[False][0] and errors[True][0] < 2
    assert errors[True][1] < errors[False][1]


def test_deviation_is_learned_from_soft_views_alone(scene):
    """As if the firm ones were not there."""
    rng = np.random.default_rng(6)
    term, current = label_term(scene, rng), 0.002 * rng.normal(size=scene.joints.shape)
    soft = np.array([True, False, True, True])
    parts = {name: getattr(term, name)[:, soft] for name in ("xy", "root")}
    previous = tuple(part[:, soft] for part in term.previous)
    fewer = replace(term, rotation=term.rotation[soft], translation_m=term.translation_m[soft], previous=previous, **parts)
    one = estimate_deviation(replace(term, soft=soft), None, scene.joints, current, 0.005, 1.0)
    other = estimate_deviation(fewer, None, scene.joints, current, 0.005, 1.0)
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
    assert turned.joints == plain.joints
    assert error_mm(turned.joints_world_m, plain.joints_world_m).max() < 0.01
