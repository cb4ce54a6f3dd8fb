"""A capture: a folder with a rig and one video, folder of images or list of images for each camera. Read lazily.

    capture/
      rig.toml                 the cameras (ours, Caliscope/pyxy3d, Anipose or FreeMoCap)
      capture.toml             optional: frame rate, data set, cameras that did not start together; see
                               `usthand.capture.settings`
      <camera>.mp4             or .mov .avi .mkv .webm, or a folder <camera>/ of images in order of name,
      <camera>.txt             or a list of images, a line per frame (`ImageRef` says what a line may hold)
      labels/<side>.npz        2D pseudo-labels; of several people's further hands: labels/right-2.npz ...
      truth/<side>.npz         optional, of synthetic captures and data sets: for metrics, never for learning

Frame k of every camera is one instant: of videos with offsets, the overlap counts (`usthand.capture.offsets`). In a
list, an empty line is a frame that this camera lacks. Truth is an object of its own (`usthand.evaluation.truth`), which
the capture does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from math import ceil, floor, isfinite
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from usthand.capture.frames import ImagePaths, ImagePicture, Picture
from usthand.capture.offsets import Overlap, overlap
from usthand.capture.probe import probe_video
from usthand.capture.rig import Rig, load_rig
from usthand.capture.settings import read_offsets, read_settings
from usthand.capture.video import decode
from usthand.common.errors import UsthandError

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
DEFAULT_FPS = 30.0


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
class FrameSource:
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
    fps: float | None = None
    """None for images, and where the video does not say."""


@dataclass(frozen=True)
class Capture:
    """An opened capture; `open_capture` makes one. It holds no frames: `read` decodes them one by one.

    Examples:
        >>> import usthand
        >>> capture = usthand.open_capture("clip")
        >>> capture.n_frames, capture.fps, capture.rig.names
        >>> frame, image = next(iter(capture.read(capture.rig.names[0], stop=1)))  # image: (height, width, 3) RGB
    """

    path: Path
    rig: Rig
    sources: tuple[FrameSource, ...]
    fps: float
    dataset: str = ""
    """The data set that the footage is of, by the name that `usthand import` knows; empty for one's own."""
    protocol: str = ""
    split: str = ""
    overlap: Overlap | None = None
    """What offsets leave of the videos; None where none are stated."""

    @property
    def n_frames(self) -> int:
        """How many frames every camera has."""
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
        """What distinguishes one camera's footage: its files' names, sizes and times of change. Reads no file."""
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
            numbers = (path.stem.partition("-")[2] for path in self.labels_path(side).parent.glob(f"{side}-*.npz"))
            found += [side] if self.labels_path(side).is_file() else []
            found += [f"{side}-{number}" for number in sorted(filter(str.isdigit, numbers), key=int)]
        return tuple(found)

    def read(
        self, camera: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "H W 3"]]]:
        """Frames `start` up to `stop` (default: all) of one camera, in constant memory.

        Yields:
            The frame's number and its RGB image; a black one where the camera lacks the frame.

        Raises:
            UsthandError: If the rig has no such camera, the file ends early, an image is missing or unreadable, or a
                frame has another size than the camera was calibrated for.
        """
        for frame, picture in self.pictures(camera, start, stop):
            yield frame, picture.rgb()

    def pictures(
        self, camera: str, start: int = 0, stop: int | None = None, threads: int = 0
    ) -> Iterator[tuple[int, Picture]]:
        """As `read`, but each frame still as it was decoded: for those who need only a part of it, or not every frame.

        Args:
            camera: Name of the camera.
            start: First frame.
            stop: The frame after the last; None for all.
            threads: Of the decoder; 0 for as many as it likes.
        """
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


def _decode(source: FrameSource, start: int, stop: int, threads: int) -> Iterator[tuple[int, Picture]]:
    if source.images:
        for frame in range(start, stop):
            yield frame, ImagePicture(partial(_read_image, source, frame))
        return
    for frame, picture in decode(source.path, start + source.start, stop + source.start, threads):
        if (picture.frame.width, picture.frame.height) != source.size:
            raise _wrong_size(source.path, picture.frame.width, picture.frame.height, *source.size)
        yield frame - source.start, picture


def _read_image(source: FrameSource, frame: int) -> np.ndarray:
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
    """An RGB image on a black canvas of `size` (width, height), placed as `ImageRef` says; bilinear, anti-aliased.

    Only pixels of the canvas that the image covers whole are painted. With integers x, y and scale 1 pixels are copied.
    """
    canvas = Image.new("RGB", size)
    spans = [_span(at, scale, length, limit) for at, length, limit in zip((x, y), image.size, size, strict=True)]
    (left, right), (top, bottom) = spans
    if left < right and top < bottom:
        # Corners of the pixels lie half a pixel before their centres, in the canvas as in the image.
        edges = [(edge - 0.5 - at) / scale + 0.5 for edge, at in ((left, x), (top, y), (right, x), (bottom, y))]
        # Rounding may lead out of the image.
        a, b, c, d = (min(max(edge, 0.0), float(end)) for edge, end in zip(edges, image.size * 2, strict=True))
        canvas.paste(image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, (a, b, c, d)), (left, top))
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
        UsthandError: If the folder, the rig or a camera's source is missing, a size differs from the rig's, or the
            lengths differ and no offsets are stated.

    Examples:
        >>> import usthand
        >>> capture = usthand.open_capture("clip")
        >>> capture.n_frames, capture.fps, capture.rig.names
    """
    path = Path(path)
    check_folder(path)
    rig = load_rig(path / "rig.toml")
    sources = tuple(_find_source(path, camera.name, camera.size) for camera in rig.cameras)
    settings = read_settings(path / "capture.toml")
    fps = settings.fps or sources[0].fps or DEFAULT_FPS
    shared = overlap(rig.names, [source.n_frames for source in sources], read_offsets(path / "capture.toml", rig.names))
    if shared is not None:
        sources = tuple(_cut(source, *span) for source, span in zip(sources, shared.spans, strict=True))
    return Capture(path, rig, sources, fps, **settings.origin, overlap=shared)


def check_folder(path: Path) -> None:
    """Check that a capture's folder is there.

    Raises:
        UsthandError: If it is not.
    """
    if not path.is_dir():
        raise UsthandError(
            f"there is no folder {path}",
            "a capture is a folder with rig.toml and one video per camera",
            "check the path",
        )


def _cut(source: FrameSource, start: int, stop: int) -> FrameSource:
    """The part of a source that lies in the overlap."""
    images, placements = source.images[start:stop], source.placements[start:stop]
    first = 0 if source.images else start
    return replace(source, n_frames=stop - start, start=first, images=images, placements=placements)


def _find_source(folder: Path, name: str, size: tuple[int, int]) -> FrameSource:
    for suffix in VIDEO_SUFFIXES:
        video = folder / f"{name}{suffix}"
        if video.is_file():
            header = probe_video(video, remember=True)
            if (header.width, header.height) != size:
                raise _wrong_size(video, header.width, header.height, *size)
            return FrameSource(video, header.n_frames, size, fps=header.fps)
    images = folder / name
    if images.is_dir():
        found = ImagePaths.in_folder(images, IMAGE_SUFFIXES)
        first = found[0] if found else None
        if first is not None:
            with Image.open(first) as image:
                if image.size != size:
                    raise _wrong_size(first, *image.size, *size)
            return FrameSource(images, len(found), size, found)
    listed = folder / f"{name}.txt"
    if listed.is_file():
        return read_list(listed, size)
    raise UsthandError(
        f"camera {name!r} of the rig has no video in {folder}",
        f"neither {name}.mp4 nor a folder {name}/ with images nor a list {name}.txt is there",
        "add it, rename the video after the camera, or remove the camera from rig.toml",
    )


def read_list(file: Path, size: tuple[int, int]) -> FrameSource:
    """The list of a camera's images; no image is looked for.

    Raises:
        UsthandError: If a line is neither a path nor a path with its place.
    """
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
    return FrameSource(file, len(images), size, ImagePaths.of(file.parent, images), tuple(placements) if placed else ())


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
