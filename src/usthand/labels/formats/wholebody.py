"""COCO-WholeBody: 133 points a person, of which 91 to 111 are the left hand and 112 to 132 the right, in OpenPose's order.

One JSON file a camera (data_format.md of COCO-WholeBody): the result layout, a list of {image_id, lefthand_kpts,
righthand_kpts}, or the annotation layout, {images, annotations}; also a list of {image_id, keypoints} with all 133 points
as (x, y, score). The frame is the number in the image's file name, or the image_id. Pixel centres are at integers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from usthand.capture.rig import Camera
from usthand.labels.formats.base import (
    LEAST_CONFIDENCE,
    View,
    frame_number,
    gather,
    hand,
    read_json,
    triples,
    unreadable,
)
from usthand.labels.labels import Detection

ENDINGS = (".json",)
WHAT = "COCO-WholeBody's JSON"
N_WHOLEBODY = 133
LEFT_HAND, RIGHT_HAND = slice(91, 112), slice(112, 133)
VISIBLE = 2  # COCO's flag v of an annotated point that is seen; 1 is labelled but hidden, 0 is none


def looks_like(data: Any) -> bool:
    """Whether a file's content is of this format."""
    entries = data.get("annotations") if isinstance(data, dict) else data
    return bool(isinstance(entries, list) and entries and isinstance(entries[0], dict) and "image_id" in entries[0])


def read(path: Path, camera: Camera, frame: int | None = None) -> View:
    """Both hands of all people in all frames of one camera. Raises `UsthandError` for another layout."""
    data = read_json(path)
    if not looks_like(data):
        if data in ([], {"annotations": []}):
            return {}
        raise unreadable(path, WHAT)
    annotated = isinstance(data, dict)
    names = {image["id"]: image["file_name"] for image in data.get("images", [])} if annotated else {}
    view: View = {}
    for entry in data["annotations"] if annotated else data:
        number = _frame(names.get(entry["image_id"], entry["image_id"]), path)
        view.setdefault(number, []).extend(gather(_hands(entry, path, annotated)))
    return view


def wholebody_hands(
    uv_px: Float[np.ndarray, "133 2"], confidence: Float[np.ndarray, " 133"], where: Path
) -> list[Detection | None]:
    """The right and the left hand of one person's 133 points."""
    return [
        hand(uv_px[part], confidence[part], side, least=LEAST_CONFIDENCE, where=where)
        for side, part in (("right", RIGHT_HAND), ("left", LEFT_HAND))
    ]


def _hands(entry: dict, path: Path, annotated: bool) -> list[Detection | None]:
    if "lefthand_kpts" not in entry and "righthand_kpts" not in entry:
        points = triples(entry.get("keypoints"), path, "keypoints", N_WHOLEBODY)
        return [] if points is None else wholebody_hands(points[:, :2], points[:, 2], path)
    found = []
    for side in ("right", "left"):
        values = triples(entry.get(f"{side}hand_kpts"), path, f"{side}hand_kpts")
        if values is None or not entry.get(f"{side}hand_valid", True):
            continue
        trust = values[:, 2] / VISIBLE if annotated else values[:, 2]
        found.append(hand(values[:, :2], trust, side, least=LEAST_CONFIDENCE, where=path))
    return found


def _frame(image: Any, path: Path) -> int:
    if isinstance(image, int):
        return image
    return frame_number(Path(str(image)), fallback=None)
