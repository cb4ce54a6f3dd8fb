"""The mesh's own joints: those of a rigid or soft result, of either side and in any unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fit_scene import error_mm, labels_of, make_scene
from usthand.common.errors import UsthandError
from usthand.evaluation.metrics import evaluate_mesh_joints
from usthand.evaluation.truth import Truth
from usthand.fit.fit import fit_labels, triangulate
from usthand.fit.sequence import FitConfig
from usthand.geometry.cameras import project
from usthand.hand.io import load_hand
from usthand.hand.mesh_joints import mesh_joints
from usthand.hand.proportions import with_proportions

RIGID, SOFT = (FitConfig(rounds=4, joint_model=kind) for kind in ("rigid", "soft"))


@pytest.fixture(scope="module")
def scene():
    return make_scene(n_frames=12)


def test_of_rigid_joints_they_are_the_joints(scene):
    right = fit_labels(scene.rig, scene.labels, RIGID)
    assert error_mm(mesh_joints(right), right.joints_world_m).max() < 1e-6
    left = fit_labels(scene.rig.mirrored(), scene.labels.mirrored(scene.rig.widths), RIGID)
    assert left.side == "left" and error_mm(mesh_joints(left), left.joints_world_m).max() < 1e-6


def test_in_the_unit_of_the_rig(scene):
    cameras = tuple(replace(camera, translation=camera.translation * 30) for camera in scene.rig.cameras)
    result = fit_labels(replace(scene.rig, cameras=cameras, metric=False, unit_source="boards"), scene.labels, RIGID)
    own = replace(  # as files of before the unit was kept have it
        result, joints_world_m=30 * result.joints_world_m, vertices_world_m=30 * result.vertices_world_m
    )
    for one in (result, own):
        assert not one.metric and np.allclose(mesh_joints(one), one.joints_world_m, rtol=0, atol=3e-6)


def test_of_soft_joints_they_are_the_joints_too_and_the_detectors_lie_beside_them(scene):
    """Two joints that a detector sees 6 mm aside, in all views: what it sees is there, and stated by itself."""
    seen = scene.joints.copy()
    seen[:, [0, 5]] += [0.006, 0, 0]
    uv = project(scene.rig.tensors(torch.float64), torch.from_numpy(seen))[0].numpy()
    labels = replace(labels_of(scene.rig, uv), detector="of my own")
    result = fit_labels(scene.rig, labels, SOFT)
    assert result.joint_model == "soft" and error_mm(mesh_joints(result), result.joints_world_m).max() < 1e-6
    detector, model = (
        error_mm(joints, seen)[:, [0, 5]].mean() for joints in (result.detector_joints_world_m, result.joints_world_m)
    )
    assert detector < 0.75 * model
    numbers = evaluate_mesh_joints(result, Truth.of_joints(scene.joints, np.ones((12, 4, 21), bool)))
    assert numbers["mesh_mpjpe_mm"] == pytest.approx(error_mm(mesh_joints(result), scene.joints).mean())


def test_of_a_hand_with_more_proportions_than_the_embedded_one(scene):
    """A column that makes the hand longer by a tenth at 1: the joints are a tenth farther from its origin."""
    hand = with_proportions(load_hand(dtype=torch.float64))
    longer = replace(
        hand,
        shapedirs=torch.cat((hand.shapedirs, 0.1 * hand.v_template[..., None]), -1),
        joints_shapedirs=torch.cat((hand.joints_shapedirs, 0.1 * hand.joints_template[..., None]), -1),
    )
    rest, time = torch.eye(3, dtype=torch.float64).expand(1, 16, 3, 3), len(scene.joints)
    shape = torch.cat((torch.zeros(40), torch.ones(1))).double()
    posed = longer.with_shape(shape).with_pose(rest)
    made = fit_labels(scene.rig, scene.labels, RIGID)
    result = replace(
        made,
        pose=np.zeros((time, 48)),
        shape=shape.numpy(),
        shape_cov=np.zeros((0, 0)),
        vertices_world_m=np.repeat(posed.vertices.numpy(), time, 0),
    )
    expected = 1.1 * hand.with_shape(torch.zeros(40).double()).with_pose(rest).joints.numpy()
    np.testing.assert_allclose(mesh_joints(result, longer), np.repeat(expected, time, 0), atol=1e-9)
    with pytest.raises(UsthandError, match="41 shape coefficients, the hand model 40"):
        mesh_joints(result)


def test_another_hand_is_refused(scene):
    result = fit_labels(scene.rig, scene.labels, RIGID)
    with pytest.raises(UsthandError, match="not this hand model's"):
        mesh_joints(replace(result, shape=result.shape + 2.0))
    bare = replace(
        triangulate(scene.rig, scene.labels), vertices_world_m=np.zeros((12, 0, 3)), faces=np.zeros((0, 3), int)
    )
    with pytest.raises(UsthandError, match="0 vertices"):
        mesh_joints(bare)
