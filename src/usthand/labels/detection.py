"""Labelling a capture: detect in every video, associate over the views, write labels/<hand>.npz."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from usthand.capture.capture import Capture
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.geometry.cameras import project
from usthand.geometry.triangulation import triangulate
from usthand.hand.skeleton import MIDDLE_MCP, SIDES, WRIST
from usthand.labels.association.associate import associate
from usthand.labels.association.candidates import AssociateConfig
from usthand.labels.detectors.base import Detector
from usthand.labels.detectors.mediapipe import MediaPipe
from usthand.labels.labels import Detection, Labels, hand_side

DETECTORS = ("mediapipe",)

MIN_SHARE = 0.02
"""A side is written if at least this share of the frames has it in two views or more: fewer is a chance agreement,"""

MIN_SHARE_OF_OTHER = 0.1
"""... and if its frames are at least this share of the other side's: a lone hand seen twice now and then makes no second."""

BAR = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
PEOPLE_TOGETHER = "the hands cannot be one person's: each was followed by itself, the most seen one of a side first"


def label_capture(
    capture: Capture,
    detector: str | Detector = "mediapipe",
    sides: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
    python: str | Path | None = None,
    max_hands: int = 2,
) -> dict[str, Labels]:
    """Detect hands in all videos of a capture and write the labels of each side that is there.

    Args:
        detector: "mediapipe", or a `Detector` of your own.
        sides: which to write, "right", "left" or both (default).
        overwrite: write over labels that are there, and remove those of a wanted side that is not seen any more.
        progress: show a progress bar and a summary.
        python: the Python that has MediaPipe, if it is not found by itself.
        max_hands: most hands that the detector looks for in one image.

    Returns:
        {hand: Labels} of the hands written: "right", "left", and with several people "right-2" and so on.

    Raises:
        UsthandError: labels exist, the rig has one camera, the detector is unknown or dies, or no hand was found.
    """
    wanted = tuple(sides) if sides else SIDES
    _check(capture, detector, wanted)
    refuse_existing_labels(capture, wanted, overwrite, f"usthand label {capture.path} --overwrite")
    console = Console(quiet=not progress)
    with closing(_make(detector, python, max_hands)) as made:
        detections = detect_capture(capture, made, console)
        name = made.name
    return write_labels(capture, detections, name, wanted, max(max_hands, AssociateConfig.max_hands), console)


def write_labels(
    capture: Capture,
    detections: list[list[list[Detection]]],
    detector: str,
    sides: Sequence[str] = SIDES,
    max_hands: int = AssociateConfig.max_hands,
    console: Console | None = None,
) -> dict[str, Labels]:
    """Tell the hands apart, write the labels of each hand that is there, remove those of an earlier run that is not.

    Args:
        detections: [frame][view], views in the order of the rig, as many frames as the capture.

    Returns:
        {hand: Labels} of the hands written.

    Raises:
        UsthandError: no hand was seen by two views at once.
    """
    console = console or Console(quiet=True)
    with Progress(*BAR, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("telling hands apart", total=len(detections))
        show = lambda done, _: bar.update(task, completed=done)  # noqa: E731
        found = associate(capture.rig, detections, AssociateConfig(max_hands=max_hands), detector, show)
    shares = {hand: _two_view_share(labels) for hand, labels in found.items()}
    least = max(MIN_SHARE, MIN_SHARE_OF_OTHER * max(shares.values()))
    kept = {hand: found[hand] for hand in found if hand_side(hand) in sides and shares[hand] >= least}
    if not kept:
        seen = sum(len(view) for frame in detections for view in frame)
        raise UsthandError(
            f"no {' or '.join(sides)} hand was found in two cameras at once in {capture.path}",
            f"the detector saw {seen} hands in single images" if seen else "the detector saw no hand in any image",
            "check that the videos show hands and are synchronised, and that rig.toml belongs to them",
        )
    for hand in {*capture.label_hands(), *kept}:
        if hand in kept:
            kept[hand].save(capture.labels_path(hand))
        elif hand_side(hand) in sides:
            capture.labels_path(hand).unlink()  # an earlier run's, and `overwrite` was given
    console.print(summary_table(capture.rig, kept))
    further = [hand for hand in kept if hand not in SIDES]
    if further:
        told = f"{len(kept)} hands: {PEOPLE_TOGETHER}. Choose one with --side, for instance --side {further[0]}."
        console.print(told, soft_wrap=True)
    return kept


def refuse_existing_labels(capture: Capture, sides: Sequence[str], overwrite: bool, again: str) -> None:
    """Raises `UsthandError` if the capture has labels of these sides and may not write over them."""
    there = [hand for hand in capture.label_hands() if hand_side(hand) in sides]
    if there and not overwrite:
        raise UsthandError(f"{capture.labels_path(there[0])} exists", "labels were made before", f"run `{again}`")


def detect_capture(capture: Capture, detector: Detector, console: Console | None = None) -> list[list[list[Detection]]]:
    """Detections[frame][view] of a whole capture, one video after the other."""
    detections: list[list[list[Detection]]] = [[] for _ in range(capture.n_frames)]
    with Progress(*BAR, console=console or Console(quiet=True)) as bar:
        task = bar.add_task("detecting hands", total=capture.n_frames * len(capture.rig))
        for camera in capture.rig.names:
            bar.update(task, description=f"detecting hands, camera {camera}")
            for frame, hands in enumerate(detector.detect(rgb for _, rgb in capture.read(camera))):
                detections[frame].append(hands)
                bar.advance(task)
    return detections


def summary(rig: Rig, labels: Labels) -> dict[str, float | dict[str, float]]:
    """How good labels look without truth: share of frames per camera, residual (px), palm length and its spread (mm).

    The residual is the distance of each label from the projection of the joint triangulated from all views; the palm
    goes from wrist to middle knuckle, one bone, so its spread is error. In a rig without metric scale "mm" are
    thousandths of the rig's unit.
    """
    cameras = rig.tensors(dtype=torch.float64)
    mask = labels.mask
    uv = torch.from_numpy(labels.uv_px.astype(np.float64))
    points = triangulate(cameras, uv, torch.from_numpy(mask.astype(np.float64)))
    solid = mask.sum(axis=1) >= 2
    distance = (project(cameras, points)[0] - uv).norm(dim=-1).numpy()
    residuals = distance[mask & solid[:, None]]
    palm = (points[:, MIDDLE_MCP] - points[:, WRIST]).norm(dim=-1).numpy()[solid[:, WRIST] & solid[:, MIDDLE_MCP]] * 1e3
    return {
        "share": {name: float(mask[:, view].any(axis=-1).mean()) for view, name in enumerate(labels.cameras)},
        "residual_px": float(np.median(residuals)) if residuals.size else 0.0,
        "palm_mm": float(np.median(palm)) if palm.size else 0.0,
        "palm_spread_mm": float(palm.std()) if palm.size else 0.0,
    }


def summary_table(rig: Rig, labels: dict[str, Labels]) -> Table:
    """The summary of each hand as a table."""
    table = Table(title="labels")
    table.add_column("hand")
    for name in rig.names:
        table.add_column(f"{name}\nframes", justify="right")
    table.add_column("residual\nmedian px", justify="right")
    table.add_column("palm length\nmm" if rig.metric else "palm length\nrig units / 1000", justify="right")
    for hand, one in labels.items():
        row = summary(rig, one)
        shares = [f"{row['share'][name]:.0%}" for name in rig.names]
        table.add_row(
            hand, *shares, f"{row['residual_px']:.1f}", f"{row['palm_mm']:.1f} +- {row['palm_spread_mm']:.1f}"
        )
    return table


def _check(capture: Capture, detector: str | Detector, wanted: Sequence[str]) -> None:
    for side in wanted:
        if side not in SIDES:
            raise UsthandError(
                f"side '{side}' is unknown", "a hand is left or right", "use --side left or --side right"
            )
    if isinstance(detector, str) and detector not in DETECTORS:
        raise UsthandError(
            f"detector '{detector}' is unknown", f"there is {', '.join(DETECTORS)}", "run with --detector mediapipe"
        )
    check_views(capture)


def check_views(capture: Capture) -> None:
    """Raises `UsthandError` if the capture has one camera only."""
    if len(capture.rig) < 2:
        raise UsthandError(
            f"{capture.path} has one camera", "sides are told apart by two views or more", "add a camera to rig.toml"
        )


def _make(detector: str | Detector, python: str | Path | None, max_hands: int) -> Detector:
    return MediaPipe(python, max_hands=max_hands) if isinstance(detector, str) else detector


def _two_view_share(labels: Labels) -> float:
    return float((labels.mask.any(axis=-1).sum(axis=1) >= 2).mean()) if labels.n_frames else 0.0
