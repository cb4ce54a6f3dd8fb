"""All checks in the order in which one depends on another, and what is left when their fixes are applied.

First what the headers say, then gross faults of cameras and labels (`search`), then time, moved cameras and lenses, one
fix after the other, each measured on top of the ones before. Last the hand itself, which only cameras that agree can
place in space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.diagnostics import corrections
from usthand.diagnostics.agreement import FLOOR, Case, error_px, spread_frames
from usthand.diagnostics.camera_faults import Lens, Moved, better_lenses, most_moved, moved_cameras
from usthand.diagnostics.findings import Finding, from_found, from_lens, from_moved, from_timing
from usthand.diagnostics.folder import CaptureFacts
from usthand.diagnostics.hand_checks import check_hand
from usthand.diagnostics.hand_faults import MIN_SHARE_OF_OTHER_HAND
from usthand.diagnostics.headers import check_amount, check_headers
from usthand.diagnostics.search import FoundFault, State, begin, cut, measure, search
from usthand.diagnostics.time_faults import estimate_timing, in_step, least_cut, out_of_step
from usthand.diagnostics.timing import Timing
from usthand.diagnostics.work import EVIDENCE_FRAMES, Work
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.labels import Labels

TRIED_WITH_MORE = 3
LONGER = 1.25
"""Factor by which more fixes must explain a capture better than fewer."""

MAX_MENDS = 5
PROGRESS = 1.1
"""Factor by which one of several possible fixes must lower the total residual to be taken."""


@dataclass(frozen=True)
class CheckReport:
    """What is wrong, and the capture with all of it fixed as far as that can be done."""

    findings: tuple[Finding, ...]
    error_px: float
    """Epipolar error that is left, mean over pairs of cameras."""
    error: float
    """The same in hand sizes."""
    n_frames: int
    n_views: int
    sides: tuple[str, ...]
    rig: Rig | None
    """The fixed rig; None if nothing is wrong with it."""
    labels: tuple[Labels, ...] | None
    """The fixed labels; None if nothing is wrong with them."""
    offsets: dict[str, int] | None
    """Frames by which each camera started late, in all; None if none is out of step."""


def check_capture(facts: CaptureFacts, on_progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Look for every known fault.

    Args:
        facts: From `folder.read_facts`.
        on_progress: Called with (steps done, of how many).

    Raises:
        UsthandError: if rig and labels do not belong together at all, or no two cameras see a hand at once.
    """
    tell = on_progress or (lambda done, total: None)
    labels = _worthwhile(facts)
    case = make_case(facts.rig, labels)
    work = Work(facts, labels, case, case, [], np.zeros(len(facts.rig)))
    check_headers(work)
    check_amount(work)
    if len(facts.rig) < 2 or len(spread_frames(case.present, 1)) == 0:
        return _report(work, np.nan, np.nan, None)
    for done, step in enumerate((_gross, _one_after_the_other)):
        tell(done, 3)
        step(work)
    tell(2, 3)
    final = begin(work.now.sampled(EVIDENCE_FRAMES))
    unit = check_hand(work, final)
    tell(3, 3)
    pairs = np.isfinite(final.agreement.error)
    return _report(work, error_px(final.agreement.plain, final.views, pairs), final.agreement.mean(), unit)


def make_case(rig: Rig, labels: tuple[Labels, ...]) -> Case:
    """Labels of one or both hands side by side, views in the rig's order."""
    views = [one.aligned(rig.names) for one in labels]
    uv = np.concatenate([one.uv_px for one in views], axis=2).astype(float)
    return Case(rig.cameras, uv, np.concatenate([one.mask for one in views], axis=2))


def _worthwhile(facts: CaptureFacts) -> tuple[Labels, ...]:
    """The sides that are there for good; a detector's few slips to the other side are left out."""
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


# ---- gross faults --------------------------------------------------------------------------------------------------


def _gross(work: Work) -> None:
    """One mistake; none or one together with videos out of step; several; several together with anything else."""
    states = search(work.now, 1)
    if _plausible(work, states):
        return
    if _together(work, [(), *_attempts(states, 1)], only_time=True):
        return
    states = search(work.now)
    if _plausible(work, states):
        return
    _together(work, [(), *_attempts(states, 1), *_attempts(states, 2)], only_time=False)


def _plausible(work: Work, states: list[State]) -> bool:
    if states[0].plausible:
        _take(work, states[0].found)
    return states[0].plausible


def _attempts(states: list[State], length: int) -> list[tuple[FoundFault, ...]]:
    """The best sequences of so many fixes."""
    return [state.found for state in states if len(state.found) == length][:TRIED_WITH_MORE]


def _together(work: Work, attempts: list[tuple[FoundFault, ...]], only_time: bool) -> bool:
    """Take the attempt that a fault in time, a moved camera or a lens makes plausible; of several the best, but a longer one
    only if it is better by far. That other fault is left to be reported by who looks for such."""
    best = None
    for found in attempts:
        case = work.now
        for one in found:
            case = one.candidate.apply(case)
        # One camera moved, or the lenses, may be all there is; after another fix they would explain too much.
        options = _timing_options(case, work.facts.fps) if only_time and found else _options(case, work.facts.fps)
        ended = min(options, key=_preference, default=None)
        if ended is None or not ended.after.plausible:
            continue
        if best is None or _preference(ended) * LONGER < best[0]:
            best = (_preference(ended), found)
    if best is not None:
        _take(work, best[1])
    return best is not None


def _take(work: Work, found: tuple[FoundFault, ...]) -> None:
    """Apply fixes and report them, each with its evidence on many frames."""
    for one in found:
        before = begin(work.now.sampled(EVIDENCE_FRAMES))
        work.apply(one.candidate)
        after = begin(work.now.sampled(EVIDENCE_FRAMES))
        evidence = measure(before.agreement, after.agreement, before.views, after.views, one.candidate.views)
        work.findings.append(from_found(FoundFault(one.candidate, evidence, one.alternatives), work.names))


# ---- time, moved cameras, lenses -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fix:
    """One of several fixes that are weighed against each other."""

    after: State
    cameras: tuple[int, ...]
    timing: Timing | None = None
    moved: Moved | None = None
    lens: Lens | None = None


def _options(case: Case, fps: float) -> list[_Fix]:
    options = _timing_options(case, fps)
    for moved in moved_cameras(case):
        after = begin(moved.candidate.apply(case).sampled(EVIDENCE_FRAMES))
        options.append(_Fix(after, moved.candidate.views, moved=moved))
    for lens in better_lenses(case):
        after = begin(lens.candidate.apply(case).sampled(EVIDENCE_FRAMES))
        options.append(_Fix(after, lens.candidate.views, lens=lens))
    return options


def _timing_options(case: Case, fps: float) -> list[_Fix]:
    timed = estimate_timing(case, fps)
    if timed is None:
        return []
    timing, before = timed
    late, drifts = out_of_step(timing, before, len(case.uv_px))
    wrong = late | drifts
    if not wrong.any():
        return []
    timing = replace(timing, offset=np.where(wrong, timing.offset, 0.0), drift=np.where(drifts, timing.drift, 0.0))
    after = begin(in_step(case, timing).sampled(EVIDENCE_FRAMES))
    start, views = begin(case.sampled(EVIDENCE_FRAMES)), tuple(int(v) for v in np.flatnonzero(wrong))
    if cut(measure(start.agreement, after.agreement, start.views, after.views, views)) <= least_cut(len(case.uv_px)):
        return []
    return [_Fix(after, views, timing)]


def _preference(fix: _Fix) -> float:
    """Residual after a fix, with a handicap for those that have more freedom than others."""
    handicap = 1.0
    if fix.moved is not None:
        handicap = 1.05 if fix.moved.shift == 0 else 1.2
    if fix.lens is not None:
        handicap = 1.05 if fix.lens.candidate.kind == "fitted" else 1.0
        # One wrong lens is fixed by the right one for all as well, where all are alike.
        handicap *= 1.1 if len(fix.cameras) > 1 else 1.0
    return max(fix.after.score, FLOOR) * handicap


def _one_after_the_other(work: Work) -> None:
    """Take the best fix, look again. What does not lead to cameras that agree was no explanation, and is taken back."""
    as_it_was, n_findings = replace(work, offset=work.offset.copy()), len(work.findings)
    moved: set[int] = set()
    for _ in range(MAX_MENDS):
        before = begin(work.now.sampled(EVIDENCE_FRAMES))
        options = [
            o
            for o in _options(work.now, work.facts.fps)
            if o.timing is not None or o.after.score < before.score / PROGRESS
        ]
        if len(moved) == most_moved(len(work.names)):
            options = [o for o in options if o.moved is None]
        best = min(options, key=_preference, default=None)
        if best is None:
            break
        evidence = measure(before.agreement, best.after.agreement, before.views, best.after.views, best.cameras)
        if best.timing is not None:
            _take_timing(work, best, before)
        elif best.moved is not None:
            moved.update(best.cameras)
            work.apply(best.moved.candidate)
            work.findings.append(from_moved(best.moved, evidence, work.names, work.facts.rig.metric))
        else:
            work.apply(best.lens.candidate)
            work.findings.append(from_lens(best.lens, evidence, work.names))
    if not begin(work.now.sampled(EVIDENCE_FRAMES)).plausible:
        work.now, work.kept, work.offset = as_it_was.now, as_it_was.kept, as_it_was.offset
        work.labels_changed = as_it_was.labels_changed
        del work.findings[n_findings:]


def _take_timing(work: Work, fix: _Fix, before: State) -> None:
    steady = [name for v, name in enumerate(work.names) if v not in fix.cameras]
    for v in fix.cameras:
        evidence = measure(before.agreement, fix.after.agreement, before.views, fix.after.views, (int(v),))
        reference = f"camera {steady[0]}" if len(work.names) == 2 else "the others"
        # Frame k + offset is the instant k: a camera whose frames come early in its file started late.
        work.findings.append(
            from_timing(
                work.names[v],
                -float(fix.timing.offset[v]),
                float(fix.timing.offset_error[v]),
                float(fix.timing.drift[v]),
                work.facts.fps,
                evidence,
                reference,
            )
        )
    work.offset = work.offset + fix.timing.offset
    work.now = in_step(work.now, fix.timing)


# ---- the report ----------------------------------------------------------------------------------------------------


def _report(work: Work, px: float, error: float, unit: tuple[float, str] | None) -> CheckReport:
    rig = replace(work.facts.rig, cameras=work.kept.cameras)
    if unit is not None and unit[0] > 0:
        rig = replace(rig, cameras=tuple(corrections.scaled_translation(c, unit[0]) for c in rig.cameras))
    elif unit is not None:
        rig = replace(rig, metric=False, unit_source=unit[1])
    changed = unit is not None or any(a is not b for a, b in zip(rig.cameras, work.facts.rig.cameras, strict=True))
    labels = _labels(work) if work.labels_changed else None
    offsets = None
    if any(f.fault == "out_of_step" for f in work.findings):
        before = work.facts.offsets
        offsets = {name: int(before.get(name, 0) - round(o)) for name, o in zip(work.names, work.offset, strict=True)}
        offsets = {name: o for name, o in offsets.items() if o != 0}
    return CheckReport(
        tuple(work.findings),
        px,
        error,
        work.labels[0].n_frames,
        len(work.names),
        tuple(one.side for one in work.facts.labels if one.mask.any()),
        rig if changed else None,
        labels,
        offsets,
    )


def _labels(work: Work) -> tuple[Labels, ...]:
    """The labels with all fixes but those in time, in the rig's order of cameras."""
    result = []
    base = make_case(work.facts.rig, work.labels)
    for n, one in enumerate(work.labels):
        part = slice(n * N_JOINTS, (n + 1) * N_JOINTS)
        confidence = np.where(base.present[:, :, part], one.aligned(work.names).confidence, 0)
        # Where an order was fixed the confidences go with their joints; they are found by what became of their places.
        confidence = _follow(work, confidence, n)
        result.append(replace(one, uv_px=work.kept.uv_px[:, :, part], confidence=confidence, cameras=work.names))
    return tuple(result)


def _follow(work: Work, confidence: np.ndarray, hand: int) -> np.ndarray:
    for views, order in _orders(work.findings, work.names):
        confidence[:, views] = corrections.reordered(confidence[:, views], order, 2)
    return confidence


def _orders(findings: list[Finding], names: tuple[str, ...]):
    for finding in findings:
        if finding.fault == "joint_order":
            name = finding.evidence.get("order", finding.evidence.get("value"))
            yield [names.index(c) for c in finding.cameras], corrections.ORDERS[name]
