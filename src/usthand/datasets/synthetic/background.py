"""Rooms without geometry: what a camera sees behind the hand, as layered procedural pictures in linear light.

Structure alone must not separate the hand from its background, so a background has what photographs have: walls with a
gradient of light, a table or floor with grain, furniture-like blocks, shelves, windows, posters, skin-coloured wood,
round blobs, cables, noise at all scales, and the blur of a lens focused in front of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

Pick = Callable[[], np.ndarray]
"""Draws a colour (3,) from the room's palette."""


def octaves(rng: np.random.Generator, height: int, width: int, roughness: float = 0.55) -> np.ndarray:
    """Noise (H, W) of about unit variance whose octaves weaken by `roughness`."""
    total, weight, norm, cells = np.zeros((height, width)), 1.0, 0.0, 3
    while cells < max(height, width):
        rough = rng.normal(size=(cells + 2, cells + 2))
        fine = np.asarray(zoom(rough, (height / cells, width / cells), order=1))[:height, :width]
        fine = np.pad(fine, ((0, height - fine.shape[0]), (0, width - fine.shape[1])), mode="edge")
        total += weight * fine
        norm += weight * weight
        weight, cells = weight * roughness, cells * 2
    return total / np.sqrt(norm) * 1.3


def sample_palette(rng: np.random.Generator, n: int = 8) -> np.ndarray:
    """Colours (n, 3) of one room in linear light: mostly greys and woods, some strong ones."""
    grey = rng.uniform(0.04, 0.75, (n, 1)) * (1 + rng.normal(0, 0.08, (n, 3)))
    wood = rng.uniform(0.15, 0.6, (n, 1)) * np.array([1.0, 0.66, 0.42]) * (1 + rng.normal(0, 0.1, (n, 3)))
    strong = rng.uniform(0.02, 0.6, (n, 3)) ** 1.3
    kind = rng.uniform(size=(n, 1))
    return np.clip(np.where(kind < 0.5, grey, np.where(kind < 0.72, wood, strong)), 0.01, 0.9)


def sample_background(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """One camera's background (H, W, 3) float32, linear radiance around 0.05 to 0.8."""
    size = max(height, width)
    v, u = np.mgrid[0:height, 0:width] / size
    turn = rng.normal(0, 0.12)
    u, v = u - 0.5, v - 0.5
    u, v = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)

    def pick() -> np.ndarray:
        return palette[rng.integers(len(palette))]

    image = np.broadcast_to(pick(), (height, width, 3)).copy()
    slope = rng.normal(0, 0.5, 2)
    image *= np.exp(slope[0] * u + slope[1] * v)[..., None]
    if rng.uniform() < 0.75:
        _table(image, rng, u, v, pick())
    for _ in range(rng.integers(3, 14)):
        draw = (_block, _block, _shelf, _blob, _stripes, _window, _cable)[rng.integers(7)]
        draw(image, rng, u, v, pick)
    grain = rng.uniform(0.04, 0.3) * octaves(rng, height, width, rng.uniform(0.4, 0.75))
    tint = 1 + rng.normal(0, 0.15, 3)
    image *= np.exp(grain[..., None] * tint)
    focus = size * rng.choice([0.002, 0.005, 0.012, 0.025], p=[0.3, 0.3, 0.25, 0.15])
    image = gaussian_filter(image, (focus, focus, 0), mode="nearest")
    image *= (1 - rng.uniform(0, 0.35) * (u * u + v * v) * 2)[..., None]
    target = rng.uniform(0.12, 0.4)
    return np.clip(image * target / image.mean(), 0.003, 1.3).astype(np.float32)


def paint(image: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    """Lay a colour, one or one a pixel, over an image (H, W, 3) where `cover` (H, W) is 1."""
    image += cover[..., None] * (colour - image)


def soft(x: np.ndarray, edge: float = 0.004) -> np.ndarray:
    """Cover of what lies at negative signed distance."""
    return np.clip(0.5 - x / edge, 0, 1)


def rectangle(
    rng: np.random.Generator, u: np.ndarray, v: np.ndarray, low: float = 0.05, high: float = 0.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distance of a random, slightly sheared rectangle, and its own coordinates in [-1, 1]."""
    centre = rng.uniform(-0.6, 0.6, 2)
    half = rng.uniform(low, high, 2) / 2
    shear = rng.normal(0, 0.15, 2)
    x, y = u - centre[0], v - centre[1]
    x, y = (x + shear[0] * y) / half[0], (y + shear[1] * x) / half[1]
    return np.maximum((np.abs(x) - 1) * half[0], (np.abs(y) - 1) * half[1]), x, y


def _table(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, colour: np.ndarray) -> None:
    """A plane below a horizon with perspective grain."""
    horizon = rng.uniform(-0.35, 0.4)
    below = v - horizon + rng.normal(0, 0.1) * u
    depth = 0.12 / np.maximum(below, 0.01)
    grain = np.sin(rng.uniform(4, 30) * u * depth + rng.normal() * 4 + 2 * np.sin(depth * 7)) * rng.uniform(0, 0.12)
    shade = np.exp(grain - rng.uniform(0, 0.25) * np.minimum(depth, 3))
    paint(image, soft(-below), colour * shade[..., None])


def _block(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """A piece of furniture: a filled rectangle with a shaded gradient, a dark foot and sometimes a frame."""
    distance, x, y = rectangle(rng, u, v)
    colour = pick() * np.exp(0.3 * rng.normal() * x + 0.3 * rng.normal() * y)[..., None]
    image *= 1 - 0.35 * rng.uniform() * np.exp(-np.maximum(distance, 0) / 0.03)[..., None]
    paint(image, soft(distance), colour)
    if rng.uniform() < 0.4:
        paint(image, soft(np.abs(distance + 0.012) - 0.006), pick())


def _shelf(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """A row of books: vertical bars of changing colour and height."""
    distance, x, y = rectangle(rng, u, v, 0.15, 0.7)
    n = int(rng.integers(5, 18))
    index = np.clip(((x + 1) / 2 * n).astype(int), 0, n - 1)
    colours = np.stack([pick() * rng.uniform(0.5, 1.3) for _ in range(n)])
    heights = rng.uniform(-1, -0.4, n)
    paint(image, soft(distance), image * 0.4)
    paint(image, soft(distance) * (y > heights[index]), colours[index])


def _blob(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """Something round with a light and a dark side: a plant, a cup, a head, a cushion."""
    centre, radius = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.03, 0.25)
    x, y = (u - centre[0]) / radius, (v - centre[1]) / (radius * rng.uniform(0.6, 1.6))
    r = np.sqrt(x * x + y * y) * (1 + rng.uniform(0, 0.2) * np.sin(rng.integers(2, 9) * np.arctan2(y, x) + 1))
    light = rng.normal(0, 0.5, 2)
    shade = np.exp(light[0] * x + light[1] * y - 0.4 * np.clip(r, 0, 1) ** 4)
    paint(image, soft((r - 1) * radius), pick() * np.clip(shade, 0.1, 3)[..., None])


def _stripes(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """Blinds, a radiator, a striped cloth."""
    distance, x, y = rectangle(rng, u, v, 0.1, 0.5)
    wave = np.sin(2 * np.pi * rng.integers(3, 14) * (x if rng.uniform() < 0.5 else y))
    paint(image, soft(distance), pick() * np.exp(rng.uniform(0.1, 0.5) * wave)[..., None])


def _window(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """A bright opening with a cross bar, or a lit screen."""
    if rng.uniform() < 0.5:
        return
    distance, x, y = rectangle(rng, u, v, 0.15, 0.5)
    light = rng.uniform(0.6, 1.6) * (1 + rng.normal(0, 0.06, 3)) * np.exp(0.3 * rng.normal() * y)[..., None]
    paint(image, soft(distance), light)
    paint(image, soft(distance) * ((np.abs(x) < 0.05) | (np.abs(y) < 0.05)), pick())


def _cable(image: np.ndarray, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, pick: Pick) -> None:
    """A thin dark or bright curve."""
    path = rng.normal(0, 0.3) + rng.normal(0, 0.3) * u + rng.uniform(0, 0.15) * np.sin(rng.uniform(3, 12) * u + 1)
    paint(image, soft(np.abs(v - path) - rng.uniform(0.002, 0.012)), pick())
