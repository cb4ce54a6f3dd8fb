"""Stage 8: from refined points to the hand model's pose, shape and translation.

Finger rotations are predicted as anatomical angles (flexion, abduction, twist) within the joints' limits, which 2D
joints alone would leave half free; the wrist's rotation as a 6D rotation relative to the palm's frame, so that it turns
with the rig; the shape is one per clip, for bones do not change length within it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from usthand.geometry.rotations import rotation_from_6d, rotation_from_axis_angle
from usthand.hand.limits import LIMITS_RAD, anatomical_axes
from usthand.hand.model import HandModel, PosedHand
from usthand.hand.skeleton import N_JOINTS
from usthand.network.point_cloud import PALM, PalmFrame, palm_frame

N_SHAPE = 10
SHAPE_RANGE = 3.0  # standard deviations of the population
IDENTITY_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class HandParameters(NamedTuple):
    """The hand model's parameters (a right hand's), world."""

    angles: Float[Tensor, "B T 15 3"]
    """Anatomical finger angles, radians."""
    root: Float[Tensor, "B T 3 3"]
    shape: Float[Tensor, "B 10"]
    translation_m: Float[Tensor, "B T 3"]


def finger_rotations(angles: Float[Tensor, "*b 15 3"], axes: Float[Tensor, "15 3 3"]) -> Float[Tensor, "*b 15 3 3"]:
    """Anatomical angles to rotations: exp(sum of angle times axis)."""
    return rotation_from_axis_angle((axes * angles.unsqueeze(-1)).sum(-2))


def pose_hand(hand: HandModel, axes: Float[Tensor, "15 3 3"], parameters: HandParameters) -> PosedHand:
    """Pose the hand, metres; a skeleton model is faster where only joints are wanted.

    Args:
        hand: The hand model, or its skeleton model.
        axes: `usthand.hand.limits.anatomical_axes` of the hand.
        parameters: Pose, shape and translation.
    """
    rotations = torch.cat((parameters.root.unsqueeze(-3), finger_rotations(parameters.angles, axes)), -3)
    shape = parameters.shape.unsqueeze(-2).expand(*parameters.root.shape[:-2], N_SHAPE)
    return hand.with_shape(shape).with_pose(rotations, parameters.translation_m)


class CarriesHand(nn.Module):
    """A module with a hand, which is not in its state_dict but moves between devices and types with its parameters."""

    def __init__(self, hand: HandModel) -> None:
        super().__init__()
        self.hand = hand

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CarriesHand:
        self.hand = self.hand.over_tensors(fn)
        return super()._apply(fn, recurse)


class HandHead(CarriesHand):
    """A small MLP on the refined points and their features."""

    axes: Tensor
    middle: Tensor
    reach: Tensor
    rest_axes: Tensor

    def __init__(self, hand: HandModel, width: int, hidden: int) -> None:
        super().__init__(hand.skeleton_model())
        self.register_buffer("axes", anatomical_axes(hand), persistent=False)
        low, high = torch.as_tensor(LIMITS_RAD, dtype=torch.float32).unbind(-1)
        self.register_buffer("middle", (low + high) / 2, persistent=False)
        self.register_buffer("reach", (high - low) / 2, persistent=False)
        rest = self.hand.with_shape(torch.zeros(1, N_SHAPE)).with_pose(
            torch.eye(3).expand(1, 16, 3, 3), torch.zeros(1, 3)
        )
        self.register_buffer("rest_axes", palm_frame(rest.joints[None]).axes[0, 0], persistent=False)
        self.reduce = nn.Linear(width, 16)
        self.body = nn.Sequential(
            nn.Linear(N_JOINTS * (3 + 16), hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.out = nn.Linear(hidden, 45 + 6 + 3 + N_SHAPE)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, points: Float[Tensor, "B T J 3"], x: Float[Tensor, "B T J D"], frame_mask: Bool[Tensor, "B T"]
    ) -> HandParameters:
        """Parameters from refined points (world) and their features; the shape is a mean over the masked-in frames."""
        frame = palm_frame(points)
        local = frame.to_local(points).clamp(-5, 5)
        hidden = self.body(torch.cat((local, self.reduce(x)), -1).flatten(-2))
        finger, sixd, shift, shape = self.out(hidden).split((45, 6, 3, N_SHAPE), -1)
        angles = self.middle + self.reach * torch.tanh(finger.unflatten(-1, (15, 3)))
        turn = rotation_from_6d(sixd + sixd.new_tensor(IDENTITY_6D))
        root = frame.axes @ turn @ self.rest_axes.T
        weight = frame_mask.to(shape)[..., None]
        shape = SHAPE_RANGE * torch.tanh((shape * weight).sum(1) / weight.sum(1).clamp_min(1.0))
        return self._placed(HandParameters(angles, root, shape, torch.zeros_like(shift)), frame, 0.1 * shift)

    def _placed(self, parameters: HandParameters, frame: PalmFrame, shift: Tensor) -> HandParameters:
        """Translate the hand so that its palm lies on the points' palm, plus `shift` (palm sizes, palm frame)."""
        joints = pose_hand(self.hand, self.axes, parameters).joints
        offset = frame.origin - joints[..., PALM, :].mean(-2)
        shift_world = frame.vectors_to_world(shift.unsqueeze(-2)).squeeze(-2)
        return parameters._replace(translation_m=offset + shift_world)
