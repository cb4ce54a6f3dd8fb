"""HanCo (Zimmermann, Argus, Brox: Contrastive Representation Learning for Hand Shape Estimation, GCPR 2021).

    rgb/0110/cam3/00000024.jpg          224x224 crops around the hand; rgb_merged/ and others: other backgrounds
    rgb_2D_keypoints/0110/cam3/00000024.json   HaMuCo's pseudo-labels: [21 x [u, v], 21 confidences]
    calib/0110/00000024.json            {"K": 8 x 3x3, "M": 8 x 4x4}, world to camera, metres
    xyz/0110/00000024.json              21 x 3, metres, world, OpenPose's order
    shape/0110/00000024.json            {"poses": 1x48, "shapes": 1x10, "global_t": 1x1x3}, world
    meta.json                           is_train, is_valid, has_fit ...: [sequence][frame]

The crops follow the hand, so K changes from frame to frame while the camera stands still. The recording gets one
virtual camera for each, in whose image every crop has its place (`usthand.capture.capture.ImageRef`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.capture.capture import ImageRef
from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.datasets.base import DatasetPart, HandData, ImageRows, Recording, present
from usthand.datasets.mano import ManoParameters, flat_pose, truth_with_meshes
from usthand.datasets.reading import checked_numbers, choose, nearest_rotation, pinhole_camera, read_json
from usthand.evaluation.truth import Truth
from usthand.geometry.cameras import project
from usthand.hand.model import HandModel
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.labels import Labels

DATASET = "hanco"
SYNTHETIC = "synthetic.txt"
"""A file in the root of what `usthand synth --layout hanco` writes: no figure of a paper is set beside it."""
PROTOCOLS = ("hamuco", "official")
SPLITS = ("train", "test")
IMAGE_PX = 224
FPS = 30.0  # the release does not say; it scales accelerations and how much the fit smooths, nothing else
FIRST_TEST = 1200  # HaMuCo trains on the sequences before this one
IMAGES = {"train": "rgb", "test": "rgb_merged"}  # of HaMuCo's protocol
KEYPOINTS = ("rgb_2D_keypoints", "rgb_2d_keypoints")  # HaMuCo's code and its README disagree
SIDE = "right"
DETECTOR = "openpose"
STILL_M = 1e-3  # how far a camera may seem to move within a sequence
SAME_K = 1e-6  # relative
SQUARE = 1e-3  # fy / fx may vary by so much (relative) in a sequence
MAX_CANVAS_PX = 8192
FIX = "unpack HanCo's archive again"
FIX_CALIBRATION = "unpack HanCo_calib_meta.zip again"

ImagesByFrame = dict[tuple[int, int], Path]
"""By (frame, camera)."""


class FrameCalibration(NamedTuple):
    """All cameras of one frame."""

    matrix: Float[np.ndarray, "V 3 3"]
    cam_from_world: Float[np.ndarray, "V 4 4"]


class PlacedCrops(NamedTuple):
    """The virtual camera of one view, and x, y, scale of each frame's crop in its image."""

    camera: Camera
    places: Float[np.ndarray, "T 3"]


@dataclass(frozen=True)
class SequenceFiles:
    """Where a sequence's files are, and where its crops lie in the virtual cameras' images."""

    root: Path
    name: str
    rig: Rig
    places: Float[np.ndarray, "T V 3"]
    images: ImageRows

    def file(self, kind: str, frame: int) -> Path:
        """The frame's JSON file of a kind."""
        return self.root / kind / self.name / f"{frame:08d}.json"


def recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """One recording for each sequence of a split.

    The protocol "hamuco" (default) trains on the sequences before 1200 in `rgb` and tests on the rest in `rgb_merged`,
    with truth in every frame that has joints. With "official", `is_train` of meta.json tells the splits apart and
    `is_valid` the frames with validated truth; the images of both are in `rgb`.

    Raises:
        UsthandError: If the folder is not HanCo's, or split or protocol is unknown.
    """
    protocol, split = choose(DATASET, "protocol", protocol, PROTOCOLS), choose(DATASET, "split", split, SPLITS)
    images_of = IMAGES[split] if protocol == "hamuco" else "rgb"
    for name in ("calib", images_of):
        if not (root / name).is_dir():
            raise UsthandError(
                f"there is no {root / name}",
                "the folder is not HanCo's, or one of its archives is not unpacked",
                "see docs/datasets.md for the archives that are needed",
            )
    meta = _read_meta(root) if protocol == "official" else None
    part = DatasetPart(f"{DATASET}-synthetic" if (root / SYNTHETIC).exists() else DATASET, protocol, split)
    for folder in sorted(p for p in (root / "calib").iterdir() if p.name.isdigit()):
        sequence = int(folder.name)
        if meta is None and (sequence < FIRST_TEST) != (split == "train"):
            continue
        wanted, valid = (None, None) if meta is None else _official(meta, sequence, split)
        images = _find_images(root / images_of / folder.name)
        images = {key: path for key, path in images.items() if wanted is None or key[0] in wanted}
        if images:
            yield _recording(root, folder.name, images, part, valid, hand)


def _read_meta(root: Path) -> dict[str, list[list]]:
    meta = _read(root / "meta.json")
    if not isinstance(meta, dict) or not {"is_train", "is_valid"} <= set(meta):
        raise _broken(root / "meta.json", "has no is_train and is_valid")
    return meta


def _official(meta: dict[str, list[list]], sequence: int, split: str) -> tuple[set[int], set[int]]:
    """Frames of the split, and frames with validated truth."""
    if sequence >= len(meta["is_train"]):
        return set(), set()
    of_train, validated = meta["is_train"][sequence], meta["is_valid"][sequence]
    frames = {k for k, flag in enumerate(of_train) if bool(flag) == (split == "train")}
    return frames, {k for k, flag in enumerate(validated) if flag}


def _find_images(folder: Path) -> ImagesByFrame:
    found = {}
    for camera in folder.glob("cam*") if folder.is_dir() else ():
        number = camera.name.removeprefix("cam")
        if number.isdigit():
            for path in camera.glob("*.jpg"):
                if path.stem.isdigit():
                    found[int(path.stem), int(number)] = path
    return found


def _recording(
    root: Path, name: str, images: ImagesByFrame, part: DatasetPart, valid: set[int] | None, hand: HandModel | None
) -> Recording:
    frames = 1 + max(frame for frame, _ in images)  # frame k is row k, whatever is missing
    found = {k: _read_calibration(root / "calib" / name / f"{k:08d}.json") for k in sorted({k for k, _ in images})}
    calibration = {k: value for k, value in found.items() if value is not None}
    images = {key: path for key, path in images.items() if key[0] in calibration}
    if not images:
        raise UsthandError(f"no image of sequence {name} has its calibration", "calib is incomplete", FIX_CALIBRATION)
    views = len(next(iter(calibration.values())).matrix)
    placed = [_place_crops(name, view, calibration, frames) for view in range(views)]
    rows = tuple(
        tuple(_ref(images.get((k, view)), placed[view].places[k]) for view in range(views)) for k in range(frames)
    )
    rig = Rig(tuple(one.camera for one in placed))
    files = SequenceFiles(root, name, rig, np.stack([one.places for one in placed], 1), rows)
    truth = _read_truth(files, set(calibration) if valid is None else valid & set(calibration), hand)
    return Recording(name, rig, FPS, rows, (HandData(SIDE, _read_labels(files, images), truth),), *part)


def _ref(path: Path | None, place: np.ndarray) -> ImageRef | Path | None:
    if path is None:
        return None
    x, y, scale = (float(v) for v in place)
    return path if (x, y, scale) == (0.0, 0.0, 1.0) else ImageRef(path, x, y, scale)


# ---- cameras -------------------------------------------------------------------------------------------------------


def _read_calibration(file: Path) -> FrameCalibration | None:
    """None where there is no file."""
    data = _read(file)
    if data is None:
        return None
    try:
        k, m = (np.array(dict(data)[key], np.float64) for key in ("K", "M"))
    except (KeyError, TypeError, ValueError):
        raise _broken(file, "has no K and M") from None
    shaped = k.shape[1:] == (3, 3) and m.shape == (len(k), 4, 4)
    if not (shaped and np.isfinite(k).all() and np.isfinite(m).all()):
        raise _broken(file, f"has K of shape {k.shape} and M of shape {m.shape}")
    return FrameCalibration(k, m)


def _place_crops(name: str, view: int, calibration: dict[int, FrameCalibration], frames: int) -> PlacedCrops:
    """The camera of one view, and where its crops lie.

    With f the virtual focal length (the median of the frames'), a crop of fx, cx is laid out at scale s = f / fx. Its
    pixel u then lies at x + s u, which is the virtual camera's pixel if its principal point is x + s cx in every frame.
    """
    numbers = sorted(calibration)
    k = np.stack([calibration[n].matrix[view] for n in numbers])
    m = np.stack([calibration[n].cam_from_world[view] for n in numbers])

    def refuse(fact: str, cause: str) -> UsthandError:
        return UsthandError(fact.format(f"camera {view} of sequence {name}"), cause, FIX_CALIBRATION)

    if np.abs(m - m[0]).max() > STILL_M:
        raise refuse("{} moves", "the calibration files belong to different recordings")
    fx, fy, centre = k[:, 0, 0], k[:, 1, 1], k[:, :2, 2]
    if (fx <= 0).any() or np.ptp(fy / fx) > SQUARE * (fy / fx).mean() or np.abs(k[:, 0, 1] / fx).max() > SQUARE:
        raise refuse("{} has crops that are stretched or skewed", "K is damaged")
    pose = nearest_rotation(m[0, :3, :3]), m[0, :3, 3]
    places = np.tile([0.0, 0.0, 1.0], (frames, 1))
    if np.ptp(k, axis=0).max() <= SAME_K * fx.mean():
        return PlacedCrops(pinhole_camera(f"cam{view}", (IMAGE_PX, IMAGE_PX), k[0], *pose), places)
    focal = np.median(fx)
    scale = focal / fx
    # A crop reaches half a pixel of its own beyond its outer pixels' centres; the canvas holds all of every crop.
    edge = 0.5 * (scale - 1)
    principal = np.ceil((scale[:, None] * centre + edge[:, None]).max(0))
    corner = principal - scale[:, None] * centre
    size = np.ceil((corner + (scale * (IMAGE_PX - 1) + edge)[:, None]).max(0)).astype(int) + 1
    if size.max() > MAX_CANVAS_PX:
        raise refuse(f"the crops of {{}} span {size.max()} px", "K is damaged in some frame")
    matrix = np.array([[focal, 0, principal[0]], [0, focal * (fy / fx).mean(), principal[1]], [0, 0, 1]])
    places[numbers] = np.concatenate((corner, scale[:, None]), 1)
    return PlacedCrops(pinhole_camera(f"cam{view}", (int(size[0]), int(size[1])), matrix, *pose), places)


# ---- labels and truth ----------------------------------------------------------------------------------------------


def _read_labels(files: SequenceFiles, images: ImagesByFrame) -> Labels | None:
    """HaMuCo's pseudo-labels, moved from the crops into the cameras' images; None where there are none at all."""
    folders = [files.root / kind / files.name for kind in KEYPOINTS]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return None
    shape = (*files.places.shape[:2], N_JOINTS)
    uv, confidence = np.zeros((*shape, 2)), np.zeros(shape)
    for frame, view in images:
        file = folder / f"cam{view}" / f"{frame:08d}.json"
        data = _read(file)
        if data is None:
            continue
        try:
            points, weight = (np.array(part, np.float64) for part in data)
            points, weight = points.reshape(N_JOINTS, 2), weight.reshape(N_JOINTS)
        except (TypeError, ValueError):
            raise _broken(file, "does not hold 21 points and 21 confidences") from None
        known = np.isfinite(points).all(-1) & np.isfinite(weight)
        x, y, scale = files.places[frame, view]
        uv[frame, view] = np.where(known[:, None], points * scale + (x, y), 0.0)
        confidence[frame, view] = np.where(known, weight, 0.0)
    return Labels(uv, confidence, files.rig.names, SIDE, DETECTOR)


def _read_truth(files: SequenceFiles, wanted: set[int], hand: HandModel | None) -> Truth | None:
    count = len(files.images)
    joints, valid = np.zeros((count, N_JOINTS, 3)), np.zeros(count, bool)
    given = ManoParameters(np.zeros((count, 48)), np.zeros((count, 10)), np.zeros((count, 3)))
    for frame in sorted(frame for frame in wanted if frame < count):
        file = files.file("xyz", frame)
        points = _read(file)
        fitted = None if hand is None else _read_parameters(files.file("shape", frame))
        if points is None or (hand is not None and fitted is None):
            continue
        joints[frame] = checked_numbers(points, (N_JOINTS, 3), str(file), FIX)
        valid[frame] = True
        if fitted is not None:
            given.pose[frame], given.shape[frame], given.translation_m[frame] = fitted
    if not valid.any():
        return None
    visible = _in_crops(files, joints) & valid[:, None, None]
    truth = Truth.of_joints(joints.astype(np.float32), visible, valid)
    if hand is None:
        return truth
    given = given._replace(pose=flat_pose(hand, given.pose))
    return truth_with_meshes(hand, truth, given, f"sequence {files.name} of HanCo")


def _read_parameters(file: Path) -> list[np.ndarray] | None:
    """MANO's pose (48, relative to `hands_mean`), shape (10) and translation (3, metres, world)."""
    data = _read(file)
    if data is None:
        return None
    if not isinstance(data, dict) or not {"poses", "shapes", "global_t"} <= data.keys():
        raise _broken(file, "holds no poses, shapes and global_t")
    sizes = {"poses": 48, "shapes": 10, "global_t": 3}
    return [checked_numbers(data[key], (size,), f"{key} in {file}", FIX) for key, size in sizes.items()]


def _in_crops(files: SequenceFiles, joints_world_m: Float[np.ndarray, "T 21 3"]) -> Bool[np.ndarray, "T V 21"]:
    """Joints inside the crop that is there; what hides them there is not known."""
    uv, depth = (x.numpy() for x in project(files.rig.tensors(torch.float64), torch.from_numpy(joints_world_m)))
    own = (uv - files.places[:, :, None, :2]) / files.places[:, :, None, 2:]
    inside = ((own > -0.5) & (own < IMAGE_PX - 0.5)).all(-1) & (depth > 0)
    return inside & present(files.images)[..., None]


def _read(file: Path) -> dict[str, Any] | list[Any] | None:
    """What a JSON file holds, or None where there is no file."""
    try:
        content = read_json(file, FIX)
    except FileNotFoundError:
        return None
    if not isinstance(content, dict | list):
        raise _broken(file, "holds no table and no list")
    return content


def _broken(file: Path, fact: str) -> UsthandError:
    return UsthandError(f"{file} {fact}", "it is damaged or of another data set", FIX)
