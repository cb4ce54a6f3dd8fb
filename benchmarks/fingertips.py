"""Distance of results from fingertips that were marked by eye in the images: truth from a real clip.

    python benchmarks/fingertips.py CLIP MARKS.csv right-fit.npz right.npz --out fingertips.json

MARKS.csv has a row a mark: frame, camera, side, finger, marker, u_px, v_px. The markers' positions are averaged in each
view. A tip is triangulated where three views or more show it and agree within 6 px; views that do not are dropped.
Marks are for measuring alone: nothing chooses or learns by them.

Two points of each result are judged: its fingertip joints, and the centres of its mesh's fingertip caps, which is what
the markers marked (`usthand.hand.fingertips`). The marks' own covariance, sigma^2 (J'J)^-1 of each triangulation with
sigma^2 from the residuals of all of them, is added to the result's, so that its regions are asked to hold the marks and
not the unknown tips. The cap's own covariance is the mean of its vertices', each with the vertex's weight in the cap's
centre: neighbouring vertices move as one, so that what they share does not average out. Where the result has no
covariances of vertices, it is the tip joint's.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from scipy.stats import chi2
from tyro.conf import Positional

from usthand import Result, Rig, load_hand, load_result, open_capture
from usthand.geometry.cameras import project, projection_jacobian
from usthand.geometry.triangulation import triangulate
from usthand.hand.fingertips import cap_centres, cap_weights
from usthand.hand.mesh_joints import hand_of
from usthand.hand.skeleton import FINGER_TIPS, FINGERS

NAMES = tuple(FINGERS)
MIN_VIEWS, MAX_RESIDUAL_PX = 3, 6.0
LEVELS = (0.5, 0.9)


@dataclass(frozen=True)
class Config:
    """What to compare."""

    capture: Positional[Path]
    marks: Positional[Path]
    results: Positional[list[Path]]
    hand: str = "embedded"
    """The hand model that the results were made with."""
    out: Path | None = None


class Mark(NamedTuple):
    """A triangulated tip."""

    side: str
    frame: int
    finger: int
    tip_m: np.ndarray
    covariance_m2: np.ndarray


def marked_tips(path: Path, rig: Rig) -> tuple[list[Mark], float]:
    """All tips that can be placed, and the standard deviation of a view's mark, px."""
    views: dict[tuple[str, int, int], dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["side"], int(row["frame"]), NAMES.index(row["finger"]))
            views[key][row["camera"]].append(np.array([float(row["u_px"]), float(row["v_px"])]))
    placed = {
        key: _triangulated(rig, {name: np.mean(marks, 0) for name, marks in seen.items()})
        for key, seen in views.items()
    }
    found = {key: value for key, value in placed.items() if value is not None}
    # Three coordinates are fitted to two of each view.
    variance = sum(square for _, _, square, _ in found.values()) / sum(2 * n - 3 for *_, n in found.values())
    marks = [Mark(*key, tip, variance * np.linalg.inv(information)) for key, (tip, information, _, _) in found.items()]
    return marks, float(np.sqrt(variance))


def _triangulated(rig: Rig, seen: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float, int] | None:
    """A tip (m), J'J (px^2 / m^2), the sum of its squared residuals (px^2) and how many views it is from."""
    cameras = rig.tensors(torch.float64)
    uv, weight = np.zeros((len(rig), 1, 2)), np.zeros((len(rig), 1))
    for name, mark in seen.items():
        uv[rig.names.index(name)], weight[rig.names.index(name)] = mark, 1.0
    while weight.sum() >= MIN_VIEWS:
        tip = triangulate(cameras, torch.from_numpy(uv), torch.from_numpy(weight), iterations=5)
        residual = np.linalg.norm(project(cameras, tip)[0].numpy() - uv, axis=-1) * weight
        if residual.max() <= MAX_RESIDUAL_PX:
            derivative = projection_jacobian(cameras, tip)[:, 0].numpy()[weight[:, 0] > 0].reshape(-1, 3)
            return tip[0].numpy(), derivative.T @ derivative, float((residual**2).sum()), int(weight.sum())
        weight[residual.argmax()] = 0.0
    return None


def compared(result: Result, marks: list[Mark], hand: str) -> dict[str, object]:
    """Numbers of a result's tip joints and of its mesh's cap centres."""
    at = {int(frame): index for index, frame in enumerate(result.frame)}
    own = [
        mark
        for mark in marks
        if mark.side == result.side
        and mark.frame in at
        and result.joint_valid[at[mark.frame], FINGER_TIPS[mark.finger]]
    ]
    rows, fingers = np.array([at[mark.frame] for mark in own]), np.array([mark.finger for mark in own])
    joint = np.array(FINGER_TIPS)[fingers]
    tips = result.joints_world_m[rows, joint]
    axis = tips - result.joints_world_m[rows, joint - 1]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    truth, noise = np.stack([mark.tip_m for mark in own]), np.stack([mark.covariance_m2 for mark in own])
    covariance = result.joints_cov_m2[rows, joint]
    found: dict[str, object] = {"tips": len(own), "joint": judged(tips - truth, covariance, noise, axis, fingers)}
    if result.has_mesh:
        shaped = hand_of(result, load_hand(hand, result.side, torch.float64)).with_shape(torch.from_numpy(result.shape))
        caps = cap_centres(shaped, result.vertices_world_m)[rows, fingers]
        if result.has_vertices_cov:
            weights = np.abs(cap_weights(shaped))
            weights /= weights.sum(1, keepdims=True)
            covariance = np.einsum("mv,mvij->mij", weights[fingers], result.vertices_cov_m2[rows])
        found["cap"] = judged(caps - truth, covariance, noise, axis, fingers)
    return found


def judged(
    error: np.ndarray, covariance: np.ndarray, noise: np.ndarray, axis: np.ndarray, fingers: np.ndarray
) -> dict[str, object]:
    """Errors (mm), how many marks the regions hold, and both less each finger's mean offset along its last bone.

    The offset is of the point from the mark: positive where the point lies beyond, towards the end of the finger.
    """
    along = (error * axis).sum(-1)
    offset = {NAMES[f]: float(along[fingers == f].mean()) for f in np.unique(fingers)}
    corrected = error - np.array([offset[NAMES[f]] for f in fingers])[:, None] * axis
    return {
        **_numbers(error, covariance + noise),
        "offset_mm": {name: round(1000 * value, 2) for name, value in offset.items()},
        "less_offset": _numbers(corrected, covariance + noise),
        "std_mm": round(1000 * float(np.median(np.sqrt(np.linalg.eigvalsh(covariance)[:, -1]))), 2),
        "mark_std_mm": round(1000 * float(np.median(np.sqrt(np.linalg.eigvalsh(noise)[:, -1]))), 2),
    }


def _numbers(error: np.ndarray, covariance: np.ndarray) -> dict[str, float]:
    size = 1000 * np.linalg.norm(error, axis=-1)
    square = (error * np.linalg.solve(covariance, error[..., None])[..., 0]).sum(-1)
    shares = {
        f"in_{100 * level:.0f}_region": round(float((square <= chi2.ppf(level, 3)).mean()), 2) for level in LEVELS
    }
    return {"mean_mm": round(float(size.mean()), 2), "median_mm": round(float(np.median(size)), 2), **shares}


def main(config: Config) -> None:
    """Print two rows for each result, and write them."""
    marks, sigma_px = marked_tips(config.marks, open_capture(config.capture).rig)
    print(f"{len(marks)} tips, a view's mark is good to {sigma_px:.2f} px an axis")
    rows = {path.stem: compared(load_result(path), marks, config.hand) for path in config.results}
    for name, row in rows.items():
        for point in ("joint", "cap"):
            if isinstance(numbers := row.get(point), dict):
                print(f"{name:<16} {point:<6}", "  ".join(f"{key} {value}" for key, value in numbers.items()))
    if config.out is not None:
        config.out.write_text(json.dumps({"mark_px": round(sigma_px, 2), **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
