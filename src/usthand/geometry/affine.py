"""2D affine maps, as between an image and a crop of it; differentiable and batched."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def affine_apply(matrix: Float[Tensor, "*b 2 3"], points: Float[Tensor, "*b N 2"]) -> Float[Tensor, "*b N 2"]:
    """2D affine maps, one for each batch entry."""
    return points @ matrix[..., :2].transpose(-1, -2) + matrix[..., 2].unsqueeze(-2)


def affine_inverse(matrix: Float[Tensor, "*b 2 3"]) -> Float[Tensor, "*b 2 3"]:
    """The affine map that undoes `matrix`."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    inverse = torch.stack((torch.stack((d, -b), -1), torch.stack((-c, a), -1)), -2) / (a * d - b * c)[..., None, None]
    return torch.cat((inverse, -inverse @ matrix[..., 2:]), -1)
