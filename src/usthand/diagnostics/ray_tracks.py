"""Rays of every camera over time, at whole frames and between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from usthand.diagnostics.agreement import CAP, Case, ViewRays, make_views, ray_miss
from usthand.hand.skeleton import N_JOINTS

JOINTS = (0, 4, 5, 8, 9, 13, 17, 20)  # the first to be used: the palm and some tips
COARSE_JOINTS = (0, 5, 8, 17)  # for the search over whole frames: wrist, index knuckle and tip, little knuckle
MAX_FRAMES = 2000  # only some stretches of longer captures are used
STRETCHES, STRETCH_CORE = 6, 80


class RayTracks:
    """Rays of every view over time, with gaps, and what the residuals of pairs need."""

    rays: Float[np.ndarray, "V 3 T P"]
    present: Bool[np.ndarray, "V T P"]
    some: Int[np.ndarray, "K"]
    """The points of `JOINTS`, of all hands."""
    coarse: Int[np.ndarray, "L"]
    """The points of `COARSE_JOINTS`."""
    core: Int[np.ndarray, "C"]
    """Frames that have `reach` loaded frames around them."""
    seen: Int[np.ndarray, "S"]
    """Those of them that two views or more see."""

    def __init__(self, case: Case, reach: int) -> None:
        n_frames, n_points = case.uv_px.shape[0], case.uv_px.shape[2]
        self.some, self.coarse = (
            np.array([h + j for h in range(0, n_points, N_JOINTS) for j in joints])
            for joints in (JOINTS, COARSE_JOINTS)
        )
        self.n_frames = n_frames
        used, self.core = _stretches(n_frames, reach)
        self.views: list[ViewRays] = make_views(replace(case, uv_px=case.uv_px[used], present=case.present[used]))
        self.rays = np.zeros((len(self.views), 3, n_frames, n_points))
        self.present = np.zeros((len(self.views), n_frames, n_points), bool)
        for v, view in enumerate(self.views):
            rays = view.rays.reshape(3, len(used), n_points)
            self.present[v, used] = view.present.reshape(len(used), n_points) & np.isfinite(rays).all(0)
            self.rays[v][:, used] = np.where(self.present[v, used], rays, 0.0)
        self.seen = self.core[(self.present[..., self.some].any(2).sum(0) >= 2)[self.core]]

    def at(
        self, view: int, time: Float[np.ndarray, "N"], points: Int[np.ndarray, "K"] | slice
    ) -> tuple[Float[np.ndarray, "3 N M"], Bool[np.ndarray, "N M"]]:
        """Rays of the points at fractional frames, and where there are any."""
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
        """Signed residual in hand sizes, +-CAP where the rays, (3, ...) each, do not meet in front of the cameras."""
        a, b = self.views[i], self.views[j]
        base = (b.centre - a.centre).reshape(3, *([1] * (rays_j.ndim - 1)))
        miss, behind = ray_miss(base, rays_i, rays_j, a.size_rad, b.size_rad)
        return np.where(behind | ~np.isfinite(miss), CAP, np.clip(miss, -CAP, CAP))


def _stretches(n_frames: int, reach: int) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "C"]]:
    """Frames to load, and those of them with `reach` loaded frames around: all, or some stretches of a long capture."""
    if n_frames <= MAX_FRAMES:
        return np.arange(n_frames), np.arange(n_frames)
    half = STRETCH_CORE // 2
    middles = np.linspace(half, n_frames - 1 - half, STRETCHES).round().astype(int)
    core = np.unique(np.concatenate([m + np.arange(-half, half + 1) for m in middles]))
    used = np.unique(np.concatenate([m + np.arange(-half - reach, half + reach + 1) for m in middles]))
    return used[(used >= 0) & (used < n_frames)], core


def spread(frames: Int[np.ndarray, "N"], count: int) -> Int[np.ndarray, "M"]:
    """Choose at most `count` of the frames, evenly."""
    return np.unique(frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)])
