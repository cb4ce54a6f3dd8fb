"""The whole method on a synthetic capture: from nothing to a table of numbers and a report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from usthand.capture.capture import Capture, open_capture
from usthand.common.progress import Progress, silent
from usthand.datasets.synthetic.write import SynthConfig, made_capture
from usthand.evaluation import metrics
from usthand.evaluation.reliability import spearman
from usthand.evaluation.truth import Truth, require_truth
from usthand.fit.fit import fit_labels, triangulate
from usthand.fit.sequence import FitConfig
from usthand.geometry.cameras import project
from usthand.hand.result import Result
from usthand.labels.labels import Labels, load_labels
from usthand.output.report import Report, write_report
from usthand.reconstruction.reconstruct import Reconstruction, reconstruct_all
from usthand.training.config import TrainConfig
from usthand.training.loop import train

Numbers = dict[str, Any]
"""What `metrics.json` holds: a table for each method, and single numbers."""
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
    "raw: plain triangulation. smoothed: the same, smoothed over time. fit: sequence fit of the labels. network: "
    "UST-Hand's network alone. UST-Hand: network, then fit. wrist: joints, wrists aligned. PA: joints, Procrustes. "
    "accel.: error of it."
)
SIDE = "right"


class Demo(NamedTuple):
    """What a demo has made."""

    numbers: Numbers
    report: Path
    """The page."""


def run_demo(
    out: Path, seed: int = 0, steps: int | None = None, frames: int = 400, progress: Progress = silent
) -> Demo:
    """Make a capture, fit, train, reconstruct, measure, report.

    Args:
        out: Folder for the capture, the training, the results, metrics.json and report.html.
        seed: Of the capture and the training.
        steps: Length of the training, if not the preset's.
        frames: Length of the capture.
        progress: Told how far each of these is.

    Raises:
        UsthandError: If `out` holds a demo with other settings.
    """
    began = time.monotonic()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = SynthConfig(frames=frames, seed=seed)
    capture = open_capture(made_capture(out / "capture", settings, progress))
    labels = load_labels(capture, SIDE)
    config = FitConfig(fps=capture.fps)

    def fitting(done: int, total: int, task: str = "", note: str = "") -> None:
        progress(done, total, "fitting the labels", note)

    results = {
        "raw": triangulate(capture.rig, labels),
        "smooth": triangulate(capture.rig, labels, smooth_fps=capture.fps),
        "fit": fit_labels(capture.rig, labels, config, progress=fitting),
    }
    run = train([capture.path], out / "run", TrainConfig(side=SIDE, seed=seed, steps=steps), progress)
    both = reconstruct_all(capture, run, SIDE, progress=progress)
    results |= {"network": both.network, "usthand": both.final}
    for name, result in results.items():
        result.save(out / f"{name}.npz")
    numbers = measure(capture, results, labels, both)
    numbers["seed"], numbers["seconds"] = seed, round(time.monotonic() - began, 1)
    (out / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n")
    report = write_report(out / "report.html", report_of(out, capture, results, numbers, both), overwrite=True)
    return Demo(numbers, report)


def measure(capture: Capture, results: dict[str, Result], labels: Labels, both: Reconstruction) -> Numbers:
    """All methods over the same frames (those that every method places), and how well the confidence ranks errors."""
    truth = require_truth(capture.path, SIDE)
    frames = metrics.common_frames(list(results.values()))
    rows = {name: metrics.evaluate_truth(r, truth, frames, fps=capture.fps) for name, r in results.items()}
    of_heatmaps = confidence_errors(capture, truth, both, both.estimates.heatmap_confidence)
    return rows | {
        "frames": len(frames),
        "confidence_error_rank_correlation": spearman(*confidence_errors(capture, truth, both)),
        "heatmap_error_rank_correlation": spearman(*of_heatmaps),
        "label_error_median_px": label_error_px(capture, truth, labels),
    }


def report_of(
    out: Path, capture: Capture, results: dict[str, Result], numbers: Numbers, both: Reconstruction
) -> Report:
    """What the demo's page shows."""
    truth = require_truth(capture.path, SIDE)
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


def true_pixels(capture: Capture, truth: Truth) -> Float[np.ndarray, "T V 21 2"]:
    """The truth's joints in every image."""
    cameras = capture.rig.tensors(torch.float64)
    joints = torch.from_numpy(np.asarray(truth.joints_world_m, float))
    return project(cameras, joints.flatten(0, 1))[0].unflatten(1, joints.shape[:2]).transpose(0, 1).numpy()


def confidence_errors(
    capture: Capture, truth: Truth, both: Reconstruction, confidence: Float[np.ndarray, "T V 21"] | None = None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The network's confidence, or another one, and its 2D error over all joints that it saw.

    The error is in per cent of the hand's size in the view: a confidence has no unit, so the error must not have one.
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


def table_rows(numbers: Numbers) -> list[list[str]]:
    """The lines of the demo's table: a method's name, and its numbers under the titles of `TABLE`."""

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}" if value > 1000 else f"{value:.2f}"

    return [[title, *(text(numbers[name][key]) for key in TABLE)] for name, title in ROWS.items()]
