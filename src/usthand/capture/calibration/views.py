"""One view for each camera out of posed images.

Structure from motion knows images; a rig knows cameras that stand still.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float

from usthand.capture.calibration.base import bad_calibration, natural

STILL_DEGREES = 1.0
STILL_SHARE = 0.02  # of the cameras' spread: noise of the poses of a camera that stands still


@dataclass(frozen=True)
class PosedImage:
    """An image with its pose, cam_from_world, OpenCV axes."""

    name: str
    """Path as the file gives it, with slashes."""
    camera: str
    """Which images share one camera's intrinsics."""
    entry: dict[str, Any]
    """As in `Calibration.cameras`, without the name."""

    @property
    def folder(self) -> tuple[str, ...]:
        """The parts of the path of the image's folder."""
        return tuple(part for part in PurePosixPath(self.name).parent.parts if part not in (".", "..", "/"))

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        """Where the camera stood, in the file's unit of length."""
        return -np.asarray(self.entry["rotation"]).T @ np.asarray(self.entry["translation"])


def one_view_each(path: Path, images: Sequence[PosedImage], chosen: Sequence[str] = ()) -> tuple[dict[str, Any], ...]:
    """The rig's entries: one for each camera.

    Images that are chosen by name are the cameras. Otherwise images in several folders are taken for recordings of one
    camera a folder, named by it. Images in one folder are grouped by camera if each camera's poses agree, and named by
    what their names begin with; if they do not agree, every image is a camera of its own, named by its file.

    Args:
        path: The calibration, for messages.
        images: All images with their poses.
        chosen: Names of the images to take as cameras.

    Raises:
        UsthandError: If a chosen image is not there, or the camera of a folder moves.
    """
    images = sorted(images, key=lambda image: natural(image.name))
    if chosen:
        return _entries([_find(path, images, name) for name in chosen])
    if len({image.folder for image in images}) > 1:
        groups = _groups(images, lambda image: image.folder)
        moving = next((group for group in groups if not _still(group, images)), None)
        if moving:
            raise bad_calibration(
                path,
                f"the camera of {'/'.join(moving[0].folder)} moves or changes its lens",
                "a rig's cameras stand still",
                "name one image for each camera with --images",
            )
        return _entries([group[0] for group in groups])
    groups = _groups(images, lambda image: image.camera)
    if 1 < len(groups) < len(images) and all(_still(group, images) for group in groups):
        return tuple({**group[0].entry, "name": _beginning(group)} for group in groups)
    return _entries(images)


def _find(path: Path, images: Sequence[PosedImage], name: str) -> PosedImage:
    fits = [i for i in images if i.name == name] or [i for i in images if name in (i.stem, PurePosixPath(i.name).name)]
    if len(fits) != 1:
        some = ", ".join(image.name for image in images[:4]) + (", ..." if len(images) > 4 else "")
        raise bad_calibration(
            path,
            f"has {len(fits)} images {name!r}",
            f"its images are {some}",
            "give --images the names as the file has them",
        )
    return fits[0]


def _groups(images: Sequence[PosedImage], key: Callable[[PosedImage], Hashable]) -> list[list[PosedImage]]:
    groups: dict[Hashable, list[PosedImage]] = {}
    for image in images:
        groups.setdefault(key(image), []).append(image)
    return list(groups.values())


def _still(group: Sequence[PosedImage], images: Sequence[PosedImage]) -> bool:
    spread = np.linalg.norm(np.ptp([image.centre for image in images], axis=0))
    moved = max(np.linalg.norm(image.centre - group[0].centre) for image in group)
    turn = [np.trace(np.asarray(i.entry["rotation"]) @ np.asarray(group[0].entry["rotation"]).T) for i in group]
    turned = np.degrees(np.arccos(np.clip((min(turn) - 1) / 2, -1, 1)))
    still = bool(moved <= STILL_SHARE * spread and turned < STILL_DEGREES)
    return still and len({image.camera for image in group}) == 1


def _beginning(group: Sequence[PosedImage]) -> str:
    """cam0_0001, cam0_0002 -> cam0."""
    first, last = min(image.stem for image in group), max(image.stem for image in group)
    if len(group) == 1:
        return first
    alike = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    common = first[:alike]
    return re.sub(r"[_\-. ]*\d*$", "", common) or common or f"camera_{group[0].camera}"


def _entries(images: Sequence[PosedImage]) -> tuple[dict[str, Any], ...]:
    """Named by file if the files' names differ, else by what differs between their folders."""
    stems = [image.stem for image in images]
    if len(set(stems)) == len(stems) and len({image.folder for image in images}) <= 1:
        return tuple({**image.entry, "name": image.stem} for image in images)
    folders = [image.folder for image in images]
    while all(folders) and len({folder[0] for folder in folders}) == 1:
        folders = [folder[1:] for folder in folders]
    while all(folders) and len({folder[-1] for folder in folders}) == 1:
        folders = [folder[:-1] for folder in folders]
    names = ["_".join(folder) for folder in folders]
    if len(set(names)) < len(names):  # several of one folder, chosen by hand
        names = ["_".join((*folder, stem)) for folder, stem in zip(folders, stems, strict=True)]
    return tuple({**image.entry, "name": name or image.stem} for image, name in zip(images, names, strict=True))
