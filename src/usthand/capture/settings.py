"""capture.toml: what a capture says of itself besides its cameras.

    fps = 30.0                # if not the videos' own
    dataset = "hanco"         # of footage of a data set: its name, protocol and split
    protocol = "hamuco"
    split = "test"

    [offset]                  # in frames: how much LATER the camera started than the others
    cam_1 = 12                # cam_1 started 12 frames late: its frame 0 shows what the others show in their frame 12
    cam_3 = -2                # cam_3 started 2 frames early

Every key is optional. Cameras that are not named have offset 0.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from usthand.common.errors import UsthandError
from usthand.common.files import write_toml

FPS, OFFSET, ORIGIN = "fps", "offset", ("dataset", "protocol", "split")


class CaptureSettings(NamedTuple):
    """What capture.toml says, without the offsets."""

    fps: float | None = None
    origin: Mapping[str, str] = {}
    """Dataset, protocol and split, as far as they are stated."""


def save_settings(file: Path, settings: CaptureSettings, offsets: Mapping[str, int] | None = None) -> None:
    """Write a capture.toml.

    Args:
        file: Where; one that is there already is replaced.
        settings: The frame rate and the origin.
        offsets: How many frames later than the others a camera started, by name.
    """
    data = {} if settings.fps is None else {FPS: settings.fps}
    tables = {OFFSET: dict(offsets)} if offsets else {}
    comment = "offset, in frames: how much later the camera started than the others" if offsets else ""
    write_toml(file, {**data, **settings.origin, **tables}, comment)


def read_settings(file: Path) -> CaptureSettings:
    """The checked settings of a capture.toml; empty where there is no such file.

    Raises:
        UsthandError: If the file is not TOML, or has an unknown key or an impossible value.
    """
    fps, origin = None, {}
    for key, value in _read(file).items():
        if key == FPS and isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf"):
            fps = float(value)
        elif key in ORIGIN and isinstance(value, str):
            origin[key] = value
        elif key == FPS or key in ORIGIN:
            kind = "a positive number" if key == FPS else "text in quotes"
            raise UsthandError(f"{file} has {key} = {value!r}", f"{key} is {kind}", "fix the value")
        elif key != OFFSET:
            known = ", ".join((FPS, *ORIGIN, OFFSET))
            raise UsthandError(
                f"{file} has the unknown key {key!r}", f"the keys are {known}", "remove it or fix its spelling"
            )
    return CaptureSettings(fps, origin)


def read_offsets(file: Path, names: Sequence[str]) -> dict[str, int]:
    """The table [offset]; empty where there is none.

    Raises:
        UsthandError: If it names a camera that the rig lacks, or holds anything but whole numbers.
    """
    return check_offsets(_read(file).get(OFFSET, {}), names, str(file))


def _read(file: Path) -> dict[str, object]:
    if not file.is_file():
        return {}
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsthandError(f"{file} is not TOML ({error})", "it is damaged", "fix it, or remove it") from None


def check_offsets(offsets: object, names: Sequence[str], where: str) -> dict[str, int]:
    """Offsets by camera, if that is what they are.

    Args:
        offsets: What should be such a table.
        names: The rig's cameras.
        where: What holds them, for the message.

    Raises:
        UsthandError: If they are no table, name an unknown camera, or are not whole numbers.
    """
    fix = "write one line for each camera, as in cam_1 = 12 for one that started 12 frames late"
    if not isinstance(offsets, Mapping):
        raise UsthandError(f"{where} has an offset that is no table", "a camera's name is missing", fix)
    for name, frames in offsets.items():
        if name not in names:
            raise UsthandError(f"{where} has an offset for {name!r}", f"the cameras are {', '.join(names)}", fix)
        if not isinstance(frames, int) or isinstance(frames, bool):
            raise UsthandError(f"{where} has the offset {frames!r} for {name}", "offsets are whole frames", fix)
    return dict(offsets)
