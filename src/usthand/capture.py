"""A capture: a folder with a rig and one video, or folder of images, for each camera. Read lazily.

    capture/
      rig.toml                 the cameras (ours, Caliscope/pyxy3d or Anipose)
      capture.toml             optional: fps = 30.0
      <camera>.mp4             or .mov .avi .mkv .webm, or a folder <camera>/ of images in order of name
      labels/<side>.npz        2D pseudo-labels; of several people's further hands: labels/right-2.npz ...
      truth/<side>.npz         optional, synthetic captures only: for metrics, never for learning

Frame k of every camera is one instant. Truth is an object of its own, which the capture does not hold.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import av
import numpy as np
from PIL import Image

from usthand.errors import UserError
from usthand.rig import Rig, load_rig

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
DEFAULT_FPS = 30.0
CAPTURE_KEYS = {"fps"}
VIDEO_CRF = "15"  # H.264 quality: visually lossless, so that compression does not blur small hands


@dataclass(frozen=True)
class Source:
    """Where one camera's frames are."""

    path: Path
    n_frames: int
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Capture:
    """An opened capture. Holds no frames: `read` decodes them one by one."""

    path: Path
    rig: Rig
    sources: tuple[Source, ...]
    fps: float

    @property
    def n_frames(self) -> int:
        return self.sources[0].n_frames

    def labels_path(self, side: str) -> Path:
        """Where the labels of one hand are: "right", "left", or a further one such as "right-2"."""
        return self.path / "labels" / f"{side}.npz"

    def label_sides(self) -> tuple[str, ...]:
        """The sides that have labels, right first."""
        return tuple(side for side in ("right", "left") if self.labels_path(side).is_file())

    def label_hands(self) -> tuple[str, ...]:
        """All hands that have labels: the sides, and with several people the further hands, "right-2" and so on."""
        found = []
        for side in ("right", "left"):
            further = [p.stem for p in self.labels_path(side).parent.glob(f"{side}-*.npz") if p.stem[len(side) + 1 :].isdigit()]
            found += [side] if self.labels_path(side).is_file() else []
            found += sorted(further, key=lambda name: int(name.rpartition("-")[2]))
        return tuple(found)

    def read(self, camera: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Frames `start` to `stop` of one camera: (frame, RGB uint8 (H, W, 3)), in constant memory.

        Raises:
            UserError: if the file ends early or a frame has another size than the camera was calibrated for.
        """
        index = self.rig.index(camera)
        source, expected = self.sources[index], self.rig.cameras[index]
        stop = self.n_frames if stop is None else min(stop, self.n_frames)
        frame = start
        for frame, image in _decode(source, start, stop):
            if image.shape[:2] != (expected.height, expected.width):
                raise _wrong_size(source.path, image.shape[1], image.shape[0], expected.width, expected.height)
            yield frame, image
        if start < stop and frame != stop - 1:
            raise UserError(
                f"{source.path} ends at frame {frame} of {self.n_frames}",
                "the video is truncated or damaged",
                f"copy or record it again, or repair it with `ffmpeg -i {source.path.name} -c copy repaired.mp4`",
            )


def _decode(source: Source, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    if source.images:
        for frame in range(start, stop):
            yield frame, np.asarray(Image.open(source.images[frame]).convert("RGB"))
        return
    try:
        with av.open(str(source.path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            # Decoding from the beginning is exact for every container; seeking is not, and captures are short.
            for frame, picture in enumerate(container.decode(video=0)):
                if frame >= stop:
                    return
                if frame >= start:
                    yield frame, picture.to_ndarray(format="rgb24")
    except av.error.FFmpegError as error:
        raise _damaged(source.path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).split(":")[0]
    return UserError(
        f"{path} cannot be decoded ({reason})",
        "the video is truncated or damaged",
        f"copy or record it again, or repair it with `ffmpeg -i {path.name} -c copy repaired.mp4`",
    )


def _wrong_size(path: Path, width: int, height: int, want_width: int, want_height: int) -> UserError:
    return UserError(
        f"{path} is {width}x{height} px but the rig says {want_width}x{want_height}",
        "it was recorded at another size than calibrated, or the videos are swapped",
        f"record or resize it to {want_width}x{want_height}, or calibrate at {width}x{height}",
    )


# ---- opening ------------------------------------------------------------------------------------------------------


def open_capture(path: str | Path) -> Capture:
    """Open a capture folder: read the rig, find each camera's source, count frames. Decodes nothing.

    Raises:
        UserError: if the folder, a camera's source or a plausible size is missing, or the lengths differ.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"there is no folder {path}", "a capture is a folder with rig.toml and one video per camera", "check the path"
        )
    rig = load_rig(path / "rig.toml")
    sources = tuple(_find_source(path, camera.name, (camera.width, camera.height)) for camera in rig.cameras)
    counts = {source.n_frames for source in sources}
    if len(counts) > 1:
        lengths = ", ".join(f"{source.path.name} {source.n_frames}" for source in sources)
        raise UserError(
            f"the cameras have different numbers of frames ({lengths})",
            "the videos are not cut alike, or one is truncated",
            "cut them so that frame k is the same instant in all, or copy the short one again",
        )
    return Capture(path, rig, sources, _read_fps(path, sources[0]))


def _find_source(folder: Path, name: str, size: tuple[int, int]) -> Source:
    for suffix in VIDEO_SUFFIXES:
        video = folder / f"{name}{suffix}"
        if video.is_file():
            return Source(video, _count_frames(video, size))
    images = folder / name
    if images.is_dir():
        found = tuple(sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES))
        if found:
            with Image.open(found[0]) as image:
                if image.size != size:
                    raise _wrong_size(found[0], *image.size, *size)
            return Source(images, len(found), found)
    raise UserError(
        f"camera {name!r} of the rig has no video in {folder}",
        f"neither {name}.mp4 nor a folder {name}/ with images is there",
        "add it, rename the video after the camera, or remove the camera from rig.toml",
    )


def _count_frames(video: Path, size: tuple[int, int]) -> int:
    """The container's own count, or the number of packets where it does not say; nothing is decoded."""
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            if (stream.width, stream.height) != size:
                raise _wrong_size(video, stream.width, stream.height, *size)
            return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    except av.error.FFmpegError as error:
        raise _damaged(video, error) from None
    except IndexError:
        raise _damaged(video, ValueError("no video stream")) from None


def _read_fps(folder: Path, source: Source) -> float:
    settings = folder / "capture.toml"
    if settings.is_file():
        data = tomllib.loads(settings.read_text())
        unknown = set(data) - CAPTURE_KEYS
        if unknown:
            raise UserError(
                f"{settings} has the unknown key {min(unknown)!r}", "the only key is fps", "remove it or mend its spelling"
            )
        return float(data.get("fps", DEFAULT_FPS))
    if source.images:
        return DEFAULT_FPS
    with av.open(str(source.path)) as container:
        return float(container.streams.video[0].average_rate or DEFAULT_FPS)


# ---- truth ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """Ground truth of a synthetic capture: for metrics only. No network and no loss takes this type."""

    joints_world_m: np.ndarray
    """(T, 21, 3)"""
    vertices_world_m: np.ndarray
    """(T, 778, 3)"""
    visible: np.ndarray
    """(T, V, 21) bool"""
    pose: np.ndarray
    """(T, 48) axis-angle, radians, flat-hand mean; the first three are the wrist's"""
    shape: np.ndarray
    """(10,)"""
    translation_m: np.ndarray
    """(T, 3)"""


def save_truth(path: str | Path, side: str, truth: Truth) -> None:
    """Write `truth/<side>.npz` of the capture at `path`."""
    file = Path(path) / "truth" / f"{side}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **{f.name: getattr(truth, f.name) for f in fields(Truth)})


def load_truth(path: str | Path, side: str) -> Truth | None:
    """The truth of a capture, or None where there is none (every real capture)."""
    file = Path(path) / "truth" / f"{side}.npz"
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as data:
        return Truth(**{f.name: data[f.name] for f in fields(Truth)})


# ---- writing --------------------------------------------------------------------------------------------------------


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, crf: str = VIDEO_CRF) -> None:
    """Write RGB uint8 frames (H, W, 3) as H.264 (yuv420p, which every browser plays); sides must be even. A higher
    `crf` makes a smaller and coarser file."""
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
