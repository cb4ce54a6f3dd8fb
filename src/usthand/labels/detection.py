"""Labelling a capture: detect hands in every video, associate them over the views, write labels/<hand>.npz."""

from __future__ import annotations

from contextlib import closing

from usthand.capture.capture import Capture
from usthand.common.errors import UsthandError
from usthand.common.progress import Progress, silent
from usthand.labels.association.candidates import AssociateConfig
from usthand.labels.detectors.base import Detector
from usthand.labels.detectors.mediapipe import MediaPipe
from usthand.labels.labels import Detection
from usthand.labels.report import LabelReport, check_writable, write_labels

DETECTORS = ("mediapipe",)


def detect_labels(
    capture: Capture,
    detector: str | Detector = "mediapipe",
    overwrite: bool = False,
    max_hands: int = 2,
    progress: Progress = silent,
) -> LabelReport:
    """Detect hands in all videos of a capture, and write the labels of each hand that is there.

    Args:
        capture: At least two cameras.
        detector: "mediapipe", or a `Detector` of your own.
        overwrite: Replace labels that are there, also those of hands that are no longer seen.
        max_hands: Most hands that the detector looks for in one image.
        progress: Called for every image ("detecting hands"), then of every frame ("telling hands apart").

    Returns:
        The labels written, by hand: "right", "left", and with several people "right-2" and so on. Each has `uv_px`
        (T, V, 21, 2) in pixels and `confidence` (T, V, 21). `report.quality` says how good they look.

    Raises:
        UsthandError: If labels exist, the rig has one camera, the detector is unknown or stops, or no hand was found.

    Examples:
        >>> import usthand
        >>> report = usthand.detect_labels(usthand.open_capture("clip"), overwrite=True)  # doctest: +SKIP
        >>> report["right"].uv_px.shape  # doctest: +SKIP
    """
    if isinstance(detector, str) and detector not in DETECTORS:
        raise UsthandError(
            f"detector '{detector}' is unknown", f"there is {', '.join(DETECTORS)}", "run with --detector mediapipe"
        )
    check_writable(capture, overwrite, f"usthand label {capture.path} --overwrite")
    with closing(MediaPipe(max_hands=max_hands) if isinstance(detector, str) else detector) as opened:
        detections = detect_capture(capture, opened, progress)
        name = opened.name
    return write_labels(capture, detections, name, max(max_hands, AssociateConfig.max_hands), progress)


def detect_capture(capture: Capture, detector: Detector, progress: Progress = silent) -> list[list[list[Detection]]]:
    """Detections[frame][view] of a whole capture, one video after the other."""
    detections: list[list[list[Detection]]] = [[] for _ in range(capture.n_frames)]
    done, total = 0, capture.n_frames * len(capture.rig)
    for camera in capture.rig.names:
        for frame, hands in enumerate(detector.detect(rgb for _, rgb in capture.read(camera))):
            detections[frame].append(hands)
            done += 1
            progress(done, total, "detecting hands", f"camera {camera}")
    return detections
