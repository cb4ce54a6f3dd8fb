"""HanCo (Zimmermann, Argus, Brox: Contrastive Representation Learning for Hand Shape Estimation, GCPR 2021).

    rgb/0110/cam3/00000024.jpg          224x224 crops around the hand; rgb_merged/ and others: other backgrounds
    rgb_2D_keypoints/0110/cam3/00000024.json   HaMuCo's pseudo-labels: [21 x [u, v], 21 confidences]
    calib/0110/00000024.json            {"K": 8 x 3x3, "M": 8 x 4x4}, world to camera, metres
    xyz/0110/00000024.json              21 x 3, metres, world, OpenPose's order
    shape/0110/00000024.json            {"poses": 1x48, "shapes": 1x10, "global_t": 1x1x3}, world
    meta.json                           is_train, is_valid, has_fit ...: [sequence][frame]

The crops follow the hand, so K changes from frame to frame while the camera stands still. The recording gets one virtual
camera for each, in whose image every crop has its place (`usthand.capture.capture.ImageRef`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from usthand.capture.capture import ImageRef
from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.datasets.base import HandData, Recording
from usthand.datasets.mano import check_meshes, flat_pose, pose_meshes
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


@dataclass(frozen=True)
class Placed:
    """One camera of a sequence: its virtual camera, and x, y, scale of each frame's crop in its image."""

    camera: Camera
    places: np.ndarray
    """(T, 3)"""


def recordings(root: Path, split: str, protocol: str = "", hand: HandModel | None = None) -> Iterator[Recording]:
    """One recording for each sequence of a split.

    Args:
        protocol: "hamuco" (default): train on the sequences before 1200 in `rgb`, test on the rest in `rgb_merged`, truth
            in every frame that has joints. "official": `is_train` of meta.json tells the splits apart, `is_valid` the
            frames with validated truth; both in `rgb`.

    Raises:
        UsthandError: if the folder is not HanCo's, or split or protocol is unknown.
    """
    protocol = protocol or PROTOCOLS[0]
    _check_asked(root, split, protocol)
    meta = _read_meta(root) if protocol == "official" else None
    for folder in sorted(p for p in (root / "calib").iterdir() if p.name.isdigit()):
        sequence = int(folder.name)
        if meta is None and (sequence < FIRST_TEST) != (split == "train"):
            continue
        wanted, valid = (None, None) if meta is None else _official(meta, sequence, split)
        images = _find_images(root / (IMAGES[split] if meta is None else "rgb") / folder.name)
        images = {key: path for key, path in images.items() if wanted is None or key[0] in wanted}
        if images:
            yield _recording(root, folder.name, images, split, protocol, valid, hand)


def _check_asked(root: Path, split: str, protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise UsthandError(
            f"HanCo has no protocol {protocol!r}", f"there are {' and '.join(PROTOCOLS)}", "choose one of these"
        )
    if split not in SPLITS:
        raise UsthandError(f"HanCo has no split {split!r}", f"there are {' and '.join(SPLITS)}", "choose one of these")
    needed = ["calib", IMAGES[split] if protocol == "hamuco" else "rgb"]
    for name in needed:
        if not (root / name).is_dir():
            raise UsthandError(
                f"there is no {root / name}",
                "the folder is not HanCo's, or one of its archives is not unpacked",
                "see docs/datasets.md for the archives that are needed",
            )


def _read_meta(root: Path) -> dict[str, list[list]]:
    meta = _read_json(root / "meta.json")
    if not isinstance(meta, dict) or not {"is_train", "is_valid"} <= set(meta):
        raise _broken(root / "meta.json", "has no is_train and is_valid")
    return meta


def _official(meta: dict[str, list[list]], sequence: int, split: str) -> tuple[set[int], set[int]]:
    """Frames of the split, and frames with validated truth."""
    if sequence >= len(meta["is_train"]):
        return set(), set()
    green, good = meta["is_train"][sequence], meta["is_valid"][sequence]
    return {k for k, flag in enumerate(green) if bool(flag) == (split == "train")}, {
        k for k, flag in enumerate(good) if flag
    }


def _find_images(folder: Path) -> dict[tuple[int, int], Path]:
    """Images by (frame, camera)."""
    found = {}
    for camera in folder.glob("cam*") if folder.is_dir() else ():
        number = camera.name.removeprefix("cam")
        if number.isdigit():
            for path in camera.glob("*.jpg"):
                if path.stem.isdigit():
                    found[int(path.stem), int(number)] = path
    return found


def _recording(
    root: Path,
    name: str,
    images: dict[tuple[int, int], Path],
    split: str,
    protocol: str,
    valid: set[int] | None,
    hand: HandModel | None,
) -> Recording:
    frames = 1 + max(frame for frame, _ in images)  # frame k is row k, whatever is missing
    calib = {k: _read_calib(root / "calib" / name / f"{k:08d}.json") for k in sorted({frame for frame, _ in images})}
    calib = {k: value for k, value in calib.items() if value is not None}
    images = {key: path for key, path in images.items() if key[0] in calib}
    if not images:
        raise UsthandError(
            f"no image of sequence {name} has its calibration",
            "calib is incomplete",
            "unpack HanCo_calib_meta.zip again",
        )
    views = len(next(iter(calib.values()))[0])
    placed = [_place(name, view, calib, frames) for view in range(views)]
    rig = Rig(tuple(one.camera for one in placed))
    rows = [[_ref(images.get((k, view)), placed[view].places[k]) for view in range(views)] for k in range(frames)]
    places = np.stack([one.places for one in placed], 1)
    labels = _read_labels(root, name, images, rig, places)
    truth = _read_truth(root, name, set(calib) if valid is None else valid & set(calib), rig, places, rows, hand)
    rows = tuple(tuple(row) for row in rows)
    dataset = f"{DATASET}-synthetic" if (root / SYNTHETIC).exists() else DATASET
    return Recording(name, rig, FPS, rows, (HandData(SIDE, labels, truth),), dataset, protocol, split)


def _ref(path: Path | None, place: np.ndarray) -> ImageRef | Path | None:
    if path is None:
        return None
    x, y, scale = (float(v) for v in place)
    return path if (x, y, scale) == (0.0, 0.0, 1.0) else ImageRef(path, x, y, scale)


# ---- cameras -------------------------------------------------------------------------------------------------------


def _read_calib(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """K (V, 3, 3) and M (V, 4, 4) of a frame, or None where there is no file."""
    data = _read_json(file)
    if data is None:
        return None
    try:
        k, m = np.array(data["K"], np.float64), np.array(data["M"], np.float64)
    except (KeyError, TypeError, ValueError):
        raise _broken(file, "has no K and M") from None
    if (
        k.ndim != 3
        or k.shape[1:] != (3, 3)
        or m.shape != (len(k), 4, 4)
        or not (np.isfinite(k).all() and np.isfinite(m).all())
    ):
        raise _broken(file, f"has K of shape {k.shape} and M of shape {m.shape}")
    return k, m


def _place(name: str, view: int, calib: dict[int, tuple[np.ndarray, np.ndarray]], frames: int) -> Placed:
    """The camera of one view, and where its crops lie.

    With f the virtual focal length (the median of the frames'), a crop of fx, cx is laid out at scale s = f / fx, and its
    pixel u comes to lie at x + s u. That is the virtual camera's pixel if its principal point is x + s cx in every frame.
    """
    numbers = sorted(calib)
    k = np.stack([calib[n][0][view] for n in numbers])
    m = np.stack([calib[n][1][view] for n in numbers])
    if np.abs(m - m[0]).max() > STILL_M:
        raise UsthandError(
            f"camera {view} of sequence {name} moves",
            "the calibration files belong to different recordings",
            "unpack HanCo_calib_meta.zip again",
        )
    fx, fy, centre = k[:, 0, 0], k[:, 1, 1], k[:, :2, 2]
    if (fx <= 0).any() or np.ptp(fy / fx) > SQUARE * (fy / fx).mean() or np.abs(k[:, 0, 1] / fx).max() > SQUARE:
        raise UsthandError(
            f"camera {view} of sequence {name} has crops that are stretched or skewed",
            "K is damaged",
            "unpack HanCo_calib_meta.zip again",
        )
    places = np.tile([0.0, 0.0, 1.0], (frames, 1))
    if np.ptp(k, axis=0).max() <= SAME_K * fx.mean():
        return Placed(_camera(view, IMAGE_PX, IMAGE_PX, k[0], m[0]), places)
    focal = np.median(fx)
    scale = focal / fx
    # A crop reaches half a pixel of its own beyond its outer pixels' centres; the canvas holds all of every crop.
    edge = 0.5 * (scale - 1)
    principal = np.ceil((scale[:, None] * centre + edge[:, None]).max(0))
    corner = principal - scale[:, None] * centre
    size = np.ceil((corner + (scale * (IMAGE_PX - 1) + edge)[:, None]).max(0)).astype(int) + 1
    if size.max() > MAX_CANVAS_PX:
        raise UsthandError(
            f"the crops of camera {view} of sequence {name} span {size.max()} px",
            "K is damaged in some frame",
            "unpack HanCo_calib_meta.zip again",
        )
    matrix = np.array([[focal, 0, principal[0]], [0, focal * (fy / fx).mean(), principal[1]], [0, 0, 1]])
    places[numbers] = np.concatenate((corner, scale[:, None]), 1)
    return Placed(_camera(view, int(size[0]), int(size[1]), matrix, m[0]), places)


def _camera(view: int, width: int, height: int, matrix: np.ndarray, m: np.ndarray) -> Camera:
    u, _, vh = np.linalg.svd(m[:3, :3])
    return Camera(f"cam{view}", width, height, matrix, np.zeros(0), "pinhole", u @ vh, m[:3, 3])


# ---- labels and truth ----------------------------------------------------------------------------------------------


def _read_labels(
    root: Path, name: str, images: dict[tuple[int, int], Path], rig: Rig, places: np.ndarray
) -> Labels | None:
    """HaMuCo's pseudo-labels, moved from the crops into the cameras' images; None where none are there at all."""
    folder = next((root / key / name for key in KEYPOINTS if (root / key / name).is_dir()), None)
    if folder is None:
        return None
    uv, confidence = np.zeros((len(places), len(rig), N_JOINTS, 2)), np.zeros((len(places), len(rig), N_JOINTS))
    for frame, view in images:
        file = folder / f"cam{view}" / f"{frame:08d}.json"
        data = _read_json(file)
        if data is None:
            continue
        try:
            points, trust = (np.array(part, np.float64) for part in data)
            points, trust = points.reshape(N_JOINTS, 2), trust.reshape(N_JOINTS)
        except (TypeError, ValueError):
            raise _broken(file, "does not hold 21 points and 21 confidences") from None
        known = np.isfinite(points).all(-1) & np.isfinite(trust)
        x, y, scale = places[frame, view]
        uv[frame, view] = np.where(known[:, None], points * scale + (x, y), 0.0)
        confidence[frame, view] = np.where(known, trust, 0.0)
    return Labels(uv, confidence, rig.names, SIDE, DETECTOR)


def _read_truth(
    root: Path, name: str, wanted: set[int], rig: Rig, places: np.ndarray, rows: list[list], hand: HandModel | None
) -> Truth | None:
    frames = len(rows)
    joints, valid = np.zeros((frames, N_JOINTS, 3)), np.zeros(frames, bool)
    pose, shape, shift = np.zeros((frames, 48)), np.zeros((frames, 10)), np.zeros((frames, 3))
    for frame in sorted(wanted):
        if frame >= frames:
            break
        file = root / "xyz" / name / f"{frame:08d}.json"
        points = _numbers(file, _read_json(file), (N_JOINTS, 3))
        if points is None:
            continue
        fitted = None if hand is None else _read_shape(root / "shape" / name / f"{frame:08d}.json")
        if hand is not None and fitted is None:
            continue
        joints[frame], valid[frame] = points, True
        if fitted is not None:
            pose[frame], shape[frame], shift[frame] = fitted
    if not valid.any():
        return None
    visible = _in_crops(rig, places, joints, rows) & valid[:, None, None]
    if hand is None:
        return Truth.of_joints(joints.astype(np.float32), visible, valid)
    pose = flat_pose(hand, pose)
    vertices, model_joints = pose_meshes(hand, pose, shape, shift)
    check_meshes(model_joints, joints, valid, f"sequence {name} of HanCo")
    known = valid[:, None]
    return Truth(
        joints.astype(np.float32),
        np.where(known[..., None], vertices, 0.0).astype(np.float32),
        visible,
        np.where(known, pose, 0.0).astype(np.float32),
        np.median(shape[valid], 0).astype(np.float32),
        shift.astype(np.float32),
        valid,
    )


def _read_shape(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """MANO's pose (48, relative to `hands_mean`), shape (10) and translation (3, metres, world)."""
    data = _read_json(file)
    if data is None:
        return None
    if not isinstance(data, dict):
        raise _broken(file, "holds no poses, shapes and global_t")
    return tuple(
        _numbers(file, data.get(key), (size,)) for key, size in (("poses", 48), ("shapes", 10), ("global_t", 3))
    )


def _in_crops(rig: Rig, places: np.ndarray, joints: np.ndarray, rows: list[list]) -> np.ndarray:
    """(T, V, 21) joints inside the crop that is there; what hides them there is not known."""
    uv, depth = (x.numpy() for x in project(rig.tensors(torch.float64), torch.from_numpy(joints)))
    own = (uv - places[:, :, None, :2]) / places[:, :, None, 2:]
    there = np.array([[image is not None for image in row] for row in rows])
    return ((own > -0.5) & (own < IMAGE_PX - 0.5)).all(-1) & (depth > 0) & there[..., None]


def _read_json(file: Path):
    """The content, or None where there is no file."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise _broken(file, "is no JSON") from None


def _numbers(file: Path, data: object, shape: tuple[int, ...]) -> np.ndarray | None:
    if data is None:
        return None
    try:
        values = np.array(data, np.float64).reshape(shape)
    except (TypeError, ValueError):
        raise _broken(file, f"does not hold {' x '.join(map(str, shape))} numbers") from None
    if not np.isfinite(values).all():
        raise _broken(file, "holds something that is no number")
    return values


def _broken(file: Path, fact: str) -> UsthandError:
    return UsthandError(f"{file} {fact}", "it is damaged or of another data set", "unpack HanCo's archive again")
