"""Images of triangle meshes: what one camera sees, which label covers each pixel, how far it is, which joints show.

Use, with the shapes in comments::

    model = merge([part_a, part_b])                         # static: triangles, labels, textures
    lit = light_mesh(model, vertices_world_m, lights)       # once a frame, shared by all cameras
    image = render(model, lit, camera, background, sensor)  # image.rgb (H, W, 3) uint8, image.mask, image.depth_m
    seen = joint_visibility(joints_world_m, image.depth_m, camera)   # (21,) bool

`render_views` does the last two lines for all cameras with two threads. Vertices are projected with the camera's own
lens distortion and the triangles between them stay straight, which is exact enough for meshes as fine as a hand.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from usthand.capture.rig import Camera
from usthand.datasets.synthetic import shade
from usthand.datasets.synthetic.camera_effects import STEP_S, CameraEffects, develop_effects, rolled, smear
from usthand.datasets.synthetic.shade import SAMPLES, Lit, SceneModel
from usthand.geometry import raster
from usthand.geometry.meshes import vertex_normals

BACKGROUND, HAND, FOREARM, OBJECT = 0, 1, 2, 3  # values of a mask
SHADOW_TEXELS = 128  # side of each light's depth map
LIGHT_MARGIN_M = 0.03  # around the hand; what lies outside the maps casts no shadow
SKY_DIRECTIONS = 16  # directions of the ambient occlusion


class Material(NamedTuple):
    """How a part's surface returns light, beside its texture."""

    scatter: float = 0.0  # 1 for skin: light wraps around the form, most in red
    exponent: float = 20.0  # of the Blinn-Phong highlight; larger is smaller and sharper
    reflectance: float = 0.028  # at normal incidence; 0.028 is skin


SKIN = Material(1.0, 18.0, 0.028)
PAINT = Material()


@dataclass(frozen=True)
class Part:
    """One mesh of a scene without its moving vertices. Faces index the *scene's* vertex array."""

    faces: np.ndarray  # (F, 3) int
    label: int
    texels: np.ndarray  # (F, CELLS, CHANNELS) float32, see `shade`
    material: Material = PAINT


@dataclass(frozen=True)
class Lights:
    """Distant lamps and an ambient hemisphere. Directions are unit vectors towards the light, in the world."""

    direction: np.ndarray  # (L, 3)
    colour: np.ndarray  # (L, 3) linear radiance on a white surface
    softness_m: np.ndarray  # (L,) width of the shadow's edge
    up: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    sky: np.ndarray = field(default_factory=lambda: np.array([0.35, 0.35, 0.37]))
    ground: np.ndarray = field(default_factory=lambda: np.array([0.22, 0.2, 0.18]))

    @cached_property
    def frames(self) -> np.ndarray:
        """(L, 3, 3) float32: axes of each light's depth map, the last row towards the light."""
        return np.stack([frame_towards(d) for d in self.direction])


@dataclass(frozen=True)
class Sensor:
    """What a camera does to light before it becomes bytes."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  # exposure and white balance
    blur_px: float = 0.4  # standard deviation, at most 0.7
    read_noise: float = 0.004  # in linear units, full scale 1
    shot_noise: float = 0.01  # at full scale
    effects: CameraEffects | None = None  # of a real webcam

    def at(self, time_s: float) -> Sensor:
        """The sensor at a time: a webcam's exposure and white balance drift."""
        if self.effects is None:
            return self
        red, green, blue = (np.array(self.gain) * self.effects.gain_at(time_s)).tolist()
        return replace(self, gain=(red, green, blue))


class Image(NamedTuple):
    """One camera's view."""

    rgb: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) uint8: BACKGROUND, HAND, FOREARM or OBJECT
    depth_m: np.ndarray  # (H, W) float32 along the optical axis, infinity on the background


def merge(parts: Sequence[Part]) -> SceneModel:
    """Concatenate parts into the flat arrays that the kernels read."""
    hand = [p.faces.ravel() for p in parts if p.label == HAND] or [p.faces.ravel() for p in parts]
    return SceneModel(
        np.concatenate([p.faces for p in parts]).astype(np.int32),
        np.concatenate([np.full(len(p.faces), p.label, np.uint8) for p in parts]),
        np.concatenate([np.tile(np.array(p.material, np.float32), (len(p.faces), 1)) for p in parts]),
        np.concatenate([p.texels for p in parts]).astype(np.float32),
        np.unique(np.concatenate(hand)),
    )


def texel_corners() -> tuple[np.ndarray, np.ndarray]:
    """The grid that carries a triangle's texture: barycentric weights (P, 3) of its points, and each cell's points.

    The second array (CELLS, 3) holds the ids of a cell's corner at (i, j) and of the next ones along b1 and b2.
    """
    n = shade.TEXELS
    grid = [(i, j) for i in range(n + 1) for j in range(n + 1 - i)]
    number = {point: k for k, point in enumerate(grid)}
    cells = [(number[i, j], number[i + 1, j], number[i, j + 1]) for i in range(n) for j in range(n - i)]
    b = np.array(grid) / n
    return np.concatenate([1 - b.sum(1, keepdims=True), b], 1), np.array(cells)


def frame_towards(direction: np.ndarray) -> np.ndarray:
    """Right-handed frame (3, 3) whose last row is the direction's unit vector."""
    d = direction / np.linalg.norm(direction)
    side = np.cross(d, np.eye(3)[np.argmin(np.abs(d))])
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(d, side), d]).astype(np.float32)


def _sky_frames() -> np.ndarray:
    """Evenly spread directions over the sphere (a Fibonacci lattice)."""
    i = np.arange(SKY_DIRECTIONS) + 0.5
    z = 1 - 2 * i / SKY_DIRECTIONS
    turn = np.pi * (1 + 5**0.5) * i
    ring = np.sqrt(1 - z * z)
    return np.stack([frame_towards(d) for d in np.stack([ring * np.cos(turn), ring * np.sin(turn), z], -1)])


_SKY = _sky_frames()


def _map_corners(vertices: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, float]:
    """Lower corners (L, 2) and common extent of square maps that hold the vertices and their neighbourhood."""
    low, high = vertices.min(0), vertices.max(0)
    extent = float(np.linalg.norm(high - low)) + 2 * LIGHT_MARGIN_M
    middle = frames[:, :2] @ (0.5 * (low + high))
    return (middle - 0.5 * extent).astype(np.float32), extent


def light_mesh(
    model: SceneModel, vertices_world_m: np.ndarray, lights: Lights, velocity_m_s: np.ndarray | None = None
) -> Lit:
    """Normals, ambient occlusion and shadow maps of one frame; vertices (N, 3) in the world, m.

    velocity_m_s (N, 3): the vertices', for cameras whose shutter shows it.
    """
    vertices = np.ascontiguousarray(vertices_world_m, np.float32)
    normals = vertex_normals(vertices, model.faces)
    around = vertices[model.focus]
    lows, extent = _map_corners(around, _SKY)
    openness = np.empty(len(vertices), np.float32)
    sky_texel_m = extent / (shade.SKY_TEXELS - 1)
    shade.sky_openness(vertices, normals, model.faces, _SKY, lows, sky_texel_m, openness)
    frames = lights.frames
    lows, extent = _map_corners(around, frames)
    maps = np.empty((len(frames), SHADOW_TEXELS, SHADOW_TEXELS), np.float32)
    texel_m = extent / (SHADOW_TEXELS - 1)
    for frame, low, out in zip(frames, lows, maps, strict=True):
        raster.light_map(vertices, model.faces, frame, low, texel_m, out)
    spread = (lights.softness_m / (2 * texel_m)).astype(np.float32)
    glow = (lights.up, lights.direction, lights.colour, lights.sky, lights.ground)
    glow = [np.asarray(values, np.float32) for values in glow]
    velocity = np.zeros_like(vertices) if velocity_m_s is None else np.asarray(velocity_m_s, np.float32)
    return Lit(vertices, normals, openness, maps, frames, lows, np.float32(texel_m), spread, *glow, velocity=velocity)


def project_camera(points_world_m: np.ndarray, camera: Camera) -> np.ndarray:
    """Points (N, 3) m to (N, 3): u px, v px, depth m; depth is -1 where the lens cannot see them."""
    out = np.empty((len(points_world_m), 3))
    raster.project_vertices(
        np.ascontiguousarray(points_world_m, float),
        np.ascontiguousarray(camera.rotation, float),
        np.ascontiguousarray(camera.translation, float),
        np.ascontiguousarray(camera.matrix, float),
        camera.coefficients,
        camera.lens,
        out,
    )
    return out


def _tone_table(entries: int = 16384) -> np.ndarray:
    """Bytes of sRGB over linear [0, 4): straight to 0.7, then a soft shoulder, as cameras roll off highlights."""
    x = np.arange(entries) * 4.0 / entries
    x = np.where(x > 0.7, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)), x)
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.round(255 * np.clip(srgb, 0, 1)).astype(np.uint8)


_TONE = _tone_table()
_BUFFERS = threading.local()


def _sample_buffer(height: int, width: int) -> raster.ZBuffer:
    """A cleared z-buffer; each thread keeps its own, since fresh pages cost much."""
    buffer = getattr(_BUFFERS, "buffer", None)
    if buffer is None or buffer.face_id.shape != (height, width):
        buffer = _BUFFERS.buffer = raster.empty_buffer(height, width)
    buffer.clear()
    return buffer


def render(
    model: SceneModel, lit: Lit, camera: Camera, background: np.ndarray, sensor: Sensor | None = None, seed: int = 0
) -> Image:
    """Draw one view.

    background (H, W, 3): linear radiance behind everything, of the camera's size. The seed fixes the sensor's noise;
    equal inputs give equal bytes, whatever the number of threads.
    """
    sensor = sensor or Sensor()
    height, width = camera.height, camera.width
    buffer = _sample_buffer(height * SAMPLES, width * SAMPLES)
    effects, screen = sensor.effects, project_camera(lit.vertices, camera)
    speed = np.zeros((len(screen), 2))
    if effects is not None and lit.velocity.any():
        later = project_camera(lit.vertices + np.float32(STEP_S) * lit.velocity, camera)
        both = (later[:, 2:] > 0) & (screen[:, 2:] > 0)
        speed = np.where(both, (later - screen)[:, :2] / STEP_S, 0.0)
        screen = rolled(screen, speed, effects.readout_s, height)
    window = raster.rasterise(screen, model.faces, buffer, SAMPLES)
    image = np.array(background, np.float32)
    mask = np.zeros((height, width), np.uint8)
    depth = np.full((height, width), np.inf, np.float32)
    shade.shade_image(window, buffer, model, lit, camera.centre_world.astype(np.float32), (image, mask, depth))
    if effects is not None:
        smear(image, background, buffer, model.faces, effects.exposure_s * speed)
        noise = sensor.read_noise, sensor.shot_noise
        return Image(develop_effects(image, effects, np.array(sensor.gain), sensor.blur_px, noise, seed), mask, depth)
    if sensor.blur_px > 0:
        shade.blur(image, min(sensor.blur_px, 0.7), np.empty_like(image))
    rgb = np.empty((height, width, 3), np.uint8)
    gain = np.asarray(sensor.gain, np.float32)
    # The kernel counts pixels up from a word that no other image's count reaches.
    shade.develop(image, gain, sensor.read_noise, sensor.shot_noise, _TONE, np.uint64(seed) << np.uint64(28), rgb)
    return Image(rgb, mask, depth)


def render_views(
    model: SceneModel,
    lit: Lit,
    cameras: Sequence[Camera],
    backgrounds: Sequence[np.ndarray],
    sensors: Sequence[Sensor],
    seed: int = 0,
    pool: ThreadPoolExecutor | None = None,
) -> list[Image]:
    """Draw one frame in every camera, in parallel if a pool is given. Camera i takes the noise of seed and i."""
    jobs = [
        (model, lit, camera, background, sensor, _view_seed(seed, i))
        for i, (camera, background, sensor) in enumerate(zip(cameras, backgrounds, sensors, strict=True))
    ]
    if pool is None:
        return [render(*job) for job in jobs]
    return list(pool.map(lambda job: render(*job), jobs))


def _view_seed(seed: int, view: int) -> int:
    return (seed * 1009 + view) % 2**36


# How far the skin may lie in front of a joint's centre, m: the flesh around it within 37 degrees of the palm's normal,
# as measured on the embedded hand; along a finger there is always more, so a joint seen end-on counts as hidden.
FLESH_M = np.empty(21)
FLESH_M[:5] = 0.032, 0.028, 0.017, 0.014, 0.010
FLESH_M[5:] = np.tile([0.022, 0.014, 0.013, 0.010], 4)


def joint_visibility(
    joints_world_m: np.ndarray, depth_m: np.ndarray, camera: Camera, flesh_m: np.ndarray | float = FLESH_M
) -> np.ndarray:
    """Which joints (J, 3) show in a view: inside the image and not behind more than their own flesh.

    A joint's centre always lies under skin, so it counts as seen when the surface in front of it (the nearest pixel of
    depth_m (H, W)) is at most `flesh_m` nearer to the camera, along the optical axis, than the centre. Returns (J,).
    """
    screen = project_camera(np.asarray(joints_world_m, float), camera)
    column, row = np.rint(screen[:, 0]).astype(int), np.rint(screen[:, 1]).astype(int)
    inside = (screen[:, 2] > 0) & (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
    surface = depth_m[np.clip(row, 0, camera.height - 1), np.clip(column, 0, camera.width - 1)]
    return inside & (surface >= screen[:, 2] - flesh_m)
