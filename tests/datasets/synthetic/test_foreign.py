"""Hands that are not ours: cut out of Anny, skinned as Anny skins them, moved within limits, written as a capture."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.datasets.synthetic import foreign, foreign_motion
from usthand.datasets.synthetic.foreign import load_anny, sample_foreign
from usthand.datasets.synthetic.surface import boundary_loop
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.truth import load_truth
from usthand.geometry.cameras import project
from usthand.geometry.point_surface import point_surface_m
from usthand.hand.skeleton import FINGER_TIPS, MANO_TO_OPENPOSE, bone_lengths
from usthand.labels.labels import load_labels

pytest.importorskip("anny", reason="pip install --no-deps anny==0.6.2, and trimesh and roma")
pytestmark = pytest.mark.slow  # Anny's body is built once, in a minute and a half
FPS, T = 30.0, 120
CONFIG = SynthConfig(views=3, frames=4, size=96, seed=3, labels="exact", subject="foreign")


@pytest.fixture(scope="module", params=[0, 1, 2])
def hand(request):
    return sample_foreign(np.random.default_rng(request.param))


@pytest.fixture(scope="module")
def motion(hand):
    return foreign_motion.sample_foreign_motion(hand, T, FPS, np.random.default_rng(7))


@pytest.fixture(scope="module")
def posed(hand, motion):
    return hand.pose(motion.angles, motion.turn, motion.wrist, motion.translation_m)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return make_capture(tmp_path_factory.mktemp("foreign") / "right", CONFIG)


def winding_number(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """How often a closed surface goes round each point: solid angles as in van Oosterom and Strackee, 1983."""
    a, b, c = (vertices[faces[:, k]][None] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    volume = (a * np.cross(b, c)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return 2 * np.arctan2(volume, below).sum(1) / (4 * np.pi)


def closed(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with its open wrist closed by a fan."""
    loop = boundary_loop(faces)
    fan = np.stack([loop, np.full(len(loop), len(vertices)), np.roll(loop, -1)], 1)
    return np.concatenate([vertices, vertices[loop].mean(0, keepdims=True)]), np.concatenate([faces, fan])


def test_joints_lie_inside_the_flesh_and_tips_on_the_skin(hand, posed):
    inner = [j for j in range(21) if j not in FINGER_TIPS]
    for frame in range(0, T, 30):
        vertices, joints = posed[0][frame].astype(float), posed[1][frame]
        assert (winding_number(joints[inner], *closed(vertices, hand.faces)) > 0.5).all()
        np.testing.assert_allclose(point_surface_m(joints[list(FINGER_TIPS)], vertices, hand.faces), 0, atol=1e-7)


def test_the_mesh_is_one_oriented_piece_with_one_opening_up_the_forearm(hand):
    edges = np.concatenate([hand.faces[:, [0, 1]], hand.faces[:, [1, 2]], hand.faces[:, [2, 0]]])
    assert len({tuple(edge) for edge in edges.tolist()}) == len(edges), "an edge is walked once each way"
    loop = boundary_loop(hand.faces)
    there = {tuple(edge) for edge in edges.tolist()}
    assert sum((b, a) not in there for a, b in there) == len(loop)
    assert (hand.rest_m[loop] @ hand.arm > 0.04).all(), "behind the wrist, 5 to 9 cm of a large or a small person"
    np.testing.assert_allclose(hand.weights.sum(1), 1, atol=1e-12)


def test_people_differ_and_are_of_human_size():
    hands = [sample_foreign(np.random.default_rng(seed)) for seed in range(40)]
    length = np.array([np.linalg.norm(one.joints_m[12]) for one in hands])
    width = np.array([np.linalg.norm(one.joints_m[5] - one.joints_m[17]) for one in hands])
    assert length.min() > 0.14 and length.max() < 0.235 and length.std() > 0.008
    assert (width / length).std() > 0.01, "proportions differ, not only size"


def test_bones_keep_their_lengths_and_the_fingers_bend(posed):
    lengths = bone_lengths(posed[1])
    np.testing.assert_allclose(lengths, lengths[:1].repeat(T, 0), atol=1e-6)  # single precision of a metre
    assert bone_lengths(posed[1])[0].min() > 0.01
    spread = np.linalg.norm(posed[1][:, 8] - posed[1][:, 5], axis=1)
    assert np.ptp(spread) > 0.01


def test_skinning_is_annys_own(hand):
    """Every bone's pose is given to Anny in the world; its own forward pass then skins the same mesh."""
    model = load_anny()
    phenotype = {"age": 0.8, "gender": 0.3, "height": 0.4}
    one = foreign.cut_hand(model, phenotype, {"r-hand-scale-incr": -0.3}, np.zeros((15, 3)))
    rng = np.random.default_rng(5)
    angles = rng.uniform(-0.1, 1.2, size=(2, 15, 3)) * np.array([1.0, 0.2, 0.1])
    turn, wrist, shift = rng.normal(size=(2, 3)), 0.4 * rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    vertices, joints = one.pose(angles, turn, wrist, shift)
    given = [{name: torch.tensor([value])} for name, value in phenotype.items()]
    kwargs = {
        "phenotype_kwargs": {name: value for part in given for name, value in part.items()},
        "local_changes_kwargs": {"r-hand-scale-incr": torch.tensor([-0.3])},
    }
    rest = model(**kwargs)
    labels, centre = list(model.bone_labels), rest["rest_bone_heads"][0, model.bone_labels.index("wrist.R")].numpy()
    fingers = {0: 2, 1: 3, 2: 5, 3: 4, 4: 1}  # MANO's order to Anny's numbers
    names = {0: ["lowerarm01.R", "lowerarm02.R"], 1: ["wrist.R", *(f"metacarpal{k}.R" for k in range(1, 5))]}
    names |= {2 + 3 * f + k: [f"finger{fingers[f]}-{k + 1}.R"] for f in range(5) for k in range(3)}
    world = rest["rest_bone_poses"].repeat(2, 1, 1, 1)
    for bone, transform in enumerate(one.bones(angles, turn, wrist, shift).swapaxes(0, 1)):
        moved = np.tile(np.eye(4), (2, 1, 1))
        moved[:, :3, :3] = transform[..., :3]
        moved[:, :3, 3] = transform[..., 3] + centre - transform[..., :3] @ centre
        for name in names[bone]:
            world[:, labels.index(name)] = torch.from_numpy(moved) @ rest["rest_bone_poses"][0, labels.index(name)]
    theirs = model(pose_parameters=world, pose_parameterization="world", **kwargs)
    np.testing.assert_allclose(vertices, theirs["vertices"].numpy() - centre, atol=1e-6)
    for joint in (0, 1, 2, 3, 5, 6, 7, 9, 13, 17, 19):
        mano = MANO_TO_OPENPOSE[joint]
        head = theirs["bone_poses"][:, labels.index(names[1 + mano][0]), :3, 3].numpy() - centre
        np.testing.assert_allclose(joints[:, joint], head, atol=1e-6)


def test_the_hand_turns_and_the_wrist_bends(hand):
    """The whole turns rigidly with the hand; the forearm's end turns with the wrist on top, the fingers do not."""
    flat, still = np.zeros((1, 15, 3)), np.zeros((1, 3))
    turn, bend = np.array([[0.3, -0.5, 0.2]]), np.array([[0.4, 0.1, 0.0]])
    rest, _ = hand.pose(flat, still, still, still)
    turned, joints = hand.pose(flat, turn, still, still)
    np.testing.assert_allclose(turned[0], Rotation.from_rotvec(turn[0]).apply(rest[0]), atol=1e-6)
    np.testing.assert_allclose(joints[0], Rotation.from_rotvec(turn[0]).apply(hand.joints_m), atol=1e-6)
    bent, still_joints = hand.pose(flat, still, bend, still)
    fingers = hand.weights[:, 0] == 0
    np.testing.assert_allclose(bent[0][fingers], rest[0][fingers], atol=1e-6)
    np.testing.assert_allclose(still_joints[0], hand.joints_m, atol=1e-6)
    stump = hand.surface.stump
    loop = boundary_loop(hand.faces)
    got = stump.posed_frame(bent[0][loop])
    want = Rotation.from_rotvec(bend[0]).apply(stump.frame)
    assert Rotation.from_matrix(got @ want.T).magnitude() < 0.06, "some of the ring still moves with the hand"


def test_motion_is_within_the_limits_and_smooth(hand, motion):
    kin = hand.sticks()
    flexion = motion.angles[:, :12, 0].reshape(T, 4, 3) + kin.rest_angles()[0][:4]
    low, high = np.deg2rad(foreign_motion.FLEXION_DEG).T
    assert (flexion > low - 1e-6).all() and (flexion < high + 1e-6).all()
    thumb = motion.angles[:, 12:, :2]
    low, high = np.moveaxis(np.deg2rad(foreign_motion.THUMB_DEG), -1, 0)
    assert (thumb > low - 1e-6).all() and (thumb < high + 1e-6).all()
    speed = np.diff(motion.angles, axis=0) * FPS
    # Monotone cubic interpolation is at most three times as steep as the straight way; a lead of a finger's key of up
    # to .3 s is taken from steps of .35 s or more, which doubles the mean speed at two standard deviations.
    assert np.abs(speed).max() < 2 * foreign_motion.MAX_RAD_S
    # A Gaussian of SMOOTH_S makes of a jump of the speed by v an acceleration of at most v / (SMOOTH_S sqrt(2 pi)).
    jump = 2 * np.abs(speed).max()
    assert np.abs(np.diff(speed, axis=0) * FPS).max() < jump / (foreign_motion.SMOOTH_S * np.sqrt(2 * np.pi))


def test_fingers_seldom_run_through_one_another(hand, motion):
    overlap = hand.sticks().penetration_m(motion.angles).max(1)
    assert np.quantile(overlap, 0.95) < 0.005 and overlap.max() < 0.012


def test_a_held_thing_is_touched_and_not_entered(hand):
    kin = hand.sticks()
    points = np.random.default_rng(0).normal(size=(400, 3))
    points = 0.03 * points / np.linalg.norm(points, axis=1, keepdims=True) + np.array([0.0, 0.085, 0.045])
    closed_hand = foreign_motion.close_hand(kin, points @ kin.frame, np.zeros((15, 3)))
    tips = kin.joints(closed_hand[None])[0][0, :4, 3]
    gap = np.linalg.norm(tips - np.array([0.0, 0.085, 0.045]) @ kin.frame, axis=1) - 0.03
    assert (gap > 0).all() and np.sort(gap)[1] < 0.015, "outside, and two or more fingers lie near it"


def test_a_capture_holds_the_mesh_and_says_what_its_joints_are(capture):
    clip, truth = open_capture(capture), load_truth(capture, "right")
    assert truth.of_other_mesh and truth.joint_definition == foreign.JOINT_DEFINITION
    assert truth.pose.shape == (0, 48) and truth.shape.shape == (0,)
    assert truth.vertices_world_m.shape == (4, truth.faces.max() + 1, 3)
    uv = project(clip.rig.tensors(torch.float64), torch.from_numpy(truth.joints_world_m.astype(float).reshape(-1, 3)))[
        0
    ]
    np.testing.assert_allclose(
        load_labels(clip, "right").uv_px, uv.numpy().reshape(3, 4, 21, 2).swapaxes(0, 1), atol=2e-3
    )
    assert 0.2 < truth.visible.mean() < 0.95


def test_the_same_seed_gives_the_same_bytes_and_left_is_the_mirror(capture, tmp_path):
    again = make_capture(tmp_path / "again", CONFIG)
    for path in sorted(p for p in capture.rglob("*") if p.is_file()):
        other = again / path.relative_to(capture)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest(), path.name
    left = load_truth(make_capture(tmp_path / "left", dataclasses.replace(CONFIG, side="left")), "left")
    right = load_truth(capture, "right")
    np.testing.assert_array_equal(left.vertices_world_m, right.vertices_world_m * np.float32([-1, 1, 1]))
    np.testing.assert_array_equal(left.faces, right.faces[:, ::-1])
    volume = [np.linalg.det(one.vertices_world_m[0][one.faces]).sum() for one in (left, right)]
    np.testing.assert_allclose(volume[0], volume[1], rtol=1e-4)


def test_labels_of_our_own_joints_are_refused(tmp_path):
    with pytest.raises(UsthandError, match="biased"):
        make_capture(tmp_path / "c", dataclasses.replace(CONFIG, labels="biased"))
