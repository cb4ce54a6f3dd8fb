"""InterHand2.6M (Moon et al., ECCV 2020): 80 to 140 cameras around one or two hands.

    images/{split}/Capture{c}/{sequence}/cam{camera}/image{frame}.jpg
    annotations/{split}/InterHand2.6M_{split}_{data,camera,joint_3d}.json
    annotations/{split}/InterHand2.6M_{split}_MANO_NeuralAnnot.json         optional: meshes

Millimetres in the world. A camera has its place and rotation: X_cam = camrot (X - campos). Joints 0 to 20 are the right
hand's, 21 to 41 the left's; each finger goes from tip to base, the wrist comes last; a joint that could not be annotated is
marked in joint_valid. MANO's parameters are relative to the mean pose (flat_hand_mean False) and in metres; those of left
hands are of MANO's left hand with the sign of shapedirs[:, 0] fixed, which is the mirror image of the right one.

There is no 2D annotation: what the cameras' poses are worth shows in the share of the truth inside the images.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.datasets.base import HandData, Recording
from usthand.datasets.mano import check_meshes, flat_pose, pose_meshes
from usthand.datasets.percamera import choose, rest_wrist_m, timeline
from usthand.evaluation.truth import Truth
from usthand.hand.model import HandModel
from usthand.hand.skeleton import INTERHAND_TO_OPENPOSE, SIDES

DATASET = "interhand26m"
SPLITS = ("train", "val", "test")
PROTOCOLS = ("all", "human")
ANNOTATION_FOLDERS = {"all": ("{split}", "all"), "human": ("{split}", "human_annot", "all")}
"""Where a protocol's annotation may lie, best first: version 1.0 has a folder for each split, 0.0 one for each protocol."""
OFFSETS = {"right": 0, "left": 21}
MM_PER_M = 1000.0
FPS, FPS_30 = 5.0, 30.0
MAX_WITHOUT_MESH = 0.1
TOLD_BYTES, BYTES_PER_MINUTE = 1e8, 5e8  # parsing has no progress to show: say how long it takes on one slow core
FIX = "download the annotations of InterHand2.6M again"

Images = dict[int, dict[str, "_Image"]]
"""[frame][camera]"""


class _Image(NamedTuple):
    file: str
    size: tuple[int, int]
    valid: bytes
    """joint_valid of the image's annotation, 42 numbers 0 or 1."""
    hand: str
    """right, left or interacting"""


def recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """Recordings of InterHand2.6M: `usthand.datasets.base` says what a reader is. One for each sequence of a capture;
    sequences without any image on disk are passed over, since the images come in parts.

    Raises:
        UsthandError: if the split or protocol is unknown, a file is missing or unreadable, or `hand` is not MANO's.
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
        frames = list(images)
        world = _world_joints(joints.get(capture, {}), frames, name)
        fits = mano.get(capture, {})
        found = [_hand(side, frames, images, rig, *world, fits, hand, name) for side in SIDES]
        hands, notes = zip(*(pair for pair in found if pair is not None), strict=True)
        note = "; ".join(text for text in notes if text)
        yield Recording(name, rig, fps, paths, hands, DATASET, protocol, split, note)


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


def _load(file: Path, hook: Any) -> dict[str, Any]:
    try:
        size = file.stat().st_size
        if size > TOLD_BYTES:
            print(
                f"Reading {file.name} ({size / 1e9:.1f} GB): about {max(1, round(size / BYTES_PER_MINUTE))} min.",
                file=sys.stderr,
            )
        with file.open() as opened:
            content = json.load(opened, object_hook=hook)
    except FileNotFoundError:
        raise UsthandError(f"there is no {file}", "the annotations are not unpacked whole", FIX) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsthandError(
            f"{file} cannot be read ({error})", "the download was cut short, or is of another release", FIX
        ) from error
    if not isinstance(content, dict):
        raise UsthandError(f"{file} holds no table", "it is of another release", FIX)
    return content


def _human_ids(root: Path, folder: Path, split: str) -> set[int]:
    """The annotations that people made, of which the makers list the ids."""
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

    Each entry is cut down as soon as it is read: the training split's file has a million and a half of each kind.
    """

    def compact(entry: dict[str, Any]) -> Any:
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


def _rig(
    folder: Path, images: Images, cameras: Mapping[str, Mapping[str, Any]], name: str
) -> tuple[tuple[tuple[Path | None, ...], ...], Rig | None]:
    """The images on disk, [frame][view], and the cameras that have any; None where no camera has."""
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


def _camera(camera: str, size: tuple[int, int], cameras: Mapping[str, Mapping[str, Any]], name: str) -> Camera:
    try:
        position, rotation, focal, centre = (
            np.array(cameras[key][camera], np.float64) for key in ("campos", "camrot", "focal", "princpt")
        )
        matrix = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
        u, _, vh = np.linalg.svd(rotation.reshape(3, 3))  # printed with few digits
        rotation = u @ vh
        translation = -rotation @ position.reshape(3) / MM_PER_M
    except (KeyError, ValueError, IndexError, np.linalg.LinAlgError) as error:
        raise UsthandError(
            f"camera {camera} of {name} has no usable pose ({error})", "the camera file is damaged", FIX
        ) from None
    return Camera(f"cam{camera}", *size, matrix, np.zeros(0), "pinhole", rotation, translation)


def _world_joints(annotated: Mapping[str, Any], frames: list[int], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(T, 42, 3) in metres and (T, 42) bool, in the data set's order; zeros where not annotated."""
    world, valid = np.zeros((len(frames), 42, 3)), np.zeros((len(frames), 42), bool)
    for t, frame in enumerate(frames):
        entry = annotated.get(str(frame))
        if entry is None:
            continue
        if np.shape(entry.get("world_coord")) != (42, 3) or np.size(entry.get("joint_valid")) != 42:
            raise UsthandError(f"frame {frame} of {name} has not 42 joints", "the annotation is damaged", FIX)
        valid[t] = entry["joint_valid"].ravel() > 0
        world[t] = np.where(valid[t, :, None], entry["world_coord"] / MM_PER_M, 0.0)
    return world, valid


# ---- one hand ------------------------------------------------------------------------------------------------------


def _hand(
    side: str,
    frames: list[int],
    images: Images,
    rig: Rig,
    world_m: np.ndarray,
    known: np.ndarray,
    fits: Mapping[str, Any],
    hand: HandModel | None,
    name: str,
) -> tuple[HandData, str] | None:
    """One side of a recording and a note on it; None where that hand is not in the images."""
    types = {image.hand for row in images.values() for image in row.values()}
    if not types & {side, "interacting"}:
        return None
    order = np.array(INTERHAND_TO_OPENPOSE) + OFFSETS[side]
    whole = known[:, order].all(1)
    joints = np.where(whole[:, None, None], world_m[:, order], 0.0)
    partial = int((known[:, order].any(1) & ~whole).sum())
    notes = [f"{partial} frames of the {side} hand are left without truth: a joint is not annotated"] if partial else []
    visible = np.zeros((len(frames), len(rig), 21), bool)
    for t, frame in enumerate(frames):
        for v, camera in enumerate(rig.names):
            image = images[frame].get(camera.removeprefix("cam"))
            if image is not None:
                visible[t, v] = np.frombuffer(image.valid, np.uint8)[order] > 0
    if not whole.any():
        return HandData(side), "; ".join(notes)
    truth, missing = Truth.of_joints(joints, visible, whole), 0
    if hand is not None and fits:
        model = hand if side == "right" else hand.mirrored()
        truth, missing = _with_mesh(truth, [(fits.get(str(frame)) or {}).get(side) for frame in frames], model, name)
    if missing and truth.has_mesh:
        notes.append(f"{missing} frames of the {side} hand are left without truth: they have no mesh")
    elif missing:
        notes.append(f"no meshes of the {side} hand: {missing} frames have none")
    return HandData(side, truth=truth), "; ".join(notes)


def _with_mesh(truth: Truth, fits: list[Mapping[str, Any] | None], model: HandModel, name: str) -> tuple[Truth, int]:
    """The truth with meshes and poses from MANO's parameters, and how many of its frames have none.

    Truth has meshes in all of its frames or in none: the frames without are given up if they are few, else the meshes.
    """
    has = np.array([fit is not None for fit in fits])
    missing = int((truth.valid & ~has).sum())
    if missing > MAX_WITHOUT_MESH * truth.valid.sum():
        return truth, missing
    valid = truth.valid & has
    at = np.flatnonzero(valid)
    given, shapes, shift = (
        np.stack([_parameter(fits[t], *want, name) for t in at]) for want in (("pose", 48), ("shape", 10), ("trans", 3))
    )
    given = flat_pose(model, given)
    mesh, joints = pose_meshes(model, given, shapes, shift)
    check_meshes(joints, truth.joints_world_m[at], np.ones(len(at), bool), name)
    count, shape = len(valid), np.median(shapes, axis=0)
    vertices, pose, translation = np.zeros((count, 778, 3), np.float32), np.zeros((count, 48)), np.zeros((count, 3))
    vertices[at], pose[at] = mesh, given
    # One shape for all frames: the wrist stays where each frame's own shape puts it.
    translation[at] = shift + rest_wrist_m(model, shapes) - rest_wrist_m(model, shape[None])
    joints_world_m = np.where(valid[:, None, None], truth.joints_world_m, 0.0)
    return Truth(joints_world_m, vertices, truth.visible, pose, shape, translation, valid), missing


def _parameter(fit: Mapping[str, Any], key: str, size: int, name: str) -> np.ndarray:
    values = np.asarray(fit.get(key, ()), np.float64).ravel()
    if len(values) != size or not np.isfinite(values).all():
        raise UsthandError(
            f"a mesh of {name} has no {size} numbers of {key}", "the file of MANO's parameters is damaged", FIX
        )
    return values
