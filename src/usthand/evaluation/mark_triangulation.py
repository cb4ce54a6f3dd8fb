"""Points in space from marks in images, by NumPy and SciPy alone: truth must not share a mistake with what it judges.

Nothing of `usthand.geometry` is used here, by contract. Cameras image points by their makers' formulas, written once
more; views are undistorted by a root finder, joined by the direct linear transform, and refined by Levenberg-Marquardt
(MINPACK). Tests compare each step with OpenCV.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import approx_fprime, least_squares

from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.evaluation.marks import FINGER_NAMES, Mark

MIN_VIEWS = 3
MAX_RESIDUAL_PX = 6.0


@dataclass(frozen=True)
class MarkedTip:
    """A fingertip's place, from the marks of several views."""

    side: str
    frame: int
    finger: int
    """Thumb to little finger, 0 to 4."""
    tip: Float[np.ndarray, "3"]
    """World, in the rig's unit of length."""
    covariance: Float[np.ndarray, "3 3"]
    """World, unit squared."""


@dataclass(frozen=True)
class MarkedTips:
    """All fingertips that the marks place, and how well the views of each agree."""

    tips: list[MarkedTip]
    marked: int
    """Fingertips of a frame that somebody marked in some view."""
    in_views: int
    """Of these, marked in three views or more."""
    dropped: dict[str, int]
    """Views that were left out because they disagree, by camera."""
    std_px: float
    """Standard deviation of a view's mark about the points, on each axis."""
    camera_px: dict[str, float]
    """Root mean square of each camera's residuals, on each axis, of the views that were kept."""


class _Placed(NamedTuple):
    """A point from some views."""

    point: Float[np.ndarray, "3"]
    """World, in the rig's unit of length."""
    residuals: dict[str, Float[np.ndarray, "2"]]
    """Of each camera, where it sees the point less where it was marked, px."""
    information: Float[np.ndarray, "3 3"]
    """J'J of the images, px^2 / unit^2."""


def imaged(camera: Camera, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    """Where a camera sees points in front of it, px; the points in the world and the rig's unit of length.

    The formulas are those of OpenCV (`calib3d`, `fisheye`), projectaria_tools (FISHEYE624) and Usenko et al., 3DV 2018
    (double sphere).
    """
    seen = points @ camera.rotation.T + camera.translation
    bent = _bent(
        camera.model, np.asarray(camera.distortion, np.float64), seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2]
    )
    return np.stack(bent, -1) * camera.matrix[[0, 1], [0, 1]] + camera.matrix[:2, 2]


def _bent(model: str, k: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a lens makes of ideal coordinates at depth 1."""
    r2 = x * x + y * y
    if model == "pinhole":
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = np.pad(k, (0, 12 - len(k)))
        radial = np.polyval((k3, k2, k1, 1.0), r2) / np.polyval((k6, k5, k4, 1.0), r2)
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + s1 * r2 + s2 * r2 * r2
        return u, y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + s3 * r2 + s4 * r2 * r2
    if model == "double_sphere":
        xi, alpha = k
        z = xi * np.sqrt(r2 + 1) + 1
        scale = alpha * np.hypot(np.sqrt(r2), z) + (1 - alpha) * z
        return x / scale, y / scale
    radius = np.sqrt(np.maximum(r2, 1e-24))
    angle = np.arctan(radius)
    powers = np.append(k[: 4 if model == "fisheye" else 6][::-1], 1.0)
    scale = angle * np.polyval(powers, angle * angle) / radius
    x, y = x * scale, y * scale
    if model == "fisheye":
        return x, y
    (p1, p2, s1, s2, s3, s4), r2 = k[6:], x * x + y * y
    u = x + p1 * (r2 + 2 * x * x) + 2 * p2 * x * y + s1 * r2 + s2 * r2 * r2
    return u, y + p2 * (r2 + 2 * y * y) + 2 * p1 * x * y + s3 * r2 + s4 * r2 * r2


def undistorted(camera: Camera, uv_px: Float[np.ndarray, "2"]) -> Float[np.ndarray, "2"]:
    """Ideal coordinates at depth 1 of a pixel, by a root finder on the lens's formula."""
    bent = (uv_px - camera.matrix[:2, 2]) / camera.matrix[[0, 1], [0, 1]]
    k = np.asarray(camera.distortion, np.float64)
    return least_squares(lambda xy: np.array(_bent(camera.model, k, xy[:1], xy[1:]))[:, 0] - bent, bent).x


def place(rig: Rig, seen: Mapping[str, Float[np.ndarray, "2"]]) -> _Placed:
    """The point on which two or more cameras' pixels agree best.

    It minimises the squared distance from the marks in the images less their distortion, each of its camera's focal
    length, so that the lens is inverted once and the optimum is unique near the start. Residuals and J are those of the
    images as they are.

    Args:
        rig: The cameras.
        seen: Two or more cameras' pixels.
    """
    cameras = [rig.cameras[rig.index(name)] for name in seen]
    uv = np.stack(list(seen.values()))
    ideal = np.stack([undistorted(camera, pixel) for camera, pixel in zip(cameras, uv, strict=True)])
    pose = np.stack([np.c_[camera.rotation, camera.translation] for camera in cameras])
    focal = np.stack([camera.matrix[[0, 1], [0, 1]] for camera in cameras])
    *_, last = np.linalg.svd((ideal[..., None] * pose[:, 2:] - pose[:, :2]).reshape(-1, 4))[2]

    def off(point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n"]:
        seen_from = pose[..., :3] @ point + pose[..., 3]
        return ((seen_from[:, :2] / seen_from[:, 2:] - ideal) * focal).ravel()

    def pixels(point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n"]:
        return np.concatenate([imaged(camera, point[None])[0] for camera in cameras])

    point = least_squares(off, last[:3] / last[3], method="lm", xtol=1e-12, ftol=1e-12, x_scale="jac").x
    derivative = np.asarray(approx_fprime(point, pixels))
    residuals = dict(zip(seen, pixels(point).reshape(-1, 2) - uv, strict=True))
    return _Placed(point, residuals, derivative.T @ derivative)


def place_tips(marks: Sequence[Mark], rig: Rig, max_residual_px: float = MAX_RESIDUAL_PX) -> MarkedTips:
    """All fingertips that three views or more agree on.

    The markers' positions are averaged in each view. A view that is off by more than `max_residual_px` is left out, the
    worst first, as long as three are left; otherwise the tip is not placed. The covariance of a tip is s^2 (J'J)^-1
    with s^2 from the residuals of all tips.

    Raises:
        UsthandError: If no tip is marked in three views, or no three views agree on any.
    """
    views: dict[tuple[str, int, int], dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for mark in marks:
        key = (mark.side, mark.frame, FINGER_NAMES.index(mark.finger))
        views[key][mark.camera].append(np.array([mark.u_px, mark.v_px]))
    enough = {key: seen for key, seen in views.items() if len(seen) >= MIN_VIEWS}
    if not enough:
        raise UsthandError(
            f"no fingertip is marked in {MIN_VIEWS} views of one frame",
            f"the rig has {len(rig)} cameras, and a place that can be trusted takes {MIN_VIEWS} views that agree",
            "mark the same tips in more cameras",
        )
    placed: dict[tuple[str, int, int], _Placed] = {}
    for key, seen in enough.items():
        found = _agreed(rig, {name: np.mean(pixels, 0) for name, pixels in seen.items()}, max_residual_px)
        if found is not None:
            placed[key] = found
    if not placed:
        raise UsthandError(
            f"no {MIN_VIEWS} views agree within {max_residual_px:g} px on any of {len(enough)} marked fingertips",
            "the marks are of another clip, of images of another size or of swapped cameras",
            "give the capture that was marked, and look at it with `usthand check`",
        )
    # Three coordinates are fitted to two of each view.
    freedom = sum(2 * len(found.residuals) - 3 for found in placed.values())
    by_camera = {
        name: np.array([found.residuals[name] for found in placed.values() if name in found.residuals])
        for name in rig.names
    }
    variance = sum(float((residuals**2).sum()) for residuals in by_camera.values()) / freedom
    tips = [
        MarkedTip(side, frame, finger, found.point, variance * np.linalg.inv(found.information))
        for (side, frame, finger), found in placed.items()
    ]
    dropped = {name: sum(name in enough[key] for key in placed) - len(by_camera[name]) for name in rig.names}
    camera_px = {name: float(np.sqrt((rest**2).mean())) for name, rest in by_camera.items() if len(rest)}
    return MarkedTips(tips, len(views), len(enough), dropped, float(np.sqrt(variance)), camera_px)


def _agreed(rig: Rig, seen: dict[str, Float[np.ndarray, "2"]], max_residual_px: float) -> _Placed | None:
    """The point of the views that agree, the worst left out first; None if fewer than three are left."""
    while len(seen) >= MIN_VIEWS:
        found = place(rig, seen)
        sizes = {name: float(np.linalg.norm(residual)) for name, residual in found.residuals.items()}
        worst = max(sizes, key=sizes.__getitem__)
        if sizes[worst] <= max_residual_px:
            return found
        seen = {name: pixel for name, pixel in seen.items() if name != worst}
    return None
