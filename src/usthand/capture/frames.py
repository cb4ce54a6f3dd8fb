"""Single frames, not yet turned into RGB: a crop of a video frame need not pay for the whole frame's conversion.

H.264 and its relatives hold luma and chroma in planes. Turning a 1280 x 720 frame into RGB takes a quarter as long as
decoding it, and a hand fills a tenth of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import av
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from usthand.capture.resample import Planes

COARSE = {"yuv420p": (2, 2), "yuvj420p": (2, 2), "yuv422p": (2, 1), "yuvj422p": (2, 1)}
"""Pixels per chroma sample, across and down, in formats whose planes are used as they are; others become RGB first."""
# The weights of red and blue in luma, by FFmpeg's number of the colour space; what is not stated (2) counts as BT.601.
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114)}
FULL_RANGE = 2  # FFmpeg's number for luma from 0 to 255, not 16 to 235
# One thread: threads of its own would only get into the way of the decoders' (PyAV 17 and later).
TO_RGB: dict[str, Any] = {"format": "rgb24"} | ({"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {})


@runtime_checkable
class Picture(Protocol):
    """A frame of one camera."""

    def rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image."""
        ...

    def planes(self) -> Planes:
        """The image as it was decoded, if that saves work."""
        ...


@dataclass(frozen=True)
class ImagePicture:
    """An image in a file, which is read when it is asked for."""

    read: Callable[[], UInt8[np.ndarray, "H W 3"]]

    def rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image."""
        return self.read()

    def planes(self) -> Planes:
        """The image as planes."""
        return planes_of(self.read())


@dataclass(frozen=True)
class VideoPicture:
    """A decoded frame of a video. The decoder's memory is behind it, so keep few."""

    frame: av.VideoFrame

    def rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image."""
        return self.frame.to_ndarray(**TO_RGB)

    def planes(self) -> Planes:
        """The planes as they were decoded, where their format is a usual one."""
        frame, name = self.frame, self.frame.format.name
        if name not in COARSE or frame.colorspace not in LUMA_WEIGHTS or frame.interlaced_frame:
            return planes_of(self.rgb())
        full = name.startswith("yuvj") or frame.color_range == FULL_RANGE
        # PyAV's stubs do not say that its planes have the buffer protocol.
        flat = (np.frombuffer(plane, np.uint8) for plane in frame.planes)  # pyright: ignore[reportArgumentType, reportCallIssue]
        luma, blue, red = (row.reshape(-1, plane.line_size) for row, plane in zip(flat, frame.planes, strict=True))
        return Planes(
            (luma, blue, red), (frame.width, frame.height), COARSE[name], rgb_from_yuv(frame.colorspace, full)
        )


def planes_of(image: UInt8[np.ndarray, "H W 3"]) -> Planes:
    """An RGB image as planes."""
    red, green, blue = (np.ascontiguousarray(image[..., channel]) for channel in range(3))
    return Planes((red, green, blue), (image.shape[1], image.shape[0]), (1, 1), np.eye(3, 4, dtype=np.float32))


@lru_cache
def rgb_from_yuv(space: int, full: bool) -> Float[np.ndarray, "3 4"]:
    """RGB in [0, 255] from 8-bit luma, blue and red difference and 1 (ITU-R BT.601 and BT.709).

    Args:
        space: one of `LUMA_WEIGHTS`.
        full: samples fill 0 to 255; otherwise luma lies in 16 to 235 and chroma in 16 to 240.
    """
    red, blue = LUMA_WEIGHTS[space]
    green = 1 - red - blue
    rows = [
        [1, 0, 2 - 2 * red],
        [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
        [1, 2 - 2 * blue, 0],
    ]
    scale = np.ones(3) if full else 255 / np.array([219, 224, 224])
    matrix = np.array(rows) * scale
    return np.c_[matrix, -matrix @ [0 if full else 16, 128, 128]].astype(np.float32)


# ---- paths ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImagePaths(Sequence[Path | None]):
    """Paths of a camera's images, None where one is missing; made when asked for.

    The names lie in one run of bytes: as 100,000 `Path` objects they would take a second and 40 MB per camera.
    """

    folder: Path
    names: bytes
    """All names, relative to the folder or absolute, one after the other."""
    ends: Int[np.ndarray, "_"]
    """Where each name ends, the first entry being 0."""

    @staticmethod
    def of(folder: Path, names: Iterable[str]) -> ImagePaths:
        """From names, empty where an image is missing."""
        return ImagePaths._of(folder, [os.fsencode(name) for name in names])

    @staticmethod
    def in_folder(folder: Path, suffixes: tuple[str, ...]) -> ImagePaths:
        """The files of a folder that have one of the suffixes, in order of name."""
        endings = tuple(os.fsencode(suffix) for suffix in suffixes)
        # Names are compared as the bytes that they are: for 100,000 files, half a second less than as `Path`.
        names = (name for name in os.listdir(os.fsencode(folder)) if name[-8:].lower().endswith(endings))
        return ImagePaths._of(folder, sorted(names))

    @staticmethod
    def _of(folder: Path, names: list[bytes]) -> ImagePaths:
        ends = np.zeros(len(names) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, names), np.int64, len(names)), out=ends[1:])
        return ImagePaths(folder, b"".join(names), ends)

    @property
    def present(self) -> Bool[np.ndarray, "T"]:
        """False where an image is missing."""
        return np.diff(self.ends) > 0

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, frame: int) -> Path | None: ...

    @overload
    def __getitem__(self, frame: slice) -> ImagePaths: ...

    def __getitem__(self, frame: int | slice) -> Path | ImagePaths | None:
        if isinstance(frame, slice):
            first, last, step = frame.indices(len(self))
            if step != 1:
                raise ValueError("only frames one after the other can be taken out")
            ends = self.ends[first : max(last, first) + 1]
            return ImagePaths(self.folder, self.names[ends[0] : ends[-1]], ends - ends[0])
        frame = range(len(self))[frame]
        name = self.names[self.ends[frame] : self.ends[frame + 1]]
        return self.folder / os.fsdecode(name) if name else None
