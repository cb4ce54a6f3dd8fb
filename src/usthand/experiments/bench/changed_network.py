"""The shipped network with a part taken out or a setting changed, and nothing learned anew.

A part that can go without loss is not used. The reverse is weaker: in a training of their own, the other parts might
make up for the one taken out. The ablation shows that, but with a short training, in which late stages hardly learn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from usthand.capture.capture import Capture
from usthand.data.footage import footage_of
from usthand.data.prepare import fit_hand, load_hand_2d
from usthand.experiments.bench.regimes import SIDE
from usthand.hand.io import load_hand, right_hand
from usthand.hand.result import Result
from usthand.network.model import UstHand
from usthand.network.point_transformer import StptBlock
from usthand.reconstruction.inference import estimate
from usthand.reconstruction.network_results import network_result
from usthand.training.checkpoint import SHIPPED, load_checkpoint

Change = Callable[[UstHand], None]


def _without_stpt(model: UstHand) -> None:
    """Points stay where the key hypotheses were triangulated."""
    for block in model.points.blocks:
        *_, last = block.get_submodule("move.1").children()
        for values in last.parameters():
            nn.init.zeros_(values)


def _without_attention(kind: str) -> Change:
    def take_out(model: UstHand) -> None:
        for block in model.points.blocks:
            assert isinstance(block, StptBlock)
            del block.attention[kind]

    return take_out


def _with_hypotheses(count: int) -> Change:
    return lambda model: setattr(model, "config", replace(model.config, hypotheses=count))


def _with_first_block(model: UstHand) -> None:
    model.points.blocks = model.points.blocks[:1]


CHANGES: dict[str, Change] = {
    "without-confidence": lambda model: setattr(model.views, "use_confidence", False),
    "without-casa": lambda model: setattr(model.views, "attention", nn.ModuleList()),
    "without-gcn": lambda model: setattr(model.views, "gcn", nn.ModuleList()),
    "without-couplings": lambda model: setattr(model.flow, "couplings", nn.ModuleList()),
    "without-fusion": lambda model: setattr(model.points, "fusion", None),
    "without-stpt": _without_stpt,
    "without-spatial": _without_attention("spatial"),
    "without-temporal": _without_attention("temporal"),
    "without-cross": _without_attention("cross"),
    "with-1-block": _with_first_block,
    "with-1-hypothesis": _with_hypotheses(1),
    "with-4-hypotheses": _with_hypotheses(4),
    "with-32-hypotheses": _with_hypotheses(32),
}


def reconstruct_changed(change: str, capture: Capture) -> Result:
    """The hands of a capture by the shipped network alone, with one of `CHANGES`."""
    hand = load_hand_2d(capture, SIDE)
    fit = fit_hand(hand, capture.fps)  # places crops and gates
    model, crop, _ = load_checkpoint(SHIPPED, load_hand())
    CHANGES[change](model)
    with tempfile.TemporaryDirectory(prefix="usthand-") as folder:
        footage = footage_of(capture, hand, fit, crop, model.config.image_size, Path(folder))
        result = network_result(hand.rig, estimate(model, footage, crop), right_hand())
    return hand.as_captured(result)
