"""A camera that has been moved since the calibration, and a lens whose distortion was lost: faults of any size.

Unlike the known mistakes of `candidate_faults` these have a continuous fix, which always helps a little. It is believed only if
what it does to the labels stands out of their noise: label noise has a part that is constant for a hand and a view
(docs/notes/label-noise.md), which a turned camera would explain as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera
from usthand.diagnostics.agreement import (
    CAP,
    FLOOR,
    MIN_POINTS,
    PLAUSIBLE,
    Case,
    ViewRays,
    agreement,
    make_view,
    make_views,
    pair_agreement,
    solve_symmetric,
)
from usthand.diagnostics.candidate_faults import CandidateFault, lenses

MOVED_FRAMES = 40
MIN_SHIFT = 2.5
"""A moved camera must displace the labels by this many times the residual that is left, or no motion is reported."""

MOVED_CUT = 2.0
"""... and putting it back must cut the distance from the others' points by this factor."""

POSE_GAIN = 1.3
"""A camera was shifted, not only turned, if allowing for it cuts the residual by this again."""

LENS_CUT = 1.6
LENS_GROWTH = 1.5
"""Residual of the outer over that of the inner half of the joints, by distance from the image's centre, that makes a lens
suspicious."""

MAX_K = 1.5


@dataclass(frozen=True)
class Moved:
    """A camera put back to where the others' points say that it is."""

    candidate: CandidateFault
    angle_deg: float
    shift: float
    """Of its centre, in the rig's unit; 0 if it was only turned."""
    before: float
    """Median distance of its rays from the others' points, hand sizes."""
    after: float


# ---- moved ---------------------------------------------------------------------------------------------------------


def moved_cameras(case: Case) -> Iterator[Moved]:
    """Each view whose labels a turned (or shifted) camera would explain, given that all others are right.

    Needs three views: with two, either camera could be the one.
    """
    sample = case.sampled(MOVED_FRAMES)
    views = make_views(sample)
    if len(views) < 3:
        return
    error = agreement(views).error
    for v in range(len(views)):
        others = _trusted(error, v)
        if len(others) < len(views) - most_moved(len(views)):
            continue
        points, known = _points([views[u] for u in others])
        known &= views[v].present & np.isfinite(views[v].rays).all(0)
        if known.sum() < MIN_POINTS:
            continue
        found = _put_back(sample.cameras[v], views[v], points[:, known], known, v)
        if found is not None:
            yield found


def most_moved(n_views: int) -> int:
    """Cameras that may have been moved: fewer than half, or nobody knows who it was."""
    return (n_views - 1) // 2


def _trusted(error: np.ndarray, v: int) -> list[int]:
    """The largest group without v in which each agrees with all others, grown from its best pair."""
    others = [u for u in range(len(error)) if u != v]
    pairs = [(error[a, b], a, b) for a in others for b in others if a < b and np.isfinite(error[a, b])]
    if not pairs:
        return []
    best, a, b = min(pairs)
    if best > PLAUSIBLE:
        return []
    group = [a, b]
    for u in sorted(set(others) - {a, b}, key=lambda u: np.nansum([error[u, a], error[u, b]])):
        if all(not error[u, g] > PLAUSIBLE for g in group):
            group.append(u)
    return group


def _points(views: list[ViewRays]) -> tuple[np.ndarray, np.ndarray]:
    """Points (3, N) nearest to the rays of these views (least squares), and those that two or more see."""
    n = len(views[0].present)
    outer, right, count = np.zeros((6, n)), np.zeros((3, n)), np.zeros(n, int)
    for view in views:
        fine = view.present & np.isfinite(view.rays).all(0)
        d = np.where(fine, view.rays, 0.0)
        across = np.stack((1 - d[0] ** 2, -d[0] * d[1], -d[0] * d[2], 1 - d[1] ** 2, -d[1] * d[2], 1 - d[2] ** 2))
        outer += across * fine
        right += (view.centre[:, None] - d * (view.centre @ d)) * fine
        count += fine
    known = count >= 2
    points = np.where(known, solve_symmetric(outer, right), 0.0)
    return points, known & np.isfinite(points).all(0)


def _put_back(camera: Camera, view: ViewRays, points: np.ndarray, known: np.ndarray, v: int) -> Moved | None:
    rays = view.rays[:, known]
    towards = points - view.centre[:, None]
    wanted = towards / np.linalg.norm(towards, axis=0)
    before = _angle(rays, wanted, view.size_rad)
    turn = _robust_turn(rays, wanted, view.size_rad)
    turned = replace(camera, rotation=camera.rotation @ turn.T, translation=-camera.rotation @ turn.T @ view.centre)
    after = _angle(turn @ rays, wanted, view.size_rad)
    shift = 0.0
    posed = _robust_pose(turned, camera.rotation @ rays, points, view.size_rad)
    towards_new = points - posed.centre_world[:, None]
    wanted_new = towards_new / np.linalg.norm(towards_new, axis=0)
    after_posed = _angle(posed.rotation.T @ (camera.rotation @ rays), wanted_new, view.size_rad)
    fixed = turned
    if max(after, FLOOR) > POSE_GAIN * max(after_posed, FLOOR):
        fixed, after, shift = posed, after_posed, float(np.linalg.norm(posed.centre_world - view.centre))
    displaced = _angle(rays, fixed.rotation.T @ (camera.rotation @ rays), view.size_rad) if shift == 0 else before
    if displaced < MIN_SHIFT * max(after, FLOOR) or max(before, FLOOR) < MOVED_CUT * max(after, FLOOR):
        return None
    angle = np.degrees(Rotation.from_matrix(camera.rotation.T @ fixed.rotation).magnitude())
    kind = "turned" if shift == 0 else "shifted"
    return Moved(
        CandidateFault("moved_camera", kind, (v,), {v: fixed}, {}, float(angle)), float(angle), shift, before, after
    )


def _angle(one: np.ndarray, other: np.ndarray, size_rad: float) -> float:
    """Median angle between unit rays, hand sizes."""
    chord = np.linalg.norm(one - other, axis=0)
    return float(np.median(2 * np.arcsin(np.clip(chord / 2, 0, 1))) / size_rad)


def _robust_turn(rays: np.ndarray, wanted: np.ndarray, size_rad: float) -> np.ndarray:
    """The rotation that takes rays to wanted (Kabsch), reweighted."""
    turn, weight = np.eye(3), np.ones(rays.shape[1])
    for _ in range(12):
        u, _, vh = np.linalg.svd((wanted * weight) @ rays.T)
        turn = u @ np.diag([1, 1, np.linalg.det(u @ vh)]) @ vh
        gap = np.linalg.norm(turn @ rays - wanted, axis=0)
        scale = max(2.5 * np.median(gap), 1e-3 * size_rad)
        weight = (1 + (gap / scale) ** 2) ** -2
    return turn


def _robust_pose(start: Camera, rays_cam: np.ndarray, points: np.ndarray, size_rad: float) -> Camera:
    """Gauss-Newton on rotation and translation: rays of the camera against directions to the points."""
    rotation, translation = start.rotation.copy(), start.translation.copy()
    length = np.median(np.linalg.norm(points - start.centre_world[:, None], axis=0))
    for _ in range(10):
        cam = rotation @ points + translation[:, None]
        distance = np.linalg.norm(cam, axis=0)
        gap = cam / distance - rays_cam
        scale = max(2.5 * np.median(np.linalg.norm(gap, axis=0)), 1e-3 * size_rad)
        weight = (1 + (np.linalg.norm(gap, axis=0) / scale) ** 2) ** -2
        direction = (cam / distance).T
        slope = (np.eye(3) - direction[:, :, None] * direction[:, None]) / distance[:, None, None]  # (N, 3, 3)
        minus_skew = np.zeros((len(direction), 3, 3))
        x, y, z = cam
        minus_skew[:, 0, 1], minus_skew[:, 0, 2], minus_skew[:, 1, 2] = z, -y, x
        minus_skew[:, 1, 0], minus_skew[:, 2, 0], minus_skew[:, 2, 1] = -z, y, -x
        rows = np.concatenate([slope @ minus_skew, slope * length], axis=2)
        normal = np.einsum("n,nai,naj->ij", weight, rows, rows)
        moment = np.einsum("n,nai,an->i", weight, rows, gap)
        step = -np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(6), moment)
        turn = Rotation.from_rotvec(step[:3]).as_matrix()
        rotation, translation = turn @ rotation, turn @ translation + step[3:] * length
    return replace(start, rotation=rotation, translation=translation)


# ---- lenses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lens:
    """A lens that explains the labels better."""

    candidate: CandidateFault
    before: float
    """Median residual of the outer half of the joints, hand sizes."""
    after: float
    growth: float
    """Residual of the outer over that of the inner half, before."""


def better_lenses(case: Case) -> Iterator[Lens]:
    """Lens models, all views alike or one alone, that cut the residual where lenses matter: away from the centre."""
    sample = case.sampled(MOVED_FRAMES)
    views = make_views(sample)
    n = len(views)
    outer = [_outer_half(sample.cameras[v], sample, v) for v in range(n)]
    everything = tuple(range(n))
    for group in (everything, *((v,) for v in everything)):
        inner_error, before = _halves(views, outer, group)
        growth = max(before, FLOOR) / max(inner_error, FLOOR)
        if not np.isfinite(before) or growth < LENS_GROWTH:
            continue
        options = [h for h in lenses(sample, group)]
        fitted = _fit_lens(sample, views, outer, group)
        for candidate in [*options, fitted]:
            after = _halves(_with(sample, views, candidate.cameras), outer, group)[1]
            if max(before, FLOOR) >= LENS_CUT * max(after, FLOOR):
                yield Lens(candidate, before, after, growth)


def _outer_half(camera: Camera, case: Case, v: int) -> np.ndarray:
    """Which points (N,) are further from the image's centre than half of those that are present."""
    uv, present = case.uv_px[:, v].reshape(-1, 2), case.present[:, v].reshape(-1)
    radius = np.linalg.norm(uv - camera.matrix[:2, 2], axis=1)
    return radius > np.median(radius[present]) if present.any() else np.zeros(len(uv), bool)


def _halves(views: list[ViewRays], outer: list[np.ndarray], group: tuple[int, ...]) -> tuple[float, float]:
    """(inner, outer) mean over pairs that touch the group of the median residual; points are outer if a view of the group
    sees them there."""
    values = {False: [], True: []}
    for i in range(len(views)):
        for j in range(i + 1, len(views)):
            chosen = [v for v in (i, j) if v in group]
            if not chosen:
                continue
            out = np.any([outer[v] for v in chosen], axis=0)
            for part in (False, True):
                error = _residual(views[i], views[j], out == part)
                if np.isfinite(error):
                    values[part].append(error)
    return tuple(float(np.mean(values[part])) if values[part] else np.nan for part in (False, True))


def _residual(a: ViewRays, b: ViewRays, chosen: np.ndarray) -> float:
    return pair_agreement(a._replace(present=a.present & chosen), b)[0]


def _with(case: Case, views: list[ViewRays], cameras: dict[int, Camera]) -> list[ViewRays]:
    return [
        make_view(cameras[v], case.uv_px[:, v], case.present[:, v]) if v in cameras else view
        for v, view in enumerate(views)
    ]


def _fit_lens(case: Case, views: list[ViewRays], outer: list[np.ndarray], group: tuple[int, ...]) -> CandidateFault:
    """Two radial coefficients, of all views in the group, of least residual: what the lens was like, roughly."""

    def cameras(k: np.ndarray) -> dict[int, Camera]:
        distortion = np.array([k[0], k[1], 0.0, 0.0])
        return {v: replace(case.cameras[v], distortion=distortion, model="pinhole") for v in group}

    def cost(k: np.ndarray) -> float:
        if np.abs(k).max() > MAX_K:
            return CAP * (1 + np.abs(k).max())
        inner, out = _halves(_with(case, views, cameras(k)), outer, group)
        return float(np.nansum([inner, out]))

    starts = [np.array(k) for k in ((0.0, 0.0), (-0.2, 0.0), (0.2, 0.0))]
    start = min(starts, key=cost)
    simplex = start + np.array([[0, 0], [0.15, 0], [0, 0.1]])
    found = minimize(
        cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 60, "xatol": 2e-3}
    ).x
    return CandidateFault("wrong_lens", "fitted", group, cameras(found), {}, (float(found[0]), float(found[1])))
