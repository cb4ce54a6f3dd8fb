"""How well rays place a point: the information that views give about it, and the direction in which they give least.

A view says nothing of a point along its ray. Several views do only as far as their rays cross at an angle: two views of
transverse standard deviation s whose rays meet at the angle b leave s / (sqrt(2) sin(b / 2)) along their mean. Views
from one place, however many, and views from opposite sides on one line leave that direction open.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_INFORMATION = 1e-12
"""Less counts as this much: directions that nothing bounds have a standard deviation of 10^6 units of length."""


def ray_information(rays: Float[Tensor, "*b V 3"], weight: Float[Tensor, "*b V"]) -> Float[Tensor, "*b 3 3"]:
    """The information sum_v w (I - r r') that unit rays give about the point where they meet.

    Args:
        rays: Unit vectors, world.
        weight: One over the variance across each ray; zero where there is none.
    """
    eye = torch.eye(3, dtype=rays.dtype, device=rays.device)
    across = eye - rays.unsqueeze(-1) * rays.unsqueeze(-2)
    return (weight[..., None, None] * across).sum(-3)


def worst_std(information: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Standard deviation along the least certain direction, in the unit of length; always finite."""
    return torch.linalg.eigvalsh(information)[..., 0].clamp_min(LEAST_INFORMATION).rsqrt()
