"""What TensorFlow Lite computes with MediaPipe's hand landmark model, for tests/network/test_landmark_trunk.py.

    python tools/landmark_reference.py hand_landmark_full.tflite tests/network/data/landmark_reference.npz

It needs the package `ai-edge-litert`. Of four maps of one image it writes the mean and the largest value of every
channel, and the values at the map's upper left and lower right, where a wrong padding would show.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

MAPS = {"stride4": 113, "stride8": 120, "stride16": 142, "stride32": 159}  # numbers of the graph's tensors
SIDE = 224


def pattern(side: int = SIDE) -> np.ndarray:
    """An image (side, side, 3) of waves, 0 to 1, in every part of it another."""
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(2 * np.pi * (f * x * x + g * y + h * x * y)) for f, g, h in ((3, 5, 2), (7, 1, 4), (2, 2, 9))]
    return (0.5 + 0.5 * np.stack(waves, -1)).astype(np.float32)


def main(source: Positional[Path], out: Positional[Path]) -> None:
    """Run the model on the pattern."""
    from ai_edge_litert.interpreter import Interpreter  # the test that imports `pattern` does without

    interpreter = Interpreter(str(source), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pattern()[None])
    interpreter.invoke()
    kept = {}
    for name, number in MAPS.items():
        found = interpreter.get_tensor(number)[0]
        kept[name] = np.stack([found.mean((0, 1)), found.max((0, 1)), found[0, 0], found[-1, -1]])
    np.savez_compressed(out, **kept)


if __name__ == "__main__":
    tyro.cli(main)
