"""What the readers share: one detection from numbers on disk, and finding each camera's files.

Every reader is a function of one file: `read(path, camera, frame)` gives the hands it holds by frame number. `frame` is
what the file's name says, for formats of one file a frame.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from usthand.common.errors import UsthandError
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.labels import Detection

View = dict[int, list[Detection]]
"""The hands that one camera saw, by frame number."""

UNKNOWN_CONFIDENCE = 0.55
"""Confidence of joints whose detector states none: a confidence of 1 means `labels.SIGMA_FRACTION` (.025 of the hand's
size), a plain detector's standard deviation is .045 (docs/notes/label-noise.md)."""

LEAST_CONFIDENCE = 0.2
"""A hand of a whole-body detector, which always gives all joints, is there if its median joint has this confidence."""

BODY_SIDE = 0.8
"""How sure a side is that comes from the arm the hand hangs on: rarely wrong, but hidden hands take the other's place."""

NO_SIDE = 0.5
"""A side that the detector does not state."""

HARMLESS_PREFIXES = ("results_",)
HARMLESS_SUFFIXES = ("_keypoints", "_landmarks", "_predictions", "_hands", "_json")


def hand(
    uv_px: Any, confidence: Any, side: str, score: float = BODY_SIDE, least: float = 0.0, where: Path | str = ""
) -> Detection | None:
    """A detection from 21 positions and confidences (one number serves all); None if it has no joint.

    What is not finite, or has no confidence, is missing: confidence 0 and position 0. `least` is the median confidence
    of the joints below which there is no hand.

    Raises:
        UsthandError: if there are not 21 joints.
    """
    uv = np.asarray(uv_px, dtype=np.float64)
    if uv.ndim != 2 or uv.shape[0] != N_JOINTS or uv.shape[1] < 2:
        raise UsthandError(
            f"{where} has a hand of shape {uv.shape}",
            f"a hand has {N_JOINTS} joints of 2 numbers",
            "write the file again",
        )
    uv = uv[:, :2]
    trust = np.broadcast_to(np.asarray(confidence, dtype=np.float64), (N_JOINTS,))
    known = np.isfinite(uv).all(axis=-1) & np.isfinite(trust) & (np.nan_to_num(trust) > 0)
    if not known.any() or np.median(np.where(known, trust, 0)) < least:
        return None
    return Detection(np.where(known[:, None], uv, 0.0), np.where(known, np.clip(trust, 0, 1), 0.0), side, float(score))


def gather(found: Sequence[Detection | None]) -> list[Detection]:
    """Those that are there."""
    return [one for one in found if one is not None]


def triples(values: Any, where: Path, key: str, count: int = N_JOINTS) -> Float[np.ndarray, "points 3"] | None:
    """(x, y, confidence) triples from a flat list; None for an empty one.

    Raises:
        UsthandError: if there is another number of them.
    """
    numbers = np.asarray(values if values is not None else [], dtype=np.float64).reshape(-1)
    if numbers.size == 0:
        return None
    if numbers.size != 3 * count:
        raise UsthandError(
            f"{where} has {numbers.size} numbers in {key}", f"{count} points have {3 * count}", "write the file again"
        )
    return numbers.reshape(count, 3)


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `UsthandError` if it is damaged."""
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsthandError(
            f"{path} is not JSON ({error})", "it was cut short or is another file", "write it again"
        ) from error


def unreadable(path: Path, what: str) -> UsthandError:
    """The complaint about a file whose layout is none that the reader knows."""
    return UsthandError(
        f"{path} does not look like {what}",
        "it is of another program or version",
        "see docs/labels.md for the layouts read",
    )


def frame_number(path: Path, fallback: int | None = None) -> int:
    """The last run of digits in a file's name: 12 of "cam_0_000000000012_keypoints.json" and of "image0012.json".

    Raises:
        UsthandError: if the name has no digits and there is no fallback.
    """
    digits = re.findall(r"\d+", path.stem)
    if digits:
        return int(digits[-1])
    if fallback is not None:
        return fallback
    raise UsthandError(
        f"{path} has no frame number in its name", "it holds one frame, and nothing says which", "rename it"
    )


def camera_files(root: Path, cameras: Sequence[str], endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """Each camera's files below `root`, whose names end in one of `endings`.

    Either a folder named after the camera, or files that are: `cam_0.json`, `results_cam_0.json`, or, one file a frame,
    `cam_0_000000000012_keypoints.json`.

    Raises:
        UsthandError: if a camera has no files; the sentence names the cameras and what was found.
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
    """The camera whose files have this name; else the name itself, less what numbers its frames."""
    for prefix in HARMLESS_PREFIXES:
        name = name.removeprefix(prefix)
    bare = name
    for suffix in HARMLESS_SUFFIXES:
        bare = bare.removesuffix(suffix)
    if name in cameras or bare in cameras:
        return name if name in cameras else bare
    without_number = re.sub(r"_\d+$", "", bare)
    return without_number if without_number in cameras else bare


def _listed(names: Sequence[str] | dict, most: int = 8) -> str:
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
