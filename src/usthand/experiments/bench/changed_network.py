"""The shipped network with a part taken out or a setting changed, and nothing learned anew.

A part that can go without loss is not used. The reverse is weaker: in a training of their own, the other parts might
make up for the one taken out. The ablation shows that, but with a short training, in which late stages hardly learn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from usthand.capture.capture import Capture
from usthand.data.footage import Footage, footage_of
from usthand.data.prepare import fit_hand, load_hand_2d
from usthand.experiments.bench.regimes import SIDE
from usthand.hand.io import load_hand, right_hand
from usthand.hand.result import Result
from usthand.network.model import UstHand
from usthand.network.point_transformer import StptBlock
from usthand.reconstruction.inference import estimate
from usthand.reconstruction.network_results import network_result, triangulated
from usthand.training.checkpoint import SHIPPED, load_checkpoint

GREY = 128  # of a blind crop


def _as_it_is(footage: Footage) -> Footage:
    return footage


@dataclass(frozen=True)
class Change:
    """What is different from the shipped network as `reconstruct` uses it."""

    model: Callable[[UstHand], object] = lambda _: None
    """Changes the network in place."""
    gate: bool = True
    """Whether the labels' fit says where in a crop to look."""
    footage: Callable[[Footage], Footage] = _as_it_is
    """What the network gets to see."""
    triangulated: bool = False
    """Take the points that the 2D distributions' covariances triangulate, in place of those that STPT refines."""


def _without_stpt(model: UstHand) -> None:
    """Points stay where the key hypotheses were triangulated."""
    for block in model.points.blocks:
        *_, last = block.get_submodule("move.1").children()
        for values in last.parameters():
            nn.init.zeros_(values)


def _without_attention(kind: str) -> Callable[[UstHand], None]:
    def take_out(model: UstHand) -> None:
        for block in model.points.blocks:
            assert isinstance(block, StptBlock)
            del block.attention[kind]

    return take_out


def _with_hypotheses(count: int) -> Change:
    return Change(lambda model: setattr(model, "config", replace(model.config, hypotheses=count)))


def _with_first_block(model: UstHand) -> None:
    model.points.blocks = model.points.blocks[:1]


def _grey(footage: Footage) -> Footage:
    """Crops without a picture: what is left is what the labels tell through the crops' places and the gate."""
    return replace(footage, images=np.broadcast_to(np.uint8(GREY), footage.images.shape))


CHANGES: dict[str, Change] = {
    "without-gate": Change(gate=False),
    "blind": Change(footage=_grey),
    "triangulated": Change(triangulated=True),
    "without-confidence": Change(lambda model: setattr(model.views, "use_confidence", False)),
    "without-casa": Change(lambda model: setattr(model.views, "attention", nn.ModuleList())),
    "without-gcn": Change(lambda model: setattr(model.views, "gcn", nn.ModuleList())),
    "without-couplings": Change(lambda model: setattr(model.flow, "couplings", nn.ModuleList())),
    "without-fusion": Change(lambda model: setattr(model.points, "fusion", None)),
    "without-stpt": Change(_without_stpt),
    "without-spatial": Change(_without_attention("spatial")),
    "without-temporal": Change(_without_attention("temporal")),
    "without-cross": Change(_without_attention("cross")),
    "with-1-block": Change(_with_first_block),
    "with-1-hypothesis": _with_hypotheses(1),
    "with-4-hypotheses": _with_hypotheses(4),
    "with-32-hypotheses": _with_hypotheses(32),
}


def reconstruct_changed(name: str, capture: Capture) -> Result:
    """The hands of a capture by the shipped network alone, with one of `CHANGES`."""
    change, hand = CHANGES[name], load_hand_2d(capture, SIDE)
    fit = fit_hand(hand, capture.fps)  # places crops and gates
    model, crop, _ = load_checkpoint(SHIPPED, load_hand())
    change.model(model)
    crop = crop if change.gate else replace(crop, gate=0.0)
    with tempfile.TemporaryDirectory(prefix="usthand-") as folder:
        footage = footage_of(capture, hand, fit, crop, model.config.image_size, Path(folder))
        estimates = estimate(model, change.footage(footage), crop)
    if change.triangulated:
        points = triangulated(hand.rig, estimates)[0]
        placed = np.where(estimates.valid[:, None, None], points, estimates.points_world_m)
        estimates = replace(estimates, points_world_m=placed)
    return hand.as_captured(network_result(hand.rig, estimates, right_hand()))
