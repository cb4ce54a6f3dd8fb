"""Stage 7: the spatiotemporal point transformer (STPT), which refines the query cloud.

Positions enter the network only in the palm's own frame, so a rigid motion of the rig moves the output likewise.
Every frame attends to the frames within half a window of it; at the ends of a sequence to those that exist. (The paper
cuts windows and replicates the ends; the reach is the same, and here each frame's features are computed once.)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from usthand.hand.skeleton import N_JOINTS
from usthand.network.config import ModelConfig
from usthand.network.point_cloud import Cloud, PalmFrame, palm_frame
from usthand.network.projection_fusion import ProjectionFusion, ViewEvidence, mlp

STEP_SIZE = 0.2  # palm sizes: how far one block moves a point for an output of one


class RelativeAttention(nn.Module):
    """Attention from queries to given neighbours, with a code theta(C_i - C_j) added to keys and values."""

    def __init__(self, width: int, heads: int, code_inputs: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.theta = mlp(code_inputs, width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "*b N D"],
        neighbours: Float[Tensor, "*b #N M D"],
        relative: Float[Tensor, "*b N M c"],
        mask: Bool[Tensor, "*#b N M"] | None = None,
    ) -> Float[Tensor, "*b N D"]:
        """Attend from `x` to `neighbours`, whose third last axis is 1 where all queries share them."""
        code = self.theta(relative)
        q = self.q(x).unflatten(-1, (self.heads, -1))
        k = (self.k(neighbours) + code).unflatten(-1, (self.heads, -1))
        v = (self.v(neighbours) + code).unflatten(-1, (self.heads, -1))
        logits = torch.einsum("...nhd,...nmhd->...nhm", q, k) / math.sqrt(q.shape[-1])
        if mask is not None:
            logits = logits.masked_fill(~mask.unsqueeze(-2), -1e4)
        return self.out(torch.einsum("...nhm,...nmhd->...nhd", logits.softmax(-1), v).flatten(-2))


class StptBlock(nn.Module):
    """Spatial, temporal and cross-set attention, then a residual coordinate update."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, parts = config.point_width, sorted(set(config.attention))
        self.neighbours, self.half_window = config.neighbours, config.window // 2
        self.norms = nn.ModuleDict({part: nn.LayerNorm(width) for part in parts})
        self.attention = nn.ModuleDict(
            {part: RelativeAttention(width, config.heads, 3 if part != "temporal" else 4) for part in parts}
        )
        self.frame_codes = nn.Parameter(torch.zeros(config.window, width)) if "temporal" in parts else None
        self.feed = nn.Sequential(nn.LayerNorm(width), mlp(width, 2 * width, width))
        step = mlp(width, width, 3)
        for parameter in step[-1].parameters():
            nn.init.zeros_(parameter)
        self.move = nn.Sequential(nn.LayerNorm(width), step)

    def forward(
        self,
        x: Float[Tensor, "B T J D"],
        query: Float[Tensor, "B T J 3"],
        anchors: Float[Tensor, "B T N 3"],
        anchor_features: Float[Tensor, "B T N D"],
        frame_mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T J D"], Float[Tensor, "B T J 3"]]:
        """All positions in each frame's palm frame, in palm sizes. Returns features and the points' steps."""
        if "spatial" in self.attention:
            x = x + self._spatial(self.norms["spatial"](x), query)
        if "temporal" in self.attention:
            x = x + self._temporal(self.norms["temporal"](x), query, frame_mask)
        if "cross" in self.attention:
            x = x + self._cross(self.norms["cross"](x), query, anchors, anchor_features)
        x = x + self.feed(x)
        return x, STEP_SIZE * self.move(x)

    def _spatial(self, x: Tensor, query: Tensor) -> Tensor:
        relative = query.unsqueeze(-2) - query.unsqueeze(-3)
        distance = relative.square().sum(-1)
        limit = distance.kthvalue(min(self.neighbours, N_JOINTS), dim=-1, keepdim=True).values
        return self.attention["spatial"](x, x.unsqueeze(-3), relative, distance <= limit)

    def _temporal(self, x: Tensor, query: Tensor, frame_mask: Tensor) -> Tensor:
        frames = x.shape[1]
        tracks, points = x.transpose(1, 2), query.transpose(1, 2)  # (B J T .)
        step = torch.arange(frames, device=x.device)
        offset = step[None, :] - step[:, None]
        near = offset.abs() <= self.half_window
        mask = (near & frame_mask.unsqueeze(-2)) | torch.eye(frames, dtype=torch.bool, device=x.device)
        assert self.frame_codes is not None  # there are codes wherever there is temporal attention
        codes = self.frame_codes[(offset.clamp(-self.half_window, self.half_window) + self.half_window)]
        relative = points.unsqueeze(-2) - points.unsqueeze(-3)
        time = (offset / max(self.half_window, 1)).to(x.dtype).expand(*relative.shape[:-1]).unsqueeze(-1)
        keys = tracks.unsqueeze(-3) + codes
        fused = self.attention["temporal"](tracks, keys, torch.cat((relative, time), -1), mask.unsqueeze(1))
        return fused.transpose(1, 2)

    def _cross(self, x: Tensor, query: Tensor, anchors: Tensor, anchor_features: Tensor) -> Tensor:
        count = min(self.neighbours, anchors.shape[-2])
        nearest = torch.cdist(query, anchors).topk(count, dim=-1, largest=False).indices
        batch, frames = nearest.shape[:2]
        b = torch.arange(batch, device=x.device)[:, None, None, None]
        t = torch.arange(frames, device=x.device)[None, :, None, None]
        relative = query.unsqueeze(-2) - anchors[b, t, nearest]
        return self.attention["cross"](x, anchor_features[b, t, nearest], relative)


class PointTransformer(nn.Module):
    """Projection fusion, then blocks of STPT."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.point_width
        self.fusion = ProjectionFusion(config.map_channels, width) if config.use_fusion else None
        self.from_joint = nn.Linear(config.graph_width, width)
        self.joint_code = nn.Parameter(torch.randn(N_JOINTS, width) * 0.02)
        self.from_position = mlp(3, width, width)
        self.blocks = nn.ModuleList(StptBlock(config) for _ in range(config.blocks))

    def forward(
        self,
        cloud: Cloud,
        joint_features: Float[Tensor, "B T V J D"],
        evidence: ViewEvidence,
        anchor_keep: Bool[Tensor, "K"],
    ) -> tuple[list[Tensor], Float[Tensor, "B T J width"], PalmFrame]:
        """Refined query points after each block (world), their features, and the palm's frame.

        `anchor_keep` (K,) bool, on the CPU: the hypotheses that take part (dropout in training).
        """
        frame = palm_frame(cloud.query)
        kept = anchor_keep.nonzero().flatten()
        anchors = cloud.anchors.detach().index_select(-2, kept.to(cloud.anchors.device)).flatten(2, 3)
        joint = torch.arange(N_JOINTS, device=anchors.device)
        anchor_joint = joint.repeat_interleave(len(kept))
        x = self._embed(cloud.query, joint, frame, evidence) + self._over_views(joint_features, evidence)
        anchor_x = self._embed(anchors, anchor_joint, frame, evidence)
        # A hypothesis may land far off; how far no longer matters beyond a few palms.
        query, anchors = frame.to_local(cloud.query).clamp(-5, 5), frame.to_local(anchors).clamp(-5, 5)
        frame_mask = evidence.view_mask.any(-1)
        points, step = [], torch.zeros_like(query)
        for block in self.blocks:
            x, move = block(x, query, anchors, anchor_x, frame_mask)
            query, step = query + move, step + move
            points.append(cloud.query + frame.vectors_to_world(step))
        return points, x, frame

    def _embed(self, points: Tensor, joint: Tensor, frame: PalmFrame, evidence: ViewEvidence) -> Tensor:
        x = self.joint_code[joint] + self.from_position(frame.to_local(points).clamp(-5, 5))
        return x if self.fusion is None else x + self.fusion(points, joint, evidence)

    def _over_views(self, joint_features: Tensor, evidence: ViewEvidence) -> Tensor:
        """The joint's fused 2D features, averaged over the views by confidence."""
        weight = evidence.confidence.unsqueeze(-1)
        mean = (joint_features * weight).sum(2) / weight.sum(2).clamp_min(1e-6)
        return self.from_joint(F.gelu(mean))
