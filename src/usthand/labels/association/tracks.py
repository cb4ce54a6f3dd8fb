"""Hands followed over time: which hand of one frame is which hand of the next, for any number of hands.

Two hands are taken as one person's unless there are three hands at once, or two that are both clearly right (or left)
hands. Then every hand is followed by itself: nearest in space, joint by joint, over short gaps. The side is decided
once for the whole track. A step is never longer than a hand moves, so a track cannot pass from one person to another.
Legend: T frames, K hands in a frame, J joints, N tracks. Lengths are in palms, so nothing depends on the rig's unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

IMPOSSIBLE = 1e6


@dataclass(frozen=True)
class TrackConfig:
    """How hands are followed, and when they belong to several people."""

    palms_per_frame: float = 1.0
    """Standard deviation of a hand's motion between two frames; it grows with the root of the frames between. For
    several people it is less, where the footage shows less motion:"""
    usual_steps: float = 3.0
    """... this many of the hands' median steps,"""
    least_palms_per_frame: float = 0.25
    """... but never less than this."""
    deviations: float = 3.0
    """A step of more standard deviations than this leads to another hand,"""
    reach_palms: float = 4.0
    """... and so does a longer one than this, whatever the gap."""
    gap_frames: int = 60
    """A hand unseen for longer begins a new track."""
    min_share_of_frames: float = 0.02
    """A track in a smaller share of the frames is a chance agreement of two views,"""
    min_share_of_main: float = 0.1
    """... and so is one with fewer frames than this share of the longest's."""
    min_frames: int = 3
    """... or with fewer frames than this, where the sequence is that long."""
    same_side_odds: float = 1.0
    """Two hands are of one side only if both tracks' mean log odds of a right hand are beyond this, with one sign."""


@dataclass(frozen=True)
class HandTracks:
    """The track of every hand in every frame, without tracks that are too short."""

    track: Int[np.ndarray, "T K"]
    """Track of each hand, counted from 0; -1 for none."""
    right: Bool[np.ndarray, " N"]
    """Whether each track is a right hand."""
    several_people: bool
    """Whether the hands cannot all be one person's."""

    def order(self) -> list[int]:
        """The tracks' numbers, the most seen first."""
        frames = [(self.track == n).any(axis=1) for n in range(len(self.right))]
        return sorted(range(len(frames)), key=lambda n: (-frames[n].sum(), frames[n].argmax()))


def follow(
    points: Float[np.ndarray, "T K J 3"],
    there: Bool[np.ndarray, "T K"],
    odds: Float[np.ndarray, "T K"],
    bend: Float[np.ndarray, "T K"],
    palm: float,
    config: TrackConfig = TrackConfig(),
) -> HandTracks:
    """Follow hands over the frames.

    Args:
        points: Joints in space, any unit.
        there: Which hands exist.
        odds: Log odds of each hand being a right one.
        bend: The part of them that comes from the hand's shape: positive where the fingers bend as a right hand's do.
        palm: Palm length in the unit of `points`.
        config: How hands are followed.
    """
    raw = _link(points / palm, there, odds, config)
    n_frames = len(raw)
    counts = np.bincount(raw[raw >= 0], minlength=1)
    least = max(
        config.min_share_of_frames * n_frames, config.min_share_of_main * counts.max(), min(config.min_frames, n_frames)
    )
    kept = np.flatnonzero(counts >= max(least, 1))
    rename = np.full(len(counts) + 1, -1)  # the last place is that of -1
    rename[kept] = np.arange(len(kept))
    track = rename[raw]
    mean_odds, mean_bend = (
        np.array([values[track == n].mean() for n in range(len(kept))]).reshape(len(kept)) for values in (odds, bend)
    )
    several = _three_at_once(track, least) or _two_of_one_side(track, mean_odds, mean_bend, least, config)
    return HandTracks(track, mean_odds > 0, several)


def _link(
    points: Float[np.ndarray, "T K J 3"],
    there: Bool[np.ndarray, "T K"],
    odds: Float[np.ndarray, "T K"],
    config: TrackConfig,
) -> Int[np.ndarray, "T K"]:
    """Frame after frame, the cheapest matching of hands to the tracks that are still followed."""
    track = np.full(there.shape, -1)
    spread = _spread(points, there, config)
    last_points: list[np.ndarray] = []
    last_frame: list[int] = []
    sums: list[float] = []
    length: list[int] = []
    for t in range(len(there)):
        hands = np.flatnonzero(there[t])
        alive = [n for n, frame in enumerate(last_frame) if t - frame <= config.gap_frames]
        if len(hands) and alive:
            steps = t - np.array([last_frame[n] for n in alive])
            cost = _cost(np.stack([last_points[n] for n in alive]), points[t, hands], steps, spread, config)
            mean = np.array([sums[n] / length[n] for n in alive])
            cost += np.maximum(-np.tanh(mean)[:, None] * odds[t, hands], 0)  # prefers a near hand of the track's side
            # A track may also go without a hand; else two would exchange theirs to make room for a chance agreement.
            missed = np.full((len(alive), len(alive)), config.deviations**2 / 2)
            for i, j in zip(*linear_sum_assignment(np.concatenate([cost, missed], axis=1)), strict=True):
                if j < len(hands) and cost[i, j] < IMPOSSIBLE:
                    track[t, hands[j]] = alive[i]
        for hand in hands:
            n = track[t, hand]
            if n < 0:
                n = track[t, hand] = len(last_frame)
                last_points.append(points[t, hand])
                last_frame.append(t)
                sums.append(0.0)
                length.append(0)
            last_points[n], last_frame[n] = points[t, hand], t
            sums[n] += float(odds[t, hand])
            length[n] += 1
    return track


def _distance(before: Float[np.ndarray, "N J 3"], now: Float[np.ndarray, "K J 3"]) -> Float[np.ndarray, "N K"]:
    """Root mean square over the joints, so that a mirrored hand in the same place is far."""
    return np.sqrt(np.square(before[:, None] - now).sum(axis=-1).mean(axis=-1))


def _spread(points: Float[np.ndarray, "T K J 3"], there: Bool[np.ndarray, "T K"], config: TrackConfig) -> float:
    """The footage's own standard deviation of motion between two frames, palm lengths, from nearest hands."""
    steps = [
        _distance(points[t, there[t]], points[t + 1, there[t + 1]]).min(axis=1)
        for t in range(len(there) - 1)
        if there[t].any() and there[t + 1].any()
    ]
    if not steps:
        return config.palms_per_frame
    usual = config.usual_steps * float(np.median(np.concatenate(steps)))
    return float(np.clip(usual, config.least_palms_per_frame, config.palms_per_frame))


def _cost(
    before: Float[np.ndarray, "N J 3"],
    now: Float[np.ndarray, "K J 3"],
    steps: Int[np.ndarray, " N"],
    spread: float,
    config: TrackConfig,
) -> Float[np.ndarray, "N K"]:
    """Half the squared motion in standard deviations."""
    distance = _distance(before, now)
    deviation = spread * np.sqrt(steps)[:, None]
    allowed = distance <= np.minimum(config.deviations * deviation, config.reach_palms)
    return np.where(allowed, np.square(distance / deviation) / 2, IMPOSSIBLE)


def _three_at_once(track: Int[np.ndarray, "T K"], least: float) -> bool:
    return bool(((track >= 0).sum(axis=1) > 2).sum() >= max(least, 1))


def _two_of_one_side(
    track: Int[np.ndarray, "T K"],
    odds: Float[np.ndarray, " N"],
    bend: Float[np.ndarray, " N"],
    least: float,
    config: TrackConfig,
) -> bool:
    """Whether two tracks that share frames are clearly of one side, by detector and bend of the fingers alike."""
    seen = np.stack([(track == n).any(axis=1) for n in range(len(odds))]) if len(odds) else np.zeros((0, len(track)))
    for sign in (1, -1):
        clear = np.flatnonzero((sign * odds > config.same_side_odds) & (sign * bend > 0))
        for i, first in enumerate(clear):
            if any((seen[first] & seen[second]).sum() >= max(least, 1) for second in clear[i + 1 :]):
                return True
    return False
