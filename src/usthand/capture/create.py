"""A capture out of videos and a calibration: match and check them, link the videos, write rig.toml and capture.toml."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from usthand.capture.calibration.read import Format, find_calibration
from usthand.capture.capture import DEFAULT_FPS, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Capture, open_capture
from usthand.capture.offsets import overlap
from usthand.capture.probe import probe_video
from usthand.capture.rig import Camera, Rig, build_rig, save_rig
from usthand.capture.settings import CaptureSettings, check_offsets, save_settings
from usthand.common.errors import UsthandError
from usthand.common.files import refuse_filled_folder, whole_folder
from usthand.common.progress import Progress, silent

NO_VIDEO = "none"
"""As in `--names cam_3=none`: a calibrated camera that did not record."""
FPS_TOLERANCE = 0.01  # relative; 29.97 and 30 are one rate, 25 and 30 are not


@dataclass(frozen=True)
class VideoSource:
    """One camera's recording: a video file or a folder of images."""

    path: Path
    width: int
    height: int
    n_frames: int
    fps: float | None
    """None for images."""

    @property
    def stem(self) -> str:
        """The file's name without its suffix, or the folder's name."""
        return self.path.stem if self.path.is_file() else self.path.name


@dataclass(frozen=True)
class CreateConfig:
    """How a capture is made of videos and a calibration.

    Examples:
        >>> import usthand
        >>> config = usthand.CreateConfig(format="anipose", scale=0.025, names={"left": "GOPRO_17.mp4"})
    """

    format: Format = "auto"
    """Of the calibration; auto recognises it."""
    scale: float | None = None
    """Metres per unit of a calibration without a true scale; it overrules what the file says."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Video (name or path) by camera, for those that do not match by themselves; "none" leaves a camera out."""
    offsets: Mapping[str, int] = field(default_factory=dict)
    """How many frames later than the others a camera started, by name; see `usthand.capture.settings`."""
    fps: float | None = None
    """Frame rate; None for the videos' own."""
    copy: bool = False
    """Copy the videos instead of linking them."""
    images: tuple[str, ...] = ()
    """nerfstudio and COLMAP: names of the images to take as cameras."""


@dataclass(frozen=True)
class CreatedCapture:
    """What `create_capture` made."""

    capture: Capture
    footage: dict[str, VideoSource]
    """By camera."""
    copied: bool
    fps_from: str
    """In words, where the frame rate comes from."""


def create_capture(
    videos: str | Path | Sequence[str | Path],
    calibration: str | Path,
    out: str | Path,
    config: CreateConfig = CreateConfig(),
    progress: Progress = silent,
) -> CreatedCapture:
    """Make the capture folder `out` out of videos and a calibration.

    Args:
        videos: A folder of videos or of folders of images, or several such videos and folders themselves.
        calibration: File or folder, of any format of `usthand.capture.calibration.read`.
        out: The folder to make. It appears whole or not at all.
        config: Names, offsets and what else the files do not say.
        progress: Told of every video that is in place.

    Raises:
        UsthandError: If `out` is there, or videos, calibration and each other do not fit. Nothing is written then.

    Examples:
        >>> import usthand
        >>> config = usthand.CreateConfig(offsets={"cam1": 1})  # cam1 started one frame later than the others
        >>> made = usthand.create_capture("raw", "config.toml", "own", config)
        >>> made.capture.n_frames, made.fps_from
    """
    refuse_filled_folder(out, "a capture")  # now, for the videos may take long to read
    found = find_calibration(calibration, config.format, config.images)
    footage = match_videos(found.names, list_videos(videos), config.names)
    rig = build_rig(found, config.scale, {name: (part.width, part.height) for name, part in footage.items()})
    rig = Rig(tuple(camera for camera in rig.cameras if camera.name in footage), rig.metric, rig.unit_source)
    for camera in rig.cameras:
        _check_name(camera.name)
        _check_size(camera, footage[camera.name])
    offsets = check_offsets(config.offsets, rig.names, "--offset")
    overlap(rig.names, [footage[name].n_frames for name in rig.names], offsets)
    fps, fps_from = _frame_rate(footage, config.fps)

    with whole_folder(out, "a capture") as folder:
        copied = False
        for number, name in enumerate(rig.names, 1):
            copied |= _place(footage[name].path, folder, name, config.copy)
            progress(number, len(rig), "copying" if config.copy else "linking")
        save_rig(rig, folder / "rig.toml")
        save_settings(folder / "capture.toml", CaptureSettings(fps), offsets)
    return CreatedCapture(open_capture(out), footage, copied, fps_from)


# ---- videos --------------------------------------------------------------------------------------------------------


def list_videos(videos: str | Path | Sequence[str | Path]) -> tuple[VideoSource, ...]:
    """The recordings in a folder, or the ones given.

    Raises:
        UsthandError: If there is none, one cannot be opened, or a folder mixes images of several kinds.
    """
    given = paths = [Path(path) for path in ([videos] if isinstance(videos, (str, Path)) else videos)]
    for path in paths:
        if not path.exists():
            raise UsthandError(f"there is no {path}", "the videos are somewhere else", "check the path")
    if len(paths) == 1 and paths[0].is_dir() and not _images(paths[0]):
        paths = sorted(path for path in paths[0].iterdir() if not path.name.startswith("."))
        paths = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and _images(path))]
    if not paths:
        raise UsthandError(
            f"{given[0]} holds no video",
            f"neither {', '.join(VIDEO_SUFFIXES)} files nor folders of images are there",
            "check the path",
        )
    return tuple(_image_source(path) if path.is_dir() else _video_source(path) for path in paths)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _image_source(folder: Path) -> VideoSource:
    images = _images(folder)
    if not images:
        raise UsthandError(
            f"{folder} holds no image", f"known are {', '.join(IMAGE_SUFFIXES)}", "give folders of images or videos"
        )
    kinds = Counter((re.sub(r"\d+", "", path.stem), path.suffix.lower()) for path in images)
    if len(kinds) > 1:
        listed = ", ".join(f"{count} {stem}N{suffix}" for (stem, suffix), count in kinds.most_common(3))
        raise UsthandError(
            f"{folder} mixes images of several kinds ({listed})",
            "masks or depth lie among the frames",
            "put each camera's frames into a folder of their own",
        )
    with Image.open(images[0]) as image:
        return VideoSource(folder, *image.size, len(images), None)


def _video_source(path: Path) -> VideoSource:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsthandError(f"{path} is no video", f"known are {', '.join(VIDEO_SUFFIXES)}", "convert it with ffmpeg")
    return VideoSource(path, *probe_video(path))


# ---- matching ------------------------------------------------------------------------------------------------------


def match_videos(
    cameras: Sequence[str], footage: Sequence[VideoSource], names: Mapping[str, str]
) -> dict[str, VideoSource]:
    """The footage of each camera: as given, else of the same name, else but for case, else by the one number in it.

    Only numbers that differ count: in 2024-05-01_cam2.mp4 and 2024-05-01_cam3.mp4, not the date.

    Raises:
        UsthandError: If a camera or a video is left over, or it is not clear which belong together.
    """
    matched = _given(cameras, footage, names)
    left_out = {name for name, video in names.items() if video == NO_VIDEO}
    for keys in (_exact, _caseless, _by_number):
        free_cameras = [name for name in cameras if name not in matched and name not in left_out]
        free = [part for part in footage if part not in matched.values()]
        theirs = dict(zip(keys(free_cameras), free_cameras, strict=True))
        for key, part in zip(keys([part.stem for part in free]), free, strict=True):
            if key is not None and key in theirs and theirs[key] not in matched:
                matched[theirs[key]] = part
    missing = [name for name in cameras if name not in matched and name not in left_out]
    spare = [part for part in footage if part not in matched.values()]
    if missing or spare or not matched:
        raise _unmatched(cameras, footage, missing, spare)
    return {name: matched[name] for name in cameras if name in matched}


def _given(cameras: Sequence[str], footage: Sequence[VideoSource], names: Mapping[str, str]) -> dict[str, VideoSource]:
    matched: dict[str, VideoSource] = {}
    for name, video in names.items():
        if name not in cameras:
            raise UsthandError(
                f"--names speaks of a camera {name!r}",
                f"the calibration's cameras are {', '.join(cameras)}",
                "give CAMERA=VIDEO with one of these",
            )
        if video == NO_VIDEO:
            continue
        fits = [part for part in footage if video in (str(part.path), part.path.name, part.stem)]
        if len(fits) != 1 or fits[0] in matched.values():
            listed = f"the videos are {', '.join(part.path.name for part in footage)}"
            raise UsthandError(
                f"--names gives {name} the video {video!r}",
                "it is another camera's already" if fits else listed,
                "give each camera a video of its own",
            )
        matched[name] = fits[0]
    return matched


def _exact(names: Sequence[str]) -> list[str | None]:
    return list(names)


def _caseless(names: Sequence[str]) -> list[str | None]:
    return _alone([name.casefold() for name in names])


def _by_number(names: Sequence[str]) -> list[str | None]:
    """The number that tells each name from the others; None where there is not exactly one."""
    found = [[int(digits) for digits in re.findall(r"\d+", name)] for name in names]
    if len({len(numbers) for numbers in found}) == 1 and len(found) > 1:
        columns = [column for column in zip(*found, strict=True) if len(set(column)) > 1]
        found = [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in names]
    return _alone([str(numbers[0]) if len(numbers) == 1 else None for numbers in found])


def _alone(keys: Sequence[str | None]) -> list[str | None]:
    """Keys that several share say nothing."""
    count = Counter(keys)
    return [key if count[key] == 1 else None for key in keys]


def _unmatched(
    cameras: Sequence[str], footage: Sequence[VideoSource], missing: Sequence[str], spare: Sequence[VideoSource]
) -> UsthandError:
    videos = [part.path.name for part in footage]
    facts = [f"the camera {name} has no video" for name in missing[:1]] if missing else []
    facts += [f"the video {part.path.name} has no camera" for part in spare[:1]]
    example = f"--names {missing[0] if missing else cameras[0]}={spare[0].path.name if spare else NO_VIDEO}"
    leave_out = f", and --names CAMERA={NO_VIDEO} leaves a camera out"
    more = leave_out if missing else ", or give only the videos that belong to it"
    return UsthandError(
        " and ".join(facts) or "no camera has a video",
        f"the calibration has {', '.join(cameras)}, the videos are {', '.join(videos)}",
        f"say which belong together, as in {example}{more}",
    )


# ---- checks --------------------------------------------------------------------------------------------------------


def _check_name(name: str) -> None:
    """The name becomes a file's; it must not lead elsewhere."""
    if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
        raise UsthandError(
            f"the camera name {name!r} cannot be a file's",
            "it holds a slash or nothing",
            "rename the camera in the calibration",
        )


def _check_size(camera: Camera, part: VideoSource) -> None:
    have, want = (part.width, part.height), camera.size
    if have == want:
        return
    if have == want[::-1]:
        cause, fix = "it was turned by 90 degrees", "turn it back, or calibrate with the videos as they are"
    elif abs(have[0] * want[1] - have[1] * want[0]) <= max(want):
        cause = "it was recorded or saved at another resolution than calibrated"
        fix = f"scale it back with `ffmpeg -i {part.path.name} -vf scale={want[0]}:{want[1]} -crf 15 scaled.mp4`"
    else:
        cause = "it is another camera's, or was cropped"
        fix = "check which video belongs to which camera, or calibrate at this size"
    raise UsthandError(
        f"{part.path} is {have[0]}x{have[1]} px but camera {camera.name} is calibrated at {want[0]}x{want[1]}",
        cause,
        fix,
    )


def _frame_rate(footage: Mapping[str, VideoSource], fps: float | None) -> tuple[float, str]:
    if fps is not None:
        if not 0 < fps < float("inf"):
            raise UsthandError(f"--fps is {fps:g}", "a frame rate is a positive number", "give frames per second")
        return float(fps), "as given"
    rates = {name: part.fps for name, part in footage.items() if part.fps}
    if not rates:
        return DEFAULT_FPS, "assumed, for images have none: --fps says it"
    low, high = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    if rates[high] > rates[low] * (1 + FPS_TOLERANCE):
        raise UsthandError(
            f"the videos have different frame rates ({low} {rates[low]:.4g}, {high} {rates[high]:.4g})",
            "frame k of one is then not the instant of frame k of another",
            "convert them to one rate with `ffmpeg -i IN -r RATE OUT`, "
            "or give --fps if only what the files say is wrong",
        )
    return next(iter(rates.values())), "from the videos"


# ---- writing -------------------------------------------------------------------------------------------------------


def _place(source: Path, out: Path, name: str, copy: bool) -> bool:
    """Link, or copy, one camera's footage; True if it was copied."""
    target = out / (name + source.suffix.lower() if source.is_file() else name)
    if not copy:
        try:
            os.symlink(source.resolve(), target, target_is_directory=source.is_dir())
            return False
        except OSError:  # no links on this disk, or not allowed
            pass
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return True
