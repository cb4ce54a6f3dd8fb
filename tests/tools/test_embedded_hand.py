"""The embedded hand: its mesh, its fingertips, its proportions, and how it bends."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from embedded_hand import generate
from embedded_hand.anatomy import FINGER_ORDER, PHALANGES_MM, rest_skeleton
from embedded_hand.skinning import SHAPE_NAMES
from usthand.geometry.meshes import vertex_normals
from usthand.hand.io import embedded_arrays, load_hand
from usthand.hand.limits import FLEXION, anatomical_axes, angles_to_pose
from usthand.hand.skeleton import BONES, FINGERS, JOINTS

TIPS = {
    "thumb": (744, 745),
    "index": (317, 320),
    "middle": (443, 444, 445),
    "ring": (554, 555, 556),
    "little": (671, 672, 673),
}


@pytest.fixture(scope="module")
def hand():
    return load_hand(dtype=torch.float64)


@pytest.fixture(scope="module")
def mesh(hand) -> tuple[np.ndarray, np.ndarray]:
    return hand.v_template.numpy(), hand.faces.numpy()


def directed_edges(faces: np.ndarray) -> Counter:
    return Counter((int(a), int(b)) for f in faces for a, b in zip(f, np.roll(f, -1), strict=True))


def rim_of(faces: np.ndarray) -> dict[int, int]:
    edges = directed_edges(faces)
    return {a: b for a, b in edges if (b, a) not in edges}


def volume_ml(vertices: np.ndarray, faces: np.ndarray) -> float:
    """The volume of the mesh with its wrist closed by a fan."""
    rim = rim_of(faces)
    centre = vertices[list(rim)].mean(0)
    p = vertices[faces]
    total = np.einsum("nc,nc->", p[:, 0], np.cross(p[:, 1], p[:, 2]))
    total += sum(vertices[b] @ np.cross(vertices[a], centre) for a, b in rim.items())
    return 1e6 * total / 6


def posed(hand, angles: dict[tuple[int, int], float]) -> np.ndarray:
    values = torch.zeros(15, 3, dtype=torch.float64)
    for (joint, axis), degrees in angles.items():
        values[joint, axis] = np.deg2rad(degrees)
    pose = torch.cat((torch.zeros(3, dtype=torch.float64), angles_to_pose(values, anatomical_axes(hand))))
    return hand.with_shape(torch.zeros(10, dtype=torch.float64)).with_pose(hand.rotations(pose, True)).vertices.numpy()


# ---- the mesh ------------------------------------------------------------------------------------------------------


def test_counts_and_euler_characteristic_of_a_disc(mesh):
    vertices, faces = mesh
    undirected = {tuple(sorted(e)) for e in directed_edges(faces)}
    assert vertices.shape == (778, 3) and faces.shape == (1538, 3)
    assert len(vertices) - len(undirected) + len(faces) == 1
    assert set(faces.ravel()) == set(range(778))


def test_every_edge_is_shared_by_two_triangles_but_for_one_loop_of_sixteen(mesh):
    edges = directed_edges(mesh[1])
    assert max(edges.values()) == 1  # consistent winding and manifold
    rim = rim_of(mesh[1])
    start = at = next(iter(rim))
    steps = 0
    while steps == 0 or at != start:
        at, steps = rim[at], steps + 1
    assert steps == len(rim) == 16


def test_every_vertex_has_one_fan_of_triangles(mesh):
    _, faces = mesh
    for v in range(778):
        around = [tuple(np.roll(f, -int(np.flatnonzero(f == v)[0]))[1:]) for f in faces[(faces == v).any(1)]]
        follow = dict(around)
        assert len(follow) == len(around)
        start = next((a for a in follow if a not in follow.values()), next(iter(follow)))
        seen = 0
        while start in follow and seen < len(follow):
            start, seen = follow[start], seen + 1
        assert seen == len(around), v


def test_triangles_are_well_shaped_and_face_outwards(mesh):
    vertices, faces = mesh
    p = vertices[faces]
    cross = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    area = np.linalg.norm(cross, axis=1) / 2
    sides2 = sum(((p[:, k] - p[:, k - 1]) ** 2).sum(-1) for k in range(3))
    quality = 4 * np.sqrt(3) * area / sides2  # 1 for an equilateral triangle
    assert quality.min() > 0.6 and quality.mean() > 0.93
    assert volume_ml(vertices, faces) > 0
    smooth_normals = vertex_normals(vertices, faces)[faces].mean(1)
    assert (np.einsum("nc,nc->n", cross / (2 * area)[:, None], smooth_normals) > 0.5).all()


def test_the_mesh_lies_on_the_flesh(mesh):
    vertices, faces = mesh
    flesh = generate.rest_flesh(rest_skeleton())[0]
    assert np.abs(flesh.distance(vertices)).max() < 2e-4
    assert np.abs(flesh.distance(vertices[faces].mean(1))).max() < 2.5e-3  # the sagitta of a 10 mm edge on a 5 mm web
    inner = np.setdiff1d(np.arange(778), list(rim_of(faces)))
    gradient = flesh.value_and_gradient(vertices[inner])[1]
    gradient /= np.linalg.norm(gradient, axis=1, keepdims=True)
    agreement = np.einsum("nc,nc->n", gradient, vertex_normals(vertices, faces)[inner])
    assert agreement.min() > 0.5 and np.quantile(agreement, 0.02) > 0.9


def crossings(vertices: np.ndarray, faces: np.ndarray) -> int:
    """How many (edge, triangle) pairs without a common vertex cut each other; by signed volumes of tetrahedra."""
    edges = np.array(sorted({tuple(sorted(e)) for e in directed_edges(faces)}))
    a, b, p = vertices[edges[:, 0]], vertices[edges[:, 1]], vertices[faces]
    edge_low, edge_high = np.minimum(a, b), np.maximum(a, b)
    near = np.ones((len(edges), len(faces)), bool)
    for k in range(3):
        near &= edge_low[:, None, k] <= p[None, :, :, k].max(-1)
        near &= edge_high[:, None, k] >= p[None, :, :, k].min(-1)
    e, f = np.nonzero(near)
    apart = ~(edges[e][:, :, None] == faces[f][:, None, :]).any((1, 2))
    e, f = e[apart], f[apart]

    def volume(w, x, y, z):
        return np.einsum("nc,nc->n", x - w, np.cross(y - w, z - w))

    start, end, (u, v, w) = a[e], b[e], p[f].transpose(1, 0, 2)
    through = volume(start, u, v, w) * volume(end, u, v, w) < 0
    turns = np.stack([volume(start, end, x, y) for x, y in ((u, v), (v, w), (w, u))])
    return int((through & ((turns > 0).all(0) | (turns < 0).all(0))).sum())


def test_the_mesh_nowhere_runs_through_itself(hand, mesh):
    assert crossings(*mesh) == 0
    # The count does find crossings: a finger bent back on to the palm beyond its limit cuts it.
    through = posed(hand, {(3, FLEXION): 120, (4, FLEXION): 130, (5, FLEXION): 60})
    assert crossings(through, mesh[1]) > 0


def test_tip_ids_lie_on_the_tips_of_their_fingers(hand, mesh):
    vertices, _ = mesh
    fields = {k: v.numpy() for k, v in hand.fields.items()}
    for number, (finger, ids) in enumerate(TIPS.items(), start=1):
        base = (
            hand.with_shape(torch.zeros(10, dtype=torch.float64))
            .with_pose(hand.rotations(torch.zeros(48, dtype=torch.float64), True))
            .joints
        )
        joints = base[list(FINGERS[finger])].numpy()
        along = joints[3] - joints[2]
        along /= np.linalg.norm(along)
        own = np.flatnonzero(fields["finger"] == number)
        assert set(ids) <= set(own)
        reach = vertices[own] @ along
        assert (vertices[list(ids)] @ along > reach.max() - 5e-3).all(), finger
        assert np.linalg.norm(vertices[list(ids)] - joints[3], axis=1).max() < 7e-3


# ---- the skeleton --------------------------------------------------------------------------------------------------


def test_bone_lengths_are_the_published_ones(hand):
    zero = torch.zeros(48, dtype=torch.float64)
    joints = hand.with_shape(torch.zeros(10, dtype=torch.float64)).with_pose(hand.rotations(zero, True)).joints.numpy()
    for finger in FINGER_ORDER:
        ids = FINGERS[finger]
        lengths = [1e3 * np.linalg.norm(joints[b] - joints[a]) for a, b in itertools.pairwise(ids)]
        first, second, third, tissue = PHALANGES_MM[finger]
        np.testing.assert_allclose(lengths, (first, second, third + tissue), atol=0.5)
    length = 1e3 * np.linalg.norm(joints[JOINTS.index("middle_mcp")] - joints[0])
    length += sum(PHALANGES_MM["middle"])
    assert 180 < length < 190


def test_axes_are_those_of_mano(hand):
    joints = hand.joints_template.numpy()
    assert joints[4, 0] < joints[0, 0] - 0.08  # fingers along -x
    assert joints[1, 2] > joints[7, 2] + 0.05  # index on the side of +z, little finger opposite
    assert np.linalg.norm(joints[4]) < 0.01  # the origin near the middle knuckle


def test_joints_lie_inside_the_flesh_for_every_shape(hand):
    flesh = generate.rest_flesh(rest_skeleton())[0]
    assert (flesh.distance(hand.joints_template.numpy()) < -5e-3).all()
    np.testing.assert_allclose(hand.joints_template.numpy(), rest_skeleton().joints, atol=1e-5)


def test_regressed_joints_follow_the_shape_as_designed(hand):
    rows = embedded_arrays()["J_regressor"].sum(1)
    np.testing.assert_allclose(rows, 1, atol=1e-6)
    assert (np.count_nonzero(embedded_arrays()["J_regressor"], axis=1) <= 80).all()

    def bones(betas):
        zero = torch.zeros(48, dtype=torch.float64)
        joints = hand.with_shape(betas).with_pose(hand.rotations(zero, True)).joints
        return torch.stack([(joints[b] - joints[a]).norm() for a, b in BONES])

    flat = bones(torch.zeros(10, dtype=torch.float64))
    for k, name in enumerate(SHAPE_NAMES):
        ratio = bones(torch.eye(10, dtype=torch.float64)[k]) / flat
        if name == "size":
            assert (ratio - ratio[0]).abs().max() < 0.006 and 1.04 < ratio.mean() < 1.07
        if name == "finger thickness":
            assert (ratio - 1).abs().max() < 0.01
        if name == "thumb length":
            assert ratio[1:4].min() > 1.03 and (ratio[4:] - 1).abs().max() < 0.005
        assert 0.85 < ratio.min() and ratio.max() < 1.15


# ---- skinning ------------------------------------------------------------------------------------------------------


def test_weights_are_a_partition_and_fingers_leave_each_other_alone(hand):
    weights, finger = hand.weights.numpy(), hand.fields["finger"].numpy()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    chains = {1: (13, 14, 15), 2: (1, 2, 3), 3: (4, 5, 6), 4: (10, 11, 12), 5: (7, 8, 9)}
    beyond = weights[:, [2, 3, 5, 6, 8, 9, 11, 12, 14, 15]].sum(1) > 0.5  # past the web
    for number, own in chains.items():
        others = [j for n, c in chains.items() if n != number for j in c]
        assert weights[(finger == number) & beyond][:, others].max() < 1e-6
        assert weights[finger == number][:, others].max() < 0.5
        assert (weights[finger == number][:, list(own)].sum(1) > 0.5).all()


def test_weights_are_smooth_over_the_mesh(hand, mesh):
    weights = hand.weights.numpy()
    a, b = np.array([e for e in directed_edges(mesh[1])]).T
    assert np.abs(weights[a] - weights[b]).max() < 0.75


@pytest.mark.parametrize("joint, degrees", [(1, 90), (2, 80), (4, 90), (7, 90), (10, 90), (13, 60), (14, 80)])
def test_bending_a_finger_keeps_its_volume(hand, mesh, joint, degrees):
    """The change stays below a fifth of the ball of flesh that fits the joint, and below half of plain skinning's."""
    bare = replace(hand, posedirs=torch.zeros_like(hand.posedirs))
    rest = volume_ml(*mesh)
    change, plain = (volume_ml(posed(m, {(joint, FLEXION): degrees}), mesh[1]) - rest for m in (hand, bare))
    assert abs(change) < 0.5 * abs(plain)
    assert abs(change) < 0.9


def test_a_fist_keeps_most_of_its_volume(hand, mesh):
    fist = {(3 * f + i, FLEXION): d for f in range(4) for i, d in enumerate((85, 95, 60))}
    bare = replace(hand, posedirs=torch.zeros_like(hand.posedirs))
    rest = volume_ml(*mesh)
    change, plain = (volume_ml(posed(m, fist), mesh[1]) - rest for m in (hand, bare))
    assert abs(change) < 0.05 * rest and abs(change) < 0.6 * abs(plain)


def test_no_triangle_collapses_in_a_fist(hand, mesh):
    fist = posed(hand, {(3 * f + i, FLEXION): d for f in range(4) for i, d in enumerate((80, 90, 55))})
    areas = []
    for v in (mesh[0], fist):
        p = v[mesh[1]]
        areas.append(np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1))
    ratio = areas[1] / areas[0]
    assert np.mean(ratio < 0.15) < 0.02 and ratio.max() < 8


# ---- what a renderer needs -----------------------------------------------------------------------------------------


def test_fields_mark_nails_on_the_backs_of_the_tips(hand, mesh):
    fields = {k: v.numpy() for k, v in hand.fields.items()}
    normals = vertex_normals(*mesh)
    for number in range(1, 6):
        nail = (fields["nail"] > 0.5) & (fields["finger"] == number)
        assert 2 <= nail.sum() <= 14, number
        assert fields["palmar"][nail].max() < 0.35
    assert (fields["palmar"] >= 0).all() and (fields["palmar"] <= 1).all()
    palm = fields["finger"] == 0
    assert np.corrcoef(fields["palmar"][palm], -normals[palm, 1])[0, 1] > 0.95


# ---- the script ----------------------------------------------------------------------------------------------------


def test_the_shipped_file_is_small():
    assert os.path.getsize(generate.SHIPPED) < 1.5e6


@pytest.mark.slow
def test_the_script_reproduces_the_shipped_file():
    again = generate.generate()
    shipped = embedded_arrays()
    assert set(again) == set(shipped)
    for key, value in again.items():
        np.testing.assert_allclose(value, shipped[key], atol=1e-6, err_msg=key)
