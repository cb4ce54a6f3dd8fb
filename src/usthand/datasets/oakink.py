"""OakInk-Image and OakInk-MV (Yang et al., CVPR 2022; Yang et al., POEM, CVPR 2023): four cameras, one or two people.

    image/stream_release_v2/{sequence}/{time}/{north_east,south_east,north_west,south_west}_color_{frame}.png
    image/anno/{cam_intr,hand_j,hand_v,general_info}/{sequence}__{time}__{person}__{frame}__{camera}.pkl
    image/anno/split/{split0,split1,split2}/seq_{train,test}.json        rows [sequence/time, person, frame, camera]

Joints and vertices lie in each camera's frame and in OpenPose's order. Poses are unit quaternions with the real part
first, in the world of the camera poses. Every hand is a right one. In a handover two people are in the images. Each
one's annotation is a recording of its own, since both have a right hand.

The splits of OakInk-Image list single images, so a recording may lack views. OakInk-MV takes the same frames with all
four views.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.common.unpickle import TensorUnpickler, load_pickle
from usthand.datasets.base import DatasetPart, HandData, Recording, present
from usthand.datasets.percamera import InWorld, annotated_joints, joints_in_world, rest_wrist_m, world_from_camera
from usthand.datasets.reading import checked_numbers, choose, nearest_rotation, pinhole_camera, read_json, timeline
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
        UsthandError: If the split or protocol is unknown, a file is missing or unreadable, or views disagree.
    """
    return _recordings(IMAGE, root, split, protocol, hand)


def mv_recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """Recordings of OakInk-MV; raises as `image_recordings`."""
    return _recordings(MV, root, split, protocol, hand)


def _recordings(dataset: str, root: Path, split: str, protocol: str, hand: HandModel | None) -> Iterator[Recording]:
    protocol = choose(dataset, "protocol", protocol, PROTOCOLS[dataset])
    part = DatasetPart(dataset, protocol, choose(dataset, "split", split, SPLITS))
    root = root / "image" if (root / "image").is_dir() else root
    found: dict[Key, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for sequence, person, frame, camera in _rows(_split_file(root, part)):
        # OakInk-MV has all views of every frame of which the split holds any.
        found[sequence, person][frame] |= set(range(len(CAMERAS))) if dataset == MV else {camera}
    for key in sorted(found):
        recording = _recording(_Files(root, key), found[key], part, hand)
        if recording is not None:
            yield recording


def _split_file(root: Path, part: DatasetPart) -> Path:
    folder, anno = SPLIT_FOLDERS[part.protocol], root / "anno"
    return {
        "train+val": anno / "split" / folder / "seq_train.json",
        "test": anno / "split" / folder / "seq_test.json",
        "train": anno / "split_train_val" / folder / "example_split_train.json",
        "val": anno / "split_train_val" / folder / "example_split_val.json",
        "all": anno / "seq_all.json",
    }[part.split]


def _rows(file: Path) -> Iterator[tuple[str, int, int, int]]:
    try:
        rows = read_json(file, FIX)
        if not isinstance(rows, list):
            raise ValueError(f"a {type(rows).__name__}")
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
    except (ValueError, TypeError) as error:
        raise UsthandError(f"{file} is no list of samples ({error})", "the file is damaged", FIX) from error


# ---- one sample ----------------------------------------------------------------------------------------------------


class _Sample(NamedTuple):
    """The hand's parameters at one instant, in the world."""

    pose: Float[np.ndarray, "48"]
    """Axis-angle, flat-hand mean."""
    shape: Float[np.ndarray, "10"]


@dataclass(frozen=True)
class _Files:
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

    def array(self, kind: str, frame: int, camera: int, *shape: int) -> np.ndarray:
        path = self.file(kind, frame, camera)
        content = load_pickle(path, TensorUnpickler, "an annotation of OakInk", FIX)
        return checked_numbers(content, shape, f"{kind}/{path.name}", FIX)

    def info(self, frame: int, camera: int) -> tuple[Mapping[str, Any], str]:
        """The general information, and its file's name."""
        path = self.file("general_info", frame, camera)
        content = load_pickle(path, TensorUnpickler, "an annotation of OakInk", FIX)
        if not isinstance(content, dict) or "cam_extr" not in content:
            raise UsthandError(f"{path.name} has no cam_extr", "it is of another release", FIX)
        return content, path.name

    def camera(self, frame: int, camera: int) -> Camera:
        matrix = self.array("cam_intr", frame, camera, 3, 3)
        info, name = self.info(frame, camera)
        pose = checked_numbers(info["cam_extr"], (4, 4), f"cam_extr in {name}", FIX)
        # Stored in float32, orthogonal to 1e-7.
        return pinhole_camera(CAMERAS[camera], SIZE, matrix, nearest_rotation(pose[:3, :3]), pose[:3, 3])

    def sample(self, frame: int, camera: int) -> _Sample:
        info, name = self.info(frame, camera)
        annotation = info.get("hand_anno")
        if not isinstance(annotation, dict) or not {"hand_pose", "hand_shape"} <= annotation.keys():
            raise UsthandError(f"{name} has no hand_anno", "it is of another release", FIX)
        quaternions = checked_numbers(annotation["hand_pose"], (16, 4), f"hand_pose in {name}", FIX)
        if (np.linalg.norm(quaternions, axis=-1) < 0.5).any():
            raise UsthandError(f"{name} has a rotation of zero length", "it is damaged", FIX)
        pose = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]).as_rotvec()  # scipy has the real part last
        shape = checked_numbers(annotation["hand_shape"], (10,), f"hand_shape in {name}", FIX)
        return _Sample(pose.ravel(), shape)


# ---- one recording -------------------------------------------------------------------------------------------------


def _recording(
    files: _Files, wanted: Mapping[int, set[int]], part: DatasetPart, hand: HandModel | None
) -> Recording | None:
    """None where no image is on disk."""
    frames = timeline(wanted)
    wanted = {frame: wanted.get(frame, set()) for frame in frames}
    known = np.array(
        [[v in wanted[f] and files.file("hand_j", f, v).is_file() for v in range(len(CAMERAS))] for f in frames]
    )
    views = [v for v in range(len(CAMERAS)) if known[:, v].any()]
    images = tuple(
        tuple(path if v in wanted[f] and (path := files.image(f, v)).is_file() else None for v in views) for f in frames
    )
    if not any(path for row in images for path in row):
        return None
    known = known[:, views]
    rig = Rig(tuple(files.camera(frames[int(known[:, k].argmax())], v) for k, v in enumerate(views)))
    joints_cam_m = np.zeros((len(frames), len(views), 21, 3))
    for t, k in np.argwhere(known):
        joints_cam_m[t, k] = files.array("hand_j", frames[t], views[k], 21, 3)
    found = joints_in_world(joints_cam_m, known, rig, files.name)
    annotated = annotated_joints(joints_cam_m, known, rig, SIDE)
    first = [(frames[t], views[k]) for t, k in enumerate(known.argmax(1))]
    visible = annotated.mask & present(images)[..., None]
    truth = _truth(files, first, rig, found, visible, hand)
    hands = (HandData(SIDE, truth=truth, annotated=annotated),)
    return Recording(files.name, rig, FPS, images, hands, *part, found.note)


def _truth(
    files: _Files,
    first: list[tuple[int, int]],
    rig: Rig,
    found: InWorld,
    visible: Bool[np.ndarray, "T V 21"],
    hand: HandModel | None,
) -> Truth:
    """Joints of all views; mesh and pose of the `first` frame and camera that have each row."""
    count, valid = len(first), found.valid
    vertices = np.zeros((count, 778, 3), np.float32)
    pose, shapes = np.zeros((count, 48)), np.zeros((count, 10))
    for t in np.flatnonzero(valid):
        frame, camera = first[t]
        mesh_cam_m = files.array("hand_v", frame, camera, 778, 3)
        vertices[t] = world_from_camera(mesh_cam_m, rig.cameras[rig.index(CAMERAS[camera])])
        pose[t], shapes[t] = files.sample(frame, camera)
    shape = np.median(shapes[valid], axis=0) if valid.any() else np.zeros(10)
    translation = np.zeros((0, 3))
    if hand is not None:  # MANO's translation needs MANO's wrist at rest
        wrist = found.joints_world_m[:, 0] - rest_wrist_m(hand, shape[None])
        translation = np.where(valid[:, None], wrist, 0.0)
    return Truth(found.joints_world_m, vertices, visible, pose, shape, translation, valid)
