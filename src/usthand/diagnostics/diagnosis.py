"""What the checks work on: a capture, and the fixes and findings so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from usthand.diagnostics.agreement import Case
from usthand.diagnostics.candidate_faults import CandidateFault
from usthand.diagnostics.findings import Finding
from usthand.diagnostics.folder import CaptureFacts
from usthand.diagnostics.search import FixedCase, begin
from usthand.labels.labels import Labels

EVIDENCE_FRAMES = 40


@dataclass
class Diagnosis:
    """The state of the checks: fixes and findings accumulate here."""

    facts: CaptureFacts
    labels: tuple[Labels, ...]
    current: Case
    """With all fixes so far, those in time included."""
    untimed: Case
    """With all fixes except those in time: what is written."""
    offset: Float[np.ndarray, "V"]
    """Frames by which each video must be advanced, so far."""
    findings: list[Finding] = field(default_factory=list)
    labels_changed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The rig's cameras."""
        return self.facts.rig.names

    def apply(self, candidate: CandidateFault) -> None:
        """Fix a fault of cameras or labels."""
        self.current, self.untimed = candidate.apply(self.current), candidate.apply(self.untimed)
        self.labels_changed |= bool(candidate.labels)

    def add(self, *findings: Finding) -> None:
        """Report faults."""
        self.findings.extend(findings)

    def measured(self) -> FixedCase:
        """The current case with its residuals, on the frames that evidence is taken from."""
        return on_evidence(self.current)


def on_evidence(case: Case) -> FixedCase:
    """A case with its residuals, on the frames that evidence is taken from."""
    return begin(case.sampled(EVIDENCE_FRAMES))
