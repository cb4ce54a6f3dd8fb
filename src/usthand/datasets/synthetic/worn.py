"""What lies on skin: hair, freckles, rings, plasters, electrodes and markers, nail polish, ink, gloves, wristbands.

All of it is painted: on the hand through the places that `appearance` knows (finger, phalanx, side), on the wrist as
rings of the forearm. None of it changes the hand's mesh but a band around the wrist, which swells the forearm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from usthand.datasets.synthetic.appearance import (
    SKIN_TONES,
    Coat,
    Painter,
    Place,
    Skin,
    bump,
    cells,
    nail,
    on_grid,
    step,
    waves,
)
from usthand.datasets.synthetic.surface import HandSurface

METALS = np.array([[0.60, 0.58, 0.55], [0.70, 0.50, 0.22], [0.62, 0.42, 0.33], [0.05, 0.05, 0.055]])
"""Linear albedo of silver, gold, rose gold and black steel; half of what they reflect, the rest is their gloss."""
PLASTERS = np.array([[0.62, 0.40, 0.27], [0.75, 0.73, 0.70], [0.10, 0.25, 0.55], [0.45, 0.28, 0.17]])
DISCS = np.array([[0.8, 0.8, 0.78], [0.35, 0.35, 0.36], [0.03, 0.03, 0.03], [0.1, 0.2, 0.5], [0.55, 0.08, 0.06]])
GLOVES = np.array([[0.06, 0.16, 0.50], [0.02, 0.02, 0.022], [0.72, 0.72, 0.70], [0.20, 0.42, 0.25], [0.35, 0.34, 0.33]])
STRAPS = np.array([[0.02, 0.02, 0.022], [0.16, 0.08, 0.04], [0.55, 0.54, 0.52], [0.03, 0.05, 0.15], [0.6, 0.6, 0.6]])


def sample_real_skin(rng: np.random.Generator) -> Skin:
    """A subject's skin, smoother than `sample_skin` has it, which differs in melanin and blood alone, as skin does."""
    level = rng.uniform(0, len(SKIN_TONES) - 1)
    low = int(level)
    tone = SKIN_TONES[low] + (level - low) * (SKIN_TONES[min(low + 1, len(SKIN_TONES) - 1)] - SKIN_TONES[low])
    melanin, blood = rng.normal(0, 0.1), rng.normal(0.12, 0.15)
    tone = tone * np.exp(-melanin * np.array([0.8, 1.0, 1.1]) - blood * np.array([0.1, 0.6, 0.5]))
    pink = np.array([0.70, 0.42, 0.33])
    palm = tone + rng.uniform(0.15, 0.3 + 0.07 * level) * (pink - tone)
    relief, mottle, gloss = rng.uniform(0.25, 1.0), rng.uniform(0.1, 0.7), rng.uniform(0.5, 1.6)
    return Skin(tone, palm, relief, mottle, gloss, int(rng.integers(2**31)), float(rng.uniform(0.4, 1.8)))


def sample_worn(rng: np.random.Generator, surface: HandSurface) -> tuple[Painter, bool]:
    """A subject's paint, and whether it is a glove.

    Shares of subjects: hair on the back of the hand 60 %, freckles or moles 40 %, rings 35 %, nail polish 8 %,
    electrodes or markers 7 %, plasters 6 %, ink 6 %, gloves 6 %.
    """
    chances: list[tuple[float, Callable[[np.random.Generator, HandSurface], Painter]]] = [
        (0.6, _hair),
        (0.4, _freckles),
        (0.06, _ink),
        (0.08, _polish),
        (0.06, _plaster),
        (0.35, _rings),
        (0.07, _discs),
    ]
    gloved = rng.uniform() < 0.06
    painters = [draw(rng, surface) for chance, draw in chances if rng.uniform() < chance]
    if gloved:
        painters = [*painters[:1], _glove(rng)]

    def paint(place: Place, coat: Coat) -> Coat:
        for painter in painters:
            coat = painter(place, coat)
        return coat

    return paint, gloved


def _over(coat: Coat, cover: np.ndarray, colour: np.ndarray, gloss: float, height_m: float) -> Coat:
    """Something opaque of one colour (or one a point) that covers (...,) 0 to 1 and lies above the skin."""
    return Coat(
        coat.colour + cover[..., None] * (colour - coat.colour),
        coat.gloss + cover * (gloss - coat.gloss),
        coat.height * (1 - cover) + height_m * cover,
    )


def _band(place: Place, finger: int, phalanx: int, middle: float, width_m: float) -> np.ndarray:
    """Cover of a band around a finger, its middle at this part of the phalanx's length."""
    at = place.along - middle * (place.along + place.left)
    on = (place.finger == finger) & (place.phalanx == phalanx)
    return np.where(on, 1 - step(np.abs(at), 0.5 * width_m - 0.0003, 0.5 * width_m + 0.0003), 0)


def _rings(rng: np.random.Generator, surface: HandSurface) -> Painter:
    count = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
    fingers = rng.choice(5, count, replace=False, p=[0.08, 0.2, 0.22, 0.38, 0.12])
    metal = METALS[rng.choice(4, p=[0.4, 0.35, 0.1, 0.15])]
    rings = [(int(f), rng.uniform(0.45, 0.68), rng.uniform(0.0022, 0.0065), rng.uniform(0, 6.3)) for f in fingers]
    gloss = rng.uniform(6, 20)

    def paint(place: Place, coat: Coat) -> Coat:
        for finger, middle, width_m, phase in rings:
            # What a round mirror shows of a room: light and dark along its circumference.
            angle = np.arctan2(place.across, place.up)
            streak = np.exp(0.7 * np.sin(3 * angle + phase) + 0.4 * np.sin(7 * angle - phase))[..., None]
            coat = _over(
                coat, _band(place, finger, 0, middle, width_m), np.clip(metal * streak, 0.01, 0.95), gloss, 0.0011
            )
        return coat

    return paint


def _plaster(rng: np.random.Generator, surface: HandSurface) -> Painter:
    finger, phalanx = int(rng.integers(5)), int(rng.integers(3))
    middle, width_m = rng.uniform(0.35, 0.65), rng.uniform(0.012, 0.022)
    colour, gloss = PLASTERS[rng.integers(len(PLASTERS))] * rng.uniform(0.8, 1.15), rng.uniform(0.2, 1.0)
    return lambda place, coat: _over(coat, _band(place, finger, phalanx, middle, width_m), colour, gloss, 0.0008)


def _polish(rng: np.random.Generator, surface: HandSurface) -> Painter:
    colour, gloss = np.clip(rng.uniform(0.02, 0.7, 3) ** 1.5, 0.02, 0.9), rng.uniform(2, 5)
    if rng.uniform() < 0.6:
        colour = np.array([rng.uniform(0.25, 0.6), rng.uniform(0.01, 0.2), rng.uniform(0.02, 0.2)])

    def paint(place: Place, coat: Coat) -> Coat:
        inside = nail(place)[0]
        return _over(coat, inside, colour, gloss, 0.0003)

    return paint


def _spots(rng: np.random.Generator, surface: HandSurface, n: int, back_only: bool) -> np.ndarray:
    """Centres (n, 3) on the skin."""
    points = surface.vertices_m
    if back_only:
        palmward = (points - surface.joints_m[0]) @ surface.palm_frame[2]
        points = points[palmward < np.median(palmward)]
    return points[rng.integers(len(points), size=n)] + rng.normal(0, 0.002, (n, 3))


def _nearest(point: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Distance of points (..., 3) to the nearest centre."""
    distance = np.full(point.shape[:-1], np.inf)
    for centre in centres:
        distance = np.minimum(distance, np.linalg.norm(point - centre, axis=-1))
    return distance


def _freckles(rng: np.random.Generator, surface: HandSurface) -> Painter:
    n = int(rng.choice([3, 12, 60], p=[0.5, 0.3, 0.2]))
    centres, radius = _spots(rng, surface, n, True), rng.uniform(0.0006, 0.0012)
    depth = rng.uniform(0.15, 0.6) * (12 / max(n, 12)) ** 0.4

    def paint(place: Place, coat: Coat) -> Coat:
        dark = depth * bump(_nearest(place.point, centres), radius)
        return coat._replace(colour=coat.colour * np.exp(-dark[..., None] * np.array([0.7, 1.0, 1.1])))

    return paint


def _hair(rng: np.random.Generator, surface: HandSurface) -> Painter:
    """Dark strokes along the limb on the back of hand and fingers, too fine to be seen one by one."""
    strength, seed = rng.uniform(0.1, 0.4) ** 1.6, int(rng.integers(2**31))
    stretch = surface.palm_frame.T @ np.diag([1.0, 0.18, 1.0]) @ surface.palm_frame

    def paint(place: Place, coat: Coat) -> Coat:
        own = np.random.default_rng(seed)
        strokes = np.maximum(0, waves(place.point @ stretch, 0.0028, own, 20) - 0.6)
        where = np.where(place.finger < 0, 1.0, (place.phalanx == 0) * 1.0) * place.back
        where = where * (1 - 0.7 * step(place.distal, 0.2, 0.9) * (place.finger < 0))
        dark = strength * strokes * where
        return coat._replace(colour=coat.colour * np.exp(-dark)[..., None])

    return paint


def _ink(rng: np.random.Generator, surface: HandSurface) -> Painter:
    """A tattoo or pen marks: dark lines and fields within a blob of the back, or anywhere."""
    centre, extent = _spots(rng, surface, 1, rng.uniform() < 0.8), rng.uniform(0.01, 0.035)
    seed, size, depth = int(rng.integers(2**31)), rng.uniform(0.006, 0.02), rng.uniform(0.4, 1.5)

    def paint(place: Place, coat: Coat) -> Coat:
        pattern = bump(np.abs(waves(place.point, size, np.random.default_rng(seed))), 0.25)
        within = 1 - step(_nearest(place.point, centre), 0.8 * extent, extent)
        dark = depth * pattern * within
        return coat._replace(colour=coat.colour * np.exp(-dark[..., None] * np.array([1.1, 1.0, 0.8])))

    return paint


def _discs(rng: np.random.Generator, surface: HandSurface) -> Painter:
    """Electrodes, or markers for motion capture: at joints, or spread over the skin."""
    back = -surface.palm_frame[2]
    if rng.uniform() < 0.6:
        joints = rng.choice(21, int(rng.integers(4, 20)), replace=False)
        centres = surface.joints_m[joints] + 0.008 * back * (1 if rng.uniform() < 0.85 else -1)
        reach = 0.009
    else:
        centres, reach = _spots(rng, surface, int(rng.integers(1, 9)), False), 0.002
    radius = rng.uniform(0.0025, 0.008)
    outer, inner = DISCS[rng.choice(len(DISCS), 2)] * rng.uniform(0.8, 1.1)
    gloss, height_m = rng.uniform(0.3, 4.0), rng.uniform(0.0005, 0.002)

    def paint(place: Place, coat: Coat) -> Coat:
        # Joints lie under the skin: a ball around a point above them cuts a disc out of it.
        distance = _nearest(place.point, centres)
        limit = radius + 0.5 * reach
        coat = _over(coat, 1 - step(distance, limit - 0.0004, limit + 0.0004), outer, gloss, height_m)
        return _over(coat, 1 - step(distance, 0.5 * limit - 0.0004, 0.5 * limit + 0.0004), inner, gloss, height_m)

    return paint


def _glove(rng: np.random.Generator) -> Painter:
    """A thin glove: rubber or cloth, at times without fingertips or with a palm of another colour."""
    colour = GLOVES[rng.integers(len(GLOVES))] * rng.uniform(0.7, 1.3)
    if rng.uniform() < 0.3:
        colour = rng.uniform(0.02, 0.6, 3)
    palm = np.clip(colour * rng.uniform(0.4, 1.6), 0.01, 0.9) if rng.uniform() < 0.3 else colour
    rubber = rng.uniform() < 0.6
    cut = int(rng.choice([3, 2, 1], p=[0.75, 0.15, 0.1]))  # phalanges that are covered
    seed, blotch = int(rng.integers(2**31)), rng.uniform(0.03, 0.12)
    gloss = rng.uniform(1.5, 4.0) if rubber else rng.uniform(0.1, 0.5)
    bulge = 0.00012 if rubber else 0.00022

    def paint(place: Place, coat: Coat) -> Coat:
        own = np.random.default_rng(seed)
        folds = waves(place.point, 0.012, own) + 0.6 * waves(place.point, 0.004, own)
        worn = np.exp(blotch * waves(place.point, 0.02, own))[..., None]
        back = place.back[..., None]
        cover = ((place.finger < 0) | (place.phalanx < cut)).astype(float)
        tint = np.clip((back * colour + (1 - back) * palm) * worn, 0.005, 0.95)
        covered = _over(coat, cover, tint, gloss, 0.0006)
        # Under cloth the creases of the skin are gone, and folds of its own appear.
        return covered._replace(height=covered.height + bulge * folds * cover)

    return paint


class Wristband(NamedTuple):
    """A watch or bracelet on the part of the forearm before one of its rings."""

    ring: int
    thickness_m: float
    strap: np.ndarray  # (3,) linear albedo
    dial: np.ndarray  # (3,)
    gloss: float


def sample_wristband(rng: np.random.Generator) -> Wristband | None:
    """A watch or bracelet for 30 % of subjects."""
    if rng.uniform() > 0.3:
        return None
    strap, dial = STRAPS[rng.choice(len(STRAPS), 2)] * rng.uniform(0.8, 1.2, (2, 1))
    if rng.uniform() < 0.4:  # a bracelet, or a hospital's or festival's band
        strap = dial = rng.uniform(0.02, 0.8, 3)
    ring = int(rng.choice([2, 3], p=[0.35, 0.65]))
    return Wristband(ring, float(rng.uniform(0.001, 0.004)), strap, dial, float(rng.uniform(0.3, 6.0)))


def band_texels(vertices: np.ndarray, faces: np.ndarray, back: np.ndarray, band: Wristband) -> np.ndarray:
    """Texture of a band around the wrist: strap, and on the back of the arm, towards `back` (3,), a dial."""
    point = on_grid(vertices, faces)
    off = point - vertices[np.unique(faces)].mean(0)
    up = (off @ back) / np.linalg.norm(off, axis=-1)
    dial = step(up, 0.74, 0.78)[..., None]
    colour = band.strap + dial * (band.dial - band.strap)
    return cells(colour, np.full(up.shape, band.gloss), np.zeros(up.shape))
