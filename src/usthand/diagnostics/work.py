"""What the checks work on: a capture, and the mends found so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usthand.diagnostics.agreement import Case
from usthand.diagnostics.candidate_faults import Hypothesis
from usthand.diagnostics.findings import Finding
from usthand.diagnostics.folder import CaptureFacts
from usthand.labels.labels import Labels

EVIDENCE_FRAMES = 40


@dataclass
class Work:
    """The state of the checks: mends accumulate here."""

    facts: CaptureFacts
    labels: tuple[Labels, ...]
    now: Case
    """As all mends so far leave it, in step."""
    kept: Case
    """The same without those in time: what is written."""
    findings: list[Finding]
    offset: np.ndarray
    """(V,) frames by which each video must be advanced, so far."""
    labels_changed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return self.facts.rig.names

    def apply(self, hypothesis: Hypothesis) -> None:
        self.now, self.kept = hypothesis.apply(self.now), hypothesis.apply(self.kept)
        self.labels_changed |= bool(hypothesis.labels)
