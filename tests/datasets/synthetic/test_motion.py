"""Motion is natural: within limits and human speeds, without fingers through fingers, seen from all sides."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from usthand.datasets.synthetic import kinematics, motion, poses
from usthand.datasets.synthetic.kinematics import FINGER_OF
from usthand.hand.io import load_hand
from usthand.hand.skeleton import MANO_TO_OPENPOSE

FPS, T = 30.0, 400
THUMB = FINGER_OF["thumb"]


@pytest.fixture(scope="module")
def hand():
    return load_hand(side="right")


@pytest.fixture(scope="module", params=[0, 1, 2])
def moved(request, hand):
    return motion.sample_motion(hand, T, FPS, np.random.default_rng(request.param))


@pytest.fixture(scope="module", params=[0.0, 1.5, -1.5])
def subject(request, hand):
    kin = kinematics.kinematics(hand, np.full(10, request.param))
    return kin, poses.library(kin)


def model_joints(hand, shape, pose, translation):
    with torch.no_grad():
        rotations = hand.rotations(torch.as_tensor(pose, dtype=torch.float32), flat_hand_mean=True)
        shaped = hand.with_shape(torch.as_tensor(shape, dtype=torch.float32))
        return shaped.with_pose(rotations, torch.as_tensor(translation, dtype=torch.float32)).joints.double().numpy()


def test_joint_limits_are_kept(moved):
    low, high = kinematics.limits_rad()
    assert (moved.angles >= low - 1e-12).all() and (moved.angles <= high + 1e-12).all()


def test_pose_is_the_angles_about_the_anatomical_axes(hand, moved):
    kin = kinematics.kinematics(hand, moved.shape)
    vectors = moved.pose[:, 3:].reshape(T, 15, 3)
    back = np.einsum("jax,tjx->tja", kin.axes, vectors)
    np.testing.assert_allclose(back, moved.angles, atol=1e-6)


def test_fingers_move_at_human_speed(moved):
    """Strokes peak at MAX_STROKE_RAD_S; drift and tremor add their amplitude times angular frequency."""
    unrest = (
        np.sqrt(2)
        * 2
        * np.pi
        * (
            motion.TREMOR_RAD * motion.TREMOR_HZ[1] ** np.array([1, 2]) * np.array([1, 2 * np.pi])
            + motion.DRIFT_RAD * motion.DRIFT_HZ[1] ** np.array([1, 2]) * np.array([1, 2 * np.pi])
        )
    )
    speed = np.abs(np.diff(moved.angles, axis=0)).max() * FPS
    assert 1.0 < speed < motion.MAX_STROKE_RAD_S + unrest[0]
    acceleration = np.abs(np.diff(moved.angles, 2, axis=0)).max() * FPS**2
    # Minimum jerk: the peak acceleration is 10 / sqrt(3) D / d^2, the peak speed 1.875 D / d.
    peak = 10 / np.sqrt(3) / motion.MIN_JERK_PEAK * motion.MAX_STROKE_RAD_S / motion.STROKE_S[0]
    assert acceleration < peak + unrest[1]


def test_the_hand_turns_and_travels_at_human_speed_near_the_origin(hand, moved):
    joints = model_joints(hand, moved.shape, moved.pose, moved.translation_m)
    centre = joints.mean(1)
    assert np.linalg.norm(centre, axis=-1).max() < 1.5 * motion.BALL_RADIUS_M
    velocity = np.diff(joints, axis=0) * FPS
    assert np.linalg.norm(velocity, axis=-1).max() < 2.5  # m/s; a wave of the hand
    acceleration = np.diff(joints, 2, axis=0) * FPS**2
    assert np.linalg.norm(acceleration, axis=-1).max() < 40  # m/s^2
    turn = Rotation.from_rotvec(moved.pose[:, :3])
    rate = (turn[:-1].inv() * turn[1:]).magnitude() * FPS
    assert 0.5 < rate.mean() < 3.0 and rate.max() < 8.0


def test_all_sides_are_seen(hand):
    """In each capture the palm's normal and the fingers' direction reach many of 26 directions, over six nearly all.

    The elbow stays below the hand or a little above it: the fingers hardly ever point steeply down.
    """
    grid = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if x or y or z], float)
    grid /= np.linalg.norm(grid, axis=1, keepdims=True)
    time = np.arange(T) / FPS
    frame = kinematics.kinematics(hand, np.zeros(10)).frame
    reached, fingers = [], []
    for seed in range(6):
        turn = Rotation.from_rotvec(motion.turning(time, frame[1], np.random.default_rng(seed))).as_matrix()
        directions = np.einsum("tij,kj->tki", turn, frame)
        reached.append([set((directions[:, axis] @ grid.T).argmax(1)) for axis in (1, 2)])
        fingers.append(directions[:, 1, 2])
    assert min(len(sides) for pair in reached for sides in pair) >= 6
    assert len(set().union(*(palm for _, palm in reached))) >= 23
    fingers = np.concatenate(fingers)
    assert (fingers > -0.6).mean() > 0.95 and fingers.max() > 0.9


def test_no_finger_runs_through_another(hand, moved):
    kin = kinematics.kinematics(hand, moved.shape)
    deep = kin.penetration_m(moved.angles).max(-1)
    assert np.quantile(deep, 0.9) < poses.TOLERANCE_M
    assert deep.max() < 2.0 * motion.MAX_OVERLAP_M


def test_sticks_agree_with_the_hand_model(hand, moved):
    kin = kinematics.kinematics(hand, moved.shape)
    pose = moved.pose.copy()
    pose[:, :3] = 0
    joints = model_joints(hand, moved.shape, pose, np.zeros((T, 3)))
    points, _ = kin.joints(moved.angles)
    mano = np.argsort(MANO_TO_OPENPOSE)
    local = (joints - joints[:, :1])[:, mano]
    np.testing.assert_allclose(points[:, :, :3].reshape(T, 15, 3), local[:, 1:16], atol=2e-6)
    tips = local[:, [17, 18, 20, 19, 16]]
    assert np.linalg.norm(points[:, :, 3] - tips, axis=-1).max() < 0.006  # pose blend shapes move tips a little


def test_every_pose_of_the_library_is_free_of_collisions(subject):
    kin, library = subject
    for name, angles in library.items():
        allowed = 1.5 * poses.TOLERANCE_M
        assert kin.penetration_m(angles).max() < allowed, name


def test_contacts_close(subject):
    kin, library = subject
    for name, pose in poses.LIBRARY.items():
        pad, normal = kin.pads(*kin.joints(library[name]))
        for other in pose.meets:
            gap = np.linalg.norm(pad[THUMB] - pad[FINGER_OF[other]])
            reach = 0.003 if len(pose.meets) == 1 else 0.016  # between two fingertips the thumb meets their middle
            assert gap < reach, (name, other)
            assert normal[THUMB] @ normal[FINGER_OF[other]] < 0, (name, other)


def test_the_thumb_lies_outside_the_fist(subject):
    kin, library = subject
    points, _ = kin.joints(library["fist"])
    finger = FINGER_OF["middle"]
    outward = points[THUMB, 3] @ kin.frame[2] - points[finger, 1:3].mean(0) @ kin.frame[2]
    assert outward > 0.006


def test_fingers_of_the_open_hand_are_ordered_and_straight(subject):
    kin, library = subject
    points, _ = kin.joints(library["spread"])
    sideways = points[[FINGER_OF[n] for n in ("index", "middle", "ring", "little")], 3] @ kin.frame[0]
    assert (np.diff(sideways) < -0.01).all()
    reach = np.linalg.norm(points[:4, 3] - points[:4, 0], axis=-1)
    length = np.linalg.norm(kin.bone[:4], axis=-1).sum(-1)
    assert (reach > 0.97 * length).all()


def test_same_seed_same_motion_and_another_seed_another(hand):
    first, second, other = (motion.sample_motion(hand, 50, FPS, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.pose, second.pose)
    np.testing.assert_array_equal(first.translation_m, second.translation_m)
    assert np.abs(first.pose - other.pose).max() > 0.1
    assert first.names == second.names and len(first.names) == 50


def test_many_poses_occur(subject):
    names = set()
    for seed in range(8):
        names |= set(motion.finger_motion(*subject, T, FPS, np.random.default_rng(seed))[1])
    assert len(names) > 0.7 * len(poses.LIBRARY)


@pytest.mark.parametrize("radius", [0.018, 0.032])
def test_a_held_thing_is_touched_by_most_fingers_and_entered_by_none(hand, radius):
    """A cylinder across the palm, as `scene` places it."""
    around, along = np.meshgrid(np.linspace(0, 2 * np.pi, 40), np.linspace(-0.06, 0.06, 40))
    points = np.stack([along, radius * np.cos(around), radius * np.sin(around)], -1).reshape(-1, 3)
    points += [0.0, 0.075, 0.014 + radius]
    kin = kinematics.kinematics(hand, np.zeros(10))
    angles = poses.grasp(kin, points)
    start, end, size = kin.capsules(kin.joints(angles)[0])
    centre = start[:15, None] + np.linspace(0, 1, 20)[:, None] * (end - start)[:15, None]
    gap = np.linalg.norm(centre[:, :, None] - (points @ kin.frame), axis=-1).min((1, 2))
    gap = (gap - kinematics.SOFTNESS * size[:15]).reshape(5, 3)
    gap[THUMB, 0] = 1.0  # the ball of the thumb gives
    per_finger = gap.min(1)
    assert per_finger.min() > -0.002
    assert (per_finger < 0.003).sum() >= 4
    held = motion.sample_motion(hand, 100, FPS, np.random.default_rng(0), grasp=points)
    assert set(held.names) == {"grasp"}
    assert np.abs(held.angles - angles).max() < 0.3


def test_shapes_are_a_cut_off_normal():
    rng = np.random.default_rng(0)
    shapes = np.stack([motion.sample_shape(rng) for _ in range(2000)])
    assert np.abs(shapes).max() <= motion.SHAPE_LIMIT
    # Variance of a normal cut at +-2: 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.7737.
    assert abs(shapes.var() - 0.7737) < 4 * np.sqrt(2 / shapes.size)


def test_one_frame_is_enough(hand):
    assert motion.sample_motion(hand, 1, FPS, np.random.default_rng(0)).pose.shape == (1, 48)


def test_segment_distance_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    a0, a1, b0, b1 = rng.normal(size=(4, 200, 3))
    s = np.linspace(0, 1, 201)[:, None, None, None]
    t = np.linspace(0, 1, 201)[None, :, None, None]
    a, b = a0 + s[:, 0] * (a1 - a0), b0 + t[0] * (b1 - b0)
    brute = np.array([np.linalg.norm(a[:, None, i] - b[None, :, i], axis=-1).min() for i in range(200)])
    exact = kinematics.segment_distance(a0, a1, b0, b1)
    grid = 0.5 / 200 * (np.linalg.norm(a1 - a0, axis=1) + np.linalg.norm(b1 - b0, axis=1))
    assert (exact <= brute + 1e-12).all() and (brute <= exact + grid).all()
