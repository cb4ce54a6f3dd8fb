"""Trained networks on disk: safetensors beside a JSON config that names every setting."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from usthand.common.errors import UsthandError
from usthand.common.files import whole_file
from usthand.data.crops import CropConfig
from usthand.hand.model import HandModel
from usthand.network.config import ModelConfig
from usthand.network.model import UstHand

CHECKPOINT_VERSION = 1
SHIPPED, LANDMARK = (Path(__file__).parents[1] / "network" / "weights" / name for name in ("tiny", "landmark"))
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@runtime_checkable
class DataclassInstance(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T")


def to_json(config: DataclassInstance) -> dict[str, Any]:
    """A frozen dataclass, nested ones included, as plain data."""
    return dataclasses.asdict(config)


def from_json(kind: type[T], data: dict[str, Any], where: str) -> T:
    """A dataclass from plain data; `where` names its file for the message.

    Raises:
        UsthandError: On a key that the dataclass does not have.
    """
    known = signature(kind).parameters
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise UsthandError(
            f"{where} has the unknown key {unknown[0]!r}",
            f"{kind.__name__} has {', '.join(known)}",
            "remove it or fix its spelling; a checkpoint of another version needs that version of usthand",
        )
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def save_checkpoint(
    folder: Path, model_state: dict[str, Tensor], model: ModelConfig, crop: CropConfig, info: dict[str, Any]
) -> None:
    """Write weights and config; `info` goes into the config too."""
    data = {"version": CHECKPOINT_VERSION, "model": to_json(model), "crop": to_json(crop), **info}
    with whole_file(folder / WEIGHTS) as partial:
        save_file({k: v.cpu().contiguous() for k, v in model_state.items()}, partial)
    with whole_file(folder / CONFIG) as partial:
        partial.write_text(json.dumps(data, indent=2) + "\n")


def load_checkpoint(folder: str | Path, hand: HandModel) -> tuple[UstHand, CropConfig, dict[str, Any]]:
    """The network of a checkpoint folder, or of a run folder (its best), ready for use.

    Raises:
        UsthandError: If there is none, it is of another version, or weights and config do not belong together.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() and (folder / "best" / CONFIG).is_file():
        folder = folder / "best"
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise UsthandError(
            f"there is no trained network in {folder}",
            "the training has not written a checkpoint yet, or the path is wrong",
            "run `usthand train CAPTURE --out RUN` and give RUN",
        )
    try:
        data = json.loads((folder / CONFIG).read_text())
        version, model_data, crop_data = data["version"], dict(data["model"]), dict(data["crop"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / CONFIG, error) from None
    if version != CHECKPOINT_VERSION:
        raise UsthandError(
            f"{folder} is a checkpoint of version {version}",
            f"this program reads version {CHECKPOINT_VERSION}",
            "train again with this version, or install the version that wrote it",
        )
    config = from_json(ModelConfig, model_data, str(folder / CONFIG))
    model = UstHand(config, hand)
    try:
        model.load_state_dict(load_state(folder))
    except RuntimeError as error:
        raise _damaged(folder / WEIGHTS, error) from None
    return model.eval(), from_json(CropConfig, crop_data, str(folder / CONFIG)), data


def load_state(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint folder.

    Raises:
        UsthandError: If the file cannot be read.
    """
    return _read_tensors(folder / WEIGHTS)


def shipped_weights(model: ModelConfig) -> dict[str, Tensor]:
    """The state of the network that comes with the package.

    Raises:
        UsthandError: If it is of another size than `model`.
    """
    data = json.loads((SHIPPED / CONFIG).read_text())
    if from_json(ModelConfig, dict(data["model"]), str(SHIPPED)) != model:
        raise UsthandError(
            "the package's weights do not fit this network",
            "they are of the preset `tiny` with its own sizes",
            "start from nothing: add --from-scratch",
        )
    return single_precision(current_names(load_file(SHIPPED / WEIGHTS)))


def landmark_weights() -> dict[str, Tensor]:
    """MediaPipe's trunk, as `tools/landmark_weights.py` converts it."""
    return single_precision(load_file(LANDMARK / WEIGHTS))


def single_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state that was stored in half precision."""
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state whose trunk may still be called `resnet`, as all trunks were once."""
    return {re.sub(r"(^|\.)resnet\.", r"\1trunk.", name): value for name, value in state.items()}


@cache
def weights_digest(folder: Path = SHIPPED) -> str:
    """A digest of a checkpoint's weights and settings, of the package's by default, by which results are told apart."""
    return sha256(b"".join((folder / name).read_bytes() for name in (CONFIG, WEIGHTS))).hexdigest()[:12]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return current_names(load_file(path))
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UsthandError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UsthandError(
        f"{path} does not fit ({reason})",
        "the file is damaged, or weights and config come from different trainings",
        "copy the whole run folder again, or train again with `usthand train CAPTURE --out RUN`",
    )


def save_optimizer(path: Path, optimizer: torch.optim.Optimizer, extra: dict[str, Tensor]) -> None:
    """Adam's moments, and tensors such as averaged weights, as safetensors."""
    tensors = {f"extra.{k}": v.cpu().contiguous() for k, v in extra.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": torch.as_tensor(value).cpu().contiguous() for key, value in state.items()}
    with whole_file(path) as partial:
        save_file(tensors, partial)


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Undo `save_optimizer`; returns the extra tensors.

    Raises:
        UsthandError: If the file cannot be read.
    """
    tensors = _read_tensors(path)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)
    for parameter, moments in optimizer.state.items():
        # Files keep no memory layout, but a fused Adam needs that of the parameter for its moments.
        for key in ("exp_avg", "exp_avg_sq"):
            moments[key] = torch.empty_like(parameter).copy_(moments[key]).detach()
    return {name.removeprefix("extra."): value for name, value in tensors.items() if name.startswith("extra.")}
