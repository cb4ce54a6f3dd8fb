"""MediaPipe Hands behind the detector interface, in a process with a Python of its own.

MediaPipe states no confidence of single joints. Ours comes in part from two looks, at the image and at its mirror
image: where the two differ, the detector is uncertain. Their mean is also the better label.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from usthand.common.errors import UsthandError
from usthand.labels.detectors.mediapipe_worker import HEADER
from usthand.labels.labels import Detection

PYTHON_VARIABLE = "USTHAND_MEDIAPIPE_PYTHON"
WORKER = Path(__file__).with_name("mediapipe_worker.py")

# Confidence is modelled as least error / expected error. The exponents were fitted to the left-out-camera error of the
# real clip (docs/development/label-noise.md) and rounded. Lengths are in sizes of the hand.
SPREAD_FLOOR, SPREAD_POWER = 0.005, 0.2
"""Expected error grows with the difference of the two looks to this power, above this floor."""
DEPTH_SLOPE, DEPTH_FRONT = 1.6, -0.25
"""... by exp(slope * depth) with a joint's depth behind the hand's middle: joints behind are often hidden."""
EDGE_SLOPE, EDGE_FULL = 1.2, 0.3
"""... by exp(slope * (full - palm area)), for a palm that is seen edge-on,"""
PALM_BASE, PALM_BASE_FACTOR = (0, 1, 2), 0.7
"""... and by 1 / factor at wrist and thumb base, which have no sharp image and vary with the view."""
LEAST_EXPECTED = 1.6
"""Expected error, in these units, of the best tenth of the joints, which get confidence 1."""

UNCONFIRMED_SPREAD = 0.06
"""Spread of a hand that is seen in one look only."""

SAME_HAND = 0.3
"""Mean joint distance, in hand sizes, up to which two looks show one hand."""


@dataclass(frozen=True)
class Look:
    """A hand as one pass of the worker reports it."""

    uv_px: Float[np.ndarray, "J 2"]
    z_px: Float[np.ndarray, " J"]
    """Depth relative to the wrist as MediaPipe estimates it, in pixels; smaller is nearer."""
    side: str
    score: float

    @property
    def size_px(self) -> float:
        """The longer side of the box around the joints, at least a pixel."""
        return max(float((self.uv_px.max(axis=0) - self.uv_px.min(axis=0)).max()), 1.0)


class MediaPipe:
    """MediaPipe Hands 0.10, full model, tracking over the frames of a video.

    Args:
        python: The interpreter that has mediapipe; found by `find_python` if not given.
        threshold: Least detection and tracking confidence.
        max_hands: Most hands per image and look.

    Raises:
        UsthandError: If no Python with mediapipe is found, or the process dies.
    """

    name = "mediapipe"

    def __init__(self, python: str | Path | None = None, threshold: float = 0.3, max_hands: int = 2) -> None:
        """Start the process."""
        command = [str(python or find_python()), str(WORKER), str(threshold), str(max_hands)]
        self._stderr = tempfile.TemporaryFile()
        environment = {**os.environ, "GLOG_minloglevel": "2"}
        if command[0] != sys.executable:
            environment.pop("PYTHONPATH", None)  # our packages are for our Python
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment
            )
        except OSError as error:
            raise UsthandError(
                f"cannot start {command[0]}", str(error), f"set {PYTHON_VARIABLE} or run `make detector`"
            ) from error
        assert self._process.stdin and self._process.stdout  # they are pipes
        self._to, self._from = self._process.stdin, self._process.stdout
        self._answer()

    def detect(self, frames: Iterable[UInt8[np.ndarray, "H W 3"]]) -> Iterator[list[Detection]]:
        """Hands in each RGB frame of one video.

        Raises:
            UsthandError: If the process dies.
        """
        for index, rgb in enumerate(frames):
            height, width = rgb.shape[:2]
            try:
                self._to.write(HEADER.pack(width, height, index == 0))
                self._to.write(np.ascontiguousarray(rgb, dtype=np.uint8).data)
                self._to.flush()
            except OSError:
                raise self._death() from None
            hands = self._answer()
            plain, mirrored = ([_look(hand) for hand in hands if hand["pass"] == k] for k in (0, 1))
            yield merge_looks(plain, mirrored)

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):  # the process may have died already
            self._to.close()
        self._from.close()
        self._process.wait()
        self._stderr.close()

    def __enter__(self) -> MediaPipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> list | dict:
        line = self._from.readline()
        if not line:
            raise self._death()
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            raise self._death() from None

    def _death(self) -> UsthandError:
        self._process.kill()
        self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = lines[-1].strip().rstrip(".") if lines else f"exit code {self._process.returncode}"
        return UsthandError(
            "the MediaPipe process ended before its work was done", last, "run `make detector` to install it anew"
        )


def find_python() -> Path:
    """The interpreter that runs MediaPipe.

    In this order: the environment variable `USTHAND_MEDIAPIPE_PYTHON`, this interpreter if it has mediapipe,
    `.venv-mediapipe` in the current folder, `.venv-mediapipe` beside this environment.

    Raises:
        UsthandError: If there is none.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise UsthandError(
                f"{PYTHON_VARIABLE} names {named}, which does not exist",
                "it was moved or mistyped",
                "run `make detector` and unset it",
            )
        return Path(named)
    if has_mediapipe():
        return Path(sys.executable)
    for folder in (Path.cwd(), Path(sys.prefix).parent):
        python = folder / ".venv-mediapipe" / "bin" / "python"
        if python.is_file():
            return python
    raise UsthandError(
        "MediaPipe is not installed",
        "it needs an environment of its own, since it pins numpy<2",
        f"run `make detector`, or set {PYTHON_VARIABLE} to a Python that has mediapipe==0.10.21",
    )


def has_mediapipe() -> bool:
    """Whether this interpreter has a mediapipe with the `solutions` interface, without importing it."""
    spec = importlib.util.find_spec("mediapipe")
    places = (spec.submodule_search_locations or []) if spec else []
    return any(Path(place, "python", "solutions").is_dir() for place in places)


def merge_looks(plain: list[Look], mirrored: list[Look]) -> list[Detection]:
    """One detection per hand: the mean of two looks, matched by distance, nearest first, or a single look."""
    pairs = sorted((_gap(a, b), i, j) for i, a in enumerate(plain) for j, b in enumerate(mirrored))
    left_plain, left_mirrored, merged = dict(enumerate(plain)), dict(enumerate(mirrored)), []
    for gap, i, j in pairs:
        if gap < SAME_HAND and i in left_plain and j in left_mirrored:
            merged.append(_mean(left_plain.pop(i), left_mirrored.pop(j)))
    for look in [*left_plain.values(), *left_mirrored.values()]:
        merged.append(_detection(look, np.full(len(look.uv_px), UNCONFIRMED_SPREAD)))
    return merged


def _gap(a: Look, b: Look) -> float:
    return float(np.linalg.norm(a.uv_px - b.uv_px, axis=-1).mean()) / max(a.size_px, b.size_px)


def _mean(a: Look, b: Look) -> Detection:
    spread = np.linalg.norm(a.uv_px - b.uv_px, axis=-1) / max(a.size_px, b.size_px)
    right = float(np.mean([look.score if look.side == "right" else 1 - look.score for look in (a, b)]))
    side, score = ("right", right) if right >= 0.5 else ("left", 1 - right)
    return _detection(Look((a.uv_px + b.uv_px) / 2, (a.z_px + b.z_px) / 2, side, score), spread)


def _detection(look: Look, spread: Float[np.ndarray, " J"]) -> Detection:
    return Detection(look.uv_px, joint_confidence(look, spread), look.side, float(look.score))


def joint_confidence(look: Look, spread: Float[np.ndarray, " J"]) -> Float[np.ndarray, " J"]:
    """Confidence of each joint, in [0.02, 1]: least error / expected error, from this image alone.

    `spread` is the distance between the two looks in sizes of the hand. The handedness score is not used: on the real
    clip it rises with the error.
    """
    expected = (1 + spread / SPREAD_FLOOR) ** SPREAD_POWER
    depth = (look.z_px - look.z_px.mean()) / look.size_px
    expected *= np.exp(DEPTH_SLOPE * np.maximum(depth - DEPTH_FRONT, 0))
    (ax, ay), (bx, by) = (look.uv_px[5] - look.uv_px[0]) / look.size_px, (look.uv_px[17] - look.uv_px[0]) / look.size_px
    expected *= np.exp(EDGE_SLOPE * max(EDGE_FULL - abs(ax * by - ay * bx), 0))
    expected[list(PALM_BASE)] /= PALM_BASE_FACTOR
    return np.clip(LEAST_EXPECTED / expected, 0.02, 1.0)


def _look(hand: dict) -> Look:
    uvz = np.asarray(hand["uvz_px"], dtype=np.float64)
    return Look(uvz[:, :2], uvz[:, 2], hand["side"], hand["score"])
