"""How pictures reach the disk: webcams send JPEG or H.264, often of fewer pixels, and recorders compress once more.

`transmit` sends the frames of one camera through an encoder and a decoder of FFmpeg and gives back what arrives, in the
same size, so that artefacts are those of real codecs. Frames arrive in order, one for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from jaxtyping import UInt8

CODECS = {"libx264": "h264", "mpeg4": "mpeg4", "mjpeg": "mjpeg"}
"""Encoders, and the decoder of each."""
FORMATS = {"libx264": "yuv420p", "mpeg4": "yuv420p", "mjpeg": "yuvj420p"}


@dataclass(frozen=True)
class Transmission:
    """One camera's way to the disk."""

    codec: str = "libx264"
    quality: int = 20
    """CRF of H.264 (0 to 51) or the quantiser of MPEG-4 and JPEG (1 to 31): a higher number is coarser."""
    scale: float = 1.0
    """Size of what is sent, of the image's."""


def sample_transmissions(rng: np.random.Generator, n: int) -> tuple[Transmission | None, ...]:
    """Draw n cameras' ways; None is one that loses nothing. In half of all rigs they are all of one kind."""
    ways = [_sample_transmission(rng) for _ in range(n)]
    return tuple(ways[:1] * n if rng.uniform() < 0.5 else ways)


def _sample_transmission(rng: np.random.Generator) -> Transmission | None:
    codec = str(rng.choice(["none", *CODECS], p=[0.3, 0.3, 0.2, 0.2]))
    scale = float(rng.uniform(0.5, 1.0)) if rng.uniform() < 0.4 else 1.0
    crf, quantiser = int(rng.integers(20, 36)), int(rng.integers(2, 13))
    if codec == "none":
        return None
    return Transmission(codec, crf if codec == "libx264" else quantiser, scale)


def transmit(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]], way: Transmission | None, fps: float
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """What arrives of RGB frames of one size with even sides; the same frames give the same."""
    if way is None:
        yield from frames
        return
    encoder: VideoCodecContext | None = None
    decoder = _context(CODECS[way.codec], "r")
    size = (0, 0)
    for number, image in enumerate(frames):
        if encoder is None:
            size = image.shape[1], image.shape[0]
            encoder = _encoder(way, size, fps)
        sent = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        sent = sent.reformat(encoder.width, encoder.height, FORMATS[way.codec], interpolation="BICUBIC")
        sent.pts = number
        for packet in encoder.encode(sent):
            yield from _decoded(decoder, packet, size)
    if encoder is not None:
        for packet in encoder.encode(None):
            yield from _decoded(decoder, packet, size)
        yield from _decoded(decoder, None, size)


def _context(name: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    context = CodecContext.create(name, mode)
    assert isinstance(context, VideoCodecContext)
    context.thread_count = 1
    return context


def _encoder(way: Transmission, size: tuple[int, int], fps: float) -> VideoCodecContext:
    context = _context(way.codec, "w")
    context.width, context.height = (max(16, 2 * round(0.5 * way.scale * side)) for side in size)
    context.pix_fmt = FORMATS[way.codec]
    context.time_base, context.framerate = Fraction(1, round(fps)), Fraction(round(fps))
    if way.codec == "libx264":
        # As in `write_video`: the bytes shall depend on the frames alone. No frame waits for a later one.
        options = {"crf": str(way.quality), "preset": "veryfast", "tune": "zerolatency", "mbtree": "0", "threads": "1"}
    else:
        options = {"qmin": str(way.quality), "qmax": str(way.quality)}
    context.options = options
    return context


def _decoded(
    decoder: VideoCodecContext, packet: av.Packet | None, size: tuple[int, int]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    for frame in decoder.decode(packet):
        yield frame.reformat(*size, "rgb24", interpolation="BICUBIC").to_ndarray()
