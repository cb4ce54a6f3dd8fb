"""Which detection of which view is which hand: decided by geometry over all views and frames.

A detector looks at one image at a time: it confuses sides, sees one hand twice, and invents hands. What is one hand in
space must agree over the views. Three steps:

1. *Candidates*, per frame. Pairs of detections of two views are triangulated; the other views join with the
   detection nearest to its projection, if near enough (`usthand.labels.association.candidates`).
2. *Hands*, per frame: the best pair of candidates that share no detection and no place, and then, as long as there are
   any, the next best. Two detections of one view that coincide are one detection: no two hands can have one each.
3. *Sides*, over the sequence: the detector's votes and the hand's chirality (fingers bend to the palm) speak for a
   side, continuity in space ties the frames together; the cheapest labelling of one person's two hands is found exactly
   by dynamic programming. Where there are more hands than that, each is followed by itself (`usthand.labels.association.tracks`).

Detections that join no candidate are dropped, unless the same hand in neighbouring frames vouches for them.
Legend: T frames, V views, D detections in a view, S candidates, J joints. Thresholds are fractions of the hand's size
in pixels or of the palm's length in space, so nothing depends on the unit of the rig.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from usthand.capture.rig import Rig
from usthand.geometry.cameras import Cameras
from usthand.hand.skeleton import FINGER_TIPS, WRIST, palm_length
from usthand.labels.association.candidates import (
    AssociateConfig,
    Candidates,
    Pack,
    distances,
    find_candidates,
    gather,
    median_palm,
    pack_detections,
    plausible_score,
)
from usthand.labels.association.tracks import HandTracks, follow
from usthand.labels.labels import Detection, Labels, hand_side

KNUCKLES = (5, 9, 13, 17)
CLEAR_BEND = 0.5  # log odds of a side that mean something
DEFAULT = AssociateConfig()


def associate(
    rig: Rig,
    detections: Sequence[Sequence[Sequence[Detection]]],
    config: AssociateConfig = DEFAULT,
    detector: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Labels]:
    """Labels of all hands from `detections[frame][view]`, views in the order of `rig`.

    Args:
        rig: at least two cameras.
        detector: written into the labels.
        progress: called with (frames done, frames in all).

    Returns:
        {"right": Labels, "left": Labels}; a hand that never appears has no label in any frame. With the hands of several
        people these are the most seen hand of each side, and "right-2", "left-2", "right-3" ... are the further ones.
    """
    pack = pack_detections(detections, len(rig), config)
    cameras = rig.tensors(dtype=torch.float64)
    candidates = find_candidates(cameras, pack, config, progress)
    hands = _hands(candidates, pack, config)
    votes, there = _votes(hands, pack), hands.score > 0
    tracks = follow(hands.points, there, votes, _bend(hands.points), median_palm(candidates), config.tracks)
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


def side_agreement(
    rig: Rig, detections: Sequence[Sequence[Sequence[Detection]]], config: AssociateConfig = DEFAULT
) -> tuple[int, int]:
    """How often a detector's sides agree with the hands' own: (hands that agree, hands that clearly bend to one side).

    A detector that names sides as in a mirror agrees with next to none.
    """
    pack = pack_detections(detections, len(rig), config)
    hands = _hands(find_candidates(rig.tensors(dtype=torch.float64), pack, config), pack, config)
    bend = _bend(hands.points)
    detector = _votes(hands, pack) - bend
    clear = (hands.score > 0) & (np.abs(bend) > CLEAR_BEND) & (np.abs(detector) > CLEAR_BEND)
    return int((clear & (bend * detector > 0)).sum()), int(clear.sum())


def _named(tracks: HandTracks) -> tuple[list[str], Int[np.ndarray, "T N"]]:
    """Names of the tracks, and which hand of each frame each is (-1 for none); both sides have a first one, even if empty."""
    names, columns = [], []
    for side, right in (("right", True), ("left", False)):
        own = [n for n in tracks.order() if tracks.right[n] == right]
        names += [side, *(f"{side}-{k}" for k in range(2, len(own) + 1))]
        there = [tracks.track == n for n in own] or [np.zeros_like(tracks.track, dtype=bool)]
        columns += [np.where(one.any(axis=1), one.argmax(axis=1), -1) for one in there]
    return names, np.stack(columns, axis=1)


def _hands(candidates: Candidates, pack: Pack, config: AssociateConfig) -> Candidates:
    """The best candidates of each frame, the first two as a pair, as (T, max_hands); score 0 where there is none."""
    palm = median_palm(candidates)
    plausible = Candidates(candidates.member, candidates.points, plausible_score(candidates))
    return Candidates.join([_hands_of(plausible.frames(c), pack.frames(c), palm, config) for c in pack.chunks()])


def _hands_of(candidates: Candidates, pack: Pack, palm: float, config: AssociateConfig) -> Candidates:
    kept = candidates.take(_worth_pairing(candidates.member, candidates.score, config))
    n_frames, n_kept = kept.score.shape
    group = np.where(kept.member >= 0, gather(pack.group, np.maximum(kept.member, 0)), -1)
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
    return Candidates(taken.member, taken.points, np.stack(score, axis=1))


def _one_hand_twice(
    hands: Candidates, votes: Float[np.ndarray, "T S"], palm: float, config: AssociateConfig
) -> Bool[np.ndarray, "T S S"]:
    """Pairs of candidates that are one hand: joints in one place, or palms in one place without the marks of two hands.

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
    """The best candidates, and the best one of every detection, so that one clear hand cannot crowd out the other."""
    best = np.argsort(-score, axis=1)[:, : max(2, config.kept_hypotheses)]
    depth = int(member.max(initial=0)) + 1
    own = [
        np.where(member[..., v] == d, score, -1.0).argmax(axis=1) for v in range(member.shape[-1]) for d in range(depth)
    ]
    return np.concatenate([best, np.stack(own, axis=1)], axis=1)


def _votes(hands: Candidates, pack: Pack) -> Float[np.ndarray, "T S"]:
    """Log odds that a candidate is a right hand: mean vote of its views plus its chirality, each within +-2."""
    taken = np.where(hands.member >= 0, gather(pack.right_odds, np.maximum(hands.member, 0)), 0.0)
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
    return ((tips - knuckles) * normal).sum(axis=-1) / np.maximum(palm_length(points_world_m), 1e-9)


def _sides(hands: Candidates, pack: Pack, config: AssociateConfig) -> Int[np.ndarray, " T"]:
    """0 where the first candidate is the right hand (and the second the left), 1 where it is the other way round.

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
    palm = median_palm(hands)
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
    spread = palm * config.tracks.palms_per_frame * np.sqrt(now - before)
    cost = 0.0
    for slot in (0, 1):
        a, b = slot ^ i, slot ^ j  # candidate in this slot, before and now
        filled = (hands.score[before, a] > 0, hands.score[now, b] > 0)
        if all(filled):
            cost += min(np.square((centre[now, b] - centre[before, a]) / spread).sum() / 2, config.switch_cost)
        elif any(filled):
            cost += config.switch_cost / 2
    return cost


def _two_sides(hands: Candidates, state: Int[np.ndarray, " T"]) -> Int[np.ndarray, "T 2"]:
    """Which of the first two hands of each frame is the right and which the left; -1 for none."""
    ids = np.stack([state, 1 - state], axis=1)
    return np.where(np.take_along_axis(hands.score, ids, axis=1) > 0, ids, -1)


def _slots(
    hands: Candidates, which: Int[np.ndarray, "T N"]
) -> tuple[Int[np.ndarray, "T N V"], Float[np.ndarray, "T N J 3"]]:
    """Detections of each named hand in each frame and view, -1 for none, and the hands in space (NaN where none)."""
    ordered = hands.take(np.maximum(which, 0))
    filled = which >= 0
    member = np.where(filled[..., None], ordered.member, -1)
    return member, np.where(filled[..., None, None], ordered.points, np.nan)


def _lone_detections(
    cameras: Cameras, pack: Pack, slots: np.ndarray, points: np.ndarray, config: AssociateConfig
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
            distance = distances(cameras, pack.frames(slice(t, t + 1)), points[nearest, slot][None, None])[0, 0]
            cost = np.minimum(distance, config.distance_cap).mean(axis=-1)
            for v in range(n_views):
                taken = [d for d in (*slots[t, :, v], *lone[t, :, v]) if d >= 0]
                used = {pack.group[t, v, d] for d in taken}
                free = [
                    d for d in range(cost.shape[1]) if pack.group[t, v, d] not in used and cost[v, d] < config.lone_cost
                ]
                if free:
                    lone[t, slot, v] = min(free, key=lambda d: cost[v, d])
    return lone


def _labels(
    pack: Pack,
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
