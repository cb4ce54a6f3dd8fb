"""COCO-WholeBody: 133 points a person; 91 to 111 are the left hand and 112 to 132 the right, in OpenPose's order.

One JSON file a camera (data_format.md of COCO-WholeBody): the result layout, a list of {image_id, lefthand_kpts,
righthand_kpts}; the annotation layout, {images, annotations}; or a list of {image_id, keypoints} with all 133 points as
(x, y, score). The frame is the number in the image's file name, or the image_id. Pixel centres are at integers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from usthand.capture.rig import Camera
from usthand.labels.formats.base import LEAST_CONFIDENCE, Json, View, frame_number, hand, read_json, triples, unreadable
from usthand.labels.labels import Detection

ENDINGS = (".json",)
WHAT = "COCO-WholeBody's JSON"
N_WHOLEBODY = 133
LEFT_HAND, RIGHT_HAND = slice(91, 112), slice(112, 133)
VISIBLE = 2
"""COCO's flag v of an annotated point that is visible; 1 is labelled but hidden, 0 is none."""


def looks_like(data: Json) -> bool:
    """Whether a file's content is of this format."""
    entries = data.get("annotations") if isinstance(data, dict) else data
    return bool(isinstance(entries, list) and entries and isinstance(entries[0], dict) and "image_id" in entries[0])


def read(path: Path, camera: Camera, frame: int | None = None) -> View:
    """Both hands of all people in all frames of one camera."""
    data = read_json(path)
    if not looks_like(data):
        if data in ([], {"annotations": []}):
            return {}
        raise unreadable(path, WHAT)
    annotated = isinstance(data, dict)
    entries, images = (data["annotations"], data.get("images", [])) if isinstance(data, dict) else (data, [])
    names = {image["id"]: image["file_name"] for image in images}
    view: View = {}
    for entry in entries:
        number = _frame(names.get(entry["image_id"], entry["image_id"]))
        view.setdefault(number, []).extend(_hands(entry, path, annotated))
    return view


def wholebody_hands(points: Float[np.ndarray, "133 3"] | None, where: Path) -> list[Detection]:
    """The right and the left hand of one person's 133 points (x, y, confidence); none without points."""
    if points is None:
        return []
    right, left = (
        hand(points[part, :2], points[part, 2], side, least=LEAST_CONFIDENCE, where=where)
        for side, part in (("right", RIGHT_HAND), ("left", LEFT_HAND))
    )
    return right + left


def _hands(entry: dict, path: Path, annotated: bool) -> list[Detection]:
    if "lefthand_kpts" not in entry and "righthand_kpts" not in entry:
        return wholebody_hands(triples(entry.get("keypoints"), path, "keypoints", N_WHOLEBODY), path)
    found = []
    for side in ("right", "left"):
        values = triples(entry.get(f"{side}hand_kpts"), path, f"{side}hand_kpts")
        if values is None or not entry.get(f"{side}hand_valid", True):
            continue
        confidence = values[:, 2] / VISIBLE if annotated else values[:, 2]
        found += hand(values[:, :2], confidence, side, least=LEAST_CONFIDENCE, where=path)
    return found


def _frame(image: int | str) -> int:
    return image if isinstance(image, int) else frame_number(Path(image))
