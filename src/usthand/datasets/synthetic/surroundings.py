"""Where a hand is in reality: the light of real places, and behind it walls, people, screens, textiles and print.

A rig stands in one place. Its lamps and ambient light are those of an environment map, at times with a lamp beside the
hand. Behind the hand is the map itself, a procedural room, or a plain wall, in the same colours for all cameras, and in
front of that what is often close to hands: a person's clothes and skin, screens, printed sheets, patterned cloth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from usthand.capture.rig import Camera, Rig
from usthand.datasets.synthetic.appearance import SKIN_TONES
from usthand.datasets.synthetic.background import Pick, octaves, paint, rectangle, sample_background, soft
from usthand.datasets.synthetic.environment import (
    LUMINANCE,
    EnvironmentMap,
    environment_lights,
    environments,
    on_white,
    panorama_view,
    turned,
)
from usthand.datasets.synthetic.render import Lights, Part

DARKEST, BRIGHTEST = 0.001, 1.6  # linear radiance behind the hand


def sample_surroundings(
    rng: np.random.Generator, rig: Rig, aside: bool = False
) -> tuple[Lights, tuple[np.ndarray, ...]]:
    """Lights, and one background (H, W, 3) float32 a camera; `aside` takes the environments kept for tests."""
    known = environments(aside)
    place = known[rng.integers(len(known))]
    to_world = turned(rng.uniform(0, 2 * np.pi))
    fill = float(np.exp(rng.uniform(np.log(0.25), np.log(1.2))))
    lights = _paler(environment_lights(place, to_world, 1.0, fill), rng.uniform(0.2, 0.55))
    if rng.uniform() < 0.4:
        lights = _with_lamp(rng, lights)
    # The cameras' automatic white balance, which seldom goes all the way.
    white = lights.sky + lights.ground + 0.5 * lights.colour.sum(0)  # twice the mean of a white ball
    balance = (white @ LUMINANCE / white) ** rng.uniform(0.75, 1.0)
    tint = balance * np.exp(rng.uniform(np.log(0.35), np.log(0.8))) / on_white(lights)
    lights = replace(lights, colour=lights.colour * tint, sky=lights.sky * tint, ground=lights.ground * tint)
    kind = str(rng.choice(["place", "room", "wall"], p=[0.5, 0.25, 0.25]))
    palette, brightness = sample_real_palette(rng), float(np.exp(rng.uniform(np.log(0.02), np.log(0.6))))
    backgrounds = []
    for camera in rig.cameras:
        if kind == "place":
            image = tint * _place_view(rng, place, to_world, camera)
        elif kind == "room":
            image = sample_background(rng, camera.height, camera.width, palette)
            image = image * (brightness / image.mean())
        else:
            image = _wall(rng, camera, palette, brightness)
        image = _clutter(rng, image, palette, on_white(lights))
        backgrounds.append(np.clip(image, DARKEST, BRIGHTEST).astype(np.float32))
    return lights, tuple(backgrounds)


def _paler(lights: Lights, kept: float) -> Lights:
    """Lights of which this part of the colour is left: what is near a hand sends back light of other colours."""

    def pale(colour: np.ndarray) -> np.ndarray:
        grey = (colour @ LUMINANCE)[..., None]
        return grey + kept * (colour - grey)

    return replace(lights, colour=pale(lights.colour), sky=pale(lights.sky), ground=pale(lights.ground))


def _with_lamp(rng: np.random.Generator, lights: Lights) -> Lights:
    """One more lamp in place of the weakest: a desk lamp, a screen or a window, often stronger than all else."""
    height, azimuth = rng.uniform(-0.3, 0.9), rng.uniform(0, 2 * np.pi)
    ring = np.sqrt(1 - height * height)
    warmth = rng.normal(0.05, 0.15) * np.array([1.0, 0.0, -1.2])
    power = on_white(lights) * np.exp(rng.uniform(np.log(0.5), np.log(5.0)))
    weakest = int(np.argmin(lights.colour @ LUMINANCE))
    direction, colour, softness = lights.direction.copy(), lights.colour.copy(), lights.softness_m.copy()
    direction[weakest] = ring * np.cos(azimuth), ring * np.sin(azimuth), height
    colour[weakest], softness[weakest] = power * np.exp(warmth), rng.uniform(0.004, 0.04)
    return replace(lights, direction=direction, colour=colour, softness_m=softness)


def sample_real_palette(rng: np.random.Generator, n: int = 8) -> np.ndarray:
    """Colours (n, 3) of things people own, linear: greys, black and white, woods, muted colours, seldom strong ones."""
    bright = np.exp(rng.uniform(np.log(0.012), np.log(0.75), (n, 1)))
    hue = rng.normal(size=(n, 3))
    hue -= hue.mean(1, keepdims=True)
    grey = bright * np.exp(0.06 * hue)
    muted = bright * np.exp(0.35 * hue)
    strong = bright * np.exp(0.9 * hue)
    wood = rng.uniform(0.05, 0.5, (n, 1)) * np.array([1.0, 0.66, 0.40]) * np.exp(0.08 * hue)
    kind = rng.uniform(size=(n, 1))
    colours = np.where(kind < 0.5, grey, np.where(kind < 0.65, wood, np.where(kind < 0.9, muted, strong)))
    return np.clip(colours, 0.008, 0.85)


def muted(rng: np.random.Generator, part: Part) -> Part:
    """A thing or a sleeve in a colour that people own: `sample_palette`'s are often strong, and clothes often dark."""
    grey = np.maximum(part.texels[..., :3] @ LUMINANCE, 1e-3)[..., None]
    kept, light = rng.uniform(0.1, 0.8), np.exp(rng.uniform(np.log(0.15), np.log(1.3)))
    texels = part.texels.copy()
    texels[..., :3] = np.clip(light * grey * (texels[..., :3] / grey) ** kept, 0.005, 0.95)
    return replace(part, texels=texels)


def _place_view(rng: np.random.Generator, place: EnvironmentMap, to_world: np.ndarray, camera: Camera) -> np.ndarray:
    """The environment behind the hand, out of focus; wider than it is, since the map is coarse."""
    blur = camera.width * rng.choice([0.0, 0.004, 0.012], p=[0.5, 0.3, 0.2])
    view = panorama_view(place, to_world, camera, rng.uniform(1.0, 3.0), blur)
    return view * np.exp(0.05 * octaves(rng, camera.height, camera.width))[..., None]


def _wall(rng: np.random.Generator, camera: Camera, palette: np.ndarray, brightness: float) -> np.ndarray:
    """A wall, a curtain or a table top, unevenly lit."""
    v, u = _grid(camera.height, camera.width)
    slope = rng.normal(0, 0.7, 2)
    folds = rng.uniform(0, 0.5) * np.sin(rng.uniform(10, 50) * u + rng.uniform(0, 6) + 2 * v) * (rng.uniform() < 0.3)
    shade = np.exp(slope[0] * u + slope[1] * v + folds)
    grain = rng.uniform(0.0, 0.12) * octaves(rng, camera.height, camera.width, rng.uniform(0.4, 0.8))
    colour = palette[rng.integers(len(palette))]
    return brightness * (colour / (colour @ LUMINANCE)) ** 0.7 * (shade * np.exp(grain))[..., None]


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    v, u = np.mgrid[0:height, 0:width] / max(height, width) - 0.5
    return v, u


def _clutter(rng: np.random.Generator, image: np.ndarray, palette: np.ndarray, light: float) -> np.ndarray:
    """Things between the place and the hand, lit as white is lit by `light`; then the lens, focused on the hand."""
    image = np.array(image, float)
    v, u = _grid(*image.shape[:2])

    def pick() -> np.ndarray:
        return light * palette[rng.integers(len(palette))]

    for draw, chance in ((_screen, 0.25), (_cloth, 0.25), (_sheet, 0.2), (_person, 0.45), (_cloth, 0.15)):
        if rng.uniform() < chance:
            draw(image, rng, u, v, pick)
    focus = max(image.shape) * rng.choice([0.001, 0.003, 0.008, 0.02], p=[0.35, 0.3, 0.2, 0.15])
    return gaussian_filter(image, (focus, focus, 0), mode="nearest")


def _person(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """The one whose hand it is, or another: a torso in clothes, often dark, with neck, head and hair."""
    x = (u - rng.uniform(-0.5, 0.5)) / rng.uniform(0.8, 1.6)
    y = (v - rng.uniform(-0.5, 0.5)) / rng.uniform(0.8, 1.6)
    colour = pick() * rng.choice([1.0, 0.3], p=[0.5, 0.5])
    shade = 0.5 * rng.normal(size=2)
    folds = 0.25 * octaves(rng, image.shape[0], image.shape[1], 0.6) + shade[0] * x + shade[1] * y
    level = rng.uniform(0, len(SKIN_TONES) - 1)
    low = int(level)
    tone = SKIN_TONES[low] + (level - low) * (SKIN_TONES[min(low + 1, len(SKIN_TONES) - 1)] - SKIN_TONES[low])
    light = float(pick() @ LUMINANCE / 0.25)
    skin = tone * np.clip(light, 0.15, 1.5) * np.exp(0.7 * folds + 0.5 * rng.normal() * x)[..., None]
    torso = np.hypot(np.maximum(np.abs(x) - 0.22, 0) / 0.12, np.minimum(y - 0.25, 0) / 0.16) - 1
    neck = np.maximum(np.abs(x) - 0.07, np.abs(y) - 0.16)
    head = np.hypot(x / 0.13, (y + 0.22) / 0.175) - 1
    hair = np.hypot(x / 0.14, (y + 0.27) / 0.15) - 1
    paint(image, soft(neck), skin)
    paint(image, soft(torso * 0.12), colour * np.exp(folds)[..., None])
    dark = np.array([0.02, 0.014, 0.01]) * np.exp(rng.uniform(0, 3))
    paint(image, soft(hair * 0.15), np.broadcast_to(dark, image.shape))
    paint(image, soft(head * 0.15) * soft(-(y + 0.30), 0.02), skin)
    for part_x, part_y, half, tall, tint in (
        (-0.05, -0.24, 0.022, 0.010, 0.2),
        (0.05, -0.24, 0.022, 0.010, 0.2),
        (0.0, -0.13, 0.035, 0.010, 0.55),
    ):
        feature = np.hypot((x - part_x) / half, (y - part_y) / tall) - 1
        paint(image, 0.8 * soft(feature * tall, 0.01), skin * tint)


def _screen(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """A lit display with a dark frame, windows and lines of text."""
    distance, x, y = rectangle(rng, u, v, 0.2, 0.8)
    glow = rng.uniform(0.1, 1.2) * np.exp(rng.normal(0, 0.1, 3))
    paint(image, soft(distance - 0.012), np.broadcast_to(rng.uniform(0.004, 0.03), image.shape))
    paint(image, soft(distance), glow * np.exp(0.2 * y)[..., None])
    paint(image, soft(distance) * (np.abs(x - rng.uniform(-1, 1)) < 0.3), glow * rng.uniform(0.1, 0.9, 3))
    _text(image, rng, soft(distance), x, y)


def _sheet(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """Printed paper."""
    distance, x, y = rectangle(rng, u, v, 0.15, 0.6)
    white = pick()
    white = np.full(3, max(float(white @ LUMINANCE), 0.2))
    paint(image, soft(distance), white * np.exp(0.15 * rng.normal() * x)[..., None])
    _text(image, rng, soft(distance), x, y)


def _text(image: np.ndarray, rng: np.random.Generator, cover: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Lines of words within [-1, 1]: dark strokes of random lengths."""
    lines, columns = int(rng.integers(6, 22)), int(rng.integers(20, 70))
    row = np.clip(((y + 1) / 2 * lines).astype(int), 0, lines - 1)
    column = np.clip(((x + 1) / 2 * columns).astype(int), 0, columns - 1)
    ink = rng.uniform(size=(lines, columns)) < rng.uniform(0.5, 0.85)
    ink[:, : columns // 12 + 1] = ink[:, -(columns // 12) - 1 :] = False
    within = np.abs((y + 1) / 2 * lines % 1 - 0.5) < 0.22
    image *= 1 - (0.75 * cover * within * ink[row, column])[..., None]


def _cloth(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """Checked, striped or dotted cloth with folds."""
    distance, _, _ = rectangle(rng, u, v, 0.25, 1.2)
    first, second = pick(), pick()
    angle, waves = rng.uniform(0, np.pi), rng.uniform(15, 120)
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    warp, weft = np.sin(waves * along), np.sin(waves * across)
    kind = rng.integers(3)
    pattern = np.where(kind == 0, warp > 0, np.where(kind == 1, 0.5 * ((warp > 0) + (weft > 0)), warp + weft > 1.1))
    folds = np.exp(0.2 * octaves(rng, image.shape[0], image.shape[1], 0.5))
    paint(image, soft(distance), (first + np.asarray(pattern, float)[..., None] * (second - first)) * folds[..., None])
