"""Hands in space from what detectors saw in single images: pairs of views as seeds, grown over the other views.

First step of `usthand.labels.association.associate`. Legend: T frames, V views, D detections in a view, S candidates, J joints. Distances in
the image are fractions of the hand's size in that view, lengths in space are palm lengths: nothing depends on the unit of
the rig.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from usthand.geometry.cameras import Cameras, project, to_camera, undistort
from usthand.geometry.triangulation import triangulate_xy
from usthand.hand.skeleton import N_JOINTS, bone_lengths, palm_length
from usthand.labels.association.tracks import TrackConfig
from usthand.labels.labels import MIN_HAND_PX, Detection

FAR = 1e3  # hand sizes
MIN_JOINTS = 8  # a detection with fewer joints cannot be told from another hand
CHUNK = 256  # detections of all views, in as many frames as that makes, are worked on at once: bounds the memory


@dataclass(frozen=True)
class AssociateConfig:
    """Thresholds of the association: of the candidates here, and of the steps in `usthand.labels.association.associate` that follow."""

    max_hands: int = 8
    """Hands in view at once. 2 says that all belong to one person."""
    max_detections: int = 12
    """Detections kept per view and frame, the surest first."""
    duplicate: float = 0.12
    """Two detections of one view nearer than this (mean joint distance, sizes of the hand) are one hand detected twice."""
    max_cost: float = 0.2
    """Mean reprojection distance, as a fraction of the hand's size, up to which a detection belongs to a candidate."""
    distance_cap: float = 0.5
    """A single joint's distance counts at most this much: one swapped finger must not condemn a hand."""
    partners: int = 4
    """Candidates start from every detection and this many detections of other views, the best fitting ones."""
    kept_hypotheses: int = 12
    """Best candidates of a frame among which the pair is sought, beside the best one of every detection."""
    same_place: float = 0.35
    """Two candidates nearer than this (mean joint distance, palm lengths) are one hand seen twice."""
    touching: float = 0.7
    """Hands whose joints' centres are nearer than this (palm lengths) must show that they are two, by opposite sides"""
    equal_score: float = 0.6
    """... and by scores of which the weaker is at least this share of the stronger."""
    side_weight: float = 0.15
    """Gain of a pair of candidates whose sides, by vote, are opposite; a perfect view gains 1."""
    further_score: float = 0.8
    """A hand beyond the second needs this score (a perfect view gives 1): chance agreements of two views have less."""
    switch_cost: float = 8.0
    """Cost (log odds) of a hand changing its side from one frame to the next."""
    lone_cost: float = 0.35
    """A detection without a second view is kept up to this distance from its own hand in neighbouring frames."""
    lone_frames: int = 3
    """How many frames away the neighbour may be."""
    lone_confidence: float = 0.5
    """Factor on the confidence of a detection that no second view confirms."""
    tracks: TrackConfig = field(default_factory=TrackConfig)
    """How fast hands move, and how those of several people are followed."""


@dataclass(frozen=True)
class Pack:
    """All detections as arrays, padded to D per view."""

    uv_px: Float[np.ndarray, "T V D J 2"]
    confidence: Float[np.ndarray, "T V D J"]
    present: Bool[np.ndarray, "T V D"]
    right_odds: Float[np.ndarray, "T V D"]
    """Log odds of being a right hand, by the detector; where it saw one hand twice, the mean of both answers."""
    size_px: Float[np.ndarray, "T V D"]
    group: Int[np.ndarray, "T V D"]
    """The first detection of the view that this one coincides with: its own number, unless it is a duplicate."""

    def frames(self, frames: slice) -> Pack:
        return Pack(*(getattr(self, name)[frames] for name in Pack.__dataclass_fields__))

    def chunks(self) -> list[slice]:
        """Runs of frames that are worked on at once."""
        n_frames, n_views, depth = self.present.shape
        length = max(1, CHUNK // (n_views * depth))
        return [slice(start, start + length) for start in range(0, max(n_frames, 1), length)]


@dataclass(frozen=True)
class Candidates:
    """Hands in space, per frame."""

    member: Int[np.ndarray, "T S V"]
    """Which detection each view contributes; -1 for none."""
    points: Float[np.ndarray, "T S J 3"]
    score: Float[np.ndarray, "T S"]
    """Sum over member views of 1 - cost / max_cost; 0 if impossible."""

    def take(self, ids: Int[np.ndarray, "T K"]) -> Candidates:
        rows = np.arange(len(ids))[:, None]
        return Candidates(self.member[rows, ids], self.points[rows, ids], self.score[rows, ids])

    def frames(self, frames: slice) -> Candidates:
        return Candidates(self.member[frames], self.points[frames], self.score[frames])

    @staticmethod
    def join(parts: Sequence[Candidates]) -> Candidates:
        return Candidates(*(np.concatenate([getattr(p, f) for p in parts]) for f in Candidates.__dataclass_fields__))


def pack_detections(detections: Sequence[Sequence[Sequence[Detection]]], n_views: int, config: AssociateConfig) -> Pack:
    """Detections[frame][view] as arrays, the surest first; a detection with too few joints is left out."""
    n_frames = len(detections)
    depth = max([1, *(len(view) for frame in detections for view in frame)])
    shape = (n_frames, n_views, min(depth, config.max_detections))
    uv, confidence = np.zeros((*shape, N_JOINTS, 2)), np.zeros((*shape, N_JOINTS))
    present, odds = np.zeros(shape, dtype=bool), np.zeros(shape)
    for t, frame in enumerate(detections):
        for v, view in enumerate(frame):
            for d, found in enumerate(sorted(view, key=lambda one: -one.score)[: config.max_detections]):
                uv[t, v, d], confidence[t, v, d] = found.uv_px, found.confidence
                present[t, v, d] = np.count_nonzero(found.confidence) >= MIN_JOINTS
                sure = np.clip(found.score, 0.5, 0.95)
                odds[t, v, d] = np.log(sure / (1 - sure)) * (1 if found.side == "right" else -1)
    seen = (confidence > 0)[..., None]
    span = np.where(seen, uv, -np.inf).max(axis=-2) - np.where(seen, uv, np.inf).min(axis=-2)
    size = np.maximum(np.where(present, span.max(axis=-1), 0.0), MIN_HAND_PX)
    # A single box shrinks with the pose; the view's usual size is the fairer yardstick for a flat, edge-on hand.
    usual = np.array([np.median(size[:, v][present[:, v]]) if present[:, v].any() else 0.0 for v in range(n_views)])
    size = np.maximum(size, 0.7 * usual[None, :, None])
    group = _duplicates(uv, confidence > 0, present, size, config.duplicate)
    return Pack(uv, confidence, present, _shared_odds(odds, group, present), size, group)


def _duplicates(
    uv: np.ndarray, seen: np.ndarray, present: np.ndarray, size: np.ndarray, within: float
) -> Int[np.ndarray, "T V D"]:
    """For each detection the first one of its view that it coincides with: two crops that a detector puts on one hand."""
    depth = uv.shape[2]
    group = np.broadcast_to(np.arange(depth), uv.shape[:3]).copy()
    for later in range(1, depth):
        for first in range(later):
            both = seen[:, :, later] & seen[:, :, first]
            gap = np.linalg.norm(uv[:, :, later] - uv[:, :, first], axis=-1)
            mean = (gap * both).sum(axis=-1) / np.maximum(both.sum(axis=-1), 1)
            scale = np.minimum(size[:, :, later], size[:, :, first])
            alike = present[:, :, later] & present[:, :, first] & (both.sum(axis=-1) >= MIN_JOINTS)
            alike &= (mean < within * scale) & (group[:, :, later] == later)
            group[:, :, later] = np.where(alike, group[:, :, first], group[:, :, later])
    return group


def _shared_odds(odds: np.ndarray, group: np.ndarray, present: np.ndarray) -> Float[np.ndarray, "T V D"]:
    """The mean over each group: a hand that was called right once and left once has no vote."""
    member = (group[..., :, None] == group[..., None, :]) & present[..., None, :]
    return (member * odds[..., None, :]).sum(axis=-1) / np.maximum(member.sum(axis=-1), 1)


def find_candidates(
    cameras: Cameras, pack: Pack, config: AssociateConfig, progress: Callable[[int, int], None] | None = None
) -> Candidates:
    """Pairs of detections of two views as seeds, grown over the other views and refined once."""
    parts, n_frames = [], len(pack.present)
    for frames in pack.chunks():
        part = pack.frames(frames)
        xy = _undistorted(cameras, part)
        parts.append(_grow(cameras, part, xy, _seeds(cameras, part, xy, config), config))
        if progress:
            progress(min(frames.stop, n_frames), n_frames)
    return Candidates.join(parts)


def _seeds(cameras: Cameras, pack: Pack, xy: np.ndarray, config: AssociateConfig) -> Int[np.ndarray, "T S V"]:
    """For every detection, its best partners in other views: the pairs that two-view triangulation fits best.

    All pairs would be quadratic in the views, and most of them say the same.
    """
    _, n_views, depth = pack.present.shape
    pairs = np.array(
        [(v, d, w, e) for v, w in combinations(range(n_views), 2) for d in range(depth) for e in range(depth)]
    )
    views, which = torch.from_numpy(pairs[:, [0, 2]]), (pairs[:, [0, 2]], pairs[:, [1, 3]])
    two = Cameras(*(field[views] for field in cameras))
    seen = torch.from_numpy(xy[:, which[0], which[1]])  # (T, S, 2, J, 2)
    weight = torch.from_numpy((pack.confidence[:, which[0], which[1]] > 0).astype(float))
    scale = two.intrinsics[..., :2].mean(-1) / torch.from_numpy(
        pack.size_px[:, which[0], which[1]]
    )  # sizes per unit of xy
    precision = torch.diag_embed((weight * scale[..., None] ** 2)[..., None].expand(*seen.shape))
    points, _ = triangulate_xy(two, seen, precision, iterations=1)
    cam = to_camera(two, points)
    distance = (cam[..., :2] / cam[..., 2:].clamp_min(1e-6) - seen).norm(dim=-1) * scale[..., None]
    cost = ((distance.clamp_max(config.distance_cap) * weight).sum(-1) / weight.sum(-1).clamp_min(1)).sum(-1).numpy()
    cost = np.where(pack.present[:, which[0], which[1]].all(axis=-1), cost, np.inf)
    partners = []
    for v in range(n_views):
        for d in range(depth):
            with_it = np.flatnonzero(((which[0] == v) & (which[1] == d)).any(axis=1))
            partners.append(with_it[np.argsort(cost[:, with_it], axis=1)[:, : config.partners]])
    chosen = pairs[np.concatenate(partners, axis=1)]  # (T, S, 4)
    seeds = np.full((*chosen.shape[:2], n_views), -1)
    for column in (0, 2):
        np.put_along_axis(seeds, chosen[..., column, None], chosen[..., column + 1, None], axis=-1)
    return seeds


def _grow(
    cameras: Cameras, pack: Pack, xy: np.ndarray, member: Int[np.ndarray, "T S V"], config: AssociateConfig
) -> Candidates:
    possible = gather(pack.present, np.maximum(member, 0)) | (member < 0)
    alive = possible.all(axis=-1)
    points = _triangulate(cameras, pack, xy, member, None)
    for last in (False, True):
        distance = distances(cameras, pack, points)
        cost = np.minimum(distance, config.distance_cap).mean(axis=-1)  # (T, S, V, D)
        best = cost.argmin(axis=-1)
        best_cost = np.take_along_axis(cost, best[..., None], axis=-1)[..., 0]
        member = np.where(best_cost < config.max_cost, best, -1)
        if not last:
            own = np.take_along_axis(distance, best[..., None, None], axis=-2)[..., 0, :]
            points = _triangulate(cameras, pack, xy, member, own)
    gain = np.where(member >= 0, 1 - best_cost / config.max_cost, 0.0)
    enough = (member >= 0).sum(axis=-1) >= 2
    return Candidates(member, points, np.where(alive & enough, gain.sum(axis=-1), 0.0))


def _undistorted(cameras: Cameras, pack: Pack) -> Float[np.ndarray, "T V D J 2"]:
    shape = pack.uv_px.shape
    flat = torch.from_numpy(pack.uv_px.reshape(*shape[:2], -1, 2))
    return undistort(cameras, flat).numpy().reshape(shape)


def gather(values: np.ndarray, member: Int[np.ndarray, "T S V"]) -> np.ndarray:
    """values (T, V, D, ...) at member (T, S, V) -> (T, S, V, ...)."""
    t, _, v = np.ogrid[: member.shape[0], : member.shape[1], : member.shape[2]]
    return values[t, v, member]


def _triangulate(
    cameras: Cameras, pack: Pack, xy: np.ndarray, member: np.ndarray, distance: np.ndarray | None
) -> Float[np.ndarray, "T S J 3"]:
    """Joints from the member views; `distance` (T, S, V, J) of an earlier estimate down-weights outliers (Cauchy)."""
    taken = np.maximum(member, 0)
    weight = ((member >= 0)[..., None] & (gather(pack.confidence, taken) > 0)).astype(float)
    if distance is not None:
        weight = weight / (1 + (distance / 0.1) ** 2)
    size = gather(pack.size_px, taken)[..., None, None]
    focal = cameras.intrinsics[:, None, :2].numpy()
    precision = torch.diag_embed(torch.from_numpy(weight[..., None] * (focal / size) ** 2))
    points, _ = triangulate_xy(cameras, torch.from_numpy(gather(xy, taken)), precision, iterations=2)
    return points.numpy()


def distances(cameras: Cameras, pack: Pack, points: Float[np.ndarray, "T S J 3"]) -> Float[np.ndarray, "T S V D J"]:
    """Distance of each projected joint from each detection, in sizes of the hand; huge where there is no detection.

    A joint that the detection lacks takes the mean distance of the others, so that it neither helps nor harms.
    """
    n_frames, n_seeds = points.shape[:2]
    uv, depth = project(cameras, torch.from_numpy(points.reshape(n_frames, -1, 3)))
    uv = uv.numpy().reshape(n_frames, -1, n_seeds, N_JOINTS, 2).transpose(0, 2, 1, 3, 4)
    in_front = (depth.numpy().reshape(n_frames, -1, n_seeds, N_JOINTS) > 0).all(axis=-1).transpose(0, 2, 1)
    gap = np.linalg.norm(uv[:, :, :, None] - pack.uv_px[:, None], axis=-1) / pack.size_px[:, None, ..., None]
    known = (pack.confidence > 0)[:, None]
    mean = np.where(known, gap, 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    usable = pack.present[:, None] & in_front[..., None]
    return np.where(usable[..., None], np.minimum(np.where(known, gap, mean[..., None]), FAR), FAR)


def skeleton_length(points: Float[np.ndarray, "*b J 3"]) -> Float[np.ndarray, "*b"]:
    """The 20 bones laid end to end: the same for every pose of a hand."""
    return bone_lengths(points).sum(axis=-1)


def median_palm(candidates: Candidates) -> float:
    """Palm length of the hands that most views agree on, in the rig's unit."""
    return _typical(palm_length(candidates.points), candidates.score)


def _typical(length: Float[np.ndarray, "T S"], score: Float[np.ndarray, "T S"]) -> float:
    sure = score >= np.maximum(0.7 * score.max(axis=1, keepdims=True), 0.5)
    return float(np.median(length[sure])) if sure.any() else 1.0


def plausible_score(candidates: Candidates) -> Float[np.ndarray, "T S"]:
    """Scores with hands of impossible size put to zero: chance agreements of two views lie at odd depths, and joints that
    have nothing to do with each other make long bones."""
    score = candidates.score
    for length in (palm_length(candidates.points), skeleton_length(candidates.points)):
        ratio = np.maximum(length, 1e-9) / _typical(length, candidates.score)
        score = score * np.clip(2 - 2 * np.abs(np.log2(ratio)), 0, 1)
    return score
