"""MMPose's predictions: a list of {keypoints, keypoint_scores} for an image, of {frame_id, instances} for a video.

`MMPoseInferencer(..., pred_out_dir=FOLDER)` writes one JSON a video or image and counts frames from 0. The demos'
--save-predictions writes {meta_info, instance_info} and counts frames from 1. The number of points tells the model: 133
whole body, 42 both hands of InterHand2.6M, 21 one hand, whose side is not stated. Pixel centres are at integers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from usthand.capture.rig import Camera
from usthand.common.errors import UsthandError
from usthand.hand.skeleton import BONES, INTERHAND_TO_OPENPOSE, N_JOINTS
from usthand.labels.formats.base import (
    LEAST_CONFIDENCE,
    NO_SIDE,
    UNKNOWN_CONFIDENCE,
    Json,
    View,
    frame_number,
    hand,
    read_json,
    unreadable,
)
from usthand.labels.formats.wholebody import N_WHOLEBODY, wholebody_hands
from usthand.labels.labels import Detection

ENDINGS = (".json",)
WHAT = "MMPose's predictions"
RHD_TO_OPENPOSE = (0, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17)
ORDERS = (tuple(range(N_JOINTS)), RHD_TO_OPENPOSE, INTERHAND_TO_OPENPOSE)
"""Orders of MMPose's hand data sets: COCO-WholeBody-Hand, FreiHAND, OneHand10K; RHD; InterHand2.6M."""
CLEARLY_SHORTER = 0.85
"""Another order is taken if it makes the bones this much shorter: joints in a wrong order make long bones."""


def looks_like(data: Json) -> bool:
    """Whether a file's content is of this format."""
    if isinstance(data, dict):
        return "instance_info" in data
    return bool(
        isinstance(data, list)
        and data
        and isinstance(data[0], dict)
        and ("instances" in data[0] or {"keypoints", "keypoint_scores"} <= set(data[0]))
    )


def read(path: Path, camera: Camera, frame: int | None = None) -> View:
    """The hands of one video's or image's predictions."""
    data = read_json(path)
    if not looks_like(data) and data != []:
        raise unreadable(path, WHAT)
    first = 0
    if isinstance(data, dict):
        data, first = data["instance_info"], 1
    if data and "instances" in data[0]:
        frames = {int(one["frame_id"]) - first: one["instances"] for one in data}
    else:
        frames = {frame_number(path, frame): data}
    order = _order([one["keypoints"] for instances in frames.values() for one in instances])
    return {
        number: [found for one in instances for found in _hands(one, order, path)]
        for number, instances in frames.items()
    }


def _hands(instance: dict, order: tuple[int, ...], path: Path) -> list[Detection]:
    uv = np.asarray(instance["keypoints"], dtype=np.float64).reshape(len(instance["keypoints"]), -1)[:, :2]
    scores = instance.get("keypoint_scores", np.full(len(uv), UNKNOWN_CONFIDENCE))
    confidence = np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(uv) == N_WHOLEBODY:
        return wholebody_hands(np.c_[uv, confidence], path)
    if len(uv) == N_JOINTS:
        ids = list(order)
        return hand(uv[ids], confidence[ids], "right", NO_SIDE, LEAST_CONFIDENCE, path)
    if len(uv) == 2 * N_JOINTS:
        ids = np.array(INTERHAND_TO_OPENPOSE)
        right, left = (
            hand(uv[ids + start], confidence[ids + start], side, least=LEAST_CONFIDENCE, where=path)
            for side, start in (("right", 0), ("left", N_JOINTS))
        )
        return right + left
    raise UsthandError(
        f"{path} has instances of {len(uv)} points",
        f"hands are read from {N_JOINTS} (one hand), {2 * N_JOINTS} (both) or {N_WHOLEBODY} (whole body)",
        "run MMPose with a hand or whole-body model",
    )


def _order(hands: list) -> tuple[int, ...]:
    """The order of the file's joints, for hands of 21: the usual one, or one that makes clearly shorter bones."""
    points = [np.asarray(one, dtype=np.float64).reshape(N_JOINTS, -1)[:, :2] for one in hands if len(one) == N_JOINTS]
    if not points:
        return ORDERS[0]
    start, end = np.array(BONES).T
    ordered = [np.stack(points)[:, list(order)] for order in ORDERS]
    lengths = [np.nanmedian(np.linalg.norm(uv[:, start] - uv[:, end], axis=-1).sum(-1)) for uv in ordered]
    best = int(np.argmin(lengths))
    return ORDERS[best] if lengths[best] < CLEARLY_SHORTER * lengths[0] else ORDERS[0]
