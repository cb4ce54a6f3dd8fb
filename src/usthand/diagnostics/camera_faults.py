"""A camera that has been moved since the calibration, and a lens whose distortion was lost: faults of any size.

Unlike the known mistakes of `candidate_faults` these have a continuous fix, which always helps a little. It is accepted
only if what it does to the labels is clearly larger than their noise: label noise has a part that is constant for a
hand and a view (docs/development/label-noise.md), which a turned camera would explain as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
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
    nearest_point_equations,
    pair_agreement,
    solve_symmetric,
)
from usthand.diagnostics.candidate_faults import CandidateFault, lenses

MOVED_FRAMES = 40
MIN_SHIFT = 2.5
"""A moved camera must displace the labels by this many times the residual that is left, or no motion is reported."""

MOVED_CUT = 2.0
"""... and putting it back must cut the distance from the points that the others give by this factor."""

POSE_GAIN = 1.3
"""A camera is taken as shifted, not only turned, if a shift cuts the residual by this factor again."""

LENS_CUT = 1.6
LENS_GROWTH = 1.5
"""A lens is suspicious if the residual of the outer half of the joints, by distance from the image's centre, is this
many times that of the inner half."""

MAX_K = 1.5


@dataclass(frozen=True)
class MovedCamera:
    """A camera put back to where it is according to the points that the others give."""

    candidate: CandidateFault
    angle_deg: float
    shift: float
    """Of its centre, in the rig's unit; 0 if it was only turned."""
    before: float
    """Median distance of its rays from the others' points, hand sizes."""
    after: float


# ---- moved ---------------------------------------------------------------------------------------------------------


def moved_cameras(case: Case) -> Iterator[MovedCamera]:
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
    """How many cameras may have been moved: fewer than half, or it cannot be told which."""
    return (n_views - 1) // 2


def _trusted(error: Float[np.ndarray, "V V"], v: int) -> list[int]:
    """The largest group without v in which each agrees with all others, grown from its best pair."""
    others = [u for u in range(len(error)) if u != v]
    pairs = [(error[a, b], a, b) for a in others for b in others if a < b and np.isfinite(error[a, b])]
    if not pairs:
        return []
    best, a, b = min(pairs)
    if best > PLAUSIBLE:
        return []
    group = [a, b]
    for u in sorted(set(others) - {a, b}, key=lambda u: float(np.nansum([error[u, a], error[u, b]]))):
        if all(not error[u, g] > PLAUSIBLE for g in group):
            group.append(u)
    return group


def _points(views: list[ViewRays]) -> tuple[Float[np.ndarray, "3 N"], Bool[np.ndarray, "N"]]:
    """Points nearest to the rays of these views (least squares), and those that two or more see."""
    equations = [nearest_point_equations(view) for view in views]
    outer, right = (np.sum(parts, axis=0) for parts in zip(*equations, strict=True))
    known = np.sum([view.present & np.isfinite(view.rays).all(0) for view in views], axis=0) >= 2
    points = np.where(known, solve_symmetric(outer, right), 0.0)
    return points, known & np.isfinite(points).all(0)


def _put_back(
    camera: Camera, view: ViewRays, points: Float[np.ndarray, "3 K"], known: Bool[np.ndarray, "N"], v: int
) -> MovedCamera | None:
    """Turn, or turn and shift, view v so that its rays `known` meet the points; None if that explains too little."""
    rays, size = view.rays[:, known], view.size_rad
    rays_cam = camera.rotation @ rays
    wanted = _directions(points, view.centre)
    before = _angle(rays, wanted, size)
    turn = _robust_turn(rays, wanted, size)
    rotation = camera.rotation @ turn.T
    fixed = replace(camera, rotation=rotation, translation=-rotation @ view.centre)
    after, shift = _angle(turn @ rays, wanted, size), 0.0
    posed = _robust_pose(fixed, rays_cam, points, size)
    after_posed = _angle(posed.rotation.T @ rays_cam, _directions(points, posed.centre_world), size)
    if max(after, FLOOR) > POSE_GAIN * max(after_posed, FLOOR):
        fixed, after, shift = posed, after_posed, float(np.linalg.norm(posed.centre_world - view.centre))
    displaced = _angle(rays, fixed.rotation.T @ rays_cam, size) if shift == 0 else before
    if displaced < MIN_SHIFT * max(after, FLOOR) or max(before, FLOOR) < MOVED_CUT * max(after, FLOOR):
        return None
    angle = float(np.degrees(Rotation.from_matrix(camera.rotation.T @ fixed.rotation).magnitude()))
    candidate = CandidateFault("moved_camera", "turned" if shift == 0 else "shifted", (v,), {v: fixed}, value=angle)
    return MovedCamera(candidate, angle, shift, before, after)


def _directions(points: Float[np.ndarray, "3 K"], centre: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 K"]:
    """Unit vectors from a centre to the points."""
    towards = points - centre[:, None]
    return towards / np.linalg.norm(towards, axis=0)


def _angle(one: Float[np.ndarray, "3 K"], other: Float[np.ndarray, "3 K"], size_rad: float) -> float:
    """Median angle between unit rays, hand sizes."""
    chord = np.linalg.norm(one - other, axis=0)
    return float(np.median(2 * np.arcsin(np.clip(chord / 2, 0, 1))) / size_rad)


def _robust_turn(
    rays: Float[np.ndarray, "3 K"], wanted: Float[np.ndarray, "3 K"], size_rad: float
) -> Float[np.ndarray, "3 3"]:
    """The rotation that takes rays to wanted (Kabsch), reweighted."""
    turn, weight = np.eye(3), np.ones(rays.shape[1])
    for _ in range(12):
        u, _, vh = np.linalg.svd((wanted * weight) @ rays.T)
        turn = u @ np.diag([1, 1, np.linalg.det(u @ vh)]) @ vh
        gap = np.linalg.norm(turn @ rays - wanted, axis=0)
        scale = max(2.5 * np.median(gap), 1e-3 * size_rad)
        weight = (1 + (gap / scale) ** 2) ** -2
    return turn


def _robust_pose(
    start: Camera, rays_cam: Float[np.ndarray, "3 K"], points: Float[np.ndarray, "3 K"], size_rad: float
) -> Camera:
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
class LensFault:
    """A lens that explains the labels better."""

    candidate: CandidateFault
    before: float
    """Median residual of the outer half of the joints, hand sizes."""
    after: float
    growth: float
    """Residual of the outer over that of the inner half, before."""


def better_lenses(case: Case) -> Iterator[LensFault]:
    """Lens models, of all views alike or of one, that cut the residual where lenses matter: away from the centre."""
    sample = case.sampled(MOVED_FRAMES)
    views = make_views(sample)
    outer = [_outer_half(camera, sample, v) for v, camera in enumerate(sample.cameras)]
    everything = tuple(range(len(views)))
    for group in (everything, *((v,) for v in everything)):
        inner_error, before = _halves(views, outer, group)
        growth = max(before, FLOOR) / max(inner_error, FLOOR)
        if not np.isfinite(before) or growth < LENS_GROWTH:
            continue
        for candidate in (*lenses(sample, group), _fit_lens(sample, views, outer, group)):
            after = _halves(_with(sample, views, candidate.cameras), outer, group)[1]
            if max(before, FLOOR) >= LENS_CUT * max(after, FLOOR):
                yield LensFault(candidate, before, after, growth)


def _outer_half(camera: Camera, case: Case, v: int) -> Bool[np.ndarray, "N"]:
    """Which points are further from the image's centre than half of those that are present."""
    uv, present = case.uv_px[:, v].reshape(-1, 2), case.present[:, v].reshape(-1)
    radius = np.linalg.norm(uv - camera.matrix[:2, 2], axis=1)
    return radius > np.median(radius[present]) if present.any() else np.zeros(len(uv), bool)


def _halves(views: list[ViewRays], outer: list[Bool[np.ndarray, "N"]], group: tuple[int, ...]) -> tuple[float, float]:
    """Residual of the inner and of the outer points: mean of the medians of the pairs that touch the group.

    Points are outer if a view of the group sees them there.
    """
    values: tuple[list[float], list[float]] = ([], [])
    for i, j in combinations(range(len(views)), 2):
        chosen = [outer[v] for v in (i, j) if v in group]
        if not chosen:
            continue
        out = np.any(chosen, axis=0)
        for part in (False, True):
            error = _residual(views[i], views[j], out == part)
            if np.isfinite(error):
                values[part].append(error)
    inner, outside = (float(np.mean(errors)) if errors else np.nan for errors in values)
    return inner, outside


def _residual(a: ViewRays, b: ViewRays, chosen: Bool[np.ndarray, "N"]) -> float:
    return pair_agreement(a._replace(present=a.present & chosen), b)[0]


def _with(case: Case, views: list[ViewRays], cameras: dict[int, Camera]) -> list[ViewRays]:
    return [
        make_view(cameras[v], case.uv_px[:, v], case.present[:, v]) if v in cameras else view
        for v, view in enumerate(views)
    ]


def _fit_lens(
    case: Case, views: list[ViewRays], outer: list[Bool[np.ndarray, "N"]], group: tuple[int, ...]
) -> CandidateFault:
    """Two radial coefficients of least residual for all views in the group: roughly the true lens."""

    def cameras(k: Float[np.ndarray, "2"]) -> dict[int, Camera]:
        distortion = np.array([k[0], k[1], 0.0, 0.0])
        return {v: replace(case.cameras[v], distortion=distortion, model="pinhole") for v in group}

    def cost(k: Float[np.ndarray, "2"]) -> float:
        if np.abs(k).max() > MAX_K:
            return float(CAP * (1 + np.abs(k).max()))
        return float(np.nansum(_halves(_with(case, views, cameras(k)), outer, group)))

    start = min((np.array(k) for k in ((0.0, 0.0), (-0.2, 0.0), (0.2, 0.0))), key=cost)
    simplex = start + np.array([[0, 0], [0.15, 0], [0, 0.1]])
    options = {"initial_simplex": simplex, "maxfev": 60, "xatol": 2e-3}
    found = minimize(cost, start, method="Nelder-Mead", options=options).x
    return CandidateFault("wrong_lens", "fitted", group, cameras(found), value=(float(found[0]), float(found[1])))
