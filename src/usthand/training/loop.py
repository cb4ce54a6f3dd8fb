"""Training: labels in, a network out. Deterministic from a seed, resumable, watched."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from usthand.capture.capture import open_capture
from usthand.common.device import check_device
from usthand.common.errors import UsthandError
from usthand.data.prepare import choose_side, consensus_labels, fit_hand, footage_of, hold_out, load_hand_2d, rough_fit
from usthand.data.windows import Footage, Targets, make_batch, sample_clips
from usthand.geometry.affine import affine_apply, affine_inverse
from usthand.labels.labels import Labels
from usthand.training.checkpoint import CONFIG, load_optimizer, save_checkpoint, save_optimizer, to_json, weights_digest
from usthand.training.config import Preset, TrainConfig
from usthand.training.log import cut_log, read_log
from usthand.training.losses import total
from usthand.training.objective import Batch, Learner, UstHandLearner, only_views

UST_HAND = UstHandLearner()
LOG_EVERY, CHECK_EVERY = 20, 250  # steps
CHECK_FRAMES = 24  # frames of a footage in the held-out check: a second or two ...
CHECK_FOOTAGES = 8  # ... for a few of them
CHECK_NOISE = (
    0.03  # of the held-out error, a median of some hundred noisy labels: less says nothing, and later is better
)
LABELS_HELD_OUT = 0.04
MODEL, AVERAGE, STEP = "model.", "average.", "step"  # in the file of the optimiser
CLIP_GRADIENT = 1.0
CROPS, LOG, OPTIMIZER = "crops", "metrics.jsonl", "optimizer.safetensors"  # in a run's folder


@dataclass(frozen=True)
class TrainingState:
    """A training under way."""

    learner: Learner
    model: nn.Module
    optimizer: torch.optim.Optimizer
    preset: Preset
    footages: list[Footage]
    checks: list[Labels]
    """Held-out labels of each footage, on its own (mirrored) rig."""
    out: Path
    average: dict[str, Tensor]
    device: torch.device


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then cosine to a hundredth or the published step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    if config.schedule == "step":
        return config.learning_rate * (1.0 if done < 2 / 3 else 0.1)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(done, 1.0))))


def drop_views(mask: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Mask views of whole clips at random, but never below two."""
    drop = torch.from_numpy(rng.random((mask.shape[0], 1, mask.shape[2])) < share).to(mask.device)
    kept = mask & ~drop
    return torch.where((kept.sum(-1, keepdim=True) >= 2), kept, mask)


def drop_labels(targets: Targets, share: float, rng: np.random.Generator) -> Targets:
    """Take a share of the views' labels out of the losses, images staying."""
    keep = torch.from_numpy(rng.random(targets.weight.shape[:3]) >= share).unsqueeze(-1).to(targets.weight.device)
    return targets._replace(weight=targets.weight * keep, detected_weight=targets.detected_weight * keep)


def draw_batch(state: TrainingState, step: int) -> Batch:
    """The batch of one step; everything random in it comes from (seed, step), so a resumed run is the same run."""
    config = state.preset.train
    rng = np.random.default_rng((config.seed, step))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    count, length = (config.single_frames, 1) if only_views(step, config) else (config.clips, config.clip_frames)
    clips = sample_clips(state.footages, count, length, rng)
    inputs, targets = make_batch(clips, state.preset.model.image_size, state.preset.crop, rng, state.device)
    inputs = inputs._replace(view_mask=drop_views(inputs.view_mask, config.view_dropout, rng))
    return Batch(inputs, drop_labels(targets, config.label_dropout, rng), step, rng, generator)


def training_step(state: TrainingState, step: int) -> dict[str, float]:
    """One optimiser step."""
    model = state.model
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(step, state.preset.train)
    terms = state.learner.terms(model, draw_batch(state, step), state.preset)
    terms["total"] = total(terms)
    state.optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_GRADIENT)
    if torch.isfinite(norm):  # one bad batch must not end a training
        state.optimizer.step()
        _update_average(state, step)
    return {name: float(value.detach()) for name, value in terms.items()}


def _update_average(state: TrainingState, step: int) -> None:
    decay = min(state.preset.train.average, (1 + step) / (10 + step))
    for name, value in state.model.state_dict().items():
        kept = state.average[name]
        if decay and value.is_floating_point():
            kept.lerp_(value, 1 - decay)
        else:
            kept.copy_(value)


@torch.no_grad()
def held_out_error(state: TrainingState) -> float:
    """Median distance (px of the full image) of where the averaged network sees the joints from the held-out labels."""
    model = state.learner.build(state.preset).to(state.device)
    model.load_state_dict(state.average)
    model.eval()
    errors = []
    checked = [(f, c) for f, c in zip(state.footages, state.checks, strict=True) if c.mask.any()]
    chosen = np.linspace(0, len(checked) - 1, min(CHECK_FOOTAGES, len(checked))).astype(int)
    for footage, check in (checked[i] for i in chosen):
        frames = np.flatnonzero(check.mask.any((1, 2)))
        frames = frames[np.linspace(0, len(frames) - 1, min(CHECK_FRAMES, len(frames))).astype(int)]
        clips = [(footage, frames[i : i + 1]) for i in range(len(frames))]
        inputs, _ = make_batch(clips, state.preset.model.image_size, state.preset.crop, None, state.device)
        uv_crop = state.learner.uv_crop(model, inputs)
        uv_px = affine_apply(affine_inverse(inputs.crop_from_px), uv_crop)[:, 0].cpu().numpy()
        mask = check.mask[frames] & footage.crops.view_mask[frames][..., None]
        errors.append(np.linalg.norm(uv_px - check.uv_px[frames], axis=-1)[mask])
    merged = np.concatenate(errors) if errors else np.zeros(0)
    return float(np.median(merged)) if len(merged) else float("inf")


# ---- a whole run ---------------------------------------------------------------------------------------------------


def prepare_footages(
    captures: list[Path], side: str | None, leave_out: str | None, preset: Preset, bar: Progress, cache: Path
) -> tuple[list[Footage], list[Labels]]:
    """Fit, crop and split the labels of every capture; the crops lie in `cache`."""
    if not captures:
        raise UsthandError(
            "no capture was given", "train needs footage with labels", "run `usthand train CAPTURE --out RUN`"
        )
    footages, checks = [], []
    for number, path in enumerate(captures):
        capture = open_capture(path)
        hand = load_hand_2d(capture, choose_side(capture, side), leave_out)
        rng = np.random.default_rng((preset.train.seed, number, 7))
        kept, held = hold_out(hand.labels, LABELS_HELD_OUT, rng)
        hand = replace(hand, labels=kept)
        if preset.train.targets == "consensus":
            fit = fit_hand(hand, capture.fps)
            targets = consensus_labels(hand, fit)
        else:
            fit, targets = rough_fit(hand, capture.fps), hand.labels
        task = bar.add_task(f"crops of {capture.path.name}", total=capture.n_frames * len(hand.rig), note="")
        footages.append(
            footage_of(
                capture,
                hand,
                fit,
                targets,
                preset.crop,
                preset.model.image_size,
                lambda done, total, task=task: bar.update(task, completed=done, total=total),
                cache,
            )
        )
        checks.append(held)
    return footages, checks


def start_training(
    preset: Preset,
    footages: list[Footage],
    checks: list[Labels],
    out: Path,
    weights: Path | None,
    learner: Learner = UST_HAND,
    device: str = "cpu",
) -> TrainingState:
    """The network as it starts (`weights`: a file for its backbone) and its optimiser, on a torch device."""
    torch.manual_seed(preset.train.seed)
    model = learner.build(preset)
    if weights is not None:
        model.backbone.resnet.load_imagenet(weights)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.train.learning_rate, fused=True)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    return TrainingState(learner, model, optimizer, preset, footages, checks, out, average, torch.device(device))


def training_data_fingerprint(captures: list[Path], side: str | None, leave_out: str | None, learner: Learner) -> str:
    """A name for what a training learns: the labels of its captures, views and side, and who learns them."""
    name = sha256(type(learner).__name__.encode())
    for path in captures:
        capture = open_capture(path)
        labels = load_hand_2d(capture, choose_side(capture, side), leave_out).labels
        name.update(
            repr((labels.cameras, labels.uv_px.shape)).encode() + labels.uv_px.tobytes() + labels.confidence.tobytes()
        )
    return name.hexdigest()[:16]


def check_same_run(out: Path, preset: Preset, learned: str) -> None:
    """Whether a training with these settings and `training_data_fingerprint` may begin or go on in a folder.

    Raises:
        UsthandError: if the folder holds a run with other ones.
    """
    config = out / "last" / CONFIG
    if not config.is_file():
        return
    data = json.loads(config.read_text())
    same = data.get("preset") == json.loads(json.dumps(to_json(preset)))
    if not same or data.get("lessons") != learned:
        raise UsthandError(
            f"{out} holds a training " + ("on other captures or labels" if same else "with other settings"),
            "a run can only be continued as it was begun",
            "give another --out, or the same "
            + ("captures, labels and cameras" if same else "settings")
            + " as before",
        )


def resume(state: TrainingState) -> int:
    """Continue from `last`; returns the step to go on from, 0 for a new run. What was logged after that step goes."""
    last, step = state.out / "last", 0
    if (last / CONFIG).is_file():
        # One file has all of a step, so that a run which was ended while it saved goes on from one step or the other.
        extra = load_optimizer(last / OPTIMIZER, state.optimizer)
        step = int(extra.pop(STEP))
        state.model.load_state_dict({k.removeprefix(MODEL): v for k, v in extra.items() if k.startswith(MODEL)})
        kept = {k.removeprefix(AVERAGE): v.to(state.device) for k, v in extra.items() if k.startswith(AVERAGE)}
        state.average.update(kept)
    cut_log(state.out / LOG, step)
    return step


def _save(state: TrainingState, name: str, step: int, check: float, extra: dict[str, Any]) -> None:
    folder = state.out / name
    info = {"preset": to_json(state.preset), "step": step, "held_out_px": check, **extra}
    if name == "last":
        folder.mkdir(exist_ok=True)
        tensors = {MODEL + k: v for k, v in state.model.state_dict().items()}
        tensors |= {AVERAGE + k: v for k, v in state.average.items()}
        save_optimizer(folder / OPTIMIZER, state.optimizer, tensors | {STEP: torch.tensor(step)})
    save_checkpoint(folder, state.average, state.preset.model, state.preset.crop, info)


def train(
    captures: list[Path],
    out: Path,
    preset: Preset,
    side: str | None = None,
    leave_out: str | None = None,
    backbone_weights: Path | None = None,
    quiet: bool = False,
    learner: Learner = UST_HAND,
    crop_cache: Path | None = None,
    device: str = "cpu",
) -> Path:
    """Train on captures' labels; returns the folder with the best checkpoint.

    Writes `config.json`, `metrics.jsonl`, TensorBoard files, `last/` and `best/` (the last whose held-out label error is the
    lowest, or not noticeably above it).
    A run that was interrupted goes on from `last/` when started again with the same settings.

    Args:
        crop_cache: a folder that keeps the crops for other trainings; without one they lie in `out` until it has ended.
        device: of torch, such as "cpu" or "cuda"; a run may go on on another one.

    Raises:
        UsthandError: if there is no such device, no capture or label, or `out` holds a run with other settings.
    """
    check_device(device)
    out = Path(out)
    learned = training_data_fingerprint(captures, side, leave_out, learner)
    check_same_run(out, preset, learned)
    out.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, disable=quiet) as bar:
        footages, checks = prepare_footages(captures, side, leave_out, preset, bar, crop_cache or out / CROPS)
        state = start_training(preset, footages, checks, out, backbone_weights, learner, device)
        extra = {"captures": [str(p) for p in captures], "side": side, "leave_out": leave_out, "lessons": learned}
        extra["shipped"] = None if preset.train.start == "scratch" else weights_digest()  # what it started from
        _run(state, resume(state), bar, extra)
    if crop_cache is None:
        shutil.rmtree(out / CROPS)
    return out / "best"


def _lowest_error(log: Path) -> float:
    """Of the checks so far, in px; infinite if there was none."""
    return min((row["held_out_px"] for row in read_log(log) if "held_out_px" in row), default=float("inf"))


def _run(state: TrainingState, start: int, bar: Progress, extra: dict[str, Any]) -> None:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and only trainings need it

    steps, best = state.preset.train.steps, _lowest_error(state.out / LOG)
    task = bar.add_task("training", total=steps, completed=start, note="")
    sums: dict[str, list[float]] = {}
    check, began = best, time.monotonic()
    state.model.train()
    board = SummaryWriter(str(state.out / "tensorboard"), purge_step=start + 1 if start else None)
    with (state.out / LOG).open("a") as log, board:
        for step in range(start, steps):
            for name, value in training_step(state, step).items():
                sums.setdefault(name, []).append(value)
            if (step + 1) % LOG_EVERY and step + 1 != steps:
                continue
            means = {name: float(np.mean(values)) for name, values in sums.items()}
            row, sums = {"step": step + 1, "seconds": round(time.monotonic() - began, 2), **means}, {}
            note = " ".join(f"{k} {v:.2f}" for k, v in means.items())
            bar.update(task, completed=step + 1, note=f"{note} · held-out {check:.2f} px")
            checked = (step + 1) % CHECK_EVERY < LOG_EVERY or step + 1 == steps
            if checked:
                check = row["held_out_px"] = held_out_error(state)
            # Logged before it is saved: a step that is saved and not logged would be missed when the run goes on.
            log.write(json.dumps(row) + "\n")
            log.flush()
            for name, value in row.items():
                board.add_scalar(f"train/{name}", value, step + 1)
            if checked:
                # Without a held-out label both are infinite, and the last is the best.
                if check <= best * (1 + CHECK_NOISE):
                    _save(state, "best", step + 1, check, extra)
                best = min(best, check)
                _save(state, "last", step + 1, check, extra)
