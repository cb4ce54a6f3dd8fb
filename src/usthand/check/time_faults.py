"""Videos out of step: by how many frames each one lags, and whether it runs at another speed.

The model: frame k + offset + drift (k - middle) of a camera's video is the instant k of the reference. Labels between
frames are interpolated. A coarse search over whole frames finds offsets of seconds; Gauss-Newton on the signed residual of
all pairs then finds fractions of a frame and the drift: first on a few joints and frames, then sharply, on all joints and
many frames, with the errors that a hand's joints have in common weighed out. A standard error comes from leaving out
stretches of time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from usthand.check.evidence import CAP, MIN_POINTS, Case, View, make_views, ray_miss
from usthand.skeleton import N_JOINTS

JOINTS = (0, 4, 5, 8, 9, 13, 17, 20)  # that are looked at first: the palm and some tips
RANGE_S = 4.0
MAX_RANGE_SHARE = 0.4  # of the capture: two thirds must still overlap
COARSE_JOINTS = (0, 5, 8, 17)  # in the search over whole frames: wrist, index knuckle and tip, little knuckle
COARSE_FRAMES, FINE_FRAMES, SHARP_FRAMES = 40, 160, 1000
MAX_FRAMES = 2000  # of longer captures only some stretches are looked at
STRETCHES, STRETCH_CORE = 6, 80
SEGMENTS = 3  # stretches of time that are searched by themselves, so that a large drift is found
MIN_SEGMENT = 40
ROUNDS, SHARP_ROUNDS = 10, 25
SHARP_STEP = 1.5  # of a Gauss-Newton step: noise in the slopes makes these too short by a third or more
MAX_LEFT = 0.8  # of the way, by a step: more is not seen but before convergence
SHRINK = 0.1  # of the joints' correlations, against too few samples
CORE = 2.5  # robust scales within which residuals count in full
BLOCKS = 10
MIN_OFFSET = 0.5
"""Frames: less cannot be mended by whole frames, and no usual camera is nearer than that without a wire."""

MIN_STANDARD_ERRORS = 5.0
MIN_NOISE_SHARE = 1.0
"""An offset must move the labels, on average, by at least this many times their residual. Below, the part of the label noise
that follows the hand's pose, and so its motion, is easily mistaken for time; no amount of data averages that out."""

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


class Tracks:
    """Rays of every view over time, (V, 3, T, K), with gaps, and what the pairs need to know."""

    def __init__(self, case: Case, reach: int):
        n_frames, n_points = case.uv_px.shape[0], case.uv_px.shape[2]
        self.some, self.coarse = (
            np.array([h + j for h in range(0, n_points, N_JOINTS) for j in joints]) for joints in (JOINTS, COARSE_JOINTS)
        )
        self.n_frames = n_frames
        used, self.core = _stretches(n_frames, reach)
        self.views: list[View] = make_views(replace(case, uv_px=case.uv_px[used], present=case.present[used]))
        self.rays = np.zeros((len(self.views), 3, n_frames, n_points))
        self.present = np.zeros((len(self.views), n_frames, n_points), bool)
        for v, view in enumerate(self.views):
            rays = view.rays.reshape(3, len(used), n_points)
            self.present[v, used] = view.present.reshape(len(used), n_points) & np.isfinite(rays).all(0)
            self.rays[v][:, used] = np.where(self.present[v, used], rays, 0.0)
        self.seen = self.core[(self.present[..., self.some].any(2).sum(0) >= 2)[self.core]]

    def at(self, view: int, time: np.ndarray, points: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Rays (3, T, K) of the points at fractional frames (T,), and where there are any (T, K)."""
        all_rays, all_present = self.rays[view][..., points], self.present[view][:, points]
        low = np.floor(time).astype(int)
        part = time - low
        high = low + (part > 1e-9)
        inside = (low >= 0) & (high < self.n_frames)
        low, high = np.clip(low, 0, self.n_frames - 1), np.clip(high, 0, self.n_frames - 1)
        one, two, part = all_rays[:, low], all_rays[:, high], part[..., None]
        rays = (1 - part) * one + part * two
        known = all_present[low] & all_present[high] & inside[..., None]
        length = np.sqrt((rays**2).sum(0))
        return rays / np.maximum(length, 1e-9), known

    def miss(self, i: int, j: int, rays_i: np.ndarray, rays_j: np.ndarray) -> np.ndarray:
        """Signed residual in hand sizes, +-CAP where the rays do not meet in front."""
        a, b = self.views[i], self.views[j]
        base = (b.centre - a.centre).reshape(3, *([1] * (rays_j.ndim - 1)))
        miss, behind = ray_miss(base, rays_i, rays_j, a.size_rad, b.size_rad)
        return np.where(behind | ~np.isfinite(miss), CAP, np.clip(miss, -CAP, CAP))


def _stretches(n_frames: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames to load, and those of them that have `reach` loaded frames around: all, or of long captures some stretches."""
    if n_frames <= MAX_FRAMES:
        return np.arange(n_frames), np.arange(n_frames)
    half = STRETCH_CORE // 2
    middles = np.linspace(half, n_frames - 1 - half, STRETCHES).round().astype(int)
    core = np.unique(np.concatenate([m + np.arange(-half, half + 1) for m in middles]))
    used = np.unique(np.concatenate([m + np.arange(-half - reach, half + reach + 1) for m in middles]))
    return used[(used >= 0) & (used < n_frames)], core


def search_range(n_frames: int, fps: float) -> int:
    """Frames to look to each side."""
    return int(min(round(RANGE_S * fps), MAX_RANGE_SHARE * n_frames))


# ---- whole frames ---------------------------------------------------------------------------------------------------


def coarse_curves(tracks: Tracks, reach: int, step: int, frames: np.ndarray) -> np.ndarray:
    """(V, V, 2 reach / step + 1): residual of view i at `frames` with view j so many steps later; NaN where too few
    overlap."""
    lags = np.arange(-reach, reach + 1) * step
    n = len(tracks.views)
    curves = np.full((n, n, len(lags)), np.nan)
    inside = np.clip(frames[None] + lags[:, None], 0, tracks.n_frames - 1)
    valid = (inside == frames[None] + lags[:, None])[..., None]
    for i, j in combinations(range(n), 2):
        rays_i, known_i = tracks.rays[i][:, frames][..., tracks.coarse], tracks.present[i][frames][:, tracks.coarse]
        rays_j, known_j = tracks.rays[j][:, inside][..., tracks.coarse], tracks.present[j][inside][..., tracks.coarse]
        both = known_i[None] & known_j & valid
        miss = np.abs(tracks.miss(i, j, rays_i[:, None], rays_j))
        curves[i, j] = _medians(np.where(both, miss, np.nan).reshape(len(lags), -1), both.reshape(len(lags), -1))
        curves[j, i] = curves[i, j, ::-1]
    return curves


def _medians(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Median of the known ones in each row; NaN for rows with less than a third of the fullest row's."""
    count = known.sum(1)
    enough = (count >= MIN_POINTS) & (count >= count.max(initial=0) / 3)
    ordered = np.sort(np.where(known, values, np.inf), axis=1)
    middle = np.take_along_axis(ordered, np.maximum(count // 2, 0)[:, None].clip(max=values.shape[1] - 1), 1)[:, 0]
    return np.where(enough, middle, np.nan)


def coarse_offsets(curves: np.ndarray) -> tuple[np.ndarray, float]:
    """Whole-frame offsets (V,) of least total residual, and that residual; a view without evidence stays at 0.

    From each view in turn as a starting point, then one view at a time is moved to where it fits all others best.
    """
    n, reach = len(curves), curves.shape[2] // 2
    empty = np.isnan(curves).all(2)
    padded = np.where(np.isnan(curves), CAP, curves)
    padded[empty] = 0.0
    # A lag beyond the range costs as much as no agreement at all.
    wide = np.full((n, n, 6 * reach + 1), CAP)
    wide[empty] = 0.0
    wide[:, :, 2 * reach : 4 * reach + 1] = padded
    best = np.zeros(n, int)
    best_cost = _coarse_cost(wide, best)
    for root in range(n):
        offsets = np.where(empty[root], 0, padded[root].argmin(1) - reach)
        offsets[root] = 0
        for _ in range(4):
            for v in range(n):
                others = [u for u in range(n) if u != v]
                rows = sum(wide[u, v, 2 * reach - offsets[u] : 4 * reach - offsets[u] + 1] for u in others)
                offsets[v] = rows.argmin() - reach
        offsets = np.clip(offsets - _mode(offsets), -reach, reach)
        cost = _coarse_cost(wide, offsets)
        if cost < best_cost - 1e-9:
            best, best_cost = offsets, cost
    return best, best_cost


def _coarse_cost(wide: np.ndarray, offsets: np.ndarray) -> float:
    lag = offsets[None] - offsets[:, None] + wide.shape[2] // 2
    values = np.take_along_axis(wide, lag[..., None], 2)[..., 0]
    return float(values[~np.eye(len(offsets), dtype=bool)].mean())


def _mode(offsets: np.ndarray) -> int:
    values, counts = np.unique(offsets, return_counts=True)
    return int(values[counts == counts.max()][np.abs(values[counts == counts.max()]).argmin()])


# ---- fractions of a frame -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clock:
    """Where residuals are looked at, and how a camera's time follows from the parameters (offset, drift * span)."""

    frames: np.ndarray
    block: np.ndarray
    """(T,) the stretch of time of each frame, for the standard errors."""
    middle: float
    span: float

    @classmethod
    def of(cls, tracks: Tracks, frames: np.ndarray) -> Clock:
        block = np.minimum((np.arange(len(frames)) * BLOCKS) // len(frames), BLOCKS - 1)
        middle = (tracks.n_frames - 1) / 2
        return cls(frames.astype(float), block, middle, max(middle, 1.0))

    @property
    def part(self) -> np.ndarray:
        return (self.frames - self.middle) / self.span


def refine(tracks: Tracks, offset: np.ndarray, drift: np.ndarray, with_drift: bool) -> Timing:
    """Gauss-Newton on offsets and drifts from a start within a frame or so, robustly weighted.

    The slope in time is taken over two frames around, which leaves it uncorrelated with the noise of interpolated labels:
    the minimum is not drawn to half frames, where interpolation averages noise away.
    """
    n, clock = len(tracks.views), Clock.of(tracks, _spread(tracks.seen, FINE_FRAMES))
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


def sharpen(tracks: Tracks, timing: Timing, with_drift: bool) -> Timing:
    """The same with all joints and what they have in common weighed out; from a start within half a frame or so."""
    n, clock = len(tracks.views), Clock.of(tracks, _spread(tracks.seen, SHARP_FRAMES))
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


def _pair_rows(tracks: Tracks, i: int, j: int, sample_i: list, sample_j: list) -> Rows:
    """`sample`: rays of a view and where there are any, at its times, a frame later and a frame before."""
    (ri, ki), (ri_up, ki_up), (ri_down, ki_down) = sample_i
    (rj, kj), (rj_up, kj_up), (rj_down, kj_down) = sample_j
    slope_i = (tracks.miss(i, j, ri_up, rj) - tracks.miss(i, j, ri_down, rj)) / 2
    slope_j = (tracks.miss(i, j, ri, rj_up) - tracks.miss(i, j, ri, rj_down)) / 2
    return Rows(tracks.miss(i, j, ri, rj), slope_i, slope_j, ki & kj & ki_up & ki_down & kj_up & kj_down)


def _joint_covariance(residual: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How the joints of a hand err together, (21, 21), from residuals (N, 21), of which bursts count little."""
    scale = np.array([np.median(np.abs(column[k])) if k.any() else 0.0 for column, k in zip(residual.T, known.T, strict=True)])
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
    residual, known = (np.concatenate([hands(getattr(rows, name)) for rows in pairs.values()]) for name in ("residual", "known"))
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


def _normal_equations(tracks: Tracks, clock: Clock, beta: np.ndarray, sharp: bool = False):
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

    spread = relative(steps)
    count = len(steps)
    errors = np.sqrt((count - 1) / count * ((spread - spread.mean(0)) ** 2).sum(0))
    return relative(beta), errors


# ---- all together ---------------------------------------------------------------------------------------------------


def estimate_timing(case: Case, fps: float) -> tuple[Timing, Timing] | None:
    """(the timing found, the timing of no offsets) or None if there is too little to go by.

    Several starts are refined and the one of least cost wins: no offset, the best whole-frame offsets, and a drift that
    joins the offsets of stretches of time. A drift that is not beyond doubt is left out.
    """
    n, reach = len(case.cameras), search_range(case.uv_px.shape[0], fps)
    if reach < 2 or n < 2:
        return None
    tracks = Tracks(case, reach)
    if len(tracks.seen) < 12:
        return None
    step = max(1, round(fps / 15))
    curves = coarse_curves(tracks, reach // step, step, _spread(tracks.seen, COARSE_FRAMES))
    whole = step * coarse_offsets(curves)[0].astype(float)
    zero = _as_it_is(tracks)
    starts = [np.zeros(n), whole] if whole.any() else [np.zeros(n)]
    constant = [t for t in (refine(tracks, start, np.zeros(n), False) for start in starts) if np.isfinite(t.cost)]
    if not constant or not np.isfinite(zero.cost):
        return None
    best = min(constant, key=lambda t: t.cost)
    sloped = [(best.offset, best.drift), *_sloped_starts(tracks, reach, step)]
    drifting = [t for t in (refine(tracks, *start, True) for start in sloped) if np.isfinite(t.cost)]
    drifting = min(drifting, key=lambda t: t.cost, default=best)
    if drifting.cost < best.cost:
        drifting = sharpen(tracks, drifting, True)
        if _drifts(drifting, tracks.n_frames).any():
            return drifting, zero
    return sharpen(tracks, best, False), zero


def _spread(frames: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the frames, evenly."""
    return np.unique(frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)])


def _as_it_is(tracks: Tracks) -> Timing:
    """The timing of no offsets."""
    none, clock = np.zeros(len(tracks.views)), Clock.of(tracks, _spread(tracks.seen, FINE_FRAMES))
    cost, slope = _normal_equations(tracks, clock, np.concatenate([none, none]))[2:]
    return Timing(none, none, none, none, clock.middle, cost, slope)


def _sloped_starts(tracks: Tracks, reach: int, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A line through the offsets of stretches of time, where these differ."""
    if tracks.n_frames < SEGMENTS * MIN_SEGMENT:
        return []
    middle = (tracks.n_frames - 1) / 2
    parts = np.array_split(tracks.seen, SEGMENTS)
    curves = [coarse_curves(tracks, reach // step, step, _spread(part, COARSE_FRAMES // 2)) for part in parts]
    offsets = step * np.array([coarse_offsets(c)[0] for c in curves], float)
    if np.abs(offsets - offsets[0]).max() <= step:
        return []
    where = np.array([part.mean() - middle for part in parts])
    slope = (offsets[-1] - offsets[0]) / (where[-1] - where[0])
    return [(np.median(offsets - slope * where[:, None], axis=0), slope)]


def _drifts(timing: Timing, n_frames: int) -> np.ndarray:
    """Views that drift by more than `MIN_OFFSET` over the capture, beyond doubt."""
    over_all, error = np.abs(timing.drift) * n_frames, timing.drift_error * n_frames
    # Over the capture the offset changes by +-half of that around its middle, by a quarter of it on average.
    matters = over_all / 4 * timing.slope > MIN_NOISE_SHARE * timing.cost
    return (over_all > MIN_OFFSET) & (over_all > MIN_STANDARD_ERRORS * error) & matters


def out_of_step(timing: Timing, before: Timing, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """(offset, drift): which views are out of step, (V,) bool each."""
    if timing.cost >= before.cost:
        none = np.zeros(len(timing.offset), bool)
        return none, none
    size, error = np.abs(timing.offset), timing.offset_error
    matters = size * timing.slope > MIN_NOISE_SHARE * timing.cost
    return (size > MIN_OFFSET) & (size > MIN_STANDARD_ERRORS * error) & matters, _drifts(timing, n_frames)


def in_step(case: Case, timing: Timing) -> Case:
    """Labels as they would be if all videos ran with the reference: interpolated in time, absent where there are none."""
    uv, present = np.zeros_like(case.uv_px), np.zeros_like(case.present)
    n_frames = len(uv)
    frames = np.arange(n_frames)
    for v, time in enumerate(frames + timing.at(frames)):
        low = np.floor(time).astype(int)
        part = (time - low)[:, None]
        high = low + (part[:, 0] > 1e-9)
        inside = (low >= 0) & (high < n_frames)
        low, high = np.clip(low, 0, n_frames - 1), np.clip(high, 0, n_frames - 1)
        present[:, v] = case.present[low, v] & case.present[high, v] & inside[:, None]
        uv[:, v] = (1 - part[..., None]) * case.uv_px[low, v] + part[..., None] * case.uv_px[high, v]
    return replace(case, uv_px=uv, present=present)
