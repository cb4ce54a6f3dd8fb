"""Pose2Sim's project folder: OpenPose's JSON, a calibration in metres, and joints from its .trc files.

Its .trc files have axes of their own: y, z and x of the calibration, in this order. They may begin late and end early.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from usthand.common.files import write_toml
from usthand.experiments.peers.exchange import FEW_COEFFICIENTS, Given, Placed, placed_joints
from usthand.geometry.rotations import rotation_vector

CUTOFF_HZ = 6
"""Of its Butterworth filter, as the program comes."""
HAND_ERROR_PX = 6
"""The program's own 15 px, above which a camera is dropped, are of whole bodies; a hand 100 px long is lost in them."""
HEADER_LINES = 5
# Columns of a .trc are y, z, x: this brings them back.
_TO_XYZ = (2, 0, 1)


def settings_for_hands(fps: float) -> dict[str, dict]:
    """The same, with a reprojection error that fits hands."""
    changed = settings(fps)
    limit = {"reproj_error_threshold_triangulation": HAND_ERROR_PX}
    return changed | {"triangulation": changed["triangulation"] | limit}


def settings(fps: float) -> dict[str, dict]:
    """The program's own but for the skeleton, the pictures, and a cut-off below half the frame rate, or it stops."""
    cutoff = max(1, min(CUTOFF_HZ, int(np.ceil(fps / 2)) - 1))
    return {
        "project": {"frame_rate": round(fps)},
        "pose": {"pose_model": "Hand"},
        "triangulation": {"make_c3d": False},
        "filtering": {
            "butterworth": {"cut_off_frequency": cutoff},
            "display_figures": False,
            "save_filt_plots": False,
            "make_c3d": False,
        },
    }


def write(data: Given, folder: Path) -> None:
    """Its project folder."""
    (folder / "calibration").mkdir()
    tables = {
        camera.name: {
            "name": camera.name,
            "size": [float(length) for length in camera.size],
            "matrix": camera.matrix.tolist(),
            "distortions": camera.distortion.tolist()[: FEW_COEFFICIENTS - 1],
            "rotation": rotation_vector(camera.rotation).tolist(),
            "translation": camera.translation.tolist(),
            "fisheye": False,
        }
        for camera in data.rig.cameras
    }
    write_toml(folder / "calibration" / "Calib.toml", tables | {"metadata": {"adjusted": False, "error": 0.0}})
    labels = np.concatenate((data.labels.uv_px, data.labels.confidence[..., None]), -1).astype(np.float64)
    for view, name in enumerate(data.rig.names):
        place = folder / "pose" / f"{name}_json"
        place.mkdir(parents=True)
        for frame, hand in enumerate(labels[:, view]):
            people = [{"person_id": [-1], "pose_keypoints_2d": hand.reshape(-1).tolist()}] if hand[:, 2].any() else []
            (place / f"{name}_{frame:06d}.json").write_text(json.dumps({"version": 1.3, "people": people}))


def read(data: Given, folder: Path) -> Placed:
    """Its filtered joints; zeros are what it could not place."""
    path = next((folder / "pose-3d").glob("*_filt_*.trc"))
    names = path.read_text().splitlines()[3].split("\t")[2::3]
    rows = np.genfromtxt(path, delimiter="\t", skip_header=HEADER_LINES)
    frame = rows[:, 0].astype(int)
    found = rows[:, 2 : 2 + 3 * 21].reshape(len(frame), 21, 3)[..., _TO_XYZ]
    joints = np.full((data.labels.n_frames, 21, 3), np.nan)
    joints[frame] = np.where((found == 0).all(-1, keepdims=True), np.nan, found)[:, _order(names)]
    return placed_joints(joints)


def _order(names: list[str]) -> list[int]:
    """Where each of our joints stands: the wrist and five fingers of four, in our order or another."""
    ours = ["RWrist", *(f"R{f}{n}" for f in ("Thumb", "Index", "Middle", "Ring", "Pinky") for n in range(1, 5))]
    found = [name.strip() for name in names if name.strip()]
    return [found.index(name) for name in ours]
