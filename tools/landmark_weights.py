"""Convert MediaPipe's hand landmark model into weights of `usthand.network.landmark_trunk`.

    python tools/landmark_weights.py hand_landmark_full.tflite OUT.safetensors

The file is in MediaPipe's wheel (Apache-2.0), in mediapipe/modules/hand_landmark. It needs the package `tflite`, which
reads the format. The convolutions of the graph are in the order of the trunk's, and their constants are half
precision already, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import tflite
import torch
import tyro
from safetensors.torch import save_file

from usthand.network.landmark_trunk import LandmarkTrunk, SameConv

CONVOLUTIONS = (tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D)


def constants(model: tflite.Model) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights in torch's order and biases of every convolution, in the order of the graph; float16."""
    graph = model.Subgraphs(0)
    packed = {}  # the half-precision tensor behind each tensor that the graph unpacks
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        described = model.OperatorCodes(operator.OpcodeIndex())
        code = max(described.BuiltinCode(), described.DeprecatedBuiltinCode())
        inputs = operator.InputsAsNumpy()
        if code == tflite.BuiltinOperator.DEQUANTIZE:
            packed[int(operator.OutputsAsNumpy()[0])] = int(inputs[0])
        elif code in CONVOLUTIONS:
            weight, bias = (_tensor(model, graph.Tensors(packed[int(i)])) for i in inputs[1:3])
            # (out, h, w, in), or (1, h, w, channels) of a depthwise one, to (out, in, h, w).
            yield (weight.transpose(0, 3, 1, 2) if code == CONVOLUTIONS[0] else weight.transpose(3, 0, 1, 2)), bias


def _tensor(model: tflite.Model, tensor: tflite.Tensor) -> np.ndarray:
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    return np.frombuffer(data.tobytes(), np.float16).reshape(tensor.ShapeAsNumpy())


def convert(source: Path) -> dict[str, torch.Tensor]:
    """The trunk's state, half precision."""
    model = tflite.Model.GetRootAsModel(source.read_bytes(), 0)
    trunk, state = LandmarkTrunk(), {}
    layers = [(name, layer) for name, layer in trunk.named_modules() if isinstance(layer, SameConv)]
    for (name, layer), (weight, bias) in zip(layers, constants(model), strict=True):
        state[f"{name}.weight"] = torch.from_numpy(weight.copy()).reshape(layer.weight.shape)
        state[f"{name}.bias"] = torch.from_numpy(bias.copy())
    return state


def main(source: Annotated[Path, tyro.conf.Positional], out: Annotated[Path, tyro.conf.Positional]) -> None:
    """Read MediaPipe's file, and write the trunk's weights."""
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(convert(source), out)


if __name__ == "__main__":
    tyro.cli(main)
