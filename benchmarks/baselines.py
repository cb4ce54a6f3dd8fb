"""Two cameras at angles from 4 to 90 degrees: error of the fit and of triangulation, and what the regions hold.

    python benchmarks/baselines.py [--seeds 0 1 2 3] [--angles 4 8 15 30 60 90] [--out baselines.json]

The scenes are those of the tests (tests/support/baselines.py). A row is over the valid joints of all seeds.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from usthand.common.errors import UsthandError
from usthand.fit.fit import fit_labels, triangulate
from usthand.fit.sequence import FitConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

HEAD = f"{'angle':>5} {'noise':>5}  {'fit mm':>7} {'raw mm':>7} {'std mm':>7}  {'50 %':>5} {'90 %':>5}  {'valid':>5}"


@dataclass(frozen=True)
class Config:
    """What to run."""

    seeds: tuple[int, ...] = (0, 1, 2, 3)
    angles: tuple[float, ...] = (4, 8, 15, 30, 60, 90)
    """Degrees between the cameras' axes."""
    noises: tuple[str, ...] = ("white", "heavy")
    frames: int = 60
    out: Path | None = None
    """JSON to write."""


def measure(angle: float, noise: str, config: Config) -> dict[str, float | str]:
    """One row of the table."""
    from support.baselines import FPS, errors_mm, inside_region, verged_scene

    parts: dict[str, list] = {name: [] for name in ("fit", "raw", "std", "inside50", "inside90", "valid", "by_seed")}
    for seed in config.seeds:
        scene = verged_scene(seed, angle, noise, config.frames)
        two_views = scene.labels.mask.all(1)
        try:
            fit, raw = fit_labels(scene.rig, scene.labels, FitConfig(fps=FPS)), triangulate(scene.rig, scene.labels)
        except UsthandError:
            parts["valid"].append(np.zeros(two_views.sum()))
            continue
        valid = fit.joint_valid
        parts["fit"].append(errors_mm(fit, scene)[valid])
        parts["raw"].append(errors_mm(raw, scene)[valid])
        parts["std"].append(fit.std_mm[valid])
        parts["inside50"].append(inside_region(fit, scene, 0.5)[valid])
        parts["inside90"].append(inside_region(fit, scene, 0.9)[valid])
        parts["valid"].append(valid[two_views])
        parts["by_seed"].append([float(parts[k][-1].mean()) for k in ("fit", "raw", "inside90")])
    by_seed = np.round(parts.pop("by_seed"), 3).tolist()
    numbers = {name: float(np.concatenate(part).mean()) if part else float("nan") for name, part in parts.items()}
    return {"angle": angle, "noise": noise, **numbers, "fit_raw_inside90_by_seed": by_seed}


def main(config: Config) -> None:
    """Print a row at a time; write them all."""
    print(HEAD)
    rows = []
    for noise in config.noises:
        for angle in config.angles:
            row = measure(angle, noise, config)
            rows.append(row)
            numbers = [row[key] for key in ("fit", "raw", "std", "inside50", "inside90", "valid")]
            print("{:5g} {:>5}  {:7.1f} {:7.1f} {:7.1f}  {:5.2f} {:5.2f}  {:5.2f}".format(angle, noise, *numbers))
            print(f"{'':13}each seed (fit, raw, 90 %): {row['fit_raw_inside90_by_seed']}", flush=True)
    if config.out:
        config.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
