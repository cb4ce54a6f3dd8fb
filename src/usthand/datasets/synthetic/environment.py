"""Light and views of real places: which lamps shine on the hand, and what a camera sees behind it.

`data/environments.npz` holds 18 environment maps of the npm package `@pmndrs/assets` (CC0 1.0), converted by
`tools/environments/convert.py`. Four of them are kept aside: no training and no prior sees them, so that tests can show
a hand in places that are new.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from usthand.capture.rig import Camera
from usthand.datasets.synthetic.render import Lights

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
ASIDE = ("bridge", "lobby", "sunset", "workshop")
"""Environments for tests alone."""
_GAMMA = 2.2


@dataclass(frozen=True)
class EnvironmentMap:
    """A real place; z is up. Colours are linear, the place's geometric mean brightness 0.3."""

    view: np.ndarray  # (H, W, 3) uint8, equirectangular, see `encode`
    direction: np.ndarray  # (L, 3) towards its lamps
    colour: np.ndarray  # (L, 3) radiance of a white surface that faces the lamp
    size_rad: np.ndarray  # (L,)
    up: np.ndarray  # (3,) where most of the ambient light comes from
    sky: np.ndarray  # (3,) radiance of a white surface that faces it
    ground: np.ndarray  # (3,) of one that faces away


def encode(radiance: np.ndarray) -> np.ndarray:
    """Bytes of linear radiance: x / (1 + x) with a gamma of 2.2 (Reinhard et al. 2002); up to 254 in the last step."""
    return np.round(255 * (radiance / (1 + radiance)) ** (1 / _GAMMA)).astype(np.uint8)


def decode(view: np.ndarray) -> np.ndarray:
    """Linear radiance, float32, of what `encode` wrote; the last byte counts as the one before it."""
    part = (np.minimum(np.arange(256), 254) / 255.0) ** _GAMMA
    return (part / (1 - part)).astype(np.float32)[view]


def directions(height: int, width: int) -> np.ndarray:
    """Unit vectors (H, W, 3) of an equirectangular map's pixels: zenith in the first row, azimuth along the columns."""
    polar = ((np.arange(height) + 0.5) / height * np.pi)[:, None]
    azimuth = ((np.arange(width) + 0.5) / width * 2 * np.pi)[None]
    ring = np.sin(polar)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), np.cos(polar) + 0 * azimuth], -1)


@cache
def environments(aside: bool = False) -> tuple[EnvironmentMap, ...]:
    """The environments for training, or those kept aside."""
    file = resources.files("usthand.datasets.synthetic") / "data" / "environments.npz"
    with file.open("rb") as stream, np.load(stream) as arrays:
        names = sorted({key.split("/")[0] for key in arrays.files})
        return tuple(
            EnvironmentMap(
                np.asarray(Image.open(io.BytesIO(arrays[f"{name}/view"].tobytes())).convert("RGB")),
                *(arrays[f"{name}/{field}"] for field in ("direction", "colour", "size_rad", "up", "sky", "ground")),
            )
            for name in names
            if (name in ASIDE) == aside
        )


def turned(angle_rad: float) -> np.ndarray:
    """Rotation (3, 3) from an environment's axes to the world's, about the vertical."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def environment_lights(environment: EnvironmentMap, to_world: np.ndarray, gain: float, fill: float = 1.0) -> Lights:
    """The environment's lamps and its ambient light on the hand, times `gain`; `fill` weakens the ambient light."""
    return Lights(
        environment.direction @ to_world.T,
        gain * environment.colour,
        np.clip(0.1 * environment.size_rad, 0.003, 0.04),
        to_world @ environment.up,
        gain * fill * environment.sky,
        gain * fill * environment.ground,
    )


def on_white(lights: Lights) -> float:
    """Mean brightness of a white ball under these lights."""
    ambient = 0.5 * (lights.sky + lights.ground)
    return float((ambient + 0.25 * lights.colour.sum(0)) @ LUMINANCE)


def panorama_view(
    environment: EnvironmentMap, to_world: np.ndarray, camera: Camera, widen: float = 1.0, blur_px: float = 0.0
) -> np.ndarray:
    """What a camera sees of a distant place, (H, W, 3) float32 linear; `widen` shows more of it than the lens does."""
    column, row = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    focal, middle = camera.matrix[[0, 1], [0, 1]], camera.matrix[:2, 2]
    x, y = widen * (column - middle[0]) / focal[0], widen * (row - middle[1]) / focal[1]
    ray = np.stack([x, y, np.ones_like(x)], -1) @ (camera.rotation @ to_world)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    height, width = environment.view.shape[:2]
    v = np.arccos(np.clip(ray[..., 2], -1, 1)) / np.pi * height - 0.5
    u = np.mod(np.arctan2(ray[..., 1], ray[..., 0]) / (2 * np.pi), 1.0) * width - 0.5
    light = decode(np.concatenate([environment.view[:, -2:], environment.view, environment.view[:, :2]], 1))
    seen = np.stack([map_coordinates(light[..., k], [v, u + 2], order=1, mode="nearest") for k in range(3)], -1)
    return gaussian_filter(seen, (blur_px, blur_px, 0), mode="nearest") if blur_px > 0 else seen
