"""OpenPose's JSON, one file a frame: people[i].hand_{left,right}_keypoints_2d, 63 numbers (x, y, c), (0, 0, 0) missing.

Written by `openpose --hand --write_json FOLDER/<camera>` (doc/02_output.md of OpenPose). Pose2Sim writes the same files with
all 133 points of COCO-WholeBody in `pose_keypoints_2d`; those are read too. Pixel centres are at integers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from usthand.capture.rig import Camera
from usthand.common.errors import UsthandError
from usthand.labels.formats.base import View, frame_number, gather, hand, read_json, triples, unreadable
from usthand.labels.formats.wholebody import N_WHOLEBODY, wholebody_hands
from usthand.labels.labels import Labels

ENDINGS = ("_keypoints.json",)
WHAT = "OpenPose's JSON"


def looks_like(data: Any) -> bool:
    """Whether a file's content is of this format."""
    return isinstance(data, dict) and "people" in data


def read(path: Path, camera: Camera, frame: int | None = None) -> View:
    """Both hands of all people in one frame. Raises `UsthandError` for another layout, and for normalised coordinates."""
    people = _people(path)
    found = []
    for person in people:
        hands = []
        for side in ("right", "left"):
            key = f"hand_{side}_keypoints_2d"
            values = triples(person.get(key), path, key)
            if values is not None:
                _check_pixels(values, path)
                hands.append(hand(values[:, :2], values[:, 2], side, where=path))
        body = person.get("pose_keypoints_2d") or []
        if not hands and len(body) == 3 * N_WHOLEBODY:
            points = triples(body, path, "pose_keypoints_2d", N_WHOLEBODY)
            _check_pixels(points, path)
            hands = wholebody_hands(points[:, :2], points[:, 2], path)
        found += hands
    return {frame_number(path) if frame is None else frame: gather(found)}


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
    if not looks_like(data) or not isinstance(data["people"], list):
        raise unreadable(path, WHAT)
    return data["people"]


def _check_pixels(values: np.ndarray, path: Path) -> None:
    known = values[values[:, 2] > 0, :2]
    if len(known) and np.abs(known).max() <= 1.5:
        raise UsthandError(
            f"{path} has coordinates between {known.min():.2f} and {known.max():.2f}",
            "they are normalised, not pixels",
            "run OpenPose again with --keypoint_scale 0",
        )
