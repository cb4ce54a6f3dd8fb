"""Exact distance from points to a triangle mesh.

The loops are compiled by numba; `no_type_check` keeps run-time type checks from wrapping them.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit
from scipy.spatial import KDTree


def point_surface_m(
    points_m: Float[np.ndarray, "P 3"], vertices_m: Float[np.ndarray, "N 3"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "P"]:
    """Exact distance from each point to the nearest point of a triangle mesh, in the unit of the points.

    The closest point of a triangle is Ericson's (Real-Time Collision Detection, 2005, 5.1.5).

    Examples:
        >>> import numpy as np
        >>> from usthand.geometry.point_surface import point_surface_m
        >>> triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> point_surface_m(np.array([[0.25, 0.25, 2.0], [-3, 4, 0]]), triangle, np.array([[0, 1, 2]])).tolist()
        [2.0, 4.242640687119285]
    """
    corners = np.ascontiguousarray(vertices_m, np.float64)[faces]
    middle = corners.mean(1)
    radius = np.linalg.norm(corners - middle[:, None], axis=2).max(1)
    points = np.ascontiguousarray(points_m, np.float64)
    # The nearest corner bounds the distance, so that few triangles are looked at.
    nearest = np.asarray(KDTree(corners.reshape(-1, 3)).query(points)[0], np.float64)
    _nearest(points, corners, middle, radius, nearest)
    return nearest


@no_type_check
@njit(cache=True, nogil=True)
def _nearest(
    points: np.ndarray, corners: np.ndarray, middle: np.ndarray, radius: np.ndarray, nearest: np.ndarray
) -> None:  # pragma: no cover
    """Lower the upper bounds in `nearest` to the distances."""
    for i in range(len(points)):
        p = points[i]
        best = nearest[i]
        for f in range(len(corners)):
            x, y, z = p[0] - middle[f, 0], p[1] - middle[f, 1], p[2] - middle[f, 2]
            reach = best + radius[f]
            if x * x + y * y + z * z < reach * reach:  # else the triangle's own sphere is farther than the best
                best = min(best, np.sqrt(_square_to_triangle(p, corners[f, 0], corners[f, 1], corners[f, 2])))
        nearest[i] = best


@no_type_check
@njit(cache=True, nogil=True)
def _square_to_triangle(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:  # pragma: no cover
    """Squared distance; the regions of corners, edges and face are told apart by their barycentric signs."""
    ab, ac, ap, bp, cp = b - a, c - a, p - a, p - b, p - c
    d1, d2 = np.dot(ab, ap), np.dot(ac, ap)
    d3, d4 = np.dot(ab, bp), np.dot(ac, bp)
    d5, d6 = np.dot(ab, cp), np.dot(ac, cp)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if d1 <= 0 and d2 <= 0:
        away = ap
    elif d3 >= 0 and d4 <= d3:
        away = bp
    elif d6 >= 0 and d5 <= d6:
        away = cp
    elif vc <= 0 and d1 >= 0 and d3 <= 0:
        away = ap - ab * (d1 / (d1 - d3))
    elif vb <= 0 and d2 >= 0 and d6 <= 0:
        away = ap - ac * (d2 / (d2 - d6))
    elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        away = bp - (c - b) * ((d4 - d3) / ((d4 - d3) + (d5 - d6)))
    else:
        away = ap - (ab * vb + ac * vc) / (va + vb + vc)
    return np.dot(away, away)
