"""A synthetic detector's own joints: displaced in the bones' frames, alike in all views, with the stated moments."""

import numpy as np
import pytest
import torch

from support.fit_scene import dome
from usthand.datasets.synthetic import displacement
from usthand.datasets.synthetic.displacement import displaced_joints, pose_field
from usthand.datasets.synthetic.kinematics import kinematics
from usthand.datasets.synthetic.motion import finger_pose
from usthand.datasets.synthetic.noise import BIASED, HEAVY
from usthand.datasets.synthetic.poses import library
from usthand.datasets.synthetic.write import project, synthetic_labels
from usthand.fit.detector_joints import DetectorJoints, bone_frames, load_detector_joints
from usthand.fit.kinematics import BONE_TURN, articulation
from usthand.hand.io import load_hand
from usthand.hand.skeleton import FINGERS, N_JOINTS

SHAPE = np.zeros(10)  # of relative size 1


@pytest.fixture(scope="module")
def posed():
    """Joints and rotations, world from bone, of unrelated poses, and the poses."""
    rng = np.random.default_rng(0)
    pose = np.concatenate([rng.normal(size=(40, 3)), 0.4 * rng.normal(size=(40, 45))], axis=1)
    hand = load_hand(dtype=torch.float64)
    found = hand.with_shape(torch.from_numpy(SHAPE)).with_pose(hand.rotations(torch.from_numpy(pose), True))
    return found.joints.numpy(), found.world_rotations.numpy()[:, BONE_TURN], pose


def known_as(monkeypatch, mean, subject_std, pose_std):
    cov = [std**2 * np.broadcast_to(np.eye(3), (N_JOINTS, 3, 3)) for std in (subject_std, pose_std)]
    monkeypatch.setattr(displacement, "load_detector_joints", lambda _: DetectorJoints("made up", mean, *cov, 1.0))


def components(posed, displaced):
    """Displacements in the bones' frames, (T, 21, 3)."""
    joints, turns, _ = posed
    frames = bone_frames(articulation(load_hand(dtype=torch.float64)))
    return ((displaced - joints)[:, :, None] @ turns @ frames.swapaxes(1, 2))[:, :, 0]


def test_the_mean_displacement_turns_with_the_bone(posed, monkeypatch):
    mean = 0.005 * np.random.default_rng(1).normal(size=(N_JOINTS, 3))
    known_as(monkeypatch, mean, 0.0, 0.0)
    displaced = displaced_joints(posed[0], posed[2], SHAPE, np.random.default_rng(2))
    np.testing.assert_allclose(components(posed, displaced), np.broadcast_to(mean, posed[0].shape), atol=1e-12)


def test_a_subjects_part_is_constant_and_of_the_stated_spread(posed, monkeypatch):
    known_as(monkeypatch, np.zeros((N_JOINTS, 3)), 0.003, 0.0)
    drawn = []
    for seed in range(60):
        displaced = displaced_joints(posed[0][:2], posed[2][:2], SHAPE, np.random.default_rng(seed))
        found = components([part[:2] for part in posed], displaced)
        np.testing.assert_allclose(found[0], found[1], atol=1e-12)
        drawn.append(found[0])
    # Two joints of a hand correlate by SUBJECT_SHARED_HAND = r, so its 63 values are worth 63 / (1 + 20 r^2) = 22.
    assert abs(np.std(drawn) / 0.003 - 1) < 4 / np.sqrt(2 * 60 * 22)
    shared = np.mean(np.array(drawn)[:, 5] * np.array(drawn)[:, 9]) / 0.003**2
    assert abs(shared - displacement.SUBJECT_SHARED_HAND) < 4 / np.sqrt(60 * 3)


def test_what_depends_on_the_pose_returns_with_it_for_every_subject(posed, monkeypatch):
    known_as(monkeypatch, np.zeros((N_JOINTS, 3)), 0.0, 0.002)
    one, other = (displaced_joints(posed[0], posed[2], SHAPE, np.random.default_rng(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert np.std(components(posed, one), axis=0).min() > 0.0005


def test_pose_field_is_standard_over_the_librarys_poses():
    kin = kinematics(load_hand(), SHAPE)
    pose = np.stack([np.concatenate([np.zeros(3), finger_pose(kin, angles)]) for angles in library(kin).values()])
    field = pose_field(pose)
    np.testing.assert_allclose(field.mean(0), 0, atol=1e-6)
    # Of a mixture of three standard functions, whose sample correlations over 24 poses add to its variance.
    assert abs((field**2).mean() - 1) < 0.3


def test_a_bend_changes_its_own_finger_and_the_rest_of_the_hand_as_one():
    pose = 0.5 * np.random.default_rng(3).normal(size=(50, 48))
    bent = pose.copy()
    bent[:, 3:12] += 0.3  # MANO's joints 1 to 3: the index finger
    change = pose_field(bent) - pose_field(pose)
    others = [joint for joint in range(1, N_JOINTS) if joint not in FINGERS["index"]]
    np.testing.assert_allclose(change[:, others], np.repeat(change[:, 1:2], len(others), axis=1), atol=1e-9)
    assert np.abs(change[:, list(FINGERS["index"])] - change[:, 1:2]).mean() > 0.1
    turned = pose.copy()
    turned[:, :3] += 1.0
    np.testing.assert_array_equal(pose_field(turned), pose_field(pose))


def test_biased_labels_are_heavy_ones_about_displaced_joints(posed):
    """The same draws; the displacement has a stream of its own. Nothing else differs, and truth is in neither."""
    joints, _, pose = posed
    rig = dome(3)
    visible = np.ones((len(joints), 3, N_JOINTS), bool)
    joints = joints - joints.mean(1, keepdims=True)
    biased = synthetic_labels(rig, joints, (pose, SHAPE), visible, np.random.default_rng(4), BIASED)["right"]
    displaced = displaced_joints(joints, pose, SHAPE, np.random.default_rng(4).spawn(1)[0])
    heavy = synthetic_labels(rig, displaced, (pose, SHAPE), visible, np.random.default_rng(4), HEAVY)["right"]
    np.testing.assert_array_equal(biased.uv_px, heavy.uv_px)
    np.testing.assert_array_equal(biased.confidence, heavy.confidence)
    assert np.abs(project(rig, displaced)[0] - project(rig, joints)[0]).max() > 2.0


def test_it_is_mediapipe_that_is_imitated():
    known, imitated = load_detector_joints("mediapipe"), load_detector_joints("synthetic-biased")
    np.testing.assert_array_equal(known.mean_m, imitated.mean_m)
