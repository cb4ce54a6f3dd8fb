"""One differentiable linear-blend-skinning hand, stateless, with any batch axes.

    hand = load_hand(side="right")
    posed = hand.with_shape(betas).with_pose(hand.rotations(pose, flat_hand_mean=True), translation_m)
    posed.vertices, posed.joints          # (*b, 778, 3), (*b, 21, 3) in OpenPose's order, metres

The arrays and their semantics are MANO's (Romero, Tzionas, Black: Embodied Hands, SIGGRAPH Asia 2017), so that any file
in that layout works: the shaped template is `v_template + shapedirs @ betas`, the joints are regressed from it, pose
blend shapes are driven by the entries of the 15 finger rotations less the identity, the root rotates about its own
joint, and the translation comes last.

Shapes: `*b` any batch axes, N vertices, 16 MANO joints (wrist, then three each of index, middle, little, ring, thumb).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from usthand.geometry.rotations import rotation_from_axis_angle
from usthand.hand.skeleton import MANO_TO_OPENPOSE

N_MANO_JOINTS = 16
N_VERTICES = 778
N_FACES = 1538
N_SHAPES = 10
TIP_IDS = (744, 317, 444, 556, 673)
"""The vertices at the tips of thumb, index, middle, ring and little finger: the middle of each group of ids in use.

Tools differ in these ids (745/317/444/556/673, 744/320/443/554/671, ...); on the embedded hand all of them lie on the
same fingertip, a few millimetres apart.
"""


@dataclass(frozen=True)
class HandModel:
    """A hand as tensors; right or left; every method is a pure function of its arguments."""

    v_template: Float[Tensor, "N 3"]
    """Rest vertices, metres."""
    shapedirs: Float[Tensor, "N 3 shapes"]
    """Offset per unit of each shape coefficient, metres."""
    posedirs: Float[Tensor, "N 3 135"]
    """Offset per entry of (R - I) of joints 1 to 15, row by row, metres."""
    joints_template: Float[Tensor, "16 3"]
    """Rest joints: J_regressor @ v_template, metres."""
    joints_shapedirs: Float[Tensor, "16 3 shapes"]
    """J_regressor @ shapedirs, metres: the shape's effect on the joints without the mesh."""
    weights: Float[Tensor, "N 16"]
    """Skinning weights; rows sum to one."""
    hands_mean: Float[Tensor, "45"]
    """The mean pose that is added where `flat_hand_mean` is False; axis-angle, radians."""
    hands_components: Float[Tensor, "45 45"]
    """Rows: principal components of the finger pose."""
    faces: Int[Tensor, "F 3"]
    """Triangles, counter-clockwise seen from outside."""
    tip_ids: Int[Tensor, "5"]
    """The vertices that serve as fingertip joints, thumb to little finger."""
    side: str = "right"
    name: str = "embedded"
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    """What else is known per vertex (nail, palmar, finger ...); empty for hands read from MANO's files."""

    def with_shape(self, betas: Float[Tensor, "*b shapes"]) -> ShapedHand:
        """The hand of one person or of a batch of them; `betas` in standard deviations, all of them or the first."""
        n = betas.shape[-1]
        vertices = self.v_template + torch.einsum("...k,nck->...nc", betas, self.shapedirs[..., :n])
        joints = self.joints_template + torch.einsum("...k,nck->...nc", betas, self.joints_shapedirs[..., :n])
        return ShapedHand(self, vertices, joints)

    def rotations(self, pose: Float[Tensor, "*b 48"], flat_hand_mean: bool) -> Float[Tensor, "*b 16 3 3"]:
        """Rotation matrices from axis-angle, radians: the first three entries turn the whole hand.

        Args:
            pose: Axis-angle of the root and of the 15 finger joints, radians.
            flat_hand_mean: True: zeros are the flat rest hand. False: the fingers' entries are relative to
                `hands_mean`, as in MANO's own files and most data sets. There is no default, because mixing them up
                moves the vertices by about 100 mm and raises no error.
        """
        if not flat_hand_mean:
            pose = torch.cat((pose[..., :3], pose[..., 3:] + self.hands_mean), -1)
        return rotation_from_axis_angle(pose.unflatten(-1, (N_MANO_JOINTS, 3)))

    def skeleton_model(self) -> HandModel:
        """The same hand cut to its five fingertip vertices: the same API and joints, a hundredth of the work."""
        keep = self.tip_ids
        return replace(
            self,
            v_template=self.v_template[keep],
            shapedirs=self.shapedirs[keep],
            posedirs=self.posedirs[keep],
            weights=self.weights[keep],
            faces=self.faces[:0],
            tip_ids=torch.arange(len(keep), device=keep.device),
            fields={key: value[keep] for key, value in self.fields.items()},
        )

    def mirrored(self) -> HandModel:
        """The other hand: the exact mirror image under x -> -x.

        With M = diag(-1, 1, 1): vertices M v; a rotation R of this hand is M R M of the other, so rotation vectors keep
        their x and negate y and z; the triangles' winding turns round.
        """
        point = self.v_template.new_tensor((-1.0, 1.0, 1.0))
        spin = self.v_template.new_tensor((1.0, -1.0, -1.0))
        feature = torch.outer(point, point).flatten().repeat(N_MANO_JOINTS - 1)
        return replace(
            self,
            v_template=self.v_template * point,
            shapedirs=self.shapedirs * point[:, None],
            posedirs=self.posedirs * point[:, None] * feature,
            joints_template=self.joints_template * point,
            joints_shapedirs=self.joints_shapedirs * point[:, None],
            hands_mean=self.hands_mean * spin.repeat(N_MANO_JOINTS - 1),
            hands_components=self.hands_components * spin.repeat(N_MANO_JOINTS - 1),
            faces=self.faces.flip(-1),
            side="left" if self.side == "right" else "right",
        )

    def to(self, target: torch.dtype | torch.device | str) -> HandModel:
        """The hand on another device, or with its real numbers in another dtype; integer tensors keep theirs."""

        def moved(value: Tensor) -> Tensor:
            there = value.to(target)
            return there if value.is_floating_point() else there.to(value.dtype)

        return self.over_tensors(moved)

    def over_tensors(self, change: Callable[[Tensor], Tensor]) -> HandModel:
        """The hand with every tensor changed."""
        changed = {f.name: change(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **changed, fields={key: change(value) for key, value in self.fields.items()})


@dataclass(frozen=True)
class ShapedHand:
    """A person's hand at rest."""

    model: HandModel
    rest_vertices: Float[Tensor, "*b N 3"]
    """Vertices of the flat hand, metres."""
    rest_joints: Float[Tensor, "*b 16 3"]
    """MANO's 16 joints of the flat hand, metres."""

    def with_pose(
        self, rotations: Float[Tensor, "*#b 16 3 3"], translation_m: Float[Tensor, "*#b 3"] | None = None
    ) -> PosedHand:
        """Pose the hand. Batch axes of shape, rotations and translation broadcast against each other.

        Args:
            rotations: Rotation of each joint relative to its parent; the first is the whole hand's.
            translation_m: Added last, metres; None means zero.
        """
        world, centres = forward_kinematics(self.rest_joints, rotations)
        feature = rotations[..., 1:, :, :] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        posedirs = self.model.posedirs
        offsets = feature.flatten(-3) @ posedirs.flatten(0, 1).T
        vertices = self.rest_vertices + offsets.unflatten(-1, (posedirs.shape[0], 3))

        shift = centres - (world @ self.rest_joints.unsqueeze(-1)).squeeze(-1)
        transform = torch.cat((world, shift.unsqueeze(-1)), -1).flatten(-2)
        blended = (self.model.weights @ transform).unflatten(-1, (3, 4))
        vertices = (blended[..., :3] @ vertices.unsqueeze(-1)).squeeze(-1) + blended[..., 3]
        if translation_m is not None:
            vertices = vertices + translation_m.unsqueeze(-2)
            centres = centres + translation_m.unsqueeze(-2)
        return PosedHand(self.model, vertices, centres, world)


def forward_kinematics(
    rest_joints: Float[Tensor, "*#b 16 3"], rotations: Float[Tensor, "*#b 16 3 3"]
) -> tuple[Float[Tensor, "*c 16 3 3"], Float[Tensor, "*c 16 3"]]:
    """Rotations from the rest pose and positions of the 16 joints; batch axes broadcast."""
    root, fingers = rotations[..., :1, :, :], rotations[..., 1:, :, :].unflatten(-3, (5, 3))
    rest_root, rest = rest_joints[..., :1, :], rest_joints[..., 1:, :].unflatten(-2, (5, 3))
    rotation, position, rest_parent = root, rest_root, rest_root
    all_rotations, all_positions = [], []
    for level in range(3):
        bone = rest[..., level, :] - rest_parent
        position = position + (rotation @ bone.unsqueeze(-1)).squeeze(-1)
        rotation = rotation @ fingers[..., level, :, :]
        rest_parent = rest[..., level, :]
        all_rotations.append(rotation)
        all_positions.append(position)
    world = torch.stack(all_rotations, -3).flatten(-4, -3)
    centres = torch.stack(all_positions, -2).flatten(-3, -2)
    root = root.expand(*world.shape[:-3], 1, 3, 3)
    rest_root = rest_root.expand(*centres.shape[:-2], 1, 3)
    return torch.cat((root, world), -3), torch.cat((rest_root, centres), -2)


@dataclass(frozen=True)
class PosedHand:
    """A hand in space; metres, in the frame of the translation."""

    model: HandModel
    vertices: Float[Tensor, "*b N 3"]
    """The mesh."""
    mano_joints: Float[Tensor, "*b 16 3"]
    """MANO's 16 joints, in MANO's order."""
    world_rotations: Float[Tensor, "*c 16 3 3"]
    """The rotation of each joint's bone from the rest pose."""

    @property
    def joints(self) -> Float[Tensor, "*b 21 3"]:
        """The 21 joints in OpenPose's order: MANO's 16 and five fingertip vertices."""
        tips = self.vertices[..., self.model.tip_ids, :]
        return torch.cat((self.mano_joints, tips), -2)[..., list(MANO_TO_OPENPOSE), :]
