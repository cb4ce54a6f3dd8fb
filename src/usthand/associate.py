"""Which detection of which view is which hand: decided by geometry over all views and frames.

A detector looks at one image at a time: it confuses sides, sees one hand twice, and invents hands. What is one hand in
space must agree over the views. Three steps:

1. *Hypotheses*, per frame. Pairs of detections of two views are triangulated; the other views join with the
   detection nearest to its projection, if near enough. Distances are fractions of the hand's size in that view.
2. *Hands*, per frame: the best pair of hypotheses that share no detection and no place, and then, as long as there are
   any, the next best. Two detections of one view that coincide are one detection: no two hands can have one each.
3. *Sides*, over the sequence: the detector's votes and the hand's chirality (fingers bend to the palm) speak for a
   side, continuity in space ties the frames together; the cheapest labelling of one person's two hands is found exactly
   by dynamic programming. Where there are more hands than that, each is followed by itself (`usthand.tracks`).

Detections that join no hypothesis are dropped, unless the same hand in neighbouring frames vouches for them.
Legend: T frames, V views, D detections in a view, S hypotheses, J joints. Thresholds are fractions of the hand's size
in pixels or of the palm's length in space, so nothing depends on the unit of the rig.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from usthand.geometry import Cameras, project, to_camera, triangulate_xy, undistort
from usthand.labels import MIN_HAND_PX, Detection, Labels, hand_side
from usthand.rig import Rig
from usthand.skeleton import FINGER_TIPS, MIDDLE_MCP, N_JOINTS, WRIST
from usthand.tracks import TrackConfig, Tracks, follow

KNUCKLES = (5, 9, 13, 17)
FAR = 1e3  # hand sizes
MIN_JOINTS = 8  # a detection with fewer joints cannot be told from another hand
CHUNK = 256  # detections of all views, in as many frames as that makes, are worked on at once: bounds the memory


@dataclass(frozen=True)
class AssociateConfig:
    """Thresholds of the association; see the file's head."""

    max_hands: int = 8
    """Hands in view at once. 2 says that all belong to one person."""
    max_detections: int = 12
    """Detections kept per view and frame, the surest first."""
    duplicate: float = 0.12
    """Two detections of one view nearer than this (mean joint distance, sizes of the hand) are one hand detected twice."""
    max_cost: float = 0.2
    """Mean reprojection distance, as a fraction of the hand's size, up to which a detection belongs to a hypothesis."""
    distance_cap: float = 0.5
    """A single joint's distance counts at most this much: one swapped finger must not condemn a hand."""
    partners: int = 4
    """Hypotheses start from every detection and this many detections of other views, the best fitting ones."""
    kept_hypotheses: int = 12
    """Best hypotheses of a frame among which the pair is sought, beside the best one of every detection."""
    same_place: float = 0.35
    """Two hypotheses nearer than this (mean joint distance, palm lengths) are one hand seen twice."""
    touching: float = 0.7
    """Hands whose joints' centres are nearer than this (palm lengths) must show that they are two, by opposite sides"""
    equal_score: float = 0.6
    """... and by scores of which the weaker is at least this share of the stronger."""
    side_weight: float = 0.15
    """Gain of a pair of hypotheses whose sides, by vote, are opposite; a perfect view gains 1."""
    further_score: float = 0.8
    """A hand beyond the second needs this score (a perfect view gives 1): chance agreements of two views have less."""
    switch_cost: float = 8.0
    """Cost (log odds) of a hand changing its side from one frame to the next."""
    palm_lengths_per_frame: float = 1.0
    """Standard deviation of a hand's motion between two frames."""
    lone_cost: float = 0.35
    """A detection without a second view is kept up to this distance from its own hand in neighbouring frames."""
    lone_frames: int = 3
    """How many frames away the neighbour may be."""
    lone_confidence: float = 0.5
    """Factor on the confidence of a detection that no second view confirms."""
    tracks: TrackConfig = TrackConfig()
    """How the hands of several people are followed."""


@dataclass(frozen=True)
class _Pack:
    """All detections as arrays, padded to D per view."""

    uv_px: Float[np.ndarray, "T V D J 2"]
    confidence: Float[np.ndarray, "T V D J"]
    present: Bool[np.ndarray, "T V D"]
    right_odds: Float[np.ndarray, "T V D"]
    """Log odds of being a right hand, by the detector; where it saw one hand twice, the mean of both answers."""
    size_px: Float[np.ndarray, "T V D"]
    group: Int[np.ndarray, "T V D"]
    """The first detection of the view that this one coincides with: its own number, unless it is a duplicate."""

    def frames(self, start: int, stop: int) -> _Pack:
        return _Pack(*(getattr(self, name)[start:stop] for name in _Pack.__dataclass_fields__))

    def chunks(self) -> list[slice]:
        """Runs of frames that are worked on at once."""
        n_frames, n_views, depth = self.present.shape
        length = max(1, CHUNK // (n_views * depth))
        return [slice(start, start + length) for start in range(0, n_frames, length)]


@dataclass(frozen=True)
class _Hypotheses:
    """Hands in space, per frame."""

    member: Int[np.ndarray, "T S V"]
    """Which detection each view contributes; -1 for none."""
    points: Float[np.ndarray, "T S J 3"]
    score: Float[np.ndarray, "T S"]
    """Sum over member views of 1 - cost / max_cost; 0 if impossible."""

    def take(self, ids: Int[np.ndarray, "T K"]) -> _Hypotheses:
        rows = np.arange(len(ids))[:, None]
        return _Hypotheses(self.member[rows, ids], self.points[rows, ids], self.score[rows, ids])

    def frames(self, frames: slice) -> _Hypotheses:
        return _Hypotheses(self.member[frames], self.points[frames], self.score[frames])

    @staticmethod
    def join(parts: Sequence[_Hypotheses]) -> _Hypotheses:
        return _Hypotheses(*(np.concatenate([getattr(p, f) for p in parts]) for f in _Hypotheses.__dataclass_fields__))


def associate(
    rig: Rig,
    detections: Sequence[Sequence[Sequence[Detection]]],
    config: AssociateConfig = AssociateConfig(),
    detector: str = "",
) -> dict[str, Labels]:
    """Labels of all hands from `detections[frame][view]`, views in the order of `rig`.

    Args:
        rig: at least two cameras.
        detector: written into the labels.

    Returns:
        {"right": Labels, "left": Labels}; a hand that never appears has no label in any frame. With the hands of several
        people these are the most seen hand of each side, and "right-2", "left-2", "right-3" ... are the further ones.
    """
    pack = _pack(detections, len(rig), config)
    cameras = rig.tensors(dtype=torch.float64)
    hypotheses = _hypotheses(cameras, pack, config)
    hands = _hands(hypotheses, pack, config)
    votes, there = _votes(hands, pack), hands.score > 0
    tracks = follow(hands.points, there, votes, _bend(hands.points), _median_palm(hypotheses), config.tracks)
    if tracks.several_people and config.max_hands > 2:
        names, which = _named(tracks)
    else:
        names, which = ["right", "left"], _two_sides(hands, _sides(hands, pack, config))
    slots, points = _slots(hands, which)
    lone = _lone_detections(cameras, pack, slots, points, config)
    return {
        name: _labels(pack, slots[:, slot], lone[:, slot], rig.names, hand_side(name), detector, config)
        for slot, name in enumerate(names)
    }


def _named(tracks: Tracks) -> tuple[list[str], Int[np.ndarray, "T N"]]:
    """Names of the tracks, and which hand of each frame each is (-1 for none); both sides have a first one, even if empty."""
    names, columns = [], []
    for side, right in (("right", True), ("left", False)):
        own = [n for n in tracks.order() if tracks.right[n] == right]
        names += [side, *(f"{side}-{k}" for k in range(2, len(own) + 1))]
        there = [tracks.track == n for n in own] or [np.zeros_like(tracks.track, dtype=bool)]
        columns += [np.where(one.any(axis=1), one.argmax(axis=1), -1) for one in there]
    return names, np.stack(columns, axis=1)


def _pack(
    detections: Sequence[Sequence[Sequence[Detection]]], n_views: int, config: AssociateConfig
) -> _Pack:
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
    return _Pack(uv, confidence, present, _shared_odds(odds, group, present), size, group)


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


def _hypotheses(cameras: Cameras, pack: _Pack, config: AssociateConfig) -> _Hypotheses:
    """Pairs of detections of two views as seeds, grown over the other views and refined once."""
    parts = []
    for frames in pack.chunks():
        part = pack.frames(frames.start, frames.stop)
        xy = _undistorted(cameras, part)
        parts.append(_grow(cameras, part, xy, _seeds(cameras, part, xy, config), config))
    return _Hypotheses.join(parts)


def _seeds(cameras: Cameras, pack: _Pack, xy: np.ndarray, config: AssociateConfig) -> Int[np.ndarray, "T S V"]:
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
    cameras: Cameras, pack: _Pack, xy: np.ndarray, member: Int[np.ndarray, "T S V"], config: AssociateConfig
) -> _Hypotheses:
    possible = _gather(pack.present, np.maximum(member, 0)) | (member < 0)
    alive = possible.all(axis=-1)
    points = _triangulate(cameras, pack, xy, member, None)
    for last in (False, True):
        distance = _distances(cameras, pack, points)
        cost = np.minimum(distance, config.distance_cap).mean(axis=-1)  # (T, S, V, D)
        best = cost.argmin(axis=-1)
        best_cost = np.take_along_axis(cost, best[..., None], axis=-1)[..., 0]
        member = np.where(best_cost < config.max_cost, best, -1)
        if not last:
            own = np.take_along_axis(distance, best[..., None, None], axis=-2)[..., 0, :]
            points = _triangulate(cameras, pack, xy, member, own)
    gain = np.where(member >= 0, 1 - best_cost / config.max_cost, 0.0)
    enough = (member >= 0).sum(axis=-1) >= 2
    return _Hypotheses(member, points, np.where(alive & enough, gain.sum(axis=-1), 0.0))


def _undistorted(cameras: Cameras, pack: _Pack) -> Float[np.ndarray, "T V D J 2"]:
    shape = pack.uv_px.shape
    flat = torch.from_numpy(pack.uv_px.reshape(*shape[:2], -1, 2))
    return undistort(cameras, flat).numpy().reshape(shape)


def _gather(values: np.ndarray, member: Int[np.ndarray, "T S V"]) -> np.ndarray:
    """values (T, V, D, ...) at member (T, S, V) -> (T, S, V, ...)."""
    t, _, v = np.ogrid[: member.shape[0], : member.shape[1], : member.shape[2]]
    return values[t, v, member]


def _triangulate(
    cameras: Cameras, pack: _Pack, xy: np.ndarray, member: np.ndarray, distance: np.ndarray | None
) -> Float[np.ndarray, "T S J 3"]:
    """Joints from the member views; `distance` (T, S, V, J) of an earlier estimate down-weights outliers (Cauchy)."""
    taken = np.maximum(member, 0)
    weight = ((member >= 0)[..., None] & (_gather(pack.confidence, taken) > 0)).astype(float)
    if distance is not None:
        weight = weight / (1 + (distance / 0.1) ** 2)
    size = _gather(pack.size_px, taken)[..., None, None]
    focal = cameras.intrinsics[:, None, :2].numpy()
    precision = torch.diag_embed(torch.from_numpy(weight[..., None] * (focal / size) ** 2))
    points, _ = triangulate_xy(cameras, torch.from_numpy(_gather(xy, taken)), precision, iterations=2)
    return points.numpy()


def _distances(cameras: Cameras, pack: _Pack, points: Float[np.ndarray, "T S J 3"]) -> Float[np.ndarray, "T S V D J"]:
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


def _palm_length(points: Float[np.ndarray, "*b J 3"]) -> Float[np.ndarray, "*b"]:
    return np.linalg.norm(points[..., MIDDLE_MCP, :] - points[..., WRIST, :], axis=-1)


def _hands(hypotheses: _Hypotheses, pack: _Pack, config: AssociateConfig) -> _Hypotheses:
    """The best hypotheses of each frame, the first two as a pair, as (T, max_hands); score 0 where there is none."""
    palm = _median_palm(hypotheses)
    plausible = _Hypotheses(hypotheses.member, hypotheses.points, _plausible_score(hypotheses, palm))
    return _Hypotheses.join(
        [_hands_of(plausible.frames(c), pack.frames(c.start, c.stop), palm, config) for c in pack.chunks()]
    )


def _hands_of(hypotheses: _Hypotheses, pack: _Pack, palm: float, config: AssociateConfig) -> _Hypotheses:
    kept = hypotheses.take(_worth_pairing(hypotheses.member, hypotheses.score, config))
    n_frames, n_kept = kept.score.shape
    group = np.where(kept.member >= 0, _gather(pack.group, np.maximum(kept.member, 0)), -1)
    shared = ((group[:, :, None] == group[:, None]) & (group[:, :, None] >= 0)).any(axis=-1)
    votes = _votes(kept, pack)
    opposite = np.maximum(votes[:, :, None] - votes[:, None], votes[:, None] - votes[:, :, None])
    total = kept.score[:, :, None] + kept.score[:, None] + config.side_weight * np.clip(opposite, -2, 2)
    clash = shared | _one_hand_twice(kept, votes, palm, config)
    allowed = ~clash & (kept.score[:, :, None] > 0) & (kept.score[:, None] > 0)
    total = np.where(allowed, total, -np.inf)
    best = total.reshape(n_frames, -1).argmax(axis=1)
    first, second = np.unravel_index(best, (n_kept, n_kept))
    lone = kept.score.argmax(axis=1)
    alone = kept.score.max(axis=1) >= total.reshape(n_frames, -1).max(axis=1)
    chosen = [np.where(alone, lone, first), np.where(alone, lone, second)]
    score = [np.take_along_axis(kept.score, one[:, None], axis=1)[:, 0] for one in chosen]
    score[1][alone] = 0.0
    rows = np.arange(n_frames)
    for _ in range(2, config.max_hands):
        free = ~np.any([clash[rows, one] for one in chosen], axis=0)
        further = np.where(free & (kept.score >= config.further_score), kept.score, 0.0)
        chosen.append(further.argmax(axis=1))
        score.append(further.max(axis=1))
        if not score[-1].any():
            break
    width = max(2, config.max_hands)
    chosen += [chosen[0]] * (width - len(chosen))
    score += [np.zeros(n_frames)] * (width - len(score))
    taken = kept.take(np.stack(chosen, axis=1))
    return _Hypotheses(taken.member, taken.points, np.stack(score, axis=1))


def _one_hand_twice(
    hands: _Hypotheses, votes: Float[np.ndarray, "T S"], palm: float, config: AssociateConfig
) -> Bool[np.ndarray, "T S S"]:
    """Pairs of hypotheses that are one hand: joints in one place, or palms in one place without the marks of two hands.

    Two hands that touch have opposite sides and are about equally well seen; a duplicate has neither.
    """
    gap = np.linalg.norm(hands.points[:, :, None] - hands.points[:, None], axis=-1).mean(axis=-1)
    centre = hands.points.mean(axis=2)
    apart = np.linalg.norm(centre[:, :, None] - centre[:, None], axis=-1)
    weaker = np.minimum(hands.score[:, :, None], hands.score[:, None])
    stronger = np.maximum(hands.score[:, :, None], hands.score[:, None])
    opposite = votes[:, :, None] * votes[:, None] < 0
    two_hands = opposite & (weaker > config.equal_score * stronger)
    return (gap < config.same_place * palm) | ((apart < config.touching * palm) & ~two_hands)


def _worth_pairing(
    member: Int[np.ndarray, "T S V"], score: Float[np.ndarray, "T S"], config: AssociateConfig
) -> Int[np.ndarray, "T K"]:
    """The best hypotheses, and the best one of every detection, so that one clear hand cannot crowd out the other."""
    best = np.argsort(-score, axis=1)[:, : max(2, config.kept_hypotheses)]
    depth = int(member.max(initial=0)) + 1
    own = [
        np.where(member[..., v] == d, score, -1.0).argmax(axis=1) for v in range(member.shape[-1]) for d in range(depth)
    ]
    return np.concatenate([best, np.stack(own, axis=1)], axis=1)


def _median_palm(hypotheses: _Hypotheses) -> float:
    """Palm length of the hands that most views agree on, in the rig's unit."""
    sure = hypotheses.score >= np.maximum(0.7 * hypotheses.score.max(axis=1, keepdims=True), 0.5)
    if not sure.any():
        return 1.0
    return float(np.median(_palm_length(hypotheses.points)[sure]))


def _plausible_score(hypotheses: _Hypotheses, palm: float) -> Float[np.ndarray, "T S"]:
    """Scores with hands of impossible size put to zero: chance agreements of two views lie at odd depths."""
    ratio = np.maximum(_palm_length(hypotheses.points), 1e-9) / palm
    return hypotheses.score * np.clip(2 - 2 * np.abs(np.log2(ratio)), 0, 1)


def _votes(hands: _Hypotheses, pack: _Pack) -> Float[np.ndarray, "T S"]:
    """Log odds that a hypothesis is a right hand: mean vote of its views plus its chirality, each within +-2."""
    taken = np.where(hands.member >= 0, _gather(pack.right_odds, np.maximum(hands.member, 0)), 0.0)
    mean = taken.sum(axis=-1) / np.maximum((hands.member >= 0).sum(axis=-1), 1)
    return np.where(hands.score > 0, np.clip(mean, -2, 2) + _bend(hands.points), 0.0)


def _bend(points_world_m: Float[np.ndarray, "*b J 3"]) -> Float[np.ndarray, "*b"]:
    """Log odds of a right hand by its chirality, within +-2."""
    return np.clip(4 * chirality(points_world_m), -2, 2)


def chirality(points_world_m: Float[np.ndarray, "*b J 3"]) -> Float[np.ndarray, "*b"]:
    """How far the fingertips lie on the side that a right hand bends to, in palm lengths; negative for a left hand.

    (index knuckle - wrist) x (little knuckle - wrist) leaves a right hand through its palm. Near 0 for a flat hand.
    """
    wrist = points_world_m[..., WRIST, :]
    normal = np.cross(points_world_m[..., 5, :] - wrist, points_world_m[..., 17, :] - wrist)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    tips = points_world_m[..., list(FINGER_TIPS), :].mean(axis=-2)
    knuckles = points_world_m[..., list(KNUCKLES), :].mean(axis=-2)
    return ((tips - knuckles) * normal).sum(axis=-1) / np.maximum(_palm_length(points_world_m), 1e-9)


def _sides(hands: _Hypotheses, pack: _Pack, config: AssociateConfig) -> Int[np.ndarray, " T"]:
    """0 where the first hypothesis is the right hand (and the second the left), 1 where it is the other way round.

    Viterbi over the frames with at least one hand. Unary: the votes. Transition, per slot: squared motion in standard
    deviations, at most `switch_cost`; a slot that is filled in one frame only costs half of that.
    """
    frames = np.flatnonzero((hands.score[:, :2] > 0).any(axis=1))
    state = np.zeros(len(hands.score), dtype=int)
    if len(frames) == 0:
        return state
    votes = _votes(hands, pack)
    right = votes[:, 0] - votes[:, 1]
    unary = np.stack([-right / 2, right / 2], axis=1)
    centre = hands.points[:, :, [WRIST, *KNUCKLES]].mean(axis=2)
    palm = _median_palm(hands)
    total, back = unary[frames[0]].copy(), []
    for before, now in pairwise(frames):
        step = np.zeros((2, 2))
        for i in (0, 1):
            for j in (0, 1):
                step[i, j] = _transition(hands, centre, before, now, i, j, palm, config)
        candidates = total[:, None] + step
        back.append(candidates.argmin(axis=0))
        total = candidates.min(axis=0) + unary[now]
    current = int(total.argmin())
    for k in range(len(frames) - 1, -1, -1):
        state[frames[k]] = current
        if k > 0:
            current = int(back[k - 1][current])
    return state


def _transition(hands, centre, before: int, now: int, i: int, j: int, palm: float, config: AssociateConfig) -> float:
    spread = palm * config.palm_lengths_per_frame * np.sqrt(now - before)
    cost = 0.0
    for slot in (0, 1):
        a, b = slot ^ i, slot ^ j  # hypothesis in this slot, before and now
        filled = (hands.score[before, a] > 0, hands.score[now, b] > 0)
        if all(filled):
            cost += min(np.square((centre[now, b] - centre[before, a]) / spread).sum() / 2, config.switch_cost)
        elif any(filled):
            cost += config.switch_cost / 2
    return cost


def _two_sides(hands: _Hypotheses, state: Int[np.ndarray, " T"]) -> Int[np.ndarray, "T 2"]:
    """Which of the first two hands of each frame is the right and which the left; -1 for none."""
    ids = np.stack([state, 1 - state], axis=1)
    return np.where(np.take_along_axis(hands.score, ids, axis=1) > 0, ids, -1)


def _slots(
    hands: _Hypotheses, which: Int[np.ndarray, "T N"]
) -> tuple[Int[np.ndarray, "T N V"], Float[np.ndarray, "T N J 3"]]:
    """Detections of each named hand in each frame and view, -1 for none, and the hands in space (NaN where none)."""
    ordered = hands.take(np.maximum(which, 0))
    filled = which >= 0
    member = np.where(filled[..., None], ordered.member, -1)
    return member, np.where(filled[..., None, None], ordered.points, np.nan)


def _lone_detections(
    cameras: Cameras, pack: _Pack, slots: np.ndarray, points: np.ndarray, config: AssociateConfig
) -> Int[np.ndarray, "T N V"]:
    """Unused detections that the same hand, triangulated in a frame nearby, vouches for; -1 elsewhere."""
    n_frames, n_slots, n_views = slots.shape
    lone = np.full_like(slots, -1)
    known = np.isfinite(points[:, :, 0, 0])
    for t in range(n_frames):
        for slot in range(n_slots):
            if known[t, slot]:
                continue
            near = [k for k in np.flatnonzero(known[:, slot]) if abs(k - t) <= config.lone_frames]
            if not near:
                continue
            nearest = min(near, key=lambda k: abs(k - t))
            distance = _distances(cameras, pack.frames(t, t + 1), points[nearest, slot][None, None])[0, 0]
            cost = np.minimum(distance, config.distance_cap).mean(axis=-1)
            for v in range(n_views):
                taken = [d for d in (*slots[t, :, v], *lone[t, :, v]) if d >= 0]
                used = {pack.group[t, v, d] for d in taken}
                free = [d for d in range(cost.shape[1]) if pack.group[t, v, d] not in used and cost[v, d] < config.lone_cost]
                if free:
                    lone[t, slot, v] = min(free, key=lambda d: cost[v, d])
    return lone


def _labels(
    pack: _Pack,
    member: np.ndarray,
    lone: np.ndarray,
    names: Sequence[str],
    side: str,
    detector: str,
    config: AssociateConfig,
) -> Labels:
    taken = np.where(member >= 0, member, lone)
    factor = np.where(member >= 0, 1.0, np.where(lone >= 0, config.lone_confidence, 0.0))
    t, v = np.ogrid[: taken.shape[0], : taken.shape[1]]
    index = np.maximum(taken, 0)
    return Labels(
        pack.uv_px[t, v, index], pack.confidence[t, v, index] * factor[..., None], tuple(names), side, detector
    )
