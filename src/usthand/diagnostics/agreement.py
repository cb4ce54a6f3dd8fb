"""How well the cameras agree on the hands that they see: the residual of a rig with labels, in sizes of the hand.

A `Case` holds the cameras and labels as they are assumed to be; a fix turns it into another case. `ViewRays` holds one
camera's labels as rays in the world, so that every lens is treated alike. The unit is the angle under which the camera
sees the hand, because a detector's error is a fraction of that (docs/development/label-noise.md).

Legend: T frames, V views, P points of a frame (21 for each hand), N = T P.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from usthand.capture.rig import Camera, Rig
from usthand.geometry.cameras import undistort
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.labels import MIN_HAND_PX

CAP = 1.0
"""A residual of more than one hand size, or a joint behind a camera, counts as one hand size: it is simply wrong."""

PLAUSIBLE = 0.06
"""Largest median residual, hand sizes, of a sound pair of cameras. Labels err by .03 to .10 on two axes; a pair shows
the error on one, whose median is about .025 (docs/development/label-noise.md)."""

PLAUSIBLE_LEFT_OUT = 0.2
"""The same for a view against the point that the others give, on two axes and with the others' own errors."""

FLOOR = 0.004
"""Residuals below this, hand sizes, count as equal: half a pixel of a hand of 120 px."""

MIN_POINTS = 40
"""Joints that two cameras must both have seen for their residual to count: about two hands."""


@dataclass(frozen=True)
class Case:
    """Cameras and labels as they are assumed to be."""

    cameras: tuple[Camera, ...]
    uv_px: Float[np.ndarray, "T V P 2"]
    present: Bool[np.ndarray, "T V P"]

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
    """Median distance of each view's rays from the point that all others give, capped, hand sizes; NaN if there are
    fewer than two others. Unlike a pair it also shows shifts along the epipolar lines, the only ones of cameras at one
    height."""

    def rows(self) -> Float[np.ndarray, "V"]:
        """Mean of each view's pairs; NaN for a view without any."""
        return _mean(self.error, axis=1)

    def mean(self) -> float:
        """Mean of the pairs; NaN if there are none."""
        return mean_over(self.error)

    def score(self) -> float:
        """One number for the whole: mean of the pairs plus mean of the views left out."""
        left_out = mean_over(self.left_out)
        return float(np.nansum([self.mean(), left_out])) if np.isfinite(self.error).any() else np.nan

    def plausible(self) -> bool:
        """Whether label noise explains it all."""
        pairs, left_out = np.nanmax(self.rows(), initial=0.0), np.nanmax(self.left_out, initial=0.0)
        return bool(pairs < PLAUSIBLE and left_out < PLAUSIBLE_LEFT_OUT)

    def touching(self, views: tuple[int, ...]) -> Bool[np.ndarray, "V V"]:
        """Pairs of which at least one is among `views`."""
        chosen = np.zeros(len(self.error), bool)
        chosen[list(views)] = True
        return np.isfinite(self.error) & (chosen[:, None] | chosen[None])


def spread_frames(present: Bool[np.ndarray, "T V P"], n_frames: int) -> Int[np.ndarray, "F"]:
    """Ids of at most `n_frames` frames, evenly spread over those that at least two views see, in order."""
    views = present.any(2).sum(1)
    useful = np.flatnonzero(views >= 2)
    if len(useful) <= n_frames:
        return useful
    # Of each stretch of equal length the frame that most views see: every part of the capture counts.
    return np.array([part[np.argmax(views[part])] for part in np.array_split(useful, n_frames)])


def camera_rays(camera: Camera, uv_px: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    """Unit rays of pixels in the camera's frame; not finite where a (wrong) lens model has no solution."""
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


def _hand_sizes(
    uv: Float[np.ndarray, "N 2"], rays: Float[np.ndarray, "N 3"], present: Bool[np.ndarray, "N"]
) -> tuple[float, float]:
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


def _spread(values: Float[np.ndarray, "N J D"], mask: Bool[np.ndarray, "N J 1"]) -> Float[np.ndarray, "N"]:
    """Root mean square distance of the present joints from their mean."""
    count = mask.sum(1, keepdims=True)
    mean = np.where(mask, values, 0).sum(1, keepdims=True) / count
    return np.sqrt((np.where(mask, values - mean, 0) ** 2).sum((1, 2)) / count[:, 0, 0])


def make_views(case: Case) -> list[ViewRays]:
    """Rays of all cameras."""
    return [make_view(camera, case.uv_px[:, v], case.present[:, v]) for v, camera in enumerate(case.cameras)]


Vectors = np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray]
"""(3, ...)"""


def _dot(a: Vectors, b: Vectors) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def ray_miss(
    base: np.ndarray, rays_a: np.ndarray, rays_b: np.ndarray, size_a: float, size_b: float
) -> tuple[np.ndarray, np.ndarray]:
    """How far two rays miss each other, in hand sizes and signed, and whether they meet behind a camera.

    The epipolar constraint on unit rays, base . (a x b) = 0, over its own standard deviation for errors of one hand
    size (Sampson's first-order distance). `base` (3, 1...) leads from a's centre to b's; rays are (3, ...). NaN where
    the centres coincide.
    """
    (x, y, z), (p, q, r) = base, rays_a
    triple = _dot((y * r - z * q, z * p - x * r, x * q - y * p), rays_b)
    along_a, along_b, cosine = _dot(base, rays_a), _dot(base, rays_b), _dot(rays_a, rays_b)
    square = _dot(base, base)
    with np.errstate(all="ignore"):
        miss = triple / np.sqrt(size_b**2 * (square - along_a**2) + size_a**2 * (square - along_b**2))
    # The signs of (base x b) . (a x b) and of (base x a) . (a x b): the distances along either ray to the other.
    return miss, (along_a < along_b * cosine) | (along_a * cosine < along_b)


def pair_agreement(a: ViewRays, b: ViewRays) -> tuple[float, float, float]:
    """Capped median, plain median and share behind a camera, of a pair of views; NaN if they share too few joints."""
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
    """`Agreement.left_out`: distances from the point that is nearest to the others' rays (least squares)."""
    n = len(views)
    result = np.full(n, np.nan)
    if n < 3:
        return result
    outer, right = (np.stack(parts) for parts in zip(*map(nearest_point_equations, views), strict=True))
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


def nearest_point_equations(view: ViewRays) -> tuple[Float[np.ndarray, "6 N"], Float[np.ndarray, "3 N"]]:
    """A view's part of the equations `solve_symmetric` solves for the points nearest to rays; 0 where it has no ray."""
    d = np.where(view.present & np.isfinite(view.rays).all(0), view.rays, np.nan)
    across = np.stack((1 - d[0] ** 2, -d[0] * d[1], -d[0] * d[2], 1 - d[1] ** 2, -d[1] * d[2], 1 - d[2] ** 2))
    return np.nan_to_num(across), np.nan_to_num(view.centre[:, None] - d * (view.centre @ d))


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
    error, plain, behind = result
    return Agreement(error, plain, behind, left_out(views))


def error_px(values: Float[np.ndarray, "V V"], views: list[ViewRays], chosen: Bool[np.ndarray, "V V"]) -> float:
    """Mean over the chosen pairs of a residual in pixels: hand sizes times the hand's size in the two views."""
    size = np.array([view.size_px for view in views])
    pixels = values * np.sqrt(size[:, None] * size[None])
    return mean_over(pixels, chosen)


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean of the finite values; NaN if there are none."""
    known = np.isfinite(values)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def mean_over(values: np.ndarray, chosen: np.ndarray | bool = True) -> float:
    """Mean of the finite values among the chosen; NaN if there are none."""
    return float(_mean(np.where(chosen, values, np.nan)))
