"""Videos, frame by exact frame: counting without decoding, decoding from any frame on, writing.

Frame k of a video is the k-th that comes out when it is decoded from its beginning. To begin later, a decoder must be
sent to a key frame, and containers are asked for times, not for numbers. So the times of all frames are read from the
packets once, without decoding, which holds for any frame rate, steady or not; every frame that is decoded after a jump
is then recognised by its time. Where times are missing, doubled or not what was announced, decoding begins at the
beginning.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import Int, UInt8

from usthand.capture.frames import VideoPicture
from usthand.common.errors import UsthandError

JUMP_FROM = 500
"""Frames before this one are reached by decoding: it costs less than reading the times of all frames."""
TIMED = {"mov", "mp4", "matroska", "webm"}
"""Containers that keep when each frame is shown. AVI does not: its times are guesses, and others after a jump."""
REORDER = 17
"""Frames that the jump aims before its goal: H.264 may show a frame 16 later than it is stored, and containers jump by
the order of storage."""
VIDEO_CRF = "15"  # H.264 quality: visually lossless, so that compression does not blur small hands


def damaged(path: Path, error: Exception) -> UsthandError:
    """A video that cannot be decoded."""
    reason = str(error).split(":")[0]
    return UsthandError(
        f"{path} cannot be decoded ({reason})",
        "the video is truncated or damaged",
        f"copy or record it again, or repair it with `ffmpeg -i {path.name} -c copy repaired.mp4`",
    )


def count_packets(container: InputContainer) -> int:
    """Number of frames, by reading the whole file."""
    return sum(1 for packet in container.demux(video=0) if packet.size)


def usable_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode(path: Path, start: int, stop: int, threads: int = 0) -> Iterator[tuple[int, VideoPicture]]:
    """Frames `start` to `stop`, or to the end where that comes first; in constant memory.

    Args:
        path: The video.
        start: First frame.
        stop: The frame after the last.
        threads: Of the decoder; 0 for as many as it likes.

    Raises:
        UsthandError: If the file cannot be decoded.
    """
    frame = start
    try:
        if start >= JUMP_FROM:
            for frame, picture in _from_key_frame(path, start, stop, threads):
                yield frame, picture
                frame += 1
        if frame < stop:
            yield from _from_beginning(path, frame, stop, threads)
    except FFmpegError as error:
        raise damaged(path, error) from None


def _open(path: Path, threads: int) -> InputContainer:
    container = av.open(str(path))
    stream = container.streams.video[0]
    stream.thread_type, stream.thread_count = "AUTO" if threads != 1 else "NONE", threads
    return container


def _from_beginning(path: Path, start: int, stop: int, threads: int) -> Iterator[tuple[int, VideoPicture]]:
    with _open(path, threads) as container:
        for frame, picture in enumerate(container.decode(video=0)):
            if frame >= stop:
                return
            if frame >= start:
                yield frame, VideoPicture(picture)


def _from_key_frame(path: Path, start: int, stop: int, threads: int) -> Iterator[tuple[int, VideoPicture]]:
    """As `decode` as long as every frame is the one that must come next; stops where it is not."""
    times = frame_times(path)
    if times is None or start >= len(times):
        return
    frame = start
    with _open(path, threads) as container:
        container.seek(int(times[max(start - REORDER, 0)]), stream=container.streams.video[0])
        for picture in container.decode(video=0):
            if frame >= min(stop, len(times)) or picture.pts is None or picture.pts > times[frame]:
                return
            if picture.pts == times[frame]:
                yield frame, VideoPicture(picture)
                frame += 1
            elif frame > start:
                return


def frame_times(path: Path) -> Int[np.ndarray, "T"] | None:
    """When each frame is shown, in the stream's unit, in increasing order; None where frames cannot be told by times.

    Reads the file, but decodes only its first frame. The answer is kept as long as the file stays as it is.
    """
    status = path.stat()
    return _frame_times(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _frame_times(path: Path, size: int, changed_ns: int) -> Int[np.ndarray, "T"] | None:
    with av.open(str(path)) as container:
        if not TIMED & set(container.format.name.split(",")):
            return None
        shown = [packet.pts for packet in container.demux(video=0) if packet.size and not packet.is_discard]
    if not shown or None in shown:
        return None
    times = np.unique(np.array(shown, np.int64))
    with av.open(str(path)) as container:
        first = next(container.decode(video=0), None)
    # A stream that begins with frames that cannot be decoded is numbered from the first that can.
    return times if len(times) == len(shown) and first is not None and first.pts == times[0] else None


def write_video(
    path: str | Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float, crf: str = VIDEO_CRF
) -> None:
    """Write H.264 (yuv420p, which every browser plays).

    Args:
        path: The file.
        frames: RGB images, all of one size with even sides.
        fps: Frames per second.
        crf: H.264's quality: a higher number makes a smaller and coarser file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = None
        for image in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=round(fps))
                stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], "yuv420p"
                # The bytes shall depend on the frames alone. They would not with several threads, nor with x264's
                # "macroblock tree", which decides differently while other encoders run in the same process.
                stream.options = {"crf": crf, "preset": "veryfast", "threads": "1", "mbtree": "0"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())
