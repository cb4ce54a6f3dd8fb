"""What is compared. Trained methods share captures, noisy labels, images a step, steps and their backbone's start.

They differ in what they learn of the labels: HaMuCo-like learns each as it is, UST-Hand their consensus (`targets` of
the training's settings).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from usthand.capture.capture import Capture
from usthand.common.errors import UsthandError
from usthand.experiments.bench.changed_network import CHANGES, reconstruct_changed
from usthand.experiments.bench.regimes import SIDE
from usthand.experiments.hamuco.model import HamucoLearner
from usthand.experiments.hamuco.reconstruct import reconstruct_hamuco
from usthand.experiments.peers.run import PEERS, run_peer
from usthand.fit.fit import fit_labels, triangulate
from usthand.fit.sequence import FitConfig
from usthand.hand.result import Result
from usthand.labels.labels import load_labels
from usthand.reconstruction.reconstruct import ReconstructConfig, reconstruct_all
from usthand.training.checkpoint import SHIPPED
from usthand.training.config import ADAPT, PRESETS, Preset
from usthand.training.objective import Learner, UstHandLearner

STEPS = 1600
SCHEDULE = replace(
    ADAPT, start="backbone", steps=STEPS, clips=1, clip_frames=3, single_frames=3, points_from=0.5, learning_rate=3e-3
)
"""Of every trained method. Three frames a step: with eight cameras they are 24 images."""
HAMUCO_RATE = 1e-3
"""The best of 3e-4 (published, for 150 epochs), 1e-3 and 3e-3 in as many steps as every method has."""
Settings = dict[str, object]
ADAPTING: Settings = {"steps": 600, "learning_rate": 5e-4}
"""Of the methods that start from all of their own pretrained weights and learn the test captures' labels.

Short and with a low rate, as `usthand train` is.
"""
HAMUCO_ADAPTING: Settings = {"learning_rate": 1e-3}

Results = dict[str, Result]
Run = Path | None
"""The folder of a training; None for methods without one."""


@dataclass(frozen=True)
class Method:
    """One row (or two) of a table: how it is trained, if at all, and what it gives for a test capture."""

    results: Callable[[Capture, Run], Results]
    """From a capture and the run's folder; one result for each name in `gives`."""
    gives: tuple[str, ...]
    """The first name is the method's own; the others are what it yields on the way."""
    preset: Preset | None = None
    """On a CPU, with the network of `tiny`."""
    paper: Preset | None = None
    """At the published sizes, for a GPU; None for methods that are not compared there."""
    learner: Learner | None = None
    pretraining: str | None = None
    """The `usthand pretrain --method` that makes the weights which the method uses as they are, or starts from."""
    shipped: bool = True
    """The package's weights have a part in it, as a start or as they are (at the published sizes they have none)."""
    learns_from: Literal["train", "test"] = "train"
    """The captures whose labels a training learns: "test" for a user who adapts to their own footage."""
    own_seconds: Callable[[Capture], tuple[Results, float]] | None = None
    """Results and seconds of the method's own work, where a call also starts another program."""

    def timed(self, capture: Capture, run: Run) -> tuple[Results, float]:
        """Results, and the seconds that they took."""
        if self.own_seconds is not None:
            return self.own_seconds(capture)
        began = time.monotonic()
        results = self.results(capture, run)
        return results, time.monotonic() - began


def _folder(run: Run) -> Path:
    if run is None:
        raise ValueError("a trained method needs its run")
    return run


def _raw(capture: Capture, run: Run) -> Results:
    return {"raw": triangulate(capture.rig, load_labels(capture, SIDE))}


def _smooth(capture: Capture, run: Run) -> Results:
    return {"smooth": triangulate(capture.rig, load_labels(capture, SIDE), smooth_fps=capture.fps)}


def _fit(capture: Capture, run: Run) -> Results:
    return {"fit": fit_labels(capture.rig, load_labels(capture, SIDE), FitConfig(fps=capture.fps))}


def _usthand(capture: Capture, run: Run) -> Results:
    both = reconstruct_all(capture, _folder(run), SIDE, ReconstructConfig(with_shipped=False))
    return {"usthand": both.final, "network": both.network, "head": both.head}


def _adapted(name: str) -> Callable[[Capture, Run], Results]:
    """As `usthand train` and `usthand reconstruct` do it."""

    def results(capture: Capture, run: Run) -> Results:
        both = reconstruct_all(capture, _folder(run), SIDE)
        return {name: both.final, f"{name}-network": both.network}

    return results


def _shipped(capture: Capture, run: Run) -> Results:
    """The package's weights as they are: not on equal terms, but what a user has before any training."""
    both = reconstruct_all(capture, SHIPPED, SIDE)
    return {"shipped": both.final, "shipped-network": both.network, "shipped-head": both.head}


def _changed(name: str) -> Method:
    """The package's weights less a part, or in another setting, and the network alone."""
    return Method(lambda capture, run: {name: reconstruct_changed(name, capture)}, (name,))


def _hamuco(name: str) -> Callable[[Capture, Run], Results]:
    return lambda capture, run: {name: reconstruct_hamuco(capture, _folder(run), SIDE)}


def _peer(name: str) -> Method:
    """Another program, in an environment of its own."""

    def run(capture: Capture) -> tuple[Results, float]:
        done = run_peer(name, capture.rig, load_labels(capture, SIDE), capture.fps)
        return {name: done.result}, done.seconds

    return Method(lambda capture, _: run(capture)[0], (name,), shipped=False, own_seconds=run)


TINY = replace(PRESETS["tiny"], train=SCHEDULE)


def changed(preset: Preset, train: Settings | None = None, crop: Settings | None = None, **model: object) -> Preset:
    """A preset with some settings changed."""
    return replace(
        preset,
        train=replace(preset.train, **train or {}),
        crop=replace(preset.crop, **crop or {}),
        model=replace(preset.model, **model),
    )


def hamuco_preset(preset: Preset, **train: object) -> Preset:
    """The labels as they are, single frames from first to last, as many images a step as UST-Hand's clips have."""
    frames = preset.train.clips * preset.train.clip_frames
    return changed(preset, {"targets": "labels", "points_from": 1.0, "single_frames": frames} | train)


def adapted(name: str, **train: object) -> Method:
    """UST-Hand from all of the package's weights, adapted to the test captures; `train` changes its training."""
    preset = changed(TINY, ADAPTING | {"start": "shipped"} | train)
    return Method(_adapted(name), (name, f"{name}-network"), preset, learner=UstHandLearner(), learns_from="test")


def variant(train: Settings | None = None, crop: Settings | None = None, **model: object) -> Method:
    """UST-Hand with settings of its training, its crops or its network changed."""
    presets = (changed(preset, train, crop, **model) for preset in (TINY, PRESETS["paper"]))
    return Method(_usthand, ("usthand", "network", "head"), *presets, learner=UstHandLearner())


METHODS: dict[str, Method] = {
    "raw": Method(_raw, ("raw",), shipped=False),
    "smooth": Method(_smooth, ("smooth",), shipped=False),
    "fit": Method(_fit, ("fit",), shipped=False),
    "hamuco": Method(
        _hamuco("hamuco"),
        ("hamuco",),
        hamuco_preset(TINY, learning_rate=HAMUCO_RATE),
        hamuco_preset(PRESETS["paper"]),
        HamucoLearner(),
    ),
    "usthand": variant(),
    "shipped": Method(_shipped, ("shipped", "shipped-network", "shipped-head")),
    "hamuco-pretrained": Method(_hamuco("hamuco-pretrained"), ("hamuco-pretrained",), pretraining="hamuco"),
    "adapted": adapted("adapted"),
    "labels-adapted": adapted("labels-adapted", targets="labels"),
    "hamuco-adapted": Method(
        _hamuco("hamuco-adapted"),
        ("hamuco-adapted",),
        hamuco_preset(TINY, **(ADAPTING | HAMUCO_ADAPTING)),
        learner=HamucoLearner(),
        pretraining="hamuco",
        learns_from="test",
    ),
    **{name: _changed(name) for name in CHANGES},
    **{name: _peer(name) for name in PEERS},
    "no-confidence": variant(use_confidence=False),
    "no-fusion": variant(use_fusion=False),
    "no-stpt": variant(attention=()),
    "no-spatial": variant(attention=("temporal", "cross")),
    "no-temporal": variant(attention=("spatial", "cross")),
    "no-cross": variant(attention=("spatial", "temporal")),
    "no-casa": variant(use_casa=False),
    "no-gcn": variant(use_gcn=False),
    "no-flow": variant(flow="none"),
    "gaussian": variant(couplings=0),
    "published-targets": variant(train={"targets": "labels"}),
    "no-gate": variant(crop={"gate": 0.0}),
    "window-1": variant(window=1),
    "window-5": variant(window=5, train={"clip_frames": 5}),
    "window-7": variant(window=7, train={"clip_frames": 7}),
    "blocks-1": variant(blocks=1),
    "blocks-4": variant(blocks=4),
    "blocks-6": variant(blocks=6),
    "hypotheses-1": variant(hypotheses_train=1, hypotheses=1),
    "hypotheses-4": variant(hypotheses=4),
    "hypotheses-32": variant(hypotheses_train=8, hypotheses=32),
}


def method(name: str) -> Method:
    """A method by its name.

    Raises:
        UsthandError: If there is none.
    """
    if name not in METHODS:
        raise UsthandError(f"there is no method {name!r}", f"there are {', '.join(METHODS)}", "choose one of these")
    return METHODS[name]
