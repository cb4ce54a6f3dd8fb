"""Videos that did not start together: stated offsets, and what all cameras share.

capture.toml:

    [offset]          # in frames: how much LATER the camera started than the others
    cam_1 = 12        # cam_1 started 12 frames late: its frame 0 shows what the others show in their frame 12
    cam_3 = -2        # cam_3 started 2 frames early

Cameras that are not named have offset 0. The capture is the time in which every camera recorded: nothing is cut off the files,
and what lies outside is told. Without the table all videos must be of one length.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from usthand.common.errors import UsthandError


@dataclass(frozen=True)
class Overlap:
    """The frames that all cameras share."""

    spans: tuple[tuple[int, int], ...]
    """Of each camera: the first frame of its file in the capture, and the one after the last."""
    outside: dict[str, tuple[int, int]]
    """Frames of each camera before and after the capture; cameras without any are not there."""

    def __str__(self) -> str:
        """A sentence for people."""
        frames = self.spans[0][1] - self.spans[0][0]
        if not self.outside:
            return f"All cameras share all {frames} frames."
        parts = [
            f"{name} " + " and ".join(f"{n} {where}" for n, where in zip(counts, ("before", "after"), strict=True) if n)
            for name, counts in self.outside.items()
        ]
        return f"{frames} frames are shared by all cameras; outside are, of each camera, {', '.join(parts)}."


def overlap(names: Sequence[str], lengths: Sequence[int], offsets: Mapping[str, int]) -> Overlap | None:
    """What cameras of these lengths share; None where they are of one length and no offset is stated.

    Args:
        lengths: Frames of each camera's file.
        offsets: How many frames later than the others a camera started, by name.

    Raises:
        UsthandError: if lengths differ and no offset is stated, or if nothing is shared.
    """
    if not offsets:
        if len(set(lengths)) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in zip(names, lengths, strict=True))
            raise UsthandError(
                f"the cameras have different numbers of frames ({listed})",
                "they did not start or stop together, or one video is truncated",
                f"say when each started, as in `--offset {names[0]}=0` if they all started together, or cut the videos alike",
            )
        return None
    starts = [offsets.get(name, 0) for name in names]
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    first, last = max(starts), min(ends)
    if last <= first:
        listed = ", ".join(f"{name} {a} to {b - 1}" for name, a, b in zip(names, starts, ends, strict=True))
        raise UsthandError(
            "no instant is in all videos",
            f"with these offsets they span {listed}",
            "check the offsets: a positive one means that the camera started late",
        )
    outside = {
        name: (first - a, b - last) for name, a, b in zip(names, starts, ends, strict=True) if (a, b) != (first, last)
    }
    return Overlap(tuple((first - start, last - start) for start in starts), outside)


def read_offsets(settings: Path, names: Sequence[str]) -> dict[str, int]:
    """The table [offset] of a capture.toml; empty where there is none.

    Raises:
        UsthandError: if it names a camera that the rig lacks, or holds anything but whole numbers.
    """
    if not settings.is_file():
        return {}
    return check_offsets(tomllib.loads(settings.read_text("utf-8")).get("offset", {}), names, str(settings))


def check_offsets(offsets: object, names: Sequence[str], where: str) -> dict[str, int]:
    """Offsets by camera, if they are such.

    Raises:
        UsthandError: if not; `where` tells where they stand.
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


def offsets_toml(offsets: Mapping[str, int]) -> str:
    """The table as text, with the meaning of its sign."""
    lines = [f'"{name}" = {frames}' for name, frames in offsets.items()]
    return "\n".join(["[offset]  # frames: how much later the camera started than the others", *lines]) + "\n"
