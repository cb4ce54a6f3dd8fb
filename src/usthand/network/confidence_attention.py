"""Stage 3: confidence-aware self-attention (CASA) across all views and joints of a frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class ConfidenceAttention(nn.Module):
    """CASA: self-attention over the tokens of all views and joints; Q, K and V all see [feature; confidence]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width + 1, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, x: Float[Tensor, "n tokens D"], confidence: Float[Tensor, "n tokens"], mask: Bool[Tensor, "n tokens"]
    ) -> Float[Tensor, "n tokens D"]:
        """One residual layer; no token attends to a masked one."""
        graph = torch.cat((self.norm(x), confidence.unsqueeze(-1)), -1)
        q, k, v = self.qkv(graph).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # A frame without any view would have an empty softmax: it attends to its masked tokens and is ignored later.
        allowed = mask | ~mask.any(-1, keepdim=True)
        fused = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None, None, :])
        x = x + self.out(fused.transpose(1, 2).flatten(-2))
        return x + self.feed(x)
