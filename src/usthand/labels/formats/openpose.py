"""OpenPose's JSON, one file a frame: people[i].hand_{left,right}_keypoints_2d, 63 numbers (x, y, c), (0, 0, 0) missing.

Written by `openpose --hand --write_json FOLDER/<camera>` (doc/02_output.md of OpenPose). Pose2Sim writes the same files
with all 133 points of COCO-WholeBody in `pose_keypoints_2d`, which are read too. Pixel centres are at integers.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from usthand.capture.rig import Camera
from usthand.common.errors import UsthandError
from usthand.hand.skeleton import N_JOINTS, SIDES
from usthand.labels.formats.base import Json, View, frame_number, hand, read_json, triples, unreadable
from usthand.labels.formats.wholebody import N_WHOLEBODY, wholebody_hands
from usthand.labels.labels import Labels

ENDINGS = ("_keypoints.json",)
WHAT = "OpenPose's JSON"
BODY = "pose_keypoints_2d"


def looks_like(data: Json) -> bool:
    """Whether a file's content is of this format."""
    return isinstance(data, dict) and "people" in data


def read(path: Path, camera: Camera, frame: int | None = None) -> View:
    """Both hands of all people in one frame."""
    found = []
    for person in _people(path):
        hands = {side: _points(person, f"hand_{side}_keypoints_2d", path) for side in SIDES}
        for side, points in hands.items():
            found += [] if points is None else hand(points[:, :2], points[:, 2], side, where=path)
        if all(points is None for points in hands.values()) and len(person.get(BODY) or []) == 3 * N_WHOLEBODY:
            found += wholebody_hands(_points(person, BODY, path, N_WHOLEBODY), path)
    return {frame_number(path, frame): found}


def write_openpose_json(labels: Labels, folder: Path | str) -> None:
    """Write <folder>/<camera>/<frame:06d>_keypoints.json, OpenPose's layout of `people[0].hand_<side>_keypoints_2d`.

    Files of the other hand that are already there keep it: both hands go to one folder by two calls.
    """
    key = f"hand_{labels.side}_keypoints_2d"
    for view, camera in enumerate(labels.cameras):
        (Path(folder) / camera).mkdir(parents=True, exist_ok=True)
        for frame in range(labels.n_frames):
            path = Path(folder) / camera / f"{frame:06d}_keypoints.json"
            person = {"hand_left_keypoints_2d": [0.0] * 63, "hand_right_keypoints_2d": [0.0] * 63}
            if path.is_file():
                person.update(next(iter(_people(path)), {}))
            values = np.concatenate([labels.uv_px[frame, view], labels.confidence[frame, view, :, None]], axis=-1)
            person[key] = [float(value) for value in values.reshape(-1)]
            path.write_text(json.dumps({"version": 1.3, "people": [person]}))


def _people(path: Path) -> list[dict]:
    data = read_json(path)
    people = data.get("people") if isinstance(data, dict) else None
    if not isinstance(people, list):
        raise unreadable(path, WHAT)
    return people


def _points(person: dict, key: str, path: Path, count: int = N_JOINTS) -> Float[np.ndarray, "N 3"] | None:
    """(x, y, confidence) in pixels; None where the list is empty."""
    values = triples(person.get(key), path, key, count)
    known = np.zeros(0) if values is None else values[values[:, 2] > 0, :2]
    if len(known) and np.abs(known).max() <= 1.5:
        raise UsthandError(
            f"{path} has coordinates between {known.min():.2f} and {known.max():.2f}",
            "they are normalised, not pixels",
            "run OpenPose again with --keypoint_scale 0",
        )
    return values
