"""What the header of a video says, without decoding it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError

from usthand.capture.video import count_packets, damaged
from usthand.common.files import whole_file

COUNTS = ".frames.json"
"""Beside the videos: how many frames those have whose containers do not say."""


class VideoHeader(NamedTuple):
    """Size and length of one camera's recording."""

    width: int
    """px"""
    height: int
    n_frames: int
    fps: float | None
    """None where the file does not say, and for images."""


def probe_video(path: Path, remember: bool = False) -> VideoHeader:
    """Size, number of frames and frame rate of a video.

    Matroska and WebM do not say how many frames they hold: their packets are counted, which reads the whole file.

    Args:
        path: The video.
        remember: Keep a count in the video's folder, and use the one that is kept there.

    Raises:
        UsthandError: If the file is no video, or damaged.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            count = stream.frames or (_remembered_count(path, container) if remember else count_packets(container))
            rate = float(stream.average_rate) if stream.average_rate else None
            return VideoHeader(stream.width, stream.height, count, rate)
    except FFmpegError as error:
        raise damaged(path, error) from None
    except IndexError:
        raise damaged(path, ValueError("no video stream")) from None


def _remembered_count(video: Path, container: InputContainer) -> int:
    """Number of packets, counted only once if the folder may be written to."""
    memory, status = video.parent / COUNTS, video.stat()
    entry = {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}
    try:
        known = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    found = known.get(video.name, {})
    if isinstance(found, dict) and found.items() >= entry.items() and isinstance(found.get("frames"), int):
        return found["frames"]
    count = count_packets(container)
    try:
        with whole_file(memory) as partial:
            partial.write_text(json.dumps({**known, video.name: {**entry, "frames": count}}, indent=1) + "\n", "utf-8")
    except OSError:
        pass  # it is counted again each time
    return count
