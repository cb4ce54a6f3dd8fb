"""Commands that give a capture its labels: label and import-labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from usthand.capture.capture import open_capture
from usthand.cli.options import CapturePath
from usthand.cli.progress import progress_bar
from usthand.cli.show import show_labels, show_overlap
from usthand.labels.detection import detect_labels
from usthand.labels.importing import ImportConfig
from usthand.labels.importing import import_labels as read_labels


def label(
    capture: CapturePath, detector: Literal["mediapipe"] = "mediapipe", overwrite: bool = False, max_hands: int = 2
) -> None:
    """Detect the hands' 2D joints in all videos; writes CAPTURE/labels/right.npz and left.npz.

    Args:
        capture: Folder with rig.toml and one video per camera.
        detector: What detects; install MediaPipe with `make detector`.
        overwrite: Write over labels that are there.
        max_hands: Most hands in view at once; 4 for two people, whose further hands go to right-2.npz and left-2.npz.
    """
    opened = open_capture(capture)
    show_overlap(opened)
    show_labels(detect_labels(opened, detector, overwrite, max_hands, progress_bar("detecting hands")))


def import_labels(
    capture: CapturePath,
    source: Positional[Annotated[Path, arg(metavar="FOLDER_OR_FILE")]],
    config: OmitArgPrefixes[ImportConfig],
) -> None:
    """2D joints from another detector's files; writes CAPTURE/labels/right.npz and left.npz (docs/labels.md).

    Args:
        capture: Folder with rig.toml and one video per camera.
        source: Folder with one file or subfolder per camera, named as in rig.toml, or one file that holds all cameras.
        config: What the files are, and how they are read.
    """
    opened = open_capture(capture)
    show_overlap(opened)
    show_labels(read_labels(opened, source, config, progress_bar("reading labels")))
