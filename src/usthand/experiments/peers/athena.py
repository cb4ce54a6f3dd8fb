"""ATHENA's files: its landmarks, Anipose's calibration, and a video that only tells the frame rate.

The labels stand for those that its own MediaPipe step would have written: they are of the frames without their lens,
-1 where there is no hand. Its body landmarks are absent, as where no body is seen. Joints come in the calibration's
unit; landmarks 33 to 53 are the right hand, 54 to 74 the left one.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from usthand.experiments.peers.exchange import (
    CALIBRATION,
    Given,
    Placed,
    placed_joints,
    points_px,
    write_anipose_calibration,
)
from usthand.hand.result import MM_PER_M

RECORDING = "recording"
MISSING = -1.0
N_BODY = 33
FIRST = {"right": N_BODY, "left": N_BODY + 21}
"""Of its landmarks, the first of each hand."""
CUTOFF_HZ = 10
"""Of its smoothing, as the program comes."""


def settings(fps: float) -> dict[str, int]:
    """Its own cut-off, or the highest with which its filter runs: 4 points or more for its cubic.

    The window is int(2 fps / cutoff + 1), made odd.
    """
    return {"all_landmarks_lfc": max(1, min(CUTOFF_HZ, int(2 * fps / 3)))}


def write(data: Given, folder: Path) -> None:
    """Its main folder."""
    (folder / "calibration").mkdir()
    write_anipose_calibration(data.rig, folder / "calibration" / CALIBRATION)
    (folder / "videos" / RECORDING).mkdir(parents=True)
    _write_video(folder / "videos" / RECORDING / "view00.mp4", data.fps)
    points = points_px(data.labels, MISSING)
    frames = points.shape[1]
    for view, name in enumerate(data.rig.names):
        place = folder / "landmarks" / RECORDING / name
        place.mkdir(parents=True)
        for part, count in (("right", 21), ("left", 21), ("body", N_BODY)):
            values = points[view] if part == data.labels.side else np.full((frames, count, 2), MISSING)
            np.save(place / f"2Dlandmarks_{part}.npy", values)


def read(data: Given, folder: Path) -> Placed:
    """Its 3D landmarks."""
    found = np.load(folder / "landmarks" / RECORDING / f"{RECORDING}_3Dlandmarks.npy")
    first = FIRST[data.labels.side]
    return placed_joints(found[:, first : first + 21] / MM_PER_M)


def _write_video(path: Path, fps: float) -> None:
    """Two black frames."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height = 32, 32
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())
