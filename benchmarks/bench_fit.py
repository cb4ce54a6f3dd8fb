"""How fast and how good the sequence fit is, on problems whose answer is known: `python benchmarks/bench_fit.py`.

Labels as a detector makes them (`usthand.datasets.synthetic.noise`) on natural motion (`...synthetic.motion`), cameras
on a ring, no images: a joint counts as hidden where another one lies in front of it. Rows: plain triangulation, robust
triangulation, the same smoothed over time (median of 5, Gaussian of 1.5 frames), the fit. The time is also given in
units of a matrix product on the same machine, which other machines can be compared by.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, median_filter

from usthand.capture.rig import Camera, Rig
from usthand.datasets.synthetic.motion import sample_motion
from usthand.datasets.synthetic.noise import noisy_labels
from usthand.evaluation.metrics import evaluate_truth
from usthand.evaluation.truth import Truth
from usthand.fit.fit import fit_labels, source_views, triangulate
from usthand.fit.observations import Observations
from usthand.fit.sequence import FitConfig
from usthand.geometry.cameras import project
from usthand.geometry.robust_triangulation import interpolate_gaps, triangulate_robust
from usthand.hand.io import load_hand
from usthand.labels.labels import Labels

SIZE_PX, HAND_PX, HAND_M, DISTANCE_M, FPS = 256, 110, 0.18, 0.6, 30.0
FINGER_RADIUS_M = 0.012


def ring(n_views: int) -> Rig:
    """Cameras around the origin, alternately higher and lower."""
    focal = HAND_PX / HAND_M * DISTANCE_M
    matrix = np.array([[focal, 0, SIZE_PX / 2], [0, focal, SIZE_PX / 2], [0, 0, 1]])
    cameras = []
    for view in range(n_views):
        around, up = 2 * np.pi * view / max(n_views, 3), 0.5 + 0.3 * (view % 2)
        centre = DISTANCE_M * np.array([np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)])
        forward = -centre / DISTANCE_M
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(forward, right), forward])
        cameras.append(Camera(f"cam_{view}", SIZE_PX, SIZE_PX, matrix, np.zeros(5), "pinhole", turn, -turn @ centre))
    return Rig(tuple(cameras))


def visible(joints: np.ndarray, rig: Rig) -> np.ndarray:
    """(T, V, 21): no other joint lies a finger's radius in front of it."""
    seen = np.ones((len(joints), len(rig), joints.shape[1]), bool)
    for view, camera in enumerate(rig.cameras):
        cam = joints @ camera.rotation.T + camera.translation
        aside = np.linalg.norm(cam[:, :, None, :2] - cam[:, None, :, :2], axis=-1)
        behind = cam[:, :, None, 2] - cam[:, None, :, 2]
        seen[:, view] = ~((aside < FINGER_RADIUS_M) & (behind > FINGER_RADIUS_M)).any(2)
    return seen


def problem(seed: int, n_frames: int, n_views: int, level: str) -> tuple[Rig, Labels, Truth]:
    """Cameras, labels and truth from a seed."""
    rng = np.random.default_rng(seed)
    hand = load_hand(dtype=torch.float64)
    motion = sample_motion(hand, n_frames, FPS, rng)
    rotations = hand.rotations(torch.from_numpy(motion.pose), flat_hand_mean=True)
    posed = hand.with_shape(torch.from_numpy(motion.shape)).with_pose(rotations, torch.from_numpy(motion.translation_m))
    joints, rig = posed.joints.numpy(), ring(n_views)
    uv = project(rig.tensors(torch.float64), posed.joints)[0].numpy()
    seen, inside = visible(joints, rig), ((uv >= 0) & (uv < SIZE_PX)).all(-1)
    labels = noisy_labels(uv, seen, inside, rng, level, rig.names)["right"]
    truth = Truth(joints, posed.vertices.numpy(), seen, motion.pose, motion.shape, motion.translation_m)
    return rig, labels, truth


def robust(rig: Rig, labels: Labels) -> np.ndarray:
    """Robust triangulation, gaps filled."""
    found = triangulate_robust(source_views(rig, Observations.from_labels(labels)))
    return interpolate_gaps(found.points_world, found.seen).numpy()


def product_s() -> float:
    """Seconds of a 1000 x 1000 matrix product."""
    matrix = np.random.default_rng(0).normal(size=(1000, 1000))
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        matrix @ matrix
        best = min(best, time.process_time() - start)
    return best


def measure(seed: int, args: argparse.Namespace) -> dict[str, float]:
    rig, labels, truth = problem(seed, args.frames, args.views, args.labels)
    raw = triangulate(rig, labels)
    loose = robust(rig, labels)
    smooth = gaussian_filter1d(median_filter(loose, (5, 1, 1)), 1.5, axis=0)
    start = time.process_time()
    fit = fit_labels(rig, labels, FitConfig(fps=FPS))
    seconds = time.process_time() - start
    row = {"seed": seed}
    for name, joints in (("robust", loose), ("smooth", smooth)):
        row[f"{name}_mpjpe_mm"] = 1000 * float(np.linalg.norm(joints - truth.joints_world_m, axis=-1)[fit.valid].mean())
    for name, result in (("raw", raw), ("fit", fit)):
        numbers = evaluate_truth(result, truth, fps=FPS)
        keys = (
            "mpjpe_mm",
            "mpvpe_mm",
            "mpjpe_wrist_mm",
            "mpjpe_pa_mm",
            "accel_mm_s2",
            "coverage50",
            "coverage90",
            "valid_fraction",
        )
        row |= {f"{name}_{key}": numbers[key] for key in keys}
    return row | {"fit_s": seconds, "fit_frames_per_s": args.frames / seconds, "fit_products": seconds / product_s()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--labels", default="heavy")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [measure(seed, args) for seed in range(args.seeds)]
    mean = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0] if key != "seed"}
    report = {
        "frames": args.frames,
        "views": args.views,
        "labels": args.labels,
        "seeds": args.seeds,
        "mean": mean,
        "rows": rows,
    }
    print(json.dumps(report["mean"], indent=1))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
