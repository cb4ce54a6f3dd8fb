"""HO-3D v2 and v3 (Hampali et al., CVPR 2020, and arXiv 2107.00887) and HO3D-MV (Yang et al., POEM, CVPR 2023).

    {train,evaluation}/{sequence}/rgb/{id}.png (v2) or .jpg (v3)
    {train,evaluation}/{sequence}/meta/{id}.pkl
    train.txt, evaluation.txt                       lines sequence/id
    calibration/{stem}/calibration/{cam_orders.txt,trans_0.txt ...}        v3 only: camera to common frame, OpenCV axes

Joints are in MANO's order and OpenGL's axes: y and z change sign for ours. Poses have the flat hand as their zero.
Meshes come as MANO's parameters. The evaluation split gives the wrist alone. A recording of it has no truth unless the
files that the makers released later, evaluation_xyz.json and evaluation_verts.json (a row for each line of
evaluation.txt, in the same order and axes), lie beside evaluation.txt.

HO-3D v2 and v3 are single images: a recording is a sequence of one camera, which is the world. HO3D-MV is the
multi-view footage of v3: the sequences ABF10 to ABF14 are the five cameras of ABF1.

There are two readings of which calibration file belongs to which camera. HO-3D's own script takes trans_i.txt for the
camera `cam_orders[i]`; POEM takes trans_{cam_orders[c]}.txt for the camera c. They differ where the order is not a
swap. Here the annotated joints decide, for each recording, by how well the cameras' rays meet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.common.unpickle import ArrayUnpickler, load_pickle
from usthand.datasets.base import DatasetPart, HandData, ImageRows, Recording, check_recording, present
from usthand.datasets.mano import ManoParameters, check_meshes, pose_meshes
from usthand.datasets.percamera import (
    AGREEMENT_M,
    InWorld,
    annotated_joints,
    joints_in_world,
    turn_root,
    world_from_camera,
)
from usthand.datasets.reading import checked_numbers, choose, nearest_rotation, pinhole_camera, read_json, timeline
from usthand.evaluation.truth import Truth
from usthand.hand.model import HandModel
from usthand.hand.skeleton import MANO_TO_OPENPOSE

V2, V3, MV = "ho3d-v2", "ho3d-v3", "ho3d-mv"
SIZE = (640, 480)
FPS = 30.0
SIDE = "right"
SPLITS = ("train", "evaluation", "test")
MV_STEMS = {"train": ("ABF1", "BB1", "GSF1", "MDF1", "SiBF1"), "test": ("GPMF1", "SB1")}
MV_CAMERAS = range(5)
OPENCV_FROM_OPENGL = np.array([1.0, -1.0, -1.0])
XYZ_FILE, VERTS_FILE = "evaluation_xyz.json", "evaluation_verts.json"
CHECKED_FRAMES = 50  # enough for a median; all would only take longer
MAX_RESIDUAL_PX = 5.0
FIX = "download HO-3D again and keep its layout"


def v2_recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """Recordings of HO-3D v2: `usthand.datasets.base` says what a reader is.

    Raises:
        UsthandError: If the split or protocol is unknown, a file is missing or unreadable, or `hand` is not MANO's.
    """
    return _single(V2, root, split, protocol, hand)


def v3_recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """Recordings of HO-3D v3; raises as `v2_recordings`."""
    return _single(V3, root, split, protocol, hand)


def _single(dataset: str, root: Path, split: str, protocol: str, hand: HandModel | None) -> Iterator[Recording]:
    protocol = choose(dataset, "protocol", protocol, ("single",))
    part = DatasetPart(dataset, protocol, choose(dataset, "split", split, SPLITS))
    folder = "evaluation" if part.split == "test" else part.split
    released = _read_released(root) if folder == "evaluation" else None
    for sequence, ids in sorted(_listed(root, folder).items()):
        views = _read_views(root, {sequence: (folder, ids)})
        if views is not None:
            views = views if released is None else _with_released(views, sequence, released)
            yield _recording(sequence, views, _rig(views, [np.eye(4)]), part, hand)


def mv_recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """Recordings of HO3D-MV, of five cameras.

    Two cameras of SB1 are in the evaluation split; the others have the annotation of the same instants.

    Raises:
        UsthandError: As `v2_recordings`, or if no reading of the calibration lets the cameras' rays meet.
    """
    protocol = choose(MV, "protocol", protocol, ("poem",))
    part = DatasetPart(MV, protocol, choose(MV, "split", split, tuple(MV_STEMS)))
    folders = ("train",) if part.split == "train" else ("train", "evaluation")
    listed = {folder: _listed(root, folder) for folder in folders}
    for stem in MV_STEMS[part.split]:
        names = [f"{stem}{camera}" for camera in MV_CAMERAS]
        views = _read_views(root, {n: (f, listed[f][n]) for n in names for f in folders if n in listed[f]})
        if views is None:
            continue
        rig, note = _calibrated(stem, views, root / "calibration" / stem / "calibration")
        recording = _recording(stem, views, rig, part, hand)
        yield replace(recording, note="; ".join(part for part in (note, recording.note) if part))


def _listed(root: Path, folder: str) -> dict[str, set[str]]:
    """Ids of each sequence of `train.txt` or `evaluation.txt`."""
    file = root / f"{folder}.txt"
    if not file.is_file():
        raise UsthandError(
            f"there is no {file}", "the folder is not HO-3D's", "give the folder with train/ and evaluation/"
        )
    found = defaultdict(set)
    for line in file.read_text().split():
        sequence, _, number = line.partition("/")
        if not sequence or not number or "/" in number:
            raise UsthandError(f"{file} has the line {line!r}", "a line is sequence/id", FIX)
        found[sequence].add(number)
    return dict(found)


# ---- what is on disk -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Views:
    """One instant after the other as each camera has it; OpenCV's axes, metres."""

    names: tuple[str, ...]
    ids: tuple[str, ...]
    images: ImageRows
    matrices: Float[np.ndarray, "V 3 3"]
    known: Bool[np.ndarray, "T V"]
    """All joints are annotated."""
    joints_cam_m: Float[np.ndarray, "T V 21 3"]
    """OpenPose's order."""
    pose: Float[np.ndarray, "T V 48"]
    """In OpenGL's axes, as annotated."""
    shape: Float[np.ndarray, "T V 10"]
    translation_m: Float[np.ndarray, "T V 3"]
    """In OpenGL's axes."""
    wrist_cam_m: Float[np.ndarray, "T V 3"]
    """Where the wrist alone is annotated, else zero."""
    mesh_cam_m: Float[np.ndarray, "T 1 778 3"] | Float[np.ndarray, "0 778 3"] | None = None
    """Released meshes in place of MANO's parameters; empty where only joints were released."""


def _read_views(root: Path, listed: Mapping[str, tuple[str, set[str]]]) -> _Views | None:
    """Images and annotations of sequences, each listed with its split's folder and its ids; None without any image."""
    folders = {name: root / folder / name for name, (folder, _) in listed.items()}
    ids = _times(set().union(*(numbers for _, numbers in listed.values())))
    images = [_images(folder) for folder in folders.values()]
    wanted = [numbers for _, numbers in listed.values()]
    rows = tuple(tuple(i.get(n) if n in w else None for i, w in zip(images, wanted, strict=True)) for n in ids)
    if not any(path for row in rows for path in row):
        return None
    shape = (len(ids), len(folders))
    known, matrices = np.zeros(shape, bool), np.zeros((len(folders), 3, 3))
    joints, pose = np.zeros((*shape, 21, 3)), np.zeros((*shape, 48))
    betas, translation, wrist = np.zeros((*shape, 10)), np.zeros((*shape, 3)), np.zeros((*shape, 3))
    for v, folder in enumerate(folders.values()):
        for t, number in enumerate(ids):
            path = folder / "meta" / f"{number}.pkl"
            if number not in wanted[v] or not path.is_file():
                continue
            meta = _Annotation(load_pickle(path, ArrayUnpickler, "an annotation of HO-3D", FIX), path)
            _take_matrix(matrices[v], meta)
            given = meta.entry("handJoints3D")
            if given is None:  # not annotated
                continue
            if np.size(np.asarray(given)) == 3:
                wrist[t, v] = meta.numbers("handJoints3D", 3) * OPENCV_FROM_OPENGL
                continue
            known[t, v] = True
            joints[t, v] = meta.numbers("handJoints3D", 21, 3)[list(MANO_TO_OPENPOSE)] * OPENCV_FROM_OPENGL
            pose[t, v], betas[t, v] = meta.numbers("handPose", 48), meta.numbers("handBeta", 10)
            translation[t, v] = meta.numbers("handTrans", 3)
    for folder, matrix in zip(folders.values(), matrices, strict=True):
        if matrix[2, 2] == 0:
            raise UsthandError(f"{folder} has no camMat", "its meta folder is missing", FIX)
    return _Views(tuple(folders), ids, rows, matrices, known, joints, pose, betas, translation, wrist)


def _times(ids: set[str]) -> tuple[str, ...]:
    """The ids in order and those between them that are not annotated."""
    if not all(number.isdigit() for number in ids):
        return tuple(sorted(ids))
    return tuple(str(number).zfill(len(min(ids, key=len))) for number in timeline(map(int, ids)))


def _images(folder: Path) -> dict[str, Path]:
    rgb = folder / "rgb"
    found = sorted(rgb.iterdir()) if rgb.is_dir() else []
    return {path.stem: path for path in found if path.suffix in (".png", ".jpg")}


@dataclass(frozen=True)
class _Annotation:
    """What a file in meta/ holds."""

    content: object
    path: Path

    def entry(self, key: str) -> object:
        if not isinstance(self.content, dict) or key not in self.content:
            raise UsthandError(f"{self.path} has no {key}", "it is of another release", FIX)
        return self.content[key]

    def numbers(self, key: str, *shape: int) -> np.ndarray:
        return checked_numbers(self.entry(key), shape, f"{key} in {self.path}", FIX)


def _take_matrix(matrix: Float[np.ndarray, "3 3"], meta: _Annotation) -> None:
    """Fill in the intrinsics of the first annotation that has them; the others must have the same."""
    if meta.entry("camMat") is None:
        return
    found = meta.numbers("camMat", 3, 3)
    if matrix[2, 2] == 0:
        matrix[:] = found
    elif np.abs(matrix - found).max() > 1e-3:
        raise UsthandError(
            f"{meta.path} has another camMat than the sequence", "files of several sequences are mixed", FIX
        )


# ---- the evaluation split's truth, released later ------------------------------------------------------------------


@dataclass(frozen=True)
class _Released:
    row: dict[tuple[str, str], int]
    """The row of each sequence and id."""
    joints_m: Float[np.ndarray, "rows 21 3"]
    """MANO's order, OpenGL's axes."""
    vertices_m: Float[np.ndarray, "rows_or_none 778 3"]


def _read_released(root: Path) -> _Released | None:
    """None where the joints are not there."""
    places = [folder for folder in (root, root.with_name(f"{root.name}_official_gt")) if (folder / XYZ_FILE).is_file()]
    if not places:
        return None
    split = (line.partition("/") for line in (root / "evaluation.txt").read_text().split())
    lines = [(sequence, number) for sequence, _, number in split]
    joints = _read_rows(places[0] / XYZ_FILE, (len(lines), 21, 3))
    file = places[0] / VERTS_FILE
    vertices = _read_rows(file, (len(lines), 778, 3)) if file.is_file() else np.zeros((0, 778, 3), np.float32)
    return _Released({line: row for row, line in enumerate(lines)}, joints, vertices)


def _read_rows(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    content = read_json(file, FIX)
    try:
        array = np.asarray(content, np.float32)
    except (ValueError, TypeError):
        array = np.zeros(0, np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise UsthandError(
            f"{file} has the shape {array.shape}, not {shape}",
            "it is of the other version of HO-3D",
            "take the file of the version that evaluation.txt is of, or remove it",
        )
    return array


def _with_released(views: _Views, sequence: str, released: _Released) -> _Views:
    """The views of one camera with the released truth, which must have the wrist where the annotation has it."""
    listed = np.array([(sequence, number) in released.row for number in views.ids])
    rows = [released.row.get((sequence, number), 0) for number in views.ids]
    joints = released.joints_m[rows][:, None, list(MANO_TO_OPENPOSE)] * OPENCV_FROM_OPENGL
    given = views.wrist_cam_m.any(-1)
    apart = np.linalg.norm(joints[:, :, 0] - views.wrist_cam_m, axis=-1)[given]
    if len(apart) and np.median(apart) > AGREEMENT_M:
        raise UsthandError(
            f"the released wrists of {sequence} lie {1000 * np.median(apart):.0f} mm from the annotated ones",
            "the rows of evaluation_xyz.json are not the lines of evaluation.txt",
            FIX,
        )
    mesh = released.vertices_m[rows][:, None] * OPENCV_FROM_OPENGL if len(released.vertices_m) else released.vertices_m
    return replace(views, known=listed[:, None], joints_cam_m=joints, mesh_cam_m=mesh)


# ---- recordings ----------------------------------------------------------------------------------------------------


def _rig(views: _Views, world_from_cam: list[np.ndarray]) -> Rig:
    cameras = []
    for name, matrix, pose in zip(views.names, views.matrices, world_from_cam, strict=True):
        rotation = nearest_rotation(pose[:3, :3]).T
        cameras.append(pinhole_camera(name, SIZE, matrix, rotation, -rotation @ pose[:3, 3]))
    return Rig(tuple(cameras))


def _recording(name: str, views: _Views, rig: Rig, part: DatasetPart, hand: HandModel | None) -> Recording:
    if not views.known.any():
        note = "no truth: the annotation has the wrist alone"
        return Recording(name, rig, FPS, views.images, (HandData(SIDE),), *part, note)
    found = joints_in_world(views.joints_cam_m, views.known, rig, name)
    annotated = annotated_joints(views.joints_cam_m, views.known, rig, SIDE)
    truth = _truth(name, views, rig, found, annotated.mask & present(views.images)[..., None], hand)
    return Recording(name, rig, FPS, views.images, (HandData(SIDE, None, truth, annotated),), *part, found.note)


def _truth(
    name: str, views: _Views, rig: Rig, found: InWorld, visible: Bool[np.ndarray, "T V 21"], hand: HandModel | None
) -> Truth:
    """Released meshes, or parameters and mesh of the first view that has them; from OpenGL's axes into the world."""
    valid = found.valid
    if views.mesh_cam_m is not None:
        truth = Truth.of_joints(found.joints_world_m, visible, valid)
        mesh = views.mesh_cam_m
        if not len(mesh):
            return truth
        world = world_from_camera(mesh[:, 0], rig.cameras[0])
        return replace(truth, vertices_world_m=np.where(valid[:, None, None], world, 0.0))
    count = len(valid)
    pose, betas, rest = np.zeros((count, 48)), np.zeros((count, 10)), np.zeros((count, 3))
    vertices = np.zeros((count if hand else 0, 778, 3), np.float32)
    first = views.known.argmax(1)
    for v, camera in enumerate(rig.cameras):
        at = np.flatnonzero(valid & (first == v))
        if not len(at):
            continue
        given = ManoParameters(views.pose[at, v], views.shape[at, v], views.translation_m[at, v])
        joints = views.joints_cam_m[at, v] * OPENCV_FROM_OPENGL
        betas[at] = given.shape
        pose[at] = turn_root(given.pose, camera.rotation.T * OPENCV_FROM_OPENGL)
        rest[at] = joints[:, 0] - given.translation_m  # the wrist of the unposed hand
        if hand is not None:
            mesh, model_joints = pose_meshes(hand, given)
            check_meshes(model_joints, joints, name)
            vertices[at] = world_from_camera(mesh * OPENCV_FROM_OPENGL, camera)
    shape = np.median(betas[valid], axis=0) if valid.any() else np.zeros(10)
    translation = np.where(valid[:, None], found.joints_world_m[:, 0] - rest, 0.0)
    return Truth(found.joints_world_m, vertices, visible, pose, shape, translation, valid)


# ---- which calibration file is whose -------------------------------------------------------------------------------


def _calibrated(stem: str, views: _Views, folder: Path) -> tuple[Rig, str]:
    """The cameras under the reading of the calibration whose rays meet best, and a sentence on which that is."""
    poses, readings = _calibration(folder, views.names)
    rigs = {reading: _rig(views, [poses[i] for i in files]) for reading, files in readings.items()}
    residuals = {reading: px for reading, rig in rigs.items() if (px := _residual_px(views, rig)) is not None}
    if not residuals:
        best = next(iter(rigs))
        return rigs[best], f"calibration: {best} (not checked: no instant has two annotated views)"
    best = min(residuals, key=lambda reading: residuals[reading])
    if residuals[best] > MAX_RESIDUAL_PX:
        raise UsthandError(
            f"no reading of the calibration of {stem} lets its cameras' rays meet ({residuals[best]:.0f} px at best)",
            "calibration and annotations are of different releases",
            FIX,
        )
    others = "; ".join(f"{r}: {px:.2f} px" for r, px in residuals.items() if readings[r] != readings[best])
    note = f"calibration: {best}, residual {residuals[best]:.2f} px" + (f" ({others})" if others else "")
    return rigs[best], note


def _calibration(folder: Path, names: tuple[str, ...]) -> tuple[list[np.ndarray], dict[str, list[int]]]:
    """The files' poses, and for each reading the file of each camera."""
    try:
        order = [int(float(number)) for number in (folder / "cam_orders.txt").read_text().split()]
        poses = [np.loadtxt(folder / f"trans_{i}.txt").reshape(4, 4) for i in range(len(order))]
    except (OSError, ValueError) as error:
        raise UsthandError(
            f"the calibration in {folder} cannot be read ({error})",
            "it comes with version 3 only, as a download of its own",
            "unpack calibration/ beside train/ and evaluation/",
        ) from error
    numbers = [int(name[-1]) for name in names]
    if sorted(order) != list(range(len(order))) or not set(numbers) <= set(order):
        raise UsthandError(f"{folder / 'cam_orders.txt'} lists {order}", f"the cameras are {numbers}", FIX)
    return poses, {
        "trans_i is of camera cam_orders[i]": [order.index(c) for c in numbers],
        "trans_{cam_orders[c]} is of camera c": [order[c] for c in numbers],
        "trans_c is of camera c": list(numbers),
    }


def _residual_px(views: _Views, rig: Rig) -> float | None:
    """Median distance of the annotated 2D joints from the points triangulated from them; None without two views."""
    several = np.flatnonzero(views.known.sum(1) > 1)
    if not len(several):
        return None
    at = several[np.linspace(0, len(several) - 1, min(CHECKED_FRAMES, len(several))).astype(int)]
    annotated = annotated_joints(views.joints_cam_m[at], views.known[at], rig, SIDE)
    # An annotation counts here even without its image.
    shown = tuple((Path("-"),) * len(rig) for _ in at)
    probe = Recording("probe", rig, FPS, shown, (HandData(SIDE, annotated=annotated),), MV, "", "")
    return check_recording(probe)[SIDE]["residual_px"]
