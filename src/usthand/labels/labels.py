"""2D pseudo-labels of one hand in every camera, on disk and in memory.

A label is what a detector found: 21 pixel positions with a confidence each, per frame and camera. Missing joints have
confidence 0 and position 0, never NaN. Legend of the shapes: T frames, V views, J = 21 joints in OpenPose order.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from usthand.common.errors import UsthandError
from usthand.common.files import whole_file
from usthand.hand.skeleton import N_JOINTS, SIDES

if TYPE_CHECKING:
    from usthand.capture.capture import Capture

LABELS_VERSION = 1

ANNOTATION = "annotation"
"""The `detector` of labels that are a data set's own 2D annotations."""

MIN_HAND_PX = 8.0
"""Smallest hand size that sets a label's noise; below it the detector's resolution does."""


@dataclass(frozen=True)
class Detection:
    """One hand as a detector found it in one image, before it is known which hand it is."""

    uv_px: Float[np.ndarray, "J 2"]
    """Pixel positions in the whole image, pixel centres at integers."""
    confidence: Float[np.ndarray, " J"]
    """Unitless, per joint, in (0, 1]."""
    side: str
    """The detector's guess of the anatomical side, "left" or "right"."""
    score: float
    """Probability of that side by the detector, in [0.5, 1]."""


@dataclass(frozen=True)
class Labels:
    """Pseudo-labels of one hand over a capture.

    Examples:
        >>> import usthand
        >>> labels = usthand.load_labels(usthand.open_capture("clip"), "right")
        >>> labels.uv_px.shape, labels.mask.mean()  # (T, V, 21, 2), and the share of joints that are labelled
        >>> labels.without(labels.cameras[0]).cameras
    """

    uv_px: Float[np.ndarray, "T V J 2"]
    """Pixel positions, float32, pixel centres at integers; 0 where missing."""
    confidence: Float[np.ndarray, "T V J"]
    """Unitless, in [0, 1], float32; 0 means missing."""
    cameras: tuple[str, ...]
    """Name of each view."""
    side: str
    """"left" or "right": the anatomical side."""
    detector: str
    """What made the labels, e.g. "mediapipe"."""

    def __post_init__(self) -> None:
        """Bring the arrays to float32 and the missing joints to zero.

        Raises:
            UsthandError: If the shapes do not match, the side is unknown or a number is not finite.
        """
        uv = np.asarray(self.uv_px, dtype=np.float32)
        confidence = np.asarray(self.confidence, dtype=np.float32)
        _check_arrays(uv, confidence, self.cameras, self.side)
        confidence = np.clip(confidence, 0.0, 1.0)
        object.__setattr__(self, "uv_px", np.where(confidence[..., None] > 0, uv, np.float32(0)))
        object.__setattr__(self, "confidence", confidence)
        object.__setattr__(self, "cameras", tuple(str(name) for name in self.cameras))

    @property
    def mask(self) -> Bool[np.ndarray, "T V J"]:
        """True where a joint is labelled."""
        return self.confidence > 0

    @property
    def n_frames(self) -> int:
        """The number of frames, T."""
        return self.uv_px.shape[0]

    def mirrored(self, widths: Sequence[int] | Int[np.ndarray, "V"]) -> Labels:
        """Labels of the other side in the mirrored images, u -> width - 1 - u; `widths` (V,) in pixels."""
        last_column = np.asarray(widths, dtype=np.float32)[None, :, None] - 1
        uv = self.uv_px.copy()
        uv[..., 0] = last_column - uv[..., 0]
        return replace(self, uv_px=uv, side="left" if self.side == "right" else "right")

    def without(self, camera: str) -> Labels:
        """All views but one.

        Raises:
            UsthandError: If there is no such camera.
        """
        self._check_known(camera)
        return self.subset([name for name in self.cameras if name != camera])

    def subset(self, names: Sequence[str]) -> Labels:
        """The named views, in the order given; `aligned` also takes names that the labels do not know.

        Raises:
            UsthandError: If a camera is unknown.
        """
        for name in names:
            self._check_known(name)
        return self.aligned(names)

    def save(self, path: Path | str) -> None:
        """Write as versioned npz, making the folder if need be."""
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, version=LABELS_VERSION, **vars(self))

    def aligned(self, names: Sequence[str]) -> Labels:
        """The named views, in the order given; one that the labels do not know becomes a view without labels."""
        known = [name in self.cameras for name in names]
        index = [self.cameras.index(name) if name in self.cameras else 0 for name in names]
        confidence = self.confidence[:, index] * np.array(known)[:, None]
        return replace(self, uv_px=self.uv_px[:, index], confidence=confidence, cameras=tuple(names))

    def _check_known(self, camera: str) -> None:
        if camera not in self.cameras:
            known = f"they hold {', '.join(self.cameras)}"
            raise UsthandError(f"the labels have no camera '{camera}'", known, "name one of these cameras")


def hand_side(hand: str) -> str:
    """The side of a hand by its name: "right", "left", or with several people a further one such as "right-2".

    Raises:
        UsthandError: If the name is none of these.
    """
    if not re.fullmatch(r"(right|left)(-([2-9]|[1-9]\d+))?", hand):
        raise UsthandError(
            f"side '{hand}' is unknown",
            "a hand is right or left, or a further one of several people such as right-2",
            "use --side right or --side left",
        )
    return hand.partition("-")[0]


def load_npz(path: Path | str) -> Labels:
    """Read labels that `Labels.save` wrote.

    Raises:
        UsthandError: If the file is missing, damaged, of another program or of another version.
    """
    path = Path(path)
    again = f"run `usthand label {path.parent.parent} --overwrite`"
    if not path.is_file():
        raise UsthandError(f"no labels at {path}", "nothing was detected or written yet", again)
    names = ("version", "uv_px", "confidence", "cameras", "side", "detector")
    try:
        with np.load(path, allow_pickle=False) as stored:
            version, uv, confidence, cameras, side, detector = (stored[name] for name in names)
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsthandError(f"{path} is not a label file", "it is damaged or from another program", again) from error
    if int(version) != LABELS_VERSION:
        raise UsthandError(
            f"{path} has label version {int(version)}, this program reads {LABELS_VERSION}",
            "it was written by another version of usthand",
            again,
        )
    try:
        return Labels(uv, confidence, tuple(str(name) for name in cameras), str(side), str(detector))
    except UsthandError as error:
        raise UsthandError(f"{path}: {error.fact}", error.cause, error.fix) from error


def load_labels(capture: Capture, side: str) -> Labels:
    """Labels of one hand of a capture, with the capture's frames and the views of `capture.rig.names`.

    A camera of the rig that the labels do not know becomes a view without labels. So does a camera in the frames that
    it lacks (`Capture.present`).

    Args:
        capture: The capture.
        side: "right" or "left", or with several people the name of a further hand, such as "right-2".

    Returns:
        Labels with `uv_px` (T, V, 21, 2) in pixels and `confidence` (T, V, 21).

    Raises:
        UsthandError: If the file is missing or damaged, names a camera that the rig lacks, has another number of
            frames, or has labels in fewer than two views, from which nothing can be triangulated.

    Examples:
        >>> import usthand
        >>> labels = usthand.load_labels(usthand.open_capture("clip"), "right")
        >>> index_tip_px = labels.uv_px[:, :, 8]  # (T, V, 2)
    """
    hand_side(side)
    path = Path(capture.labels_path(side))
    again = f"run `usthand label {capture.path} --overwrite`"
    if not path.is_file():
        raise UsthandError(
            f"no labels of the {side} hand at {path}",
            "none were made yet or that hand was not seen",
            f"run `usthand label {capture.path}`",
        )
    labels = load_npz(path)
    if labels.side != hand_side(side):
        raise UsthandError(f"{path} holds labels of the {labels.side} hand", "the file was renamed or copied", again)
    strangers = [name for name in labels.cameras if name not in capture.rig.names]
    if strangers:
        raise UsthandError(
            f"{path} has labels of camera '{strangers[0]}', which the rig lacks",
            f"the rig knows {', '.join(capture.rig.names)}",
            f"rename the camera in {capture.path}/rig.toml or {again}",
        )
    if labels.n_frames != capture.n_frames:
        raise UsthandError(
            f"{path} has {labels.n_frames} frames, the videos have {capture.n_frames}",
            "the videos were cut or replaced after labelling",
            again,
        )
    labels = labels.aligned(capture.rig.names)
    labels = replace(labels, confidence=labels.confidence * capture.present[..., None])
    _check_enough(labels, path, again)
    return labels


def hand_size_px(labels: Labels) -> Float[np.ndarray, "T V"]:
    """Size of the hand in each view, pixels: the longer side of the box around its labelled joints.

    It is the median over the sequence: a single box shrinks with the pose (a fist, a hand seen edge-on), while the
    detector's error does not. A view without labels takes the median of the others. `MIN_HAND_PX` is the least.
    """
    mask = labels.mask[..., None]
    low = np.where(mask, labels.uv_px, np.inf).min(axis=2)
    high = np.where(mask, labels.uv_px, -np.inf).max(axis=2)
    seen = labels.mask.sum(axis=2) >= N_JOINTS // 2
    side_px = np.where(seen, np.where(seen[..., None], high - low, 0.0).max(axis=-1), 0.0)
    size = np.array([np.median(px[there]) if there.any() else 0.0 for px, there in zip(side_px.T, seen.T, strict=True)])
    if (size > 0).any():
        size[size <= 0] = np.median(size[size > 0])
    return np.tile(np.maximum(size, MIN_HAND_PX), (labels.n_frames, 1))


def _check_arrays(uv: np.ndarray, confidence: np.ndarray, cameras: Sequence[str], side: str) -> None:
    wanted = f"(frames, {len(cameras)} cameras, {N_JOINTS} joints"
    if uv.ndim != 4 or uv.shape[1:] != (len(cameras), N_JOINTS, 2) or confidence.shape != uv.shape[:3]:
        raise UsthandError(
            f"labels have shape {uv.shape} and confidence {confidence.shape}",
            f"they must be {wanted}, 2) and {wanted})",
            "write them in that shape, missing joints as zeros",
        )
    if side not in SIDES:
        raise UsthandError(f"side '{side}' is unknown", "a hand is left or right", "use left or right")
    finite = np.isfinite(uv).all(axis=-1) & np.isfinite(confidence)
    if not finite.all():
        frame, view, _ = np.argwhere(~finite)[0]
        raise UsthandError(
            f"the labels hold NaN or infinity, first in frame {frame} of camera '{list(cameras)[view]}'",
            "the detector or a conversion wrote missing joints as NaN",
            "write missing joints as position 0 and confidence 0, or run `usthand label` again",
        )


def _check_enough(labels: Labels, path: Path, again: str) -> None:
    views = labels.mask.any(axis=(0, 2))
    if not views.any():
        raise UsthandError(f"{path} has no label in any frame", f"the detector never saw the {labels.side} hand", again)
    if views.sum() == 1:
        raise UsthandError(
            f"{path} has labels in one view only, '{labels.cameras[int(views.argmax())]}'",
            "the hand cannot be placed in space from one camera",
            f"check that the other videos show the hand and {again}",
        )
