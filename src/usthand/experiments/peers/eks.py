"""EKS's files: a table of DeepLabCut's kind for each camera, Anipose's calibration, and joints with their variances.

It wants a point in every camera and frame, as networks give one. A missing label becomes the line between its
neighbours in time, with the least likelihood that the program tells from zero (a variance of 10^5 px^2).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from usthand.experiments.peers.exchange import CALIBRATION, Given, Placed, placed_joints, write_anipose_calibration
from usthand.geometry.robust_triangulation import interpolate_gaps
from usthand.hand.result import MM_PER_M
from usthand.hand.skeleton import JOINTS

LEAST_LIKELIHOOD = 1e-5
INPUTS, OUTPUTS, OUTPUT = "inputs", "outputs", "multicam_3d_results.csv"
_SCORER = "usthand"


def settings(fps: float) -> dict[str, bool]:
    """Nothing: the program as it comes."""
    return {}


def settings_inflated(fps: float) -> dict[str, bool]:
    """Its own remedy where views disagree: their variances are multiplied until they no longer do."""
    return {"inflate_vars": True}


def write(data: Given, folder: Path) -> None:
    """Cameras, and a table for each."""
    write_anipose_calibration(data.rig, folder / CALIBRATION)
    (folder / INPUTS).mkdir()
    header = [
        ["scorer", *([_SCORER] * 63)],
        ["bodyparts", *(name for name in JOINTS for _ in range(3))],
        ["coords", *(["x", "y", "likelihood"] * 21)],
    ]
    labels = data.labels
    for view, name in enumerate(data.rig.names):
        known = torch.from_numpy(labels.mask[:, view])
        flat = np.pad(labels.uv_px[:, view].astype(np.float64), ((0, 0), (0, 0), (0, 1)))
        points = interpolate_gaps(torch.from_numpy(flat), known).numpy()
        points[..., 2] = np.maximum(labels.confidence[:, view].astype(np.float64), LEAST_LIKELIHOOD)
        with (folder / INPUTS / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerows(header)
            table.writerows([frame, *row] for frame, row in enumerate(points.reshape(len(points), -1).tolist()))


def read(data: Given, folder: Path) -> Placed:
    """Joints and the diagonals of their covariances, which is what its file holds."""
    with (folder / OUTPUTS / OUTPUT).open(newline="") as file:
        rows = list(csv.reader(file))
    columns = {key: index for index, key in enumerate(zip(rows[1], rows[2], strict=True))}
    numbers = np.array([[float(value or "nan") for value in row] for row in rows[3:]])
    joints = _columns(numbers, columns, ("x", "y", "z")) / MM_PER_M
    variance = _columns(numbers, columns, ("x_posterior_var", "y_posterior_var", "z_posterior_var")) / MM_PER_M**2
    return placed_joints(joints, np.nan_to_num(variance)[..., None] * np.eye(3))


def _columns(
    numbers: Float[np.ndarray, "T columns"], columns: dict[tuple[str, str], int], names: tuple[str, ...]
) -> Float[np.ndarray, "T 21 names"]:
    return np.stack([numbers[:, [columns[joint, name] for name in names]] for joint in JOINTS], 1)
