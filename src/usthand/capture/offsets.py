"""The instants that all cameras share, where videos did not start together.

`usthand.capture.settings` says how offsets are stated. A capture is the time in which every camera recorded: nothing is
cut off the files, and what lies outside is reported. Without offsets all videos must have the same length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """What cameras of these lengths share; None where they have one length and no offset is stated.

    Args:
        names: The cameras.
        lengths: Frames of each camera's file.
        offsets: How many frames later than the others a camera started, by name.

    Raises:
        UsthandError: If lengths differ and no offset is stated, or if nothing is shared.
    """
    if not offsets:
        if len(set(lengths)) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in zip(names, lengths, strict=True))
            raise UsthandError(
                f"the cameras have different numbers of frames ({listed})",
                "they did not start or stop together, or one video is truncated",
                f"say when each started, as in `--offset {names[0]}=0` if they all started together, "
                "or cut the videos alike",
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
