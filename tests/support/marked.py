"""A hand whose fingertips are marked: exact positions by OpenCV, and the files that markers write."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch

from support.fit_scene import Scene
from usthand.capture.rig import Camera, Rig
from usthand.evaluation.marks import COLUMNS, FINGER_NAMES, Mark
from usthand.hand.fingertips import cap_centres
from usthand.hand.io import load_hand
from usthand.hand.result import Result


def seen_by(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's pixels (n, 2) of a pinhole camera, and their derivative by the points, (n, 2, 3)."""
    turn = cv2.Rodrigues(camera.rotation)[0]
    uv, jacobian = cv2.projectPoints(
        points.reshape(-1, 1, 3), turn, camera.translation, camera.matrix, camera.distortion
    )
    return uv[:, 0], jacobian[:, 3:6].reshape(-1, 2, 3) @ camera.rotation


def result_of_scene(scene: Scene, **changes) -> Result:
    """The scene's true hand, as a result that is certain of it."""
    time = len(scene.joints)
    known = dict(
        joints_world_m=scene.joints,
        joints_cov_m2=np.zeros((time, 21, 3, 3)),
        vertices_world_m=scene.vertices,
        pose=scene.hand.pose(scene.state),
        shape=scene.state.shape,
        translation_m=scene.hand.translation_m(scene.state),
        side="right",
        frame=np.arange(time),
        valid=np.ones(time, bool),
        joint_valid=np.ones((time, 21), bool),
        unit_source="metres from the calibration",
        metric=True,
        method="test",
        joint_model="rigid",
        cameras=scene.rig.names,
    )
    return Result(**(known | changes))


def true_caps(scene: Scene) -> np.ndarray:
    """Where the caps of the scene's hand have their centres, (T, 5, 3) m."""
    person = load_hand(dtype=torch.float64).with_shape(torch.from_numpy(scene.state.shape))
    return cap_centres(person, scene.vertices)


def marks_of(
    rig: Rig, caps: np.ndarray, marker: str = "A", noise_px: float = 0.0, seed: int = 0, side: str = "right"
) -> list[Mark]:
    """Every cap in every camera, with noise of this standard deviation on each axis."""
    rng, marks = np.random.default_rng(seed), []
    for camera in rig.cameras:
        uv = seen_by(camera, caps.reshape(-1, 3))[0].reshape(*caps.shape[:2], 2)
        uv += rng.normal(size=uv.shape) * noise_px
        marks += [
            Mark(frame, camera.name, side, finger, marker, *uv[frame, index].tolist())
            for frame in range(len(caps))
            for index, finger in enumerate(FINGER_NAMES)
        ]
    return marks


def write_marks(path: Path, marks: Iterable[Mark], delimiter: str = ",") -> Path:
    """A file as markers write it, in full precision."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter=delimiter)
        table.writerow(COLUMNS)
        table.writerows([getattr(mark, column) for column in COLUMNS] for mark in marks)
    return path
