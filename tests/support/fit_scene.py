"""A hand that moves smoothly in front of cameras, with its exact labels: the problem that the tests of the fit pose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from usthand.capture.rig import Camera, Rig
from usthand.fit.kinematics import Articulation, HandState, articulation
from usthand.geometry.cameras import project
from usthand.geometry.rotations import rotation_matrix
from usthand.hand.io import load_hand
from usthand.labels.labels import Labels

SIZE_PX = 256
HAND_PX, HAND_M, DISTANCE_M = 110, 0.18, 0.6


@dataclass(frozen=True)
class Scene:
    hand: Articulation
    rig: Rig
    state: HandState
    joints: np.ndarray  # (T, 21, 3)
    vertices: np.ndarray  # (T, 778, 3)
    labels: Labels


def dome(n_views: int) -> Rig:
    focal = HAND_PX / HAND_M * DISTANCE_M
    matrix = np.array([[focal, 0, SIZE_PX / 2], [0, focal, SIZE_PX / 2], [0, 0, 1]])
    cameras = []
    for view in range(n_views):
        around, up = 2 * np.pi * view / n_views + 0.3, 0.5 + 0.3 * (view % 2)
        centre = DISTANCE_M * np.array([np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)])
        forward = -centre / DISTANCE_M
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(forward, right), forward])
        lens = np.array([-0.1, 0.03, 1e-3, -1e-3, 0.0])
        cameras.append(Camera(f"cam_{view}", SIZE_PX, SIZE_PX, matrix, lens, "pinhole", turn, -turn @ centre))
    return Rig(tuple(cameras))


def make_scene(seed: int = 0, n_frames: int = 20, n_views: int = 4) -> Scene:
    rng = np.random.default_rng(seed)
    model = load_hand(dtype=torch.float64)
    hand = articulation(model)
    phase = np.linspace(0, 0.15 * n_frames, n_frames)[:, None]
    middle, reach = 0.6 * hand.low + 0.4 * hand.high, 0.25 * (hand.high - hand.low)
    angles = middle + reach * np.sin(phase + rng.uniform(0, 6, len(middle)))
    turn = rotation_matrix(0.4 * np.sin(phase + rng.uniform(0, 6, 3))) @ rotation_matrix(rng.normal(size=(1, 3)))
    state = HandState(
        turn, 0.02 * np.sin(phase + rng.uniform(0, 6, 3)), angles, np.clip(rng.normal(size=10), -1.5, 1.5)
    )
    state.wrist_m = state.wrist_m - hand.joints(state).mean((0, 1))
    joints = hand.joints(state)
    rotations = model.rotations(torch.from_numpy(hand.pose(state)), flat_hand_mean=True)
    shaped = model.with_shape(torch.from_numpy(state.shape))
    vertices = shaped.with_pose(rotations, torch.from_numpy(hand.translation_m(state))).vertices.numpy()
    rig = dome(n_views)
    uv = project(rig.tensors(torch.float64), torch.from_numpy(joints))[0].numpy()
    return Scene(hand, rig, state, joints, vertices, labels_of(rig, uv))


def labels_of(rig: Rig, uv: np.ndarray, seen: np.ndarray | None = None, side: str = "right") -> Labels:
    confidence = np.ones(uv.shape[:3], np.float32) if seen is None else seen.astype(np.float32)
    return Labels(uv.astype(np.float32), confidence, rig.names, side, "synthetic-exact")


def error_mm(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return 1000 * np.linalg.norm(one - other, axis=-1)


def rig_in_unit(rig: Rig, unit_m: float) -> Rig:
    """The rig in a unit of its own, of this length, as a calibration without scale gives it."""
    cameras = tuple(replace(camera, translation=camera.translation / unit_m) for camera in rig.cameras)
    return replace(rig, metric=False, unit_source="boards", cameras=cameras)
