"""The README's picture: what most people do, and usthand, on the same frames of a synthetic capture.

    python benchmarks/readme_picture.py --out docs/images/smoothed-and-ours.jpg

Labels are the noise model's `heavy` ones. One camera is shown, in evenly spread frames; the numbers are of all cameras
and frames.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from usthand.capture.capture import Capture, open_capture
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.metrics import evaluate_truth
from usthand.evaluation.truth import load_truth
from usthand.fit.fit import triangulate
from usthand.hand.result import Result
from usthand.labels.labels import load_labels
from usthand.output.overlay import OverlayConfig, contact_sheet
from usthand.reconstruction.reconstruct import reconstruct
from usthand.training.checkpoint import SHIPPED

SIDE, SEED, FRAMES, CAMERA, COLUMNS, CELL_PX, CAPTION_PX = "right", 5, 60, 3, 5, 220, 30


def strip(capture: Capture, result: Result, title: str) -> Image.Image:
    """A caption with the errors, and below it the frames."""
    numbers = evaluate_truth(result, load_truth(capture.path, SIDE), fps=capture.fps)
    sheet = contact_sheet(capture, [result], OverlayConfig(sheet_columns=COLUMNS, sheet_px=CELL_PX))
    frames = Image.fromarray(sheet[CAMERA * CELL_PX : (CAMERA + 1) * CELL_PX])
    made = Image.new("RGB", (frames.width, frames.height + CAPTION_PX), "white")
    made.paste(frames, (0, CAPTION_PX))
    text = f"{title}: joints {numbers['mpjpe_mm']:.1f} mm off, mesh {numbers['mpvpe_mm']:.1f} mm"
    ImageDraw.Draw(made).text((8, 6), text, "black", ImageFont.load_default(size=16))
    return made


def main(out: Path, quality: int = 85) -> None:
    """Make the picture.

    Args:
        out: JPEG file.
        quality: Of the JPEG.
    """
    with TemporaryDirectory() as folder:
        capture = open_capture(
            make_capture(Path(folder) / "capture", SynthConfig(frames=FRAMES, seed=SEED, objects="any"))
        )
        smoothed = triangulate(capture.rig, load_labels(capture, SIDE), smooth_fps=capture.fps)
        strips = [
            strip(capture, smoothed, "Triangulated and smoothed, what most people do"),
            strip(capture, reconstruct(capture, SHIPPED, SIDE), "usthand, as it comes, without training"),
        ]
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.asarray(one) for one in strips])).save(out, quality=quality, optimize=True)


if __name__ == "__main__":
    tyro.cli(main)
