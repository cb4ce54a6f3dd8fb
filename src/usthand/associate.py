"""Which detection of which view is the right hand, and which the left: decided by geometry over all views and frames.

A detector looks at one image at a time: it confuses sides, sees one hand twice, and invents hands. What is one hand in
space must agree over the views. Three steps:

1. *Hypotheses*, per frame. Pairs of detections of two views are triangulated; the other views join with the
   detection nearest to its projection, if near enough. Distances are fractions of the hand's size in that view.
2. *Two hands*, per frame: the best pair of hypotheses that share no detection and no place.
3. *Sides*, over the sequence: the detector's votes and the hand's chirality (fingers bend to the palm) speak for a
   side, continuity in space ties the frames together; the cheapest labelling is found exactly by dynamic programming.

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
from usthand.labels import MIN_HAND_PX, Detection, Labels
from usthand.rig import Rig
from usthand.skeleton import FINGER_TIPS, MIDDLE_MCP, N_JOINTS, WRIST

KNUCKLES = (5, 9, 13, 17)
FAR = 1e3  # hand sizes
MIN_JOINTS = 8  # a detection with fewer joints cannot be told from another hand


@dataclass(frozen=True)
class AssociateConfig:
    """Thresholds of the association; see the file's head."""

    max_detections: int = 4
    """Detections kept per view and frame, the surest first."""
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


@dataclass(frozen=True)
class _Pack:
    """All detections as arrays, padded to D per view."""

    uv_px: Float[np.ndarray, "T V D J 2"]
    confidence: Float[np.ndarray, "T V D J"]
    present: Bool[np.ndarray, "T V D"]
    right_odds: Float[np.ndarray, "T V D"]
    """Log odds of being a right hand, by the detector."""
    size_px: Float[np.ndarray, "T V D"]


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


def associate(
    rig: Rig,
    detections: Sequence[Sequence[Sequence[Detection]]],
    config: AssociateConfig = AssociateConfig(),
    detector: str = "",
) -> dict[str, Labels]:
    """Labels of both hands from `detections[frame][view]`, views in the order of `rig`.

    Args:
        rig: at least two cameras.
        detector: written into the labels.

    Returns:
        {"right": Labels, "left": Labels}; a hand that never appears has no label in any frame.
    """
    pack = _pack(detections, len(rig), config.max_detections)
    cameras = rig.tensors(dtype=torch.float64)
    hypotheses = _hypotheses(cameras, pack, config)
    chosen = _two_hands(hypotheses, pack, config)
    state = _sides(chosen, pack, config)
    slots, points = _slots(chosen, state)
    lone = _lone_detections(cameras, pack, slots, points, config)
    return {
        side: _labels(pack, slots[:, slot], lone[:, slot], rig.names, side, detector, config)
        for slot, side in enumerate(("right", "left"))
    }


def _pack(detections: Sequence[Sequence[Sequence[Detection]]], n_views: int, max_detections: int) -> _Pack:
    n_frames = len(detections)
    depth = max([1, *(len(view) for frame in detections for view in frame)])
    shape = (n_frames, n_views, min(depth, max_detections))
    uv, confidence = np.zeros((*shape, N_JOINTS, 2)), np.zeros((*shape, N_JOINTS))
    present, odds = np.zeros(shape, dtype=bool), np.zeros(shape)
    for t, frame in enumerate(detections):
        for v, view in enumerate(frame):
            for d, found in enumerate(sorted(view, key=lambda one: -one.score)[:max_detections]):
                uv[t, v, d], confidence[t, v, d] = found.uv_px, found.confidence
                present[t, v, d] = np.count_nonzero(found.confidence) >= MIN_JOINTS
                sure = np.clip(found.score, 0.5, 0.95)
                odds[t, v, d] = np.log(sure / (1 - sure)) * (1 if found.side == "right" else -1)
    seen = (confidence > 0)[..., None]
    span = np.where(seen, uv, -np.inf).max(axis=-2) - np.where(seen, uv, np.inf).min(axis=-2)
    size = np.maximum(np.where(present, span.max(axis=-1), 0.0), MIN_HAND_PX)
    # A single box shrinks with the pose; the view's usual size is the fairer yardstick for a flat, edge-on hand.
    usual = np.array([np.median(size[:, v][present[:, v]]) if present[:, v].any() else 0.0 for v in range(n_views)])
    return _Pack(uv, confidence, present, odds, np.maximum(size, 0.7 * usual[None, :, None]))


def _hypotheses(cameras: Cameras, pack: _Pack, config: AssociateConfig, chunk: int = 32) -> _Hypotheses:
    """Pairs of detections of two views as seeds, grown over the other views and refined once."""
    parts = []
    for start in range(0, len(pack.present), chunk):
        part = _Pack(*(getattr(pack, name)[start : start + chunk] for name in _Pack.__dataclass_fields__))
        xy = _undistorted(cameras, part)
        parts.append(_grow(cameras, part, xy, _seeds(cameras, part, xy, config), config))
    return _Hypotheses(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in _Hypotheses.__dataclass_fields__)
    )


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


def _two_hands(hypotheses: _Hypotheses, pack: _Pack, config: AssociateConfig) -> _Hypotheses:
    """The best hypotheses of each frame, two at most, as (T, 2); score 0 where there is none."""
    score = _plausible_score(hypotheses)
    kept = _Hypotheses(hypotheses.member, hypotheses.points, score).take(
        _worth_pairing(hypotheses.member, score, config)
    )
    n_frames, n_kept = kept.score.shape
    shared = ((kept.member[:, :, None] == kept.member[:, None]) & (kept.member[:, :, None] >= 0)).any(axis=-1)
    votes = _votes(kept, pack)
    opposite = np.maximum(votes[:, :, None] - votes[:, None], votes[:, None] - votes[:, :, None])
    total = kept.score[:, :, None] + kept.score[:, None] + config.side_weight * np.clip(opposite, -2, 2)
    twice = _one_hand_twice(kept, votes, _median_palm(hypotheses), config)
    allowed = ~(shared | twice) & (kept.score[:, :, None] > 0) & (kept.score[:, None] > 0)
    total = np.where(allowed, total, -np.inf)
    best = total.reshape(n_frames, -1).argmax(axis=1)
    first, second = np.unravel_index(best, (n_kept, n_kept))
    lone = kept.score.argmax(axis=1)
    alone = kept.score.max(axis=1) >= total.reshape(n_frames, -1).max(axis=1)
    ids = np.stack([np.where(alone, lone, first), np.where(alone, lone, second)], axis=1)
    chosen = kept.take(ids)
    chosen.score[alone, 1] = 0.0
    return chosen


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


def _plausible_score(hypotheses: _Hypotheses) -> Float[np.ndarray, "T S"]:
    """Scores with hands of impossible size put to zero: chance agreements of two views lie at odd depths."""
    ratio = np.maximum(_palm_length(hypotheses.points), 1e-9) / _median_palm(hypotheses)
    return hypotheses.score * np.clip(2 - 2 * np.abs(np.log2(ratio)), 0, 1)


def _votes(hands: _Hypotheses, pack: _Pack) -> Float[np.ndarray, "T S"]:
    """Log odds that a hypothesis is a right hand: mean vote of its views plus its chirality, each within +-2."""
    taken = np.where(hands.member >= 0, _gather(pack.right_odds, np.maximum(hands.member, 0)), 0.0)
    mean = taken.sum(axis=-1) / np.maximum((hands.member >= 0).sum(axis=-1), 1)
    return np.where(hands.score > 0, np.clip(mean, -2, 2) + np.clip(4 * chirality(hands.points), -2, 2), 0.0)


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
    frames = np.flatnonzero((hands.score > 0).any(axis=1))
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


def _slots(
    hands: _Hypotheses, state: Int[np.ndarray, " T"]
) -> tuple[Int[np.ndarray, "T 2 V"], Float[np.ndarray, "T 2 J 3"]]:
    """Detections (right, left) of each frame and view, -1 for none, and the triangulated hands (NaN where none)."""
    ids = np.stack([state, 1 - state], axis=1)
    ordered = hands.take(ids)
    filled = ordered.score > 0
    member = np.where(filled[..., None], ordered.member, -1)
    return member, np.where(filled[..., None, None], ordered.points, np.nan)


def _lone_detections(
    cameras: Cameras, pack: _Pack, slots: np.ndarray, points: np.ndarray, config: AssociateConfig
) -> Int[np.ndarray, "T 2 V"]:
    """Unused detections that the same hand, triangulated in a frame nearby, vouches for; -1 elsewhere."""
    n_frames, _, n_views = slots.shape
    lone = np.full_like(slots, -1)
    known = np.isfinite(points[:, :, 0, 0])
    for t in range(n_frames):
        for slot in (0, 1):
            if known[t, slot]:
                continue
            near = [k for k in np.flatnonzero(known[:, slot]) if abs(k - t) <= config.lone_frames]
            if not near:
                continue
            nearest = min(near, key=lambda k: abs(k - t))
            one = _Pack(*(getattr(pack, name)[t : t + 1] for name in _Pack.__dataclass_fields__))
            distance = _distances(cameras, one, points[nearest, slot][None, None])[0, 0]
            cost = np.minimum(distance, config.distance_cap).mean(axis=-1)
            for v in range(n_views):
                used = {slots[t, 1 - slot, v], lone[t, 1 - slot, v]}
                free = [d for d in range(cost.shape[1]) if d not in used and cost[v, d] < config.lone_cost]
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
