"""Stage 5: hypotheses of several views become a probabilistic 3D point cloud.

Hypothesis k of a view is paired with hypothesis k of the others. The random ones give the anchor cloud (fixed: it keeps
the uncertainty as evidence), the key one gives the query cloud (refined later).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from usthand.geometry.affine import affine_apply, affine_inverse
from usthand.geometry.cameras import Cameras, project
from usthand.geometry.triangulation import triangulate
from usthand.hand.skeleton import N_JOINTS

PALM = (0, 5, 9, 13, 17)  # wrist and the four knuckles: nearly rigid
MIN_PALM = 1e-4  # metres; a collapsed palm (no view at all) must not divide by zero


class Cloud(NamedTuple):
    """Triangulated hypotheses, world, metres."""

    query: Float[Tensor, "B T J 3"]
    anchors: Float[Tensor, "B T J K 3"]


class PalmFrame(NamedTuple):
    """A frame of reference that moves and scales with the hand; it makes the network equivariant."""

    origin: Float[Tensor, "B T 3"]
    axes: Float[Tensor, "B T 3 3"]
    """Columns are the palm's axes in the world: `world = axes @ local * size + origin`."""
    size: Float[Tensor, "B T"]
    """Mean distance from the wrist to the knuckles."""

    def to_local(self, points: Float[Tensor, "B T N 3"]) -> Float[Tensor, "B T N 3"]:
        """World points in the palm's frame, palm sizes."""
        return ((points - self.origin.unsqueeze(-2)) @ self.axes) / self.size[..., None, None]

    def vectors_to_world(self, vectors: Float[Tensor, "B T N 3"]) -> Float[Tensor, "B T N 3"]:
        """Directions and steps, in palm sizes, in the world."""
        return (vectors @ self.axes.transpose(-1, -2)) * self.size[..., None, None]


def palm_frame(joints: Float[Tensor, "B T J 3"]) -> PalmFrame:
    """The palm's frame from 21 joints: x from wrist to middle knuckle, y the palm's normal, z across. No gradient."""
    joints = joints.detach()
    wrist, index, middle, little = joints[..., 0, :], joints[..., 5, :], joints[..., 9, :], joints[..., 17, :]
    along, across = middle - wrist, little - index
    size = torch.linalg.vector_norm(joints[..., PALM[1:], :] - wrist.unsqueeze(-2), dim=-1).mean(-1).clamp_min(MIN_PALM)
    x = _unit(along)
    # A palm collapsed to a line, as in a frame that too few views see, gives axes of zeros, which stay finite.
    normal = torch.linalg.cross(along, across)
    y = _unit(normal - (normal * x).sum(-1, keepdim=True) * x)
    return PalmFrame(joints[..., PALM, :].mean(-2), torch.stack((x, y, torch.linalg.cross(x, y)), -1), size)


def _unit(v: Tensor) -> Tensor:
    return v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp_min(1e-9)


def lift(
    cameras: Cameras,
    crop_from_px: Float[Tensor, "B T V 2 3"],
    hypotheses: Float[Tensor, "B T V J K 2"],
    confidence: Float[Tensor, "B T V J"],
) -> Cloud:
    """Triangulate by confidence-weighted DLT; hypothesis 0 is the key one. A view with confidence 0 is not used."""
    k = hypotheses.shape[-2]
    uv_px = affine_apply(affine_inverse(crop_from_px), hypotheses.flatten(-3, -2))
    weight = confidence.unsqueeze(-1).expand(*confidence.shape, k).flatten(-2)
    points = triangulate(cameras, uv_px, weight, iterations=1).unflatten(-2, (N_JOINTS, k))
    return Cloud(points[..., 0, :], points[..., 1:, :])


def project_to_crops(
    cameras: Cameras, crop_from_px: Float[Tensor, "B T V 2 3"], points: Float[Tensor, "B T N 3"]
) -> Float[Tensor, "B T V N 2"]:
    """World points in every view's crop coordinates, held within a few crops so that no gradient explodes."""
    uv_px, _ = project(cameras, points)
    return affine_apply(crop_from_px, uv_px).clamp(-4.0, 4.0)


def enough_views(view_mask: Bool[Tensor, "B T V"]) -> Bool[Tensor, "B T"]:
    """Frames that two views or more see; the others have no depth, and no loss uses them."""
    return view_mask.sum(-1) >= 2
