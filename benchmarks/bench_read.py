"""How fast captures are read and cropped, against what PyAV alone needs to decode them.

    python benchmarks/bench_read.py [--clip FOLDER [--loops 4]] [--frames 120] [--repeats 7] [--json OUT.json]

Four H.264 videos of 1280 x 720: those of a folder (4 .mp4 files, alike in length, repeated a few times), or made here: a procedural room that
moves, with the noise of a sensor. In each repeat every way is timed once, one after the other, so that what else the machine
does hits all alike; a ratio is the median over the repeats of PyAV's time over ours, by the clock and by processor time.
The hands' places are made up: squares of about `--side` px that wander, now and then beyond the image's edge.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
from PIL import Image

from usthand.capture.capture import Capture, open_capture
from usthand.capture.rig import Camera, Rig, save_rig
from usthand.capture.video import write_video
from usthand.data.crops import Crops, read_crops, store_size
from usthand.datasets.synthetic.background import sample_background, sample_palette

SIZE = (1280, 720)
NAMES = ("a", "b", "c", "d")
IMAGE_SIZE = 96  # of the tiny network


def room_frames(seed: int, count: int):
    """A camera that sways before a room, with sensor noise that differs from frame to frame."""
    rng = np.random.default_rng(seed)
    width, height = SIZE[0] + 160, SIZE[1] + 120
    room = 255 * np.clip(sample_background(rng, height, width, sample_palette(rng)), 0, 1) ** (1 / 2.2)
    noise = rng.normal(0, 2.0, (SIZE[1] + 64, SIZE[0] + 64, 3))
    for t in range(count):
        x, y = int(80 + 79 * np.sin(t / 17 + seed)), int(60 + 59 * np.cos(t / 23 + seed))
        a, b = rng.integers(0, 64, 2)
        image = room[y : y + SIZE[1], x : x + SIZE[0]] + noise[b : b + SIZE[1], a : a + SIZE[0]]
        yield np.clip(image, 0, 255).astype(np.uint8)


def repeat_video(source: Path, out: Path, loops: int) -> None:
    """The packets of a video without B-frames, again and again: long enough for what is done once not to count."""
    with av.open(str(out), "w") as target:
        copy, shift = None, 0
        for _ in range(loops):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                copy = copy or target.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.size:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                        target.mux(packet)
                shift += stream.duration


def make_capture(folder: Path, clip: Path | None, frames: int, loops: int = 1) -> Capture:
    """The four videos as a capture; cameras stand anywhere, for nothing is triangulated."""
    found = sorted(clip.glob("*.mp4")) if clip else []
    for seed, name in enumerate(NAMES):
        if clip:
            repeat_video(found[seed], folder / f"{name}.mp4", loops)
        else:
            write_video(folder / f"{name}.mp4", room_frames(seed, frames), 30.0)
    matrix = np.array([[900.0, 0, 640], [0, 900, 360], [0, 0, 1]])
    cameras = (
        Camera(n, *SIZE, matrix, np.zeros(5), "pinhole", np.eye(3), np.array([0.1 * i, 0, 1]))
        for i, n in enumerate(NAMES)
    )
    save_rig(Rig(tuple(cameras)), folder / "rig.toml")
    return open_capture(folder)


def wandering_crops(frames: int, side: float) -> Crops:
    """Squares that move smoothly and breathe by a quarter."""
    t, v = np.meshgrid(np.arange(frames), np.arange(len(NAMES)), indexing="ij")
    sides = np.round(side * (1 + 0.25 * np.sin(t / 31 + v)))
    centre = np.stack((640 + 560 * np.sin(t / 47 + 2 * v), 360 + 260 * np.cos(t / 37 + v)), -1)
    corner = np.round(centre - sides[..., None] / 2)
    return Crops(corner, sides, np.ones(t.shape, bool), np.zeros((*t.shape, 21, 2)))


# ---- the ways ------------------------------------------------------------------------------------------------------


def decode_one(path: Path, threads: str, rgb: bool) -> None:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = threads
        for picture in container.decode(video=0):
            if rgb:
                picture.to_ndarray(format="rgb24")


def decode_all(capture: Capture, at_once: bool, rgb: bool = False) -> None:
    """PyAV alone, with the decoder's threads as we set them; one video after another, or all at once."""
    paths = [source.path for source in capture.sources]
    with ThreadPoolExecutor(len(paths) if at_once else 1) as pool:
        list(pool.map(lambda path: decode_one(path, "AUTO", rgb), paths))


def plain(capture: Capture, crops: Crops, out_px: int) -> None:
    """Camera after camera, every frame to RGB, cut and scaled by Pillow: the simplest way."""
    for view, name in enumerate(NAMES):
        for frame, image in capture.read(name):
            x, y, side = (int(n) for n in (*crops.corner_px[frame, view], crops.side_px[frame, view]))
            cut = Image.fromarray(image).crop((x, y, x + side, y + side))
            np.asarray(cut.resize((out_px, out_px), Image.BILINEAR))


def ours(capture: Capture, crops: Crops, out_px: int) -> None:
    for _ in read_crops(capture, NAMES, crops, out_px, False):
        pass


def timed(work: Callable[[], None]) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--side", type=float, default=300.0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        capture = make_capture(Path(folder), options.clip, options.frames, options.loops)
        crops, out_px = wandering_crops(capture.n_frames, options.side), store_size(IMAGE_SIZE)
        ways = {
            "PyAV": lambda: decode_all(capture, False),
            "PyAV, all at once": lambda: decode_all(capture, True),
            "PyAV to RGB": lambda: decode_all(capture, False, rgb=True),
            "plain": lambda: plain(capture, crops, out_px),
            "ours": lambda: ours(capture, crops, out_px),
        }
        for way in ways.values():
            way()  # compile, fill the file cache
        times = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, way in ways.items():
                times[name].append(timed(way))
        bytes_a_frame = sum(s.path.stat().st_size for s in capture.sources) / capture.n_frames / len(NAMES)
    images = capture.n_frames * len(NAMES)

    def median(name: str, kind: int) -> float:
        return statistics.median(t[kind] for t in times[name])

    def ratio(name: str, to: str, kind: int) -> float:
        return statistics.median(a[kind] / b[kind] for a, b in zip(times[to], times[name], strict=True))

    result = {
        "clip": options.clip.name if options.clip else "moving room",
        "frames": capture.n_frames,
        "cameras": len(NAMES),
        "kilobytes_a_frame": round(bytes_a_frame / 1000, 1),
        "crop_px": options.side,
        "repeats": options.repeats,
        "ms_an_image_clock": {name: round(1000 * median(name, 0) / images, 3) for name in ways},
        "ms_an_image_processor": {name: round(1000 * median(name, 1) / images, 3) for name in ways},
        "share_of_pyav_clock": {name: round(ratio(name, "PyAV", 0), 3) for name in ways},
        "share_of_pyav_processor": {name: round(ratio(name, "PyAV", 1), 3) for name in ways},
        "share_of_pyav_all_at_once_clock": {name: round(ratio(name, "PyAV, all at once", 0), 3) for name in ways},
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "load": round(os.getloadavg()[0], 1),
            "av": av.__version__,
        },
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
