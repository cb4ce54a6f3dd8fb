"""From depth samples to colour: textured skin under several lights, then the camera's sensor.

The light model is small on purpose: wrapped diffuse light whose wrap is widest in red (light that has travelled under
the skin), a Blinn-Phong highlight with Schlick's Fresnel term, a hemisphere of ambient light dimmed by the occlusion of
each vertex, and soft shadows from one depth map a light. All radiance is linear; only the sensor applies a tone curve.

The functions are compiled by numba; `no_type_check` keeps run-time type checks from wrapping them.
"""

from __future__ import annotations

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

from usthand.geometry.raster import ZBuffer, light_map

SAMPLES = 2  # supersampling per axis: 2 x 2 depth samples a pixel
SKY_TEXELS = 48  # side of the depth maps of the ambient occlusion
TEXELS = 8  # cells along each edge of a triangle's texture
CELLS = TEXELS * (TEXELS + 1) // 2  # cell (i, j), i + j < TEXELS, covers b1 from i / TEXELS and b2 from j / TEXELS
CHANNELS = 6  # red, green, blue (linear albedo), gloss, and the relief's two slopes in metres per unit of barycentric
_SAME_SURFACE_M = 0.004  # samples of a pixel nearer together than this share one shading evaluation
_SHADOW_BIAS_M = 0.003
_WRAP = (0.45, 0.24, 0.18)  # red light travels furthest under the skin


class SceneModel(NamedTuple):
    """All parts of a scene as flat arrays."""

    faces: np.ndarray  # (F, 3) int32
    label: np.ndarray  # (F,) uint8
    material: np.ndarray  # (F, 3) float32
    texels: np.ndarray  # (F, CELLS, CHANNELS) float32
    focus: np.ndarray  # (K,) ids of the vertices around which shadows are finest: the hand's, or all


class Lit(NamedTuple):
    """A posed mesh with its light, as far as that does not depend on the camera; float32."""

    vertices: np.ndarray  # (N, 3) world, m
    normals: np.ndarray  # (N, 3)
    openness: np.ndarray  # (N,), part of the sky that each vertex sees
    heights: np.ndarray  # (L, S, S), depth map of each light
    frames: np.ndarray  # (L, 3, 3)
    lows: np.ndarray  # (L, 2)
    texel_m: np.float32
    spread: np.ndarray  # (L,), half the width of each shadow's edge, texels
    up: np.ndarray  # (3,)
    direction: np.ndarray  # (L, 3)
    colour: np.ndarray  # (L, 3)
    sky: np.ndarray  # (3,)
    ground: np.ndarray  # (3,)
    velocity: np.ndarray  # (N, 3) m/s


@no_type_check
@njit(cache=True, nogil=True)
def sky_openness(
    vertices: np.ndarray,
    normals: np.ndarray,
    faces: np.ndarray,
    frames: np.ndarray,
    lows: np.ndarray,
    texel_m: float,
    out: np.ndarray,
) -> None:
    """Part of the sky that each vertex sees, cosine-weighted, into `out` (N,): ambient occlusion.

    One depth map for each frame (K, 3, 3) of the sky's directions; lows (K, 2) are its corners.
    """
    size = SKY_TEXELS
    heights = np.empty((size, size), np.float32)
    everything = np.full(vertices.shape[0], 1e-3, np.float32)
    out[:] = 1e-3
    bias = 1.2 * texel_m
    for k in range(frames.shape[0]):
        frame, low = frames[k], lows[k]
        light_map(vertices, faces, frame, low, texel_m, heights)
        for i in range(vertices.shape[0]):
            cosine = normals[i, 0] * frame[2, 0] + normals[i, 1] * frame[2, 1] + normals[i, 2] * frame[2, 2]
            if cosine <= 0.05:
                continue
            x = vertices[i, 0] + bias * normals[i, 0]
            y = vertices[i, 1] + bias * normals[i, 1]
            z = vertices[i, 2] + bias * normals[i, 2]
            s = int((frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z - low[0]) / texel_m + 0.5)
            r = int((frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z - low[1]) / texel_m + 0.5)
            h = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z
            everything[i] += cosine
            if r < 0 or s < 0 or r >= size or s >= size or heights[r, s] < h + bias:
                out[i] += cosine
    for i in range(vertices.shape[0]):
        out[i] /= everything[i]


@no_type_check
@njit(cache=True, nogil=True)
def _lit_fraction(lit: Lit, light: int, x: float, y: float, z: float) -> float:
    """Part of a light that reaches a point: nine taps around it in the light's depth map."""
    heights, frame, low = lit.heights[light], lit.frames[light], lit.lows[light]
    texel_m, spread, size = lit.texel_m, lit.spread[light], heights.shape[0]
    u = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z - low[0]) / texel_m
    v = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z - low[1]) / texel_m
    h = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z + _SHADOW_BIAS_M
    count = 0.0
    for dr in range(-1, 2):
        for ds in range(-1, 2):
            r = int(v + dr * spread + 0.5)
            s = int(u + ds * spread + 0.5)
            if r < 0 or s < 0 or r >= size or s >= size or heights[r, s] < h:
                count += 1.0
    return count / 9.0


@no_type_check
@njit(cache=True, nogil=True, fastmath=True)
def shade_point(f: int, b1: float, b2: float, model: SceneModel, lit: Lit, centre: np.ndarray, out: np.ndarray) -> None:
    """Radiance leaving one surface point towards the camera, into `out` (3,)."""
    vertices, normals, openness = lit.vertices, lit.normals, lit.openness
    up, sky, ground = lit.up, lit.sky, lit.ground
    a, b, c = model.faces[f, 0], model.faces[f, 1], model.faces[f, 2]
    b0 = 1.0 - b1 - b2
    x = b0 * vertices[a, 0] + b1 * vertices[b, 0] + b2 * vertices[c, 0]
    y = b0 * vertices[a, 1] + b1 * vertices[b, 1] + b2 * vertices[c, 1]
    z = b0 * vertices[a, 2] + b1 * vertices[b, 2] + b2 * vertices[c, 2]
    nx = b0 * normals[a, 0] + b1 * normals[b, 0] + b2 * normals[c, 0]
    ny = b0 * normals[a, 1] + b1 * normals[b, 1] + b2 * normals[c, 1]
    nz = b0 * normals[a, 2] + b1 * normals[b, 2] + b2 * normals[c, 2]
    sky_open = b0 * openness[a] + b1 * openness[b] + b2 * openness[c]
    i = min(TEXELS - 1, max(0, int(b1 * TEXELS)))
    j = min(TEXELS - 1 - i, max(0, int(b2 * TEXELS)))
    texel = model.texels[f, i * (2 * TEXELS + 1 - i) // 2 + j]
    # Relief: tilt the normal against the slope, using the triangle's dual basis (g1 . e1 = 1, g1 . e2 = 0).
    e1x, e1y, e1z = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
    e2x, e2y, e2z = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
    fx, fy, fz = e1y * e2z - e1z * e2y, e1z * e2x - e1x * e2z, e1x * e2y - e1y * e2x
    area2 = fx * fx + fy * fy + fz * fz + 1e-20
    d1, d2 = texel[4] / area2, texel[5] / area2
    nx -= d1 * (e2y * fz - e2z * fy) + d2 * (fy * e1z - fz * e1y)
    ny -= d1 * (e2z * fx - e2x * fz) + d2 * (fz * e1x - fx * e1z)
    nz -= d1 * (e2x * fy - e2y * fx) + d2 * (fx * e1y - fy * e1x)
    vx, vy, vz = centre[0] - x, centre[1] - y, centre[2] - z
    over = 1.0 / math.sqrt(vx * vx + vy * vy + vz * vz)
    vx, vy, vz = vx * over, vy * over, vz * over
    over = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
    nx, ny, nz = nx * over, ny * over, nz * over
    if fx * vx + fy * vy + fz * vz < 0.0:  # the inside of an open surface
        nx, ny, nz = -nx, -ny, -nz
    scatter, exponent = model.material[f, 0], model.material[f, 1]
    reflectance = model.material[f, 2] * texel[3]
    upness = 0.5 + 0.5 * (nx * up[0] + ny * up[1] + nz * up[2])
    for k in range(3):
        albedo = texel[k]
        bounced = sky_open / (1.0 - albedo * (1.0 - sky_open))  # light between skin and skin takes its colour
        out[k] = albedo * bounced * (ground[k] + upness * (sky[k] - ground[k]))
    facing = max(0.0, nx * vx + ny * vy + nz * vz)
    rim = 1.0 - facing
    rim = rim * rim * rim * rim * rim * reflectance * sky_open
    for k in range(3):
        out[k] += rim * (ground[k] + upness * (sky[k] - ground[k])) * 6.0
    for m in range(lit.direction.shape[0]):
        lx, ly, lz = lit.direction[m, 0], lit.direction[m, 1], lit.direction[m, 2]
        cosine = nx * lx + ny * ly + nz * lz
        if cosine < -0.45:
            continue
        shift = _SHADOW_BIAS_M
        reached = _lit_fraction(lit, m, x + shift * nx, y + shift * ny, z + shift * nz)
        if reached == 0.0:
            continue
        for k in range(3):
            wrap = scatter * _WRAP[k]
            out[k] += texel[k] * lit.colour[m, k] * reached * max(0.0, (cosine + wrap) / ((1.0 + wrap) * (1.0 + wrap)))
        if cosine > 0.0:
            hx, hy, hz = lx + vx, ly + vy, lz + vz
            over = 1.0 / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-20)
            peak = max(0.0, (nx * hx + ny * hy + nz * hz) * over)
            grazing = 1.0 - max(0.0, (vx * hx + vy * hy + vz * hz) * over)
            fresnel = reflectance * (1.0 + 24.0 * grazing * grazing * grazing * grazing * grazing)
            shine = fresnel * (exponent + 2.0) * 0.125 * math.exp(exponent * math.log(peak + 1e-6)) * cosine * reached
            for k in range(3):
                out[k] += shine * lit.colour[m, k]


@no_type_check
@njit(cache=True, nogil=True)
def shade_image(
    window: tuple[int, int, int, int],
    buffer: ZBuffer,
    model: SceneModel,
    lit: Lit,
    centre: np.ndarray,
    out: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Resolve the samples of every touched pixel: shade each distinct surface once, weight it by its samples.

    out: image, mask and depth. image (H, W, 3) arrives holding the background's radiance and is overwritten; mask
    (H, W) receives the label that covers at least half of the pixel (or 0); depth (H, W) the nearest depth of that
    label, m, else infinity.
    """
    row0, row1, column0, column1 = window
    image, mask, depth = out
    label = model.label
    taken = np.empty(SAMPLES * SAMPLES, np.bool_)
    ids = np.empty(SAMPLES * SAMPLES, np.int32)
    distance = np.empty(SAMPLES * SAMPLES, np.float32)
    colour = np.empty(3, np.float32)
    total = np.empty(3, np.float32)
    votes = np.zeros(256, np.int32)
    for r in range(row0 // SAMPLES, (row1 + SAMPLES - 1) // SAMPLES):
        for s in range(column0 // SAMPLES, (column1 + SAMPLES - 1) // SAMPLES):
            covered = 0
            for n in range(SAMPLES * SAMPLES):
                rr, ss = r * SAMPLES + n // SAMPLES, s * SAMPLES + n % SAMPLES
                ids[n] = buffer.face_id[rr, ss]
                taken[n] = ids[n] < 0
                if ids[n] >= 0:
                    covered += 1
                    distance[n] = 1.0 / buffer.inverse_depth[rr, ss]
            if covered == 0:
                continue
            share = 1.0 / (SAMPLES * SAMPLES)
            for k in range(3):
                total[k] = image[r, s, k] * (SAMPLES * SAMPLES - covered) * share
            winner, winner_votes = 0, SAMPLES * SAMPLES - covered
            for n in range(SAMPLES * SAMPLES):
                if ids[n] >= 0:
                    mine = label[ids[n]]
                    votes[mine] += 1
                    if votes[mine] >= winner_votes:
                        winner, winner_votes = mine, votes[mine]
            for n in range(SAMPLES * SAMPLES):
                if ids[n] >= 0:
                    votes[label[ids[n]]] = 0
                    if label[ids[n]] == winner:
                        depth[r, s] = min(depth[r, s], distance[n])
            mask[r, s] = winner
            for n in range(SAMPLES * SAMPLES):
                if taken[n]:
                    continue
                weight = 0.0
                for m in range(n, SAMPLES * SAMPLES):
                    if (
                        not taken[m]
                        and label[ids[m]] == label[ids[n]]
                        and abs(distance[m] - distance[n]) < _SAME_SURFACE_M
                    ):
                        taken[m] = True
                        weight += share
                rr, ss = r * SAMPLES + n // SAMPLES, s * SAMPLES + n % SAMPLES
                b1, b2 = buffer.barycentric[rr, ss, 0], buffer.barycentric[rr, ss, 1]
                shade_point(ids[n], b1, b2, model, lit, centre, colour)
                for k in range(3):
                    total[k] += weight * colour[k]
            for k in range(3):
                image[r, s, k] = total[k]


@no_type_check
@njit(cache=True, nogil=True)
def scramble(state: np.uint64) -> np.uint64:
    """One splitmix64 step: a well-mixed 64-bit word from a counter (Steele, Lea and Flood 2014)."""
    z = state * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@no_type_check
@njit(cache=True, nogil=True)
def blur(image: np.ndarray, sigma_px: float, scratch: np.ndarray) -> None:
    """Three-tap separable blur of standard deviation at most 0.7 px, in place; edges repeat."""
    height, width, _ = image.shape
    side = 0.5 * sigma_px * sigma_px  # variance of the kernel (side, 1 - 2 side, side) is 2 side
    middle = 1.0 - 2.0 * side
    for r in range(height):
        for s in range(width):
            left, right = max(0, s - 1), min(width - 1, s + 1)
            for k in range(3):
                scratch[r, s, k] = middle * image[r, s, k] + side * (image[r, left, k] + image[r, right, k])
    for r in range(height):
        above, below = max(0, r - 1), min(height - 1, r + 1)
        for s in range(width):
            for k in range(3):
                image[r, s, k] = middle * scratch[r, s, k] + side * (scratch[above, s, k] + scratch[below, s, k])


@no_type_check
@njit(cache=True, nogil=True, fastmath=True)
def develop(
    image: np.ndarray,
    gain: np.ndarray,
    read_noise: float,
    shot_noise: float,
    tone: np.ndarray,
    seed: np.uint64,
    out: np.ndarray,
) -> None:
    """Sensor: gain (3,) for exposure and white balance, noise, tone curve (a table over [0, 4)), 8 bits."""
    height, width, _ = image.shape
    entries = tone.shape[0]
    for r in range(height):
        for s in range(width):
            word = scramble(np.uint64(seed) + np.uint64(r * width + s + 1))
            for k in range(3):
                value = image[r, s, k] * gain[k]
                # Three 7-bit uniforms: a bell of mean 190.5 and standard deviation 64, near enough to Gaussian noise.
                bell = 0
                for _ in range(3):
                    bell += int(word & np.uint64(127))
                    word >>= np.uint64(7)
                noise = (bell - 190.5) / 64.0
                value += noise * math.sqrt(read_noise * read_noise + shot_noise * shot_noise * max(0.0, value))
                index = int(value * entries * 0.25 + 0.5)
                out[r, s, k] = tone[min(entries - 1, max(0, index))]
