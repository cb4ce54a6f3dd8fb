"""The timing of each camera, by Gauss-Newton on the residuals of all pairs, with standard errors.

First robustly on a few joints and frames (`refine`), then sharply (`sharpen`): on all joints and many frames, with the
errors that a hand's joints have in common weighted down (docs/development/offsets.md).

Legend: T frames, V views, K points, B blocks of time, W = 2 V parameters: offsets, then drifts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from usthand.diagnostics.agreement import MIN_POINTS
from usthand.diagnostics.ray_tracks import RayTracks, spread
from usthand.hand.skeleton import N_JOINTS

FINE_FRAMES, SHARP_FRAMES = 160, 1000
ROUNDS, SHARP_ROUNDS = 10, 25
SHARP_STEP = 1.5  # of a Gauss-Newton step: noise in the slopes makes these too short by a third or more
MAX_LEFT = 0.8  # of the way, after a step: more is seen only before convergence
SHRINK = 0.1  # of the joints' correlations, against too few samples
CORE = 2.5  # robust scales within which residuals count in full
BLOCKS = 10
REFERENCE_TOLERANCE = 0.3


@dataclass(frozen=True)
class Timing:
    """How each camera's time runs."""

    offset: Float[np.ndarray, "V"]
    """Frames, at the middle of the capture."""
    drift: Float[np.ndarray, "V"]
    """Frames per frame."""
    offset_error: Float[np.ndarray, "V"]
    """Standard errors."""
    drift_error: Float[np.ndarray, "V"]
    middle: float
    cost: float
    """Robust mean of the residuals, hand sizes."""
    slope: Float[np.ndarray, "V"]
    """Mean size of a residual's change from frame to frame, hand sizes, over the pairs of each view."""

    def at(self, frames: Int[np.ndarray, "T"]) -> Float[np.ndarray, "V T"]:
        """Offsets at frames."""
        return self.offset[:, None] + self.drift[:, None] * (frames - self.middle)


@dataclass(frozen=True)
class Clock:
    """The frames at which residuals are taken, and how a camera's time follows from (offset, drift * span)."""

    frames: Float[np.ndarray, "T"]
    block: Int[np.ndarray, "T"]
    """The stretch of time of each frame, for the standard errors."""
    middle: float
    span: float

    @classmethod
    def of(cls, tracks: RayTracks, frames: Int[np.ndarray, "T"]) -> Clock:
        """A clock at these frames of the capture."""
        block = np.minimum((np.arange(len(frames)) * BLOCKS) // len(frames), BLOCKS - 1)
        middle = (tracks.n_frames - 1) / 2
        return cls(frames.astype(float), block, middle, max(middle, 1.0))

    @property
    def part(self) -> Float[np.ndarray, "T"]:
        """The frames on a scale from -1 to 1 over the capture."""
        return (self.frames - self.middle) / self.span


def refine(
    tracks: RayTracks, offset: Float[np.ndarray, "V"], drift: Float[np.ndarray, "V"], with_drift: bool
) -> Timing:
    """Gauss-Newton on offsets and drifts from a start within a frame or so, robustly weighted.

    The slope in time is taken over the two frames around. It is then uncorrelated with the noise of interpolated
    labels, and the minimum is not drawn to half frames, where interpolation averages noise away.
    """
    n, clock = len(tracks.views), Clock.of(tracks, spread(tracks.seen, FINE_FRAMES))
    beta = np.concatenate([offset, drift * clock.span])
    rounds = 0
    while True:
        equations = _normal_equations(tracks, clock, beta)
        step = _solve(equations.normal.sum(0), equations.moment.sum(0), with_drift)
        beta, rounds = beta - np.clip(step, -2, 2), rounds + 1
        if np.abs(step).max() < 5e-3 or rounds == ROUNDS:
            break
    beta, errors = _relative(beta, equations, with_drift)
    cost, slope, span = equations.cost, equations.slope, clock.span
    return Timing(beta[:n], beta[n:] / span, errors[:n], errors[n:] / span, clock.middle, cost, slope)


def sharpen(tracks: RayTracks, timing: Timing, with_drift: bool) -> Timing:
    """The same with all joints, and what they have in common weighted down; from a start within half a frame or so."""
    n, clock = len(tracks.views), Clock.of(tracks, spread(tracks.seen, SHARP_FRAMES))
    beta = np.concatenate([timing.offset, timing.drift * clock.span])
    size, left, rounds = np.inf, 0.0, 0
    while True:
        equations = _normal_equations(tracks, clock, beta, sharp=True)
        if not np.trace(equations.normal.sum(0)) > 0:
            return timing
        step = SHARP_STEP * _solve(equations.normal.sum(0), equations.moment.sum(0), with_drift)
        beta, rounds = beta - np.clip(step, -0.5, 0.5), rounds + 1
        before, size = size, float(np.linalg.norm(step))
        left = min(size / max(before, 1e-9), MAX_LEFT)
        if np.abs(step).max() < 3e-3 or rounds == SHARP_ROUNDS:
            break
    beta, errors = _relative(beta, equations, with_drift)
    # A step that leaves a part of the way was too short by that part, and so is the jackknife's.
    errors = errors * SHARP_STEP / (1 - left)
    offset, drift, offset_error, drift_error = beta[:n], beta[n:] / clock.span, errors[:n], errors[n:] / clock.span
    return replace(timing, offset=offset, drift=drift, offset_error=offset_error, drift_error=drift_error)


class PairResiduals(NamedTuple):
    """Residuals of a pair of views, and how they change with either's time."""

    residual: Float[np.ndarray, "T K"]
    slope_i: Float[np.ndarray, "T K"]
    slope_j: Float[np.ndarray, "T K"]
    known: Bool[np.ndarray, "T K"]

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> PairResiduals:
        """With a linear change of the residuals, and so of their slopes."""
        return PairResiduals(change(self.residual), change(self.slope_i), change(self.slope_j), self.known)


class NormalEquations(NamedTuple):
    """Gauss-Newton's equations for each block of time, and what goes with them."""

    normal: Float[np.ndarray, "B W W"]
    moment: Float[np.ndarray, "B W"]
    cost: float
    """See `Timing.cost`; NaN if no two views share enough labels."""
    slope: Float[np.ndarray, "V"]
    """See `Timing.slope`."""


Sample = list[tuple[np.ndarray, np.ndarray]]
"""Rays of a view and where there are any, at its times, a frame later and a frame before (`RayTracks.at`)."""


def _pair_residuals(tracks: RayTracks, i: int, j: int, sample_i: Sample, sample_j: Sample) -> PairResiduals:
    (ri, ki), (ri_up, ki_up), (ri_down, ki_down) = sample_i
    (rj, kj), (rj_up, kj_up), (rj_down, kj_down) = sample_j
    slope_i = (tracks.miss(i, j, ri_up, rj) - tracks.miss(i, j, ri_down, rj)) / 2
    slope_j = (tracks.miss(i, j, ri, rj_up) - tracks.miss(i, j, ri, rj_down)) / 2
    return PairResiduals(tracks.miss(i, j, ri, rj), slope_i, slope_j, ki & kj & ki_up & ki_down & kj_up & kj_down)


def _joint_covariance(
    residual: Float[np.ndarray, "N 21"], known: Bool[np.ndarray, "N 21"]
) -> Float[np.ndarray, "21 21"]:
    """How the joints of a hand err together; bursts of large residuals count little."""
    columns = zip(residual.T, known.T, strict=True)
    scale = np.array([np.median(np.abs(column[k])) if k.any() else 0.0 for column, k in columns])
    scale = 1.48 * np.maximum(scale, 1e-4)
    size = ((residual / scale) ** 2).sum(1) / np.maximum(known.sum(1), 1)
    weight = known / (1 + size / CORE**2)[:, None]
    products = (weight * residual).T @ (weight * residual)
    covariance = products / np.maximum(weight.T @ weight, 1e-9)
    covariance = (1 - SHRINK) * covariance + SHRINK * np.diag(np.diag(covariance))
    # Where joints are missing now and then, the estimate need not be a covariance.
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 1e-2 * values.mean() + 1e-12)) @ vectors.T


def _decorrelated(pairs: dict[tuple[int, int], PairResiduals]) -> dict[tuple[int, int], PairResiduals]:
    """Residuals and slopes in coordinates in which the joints of a hand err independently, by the same amount.

    A detector shifts whole hands and fingers. So what moves all joints alike says little about time; what turns the
    hand or bends a finger says much.
    """

    def hands(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, N_JOINTS)

    pairs = {p: rows.changed(lambda x, known=rows.known: np.where(known, x, 0.0)) for p, rows in pairs.items()}
    residual, known = (np.concatenate([hands(rows[part]) for rows in pairs.values()]) for part in (0, 3))
    covariance = _joint_covariance(residual, known)
    result = {}
    for pair, rows in pairs.items():
        # Each row of 21 bits as a number: far faster than `np.unique` along an axis.
        known = hands(rows.known)
        _, first, which = np.unique(known @ (1 << np.arange(N_JOINTS)), return_index=True, return_inverse=True)
        patterns = known[first]
        both = patterns[:, :, None] & patterns[:, None, :]
        seen = np.where(both, covariance, 0.0) + np.eye(N_JOINTS) * ~patterns[:, None, :]
        white = np.linalg.inv(np.linalg.cholesky(seen))[which]
        result[pair] = rows.changed(lambda x, white=white: np.einsum("nab,nb->na", white, hands(x)).reshape(x.shape))
    return result


def _normal_equations(
    tracks: RayTracks, clock: Clock, beta: Float[np.ndarray, "W"], sharp: bool = False
) -> NormalEquations:
    n, points = len(tracks.views), slice(None) if sharp else tracks.some
    time = clock.frames + beta[:n, None] + beta[n:, None] * clock.part
    samples = [[tracks.at(v, time[v] + shift, points) for shift in (0.0, 1.0, -1.0)] for v in range(n)]
    pairs = {(i, j): _pair_residuals(tracks, i, j, samples[i], samples[j]) for i, j in _some_pairs(n)}
    pairs = {pair: rows for pair, rows in pairs.items() if rows.known.sum() >= MIN_POINTS}
    if sharp and pairs:
        pairs = _decorrelated(pairs)
    normal, moment = np.zeros((BLOCKS, 2 * n, 2 * n)), np.zeros((BLOCKS, 2 * n))
    if not pairs:
        return NormalEquations(normal, moment, np.nan, np.zeros(n))
    scale = 1.48 * np.median(np.abs(np.concatenate([rows.residual[rows.known] for rows in pairs.values()])))
    scale = max(scale, 1e-4)
    total, count, sums = 0.0, 0, np.zeros(n)
    for (i, j), (z, slope_i, slope_j, known) in pairs.items():
        weight = np.where(known, (1 + (z / (CORE * scale)) ** 2) ** -2, 0.0)
        rows = np.stack((slope_i, slope_j, slope_i * clock.part[:, None], slope_j * clock.part[:, None]))
        index = np.array((i, j, n + i, n + j))
        sums[[i, j]] += weight.sum()
        weighted, block = weight * rows, clock.block[:, None]
        np.add.at(moment, (block, index), np.einsum("atk,tk->ta", weighted, z))
        np.add.at(normal, (block[..., None], index[:, None], index), np.einsum("atk,btk->tab", weighted, rows))
        total += np.minimum(np.abs(z[known]), 5 * scale).sum()
        count += known.sum()
    weight = np.maximum(sums, 1e-9)
    slope = np.sqrt(normal.sum(0).diagonal()[:n] / weight)
    return NormalEquations(normal, moment, float(total / count), slope)


def _some_pairs(n: int) -> list[tuple[int, int]]:
    """All pairs of up to five views; of more views each with a few others, which is as accurate and faster."""
    return [(i, j) for i, j in combinations(range(n), 2) if n <= 5 or min(j - i, n - j + i) in (1, 2, n // 2)]


def _solve(
    normal: Float[np.ndarray, "W W"], moment: Float[np.ndarray, "W"], with_drift: bool
) -> Float[np.ndarray, "W"]:
    """A step; the common shift of all cameras, which nothing determines, is held."""
    n = len(moment) // 2
    damped = normal + 1e-9 * max(np.trace(normal), 1e-12) * np.eye(2 * n)
    for part in (slice(0, n), slice(n, 2 * n)):
        damped[part, part] += max(np.trace(normal[part, part]), 1e-12) / n
    if not with_drift:
        step = np.zeros(2 * n)
        step[:n] = np.linalg.solve(damped[:n, :n], moment[:n])
        return step
    return np.linalg.solve(damped, moment)


def _relative(
    beta: Float[np.ndarray, "W"], equations: NormalEquations, with_drift: bool
) -> tuple[Float[np.ndarray, "W"], Float[np.ndarray, "W"]]:
    """Offsets and drifts relative to the largest group of cameras that agree, and their standard errors.

    The standard errors are the jackknife's over blocks of time.
    """
    n, (normal, moment) = len(beta) // 2, equations[:2]
    used = np.flatnonzero(np.abs(np.einsum("bii->b", normal)) > 0)
    steps = [-_solve(normal.sum(0) - normal[b], moment.sum(0) - moment[b], with_drift) for b in used]
    steps = np.array(steps) if steps else np.zeros((1, 2 * n))
    near = np.abs(beta[:n, None] - beta[:n]) < REFERENCE_TOLERANCE
    reference = near[near.sum(1).argmax()]

    def relative(values: Float[np.ndarray, "*b W"]) -> Float[np.ndarray, "*b W"]:
        halves = (values[..., :n], values[..., n:])
        return np.concatenate([half - half[..., reference].mean(-1, keepdims=True) for half in halves], axis=-1)

    moved, count = relative(steps), len(steps)
    errors = np.sqrt((count - 1) / count * ((moved - moved.mean(0)) ** 2).sum(0))
    return relative(beta), errors


def as_it_is(tracks: RayTracks) -> Timing:
    """The timing without offsets."""
    none, clock = np.zeros(len(tracks.views)), Clock.of(tracks, spread(tracks.seen, FINE_FRAMES))
    equations = _normal_equations(tracks, clock, np.concatenate([none, none]))
    return Timing(none, none, none, none, clock.middle, equations.cost, equations.slope)
