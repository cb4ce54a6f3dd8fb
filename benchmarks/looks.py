"""What each step towards reality does to renders: do they look like hands to MediaPipe, and what do they cost?

    python benchmarks/looks.py --out build/looks [--captures 3] [--frames 15] [--first 500]

Makes the same captures (bare hands, 4 cameras, 256 px, 6 frames a second) at every level of looks. Prints for each
level the share of images in which MediaPipe (0.10.21, full model, single images, threshold 0.3) finds the hand, the
median and 90th percentile of its error there against the true joints in parts of the hand's size (the larger side of
the box around its true joints), and the processor time of an image, with the capture's set-up and its encoding.

MediaPipe runs in an environment of its own: `make detector`, or USTHAND_MEDIAPIPE_PYTHON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from detectability import SAME_HAND, look
from usthand.capture.capture import open_capture
from usthand.datasets.synthetic.looks import LEVELS
from usthand.datasets.synthetic.write import SynthConfig, made_capture, project
from usthand.evaluation.truth import load_truth

VIEWS, FPS = 4, 6.0


def images_and_joints(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images (N, H, W, 3) of a capture, camera by camera, and the true joints (N, 21, 2) in them."""
    capture = open_capture(folder)
    images = np.array([image for name in capture.rig.names for _, image in capture.read(name)])
    uv, _ = project(capture.rig, load_truth(folder, "right").joints_world_m.astype(float))
    return images, uv.swapaxes(0, 1).reshape(-1, 21, 2)


def measure(level: str, options: argparse.Namespace) -> dict[str, float]:
    made, used = [], 0.0
    for seed in range(options.first, options.first + options.captures):
        config = SynthConfig(VIEWS, options.frames, "exact", seed, fps=FPS, looks=level)
        start = time.process_time()
        made.append(images_and_joints(made_capture(options.out / level / f"{seed}", config)))
        used += time.process_time() - start
    images, true = (np.concatenate(values) for values in zip(*made, strict=True))
    errors = []
    for marks, joints in zip(look(images), true, strict=True):
        relative = np.full(21, np.inf)
        if marks is not None:
            relative = np.linalg.norm(np.array(marks) - joints, axis=-1) / np.ptp(joints, axis=0).max()
        errors.append(relative)
    errors = np.array(errors)
    hit = np.median(errors, axis=1) < SAME_HAND
    return {
        "images": len(images),
        "found": round(float(hit.mean()), 3),
        "median_error": round(float(np.median(errors[hit])), 4),
        "p90_error": round(float(np.quantile(errors[hit], 0.9)), 4),
        "ms_per_image": round(1e3 * used / len(images), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/looks"))
    parser.add_argument("--captures", type=int, default=3)
    parser.add_argument("--frames", type=int, default=15)
    parser.add_argument("--first", type=int, default=500)
    parser.add_argument("--levels", nargs="+", default=list(LEVELS))
    options = parser.parse_args()
    result = {}
    for level in options.levels:
        result[level] = measure(level, options)
        print(level, result[level], flush=True)
    (options.out / "looks.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
