"""Distance between two surfaces whose vertices do not correspond: point to surface, both ways.

The surfaces are compared where both are hand. Points count that lie beyond the wrist: on the fingers' side of the plane
through the true wrist joint plus `MARGIN_M`, perpendicular to the way from the true wrist to the true middle knuckle.
Points of either surface behind it are left out. The surface that a point is measured to is never cut, so that a point
near the plane finds its neighbour behind it. Each point is a vertex and counts by the area around it (a third of its
triangles), so that a finely meshed fingertip weighs no more than its skin.

* ``surface_mm``: mean of the two means below;
* ``surface_to_true_mm``, ``surface_to_true_median_mm``: from the estimated points to the true surface;
* ``surface_from_true_mm``, ``surface_from_true_median_mm``: from the true points to the estimated surface: what the
  estimate leaves out.

Nothing is aligned; world frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from usthand.geometry.point_surface import point_surface_m
from usthand.hand.io import load_hand
from usthand.hand.result import MM_PER_M, Result
from usthand.hand.skeleton import MIDDLE_MCP, WRIST

if TYPE_CHECKING:
    from usthand.evaluation.truth import Truth

MARGIN_M = 0.01
"""How far beyond the wrist's plane points begin to count: meshes of hands end at the wrist, each a bit elsewhere."""
SURFACE_KEYS = (
    "surface_mm",
    "surface_to_true_mm",
    "surface_to_true_median_mm",
    "surface_from_true_mm",
    "surface_from_true_median_mm",
)


def surface_errors(result: Result, truth: Truth, rows: Int[np.ndarray, "n"], at: Int[np.ndarray, "n"]) -> dict:
    """The numbers at the module's head, mm, over frames; None each where the result has no mesh.

    Args:
        result: What to measure.
        truth: Of the same capture, with a mesh.
        rows: Rows of the result that count.
        at: The truth's rows for them.
    """
    if not result.has_mesh or not len(rows):
        return dict.fromkeys(SURFACE_KEYS)
    faces = faces_of(result.faces, result.side), faces_of(truth.faces, result.side)
    to_true: list[tuple[np.ndarray, np.ndarray]] = []
    from_true: list[tuple[np.ndarray, np.ndarray]] = []
    for row, frame in zip(rows, at, strict=True):
        joints = np.asarray(truth.joints_world_m[frame], np.float64)
        ours = np.asarray(result.vertices_world_m[row], np.float64)
        theirs = np.asarray(truth.vertices_world_m[frame], np.float64)
        for found, points, own, surface, other in (
            (to_true, ours, faces[0], theirs, faces[1]),
            (from_true, theirs, faces[1], ours, faces[0]),
        ):
            inside = beyond_wrist(points, joints)
            distance = MM_PER_M * point_surface_m(points[inside], surface, other)
            found.append((distance, vertex_areas_m2(points, own)[inside]))
    mean_to, median_to = _weighted(to_true)
    mean_from, median_from = _weighted(from_true)
    values = ((mean_to + mean_from) / 2, mean_to, median_to, mean_from, median_from)
    return dict(zip(SURFACE_KEYS, values, strict=True))


def faces_of(faces: Int[np.ndarray, "F 3"], side: str) -> Int[np.ndarray, "G 3"]:
    """A mesh's triangles: its own, or those of the embedded hand where it names none."""
    return np.asarray(faces if len(faces) else load_hand(side=side).faces, np.int64)


def beyond_wrist(points_m: Float[np.ndarray, "P 3"], true_joints_m: Float[np.ndarray, "21 3"]) -> np.ndarray:
    """Which points (P,) lie on the fingers' side of the true wrist's plane, `MARGIN_M` or more from it."""
    way = true_joints_m[MIDDLE_MCP] - true_joints_m[WRIST]
    return (points_m - true_joints_m[WRIST]) @ (way / np.linalg.norm(way)) > MARGIN_M


def vertex_areas_m2(vertices_m: Float[np.ndarray, "N 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "N"]:
    """A third of the area of each vertex's triangles, square metres."""
    a, b, c = (vertices_m[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6.0
    return np.bincount(faces.ravel(), np.repeat(area, 3), len(vertices_m))


def _weighted(frames: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Weighted mean and median of (distances, weights) of all frames together."""
    distance, weight = (np.concatenate(parts) for parts in zip(*frames, strict=True))
    order = np.argsort(distance)
    share = np.cumsum(weight[order])
    return float(distance @ weight / share[-1]), float(distance[order][np.searchsorted(share, share[-1] / 2)])
