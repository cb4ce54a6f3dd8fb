"""What the checks work on: a capture, and the fixes found so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usthand.diagnostics.agreement import Case
from usthand.diagnostics.candidate_faults import CandidateFault
from usthand.diagnostics.findings import Finding
from usthand.diagnostics.folder import CaptureFacts
from usthand.labels.labels import Labels

EVIDENCE_FRAMES = 40


@dataclass
class Work:
    """The state of the checks: fixes accumulate here."""

    facts: CaptureFacts
    labels: tuple[Labels, ...]
    now: Case
    """As all fixes so far leave it, in step."""
    kept: Case
    """The same without those in time: what is written."""
    findings: list[Finding]
    offset: np.ndarray
    """(V,) frames by which each video must be advanced, so far."""
    labels_changed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return self.facts.rig.names

    def apply(self, candidate: CandidateFault) -> None:
        self.now, self.kept = candidate.apply(self.now), candidate.apply(self.kept)
        self.labels_changed |= bool(candidate.labels)
