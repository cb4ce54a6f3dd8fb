"""Stage 4: a conditional normalising flow (RealNVP) over 2D joint positions.

x = centre + shift(F) + exp(log_scale(F)) * g_K(...g_1(z; F)), z ~ N(0, I): affine couplings g_k whose scales depend on
the image, so the entropy can (additive couplings would fix it). Stable by construction: bounded log-scales
(a tanh(.)), zero-initialised last layers, coordinates in [-1, 1], float32.

References: Dinh et al., "Density estimation using Real NVP", ICLR 2017; Li et al. (RLE), ICCV 2021; Kolotouros et al.
(ProHMR), ICCV 2021.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

START_STD = 0.1  # crop coordinates: a twentieth of the crop, about the size of a detector's error
LOG_SCALE_RANGE = 3.0  # the first affine layer's scale stays within exp(+-3) of START_STD
COUPLING_RANGE = 1.0  # a coupling stretches by exp(+-1) at most


class Coupling(nn.Module):
    """Affine coupling: the dimensions outside `mask` are scaled and shifted by functions of those inside and of F."""

    mask: Tensor

    def __init__(self, mask: Float[Tensor, "d"], context: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        dims = len(mask)
        self.from_x = nn.Linear(dims, hidden, bias=False)
        self.from_context = nn.Linear(context, hidden)
        self.body = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.out = nn.Linear(hidden, 2 * dims)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def parameters_at(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scale and shift for the free dimensions, zero for the others."""
        hidden = self.body(self.from_x(x * self.mask) + self.from_context(context))
        log_scale, shift = self.out(hidden).chunk(2, -1)
        free = 1 - self.mask
        return free * COUPLING_RANGE * torch.tanh(log_scale), free * shift

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map z to x, with log |det dx/dz|."""
        log_scale, shift = self.parameters_at(z, context)
        return z * log_scale.exp() + shift, log_scale.sum(-1)

    def inverse(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map x to z, with log |det dz/dx|."""
        log_scale, shift = self.parameters_at(x, context)
        return (x - shift) * (-log_scale).exp(), -log_scale.sum(-1)


class ConditionalFlow(nn.Module):
    """A density over `dims` numbers given features F; `dims` is 2 (per joint) or 42 (whole hand)."""

    def __init__(self, dims: int, context: int, couplings: int = 6, hidden: int = 128) -> None:
        super().__init__()
        self.dims = dims
        self.affine = nn.Linear(context, 2 * dims)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)
        index = torch.arange(dims)
        # Halves by coordinate (x against y) and, for whole hands, by joint in turn, so that all dimensions meet.
        patterns = [index % 2 == 0, index % 2 == 1] + ([index // 2 % 2 == 0, index // 2 % 2 == 1] if dims > 2 else [])
        self.couplings = nn.ModuleList(
            Coupling(patterns[k % len(patterns)].float(), context, hidden) for k in range(couplings)
        )

    def _affine(self, context: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.affine(context).chunk(2, -1)
        return shift, math.log(START_STD) + LOG_SCALE_RANGE * torch.tanh(log_scale / LOG_SCALE_RANGE)

    def transform(
        self, z: Float[Tensor, "*b d"], context: Float[Tensor, "*#b D"], centre: Float[Tensor, "*#b d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*#b"]]:
        """Map z to x, with log |det dx/dz|. Broadcasts over leading axes."""
        shift, log_scale = self._affine(context)
        log_det = log_scale.sum(-1)
        for coupling in self.couplings:
            z, term = coupling(z, context)
            log_det = log_det + term
        return centre + shift + z * log_scale.exp(), log_det

    def inverse(
        self, x: Float[Tensor, "*b d"], context: Float[Tensor, "*#b D"], centre: Float[Tensor, "*#b d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*#b"]]:
        """Map x to z, with log |det dz/dx|."""
        shift, log_scale = self._affine(context)
        z = (x - centre - shift) * (-log_scale).exp()
        log_det = -log_scale.sum(-1)
        for coupling in reversed(self.couplings):
            assert isinstance(coupling, Coupling)
            z, term = coupling.inverse(z, context)
            log_det = log_det + term
        return z, log_det

    def log_prob(
        self, x: Float[Tensor, "*b d"], context: Float[Tensor, "*#b D"], centre: Float[Tensor, "*#b d"]
    ) -> Float[Tensor, "*b"]:
        """Log-density log p(x | F), nats, crop coordinates."""
        z, log_det = self.inverse(x, context, centre)
        return -0.5 * (z * z).sum(-1) - 0.5 * self.dims * math.log(2 * math.pi) + log_det

    def sample(
        self, context: Float[Tensor, "*b D"], centre: Float[Tensor, "*b d"], noise: Float[Tensor, "*b K d"]
    ) -> Float[Tensor, "*b K d"]:
        """Hypotheses for given prior noise (its K axis is the last but one); reparametrised."""
        return self.transform(noise, context.unsqueeze(-2), centre.unsqueeze(-2))[0]
