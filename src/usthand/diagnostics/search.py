"""The greedy search for gross faults: try every candidate, keep the few best, look again.

A fix is accepted if it cuts the residual of the pairs of cameras that it touches by `CUT` and label noise explains the
rest. Where several faults come together no single fix gets that far. So the best few attempts are carried on, the
unfixed case among them. What is not plausible in the end is not reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
"""A case in which no view's residual with the others, pairwise and left out, exceeds these (hand sizes) is not
searched: what a gross fault does is larger, and larger than what label noise does."""

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
    """A fault that was found."""

    candidate: CandidateFault
    evidence: FaultEvidence
    alternatives: tuple[CandidateFault, ...] = ()


@dataclass(frozen=True)
class FixedCase:
    """A case after some fixes."""

    case: Case
    found: tuple[FoundFault, ...]
    views: list[ViewRays]
    agreement: Agreement

    @property
    def score(self) -> float:
        """See `Agreement.score`."""
        return self.agreement.score()

    @property
    def plausible(self) -> bool:
        """Whether label noise explains the residuals."""
        return self.agreement.plausible()

    @property
    def suspicious(self) -> bool:
        """Whether a residual is larger than a sound capture's."""
        pairs, left_out = self.agreement.rows(), self.agreement.left_out
        return bool(np.nanmax(pairs, initial=0) > SUSPICIOUS or np.nanmax(left_out, initial=0) > SUSPICIOUS_LEFT_OUT)


def begin(case: Case) -> FixedCase:
    """A case without fixes, with its residuals."""
    views = make_views(case)
    return FixedCase(case, (), views, agreement(views))


def measure(before: FixedCase, after: FixedCase, touched: tuple[int, ...]) -> FaultEvidence:
    """What a fix of the views `touched` does."""
    was, now = before.agreement, after.agreement
    chosen = was.touching(touched)
    return FaultEvidence(
        _residual(was, chosen, touched),
        _residual(now, chosen, touched),
        error_px(was.plain, before.views, chosen),
        error_px(now.plain, after.views, chosen),
        mean_over(was.behind, chosen),
        mean_over(now.behind, chosen),
    )


def _residual(agreed: Agreement, chosen: np.ndarray, touched: tuple[int, ...]) -> float:
    views = np.isin(np.arange(len(agreed.left_out)), touched)
    return float(np.nansum([mean_over(agreed.error, chosen), mean_over(agreed.left_out, views)]))


def cut(evidence: FaultEvidence) -> float:
    """By what factor the residual fell."""
    return max(evidence.before, FLOOR) / max(evidence.after, FLOOR)


def attempt(state: FixedCase, candidate: CandidateFault) -> FixedCase:
    """The case after one more fix, with its evidence."""
    case, views = candidate.apply(state.case), list(state.views)
    for v in candidate.views:
        views[v] = make_view(case.cameras[v], case.uv_px[:, v], case.present[:, v])
    after = FixedCase(case, state.found, views, agreement(views, state.agreement, candidate.views))
    evidence = measure(state, after, candidate.views)
    return replace(after, found=(*state.found, FoundFault(candidate, evidence)))


def expand(state: FixedCase) -> list[FixedCase]:
    """Every fix that helps, best first."""
    tried = [attempt(state, candidate) for candidate in (*exchanges(state.case), *candidate_faults(state.case))]
    helped = [
        s for s in tried if np.isfinite(s.score) and cut(s.found[-1].evidence) > STEP_CUT and s.score < state.score
    ]
    # A stable sort: of two fixes that do the same the likelier one, which is listed first, is kept.
    return sorted(helped, key=lambda s: round(s.score, 3))


def search(case: Case, depth: int = DEPTH) -> list[FixedCase]:
    """The case after up to `depth` fixes, in several ways, and as it was; best first. A sound case comes back alone.

    Only a plausible one may be taken as fixed. The others are starting points for a search for further faults.
    """
    start = begin(case.sampled(SEARCH_FRAMES))
    beam, seen = [start], [start]
    if len(case.cameras) == 2:  # some long sequence of fixes would always bring down their single residual
        depth = min(depth, 2)
    if not start.suspicious:
        return [start]
    for _ in range(depth):
        fresh = []
        for state in beam:
            options = expand(state)
            options = [_with_alternatives(option, options) for option in options[:BEAM]]
            done = [option for option in options if option.plausible and cut(option.found[-1].evidence) >= CUT]
            if done:
                return [done[0], *seen[::-1]]
            fresh += options
        # Where several views are wrong, residuals of views left out mean little; those of pairs mean more.
        by_score = _distinct(sorted(fresh, key=lambda s: round(s.score, 3)))[: BEAM // 2]
        by_pairs = _distinct(sorted(fresh, key=lambda s: round(s.agreement.mean(), 3)))[: BEAM // 2]
        beam = _distinct([*by_score, *by_pairs])
        if not beam:
            break
        seen = [*seen, *beam[::-1]]
    return sorted(seen, key=lambda s: s.score)


def _with_alternatives(chosen: FixedCase, options: list[FixedCase]) -> FixedCase:
    """Note other fixes that do as well by a different fault or in other views."""
    last = chosen.found[-1]
    most_score, most_after = max(chosen.score, FLOOR) * ALTERNATIVE, max(last.evidence.after, FLOOR) * ALTERNATIVE
    others = []
    for option in options:
        candidate, evidence = option.found[-1].candidate, option.found[-1].evidence
        other = (candidate.fault, candidate.views) != (last.candidate.fault, last.candidate.views)
        if other and option.plausible and option.score <= most_score and evidence.after <= most_after:
            others.append(candidate)
    return replace(chosen, found=(*chosen.found[:-1], replace(last, alternatives=tuple(others))))


def _distinct(states: list[FixedCase]) -> list[FixedCase]:
    """Without those that reach the same errors by another order of the same fixes."""
    kept: list[FixedCase] = []
    for state in states:
        error = state.agreement.error
        if not any(np.allclose(error, other.agreement.error, atol=1e-6, equal_nan=True) for other in kept):
            kept.append(state)
    return kept
