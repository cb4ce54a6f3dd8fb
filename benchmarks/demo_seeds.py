"""The demo over several seeds, for the README's table: mean and each seed's number.

    python benchmarks/demo_seeds.py --out benchmarks/results/demo-seeds.json

Each seed is a subject, rig, room, motion and label noise of its own. A folder with demos that are done already is used
again (`--folder`).
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from usthand.experiments.demo import ROWS, run_demo
from usthand.training.config import PRESETS


@dataclass(frozen=True)
class Config:
    """What to run."""

    out: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    folder: Path | None = None
    """Where the demos go, one folder a seed; a temporary one by default."""


def demo_numbers(folder: Path, seed: int) -> dict:
    """A demo's metrics.json, run if it is not there."""
    done = folder / str(seed) / "metrics.json"
    return json.loads(done.read_text()) if done.is_file() else run_demo(folder / str(seed), seed).numbers


def over_seeds(values: list[float]) -> dict:
    """Mean, standard deviation over seeds, and the numbers themselves."""
    return {
        "mean": round(float(np.mean(values)), 3),
        "std": round(float(np.std(values)), 3),
        "by_seed": [round(v, 3) for v in values],
    }


def main(config: Config) -> None:
    """Run, merge, write, print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = config.folder or Path(temporary)
        demos = [demo_numbers(folder, seed) for seed in config.seeds]
    rows = {
        name: {key: over_seeds([d[name][key] for d in demos]) for key in demos[0][name] if key != "frames"}
        for name in ROWS
    }
    single = ("confidence_error_rank_correlation", "heatmap_error_rank_correlation", "label_error_median_px", "seconds")
    data = {
        "note": f"usthand demo, 400 frames, 4 cameras, heavy labels, {PRESETS['tiny'].train.steps} steps",
        "machine": f"{os.cpu_count()} {platform.machine()} cores",
        "seeds": list(config.seeds),
        "rows": rows,
        **{key: over_seeds([d[key] for d in demos]) for key in single},
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(data, indent=2) + "\n")
    keys = ("mpjpe_mm", "mpvpe_mm", "mpjpe_wrist_mm", "mpjpe_pa_mm", "f5", "accel_mm_s2", "coverage90")
    for name, row in rows.items():
        print(f"{name:8}", {key: row[key]["mean"] for key in keys})


if __name__ == "__main__":
    main(tyro.cli(Config))
