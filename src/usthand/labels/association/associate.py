"""Which detection of which view is which hand: decided by geometry over all views and frames.

A detector works on one image at a time: it confuses sides, detects one hand twice, and invents hands. One hand in space
must agree over the views. Three steps:

1. *Candidates*, per frame. Pairs of detections of two views are triangulated. Every other view joins with the
   detection nearest to the projection, if it is near enough (`usthand.labels.association.candidates`).
2. *Hands*, per frame: the best pair of candidates that share neither a detection nor a place, then the next best as
   long as there are any. Two detections of one view that coincide count as one, so they cannot become two hands.
3. *Sides*, over the sequence. The detector's sides and the hand's chirality (fingers bend to the palm) give the log
   odds of a side, and motion ties the frames together. For one person's two hands, dynamic programming finds the
   cheapest assignment exactly. More hands are followed one by one (`usthand.labels.association.tracks`).

Detections that join no candidate are dropped, unless they fit the same hand in neighbouring frames.
Legend: T frames, V views, D detections in a view, S candidates, J joints, N named hands. Thresholds are fractions of
the hand's size in pixels or of the palm's length in space, so nothing depends on the unit of the rig.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from usthand.capture.rig import Rig
from usthand.common.progress import Progress, silent
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
CLEAR_BEND = 0.5
"""Log odds of a side beyond which it is clear."""
DEFAULT = AssociateConfig()


def associate(
    rig: Rig,
    detections: Sequence[Sequence[Sequence[Detection]]],
    config: AssociateConfig = DEFAULT,
    detector: str = "",
    progress: Progress = silent,
) -> dict[str, Labels]:
    """Labels of all hands.

    Args:
        rig: At least two cameras.
        detections: [frame][view], views in the order of `rig`.
        config: Thresholds.
        detector: What made the detections; written into the labels.
        progress: Called for the frames done ("telling hands apart").

    Returns:
        {"right": Labels, "left": Labels}; a hand that never appears has no label in any frame. With the hands of
        several people these are the most seen of each side; "right-2", "left-2", "right-3" ... are the further ones.
    """
    pack = pack_detections(detections, len(rig), config)
    cameras = rig.tensors(dtype=torch.float64)
    candidates = find_candidates(cameras, pack, config, progress)
    hands = _hands(candidates, pack, config)
    odds, there = _right_odds(hands, pack), hands.score > 0
    tracks = follow(hands.points, there, odds, _bend_odds(hands.points), median_palm(candidates), config.tracks)
    if tracks.several_people and config.max_hands > 2:
        names, which = _named(tracks)
    else:
        names, which = ["right", "left"], _two_sides(hands, _sides(hands, odds, config))
    slots, points = _slots(hands, which)
    lone = _lone_detections(cameras, pack, slots, points, config)
    factor = np.where(slots >= 0, 1.0, np.where(lone >= 0, config.lone_confidence, 0.0))
    taken = np.maximum(np.where(slots >= 0, slots, lone), 0)
    uv_px, confidence = gather(pack.uv_px, taken), gather(pack.confidence, taken) * factor[..., None]
    return {
        name: Labels(uv_px[:, slot], confidence[:, slot], rig.names, hand_side(name), detector)
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
    bend = _bend_odds(hands.points)
    detector = _right_odds(hands, pack) - bend
    clear = (hands.score > 0) & (np.abs(bend) > CLEAR_BEND) & (np.abs(detector) > CLEAR_BEND)
    return int((clear & (bend * detector > 0)).sum()), int(clear.sum())


def _named(tracks: HandTracks) -> tuple[list[str], Int[np.ndarray, "T N"]]:
    """Names of the tracks, and which hand of each frame each is, -1 for none; both sides have a first one."""
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
    odds = _right_odds(kept, pack)
    opposite = np.abs(odds[:, :, None] - odds[:, None])
    total = kept.score[:, :, None] + kept.score[:, None] + config.side_weight * np.minimum(opposite, 2)
    clash = shared | _one_hand_twice(kept, odds, palm, config)
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
    hands: Candidates, odds: Float[np.ndarray, "T S"], palm: float, config: AssociateConfig
) -> Bool[np.ndarray, "T S S"]:
    """Pairs of candidates that are one hand: joints in one place, or palms in one place without the signs of two hands.

    Two hands that touch have opposite sides and similar scores; a duplicate has neither.
    """
    gap = np.linalg.norm(hands.points[:, :, None] - hands.points[:, None], axis=-1).mean(axis=-1)
    centre = hands.points.mean(axis=2)
    apart = np.linalg.norm(centre[:, :, None] - centre[:, None], axis=-1)
    weaker = np.minimum(hands.score[:, :, None], hands.score[:, None])
    stronger = np.maximum(hands.score[:, :, None], hands.score[:, None])
    opposite = odds[:, :, None] * odds[:, None] < 0
    two_hands = opposite & (weaker > config.equal_score * stronger)
    return (gap < config.same_place * palm) | ((apart < config.touching * palm) & ~two_hands)


def _worth_pairing(
    member: Int[np.ndarray, "T S V"], score: Float[np.ndarray, "T S"], config: AssociateConfig
) -> Int[np.ndarray, "T K"]:
    """The best candidates, and the best one of every detection, so that one clear hand cannot crowd out the other."""
    best = np.argsort(-score, axis=1)[:, : max(2, config.kept_candidates)]
    depth = int(member.max(initial=0)) + 1
    own = [
        np.where(member[..., v] == d, score, -1.0).argmax(axis=1) for v in range(member.shape[-1]) for d in range(depth)
    ]
    return np.concatenate([best, np.stack(own, axis=1)], axis=1)


def _right_odds(hands: Candidates, pack: Pack) -> Float[np.ndarray, "T S"]:
    """Log odds that a candidate is a right hand: the mean of its views plus its chirality's, each within +-2."""
    taken = np.where(hands.member >= 0, gather(pack.right_odds, np.maximum(hands.member, 0)), 0.0)
    mean = taken.sum(axis=-1) / np.maximum((hands.member >= 0).sum(axis=-1), 1)
    return np.where(hands.score > 0, np.clip(mean, -2, 2) + _bend_odds(hands.points), 0.0)


def _bend_odds(points_world: Float[np.ndarray, "*b J 3"]) -> Float[np.ndarray, "*b"]:
    """Log odds of a right hand by its chirality, within +-2."""
    return np.clip(4 * chirality(points_world), -2, 2)


def chirality(points_world: Float[np.ndarray, "*b J 3"]) -> Float[np.ndarray, "*b"]:
    """How far the fingertips lie on the side that a right hand bends to, in palm lengths; negative for a left hand.

    (index knuckle - wrist) x (little knuckle - wrist) leaves a right hand through its palm. Near 0 for a flat hand.
    """
    wrist = points_world[..., WRIST, :]
    normal = np.cross(points_world[..., 5, :] - wrist, points_world[..., 17, :] - wrist)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    tips = points_world[..., list(FINGER_TIPS), :].mean(axis=-2)
    knuckles = points_world[..., list(KNUCKLES), :].mean(axis=-2)
    return ((tips - knuckles) * normal).sum(axis=-1) / np.maximum(palm_length(points_world), 1e-9)


def _sides(hands: Candidates, odds: Float[np.ndarray, "T S"], config: AssociateConfig) -> Int[np.ndarray, " T"]:
    """0 where the first candidate is the right hand (and the second the left), 1 where it is the other way round.

    Viterbi over the frames with at least one hand. Unary cost: the log odds. Transition cost, per side: squared motion
    in standard deviations, at most `switch_cost`; a side that is there in one of the frames only costs half of that.
    """
    filled = hands.score[:, :2] > 0
    frames = np.flatnonzero(filled.any(axis=1))
    state = np.zeros(len(filled), dtype=int)
    if len(frames) == 0:
        return state
    right = odds[:, 0] - odds[:, 1]
    unary = np.stack([-right / 2, right / 2], axis=1)
    centre = hands.points[:, :2, [WRIST, *KNUCKLES]].mean(axis=2)
    spread = median_palm(hands) * config.tracks.palms_per_frame
    total, back = unary[frames[0]].copy(), []
    for before, now in pairwise(frames):
        motion = (centre[now] - centre[before][:, None]) / (spread * np.sqrt(now - before))
        one_of_two = np.where(filled[before][:, None] | filled[now], config.switch_cost / 2, 0.0)
        both = filled[before][:, None] & filled[now]
        cost = np.where(both, np.minimum(np.square(motion).sum(axis=-1) / 2, config.switch_cost), one_of_two)
        total = total[:, None] + (cost + cost[::-1, ::-1])  # of the right hand and of the left one
        back.append(total.argmin(axis=0))
        total = total.min(axis=0) + unary[now]
    current = int(total.argmin())
    for frame, origin in zip(frames[:0:-1], reversed(back), strict=True):
        state[frame] = current
        current = int(origin[current])
    state[frames[0]] = current
    return state


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
    """Unused detections near the same hand as triangulated in a neighbouring frame; -1 elsewhere."""
    lone = np.full_like(slots, -1)
    known = np.isfinite(points[:, :, 0, 0])
    for t, slot in np.argwhere(~known):
        near = np.flatnonzero(known[:, slot])
        away = np.abs(near - t)
        if not len(near) or away.min() > config.lone_frames:
            continue
        hand = points[near[away.argmin()], slot]
        distance = distances(cameras, pack.frames(slice(t, t + 1)), hand[None, None])[0, 0]
        for v, cost in enumerate(np.minimum(distance, config.distance_cap).mean(axis=-1)):
            used = [pack.group[t, v, d] for d in (*slots[t, :, v], *lone[t, :, v]) if d >= 0]
            cost = np.where(np.isin(pack.group[t, v], used), np.inf, cost)
            if cost.min() < config.lone_cost:
                lone[t, slot, v] = cost.argmin()
    return lone
