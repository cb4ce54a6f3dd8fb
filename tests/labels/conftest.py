"""Hands in views, as fixtures that several files of tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from support.hands_in_views import exact_uv, moving_hands, ring_rig
from support.label_files import N_FRAMES, Seen
from usthand.capture.capture import Capture, open_capture
from usthand.capture.rig import Rig, save_rig
from usthand.capture.video import write_video


@pytest.fixture(scope="module")
def rig() -> Rig:
    return ring_rig()


@pytest.fixture(scope="module")
def truth(rig) -> dict[str, np.ndarray]:
    """Exact projections of both hands, (T, V, 21, 2) per side."""
    return {side: exact_uv(rig, joints) for side, joints in moving_hands().items()}


@pytest.fixture(scope="module")
def seen() -> Seen:
    rng = np.random.default_rng(5)
    rig = ring_rig(3)
    uv = {side: exact_uv(rig, joints) for side, joints in moving_hands(N_FRAMES).items()}
    confidence = {side: np.round(rng.uniform(0.3, 1, one.shape[:3]), 2) for side, one in uv.items()}
    confidence["right"][2, 1] = 0
    confidence["left"][4, 0, 7] = 0
    return Seen(rig, uv, confidence)


@pytest.fixture(scope="module")
def footage(seen, tmp_path_factory) -> Path:
    """A capture's folder with black videos: the import only counts their frames."""
    folder = tmp_path_factory.mktemp("footage")
    save_rig(seen.rig, folder / "rig.toml")
    for camera in seen.rig.cameras:
        write_video(
            folder / f"{camera.name}.mp4", [np.zeros((camera.height, camera.width, 3), np.uint8)] * N_FRAMES, fps=30
        )
    return folder


@pytest.fixture
def capture(footage, tmp_path) -> Capture:
    return open_capture(shutil.copytree(footage, tmp_path / "capture"))
