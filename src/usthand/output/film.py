"""A film of a few seconds for the report: what each camera saw, and below it the same with the hand drawn in."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from usthand.capture.capture import Capture
from usthand.capture.video import write_video
from usthand.common.progress import Progress, silent
from usthand.hand.result import Result
from usthand.output.overlay import VIEWING_CRF, OverlayConfig, overlay_frames

FILM_S = 4.0
FILM_CAMERAS = 4
FILM_PX = 256


def film_of(
    capture: Capture, result: Result, cameras: Sequence[str] = (), progress: Progress = silent
) -> tuple[bytes, bytes]:
    """An H.264 film, footage above and overlay below, one column a camera, cropped to the hand.

    The scale of the mesh's colours is left to the page.

    Args:
        capture: The footage.
        result: What is drawn.
        cameras: Names of the cameras shown; the capture's first ones if there are none.
        progress: Called after each frame.

    Returns:
        The film, and its middle frame as JPEG.
    """
    frames = film_window(result, round(FILM_S * capture.fps))
    drawn = OverlayConfig(crop=True, size_px=FILM_PX, scale=False)
    plain = replace(drawn, mesh=False, skeleton=False, ellipses=False, caption=False)
    columns = [
        zip(*(overlay_frames(capture, [result], name, config, frames) for config in (plain, drawn)), strict=True)
        for name in list(cameras or capture.rig.names)[:FILM_CAMERAS]
    ]
    poster = io.BytesIO()

    def pictures() -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for done, cells in enumerate(zip(*columns, strict=True)):
            picture = np.concatenate([np.concatenate([above[1], below[1]]) for above, below in cells], axis=1)
            if done == len(frames) // 2:
                Image.fromarray(picture).save(poster, "JPEG", quality=85)
            progress(done + 1, len(frames))
            yield picture

    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "film.mp4", pictures(), capture.fps, VIEWING_CRF)
        return (Path(folder) / "film.mp4").read_bytes(), poster.getvalue()


def film_window(result: Result, length: int) -> range:
    """The stretch of at most `length` frames with most valid frames and, among those, most motion."""
    first, last = int(result.frame[0]), int(result.frame[-1])
    length = min(length, last - first + 1)
    valid, motion = np.zeros(last - first + 1), np.zeros(last - first + 1)
    rows = result.frame - first
    valid[rows] = result.valid
    step = np.linalg.norm(np.diff(result.joints_world_m, axis=0), axis=-1).mean(axis=-1)
    motion[rows[1:]] = np.minimum(step, 0.05) * (result.valid[1:] & result.valid[:-1])  # 5 cm a frame is no motion
    window = np.ones(length)
    score = np.convolve(valid, window, "valid") + 1e-3 * np.convolve(motion, window, "valid")
    start = first + int(score.argmax())
    return range(start, start + length)
