"""Drawing on images without a screen: meshes with depth, antialiased strokes, discs and ellipses, short texts.

Images are float32 (H, W, 3), 0 to 255, and are drawn on in place; positions are pixels with centres at integers, so
sub-pixel positions are honoured. Coverage of strokes and ellipses is computed from the distance to their edge, which
is what makes them smooth. No OpenGL.
"""

from __future__ import annotations

import math
from typing import no_type_check

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
Colour = tuple[int, int, int]
"""RGB, 0 to 255."""
Picture = Float[np.ndarray, "H W 3"]
Point = Float[np.ndarray, "2"]
"""x and y, px."""

# Light from over the viewer's left shoulder, in camera axes (x right, y down, z forward), towards the light.
_LIGHT = np.array([-0.40, -0.62, -0.67])
_AMBIENT, _DIFFUSE, _GLOSS, _GLOSS_POWER = 0.34, 0.62, 0.16, 12.0
_WEAK_AMBIENT = 0.5  # of a mesh whose colours mean something
_ELLIPSE_LINE_OPACITY = 0.9
_SUPERSAMPLE = 2  # mesh edges only; everything else is antialiased by its own formula


def draw_mesh(
    image: Float[np.ndarray, "H W 3"],
    xy_px: Float[np.ndarray, "N 2"],
    points_camera_m: Float[np.ndarray, "N 3"],
    faces: Int[np.ndarray, "F 3"],
    colour: Colour | Float[np.ndarray, "N 3"] = MESH_COLOURS["right"],
    opacity: float = 0.7,
) -> None:
    """A smoothly shaded, half transparent mesh.

    Both sides of a face are shaded alike: the winding does not matter, so a mirrored hand needs no other faces.

    Args:
        image: Drawn on in place.
        xy_px: Vertices in the image, by the caller's projection, so that lens distortion is respected.
        points_camera_m: The same in camera axes, for depth and shading.
        faces: Triangles.
        colour: RGB, of the whole mesh or of each vertex. A vertex's colour means something, so its shading is weaker.
        opacity: 0 shows nothing, 1 hides what is behind.
    """
    xy, points = np.asarray(xy_px, np.float64), np.ascontiguousarray(points_camera_m, np.float64)
    faces = np.ascontiguousarray(faces, np.int32)
    box = _box(xy[points[:, 2] >= NEAR_M], image.shape)
    if box is None:
        return
    left, top, right, bottom = box
    buffer = _mesh_samples((bottom - top, right - left), xy - (left, top), points[:, 2], faces, _SUPERSAMPLE)
    shading = _shading(vertex_normals(points, faces))
    if isinstance(colour, np.ndarray):
        lit = colour * (_WEAK_AMBIENT + (1.0 - _WEAK_AMBIENT) * shading)[:, None]
    else:
        lit = shading[:, None] * np.asarray(colour, np.float64)
    painted = np.zeros((*buffer.face_id.shape, 3), np.float32)
    for channel in range(3):
        interpolate(buffer, faces, lit[:, channel], painted[..., channel])
    cover = _shrink((buffer.face_id >= 0).astype(np.float32), _SUPERSAMPLE)[..., None]
    part = image[top:bottom, left:right]
    part *= 1.0 - opacity * cover
    part += opacity * _shrink(painted, _SUPERSAMPLE)
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


def _box(xy: Float[np.ndarray, "N 2"], shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom (exclusive) of the part of an image that holds all points; None if there is none."""
    xy = xy[np.isfinite(xy).all(axis=1)]
    if not len(xy):
        return None
    limit = np.array([shape[1], shape[0]])
    low = np.clip(np.floor(xy.min(axis=0)) - 1, 0, limit).astype(int)
    high = np.clip(np.ceil(xy.max(axis=0)) + 2, 0, limit).astype(int)
    return (*low.tolist(), *high.tolist()) if (high > low).all() else None


def _shrink(
    array: Float[np.ndarray, "height width *channels"], n: int
) -> Float[np.ndarray, "low_height low_width *channels"]:
    """Mean over blocks of n x n."""
    return np.add.reduce([array[i::n, j::n] for i in range(n) for j in range(n)]) / n**2


def draw_stroke(image: Picture, a: Point, b: Point, radius_px: float, colour: Colour, opacity: float = 1.0) -> None:
    """A line between two points with round ends."""
    if np.isfinite([*a, *b]).all():
        _capsule(image, a[0], a[1], b[0], b[1], radius_px, np.asarray(colour, np.float32), opacity)


def draw_disc(image: Picture, centre: Point, radius_px: float, colour: Colour, opacity: float = 1.0) -> None:
    """A filled disc."""
    draw_stroke(image, centre, centre, radius_px, colour, opacity)


def draw_ellipse(
    image: Picture,
    centre: Point,
    covariance_px2: Float[np.ndarray, "2 2"],
    radius2: float,
    colour: Colour,
    fill: float = 0.2,
    line_px: float = 1.3,
) -> None:
    """The ellipse of points within squared Mahalanobis distance `radius2` of the centre: a faint fill and a line."""
    inner = np.asarray(covariance_px2, np.float64) * radius2 + 0.05 * np.eye(2)  # never thinner than a fifth of a pixel
    if np.isfinite(inner).all() and np.isfinite(centre).all():
        half = np.sqrt(np.diag(inner)) + line_px + 1
        tint = np.asarray(colour, np.float32)
        _ellipse(image, centre, np.linalg.inv(inner), half, tint, fill, line_px, _ELLIPSE_LINE_OPACITY)


def draw_text(image: Picture, text: str, at: tuple[int, int], size_px: int = 14) -> None:
    """A line of white text with its top left corner at `at`, on a dark edge, readable on anything."""
    font, edge = ImageFont.load_default(size_px), max(1, size_px // 9)
    x, y = at
    part = image[y : y + 2 * size_px, x : x + int(font.getlength(text)) + 2 * edge + 2]
    if part.size:
        canvas = Image.fromarray(part.astype(np.uint8))
        ImageDraw.Draw(canvas).text((edge, 0), text, (255, 255, 255), font, stroke_width=edge, stroke_fill=OUTLINE)
        part[:] = canvas


def _shading(normals: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N"]:
    """Brightness of each vertex: ambient, Lambert and a little gloss, with the normal turned to the viewer."""
    facing = np.where(normals[:, 2:] > 0, -normals, normals)
    light = np.clip(facing @ (_LIGHT / np.linalg.norm(_LIGHT)), 0.0, 1.0)
    rim = 0.72 + 0.28 * np.clip(-facing[:, 2], 0.0, 1.0)  # darker where the surface turns away: shows the form
    return rim * (_AMBIENT + _DIFFUSE * light) + _GLOSS * light**_GLOSS_POWER


@no_type_check  # numba compiles it: nothing may be wrapped around it
@njit(cache=True)
def _capsule(
    image: Picture, ax: float, ay: float, bx: float, by: float, radius: float, colour: np.ndarray, opacity: float
) -> None:
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


@no_type_check  # numba compiles it: nothing may be wrapped around it
@njit(cache=True)
def _ellipse(
    image: Picture,
    centre: Point,
    inverse: np.ndarray,
    half: Point,
    colour: np.ndarray,
    fill: float,
    line: float,
    line_opacity: float,
) -> None:
    cx, cy = centre
    half_x, half_y = half
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
