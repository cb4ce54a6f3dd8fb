"""A capture folder read for diagnosis. What `open_capture` would refuse is noted here instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from usthand.capture.capture import DEFAULT_FPS, IMAGE_SUFFIXES, VIDEO_SUFFIXES, check_folder, read_list
from usthand.capture.probe import VideoHeader, probe_video
from usthand.capture.rig import Camera, Rig, load_rig
from usthand.capture.settings import read_offsets, read_settings
from usthand.common.errors import UsthandError
from usthand.hand.skeleton import SIDES
from usthand.labels.labels import Labels, load_npz


@dataclass(frozen=True)
class CaptureFacts:
    """Everything that is checked."""

    path: Path
    rig: Rig
    labels: tuple[Labels, ...]
    videos: dict[str, VideoHeader | None]
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
    check_folder(path)
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
    fps = settings.fps or (rates[0] if rates else DEFAULT_FPS)
    offsets = read_offsets(path / "capture.toml", rig.names)
    return CaptureFacts(path, rig, labels, videos, fps, offsets, dict(settings.origin))


def _video(folder: Path, camera: Camera) -> VideoHeader | None:
    name = camera.name
    for suffix in VIDEO_SUFFIXES:
        file = folder / f"{name}{suffix}"
        if file.is_file():
            try:
                return probe_video(file, remember=True)
            except UsthandError:
                return None
    images = folder / name
    found = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if images.is_dir() else []
    if not found and (folder / f"{name}.txt").is_file():
        # Listed images are placed on the camera's own canvas, and are many: none is opened.
        return VideoHeader(*camera.size, read_list(folder / f"{name}.txt", camera.size).n_frames, None)
    if not found:
        return None
    with Image.open(found[0]) as image:
        return VideoHeader(*image.size, len(found), None)
