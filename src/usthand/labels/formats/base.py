"""What the readers share: one detection from numbers on disk, and finding each camera's files.

Every reader is a function of one file: `read(path, camera, frame)` returns its hands by frame number. `frame` is the
number of the file's only frame, if it is known; else that is the number in the file's name. All readers raise
`UsthandError` for a file that is damaged or has another layout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from usthand.common.errors import UsthandError
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.labels import Detection

Json = dict | list | str | float | bool | None
"""Any value in a JSON file."""

View = dict[int, list[Detection]]
"""The hands that one camera saw, by frame number."""

UNKNOWN_CONFIDENCE = 0.55
"""Confidence of joints whose detector states none. A confidence of 1 means a standard deviation of .025 of the hand's
size (`fit.observations.SIGMA_FRACTION`); a plain detector's is .045 (docs/development/label-noise.md)."""

LEAST_CONFIDENCE = 0.2
"""A hand of a whole-body detector, which always gives all joints, exists if its median joint has this confidence."""

BODY_SIDE = 0.8
"""Score of a side that comes from the hand's arm: rarely wrong, but a hidden hand may take the other's place."""

NO_SIDE = 0.5
"""Score of a side that the detector does not state."""

HARMLESS_PREFIXES = ("results_",)
HARMLESS_SUFFIXES = ("_keypoints", "_landmarks", "_predictions", "_hands", "_json")


def hand(
    uv_px: ArrayLike,
    confidence: ArrayLike,
    side: str,
    score: float = BODY_SIDE,
    least: float = 0.0,
    where: Path | str = "",
) -> list[Detection]:
    """A detection from 21 positions and confidences (one number serves all); none if it has no joint.

    A joint that is not finite, or has no confidence, is missing: confidence 0 and position 0. `least` is the median
    confidence of the joints below which there is no hand.

    Raises:
        UsthandError: If there are not 21 joints.
    """
    uv = np.asarray(uv_px, dtype=np.float64)
    if uv.ndim != 2 or uv.shape[0] != N_JOINTS or uv.shape[1] < 2:
        needed = f"a hand has {N_JOINTS} joints of 2 numbers"
        raise UsthandError(f"{where} has a hand of shape {uv.shape}", needed, "write the file again")
    uv = uv[:, :2]
    stated = np.broadcast_to(np.asarray(confidence, dtype=np.float64), (N_JOINTS,))
    known = np.isfinite(uv).all(axis=-1) & np.isfinite(stated) & (np.nan_to_num(stated) > 0)
    if not known.any() or np.median(np.where(known, stated, 0)) < least:
        return []
    stated = np.where(known, np.clip(stated, 0, 1), 0.0)
    return [Detection(np.where(known[:, None], uv, 0.0), stated, side, float(score))]


def triples(
    values: ArrayLike | None, where: Path, key: str, count: int = N_JOINTS
) -> Float[np.ndarray, "points 3"] | None:
    """(x, y, confidence) triples from a flat list; None for an empty one.

    Raises:
        UsthandError: If there is another number of them.
    """
    numbers = np.asarray(values if values is not None else [], dtype=np.float64).reshape(-1)
    if numbers.size == 0:
        return None
    if numbers.size != 3 * count:
        raise UsthandError(
            f"{where} has {numbers.size} numbers in {key}", f"{count} points have {3 * count}", "write the file again"
        )
    return numbers.reshape(count, 3)


def read_json(path: Path) -> dict | list:
    """The content of a JSON file, empty if it is neither an object nor a list.

    Raises:
        UsthandError: If the file is damaged.
    """
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsthandError(
            f"{path} is not JSON ({error})", "it was cut short or is another file", "write it again"
        ) from error
    return content if isinstance(content, dict | list) else {}


def unreadable(path: Path, what: str) -> UsthandError:
    """The error for a file whose layout the reader does not know."""
    return UsthandError(
        f"{path} does not look like {what}",
        "it is of another program or version",
        "see docs/labels.md for the layouts read",
    )


def frame_number(path: Path, known: int | None = None) -> int:
    """The `known` number, else the name's last digits: 12 of "cam_0_000000000012_keypoints.json" and "image0012.json".

    Raises:
        UsthandError: If neither is there.
    """
    if known is not None:
        return known
    if digits := re.findall(r"\d+", path.stem):
        return int(digits[-1])
    fact = f"{path} has no frame number in its name"
    raise UsthandError(fact, "it holds one frame, and nothing says which", "rename it")


def camera_files(root: Path, cameras: Sequence[str], endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """Each camera's files below `root`, whose names end in one of `endings`.

    They are in a folder named after the camera, or are named after it: `cam_0.json`, `results_cam_0.json`, or, with one
    file a frame, `cam_0_000000000012_keypoints.json`.

    Raises:
        UsthandError: If a camera has no files; the sentence names the cameras and what was found.
    """
    if not root.is_dir():
        raise UsthandError(
            f"{root} is not a folder" if root.exists() else f"there is no {root}",
            "labels of this format are a folder with one file or subfolder per camera",
            "give that folder",
        )
    found: dict[str, list[Path]] = {}
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            files = sorted(path for path in entry.rglob("*") if path.name.endswith(endings))
            if files:
                found.setdefault(_owner(entry.name, cameras), []).extend(files)
        elif entry.name.endswith(endings):
            found.setdefault(_owner(entry.stem, cameras), []).append(entry)
    missing = [name for name in cameras if name not in found]
    if missing:
        raise UsthandError(
            f"{root} has no labels of camera {', '.join(missing)}",
            f"the rig's cameras are {', '.join(cameras)} and the labels are of {_listed(found) or 'nothing'}",
            "rename the folders or files after the cameras of rig.toml",
        )
    return {name: found[name] for name in cameras}


def _owner(name: str, cameras: Sequence[str]) -> str:
    """The camera whose files have this name; else the name itself without its ending."""
    for prefix in HARMLESS_PREFIXES:
        name = name.removeprefix(prefix)
    bare = name
    for suffix in HARMLESS_SUFFIXES:
        bare = bare.removesuffix(suffix)
    if name in cameras or bare in cameras:
        return name if name in cameras else bare
    without_number = re.sub(r"_\d+$", "", bare)
    return without_number if without_number in cameras else bare


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
