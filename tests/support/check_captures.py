"""Captures for the tests of `check`, without images: rig, motion, and labels as a detector would give them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from usthand.capture.rig import Camera, Rig
from usthand.datasets.synthetic.motion import sample_motion
from usthand.datasets.synthetic.noise import noisy_labels
from usthand.datasets.synthetic.scene import sample_rig
from usthand.datasets.synthetic.write import pose_hand, project
from usthand.hand.io import load_hand
from usthand.labels.labels import Labels

DEPTH_M = 0.012  # half a finger's thickness: a joint behind another one by more than this is hidden by it


@dataclass(frozen=True)
class Made:
    rig: Rig
    labels: tuple[Labels, ...]
    fps: float


@cache
def hand():
    return load_hand(side="right", dtype=torch.float64)


def hidden_joints(rig: Rig, joints: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(T, V, 21): another joint lies in front, within a finger's width in the image."""
    depth = np.stack([joints @ c.rotation[2] + c.translation[2] for c in rig.cameras], axis=1)
    focal = np.array([c.matrix[0, 0] for c in rig.cameras])[None, :, None, None]
    width = DEPTH_M * focal / np.maximum(depth[..., None], 0.05)
    near = np.linalg.norm(uv[:, :, :, None] - uv[:, :, None], axis=-1) < width
    return (near & (depth[:, :, None] < depth[..., None] - DEPTH_M)).any(-1)


def make(
    seed: int,
    views: int = 4,
    level: str = "heavy",
    frames: int = 150,
    layout: str = "dome",
    sides: tuple[str, ...] = ("right",),
    fps: float = 30.0,
    rig: Rig | None = None,
    roam_m: float = 0.0,
    timing: dict[int, tuple[float, float]] | None = None,
    size: int = 256,
) -> Made:
    """`timing`: view -> (offset, drift): its video's frame k + offset + drift k is the instant k of the others.
    `roam_m`: the hand wanders this much further, to all parts of the images."""
    rng = np.random.default_rng(seed)
    rig = sample_rig(rng, views, layout, size) if rig is None else rig
    extra = 0 if timing is None else int(np.ceil(max(abs(o) + abs(d) * frames for o, d in timing.values()))) + 2
    labels = []
    for number, side in enumerate(sides):
        joints, _ = _motion(seed + 1000 * number, frames + 2 * extra, fps)
        away = np.array([0.12, 0.0, 0.0]) * number
        time = np.arange(len(joints)) / fps
        phase, speed = rng.uniform(0, 6, 3), np.array([0.31, 0.37, 0.23]) * 2 * np.pi
        joints = joints + away + roam_m * np.sin(time[:, None] * speed + phase)[:, None]
        shown = rig.mirrored() if side == "left" else rig
        per_view = []
        for v in range(len(rig)):
            offset, drift = (timing or {}).get(v, (0.0, 0.0))
            # Frame f of this video is the instant k with f = k + offset + drift k.
            instant = (np.arange(frames) - offset) / (1 + drift) + extra
            per_view.append(_at(joints, instant))
        uv, inside, hidden = zip(*(_seen(shown, p, v) for v, p in enumerate(per_view)), strict=True)
        uv, inside, hidden = (np.concatenate(x, axis=1) for x in (uv, inside, hidden))
        made = noisy_labels(uv, ~hidden, inside, rng, level, rig.names)["right"]
        made = replace(made, confidence=np.where(inside, made.confidence, 0))
        labels.append(made if side == "right" else made.mirrored([c.width for c in shown.cameras]))
    return Made(rig, tuple(labels), fps)


@cache
def _motion(seed: int, frames: int, fps: float):
    return pose_hand(hand(), sample_motion(hand(), frames, fps, np.random.default_rng(seed)))[::-1]


def _at(joints: np.ndarray, instant: np.ndarray) -> np.ndarray:
    """Joints between frames, by cubic interpolation."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.arange(len(joints)), joints)(instant)


def _seen(rig: Rig, joints: np.ndarray, v: int):
    one = Rig((rig.cameras[v],))
    uv, inside = project(one, joints)
    return uv, inside, hidden_joints(one, joints, uv)


def wide_rig(seed: int, views: int = 4, lens: str = "fisheye") -> Rig:
    """Wide lenses, 640 x 480, the hand anywhere in the image."""
    base = sample_rig(np.random.default_rng(seed), views, "dome", 256)
    f = {"fisheye": 230.0, "barrel": 300.0, "pinhole": 300.0}[lens]
    k = {"fisheye": [0.05, -0.02, 0.004, -0.001], "barrel": [-0.28, 0.09, 5e-4, -5e-4, -0.012], "pinhole": []}[lens]
    matrix = np.array([[f, 0, 322.0], [0, f * 1.003, 236.0], [0, 0, 1]])
    model = "fisheye" if lens == "fisheye" else "pinhole"
    return Rig(
        tuple(
            Camera(c.name, 640, 480, matrix, np.array(k, float), model, c.rotation, c.translation) for c in base.cameras
        )
    )
