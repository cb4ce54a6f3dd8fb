"""Other programs' 2D hands into a capture: read files per camera, tell the hands apart, write labels/<hand>.npz."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from usthand.capture.capture import Capture
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.common.progress import Progress, silent
from usthand.labels.association.associate import side_agreement
from usthand.labels.association.candidates import AssociateConfig
from usthand.labels.formats import hands_npz, holistic_csv, mediapipe, mmpose, openpose, wholebody
from usthand.labels.formats.base import View, camera_files, read_json
from usthand.labels.labels import Detection
from usthand.labels.report import LabelReport, check_writable, write_labels

PER_CAMERA = {
    "openpose": openpose,
    "mediapipe": mediapipe,
    "wholebody": wholebody,
    "mmpose": mmpose,
    "hands-npz": hands_npz,
}
"""Formats of files per camera, each a module with `looks_like`, `read`, `ENDINGS` and `WHAT`; the clearest first."""
FORMATS = (*PER_CAMERA, "holistic-csv")
SUFFIXES = (".json", ".npz", ".csv")

CHECKED_FRAMES = 300
"""Frames, spread over the capture, on which a detector's sides are checked."""
MIN_BENT_HANDS = 10
"""Least number of clearly bent hands for a decision."""
MIRRORED_BELOW = 0.2
"""Share of them that agree with the detector's sides below which it names sides as in a mirror."""


@dataclass(frozen=True)
class ImportConfig:
    """How other programs' files are read.

    Examples:
        >>> import usthand
        >>> config = usthand.ImportConfig(format="openpose", first_frame=1, max_hands=2)
    """

    format: Literal["auto", "openpose", "mediapipe", "wholebody", "mmpose", "holistic-csv", "hands-npz"] = "auto"
    """What wrote the files; auto looks into them."""
    overwrite: bool = False
    """Replace labels that are there."""
    first_frame: int = 0
    """What the files call frame 0 of the videos."""
    swap_sides: Literal["auto", "yes", "no"] = "auto"
    """Right for left; "auto" swaps where the hands' own bend contradicts nearly all of the detector's sides."""
    max_hands: int = AssociateConfig.max_hands
    """Most hands in view at once; 2 says that all are one person's."""


def import_labels(
    capture: Capture, source: str | Path, config: ImportConfig = ImportConfig(), progress: Progress = silent
) -> LabelReport:
    """Read 2D hands of every camera, tell them apart over the views, and write the labels of each hand.

    Args:
        capture: At least two cameras.
        source: A folder with one file or subfolder per camera, or one file that holds all cameras.
        config: How the files are read.
        progress: Called for every file ("reading labels"), then of every frame ("telling hands apart").

    Returns:
        The labels written, by hand: "right", "left", and with several people "right-2" and so on. Each has `uv_px`
        (T, V, 21, 2) in pixels and `confidence` (T, V, 21). `report.notes` says what was read.

    Raises:
        UsthandError: If labels exist, cameras or frame numbers do not match, a file is damaged or of no known layout,
            or no hand was found in two views at once.

    Examples:
        >>> import usthand
        >>> config = usthand.ImportConfig(overwrite=True)
        >>> report = usthand.import_labels(usthand.open_capture("clip"), "openpose", config)
        >>> report["right"].confidence.shape  # (T, V, 21); 0 where missing
    """
    source, rig = Path(source), capture.rig
    check_writable(capture, config.overwrite, f"usthand import-labels {capture.path} {source} --overwrite")
    chosen = find_format(source) if config.format == "auto" else config.format
    if chosen not in FORMATS:
        raise UsthandError(f"format '{chosen}' is unknown", f"there are {', '.join(FORMATS)}", "give one with --format")
    views = read_views(source, chosen, rig, progress)
    detections = _by_frame(views, capture, config.first_frame, source)
    counts = ", ".join(f"{name} {sum(map(len, views[name].values()))}" for name in rig.names)
    notes = [f"{chosen}: hands in single images of each camera: {counts}."]
    mirrored = _mirrored(rig, detections, config.max_hands) if config.swap_sides == "auto" else ""
    if mirrored or config.swap_sides == "yes":
        detections = [[[_other_side(one) for one in view] for view in frame] for frame in detections]
        notes = [mirrored, *notes] if mirrored else notes
    return write_labels(capture, detections, chosen, config.max_hands, progress, tuple(notes))


def find_format(source: Path) -> str:
    """The format of a file, or of the first file in a folder that has one.

    Raises:
        UsthandError: If there is no such file, or none whose layout is known.
    """
    if not source.exists():
        raise UsthandError(f"there is no {source}", "a folder or file of labels is expected", "check the path")
    files = sorted(p for p in source.rglob("*") if p.suffix in SUFFIXES) if source.is_dir() else [source]
    for path in files:
        found = _format_of(path)
        if found:
            return found
    raise UsthandError(
        f"{source} holds no labels of a known layout",
        f"{len(files)} files were looked at for {', '.join(FORMATS)}",
        "name the format with --format, or see docs/labels.md for the layouts read",
    )


def _format_of(path: Path) -> str | None:
    if path.suffix == ".csv":
        return "holistic-csv" if holistic_csv.looks_like(path) else None
    if path.suffix == ".npz":
        return "hands-npz"
    data = read_json(path) if path.suffix == ".json" else None
    return next((name for name, module in PER_CAMERA.items() if data and module.looks_like(data)), None)


def read_views(source: Path, format: str, rig: Rig, progress: Progress = silent) -> dict[str, View]:
    """The hands of every camera of the rig, by frame number as the files count.

    Raises:
        UsthandError: If a camera has no files, or a file is damaged or of another layout.
    """
    if format == "holistic-csv":
        return holistic_csv.read(_single(source, "*.csv", holistic_csv.looks_like), rig.names)
    if format == "hands-npz" and source.is_file():
        return hands_npz.read_all(source, rig.names)
    module: Any = PER_CAMERA[format]
    files = camera_files(source, rig.names, module.ENDINGS)
    total, done = sum(map(len, files.values())), 0
    views: dict[str, View] = {name: {} for name in rig.names}
    for camera in rig.cameras:
        for path in files[camera.name]:
            # A camera's only file may be one frame without a number, "cam_0.json": its digits count no frames.
            alone = path.parent == source and len(files[camera.name]) == 1
            for number, hands in module.read(path, camera, 0 if alone else None).items():
                views[camera.name].setdefault(number, []).extend(hands)
            done += 1
            progress(done, total, "reading labels")
    return views


def _single(source: Path, pattern: str, looks_like: Callable[[Path], bool]) -> Path:
    if source.is_file():
        return source
    found = [path for path in sorted(source.glob(pattern)) if looks_like(path)] if source.is_dir() else []
    if len(found) != 1:
        raise UsthandError(
            f"{source} has {len(found)} such tables" if source.exists() else f"there is no {source}",
            "one file holds all cameras",
            f"give the {pattern} itself",
        )
    return found[0]


def _by_frame(views: dict[str, View], capture: Capture, first_frame: int, source: Path) -> list[list[list[Detection]]]:
    """The detections as [frame][view].

    The files count each camera's own frames, with which the capture begins at an offset where one is stated.

    Raises:
        UsthandError: If the files count frames that the videos do not have.
    """
    own = _own_frames(capture)
    for name, (_, length) in own.items():
        numbers = [number for number, hands in views[name].items() if hands]
        low, high, last = min(numbers, default=first_frame), max(numbers, default=first_frame), first_frame + length - 1
        if low < first_frame or high > last:
            start = low if high - low < length else 1
            raise UsthandError(
                f"{source} has frames {low} to {high} of {name}, its video has {first_frame} to {last}",
                "the files count from another frame, or belong to other videos",
                f"say what they call the videos' first frame, for instance --first-frame {start}",
            )
    return [
        [views[name].get(first_frame + start + t, []) for name, (start, _) in own.items()]
        for t in range(capture.n_frames)
    ]


def _own_frames(capture: Capture) -> dict[str, tuple[int, int]]:
    """Of each camera's file: the frame with which the capture begins, and its length."""
    if capture.overlap is None:
        return dict.fromkeys(capture.rig.names, (0, capture.n_frames))
    spans, outside = zip(capture.rig.names, capture.overlap.spans, strict=True), capture.overlap.outside
    return {name: (start, stop + outside.get(name, (0, 0))[1]) for name, (start, stop) in spans}


def _mirrored(rig: Rig, detections: list[list[list[Detection]]], max_hands: int) -> str:
    """A sentence that the detector saw mirrored images, if it did; else empty."""
    step = max(1, len(detections) // CHECKED_FRAMES)
    agree, clear = side_agreement(rig, detections[::step], AssociateConfig(max_hands=max_hands))
    if clear < MIN_BENT_HANDS or agree >= MIRRORED_BELOW * clear:
        return ""
    return (
        f"Sides are swapped: only {agree} of {clear} clearly bent hands bend as the files' sides say, as if the images "
        "had been mirrored (--swap-sides no keeps them)."
    )


def _other_side(one: Detection) -> Detection:
    return replace(one, side="left" if one.side == "right" else "right")
