"""Small made-up truths, results and rigs for the tests of what comes after the reconstruction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from usthand.capture.capture import Capture, open_capture
from usthand.capture.rig import Camera, Rig, save_rig
from usthand.capture.video import write_video
from usthand.evaluation.truth import Truth
from usthand.hand.result import Result
from usthand.hand.skeleton import BONES, FINGER_TIPS
from usthand.labels.labels import Labels
from usthand.output.draw import draw_disc

T = 12


def make_truth(rng: np.random.Generator, time: int = T) -> Truth:
    joints = rng.normal(size=(1, 21, 3)) * 0.05 + np.cumsum(rng.normal(size=(time, 1, 3)), axis=0) * 0.005
    vertices = joints[:, rng.integers(0, 21, 778)] + rng.normal(size=(778, 3)) * 0.01
    seen = np.ones((time, 2, 21), bool)
    return Truth(joints, vertices, seen, np.zeros((time, 48)), np.zeros(10), np.zeros((time, 3)))


def result_of(truth: Truth, joints=None, vertices=None, **changes) -> Result:
    time = len(truth.joints_world_m)
    made = Result(
        joints_world_m=truth.joints_world_m if joints is None else joints,
        joints_cov_m2=np.tile(np.eye(3) * 1e-6, (time, 21, 1, 1)),
        vertices_world_m=truth.vertices_world_m if vertices is None else vertices,
        pose=truth.pose,
        shape=truth.shape,
        translation_m=truth.translation_m,
        side="right",
        frame=np.arange(time),
        valid=np.ones(time, bool),
        joint_valid=np.ones((time, 21), bool),
        unit_source="metres from the calibration",
        metric=True,
        method="test",
        joint_model="rigid",
        cameras=("a", "b"),
    )
    return replace(made, **changes)


def make_rig() -> Rig:
    cameras = []
    for name, angle in (("a", 0.0), ("b", 1.2), ("c", 2.4)):
        rotation = Rotation.from_euler("y", angle).as_matrix()
        matrix = np.array([[600.0, 0, 320], [0, 610.0, 240], [0, 0, 1]])
        distortion = np.array([0.1, -0.05, 0.001, -0.002, 0.01])
        cameras.append(Camera(name, 640, 480, matrix, distortion, "pinhole", rotation, np.array([0.0, 0.0, 0.8])))
    return Rig(tuple(cameras))


def exact_labels(truth: Truth, rig: Rig, side: str = "right") -> Labels:
    views = [
        cv2.projectPoints(
            truth.joints_world_m.reshape(-1, 3), cv2.Rodrigues(c.rotation)[0], c.translation, c.matrix, c.distortion
        )[0].reshape(-1, 21, 2)
        for c in rig.cameras
    ]
    uv = np.stack(views, axis=1)
    return Labels(uv, np.ones(uv.shape[:3]), rig.names, side, "exact")


def moving_hand(time: int = T, size_m: float = 0.17) -> Truth:
    """A flat, open hand of tubes that turns and moves slowly near the origin; every bone is a tube of 16 vertices."""
    rest = np.zeros((21, 3))
    for finger, (angle, reach) in enumerate(((0.9, 0.5), (0.25, 0.85), (0.0, 0.9), (-0.22, 0.85), (-0.45, 0.75))):
        along = np.array([np.sin(angle), -np.cos(angle), 0.0])
        for step, share in enumerate((0.5, 0.7, 0.85, 1.0)):
            rest[1 + 4 * finger + step] = along * size_m * reach * share
    phase = np.linspace(0.0, 1.2, time)
    turn = Rotation.from_euler("yxz", np.c_[0.8 * np.sin(2 * phase), 0.5 * phase, 0.4 * phase]).as_matrix()
    shift = 0.02 * np.c_[np.sin(3 * phase), np.cos(2 * phase), phase]
    vertices = np.concatenate([_tube(rest[p], rest[c]) for p, c in BONES])
    joints, vertices = ((x @ turn.swapaxes(-1, -2)) + shift[:, None] for x in (rest, vertices))
    seen = np.ones((time, 3, 21), bool)
    return Truth(joints, vertices, seen, np.zeros((time, 48)), np.zeros(10), np.zeros((time, 3)))


def tube_faces() -> np.ndarray:
    """Triangles of `moving_hand`."""
    ring = np.arange(8)
    after = (ring + 1) % 8
    one = np.concatenate([np.c_[ring, after, ring + 8], np.c_[after, after + 8, ring + 8]])
    return np.concatenate([one + 16 * bone for bone in range(len(BONES))])


def _tube(a: np.ndarray, b: np.ndarray, radius_m: float = 0.009) -> np.ndarray:
    across = np.cross(b - a, [0.3, 0.1, 1.0])
    across /= np.linalg.norm(across)
    other = np.cross(b - a, across)
    other /= np.linalg.norm(other)
    angle = np.arange(8)[:, None] * np.pi / 4
    ring = radius_m * (np.cos(angle) * across + np.sin(angle) * other)
    return np.concatenate([a + ring, b + ring])


def make_capture(folder: Path, truth: Truth, rig: Rig, fps: float = 30.0) -> Capture:
    """A capture folder with plain grey footage, on which each fingertip is a white disc of 3 px."""
    save_rig(rig, folder / "rig.toml")
    labels = exact_labels(truth, rig)
    for view, camera in enumerate(rig.cameras):
        frames = []
        for t in range(len(truth.joints_world_m)):
            image = np.full((camera.height, camera.width, 3), 70.0, np.float32)
            for tip in FINGER_TIPS:
                draw_disc(image, labels.uv_px[t, view, tip], 3.0, (255, 255, 255))
            frames.append(image.astype(np.uint8))
        write_video(folder / f"{camera.name}.mp4", frames, fps)
    return open_capture(folder)
