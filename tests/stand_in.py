"""Small made-up truths, results and rigs for the tests of what comes after the reconstruction."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from usthand.capture import Truth
from usthand.labels import Labels
from usthand.result import Result
from usthand.rig import Camera, Rig

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
        pose=truth.pose, shape=truth.shape, translation_m=truth.translation_m,
        side="right", frame=np.arange(time), valid=np.ones(time, bool), joint_valid=np.ones((time, 21), bool),
        scale="metres from the calibration", metric=True, method="test", cameras=("a", "b"),
    )  # fmt: skip
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
        cv2.projectPoints(truth.joints_world_m.reshape(-1, 3), cv2.Rodrigues(c.rotation)[0], c.translation, c.matrix,
                          c.distortion)[0].reshape(T, 21, 2)
        for c in rig.cameras
    ]  # fmt: skip
    return Labels(np.stack(views, axis=1), np.ones((T, len(rig), 21)), rig.names, side, "exact")
