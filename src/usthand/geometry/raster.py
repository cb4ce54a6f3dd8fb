"""Triangles to depth: camera projection with lens distortion, a perspective-correct z-buffer, orthographic depth maps.

Numba compiles the functions (`no_type_check` keeps run-time type checks from wrapping them). They hold no state and
release the GIL, so several threads can draw images at once.
Pixel centres lie at integer coordinates, as in OpenCV.
"""

from __future__ import annotations

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

from usthand.geometry.lenses import DOUBLE_SPHERE, FISHEYE, PINHOLE, THIN_PRISM

NEAR_M = 0.02  # triangles nearer to the camera than this are dropped, not clipped
_OUTSIDE = -1.0  # depth that marks a vertex the lens cannot see
_EDGE = -1e-5  # barycentric slack: rounding must not open cracks between neighbouring triangles


class ZBuffer(NamedTuple):
    """The nearest surface at each sample of an image; what `rasterise` fills."""

    inverse_depth: np.ndarray  # (h, w) float32, 1/m; 0 where empty
    face_id: np.ndarray  # (h, w) int32; -1 where empty
    barycentric: np.ndarray  # (h, w, 2) float32, perspective-correct weights of the triangle's second and third vertex

    def clear(self) -> None:
        """Empty it; the barycentrics of empty samples mean nothing."""
        self.inverse_depth.fill(0.0)
        self.face_id.fill(-1)


def empty_buffer(height: int, width: int) -> ZBuffer:
    """A cleared z-buffer of so many samples."""
    buffer = ZBuffer(
        np.empty((height, width), np.float32),
        np.empty((height, width), np.int32),
        np.empty((height, width, 2), np.float32),
    )
    buffer.clear()
    return buffer


@no_type_check
@njit(cache=True, nogil=True)
def _pinhole_limit(k: np.ndarray) -> float:
    """Largest undistorted radius up to which OpenCV's radial polynomial still grows; beyond it, images fold back."""
    previous = 0.0
    for step in range(1, 400):
        r = step * 0.01
        r2 = r * r
        scale = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
        if scale * r <= previous:
            return (step - 1) * 0.01
        previous = scale * r
    return 4.0


@no_type_check
@njit(cache=True, nogil=True)
def _bend(x: float, y: float, k: np.ndarray, lens: int) -> tuple[float, float]:
    """`usthand.geometry.lenses.distort` for one point: `lens` and the twelve coefficients `k` are as in `Cameras`."""
    r2 = x * x + y * y
    if lens == PINHOLE or lens == THIN_PRISM:
        scale = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
        xd = x * scale + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x)
        yd = y * scale + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y
        return xd + r2 * (k[8] + r2 * k[9]), yd + r2 * (k[10] + r2 * k[11])
    if lens == DOUBLE_SPHERE:
        axial = k[0] * math.sqrt(r2 + 1) + 1
        scale = 1 / (k[1] * math.sqrt(r2 + axial * axial) + (1 - k[1]) * axial)
        return x * scale, y * scale
    r = math.sqrt(r2)
    angle = math.atan(r)
    a2 = angle * angle
    growth = 0.0
    for i in range(3 if lens == FISHEYE else 5, -1, -1):
        growth = a2 * (k[i] + growth)
    scale = angle * (1 + growth) / r if r > 1e-9 else 1.0
    x *= scale
    y *= scale
    if lens == FISHEYE:
        return x, y
    r2 = x * x + y * y
    xd = x + k[6] * (r2 + 2 * x * x) + 2 * k[7] * x * y + r2 * (k[8] + r2 * k[9])
    yd = y + k[7] * (r2 + 2 * y * y) + 2 * k[6] * x * y + r2 * (k[10] + r2 * k[11])
    return xd, yd


@no_type_check
@njit(cache=True, nogil=True)
def project_vertices(
    points: np.ndarray,
    rotation: np.ndarray,
    translation: np.ndarray,
    matrix: np.ndarray,
    k: np.ndarray,
    lens: int,
    out: np.ndarray,
) -> None:
    """Project world points (N, 3) m into `out` (N, 3): u px, v px, depth m; depth -1 where the lens cannot see.

    `lens` and the twelve coefficients `k` are as in `usthand.geometry.cameras.Cameras`.
    """
    limit = _pinhole_limit(k) if lens == PINHOLE or lens == THIN_PRISM else 4.0
    turn, shift = rotation, translation
    for i in range(points.shape[0]):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        x = turn[0, 0] * px + turn[0, 1] * py + turn[0, 2] * pz + shift[0]
        y = turn[1, 0] * px + turn[1, 1] * py + turn[1, 2] * pz + shift[1]
        z = turn[2, 0] * px + turn[2, 1] * py + turn[2, 2] * pz + shift[2]
        if z < NEAR_M:
            out[i, 0] = 0.0
            out[i, 1] = 0.0
            out[i, 2] = _OUTSIDE
            continue
        x /= z
        y /= z
        if x * x + y * y > limit * limit:
            z = _OUTSIDE
            x = 0.0
            y = 0.0
        xd, yd = _bend(x, y, k, lens)
        out[i, 0] = matrix[0, 0] * xd + matrix[0, 1] * yd + matrix[0, 2]
        out[i, 1] = matrix[1, 1] * yd + matrix[1, 2]
        out[i, 2] = z


@no_type_check
@njit(cache=True, nogil=True)
def rasterise(screen: np.ndarray, faces: np.ndarray, buffer: ZBuffer, samples: int) -> tuple[int, int, int, int]:
    """Draw triangles into a z-buffer of samples x samples to a pixel, which the caller passes cleared.

    screen (N, 3): u px, v px, depth m of the vertices; triangles with a vertex of negative depth are left out.
    faces (F, 3). Returns (row0, row1, column0, column1) of the touched samples.
    """
    inverse_depth, face_id, barycentric = buffer
    height, width = inverse_depth.shape
    row_lo, row_hi, column_lo, column_hi = height, 0, width, 0
    offset = 0.5 * samples - 0.5  # sample i lies at pixel (i - offset) / samples
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if screen[a, 2] < 0 or screen[b, 2] < 0 or screen[c, 2] < 0:
            continue
        ua = screen[a, 0] * samples + offset
        va = screen[a, 1] * samples + offset
        ub = screen[b, 0] * samples + offset
        vb = screen[b, 1] * samples + offset
        uc = screen[c, 0] * samples + offset
        vc = screen[c, 1] * samples + offset
        c0 = max(0, math.ceil(min(ua, ub, uc)))
        c1 = min(width - 1, math.floor(max(ua, ub, uc)))
        r0 = max(0, math.ceil(min(va, vb, vc)))
        r1 = min(height - 1, math.floor(max(va, vb, vc)))
        if c0 > c1 or r0 > r1:
            continue
        area = (ub - ua) * (vc - va) - (uc - ua) * (vb - va)
        if abs(area) < 1e-12:
            continue
        over = 1.0 / area
        qa = 1.0 / screen[a, 2]
        qb = 1.0 / screen[b, 2]
        qc = 1.0 / screen[c, 2]
        # Screen barycentrics are affine in the sample's position: value at (c0, r0) and its two slopes.
        lb_u = (vc - va) * over
        lb_v = -(uc - ua) * over
        lc_u = -(vb - va) * over
        lc_v = (ub - ua) * over
        row_lo = min(row_lo, r0)
        row_hi = max(row_hi, r1)
        column_lo = min(column_lo, c0)
        column_hi = max(column_hi, c1)
        for r in range(r0, r1 + 1):
            lb = lb_u * (c0 - ua) + lb_v * (r - va)
            lc = lc_u * (c0 - ua) + lc_v * (r - va)
            for s in range(c0, c1 + 1):
                la = 1.0 - lb - lc
                if la >= _EDGE and lb >= _EDGE and lc >= _EDGE:
                    q = la * qa + lb * qb + lc * qc
                    if q > inverse_depth[r, s]:
                        inverse_depth[r, s] = q
                        face_id[r, s] = f
                        barycentric[r, s, 0] = lb * qb / q
                        barycentric[r, s, 1] = lc * qc / q
                lb += lb_u
                lc += lc_u
    return row_lo, row_hi + 1, column_lo, column_hi + 1


@no_type_check
@njit(cache=True, nogil=True)
def interpolate(buffer: ZBuffer, faces: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """Carry one value per vertex, values (N,), to the covered samples of `out` (h, w), perspective-correct."""
    for r in range(out.shape[0]):
        for s in range(out.shape[1]):
            f = buffer.face_id[r, s]
            if f >= 0:
                b, c = buffer.barycentric[r, s, 0], buffer.barycentric[r, s, 1]
                out[r, s] = (1.0 - b - c) * values[faces[f, 0]] + b * values[faces[f, 1]] + c * values[faces[f, 2]]


@no_type_check
@njit(cache=True, nogil=True)
def light_map(
    points: np.ndarray, faces: np.ndarray, frame: np.ndarray, low: np.ndarray, texel_m: float, out: np.ndarray
) -> None:
    """Orthographic depth map seen from a light: `out` (S, S) receives the largest height along the light's direction.

    frame (3, 3): rows are the map's two axes and the unit direction towards the light. low (2,): the map's corner in
    those axes, m. Empty texels hold -1e9.
    """
    size = out.shape[0]
    out[:, :] = -1e9
    n = points.shape[0]
    local = np.empty((n, 3), np.float32)
    for i in range(n):
        for k in range(3):
            local[i, k] = frame[k, 0] * points[i, 0] + frame[k, 1] * points[i, 1] + frame[k, 2] * points[i, 2]
        local[i, 0] = (local[i, 0] - low[0]) / texel_m
        local[i, 1] = (local[i, 1] - low[1]) / texel_m
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        xa, ya = local[a, 0], local[a, 1]
        xb, yb = local[b, 0], local[b, 1]
        xc, yc = local[c, 0], local[c, 1]
        c0 = max(0, math.ceil(min(xa, xb, xc)))
        c1 = min(size - 1, math.floor(max(xa, xb, xc)))
        r0 = max(0, math.ceil(min(ya, yb, yc)))
        r1 = min(size - 1, math.floor(max(ya, yb, yc)))
        if c0 > c1 or r0 > r1:
            continue
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if abs(area) < 1e-9:
            continue
        over = 1.0 / area
        for r in range(r0, r1 + 1):
            for s in range(c0, c1 + 1):
                lb = ((s - xa) * (yc - ya) - (xc - xa) * (r - ya)) * over
                lc = ((xb - xa) * (r - ya) - (s - xa) * (yb - ya)) * over
                la = 1.0 - lb - lc
                if la >= _EDGE and lb >= _EDGE and lc >= _EDGE:
                    h = la * local[a, 2] + lb * local[b, 2] + lc * local[c, 2]
                    if h > out[r, s]:
                        out[r, s] = h
