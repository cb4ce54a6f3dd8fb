"""Exact labels of a slowly moving hand, made by OpenCV, for programs that triangulate."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from support.fit_scene import dome, labels_of, make_scene
from usthand.capture.rig import Camera, Rig
from usthand.labels.labels import Labels


def swaying_hand(frames: int = 24, reach_m: float = 0.004) -> np.ndarray:
    """One pose that sways once, to and fro, and turns a little: (T, 21, 3), metres; 1 mm a frame at most."""
    pose = make_scene(n_frames=2).joints[0]
    away = reach_m * np.sin(2 * np.pi * np.arange(frames) / frames)[:, None]
    turn = Rotation.from_rotvec(away * np.array([[0.0, 2.0, 1.0]])).as_matrix()
    return np.einsum("tij,kj->tki", turn, pose) + (away * np.array([[0.6, -0.48, 0.64]]))[:, None]


def project(camera: Camera, points_m: np.ndarray) -> np.ndarray:
    """By OpenCV, px."""
    vector = cv2.Rodrigues(camera.rotation)[0]
    flat = np.ascontiguousarray(points_m.reshape(-1, 1, 3))
    seen = cv2.projectPoints(flat, vector, camera.translation, camera.matrix, camera.distortion)[0]
    return seen.reshape(*points_m.shape[:-1], 2)


def exact_labels(rig: Rig, joints_m: np.ndarray, side: str = "right") -> Labels:
    """All joints in all views, confidence 1."""
    return labels_of(rig, np.stack([project(camera, joints_m) for camera in rig.cameras], 1), side=side)


def four_cameras() -> Rig:
    """All round the hand, with lenses of OpenCV's five coefficients that move its joints by half a pixel."""
    lens = np.array([-1.0, 0.3, 0.01, -0.01, 0.1])
    rig = dome(4)
    return replace(rig, cameras=tuple(replace(camera, distortion=lens) for camera in rig.cameras))
