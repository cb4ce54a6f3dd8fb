"""Running a trained network over a footage: 2D distributions per view, frame and joint, and refined 3D points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from usthand.common.progress import Progress, silent
from usthand.data.batches import make_batch
from usthand.data.crops import CropConfig
from usthand.data.footage import Footage
from usthand.fit.observations import Observations
from usthand.geometry.affine import affine_apply, affine_inverse
from usthand.hand.result import BY_LABELS, INTERPOLATED
from usthand.network.model import Inputs, Prediction, UstHand
from usthand.network.prior import Rule, prior_rule, prior_samples

CHUNK = 12  # frames that go through the network at once
HALF_CONFIDENCE_CROP = 0.05  # crop coordinates: samples that spread this far are worth a confidence of one half
PULL = 0.2  # part of an error of the expected place that the estimates follow (docs/development/bridging.md)
STD_FLOOR_CROP = 0.006  # crop coordinates: a third of a pixel in a 96 px crop; nothing is localised better


@dataclass(frozen=True)
class Estimates:
    """A network's output for every frame, in the rig's world and image pixels (mirrored for a left hand)."""

    uv_px: Float[np.ndarray, "T V J 2"]
    cov_px2: Float[np.ndarray, "T V J 2 2"]
    confidence: Float[np.ndarray, "T V J"]
    """Of `uv_px`, in (0, 1]; 0 in a view that does not see the hand. From the spread of the flow's samples, which uses
    all views and ranks the errors better than the heatmap does (docs/development/pretraining.md)."""
    heatmap_confidence: Float[np.ndarray, "T V J"]
    """The published one, as the network uses it: maximum of the view's unnormalised heatmap; 0 as above."""
    points_world_m: Float[np.ndarray, "T J 3"]
    """Refined points of the last block."""
    angles: Float[np.ndarray, "T 15 3"]
    root: Float[np.ndarray, "T 3 3"]
    shape: Float[np.ndarray, "10"]
    translation_m: Float[np.ndarray, "T 3"]
    valid: Bool[np.ndarray, "T"]
    """Frames that two views or more see."""
    source: Int[np.ndarray, "T"]
    """What places the hand in a frame: `BY_LABELS` of two views or more, `BY_NETWORK` where the detector missed it and
    two views of the network see it (`usthand.reconstruction.bridging`), or `INTERPOLATED` in frames not valid."""


@torch.no_grad()
def estimate(model: UstHand, footage: Footage, crop: CropConfig, progress: Progress = silent) -> Estimates:
    """Run the network over a footage, in chunks that overlap by its reach in time; `progress` counts frames.

    Nothing is random: the flow's prior is represented by fixed points (`usthand.network.prior`).
    """
    n_frames, device = len(footage.frames), next(model.parameters()).device
    reach = model.config.blocks * (model.config.window // 2)
    dims = model.prior_dims
    if model.flow is None:
        anchors, rule = prior_samples(1, dims), Rule(torch.zeros(1, dims), torch.ones(1))
    else:
        anchors, rule = prior_samples(model.config.hypotheses, dims), prior_rule(dims)
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, n_frames, CHUNK):
        low, high = max(start - reach, 0), min(start + CHUNK + reach, n_frames)
        inputs, _ = make_batch([(footage, np.arange(low, high))], model.config.image_size, crop, None, device)
        prediction = model(inputs, _shared(model, inputs, anchors))
        samples = model.hypothesise(prediction.views, _shared(model, inputs, rule.points))
        inside = slice(start - low, min(start + CHUNK, n_frames) - low)
        parts.append(_chunk(prediction, samples, rule.weights, inputs.crop_from_px, inside))
        progress(min(start + CHUNK, n_frames), n_frames)
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    # An error of the place at which the gate stands is none that the flow could know of.
    pulled = (PULL * footage.crops.expected_std_px) ** 2
    merged["cov_px2"] += pulled[..., None, None, None] * np.eye(2)
    valid = footage.crops.view_mask.sum(1) >= 2
    shapes = merged.pop("shape")
    shape = shapes[valid].mean(0) if valid.any() else shapes.mean(0)
    return Estimates(**merged, shape=shape, valid=valid, source=np.where(valid, BY_LABELS, INTERPOLATED))


def _shared(model: UstHand, inputs: Inputs, points: Float[Tensor, "K d"]) -> Float[Tensor, "*b K d"]:
    """The same points of the prior in every frame and view, so that equal images give equal estimates."""
    return points.to(inputs.images).expand(model.noise_shape(inputs, len(points)))


def _second_moment(samples: Float[Tensor, "*b samples 2"], weights: Float[Tensor, "K"]) -> Float[Tensor, "*b 2 2"]:
    """Of the flow about its key sample, the first one, which is the estimate; crop coordinates."""
    offsets = samples[..., 1:, :] - samples[..., :1, :]
    weighted = offsets * weights.to(offsets).unsqueeze(-1)
    floor = STD_FLOOR_CROP**2 * torch.eye(2, dtype=offsets.dtype, device=offsets.device)
    return weighted.transpose(-1, -2) @ offsets + floor


def _chunk(
    prediction: Prediction,
    samples: Float[Tensor, "B T V J samples 2"],
    weights: Float[Tensor, "K"],
    crop_from_px: Tensor,
    inside: slice,
) -> dict[str, np.ndarray]:
    px_from_crop = affine_inverse(crop_from_px)
    key, covariance = samples[..., 0, :], _second_moment(samples, weights)
    linear = px_from_crop[..., None, :, :2]
    frames = prediction.hand.root.shape[1]
    heatmap = prediction.views.confidence
    spread = covariance.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
    confidence = heatmap if len(weights) == 1 else (heatmap > 0) / (1 + spread / HALF_CONFIDENCE_CROP)
    values = {
        "uv_px": affine_apply(px_from_crop, key),
        "cov_px2": linear @ covariance @ linear.transpose(-1, -2),
        "confidence": confidence,
        "heatmap_confidence": heatmap,
        "points_world_m": prediction.points[-1],
        "angles": prediction.hand.angles,
        "root": prediction.hand.root,
        "shape": prediction.hand.shape.unsqueeze(1).expand(-1, frames, -1),
        "translation_m": prediction.hand.translation_m,
    }
    return {name: value[0, inside].double().cpu().numpy() for name, value in values.items()}


def observations(estimates: Estimates) -> Observations:
    """The 2D distributions as the sequence fit takes them."""
    precision = np.linalg.inv(estimates.cov_px2) * (estimates.confidence > 0)[..., None, None]
    uv = np.where(estimates.confidence[..., None] > 0, estimates.uv_px, 0.0)
    return Observations(uv[:, None], precision[:, None])
