"""aniposelib's inputs: its calibration file, and an array of points with NaN where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from usthand.experiments.peers.exchange import (
    CALIBRATION,
    Given,
    Placed,
    placed_joints,
    points_px,
    write_anipose_calibration,
)
from usthand.hand.result import MM_PER_M
from usthand.hand.skeleton import BONES

POINTS, JOINTS_3D = "points.npy", "joints.npy"
OF_THE_PROGRAM = {
    "scale_smooth": 2,
    "scale_length": 2,
    "scale_length_weak": 1,
    "reproj_error_threshold": 5,
    "n_deriv_smooth": 3,
}
"""What the program Anipose sets where its user sets nothing (`anipose.DEFAULT_CONFIG`)."""


def write(data: Given, folder: Path) -> None:
    """Cameras and points."""
    write_anipose_calibration(data.rig, folder / CALIBRATION)
    np.save(folder / POINTS, points_px(data.labels))


def read(data: Given, folder: Path) -> Placed:
    """The joints that the worker has kept: aniposelib returns an array and writes no file."""
    return placed_joints(np.load(folder / JOINTS_3D) / MM_PER_M)


def ransac(fps: float) -> dict[str, object]:
    """Triangulation alone, of the best set of cameras."""
    return {"cameras_of": "ransac"}


def optimised(fps: float) -> dict[str, object]:
    """Its optimisation as the library sets it, all bones of constant length."""
    return {"options": {"constraints": [list(bone) for bone in BONES]}}


def optimised_as_the_program(fps: float) -> dict[str, object]:
    """The same as the program Anipose sets it."""
    return {"options": {"constraints": [list(bone) for bone in BONES], **OF_THE_PROGRAM}}
