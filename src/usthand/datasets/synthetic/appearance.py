"""What surfaces look like: skin with creases, knuckles, nails and veins, cloth and plain objects, as textures.

Textures are computed once a subject, on a fine grid inside each triangle at rest; the rasteriser only looks
them up. Heights become slopes along the triangle's edges, so that relief follows the skin when it moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from usthand.datasets.synthetic.render import texel_corners
from usthand.datasets.synthetic.shade import CHANNELS, TEXELS
from usthand.datasets.synthetic.surface import HandSurface
from usthand.geometry.meshes import vertex_normals

# Diffuse albedo of skin, linear RGB, from very light to very dark.
_TONES = (0.72, 0.47, 0.36), (0.66, 0.41, 0.29), (0.56, 0.33, 0.22), (0.44, 0.25, 0.16), (0.30, 0.165, 0.105)
SKIN_TONES = np.array([*_TONES, (0.17, 0.09, 0.06)])
_NAIL_HALF_WIDTH_M = np.array([0.0058, 0.0047, 0.0048, 0.0047, 0.0039])  # thumb to little finger


@dataclass(frozen=True)
class Skin:
    """The random choices that make one subject's skin; `sample_skin` draws them."""

    tone: np.ndarray  # (3,) linear albedo of the back of the hand
    palm: np.ndarray  # (3,) of the palm
    relief: float  # strength of creases, wrinkles and tendons, 1 is average
    mottle: float  # strength of blotches
    gloss: float
    seed: int
    redness: float = 1.0  # strength of the blood at knuckles, fingertips and the heels of the palm


def sample_skin(rng: np.random.Generator) -> Skin:
    """Draw a subject's skin, all tones of people with about equal weight."""
    level = rng.uniform(0, len(SKIN_TONES) - 1)
    low = int(level)
    mix = level - low
    tone = (1 - mix) * SKIN_TONES[low] + mix * SKIN_TONES[min(low + 1, len(SKIN_TONES) - 1)]
    tone = tone * rng.uniform(0.92, 1.08) * np.array([1.0, rng.uniform(0.94, 1.05), rng.uniform(0.9, 1.1)])
    pink = np.array([0.70, 0.42, 0.33])
    palm = tone + (0.25 + 0.07 * level) * (pink - tone)
    relief, mottle, gloss = rng.uniform(0.7, 1.3), rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.5)
    return Skin(tone, palm, relief, mottle, gloss, int(rng.integers(2**31)))


def waves(points: np.ndarray, wavelength_m: float, rng: np.random.Generator, n: int = 14) -> np.ndarray:
    """Smooth noise of about unit variance over points (..., 3): a sum of plane waves of one mean wavelength."""
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    number = 2 * np.pi / (wavelength_m * rng.uniform(0.7, 1.4, n))
    phase = rng.uniform(0, 2 * np.pi, n)
    flat = points.reshape(-1, 3).astype(np.float32)
    total = np.cos(flat @ (direction * number[:, None]).T.astype(np.float32) + phase.astype(np.float32)).sum(-1)
    return (total * np.float32((2 / n) ** 0.5)).reshape(points.shape[:-1])


def bump(x: np.ndarray, width: float) -> np.ndarray:
    """A Gaussian bell of height 1."""
    return np.exp(-0.5 * (x / width) ** 2)


def step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Place:
    """Where points of the skin lie in the hand's own terms; all arrays (...,), metres where a length."""

    point: np.ndarray  # (..., 3)
    finger: np.ndarray  # 0 thumb to 4 little finger, -1 on the palm
    phalanx: np.ndarray  # 0 to 2
    along: np.ndarray  # metres from the phalanx's base joint
    left: np.ndarray  # metres to its end joint or tip
    across: np.ndarray  # sideways from the bone
    up: np.ndarray  # towards the back of the finger, from the bone
    radius: np.ndarray  # distance of the skin from the bone here
    back: np.ndarray  # 1 on the back of the hand, 0 on the palm side, soft between
    radial: np.ndarray  # in the palm's frame from the wrist, in palm lengths
    distal: np.ndarray


def _locate(surface: HandSurface, point: np.ndarray, normal: np.ndarray) -> Place:
    """Assign every point (..., 3) to its phalanx or the palm, with coordinates along and across the bone."""
    frame, joints = surface.palm_frame, surface.joints_m
    palm_length = np.linalg.norm(joints[9] - joints[0])
    local = (point - joints[0]) @ frame.T
    best = np.full(point.shape[:-1], np.inf)
    out = {name: np.zeros(point.shape[:-1]) for name in ("along", "left", "across", "up", "radius", "back")}
    finger, phalanx = np.full(best.shape, -1), np.zeros(best.shape, int)
    for f in range(5):
        for p in range(3):
            a, b = joints[4 * f + 1 + p], joints[4 * f + 2 + p]
            length = np.linalg.norm(b - a)
            axis = (b - a) / length
            up = surface.dorsal[f, p]
            t = (point - a) @ axis
            off = point - a - np.clip(t, 0, length)[..., None] * axis
            distance = np.linalg.norm(off, axis=-1)
            if p == 0:  # the skin near a finger's base belongs to the palm
                distance = distance + 0.6 * np.maximum(0, (0.35 if f else 0.5) * length - t)
            nearer = distance < best
            best = np.where(nearer, distance, best)
            finger, phalanx = np.where(nearer, f, finger), np.where(nearer, p, phalanx)
            across = (point - a) @ np.cross(up, axis)
            values = (t, length - t, across, (point - a) @ up, distance, 0.5 + 0.5 * (normal @ up))
            for name, value in zip(out, values, strict=True):
                out[name] = np.where(nearer, value, out[name])
    # Palm bones compete on the same footing.
    for f in range(5):
        a, b = joints[0], joints[4 * f + 1]
        t = np.clip(((point - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        distance = np.linalg.norm(point - a - t[..., None] * (b - a), axis=-1)
        finger = np.where(distance < best, -1, finger)
        best = np.minimum(best, distance)
    palm_back = 0.5 - 0.5 * (normal @ frame[2])
    out["back"] = np.where(finger < 0, palm_back, out["back"])
    out["back"] = step(out["back"], 0.32, 0.68)
    return Place(point, finger, phalanx, **out, radial=local[..., 0] / palm_length, distal=local[..., 1] / palm_length)


def nail(place: Place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cover, border and free edge of the nails, each 0 to 1."""
    half = _NAIL_HALF_WIDTH_M[place.finger]
    length = 1.35 * half
    # Centre the nail a little behind the tip; a squircle with a squarer free edge.
    u = place.across / half
    v = (place.left - (0.002 + length)) / length
    radius = (np.abs(u) ** 2.6 + np.abs(v) ** 3.0) ** (1 / 2.8)
    on = (place.phalanx == 2) & (place.finger >= 0) & (place.up > 0)
    inside = np.where(on, 1 - step(radius, 0.92, 1.04), 0)
    border = np.where(on, bump(radius - 1.06, 0.09), 0)
    edge = np.where(on, step(-v, 0.72, 0.86), 0) * inside
    return inside, border, edge


def _palm_lines(place: Place) -> np.ndarray:
    """The three great lines of the palm, 0 to 1: heart, head and life, in palm lengths."""
    r, d = place.radial, place.distal
    heart = d - (0.78 + 0.22 * (r + 0.35) ** 2 + 0.25 * np.maximum(0, r) ** 1.5)
    head = d - (0.66 + 0.38 * (r - 0.02) - 0.25 * (r - 0.3) ** 2)
    life = np.hypot((r - 0.40) / 0.30, (d - 0.36) / 0.46) - 1
    width = 0.012
    lines = bump(heart, width) * step(r, -0.5, -0.40) * (1 - step(r, 0.10, 0.20))
    lines = np.maximum(lines, 0.8 * bump(head, width) * step(r, -0.28, -0.2) * (1 - step(r, 0.30, 0.38)))
    life_line = bump(life * 0.35, width) * (1 - step(r, 0.30, 0.38)) * step(d, 0.05, 0.12)
    return np.maximum(lines, life_line)


def _creases(place: Place) -> np.ndarray:
    """Flexion creases of fingers on the palm side, 0 to 1, at every joint."""
    on_finger = place.finger >= 0
    start = bump(place.along - 0.0005, 0.0007)
    second = bump(place.along + 0.0025, 0.0006) * (place.phalanx == 1) * 0.7
    near_end = bump(place.left, 0.0007)
    near_end_second = bump(place.left - 0.0025, 0.0006) * (place.phalanx == 0) * 0.7
    inner = (place.phalanx > 0) * start + second + (place.phalanx < 2) * near_end + near_end_second
    base = (place.phalanx == 0) & (place.finger > 0)
    root = np.where(base, bump(place.along - 0.45 * (place.along + place.left), 0.0008), 0)
    return np.where(on_finger, np.clip(inner + root, 0, 1), 0)


def _knuckle(place: Place) -> np.ndarray:
    """Nearness to a knuckle on the back of the fingers, 0 to 1."""
    near = np.maximum((place.phalanx > 0) * bump(place.along, 0.0055), (place.phalanx < 2) * bump(place.left, 0.0055))
    return np.where(place.finger >= 0, near, 0)


def _relief(surface: HandSurface, place: Place, skin: Skin) -> np.ndarray:
    """Height of the skin above the mesh, metres."""
    rng = np.random.default_rng(skin.seed)
    back, palm = place.back, 1 - place.back
    point = place.point
    joint = np.where(np.abs(place.along) < np.abs(place.left), place.along, place.left)
    wobble = 0.0005 * waves(point, 0.008, rng)
    wrinkles = np.sin(2 * np.pi * (joint + wobble) / 0.0026) * _knuckle(place) ** 1.5
    height = 0.00016 * wrinkles * back
    height = height - 0.00035 * _creases(place) * palm
    on_palm = place.finger < 0
    height = height - 0.0005 * _palm_lines(place) * palm * on_palm
    height = height + 0.00010 * waves(point, 0.007, rng) + 0.00004 * waves(point, 0.003, rng)
    height = height + 0.00035 * waves(point, 0.022, rng) * on_palm
    # Extensor tendons: ridges from the wrist's middle to the knuckles, on the back.
    joints = surface.joints_m
    tendons = np.zeros(back.shape)
    for f in range(1, 5):
        a, b = joints[0] + 0.25 * (joints[9] - joints[0]), joints[4 * f + 1]
        axis = (b - a) / np.linalg.norm(b - a)
        t = (point - a) @ axis
        off = point - a - t[..., None] * axis
        off = off - (off @ surface.palm_frame[2])[..., None] * surface.palm_frame[2]
        tendons += bump(np.linalg.norm(off, axis=-1), 0.0026) * step(t, 0.0, 0.02)
    height = height + 0.0007 * np.clip(tendons, 0, 1) * back * on_palm
    veins = bump(np.abs(waves(point, 0.035, rng)), 0.10) * back * on_palm
    height = skin.relief * (height + 0.0003 * veins)
    cover, border, edge = nail(place)
    return height * (1 - cover) - 0.0004 * border + 0.0003 * cover + 0.0002 * edge


def _albedo(place: Place, skin: Skin) -> tuple[np.ndarray, np.ndarray]:
    """Colour (..., 3) and gloss (...,)."""
    rng = np.random.default_rng(skin.seed + 1)
    back, palm = place.back, 1 - place.back
    point = place.point
    pale = (palm * step(place.distal, -0.10, 0.10))[..., None]  # the palm's tint ends at the wrist
    colour = pale * skin.palm + (1 - pale) * skin.tone
    on_palm = place.finger < 0
    # Blood: redder at knuckles, fingertips and the heels of the palm; paler between.
    tip = np.where((place.finger >= 0) & (place.phalanx == 2), 1 - step(place.left, 0.0, 0.016), 0)
    ball = bump(np.hypot(place.radial - 0.45, place.distal - 0.3), 0.16)
    heel = on_palm * palm * (ball + bump(np.hypot(place.radial + 0.35, place.distal - 0.35), 0.14))
    sizes = {0.03: 0.05, 0.012: 0.05, 0.005: 0.035}  # metres: strength
    blotch = skin.mottle * sum(strength * waves(point, size, rng) for size, strength in sizes.items())
    blood = skin.redness * (0.16 * _knuckle(place) * back + 0.20 * tip + 0.14 * heel) + blotch
    colour = colour * np.exp(blood[..., None] * np.array([-0.15, -0.9, -0.75]))
    melanin = skin.mottle * (0.035 * waves(point, 0.02, rng) + 0.03 * waves(point, 0.0035, rng))
    melanin = melanin + 0.20 * _knuckle(place) * back
    colour = colour * np.exp(-melanin[..., None] * np.array([0.8, 1.0, 1.1]))
    lines = np.maximum(_creases(place), np.where(on_palm, _palm_lines(place), 0)) * palm
    colour = colour * np.exp(-0.45 * skin.relief * lines[..., None] * np.array([0.7, 1.2, 1.2]))
    veins = bump(np.abs(waves(point, 0.035, np.random.default_rng(skin.seed + 2))), 0.12) * back * on_palm
    colour = colour * np.exp(-0.16 * veins[..., None] * np.array([1.2, 0.6, 0.4]))
    gloss = skin.gloss * (1 + 0.25 * waves(point, 0.006, rng) - 0.4 * palm)
    cover, border, edge = nail(place)
    bed = 0.75 * skin.palm + 0.25 * np.array([0.70, 0.42, 0.36])
    rim = 0.5 * bed + 0.5 * np.array([0.74, 0.64, 0.54])
    lunula = cover[..., None] * (bed + edge[..., None] * (rim - bed))
    colour = colour * (1 - cover[..., None]) + lunula
    colour = colour * np.exp(-0.45 * border[..., None] * np.array([0.8, 1.1, 1.1]) * (1 - cover[..., None]))
    gloss = gloss * (1 - cover) + 2.0 * cover
    return np.clip(colour, 0.02, 0.95), np.clip(gloss, 0.1, 4.0)


def on_grid(values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Vertex values (N, C) at the texture grid's points: (F, P, C)."""
    return np.einsum("pk,fkc->fpc", texel_corners()[0], values[faces])


def cells(colour: np.ndarray, gloss: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Texture cells (F, CELLS, CHANNELS) from values at the grid's points (F, P, 3), (F, P) and (F, P) in metres."""
    corners = texel_corners()[1]
    texels = np.empty((len(height), len(corners), CHANNELS), np.float32)
    texels[..., :3] = colour[:, corners].mean(2)
    texels[..., 3] = gloss[:, corners].mean(2)
    for k in (1, 2):
        texels[..., 3 + k] = (height[:, corners[:, k]] - height[:, corners[:, 0]]) * TEXELS
    return texels


class Coat(NamedTuple):
    """What is seen of points of the skin: colour (..., 3), gloss and height above the mesh in metres (...,)."""

    colour: np.ndarray
    gloss: np.ndarray
    height: np.ndarray


Painter = Callable[[Place, Coat], Coat]
"""Paints something onto the skin."""


def hand_texels(surface: HandSurface, skin: Skin, painter: Painter | None = None) -> np.ndarray:
    """Texture of the hand with what is painted on it: (F, CELLS, CHANNELS) float32."""
    normal = on_grid(vertex_normals(surface.vertices_m, surface.faces), surface.faces)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    place = _locate(surface, on_grid(surface.vertices_m, surface.faces), normal)
    coat = Coat(*_albedo(place, skin), _relief(surface, place, skin))
    return cells(*(painter(place, coat) if painter else coat))


def noise_texels(
    vertices: np.ndarray,
    faces: np.ndarray,
    colour: np.ndarray,
    rng: np.random.Generator,
    strength: float = 0.1,
    gloss: float = 1.0,
    stripes: tuple[float, np.ndarray] | None = None,
) -> np.ndarray:
    """Texture of a plain thing: one colour with blotches, optionally with stripes along z, (period in m, colour)."""
    point = on_grid(vertices, faces)
    blotch = strength * (waves(point, 0.04, rng) + 0.6 * waves(point, 0.009, rng))
    base = np.broadcast_to(colour, point.shape)
    if stripes:
        period_m, other = stripes
        base = np.where((np.sin(2 * np.pi * point[..., 2] / period_m) > 0)[..., None], base, other)
    colours = np.clip(base * np.exp(blotch)[..., None], 0.01, 0.95)
    return cells(colours, np.full(blotch.shape, gloss), np.zeros(blotch.shape))
