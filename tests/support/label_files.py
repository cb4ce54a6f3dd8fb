"""Other programs' files of 2D hands, each written in its program's layout, from one set of hands."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from usthand.capture.rig import Rig
from usthand.hand.skeleton import INTERHAND_TO_OPENPOSE, inverse_order
from usthand.labels.formats.base import UNKNOWN_CONFIDENCE
from usthand.labels.labels import Labels

N_FRAMES = 6
OTHER = {"right": "left", "left": "right"}


@dataclass(frozen=True)
class Seen:
    """Both hands in every view, some joints and one hand of one view missing, as a detector would have them."""

    rig: Rig
    uv_px: dict[str, np.ndarray]
    """Per side (T, V, 21, 2)."""
    confidence: dict[str, np.ndarray]
    """Per side (T, V, 21), two decimals."""

    def hands(self, frame: int, view: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(side, positions, confidence) of the hands that are there."""
        return [
            (side, self.uv_px[side][frame, view], self.confidence[side][frame, view])
            for side in self.uv_px
            if self.confidence[side][frame, view].any()
        ]


def told(error: pytest.ExceptionInfo, *words: str) -> None:
    """The message is one sentence that holds the words."""
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.endswith(".")
    for word in words:
        assert word in sentence, f"{word!r} is not in {sentence!r}"


def assert_same(
    labels: dict[str, Labels], seen: Seen, states_confidence: bool, px: float = 2e-3, all_joints: bool = False
) -> None:
    """The hands that were written, to single precision, with their confidence or that of a program that states none."""
    assert list(labels) == ["right", "left"]
    for side, one in labels.items():
        expected = seen.confidence[side]
        if not states_confidence:
            there = expected.any(axis=-1, keepdims=True) if all_joints else expected > 0
            expected = np.where(np.broadcast_to(there, expected.shape), UNKNOWN_CONFIDENCE, 0)
        np.testing.assert_allclose(one.confidence, expected, atol=1e-6)
        np.testing.assert_allclose(one.uv_px, np.where(one.mask[..., None], seen.uv_px[side], 0), atol=px)
        assert one.cameras == seen.rig.names


def write(path: Path, data) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def each(seen: Seen):
    return ((t, v, name) for v, name in enumerate(seen.rig.names) for t in range(N_FRAMES))


def missing_as_zero(uv: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    return np.concatenate([np.where(confidence[:, None] > 0, uv, 0), confidence[:, None]], axis=1)


def write_openpose(seen: Seen, root: Path, flat: bool = False) -> None:
    """--write_json: version, people, all the parts; file names of twelve digits behind the video's name."""
    for t, v, name in each(seen):
        person = {"person_id": [-1], "pose_keypoints_2d": [1.0] * 75, "face_keypoints_2d": []}
        person |= {f"hand_{side}_keypoints_2d": [0] * 63 for side in OTHER}
        for side, uv, c in seen.hands(t, v):
            person[f"hand_{side}_keypoints_2d"] = missing_as_zero(uv, c).reshape(-1).tolist()
        folder = root if flat else root / name
        write(folder / f"{name}_{t:012d}_keypoints.json", {"version": 1.3, "people": [person]})


def as_whole_body(seen: Seen, t: int, v: int) -> np.ndarray:
    """133 points (x, y, score) of the one person."""
    points = np.full((133, 3), 0.9)
    points[91:] = 0
    for side, uv, c in seen.hands(t, v):
        points[{"left": 91, "right": 112}[side] :][:21] = missing_as_zero(uv, c)
    return points


def write_pose2sim(seen: Seen, root: Path) -> None:
    for t, v, name in each(seen):
        person = {"pose_keypoints_2d": as_whole_body(seen, t, v).reshape(-1).tolist(), "hand_left_keypoints_2d": []}
        write(root / f"{name}_json" / f"{name}_{t:06d}_keypoints.json", {"people": [person]})


def write_wholebody(seen: Seen, root: Path) -> None:
    """COCO-WholeBody's result file: image_id, the parts apart, flags instead of scores are not used here."""
    for v, name in enumerate(seen.rig.names):
        entries = []
        for t in range(N_FRAMES):
            parts = {f"{side}hand_kpts": [0] * 63 for side in OTHER}
            parts |= {
                f"{side}hand_kpts": missing_as_zero(uv, c).reshape(-1).tolist() for side, uv, c in seen.hands(t, v)
            }
            entries.append({"image_id": t, "category_id": 1, "keypoints": [0] * 51, "score": 0.9, **parts})
        write(root / f"{name}.json", entries)


def write_wholebody_annotations(seen: Seen, root: Path) -> None:
    """The annotation file: images named by file, v of 0, 1, 2, and a validity of each hand."""
    for v, name in enumerate(seen.rig.names):
        annotations = []
        for t in range(N_FRAMES):
            entry = {"id": t, "image_id": 900 + t, "keypoints": [0] * 51}
            for side in OTHER:
                uv, c = seen.uv_px[side][t, v], seen.confidence[side][t, v]
                flags = 2.0 * (c > 0)
                entry[f"{side}hand_kpts"] = missing_as_zero(uv, flags).reshape(-1).tolist()
                entry[f"{side}hand_valid"] = bool(c.any())
            annotations.append(entry)
        images = [{"id": 900 + t, "file_name": f"frame_{t:05d}.jpg"} for t in range(N_FRAMES)]
        write(root / f"{name}.json", {"images": images, "annotations": annotations, "categories": []})


def instance(points: np.ndarray) -> dict:
    """MMPose's split_instances: the bbox comes out as a tuple around its list."""
    box = [*points[:, :2].min(axis=0).tolist(), *points[:, :2].max(axis=0).tolist()]
    return {
        "keypoints": points[:, :2].tolist(),
        "keypoint_scores": points[:, 2].tolist(),
        "bbox": [box],
        "bbox_score": 0.9,
    }


def write_mmpose_video(seen: Seen, root: Path) -> None:
    for v, name in enumerate(seen.rig.names):
        write(
            root / f"{name}.json",
            [{"frame_id": t, "instances": [instance(as_whole_body(seen, t, v))]} for t in range(N_FRAMES)],
        )


def write_mmpose_images(seen: Seen, root: Path) -> None:
    for t, v, name in each(seen):
        write(root / name / f"{t:06d}.json", [instance(as_whole_body(seen, t, v))])


def write_mmpose_demo(seen: Seen, root: Path, order: tuple[int, ...] = tuple(range(21))) -> None:
    """--save-predictions of the demos, with a hand model: one instance a hand, no side, frames from 1."""
    for v, name in enumerate(seen.rig.names):
        info = [
            {
                "frame_id": t + 1,
                "instances": [instance(missing_as_zero(uv, c)[list(order)]) for _, uv, c in seen.hands(t, v)],
            }
            for t in range(N_FRAMES)
        ]
        write(root / f"results_{name}.json", {"meta_info": {"dataset_name": "x"}, "instance_info": info})


def write_mmpose_both_hands(seen: Seen, root: Path) -> None:
    """InterHand2.6M's 42 points: right 0 to 20, left 21 to 41, tip to base, the wrist last."""
    back = list(inverse_order(INTERHAND_TO_OPENPOSE))
    for v, name in enumerate(seen.rig.names):
        frames = []
        for t in range(N_FRAMES):
            points = np.zeros((42, 3))
            for side, uv, c in seen.hands(t, v):
                points[{"right": 0, "left": 21}[side] :][:21] = missing_as_zero(uv, c)[back]
            frames.append({"frame_id": t, "instances": [instance(points)]})
        write(root / f"{name}.json", frames)


def normalised(seen: Seen, v: int, uv: np.ndarray) -> np.ndarray:
    return (uv + 0.5) / [seen.rig.cameras[v].width, seen.rig.cameras[v].height]


def write_mediapipe(seen: Seen, root: Path, kind: str) -> None:
    """The layouts in which MediaPipe's results are dumped. All give 21 joints; sides are a mirror's, but Holistic's."""
    for v, name in enumerate(seen.rig.names):
        frames = []
        for t in range(N_FRAMES):
            hands = [(side, normalised(seen, v, uv)) for side, uv, _ in seen.hands(t, v)]
            points = [[{"x": x, "y": y, "z": -0.01} for x, y in uv] for _, uv in hands]
            words = [OTHER[side].capitalize() for side, _ in hands]
            frames.append(
                {
                    "tasks": {
                        "hand_landmarks": points,
                        "handedness": [[{"category_name": w, "score": 0.97, "index": 0}] for w in words],
                    },
                    "javascript": {
                        "frame": t,
                        "landmarks": points,
                        "handednesses": [[{"categoryName": w, "score": 0.97}] for w in words],
                    },
                    "solutions": {
                        "multi_hand_landmarks": [{"landmark": p} for p in points],
                        "multi_handedness": [
                            {"classification": [{"index": 0, "score": 0.97, "label": w}]} for w in words
                        ],
                    },
                    "holistic": {
                        "pose_landmarks": [],
                        **{f"{side}_hand_landmarks": p for (side, _), p in zip(hands, points, strict=True)},
                    },
                    "own": {
                        "hands": [
                            {"landmarks": uv.tolist(), "handedness": w} for w, (_, uv) in zip(words, hands, strict=True)
                        ]
                    },
                }[kind]
            )
        if kind == "own":
            write(root / f"{name}.json", {"fps": 30, "frames": {str(t): one for t, one in enumerate(frames)}})
        elif kind == "solutions":
            for t, one in enumerate(frames):
                write(root / name / f"frame_{t:04d}.json", one)
        else:
            write(root / f"{name}_landmarks.json", frames)


def write_holistic_csv(seen: Seen, root: Path) -> None:
    """pyxy3d's table, a header and whole pixels: what int(x * width) makes of x = (u + 0.5) / width."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "xy_HOLISTIC.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            "sync_index,port,frame_index,frame_time,point_id,img_loc_x,img_loc_y,obj_loc_x,obj_loc_y".split(",")
        )
        for t in range(N_FRAMES):
            for v in range(len(seen.rig)):
                table.writerow([t, v, t, 0.1 * t, 0, 400, 300, "", ""])
                for side, uv, c in seen.hands(t, v):
                    for j in np.flatnonzero(c):
                        u, w = np.floor(uv[j] + 0.5).astype(int)
                        table.writerow([t, v, t, 0.1 * t, {"right": 100, "left": 200}[side] + j, u, w, "", ""])


def write_hands_npz(seen: Seen, root: Path, single: bool = False) -> None:
    rows = [(t, name, side, uv, c) for t, v, name in each(seen) for side, uv, c in seen.hands(t, v)]
    root.mkdir(parents=True, exist_ok=True)
    for name in ["all"] if single else seen.rig.names:
        own = [row for row in rows if single or row[1] == name]
        columns = dict(
            zip(("frame", "camera", "side", "uv_px", "confidence"), map(np.array, zip(*own, strict=True)), strict=True)
        )
        columns["is_right"] = (columns.pop("side") == "right").astype(float)
        if not single:
            del columns["camera"]
        np.savez(root / f"{name}.npz", **columns)


def write_hands_json(seen: Seen, root: Path) -> None:
    for v, name in enumerate(seen.rig.names):
        write(
            root / f"{name}.json",
            [
                {"frame": t, "side": side, "uv_px": uv.tolist(), "confidence": c.tolist()}
                for t in range(N_FRAMES)
                for side, uv, c in seen.hands(t, v)
            ],
        )
