"""Faults that the hand shows once the cameras agree: its unit of length, the order of its joints and its side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.capture.rig import Rig
from usthand.diagnostics.agreement import Case, ViewRays, make_views
from usthand.diagnostics.corrections import ORDERS, reordered
from usthand.geometry.robust_triangulation import triangulate_robust, undistorted_views
from usthand.hand import skeleton
from usthand.hand.skeleton import MIDDLE_MCP, N_JOINTS, WRIST
from usthand.labels.association.associate import chirality

HAND_FRAMES = 40
DISTANCE_M = 0.6  # a rig of unknown unit is scaled to this, because triangulation has steps in metres

PALM_M = (0.055, 0.125)
"""Wrist to middle knuckle, from a small child's to a very large man's."""

LIKELY_PALM_M = (0.06, 0.115)

UNITS = {
    "millimetres": 1e-3,
    "centimetres": 1e-2,
    "inches": 0.0254,
    "decimetres": 0.1,
    "feet": 0.3048,
    "kilometres": 1e3,
}

MIN_CHIRAL = 0.25
"""Palm lengths by which the fingertips must lie off the palm's plane for a frame to show which hand it is."""

MIN_CHIRAL_FRAMES, WRONG_SIDE_SHARE = 12, 0.85
ORDER_CUT = 1.6
ORDER_PLAUSIBLE = 0.35
"""Root mean square of the log ratios of bone lengths to the mean hand's, of a sound hand."""

MIN_HAND_PX = 24.0
"""Where a pixel is as large as a detector's usual error, 4 % of the hand."""

MIN_TWO_VIEWS, MIN_SEEN = 1 / 3, 0.05
MIN_SHARE_OF_OTHER_HAND = 0.1
"""A side with fewer labels than this share of the other's is a detector's mistake, not a hand."""


@dataclass(frozen=True)
class TriangulatedHand:
    """One hand in space, from some frames."""

    points: Float[np.ndarray, "T 21 3"]
    """In the rig's unit."""
    seen: Bool[np.ndarray, "T 21"]


def hands_in_space(case: Case) -> list[TriangulatedHand]:
    """Robust triangulation of each hand of the case, in the rig's own unit whatever that is."""
    sample = case.sampled(HAND_FRAMES)
    unit = _distance(make_views(sample)) / DISTANCE_M
    cameras = tuple(replace(c, translation=c.translation / unit) for c in sample.cameras)
    tensors = Rig(cameras).tensors(torch.float64)
    hands = []
    for start in range(0, sample.uv_px.shape[2], N_JOINTS):
        part = slice(start, start + N_JOINTS)
        uv, present = sample.uv_px[:, :, part], sample.present[:, :, part]
        sizes = np.array([view.size_px for view in make_views(replace(sample, uv_px=uv, present=present))])
        sigma_px = 0.04 * sizes[None, :, None, None, None]
        precision = np.where(present, 1.0, 0.0)[..., None, None] * np.eye(2) / sigma_px**2
        views = undistorted_views(tensors, torch.from_numpy(uv), torch.from_numpy(precision))
        found = triangulate_robust(views)
        hands.append(TriangulatedHand(found.points_world.numpy() * unit, found.seen.numpy()))
    return hands


def _distance(views: list[ViewRays]) -> float:
    """Median distance of the joints from the cameras, in the rig's unit, from pairs of views."""
    distances = []
    for a, b in combinations(views, 2):
        both = a.present & b.present & np.isfinite(a.rays).all(0) & np.isfinite(b.rays).all(0)
        if both.sum() < N_JOINTS:
            continue
        rays_a, rays_b = a.rays[:, both].T, b.rays[:, both].T
        across = np.cross(rays_a, rays_b)
        along = (np.cross(b.centre - a.centre, rays_b) * across).sum(1) / np.maximum((across**2).sum(1), 1e-12)
        distances.append(np.median(np.abs(along)))
    return float(max(np.median(distances), 1e-9)) if distances else DISTANCE_M


def bone_lengths(points: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(20,) medians over time; NaN where a bone is never seen."""
    median, known = skeleton.median_bone_lengths(points, seen)
    return np.where(known, median, np.nan)


@cache
def _mean_bones() -> np.ndarray:
    from usthand.hand.io import load_hand

    hand = load_hand()
    shaped = hand.with_shape(torch.zeros(10, dtype=hand.v_template.dtype))
    rotations = hand.rotations(torch.zeros(1, 48, dtype=hand.v_template.dtype), flat_hand_mean=True)
    joints = shaped.with_pose(rotations, torch.zeros(1, 3, dtype=hand.v_template.dtype)).joints.numpy()
    return bone_lengths(joints, np.ones((1, N_JOINTS), bool))


def unlikeness(hand: TriangulatedHand) -> float:
    """How unlike a hand the bones are: root mean square log ratio of their lengths to the mean hand's, up to scale."""
    lengths = bone_lengths(hand.points, hand.seen)
    ratio = np.log(np.maximum(lengths, 1e-12) / _mean_bones())
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) < 12:
        return np.nan
    return float(np.sqrt(np.mean((ratio - np.median(ratio)) ** 2)))


@dataclass(frozen=True)
class JointOrder:
    """A joint order that makes a hand of the points."""

    name: str
    before: float
    after: float


def joint_order(hands: list[TriangulatedHand]) -> JointOrder | None:
    """The known order in which the joints make a hand, if they do not make one in the given order."""
    before = _mean_unlikeness(hands)
    if not np.isfinite(before):
        return None
    tried = {name: _mean_unlikeness([in_order(h, name) for h in hands]) for name in ORDERS}
    name = min(tried, key=lambda n: tried[n])
    if tried[name] * ORDER_CUT < before and tried[name] < ORDER_PLAUSIBLE:
        return JointOrder(name, before, tried[name])
    return None


def in_order(hand: TriangulatedHand, name: str) -> TriangulatedHand:
    """The hand with its joints taken in another order."""
    return TriangulatedHand(reordered(hand.points, ORDERS[name], 1), reordered(hand.seen, ORDERS[name], 1))


def _mean_unlikeness(hands: list[TriangulatedHand]) -> float:
    values = [u for u in map(unlikeness, hands) if np.isfinite(u)]
    return float(np.mean(values)) if values else np.nan


def palm_length(hands: list[TriangulatedHand]) -> float:
    """Wrist to middle knuckle, median over frames and hands, in the rig's unit; NaN if never seen."""
    found = [skeleton.palm_length(h.points)[h.seen[:, WRIST] & h.seen[:, MIDDLE_MCP]] for h in hands]
    found = np.concatenate(found) if found else np.zeros(0)
    return float(np.median(found)) if len(found) else np.nan


def unit_of(palm: float) -> tuple[str, float] | None:
    """(name, metres) of the unit in which a palm has this length; None if it is metres, or none is known."""
    if PALM_M[0] <= palm <= PALM_M[1]:
        return None
    for name, metres in UNITS.items():
        if LIKELY_PALM_M[0] <= palm * metres <= LIKELY_PALM_M[1]:
            return name, metres
    return None


def wrong_side(hand: TriangulatedHand, side: str) -> tuple[float, int] | None:
    """The share of the conclusive frames that show the other side, and their number; None unless nearly all do."""
    complete = hand.seen.all(axis=1)
    value = chirality(hand.points[complete])
    conclusive = value[np.abs(value) > MIN_CHIRAL]
    if len(conclusive) < MIN_CHIRAL_FRAMES:
        return None
    other = float(np.mean(conclusive < 0 if side == "right" else conclusive > 0))
    return (other, len(conclusive)) if other >= WRONG_SIDE_SHARE else None
