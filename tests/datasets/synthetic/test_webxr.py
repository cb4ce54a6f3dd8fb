"""WebXR's generic hand: its file, its proportions, and a capture of it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from usthand.datasets.synthetic.subjects import sample_subject
from usthand.datasets.synthetic.surface import boundary_loop
from usthand.datasets.synthetic.webxr import JOINT_DEFINITION, sample_webxr, stretched
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.truth import load_truth
from usthand.geometry.point_surface import point_surface_m
from usthand.hand.skeleton import FINGER_TIPS, MANO_TO_OPENPOSE, bone_lengths

INNER = [j for j in range(21) if j not in FINGER_TIPS]
STILL = np.zeros((15, 3))


@pytest.fixture(scope="module", params=[0, 1, 2])
def hand(request):
    return sample_webxr(np.random.default_rng(request.param))


def crossings(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, way: np.ndarray) -> np.ndarray:
    """How often the ray from each point in one direction meets the mesh (Moeller and Trumbore, 1997)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(way, c - a)
    size = (normal * (b - a)).sum(1)
    from_a = points[:, None] - a
    u = (from_a * normal).sum(-1) / size
    other = np.cross(from_a, b - a)
    v, t = (other @ way) / size, (other * (c - a)).sum(-1) / size
    return ((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)).sum(1)


def test_joints_lie_inside_the_flesh_and_tips_on_the_skin(hand):
    """A ray to the back of the hand never leaves by the open wrist: it crosses the skin an odd number of times."""
    ways = [hand.surface.palm_frame[2] * sign + 0.05 * hand.surface.palm_frame[1] for sign in (1.0, -1.0)]
    odd = np.stack([crossings(hand.joints_m[INNER], hand.rest_m, hand.faces, way) % 2 for way in ways])
    assert odd.all()
    np.testing.assert_allclose(point_surface_m(hand.joints_m[list(FINGER_TIPS)], hand.rest_m, hand.faces), 0, atol=1e-4)


def test_the_mesh_is_one_oriented_piece_that_ends_at_the_wrist(hand):
    edges = np.concatenate([hand.faces[:, [0, 1]], hand.faces[:, [1, 2]], hand.faces[:, [2, 0]]])
    there = {tuple(edge) for edge in edges.tolist()}
    assert len(there) == len(edges)
    loop = boundary_loop(hand.faces)
    assert sum((b, a) not in there for a, b in there) == len(loop)
    assert (np.abs(hand.rest_m[loop] @ hand.arm) < 0.025).all() and hand.surface.stump is None


def test_each_bone_is_stretched_by_its_own_factor_and_nothing_else(hand):
    """Without stretch it is the file's hand; one phalanx twice as long moves its own end and what hangs on it."""
    same = stretched(np.ones(3), np.ones(15), 1.0, STILL)
    length = np.ones(15)
    length[4] = 2.0  # the middle finger's second phalanx
    longer = stretched(np.ones(3), length, 1.0, STILL)
    joint = MANO_TO_OPENPOSE.index(5)
    bones = bone_lengths(np.stack([same.joints_m, longer.joints_m]))
    want = np.ones(20)
    want[joint] = 2.0  # the bone that begins at the joint
    np.testing.assert_allclose(bones[1] / bones[0], want, atol=1e-9)
    far = same.weights[:, 2 + 3 : 2 + 6].sum(1) == 0
    np.testing.assert_allclose(longer.rest_m[far], same.rest_m[far], atol=1e-9)
    big = stretched(np.full(3, 1.3), np.full(15, 1.3), 1.3, STILL)
    np.testing.assert_allclose(big.rest_m, 1.3 * same.rest_m, atol=1e-6)
    np.testing.assert_allclose(big.joints_m, 1.3 * same.joints_m, atol=1e-9)


def test_people_differ_and_are_of_human_size():
    hands = [sample_webxr(np.random.default_rng(seed)) for seed in range(60)]
    length = np.array([np.linalg.norm(one.joints_m[12]) for one in hands])
    assert 0.14 < length.min() and length.max() < 0.22 and length.std() > 0.008
    share = np.array([np.linalg.norm(one.joints_m[8] - one.joints_m[5]) for one in hands]) / length
    assert share.std() > 0.01


def test_it_moves_as_ours_does_with_rigid_bones():
    subject = sample_subject("webxr", np.random.default_rng(4))
    moved = subject.move(90, 30.0, np.random.default_rng(5))
    lengths = bone_lengths(moved.joints_world_m)
    np.testing.assert_allclose(lengths, lengths[:1].repeat(90, 0), atol=1e-9)
    assert np.ptp(np.linalg.norm(moved.joints_world_m[:, 8] - moved.joints_world_m[:, 5], axis=1)) > 0.01
    assert np.linalg.norm(moved.joints_world_m.mean(1), axis=1).max() < 0.08, "near the rig's target"


def test_a_capture_says_whose_joints_it_has_and_is_the_same_again(tmp_path):
    config = SynthConfig(views=2, frames=2, size=64, seed=8, labels="light", subject="webxr", objects="held")
    one, two = (make_capture(tmp_path / name, config) for name in ("one", "two"))
    truth = load_truth(one, "right")
    assert truth.of_other_mesh and truth.joint_definition == JOINT_DEFINITION
    for path in sorted(p for p in one.rglob("*") if p.is_file()):
        other = two / path.relative_to(one)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest(), path.name
