"""A hand that moves in front of a ring of cameras, for the tests that write it down as a data set does."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera, Rig
from usthand.hand.io import load_hand


class Hand(NamedTuple):
    """One person's hand over time, in the world."""

    pose: np.ndarray  # (T, 48), flat-hand mean
    shape: np.ndarray  # (10,)
    translation_m: np.ndarray  # (T, 3)
    vertices_m: np.ndarray  # (T, 778, 3)
    joints_m: np.ndarray  # (T, 21, 3)


def skinned(pose: np.ndarray, shape: np.ndarray, translation_m: np.ndarray, side: str = "right") -> tuple:
    """Vertices and joints of the embedded hand."""
    model = load_hand(side=side, dtype=torch.float64)
    pose, shape, translation_m = (torch.from_numpy(np.asarray(a, np.float64)) for a in (pose, shape, translation_m))
    posed = model.with_shape(shape).with_pose(model.rotations(pose, flat_hand_mean=True), translation_m)
    return posed.vertices.numpy(), posed.joints.numpy()


def moving_hand(frames: int, seed: int = 0, side: str = "right") -> Hand:
    """Any pose near the origin."""
    rng = np.random.default_rng(seed)
    pose = np.concatenate(
        [Rotation.random(frames, random_state=seed).as_rotvec(), rng.normal(0, 0.2, (frames, 45))], -1
    )
    shape, translation = rng.normal(0, 0.5, 10), rng.normal(0, 0.02, (frames, 3))
    return Hand(pose, shape, translation, *skinned(pose, shape, translation, side))


def ring(names: tuple[str, ...], size: tuple[int, int], seed: int = 0, distance_m: float = 0.9) -> Rig:
    """Cameras that look at the origin from anywhere, each with intrinsics of its own, without distortion."""
    turns, cameras = Rotation.random(len(names), random_state=seed).as_matrix(), []
    for k, (name, rotation) in enumerate(zip(names, turns, strict=True)):
        matrix = np.array([[600.0 + 7 * k, 0, size[0] / 2 + k], [0, 605.0 + 5 * k, size[1] / 2 - k], [0, 0, 1]])
        where = np.array([0.01 * k, -0.02, distance_m + 0.03 * k])
        cameras.append(Camera(name, *size, matrix, np.zeros(0), "pinhole", rotation, where))
    return Rig(tuple(cameras))


def in_camera(points_world_m: np.ndarray, camera: Camera) -> np.ndarray:
    return points_world_m @ camera.rotation.T + camera.translation


@functools.cache
def encoded(suffix: str, size: tuple[int, int], grey: int) -> bytes:
    opened = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(opened, {".png": "PNG", ".jpg": "JPEG"}[suffix])
    return opened.getvalue()


def write_image(path: Path, size: tuple[int, int], grey: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(path.suffix, size, grey))


def assert_same_cameras(found: Rig, wanted: Rig, atol: float = 1e-6) -> None:
    assert found.names == wanted.names
    for a, b in zip(found.cameras, wanted.cameras, strict=True):
        assert (a.width, a.height, a.model, a.distortion.size) == (b.width, b.height, "pinhole", 0)
        np.testing.assert_allclose(a.matrix, b.matrix, rtol=1e-6)
        np.testing.assert_allclose(a.rotation, b.rotation, atol=atol)
        np.testing.assert_allclose(a.translation, b.translation, atol=atol)


class Hostile:
    """A pickle of this writes a file when it is run."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.write_text, (self.marker, "run")
