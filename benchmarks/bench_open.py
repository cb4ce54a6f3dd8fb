"""How long a long capture takes to open and to be read near its end, and how much memory that needs.

    python benchmarks/bench_open.py [--frames 100000] [--cameras 4] [--scratch FOLDER] [--json OUT.json]

Makes, in a temporary folder, one 64 x 64 H.264 video of so many frames as MP4 and as MKV, and one folder of so many
images, which are hard links to a few files; every camera links to them. Opening is measured in a process of its own:
time, and how far the peak of its memory rises above what it has after the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

from usthand.capture.rig import Camera, Rig, save_rig

SIZE = 64
LINKS = 60_000  # file systems limit the names of one file

OPEN = """
import resource, sys, time
from usthand.capture.capture import open_capture
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
capture = open_capture(sys.argv[1])
opened = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
times = []
for _ in range(2):
    began = time.perf_counter()
    frame, image = next(capture.read(capture.rig.names[0], int(0.9 * capture.n_frames)))
    times.append(time.perf_counter() - began)
print(capture.n_frames, opened, (peak - before) / 1024, *times)
"""


def make_videos(folder: Path, frames: int) -> None:
    """The same packets as MP4 and MKV; ten seconds of moving noise, again and again."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE + 300, SIZE, 3)).astype(np.uint8)
    with av.open(str(folder / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast", "crf": "40", "bf": "2", "threads": "1"}
        for k in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise[k % 300 : k % 300 + SIZE], format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(folder / "v.mp4")) as mp4, av.open(str(folder / "v.mkv"), "w") as mkv:
        copy = mkv.add_stream_from_template(mp4.streams.video[0])
        for packet in mp4.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                mkv.mux(packet)


def make_images(folder: Path, frames: int) -> None:
    folder.mkdir()
    for k in range(frames):
        path = folder / f"{k:08d}.jpg"
        if k % LINKS == 0:
            first = path
            Image.new("RGB", (SIZE, SIZE), (90, 120, 150)).save(path)
        else:
            os.link(first, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict = {"frames": options.frames, "cameras": options.cameras}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        made = Path(scratch)
        make_videos(made, options.frames)
        make_images(made / "images", options.frames)
        matrix = np.array([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])
        names = [f"c{k}" for k in range(options.cameras)]
        rig = Rig(
            tuple(
                Camera(n, SIZE, SIZE, matrix, np.zeros(5), "pinhole", np.eye(3), np.array([0.1 * i, 0, 1]))
                for i, n in enumerate(names)
            )
        )
        for kind in ("mp4", "mkv", "mkv, again", "images", "list"):
            folder = made / f"capture-{kind.partition(',')[0]}"
            folder.mkdir(exist_ok=True)
            save_rig(rig, folder / "rig.toml")
            for name in names:
                if kind == "images":
                    (folder / name).symlink_to(made / "images", target_is_directory=True)
                elif kind == "list":
                    (folder / f"{name}.txt").write_text(
                        "".join(f"../images/{k:08d}.jpg\n" for k in range(options.frames))
                    )
                elif not (folder / f"{name}.{kind[:3]}").exists():
                    os.link(made / f"v.{kind[:3]}", folder / f"{name}.{kind[:3]}")
            out = subprocess.run(
                [sys.executable, "-c", OPEN, str(folder)], check=True, capture_output=True, text=True
            ).stdout.split()
            assert int(out[0]) == options.frames
            opened, memory, first, again = (float(x) for x in out[1:])
            result[kind] = {
                "open_s": round(opened, 3),
                "peak_mib": round(memory, 1),
                "read_at_90_%_s": round(first, 3),
                "again_s": round(again, 3),
            }
    result["load"], result["cores"] = round(os.getloadavg()[0], 1), os.cpu_count()
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
