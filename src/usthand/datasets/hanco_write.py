"""Synthetic captures in HanCo's own layout, for code that reads HanCo and nothing else (HaMuCo's, for one).

The capture is rendered as any other. Then every view is undistorted and cut around the hand, frame by frame. The images
are 224x224 crops with intrinsics of their own, as HanCo's are. HaMuCo looks at the middle 130 pixels only.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import map_coordinates

from usthand.capture.capture import open_capture
from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.common.files import whole_folder
from usthand.common.progress import Progress, silent
from usthand.datasets.hanco import FIRST_TEST, IMAGE_PX, IMAGES, KEYPOINTS, SIDE, SYNTHETIC
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.truth import Truth, require_truth
from usthand.geometry.cameras import to_camera, undistort
from usthand.geometry.lenses import distort
from usthand.hand.io import export, load_hand
from usthand.labels.labels import Labels, load_npz

VIEWS = 8
SEQUENCES = 1518  # that HanCo has; meta.json lists them all
HAND_PX = 96.0  # longer side of the box around the joints: the hand with its flesh then fits into HaMuCo's 130 px
HAND_FILE = "mano/MANO_RIGHT.pkl"
_SUBPIXELS = ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25))


def write_hanco(out: str | Path, config: SynthConfig, sequences: int = 1, progress: Progress = silent) -> Path:
    """Write `sequences` sequences for training (0000, ... in rgb) and as many for testing (1200, ... in rgb_merged).

    Beside them lies the embedded hand in MANO's layout, which the shape parameters belong to. The folder appears under
    its name only once it is complete; each sequence has a seed, and so a subject, of its own.

    Raises:
        UsthandError: If something is there already, or the configuration is not HanCo's: eight cameras, a right hand.
    """
    _check(config, sequences)
    with whole_folder(out, "a data set") as partial:
        numbers = [*range(sequences), *range(FIRST_TEST, FIRST_TEST + sequences)]
        for place, number in enumerate(numbers):
            rendered = partial / "rendered"
            make_capture(rendered, replace(config, seed=config.seed + place), progress)
            _write_sequence(partial, number, rendered, IMAGES["train" if number < FIRST_TEST else "test"])
            shutil.rmtree(rendered)
        _write_json(partial / "meta.json", _meta(numbers, config.frames))
        export(partial / HAND_FILE)
        (partial / SYNTHETIC).write_text(f"Not HanCo: made by usthand synth --layout hanco, with {config}.\n")
    return Path(out)


def _check(config: SynthConfig, sequences: int) -> None:
    if config.views != VIEWS or config.side != SIDE:
        raise UsthandError(
            f"HanCo's layout cannot hold {config.views} cameras and a {config.side} hand",
            "it has eight cameras and right hands",
            "leave out --views and --side",
        )
    if config.subject != "own":
        raise UsthandError(
            f"HanCo's layout cannot hold the subject {config.subject}",
            "its files keep the pose and shape of our hand model",
            "leave out --layout hanco",
        )
    if not 1 <= sequences <= SEQUENCES - FIRST_TEST:
        raise UsthandError(
            f"{sequences} sequences were asked for",
            "HanCo's numbers leave room for 1 to 318 of each split",
            "ask for fewer",
        )


def _write_sequence(root: Path, number: int, rendered: Path, images: str) -> None:
    capture, truth = open_capture(rendered), require_truth(rendered, SIDE)
    matrices = crop_matrices(capture.rig, truth.joints_world_m)
    name = f"{number:04d}"
    for view, camera in enumerate(capture.rig.cameras):
        folder = root / images / name / f"cam{view}"
        folder.mkdir(parents=True)
        for frame, image in capture.read(camera.name):
            crop = cut_undistorted(image, camera, matrices[frame, view])
            Image.fromarray(crop).save(folder / f"{frame:08d}.jpg", quality=95, subsampling=0)
    _write_labels(root / KEYPOINTS[0] / name, load_npz(capture.labels_path(SIDE)), capture.rig, matrices)
    _write_truth(root, name, truth)
    world = [np.vstack((np.c_[c.rotation, c.translation], (0, 0, 0, 1))).tolist() for c in capture.rig.cameras]
    for frame, k in enumerate(matrices):
        _write_json(root / "calib" / name / f"{frame:08d}.json", {"K": k.tolist(), "M": world})


def crop_matrices(rig: Rig, joints_world_m: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T V 3 3"]:
    """Intrinsics of crops whose middle is the hand's and in which the hand is `HAND_PX` long."""
    cam = to_camera(rig.tensors(torch.float64), torch.from_numpy(np.asarray(joints_world_m, np.float64))).numpy()
    xy = cam[..., :2] / cam[..., 2:]
    matrix = np.stack([camera.matrix for camera in rig.cameras])
    focal = np.stack((matrix[:, 0, 0], matrix[:, 1, 1]), -1)
    box = xy * focal[:, None]
    low, high = box.min(2), box.max(2)
    scale = HAND_PX / (high - low).max(-1)
    crop = np.zeros((*scale.shape, 3, 3))
    crop[..., 0, 0], crop[..., 1, 1] = scale * focal[:, 0], scale * focal[:, 1]
    crop[..., :2, 2] = (IMAGE_PX - 1) / 2 - scale[..., None] * (low + high) / 2
    crop[..., 2, 2] = 1.0
    return crop


def cut_undistorted(
    image: UInt8[np.ndarray, "H W 3"], camera: Camera, matrix: Float[np.ndarray, "3 3"]
) -> UInt8[np.ndarray, "224 224 3"]:
    """What a lens without distortion and with other intrinsics would have seen; black outside."""
    lens = Rig((camera,)).tensors(torch.float64)
    column, row = np.meshgrid(np.arange(IMAGE_PX), np.arange(IMAGE_PX))
    total = np.zeros((IMAGE_PX, IMAGE_PX, 3))
    for dx, dy in _SUBPIXELS:
        u, v = column + dx, row + dy
        xy = np.stack(((u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1]), -1).reshape(1, -1, 2)
        bent = distort(torch.from_numpy(xy), lens.distortion, lens.lens)[0].numpy().reshape(IMAGE_PX, IMAGE_PX, 2)
        at = (
            bent[..., 1] * camera.matrix[1, 1] + camera.matrix[1, 2],
            bent[..., 0] * camera.matrix[0, 0] + camera.matrix[0, 2],
        )
        for channel in range(3):
            total[..., channel] += map_coordinates(image[..., channel].astype(np.float32), at, order=1)
    return np.clip(np.round(total / len(_SUBPIXELS)), 0, 255).astype(np.uint8)


def _write_labels(folder: Path, labels: Labels, rig: Rig, matrices: np.ndarray) -> None:
    cameras = rig.tensors(torch.float64)
    xy = undistort(cameras, torch.from_numpy(labels.uv_px.astype(np.float64))).numpy()
    focal = np.stack((matrices[..., 0, 0], matrices[..., 1, 1]), -1)
    uv = np.where(labels.mask[..., None], xy * focal[:, :, None] + matrices[:, :, None, :2, 2], 0.0)
    for view in range(len(rig)):
        for frame in range(labels.n_frames):
            content = [uv[frame, view].tolist(), labels.confidence[frame, view].tolist()]
            _write_json(folder / f"cam{view}" / f"{frame:08d}.json", content)


def _write_truth(root: Path, name: str, truth: Truth) -> None:
    mean = load_hand(dtype=torch.float64).hands_mean.numpy()
    for frame in range(len(truth.joints_world_m)):
        file = f"{name}/{frame:08d}.json"
        _write_json(root / "xyz" / file, truth.joints_world_m[frame].astype(float).tolist())
        pose = truth.pose[frame].astype(np.float64)
        pose[3:] -= mean
        shape = {"poses": [pose.tolist()], "shapes": [truth.shape.astype(float).tolist()]}
        _write_json(root / "shape" / file, shape | {"global_t": [[truth.translation_m[frame].astype(float).tolist()]]})


def _meta(numbers: list[int], frames: int) -> dict[str, list[list]]:
    """HanCo's table of sequences; those that are not there have no frames."""

    def table(value: Callable[[int], object]) -> list[list]:
        return [[value(n)] * frames if n in numbers else [] for n in range(SEQUENCES)]

    return {
        "is_train": table(lambda n: n < FIRST_TEST),
        "subject_id": table(int),
        "is_valid": table(lambda n: True),
        "object_id": table(lambda n: None),
        "has_fit": table(lambda n: True),
    }


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
