"""Images a second of the rasteriser: a hand with forearm before a background, 4 cameras, textured, lit, with noise.

    python benchmarks/bench_render.py [--frames 100] [--sizes 128 256]

Counts everything per image that making a capture needs: posing the forearm, shadows and ambient occlusion once a frame,
drawing, the sensor, visibility. Posing the hand itself and encoding the video are not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np

from usthand.datasets.synthetic.motion import sample_motion
from usthand.datasets.synthetic.scene import sample_rig, sample_scene
from usthand.datasets.synthetic.subjects import pose_hand
from usthand.datasets.synthetic.surface import hand_surface
from usthand.hand.io import load_hand


def rate(size: int, frames: int, views: int, threads: int, occluders: tuple[str, ...]) -> dict[str, int]:
    """Images a second by the clock, and a second of processor time (what an idle core would give)."""
    rng = np.random.default_rng(0)
    hand = load_hand(side="right")
    motion = sample_motion(hand, frames, 30.0, rng)
    rig = sample_rig(rng, views, "dome", size)
    scene = sample_scene(rng, rig, hand_surface(hand, motion.shape), occluders)
    vertices, joints = pose_hand(hand, motion)
    for _ in scene.draw_sequence(vertices[:4], joints[:4], threads):
        pass  # compile
    clock, processor = 0.0, 0.0
    for _ in range(3):
        start, used = time.perf_counter(), time.process_time()
        for _ in scene.draw_sequence(vertices, joints, threads):
            pass
        clock = max(clock, frames * views / (time.perf_counter() - start))
        processor = max(processor, frames * views / (time.process_time() - used))
    return {"per_second": round(clock), "per_core_second": round(processor)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rates = {
        f"{size} px, {occluders[0] if occluders else 'bare hand'}": rate(
            size, options.frames, options.views, options.threads, occluders
        )
        for size in options.sizes
        for occluders in ((), ("cylinder",))
    }
    print(json.dumps({"images": rates, "threads": options.threads, "load_before": round(load, 1)}, indent=1))


if __name__ == "__main__":
    main()
