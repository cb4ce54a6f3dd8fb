"""What the fit is told of MediaPipe's joints follows from renders and anatomy, in the script and in the package."""

import tomllib

import numpy as np
import pytest
import torch

import detector_joints as script
from common_displacement import PALM, Sample
from usthand.fit.detector_joints import bone_frames, load_detector_joints
from usthand.fit.kinematics import articulation
from usthand.geometry.rotations import rotation_matrix
from usthand.hand.fingertips import cap_centres
from usthand.hand.io import load_hand
from usthand.hand.skeleton import FINGER_TIPS, FINGERS, JOINTS

N_JOINTS = len(JOINTS)
FINGER = sorted(set(range(N_JOINTS)) - set(PALM))
ROUNDED = 0.005  # of the file's numbers, mm and mm^2


def shown(mean_mm, clenched_mm, rng):
    """A sample of 6 subjects without any spread: as `mean_mm` where fingers are open, as `clenched_mm` elsewhere."""
    lead = (6, 2, 5)
    bends = np.where(rng.random((*lead, N_JOINTS)) < 0.7, 40.0, 150.0)
    bends[..., 0] = 0
    whole = np.where(bends[..., None] < script.MOST_BENT, mean_mm, clenched_mm)
    halves = np.broadcast_to(whole[:, :, None, None], (6, 2, 3, 2, 5, N_JOINTS, 3))
    noise = np.zeros((*lead, 8, N_JOINTS, 2))
    return Sample(whole, halves, np.ones((*lead, N_JOINTS)), noise, noise[..., 0] == 0, bends)


def test_anatomy_is_the_cap_of_a_turned_hand():
    """The displacement of the tips means the caps' centres in any pose of the whole hand, and no other joint moves."""
    hand = load_hand(dtype=torch.float64)
    turn = rotation_matrix(np.array([0.4, -1.1, 0.7]))
    vertices = hand.v_template.numpy() @ turn.T
    frames = bone_frames(articulation(hand))[list(FINGER_TIPS)]
    told = (
        vertices[hand.tip_ids.numpy()]
        + 1e-3 * (turn @ frames.swapaxes(1, 2) @ script.anatomy_mm()[list(FINGER_TIPS), :, None])[..., 0]
    )
    np.testing.assert_allclose(told, cap_centres(hand, vertices), atol=1e-9)
    assert not np.delete(script.anatomy_mm(), FINGER_TIPS, axis=0).any()


def test_palm_is_told_as_rendered_and_fingers_half_way_to_anatomy():
    rng = np.random.default_rng(0)
    mean = 4 * rng.normal(size=(N_JOINTS, 3))
    told = script.stated(shown(mean, mean + 50, rng))
    np.testing.assert_allclose(told.mean[PALM], mean[PALM], atol=1e-9)
    np.testing.assert_allclose(told.mean[FINGER], (mean + script.anatomy_mm())[FINGER] / 2, atol=1e-9)
    # Along the difference of the two sources it is more uncertain, by half of it; across, by the stated width alone.
    for joint in FINGER:
        gap = (mean - script.anatomy_mm())[joint]
        across = np.linalg.svd(gap[None])[2][1:]
        width = script.SUBJECT_STD_MM["tip" if joint in FINGER_TIPS else "finger"]
        along = gap / np.linalg.norm(gap)
        assert along @ told.subject[joint] @ along == pytest.approx(width**2 + gap @ gap / 4)
        np.testing.assert_allclose(across @ told.subject[joint] @ across.T, width**2 * np.eye(2), atol=1e-9)


def test_the_package_has_what_the_script_writes():
    """Without the recordings: the covariance that the file states is the one that follows from its mean and anatomy."""
    known = load_detector_joints("mediapipe")
    half = 1000 * known.mean_m - script.anatomy_mm()
    half[PALM] = 0
    width = np.array([script.SUBJECT_STD_MM[kind] for kind in script.joint_kinds()])
    expected = width[:, None, None] ** 2 * np.eye(3) + half[:, :, None] * half[:, None]
    tolerance = ROUNDED * (1.01 + np.abs(half)[:, :, None] + np.abs(half)[:, None])
    assert (np.abs(1e6 * known.subject_cov_m2 - expected) < tolerance).all()
    kinds = np.where(np.isin(np.arange(N_JOINTS), PALM), script.pose_std_mm("palm"), script.pose_std_mm("finger"))
    np.testing.assert_allclose(1e6 * known.pose_cov_m2, kinds[:, None, None] ** 2 * np.eye(3), atol=ROUNDED)


def test_the_file_that_is_written_can_be_read():
    rng = np.random.default_rng(1)
    told = script.stated(shown(4 * rng.normal(size=(N_JOINTS, 3)), 0.0, rng))
    read = tomllib.loads(script.package_text(told, 6))
    np.testing.assert_allclose([read["joints"][name]["mean_mm"] for name in JOINTS], told.mean, atol=ROUNDED)
    np.testing.assert_allclose([read["joints"][name]["subject_mm2"] for name in JOINTS], told.subject, atol=ROUNDED)


def test_bends_are_those_of_the_joints_own_finger():
    """A ring finger bent at its three joints: 30, 40 and 20 degrees; its leaning to the side is no bend."""
    angles = np.zeros((2, 15, 3))
    angles[1, 9:12, 0] = np.radians([30, 40, 20])  # MANO has the ring finger fourth
    angles[:, 9, 1] = 0.3
    bends = script.finger_bends(angles)
    ring = list(FINGERS["ring"])
    np.testing.assert_allclose(bends[1, ring], 90.0)
    assert not bends[0].any() and not np.delete(bends[1], ring).any()
