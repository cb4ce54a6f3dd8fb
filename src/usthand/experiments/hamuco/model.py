"""HaMuCo (Zheng et al., ICCV 2023) on our data interface: the learned rival that the method is measured against.

The published design: every view regresses a whole hand model (pose, shape, weak-perspective camera) from its own image.
A cross-view network predicts each view's hand again. It consists of graph convolutions, whose outputs the views share
by their maximum, and attention between all joints of all views. The cameras' known rotations make hands comparable.
Losses, each L1: confidence-weighted 2D joints of both predictions, consistency of the cross-view hands, distillation of
their mean into the single views, weak priors. Lengths inside are in units of `UNIT_M`, as published.

Ours: the backbone is UST-Hand's; views may be masked; rotations start at the identity; a view looks along the ray
through its crop's centre and not along the lens's axis (which only helps); and `place` puts the fused hand, which has
neither position nor scale, into the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from usthand.data.batches import Targets
from usthand.geometry.affine import affine_apply, affine_inverse
from usthand.geometry.cameras import Cameras, undistort
from usthand.geometry.rotations import rotation_from_6d
from usthand.geometry.triangulation import triangulate
from usthand.hand.io import load_hand
from usthand.hand.model import N_MANO_JOINTS, HandModel
from usthand.hand.skeleton import N_JOINTS
from usthand.network.backbone import make_trunk, sample_map
from usthand.network.config import ModelConfig
from usthand.network.hand_head import IDENTITY_6D, N_SHAPE, CarriesHand
from usthand.network.model import STRIDE, Inputs
from usthand.training.checkpoint import load_state
from usthand.training.config import Preset
from usthand.training.objective import Batch, trunk_weights

UNIT_M = 0.2  # half of the published 0.4 m box
ROOT = 9  # the middle finger's knuckle, to which hands are relative
START_SCALE = 1.4  # crop coordinates per unit: a hand of 0.18 m then spans two thirds of the crop
GROUP_CHANNELS, PLACE_WIDTH, OUT_WIDTH, HEADS = 8, 64, 32, 4  # as published
POSE_PRIOR, SHAPE_PRIOR = 0.01, 1.0


class ViewHands(NamedTuple):
    """A hand for every view, turned as that view sees it, relative to its root joint."""

    vertices: Float[Tensor, "B T V N 3"]
    """Units of `UNIT_M`, axes of the crop's camera."""
    joints: Float[Tensor, "B T V J 3"]
    uv_crop: Float[Tensor, "B T V J 2"]
    sixd: Float[Tensor, "B T V 16 6"]
    shape: Float[Tensor, "B T V 10"]

    @property
    def points(self) -> Float[Tensor, "B T V P 3"]:
        """Vertices, then joints."""
        return torch.cat((self.vertices, self.joints), -2)


class HamucoPrediction(NamedTuple):
    """Both predictions, and the rotations by which they can be compared."""

    single: ViewHands
    cross: ViewHands
    crop_from_world: Float[Tensor, "B T V 3 3"]


def crop_rotations(cameras: Cameras, crop_from_px: Float[Tensor, "B T V 2 3"]) -> Float[Tensor, "B T V 3 3"]:
    """Rotations from the world into cameras that look along the rays through the crops' centres, turned like these."""
    centre_px = affine_inverse(crop_from_px)[..., 2]
    xy = undistort(cameras, centre_px.unsqueeze(-2)).squeeze(-2)
    z = F.normalize(torch.cat((xy, torch.ones_like(xy[..., :1])), -1), dim=-1)
    x = F.normalize(torch.stack((z[..., 2], torch.zeros_like(z[..., 0]), -z[..., 0]), -1), dim=-1)
    look = torch.stack((x, torch.linalg.cross(z, x), z), -2)
    plane = crop_from_px[..., :2] / torch.linalg.det(crop_from_px[..., :2]).sqrt()[..., None, None]
    turn = torch.zeros_like(look)
    turn[..., :2, :2], turn[..., 2, 2] = plane, 1.0
    return turn @ look @ cameras.cam_from_world[..., :3]


class HandDecoder(CarriesHand):
    """Numbers to a root-relative hand and its weak-perspective projection."""

    def forward(
        self, sixd: Float[Tensor, "*b 16 6"], shape: Float[Tensor, "*b 10"], camera: Float[Tensor, "*b 3"]
    ) -> ViewHands:
        """One hand for each batch entry; `camera` is a scale, before its activation, and a shift in the crop."""
        posed = self.hand.with_shape(shape).with_pose(rotation_from_6d(sixd))
        root = posed.joints[..., ROOT : ROOT + 1, :]
        joints, vertices = (posed.joints - root) / UNIT_M, (posed.vertices - root) / UNIT_M
        scale = START_SCALE * F.softplus(camera[..., :1] + 0.5413)  # softplus(0.5413) = 1
        uv = scale.unsqueeze(-2) * joints[..., :2] + camera[..., None, 1:]
        return ViewHands(vertices, joints, uv, sixd, shape)


def head(width_in: int, width_out: int) -> nn.Sequential:
    """Two layers, the last one small at first: the hand starts at rest in the middle of the crop."""
    last = nn.Linear(width_in, width_out)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width_in, width_in), nn.LeakyReLU(0.1), last)


class GraphPair(nn.Module):
    """Two adaptive graph convolutions after a layer norm; adjacencies start at the identity, row-normalised."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width_in)
        self.adjacency = nn.ParameterList(nn.Parameter(torch.eye(N_JOINTS)) for _ in range(2))
        self.linear = nn.ModuleList((nn.Linear(width_in, width_in), nn.Linear(width_in, width_out)))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Float[Tensor, "*b J D"]) -> Float[Tensor, "*b J E"]:
        """Features of every joint from those of all joints."""
        x = self.norm(x)
        for number, (adjacency, linear) in enumerate(zip(self.adjacency, self.linear, strict=True)):
            row = adjacency / adjacency.abs().sum(-1, keepdim=True).clamp_min(1e-5)
            x = F.leaky_relu(linear(row @ (self.dropout(x) if number else x)), 0.1)
        return x


class JointAttention(nn.Module):
    """Self-attention over the joints of all views, and a feed-forward block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "n tokens D"], hidden: Bool[Tensor, "n tokens"]) -> Float[Tensor, "n tokens D"]:
        """Features after attention; `hidden` tokens are attended by none."""
        q = self.norm(x)
        x = x + self.attention(q, q, q, key_padding_mask=hidden, need_weights=False)[0]
        return x + self.feed(x)


class CrossView(nn.Module):
    """The cross-view interaction network."""

    def __init__(self, channels: tuple[int, ...], deep_side: int) -> None:
        super().__init__()
        self.group = nn.Conv2d(channels[-1], GROUP_CHANNELS * N_JOINTS, 1)
        width = GROUP_CHANNELS * deep_side**2 + sum(channels[:3]) + PLACE_WIDTH
        self.pad = -width % HEADS
        width += self.pad
        self.place = nn.Sequential(
            nn.Linear(3 * N_JOINTS + 6 * (N_MANO_JOINTS - 1), PLACE_WIDTH * N_JOINTS),
            nn.LeakyReLU(0.1),
            nn.Linear(PLACE_WIDTH * N_JOINTS, PLACE_WIDTH * N_JOINTS),
        )
        self.graphs = nn.ModuleList(GraphPair(width, width) for _ in range(2))
        self.attentions = nn.ModuleList(JointAttention(width) for _ in range(2))
        self.fuse = GraphPair(width, OUT_WIDTH)
        self.out = head(OUT_WIDTH * N_JOINTS, 6 * N_MANO_JOINTS + 3)

    def forward(
        self, maps: list[Tensor], single: ViewHands, view_mask: Bool[Tensor, "B T V"]
    ) -> Float[Tensor, "B T V 99"]:
        """Pose (96) and camera (3) of every view."""
        lead, views = view_mask.shape, view_mask.shape[-1]
        uv = single.uv_crop.detach().flatten(0, 2)
        spatial = F.leaky_relu(self.group(maps[-1]), 0.1).unflatten(1, (N_JOINTS, -1)).flatten(2)
        aligned = torch.cat([sample_map(m, uv) for m in maps[:3]], -1)
        seen = torch.cat((uv, single.joints.flatten(0, 2)[..., 2:]), -1).flatten(1)
        place = self.place(torch.cat((seen, single.sixd[..., 1:, :].flatten(0, 2).flatten(1)), -1))
        x = torch.cat((spatial, aligned, place.unflatten(1, (N_JOINTS, -1))), -1)
        x = F.pad(x, (0, self.pad)).unflatten(0, (-1, views))  # (B T) V J D
        here = (view_mask | ~view_mask.any(-1, keepdim=True)).flatten(0, 1)
        hidden = ~here.repeat_interleave(N_JOINTS, -1)
        for graph, attention in zip(self.graphs, self.attentions, strict=True):
            shared = graph(x).masked_fill(~here[..., None, None], -1e4).amax(1, keepdim=True)
            x = attention(x.flatten(1, 2), hidden).unflatten(1, (views, N_JOINTS)) + shared
        return self.out(self.fuse(x).flatten(2)).unflatten(0, lead[:2])


class Hamuco(nn.Module):
    """The whole baseline; of `config` it uses only what describes the backbone."""

    def __init__(self, config: ModelConfig, hand: HandModel) -> None:
        super().__init__()
        self.config = config
        self.trunk = make_trunk(config.backbone, config.width)
        self.trunk.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # torch's stubs lack it
        deep = self.trunk.channels[-1]
        self.pose, self.shape, self.camera = head(deep, 6 * N_MANO_JOINTS), head(deep, N_SHAPE), head(deep, 3)
        self.cross = CrossView(self.trunk.channels, config.image_size // STRIDE)
        self.decoder = HandDecoder(hand)

    def forward(self, inputs: Inputs) -> HamucoPrediction:
        """Hands of every view, from its own image and from all."""
        lead = inputs.view_mask.shape
        images = inputs.images.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        maps = self.trunk(images)
        deep = maps[-1].mean((-2, -1))
        single = self._hands(
            self.pose(deep).unflatten(0, lead),
            self.shape(deep).unflatten(0, lead),
            self.camera(deep).unflatten(0, lead),
        )
        pose, camera = self.cross(maps, single, inputs.view_mask).split((6 * N_MANO_JOINTS, 3), -1)
        cross = self._hands(pose, single.shape.detach(), camera)
        return HamucoPrediction(single, cross, crop_rotations(inputs.cameras, inputs.crop_from_px))

    def _hands(self, pose: Tensor, shape: Tensor, camera: Tensor) -> ViewHands:
        sixd = pose.unflatten(-1, (N_MANO_JOINTS, 6)) + pose.new_tensor(IDENTITY_6D)
        return self.decoder(sixd, shape, camera)


# ---- losses: pure functions of a prediction and 2D labels ----------------------------------------------------------


def in_world(
    points: Float[Tensor, "B T V N 3"], crop_from_world: Float[Tensor, "B T V 3 3"]
) -> Float[Tensor, "B T V N 3"]:
    """The views' hands turned into the world's axes."""
    return points @ crop_from_world


def aligned_pairs(points: Float[Tensor, "B T V N 3"]) -> Float[Tensor, "B T V V N 3"]:
    """Hands in the world's axes: entry [i, j] is the hand of view j shifted and scaled onto that of view i."""
    mean = points.mean(-2, keepdim=True)
    centred = points - mean
    product = torch.einsum("btinc,btjnc->btij", centred, centred)
    scale = product / product.diagonal(dim1=-2, dim2=-1).unsqueeze(-2).clamp_min(1e-9)
    return scale[..., None, None] * centred.unsqueeze(2) + mean.unsqueeze(3)


def mean_hands(pairs: Float[Tensor, "B T V V N 3"], view_mask: Bool[Tensor, "B T V"]) -> Float[Tensor, "B T V N 3"]:
    """Mean over the views j that see the hand, aligned with each view i."""
    weight = view_mask.to(pairs)[:, :, None, :, None, None]
    return (pairs * weight).sum(3) / weight.sum(3).clamp_min(1.0)


def _l1(error: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(error)
    return (error.abs() * weight).sum() / weight.sum().clamp_min(1e-6)


def hamuco_losses(prediction: HamucoPrediction, inputs: Inputs, targets: Targets, step: int) -> dict[str, Tensor]:
    """All terms, each with the published weight.

    Consistency pulls the other views towards each view in even steps, and each view towards the mean in odd ones.
    """
    single, cross = prediction.single, prediction.cross
    mask = inputs.view_mask.to(single.joints)
    points = in_world(cross.points, prediction.crop_from_world)
    pairs = aligned_pairs(points)
    mean = mean_hands(pairs, inputs.view_mask)
    if step % 2:
        consistency = _l1(points - mean.detach(), mask[..., None, None])
    else:
        both = mask.unsqueeze(2) * mask.unsqueeze(3)
        consistency = _l1(pairs - points.detach().unsqueeze(3), both[..., None, None])
    apart = in_world(single.points, prediction.crop_from_world) - mean.detach()
    weight = targets.weight.unsqueeze(-1)
    rest = single.sixd.new_tensor(IDENTITY_6D)

    def deviation(hands: ViewHands) -> Tensor:
        return (hands.sixd[..., 1:, :] - rest).abs().mean()

    return {
        "uv": _l1((single.uv_crop - targets.uv_crop) * weight, mask[..., None, None]),
        "uv_cross": _l1((cross.uv_crop - targets.uv_crop) * weight, mask[..., None, None]),
        "consistency": consistency,
        "distillation": _l1(apart, mask[..., None, None]),
        "shape_prior": SHAPE_PRIOR * single.shape.abs().mean(),
        "pose_prior": POSE_PRIOR * (deviation(single) + deviation(cross)),
    }


@dataclass(frozen=True)
class HamucoLearner:
    """The rival as the training loop takes it: on the same captures and labels as UST-Hand."""

    checkpoint: Path | None = None
    """A folder with weights of all its parts to start from, its own pretraining's."""

    def build(self, preset: Preset) -> Hamuco:
        """The network as a training starts with it."""
        model = Hamuco(preset.model, load_hand())
        if self.checkpoint is not None:
            model.load_state_dict(load_state(self.checkpoint))
        elif preset.train.start != "scratch":  # of the shipped weights, only the trunk has a place here
            model.trunk.load_state_dict(trunk_weights(preset))
        return model

    def terms(self, model: nn.Module, batch: Batch, preset: Preset) -> dict[str, Tensor]:
        """Weighted loss terms."""
        torch.manual_seed(int(batch.rng.integers(2**62)))  # of the dropout
        return hamuco_losses(model(batch.inputs), batch.inputs, batch.targets, batch.step)

    def uv_crop(self, model: nn.Module, inputs: Inputs) -> Float[Tensor, "B T V J 2"]:
        """The cross-view network's 2D joints, crop coordinates."""
        return model(inputs).cross.uv_crop


# ---- use -----------------------------------------------------------------------------------------------------------


def place(prediction: HamucoPrediction, inputs: Inputs) -> tuple[Float[Tensor, "B T J 3"], Float[Tensor, "B T N 3"]]:
    """Joints and vertices in the world, metres.

    The views' mean hand has neither scale nor position. Both come from the calibration: the cross-view network's own 2D
    joints are triangulated, and the hand is scaled and shifted onto them by least squares.
    """
    points = in_world(prediction.cross.points, prediction.crop_from_world)
    # The mean is the same hand, aligned with each view: take it as the first view that sees the hand has it.
    first = inputs.view_mask.to(torch.uint8).argmax(-1)
    hands = mean_hands(aligned_pairs(points), inputs.view_mask)
    hand = torch.take_along_dim(hands, first[..., None, None, None], 2).squeeze(2)
    uv_px = affine_apply(affine_inverse(inputs.crop_from_px), prediction.cross.uv_crop)
    weight = inputs.view_mask.to(uv_px).unsqueeze(-1).expand(uv_px.shape[:-1])
    target = triangulate(inputs.cameras, uv_px, weight)
    joints = hand[..., -N_JOINTS:, :]
    middle, goal = joints.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = joints - middle, target - goal
    scale = ((a * b).sum((-2, -1)) / (a * a).sum((-2, -1)).clamp_min(1e-9)).clamp_min(1e-6)
    placed = scale[..., None, None] * (hand - middle) + goal
    return placed[..., -N_JOINTS:, :], placed[..., :-N_JOINTS, :]
