"""OakInk-Image and OakInk-MV (Yang et al., CVPR 2022; Yang et al., POEM, CVPR 2023): four cameras around one or two people.

    image/stream_release_v2/{sequence}/{time}/{north_east,south_east,north_west,south_west}_color_{frame}.png
    image/anno/{cam_intr,hand_j,hand_v,general_info}/{sequence}__{time}__{person}__{frame}__{camera}.pkl
    image/anno/split/{split0,split1,split2}/seq_{train,test}.json        rows [sequence/time, person, frame, camera]

Joints and vertices lie in each camera's frame and in OpenPose's order; poses, unit quaternions with the real part first,
lie in the world of the camera poses. Every hand is a right one. In a handover two people are in the images: the
annotation of each is a recording of its own, since both have a right hand.

OakInk-Image has a split's images one by one, so that a recording may lack views. OakInk-MV takes the same frames with
all four views.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.common.unpickle import TensorUnpickler, load_pickle
from usthand.datasets.base import HandData, Recording
from usthand.datasets.percamera import (
    InWorld,
    annotated_joints,
    choose,
    joints_in_world,
    require_agreement,
    rest_wrist_m,
    timeline,
    world_from_camera,
)
from usthand.evaluation.truth import Truth
from usthand.hand.model import HandModel

IMAGE, MV = "oakink-image", "oakink-mv"
CAMERAS = ("north_east", "south_east", "north_west", "south_west")
SIZE = (848, 480)
FPS = 30.0
SIDE = "right"
SPLIT_FOLDERS = {"views": "split0", "subjects": "split1", "objects": "split2"}
PROTOCOLS = {IMAGE: ("views", "subjects", "objects"), MV: ("objects", "subjects")}
SPLITS = ("train+val", "train", "val", "test", "all")
FIX = "download the annotations (anno_v2_1.zip of https://oakink.net) again"

Key = tuple[str, int]
"""Sequence/time and person."""


def image_recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """Recordings of OakInk-Image: `usthand.datasets.base` says what a reader is.

    Raises:
        UsthandError: if the split or protocol is unknown, a file is missing or unreadable, or views disagree.
    """
    return _recordings(IMAGE, root, split, protocol, hand)


def mv_recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """Recordings of OakInk-MV; raises as `image_recordings`."""
    return _recordings(MV, root, split, protocol, hand)


def _recordings(dataset: str, root: Path, split: str, protocol: str, hand: HandModel | None) -> Iterator[Recording]:
    protocol = choose(dataset, "protocol", protocol, PROTOCOLS[dataset])
    split = choose(dataset, "split", split, SPLITS)
    root = root / "image" if (root / "image").is_dir() else root
    found: dict[Key, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for sequence, person, frame, camera in _rows(_split_file(root, split, protocol)):
        # The multi-view data set has all views of a frame of which the split holds any.
        found[sequence, person][frame] |= set(range(len(CAMERAS))) if dataset == MV else {camera}
    for key in sorted(found):
        recording = _recording(_Reader(root, key), found[key], dataset, protocol, split, hand)
        if recording is not None:
            yield recording


def _split_file(root: Path, split: str, protocol: str) -> Path:
    folder, anno = SPLIT_FOLDERS[protocol], root / "anno"
    return {
        "train+val": anno / "split" / folder / "seq_train.json",
        "test": anno / "split" / folder / "seq_test.json",
        "train": anno / "split_train_val" / folder / "example_split_train.json",
        "val": anno / "split_train_val" / folder / "example_split_val.json",
        "all": anno / "seq_all.json",
    }[split]


def _rows(file: Path) -> Iterator[tuple[str, int, int, int]]:
    try:
        rows = json.loads(file.read_text())
        for sequence, person, frame, camera in rows:
            if "/" not in sequence or not 0 <= int(camera) < len(CAMERAS):
                raise ValueError(f"row {sequence!r}, camera {camera!r}")
            yield str(sequence), int(person), int(frame), int(camera)
    except FileNotFoundError:
        raise UsthandError(
            f"there is no {file}",
            "the annotations are elsewhere, or this release has no such split",
            "give OakInk's folder, the one with image/anno in it, or choose --split train+val or test",
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UsthandError(f"{file} is no list of samples ({error})", "the file is damaged", FIX) from error


# ---- one sample ----------------------------------------------------------------------------------------------------


class _Sample(NamedTuple):
    """The hand's parameters at one instant, in the world."""

    pose: np.ndarray
    """(48,) axis-angle, flat-hand mean."""
    shape: np.ndarray
    """(10,)"""


@dataclass(frozen=True)
class _Reader:
    """The files of one person in one sequence."""

    root: Path
    key: Key

    @property
    def name(self) -> str:
        return "__".join((*self.key[0].split("/"), str(self.key[1])))

    def image(self, frame: int, camera: int) -> Path:
        return self.root / "stream_release_v2" / self.key[0] / f"{CAMERAS[camera]}_color_{frame}.png"

    def file(self, kind: str, frame: int, camera: int) -> Path:
        return self.root / "anno" / kind / f"{self.name}__{frame}__{camera}.pkl"

    def array(self, kind: str, frame: int, camera: int, shape: tuple[int, ...]) -> np.ndarray:
        path = self.file(kind, frame, camera)
        return _shaped(load_pickle(path, TensorUnpickler, "an annotation of OakInk", FIX), shape, path)

    def info(self, frame: int, camera: int) -> Mapping[str, Any]:
        path = self.file("general_info", frame, camera)
        content = load_pickle(path, TensorUnpickler, "an annotation of OakInk", FIX)
        if not isinstance(content, dict) or "cam_extr" not in content:
            raise UsthandError(f"{path.name} has no cam_extr", "it is of another release", FIX)
        return content

    def camera(self, frame: int, camera: int) -> Camera:
        matrix = self.array("cam_intr", frame, camera, (3, 3))
        pose = _shaped(self.info(frame, camera)["cam_extr"], (4, 4), self.file("general_info", frame, camera))
        u, _, vh = np.linalg.svd(pose[:3, :3])  # float32: orthogonal to 1e-7
        return Camera(CAMERAS[camera], *SIZE, matrix, np.zeros(0), "pinhole", u @ vh, pose[:3, 3])

    def sample(self, frame: int, camera: int) -> _Sample:
        path = self.file("general_info", frame, camera)
        anno = self.info(frame, camera).get("hand_anno")
        if not isinstance(anno, dict) or not {"hand_pose", "hand_shape"} <= anno.keys():
            raise UsthandError(f"{path.name} has no hand_anno", "it is of another release", FIX)
        quaternions = _shaped(anno["hand_pose"], (16, 4), path)
        if (np.linalg.norm(quaternions, axis=-1) < 0.5).any():
            raise UsthandError(f"{path.name} has a rotation of zero length", "it is damaged", FIX)
        pose = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]).as_rotvec()  # scipy has the real part last
        return _Sample(pose.ravel(), _shaped(anno["hand_shape"], (10,), path))


def _shaped(value: Any, shape: tuple[int, ...], path: Path) -> np.ndarray:
    try:
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError):
        array = np.zeros(0)
    if array.size != int(np.prod(shape)) or not np.isfinite(array).all():
        raise UsthandError(f"{path.parent.name}/{path.name} holds no {shape} numbers", "it is of another release", FIX)
    return array.reshape(shape)


# ---- one recording -------------------------------------------------------------------------------------------------


def _recording(
    reader: _Reader, wanted: Mapping[int, set[int]], dataset: str, protocol: str, split: str, hand: HandModel | None
) -> Recording | None:
    """None where no image is on disk."""
    frames = timeline(wanted)
    wanted = {frame: wanted.get(frame, set()) for frame in frames}
    known = np.array(
        [[v in wanted[f] and reader.file("hand_j", f, v).is_file() for v in range(len(CAMERAS))] for f in frames]
    )
    views = [v for v in range(len(CAMERAS)) if known[:, v].any()]
    images = tuple(
        tuple(path if v in wanted[f] and (path := reader.image(f, v)).is_file() else None for v in views)
        for f in frames
    )
    if not any(path for row in images for path in row):
        return None
    known = known[:, views]
    rig = Rig(tuple(reader.camera(frames[int(known[:, k].argmax())], v) for k, v in enumerate(views)))
    joints_cam_m = np.zeros((len(frames), len(views), 21, 3))
    for t, k in np.argwhere(known):
        joints_cam_m[t, k] = reader.array("hand_j", frames[t], views[k], (21, 3))
    found = joints_in_world(joints_cam_m, known, rig)
    note = require_agreement(found, known, reader.name)
    annotated = annotated_joints(joints_cam_m, known, rig, SIDE)
    here = np.array([[path is not None for path in row] for row in images])
    truth = _truth(reader, frames, views, known, rig, found, annotated.mask & here[..., None], hand)
    hands = (HandData(SIDE, truth=truth, annotated=annotated),)
    return Recording(reader.name, rig, FPS, images, hands, dataset, protocol, split, note)


def _truth(
    reader: _Reader,
    frames: list[int],
    views: list[int],
    known: np.ndarray,
    rig: Rig,
    found: InWorld,
    visible: np.ndarray,
    hand: HandModel | None,
) -> Truth:
    """Mesh and pose from the first view that knows them; joints from all."""
    vertices = np.zeros((len(frames), 778, 3), np.float32)
    pose, shapes = np.zeros((len(frames), 48)), np.zeros((len(frames), 10))
    for t in np.flatnonzero(found.valid):
        k = int(known[t].argmax())
        mesh_cam_m = reader.array("hand_v", frames[t], views[k], (778, 3))
        vertices[t] = world_from_camera(mesh_cam_m, rig.cameras[k])
        pose[t], shapes[t] = reader.sample(frames[t], views[k])
    shape = np.median(shapes[found.valid], axis=0) if found.valid.any() else np.zeros(10)
    translation = np.zeros((0, 3))
    if hand is not None:  # MANO's translation needs MANO's wrist at rest
        wrist = found.joints_world_m[:, 0] - rest_wrist_m(hand, shape[None])
        translation = np.where(found.valid[:, None], wrist, 0.0)
    return Truth(found.joints_world_m, vertices, visible, pose, shape, translation, found.valid)
