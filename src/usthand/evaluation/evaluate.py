"""Everything that can be measured of a result, or of a folder of them, with what its capture has: truth, labels, or neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from usthand.capture.capture import Capture, open_capture
from usthand.common.errors import UsthandError
from usthand.evaluation import metrics
from usthand.evaluation.truth import load_truth
from usthand.hand.result import Result, load_result
from usthand.labels.labels import hand_side, load_labels


def evaluate_result(
    result: Result, capture: Capture | None, leave_out: str | None = None, side: str | None = None
) -> dict:
    """Numbers of `usthand.evaluation.metrics` by name.

    Args:
        capture: What the result was made from; None leaves its steadiness alone.
        leave_out: A camera that the result was made without, to measure in.
        side: The hand's name among several of one side: right, right-2 ...

    Raises:
        UsthandError: if there is no capture to leave a camera out of, the result has used that camera, or the capture has several hands of
            the result's side and none was named.
    """
    if capture is None:
        if leave_out is not None:
            raise UsthandError(
                "--leave-out needs the capture", "its labels are what is measured against", "add --capture CAPTURE"
            )
        return {**metrics.steadiness(result, 1.0), "valid_fraction": float(result.valid.mean())}
    numbers: dict = {}
    hand = _hand_of(result, capture, side)
    if capture.labels_path(hand).is_file():
        labels = load_labels(capture, hand)
        numbers |= metrics.evaluate_labels(result, capture.rig, labels, capture.fps)
        if leave_out is not None:
            numbers |= metrics.evaluate_left_out(result, capture.rig, labels, leave_out)
    else:
        numbers |= metrics.steadiness(result, capture.fps)
    truth = load_truth(capture.path, hand)
    if truth is not None:
        numbers |= metrics.evaluate_truth(result, truth, fps=capture.fps)
        if result.joint_model == "soft":
            numbers |= metrics.evaluate_mesh_joints(result, truth)
    return numbers | {
        "valid_fraction": float(result.valid.mean()),
        "scale": result.unit_source,
        "method": result.method,
    }


def evaluate_folder(
    results: Path, captures: Path | None, progress: Callable[[int, int], None] | None = None
) -> tuple[dict, Capture, list[str]]:
    """Numbers against truth, averaged over all captures of a folder that have a result NAME.npz.

    Returns:
        The numbers, one of the captures, and a line for each recording that is in no mean, because its result is valid nowhere.

    Raises:
        UsthandError: if there is no such folder, none of its captures has both a result and truth, or they are of several splits.
    """
    if captures is None or not captures.is_dir():
        raise UsthandError(
            f"{results} is a folder of results", "each is measured by the capture of its name", "add --capture FOLDER"
        )
    folders = sorted(path for path in captures.iterdir() if (path / "rig.toml").is_file())
    found, told, kinds, opened, soft = [], [], set(), None, False
    for done, folder in enumerate(folders, 1):
        file = results / f"{folder.name}.npz"
        result = load_result(file) if file.is_file() else None
        truth = load_truth(folder, result.side) if result is not None else None
        if truth is not None:
            opened = open_capture(folder)
            kinds.add((opened.dataset, opened.protocol, opened.split))
            try:
                found.append(
                    metrics.evaluate_truth(result, truth, fps=opened.fps) | metrics.evaluate_mesh_joints(result, truth)
                )
                soft |= result.joint_model == "soft"
            except UsthandError as error:  # nothing to measure in this one
                told.append(f"{folder.name} is left out: {error}")
        if progress is not None:
            progress(done, len(folders))
    if not found:
        raise UsthandError(
            f"no capture of {captures} has both a result in {results} and truth",
            "a result is named as its capture, NAME.npz",
            "name them so, or give one result and its capture",
        )
    if len(kinds) > 1:
        raise UsthandError(
            f"{captures} has captures of several splits", "their mean says nothing", "measure each by itself"
        )
    # Beside rigid joints alone the mesh's own are no news.
    numbers = {name: value for name, value in metrics.pooled(found).items() if soft or not name.startswith("mesh_")}
    return numbers | {"recordings": f"{len(found)} of {len(folders)} recordings"}, opened, told


def _hand_of(result: Result, capture: Capture, side: str | None) -> str:
    """The name of a result's hand in its capture; a result knows its side alone."""
    if side is not None:
        hand_side(side)
    own = [hand for hand in capture.label_hands() if hand_side(hand) == result.side]
    if side is None and len(own) > 1:
        raise UsthandError(
            f"{capture.path} has labels of {len(own)} {result.side} hands",
            "the result does not say which of them it is",
            f"add the --side that it was made with, --side {' or --side '.join(own)}",
        )
    return side or result.side
