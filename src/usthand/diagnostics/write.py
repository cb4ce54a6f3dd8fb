"""The fixed files, beside the old ones, and the findings as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from usthand.capture.rig import save_rig
from usthand.capture.settings import CaptureSettings, save_settings
from usthand.common.files import refuse_existing
from usthand.diagnostics.check import CheckReport

RIG, SETTINGS, LABELS = "rig.fixed.toml", "capture.fixed.toml", "labels.fixed"


def write_fixes(report: CheckReport) -> list[str]:
    """Write what can be fixed into rig.fixed.toml, capture.fixed.toml and labels.fixed/ in the capture's folder.

    Returns:
        What to do with them: commands of the shell, one for each.

    Raises:
        UsthandError: If one of these files is there already.
    """
    path, todo = report.facts.path, []
    for name, content in ((RIG, report.rig), (SETTINGS, report.offsets), (LABELS, report.labels)):
        if content is not None:
            refuse_existing(
                [path / name], False, "an earlier --fix wrote it", f"use it, or remove it: `rm -r {path / name}`"
            )
    if report.rig is not None:
        save_rig(report.rig, path / RIG)
        todo.append(_move(path, "rig.toml", RIG))
    if report.labels is not None:
        for labels in report.labels:
            labels.save(path / LABELS / f"{labels.side}.npz")
        todo.append(_move(path, "labels", LABELS))
    if report.offsets is not None:
        save_settings(path / SETTINGS, CaptureSettings(report.facts.fps, report.facts.origin), report.offsets)
        todo.append(f"{_move(path, 'capture.toml', SETTINGS)} && usthand label {path} --overwrite")
    return todo


def _move(folder: Path, name: str, fixed: str) -> str:
    keep = f"mv {folder / name} {folder / name}.old && " if (folder / name).exists() else ""
    return f"{keep}mv {folder / fixed} {folder / name}"


def as_text(report: CheckReport) -> str:
    """One sentence for each finding, with its fix below; one line if nothing is wrong."""
    path, count = report.facts.path, len(report.findings)
    if not count:
        return (
            f"{path}: nothing wrong found in {report.n_frames} frames of {report.n_views} cameras "
            f"({' and '.join(report.sides)} hand): sizes, extrinsics, unit, lenses, timing, labels; "
            f"the epipolar error is {report.error_px:.2g} px, {100 * report.error:.1f} % of the hand's size."
        )
    lines = []
    for finding in report.findings:
        lines += [f"{finding.severity}: {finding.sentence[0].upper()}{finding.sentence[1:]}", f"    fix: {finding.fix}"]
    left = f"; with all fixes the epipolar error is {report.error_px:.2g} px" if np.isfinite(report.error_px) else ""
    return "\n".join([*lines, f"{path}: {count} fault{'s' if count > 1 else ''}{left}."])


def as_json(report: CheckReport, todo: Sequence[str] = ()) -> str:
    """The findings for programs; `todo` is what `write_fixes` returned."""
    data = {
        "findings": [finding.as_json() for finding in report.findings],
        "error_px": round(report.error_px, 4) if np.isfinite(report.error_px) else None,
        "error_hand_sizes": round(report.error, 5) if np.isfinite(report.error) else None,
        "frames": report.n_frames,
        "cameras": report.n_views,
        "todo": list(todo),
    }
    return json.dumps(data, indent=2)
