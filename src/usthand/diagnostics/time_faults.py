"""Videos out of step: by how many frames each one lags, and whether it runs at another speed.

The model: frame k + offset + drift (k - middle) of a camera's video is the instant k of the reference. Labels between
frames are interpolated. A coarse search over whole frames finds offsets of seconds. `usthand.diagnostics.timing` then
finds fractions of a frame and the drift, with standard errors.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from usthand.diagnostics.agreement import CAP, MIN_POINTS, Case
from usthand.diagnostics.ray_tracks import RayTracks, spread
from usthand.diagnostics.timing import Timing, as_it_is, refine, sharpen

RANGE_S = 4.0
MAX_RANGE_SHARE = 0.4  # of the capture: more than half must still overlap
COARSE_FRAMES = 40
SEGMENTS = 3  # stretches of time that are searched separately, so that a large drift is found
MIN_SEGMENT = 40
MIN_OFFSET = 0.5
"""Frames. Less cannot be fixed by whole frames, and cameras that are not synchronised by wire are rarely closer."""

MIN_STANDARD_ERRORS = 5.0
LONG_FRAMES = 240
MIN_NOISE_SHARE, LONG_NOISE_SHARE = 1.0, 0.25
"""An offset must move the labels, on average, by at least this many times their residual. In short captures the part of
the label noise that follows the hand's pose, and so its motion, is easily mistaken for time, and ten stretches are too
short for an estimate of the error. From `LONG_FRAMES` on standard errors are reliable."""

MIN_CUT, LONG_CUT = 1.15, 1.0
"""... and putting the video in step must cut the medians of the pairs' residuals by this factor."""


def search_range(n_frames: int, fps: float) -> int:
    """How many frames to search on each side."""
    return int(min(round(RANGE_S * fps), MAX_RANGE_SHARE * n_frames))


# ---- whole frames --------------------------------------------------------------------------------------------------


def coarse_curves(
    tracks: RayTracks, reach: int, step: int, frames: Int[np.ndarray, "F"]
) -> Float[np.ndarray, "V V lags"]:
    """Residual of view i at `frames` with view j later by -reach to reach steps; NaN where too few overlap."""
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


def _medians(values: Float[np.ndarray, "N M"], known: Bool[np.ndarray, "N M"]) -> Float[np.ndarray, "N"]:
    """Median of the known ones in each row; NaN for rows with less than a third of the fullest row's."""
    count = known.sum(1)
    enough = (count >= MIN_POINTS) & (count >= count.max(initial=0) / 3)
    ordered = np.sort(np.where(known, values, np.inf), axis=1)
    middle = np.take_along_axis(ordered, np.maximum(count // 2, 0)[:, None].clip(max=values.shape[1] - 1), 1)[:, 0]
    return np.where(enough, middle, np.nan)


def coarse_offsets(curves: Float[np.ndarray, "V V lags"]) -> Int[np.ndarray, "V"]:
    """Offsets, in steps, of least total residual; a view without evidence stays at 0.

    Each view in turn is the starting point; then one view at a time is moved to where it fits all others best.
    """
    n, reach = len(curves), curves.shape[2] // 2
    empty = np.asarray(np.isnan(curves).all(2))
    padded = np.where(np.isnan(curves), CAP, curves)
    padded[empty] = 0.0
    # A lag beyond the range costs as much as no agreement at all.
    wide = np.full((n, n, 6 * reach + 1), CAP)
    wide[empty] = 0.0
    wide[:, :, 2 * reach : 4 * reach + 1] = padded
    best = np.zeros(n, int)
    best_cost = _coarse_cost(wide, best)
    for root in range(n):
        offsets: np.ndarray = np.where(empty[root], 0, padded[root].argmin(1) - reach)
        offsets[root] = 0
        for _ in range(4):
            for v in range(n):
                starts = {u: 2 * reach - offsets[u] for u in range(n) if u != v}
                rows = [wide[u, v, start : start + 2 * reach + 1] for u, start in starts.items()]
                offsets[v] = np.sum(rows, axis=0).argmin() - reach
        offsets = np.clip(offsets - _mode(offsets), -reach, reach)
        cost = _coarse_cost(wide, offsets)
        if cost < best_cost - 1e-9:
            best, best_cost = offsets, cost
    return best


def _coarse_cost(wide: np.ndarray, offsets: np.ndarray) -> float:
    lag = offsets[None] - offsets[:, None] + wide.shape[2] // 2
    values = np.take_along_axis(wide, lag[..., None], 2)[..., 0]
    return float(values[~np.eye(len(offsets), dtype=bool)].mean())


def _mode(offsets: np.ndarray) -> int:
    values, counts = np.unique(offsets, return_counts=True)
    commonest = values[counts == counts.max()]
    return int(commonest[np.abs(commonest).argmin()])


# ---- all together --------------------------------------------------------------------------------------------------


def estimate_timing(case: Case, fps: float) -> tuple[Timing, Timing] | None:
    """Find the timing, and evaluate the timing without offsets; None if there are too few labels.

    Several starts are refined and the one of least cost wins: no offset, the best whole-frame offsets, and a drift that
    joins the offsets of stretches of time. A drift that is not certain is left out.
    """
    n, reach = len(case.cameras), search_range(case.uv_px.shape[0], fps)
    if reach < 2 or n < 2:
        return None
    tracks = RayTracks(case, reach)
    if len(tracks.seen) < 12:
        return None
    step = max(1, round(fps / 15))
    curves = coarse_curves(tracks, reach // step, step, spread(tracks.seen, COARSE_FRAMES))
    whole = step * coarse_offsets(curves).astype(float)
    zero = as_it_is(tracks)
    starts = [np.zeros(n), whole] if whole.any() else [np.zeros(n)]
    constant = [t for start in starts if np.isfinite((t := refine(tracks, start, np.zeros(n), False)).cost)]
    if not constant or not np.isfinite(zero.cost):
        return None
    best = min(constant, key=lambda t: t.cost)
    sloped = [(best.offset, best.drift), *_sloped_starts(tracks, reach, step)]
    drifting = [t for start in sloped if np.isfinite((t := refine(tracks, *start, True)).cost)]
    drifting = min(drifting, key=lambda t: t.cost, default=best)
    if drifting.cost < best.cost:
        drifting = sharpen(tracks, drifting, True)
        if _drifts(drifting, tracks.n_frames).any():
            return drifting, zero
    return sharpen(tracks, best, False), zero


def _sloped_starts(
    tracks: RayTracks, reach: int, step: int
) -> list[tuple[Float[np.ndarray, "V"], Float[np.ndarray, "V"]]]:
    """(offset, drift) of a line through the offsets of stretches of time, where these differ."""
    if tracks.n_frames < SEGMENTS * MIN_SEGMENT:
        return []
    middle = (tracks.n_frames - 1) / 2
    parts = np.array_split(tracks.seen, SEGMENTS)
    curves = [coarse_curves(tracks, reach // step, step, spread(part, COARSE_FRAMES // 2)) for part in parts]
    offsets = step * np.array([coarse_offsets(c) for c in curves], float)
    if np.abs(offsets - offsets[0]).max() <= step:
        return []
    where = np.array([part.mean() - middle for part in parts])
    slope = (offsets[-1] - offsets[0]) / (where[-1] - where[0])
    return [(np.median(offsets - slope * where[:, None], axis=0), slope)]


def least_cut(n_frames: int) -> float:
    """The factor of `MIN_CUT` that a capture of this length needs."""
    return LONG_CUT if n_frames >= LONG_FRAMES else MIN_CUT


def _noise_share(n_frames: int) -> float:
    return LONG_NOISE_SHARE if n_frames >= LONG_FRAMES else MIN_NOISE_SHARE


def _drifts(timing: Timing, n_frames: int) -> Bool[np.ndarray, "V"]:
    """Which views certainly drift by more than `MIN_OFFSET` over the capture."""
    over_all, error = np.abs(timing.drift) * n_frames, timing.drift_error * n_frames
    # Over the capture the offset changes by +-half of that around its middle, by a quarter of it on average.
    matters = over_all / 4 * timing.slope > _noise_share(n_frames) * timing.cost
    return (over_all > MIN_OFFSET) & (over_all > MIN_STANDARD_ERRORS * error) & matters


def out_of_step(timing: Timing, before: Timing, n_frames: int) -> tuple[Bool[np.ndarray, "V"], Bool[np.ndarray, "V"]]:
    """Which views have an offset, and which drift, given the timing found and that without offsets."""
    if timing.cost >= before.cost:
        none = np.zeros(len(timing.offset), bool)
        return none, none
    size, error = np.abs(timing.offset), timing.offset_error
    matters = size * timing.slope > _noise_share(n_frames) * timing.cost
    return (size > MIN_OFFSET) & (size > MIN_STANDARD_ERRORS * error) & matters, _drifts(timing, n_frames)


def in_step(case: Case, timing: Timing) -> Case:
    """The case with all videos in step with the reference: labels interpolated in time, absent where there are none."""
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
