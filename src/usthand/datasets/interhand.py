"""InterHand2.6M (Moon et al., ECCV 2020): 80 to 140 cameras around one or two hands.

    images/{split}/Capture{c}/{sequence}/cam{camera}/image{frame}.jpg
    annotations/{split}/InterHand2.6M_{split}_{data,camera,joint_3d}.json
    annotations/{split}/InterHand2.6M_{split}_MANO_NeuralAnnot.json         optional: meshes

Millimetres in the world. A camera has its place and rotation: X_cam = camrot (X - campos). Joints 0 to 20 are the right
hand's, 21 to 41 the left's. Each finger goes from tip to base; the wrist comes last. joint_valid marks the joints that
could be annotated. MANO's parameters are relative to the mean pose (flat_hand_mean False) and in metres. Those of left
hands belong to MANO's left hand with the sign of shapedirs[:, 0] fixed, which is the mirror image of the right one.

There is no 2D annotation, so the share of the truth inside the images is the only check of the cameras' poses.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.datasets.base import DatasetPart, HandData, ImageRows, Recording
from usthand.datasets.mano import ManoParameters, check_meshes, flat_pose, pose_meshes
from usthand.datasets.percamera import rest_wrist_m
from usthand.datasets.reading import checked_numbers, choose, nearest_rotation, pinhole_camera, read_json, timeline
from usthand.evaluation.truth import Truth
from usthand.hand.model import HandModel
from usthand.hand.skeleton import INTERHAND_TO_OPENPOSE, SIDES

DATASET = "interhand26m"
SPLITS = ("train", "val", "test")
PROTOCOLS = ("all", "human")
ANNOTATION_FOLDERS = {"all": ("{split}", "all"), "human": ("{split}", "human_annot", "all")}
"""Where a protocol's annotation may be, best first: 1.0 has a folder for each split, 0.0 one for each protocol."""
OFFSETS = {"right": 0, "left": 21}
MM_PER_M = 1000.0
FPS, FPS_30 = 5.0, 30.0
MAX_WITHOUT_MESH = 0.1
TOLD_BYTES, BYTES_PER_MINUTE = 1e8, 5e8  # parsing shows no progress: the log says how long it takes on one slow core
FIX = "download the annotations of InterHand2.6M again"

LOG = logging.getLogger(__name__)
Images = dict[int, dict[str, "_Image"]]
"""[frame][camera]"""
CameraTables = Mapping[str, Mapping[str, Any]]
"""Of one capture: campos, camrot, focal and princpt, each by camera."""


class _Joints(NamedTuple):
    """Both hands' joints in the data set's order; zeros where not annotated."""

    world_m: Float[np.ndarray, "T 42 3"]
    known: Bool[np.ndarray, "T 42"]


class _Sequence(NamedTuple):
    """What the annotations have of one sequence of a capture."""

    name: str
    images: Images
    joints: _Joints
    fits: Mapping[str, Any]
    """MANO's parameters, by frame and side."""


class _Image(NamedTuple):
    file: str
    size: tuple[int, int]
    valid: bytes
    """joint_valid of the image's annotation, 42 numbers 0 or 1."""
    hand: str
    """right, left or interacting"""


def recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """Recordings of InterHand2.6M, one for each sequence of a capture: `usthand.datasets.base` says what a reader is.

    Sequences without any image on disk are passed over, since the images come in parts.

    Raises:
        UsthandError: If the split or protocol is unknown, a file is missing or unreadable, or `hand` is not MANO's.
    """
    protocol, split = choose(DATASET, "protocol", protocol, PROTOCOLS), choose(DATASET, "split", split, SPLITS)
    folder = _annotation_folder(root, split, protocol)
    stem = f"InterHand2.6M_{split}"
    kept = _human_ids(root, folder, split) if protocol == "human" and folder.name != "human_annot" else None
    grouped = _group(folder / f"{stem}_data.json", kept)
    cameras = _read(folder / f"{stem}_camera.json")
    joints = _read(folder / f"{stem}_joint_3d.json", "world_coord", "joint_valid")
    mano_file = folder / f"{stem}_MANO_NeuralAnnot.json"
    mano = _read(mano_file, "pose", "shape", "trans") if hand is not None and mano_file.is_file() else {}
    fps = FPS_30 if "30fps" in str(root.absolute()) else FPS
    for capture, sequence in sorted(grouped, key=lambda key: (int(key[0]), key[1])):
        images, name = grouped[capture, sequence], f"Capture{capture}_{sequence}"
        images = {frame: images.get(frame, {}) for frame in timeline(images)}
        paths, rig = _rig(root / "images" / split, images, cameras.get(capture, {}), name)
        if rig is None:
            continue
        annotated = _world_joints(joints.get(capture, {}), list(images), name)
        sequenced = _Sequence(name, images, annotated, mano.get(capture, {}))
        shown = {image.hand for row in images.values() for image in row.values()}
        found = [_hand(side, sequenced, rig, hand) for side in SIDES if shown & {side, "interacting"}]
        hands, notes = zip(*found, strict=True)
        note = "; ".join(text for text in notes if text)
        yield Recording(name, rig, fps, paths, hands, *DatasetPart(DATASET, protocol, split), note)


# ---- the annotation files ------------------------------------------------------------------------------------------


def _annotation_folder(root: Path, split: str, protocol: str) -> Path:
    places = [root / "annotations" / place.format(split=split) for place in ANNOTATION_FOLDERS[protocol]]
    for folder in places:
        if (folder / f"InterHand2.6M_{split}_data.json").is_file():
            return folder
    raise UsthandError(
        f"there is no InterHand2.6M_{split}_data.json in {places[0]}",
        "the annotations are elsewhere or not unpacked",
        "give the folder that has images/ and annotations/ in it",
    )


def _read(file: Path, *arrays: str) -> dict[str, Any]:
    """A JSON file; the named entries become arrays while it is read, which keeps the huge files small in memory."""

    def compact(entry: dict[str, Any]) -> dict[str, Any]:
        for key in arrays:
            if key in entry:
                entry[key] = np.asarray(entry[key], np.float64)
        return entry

    return _load(file, compact)


def _load(file: Path, hook: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    try:
        size = file.stat().st_size
        if size > TOLD_BYTES:
            minutes = max(1, round(size / BYTES_PER_MINUTE))
            LOG.warning("Reading %s (%.1f GB): about %d min.", file.name, size / 1e9, minutes)
        content = read_json(file, FIX, hook)
    except FileNotFoundError:
        raise UsthandError(f"there is no {file}", "the annotations are not unpacked whole", FIX) from None
    if not isinstance(content, dict):
        raise UsthandError(f"{file} holds no table", "it is of another release", FIX)
    return content


def _human_ids(root: Path, folder: Path, split: str) -> set[int]:
    """The ids of the annotations that people made."""
    name = f"aid_human_annot_{split}.txt"
    for place in (folder, root / "annotations", root):
        if (place / name).is_file():
            return {int(line) for line in (place / name).read_text().split()}
    raise UsthandError(
        f"there is no {name} in {folder}",
        "the list of human annotations is a download of its own",
        "get it from the data set's homepage, or import with --protocol all",
    )


def _group(file: Path, kept: set[int] | None) -> dict[tuple[str, str], Images]:
    """The annotated images by capture and sequence, then frame and camera; `kept` are the annotations' ids.

    Each entry is cut down as soon as it is read: the training split's file has one and a half million of each kind.
    """

    def compact(entry: dict[str, Any]) -> dict[str, Any] | tuple:
        if "file_name" in entry:
            place = (str(entry["capture"]), str(entry["seq_name"]), int(entry["frame_idx"]), str(entry["camera"]))
            return int(entry["id"]), place, entry["file_name"], (int(entry["width"]), int(entry["height"]))
        if "image_id" in entry:
            valid = bytes(int(v[0]) if isinstance(v, list) else int(v) for v in entry["joint_valid"])
            return int(entry["id"]), int(entry["image_id"]), valid, str(entry["hand_type"])
        return entry

    content = _load(file, compact)
    if not {"images", "annotations"} <= content.keys():
        raise UsthandError(f"{file} has no images and annotations", "it is of another release", FIX)
    images = {number: rest for number, *rest in content["images"]}
    grouped: dict[tuple[str, str], Images] = defaultdict(lambda: defaultdict(dict))
    for number, image, valid, hand in content["annotations"]:
        if kept is not None and number not in kept:
            continue
        if image not in images or len(valid) != 42:
            raise UsthandError(
                f"annotation {number} in {file} has no image or not 42 joints", "the file is damaged", FIX
            )
        (capture, sequence, frame, camera), name, size = images[image]
        grouped[capture, sequence][frame][camera] = _Image(name, size, valid, hand)
    return grouped


# ---- cameras and joints --------------------------------------------------------------------------------------------


def _rig(folder: Path, images: Images, cameras: CameraTables, name: str) -> tuple[ImageRows, Rig | None]:
    """The images on disk, and the cameras that have any; None where no camera has."""
    there: dict[str, set[str]] = {}

    def on_disk(image: _Image | None) -> Path | None:
        if image is None:
            return None
        path = folder / image.file
        parent = str(path.parent)
        if parent not in there:  # a folder is listed once: a million single questions would take minutes
            there[parent] = {p.name for p in path.parent.iterdir()} if path.parent.is_dir() else set()
        return path if path.name in there[parent] else None

    known = sorted({camera for row in images.values() for camera in row})
    rows = {frame: {c: on_disk(images[frame].get(c)) for c in known} for frame in images}
    used = [c for c in known if any(row[c] for row in rows.values())]
    paths = tuple(tuple(row[c] for c in used) for row in rows.values())
    if not used:
        return paths, None
    return paths, Rig(tuple(_camera(c, _size(c, images, name), cameras, name) for c in used))


def _size(camera: str, images: Images, name: str) -> tuple[int, int]:
    sizes = Counter(row[camera].size for row in images.values() if camera in row)
    if len(sizes) > 1:
        raise UsthandError(
            f"camera {camera} of {name} has images of several sizes {sorted(sizes)}", "files are mixed up", FIX
        )
    return next(iter(sizes))


def _camera(camera: str, size: tuple[int, int], cameras: CameraTables, name: str) -> Camera:
    try:
        position, rotation, focal, centre = (
            np.array(cameras[key][camera], np.float64) for key in ("campos", "camrot", "focal", "princpt")
        )
        matrix = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
        rotation = nearest_rotation(rotation.reshape(3, 3))
        translation = -rotation @ position.reshape(3) / MM_PER_M
    except (KeyError, ValueError, IndexError, np.linalg.LinAlgError) as error:
        raise UsthandError(
            f"camera {camera} of {name} has no usable pose ({error})", "the camera file is damaged", FIX
        ) from None
    return pinhole_camera(f"cam{camera}", size, matrix, rotation, translation)


def _world_joints(annotated: Mapping[str, Any], frames: list[int], name: str) -> _Joints:
    world, known = np.zeros((len(frames), 42, 3)), np.zeros((len(frames), 42), bool)
    for t, frame in enumerate(frames):
        entry = annotated.get(str(frame))
        if entry is None:
            continue
        if np.shape(entry.get("world_coord")) != (42, 3) or np.size(entry.get("joint_valid")) != 42:
            raise UsthandError(f"frame {frame} of {name} has not 42 joints", "the annotation is damaged", FIX)
        known[t] = entry["joint_valid"].ravel() > 0
        world[t] = np.where(known[t, :, None], entry["world_coord"] / MM_PER_M, 0.0)
    return _Joints(world, known)


# ---- one hand ------------------------------------------------------------------------------------------------------


def _hand(side: str, sequence: _Sequence, rig: Rig, hand: HandModel | None) -> tuple[HandData, str]:
    """One side of a recording and a note on it."""
    order = np.array(INTERHAND_TO_OPENPOSE) + OFFSETS[side]
    known = sequence.joints.known[:, order]
    whole = np.all(known, axis=1)
    partial = int((known.any(1) & ~whole).sum())
    notes = [f"{partial} frames of the {side} hand are left without truth: a joint is not annotated"] if partial else []
    if not whole.any():
        return HandData(side), "; ".join(notes)
    visible = np.zeros((len(known), len(rig), 21), bool)
    for t, row in enumerate(sequence.images.values()):
        for v, camera in enumerate(rig.names):
            image = row.get(camera.removeprefix("cam"))
            if image is not None:
                visible[t, v] = np.frombuffer(image.valid, np.uint8)[order] > 0
    joints = np.where(whole[:, None, None], sequence.joints.world_m[:, order], 0.0)
    truth, missing = Truth.of_joints(joints, visible, whole), 0
    if hand is not None and sequence.fits:
        model = hand if side == "right" else hand.mirrored()
        fits = [(sequence.fits.get(str(frame)) or {}).get(side) for frame in sequence.images]
        truth, missing = _with_mesh(truth, fits, model, sequence.name)
    if missing and truth.has_mesh:
        notes.append(f"{missing} frames of the {side} hand are left without truth: they have no mesh")
    elif missing:
        notes.append(f"no meshes of the {side} hand: {missing} frames have none")
    return HandData(side, truth=truth), "; ".join(notes)


def _with_mesh(truth: Truth, fits: list[Mapping[str, Any] | None], model: HandModel, name: str) -> tuple[Truth, int]:
    """The truth with meshes and poses from MANO's parameters, and how many of its frames have none.

    Truth has meshes in all of its frames or in none. Where few frames lack one, these are given up, else the meshes.
    """
    annotated = np.asarray(truth.valid)
    valid = annotated & np.array([fit is not None for fit in fits])
    missing = int((annotated & ~valid).sum())
    if missing > MAX_WITHOUT_MESH * annotated.sum():
        return truth, missing
    at = np.flatnonzero(valid)
    rows = [fit for t, fit in enumerate(fits) if valid[t] and fit is not None]
    pose, shapes, shift = (
        np.stack([checked_numbers(fit.get(key), (size,), f"{key} of a mesh of {name}", FIX) for fit in rows])
        for key, size in (("pose", 48), ("shape", 10), ("trans", 3))
    )
    given = ManoParameters(flat_pose(model, pose), shapes, shift)
    mesh, model_joints = pose_meshes(model, given)
    check_meshes(model_joints, truth.joints_world_m[at], name)
    # One shape for all frames: the wrist stays where each frame's own shape puts it.
    shape = np.median(shapes, axis=0)
    translation = shift + rest_wrist_m(model, shapes) - rest_wrist_m(model, shape[None])

    def scattered(values: np.ndarray, dtype: type = np.float64) -> np.ndarray:
        whole = np.zeros((len(valid), *values.shape[1:]), dtype)
        whole[at] = values
        return whole

    joints_world_m = np.where(valid[:, None, None], truth.joints_world_m, 0.0)
    posed = scattered(mesh, np.float32), truth.visible, scattered(given.pose), shape, scattered(translation)
    return Truth(joints_world_m, *posed, valid), missing
