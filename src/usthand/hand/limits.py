"""Anatomical axes and limits of the 15 finger joints.

Angles are (flexion, abduction, twist) about three perpendicular axes of each joint, computed from the rest skeleton so
that they mean the same for every hand in MANO's layout. They are exponential coordinates: a joint's rotation vector is
`axes.T @ angles`, so a single angle is a plain rotation about its axis and the three never lock.

Signs, for both sides: flexion > 0 curls towards the palm. Abduction > 0 moves a finger towards the thumb's side and the
thumb away from the palm (palmar abduction). Twist > 0 turns about the bone, from joint to tip, by the right hand's rule
on a right hand and its mirror image on a left one.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from usthand.hand.model import HandModel

N_FINGER_JOINTS = 15
THUMB_TURN_DEG = 50.0
"""How far the thumb faces inwards: the angle about its own bone from the palm's normal towards the little finger."""
FLEXION, ABDUCTION, TWIST = range(3)

_MCP, _PIP, _DIP = 0, 1, 2
_STIFF = (-5.0, 5.0)

# Active ranges of motion: Norkin and White, "Measurement of Joint Motion", 5th ed. 2016, after the American Academy of
# Orthopaedic Surgeons (fingers: MCP 0 to 90 and 45 of extension, PIP 0 to 100, DIP 0 to 90, MCP abduction 20 to 30 each
# way; thumb: IP 0 to 80, MCP 0 to 50, CMC flexion 15, extension 20, abduction 70). The thumb's are counted from its
# rest pose here, which is abducted about 40 degrees in the plane of the palm; its base also turns about its bone, by
# about 30 degrees in opposition (Cooney et al., J. Bone Joint Surg. 63-A, 1981).
_FINGER_DEG = (((-35.0, 95.0), (-22.0, 22.0), _STIFF), ((-8.0, 110.0), _STIFF, _STIFF), ((-10.0, 90.0), _STIFF, _STIFF))
_THUMB_DEG = (
    ((-25.0, 45.0), (-30.0, 40.0), (-15.0, 35.0)),
    ((-15.0, 65.0), (-10.0, 12.0), _STIFF),
    ((-20.0, 85.0), _STIFF, _STIFF),
)

LIMITS_RAD: Float[Tensor, "15 3 2"] = torch.deg2rad(torch.tensor(_FINGER_DEG * 4 + _THUMB_DEG, dtype=torch.float64))
"""Low and high limit of each joint's three angles, radians, in MANO's order of joints 1 to 15."""

FREE: tuple[tuple[int, int], ...] = tuple(
    (joint, axis)
    for joint in range(N_FINGER_JOINTS)
    for axis in range(3)
    if axis == FLEXION or (joint % 3 == _MCP and axis == ABDUCTION) or (joint, axis) in ((12, TWIST), (13, ABDUCTION))
)
"""The 22 (joint, axis) pairs that move: the knuckles flex and abduct, the other joints flex, the thumb's base also
twists and its middle joint abducts."""


def anatomical_axes(hand: HandModel) -> Float[Tensor, "15 3 3"]:
    """Unit axes (rows: flexion, abduction, twist) of the finger joints in the rest frame, from the rest skeleton.

    For a finger the flexion axis is perpendicular to its bone and to the palm's normal; the thumb faces inwards by
    `THUMB_TURN_DEG` about its bone.
    """
    joints = hand.joints_template.detach().double().cpu().numpy()
    tips = hand.v_template[hand.tip_ids].detach().double().cpu().numpy()[[1, 2, 4, 3, 0]]
    left = hand.side == "left"
    if left:
        joints, tips = joints * (-1.0, 1.0, 1.0), tips * (-1.0, 1.0, 1.0)
    axes = axes_from_skeleton(joints, tips)
    if left:
        axes = axes * (1.0, -1.0, -1.0)
    return torch.as_tensor(axes).to(hand.v_template)


def axes_from_skeleton(
    joints: Float[np.ndarray, "16 3"], tips: Float[np.ndarray, "5 3"]
) -> Float[np.ndarray, "15 3 3"]:
    """Axes (rows: flexion, abduction, twist) of a right hand from its rest joints and its tips in MANO's order."""
    palmar, ulnar = palm_directions(joints)
    axes = np.zeros((N_FINGER_JOINTS, 3, 3))
    turn = np.deg2rad(THUMB_TURN_DEG)
    for j in range(N_FINGER_JOINTS):
        finger, level = divmod(j, 3)
        bone = _unit((tips[finger] if level == _DIP else joints[j + 2]) - joints[j + 1])
        face = palmar
        if finger == 4:
            face = np.cos(turn) * _across(palmar, bone) + np.sin(turn) * _across(ulnar, bone)
        flexion = _unit(np.cross(bone, face))
        axes[j] = flexion, np.cross(bone, flexion), bone
    return axes


def palm_directions(joints: Float[np.ndarray, "16 3"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Unit directions out of the palm and towards the little finger, for a right hand's 16 joints."""
    index, middle, little, ring = joints[1], joints[4], joints[7], joints[10]
    distal = (index + middle + little + ring) / 4 - joints[0]
    palmar = _unit(np.cross(index - little, distal))
    return palmar, _unit(_across(little - index, _unit(distal)))


def _unit(v: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    return v / np.sqrt((v * v).sum())


def _across(v: Float[np.ndarray, "3"], unit: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """The direction of what `v` has perpendicular to `unit`."""
    return _unit(v - (v * unit).sum() * unit)


def angles_to_pose(angles: Float[Tensor, "*b 15 3"], axes: Float[Tensor, "15 3 3"]) -> Float[Tensor, "*b 45"]:
    """Anatomical angles, radians, to the 45 axis-angle entries of the finger pose (flat hand mean)."""
    return torch.einsum("jac,...ja->...jc", axes, angles).flatten(-2)
