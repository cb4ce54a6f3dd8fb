"""The mesh fitted to joints: it finds a known hand, and uses the covariances of the joints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.fit_scene import error_mm, make_scene
from usthand.fit.mesh import fit_mesh
from usthand.hand.io import right_hand
from usthand.hand.mesh_joints import mesh_joints
from usthand.reconstruction.inference import Estimates
from usthand.reconstruction.network_results import network_result


@pytest.fixture(scope="module")
def scene():
    return make_scene()


@pytest.fixture(scope="module")
def hand():
    return right_hand()


def joints_of(hand, fitted_mesh) -> np.ndarray:
    rotations = hand.rotations(torch.from_numpy(fitted_mesh.pose), flat_hand_mean=True)
    posed = hand.with_shape(torch.from_numpy(fitted_mesh.shape)).with_pose(
        rotations, torch.from_numpy(fitted_mesh.translation_m)
    )
    assert np.allclose(posed.vertices.numpy(), fitted_mesh.vertices_world_m, atol=1e-9)
    return posed.joints.numpy()


def test_a_hand_is_found_on_its_own_joints(scene, hand):
    """Within two millimetres: bone lengths determine the ten shape coefficients only in part, priors the rest."""
    seen = np.ones(scene.joints.shape[:2], bool)
    fitted_mesh = fit_mesh(hand, scene.joints, seen)
    assert error_mm(joints_of(hand, fitted_mesh), scene.joints).mean() < 2.0
    assert error_mm(fitted_mesh.vertices_world_m, scene.vertices).mean() < 2.0


def test_frames_stand_by_themselves(scene, hand):
    """A bad frame moves no other: nothing is smoothed, and one frame changes median lengths little."""
    seen = np.ones(scene.joints.shape[:2], bool)
    spoiled = scene.joints.copy()
    spoiled[7] += np.random.default_rng(0).normal(size=(21, 3)) * 0.02
    one, two = fit_mesh(hand, scene.joints, seen), fit_mesh(hand, spoiled, seen)
    apart = error_mm(one.vertices_world_m, two.vertices_world_m).mean(1)
    assert apart[7] > 2 and np.delete(apart, 7).max() < 0.3


def test_uncertain_joints_hold_the_hand_less(scene, hand):
    seen = np.ones(scene.joints.shape[:2], bool)
    off, covariance = scene.joints.copy(), np.zeros((*scene.joints.shape, 3))
    off[:, 8] += 0.02  # the tip of the index, 35 mm away
    covariance[:, 8] = 0.02**2 * np.eye(3)
    believed, doubted = (joints_of(hand, fit_mesh(hand, off, seen, c)) for c in (0.0, covariance))
    assert error_mm(doubted, scene.joints)[:, 5:9].mean() < 0.5 * error_mm(believed, scene.joints)[:, 5:9].mean()


def test_unseen_frames_are_bridged(scene, hand):
    seen = np.ones(scene.joints.shape[:2], bool)
    seen[5:8] = False
    nonsense = scene.joints.copy()
    nonsense[5:8] = 0.0
    fitted_mesh = fit_mesh(hand, nonsense, seen)
    assert (
        np.isfinite(fitted_mesh.vertices_world_m).all()
        and error_mm(joints_of(hand, fitted_mesh), scene.joints)[5:8].mean() < 15
    )
    nothing = fit_mesh(hand, np.zeros_like(scene.joints), np.zeros_like(seen))
    assert np.isfinite(nothing.vertices_world_m).all()


# ---- the network's answer ------------------------------------------------------------------------------------------


def test_the_networks_mesh_lies_on_its_points(scene, hand):
    """A network that has the joints right, whatever its head says."""
    shape = scene.labels.confidence.shape
    n = shape[0]
    estimates = Estimates(
        uv_px=scene.labels.uv_px.astype(float),
        cov_px2=np.broadcast_to(np.eye(2), (*shape, 2, 2)),
        confidence=np.ones(shape),
        heatmap_confidence=np.ones(shape),
        points_world_m=scene.joints,
        angles=np.zeros((n, 15, 3)),
        root=np.tile(np.eye(3), (n, 1, 1)),
        shape=np.zeros(10),
        translation_m=np.zeros((n, 3)),
        valid=np.ones(n, bool),
        source=np.ones(n, int),
    )
    result = network_result(scene.rig, estimates, hand)
    assert result.method == "usthand network" and result.joint_model == "free"
    assert error_mm(mesh_joints(result), scene.joints).mean() < 2.0
