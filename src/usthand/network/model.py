"""The whole network: images and cameras in, distributions, points and a hand out. No loss, no label, no truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from usthand.geometry.cameras import Cameras
from usthand.hand.model import HandModel
from usthand.hand.skeleton import N_JOINTS
from usthand.network.backbone import Backbone, Features
from usthand.network.config import ModelConfig
from usthand.network.flow import ConditionalFlow
from usthand.network.hand_head import HandHead, HandParameters
from usthand.network.heatmaps import Gate
from usthand.network.point_cloud import Cloud, enough_views, lift
from usthand.network.point_transformer import PointTransformer
from usthand.network.projection_fusion import ViewEvidence
from usthand.network.views import ViewEstimates, Views

STRIDE = 32  # of the backbone's deepest map


class Inputs(NamedTuple):
    """A batch of clips: crops, where they come from and where in them to look.

    No field could hold truth. From the labels comes only the place at which their fit expects the hand.
    """

    images: Float[Tensor, "B T V 3 S S"]
    """Normalised RGB crops."""
    crop_from_px: Float[Tensor, "B T V 2 3"]
    """Affine maps from the full image's pixels to crop coordinates."""
    view_mask: Bool[Tensor, "B T V"]
    cameras: Cameras
    """Leading axes B, T."""
    gate: Gate | None = None
    """Where to look for each joint; None for everywhere."""


class Prediction(NamedTuple):
    """Everything that the losses and the reconstruction use."""

    views: ViewEstimates
    hypotheses: Float[Tensor, "B T V J K+1 2"]
    """Crop coordinates; the first is the key one."""
    cloud: Cloud
    points: list[Tensor]
    """Refined query points (B T J 3) after each block, world."""
    hand: HandParameters


class UstHand(nn.Module):
    """UST-Hand (Han et al., CVPR 2026), for any number of views and any of them missing."""

    def __init__(self, config: ModelConfig, hand: HandModel) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.width, config.map_channels)
        self.views = Views(config, self.backbone.trunk.channels[-1], config.image_size // STRIDE)
        dims = 0 if config.flow == "none" else self.prior_dims
        self.to_hand_context = nn.Linear(N_JOINTS * config.graph_width, config.graph_width) if dims > 2 else None
        self.flow = ConditionalFlow(dims, config.graph_width, config.couplings, config.flow_hidden) if dims else None
        self.points = PointTransformer(config)
        self.hand_head = HandHead(hand, config.point_width, 4 * config.point_width)

    def flow_inputs(self, views: ViewEstimates) -> tuple[Tensor, Tensor]:
        """The flow's context (B T V J D) and centre (B T V J 2); without J, and with 42 for 2, for whole hands."""
        # Without gradient into the soft-argmax: it has a loss of its own, and the flow's shift corrects it.
        context, centre = views.joint_features, views.uv_crop.detach()
        if self.to_hand_context is None:
            return context, centre
        return self.to_hand_context(context.flatten(-2)), centre.flatten(-2)

    def hypothesise(
        self, views: ViewEstimates, noise: Float[Tensor, "*b K dims"]
    ) -> Float[Tensor, "B T V J samples 2"]:
        """Key hypothesis (z = 0), then one for each sample of the prior (`noise_shape`); crop coordinates."""
        if self.flow is None:
            return views.uv_crop.unsqueeze(-2).expand(*views.uv_crop.shape[:-1], 2, 2)
        context, centre = self.flow_inputs(views)
        noise = torch.cat((torch.zeros_like(noise[..., :1, :]), noise), -2)
        samples = self.flow.sample(context, centre, noise)
        if self.config.flow == "hand":
            return samples.unflatten(-1, (N_JOINTS, 2)).transpose(-3, -2)
        return samples

    @property
    def prior_dims(self) -> int:
        """Dimensions of the flow's prior; those of a joint where there is no flow."""
        return 2 * N_JOINTS if self.config.flow == "hand" else 2

    def noise_shape(self, inputs: Inputs, count: int) -> tuple[int, ...]:
        """The shape of the prior's samples for a batch."""
        joints = () if self.config.flow == "hand" else (N_JOINTS,)
        return (*inputs.view_mask.shape, *joints, count, self.prior_dims)

    def see(self, inputs: Inputs) -> tuple[Features, ViewEstimates]:
        """Stages 1 to 3: feature maps and 2D estimates, without going to 3D."""
        features = self.backbone(inputs.images.flatten(0, 2))
        features = Features(*(f.float() for f in features))
        return features, self.views(features, inputs.view_mask, inputs.gate)

    def forward(
        self, inputs: Inputs, noise: Float[Tensor, "*b K dims"], anchor_keep: Bool[Tensor, "K"] | None = None
    ) -> Prediction:
        """Predict from a batch.

        Args:
            inputs: Crops and cameras.
            noise: Samples of the prior, shaped as `noise_shape` says (given, so that results are reproducible).
            anchor_keep: The hypotheses that the anchor cloud keeps, on the CPU; all by default.
        """
        features, views = self.see(inputs)
        hypotheses = self.hypothesise(views, noise)
        cloud = lift(inputs.cameras, inputs.crop_from_px, hypotheses, views.confidence)
        evidence = ViewEvidence(
            features, views.uv_crop, views.confidence, inputs.view_mask, inputs.cameras, inputs.crop_from_px
        )
        if anchor_keep is None:
            anchor_keep = torch.ones(cloud.anchors.shape[-2], dtype=torch.bool)
        points, x, _ = self.points(cloud, views.joint_features, evidence, anchor_keep)
        hand = self.hand_head(points[-1], x, enough_views(inputs.view_mask))
        return Prediction(views, hypotheses, cloud, points, hand)
