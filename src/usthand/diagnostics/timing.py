"""How each camera's time runs, by Gauss-Newton on the residuals of all pairs, with standard errors.

First robustly on a few joints and frames (`refine`), then sharply (`sharpen`): on all joints and many frames, with the errors
that a hand's joints have in common weighed out (docs/notes/offsets.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from usthand.diagnostics.agreement import MIN_POINTS
from usthand.diagnostics.ray_tracks import RayTracks, spread
from usthand.hand.skeleton import N_JOINTS

FINE_FRAMES, SHARP_FRAMES = 160, 1000
ROUNDS, SHARP_ROUNDS = 10, 25
SHARP_STEP = 1.5  # of a Gauss-Newton step: noise in the slopes makes these too short by a third or more
MAX_LEFT = 0.8  # of the way, by a step: more is not seen but before convergence
SHRINK = 0.1  # of the joints' correlations, against too few samples
CORE = 2.5  # robust scales within which residuals count in full
BLOCKS = 10
REFERENCE_TOLERANCE = 0.3


@dataclass(frozen=True)
class Timing:
    """How each camera's time runs."""

    offset: np.ndarray
    """(V,) frames, at the middle of the capture."""
    drift: np.ndarray
    """(V,) frames per frame."""
    offset_error: np.ndarray
    """(V,) standard errors."""
    drift_error: np.ndarray
    middle: float
    cost: float
    """Robust mean of the residuals, hand sizes."""
    slope: np.ndarray
    """(V,) mean size of a residual's change from frame to frame, hand sizes, over the pairs of each view."""

    def at(self, frame: np.ndarray) -> np.ndarray:
        """Offsets at frames: (V, ...)."""
        extra = (slice(None), *([None] * np.ndim(frame)))
        return self.offset[extra] + self.drift[extra] * (np.asarray(frame) - self.middle)


@dataclass(frozen=True)
class Clock:
    """Where residuals are looked at, and how a camera's time follows from the parameters (offset, drift * span)."""

    frames: np.ndarray
    block: np.ndarray
    """(T,) the stretch of time of each frame, for the standard errors."""
    middle: float
    span: float

    @classmethod
    def of(cls, tracks: RayTracks, frames: np.ndarray) -> Clock:
        block = np.minimum((np.arange(len(frames)) * BLOCKS) // len(frames), BLOCKS - 1)
        middle = (tracks.n_frames - 1) / 2
        return cls(frames.astype(float), block, middle, max(middle, 1.0))

    @property
    def part(self) -> np.ndarray:
        return (self.frames - self.middle) / self.span


def refine(tracks: RayTracks, offset: np.ndarray, drift: np.ndarray, with_drift: bool) -> Timing:
    """Gauss-Newton on offsets and drifts from a start within a frame or so, robustly weighted.

    The slope in time is taken over two frames around, which leaves it uncorrelated with the noise of interpolated labels:
    the minimum is not drawn to half frames, where interpolation averages noise away.
    """
    n, clock = len(tracks.views), Clock.of(tracks, spread(tracks.seen, FINE_FRAMES))
    beta = np.concatenate([offset, drift * clock.span])
    normal = moment = slope = None
    cost = np.nan
    for _ in range(ROUNDS):
        normal, moment, cost, slope = _normal_equations(tracks, clock, beta)
        step = _solve(normal.sum(0), moment.sum(0), with_drift)
        beta = beta - np.clip(step, -2, 2)
        if np.abs(step).max() < 5e-3:
            break
    beta, errors = _relative(beta, normal, moment, with_drift)
    return Timing(beta[:n], beta[n:] / clock.span, errors[:n], errors[n:] / clock.span, clock.middle, cost, slope)


def sharpen(tracks: RayTracks, timing: Timing, with_drift: bool) -> Timing:
    """The same with all joints and what they have in common weighed out; from a start within half a frame or so."""
    n, clock = len(tracks.views), Clock.of(tracks, spread(tracks.seen, SHARP_FRAMES))
    beta = np.concatenate([timing.offset, timing.drift * clock.span])
    size, left = np.inf, 0.0
    for _ in range(SHARP_ROUNDS):
        normal, moment = _normal_equations(tracks, clock, beta, sharp=True)[:2]
        if not np.trace(normal.sum(0)) > 0:
            return timing
        step = SHARP_STEP * _solve(normal.sum(0), moment.sum(0), with_drift)
        beta = beta - np.clip(step, -0.5, 0.5)
        before, size = size, np.linalg.norm(step)
        left = min(size / max(before, 1e-9), MAX_LEFT)
        if np.abs(step).max() < 3e-3:
            break
    beta, errors = _relative(beta, normal, moment, with_drift)
    # A step that leaves a part of the way was too short by so much, and so is the jackknife's.
    errors = errors * SHARP_STEP / (1 - left)
    offset, drift, offset_error, drift_error = beta[:n], beta[n:] / clock.span, errors[:n], errors[n:] / clock.span
    return replace(timing, offset=offset, drift=drift, offset_error=offset_error, drift_error=drift_error)


class Rows(NamedTuple):
    """Residuals of a pair of views, (T, K) each, and how they change with either's time."""

    residual: np.ndarray
    slope_i: np.ndarray
    slope_j: np.ndarray
    known: np.ndarray


def _pair_rows(tracks: RayTracks, i: int, j: int, sample_i: list, sample_j: list) -> Rows:
    """`sample`: rays of a view and where there are any, at its times, a frame later and a frame before."""
    (ri, ki), (ri_up, ki_up), (ri_down, ki_down) = sample_i
    (rj, kj), (rj_up, kj_up), (rj_down, kj_down) = sample_j
    slope_i = (tracks.miss(i, j, ri_up, rj) - tracks.miss(i, j, ri_down, rj)) / 2
    slope_j = (tracks.miss(i, j, ri, rj_up) - tracks.miss(i, j, ri, rj_down)) / 2
    return Rows(tracks.miss(i, j, ri, rj), slope_i, slope_j, ki & kj & ki_up & ki_down & kj_up & kj_down)


def _joint_covariance(residual: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How the joints of a hand err together, (21, 21), from residuals (N, 21), of which bursts count little."""
    scale = np.array(
        [np.median(np.abs(column[k])) if k.any() else 0.0 for column, k in zip(residual.T, known.T, strict=True)]
    )
    scale = 1.48 * np.maximum(scale, 1e-4)
    size = ((residual / scale) ** 2).sum(1) / np.maximum(known.sum(1), 1)
    weight = known / (1 + size / CORE**2)[:, None]
    products = (weight * residual).T @ (weight * residual)
    covariance = products / np.maximum(weight.T @ weight, 1e-9)
    covariance = (1 - SHRINK) * covariance + SHRINK * np.diag(np.diag(covariance))
    # Where joints are missing now and then, the estimate need not be a covariance.
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 1e-2 * values.mean() + 1e-12)) @ vectors.T


def _decorrelated(pairs: dict[tuple[int, int], Rows]) -> dict[tuple[int, int], Rows]:
    """Residuals and slopes in coordinates in which the joints of a hand err independently, by the same amount.

    A detector shifts whole hands and fingers. What moves all joints alike says little about time, then; what turns the hand
    or bends a finger says much.
    """

    def hands(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, N_JOINTS)

    pairs = {pair: Rows(*(np.where(rows.known, x, 0.0) for x in rows[:3]), rows.known) for pair, rows in pairs.items()}
    residual, known = (
        np.concatenate([hands(getattr(rows, name)) for rows in pairs.values()]) for name in ("residual", "known")
    )
    covariance = _joint_covariance(residual, known)
    result = {}
    for pair, rows in pairs.items():
        patterns, which = np.unique(hands(rows.known), axis=0, return_inverse=True)
        both = patterns[:, :, None] & patterns[:, None, :]
        seen = np.where(both, covariance, 0.0) + np.eye(N_JOINTS) * ~patterns[:, None, :]
        white = np.linalg.inv(np.linalg.cholesky(seen))[which.ravel()]
        parts = (np.einsum("nab,nb->na", white, hands(x)).reshape(x.shape) for x in rows[:3])
        result[pair] = Rows(*parts, rows.known)
    return result


def _normal_equations(tracks: RayTracks, clock: Clock, beta: np.ndarray, sharp: bool = False):
    """Per block of time: (B, 2V, 2V) and (B, 2V); the robust cost, and each view's slope (V,)."""
    n, points = len(tracks.views), slice(None) if sharp else tracks.some
    time = clock.frames + beta[:n, None] + beta[n:, None] * clock.part
    samples = [[tracks.at(v, time[v] + shift, points) for shift in (0.0, 1.0, -1.0)] for v in range(n)]
    pairs = {(i, j): _pair_rows(tracks, i, j, samples[i], samples[j]) for i, j in _some_pairs(n)}
    pairs = {pair: rows for pair, rows in pairs.items() if rows.known.sum() >= MIN_POINTS}
    if sharp and pairs:
        pairs = _decorrelated(pairs)
    normal, moment = np.zeros((BLOCKS, 2 * n, 2 * n)), np.zeros((BLOCKS, 2 * n))
    if not pairs:
        return normal, moment, np.nan, np.zeros(n)
    scale = 1.48 * np.median(np.abs(np.concatenate([rows.residual[rows.known] for rows in pairs.values()])))
    scale = max(scale, 1e-4)
    total, count, sums = 0.0, 0, np.zeros(n)
    for (i, j), (z, slope_i, slope_j, known) in pairs.items():
        weight = np.where(known, (1 + (z / (CORE * scale)) ** 2) ** -2, 0.0)
        parts = (slope_i, slope_j, slope_i * clock.part[:, None], slope_j * clock.part[:, None])
        index = (i, j, n + i, n + j)
        sums[[i, j]] += weight.sum()
        for a, row in zip(index, parts, strict=True):
            moment[:, a] += np.bincount(clock.block, (weight * row * z).sum(1), BLOCKS)
            for b, column in zip(index, parts, strict=True):
                normal[:, a, b] += np.bincount(clock.block, (weight * row * column).sum(1), BLOCKS)
        total += np.minimum(np.abs(z[known]), 5 * scale).sum()
        count += known.sum()
    weight = np.maximum(sums, 1e-9)
    return normal, moment, total / count, np.sqrt(normal.sum(0).diagonal()[:n] / weight)


def _some_pairs(n: int) -> list[tuple[int, int]]:
    """All pairs of up to five views; of more, every view with a few others, which ties them as well for less time."""
    return [(i, j) for i, j in combinations(range(n), 2) if n <= 5 or min(j - i, n - j + i) in (1, 2, n // 2)]


def _solve(normal: np.ndarray, moment: np.ndarray, with_drift: bool) -> np.ndarray:
    """Steps (2V,); the common shift of all cameras, which nothing determines, is held."""
    n = len(moment) // 2
    damped = normal + 1e-9 * max(np.trace(normal), 1e-12) * np.eye(2 * n)
    for part in (slice(0, n), slice(n, 2 * n)):
        damped[part, part] += max(np.trace(normal[part, part]), 1e-12) / n
    if not with_drift:
        step = np.zeros(2 * n)
        step[:n] = np.linalg.solve(damped[:n, :n], moment[:n])
        return step
    return np.linalg.solve(damped, moment)


def _relative(beta, normal, moment, with_drift):
    """Offsets and drifts relative to the cameras that agree with each other the most, and their standard errors by the
    jackknife over blocks of time."""
    n = len(beta) // 2
    kept = np.abs(np.einsum("bii->b", normal)) > 0
    steps = []
    for b in np.flatnonzero(kept):
        steps.append(-_solve(normal.sum(0) - normal[b], moment.sum(0) - moment[b], with_drift))
    steps = np.array(steps) if steps else np.zeros((1, 2 * n))
    offset = beta[:n]
    near = np.abs(offset[:, None] - offset[None]) < REFERENCE_TOLERANCE
    reference = near[near.sum(1).argmax()]

    def relative(values):
        return np.concatenate(
            [
                values[..., :n] - values[..., :n][..., reference].mean(-1, keepdims=True),
                values[..., n:] - values[..., n:][..., reference].mean(-1, keepdims=True),
            ],
            axis=-1,
        )

    moved = relative(steps)
    count = len(steps)
    errors = np.sqrt((count - 1) / count * ((moved - moved.mean(0)) ** 2).sum(0))
    return relative(beta), errors


def as_it_is(tracks: RayTracks) -> Timing:
    """The timing of no offsets."""
    none, clock = np.zeros(len(tracks.views)), Clock.of(tracks, spread(tracks.seen, FINE_FRAMES))
    cost, slope = _normal_equations(tracks, clock, np.concatenate([none, none]))[2:]
    return Timing(none, none, none, none, clock.middle, cost, slope)
