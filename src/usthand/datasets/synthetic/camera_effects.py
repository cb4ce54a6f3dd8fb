"""What a real webcam does to light: smear of motion, lines read one after the other, focus, noise, and its processing.

The order is that of a camera. While the shutter is open, everything that moves is smeared along its path; lines are
read from top to bottom, so that what moves is sheared; the lens is out of focus and darker in its corners. Then come
exposure and white balance, both of which drift, noise whose colour is coarser than its brightness, and the camera's
own processing: a tone curve, more or less colour, a filter that removes noise and detail, and sharpening, which leaves
halos at edges. What the cable and the disk do to the picture is `transmission`'s.

The functions are compiled by numba; `no_type_check` keeps run-time type checks from wrapping them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import no_type_check

import numpy as np
from numba import njit

from usthand.datasets.synthetic.shade import SAMPLES, scramble
from usthand.geometry.raster import ZBuffer

FULL_SCALE = 4.0  # linear value at the end of a tone table
LONGEST_SMEAR_PX = 32.0
STEP_S = 1e-3  # over which velocities in the image are taken
_IN_FRONT = 1.03  # a surface nearer by this factor is not smeared over by what is behind it
_TAPS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 2), (2, 0), (0, -2), (-2, 0))


@dataclass(frozen=True)
class CameraEffects:
    """One camera's optics, shutter and processing; `sample_effects` draws them."""

    exposure_s: float = 0.0
    """How long the shutter is open."""
    readout_s: float = 0.0
    """Time from the first line to the last."""
    defocus_px: float = 0.0
    """Standard deviation of the blur."""
    vignette: float = 0.0
    """Part of the light that is lost in the corners."""
    colour_noise: float = 0.0
    """Noise of each colour in blocks of two by two pixels, in parts of the brightness' noise."""
    shoulder: float = 0.7
    """Linear value from which highlights are rolled off."""
    contrast: float = 0.0
    """Share of an S-shaped curve; negative flattens."""
    lift: float = 0.0
    """What black becomes, of full scale; below zero, dark tones are lost."""
    saturation: float = 1.0
    denoise: float = 0.0
    """Differences of brightness up to this, of full scale, are smoothed away."""
    sharpen: float = 0.0
    """Strength of the unsharp mask."""
    drift: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Of exposure and warmth: amplitude of both (logarithmic), frequency 1/s, phase."""

    @cached_property
    def tone(self) -> np.ndarray:
        """Encoded brightness, of full scale, over linear [0, FULL_SCALE); float32."""
        x = np.arange(16384) * FULL_SCALE / 16384
        room = 1 - self.shoulder
        x = np.where(x > self.shoulder, self.shoulder + room * (1 - np.exp(-(x - self.shoulder) / room)), x)
        y = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
        y = y + self.contrast * (y * y * (3 - 2 * y) - y)
        return np.clip(self.lift + (1 - self.lift) * y, 0, 1).astype(np.float32)

    def gain_at(self, time_s: float) -> np.ndarray:
        """Factors (3,) on red, green and blue by which exposure and white balance have drifted."""
        exposure, warmth, frequency, phase = self.drift
        wave = math.sin(2 * math.pi * frequency * time_s + phase)
        slow = math.sin(0.7 * math.pi * frequency * time_s + 2 * phase)
        return np.exp(exposure * wave + warmth * slow * np.array([1.0, 0.0, -1.0]))


def sample_effects(rng: np.random.Generator, n: int) -> tuple[CameraEffects, ...]:
    """Draw n cameras' effects; in half of all rigs the cameras are of one make and differ in focus and light alone."""
    models = [_sample_model(rng) for _ in range(n)]
    same = rng.uniform() < 0.5
    cameras = []
    for model in models:
        blurred = rng.uniform() < 0.3
        drift = (rng.uniform(0, 0.12), rng.uniform(0, 0.06), rng.uniform(0.05, 0.8), rng.uniform(0, 2 * np.pi))
        defocus = float(rng.uniform(0.6, 2.2)) if blurred else float(rng.uniform(0.0, 0.6))
        exposure_s = float(np.exp(rng.uniform(np.log(1 / 500), np.log(1 / 25))))
        base = models[0] if same else model
        cameras.append(replace(base, exposure_s=exposure_s, defocus_px=defocus, drift=tuple(map(float, drift))))
    return tuple(cameras)


def _sample_model(rng: np.random.Generator) -> CameraEffects:
    """What cameras of one make share."""
    return CameraEffects(
        readout_s=float(rng.uniform(0, 0.025)),
        vignette=float(rng.uniform(0, 0.5) * (rng.uniform() < 0.6)),
        colour_noise=float(rng.uniform(0.2, 1.0)),
        shoulder=float(rng.uniform(0.45, 0.9)),
        contrast=float(rng.uniform(-0.3, 0.9)),
        lift=float(rng.choice([rng.uniform(-0.05, 0.0), 0.0, rng.uniform(0.02, 0.16)], p=[0.35, 0.3, 0.35])),
        saturation=float(rng.uniform(0.55, 1.25)),
        denoise=float(rng.uniform(0.015, 0.07) * (rng.uniform() < 0.65)),
        sharpen=float(rng.uniform(0.3, 1.8) * (rng.uniform() < 0.6)),
    )


def rolled(screen: np.ndarray, speed: np.ndarray, readout_s: float, height: int) -> np.ndarray:
    """Where a shutter that reads line by line sees points: screen (N, 3) moved by speed (N, 2) px/s.

    The frame's time is that at which the line through the points' middle is read, so that the shear has no mean.
    """
    out = screen.copy()
    seen = screen[:, 2] > 0
    if seen.any():
        middle = screen[seen, 1].mean()
        out[:, :2] += np.where(seen, readout_s * (screen[:, 1] - middle) / height, 0.0)[:, None] * speed
    return out


@no_type_check
@njit(cache=True, nogil=True)
def _pixel_motion(
    buffer: ZBuffer, faces: np.ndarray, smear_px: np.ndarray, out: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> float:
    """Coverage (H, W), smear (H, W, 2) and inverse depth (H, W) of every pixel; returns the longest smear, px."""
    cover, motion, near = out
    longest = 0.0
    for r in range(cover.shape[0]):
        for s in range(cover.shape[1]):
            count, mu, mv, closest = 0, 0.0, 0.0, 0.0
            for n in range(SAMPLES * SAMPLES):
                rr, ss = r * SAMPLES + n // SAMPLES, s * SAMPLES + n % SAMPLES
                f = buffer.face_id[rr, ss]
                if f < 0:
                    continue
                b1, b2 = buffer.barycentric[rr, ss, 0], buffer.barycentric[rr, ss, 1]
                b0 = 1.0 - b1 - b2
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                mu += b0 * smear_px[a, 0] + b1 * smear_px[b, 0] + b2 * smear_px[c, 0]
                mv += b0 * smear_px[a, 1] + b1 * smear_px[b, 1] + b2 * smear_px[c, 1]
                closest = max(closest, buffer.inverse_depth[rr, ss])
                count += 1
            cover[r, s] = count / (SAMPLES * SAMPLES)
            near[r, s] = closest
            motion[r, s, 0] = mu / max(count, 1)
            motion[r, s, 1] = mv / max(count, 1)
            longest = max(longest, abs(motion[r, s, 0]), abs(motion[r, s, 1]))
    return longest


@no_type_check
@njit(cache=True, nogil=True)
def _smear(
    image: np.ndarray,
    background: np.ndarray,
    layers: tuple[np.ndarray, np.ndarray, np.ndarray],
    sums: tuple[np.ndarray, np.ndarray],
) -> None:
    """Spread what is in front of the background along its motion, in place."""
    cover, motion, near = layers
    colour, weight = sums
    height, width = cover.shape
    for r in range(height):
        for s in range(width):
            if cover[r, s] == 0.0:
                continue
            mu, mv = motion[r, s, 0], motion[r, s, 1]
            steps = int(max(abs(mu), abs(mv))) + 1
            share = cover[r, s] / steps
            behind = 1 - cover[r, s]
            red = (image[r, s, 0] - behind * background[r, s, 0]) / cover[r, s]
            green = (image[r, s, 1] - behind * background[r, s, 1]) / cover[r, s]
            blue = (image[r, s, 2] - behind * background[r, s, 2]) / cover[r, s]
            hidden = _IN_FRONT * near[r, s]
            for k in range(steps):
                part = (k + 0.5) / steps - 0.5
                u, v = s + part * mu, r + part * mv
                s0, r0 = math.floor(u), math.floor(v)
                for corner in range(4):
                    ss, rr = s0 + corner % 2, r0 + corner // 2
                    if ss < 0 or rr < 0 or ss >= width or rr >= height:
                        continue
                    w = share * (1 - abs(u - ss)) * (1 - abs(v - rr))
                    if near[rr, ss] > hidden:
                        continue  # behind what is there
                    weight[rr, ss] += w
                    colour[rr, ss, 0] += w * red
                    colour[rr, ss, 1] += w * green
                    colour[rr, ss, 2] += w * blue
    for r in range(height):
        for s in range(width):
            if weight[r, s] <= 1e-6:
                if cover[r, s] > 0.0:
                    image[r, s] = background[r, s]
                continue
            opaque = min(1.0, weight[r, s])
            if cover[r, s] > 0.0:
                # Where one part moves over another, what it uncovers is unknown: no background shines through there.
                mu, mv = motion[r, s, 0], motion[r, s, 1]
                steps = int(max(abs(mu), abs(mv))) + 1
                inside = 0.0
                for k in range(steps):
                    part = (k + 0.5) / steps - 0.5
                    rr = min(height - 1, max(0, int(r + part * mv + 0.5)))
                    ss = min(width - 1, max(0, int(s + part * mu + 0.5)))
                    inside += cover[rr, ss]
                if inside > 0.99 * steps:
                    opaque = 1.0
            for c in range(3):
                image[r, s, c] = opaque * colour[r, s, c] / weight[r, s] + (1 - opaque) * background[r, s, c]


def smear(image: np.ndarray, background: np.ndarray, buffer: ZBuffer, faces: np.ndarray, smear_px: np.ndarray) -> None:
    """Blur an image (H, W, 3) in place by the motion of what is in front of its background.

    smear_px (N, 2): how far each vertex moves in the image while the shutter is open; the frame's time is the middle.
    Exact for a part that moves rigidly in the image; where parts cross, each covers the other half of the time.
    """
    height, width = image.shape[:2]
    length = np.maximum(np.linalg.norm(smear_px, axis=1, keepdims=True), 1e-9)
    smear_px = (smear_px * np.minimum(1, LONGEST_SMEAR_PX / length)).astype(np.float32)
    cover, near = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    layers = cover, np.empty((height, width, 2), np.float32), near
    if _pixel_motion(buffer, faces, smear_px, layers) > 0.4:
        sums = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
        _smear(image, background, layers, sums)


def gaussian_taps(sigma_px: float) -> np.ndarray:
    """Normalised weights (2 n + 1,) of a Gaussian, its variance that of the samples exact to 1 % from 0.5 px on."""
    reach = math.ceil(3 * sigma_px)
    x = np.arange(-reach, reach + 1)
    taps = np.exp(-0.5 * (x / sigma_px) ** 2)
    return (taps / taps.sum()).astype(np.float32)


@no_type_check
@njit(cache=True, nogil=True, fastmath=True)
def _convolve(image: np.ndarray, taps: np.ndarray, channels: int) -> None:
    """`convolve` of rows (H, W * C): plain loops over neighbouring numbers, which compile to vector instructions."""
    height, width = image.shape
    reach = taps.shape[0] // 2
    margin = reach * channels
    rows = np.empty((taps.shape[0], width), np.float32)  # a ring of unblurred rows: row r is at r modulo its length
    padded = np.empty(width + 2 * margin, np.float32)
    for r in range(-reach, height + reach):
        rows[(r + reach) % rows.shape[0], :] = image[min(height - 1, max(0, r)), :]
        done = r - reach
        if done < 0:
            continue
        middle = padded[margin : margin + width]
        middle[:] = 0.0
        for k in range(taps.shape[0]):
            middle += taps[k] * rows[(done + k) % rows.shape[0], :]
        for i in range(margin):
            padded[i] = middle[i % channels]
            padded[margin + width + i] = middle[width - channels + i % channels]
        row = image[done]
        row[:] = 0.0
        for k in range(taps.shape[0]):
            row += taps[k] * padded[k * channels : k * channels + width]


def convolve(image: np.ndarray, taps: np.ndarray) -> None:
    """Separable blur of (H, W, C) in place; edges repeat."""
    height, width, channels = image.shape
    _convolve(image.reshape(height, width * channels), taps, channels)


@no_type_check
@njit(cache=True, nogil=True)
def _bell(word: np.uint64) -> float:
    """Nearly Gaussian, mean 0, variance 1, from 21 bits."""
    total = int(word & np.uint64(127)) + int((word >> np.uint64(7)) & np.uint64(127))
    return (total + int((word >> np.uint64(14)) & np.uint64(127)) - 190.5) / 64.0


@no_type_check
@njit(cache=True, nogil=True, fastmath=True)
def _expose(
    image: np.ndarray,
    gain: np.ndarray,
    noise: tuple[float, float, float],
    look: tuple[float, float],
    tone: np.ndarray,
    seed: np.uint64,
    out: np.ndarray,
) -> None:
    """Light to encoded brightness and two differences of colour, blue and red less brightness, into `out` (H, W, 3).

    noise: read and shot noise of the brightness, and the colours' part. look: vignette and saturation.
    """
    height, width, _ = image.shape
    read, shot, coloured = noise
    vignette, saturation = look
    per_unit = tone.shape[0] / FULL_SCALE
    last = tone.shape[0] - 1
    for r in range(height):
        y = (r - 0.5 * height) / (0.5 * height)
        for s in range(width):
            x = (s - 0.5 * width) / (0.5 * width)
            light = 1.0 - vignette * 0.5 * (x * x + y * y)
            grain = _bell(scramble(np.uint64(seed) + np.uint64(r * width + s + 1)))
            # Blocks count from the other end of the image's own range of counters.
            block = scramble(np.uint64(seed) + np.uint64((1 << 27) + (r // 2) * width + s // 2))
            for k in range(3):
                value = image[r, s, k] * gain[k] * light
                sigma = math.sqrt(read * read + shot * shot * max(0.0, value))
                value += sigma * (grain + coloured * _bell(block))
                block >>= np.uint64(21)
                out[r, s, k] = tone[min(last, max(0, int(value * per_unit + 0.5)))]
            bright = 0.299 * out[r, s, 0] + 0.587 * out[r, s, 1] + 0.114 * out[r, s, 2]
            red, blue = out[r, s, 0], out[r, s, 2]
            out[r, s, 0] = bright
            out[r, s, 1] = saturation * (blue - bright)
            out[r, s, 2] = saturation * (red - bright)


@no_type_check
@njit(cache=True, nogil=True, fastmath=True)
def _denoise(image: np.ndarray, threshold: float, out: np.ndarray) -> None:
    """Lee's sigma filter: the mean of those of 13 neighbours whose brightness is within the threshold."""
    height, width, _ = image.shape
    for r in range(height):
        inner = 2 <= r < height - 2
        for s in range(width):
            own = image[r, s, 0]
            a, b, c, count = 0.0, 0.0, 0.0, 0.0
            for dr, ds in _TAPS:
                rr, ss = r + dr, s + ds
                if not inner or ss < 0 or ss >= width:
                    rr, ss = min(height - 1, max(0, rr)), min(width - 1, max(0, ss))
                if abs(image[rr, ss, 0] - own) <= threshold:
                    a += image[rr, ss, 0]
                    b += image[rr, ss, 1]
                    c += image[rr, ss, 2]
                    count += 1.0
            out[r, s, 0], out[r, s, 1], out[r, s, 2] = a / count, b / count, c / count


@no_type_check
@njit(cache=True, nogil=True, fastmath=True)
def _finish(image: np.ndarray, sharpen: float, out: np.ndarray) -> None:
    """Unsharp mask of the brightness, then bytes of red, green and blue."""
    height, width, _ = image.shape
    row = np.empty(width, np.float32)
    for r in range(height):
        if sharpen > 0.0:
            r0, r1, r2, r3 = max(0, r - 2), max(0, r - 1), min(height - 1, r + 1), min(height - 1, r + 2)
            for s in range(width):
                far = image[r0, s, 0] + image[r3, s, 0]
                row[s] = 0.0625 * far + 0.25 * (image[r1, s, 0] + image[r2, s, 0]) + 0.375 * image[r, s, 0]
        for s in range(width):
            bright = image[r, s, 0]
            if sharpen > 0.0:
                s0, s1, s2, s3 = max(0, s - 2), max(0, s - 1), min(width - 1, s + 1), min(width - 1, s + 2)
                soft = 0.0625 * (row[s0] + row[s3]) + 0.25 * (row[s1] + row[s2]) + 0.375 * row[s]
                bright += sharpen * (bright - soft)
            blue, red = bright + image[r, s, 1], bright + image[r, s, 2]
            green = bright - (0.114 * image[r, s, 1] + 0.299 * image[r, s, 2]) / 0.587
            out[r, s, 0] = int(min(255.0, max(0.0, 255.0 * red + 0.5)))
            out[r, s, 1] = int(min(255.0, max(0.0, 255.0 * green + 0.5)))
            out[r, s, 2] = int(min(255.0, max(0.0, 255.0 * blue + 0.5)))


def develop_effects(
    image: np.ndarray, effects: CameraEffects, gain: np.ndarray, blur_px: float, noise: tuple[float, float], seed: int
) -> np.ndarray:
    """Bytes (H, W, 3) of an image of linear light (H, W, 3), which is used up.

    gain (3,): exposure and white balance. blur_px: of the lens in focus. noise: read and shot noise.
    """
    spread = math.hypot(blur_px, effects.defocus_px)
    scratch = np.empty_like(image)
    if spread > 0.2:
        convolve(image, gaussian_taps(spread))
    shutter = (*noise, effects.colour_noise)
    # The kernel counts pixels up from a word that no other image's count reaches.
    word = np.uint64(seed) << np.uint64(28)
    look = effects.vignette, effects.saturation
    _expose(image, np.asarray(gain, np.float32), shutter, look, effects.tone, word, scratch)
    if effects.denoise > 0:
        _denoise(scratch, effects.denoise, image)
        scratch = image
    rgb = np.empty(image.shape, np.uint8)
    _finish(scratch, effects.sharpen, rgb)
    return rgb
