"""Everything that can be measured of a result, or of a folder of them, with the truth and the labels that there are."""

from __future__ import annotations

from pathlib import Path

from usthand.capture.capture import Capture, open_capture
from usthand.common.errors import UsthandError
from usthand.common.progress import Progress, silent
from usthand.evaluation import metrics
from usthand.evaluation.left_out import evaluate_left_out_regions
from usthand.evaluation.truth import load_truth
from usthand.hand.result import BY_NETWORK, Result, load_result
from usthand.labels.labels import hand_side, load_labels


def evaluate(
    result: Result, capture: Capture | None = None, leave_out: str | None = None, side: str | None = None
) -> dict[str, object]:
    """Measure how good a result is: against truth where the capture has one, else against its labels.

    Args:
        result: What to measure.
        capture: What the result was made from; None measures only how steady the result is.
        leave_out: A camera that the result was made without, to measure in.
        side: The hand's name among several of one side: right, right-2 ...

    Returns:
        Numbers by the names of `usthand.evaluation.metrics`; each name ends in its unit and alignment. Besides, in
        words: the method, the scale, `network_alone` where the network alone places some frames, and `joints_of_truth`
        where the truth's joints are not our hand model's.

    Raises:
        UsthandError: If there is no capture to leave a camera out of, the result has used that camera, or the capture
            has several hands of the result's side and none was named.

    Examples:
        >>> import usthand
        >>> result, capture = usthand.load_result("fit.npz"), usthand.open_capture("clip")
        >>> numbers = usthand.evaluate(result, capture)
        >>> numbers["label_residual_median_px"], numbers["jitter_mm"]
    """
    if capture is None:
        if leave_out is not None:
            raise UsthandError(
                "--leave-out needs the capture", "its labels are what is measured against", "add --capture CAPTURE"
            )
        return {
            **metrics.steadiness(result, 1.0),
            "valid_fraction": float(result.valid.mean()),
            **_network_alone(result),
        }
    numbers: dict[str, object] = {}
    hand = _hand_of(result, capture, side)
    if capture.labels_path(hand).is_file():
        labels = load_labels(capture, hand)
        numbers |= metrics.evaluate_labels(result, capture.rig, labels, capture.fps)
        if leave_out is not None:
            numbers |= metrics.evaluate_left_out(result, capture.rig, labels, leave_out)
            numbers |= evaluate_left_out_regions(result, capture.rig, labels, leave_out)
    else:
        numbers |= metrics.steadiness(result, capture.fps)
    truth = load_truth(capture.path, hand)
    if truth is not None:
        numbers |= metrics.evaluate_truth(result, truth, fps=capture.fps)
        if result.joint_model == "free":
            numbers |= metrics.evaluate_mesh_joints(result, truth)
        if truth.joint_definition:
            numbers["joints_of_truth"] = truth.joint_definition
    return numbers | {
        "valid_fraction": float(result.valid.mean()),
        "scale": result.unit_source,
        "method": result.method,
        **_network_alone(result),
    }


def network_note(result: Result) -> str | None:
    """One sentence on the frames in which the detector missed the hand and the network alone places it, if any."""
    count = int((result.source == BY_NETWORK).sum())
    if not count:
        return None
    frames = f"{count} of the {int(result.valid.sum())} valid frames"
    return f"In {frames} the network alone places the hand: the detector missed it."


def _network_alone(result: Result) -> dict[str, object]:
    note = network_note(result)
    return {} if note is None else {"network_alone": note}


def evaluate_folder(
    results: Path, captures: Path | None, progress: Progress = silent
) -> tuple[dict[str, object], Capture, list[str]]:
    """Numbers against truth, averaged over all captures of a folder that have a result NAME.npz.

    Args:
        results: Folder of the results.
        captures: Folder of the captures.
        progress: Called after each capture.

    Returns:
        The numbers, one of the captures, and a line for each recording left out because its result is valid nowhere.

    Raises:
        UsthandError: If there is no such folder, none of its captures has both a result and truth, or they are of
            several splits.
    """
    if captures is None or not captures.is_dir():
        raise UsthandError(
            f"{results} is a folder of results", "each is measured by the capture of its name", "add --capture FOLDER"
        )
    folders = sorted(path for path in captures.iterdir() if (path / "rig.toml").is_file())
    found: list[metrics.Numbers] = []
    left_out: list[str] = []
    measured: list[Capture] = []
    free = False
    for done, folder in enumerate(folders, 1):
        file = results / f"{folder.name}.npz"
        result = load_result(file) if file.is_file() else None
        truth = load_truth(folder, result.side) if result is not None else None
        if result is not None and truth is not None:
            capture = open_capture(folder)
            measured.append(capture)
            try:
                numbers = metrics.evaluate_truth(result, truth, fps=capture.fps)
                found.append(numbers | metrics.evaluate_mesh_joints(result, truth))
                free |= result.joint_model == "free"
            except UsthandError as error:  # nothing to measure in this one
                left_out.append(f"{folder.name} is left out: {error}")
        progress(done, len(folders))
    if not found:
        raise UsthandError(
            f"no capture of {captures} has both a result in {results} and truth",
            "a result is named as its capture, NAME.npz",
            "name them so, or give one result and its capture",
        )
    if len({(capture.dataset, capture.protocol, capture.split) for capture in measured}) > 1:
        raise UsthandError(
            f"{captures} has captures of several splits", "their mean says nothing", "measure each by itself"
        )
    # Where no joints are free, the mesh's own are the same.
    means: dict[str, object] = {
        name: value for name, value in metrics.pooled(found).items() if free or not name.startswith("mesh_")
    }
    means["recordings"] = f"{len(found)} of {len(folders)} recordings"
    return means, measured[-1], left_out


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
