"""The fixed files, beside the old ones, and the findings as text or JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from usthand.capture.rig import save_rig
from usthand.capture.settings import CaptureSettings, save_settings
from usthand.common.errors import UsthandError
from usthand.diagnostics.check import CheckReport
from usthand.diagnostics.folder import CaptureFacts

RIG, SETTINGS, LABELS = "rig.fixed.toml", "capture.fixed.toml", "labels.fixed"


def write_fixes(facts: CaptureFacts, report: CheckReport) -> list[str]:
    """Write what can be fixed into rig.fixed.toml, capture.fixed.toml and labels.fixed/; returns what to do with them.

    Raises:
        UsthandError: if one of these is there already.
    """
    wanted = {RIG: report.rig, SETTINGS: report.offsets, LABELS: report.labels}
    for name, content in wanted.items():
        target = facts.path / name
        if content is not None and target.exists():
            raise UsthandError(
                f"{target} is there already", "an earlier --fix wrote it", f"use it, or remove it: `rm -r {target}`"
            )
    todo = []
    if report.rig is not None:
        save_rig(report.rig, facts.path / RIG)
        todo.append(_move(facts.path, "rig.toml", RIG))
    if report.labels is not None:
        for labels in report.labels:
            labels.save(facts.path / LABELS / f"{labels.side}.npz")
        todo.append(_move(facts.path, "labels", LABELS))
    if report.offsets is not None:
        save_settings(facts.path / SETTINGS, CaptureSettings(facts.fps, facts.origin), report.offsets)
        todo.append(f"{_move(facts.path, 'capture.toml', SETTINGS)} && usthand label {facts.path} --overwrite")
    return todo


def _move(folder: Path, name: str, fixed: str) -> str:
    keep = f"mv {folder / name} {folder / name}.old && " if (folder / name).exists() else ""
    return f"{keep}mv {folder / fixed} {folder / name}"


def as_text(facts: CaptureFacts, report: CheckReport) -> str:
    """One sentence a finding, with its fix below; one line if nothing is wrong."""
    if not report.findings:
        return (
            f"{facts.path}: nothing wrong found in {report.n_frames} frames of {report.n_views} cameras ({' and '.join(report.sides)} "
            f"hand): sizes, extrinsics, unit, lenses, timing, labels; the epipolar error is {report.error_px:.2g} px, "
            f"{100 * report.error:.1f} % of the hand's size."
        )
    lines = []
    for finding in report.findings:
        lines += [f"{finding.severity}: {finding.sentence[0].upper()}{finding.sentence[1:]}", f"    fix: {finding.fix}"]
    count = len(report.findings)
    left = (
        f"; with all of it fixed the epipolar error is {report.error_px:.2g} px" if np.isfinite(report.error_px) else ""
    )
    return "\n".join([*lines, f"{facts.path}: {count} fault{'s' if count > 1 else ''}{left}."])


def as_json(report: CheckReport, todo: list[str]) -> str:
    """The findings for programs."""
    data = {
        "findings": [finding.as_json() for finding in report.findings],
        "error_px": round(report.error_px, 4) if np.isfinite(report.error_px) else None,
        "error_hand_sizes": round(report.error, 5) if np.isfinite(report.error) else None,
        "frames": report.n_frames,
        "cameras": report.n_views,
        "todo": todo,
    }
    return json.dumps(data, indent=2)
