"""Drawing on images without a screen: meshes with depth, antialiased strokes, discs and ellipses, short texts.

Images are float32 (H, W, 3), 0 to 255, and are drawn on in place; positions are pixels with centres at integers, so
sub-pixel positions are honoured. Coverage of strokes and ellipses is computed from the distance to their edge, which
is what makes them smooth. No OpenGL.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from numba import njit
from PIL import Image, ImageDraw, ImageFont

from usthand.geometry.meshes import vertex_normals
from usthand.geometry.raster import NEAR_M, ZBuffer, empty_buffer, interpolate, rasterise

FINGER_COLOURS = {
    "thumb": (255, 92, 92),
    "index": (255, 184, 28),
    "middle": (74, 222, 128),
    "ring": (56, 189, 248),
    "little": (200, 140, 255),
}
"""RGB; bright, so that they stand out on skin and on the shaded mesh alike."""
WRIST_COLOUR = (240, 240, 240)
MESH_COLOURS = {"right": (158, 197, 254), "left": (150, 236, 196)}
OUTLINE = (10, 12, 16)

# Light from over the viewer's left shoulder, in camera axes (x right, y down, z forward), towards the light.
_LIGHT = np.array([-0.40, -0.62, -0.67])
_AMBIENT, _DIFFUSE, _GLOSS, _GLOSS_POWER = 0.34, 0.62, 0.16, 12.0
_SUPERSAMPLE = 2  # mesh edges only; everything else is antialiased by its own formula


def draw_mesh(
    image: Float[np.ndarray, "H W 3"],
    xy_px: Float[np.ndarray, "N 2"],
    points_camera_m: Float[np.ndarray, "N 3"],
    faces: Int[np.ndarray, "F 3"],
    colour: tuple[int, int, int] = MESH_COLOURS["right"],
    opacity: float = 0.7,
) -> None:
    """A smoothly shaded, half transparent mesh. ``xy_px`` are its vertices in the image (by the caller's projection, so
    that lens distortion is respected), ``points_camera_m`` the same in camera axes, for depth and shading.

    Both sides of a face are shaded alike: the winding does not matter, so a mirrored hand needs no other faces."""
    xy, points = np.asarray(xy_px, np.float64), np.asarray(points_camera_m, np.float64)
    faces = np.ascontiguousarray(faces, np.int32)
    box = _box(xy[points[:, 2] >= NEAR_M], image.shape)
    if box is None:
        return
    left, top, right, bottom = box
    buffer = _mesh_samples((bottom - top, right - left), xy - (left, top), points[:, 2], faces, _SUPERSAMPLE)
    shade = np.zeros(buffer.face_id.shape, np.float32)
    interpolate(buffer, faces, _shading(vertex_normals(points, faces)), shade)
    cover = _shrink((buffer.face_id >= 0).astype(np.float32), _SUPERSAMPLE)[..., None]
    part = image[top:bottom, left:right]
    part *= 1.0 - opacity * cover
    part += opacity * _shrink(shade, _SUPERSAMPLE)[..., None] * np.asarray(colour, np.float32)
    np.clip(part, 0.0, 255.0, out=part)


def _mesh_samples(
    shape: tuple[int, int], xy_px: np.ndarray, depth_m: np.ndarray, faces: np.ndarray, samples: int
) -> ZBuffer:
    """A mesh in a z-buffer of samples x samples for each pixel of an image of `shape`."""
    seen = (depth_m >= NEAR_M) & np.isfinite(xy_px).all(axis=-1)
    screen = np.column_stack([np.where(seen[:, None], xy_px, 0.0), np.where(seen, depth_m, -1.0)])
    buffer = empty_buffer(shape[0] * samples, shape[1] * samples)
    rasterise(screen, faces, buffer, samples)
    return buffer


def _box(xy: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom (exclusive) of the part of an image that holds all points; None if there is none."""
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        return None
    limit = np.array([shape[1], shape[0]])
    low = np.clip(np.floor(xy.min(axis=0)) - 1, 0, limit).astype(int)
    high = np.clip(np.ceil(xy.max(axis=0)) + 2, 0, limit).astype(int)
    return (*low.tolist(), *high.tolist()) if (high > low).all() else None


def _shrink(array: np.ndarray, n: int) -> np.ndarray:
    """Mean over blocks of n x n."""
    return sum(array[i::n, j::n] for i in range(n) for j in range(n)) / n**2


def mesh_coverage(
    shape: tuple[int, int], xy_px: Float[np.ndarray, "N 2"], depth_m: Float[np.ndarray, "N"], faces: np.ndarray
) -> np.ndarray:
    """Which pixels of an image of ``shape`` (height, width) a mesh covers, bool (H, W)."""
    faces = np.ascontiguousarray(faces, np.int32)
    return _mesh_samples(shape, np.asarray(xy_px), np.asarray(depth_m), faces, 1).face_id >= 0


def draw_stroke(
    image: np.ndarray, a: np.ndarray, b: np.ndarray, radius_px: float, colour, opacity: float = 1.0
) -> None:
    """A line from ``a`` to ``b`` (x, y in px) with round ends."""
    if np.isfinite([*a, *b]).all():
        _capsule(image, a[0], a[1], b[0], b[1], radius_px, np.asarray(colour, np.float32), opacity)


def draw_disc(image: np.ndarray, centre: np.ndarray, radius_px: float, colour, opacity: float = 1.0) -> None:
    """A filled disc."""
    draw_stroke(image, centre, centre, radius_px, colour, opacity)


def draw_ellipse(
    image: np.ndarray,
    centre: np.ndarray,
    covariance_px2: Float[np.ndarray, "2 2"],
    radius2: float,
    colour,
    fill: float = 0.2,
    line_px: float = 1.3,
    line_opacity: float = 0.9,
) -> None:
    """The ellipse of points within squared Mahalanobis distance ``radius2`` of ``centre``: a faint fill and a line."""
    inner = np.asarray(covariance_px2, np.float64) * radius2 + 0.05 * np.eye(2)  # never thinner than a fifth of a pixel
    if np.isfinite(inner).all() and np.isfinite(centre).all():
        half_x, half_y = np.sqrt(inner[0, 0]) + line_px + 1, np.sqrt(inner[1, 1]) + line_px + 1
        _ellipse(
            image,
            centre[0],
            centre[1],
            np.linalg.inv(inner),
            half_x,
            half_y,
            np.asarray(colour, np.float32),
            fill,
            line_px,
            line_opacity,
        )


def draw_text(image: np.ndarray, text: str, at: tuple[int, int], size_px: int = 14, colour=(255, 255, 255)) -> None:
    """A line of text with its top left corner at ``at``, on a dark edge, readable on anything."""
    font, edge = ImageFont.load_default(size_px), max(1, size_px // 9)
    x, y = at
    part = image[y : y + 2 * size_px, x : x + int(font.getlength(text)) + 2 * edge + 2]
    if part.size:
        canvas = Image.fromarray(part.astype(np.uint8))
        ImageDraw.Draw(canvas).text((edge, 0), text, colour, font, stroke_width=edge, stroke_fill=OUTLINE)
        part[:] = canvas


def _shading(normals: np.ndarray) -> np.ndarray:
    """Brightness of each vertex: ambient, Lambert and a little gloss, with the normal turned to the viewer."""
    facing = np.where(normals[:, 2:] > 0, -normals, normals)
    light = np.clip(facing @ (_LIGHT / np.linalg.norm(_LIGHT)), 0.0, 1.0)
    rim = 0.72 + 0.28 * np.clip(-facing[:, 2], 0.0, 1.0)  # darker where the surface turns away: shows the form
    return rim * (_AMBIENT + _DIFFUSE * light) + _GLOSS * light**_GLOSS_POWER


@njit(cache=True)
def _capsule(image, ax, ay, bx, by, radius, colour, opacity):
    height, width = image.shape[:2]
    reach = radius + 1.0
    left, right = max(math.floor(min(ax, bx) - reach), 0), min(math.ceil(max(ax, bx) + reach), width - 1)
    top, bottom = max(math.floor(min(ay, by) - reach), 0), min(math.ceil(max(ay, by) + reach), height - 1)
    dx, dy = bx - ax, by - ay
    length2 = max(dx * dx + dy * dy, 1e-12)
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            along = min(max(((x - ax) * dx + (y - ay) * dy) / length2, 0.0), 1.0)
            distance = math.hypot(x - ax - along * dx, y - ay - along * dy)
            cover = opacity * min(max(radius + 0.5 - distance, 0.0), 1.0)
            if cover > 0.0:
                for c in range(3):
                    image[y, x, c] += cover * (colour[c] - image[y, x, c])


@njit(cache=True)
def _ellipse(image, cx, cy, inverse, half_x, half_y, colour, fill, line, line_opacity):
    height, width = image.shape[:2]
    left, right = max(math.floor(cx - half_x), 0), min(math.ceil(cx + half_x), width - 1)
    top, bottom = max(math.floor(cy - half_y), 0), min(math.ceil(cy + half_y), height - 1)
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            dx, dy = x - cx, y - cy
            gx, gy = inverse[0, 0] * dx + inverse[0, 1] * dy, inverse[1, 0] * dx + inverse[1, 1] * dy
            q = math.sqrt(max(gx * dx + gy * dy, 1e-12))
            outside = (q - 1.0) * q / max(math.hypot(gx, gy), 1e-12)  # distance to the edge in px, first order
            inside = min(max(0.5 - outside, 0.0), 1.0)
            edge = min(max(0.5 * line + 0.5 - abs(outside), 0.0), 1.0)
            cover = max(fill * inside, line_opacity * edge)
            if cover > 0.0:
                for c in range(3):
                    image[y, x, c] += cover * (colour[c] - image[y, x, c])
