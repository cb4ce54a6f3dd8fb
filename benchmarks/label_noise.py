"""How wrong are a detector's labels? Measured on a real capture, without truth, from the other cameras.

    python benchmarks/label_noise.py CAPTURE --first 6 --last 53 [--out label_noise.json]

Procedure (docs/development/label-noise.md says what came out, and what it means):

1. Every label is compared with the projection of the joint triangulated from the *other* cameras, robustly (Cauchy
   reweighting at a tenth of the hand's size, three rounds). Differences are in hand sizes: the longer side of the box
   around the labels, median over the capture per view.
2. That difference holds the error of the reference too. With equal noise in all views its variance is (1 + h) times the
   label's, h the leverage: the reference's covariance projected into the view. Differences are divided by sqrt(1 + h).
3. Tails: Student's t is simulated on the triangulated hands through the same cameras and procedure; reported are the
   degrees of freedom whose 90th and 99th percentile lie nearest, with the scale that gives the same median.
4. Correlations are of difference vectors, clipped at 0.3: over time, over joints, and between frames with the same
   layout of the hand in the image. Layout distance: root mean square over joints of (uv - mean uv) / size.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from usthand.capture.capture import open_capture
from usthand.geometry.cameras import Cameras, project, to_camera, undistort
from usthand.geometry.triangulation import triangulate_xy
from usthand.hand.skeleton import FINGERS
from usthand.labels.labels import Labels, hand_size_px, load_labels

DOFS = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 7.0, 10.0, 30.0)
LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
LAYOUT_BINS = (0.0, 0.03, 0.06, 0.10, 0.15, 0.25, 0.5)
ROBUST_AT = 0.1  # hand sizes
CLIP = 0.3


@dataclass
class Differences:
    """One hand's differences from the other cameras, frames of interest only."""

    vector: np.ndarray  # (T, V, 21, 2) hand sizes, NaN where unknown
    leverage: np.ndarray  # (T, V, 21)


def differences(cameras: Cameras, uv: np.ndarray, mask: np.ndarray, size: np.ndarray) -> Differences:
    """Steps 1 and 2 for (T, V, 21, 2) labels."""
    seen = torch.from_numpy(uv)
    xy, focal = undistort(cameras, seen), cameras.intrinsics[:, None, :2]
    plain = torch.from_numpy(mask / size[..., None] ** 2)
    vector, leverage = np.full(uv.shape, np.nan), np.full(mask.shape, np.nan)
    for view in range(uv.shape[1]):
        others = plain.clone()
        others[:, view] = 0
        weight = others
        for _ in range(4):
            points, _ = triangulate_xy(cameras, xy, torch.diag_embed(weight[..., None] * focal**2), 3)
            projected = project(cameras, points)[0]
            gap = (projected - seen).norm(dim=-1) / torch.from_numpy(size)[..., None]
            weight = others / (1 + (gap / ROBUST_AT) ** 2)
        known = ((others > 0).sum(1) >= 2).numpy() & mask[:, view]
        found = (uv[:, view] - projected[:, view].numpy()) / size[:, view, None, None]
        vector[:, view] = np.where(known[..., None], found, np.nan)
        lever = projected_variance(cameras, points, others * 1.0, view) / size[:, view, None] ** 2
        leverage[:, view] = np.where(known, lever, np.nan)
    return Differences(vector, leverage)


def projected_variance(cameras: Cameras, points: torch.Tensor, weight: torch.Tensor, view: int) -> np.ndarray:
    """Mean variance per axis, px^2, of the points projected into a view, for labels of variance 1 / weight."""
    camera = to_camera(cameras, points)
    xy = camera[..., :2] / camera[..., 2:]
    rotation, focal = cameras.cam_from_world[:, None, None, :, :3], cameras.intrinsics[:, None, :2, None]
    rows = (rotation[..., 0, :2, :] - xy[..., None] * rotation[..., 0, 2:, :]) / camera[..., 2:, None] * focal
    normal = (rows.transpose(-1, -2) @ rows * weight[..., None, None]).sum(1)
    covariance = torch.linalg.inv(normal + 1e-9 * torch.eye(3, dtype=normal.dtype))
    spread = rows[:, view] @ covariance @ rows[:, view].transpose(-1, -2)
    return (spread.diagonal(dim1=-2, dim2=-1).sum(-1) / 2).numpy()


def percentiles(values: np.ndarray) -> list[float]:
    return [round(float(q), 4) for q in np.nanpercentile(values, (50, 90, 99))]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Uncentred: a constant error is an error."""
    both = np.isfinite(a) & np.isfinite(b)
    return float((a[both] * b[both]).sum() / np.sqrt((a[both] ** 2).sum() * (b[both] ** 2).sum()))


def fit_student(cameras: Cameras, hands: list[tuple], factor: np.ndarray, target: list[float], frames: slice) -> dict:
    """Step 3. `hands` holds (exact uv, mask, size) of each hand."""
    best = None
    for dof in DOFS:
        scale = 0.03
        for step in range(3):
            rng, sample = np.random.default_rng(0), []
            for uv, mask, size in hands:
                noise = rng.normal(size=uv.shape) / np.sqrt(rng.chisquare(dof, uv.shape[:-1]) / dof)[..., None]
                noise *= scale * factor[:, None]
                noise /= np.maximum(np.linalg.norm(noise, axis=-1, keepdims=True), 1)
                made = differences(cameras, uv + noise * size[..., None, None], mask, size)
                sample.append(np.linalg.norm(made.vector[frames], axis=-1))
            found = percentiles(np.stack(sample))
            scale *= target[0] / found[0] if step < 2 else 1
        miss = abs(np.log(found[1] / target[1])) + abs(np.log(found[2] / target[2]))
        if best is None or miss < best[0]:
            best = (miss, {"dof": dof, "scale_per_axis": round(scale, 4), "simulated": found})
    return best[1]


def by_layout(labels: Labels, vector: np.ndarray, frames: slice, min_lag: int) -> list[list[float]]:
    """[numerator, denominator] of the correlation of two frames of a view, per bin of their layout distance."""
    uv = labels.uv_px[frames].astype(float)
    layout = (uv - uv.mean(axis=2, keepdims=True)) / hand_size_px(labels)[frames][..., None, None]
    sums = np.zeros((len(LAYOUT_BINS) - 1, 2))
    for view in range(uv.shape[1]):
        whole = np.flatnonzero(np.isfinite(vector[:, view]).all(axis=(1, 2)))
        for i, a in enumerate(whole):
            for b in whole[i + 1 :]:
                far = np.sqrt(((layout[a, view] - layout[b, view]) ** 2).sum(-1).mean())
                k = np.searchsorted(LAYOUT_BINS, far, side="right") - 1
                if b - a >= min_lag and k < len(sums):
                    one, two = vector[a, view], vector[b, view]
                    sums[k] += (one * two).sum(), np.sqrt((one**2).sum() * (two**2).sum())
    return sums.tolist()


def measure(folder: Path, first: int, last: int) -> dict:
    """All numbers of one capture, over both hands if both have labels."""
    capture, frames = open_capture(folder), slice(first, last + 1)
    cameras = capture.rig.tensors(torch.float64)
    labels = [load_labels(capture, side) for side in capture.label_sides()]
    sizes = [hand_size_px(one) for one in labels]
    each = [differences(cameras, x.uv_px.astype(float), x.mask, s) for x, s in zip(labels, sizes, strict=True)]
    vector = np.stack([d.vector[frames] for d in each])
    error = np.linalg.norm(vector, axis=-1)
    own = vector / np.sqrt(1 + np.stack([d.leverage[frames] for d in each]))[..., None]
    size_of_own = np.linalg.norm(own, axis=-1)
    factor = np.nanmedian(size_of_own, axis=(0, 1, 2))
    factor /= np.sqrt((factor**2).mean())
    clipped = np.clip(own / factor[:, None], -CLIP, CLIP)
    confidence = np.stack([x.confidence[frames] for x in labels])
    known = np.isfinite(error)

    hands = []
    for x, s in zip(labels, sizes, strict=True):
        weight = torch.from_numpy(x.mask / s[..., None] ** 2)[..., None] * cameras.intrinsics[:, None, :2] ** 2
        points, _ = triangulate_xy(
            cameras, undistort(cameras, torch.from_numpy(x.uv_px.astype(float))), torch.diag_embed(weight)
        )
        hands.append((project(cameras, points)[0].numpy(), x.mask, s))
    fingers = list(FINGERS.values())
    same = [(a, b) for ids in fingers for a in ids for b in ids if a < b]
    apart = [(a, b) for one in fingers for two in fingers if one < two for a in one for b in two]
    pairs = lambda which: correlation(  # noqa: E731
        clipped[..., [a for a, _ in which], :], clipped[..., [b for _, b in which], :]
    )
    layout = np.sum(
        [by_layout(x, np.clip(v, -CLIP, CLIP), frames, 4) for x, v in zip(labels, own, strict=True)], axis=0
    )
    return {
        "joints": int(known.sum()),
        "difference_p50_p90_p99": percentiles(error),
        "own_error_p50_p90_p99": percentiles(size_of_own),
        "own_error_by_camera_p50_p90_p99": [percentiles(size_of_own[:, :, v]) for v in range(len(capture.rig))],
        "joint_factor": [round(float(f), 2) for f in factor],
        "student_t": fit_student(cameras, hands, factor, percentiles(error), frames),
        "correlation_by_lag": {
            k: round(correlation(clipped[:, :-k], clipped[:, k:]), 3) for k in LAGS if k <= last - first
        },
        "correlation_by_layout_distance": {
            f"{low}-{high}": round(float(n / d), 3)
            for low, high, (n, d) in zip(LAYOUT_BINS[:-1], LAYOUT_BINS[1:], layout, strict=True)
            if d > 0
        },
        "correlation_same_finger": round(pairs(same), 3),
        "correlation_other_finger": round(pairs(apart), 3),
        "rank_correlation_with_confidence": round(float(spearmanr(confidence[known], size_of_own[known]).statistic), 3),
        "scale_times_confidence_by_confidence": confidence_table(confidence[known], size_of_own[known]),
        "missing_by_camera": [
            round(1 - float(np.mean([x.mask[frames, v].any(axis=-1).mean() for x in labels])), 3)
            for v in range(len(capture.rig))
        ],
    }


def confidence_table(confidence: np.ndarray, error: np.ndarray, bins: int = 8) -> list[list[float]]:
    """[mean confidence, median error, rms of their product per axis]; the last is flat if confidence is 1 / error."""
    table = []
    for ids in np.array_split(np.argsort(confidence), bins):
        c, e = confidence[ids], error[ids]
        table.append([round(float(x), 4) for x in (c.mean(), np.median(e), np.sqrt(((c * e) ** 2).mean() / 2))])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.capture, options.first, options.last), indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
