"""Finger poses by MANO's principal components, which data sets state and the package itself does not use."""

from __future__ import annotations

import torch
from torch import Tensor

from usthand.hand.model import HandModel


def rotations_from_pca(hand: HandModel, root: Tensor, coefficients: Tensor, flat_hand_mean: bool) -> Tensor:
    """Rotations (*b, 16, 3, 3) from the root's axis-angle (*b, 3) and the fingers' first components (*b, n)."""
    fingers = coefficients @ hand.hands_components[: coefficients.shape[-1]]
    return hand.rotations(torch.cat((root.expand(*fingers.shape[:-1], 3), fingers), -1), flat_hand_mean)
