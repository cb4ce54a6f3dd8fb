"""Hands of HaMeR, WiLoR or a detector of one's own: the 21 joints as projected into the image, per detection.

These programs write no file of 2D joints, so the layout is ours. One npz of N detections, for all cameras or for one:

    uv_px       (N, 21, 2)  pixels of the whole image, in OpenPose's order (as HaMeR's and WiLoR's `pred_keypoints_3d`)
    frame       (N,)        frame number
    is_right    (N,)        1 or 0, the programs' own; or `side` (N,) "right" or "left"
    camera      (N,)        name of the camera; not needed where each camera has a file of its own
    confidence  (N, 21) or (N,), optional
    score       (N,)        probability of the side, 0.5 to 1, optional

or JSON, a list of {"frame", "camera", "is_right" or "side", "uv_px", "confidence", "score"}. A camera's translation and
focal length in these programs are fictitious, but the projection into the image is right: only that is read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from usthand.capture.rig import Camera
from usthand.common.errors import UsthandError
from usthand.labels.formats.base import BODY_SIDE, UNKNOWN_CONFIDENCE, Json, View, hand, read_json, unreadable

ENDINGS = (".npz", ".json")
WHAT = "an npz or JSON of projected hands"
KEYS = ("uv_px", "frame")


def looks_like(data: Json) -> bool:
    """Whether a JSON file's content is of this format."""
    return bool(isinstance(data, list) and data and isinstance(data[0], dict) and set(KEYS) <= set(data[0]))


def read(path: Path, camera: Camera, frame: int | None = None) -> View:
    """The hands of one camera's own file."""
    return _views(path, camera.name).get(camera.name, {})


def read_all(path: Path, cameras: Sequence[str]) -> dict[str, View]:
    """The hands of all cameras from one file.

    Raises:
        UsthandError: If the file has another layout, or a detection's camera is not of the rig.
    """
    views = _views(path, None)
    strangers = sorted(set(views) - set(cameras))
    if strangers:
        raise UsthandError(
            f"{path} has hands of camera {', '.join(strangers)}",
            f"the rig's cameras are {', '.join(cameras)} and the file's are {', '.join(sorted(views))}",
            "write the names of rig.toml",
        )
    return {name: views.get(name, {}) for name in cameras}


def _views(path: Path, camera: str | None) -> dict[str, View]:
    views: dict[str, View] = {}
    for entry in _json_entries(path) if path.suffix == ".json" else _npz_entries(path):
        name = str(entry.get("camera", camera or ""))
        if not name:
            fact = f"{path} does not say which camera saw a hand"
            raise UsthandError(fact, "it has no `camera`", "add it, or write a file per camera")
        confidence = entry.get("confidence")
        confidence = UNKNOWN_CONFIDENCE if confidence is None else confidence
        score = float(np.clip(float(entry.get("score", BODY_SIDE)), 0.5, 1.0))
        found = hand(entry["uv_px"], confidence, _side(entry, path), score, where=path)
        views.setdefault(name, {}).setdefault(int(entry["frame"]), []).extend(found)
    return views


def _json_entries(path: Path) -> list[dict]:
    data = read_json(path)
    if isinstance(data, list) and (not data or looks_like(data)):
        return data
    raise unreadable(path, WHAT)


def _npz_entries(path: Path) -> list[dict]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise unreadable(path, WHAT) from error
    lengths = {len(array) for array in arrays.values() if array.ndim}
    if not set(KEYS) <= set(arrays) or len(lengths) != 1:
        raise unreadable(path, f"{WHAT}: it needs {' and '.join(KEYS)}, all of one length")
    return [{name: array[k] for name, array in arrays.items() if array.ndim} for k in range(lengths.pop())]


def _side(entry: dict, path: Path) -> str:
    if "is_right" in entry:
        return "right" if float(entry["is_right"]) > 0.5 else "left"
    side = str(entry.get("side", "")).lower()
    if side not in ("right", "left"):
        fact = f"{path} has a hand whose side is {side!r}"
        raise UsthandError(fact, "a hand needs is_right or side", "write one of these")
    return side
