"""The anatomical axes mean what they say, on both hands."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usthand.hand.io import load_hand
from usthand.hand.limits import ABDUCTION, FLEXION, FREE, LIMITS_RAD, anatomical_axes, angles_to_pose
from usthand.hand.skeleton import JOINTS

FINGER_NAMES = ("index", "middle", "little", "ring", "thumb")


@pytest.fixture(scope="module", params=["right", "left"])
def hand(request):
    return load_hand(side=request.param, dtype=torch.float64)


def bent(hand, joint: int, axis: int, angle: float) -> torch.Tensor:
    """The 21 joints with one angle set."""
    angles = torch.zeros(15, 3, dtype=torch.float64)
    angles[joint, axis] = angle
    pose = torch.cat((torch.zeros(3, dtype=torch.float64), angles_to_pose(angles, anatomical_axes(hand))))
    return hand.with_shape(torch.zeros(10, dtype=torch.float64)).with_pose(hand.rotations(pose, True)).joints


def directions() -> tuple[torch.Tensor, torch.Tensor]:
    """Towards the palm's side, and towards the thumb's; by MANO's axes."""
    return torch.tensor((0, -1.0, 0), dtype=torch.float64), torch.tensor((0, 0, 1.0), dtype=torch.float64)


def test_axes_are_orthonormal_and_right_handed_on_the_right(hand):
    axes = anatomical_axes(hand)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3, dtype=torch.float64).expand(15, 3, 3))
    # Mirrored pseudo-vectors: (f, a, t) -> diag(1, -1, -1), a rotation, so the handedness stays.
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(15, dtype=torch.float64))


@pytest.mark.parametrize("joint", range(12))
def test_flexion_curls_fingers_towards_the_palm(hand, joint):
    palmar, _ = directions()
    tip = JOINTS.index(f"{FINGER_NAMES[joint // 3]}_tip")
    moved = bent(hand, joint, FLEXION, 0.3)[tip] - bent(hand, joint, FLEXION, 0.0)[tip]
    assert moved @ palmar > 0.6 * moved.norm()


@pytest.mark.parametrize("joint", [0, 3, 6, 9])
def test_abduction_moves_fingers_towards_the_thumb(hand, joint):
    palmar, radial = directions()
    tip = JOINTS.index(f"{FINGER_NAMES[joint // 3]}_tip")
    moved = bent(hand, joint, ABDUCTION, 0.2)[tip] - bent(hand, joint, ABDUCTION, 0.0)[tip]
    assert moved @ radial > 0.8 * moved.norm()
    assert abs(moved @ palmar) < 0.2 * moved.norm()


def test_the_thumb_flexes_across_the_palm_and_abducts_out_of_it(hand):
    palmar, radial = directions()
    tip = JOINTS.index("thumb_tip")
    flexed = bent(hand, 12, FLEXION, 0.3)[tip] - bent(hand, 12, FLEXION, 0.0)[tip]
    assert flexed @ radial < -0.3 * flexed.norm()
    raised = bent(hand, 12, ABDUCTION, 0.3)[tip] - bent(hand, 12, ABDUCTION, 0.0)[tip]
    assert raised @ palmar > 0.3 * raised.norm()


def test_both_sides_move_as_mirror_images():
    right, left = (load_hand(side=s, dtype=torch.float64) for s in ("right", "left"))
    angles = torch.from_numpy(np.random.default_rng(0).normal(size=(15, 3)) * 0.4)
    zero = torch.zeros(3, dtype=torch.float64)
    posed = []
    for hand in (right, left):
        pose = torch.cat((zero, angles_to_pose(angles, anatomical_axes(hand))))
        posed.append(hand.with_shape(zero.new_zeros(10)).with_pose(hand.rotations(pose, True)).vertices)
    torch.testing.assert_close(posed[1], posed[0] * torch.tensor((-1.0, 1, 1), dtype=torch.float64), atol=1e-12, rtol=0)


def pose_to_angles(pose, axes):
    """The inverse of `angles_to_pose`, exact because the axes are orthonormal."""
    return torch.einsum("jac,...jc->...ja", axes, pose.unflatten(-1, (15, 3)))


def test_angles_and_pose_are_inverse(hand):
    axes = anatomical_axes(hand)
    angles = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 2, 15, 3)))
    torch.testing.assert_close(pose_to_angles(angles_to_pose(angles, axes), axes), angles)


def test_limits_hold_the_rest_pose_and_the_relaxed_one(hand):
    low, high = LIMITS_RAD.unbind(-1)
    assert (low < 0).all() and (high > 0).all()
    relaxed = pose_to_angles(hand.hands_mean, anatomical_axes(hand))
    assert ((relaxed >= low - 1e-6) & (relaxed <= high + 1e-6)).all()


def test_what_is_not_free_has_narrow_limits():
    width = LIMITS_RAD[..., 1] - LIMITS_RAD[..., 0]
    free = torch.zeros(15, 3, dtype=torch.bool)
    for joint, axis in FREE:
        free[joint, axis] = True
    assert len(FREE) == 22 == int(free.sum())
    assert width[free].min() > np.deg2rad(20) > np.deg2rad(11) > width[~free].max()


def test_thumb_and_fingertips_can_meet_within_the_limits():
    """Opposition: descent on angles squeezed into their limits brings the thumb's tip to each finger's."""
    hand = load_hand(dtype=torch.float64).skeleton_model()
    axes, (low, high) = anatomical_axes(hand), LIMITS_RAD.unbind(-1)
    for finger in ("index", "middle", "ring"):
        x = torch.zeros(15, 3, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([x], lr=0.1)
        for _ in range(80):
            angles = low + (high - low) * torch.sigmoid(x)
            pose = torch.cat((x.new_zeros(3), angles_to_pose(angles, axes)))
            joints = hand.with_shape(x.new_zeros(10)).with_pose(hand.rotations(pose, True)).joints
            gap = (joints[JOINTS.index("thumb_tip")] - joints[JOINTS.index(f"{finger}_tip")]).norm()
            optimiser.zero_grad()
            gap.backward()
            optimiser.step()
        assert gap < 0.004, finger
