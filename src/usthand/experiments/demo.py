"""The whole method on a synthetic capture: from nothing to a table and a report."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from usthand.capture.capture import Capture, open_capture
from usthand.datasets.synthetic.write import SynthConfig, made_capture
from usthand.evaluation import metrics
from usthand.evaluation.reliability import spearman
from usthand.evaluation.truth import Truth, load_truth
from usthand.fit.fit import FitConfig, fit_labels, triangulate
from usthand.hand.result import Result
from usthand.labels.labels import Labels, load_labels
from usthand.output.overlay import progress_bar
from usthand.output.report import Report, write_report
from usthand.reconstruction.reconstruct import ReconstructConfig, Reconstruction, reconstruct_all
from usthand.training.config import TrainConfig
from usthand.training.loop import train

ROWS = {"raw": "raw", "smooth": "smoothed", "fit": "fit", "network": "network", "usthand": "UST-Hand"}
TABLE = {
    "mpjpe_mm": "joints\nmm",
    "mpvpe_mm": "mesh\nmm",
    "mpjpe_wrist_mm": "wrist\nmm",
    "mpjpe_pa_mm": "PA\nmm",
    "auc_v": "AUC\nmesh",
    "f5": "F@5\nmesh",
    "accel_mm_s2": "accel.\nmm/s²",
    "coverage90": "in 90 %\nregion",
}
CAPTION = (
    "raw: plain triangulation. smoothed: over time, too. fit: sequence fit of the labels. network: UST-Hand's network alone. "
    "UST-Hand: network, then fit. wrist: joints, wrists fitted_mesh together. PA: joints, Procrustes. accel.: error of it."
)
SIDE = "right"


def run_demo(out: Path, seed: int = 0, steps: int | None = None, frames: int = 400) -> dict:
    """Make a capture, fit, train, reconstruct, measure, report. Returns what `metrics.json` holds.

    Raises:
        UsthandError: if `out` holds a demo with other settings.
    """
    console, began = Console(), time.monotonic()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    capture = open_capture(made_capture(out / "capture", SynthConfig(frames=frames, seed=seed)))
    labels = load_labels(capture, SIDE)
    config = FitConfig(fps=capture.fps)
    results = {
        "raw": triangulate(capture.rig, labels),
        "smooth": triangulate(capture.rig, labels, smooth_fps=capture.fps),
        "fit": fit_labels(capture.rig, labels, config, progress=progress_bar("fitting the labels")),
    }
    run = train([capture.path], out / "run", TrainConfig(side=SIDE, seed=seed, steps=steps), progress_bar("training"))
    both = reconstruct_all(capture, run, SIDE, ReconstructConfig(seed=seed), progress_bar("reconstructing"))
    results |= {"network": both.network, "usthand": both.final}
    for name, result in results.items():
        result.save(out / f"{name}.npz")
    numbers = measure(capture, results, labels, both)
    numbers["seed"], numbers["seconds"] = seed, round(time.monotonic() - began, 1)
    (out / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n")
    console.print(table_of(numbers))
    report = write_report(out / "report.html", report_of(out, capture, results, numbers, both), overwrite=True)
    console.print(f"Report: {report}")
    return numbers


def measure(capture: Capture, results: dict[str, Result], labels: Labels, both: Reconstruction) -> dict:
    """All rows over the same frames (those that every method places), and how well the confidence ranks errors."""
    truth = load_truth(capture.path, SIDE)
    frames = metrics.common_frames(list(results.values()))
    rows = {name: metrics.evaluate_truth(r, truth, frames, fps=capture.fps) for name, r in results.items()}
    return rows | {
        "frames": len(frames),
        "confidence_error_rank_correlation": spearman(*confidence_errors(capture, truth, both)),
        "heatmap_error_rank_correlation": spearman(
            *confidence_errors(capture, truth, both, both.estimates.heatmap_confidence)
        ),
        "label_error_median_px": label_error_px(capture, truth, labels),
    }


def report_of(out: Path, capture: Capture, results: dict[str, Result], numbers: dict, both: Reconstruction) -> Report:
    """What the demo's page shows."""
    truth = load_truth(capture.path, SIDE)
    facts = {
        "Cameras": f"{len(capture.rig)}",
        "Frames": f"{capture.n_frames}, {capture.n_frames / capture.fps:.0f} s",
        "Labels": f"{numbers['label_error_median_px']:.1f} px off in the median",
        "Time, everything": f"{numbers['seconds'] / 60:.0f} min",
    }
    return Report(
        rows={name: numbers[name] for name in ROWS},
        capture=capture,
        results=results,
        truth=truth,
        history=out / "run" / "metrics.jsonl",
        confidence=confidence_errors(capture, truth, both),
        facts=facts,
    )


def true_pixels(capture: Capture, truth: Truth) -> np.ndarray:
    """(T, V, 21, 2) the truth's joints in every image."""
    import torch

    from usthand.geometry.cameras import project

    cameras = capture.rig.tensors(torch.float64)
    return (
        project(cameras, torch.from_numpy(np.asarray(truth.joints_world_m, float)).flatten(0, 1))[0]
        .unflatten(1, truth.joints_world_m.shape[:2])
        .transpose(0, 1)
        .numpy()
    )


def confidence_errors(
    capture: Capture, truth: Truth, both: Reconstruction, confidence: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The network's confidence (or another one of the same shape) and its 2D error, in per cent of the hand's size in the
    view (a confidence has no unit, so neither may the error), over all that it saw.
    """
    confidence = both.estimates.confidence if confidence is None else confidence
    seen, exact = confidence > 0, true_pixels(capture, truth)
    size = (exact.max(2) - exact.min(2)).max(-1)
    error = np.linalg.norm(both.estimates.uv_px - exact, axis=-1) / size[..., None]
    return confidence[seen], 100 * error[seen]


def label_error_px(capture: Capture, truth: Truth, labels: Labels) -> float:
    """Median distance of the labels from the truth, px."""
    error = np.linalg.norm(labels.uv_px - true_pixels(capture, truth), axis=-1)
    return float(np.median(error[labels.mask]))


def table_of(numbers: dict) -> Table:
    """The demo's table for the terminal."""
    table = Table(
        title=f"Error against truth, {numbers['frames']} frames; absolute unless said otherwise", caption=CAPTION
    )
    table.add_column("", no_wrap=True)
    for title in TABLE.values():
        table.add_column(title, justify="right")
    for name, title in ROWS.items():
        cells = [numbers[name][key] for key in TABLE]
        table.add_row(title, *("-" if c is None else f"{c:.0f}" if c > 1000 else f"{c:.2f}" for c in cells))
    return table
