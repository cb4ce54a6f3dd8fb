"""`usthand check`: all checks, in the order in which one depends on another.

The videos' headers come first, then cameras in one place, which would make all else meaningless, then gross faults of
cameras and labels, then time, moved cameras and lenses (`fixing`).
Each fault is measured with the earlier fixes applied. The hand comes last, because only cameras that agree place it in
space.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from usthand.capture.capture import Capture
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.common.progress import Progress, silent
from usthand.diagnostics import corrections
from usthand.diagnostics.agreement import Case, error_px, spread_frames
from usthand.diagnostics.diagnosis import Diagnosis
from usthand.diagnostics.findings import Finding
from usthand.diagnostics.fixing import fix_further_faults, fix_gross_faults
from usthand.diagnostics.folder import CaptureFacts, read_facts
from usthand.diagnostics.hand_checks import check_hand
from usthand.diagnostics.hand_faults import MIN_SHARE_OF_OTHER_HAND
from usthand.diagnostics.headers import check_amount, check_headers
from usthand.diagnostics.placement import check_coincident, check_narrow
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.labels import Labels


@dataclass(frozen=True)
class CheckReport:
    """What is wrong, and the capture with all of it fixed as far as that can be done."""

    facts: CaptureFacts
    """What was checked."""
    findings: tuple[Finding, ...]
    n_frames: int
    """Frames of the labels."""
    error_px: float
    """Epipolar error with all fixes, mean over pairs of cameras; NaN where no two cameras see a hand at once."""
    error: float
    """The same in hand sizes."""
    rig: Rig | None
    """The fixed rig; None if nothing is wrong with it."""
    labels: tuple[Labels, ...] | None
    """The fixed labels; None if nothing is wrong with them."""
    offsets: dict[str, int] | None
    """Frames by which each camera started late, in all; None if none is out of step."""

    @property
    def n_views(self) -> int:
        """Cameras of the rig."""
        return len(self.facts.rig)

    @property
    def sides(self) -> tuple[str, ...]:
        """Hands that have labels."""
        return tuple(one.side for one in self.facts.labels if one.mask.any())


def check_capture(capture: Path | str | Capture, progress: Progress = silent) -> CheckReport:
    """Look for every known fault of a capture. Decodes no video and writes nothing.

    Args:
        capture: Folder with rig.toml, one video per camera and labels. A path may be given for a capture that
            `open_capture` would refuse: what is wrong with it is what is looked for.
        progress: Told after each of the three parts.

    Raises:
        UsthandError: If there is no folder, rig or label, or rig and labels do not belong together at all.

    Examples:
        >>> import usthand
        >>> report = usthand.check_capture("clip")
        >>> [finding.sentence for finding in report.findings]  # empty: nothing wrong was found
    """
    return check_facts(read_facts(capture.path if isinstance(capture, Capture) else capture), progress)


def check_facts(facts: CaptureFacts, progress: Progress = silent) -> CheckReport:
    """`check_capture` of a folder that has been read."""
    labels = _worthwhile(facts)
    case = make_case(facts.rig, labels)
    diagnosis = Diagnosis(facts, labels, case, case, np.zeros(len(facts.rig)))
    check_headers(diagnosis)
    check_amount(diagnosis)
    if len(facts.rig) < 2 or len(spread_frames(case.present, 1)) == 0:
        return _report(diagnosis, np.nan, np.nan, None)
    if not check_coincident(diagnosis):
        return _report(diagnosis, np.nan, np.nan, None)
    progress(0, 3)
    fix_gross_faults(diagnosis)
    progress(1, 3)
    fix_further_faults(diagnosis)
    progress(2, 3)
    final = diagnosis.measured()
    narrow = final.plausible and check_narrow(diagnosis, final.views)
    unit = None if narrow else check_hand(diagnosis, final)
    progress(3, 3)
    px = error_px(final.agreement.plain, final.views, np.isfinite(final.agreement.error))
    return _report(diagnosis, px, final.agreement.mean(), unit)


def make_case(rig: Rig, labels: tuple[Labels, ...]) -> Case:
    """Labels of one or both hands side by side, views in the rig's order."""
    views = [one.aligned(rig.names) for one in labels]
    uv = np.concatenate([one.uv_px for one in views], axis=2).astype(float)
    return Case(rig.cameras, uv, np.concatenate([one.mask for one in views], axis=2))


def _worthwhile(facts: CaptureFacts) -> tuple[Labels, ...]:
    """The sides that are really there; a side that a detector named by mistake in a few frames is left out."""
    counts = [int(one.mask.any(2).sum()) for one in facts.labels]
    if max(counts) == 0:
        raise UsthandError(
            f"{facts.path} has no label in any frame",
            "the detector never saw a hand",
            f"run `usthand label {facts.path} --overwrite`",
        )
    labels = tuple(
        one for one, n in zip(facts.labels, counts, strict=True) if n > MIN_SHARE_OF_OTHER_HAND * max(counts)
    )
    strangers = sorted({name for one in labels for name in one.cameras} - set(facts.rig.names))
    if strangers:
        raise UsthandError(
            f"the labels have a camera '{strangers[0]}' that the rig lacks",
            f"the rig knows {', '.join(facts.rig.names)}",
            "rename the camera in rig.toml, or label again",
        )
    if len({one.n_frames for one in labels}) > 1:
        raise UsthandError(
            "the labels of the two hands have different numbers of frames",
            "they were made from different videos",
            f"run `usthand label {facts.path} --overwrite`",
        )
    return labels


# ---- the report ----------------------------------------------------------------------------------------------------


def _report(diagnosis: Diagnosis, px: float, error: float, unit: tuple[float, str] | None) -> CheckReport:
    rig = replace(diagnosis.facts.rig, cameras=diagnosis.untimed.cameras)
    if unit is not None and unit[0] > 0:
        rig = replace(rig, cameras=tuple(corrections.scaled_translation(c, unit[0]) for c in rig.cameras))
    elif unit is not None:
        rig = replace(rig, metric=False, unit_source=unit[1])
    changed = unit is not None or any(a is not b for a, b in zip(rig.cameras, diagnosis.facts.rig.cameras, strict=True))
    labels = _labels(diagnosis) if diagnosis.labels_changed else None
    offsets = None
    if any(f.fault == "out_of_step" for f in diagnosis.findings):
        stated, found = diagnosis.facts.offsets, zip(diagnosis.names, diagnosis.offset, strict=True)
        offsets = {name: int(stated.get(name, 0) - round(offset)) for name, offset in found}
        offsets = {name: offset for name, offset in offsets.items() if offset != 0}
    findings, n_frames = tuple(diagnosis.findings), diagnosis.labels[0].n_frames
    return CheckReport(diagnosis.facts, findings, n_frames, px, error, rig if changed else None, labels, offsets)


def _labels(diagnosis: Diagnosis) -> tuple[Labels, ...]:
    """The labels with all fixes except those in time, in the rig's order of cameras."""
    result = []
    base = make_case(diagnosis.facts.rig, diagnosis.labels)
    for n, one in enumerate(diagnosis.labels):
        part = slice(n * N_JOINTS, (n + 1) * N_JOINTS)
        confidence = np.where(base.present[:, :, part], one.aligned(diagnosis.names).confidence, 0)
        for views, order in _orders(diagnosis.findings, diagnosis.names):
            confidence[:, views] = corrections.reordered(confidence[:, views], order, 2)
        uv_px = diagnosis.untimed.uv_px[:, :, part]
        result.append(replace(one, uv_px=uv_px, confidence=confidence, cameras=diagnosis.names))
    return tuple(result)


def _orders(findings: list[Finding], names: tuple[str, ...]) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """(views, order) of each fixed joint order."""
    for finding in findings:
        if finding.fault == "joint_order":
            name = str(finding.evidence.get("order", finding.evidence.get("value")))
            yield [names.index(c) for c in finding.cameras], corrections.ORDERS[name]
