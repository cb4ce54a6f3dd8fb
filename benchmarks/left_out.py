"""Error in a left-out camera, for a capture without truth: raw triangulation, sequence fit, UST-Hand.

    python benchmarks/left_out.py CAPTURE --out left-out.json
    python benchmarks/left_out.py CLIP --frames 6 53 --steps 300 --unadapted --out benchmarks/results/webcams4.json

Works on any labelled capture of three cameras or more. Each camera is left out in turn, of labels, fit, training and
reconstruction alike; the joints are projected into it and compared with its own labels (pixels), as `usthand evaluate
--leave-out` does. The labels' own error in that camera is part of every number. A camera without labels of the hand is
passed over. Coverage is the share of those labels inside the 50 and 90 % regions that the method predicts for them,
with the labels' noise estimated from the cameras that were used (`usthand.evaluation.left_out`).
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

from usthand.capture.capture import Capture, open_capture
from usthand.common.errors import UsthandError
from usthand.data.prepare import without_camera
from usthand.evaluation import metrics
from usthand.evaluation.left_out import evaluate_left_out_regions
from usthand.fit.fit import fit_labels, triangulate
from usthand.fit.sequence import FitConfig
from usthand.hand.result import Result
from usthand.labels.labels import load_labels
from usthand.reconstruction.reconstruct import ReconstructConfig, reconstruct_all
from usthand.training.checkpoint import SHIPPED
from usthand.training.config import TrainConfig
from usthand.training.loop import train

COVERAGES = tuple(f"leave_out_{when}coverage{level}" for when in ("", "in_time_") for level in (50, 90))


@dataclass(frozen=True)
class Config:
    """What to measure."""

    capture: Positional[Path]
    out: Path
    frames: tuple[int, int] = (0, 10**6)
    """First and last frame to measure."""
    sides: tuple[str, ...] = ()
    """Hands to measure: right, left, or a further one such as right-2; all that have labels by default."""
    cameras: tuple[str, ...] = ()
    """To leave out; all in turn by default."""
    steps: int = 600
    """Of each training; 0 leaves the trained network out."""
    unadapted: bool = False
    """Also the shipped weights, without any training on the clip."""
    seed: int = 0


def results_without(capture: Capture, side: str, camera: str, config: Config) -> dict[str, Result]:
    """Every method's result, made without `camera`."""
    rig, labels = without_camera(capture.rig, load_labels(capture, side), camera)
    results = {"raw": triangulate(rig, labels), "smooth": triangulate(rig, labels, smooth_fps=capture.fps)}
    results["fit"] = fit_labels(rig, labels, FitConfig(fps=capture.fps))
    chosen = ReconstructConfig(leave_out=camera)
    if config.unadapted:
        both = reconstruct_all(capture, SHIPPED, side, chosen)
        results |= {"network unadapted": both.network, "usthand unadapted": both.final}
    if config.steps:
        with tempfile.TemporaryDirectory() as folder:
            training = TrainConfig(side=side, leave_out=camera, steps=config.steps, seed=config.seed)
            run = train([capture.path], Path(folder), training)
            both = reconstruct_all(capture, run, side, chosen)
        results |= {"network": both.network, "usthand": both.final}
    return results


def measure(capture: Capture, side: str, camera: str, results: dict[str, Result], frames: np.ndarray) -> dict:
    """Left-out error and steadiness of every method, over the frames that all of them place."""
    labels = load_labels(capture, side)
    frames = np.intersect1d(metrics.common_frames(list(results.values())), frames)
    rows = {}
    for name, result in results.items():
        left_out = metrics.evaluate_left_out(result, capture.rig, labels, camera, frames)
        regions = evaluate_left_out_regions(result, capture.rig, labels, camera, frames)
        rows[name] = left_out | regions | metrics.steadiness(result, capture.fps, frames)
    return rows


def summary(cells: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Mean over cells of each method's median, 90th percentile, coverage and steadiness."""
    errors = ("leave_out_median_px", "leave_out_p90_px", *COVERAGES, "finger_bone_spread_mm", "jitter_mm")
    methods = next(iter(cells.values())).keys()
    found = {m: {k: [c[m][k] for c in cells.values() if c[m][k] is not None] for k in errors} for m in methods}
    return {m: {k: round(float(np.mean(v)), 3) for k, v in row.items() if v} for m, row in found.items()}


def line(row: dict) -> str:
    """A method's numbers of one cell: median error, and coverage at 50 and 90 % with the camera's delay taken out."""
    shares = [row[key] for key in COVERAGES]
    told = "-" if shares[0] is None else "/".join(f"{100 * share:.0f}" for share in shares[:2])
    in_time = "" if shares[2] is None else ", in time " + "/".join(f"{100 * share:.0f}" for share in shares[2:])
    return f"{row['leave_out_median_px']:.2f} px, 50/90 % regions hold {told}{in_time}"


def main(config: Config) -> None:
    """Fill the table cell by cell; each is written as soon as it is there."""
    capture, began, cells = open_capture(config.capture), time.time(), {}
    frames = np.arange(config.frames[0], min(config.frames[1] + 1, capture.n_frames))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    for side in config.sides or capture.label_hands():
        seen = load_labels(capture, side).mask[frames].any((0, 2))
        for camera in config.cameras or capture.rig.names:
            if not seen[capture.rig.index(camera)]:
                print(f"{side:<6}{camera:<8}no label of this hand", flush=True)
                continue
            cells[f"{side} {camera}"] = measure(
                capture, side, camera, results_without(capture, side, camera, config), frames
            )
            data = {
                "summary": summary(cells),
                "cells": cells,
                "steps": config.steps,
                "seed": config.seed,
                "machine": platform.machine(),
                "time_s": round(time.time() - began, 1),
            }
            config.out.write_text(json.dumps(data, indent=2) + "\n")
            for method, row in cells[f"{side} {camera}"].items():
                print(f"{side:<6}{camera:<8}{method:<18}{line(row)}", flush=True)
    if not cells:
        raise UsthandError(
            f"{config.capture} has no camera to measure in",
            "no hand has labels in the frames and cameras asked for",
            f"run `usthand label {config.capture}`, or choose others",
        )
    for method, row in summary(cells).items():
        print(f"{method:18}", row)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except UsthandError as error:
        raise SystemExit(f"left_out.py: {error}") from None
