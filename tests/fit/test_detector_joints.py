"""What is known of detectors' joints: read, framed on the bones of either hand, and scaled."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from usthand.fit.detector_joints import bone_frames, load_detector_joints, relative_size
from usthand.fit.kinematics import HandState, articulation
from usthand.geometry.rotations import rotation_matrix
from usthand.hand.io import load_hand
from usthand.hand.skeleton import FINGER_TIPS, JOINTS, N_JOINTS, PARENTS

ROOT = Path(__file__).resolve().parents[2]
MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def hands():
    return {side: articulation(load_hand(side=side, dtype=torch.float64)) for side in ("right", "left")}


def state_of(hand, rng, n_frames=3):
    angles = hand.low + (hand.high - hand.low) * rng.uniform(size=(n_frames, len(hand.low)))
    return HandState(
        rotation_matrix(rng.normal(size=(n_frames, 3))), rng.normal(size=(n_frames, 3)), angles, np.zeros(10)
    )


def test_frames_are_orthonormal_and_point_along_the_bone_from_joint_to_tip(hands):
    for side, hand in hands.items():
        frames = bone_frames(hand)
        np.testing.assert_allclose(frames @ frames.swapaxes(1, 2), np.broadcast_to(np.eye(3), (21, 3, 3)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(frames), 1.0 if side == "right" else -1.0)
        rest = hand.rest_joints(np.zeros(10))
        for joint in range(1, N_JOINTS):
            if PARENTS[joint] > 0:
                bone = rest[joint] - rest[PARENTS[joint]]
                np.testing.assert_allclose(frames[joint, 2], bone / np.linalg.norm(bone), atol=1e-9)


def test_palm_frame_points_to_the_thumb_the_back_and_the_fingers(hands):
    for hand in hands.values():
        rest = hand.rest_joints(np.zeros(10))
        frames = bone_frames(hand)
        for joint in (0, 1, 5, 9, 13, 17):
            np.testing.assert_array_equal(frames[joint], frames[0])
        across, dorsal, along = frames[0]
        assert (rest[5] - rest[17]) @ across > 0.9 * np.linalg.norm(rest[5] - rest[17])
        assert (rest[9] - rest[0]) @ along > 0.9 * np.linalg.norm(rest[9] - rest[0])
        # Curling the fingers brings the tips to the palm's side.
        curled = np.where([axis == 0 for _, axis in hand.free], 0.5, 0.0)[None]
        tips = [
            hand.joints(HandState(np.eye(3)[None], np.zeros((1, 3)), a, np.zeros(10)))[0] for a in (0 * curled, curled)
        ]
        assert ((tips[1] - tips[0])[[8, 12, 16, 20]] @ dorsal < -0.01).all()


def test_the_same_components_are_the_mirror_image_on_a_left_hand(hands):
    rng = np.random.default_rng(0)
    components = rng.normal(size=(N_JOINTS, 3))
    right = state_of(hands["right"], rng)
    spin = np.diag(MIRROR)
    left = HandState(spin @ right.root @ spin, right.wrist_m * MIRROR, right.angles, right.shape)
    placed = {}
    for side, state in (("right", right), ("left", left)):
        hand = hands[side]
        turned = hand.bone_turns(state) @ bone_frames(hand).swapaxes(1, 2)
        placed[side] = hand.joints(state) + (turned @ components[..., None])[..., 0]
    np.testing.assert_allclose(placed["left"], placed["right"] * MIRROR, atol=1e-9)


def test_a_displacement_of_a_bone_turns_with_it_alone(hands):
    hand = hands["right"]
    state = state_of(hand, np.random.default_rng(1), 1)
    frames = hand.bone_turns(state)[0] @ bone_frames(hand).swapaxes(1, 2)
    joints = hand.joints(state)[0]
    for joint in (7, 6, 3):  # not tips, which are blended between bones
        bone = joints[joint] - joints[PARENTS[joint]]
        np.testing.assert_allclose(frames[joint, :, 2], bone / np.linalg.norm(bone), atol=1e-9)


@pytest.mark.parametrize("detector", ["mediapipe", "holistic-csv", "openpose", "synthetic-biased"])
def test_covariances_are_symmetric_and_positive(detector):
    known = load_detector_joints(detector)
    assert known.name == detector and known.memory_s > 0
    for covariance in (known.subject_cov_m2, known.pose_cov_m2):
        np.testing.assert_allclose(covariance, covariance.swapaxes(1, 2))
        low = np.linalg.eigvalsh(covariance)[:, 0]
        assert (low > 0.0003**2).all() and (np.sqrt(np.linalg.eigvalsh(covariance)) < 0.015).all()


def test_the_packages_numbers_are_the_committed_measurement():
    measured = json.loads((ROOT / "benchmarks" / "results" / "detector_joints.json").read_text())
    known = load_detector_joints("mediapipe")
    each = [measured["stated"][name] for name in JOINTS]
    mean, subject, pose = (np.array([one[f"{k}_mm"] for one in each]) for k in ("mean", "subject_std", "pose_std"))
    rounding = 0.005  # of two decimals
    np.testing.assert_allclose(1e3 * known.mean_m, mean, atol=2 * rounding)
    for std, covariance in ((subject, known.subject_cov_m2), (pose, known.pose_cov_m2)):
        shipped = 1e6 * np.einsum("jaa->ja", covariance)
        np.testing.assert_allclose(shipped, std**2, atol=rounding + 2 * rounding * std.max())
    assert known.memory_s == measured["memory_s"]


def test_mediapipes_tips_lie_short_of_the_skin():
    """Half a finger's breadth, 15 to 18 mm in adults, behind the end of the skin: the centre of the round cap."""
    tips = load_detector_joints("mediapipe").mean_m[list(FINGER_TIPS)]
    assert ((-0.010 < tips[:, 2]) & (tips[:, 2] < -0.003)).all()


@pytest.mark.parametrize("detector", ["synthetic", "synthetic-exact"])
def test_labels_of_the_models_own_joints_have_no_displacement(detector):
    known = load_detector_joints(detector)
    assert not known.mean_m.any() and not known.subject_cov_m2.any() and not known.pose_cov_m2.any()


def test_an_unknown_detector_lies_between_the_models_joints_and_mediapipes():
    """Either is one standard deviation away along the line between them, were there no difference of subjects."""
    known, unknown = load_detector_joints("mediapipe"), load_detector_joints("of my own")
    between = unknown.subject_cov_m2 - known.subject_cov_m2
    for joint, mean in enumerate(known.mean_m):
        for end in (np.zeros(3), mean):
            away = end - unknown.mean_m[joint]
            np.testing.assert_allclose(away @ np.linalg.pinv(between[joint], rcond=1e-6) @ away, 1.0, rtol=1e-6)
        np.testing.assert_allclose(between[joint] @ np.cross(mean, [1.0, 2.0, 3.0]), 0, atol=1e-12)


def test_a_larger_hand_has_larger_displacements(hands):
    known = load_detector_joints("mediapipe")
    large = known.scaled(1.2)
    np.testing.assert_allclose(large.mean_m, 1.2 * known.mean_m)
    np.testing.assert_allclose(large.subject_cov_m2, 1.44 * known.subject_cov_m2)
    np.testing.assert_allclose(large.pose_cov_m2, 1.44 * known.pose_cov_m2)
    assert large.memory_s == known.memory_s
    hand = hands["right"]
    assert relative_size(hand, np.zeros(10)) == 1.0
    shape = np.random.default_rng(2).normal(size=10)
    rest = hand.rest_joints(shape), hand.rest_joints(np.zeros(10))
    lengths = [np.linalg.norm(one[9] - one[0]) for one in rest]
    assert relative_size(hand, shape) == pytest.approx(lengths[0] / lengths[1])
