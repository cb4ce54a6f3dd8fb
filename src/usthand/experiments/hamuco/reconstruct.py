"""Using a trained HaMuCo baseline: the same crops as UST-Hand's, hands placed in the world."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from usthand.capture.capture import Capture
from usthand.data.batches import make_batch
from usthand.data.crops import CropConfig
from usthand.data.footage import footage_of
from usthand.data.prepare import fit_hand, load_hand_2d
from usthand.experiments.hamuco.model import Hamuco, HamucoPrediction, place
from usthand.geometry.rotations import axis_angle_from_rotation, rotation_from_6d
from usthand.hand.io import load_hand
from usthand.hand.result import Result
from usthand.network.config import ModelConfig
from usthand.network.model import Inputs
from usthand.training.checkpoint import CONFIG, from_json, load_state

CHUNK = 12  # frames that go through the network at once


def load_hamuco(run: Path) -> tuple[Hamuco, CropConfig]:
    """The network of a run's best checkpoint."""
    folder = run / "best"
    data = json.loads((folder / CONFIG).read_text())
    model = Hamuco(from_json(ModelConfig, dict(data["model"]), str(folder)), load_hand())
    model.load_state_dict(load_state(folder))
    return model.eval(), from_json(CropConfig, dict(data["crop"]), str(folder))


@torch.no_grad()
def reconstruct_hamuco(capture: Capture, run: Path, side: str) -> Result:
    """One side's hands. The method states no uncertainty: the covariances are zero."""
    model, crop = load_hamuco(run)
    hand = load_hand_2d(capture, side)
    parts: list[dict[str, np.ndarray]] = []
    with tempfile.TemporaryDirectory(prefix="usthand-") as folder:
        fit = fit_hand(hand, capture.fps)  # places the crops
        footage = footage_of(capture, hand, fit, crop, model.config.image_size, Path(folder))
        for start in range(0, len(footage.frames), CHUNK):
            at = np.arange(start, min(start + CHUNK, len(footage.frames)))
            inputs, _ = make_batch([(footage, at)], model.config.image_size, crop, None)
            parts.append(_numbers(model(inputs), inputs))
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    shape = merged.pop("shape").mean(0)
    valid = footage.crops.view_mask.sum(1) >= 2
    count = len(valid)
    result = Result(
        **merged,
        shape=shape,
        joints_cov_m2=np.zeros((count, 21, 3, 3)),
        side="right",
        frame=footage.frames,
        valid=valid,
        joint_valid=np.broadcast_to(valid[:, None], (count, 21)),
        unit_source=hand.rig.unit_source,
        metric=hand.rig.metric,
        method="hamuco",
        joint_model="free",
        cameras=hand.rig.names,
    )
    return hand.as_captured(result)


def _numbers(prediction: HamucoPrediction, inputs: Inputs) -> dict[str, np.ndarray]:
    """A clip's joints and vertices, and the pose of the first view that sees the hand, turned into the world."""
    joints, vertices = place(prediction, inputs)
    first = inputs.view_mask.to(torch.uint8).argmax(-1)

    def of_first(values: Tensor) -> Tensor:
        index = first.reshape(*first.shape, *[1] * (values.dim() - 2))
        return torch.take_along_dim(values, index, 2).squeeze(2)

    rotations = rotation_from_6d(of_first(prediction.cross.sixd))
    turn = of_first(prediction.crop_from_world).transpose(-1, -2)
    rotations = torch.cat(((turn @ rotations[..., 0, :, :]).unsqueeze(-3), rotations[..., 1:, :, :]), -3)
    values = {
        "joints_world_m": joints,
        "vertices_world_m": vertices,
        "pose": axis_angle_from_rotation(rotations).flatten(-2),
        "translation_m": joints[..., 0, :],
        "shape": of_first(prediction.cross.shape),
    }
    return {name: value[0].double().numpy() for name, value in values.items()}
