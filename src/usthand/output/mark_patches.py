"""Which frames of a capture are worth marking, and which part of each image a person is shown to mark a fingertip.

A result or the labels only say roughly where a fingertip is. Every patch is moved by a random part of its size, so that
neither its centre nor its edges tell the person who marks what a detector found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from usthand.capture.capture import Capture
from usthand.common.errors import UsthandError
from usthand.evaluation.mark_triangulation import MIN_VIEWS
from usthand.evaluation.marks import FINGER_NAMES
from usthand.geometry.cameras import project
from usthand.hand.result import MM_PER_M, Result
from usthand.hand.skeleton import FINGER_TIPS, MIDDLE_MCP, WRIST
from usthand.labels.labels import Labels

N_FRAMES = 8
PATCH_MM, JITTER_MM = 64.0, 14.0
"""Side of a patch at the hand's depth, and how far at most it is moved along each axis."""
_LEAST_PATCH_PX = 24
_MARGIN_PX = 8.0
"""A tip that lies nearer to the image's edge is not asked for."""
_CONTEXT = 0.15
"""Room around the hand where all of it is shown, over its own size."""


@dataclass(frozen=True)
class TipPatch:
    """The square part of an image in which one fingertip is to be marked; it may reach beyond the image."""

    finger: str
    corner: tuple[int, int]
    """Column and row of its first pixel."""
    size_px: int


@dataclass(frozen=True)
class HandView:
    """One hand in one image."""

    frame: int
    camera: str
    side: str
    box: tuple[int, int, int, int]
    """Left, top, right and bottom (exclusive) of the part that shows hand and patches, inside the image."""
    px_per_mm: float
    """Size of a millimetre at the hand's depth."""
    patches: tuple[TipPatch, ...]


def plan_views(
    capture: Capture, result: Result, labels: Labels | None = None, frames: Sequence[int] = (), seed: int = 0
) -> list[HandView]:
    """What is to be marked of one hand, frame by frame and camera by camera.

    Args:
        capture: The footage.
        result: Roughly where the hand is.
        labels: If given, frames are chosen in which the detector saw the hand in three views or more.
        frames: Which frames; by default up to eight, spread over time and of poses that differ.
        seed: Of the patches' displacement.

    Raises:
        UsthandError: If the rig has fewer than three cameras, a frame is not in the capture or the hand is not placed
            there, no image shows a tip in the frames asked for, or no frame shows the hand in three views.
    """
    if len(capture.rig) < MIN_VIEWS:
        raise UsthandError(
            f"{capture.path} has {len(capture.rig)} cameras",
            f"a place that can be trusted takes {MIN_VIEWS} views that agree",
            "mark a capture of more cameras, or judge this one with `usthand evaluate --leave-out`",
        )
    cameras = capture.rig.in_metres(result.unit_m).tensors(torch.float64)
    uv, depth = (value.numpy() for value in project(cameras, torch.from_numpy(result.joints_world_m)))
    sizes = np.array([camera.size for camera in capture.rig.cameras])[:, None]
    inside = (depth > 0) & (uv >= _MARGIN_PX).all(-1) & (uv <= sizes - 1 - _MARGIN_PX).all(-1)
    tips = inside[..., list(FINGER_TIPS)] & capture.present[result.frame][..., None]
    rows = _rows_of(capture, result, frames) if frames else _chosen(result, _well_seen(result, tips, labels))
    focal = cameras.intrinsics[:, :2].mean(-1).numpy()
    rng, views = np.random.default_rng(seed), []
    for row in rows:
        for view, camera in enumerate(capture.rig.cameras):
            shown = np.flatnonzero(tips[row, view])
            if not len(shown):
                continue
            scale = float(focal[view] / (MM_PER_M * depth[row, view, np.array(FINGER_TIPS)[shown]].mean()))
            patches = tuple(_patch(FINGER_NAMES[f], uv[row, view, FINGER_TIPS[f]], scale, rng) for f in shown)
            box = _box(uv[row, view][inside[row, view]], patches, camera.size)
            views.append(HandView(int(result.frame[row]), camera.name, result.side, box, scale, patches))
    if not views:
        raise UsthandError(
            f"no tip of the {result.side} hand is inside an image in the frames asked for",
            "the hand has left the cameras' views",
            "choose other frames, or leave --frames out",
        )
    return views


def _rows_of(capture: Capture, result: Result, frames: Sequence[int]) -> list[int]:
    """Rows of a result with the frame numbers asked for."""
    rows = {int(frame): row for row, frame in enumerate(result.frame) if result.valid[row]}
    for frame in frames:
        if not 0 <= frame < capture.n_frames:
            raise UsthandError(
                f"there is no frame {frame}",
                f"{capture.path} has frames 0 to {capture.n_frames - 1}",
                "choose others with --frames",
            )
        if frame not in rows:
            raise UsthandError(
                f"the {result.side} hand is not placed in frame {frame}",
                "fewer than two views saw it there",
                "choose other frames, or leave --frames out",
            )
    return [rows[frame] for frame in sorted(set(frames))]


def _well_seen(result: Result, tips: Bool[np.ndarray, "T V 5"], labels: Labels | None) -> Int[np.ndarray, "n"]:
    """Rows in which every tip is in three images or more, and the detector saw the hand in as many."""
    many = result.valid & (tips.sum(1) >= MIN_VIEWS).all(-1)
    if labels is not None:
        many &= labels.mask.any(-1).sum(1)[result.frame] >= MIN_VIEWS
    if not many.any():
        raise UsthandError(
            f"no frame shows the whole {result.side} hand in {MIN_VIEWS} views",
            "a place that can be trusted takes so many views that agree",
            "choose frames yourself with --frames, or give the other --side",
        )
    return np.flatnonzero(many)


def _chosen(result: Result, rows: Int[np.ndarray, "n"], count: int = N_FRAMES) -> list[int]:
    """One row of each of `count` equally long parts: the one whose pose differs most from those before it."""
    pose = result.joints_world_m[rows] - result.joints_world_m[rows, WRIST, None]
    pose /= np.linalg.norm(pose[:, MIDDLE_MCP], axis=-1)[:, None, None]
    parts = [part for part in np.array_split(np.arange(len(rows)), count) if len(part)]
    chosen = [int(parts[0][len(parts[0]) // 2])]
    for part in parts[1:]:
        apart = np.linalg.norm(pose[part, None] - pose[chosen], axis=-1).mean(-1).min(-1)
        chosen.append(int(part[apart.argmax()]))
    return [int(rows[index]) for index in chosen]


def _patch(finger: str, tip_px: Float[np.ndarray, "2"], px_per_mm: float, rng: np.random.Generator) -> TipPatch:
    size = max(round(PATCH_MM * px_per_mm), _LEAST_PATCH_PX)
    moved = tip_px + rng.uniform(-1.0, 1.0, 2) * size * JITTER_MM / PATCH_MM
    column, row = np.round(moved - 0.5 * (size - 1)).astype(int).tolist()
    return TipPatch(finger, (column, row), size)


def _box(
    joints_px: Float[np.ndarray, "n 2"], patches: Sequence[TipPatch], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """What of an image holds the joints that are in it, with room around them, and the patches."""
    corners = np.array([patch.corner for patch in patches])
    room = _CONTEXT * np.ptp(joints_px, axis=0).max()
    low = np.minimum(joints_px.min(0) - room, corners.min(0))
    high = np.maximum(joints_px.max(0) + room, (corners + patches[0].size_px).max(0))
    left, top = np.maximum(np.floor(low), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(high) + 1, size).astype(int).tolist()
    return left, top, right, bottom
