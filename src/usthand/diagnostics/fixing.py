"""Choose the fixes: gross faults of cameras and labels first, then time, moved cameras and lenses in turn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from usthand.diagnostics.agreement import FLOOR, Case
from usthand.diagnostics.camera_faults import LensFault, MovedCamera, better_lenses, most_moved, moved_cameras
from usthand.diagnostics.diagnosis import Diagnosis, on_evidence
from usthand.diagnostics.findings import from_found, from_lens, from_moved, from_timing
from usthand.diagnostics.search import FixedCase, FoundFault, cut, measure, search
from usthand.diagnostics.time_faults import estimate_timing, in_step, least_cut, out_of_step
from usthand.diagnostics.timing import Timing

TRIED_WITH_MORE = 3
LONGER = 1.25
"""Factor by which more fixes must explain a capture better than fewer."""

MAX_FIXES = 5
LEAST_GAIN = 1.1
"""Factor by which one of several possible fixes must lower the total residual to be taken."""


# ---- gross faults --------------------------------------------------------------------------------------------------


def fix_gross_faults(diagnosis: Diagnosis) -> None:
    """Try one mistake; none or one together with videos out of step; several; several together with any other fault."""
    states = search(diagnosis.current, 1)
    if _take_if_plausible(diagnosis, states):
        return
    if _take_with_others(diagnosis, [(), *_attempts(states, 1)], only_time=True):
        return
    states = search(diagnosis.current)
    if not _take_if_plausible(diagnosis, states):
        _take_with_others(diagnosis, [(), *_attempts(states, 1), *_attempts(states, 2)], only_time=False)


def _take_if_plausible(diagnosis: Diagnosis, states: list[FixedCase]) -> bool:
    if states[0].plausible:
        _take(diagnosis, states[0].found)
    return states[0].plausible


def _attempts(states: list[FixedCase], length: int) -> list[tuple[FoundFault, ...]]:
    """The best sequences of this many fixes."""
    return [state.found for state in states if len(state.found) == length][:TRIED_WITH_MORE]


def _take_with_others(diagnosis: Diagnosis, attempts: list[tuple[FoundFault, ...]], only_time: bool) -> bool:
    """Take the attempt that a fault in time, a moved camera or a lens makes plausible.

    Of several the best is taken, but a longer one only if it is better by far. The other fault is left to be found and
    reported by `fix_further_faults`.
    """
    best = None
    for found in attempts:
        case = diagnosis.current
        for one in found:
            case = one.candidate.apply(case)
        # One camera moved, or the lenses, may be all there is; after another fix they would explain too much.
        options = (_timing_options if only_time and found else _options)(case, diagnosis.facts.fps)
        ended = min(options, key=_preference, default=None)
        if ended is None or not ended.after.plausible:
            continue
        if best is None or _preference(ended) * LONGER < best[0]:
            best = (_preference(ended), found)
    if best is not None:
        _take(diagnosis, best[1])
    return best is not None


def _take(diagnosis: Diagnosis, found: tuple[FoundFault, ...]) -> None:
    """Apply fixes and report them, each with its evidence on many frames."""
    for one in found:
        before = diagnosis.measured()
        diagnosis.apply(one.candidate)
        evidence = measure(before, diagnosis.measured(), one.candidate.views)
        diagnosis.add(from_found(replace(one, evidence=evidence), diagnosis.names))


# ---- time, moved cameras, lenses -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fix:
    """One of several fixes that are weighed against each other; one of the last three is set."""

    after: FixedCase
    cameras: tuple[int, ...]
    timing: Timing | None = None
    moved: MovedCamera | None = None
    lens: LensFault | None = None


def _options(case: Case, fps: float) -> list[_Fix]:
    moved = [_Fix(on_evidence(m.candidate.apply(case)), m.candidate.views, moved=m) for m in moved_cameras(case)]
    lenses = [_Fix(on_evidence(x.candidate.apply(case)), x.candidate.views, lens=x) for x in better_lenses(case)]
    return [*_timing_options(case, fps), *moved, *lenses]


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
    after, views = on_evidence(in_step(case, timing)), tuple(int(v) for v in np.flatnonzero(wrong))
    if cut(measure(on_evidence(case), after, views)) <= least_cut(len(case.uv_px)):
        return []
    return [_Fix(after, views, timing)]


def _preference(fix: _Fix) -> float:
    """Residual after a fix, with a handicap for those that have more freedom than others."""
    handicap = 1.0
    if fix.moved is not None:
        handicap = 1.05 if fix.moved.shift == 0 else 1.2
    if fix.lens is not None:
        handicap = 1.05 if fix.lens.candidate.kind == "fitted" else 1.0
        # Where all lenses are alike, the right one for all also fixes a single wrong one.
        handicap *= 1.1 if len(fix.cameras) > 1 else 1.0
    return max(fix.after.score, FLOOR) * handicap


def fix_further_faults(diagnosis: Diagnosis) -> None:
    """Take the best fix and look again. If the cameras do not agree in the end, all of these fixes are taken back."""
    as_it_was, n_findings = replace(diagnosis), len(diagnosis.findings)
    moved: set[int] = set()
    for _ in range(MAX_FIXES):
        before = diagnosis.measured()
        best = min(_useful(diagnosis, before, moved), key=_preference, default=None)
        if best is None:
            break
        evidence = measure(before, best.after, best.cameras)
        if best.timing is not None:
            _take_timing(diagnosis, best, best.timing, before)
        elif best.moved is not None:
            moved.update(best.cameras)
            diagnosis.apply(best.moved.candidate)
            diagnosis.add(from_moved(best.moved, evidence, diagnosis.names, diagnosis.facts.rig.metric))
        elif best.lens is not None:
            diagnosis.apply(best.lens.candidate)
            diagnosis.add(from_lens(best.lens, evidence, diagnosis.names))
    if not diagnosis.measured().plausible:
        diagnosis.current, diagnosis.untimed = as_it_was.current, as_it_was.untimed
        diagnosis.offset, diagnosis.labels_changed = as_it_was.offset, as_it_was.labels_changed
        del diagnosis.findings[n_findings:]


def _useful(diagnosis: Diagnosis, before: FixedCase, moved: set[int]) -> list[_Fix]:
    """Fixes that lower the residual enough; no further moved camera once the most that can be told are found."""
    may_move = len(moved) < most_moved(len(diagnosis.names))
    return [
        fix
        for fix in _options(diagnosis.current, diagnosis.facts.fps)
        if (fix.timing is not None or fix.after.score < before.score / LEAST_GAIN) and (fix.moved is None or may_move)
    ]


def _take_timing(diagnosis: Diagnosis, fix: _Fix, timing: Timing, before: FixedCase) -> None:
    names, steady = diagnosis.names, [name for v, name in enumerate(diagnosis.names) if v not in fix.cameras]
    reference = f"camera {steady[0]}" if len(names) == 2 else "the others"
    for v in fix.cameras:
        evidence = measure(before, fix.after, (v,))
        # Frame k + offset is the instant k: a camera whose frames come early in its file started late.
        late, error, drift = -float(timing.offset[v]), float(timing.offset_error[v]), float(timing.drift[v])
        diagnosis.add(from_timing(names[v], (late, error), drift, diagnosis.facts.fps, evidence, reference))
    diagnosis.offset = diagnosis.offset + timing.offset
    diagnosis.current = in_step(diagnosis.current, timing)
