"""What every reader of a data set returns, how it becomes a capture folder, and the check that every import runs.

A reader is a function `recordings(root, split, protocol, hand=None)` that yields one `Recording` after the other. It
groups images by their names (sequence, frame, camera), never by position: a lost image costs one view of one frame and
nothing else. `protocol` is "" for the data set's usual one. `hand` is a right `HandModel` in MANO's layout, or None.
Where meshes come only as MANO's parameters, the reader needs it to make them; without it the truth has joints alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from usthand.capture.capture import ImageRef
from usthand.capture.rig import Rig, save_rig
from usthand.capture.settings import CaptureSettings, save_settings
from usthand.common.errors import UsthandError
from usthand.common.files import whole_folder
from usthand.evaluation.truth import Truth, save_truth
from usthand.geometry.cameras import Cameras, project
from usthand.geometry.triangulation import triangulate
from usthand.hand.model import HandModel
from usthand.hand.skeleton import FINGERS, SIDES
from usthand.labels.labels import Labels

MM_PER_M = 1000.0
PALM = (FINGERS["index"][0], FINGERS["little"][0])
"""The palm's width goes from knuckle to knuckle of these two: 55 to 80 mm in adults."""


@dataclass(frozen=True)
class HandData:
    """What a data set knows of one hand of a recording."""

    side: str
    labels: Labels | None = None
    """2D pseudo-labels that come with the data set: what a detector saw. They go to labels/<side>.npz."""
    truth: Truth | None = None
    annotated: Labels | None = None
    """2D ground truth, for the check. It becomes labels only where that is asked for by name."""


ImageRows = tuple[tuple[ImageRef | Path | None, ...], ...]
"""[frame][view]; None where the view lacks the frame."""


class DatasetPart(NamedTuple):
    """Which part of which data set something is from."""

    dataset: str
    protocol: str
    split: str


def present(images: ImageRows) -> Bool[np.ndarray, "T V"]:
    """Which views have which frames."""
    return np.array([[image is not None for image in row] for row in images], bool)


@dataclass(frozen=True)
class Recording:
    """One sequence of a data set, ready to be written as a capture."""

    name: str
    """Unique in the data set; the folder's name."""
    rig: Rig
    fps: float
    images: ImageRows
    hands: tuple[HandData, ...]
    """One or both."""
    dataset: str
    protocol: str
    split: str
    note: str = ""
    """What the reader decided or left out, for the report."""

    @property
    def present(self) -> Bool[np.ndarray, "T V"]:
        """Which views have which frames."""
        return present(self.images)


Reader = Callable[[Path, str, str, HandModel | None], Iterator[Recording]]


# ---- writing -------------------------------------------------------------------------------------------------------


def write_recording(recording: Recording, out: Path) -> Path:
    """Write a capture folder `out/<name>`; images stay where they are and are listed by their absolute path.

    The folder appears under its name only once it is complete.

    Raises:
        UsthandError: If it exists, or the recording contradicts itself.
    """
    _check(recording)
    folder = Path(out) / recording.name
    with whole_folder(folder, "a capture") as partial:
        _fill(partial, recording)
    return folder


def _fill(folder: Path, recording: Recording) -> None:
    save_rig(recording.rig, folder / "rig.toml")
    origin = {key: getattr(recording, key) for key in DatasetPart._fields}
    save_settings(folder / "capture.toml", CaptureSettings(float(recording.fps), origin))
    for view, name in enumerate(recording.rig.names):
        rows = (_line(row[view]) + "\n" for row in recording.images)
        (folder / f"{name}.txt").write_text("".join(rows), "utf-8")
    for hand in recording.hands:
        if hand.labels is not None:
            hand.labels.save(folder / "labels" / f"{hand.side}.npz")
        if hand.truth is not None:
            save_truth(folder, hand.side, hand.truth)


def _line(image: ImageRef | Path | None) -> str:
    if image is None:
        return ""
    path = str((image.path if isinstance(image, ImageRef) else image).absolute())
    if "\t" in path or "\n" in path or "\r" in path:
        raise UsthandError(
            f"{path!r} has a tab or line break in its name", "a list of images cannot hold it", "rename the folder"
        )
    if not isinstance(image, ImageRef):
        return path
    return f"{path}\t{image.x!r}\t{image.y!r}\t{image.scale!r}"


def _check(recording: Recording) -> None:
    frames, views = len(recording.images), len(recording.rig)

    def refuse(fact: str) -> None:
        raise UsthandError(
            f"recording {recording.name!r} of {recording.dataset} {fact}",
            "the data set's folder is incomplete, or of another release",
            "compare it with the layout in docs/datasets.md",
        )

    if not frames:
        refuse("has no frame")
    if recording.name in ("", ".", "..") or "/" in recording.name:
        refuse("has a name that is no folder's")
    if any(len(row) != views for row in recording.images):
        refuse(f"has frames with another number of images than the {views} cameras")
    if not recording.hands or len({hand.side for hand in recording.hands}) < len(recording.hands):
        refuse("has no hand, or one side twice")
    for hand in recording.hands:
        if hand.side not in SIDES:
            refuse(f"has a hand of side {hand.side!r}")
        for labels in (hand.labels, hand.annotated):
            wanted = (frames, recording.rig.names, hand.side)
            if labels is not None and (labels.n_frames, labels.cameras, labels.side) != wanted:
                size = f"{labels.n_frames} frames, {len(labels.cameras)} cameras"
                refuse(f"has labels of {size} and a {labels.side} hand")
        if hand.truth is not None and hand.truth.visible.shape != (frames, views, 21):
            refuse(f"has truth of shape {hand.truth.visible.shape}")


# ---- checking ------------------------------------------------------------------------------------------------------


def check_recording(recording: Recording) -> dict[str, dict[str, float | int | None]]:
    """The numbers that give a misread data set away, by side, from its 2D joints (annotated, else labels) and truth.

    * `frames`: with 2D joints in two views or more, or with truth;
    * `residual_px`: median distance of the 2D joints from the projection of the points triangulated from them. Inverted
      extrinsics, wrongly paired cameras and shifted frames make it tens of pixels;
    * `truth_px`: median distance of the projected truth from the 2D joints. Millimetres taken for metres, another order
      of the joints and swapped hands make it large, too;
    * `inside`: share of the truth's joints that project into the images that are there; the only check where a data set
      has no 2D joints;
    * `palm_mm`: median width of the palm, index to little knuckle, of the truth, else of the triangulated points.

    A number for which the data are missing is None.
    """
    cameras = recording.rig.tensors(torch.float64)
    return {hand.side: _check_hand(recording, hand, cameras) for hand in recording.hands}


def _check_hand(recording: Recording, hand: HandData, cameras: Cameras) -> dict[str, float | int | None]:
    numbers: dict[str, float | int | None] = dict.fromkeys(("residual_px", "truth_px", "inside", "palm_mm"))
    labels, truth = hand.annotated or hand.labels, hand.truth
    known = np.zeros(len(recording.images), bool)
    seen = None if labels is None else labels.mask & recording.present[..., None]
    if labels is not None:
        solid = seen.sum(1) >= 2
        known |= solid.any(-1)
        points = triangulate(cameras, _tensor(labels.uv_px), _tensor(seen)).numpy()
        numbers["residual_px"] = _distance_px(cameras, points, labels, seen & solid[:, None])
        numbers["palm_mm"] = _palm_mm(points, solid)
    if truth is not None:
        joints, valid = np.asarray(truth.joints_world_m, np.float64), truth.valid
        known |= valid
        numbers["palm_mm"] = _palm_mm(joints, np.repeat(valid[:, None], joints.shape[1], 1))
        numbers["inside"] = _share_inside(recording, cameras, joints, valid)
        if labels is not None:
            numbers["truth_px"] = _distance_px(cameras, joints, labels, seen & valid[:, None, None])
    return {"frames": int(known.sum()), **numbers}


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))


def _distance_px(cameras: Cameras, points_world_m: np.ndarray, labels: Labels, seen: np.ndarray) -> float | None:
    uv = project(cameras, _tensor(points_world_m))[0].numpy()
    distance = np.linalg.norm(uv - labels.uv_px, axis=-1)[seen]
    return float(np.median(distance)) if len(distance) else None


def _palm_mm(points_world_m: np.ndarray, known: np.ndarray) -> float | None:
    both = known[:, PALM[0]] & known[:, PALM[1]]
    width = np.linalg.norm(points_world_m[:, PALM[0]] - points_world_m[:, PALM[1]], axis=-1)[both]
    return float(np.median(width) * MM_PER_M) if len(width) else None


def _share_inside(recording: Recording, cameras: Cameras, joints: np.ndarray, valid: np.ndarray) -> float | None:
    uv, depth = (x.numpy() for x in project(cameras, _tensor(joints)))
    size = np.array([(camera.width, camera.height) for camera in recording.rig.cameras])[:, None]
    inside = ((uv > -0.5) & (uv < size - 0.5)).all(-1) & (depth > 0)
    asked = inside[recording.present & valid[:, None]]
    return float(asked.mean()) if len(asked) else None


def as_labels(recording: Recording) -> Recording:
    """The recording with the annotated 2D joints in place of pseudo-labels: the best that labels could be.

    Raises:
        UsthandError: If the data set has none.
    """
    if all(hand.annotated is None for hand in recording.hands):
        raise UsthandError(
            f"{recording.dataset} has no annotated 2D joints",
            "its makers give joints in space only",
            "import it without them, and run `usthand label`",
        )
    return replace(recording, hands=tuple(replace(hand, labels=hand.annotated) for hand in recording.hands))
