"""The check during a training: labels that no loss has seen, against the averaged network."""

from __future__ import annotations

import numpy as np
import torch

from usthand.data.batches import make_batch
from usthand.geometry.affine import affine_apply, affine_inverse
from usthand.training.step import TrainingState

CHECK_FRAMES = 24  # frames of a footage in the check: a second or two ...
CHECK_FOOTAGES = 8  # ... for a few of them


@torch.no_grad()
def held_out_error(state: TrainingState) -> float:
    """Median distance, px of the full image, of the averaged network's 2D joints from the held-out labels.

    Infinite if there is no such label.
    """
    errors = []
    checked = [(f, c) for f, c in zip(state.footages, state.checks, strict=True) if c.mask.any()]
    for footage, check in _spread(checked, CHECK_FOOTAGES):
        frames = np.array(_spread(np.flatnonzero(check.mask.any((1, 2))).tolist(), CHECK_FRAMES))
        clips = [(footage, frames[i : i + 1]) for i in range(len(frames))]
        inputs, _ = make_batch(clips, state.preset.model.image_size, state.preset.crop, None, state.device)
        uv_crop = state.learner.uv_crop(state.average, inputs)
        uv_px = affine_apply(affine_inverse(inputs.crop_from_px), uv_crop)[:, 0].cpu().numpy()
        mask = check.mask[frames] & footage.crops.view_mask[frames][..., None]
        errors.append(np.linalg.norm(uv_px - check.uv_px[frames], axis=-1)[mask])
    merged = np.concatenate(errors) if errors else np.zeros(0)
    return float(np.median(merged)) if len(merged) else float("inf")


def _spread(items: list, count: int) -> list:
    """At most `count` of the items, evenly spaced from first to last."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]
