"""The greedy search for gross faults: try every candidate, keep the few best, look again.

A fix is believed if it cuts the residual of the pairs of cameras that it touches by `CUT` and the result is what label
noise explains. Where several faults come together no single fix gets that far, so the best few attempts, the unfixed
case among them, are carried on; what is not plausible in the end is not reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usthand.diagnostics.agreement import (
    FLOOR,
    Agreement,
    Case,
    ViewRays,
    agreement,
    error_px,
    make_view,
    make_views,
    mean_over,
)
from usthand.diagnostics.candidate_faults import CandidateFault, candidate_faults, exchanges

CUT = 2.5
"""A fix must cut the residual by this. Label noise cannot: it stays, whatever is done to a sound capture."""

STEP_CUT = 1.35
"""... or by this, for a fix to be carried on as the first of several."""

SUSPICIOUS, SUSPICIOUS_LEFT_OUT = 0.045, 0.12
"""A case in which no view's residual with the others, pairwise and left out, exceeds these (hand sizes) is not searched:
what a gross fault does is larger, and larger than what label noise does."""

BEAM, DEPTH = 4, 3
SEARCH_FRAMES = 16
ALTERNATIVE = 1.3
"""Other fixes that end within this factor of the best one's residual explain the fault as well, and are named."""


@dataclass(frozen=True)
class FaultEvidence:
    """The residual of the touched pairs of cameras before and after a fix."""

    before: float
    """Hand sizes, capped: mean of the pairs plus mean of the touched views, left out."""
    after: float
    before_px: float
    after_px: float
    behind_before: float
    """Share of the joints that lie behind a camera."""
    behind_after: float


@dataclass(frozen=True)
class FoundFault:
    """A believed fault."""

    candidate: CandidateFault
    evidence: FaultEvidence
    alternatives: tuple[CandidateFault, ...] = ()


@dataclass(frozen=True)
class State:
    """A case after some fixes."""

    case: Case
    found: tuple[FoundFault, ...]
    views: list[ViewRays]
    agreement: Agreement

    @property
    def score(self) -> float:
        return self.agreement.score()

    @property
    def plausible(self) -> bool:
        return self.agreement.plausible()

    @property
    def suspicious(self) -> bool:
        pairs, left_out = self.agreement.rows(), self.agreement.left_out
        return bool(
            np.nanmax(pairs, initial=0.0) > SUSPICIOUS or np.nanmax(left_out, initial=0.0) > SUSPICIOUS_LEFT_OUT
        )


def begin(case: Case) -> State:
    """A state without fixes."""
    views = make_views(case)
    return State(case, (), views, agreement(views))


def measure(
    before: Agreement,
    after: Agreement,
    views_before: list[ViewRays],
    views_after: list[ViewRays],
    touched: tuple[int, ...],
) -> FaultEvidence:
    """FaultEvidence for a fix of the views `touched`."""
    chosen = before.touching(touched)
    return FaultEvidence(
        _residual(before, chosen, touched),
        _residual(after, chosen, touched),
        error_px(before.plain, views_before, chosen),
        error_px(after.plain, views_after, chosen),
        mean_over(before.behind, chosen),
        mean_over(after.behind, chosen),
    )


def _residual(agreed: Agreement, chosen: np.ndarray, touched: tuple[int, ...]) -> float:
    views = np.isin(np.arange(len(agreed.left_out)), touched)
    return float(np.nansum([mean_over(agreed.error, chosen), mean_over(agreed.left_out, views)]))


def cut(evidence: FaultEvidence) -> float:
    """By what factor the residual fell."""
    return max(evidence.before, FLOOR) / max(evidence.after, FLOOR)


def attempt(state: State, candidate: CandidateFault) -> State:
    """The state after one more fix, with its evidence."""
    case = candidate.apply(state.case)
    changed = candidate.views
    views = list(state.views)
    for v in changed:
        views[v] = make_view(case.cameras[v], case.uv_px[:, v], case.present[:, v])
    after = agreement(views, state.agreement, changed)
    evidence = measure(state.agreement, after, state.views, views, changed)
    return State(case, (*state.found, FoundFault(candidate, evidence)), views, after)


def expand(state: State) -> list[State]:
    """Every fix that helps, best first."""
    tried = [attempt(state, h) for h in (*exchanges(state.case), *candidate_faults(state.case))]
    helped = [
        s for s in tried if np.isfinite(s.score) and cut(s.found[-1].evidence) > STEP_CUT and s.score < state.score
    ]
    # A stable sort: of two fixes that do the same the likelier one, which is listed first, is kept.
    return sorted(helped, key=lambda s: round(s.score, 3))


def search(case: Case, depth: int = DEPTH) -> list[State]:
    """States after up to `depth` fixes, and the case as it was; the best first. A sound case comes back alone.

    Only a plausible one may be taken for fixed; the others are there for who looks for further kinds of faults.
    """
    start = begin(case.sampled(SEARCH_FRAMES))
    beam, seen = [start], [start]
    if len(case.cameras) == 2:  # whose one residual some sequence of fixes would always bring down
        depth = min(depth, 2)
    if not start.suspicious:
        return [start]
    for _ in range(depth):
        fresh = []
        for state in beam:
            options = expand(state)
            options = [_with_alternatives(state, option, options) for option in options[:BEAM]]
            done = [option for option in options if option.plausible and cut(option.found[-1].evidence) >= CUT]
            if done:
                return [done[0], *seen[::-1]]
            fresh += options
        # Where several views are wrong, the views left out say little yet, and the pairs alone know better.
        by_score = _distinct(sorted(fresh, key=lambda s: round(s.score, 3)))[: BEAM // 2]
        by_pairs = _distinct(sorted(fresh, key=lambda s: round(s.agreement.mean(), 3)))[: BEAM // 2]
        beam = _distinct([*by_score, *by_pairs])
        if not beam:
            break
        seen = [*seen, *beam[::-1]]
    return sorted(seen, key=lambda s: s.score)


def _with_alternatives(before: State, chosen: State, options: list[State]) -> State:
    """Note other fixes that do as well by a different fault or in other views."""
    last = chosen.found[-1]
    limit = max(last.evidence.after, FLOOR) * ALTERNATIVE
    others = tuple(
        option.found[-1].candidate
        for option in options
        if option is not chosen
        and option.plausible
        and option.score <= max(chosen.score, FLOOR) * ALTERNATIVE
        and option.found[-1].evidence.after <= limit
        and (option.found[-1].candidate.fault, option.found[-1].candidate.views)
        != (last.candidate.fault, last.candidate.views)
    )
    return State(
        chosen.case,
        (*chosen.found[:-1], FoundFault(last.candidate, last.evidence, others)),
        chosen.views,
        chosen.agreement,
    )


def _distinct(states: list[State]) -> list[State]:
    """Without those that reach the same errors by another order of the same fixes."""
    kept: list[State] = []
    for state in states:
        if not any(
            np.allclose(state.agreement.error, other.agreement.error, atol=1e-6, equal_nan=True) for other in kept
        ):
            kept.append(state)
    return kept
