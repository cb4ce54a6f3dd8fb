"""DexYCB (Chao et al., CVPR 2021): hands that grasp objects, eight RGB-D cameras, 30 frames a second.

    20200709-subject-01/20200709_141754/meta.yml             serials, num_frames, extrinsics, mano_calib, mano_sides ...
                                        836212060125/color_000000.jpg, labels_000000.npz
    calibration/intrinsics/836212060125_640x480.yml          color: fx fy ppx ppy
    calibration/extrinsics_20200702_151821/extrinsics.yml    12 numbers per serial, camera to master, metres; apriltag
    calibration/mano_20200709-subject-01_right/mano.yml      betas

A label file has joint_3d (1, 21, 3) in its camera's frame, joint_2d (1, 21, 2) and pose_m (1, 51): rotation, 45 principal
components, translation. Where the hand is not seen or was not annotated, joints are -1 and pose_m is 0. The world is the
master camera's frame.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from usthand.capture.calibration.dexycb import read_dexycb
from usthand.capture.calibration.documents import keys, numbers, read_yaml
from usthand.capture.rig import Rig, build_rig
from usthand.common.errors import UsthandError
from usthand.datasets.base import HandData, Recording
from usthand.datasets.mano import check_meshes, moved, official_left, pose_from_pca, pose_meshes
from usthand.evaluation.truth import Truth
from usthand.hand.model import HandModel
from usthand.hand.skeleton import N_JOINTS, SIDES
from usthand.labels.labels import ANNOTATION, Labels

FPS = 30.0
WIDTH, HEIGHT = 640, 480
SEQUENCES = 100  # of each subject; the splits count them
SERIALS = (
    "836212060125",
    "839512060362",
    "840412060917",
    "841412060263",
    "932122060857",
    "932122060861",
    "932122061900",
    "932122062010",
)
SUBJECTS = (
    "20200709-subject-01",
    "20200813-subject-02",
    "20200820-subject-03",
    "20200903-subject-04",
    "20200908-subject-05",
    "20200918-subject-06",
    "20200928-subject-07",
    "20201002-subject-08",
    "20201015-subject-09",
    "20201022-subject-10",
)
_SEQUENCE = re.compile(r"\d{8}_\d{6}$")
_ALL_SUBJECTS, _ALL_VIEWS, _ALL = range(10), range(8), tuple(range(SEQUENCES))
_FIFTH, _OTHERS = tuple(i for i in _ALL if i % 5 == 4), tuple(i for i in _ALL if i % 5 != 4)


def _of_objects(*objects: int) -> tuple[int, ...]:
    """Sequences of some of the 20 objects, each grasped five times in a row."""
    return tuple(i for i in _ALL if i // 5 in objects)


SETUPS: dict[str, dict[str, tuple]] = {
    "s0": {
        "train": (_ALL_SUBJECTS, _ALL_VIEWS, _OTHERS),
        "val": ((0, 1), _ALL_VIEWS, _FIFTH),
        "test": (range(2, 10), _ALL_VIEWS, _FIFTH),
    },
    "s1": {
        "train": ((0, 1, 2, 3, 4, 5, 9), _ALL_VIEWS, _ALL),
        "val": ((6,), _ALL_VIEWS, _ALL),
        "test": ((7, 8), _ALL_VIEWS, _ALL),
    },
    "s2": {
        "train": (_ALL_SUBJECTS, range(6), _ALL),
        "val": (_ALL_SUBJECTS, (6,), _ALL),
        "test": (_ALL_SUBJECTS, (7,), _ALL),
    },
    "s3": {
        "train": (_ALL_SUBJECTS, _ALL_VIEWS, tuple(i for i in _ALL if i // 5 not in (3, 7, 11, 15, 19))),
        "val": (_ALL_SUBJECTS, _ALL_VIEWS, _of_objects(3, 19)),
        "test": (_ALL_SUBJECTS, _ALL_VIEWS, _of_objects(7, 11, 15)),
    },
}
"""The official setups: subjects, cameras and sequences (by their place in the sorted folder) of each split."""
MULTI_VIEW_SETUPS = ("s0", "s1", "s3")


@dataclass(frozen=True)
class Annotation:
    """All label files of a sequence; rows without annotation are zeros and not `known`."""

    joints_cam_m: np.ndarray
    """(T, V, 21, 3)"""
    uv_px: np.ndarray
    """(T, V, 21, 2)"""
    pose: np.ndarray
    """(T, V, 51) as released."""
    known: np.ndarray
    """(T, V) the camera has the hand's joints."""
    whole: np.ndarray
    """(T, V) no coordinate of joint_2d is -1: what DexYCB-MV keeps."""


def recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """One recording for each sequence of a split of the setup s0 (default), s1, s2 or s3; right and left hands.

    Every image is kept: a view without annotation is a view like any other. Truth is valid where a camera has it.

    Raises:
        UsthandError: if the folder is not DexYCB's, or split or setup is unknown.
    """
    setup = protocol or "s0"
    for folder, serials in _sequences(root, setup, split, tuple(SETUPS)):
        yield _recording(root, folder, serials, "dexycb", setup, split, hand, drop=False)


def multi_view_recordings(
    root: Path, split: str, protocol: str = "", hand: HandModel | None = None
) -> Iterator[Recording]:
    """DexYCB-MV (Yang et al., POEM, CVPR 2023): the right hands of s0; a view counts only where all its joint_2d are there.

    Raises:
        UsthandError: as `recordings`.
    """
    setup = protocol or "s0"
    for folder, serials in _sequences(root, setup, split, MULTI_VIEW_SETUPS):
        if _side(folder, _meta(folder)) == "right":
            yield _recording(root, folder, serials, "dexycb-mv", setup, split, hand, drop=True)


def _sequences(root: Path, setup: str, split: str, setups: tuple[str, ...]) -> Iterator[tuple[Path, list[str]]]:
    if setup not in setups:
        raise UsthandError(f"there is no setup {setup!r} here", f"there are {', '.join(setups)}", "choose one of these")
    if split not in SETUPS[setup]:
        raise UsthandError(f"DexYCB has no split {split!r}", "there are train, val and test", "choose one of these")
    subjects, views, places = SETUPS[setup][split]
    here = [root / SUBJECTS[i] for i in subjects if (root / SUBJECTS[i]).is_dir()]
    if not (root / "calibration").is_dir() or not here:
        raise UsthandError(
            f"{root} has no {'subject of the split' if (root / 'calibration').is_dir() else 'folder calibration'}",
            "it is not DexYCB's folder, or an archive is not unpacked",
            "see docs/datasets.md for the layout",
        )
    for subject in here:
        found = sorted(p for p in subject.iterdir() if _SEQUENCE.match(p.name))
        if len(found) != SEQUENCES:
            raise UsthandError(
                f"{subject} has {len(found)} sequences, not {SEQUENCES}",
                "the splits count a subject's sequences, so a missing one would shift all that follow",
                "unpack the whole subject; sequences that you lack space for may be left as empty folders",
            )
        for place in places:
            if (found[place] / "meta.yml").is_file():
                yield found[place], [SERIALS[view] for view in views]


def _recording(
    root: Path,
    folder: Path,
    serials: list[str],
    dataset: str,
    setup: str,
    split: str,
    hand: HandModel | None,
    drop: bool,
) -> Recording:
    meta = _meta(folder)
    side, frames = _side(folder, meta), _count(folder, meta)
    rig = _read_rig(root, str(meta["extrinsics"]), serials)
    annotation = _read_annotation(folder, serials, frames)
    images = _find_images(folder, serials)
    keep = annotation.whole if drop else np.ones_like(annotation.known)
    rows = tuple(
        tuple(images.get((k, view)) if keep[k, view] else None for view in range(len(serials))) for k in range(frames)
    )
    here = np.array([[image is not None for image in row] for row in rows])
    betas = _betas(root, folder, meta) if hand is not None else None
    hands = (_hand(rig, annotation, here, side, betas, hand, folder.name),)
    return Recording(f"{folder.parent.name}_{folder.name}", rig, FPS, rows, hands, dataset, setup, split)


def _hand(
    rig: Rig,
    annotation: Annotation,
    here: np.ndarray,
    side: str,
    betas: np.ndarray | None,
    hand: HandModel | None,
    name: str,
) -> HandData:
    uv = annotation.uv_px
    inside = ((uv > -0.5) & (uv < np.array([WIDTH, HEIGHT]) - 0.5)).all(-1)
    # A joint outside the image is annotated all the same; no detector can see it there.
    seen = inside & (annotation.known & here)[..., None]
    annotated = Labels(uv, seen.astype(np.float32), rig.names, side, ANNOTATION)
    return HandData(side, truth=_truth(rig, annotation, here, seen, side, betas, hand, name), annotated=annotated)


# ---- truth ---------------------------------------------------------------------------------------------------------


def _truth(
    rig: Rig,
    annotation: Annotation,
    here: np.ndarray,
    visible: np.ndarray,
    side: str,
    betas: np.ndarray | None,
    hand: HandModel | None,
    name: str,
) -> Truth | None:
    """The joints of the first camera that has them (all were made from one hand in the world), in the world."""
    usable = annotation.known & here
    valid = usable.any(1)
    if not valid.any():
        return None
    view, row = usable.argmax(1), np.arange(len(valid))
    # x_world = R' (x_cam - t)
    rotation = np.stack([camera.rotation.T for camera in rig.cameras])[view]
    shift = np.stack([camera.centre_world for camera in rig.cameras])[view]
    joints = np.einsum("tij,tkj->tki", rotation, annotation.joints_cam_m[row, view]) + shift[:, None]
    joints = np.where(valid[:, None, None], joints, 0.0)
    if hand is None:
        return Truth.of_joints(joints.astype(np.float32), visible, valid)
    model = official_left(hand) if side == "left" else hand
    released = annotation.pose[row, view]
    pose = pose_from_pca(model, released[:, :3], released[:, 3:48])
    pose, translation = moved(model, pose, betas, released[:, 48:], rotation, shift)
    vertices, model_joints = pose_meshes(model, pose, np.broadcast_to(betas, (len(pose), 10)), translation)
    check_meshes(model_joints, joints, valid, f"sequence {name} of DexYCB")
    known = valid[:, None]
    return Truth(
        joints.astype(np.float32),
        np.where(known[..., None], vertices, 0.0).astype(np.float32),
        visible,
        np.where(known, pose, 0.0).astype(np.float32),
        betas.astype(np.float32),
        np.where(known, translation, 0.0).astype(np.float32),
        valid,
    )


# ---- files ---------------------------------------------------------------------------------------------------------


def _find_images(folder: Path, serials: list[str]) -> dict[tuple[int, int], Path]:
    """Images by (frame, view)."""
    found = {}
    for view, serial in enumerate(serials):
        for path in (folder / serial).glob("color_*.jpg"):
            number = path.stem.removeprefix("color_")
            if number.isdigit():
                found[int(number), view] = path
    return found


def _read_annotation(folder: Path, serials: list[str], frames: int) -> Annotation:
    shape = (frames, len(serials))
    joints, uv, pose = np.zeros((*shape, N_JOINTS, 3)), np.zeros((*shape, N_JOINTS, 2)), np.zeros((*shape, 51))
    known, whole = np.zeros(shape, bool), np.zeros(shape, bool)
    for view, serial in enumerate(serials):
        for frame in range(frames):
            label = _read_label(folder / serial / f"labels_{frame:06d}.npz")
            if label is None:
                continue
            whole[frame, view] = not (label[1] == -1).any()
            if not (label[0] == -1).all():
                joints[frame, view], uv[frame, view], pose[frame, view] = label
                known[frame, view] = True
    return Annotation(joints, uv, pose, known, whole)


def _read_label(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """joint_3d (21, 3), joint_2d (21, 2) and pose_m (51,) as released, or None where there is no file."""
    try:
        with np.load(file, allow_pickle=False) as data:
            values = tuple(np.asarray(data[key], np.float64) for key in ("joint_3d", "joint_2d", "pose_m"))
        label = tuple(v.reshape(s) for v, s in zip(values, ((N_JOINTS, 3), (N_JOINTS, 2), (51,)), strict=True))
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(file, f"cannot be read ({error})") from None
    if not all(np.isfinite(v).all() for v in label):
        raise _damaged(file, "holds something that is no number")
    return label


def _read_rig(root: Path, extrinsics: str, serials: list[str]) -> Rig:
    """The cameras of a sequence, in the order of `serials`."""
    file = root / "calibration" / f"extrinsics_{extrinsics}" / "extrinsics.yml"
    rig = build_rig(read_dexycb(file)) if file.is_file() else None
    if rig is None or not set(serials) <= set(rig.names):
        missing = serials if rig is None else sorted(set(serials) - set(rig.names))
        raise _damaged(file, f"has no pose of {', '.join(missing)}" if rig else "is missing")
    return replace(rig, cameras=tuple(rig.cameras[rig.index(serial)] for serial in serials))


def _meta(folder: Path) -> dict[str, Any]:
    file = folder / "meta.yml"
    return keys(file, "it", read_yaml(file), ("extrinsics", "num_frames", "mano_sides"))


def _side(folder: Path, meta: dict[str, Any]) -> str:
    sides = meta["mano_sides"]
    if not isinstance(sides, list) or len(sides) != 1 or sides[0] not in SIDES:
        raise _damaged(folder / "meta.yml", f"has mano_sides {sides!r}, not one side")
    return sides[0]


def _count(folder: Path, meta: dict[str, Any]) -> int:
    text = str(meta["num_frames"])
    if not text.isdigit() or int(text) < 1:
        raise _damaged(folder / "meta.yml", f"has num_frames {text!r}")
    return int(text)


def _betas(root: Path, folder: Path, meta: dict[str, Any]) -> np.ndarray:
    names = meta.get("mano_calib")
    if not isinstance(names, list) or len(names) != 1:
        raise _damaged(folder / "meta.yml", f"has mano_calib {names!r}, not one name")
    file = root / "calibration" / f"mano_{names[0]}" / "mano.yml"
    return numbers(file, "betas", keys(file, "it", read_yaml(file), ("betas",))["betas"], 10)


def _damaged(file: Path, fact: str) -> UsthandError:
    return UsthandError(f"{file} {fact}", "it is damaged, or of another data set", "unpack DexYCB's archive again")
