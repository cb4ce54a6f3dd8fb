"""MediaPipe's hands as people dump them to JSON: landmarks normalised by width and height, and a handedness.

One file a camera, a list of frames or {"frames": [...]}; or one file a frame. A frame states its number ("frame",
"frame_id", "frame_index", "frame_number") or is the next one. Its hands are in one of MediaPipe's own layouts:

    hand_landmarks (or landmarks) + handedness             HandLandmarker of MediaPipe Tasks, Python or JavaScript
    multi_hand_landmarks + multi_handedness                mp.solutions.hands
    left_hand_landmarks, right_hand_landmarks              Holistic: sides by the arm
    hands: [{landmarks, handedness, score}]                one's own

The handedness is that of a selfie: in a plain image "Left" names a right hand. mp.solutions.hands documents it; newer
versions of Tasks have reversed it, which `usthand import-labels --swap-sides` corrects.

A point is {"x", "y"} or [x, y, ...]. MediaPipe counts from an image's corner: u = x * width - 0.5. Coordinates in
pixels are taken as they are. MediaPipe states no confidence of single joints.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from usthand.capture.rig import Camera
from usthand.common.errors import UsthandError
from usthand.labels.formats.base import (
    BODY_SIDE,
    NO_SIDE,
    UNKNOWN_CONFIDENCE,
    Json,
    View,
    frame_number,
    hand,
    read_json,
    unreadable,
)

ENDINGS = (".json",)
WHAT = "MediaPipe's landmarks"
FRAME_LISTS = ("frames", "results", "data")
FRAME_KEYS = ("frame", "frame_id", "frame_index", "frame_idx", "frame_number")
PAIRS = (
    ("hand_landmarks", "handedness"),
    ("multi_hand_landmarks", "multi_handedness"),
    ("landmarks", "handedness"),
    ("landmarks", "handednesses"),
)
SIDED = {"right_hand_landmarks": "right", "left_hand_landmarks": "left"}
BODY_ONLY = ("pose_landmarks", "face_landmarks")  # a frame of Holistic without hands
OTHER = {"right": "left", "left": "right"}
NAME_KEYS = ("label", "category_name", "categoryName", "display_name", "displayName", "handedness", "hand", "side")
NORMALISED_TO = 2.0
"""Normalised coordinates leave the image by no more than its own size; the median of pixels is larger."""


def looks_like(data: Json) -> bool:
    """Whether a file's content is of this format."""
    frames = _frames(data)
    keys = {"hands", *BODY_ONLY, *SIDED, *(landmarks for landmarks, _ in PAIRS)}
    return any(isinstance(one, dict) and keys & set(one) for _, one in frames[:100])


def read(path: Path, camera: Camera, frame: int | None = None) -> View:
    """All hands of a file, with anatomical sides."""
    data = read_json(path)
    frames = _frames(data)
    if frames and not looks_like(data) and any(one for _, one in frames):
        raise unreadable(path, WHAT)
    single = isinstance(data, dict) and len(frames) == 1 and frames[0][0] is None
    found = []
    for position, (number, content) in enumerate(frames):
        if number is None:
            number = frame_number(path, frame) if single else position
        found += [(int(number), *one) for one in _hands(content or {}, path)]
    view: View = {number: [] for number, *_ in found}
    scale, shift = _to_pixels([points for _, points, _, _ in found], camera)
    for number, points, side, score in found:
        view[number] += hand(points * scale + shift, UNKNOWN_CONFIDENCE, side, score, where=path)
    return view


def _frames(data: Json) -> list[tuple[int | float | str | None, Json]]:
    """(number or None, content) of each frame in a file."""
    if isinstance(data, dict):
        for key in FRAME_LISTS:
            if isinstance(data.get(key), (list, dict)):
                return _frames(data[key])
        if data and all(str(key).isdigit() for key in data):
            return [(int(key), content) for key, content in data.items()]
        data = [data]
    if not isinstance(data, list):
        return []
    return [
        (next((one[k] for k in FRAME_KEYS if k in one), None) if isinstance(one, dict) else None, one) for one in data
    ]


def _hands(content: Json, path: Path) -> list[tuple[np.ndarray, str, float]]:
    """(points as they stand, side, score) of each hand in a frame."""
    if not isinstance(content, dict):
        raise unreadable(path, WHAT)
    for key, side in SIDED.items():
        if key in content:
            other = {k: v for k, v in content.items() if k != key}
            rest = _hands(other, path) if set(other) & set(SIDED) else []
            return ([(_points(content[key], path), side, BODY_SIDE)] if content[key] else []) + rest
    if "hands" in content:
        return [
            (_points(_first(one, ("landmarks", "hand_landmarks", "keypoints", "landmark")), path), *_side(one, path))
            for one in content["hands"] or []
        ]
    for landmarks, handedness in PAIRS:
        if landmarks in content and (handedness in content or landmarks != "landmarks"):
            hands = content[landmarks] or []
            sides = content.get(handedness) or [None] * len(hands)
            if len(sides) != len(hands):
                raise unreadable(path, f"{WHAT}: {len(hands)} hands and {len(sides)} sides in one frame")
            return [(_points(one, path), *_side(side, path)) for one, side in zip(hands, sides, strict=True)]
    return []


def _points(landmarks: Json, path: Path) -> np.ndarray:
    """The points as they stand, (N, 2); NaN where one is null."""
    if isinstance(landmarks, dict):
        landmarks = landmarks.get("landmark")
    if not isinstance(landmarks, list):
        raise unreadable(path, WHAT)
    try:
        points = [(one["x"], one["y"]) if isinstance(one, dict) else (one[0], one[1]) for one in landmarks]
        return np.array([[np.nan if value is None else float(value) for value in point] for point in points])
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise unreadable(path, WHAT) from error


def _side(said: Json, path: Path) -> tuple[str, float]:
    """(anatomical side, score) of a handedness: a word, a category, a list of categories, or none."""
    score = None
    while not isinstance(said, str):
        if isinstance(said, list) and said:
            said = said[0]
        elif isinstance(said, dict):
            score = said.get("score", score)
            said = said.get("classification") or _first(said, NAME_KEYS)
        else:
            return "right", NO_SIDE
    side = said.strip().lower()
    if side not in OTHER:
        raise UsthandError(f"{path} has a hand whose side is {said!r}", "a hand is Left or Right", "write one of these")
    return OTHER[side], float(np.clip(BODY_SIDE if score is None else score, NO_SIDE, 1.0))


def _first(content: dict, keys: tuple[str, ...]) -> Json:
    return next((content[key] for key in keys if content.get(key) is not None), None)


def _to_pixels(hands: list[np.ndarray], camera: Camera) -> tuple[np.ndarray, float]:
    """Factor and shift that make the file's coordinates pixels with their centres at integers."""
    largest = [np.nanmax(np.abs(points)) for points in hands if np.isfinite(points).any()]
    if largest and np.median(largest) > NORMALISED_TO:
        return np.ones(2), 0.0
    return np.array([camera.width, camera.height], dtype=np.float64), -0.5
