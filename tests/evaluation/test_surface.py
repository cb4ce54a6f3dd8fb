"""Surface distance between meshes whose vertices do not correspond, and what evaluation makes of such truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trimesh import Trimesh
from trimesh.proximity import closest_point_naive

from support.stand_in import make_capture, make_rig, make_truth, moving_hand, result_of, tube_faces
from usthand.common.errors import UsthandError
from usthand.datasets.synthetic.shapes import sphere
from usthand.evaluation import truth as truths
from usthand.evaluation.evaluate import evaluate
from usthand.evaluation.metrics import evaluate_truth
from usthand.evaluation.surface import MARGIN_M, SURFACE_KEYS, surface_errors, vertex_areas_m2
from usthand.evaluation.truth import load_truth, save_truth
from usthand.evaluation.uncertainty import VERTEX_KEYS, evaluate_uncertainty

RADIUS = 0.05


def other_mesh(vertices, faces, joints=None, time=1):
    """Truth of another mesh in every frame, by default with its wrist far behind it."""
    joints = np.zeros((21, 3)) if joints is None else joints
    if not joints.any():
        joints = np.broadcast_to([0.0, -1.0, 0.0], (21, 3)).copy()
        joints[9] = 0.0, 1.0, 0.0
    truth = make_truth(np.random.default_rng(0), time)
    return replace(
        truth,
        joints_world_m=np.tile(joints, (time, 1, 1)),
        vertices_world_m=np.tile(vertices, (time, 1, 1)),
        faces=faces,
        joint_definition="a sphere's",
    )


def measured(truth, vertices, faces):
    time = len(truth.joints_world_m)
    result = result_of(truth, vertices=np.tile(vertices, (time, 1, 1)), faces=faces)
    return surface_errors(result, truth, np.arange(time), np.arange(time))


def test_spheres_in_one_another_are_their_radii_apart():
    vertices, faces = sphere(RADIUS, 40, 60)
    other, other_faces = sphere(RADIUS + 0.004, 31, 47)
    numbers = measured(other_mesh(other, other_faces), vertices, faces)
    # The facets of the coarser one lie inside its sphere by up to their sagitta.
    sagitta_mm = 1e3 * RADIUS * (1 - np.cos(np.hypot(np.pi / 31, 2 * np.pi / 47) / 2))
    for key in SURFACE_KEYS:
        assert abs(numbers[key] - 4.0) < sagitta_mm, key


def test_numbers_against_trimesh_and_areas_of_its_own():
    rng = np.random.default_rng(1)
    vertices, faces = sphere(RADIUS, 12, 16)
    other, other_faces = sphere(RADIUS, 9, 11)
    vertices = vertices + rng.normal(scale=0.003, size=vertices.shape)
    numbers = measured(other_mesh(other, other_faces), vertices, faces)
    for key, points, own, surface, theirs in (
        ("surface_to_true_mm", vertices, faces, other, other_faces),
        ("surface_from_true_mm", other, other_faces, vertices, faces),
    ):
        mesh = Trimesh(points, own, process=False)
        weight = np.bincount(own.ravel(), np.repeat(mesh.area_faces, 3), len(points))
        distance = closest_point_naive(Trimesh(surface, theirs, process=False), points)[1]
        assert numbers[key] == pytest.approx(1e3 * np.average(distance, weights=weight), rel=1e-9)
        np.testing.assert_allclose(vertex_areas_m2(points, own), weight / 3, rtol=1e-9)
    assert numbers["surface_mm"] == pytest.approx((numbers["surface_to_true_mm"] + numbers["surface_from_true_mm"]) / 2)


def test_a_finely_meshed_part_weighs_no_more():
    """Two equal squares 1 and 3 mm above a plane: the mean is 2 mm however finely one of them is meshed."""
    plane = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]])
    truth = other_mesh(*plane)
    for cells in (1, 9):
        step = np.linspace(0, 0.1, cells + 1)
        grid = np.stack([*(g.ravel() for g in np.meshgrid(step, step)), np.full((cells + 1) ** 2, 0.003)], 1)
        ids = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
        a, b, c, d = (x.ravel() for x in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]))
        coarse = np.array([[0.2, 0, 0.001], [0.3, 0, 0.001], [0.3, 0.1, 0.001], [0.2, 0.1, 0.001]])
        faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1), len(grid) + plane[1]])
        numbers = measured(truth, np.concatenate([grid, coarse]), faces)
        assert numbers["surface_to_true_mm"] == pytest.approx(2.0, rel=1e-9)


def test_what_lies_behind_the_wrist_does_not_count():
    """A sphere whose wrist plane cuts it: all that is done behind the plane changes nothing."""
    vertices, faces = sphere(RADIUS, 40, 60)
    joints = np.zeros((21, 3))
    joints[9] = 0.0, RADIUS, 0.0
    joints[0] = 0.0, -MARGIN_M, 0.0  # points count where y > 0
    truth = other_mesh(vertices, faces, joints)
    near = measured(truth, vertices + np.array([0.0, 0.0, 0.001]), faces)
    behind = vertices[:, 1] < -0.02  # far enough that no point in front is nearest to what is moved
    moved = vertices + np.array([0.0, 0.0, 0.001]) + behind[:, None] * np.array([0.0, -0.05, 0.0])
    far = measured(truth, moved, faces)
    assert far == pytest.approx(near, rel=1e-9)
    cut = measured(replace(truth, joints_world_m=truth.joints_world_m - [0.0, 1.0, 0.0]), moved, faces)
    assert cut["surface_to_true_mm"] > 2 * far["surface_to_true_mm"], "in front of another plane it counts"


def test_evaluation_takes_surfaces_and_leaves_vertices_out(tmp_path):
    truth = moving_hand(6)
    other = replace(truth, faces=tube_faces(), joint_definition="tubes")
    result = result_of(truth, vertices=truth.vertices_world_m + 0.001, faces=tube_faces())
    numbers = evaluate_truth(result, other, fps=30.0)
    assert numbers["mpjpe_mm"] == 0 and 0 < numbers["surface_mm"] < np.sqrt(3) + 1e-9
    assert not [key for key in numbers if "mpvpe" in key or key in ("auc_v", "f5", "f15_pa")]
    bare = replace(result, vertices_world_m=np.zeros((6, 0, 3)), faces=np.zeros((0, 3), int))
    assert evaluate_truth(bare, other, fps=30.0)["surface_mm"] is None
    cov = np.tile(np.eye(3) * 1e-6, (6, truth.vertices_world_m.shape[1], 1, 1))
    assert set(VERTEX_KEYS) & set(evaluate_uncertainty(result, truth, None, cov))
    assert not set(VERTEX_KEYS) & set(evaluate_uncertainty(result, other, None, cov))
    capture = make_capture(tmp_path, truth, make_rig())
    assert "joints_of_truth" not in evaluate(result, capture)
    save_truth(capture.path, "right", other)
    told = evaluate(result, capture)
    assert told["joints_of_truth"] == "tubes" and told["surface_mm"] == pytest.approx(numbers["surface_mm"], rel=1e-5)


def test_files_of_other_meshes_come_back_and_newer_ones_are_refused(tmp_path, monkeypatch):
    truth = moving_hand(3)
    save_truth(tmp_path, "right", truth)
    with np.load(tmp_path / "truth" / "right.npz") as data:
        assert not {"faces", "joint_definition", "version"} & set(data), "of our own hand files are as ever"
    assert not load_truth(tmp_path, "right").of_other_mesh
    other = replace(truth, faces=tube_faces(), joint_definition="tubes")
    save_truth(tmp_path, "right", other)
    back = load_truth(tmp_path, "right")
    assert back.of_other_mesh and back.joint_definition == "tubes"
    np.testing.assert_array_equal(back.faces, other.faces)
    monkeypatch.setattr(truths, "VERSION", 3)
    save_truth(tmp_path, "right", other)
    monkeypatch.setattr(truths, "VERSION", 2)
    with pytest.raises(UsthandError, match="version 3"):
        load_truth(tmp_path, "right")
