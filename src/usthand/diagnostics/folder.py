"""A capture folder read for diagnosis. What `open_capture` would refuse is noted here instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image

from usthand.capture.capture import DEFAULT_FPS, IMAGE_SUFFIXES, VIDEO_SUFFIXES, read_list, read_settings
from usthand.capture.offsets import read_offsets
from usthand.capture.rig import Camera, Rig, load_rig
from usthand.common.errors import UsthandError
from usthand.hand.skeleton import SIDES
from usthand.labels.labels import Labels, load_npz


@dataclass(frozen=True)
class VideoFacts:
    """What the header of a camera's video says."""

    width: int
    height: int
    n_frames: int
    fps: float | None
    """None for a folder of images."""


@dataclass(frozen=True)
class CaptureFacts:
    """Everything that is checked."""

    path: Path
    rig: Rig
    labels: tuple[Labels, ...]
    videos: dict[str, VideoFacts | None]
    """By camera; None where there is no video, or none that opens."""
    fps: float
    offsets: dict[str, int]
    """By camera: how many frames later than the others it started, as capture.toml says."""
    origin: dict[str, str]
    """The other keys of capture.toml: data set, protocol and split."""


def read_facts(path: str | Path) -> CaptureFacts:
    """Read a capture's rig, labels and the headers of its videos.

    Raises:
        UsthandError: If there is no folder, no rig or no labels, or one of these files cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsthandError(
            f"there is no folder {path}",
            "a capture is a folder with rig.toml and one video per camera",
            "check the path",
        )
    rig = load_rig(path / "rig.toml")
    files = [path / "labels" / f"{side}.npz" for side in SIDES]
    labels = tuple(load_npz(file) for file in files if file.is_file())
    if not labels:
        raise UsthandError(
            f"{path} has no labels",
            "no detector has been run on it, and the labels are what is checked",
            f"run `usthand label {path}`",
        )
    videos = {camera.name: _video(path, camera) for camera in rig.cameras}
    settings = read_settings(path / "capture.toml")
    rates = [video.fps for video in videos.values() if video is not None and video.fps]
    fps = float(settings.pop("fps", rates[0] if rates else DEFAULT_FPS))
    origin = {key: str(value) for key, value in settings.items()}
    return CaptureFacts(path, rig, labels, videos, fps, read_offsets(path / "capture.toml", rig.names), origin)


def _video(folder: Path, camera: Camera) -> VideoFacts | None:
    name = camera.name
    for suffix in VIDEO_SUFFIXES:
        file = folder / f"{name}{suffix}"
        if file.is_file():
            try:
                with av.open(str(file)) as container:
                    stream = container.streams.video[0]
                    count = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
                    return VideoFacts(stream.width, stream.height, count, float(stream.average_rate or 0) or None)
            except (av.error.FFmpegError, IndexError):
                return None
    images = folder / name
    found = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if images.is_dir() else []
    if not found and (folder / f"{name}.txt").is_file():
        # Listed images are laid on the camera's own canvas, and are many: none is opened.
        return VideoFacts(
            camera.width, camera.height, read_list(folder / f"{name}.txt", (camera.width, camera.height)).n_frames, None
        )
    if not found:
        return None
    with Image.open(found[0]) as image:
        return VideoFacts(*image.size, len(found), None)
