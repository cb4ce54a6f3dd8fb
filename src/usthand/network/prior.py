"""Points that stand for the flow's prior N(0, I): fixed ones, so a result depends on images and weights alone.

All frames, views and joints share them, so that equal images give equal estimates. An error of the points as a sample
would therefore never average out: with 64 plain draws, the 90 % regions of one capture held 85 to 95 % depending on the
draw (docs/development/sampling.md). So their first two moments are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NODES = 8  # of the Gauss-Hermite rule along each axis
LARGE_RULE = 256  # points where a product rule would be too large
LARGEST_PRODUCT = 2  # dimensions


class Rule(NamedTuple):
    """Weighted points: the sum of weight * f(point) stands for the mean of f under N(0, I)."""

    points: Float[Tensor, "K d"]
    weights: Float[Tensor, "K"]
    """Their sum is 1."""


def prior_samples(count: int, dims: int) -> Float[Tensor, "K d"]:
    """Points of equal weight whose mean is 0 and whose variances are 1; their covariance is I if there are enough.

    They are a fixed draw in antithetic pairs z and -z, whitened by the inverse Cholesky factor of its covariance. Fewer
    than `dims` pairs cannot be whitened, and only have each coordinate's variance set. An odd count has the origin too.
    """
    pairs = count // 2
    half = torch.randn(pairs, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moment = 2 * half.T @ half / max(count, 1)
    if pairs >= dims:
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(moment), half.T, upper=False).T
    else:
        half = half / moment.diagonal().sqrt()
    return torch.cat((half, -half, half.new_zeros(count % 2, dims)))


def prior_rule(dims: int) -> Rule:
    """A rule for means under the prior, such as the flow's second moments.

    For a joint's flow the product of Gauss-Hermite rules, exact for polynomials of degree 15. For a whole hand's 42
    dimensions whitened samples, exact for degree 3.
    """
    if dims > LARGEST_PRODUCT:
        return Rule(prior_samples(LARGE_RULE, dims), torch.full((LARGE_RULE,), 1 / LARGE_RULE, dtype=torch.float64))
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(NODES))
    grids = torch.meshgrid(*[nodes] * dims, indexing="ij")
    products = torch.stack(torch.meshgrid(*[weights / weights.sum()] * dims, indexing="ij")).prod(0)
    return Rule(torch.stack(grids, -1).reshape(-1, dims), products.flatten())
