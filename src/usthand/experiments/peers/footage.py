"""Other programs and ours on footage without truth, such as a lab's own: what a left-out camera and steadiness tell.

Each camera is left out in turn, of labels and reconstruction alike; the joints are projected into it and compared with
its own labels. Frames are those that the fit of the same labels places. Results of all cameras and of each lesser rig
are kept, so that a run goes on where it was broken off, and `usthand mark --read` measures those of all cameras.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from usthand.capture.capture import Capture, open_capture
from usthand.common.errors import UsthandError
from usthand.common.files import whole_file
from usthand.common.progress import Progress, silent
from usthand.data.prepare import without_camera
from usthand.evaluation import metrics
from usthand.experiments.peers.environments import missing_environments
from usthand.experiments.peers.run import PEERS, run_peer
from usthand.fit.fit import fit_labels, triangulate
from usthand.fit.sequence import FitConfig
from usthand.hand.result import Result, load_result
from usthand.labels.labels import load_labels
from usthand.reconstruction.reconstruct import ReconstructConfig, reconstruct_all
from usthand.training.checkpoint import SHIPPED, weights_digest

FOOTAGE_COLUMNS = {
    "leave_out_median_px": ("left-out camera, median px", 2),
    "leave_out_p90_px": ("90th percentile", 1),
    "jitter_mm": ("jitter", 2),
    "bone_spread_mm": ("bone spread", 2),
    "placed": ("placed", 3),
    "seconds": ("seconds", 1),
}
OURS = {
    "raw": "raw triangulation",
    "smooth": "triangulation, smoothed",
    "fit": "fit",
    "shipped": "**UST-Hand, shipped weights**, no training",
}


class Timed(NamedTuple):
    """A result and the seconds of the method's own work."""

    result: Result
    seconds: float


def measure_footage(
    clip: Path, kept: Path, sides: tuple[str, ...] = (), progress: Progress = silent
) -> dict[str, metrics.Numbers]:
    """Numbers of each method, means over hands and left-out cameras; programs that are not installed have no line.

    Args:
        clip: A capture with labels.
        kept: Folder for the results of each method.
        sides: Hands to measure; all that have labels by default.
        progress: Told of each method, camera and hand before it begins, as the task "footage".

    Raises:
        UsthandError: If the capture has no labels, or fewer than three cameras, or a method fails.
    """
    capture = open_capture(clip)
    sides = sides or tuple(side for side in ("right", "left") if side in capture.label_sides())
    if not sides or len(capture.rig) < 3:
        raise UsthandError(
            f"{clip} has {len(capture.rig)} cameras and labels of {len(sides)} hands",
            "a camera is left out, and two must be left",
            "give a labelled capture of three cameras or more",
        )
    absent = missing_environments()
    names = [*OURS, *(name for name, peer in PEERS.items() if peer.environment.name not in absent)]
    cells = [(side, camera) for side in sides for camera in (None, *capture.rig.names)]
    rows: dict[str, list[metrics.Numbers]] = {name: [] for name in names}
    for number, (side, camera) in enumerate(cells):
        fit = _kept(capture, "fit", side, camera, kept).result
        frames = fit.frame[fit.valid]
        for name in names:
            progress(number * len(names) + names.index(name), len(cells) * len(names), "footage", f"{name}, {side}")
            timed = _kept(capture, name, side, camera, kept)
            rows[name].append(_numbers(capture, timed, side, camera, frames))
    return {name: _mean(numbers) for name, numbers in rows.items()}


def footage_labels() -> dict[str, str]:
    """What the lines are called."""
    return {name: peer.label for name, peer in PEERS.items()} | OURS


def _numbers(capture: Capture, timed: Timed, side: str, camera: str | None, frames: np.ndarray) -> metrics.Numbers:
    """The left-out camera's, or what the result of all cameras shows."""
    if camera is not None:
        found = metrics.evaluate_left_out(timed.result, capture.rig, load_labels(capture, side), camera, frames)
        return {key: float(str(found[key])) for key in ("leave_out_median_px", "leave_out_p90_px")}
    rows = np.isin(timed.result.frame, frames)
    steady = metrics.steadiness(timed.result, capture.fps, frames)
    return {
        "jitter_mm": steady["jitter_mm"],
        "bone_spread_mm": steady["bone_spread_mm"],
        "placed": float(timed.result.joint_valid[rows].mean()),
        "seconds": timed.seconds,
    }


def _mean(rows: list[metrics.Numbers]) -> metrics.Numbers:
    found: metrics.Numbers = {}
    for key in FOOTAGE_COLUMNS:
        values = [value for row in rows if (value := row.get(key)) is not None]
        found[key] = round(float(np.mean(values)), 4) if values else None
    return found


def _kept(capture: Capture, name: str, side: str, camera: str | None, kept: Path) -> Timed:
    """A result from an earlier run of the same release or weights, or made now."""
    release = PEERS[name].environment.release.replace(" ", "-") if name in PEERS else weights_digest()
    without = f"-without-{camera}" if camera else ""
    path = kept / f"{side}-{name}{without}.{release}.npz"
    note = path.with_suffix(".json")
    if not (path.is_file() and note.is_file()):
        made = _made(capture, name, side, camera)
        made.result.save(path)
        with whole_file(note) as part:
            part.write_text(json.dumps({"seconds": round(made.seconds, 2)}) + "\n")
    return Timed(load_result(path), json.loads(note.read_text())["seconds"])


def _made(capture: Capture, name: str, side: str, camera: str | None) -> Timed:
    rig, labels = without_camera(capture.rig, load_labels(capture, side), camera)
    if name in PEERS:
        return Timed(*run_peer(name, rig, labels, capture.fps))
    ours: dict[str, Callable[[], Result]] = {
        "raw": lambda: triangulate(rig, labels),
        "smooth": lambda: triangulate(rig, labels, smooth_fps=capture.fps),
        "fit": lambda: fit_labels(rig, labels, FitConfig(fps=capture.fps)),
        "shipped": lambda: reconstruct_all(capture, SHIPPED, side, ReconstructConfig(leave_out=camera)).final,
    }
    began = time.monotonic()
    result = ours[name]()
    return Timed(result, time.monotonic() - began)
