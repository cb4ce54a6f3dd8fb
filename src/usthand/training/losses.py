"""The losses: pure functions of a prediction and 2D labels. No argument could carry truth.

L = hmap * L_hmap + hm2d * L_hm2d + nll * L_nll + proj2d * L_proj2d + weak priors on the hand model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from usthand.data.batches import Targets
from usthand.network.hand_head import pose_hand
from usthand.network.heatmaps import cell_centres
from usthand.network.model import Inputs, Prediction, UstHand
from usthand.network.point_cloud import enough_views, palm_frame, project_to_crops
from usthand.network.views import ViewEstimates

PUBLISHED_HEATMAP = 64  # px: the heatmap side and sigma that the published weight of 0.001 belongs to
PUBLISHED_SIGMA = 2.0
ROBUST_SCALE = 0.04  # crop coordinates, 2 % of the crop: beyond it a label's pull no longer grows


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; those of the first four are the published ones."""

    hmap: float = 0.001
    hm2d: float = 10.0
    nll: float = 0.1
    proj2d: float = 10.0
    cross_entropy: float = 0.5
    """Normalised heatmaps against the labels' Gaussians, nats. From random weights it finds the joints several times
    sooner than the published terms do (docs/development/training.md); 0 for the paper's loss."""
    hand: float = 1.0
    """Hand-model joints against the refined points (palm sizes): both come from the network, no label needed."""
    pose_prior: float = 0.01
    """Pull of the finger angles to the middle of their ranges: 2D joints alone leave twist free."""
    shape_prior: float = 0.01
    """Pull to the mean shape, which 2D joints leave partly free."""
    label_noise: float = 0.01
    """Noise added to the labels for the flow, crop coordinates, so that its density cannot collapse on a label."""
    outliers: float = 0.05
    """Share of labels that the flow may take as uniform over the crop, which bounds the pull of one wild label."""


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)


def robust(error: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
    """Charbonnier's distance: quadratic within `ROBUST_SCALE`, linear beyond."""
    return (error.square().sum(-1) + ROBUST_SCALE**2).sqrt() - ROBUST_SCALE


def gaussians(uv_crop: Float[Tensor, "*b 2"], side: int) -> Float[Tensor, "*b h h"]:
    """Heatmaps with a peak of 1 at the labels, as wide as the published ones relative to the crop."""
    axis = cell_centres(side, uv_crop.device, uv_crop.dtype)
    sigma = 2 * PUBLISHED_SIGMA / PUBLISHED_HEATMAP
    gx, gy = (torch.exp(-0.5 * ((axis - c.unsqueeze(-1)) / sigma) ** 2) for c in uv_crop.unbind(-1))
    return gy.unsqueeze(-1) * gx.unsqueeze(-2)


def heatmap_loss(heatmaps: Float[Tensor, "B T V J h h"], targets: Targets) -> Tensor:
    """Squared error to Gaussians around the detector's labels.

    It is summed over pixels and joints as published, and rescaled to the published heatmap's number of pixels. The best
    unnormalised heatmap is the mean of these Gaussians: the more the labels of such a joint scatter, the lower is its
    maximum, the confidence. So the detector's own labels are its targets, not their consensus.
    """
    side = heatmaps.shape[-1]
    present = (targets.detected_weight > 0).to(heatmaps.dtype)
    error = (heatmaps - gaussians(targets.detected_uv_crop, side)).square().sum((-1, -2))
    error = error * (PUBLISHED_HEATMAP / side) ** 2
    images = present.amax(-1).sum().clamp_min(1.0)
    return (error * present).sum() / images


def cross_entropy_loss(logits: Float[Tensor, "B T V J h h"], targets: Targets) -> Tensor:
    """Kullback-Leibler divergence of the softmax-normalised heatmaps from the labels' normalised Gaussians, nats."""
    goal = gaussians(targets.uv_crop, logits.shape[-1]).flatten(-2)
    goal = goal / goal.sum(-1, keepdim=True).clamp_min(1e-6)
    log_p = logits.flatten(-2).log_softmax(-1)
    divergence = (torch.xlogy(goal, goal) - goal * log_p).sum(-1)
    return _mean(divergence, targets.weight)


def flow_loss(
    model: UstHand, views: ViewEstimates, targets: Targets, config: LossConfig, noise: Float[Tensor, "B T V J 2"]
) -> Tensor:
    """Negative log-likelihood of the labels (nats per joint), with a uniform outlier component."""
    assert model.flow is not None
    context, centre = model.flow_inputs(views)
    x = targets.uv_crop + config.label_noise * noise
    if model.config.flow == "hand":
        # A whole-hand density needs whole hands: views with every joint labelled.
        log_p = model.flow.log_prob(x.flatten(-2), context, centre)
        whole = (targets.weight > 0).all(-1).to(log_p.dtype)
        return _mean(-log_p / x.shape[-2], whole)
    log_p = model.flow.log_prob(x, context, centre)
    uniform = torch.full_like(log_p, config.outliers / 4.0).log()  # a density of 1/4 over [-1, 1]^2
    mixture = torch.logaddexp(log_p + torch.log1p(torch.tensor(-config.outliers)), uniform)
    return _mean(-mixture, (targets.weight > 0).to(log_p.dtype))


def projection_loss(
    points: Float[Tensor, "B T J 3"], inputs: Inputs, targets: Targets, weight: Float[Tensor, "B T V J"]
) -> Tensor:
    """Projected points against the labels, weighted by confidence."""
    uv = project_to_crops(inputs.cameras, inputs.crop_from_px, points)
    return _mean(robust(uv - targets.uv_crop), weight)


def view_losses(
    model: UstHand, views: ViewEstimates, targets: Targets, config: LossConfig, noise: Float[Tensor, "B T V J 2"]
) -> dict[str, Tensor]:
    """The 2D terms, weighted. `noise` is standard normal, shaped as the labels."""
    terms = {
        "hmap": config.hmap * heatmap_loss(views.heatmaps, targets),
        "hm2d": config.hm2d * _mean(robust(views.uv_crop - targets.uv_crop), targets.weight),
    }
    if config.cross_entropy:
        terms["ce"] = config.cross_entropy * cross_entropy_loss(views.logits, targets)
    if model.flow is not None:
        terms["nll"] = config.nll * flow_loss(model, views, targets, config, noise)
    return terms


def point_losses(
    model: UstHand, prediction: Prediction, inputs: Inputs, targets: Targets, config: LossConfig
) -> dict[str, Tensor]:
    """The terms of refined points and hand model, weighted."""
    lifted = enough_views(inputs.view_mask)
    # Without gradient, or the network could lower its confidence to get rid of an error.
    weight = prediction.views.confidence.detach() * targets.weight * lifted[..., None, None]
    hand = pose_hand(model.hand_head.hand, model.hand_head.axes, prediction.hand)
    blocks = [projection_loss(points, inputs, targets, weight) for points in prediction.points]
    frame = palm_frame(prediction.points[-1])
    target = prediction.points[-1].detach()
    apart = (hand.joints - target).square().sum(-1).add(1e-8).sqrt() / frame.size.unsqueeze(-1)
    middle = (prediction.hand.angles - model.hand_head.middle) / model.hand_head.reach.clamp_min(0.05)
    return {
        "proj2d": config.proj2d * torch.stack(blocks).mean(),
        "hand2d": config.proj2d * projection_loss(hand.joints, inputs, targets, weight),
        "hand": config.hand * _mean(apart.clamp_max(3.0), lifted.unsqueeze(-1).to(apart).expand_as(apart)),
        "prior": config.pose_prior * middle.square().mean()
        + config.shape_prior * prediction.hand.shape.square().mean(),
    }


def total(terms: dict[str, Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(list(terms.values())).sum()
