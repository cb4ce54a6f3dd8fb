"""A whole training: labels in, a network out. Deterministic from a seed, resumable, logged."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from usthand.capture.capture import Capture, open_capture
from usthand.common.device import check_device
from usthand.common.errors import UsthandError
from usthand.common.progress import Progress, silent
from usthand.data.footage import Footage, footage_of
from usthand.data.prepare import choose_side, consensus_labels, fit_hand, hold_out, load_hand_2d, rough_fit
from usthand.fit.canonical import CanonicalHand
from usthand.labels.labels import Labels
from usthand.training.checkpoint import CONFIG, load_optimizer, save_checkpoint, save_optimizer, to_json, weights_digest
from usthand.training.config import Preset, TrainConfig
from usthand.training.held_out import held_out_error
from usthand.training.log import cut_log, read_log
from usthand.training.objective import Learner, UstHandLearner
from usthand.training.step import TrainingState, fix_trunk, parameter_groups, training_step

LOG_EVERY, CHECK_EVERY = 20, 250  # steps
CHECK_NOISE = 0.03  # of the held-out error, a median of some hundred noisy labels: a smaller difference is none
LABELS_HELD_OUT = 0.04
MODEL, AVERAGE, STEP = "model.", "average.", "step"  # in the file of the optimiser
CROPS, LOG, OPTIMIZER = "crops", "metrics.jsonl", "optimizer.safetensors"  # in a run's folder


class CapturedHand(NamedTuple):
    """One hand that a training learns from, and the capture that shows it."""

    capture: Capture
    hand: CanonicalHand


def load_hands(captures: Sequence[str | Path], side: str | None, leave_out: str | None) -> list[CapturedHand]:
    """One hand of each capture, less the camera that is left out.

    Raises:
        UsthandError: If no capture is given, or one has no such hand.
    """
    if not captures:
        raise UsthandError(
            "no capture was given", "train needs footage with labels", "run `usthand train CAPTURE --out RUN`"
        )
    opened = [open_capture(path) for path in captures]
    return [CapturedHand(one, load_hand_2d(one, choose_side(one, side), leave_out)) for one in opened]


def prepare_footages(
    hands: list[CapturedHand], preset: Preset, cache: Path, progress: Progress = silent
) -> tuple[list[Footage], list[Labels]]:
    """Split, fit and crop every hand: footages, and the labels held out of each; the crops are kept in `cache`."""
    footages, checks = [], []
    for number, (capture, hand) in enumerate(hands):
        rng = np.random.default_rng((preset.train.seed, number, 7))
        kept, held = hold_out(hand.labels, LABELS_HELD_OUT, rng)
        hand = replace(hand, labels=kept)
        consensus = preset.train.targets == "consensus"
        fit = (fit_hand if consensus else rough_fit)(hand, capture.fps)
        targets = consensus_labels(hand, fit) if consensus else hand.labels

        def cropping(done: int, total: int, task: str = "", note: str = "", name: str = capture.path.name) -> None:
            progress(done, total, f"crops of {name}", note)

        footage = footage_of(capture, hand, fit, preset.crop, preset.model.image_size, cache, cropping)
        footages.append(replace(footage, labels=targets))
        checks.append(held)
    return footages, checks


def start_training(
    preset: Preset,
    footages: list[Footage],
    checks: list[Labels],
    out: Path,
    learner: Learner | None = None,
    device: str = "cpu",
) -> TrainingState:
    """The network as it starts and its optimiser, on a torch device."""
    torch.manual_seed(preset.train.seed)
    learner = learner or UstHandLearner()
    model = learner.build(preset).to(device)
    if preset.train.fixed_stride:
        fix_trunk(model, preset.train.fixed_stride)
    optimizer = torch.optim.Adam(parameter_groups(model, preset.train.trunk_rate), fused=True)
    # Not torch's AveragedModel: that begins with the second step's weights and counts updates where we count steps.
    average = deepcopy(model).eval().requires_grad_(False)
    return TrainingState(learner, model, average, optimizer, preset, footages, checks, out, torch.device(device))


def training_data_fingerprint(hands: list[CapturedHand], learner: Learner) -> str:
    """A digest of what a training learns from: labels, cameras and sides, and the kind of learner."""
    name = sha256(type(learner).__name__.encode())
    for labels in (hand.labels for _, hand in hands):
        name.update(repr((labels.cameras, labels.uv_px.shape)).encode())
        name.update(labels.uv_px.tobytes() + labels.confidence.tobytes())
    return name.hexdigest()[:16]


def check_same_run(out: Path, preset: Preset, fingerprint: str) -> None:
    """Whether a training with these settings and `training_data_fingerprint` may begin or go on in a folder.

    Raises:
        UsthandError: If the folder holds a run with other ones.
    """
    config = out / "last" / CONFIG
    if not config.is_file():
        return
    data = json.loads(config.read_text())
    same = data.get("preset") == json.loads(json.dumps(to_json(preset)))
    if not same or data.get("lessons") != fingerprint:
        raise UsthandError(
            f"{out} holds a training " + ("on other captures or labels" if same else "with other settings"),
            "a run can only be continued as it was begun",
            f"give another --out, or the same {'captures, labels and cameras' if same else 'settings'} as before",
        )


def resume(state: TrainingState) -> int:
    """Continue from `last`; returns the step to go on from, 0 for a new run. Later rows of the log are removed."""
    last, step = state.out / "last", 0
    if (last / CONFIG).is_file():
        # One file has all of a step, so a run that was ended while it saved goes on from one step or the other.
        extra = load_optimizer(last / OPTIMIZER, state.optimizer)
        step = int(extra.pop(STEP))
        for prefix, network in ((MODEL, state.model), (AVERAGE, state.average)):
            network.load_state_dict({k.removeprefix(prefix): v for k, v in extra.items() if k.startswith(prefix)})
    cut_log(state.out / LOG, step)
    return step


def train(
    captures: Sequence[str | Path],
    out: str | Path,
    config: TrainConfig | None = None,
    progress: Progress = silent,
    learner: Learner | None = None,
) -> Path:
    """Train a network on captures' labels; returns the folder of the best checkpoint.

    Writes `metrics.jsonl`, TensorBoard files, `last/` and `best/`: the latest checkpoint whose error on held-out labels
    (px) is the lowest, or not noticeably above it. A run that was interrupted goes on from `last/` when it is started
    again with the same settings.

    Args:
        captures: Capture folders with labels.
        out: Folder of the run.
        config: Preset and choices; `tiny` on the CPU by default.
        progress: Counts the images of each capture that are cropped, then the steps, with the losses as note.
        learner: The network and its losses; UST-Hand by default.

    Raises:
        UsthandError: If there is no such device, no capture or label, or `out` holds a run with other settings.

    Examples:
        >>> import usthand
        >>> config = usthand.TrainConfig(side="right", steps=300)
        >>> best = usthand.train(["clip"], "runs/clip", config)  # doctest: +SKIP
    """
    config = config or TrainConfig()
    check_device(config.device)
    out, preset = Path(out), config.chosen()
    learner = learner or UstHandLearner(config.backbone_weights)
    hands = load_hands(captures, config.side, config.leave_out)
    fingerprint = training_data_fingerprint(hands, learner)
    check_same_run(out, preset, fingerprint)
    out.mkdir(parents=True, exist_ok=True)
    footages, checks = prepare_footages(hands, preset, config.crop_cache or out / CROPS, progress)
    state = start_training(preset, footages, checks, out, learner, config.device)
    info = {"captures": [str(p) for p in captures], "side": config.side, "leave_out": config.leave_out}
    info["lessons"] = fingerprint
    info["shipped"] = None if preset.train.start == "scratch" else weights_digest()  # what it started from
    _run(state, resume(state), info, progress)
    if config.crop_cache is None:
        shutil.rmtree(out / CROPS)
    return out / "best"


def _run(state: TrainingState, start: int, info: dict[str, Any], progress: Progress) -> None:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and only trainings need it

    steps, log_path = state.preset.train.steps, state.out / LOG
    best = min((row["held_out_px"] for row in read_log(log_path) if "held_out_px" in row), default=float("inf"))
    sums: dict[str, list[float]] = {}
    check, began = best, time.monotonic()
    state.model.train()
    progress(start, steps, "training")
    with (
        log_path.open("a") as log,
        SummaryWriter(state.out / "tensorboard", purge_step=start + 1 if start else None) as board,
    ):
        for step in range(start + 1, steps + 1):
            for name, value in training_step(state, step - 1).items():
                sums.setdefault(name, []).append(value)
            if step % LOG_EVERY and step != steps:
                continue
            means = {name: float(np.mean(values)) for name, values in sums.items()}
            row, sums = {"step": step, "seconds": round(time.monotonic() - began, 2), **means}, {}
            note = " ".join(f"{k} {v:.2f}" for k, v in means.items())
            progress(step, steps, "training", f"{note} · held-out {check:.2f} px")
            checked = step % CHECK_EVERY < LOG_EVERY or step == steps
            if checked:
                check = row["held_out_px"] = held_out_error(state)
            # Logged before it is saved: a step that is saved and not logged would be missing when the run goes on.
            log.write(json.dumps(row) + "\n")
            log.flush()
            for name, value in row.items():
                board.add_scalar(f"train/{name}", value, step)
            if checked:
                # Without a held-out label both are infinite, and the last is the best.
                if check <= best * (1 + CHECK_NOISE):
                    _save(state, "best", step, check, info)
                best = min(best, check)
                _save(state, "last", step, check, info)


def _save(state: TrainingState, name: str, step: int, check: float, info: dict[str, Any]) -> None:
    average = state.average.state_dict()
    if name == "last":
        tensors = {MODEL + k: v for k, v in state.model.state_dict().items()}
        tensors |= {AVERAGE + k: v for k, v in average.items()}
        save_optimizer(state.out / name / OPTIMIZER, state.optimizer, tensors | {STEP: torch.tensor(step)})
    info = {"preset": to_json(state.preset), "step": step, "held_out_px": check, **info}
    save_checkpoint(state.out / name, average, state.preset.model, state.preset.crop, info)
