"""Distance of results from fingertips that were marked by eye in the images: truth from a real clip.

    python benchmarks/fingertips.py CLIP MARKS.csv right-fit.npz right.npz --out fingertips.json

MARKS.csv has a row a mark: frame, camera, side, finger, marker, u_px, v_px. The markers' positions are averaged in each
view. A tip is triangulated where three views or more show it and agree within 6 px; views that do not are dropped.
Marks are for measuring alone: nothing chooses or learns by them.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.stats import chi2
from tyro.conf import Positional

from usthand import Result, Rig, load_result, open_capture
from usthand.geometry.cameras import project
from usthand.geometry.triangulation import triangulate
from usthand.hand.mesh_joints import mesh_joints
from usthand.hand.skeleton import FINGER_TIPS

FINGERS = ("thumb", "index", "middle", "ring", "little")
MIN_VIEWS, MAX_RESIDUAL_PX = 3, 6.0
LEVEL = 0.9


@dataclass(frozen=True)
class Config:
    """What to compare."""

    capture: Positional[Path]
    marks: Positional[Path]
    results: Positional[list[Path]]
    out: Path | None = None


def marked_tips(path: Path, rig: Rig) -> dict[tuple[str, int, int], np.ndarray]:
    """Tips in the world (m) by (side, frame, finger)."""
    views: dict[tuple[str, int, int], dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["side"], int(row["frame"]), FINGERS.index(row["finger"]))
            views[key][row["camera"]].append(np.array([float(row["u_px"]), float(row["v_px"])]))
    tips = {
        key: _triangulated(rig, {name: np.mean(marks, 0) for name, marks in seen.items()})
        for key, seen in views.items()
    }
    return {key: tip for key, tip in tips.items() if tip is not None}


def _triangulated(rig: Rig, seen: dict[str, np.ndarray]) -> np.ndarray | None:
    cameras = rig.tensors(torch.float64)
    uv, weight = np.zeros((len(rig), 1, 2)), np.zeros((len(rig), 1))
    for name, mark in seen.items():
        uv[rig.names.index(name)], weight[rig.names.index(name)] = mark, 1.0
    while weight.sum() >= MIN_VIEWS:
        tip = triangulate(cameras, torch.from_numpy(uv), torch.from_numpy(weight), iterations=5)
        residual = np.linalg.norm(project(cameras, tip)[0].numpy() - uv, axis=-1) * weight
        if residual.max() <= MAX_RESIDUAL_PX:
            return tip[0].numpy()
        weight[residual.argmax()] = 0.0
    return None


def compared(result: Result, tips: dict[tuple[str, int, int], np.ndarray]) -> dict[str, float | int]:
    """Errors (mm) of a result's tips and of its mesh's own, and how many of its 90 % regions hold the mark."""
    errors, own, held = [], [], []
    model = mesh_joints(result) if result.has_mesh else result.joints_world_m
    at = {int(frame): index for index, frame in enumerate(result.frame)}
    for (side, frame, finger), tip in tips.items():
        index, joint = at.get(frame), FINGER_TIPS[finger]
        if side != result.side or index is None or not result.joint_valid[index, joint]:
            continue
        offset = tip - result.joints_world_m[index, joint]
        errors.append(np.linalg.norm(offset))
        own.append(np.linalg.norm(tip - model[index, joint]))
        held.append(offset @ np.linalg.solve(result.joints_cov_m2[index, joint], offset) <= chi2.ppf(LEVEL, 3))
    return {
        "tips": len(errors),
        "mean_mm": round(1000 * float(np.mean(errors)), 2),
        "median_mm": round(1000 * float(np.median(errors)), 2),
        "mesh_mean_mm": round(1000 * float(np.mean(own)), 2),
        "in_90_region": round(float(np.mean(held)), 2),
    }


def main(config: Config) -> None:
    """Print a row for each result, and write them."""
    rig = open_capture(config.capture).rig
    tips = marked_tips(config.marks, rig)
    rows = {path.stem: compared(load_result(path), tips) for path in config.results}
    for name, row in rows.items():
        print(f"{name:<16}", "  ".join(f"{key} {value}" for key, value in row.items()))
    if config.out is not None:
        config.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
