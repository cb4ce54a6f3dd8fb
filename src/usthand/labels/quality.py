"""How good labels look without truth: what one triangulation of all views says of them.

Legend of the shapes: T frames, V views, J = 21 joints in OpenPose order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.capture.rig import Rig
from usthand.geometry.cameras import project
from usthand.geometry.triangulation import triangulate
from usthand.hand.result import MM_PER_M
from usthand.hand.skeleton import FINGERS, MIDDLE_MCP, WRIST
from usthand.labels.labels import Labels

PALM = (FINGERS["index"][0], FINGERS["little"][0])
"""The palm's width goes from knuckle to knuckle of these two: 55 to 80 mm in adults."""


@dataclass(frozen=True)
class LabelQuality:
    """Numbers that give bad labels or a wrong calibration away; None where nothing can be triangulated.

    In a rig without metric scale the lengths are in thousandths of the rig's unit, not in millimetres.
    """

    share: dict[str, float]
    """For each camera, the share of the frames in which it has a label."""
    two_view_share: float
    """Share of the frames in which at least two cameras have a label."""
    residual_px: float | None
    """Median distance of the labels from the projections of the joints triangulated from all views."""
    palm_mm: float | None
    """Median length of the palm, wrist to middle knuckle. This is one bone, so its spread is error."""
    palm_spread_mm: float | None
    """Standard deviation of that length over the frames."""
    palm_width_mm: float | None
    """Median width of the palm, index to little knuckle."""


def label_quality(rig: Rig, labels: Labels) -> LabelQuality:
    """Triangulate the labels without weights, and measure them by the result.

    Args:
        rig: The cameras of `labels`, in the same order.
        labels: The labels of one hand.
    """
    mask = labels.mask
    uv, weight = (torch.from_numpy(one.astype(np.float64)) for one in (labels.uv_px, mask))
    points = triangulate(rig.tensors(dtype=torch.float64), uv, weight).numpy()
    solid = mask.sum(axis=1) >= 2
    seen = mask.sum(axis=-1) > 0
    length = _bone_mm(points, solid, WRIST, MIDDLE_MCP)
    distance, _ = reprojection_px(rig, points, labels.uv_px)
    return LabelQuality(
        {name: float(seen[:, view].mean()) for view, name in enumerate(labels.cameras)},
        float((seen.sum(axis=1) >= 2).mean()),
        median_or_none(distance[mask & solid[:, None]]),
        median_or_none(length),
        float(length.std()) if len(length) else None,
        palm_width_mm(points, solid),
    )


def reprojection_px(
    rig: Rig, points_world: Float[np.ndarray, "T J 3"], uv_px: Float[np.ndarray, "T V J 2"]
) -> tuple[Float[np.ndarray, "T V J"], Bool[np.ndarray, "T V J"]]:
    """Distance of projected joints from labels in pixels, and whether the joint lies in front of the camera.

    Args:
        rig: The cameras, V of them.
        points_world: Joints in the world frame, in the rig's unit.
        uv_px: Pixel positions in each view; where a label is missing, the distance means nothing.
    """
    points = torch.from_numpy(np.ascontiguousarray(points_world, np.float64))
    uv, depth = project(rig.tensors(dtype=torch.float64), points)
    return np.linalg.norm(uv.numpy() - uv_px, axis=-1), depth.numpy() > 0


def palm_width_mm(points_world_m: Float[np.ndarray, "T J 3"], known: Bool[np.ndarray, "T J"]) -> float | None:
    """Median width of the palm, index to little knuckle, over the frames in which both are known; None without any."""
    return median_or_none(_bone_mm(points_world_m, known, *PALM))


def median_or_none(values: Float[np.ndarray, " n"]) -> float | None:
    """The median; None if there are no values."""
    return float(np.median(values)) if len(values) else None


def _bone_mm(points_world_m: np.ndarray, known: np.ndarray, start: int, end: int) -> Float[np.ndarray, " n"]:
    length = np.linalg.norm(points_world_m[:, end] - points_world_m[:, start], axis=-1)
    return MM_PER_M * length[known[:, start] & known[:, end]]
