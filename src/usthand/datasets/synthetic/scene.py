"""A whole synthetic scene: cameras, room, lights, a subject's hand with its forearm, and perhaps an object.

Everything random is drawn from one `numpy.random.Generator` when the scene is made; drawing it afterwards is a pure
function of the posed hand and the frame number::

    rig = sample_rig(rng, n_views=4, layout="dome", size=128)
    scene = sample_scene(rng, rig, hand_surface(hand, shape), occluders=["static"])
    for images in scene.draw_sequence(vertices_world_m, joints_world_m):   # (T, 778, 3), (T, 21, 3)
        images[view].rgb, images[view].mask, images[view].depth_m, images[view].visible

The world's z axis points up and the hand moves within some 5 cm of the rig's target, the origin unless told otherwise.
A right hand is drawn; for a left one save the mirrored rig and flip the images left to right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.datasets.synthetic import render, shapes
from usthand.datasets.synthetic.appearance import hand_texels, noise_texels, sample_skin
from usthand.datasets.synthetic.background import sample_background, sample_palette
from usthand.datasets.synthetic.camera_effects import sample_effects
from usthand.datasets.synthetic.environment import LUMINANCE, on_white
from usthand.datasets.synthetic.looks import looks_of
from usthand.datasets.synthetic.surface import (
    ARM_RINGS,
    HandSurface,
    Stump,
    forearm_faces,
    forearm_vertices,
    half_widths_m,
    palm_frame,
)
from usthand.datasets.synthetic.surroundings import muted, sample_surroundings
from usthand.datasets.synthetic.transmission import Transmission, sample_transmissions
from usthand.datasets.synthetic.worn import Wristband, band_texels, sample_real_skin, sample_worn, sample_wristband

LAYOUTS = ("dome", "side")
GRASPED = ("cylinder", "box", "sphere")
OCCLUDERS = ("static", *GRASPED)
_SKIN, _MIDDLE = 0.35, 0.2  # albedo of skin, and the brightness that a camera aims at, for its light meter
HAND_LENGTH_M = 0.18  # wrist to middle fingertip of an average adult
HAND_SHARE = 0.45  # of the image's width that such a hand fills
PALM_DEPTH_M = 0.014  # from the wrist's plane to the skin of the palm
CLOTH = render.Material(0.25, 8.0, 0.015)
GLOVE = render.Material(0.35, 14.0, 0.02)
PLASTIC = render.Material(0.1, 60.0, 0.045)


class CameraView(NamedTuple):
    """One camera's image of one frame."""

    rgb: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) uint8, see `render`
    depth_m: np.ndarray  # (H, W) float32, infinity on the background
    visible: np.ndarray  # (21,) bool


class Thing(NamedTuple):
    """An object: its mesh at rest, and where it is, in the world or in the palm's frame."""

    vertices_m: np.ndarray  # (N, 3), already turned; about its own centre
    centre_m: np.ndarray  # (3,) in the world if static, in the palm's frame (radial, distal, palmar) if grasped
    grasped: bool


@dataclass(frozen=True)
class Scene:
    """All that a sequence's images depend on besides the hand's motion."""

    rig: Rig
    model: render.SceneModel
    lights: render.Lights
    backgrounds: tuple[np.ndarray, ...]  # one (H, W, 3) a camera, linear
    sensors: tuple[render.Sensor, ...]
    wrist_loop: np.ndarray
    swell_m: np.ndarray  # (ARM_RINGS - 1,)
    forearm_width: float
    sway: np.ndarray  # (2, 3): amplitude rad, frequency 1/s, phase of the wrist's flexion and deviation
    things: tuple[Thing, ...]
    seed: int
    fps: float = 30.0
    stump: Stump | None = None  # of a hand whose own mesh bends at the wrist
    transmissions: tuple[Transmission | None, ...] = ()  # one a camera; empty if pictures are kept as they are

    def wrist_bend(self, frame: int) -> tuple[float, float]:
        """Flexion and deviation between forearm and hand, rad; slow and smooth."""
        amplitude, frequency, phase = self.sway.T
        flexion, deviation = amplitude * np.sin(2 * np.pi * frequency * frame / self.fps + phase)
        return float(flexion), float(deviation)

    def mesh(self, vertices_world_m: np.ndarray, joints_world_m: np.ndarray, frame: int = 0) -> np.ndarray:
        """All vertices of the scene, (N, 3) m: the hand's own first, then forearm and objects."""
        parts = [vertices_world_m]
        palm = palm_frame(joints_world_m)
        ring = vertices_world_m[self.wrist_loop]
        arm, bend, behind_m = palm, self.wrist_bend(frame), 0.0
        if self.stump is not None:
            arm, bend, behind_m = self.stump.posed_frame(ring), (0.0, 0.0), self.stump.behind_m
        parts.append(forearm_vertices(ring, arm, bend, self.forearm_width, self.swell_m, behind_m))
        for thing in self.things:
            local = thing.vertices_m + thing.centre_m
            parts.append(local @ palm + joints_world_m[0] if thing.grasped else local)
        return np.concatenate(parts)

    def draw(
        self,
        vertices_world_m: np.ndarray,
        joints_world_m: np.ndarray,
        frame: int = 0,
        pool: ThreadPoolExecutor | None = None,
        velocity_m_s: np.ndarray | None = None,
    ) -> list[CameraView]:
        """All cameras' views of one frame: vertices (778, 3) and joints (21, 3) in the world, m.

        velocity_m_s: of the scene's whole mesh (N, 3), as `velocity` gives it; only webcams' effects show it.
        """
        mesh = self.mesh(vertices_world_m, joints_world_m, frame)
        lit = render.light_mesh(self.model, mesh, self.lights, velocity_m_s)
        sensors = [sensor.at(frame / self.fps) for sensor in self.sensors]
        images = render.render_views(
            self.model, lit, self.rig.cameras, self.backgrounds, sensors, self.seed + frame, pool
        )
        return [
            CameraView(*image, render.joint_visibility(joints_world_m, image.depth_m, camera))
            for image, camera in zip(images, self.rig.cameras, strict=True)
        ]

    def velocity(self, vertices_world_m: np.ndarray, joints_world_m: np.ndarray, frame: int) -> np.ndarray | None:
        """Velocities (N, 3) m/s of the whole mesh in one frame of a sequence, or None if no camera would show them."""
        if all(sensor.effects is None for sensor in self.sensors) or len(vertices_world_m) < 2:
            return None
        first, last = max(frame - 1, 0), min(frame + 1, len(vertices_world_m) - 1)
        moved = [self.mesh(vertices_world_m[t], joints_world_m[t], t) for t in (first, last)]
        return (moved[1] - moved[0]) * self.fps / (last - first)

    def draw_sequence(
        self, vertices_world_m: np.ndarray, joints_world_m: np.ndarray, threads: int = 2
    ) -> Iterator[list[CameraView]]:
        """Views of every frame of (T, 778, 3) vertices and (T, 21, 3) joints, lazily, frames drawn in parallel."""

        def frame_views(t: int) -> list[CameraView]:
            velocity = self.velocity(vertices_world_m, joints_world_m, t)
            return self.draw(vertices_world_m[t], joints_world_m[t], t, None, velocity)

        with ThreadPoolExecutor(threads) as pool:
            total, waiting = len(vertices_world_m), []
            for t in range(total):
                waiting.append(pool.submit(frame_views, t))
                if len(waiting) > 2 * threads:
                    yield waiting.pop(0).result()
            for job in waiting:
                yield job.result()


def sample_rig(
    rng: np.random.Generator,
    n_views: int,
    layout: str = "dome",
    size: int = 128,
    target_m: np.ndarray | tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Rig:
    """Draw a rig of square images that look at a hand near the target.

    `dome`: cameras all around, 5 to 65 degrees above the table. `side`: within 110 degrees of one side, as webcams on a
    desk. An adult's open hand, seen flat, is about HAND_SHARE of the image's width long. Lenses are mildly distorted.

    Raises:
        UsthandError: If the layout does not exist or there is no view.
    """
    if layout not in LAYOUTS or n_views < 1:
        cause = f"the layouts are {' and '.join(LAYOUTS)}, with one view or more"
        raise UsthandError(f"no rig has layout {layout!r} with {n_views} views", cause, "choose one of these")
    start = rng.uniform(0, 2 * np.pi)
    spread = 2 * np.pi if layout == "dome" else np.radians(110) * n_views / max(1, n_views - 1)
    cameras = []
    for i in range(n_views):
        azimuth = start + spread * (i + rng.uniform(-0.25, 0.25)) / n_views
        elevation = np.radians(rng.uniform(5, 65) if layout == "dome" else rng.uniform(-5, 50))
        ring = np.cos(elevation)
        direction = np.array([ring * np.cos(azimuth), ring * np.sin(azimuth), np.sin(elevation)])
        cameras.append(_sample_camera(rng, f"cam{i}", direction, size, np.asarray(target_m, float)))
    return Rig(tuple(cameras))


def _sample_camera(rng: np.random.Generator, name: str, direction: np.ndarray, size: int, target: np.ndarray) -> Camera:
    """A camera along a direction from the target, upright but for a small roll."""
    distance = rng.uniform(0.45, 0.8)
    centre = target + distance * direction
    aim = target + rng.uniform(-0.015, 0.015, 3)
    forward = (aim - centre) / np.linalg.norm(aim - centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    roll = rng.uniform(-0.25, 0.25)
    down = np.cross(forward, right)
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    rotation = np.stack([right, down, forward])
    focal = HAND_SHARE * size * distance / HAND_LENGTH_M * rng.uniform(0.92, 1.08)
    middle = (size - 1) / 2 + rng.uniform(-0.02, 0.02, 2) * size
    matrix = np.array([[focal, 0, middle[0]], [0, focal * rng.uniform(0.995, 1.005), middle[1]], [0, 0, 1]])
    k1 = rng.uniform(-0.25, 0.1)
    distortion = np.array([k1, rng.uniform(0, 0.1), *rng.uniform(-0.002, 0.002, 2), 0.0])
    return Camera(name, size, size, matrix, distortion, "pinhole", rotation, -rotation @ centre)


def sample_lights(rng: np.random.Generator) -> render.Lights:
    """A key light from above, one or two weaker ones, and the room's ambient light; warm or cool."""
    n = int(rng.integers(2, 4))
    azimuth = rng.uniform(0, 2 * np.pi) + np.array([0, rng.uniform(1.5, 4.5), rng.uniform(0, 6.3)])[:n]
    height = np.concatenate([[rng.uniform(0.35, 0.95)], rng.uniform(-0.2, 0.8, n - 1)])
    ring = np.sqrt(1 - height**2)
    direction = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), height], -1)
    power = np.array([rng.uniform(0.55, 1.15), rng.uniform(0.1, 0.45), rng.uniform(0.05, 0.3)])[:n]
    warmth = rng.normal(0, 0.12, n)
    colour = power[:, None] * np.exp(warmth[:, None] * np.array([1.0, 0.0, -1.2]))
    softness = rng.uniform(0.004, 0.03, n)
    sky = rng.uniform(0.2, 0.5) * np.exp(rng.normal(0, 0.1) * np.array([1.0, 0.0, -1.0]))
    ground = rng.uniform(0.35, 0.9) * sky * np.exp(rng.normal(0, 0.1, 3))
    return render.Lights(direction, colour, softness, sky=sky, ground=ground)


def sample_sensor(rng: np.random.Generator, size: int) -> render.Sensor:
    """One camera's exposure, white balance, sharpness and noise."""
    exposure = np.exp(rng.normal(0, 0.16))
    balance = np.exp(rng.normal(0, 0.05, 3))
    red, green, blue = (exposure * balance).tolist()
    return render.Sensor(
        (red, green, blue), rng.uniform(0.25, 0.6), rng.uniform(0.002, 0.008), rng.uniform(0.005, 0.025)
    )


def sample_webcams(
    rng: np.random.Generator, sensors: Sequence[render.Sensor], backgrounds: Sequence[np.ndarray], white: float
) -> tuple[render.Sensor, ...]:
    """The sensors as real webcams have them, with all that a webcam does.

    Exposure follows what the camera sees, more or less: the background (H, W, 3), and skin under a light in which a
    white ball has the mean brightness `white`.
    """
    webcams = []
    effects = sample_effects(rng, len(sensors))
    for sensor, effect, background in zip(sensors, effects, backgrounds, strict=True):
        metered = 0.5 * np.median(background @ LUMINANCE) + 0.5 * _SKIN * white
        exposure = np.clip((_MIDDLE / metered) ** rng.uniform(0.4, 1.0), 0.25, 5.0) * np.exp(rng.normal(0, 0.22))
        balance = rng.normal(0, 0.08) * np.array([1.0, 0.0, -1.0]) + rng.normal(0, 0.03, 3)
        red, green, blue = (exposure * np.array(sensor.gain) * np.exp(balance)).tolist()
        noise = np.exp(rng.uniform(np.log(0.4), np.log(2.0)))
        read, shot = noise * sensor.read_noise, noise * sensor.shot_noise
        webcams.append(render.Sensor((red, green, blue), sensor.blur_px, read, shot, effect))
    return tuple(webcams)


def sample_thing(rng: np.random.Generator, rig: Rig, occluder: str) -> tuple[Thing, np.ndarray, np.ndarray]:
    """An object in the palm, or standing between the hand and one of the cameras; with its faces and texture."""
    grasped = occluder in GRASPED
    kind = occluder if grasped else GRASPED[rng.integers(3)]
    radius = rng.uniform(0.018, 0.032)
    if grasped:
        # It touches the palm; its z axis lies across it, a little turned towards the fingertips on the thumb's side.
        centre = np.array([rng.uniform(-0.005, 0.01), 0.075, PALM_DEPTH_M + radius])
        axis = np.array([1.0, rng.uniform(0.0, 0.25), rng.uniform(-0.1, 0.1)])
    else:
        axis = rng.normal(size=3) * [0.5, 0.5, 1.0]
        towards = rig.cameras[rng.integers(len(rig))].centre_world
        centre = towards / np.linalg.norm(towards) * rng.uniform(0.11, 0.2) + rng.uniform(-0.03, 0.03, 3)
    if kind == "cylinder":
        vertices, faces = shapes.cylinder(radius, rng.uniform(0.09, 0.16))
    elif kind == "box":
        vertices, faces = shapes.box(tuple(2 * radius * rng.uniform([0.6, 0.7, 1.5], [0.85, 0.95, 3.0])))
    else:
        vertices, faces = shapes.sphere(radius if grasped else 1.25 * radius)
    colours = sample_palette(rng, 2)
    stripes = (rng.uniform(0.01, 0.05), colours[1]) if rng.uniform() < 0.5 else None
    texels = noise_texels(vertices, faces, colours[0], rng, rng.uniform(0.03, 0.2), stripes=stripes)
    return Thing(vertices @ render.frame_towards(axis), centre, grasped), faces, texels


def sample_scene(
    rng: np.random.Generator,
    rig: Rig,
    surface: HandSurface,
    occluders: Sequence[str] = (),
    fps: float = 30.0,
    looks: str = "plain",
) -> Scene:
    """Draw all that is not the hand's motion: skin, forearm or sleeve, lights, backgrounds, sensors, objects.

    occluders: each `static`, something that stands between the hand and one of the cameras; or `cylinder`, `box` or
    `sphere`, held in the palm. looks: how near to reality, see `looks`; what a level adds it draws from streams of its
    own.

    Raises:
        UsthandError: If an occluder or the level of looks does not exist.
    """
    steps, (rng_camera, rng_skin, rng_room) = looks_of(looks), rng.spawn(3)
    for occluder in occluders:
        if occluder not in OCCLUDERS:
            known = ", ".join(OCCLUDERS)
            raise UsthandError(f"there is no occluder {occluder!r}", f"they are {known}", "choose one of these")
    skin, painter, gloved, band = sample_skin(rng), None, False, None
    if steps.skin:
        skin, (painter, gloved) = sample_real_skin(rng_skin), sample_worn(rng_skin, surface)
        band = sample_wristband(rng_skin)
    texels = hand_texels(surface, skin, painter)
    parts = [render.Part(surface.faces, render.HAND, texels, GLOVE if gloved else render.SKIN)]
    palette = sample_palette(rng)
    arm_parts, swell, width, n_vertices = _sample_forearm(rng, surface, skin.tone, band)
    parts += arm_parts
    things = []
    for occluder in occluders:
        thing, faces, texels = sample_thing(rng, rig, occluder)
        parts.append(render.Part(faces + n_vertices, render.OBJECT, texels, PLASTIC))
        n_vertices += len(thing.vertices_m)
        things.append(thing)
    backgrounds = tuple(sample_background(rng, c.height, c.width, palette) for c in rig.cameras)
    sensors = tuple(sample_sensor(rng, c.width) for c in rig.cameras)
    amplitude, frequency = rng.uniform([0.1, 0.05], [0.45, 0.2]), rng.uniform(0.05, 0.25, 2)
    sway = np.stack([amplitude, frequency, rng.uniform(0, 2 * np.pi, 2)], -1)
    arm = surface.wrist_loop, swell, width, sway
    lights, seed = sample_lights(rng), int(rng.integers(2**31))
    if steps.room:
        lights, backgrounds = sample_surroundings(rng_room, rig, steps.aside)
        parts = [muted(rng_room, part) if part.material in (CLOTH, PLASTIC) else part for part in parts]
    transmissions = ()
    if steps.camera:
        sensors = sample_webcams(rng_camera, sensors, backgrounds, on_white(lights))
        transmissions = sample_transmissions(rng_camera, len(rig))
    drawn = rig, render.merge(parts), lights, backgrounds, sensors, *arm, tuple(things)
    return Scene(*drawn, seed, fps, surface.stump, transmissions)


def _sample_forearm(
    rng: np.random.Generator, surface: HandSurface, tone: np.ndarray, band: Wristband | None = None
) -> tuple[list[render.Part], np.ndarray, float, int]:
    """Parts of the bare arm and of a sleeve that may cover it, the rings' extra radius, the width, the vertex count."""
    first = len(surface.vertices_m)
    loop = surface.wrist_loop
    faces = forearm_faces(loop, first)
    hand_width = np.linalg.norm(surface.joints_m[5] - surface.joints_m[17])
    width = float(hand_width / 0.062 * rng.uniform(0.9, 1.1))
    swell = np.zeros(ARM_RINGS - 1)
    cuff = int(rng.integers(3, 11)) if rng.uniform() < 0.45 else ARM_RINGS - 1
    swell[cuff:] = rng.uniform(0.003, 0.008)
    frame, behind_m = surface.palm_frame, 0.0
    if (stump := surface.stump) is not None:
        frame, behind_m = stump.frame, stump.behind_m
        width = stump.width(half_widths_m(np.array([behind_m]))[0])
    if band:
        swell[band.ring - 2 : band.ring] += band.thickness_m
    rest = forearm_vertices(surface.vertices_m[loop], frame, (0.0, 0.0), width, swell, behind_m)
    vertices = np.concatenate([surface.vertices_m, rest])
    ring = np.where(faces < first, 0, 1 + (faces - first) // len(loop)).max(1)
    strapped = ring == (band.ring if band and band.ring <= cuff else -1)
    bare, covered = faces[(ring <= cuff) & ~strapped], faces[ring > cuff]
    parts = [render.Part(bare, render.FOREARM, noise_texels(vertices, bare, tone, rng, 0.04, 0.9), render.SKIN)]
    if band and strapped.any():
        texels = band_texels(vertices, faces[strapped], -surface.palm_frame[2], band)
        parts.append(render.Part(faces[strapped], render.FOREARM, texels, PLASTIC))
    if len(covered):
        cloth = noise_texels(vertices, covered, sample_palette(rng, 1)[0], rng, rng.uniform(0.03, 0.15), 0.4)
        parts.append(render.Part(covered, render.FOREARM, cloth, CLOTH))
    return parts, swell, width, len(vertices)
