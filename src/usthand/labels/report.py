"""Writing a capture's labels: which hands are there, their files, and a report of how good they look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from usthand.capture.capture import Capture
from usthand.common.errors import UsthandError
from usthand.common.progress import Progress, silent
from usthand.hand.skeleton import SIDES
from usthand.labels.association.associate import associate
from usthand.labels.association.candidates import AssociateConfig
from usthand.labels.labels import Detection, Labels
from usthand.labels.quality import LabelQuality, label_quality

MIN_SHARE = 0.02
"""A hand is written if at least this share of the frames has it in two views or more: fewer is a chance agreement,"""

MIN_SHARE_OF_OTHER = 0.1
"""... and if its frames are at least this share of the most seen hand's: a lone hand is now and then detected twice."""


@dataclass(frozen=True)
class LabelReport(Mapping[str, Labels]):
    """The labels written, by hand: "right", "left", and with several people "right-2" and so on."""

    labels: dict[str, Labels]
    quality: dict[str, LabelQuality]
    """By hand, as `labels`."""
    metric: bool
    """Whether the lengths in `quality` are millimetres; else they are thousandths of the rig's unit."""
    notes: tuple[str, ...] = ()
    """Sentences on what was read and how; see also `people`."""

    def __getitem__(self, hand: str) -> Labels:
        """The labels of one hand."""
        return self.labels[hand]

    def __iter__(self) -> Iterator[str]:
        """The names of the hands."""
        return iter(self.labels)

    def __len__(self) -> int:
        """The number of hands."""
        return len(self.labels)

    @property
    def people(self) -> str:
        """With hands of several people, a sentence on how they were told apart and chosen; else empty."""
        further = next((hand for hand in self.labels if hand not in SIDES), None)
        if further is None:
            return ""
        return (
            f"{len(self)} hands: the hands cannot be one person's: each was followed by itself, the most seen one of a "
            f"side first. Choose one with --side, for instance --side {further}."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The quality as a table: the head, whose cells may have two lines, then a row for each hand."""
        cameras = next(iter(self.labels.values())).cameras
        palm = "palm length\nmm" if self.metric else "palm length\nrig units / 1000"
        table = [("hand", *(f"{name}\nframes" for name in cameras), "residual\nmedian px", palm)]
        for hand, one in self.quality.items():
            shares = (f"{one.share[name]:.0%}" for name in cameras)
            palm = f"{one.palm_mm or 0:.1f} +- {one.palm_spread_mm or 0:.1f}"
            table.append((hand, *shares, f"{one.residual_px or 0:.1f}", palm))
        return table


def check_writable(capture: Capture, overwrite: bool, again: str) -> None:
    """Stop before long work whose labels could not be written.

    Args:
        capture: The capture to be labelled.
        overwrite: Whether labels that are there may be replaced.
        again: The command that replaces them, for the message.

    Raises:
        UsthandError: If the capture has labels already, or one camera only.
    """
    if (there := capture.label_hands()) and not overwrite:
        raise UsthandError(f"{capture.labels_path(there[0])} exists", "labels were made before", f"run `{again}`")
    if len(capture.rig) < 2:
        raise UsthandError(
            f"{capture.path} has one camera", "sides are told apart by two views or more", "add a camera to rig.toml"
        )


def write_labels(
    capture: Capture,
    detections: list[list[list[Detection]]],
    detector: str,
    max_hands: int = AssociateConfig.max_hands,
    progress: Progress = silent,
    notes: tuple[str, ...] = (),
) -> LabelReport:
    """Tell the hands apart, and write the labels of each hand that is there; files of an earlier run are removed.

    Args:
        capture: The capture that the labels are of.
        detections: [frame][view], views in the order of the rig, as many frames as the capture.
        detector: What made the detections.
        max_hands: Most hands in view at once; 2 says that all are one person's.
        progress: Called for every frame.
        notes: Sentences for the report.

    Raises:
        UsthandError: If no hand was seen by two views at once.
    """
    config = AssociateConfig(max_hands=max_hands)
    found = associate(capture.rig, detections, config, detector, progress)
    quality = {hand: label_quality(capture.rig, labels) for hand, labels in found.items()}
    least = max(MIN_SHARE, MIN_SHARE_OF_OTHER * max(one.two_view_share for one in quality.values()))
    kept = {hand: labels for hand, labels in found.items() if quality[hand].two_view_share >= least}
    if not kept:
        seen = sum(len(view) for frame in detections for view in frame)
        raise UsthandError(
            f"no right or left hand was found in two cameras at once in {capture.path}",
            " ".join(
                [
                    *notes,
                    f"the detector saw {seen} hands in single images"
                    if seen
                    else "the detector saw no hand in any image",
                ]
            ),
            "check that the videos show hands and are synchronised, and that rig.toml belongs to them",
        )
    for hand in {*capture.label_hands()} - {*kept}:
        capture.labels_path(hand).unlink()
    for hand, labels in kept.items():
        labels.save(capture.labels_path(hand))
    return LabelReport(kept, {hand: quality[hand] for hand in kept}, capture.rig.metric, notes)
