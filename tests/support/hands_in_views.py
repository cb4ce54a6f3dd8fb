"""Moving hands seen exactly by a ring of cameras."""

from __future__ import annotations

import numpy as np
import torch

from usthand.capture.rig import Camera, Rig
from usthand.geometry.cameras import project
from usthand.labels.labels import Detection

N_FRAMES = 12


def right_hand() -> np.ndarray:
    """A half-curled right hand, (21, 3) metres: fingers along y, palm facing z, thumb at positive x."""
    joints = [np.zeros(3)]
    for x, length, lean in (
        (0.03, 0.6, 0.9),
        (0.025, 1.0, 0.2),
        (0.005, 1.05, 0.0),
        (-0.015, 1.0, -0.1),
        (-0.03, 0.8, -0.2),
    ):
        base = np.array([x, 0.03 if lean > 0.5 else 0.09, 0.005])
        steps = np.array([0.0, 0.04, 0.065, 0.085]) * length
        bend = np.array([0.0, 0.2, 0.5, 0.8])
        joints += [base + s * np.array([lean, np.cos(b), np.sin(b)]) for s, b in zip(steps, bend, strict=True)]
    return np.array(joints)


def ring_rig(n_cameras: int = 4) -> Rig:
    """Cameras on an arc of radius 0.8 m that look at the origin."""
    cameras = []
    for k in range(n_cameras):
        angle = (k / max(n_cameras - 1, 1) - 0.5) * 2.0
        centre = 0.8 * np.array([np.sin(angle), 0.3 * np.cos(3 * angle), np.cos(angle)])
        z = -centre / np.linalg.norm(centre)
        x = np.cross([0, -1.0, 0], z)
        x /= np.linalg.norm(x)
        rotation = np.stack([x, np.cross(z, x), z])
        matrix = np.array([[900.0, 0, 640], [0, 900, 360], [0, 0, 1]])
        lens = np.array([0.1, -0.05, 0.001, 0.001, 0.0])
        cameras.append(Camera(f"c{k}", 1280, 720, matrix, lens, "pinhole", rotation, -rotation @ centre))
    return Rig(tuple(cameras))


def moving_hands(n_frames: int = N_FRAMES) -> dict[str, np.ndarray]:
    """Both hands turning and drifting, (T, 21, 3) each, about 20 cm apart."""
    t = np.linspace(0, 1, n_frames)
    hands = {}
    for side, sign in (("right", 1.0), ("left", -1.0)):
        joints = right_hand() * [sign, 1, 1]
        turn = sign * 0.8 * np.sin(2 * np.pi * t)
        c, s, o, i = np.cos(turn), np.sin(turn), np.zeros_like(turn), np.ones_like(turn)
        rotation = np.stack([np.stack([c, o, s], -1), np.stack([o, i, o], -1), np.stack([-s, o, c], -1)], -2)
        place = np.stack([-sign * 0.10 + 0.03 * t, -0.05 + 0.04 * np.sin(5 * t), 0.02 * t], -1)
        hands[side] = np.einsum("tij,kj->tki", rotation, joints) + place[:, None]
    return hands


def exact_uv(rig: Rig, joints: np.ndarray) -> np.ndarray:
    return project(rig.tensors(torch.float64), torch.from_numpy(joints))[0].numpy()


def detect(uv: np.ndarray, side: str, score: float = 0.9) -> Detection:
    return Detection(uv, np.full(21, 0.8), side, score)


def people(n_frames: int = N_FRAMES, places=((-0.16, 0.0), (0.16, 0.1))) -> dict[str, np.ndarray]:
    """Four hands: the two of `moving_hands` at each place (x, z), the second person turned by half a circle."""
    hands = {}
    for k, (x, z) in enumerate(places):
        turn = np.diag([-1.0, 1.0, -1.0]) if k % 2 else np.eye(3)
        for side, joints in moving_hands(n_frames).items():
            hands[f"{side} of {k}"] = joints @ turn.T + [x, 0.0, z]
    return hands
