"""How well the cameras agree on the hands that they see: the residual of a rig with labels, in sizes of the hand.

A *case* is what is believed at the moment: cameras and labels, of which a fix makes another case. A *view* is one
camera's part of it as rays in the world. Rays, not pixels, so that every lens is alike; the unit is the angle under which
the camera sees the hand, because a detector's error is a fraction of that (docs/notes/label-noise.md).

Legend: T frames, V views, P points of a frame (21 for each hand), N = T P.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.capture.rig import Camera, Rig
from usthand.geometry.cameras import undistort
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.labels import MIN_HAND_PX

CAP = 1.0
"""A joint missed by more than one hand size, or placed behind a camera, is simply wrong."""

PLAUSIBLE = 0.06
"""Largest median residual, hand sizes, of a sound pair of cameras. Labels err by .03 to .10, on two axes; a pair sees
one, and its median is about .025 (docs/notes/label-noise.md)."""

PLAUSIBLE_LEFT_OUT = 0.2
"""The same for a view against the point that the others give, on two axes and with the others' own errors."""

FLOOR = 0.004
"""Residuals below this, hand sizes, are not told apart: half a pixel of a hand of 120 px."""

MIN_POINTS = 40
"""Joints that both of two cameras must have seen for their residual to count: two hands' worth."""


@dataclass(frozen=True)
class Case:
    """Cameras and labels as they are believed to be."""

    cameras: tuple[Camera, ...]
    uv_px: Float[np.ndarray, "T V P 2"]
    present: Bool[np.ndarray, "T V P"]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    def sampled(self, n_frames: int) -> Case:
        """At most `n_frames`, evenly spread over those in which most views have labels."""
        frames = spread_frames(self.present, n_frames)
        return replace(self, uv_px=self.uv_px[frames], present=self.present[frames])

    def with_cameras(self, changed: dict[int, Camera]) -> Case:
        """Some cameras replaced."""
        return replace(self, cameras=tuple(changed.get(v, camera) for v, camera in enumerate(self.cameras)))


class ViewRays(NamedTuple):
    """One camera's labels as rays in the world."""

    centre: Float[np.ndarray, "3"]
    rays: Float[np.ndarray, "3 N"]
    """Unit vectors."""
    present: Bool[np.ndarray, "N"]
    size_rad: float
    """Angle under which it sees the hand; median over frames."""
    size_px: float


class Agreement(NamedTuple):
    """Residuals of all pairs of views."""

    error: Float[np.ndarray, "V V"]
    """Median, capped, hand sizes; NaN where a pair sees too little together, and on the diagonal."""
    plain: Float[np.ndarray, "V V"]
    """The same without the cap, and regardless of what lies behind a camera."""
    behind: Float[np.ndarray, "V V"]
    """Share of the points behind one of the two."""
    left_out: Float[np.ndarray, "V"]
    """Median distance of each view's rays from the point that all others give, capped, hand sizes; NaN if fewer than two
    others are there. Unlike a pair it also feels shifts along the epipolar lines, which is all that cameras of one height
    would show."""

    def rows(self) -> Float[np.ndarray, "V"]:
        """Mean of each view's pairs; NaN for a view without any."""
        return _mean(self.error, axis=1)

    def mean(self) -> float:
        return float(_mean(self.error))

    def score(self) -> float:
        """One number for the whole: mean of the pairs plus mean of the views left out."""
        return float(np.nansum([_mean(self.error), _mean(self.left_out)])) if np.isfinite(self.error).any() else np.nan

    def plausible(self) -> bool:
        """Whether label noise explains it all."""
        pairs, left_out = np.nanmax(self.rows(), initial=0.0), np.nanmax(self.left_out, initial=0.0)
        return bool(pairs < PLAUSIBLE and left_out < PLAUSIBLE_LEFT_OUT)

    def touching(self, views: tuple[int, ...]) -> Bool[np.ndarray, "V V"]:
        """Pairs of which at least one is among `views`."""
        chosen = np.zeros(len(self.error), bool)
        chosen[list(views)] = True
        return np.isfinite(self.error) & (chosen[:, None] | chosen[None])


def spread_frames(present: Bool[np.ndarray, "T V P"], n_frames: int) -> np.ndarray:
    """Ids of at most `n_frames` frames, evenly spread over those that at least two views see, in order."""
    views = present.any(2).sum(1)
    useful = np.flatnonzero(views >= 2)
    if len(useful) <= n_frames:
        return useful
    # Of each stretch of equal length the frame that most views see: every part of the capture has its say.
    return np.array([part[np.argmax(views[part])] for part in np.array_split(useful, n_frames)])


def camera_rays(camera: Camera, uv_px: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    """Unit rays of pixels in the camera's frame. Not finite where a (wrong) lens model has no answer."""
    cameras = Rig((camera,)).tensors(torch.float64)
    xy = undistort(cameras, torch.from_numpy(np.ascontiguousarray(uv_px, float))[None])[0].numpy()
    rays = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def make_view(camera: Camera, uv_px: Float[np.ndarray, "T P 2"], present: Bool[np.ndarray, "T P"]) -> ViewRays:
    """Rays of one camera. Labels that are missing get the optical axis."""
    middle = camera.matrix[:2, 2]
    uv = np.where(present[..., None], uv_px, middle).reshape(-1, 2)
    rays = camera_rays(camera, uv)
    size_px, size_rad = _hand_sizes(uv, rays, present.reshape(-1))
    centre = -camera.rotation.T @ camera.translation
    return ViewRays(centre, np.ascontiguousarray((rays @ camera.rotation).T), present.reshape(-1), size_rad, size_px)


def _hand_sizes(uv: np.ndarray, rays: np.ndarray, present: np.ndarray) -> tuple[float, float]:
    """Size of the hand in pixels (longer side of its box) and radians, medians over the hands that are mostly seen."""
    uv, rays, present = uv.reshape(-1, N_JOINTS, 2), rays.reshape(-1, N_JOINTS, 3), present.reshape(-1, N_JOINTS)
    seen = present.sum(1) > N_JOINTS // 2
    if not seen.any():
        return MIN_HAND_PX, np.inf
    uv, rays, mask = uv[seen], rays[seen], present[seen][..., None]
    low, high = np.where(mask, uv, np.inf).min(1), np.where(mask, uv, -np.inf).max(1)
    box = np.maximum((high - low).max(1), MIN_HAND_PX)
    radians_per_px = _spread(rays, mask) / np.maximum(_spread(uv, mask), 1e-9)
    known = np.isfinite(radians_per_px)
    radians = float(np.median((radians_per_px * box)[known])) if known.any() else 0.0
    return float(np.median(box)), radians if radians > 0 else np.inf


def _spread(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Root mean square distance from the mean of the present ones, (N, J, D) -> (N,)."""
    count = mask.sum(1, keepdims=True)
    mean = np.where(mask, values, 0).sum(1, keepdims=True) / count
    return np.sqrt((np.where(mask, values - mean, 0) ** 2).sum((1, 2)) / count[:, 0, 0])


def make_views(case: Case) -> list[ViewRays]:
    return [make_view(camera, case.uv_px[:, v], case.present[:, v]) for v, camera in enumerate(case.cameras)]


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product along axis 0; numpy's own spends its time on generality."""
    return np.stack((a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]))


def ray_miss(
    base: np.ndarray, rays_a: np.ndarray, rays_b: np.ndarray, size_a: float, size_b: float
) -> tuple[np.ndarray, np.ndarray]:
    """How far two rays miss each other, in hand sizes and signed, and whether they meet behind a camera.

    The epipolar constraint on unit rays, base . (a x b) = 0, over its own standard deviation for errors of one hand size
    (Sampson's first-order distance). `base` (3, 1...) leads from a's centre to b's; rays are (3, ...). NaN where the
    centres coincide.
    """
    normal_a, normal_b, across = cross(base, rays_a), cross(base, rays_b), cross(rays_a, rays_b)
    with np.errstate(all="ignore"):
        spread = np.sqrt(size_b**2 * (normal_a**2).sum(0) + size_a**2 * (normal_b**2).sum(0))
        miss = (normal_a * rays_b).sum(0) / spread
    behind = ((normal_b * across).sum(0) < 0) | ((normal_a * across).sum(0) < 0)
    return miss, behind


def pair_agreement(a: ViewRays, b: ViewRays) -> tuple[float, float, float]:
    """(capped median, plain median, share behind) of a pair of views; NaN if they share too few joints."""
    both = a.present & b.present
    if both.sum() < MIN_POINTS:
        return np.nan, np.nan, np.nan
    base = (b.centre - a.centre)[:, None]
    if np.abs(base).max() < 1e-12 or not np.isfinite(a.size_rad + b.size_rad):
        return CAP, CAP, 0.0
    miss, behind = ray_miss(base, a.rays[:, both], b.rays[:, both], a.size_rad, b.size_rad)
    miss = np.abs(np.where(np.isfinite(miss), miss, CAP))
    return float(np.median(np.where(behind, CAP, np.minimum(miss, CAP)))), float(np.median(miss)), float(behind.mean())


def left_out(views: list[ViewRays]) -> Float[np.ndarray, "V"]:
    """See `Agreement.left_out`. The point is the one nearest to the others' rays (least squares)."""
    n = len(views)
    result = np.full(n, np.nan)
    if n < 3:
        return result
    outer, right = np.zeros((n, 6, len(views[0].present))), np.zeros((n, 3, len(views[0].present)))
    for v, view in enumerate(views):
        d = np.where(view.present & np.isfinite(view.rays).all(0), view.rays, np.nan)
        across = np.stack((1 - d[0] ** 2, -d[0] * d[1], -d[0] * d[2], 1 - d[1] ** 2, -d[1] * d[2], 1 - d[2] ** 2))
        outer[v] = np.nan_to_num(across)
        right[v] = np.nan_to_num(view.centre[:, None] - d * (view.centre @ d))
    count = np.stack([view.present for view in views]).sum(0)
    for v, view in enumerate(views):
        known = view.present & (count >= 3)
        if known.sum() < MIN_POINTS or not np.isfinite(view.size_rad):
            continue
        point = solve_symmetric((outer.sum(0) - outer[v])[:, known], (right.sum(0) - right[v])[:, known])
        towards = point - view.centre[:, None]
        with np.errstate(all="ignore"):
            cosine = (towards * view.rays[:, known]).sum(0) / np.sqrt((towards**2).sum(0))
            angle = np.arccos(np.clip(cosine, -1, 1)) / view.size_rad
        result[v] = np.median(np.minimum(np.where(np.isfinite(angle), angle, CAP), CAP))
    return result


def solve_symmetric(m: Float[np.ndarray, "6 N"], right: Float[np.ndarray, "3 N"]) -> Float[np.ndarray, "3 N"]:
    """Solutions of symmetric 3x3 systems, upper triangle row by row, by the adjugate; not finite where singular."""
    a, b, c, d, e, f = m
    adjugate = (d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b)
    x, y, z = right
    p, q, r, s, t, u = adjugate
    with np.errstate(all="ignore"):
        return np.stack((p * x + q * y + r * z, q * x + s * y + t * z, r * x + t * y + u * z)) / (a * p + b * q + c * r)


def agreement(
    views: list[ViewRays], before: Agreement | None = None, changed: tuple[int, ...] | None = None
) -> Agreement:
    """Residuals of all pairs; of those that `changed` touches only, where the others are known from `before`."""
    n = len(views)
    result = np.full((3, n, n), np.nan) if before is None else np.array(before[:3])
    moved = set(range(n) if before is None or changed is None else changed)
    for i in range(n):
        for j in range(i + 1, n):
            if i in moved or j in moved:
                result[:, i, j] = result[:, j, i] = pair_agreement(views[i], views[j])
    return Agreement(*result, left_out(views))


def evaluate(case: Case) -> Agreement:
    return agreement(make_views(case))


def error_px(values: Float[np.ndarray, "V V"], views: list[ViewRays], chosen: Bool[np.ndarray, "V V"]) -> float:
    """Mean over the chosen pairs of a residual in pixels: hand sizes times the hand's size in the two views."""
    size = np.array([view.size_px for view in views])
    pixels = values * np.sqrt(size[:, None] * size[None])
    return float(_mean(np.where(chosen, pixels, np.nan)))


def _mean(values: np.ndarray, axis: int | None = None):
    with np.errstate(all="ignore"):
        known = np.isfinite(values)
        count = known.sum(axis)
        return np.where(count > 0, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def mean_over(values: np.ndarray, chosen: np.ndarray) -> float:
    """Mean of the finite ones among the chosen; NaN if there are none."""
    return float(_mean(np.where(chosen, values, np.nan)))
