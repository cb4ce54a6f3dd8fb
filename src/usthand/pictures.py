"""Single frames, not yet turned into RGB: a crop of a video frame need not pay for the whole frame's conversion.

H.264 and its relatives hold luma and chroma in planes. Turning a 1280 x 720 frame into RGB takes a quarter as long as
decoding it, and a hand fills a tenth of it. `part` therefore converts only what is asked for, with the very converter that
converts whole frames, and gives the same values to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Bool, UInt8

# In these formats the converter takes each pixel's chroma from its own chroma sample, so what lies outside a part has no
# influence on it. In others (10 bits, 4:4:4) it may filter: those frames are converted whole.
PLANAR = {"yuv420p": (2, 2), "yuvj420p": (2, 2), "yuv422p": (2, 1), "yuvj422p": (2, 1)}
"""Format: luma samples per chroma sample, across and down."""
# A converter is made ready for one size: sizes of parts are rounded up to few different ones.
PART_STEP_PX = 64
# One thread: the frame is small, and threads of its own would only get into the way of the decoders' (PyAV 17 and later).
TO_RGB = {"format": "rgb24"} | ({"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {})


class Picture(Protocol):
    """A frame of one camera."""

    def rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        """The whole image."""

    def part(self, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """As `rgb()[y : y + height, x : x + width]`; all of it must lie inside the image."""


@dataclass(frozen=True)
class ImagePicture:
    """An image in a file, which is read when it is asked for."""

    read: Callable[[], UInt8[np.ndarray, "H W 3"]]

    def rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        return self.read()

    def part(self, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        return self.read()[y : y + height, x : x + width]


@dataclass(frozen=True)
class PartConverter:
    """What converts the parts of one video's frames; not to be shared by threads."""

    converters: dict[tuple, tuple[av.VideoFrame, VideoReformatter]] = field(default_factory=dict)
    """By format and size: a frame to copy planes into, and its converter."""

    def part(self, frame: av.VideoFrame, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB of a part of a frame in one of the `PLANAR` formats."""
        across, down = PLANAR[frame.format.name]
        left, top = x - x % across, y - y % down
        right, bottom = min(-(-(x + width) // 2) * 2, frame.width), min(-(-(y + height) // 2) * 2, frame.height)
        size = tuple(-(-n // PART_STEP_PX) * PART_STEP_PX for n in (right - left, bottom - top))
        key = (frame.format.name, *size)
        if key not in self.converters:
            self.converters[key] = av.VideoFrame(*size, frame.format.name), VideoReformatter()
        scratch, converter = self.converters[key]
        scratch.colorspace, scratch.color_range = frame.colorspace, frame.color_range
        for source, target, h, v in zip(frame.planes, scratch.planes, (1, across, across), (1, down, down), strict=True):
            piece = _samples(source)[top // v : -(-bottom // v), left // h : -(-right // h)]
            _samples(target)[: piece.shape[0], : piece.shape[1]] = piece
        image = converter.reformat(scratch, **TO_RGB).to_ndarray()
        return image[y - top : y - top + height, x - left : x - left + width]


def _samples(plane: av.video.plane.VideoPlane) -> UInt8[np.ndarray, "h line"]:
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)


@dataclass(frozen=True)
class VideoPicture:
    """A decoded frame of a video. The decoder's memory is behind it, so keep few."""

    frame: av.VideoFrame
    converter: PartConverter

    def rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        return self.frame.to_ndarray(**TO_RGB)

    def part(self, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        if self.frame.format.name in PLANAR and not self.frame.interlaced_frame:
            return self.converter.part(self.frame, x, y, width, height)
        return self.rgb()[y : y + height, x : x + width]


# ---- paths ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImagePaths(Sequence):
    """Paths of a camera's images, None where one is missing; made when asked for.

    The names lie in one run of bytes: as 100,000 `Path` objects they would take a second and 40 MB per camera.
    """

    folder: Path
    names: bytes
    """All names, relative to the folder or absolute, one after the other."""
    ends: np.ndarray
    """(T + 1,) where each name ends, the first entry being 0."""

    @staticmethod
    def of(folder: Path, names: Iterable[str]) -> ImagePaths:
        """From names, empty where an image is missing."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(name) for name in encoded], out=ends[1:])
        return ImagePaths(folder, b"".join(encoded), ends)

    @property
    def present(self) -> Bool[np.ndarray, "T"]:
        """False where an image is missing."""
        return np.diff(self.ends) > 0

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, frame: int) -> Path | None:
        frame = range(len(self))[frame]
        name = self.names[self.ends[frame] : self.ends[frame + 1]]
        return self.folder / os.fsdecode(name) if name else None
