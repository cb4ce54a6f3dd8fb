"""What the tables are measured on: synthetic captures in the style of published data sets, made once and kept."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from usthand.capture.capture import open_capture
from usthand.capture.rig import Rig, save_rig
from usthand.common.errors import UsthandError
from usthand.common.files import whole_folder
from usthand.common.progress import Progress, silent
from usthand.datasets.synthetic.noise import LEVELS
from usthand.datasets.synthetic.write import SynthConfig, make_capture, synthetic_labels
from usthand.evaluation.truth import require_truth, save_truth
from usthand.labels.detection import detect_labels
from usthand.labels.labels import Labels, load_npz

SIDE = "right"
DETECTOR = "mediapipe"
LABEL_LEVELS = (*LEVELS, DETECTOR)
Split = Literal["train", "test", "fresh"]


@dataclass(frozen=True)
class Regime:
    """A family of captures, split by seed into training and test: no subject, motion, rig or room is in both."""

    name: str
    description: str
    views: int
    objects: str
    layout: str
    size: int
    fps: float
    train_frames: int
    test_frames: int
    train_seeds: tuple[int, ...]
    test_seeds: tuple[int, ...]
    fresh_seeds: tuple[int, ...]
    """Further captures to test on: the method's constants were chosen by errors on the test captures, none on these."""
    subject: str = "own"
    """Whose hands; those that nothing may learn from have no training captures."""

    @property
    def of_other_mesh(self) -> bool:
        """Whether the truth's mesh is not our hand model's, so that surfaces are compared and not vertices."""
        return self.subject != "own"

    def seeds(self, split: Split) -> tuple[int, ...]:
        """The seeds of a split's captures."""
        return {"train": self.train_seeds, "test": self.test_seeds, "fresh": self.fresh_seeds}[split]

    def capture_config(self, seed: int, split: Split) -> SynthConfig:
        """The settings of one capture, with exact labels."""
        frames = self.train_frames if split == "train" else self.test_frames
        return SynthConfig(
            views=self.views,
            frames=frames,
            labels="exact",
            seed=seed,
            size=self.size,
            fps=self.fps,
            objects=self.objects,
            layout=self.layout,
            subject=self.subject,
        )


def regime_names() -> list[str]:
    """All regimes that come with the package."""
    folder = resources.files("usthand.experiments.bench") / "regimes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def own_regime_names() -> list[str]:
    """The regimes of our own hand model, which methods can be trained and compared in vertex by vertex."""
    return [name for name in regime_names() if not load_regime(name).of_other_mesh]


def load_regime(name: str) -> Regime:
    """A regime by its name.

    Raises:
        UsthandError: If there is none of that name.
    """
    if name not in regime_names():
        raise UsthandError(
            f"there is no regime {name!r}", f"there are {', '.join(regime_names())}", "choose one of these"
        )
    file = resources.files("usthand.experiments.bench") / "regimes" / f"{name}.toml"
    data = tomllib.loads(file.read_text())
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return Regime(name=name, **values)


def captures(
    regime: Regime, split: Split, labels: str, views: int, cache: Path, progress: Progress = silent
) -> list[Path]:
    """Capture folders of one split at a label level and a number of views; those that are there are used again.

    The images are rendered once; a folder of another level or of fewer views links to them. The label levels are heavy,
    light, exact, biased, and mediapipe, the real detector on the renders.

    Raises:
        UsthandError: If there is no such label level.
    """
    if labels not in LABEL_LEVELS:
        raise UsthandError(
            f"no label level is called {labels!r}", "a typing error", f"choose one of {', '.join(LABEL_LEVELS)}"
        )
    paths, seeds = [], regime.seeds(split)
    for number, seed in enumerate(seeds):
        config = regime.capture_config(seed, split)
        rendered = cache / "captures" / capture_name(config) / "exact"
        if not rendered.is_dir():
            make_capture(rendered, config)
        whole = _relabelled(rendered, rendered.with_name(labels), labels, seed)
        paths.append(whole if views >= regime.views else _fewer_views(whole, views))
        progress(number + 1, len(seeds), f"captures of {regime.name}")
    return paths


def capture_name(config: SynthConfig) -> str:
    """A folder name with every setting, so that captures of a changed regime are never mixed with old ones."""
    return "_".join(f"{name}-{value}" for name, value in config.settings().items() if name != "labels")


def _relabelled(source: Path, out: Path, level: str, seed: int) -> Path:
    """The same capture with labels of another level."""
    if out.is_dir():
        return out
    capture = open_capture(source)

    def write(folder: Path) -> None:
        if level == DETECTOR:
            detect_labels(open_capture(folder))
            return
        truth = require_truth(source, SIDE)
        joints, posture = np.asarray(truth.joints_world_m, np.float64), (truth.pose, truth.shape)
        rng = np.random.default_rng((seed, LABEL_LEVELS.index(level)))
        for one in synthetic_labels(capture.rig, joints, posture, truth.visible, rng, level).values():
            _save(one, folder)

    return _derived(source, out, capture.rig, write)


def _fewer_views(source: Path, views: int) -> Path:
    """The same capture with fewer cameras, still all round the hand: neighbours have neighbouring numbers."""
    out = source.with_name(f"{source.name}-{views}")
    if out.is_dir():
        return out
    capture = open_capture(source)
    step = len(capture.rig) / views
    chosen = [capture.rig.cameras[int(i * step)] for i in range(views)]
    rig = replace(capture.rig, cameras=tuple(chosen))

    def write(folder: Path) -> None:
        for side in capture.label_sides():
            _save(load_npz(capture.labels_path(side)).subset(rig.names), folder)

    return _derived(source, out, rig, write)


def _save(labels: Labels, folder: Path) -> None:
    (folder / "labels").mkdir(exist_ok=True)
    labels.save(folder / "labels" / f"{labels.side}.npz")


def _derived(source: Path, out: Path, rig: Rig, write_labels: Callable[[Path], None]) -> Path:
    """A capture folder that shares another's videos; it appears under its name only once it is complete."""
    with whole_folder(out, "a capture") as partial:
        save_rig(rig, partial / "rig.toml")
        (partial / "capture.toml").write_text((source / "capture.toml").read_text())
        for camera in rig.cameras:
            os.link((source / f"{camera.name}.mp4").resolve(), partial / f"{camera.name}.mp4")
        truth = require_truth(source, SIDE)
        seen = [open_capture(source).rig.names.index(name) for name in rig.names]
        save_truth(partial, SIDE, replace(truth, visible=truth.visible[:, seen]))
        write_labels(partial)
    return out
