"""A capture: a folder with a rig and one video, folder of images or list of images for each camera. Read lazily.

    capture/
      rig.toml                 the cameras (ours, Caliscope/pyxy3d, Anipose or FreeMoCap)
      capture.toml             optional: fps = 30.0; dataset, protocol and split for footage of a data set; a table [offset]
                               for cameras that did not start together
      <camera>.mp4             or .mov .avi .mkv .webm, or a folder <camera>/ of images in order of name,
      <camera>.txt             or a list of images, a line per frame (`ImageRef` says what a line may hold)
      labels/<side>.npz        2D pseudo-labels; of several people's further hands: labels/right-2.npz ...
      truth/<side>.npz         optional, of synthetic captures and data sets: for metrics, never for learning

Frame k of every camera is one instant: of videos with offsets, the overlap counts (`usthand.capture.offsets`). In a list, an empty
line is a frame that this camera lacks. Truth is an object of its own (`usthand.evaluation.truth`), which the capture does not hold.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from math import ceil, floor, isfinite
from pathlib import Path

import av
import numpy as np
from jaxtyping import Bool
from PIL import Image

from usthand.capture.frames import ImagePaths, ImagePicture, Picture
from usthand.capture.offsets import Overlap, overlap, read_offsets
from usthand.capture.rig import Rig, load_rig
from usthand.capture.video import count_packets, damaged, decode
from usthand.common.errors import UsthandError

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
DEFAULT_FPS = 30.0
CAPTURE_KEYS = {"fps": float, "dataset": str, "protocol": str, "split": str}
OFFSET_KEY = "offset"  # a table, which `usthand.capture.offsets` reads
COUNTS = ".frames.json"  # how many frames the videos have whose containers do not say


@dataclass(frozen=True)
class ImageRef:
    """An image of a list, and where it lies on its camera's canvas (the image that the rig speaks of).

    A line of the list is `path`, relative to the capture's folder or absolute, or `path<TAB>x<TAB>y<TAB>scale`: the
    image's pixel (u, v) then lies at (x + scale u, y + scale v) of the canvas, where pixel centres are at integers in
    both. An image with the intrinsics K therefore is seen by a camera with scale fx, scale fy, x + scale cx,
    y + scale cy. Without the three numbers the image is the canvas and must have its size.
    """

    path: Path
    x: float = 0.0
    """px of the canvas."""
    y: float = 0.0
    scale: float = 1.0
    """px of the canvas per px of the image."""


@dataclass(frozen=True)
class Source:
    """Where one camera's frames are."""

    path: Path
    n_frames: int
    size: tuple[int, int]
    """Width and height of the camera, px."""
    images: ImagePaths | tuple[()] = ()
    """Empty for a video; None where this camera lacks the frame."""
    placements: tuple[tuple[float, float, float] | None, ...] = ()
    """x, y and scale of an `ImageRef`; empty where no image has any, None where an image has the camera's own size."""
    start: int = 0
    """Frame of the video at which the capture begins."""


@dataclass(frozen=True)
class Capture:
    """An opened capture. Holds no frames: `read` decodes them one by one."""

    path: Path
    rig: Rig
    sources: tuple[Source, ...]
    fps: float
    dataset: str = ""
    """The data set that the footage is of, by the name that `usthand import` knows; empty for one's own."""
    protocol: str = ""
    split: str = ""
    overlap: Overlap | None = None
    """What offsets leave of the videos; None where none are stated."""

    @property
    def n_frames(self) -> int:
        return self.sources[0].n_frames

    @property
    def present(self) -> Bool[np.ndarray, "T V"]:
        """False where a camera lacks a frame; `read` gives a black image there."""
        here = np.ones((self.n_frames, len(self.sources)), bool)
        for view, source in enumerate(self.sources):
            if source.images:
                here[:, view] = source.images.present
        return here

    def labels_path(self, side: str) -> Path:
        """Where the labels of one hand are: "right", "left", or a further one such as "right-2"."""
        return self.path / "labels" / f"{side}.npz"

    def identity(self, camera: str) -> dict[str, str | int]:
        """What tells one camera's footage from another: the files' names, sizes and times of change. Reads no file."""
        source = self.sources[self.rig.index(camera)]
        files = [path for path in source.images if path is not None] if source.images else [source.path]
        seen = sha256(repr(source.placements).encode())
        for path in files:
            status = path.stat() if path.exists() else None
            seen.update(repr((path.name, status and (status.st_size, status.st_mtime_ns))).encode())
        return {"source": source.path.name, "start": source.start, "frames": source.n_frames, "files": seen.hexdigest()}

    def label_sides(self) -> tuple[str, ...]:
        """The sides that have labels, right first."""
        return tuple(side for side in ("right", "left") if self.labels_path(side).is_file())

    def label_hands(self) -> tuple[str, ...]:
        """All hands that have labels: the sides, and with several people the further hands, "right-2" and so on."""
        found = []
        for side in ("right", "left"):
            further = [
                p.stem for p in self.labels_path(side).parent.glob(f"{side}-*.npz") if p.stem[len(side) + 1 :].isdigit()
            ]
            found += [side] if self.labels_path(side).is_file() else []
            found += sorted(further, key=lambda name: int(name.rpartition("-")[2]))
        return tuple(found)

    def read(self, camera: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Frames `start` to `stop` of one camera: (frame, RGB uint8 (H, W, 3)), in constant memory.

        A frame that the camera lacks is black.

        Raises:
            UsthandError: if the file ends early, an image is missing or unreadable, or a frame has another size than the
                camera was calibrated for.
        """
        for frame, picture in self.pictures(camera, start, stop):
            yield frame, picture.rgb()

    def pictures(
        self, camera: str, start: int = 0, stop: int | None = None, threads: int = 0
    ) -> Iterator[tuple[int, Picture]]:
        """As `read`, but each frame still as it was decoded, for those who need only a part of it, or not every frame; by a
        decoder with so many threads, as many as it likes if 0."""
        source = self.sources[self.rig.index(camera)]
        stop = self.n_frames if stop is None else min(stop, self.n_frames)
        done = start
        for frame, picture in _decode(source, start, stop, threads):
            done = frame + 1
            yield frame, picture
        if done < stop:
            raise UsthandError(
                f"{source.path} ends at frame {max(done - 1, 0)} of {self.n_frames}",
                "the video is truncated or damaged",
                f"copy or record it again, or repair it with `ffmpeg -i {source.path.name} -c copy repaired.mp4`",
            )


def _decode(source: Source, start: int, stop: int, threads: int) -> Iterator[tuple[int, Picture]]:
    if source.images:
        for frame in range(start, stop):
            yield frame, ImagePicture(partial(_read_image, source, frame))
        return
    for frame, picture in decode(source.path, start + source.start, stop + source.start, threads):
        if (picture.frame.width, picture.frame.height) != source.size:
            raise _wrong_size(source.path, picture.frame.width, picture.frame.height, *source.size)
        yield frame - source.start, picture


def _read_image(source: Source, frame: int) -> np.ndarray:
    path = source.images[frame]
    if path is None:
        return np.zeros((source.size[1], source.size[0], 3), np.uint8)
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise UsthandError(
            f"frame {frame} of {source.path} cannot be read: {path}",
            "the image is missing" if isinstance(error, FileNotFoundError) else "the image is cut short or no image",
            "copy it again, or leave its line empty so that the view counts as missing",
        ) from None
    placement = source.placements[frame] if source.placements else None
    if placement is not None:
        image = place_image(image, *placement, source.size)
    elif image.size != source.size:
        raise _wrong_size(path, *image.size, *source.size)
    return np.asarray(image)


def place_image(image: Image.Image, x: float, y: float, scale: float, size: tuple[int, int]) -> Image.Image:
    """An RGB image laid on a black canvas of `size` (width, height), as `ImageRef` says; bilinear, anti-aliased.

    A pixel of the canvas takes part only where the image covers it whole. With integers x, y and scale 1 the pixels are
    copied.
    """
    canvas = Image.new("RGB", size)
    spans = [_span(at, scale, length, limit) for at, length, limit in zip((x, y), image.size, size, strict=True)]
    (left, right), (top, bottom) = spans
    if left < right and top < bottom:
        # Corners of the pixels lie half a pixel before their centres, in the canvas as in the image.
        box = [(edge - 0.5 - at) / scale + 0.5 for edge, at in ((left, x), (top, y), (right, x), (bottom, y))]
        box = [min(max(edge, 0.0), float(end)) for edge, end in zip(box, image.size * 2, strict=True)]  # rounding
        canvas.paste(image.resize((right - left, bottom - top), Image.BILINEAR, box), (left, top))
    return canvas


def _span(at: float, scale: float, length: int, limit: int) -> tuple[int, int]:
    """First and last-plus-one pixel of the canvas that an image of `length` pixels covers whole, along one axis."""
    rounding = 1e-6
    first = ceil(at + 0.5 - 0.5 * scale - rounding)
    last = floor(at - 0.5 + scale * (length - 0.5) + rounding)
    return max(first, 0), min(last + 1, limit)


def _wrong_size(path: Path, width: int, height: int, want_width: int, want_height: int) -> UsthandError:
    return UsthandError(
        f"{path} is {width}x{height} px but the rig says {want_width}x{want_height}",
        "it was recorded at another size than calibrated, or the videos are swapped",
        f"record or resize it to {want_width}x{want_height}, or calibrate at {width}x{height}",
    )


# ---- opening ------------------------------------------------------------------------------------------------------


def open_capture(path: str | Path) -> Capture:
    """Open a capture folder: read the rig, find each camera's source, count frames. Decodes nothing.

    Whether the images of a list exist is checked when they are read: lists may be long, and their disks slow.

    Raises:
        UsthandError: if the folder, a camera's source or a plausible size is missing, or the lengths differ.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsthandError(
            f"there is no folder {path}",
            "a capture is a folder with rig.toml and one video per camera",
            "check the path",
        )
    rig = load_rig(path / "rig.toml")
    sources = tuple(_find_source(path, camera.name, (camera.width, camera.height)) for camera in rig.cameras)
    settings = read_settings(path / "capture.toml")
    fps = settings.pop("fps", None)
    shared = overlap(rig.names, [source.n_frames for source in sources], read_offsets(path / "capture.toml", rig.names))
    if shared is not None:
        sources = tuple(_cut(source, *span) for source, span in zip(sources, shared.spans, strict=True))
    return Capture(path, rig, sources, _video_fps(sources[0]) if fps is None else fps, **settings, overlap=shared)


def _cut(source: Source, start: int, stop: int) -> Source:
    """The part of a source that lies in the overlap."""
    return replace(
        source,
        n_frames=stop - start,
        start=0 if source.images else start,
        images=source.images[start:stop],
        placements=source.placements[start:stop],
    )


def _find_source(folder: Path, name: str, size: tuple[int, int]) -> Source:
    for suffix in VIDEO_SUFFIXES:
        video = folder / f"{name}{suffix}"
        if video.is_file():
            return Source(video, _count_frames(video, size), size)
    images = folder / name
    if images.is_dir():
        found = ImagePaths.in_folder(images, IMAGE_SUFFIXES)
        if found:
            with Image.open(found[0]) as image:
                if image.size != size:
                    raise _wrong_size(found[0], *image.size, *size)
            return Source(images, len(found), size, found)
    listed = folder / f"{name}.txt"
    if listed.is_file():
        return read_list(listed, size)
    raise UsthandError(
        f"camera {name!r} of the rig has no video in {folder}",
        f"neither {name}.mp4 nor a folder {name}/ with images nor a list {name}.txt is there",
        "add it, rename the video after the camera, or remove the camera from rig.toml",
    )


def _count_frames(video: Path, size: tuple[int, int]) -> int:
    """The container's own count, or the number of packets where it does not say; nothing is decoded."""
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            if (stream.width, stream.height) != size:
                raise _wrong_size(video, stream.width, stream.height, *size)
            return stream.frames or _remembered_count(video, container)
    except av.error.FFmpegError as error:
        raise damaged(video, error) from None
    except IndexError:
        raise damaged(video, ValueError("no video stream")) from None


def _remembered_count(video: Path, container: av.container.InputContainer) -> int:
    """The number of packets, which takes reading the whole file (Matroska and WebM do not tell it), kept beside the videos.

    A capture that may not be written to is counted each time.
    """
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
    written = memory.with_name(f"{COUNTS}.{os.getpid()}")
    try:
        written.write_text(json.dumps({**known, video.name: {**entry, "frames": count}}, indent=1) + "\n", "utf-8")
        written.replace(memory)
    except OSError:
        written.unlink(missing_ok=True)
    return count


def read_list(file: Path, size: tuple[int, int]) -> Source:
    """The list of a camera's images. Raises `UsthandError` on a line that is none; no image is looked for."""
    try:
        lines = file.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise _bad_line(file, 0, f"is not text ({error.reason})") from None
    if not lines[-1]:
        lines.pop()  # what follows the last line's end
    if not lines:
        raise _bad_line(file, 0, "lists no frame")
    images: list[str] = []
    placements: list[tuple[float, float, float] | None] = []
    for number, line in enumerate(lines, 1):
        path, tab, rest = line.partition("\t")
        images.append(path)
        placements.append(_placement(file, number, rest) if tab else None)
    placed = any(p is not None for p in placements)
    return Source(file, len(images), size, ImagePaths.of(file.parent, images), tuple(placements) if placed else ())


def _placement(file: Path, number: int, text: str) -> tuple[float, float, float]:
    try:
        x, y, scale = (float(value) for value in text.split("\t"))
    except ValueError:
        raise _bad_line(file, number, f"has {text!r} after the path") from None
    if not (isfinite(x) and isfinite(y) and isfinite(scale) and scale > 0):
        raise _bad_line(file, number, f"has the impossible place {text!r}")
    return x, y, scale


def _bad_line(file: Path, number: int, fact: str) -> UsthandError:
    return UsthandError(
        f"{file}{f', line {number},' if number else ''} {fact}",
        "a line is a path, or a path, x, y and scale with tabs between, or empty where the image is missing",
        "fix the list, or import the data set again",
    )


def read_settings(file: Path) -> dict[str, float | str]:
    """The checked entries of capture.toml; none where there is no such file."""
    if not file.is_file():
        return {}
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsthandError(f"{file} is not TOML ({error})", "it is damaged", "fix it, or remove it") from None
    data.pop(OFFSET_KEY, None)
    for key, value in data.items():
        known = ", ".join((*CAPTURE_KEYS, OFFSET_KEY))
        if key not in CAPTURE_KEYS:
            raise UsthandError(
                f"{file} has the unknown key {key!r}", f"the keys are {known}", "remove it or fix its spelling"
            )
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
        if not (number if CAPTURE_KEYS[key] is float else isinstance(value, str)):
            kind = "a positive number" if CAPTURE_KEYS[key] is float else "text in quotes"
            raise UsthandError(f"{file} has {key} = {value!r}", f"{key} is {kind}", "fix the value")
    return {key: CAPTURE_KEYS[key](value) for key, value in data.items()}


def _video_fps(source: Source) -> float:
    if source.images:
        return DEFAULT_FPS
    with av.open(str(source.path)) as container:
        return float(container.streams.video[0].average_rate or DEFAULT_FPS)
