"""DexYCB (Chao et al., CVPR 2021): hands that grasp objects, eight RGB-D cameras, 30 frames a second.

    20200709-subject-01/20200709_141754/meta.yml             serials, num_frames, extrinsics, mano_calib, mano_sides ...
                                        836212060125/color_000000.jpg, labels_000000.npz
    calibration/intrinsics/836212060125_640x480.yml          color: fx fy ppx ppy
    calibration/extrinsics_20200702_151821/extrinsics.yml    12 numbers per serial, camera to master, metres; apriltag
    calibration/mano_20200709-subject-01_right/mano.yml      betas

A label file has joint_3d (1, 21, 3) in its camera's frame, joint_2d (1, 21, 2) and pose_m (1, 51): rotation, 45
principal components, translation. Where the hand is not seen or was not annotated, joints are -1 and pose_m is 0. The
world is the master camera's frame.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from usthand.capture.calibration.dexycb import read_dexycb
from usthand.capture.calibration.documents import keys, numbers, read_yaml
from usthand.capture.rig import Rig, build_rig
from usthand.common.errors import UsthandError
from usthand.datasets.base import DatasetPart, HandData, Recording, present
from usthand.datasets.mano import ManoParameters, moved, official_left, pose_from_pca, truth_with_meshes
from usthand.datasets.reading import choose
from usthand.evaluation.truth import Truth
from usthand.hand.model import HandModel
from usthand.hand.skeleton import N_JOINTS, SIDES
from usthand.labels.labels import ANNOTATION, Labels

FPS = 30.0
WIDTH, HEIGHT = 640, 480
SEQUENCES = 100  # of each subject; the splits count them
SERIALS = tuple(
    "836212060125 839512060362 840412060917 841412060263 932122060857 932122060861 932122061900 932122062010".split()
)
_DAYS = (20200709, 20200813, 20200820, 20200903, 20200908, 20200918, 20200928, 20201002, 20201015, 20201022)
SUBJECTS = tuple(f"{day}-subject-{number:02d}" for number, day in enumerate(_DAYS, 1))
DATASET, MULTI_VIEW = "dexycb", "dexycb-mv"
SPLITS = ("train", "val", "test")
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

    joints_cam_m: Float[np.ndarray, "T V 21 3"]
    uv_px: Float[np.ndarray, "T V 21 2"]
    pose: Float[np.ndarray, "T V 51"]
    """As released."""
    known: Bool[np.ndarray, "T V"]
    """The camera has the hand's joints."""
    whole: Bool[np.ndarray, "T V"]
    """No coordinate of joint_2d is -1: what DexYCB-MV keeps."""


class Person(NamedTuple):
    """MANO's hand of the recording's side, and the person's shape."""

    model: HandModel
    betas: Float[np.ndarray, "10"]


def recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """One recording for each sequence of a split of the setup s0 (default), s1, s2 or s3; right and left hands.

    Every image is kept: a view without annotation is a view like any other. Truth is valid where a camera has it.

    Raises:
        UsthandError: If the folder is not DexYCB's, or split or setup is unknown.
    """
    part = DatasetPart(DATASET, choose(DATASET, "protocol", protocol, tuple(SETUPS)), split)
    for folder, serials in _sequences(root, part):
        yield _recording(root, folder, serials, part, hand)


def multi_view_recordings(
    root: Path, split: str, protocol: str = "", hand: HandModel | None = None
) -> Iterator[Recording]:
    """DexYCB-MV (Yang et al., POEM, CVPR 2023): the right hands of s0; views that lack a joint_2d are dropped.

    Raises:
        UsthandError: As `recordings`.
    """
    part = DatasetPart(MULTI_VIEW, choose(MULTI_VIEW, "protocol", protocol, MULTI_VIEW_SETUPS), split)
    for folder, serials in _sequences(root, part):
        if _side(folder, _meta(folder)) == "right":
            yield _recording(root, folder, serials, part, hand)


def _sequences(root: Path, part: DatasetPart) -> Iterator[tuple[Path, list[str]]]:
    subjects, views, places = SETUPS[part.protocol][choose(part.dataset, "split", part.split, SPLITS)]
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


def _recording(root: Path, folder: Path, serials: list[str], part: DatasetPart, hand: HandModel | None) -> Recording:
    meta = _meta(folder)
    side, frames = _side(folder, meta), _count(folder, meta)
    rig = _read_rig(root, str(meta["extrinsics"]), serials)
    annotation = _read_annotation(folder, serials, frames)
    images = _find_images(folder, serials)
    keep = annotation.whole if part.dataset == MULTI_VIEW else np.ones_like(annotation.known)
    rows = tuple(
        tuple(images.get((k, view)) if keep[k, view] else None for view in range(len(serials))) for k in range(frames)
    )
    usable = annotation.known & present(rows)
    uv = annotation.uv_px
    # A joint outside the image is annotated all the same; no detector can see it there.
    visible = ((uv > -0.5) & (uv < np.array([WIDTH, HEIGHT]) - 0.5)).all(-1) & usable[..., None]
    annotated = Labels(uv, visible.astype(np.float32), rig.names, side, ANNOTATION)
    person = None
    if hand is not None:
        person = Person(official_left(hand) if side == "left" else hand, _betas(root, folder, meta))
    truth = _truth(rig, annotation, usable, visible, person, folder.name) if usable.any() else None
    hands = (HandData(side, truth=truth, annotated=annotated),)
    return Recording(f"{folder.parent.name}_{folder.name}", rig, FPS, rows, hands, *part)


def _truth(
    rig: Rig,
    annotation: Annotation,
    usable: Bool[np.ndarray, "T V"],
    visible: Bool[np.ndarray, "T V 21"],
    person: Person | None,
    name: str,
) -> Truth:
    """The world joints of the first camera that has them: all cameras' were made from one hand in the world."""
    valid, view, row = np.any(usable, axis=1), usable.argmax(1), np.arange(len(usable))
    # x_world = R' (x_cam - t)
    rotation = np.stack([camera.rotation.T for camera in rig.cameras])[view]
    shift = np.stack([camera.centre_world for camera in rig.cameras])[view]
    joints = np.einsum("tij,tkj->tki", rotation, annotation.joints_cam_m[row, view]) + shift[:, None]
    truth = Truth.of_joints(np.where(valid[:, None, None], joints, 0.0).astype(np.float32), visible, valid)
    if person is None:
        return truth
    released = annotation.pose[row, view]
    pose = pose_from_pca(person.model, released[:, :3], released[:, 3:48])
    given = ManoParameters(pose, np.tile(person.betas, (len(pose), 1)), released[:, 48:])
    return truth_with_meshes(
        person.model, truth, moved(person.model, given, rotation, shift), f"sequence {name} of DexYCB"
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
        label = values[0].reshape(N_JOINTS, 3), values[1].reshape(N_JOINTS, 2), values[2].reshape(51)
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(file, f"cannot be read ({error})") from None
    if not all(np.isfinite(v).all() for v in label):
        raise _damaged(file, "holds a value that is not finite")
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
