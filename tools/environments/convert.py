"""Pack real environments' light and views into one small file of the package.

    npm pack @pmndrs/assets && tar xzf pmndrs-assets-*.tgz
    pip install OpenEXR
    python -m environments.convert package/hdri src/usthand/datasets/synthetic/data/environments.npz

The npm package `@pmndrs/assets` 1.7.0 (CC0 1.0) holds 18 environment maps as base64 in JavaScript modules, 512 x 256
half floats, equirectangular, the zenith in the first row. Of each we keep what the renderer needs: a picture of 8 bits
a channel (`encode`), three lamps, and the linear part of the remaining light.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from usthand.datasets.synthetic.environment import LUMINANCE, directions, encode

LAMPS = 3
LAMP_RAD, AROUND_RAD = 0.4, 0.7  # a lamp's reach, and that of the ring which says how bright it is without the lamp
QUALITY = 82  # of the WebP pictures


class Light(NamedTuple):
    """An environment's light. Colours are the radiance of a white surface that faces it; z is up."""

    direction: np.ndarray  # (LAMPS, 3) towards each lamp
    colour: np.ndarray  # (LAMPS, 3)
    size_rad: np.ndarray  # (LAMPS,) root mean square angle
    up: np.ndarray  # (3,) where most of the remaining light comes from
    sky: np.ndarray  # (3,) of a surface that faces it
    ground: np.ndarray  # (3,) of one that faces away


def read_module(path: Path) -> np.ndarray:
    """Linear radiance (H, W, 3) of a JavaScript module that holds an OpenEXR file."""
    import OpenEXR

    found = re.search(r"base64,([A-Za-z0-9+/=]+)", path.read_text())
    if not found:
        raise ValueError(f"{path} holds no base64 data")
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(base64.b64decode(found[1]))
        file.flush()
        channels = OpenEXR.File(file.name).channels()
        return np.maximum(np.asarray(channels["RGB"].pixels, np.float64), 0)  # ringing around the sun is negative


def split_light(radiance: np.ndarray) -> Light:
    """The three strongest lamps of a map (H, W, 3), and the linear part of what is left.

    A lamp is what exceeds the ring around the brightest place. Of the rest, a surface with normal n receives, but for
    terms that are quadratic in n, E(n) / pi = A + 2/3 M . n with the mean radiance A and its first moment M
    (Ramamoorthi and Hanrahan 2001).
    """
    height, width = radiance.shape[:2]
    towards = directions(height, width)
    solid = 2 * np.pi**2 / (height * width) * np.sin((np.arange(height) + 0.5) / height * np.pi)[:, None, None]
    left = radiance.copy()
    lamps = []
    for _ in range(LAMPS):
        peak = towards.reshape(-1, 3)[np.argmax(_smooth(left @ LUMINANCE, towards, solid[..., 0]))]
        angle = np.arccos(np.clip(towards @ peak, -1, 1))
        ring = np.median(left[(angle > LAMP_RAD) & (angle < AROUND_RAD)], axis=0)
        excess = np.where((angle < LAMP_RAD)[..., None], np.maximum(left - ring, 0), 0)
        power = excess * solid
        weight = power @ LUMINANCE
        direction = (weight[..., None] * towards).sum((0, 1)) + 1e-9 * peak  # a sky without lamps has none left
        direction /= np.linalg.norm(direction)
        spread = np.arccos(np.clip(towards @ direction, -1, 1))
        size = np.sqrt((weight * spread**2).sum() / max(weight.sum(), 1e-12))
        lamps.append((direction, power.sum((0, 1)) / np.pi, size))
        left -= excess
    mean = (left * solid).sum((0, 1)) / (4 * np.pi)
    moment = 3 / (4 * np.pi) * np.einsum("hwc,hwd->cd", left * solid, towards)
    up = LUMINANCE @ moment
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-9 else np.array([0.0, 0.0, 1.0])
    slope = 2 / 3 * moment @ up
    return Light(*map(np.array, zip(*lamps, strict=True)), up, mean + slope, np.maximum(mean - slope, 0.05 * mean))


def _smooth(bright: np.ndarray, towards: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """Brightness averaged over some 12 degrees, at every fourth direction; elsewhere -1."""
    out = np.full(bright.shape, -1.0)
    rows, columns = bright.shape[0] // 4, bright.shape[1] // 4
    weighted = (bright * solid).reshape(rows, 4, columns, 4).sum((1, 3)).ravel()
    known = towards[2::4, 2::4].reshape(-1, 3)
    out[::4, ::4] = (
        np.exp(45 * (towards[::4, ::4].reshape(-1, 3) @ known.T - 1)).dot(weighted).reshape(out[::4, ::4].shape)
    )
    return out


def exposure(radiance: np.ndarray) -> float:
    """Factor that brings the geometric mean of a map's brightness to 0.3."""
    bright = radiance @ LUMINANCE
    return float(0.3 / np.exp(np.log(bright + 0.002 * bright.mean()).mean()))


def main() -> None:
    """Convert all maps of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hdri", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(options.hdri.glob("*.exr.js")):
        radiance = read_module(path)
        radiance *= exposure(radiance)
        file = io.BytesIO()
        Image.fromarray(encode(radiance)).save(file, "webp", quality=QUALITY, method=6)
        name = path.name.removesuffix(".exr.js")
        arrays[f"{name}/view"] = np.frombuffer(file.getvalue(), np.uint8)
        for field, value in split_light(radiance)._asdict().items():
            arrays[f"{name}/{field}"] = value.astype(np.float32)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(options.out, **arrays)


if __name__ == "__main__":
    main()
