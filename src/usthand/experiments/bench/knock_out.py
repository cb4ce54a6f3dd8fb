"""The shipped network with a part taken out or a setting changed, and nothing learned anew: what the network that was trained for
long makes of it.

A part that can go without loss is not used. The reverse is weaker: what the others would make up for in a training of their own
is not seen, which is what the ablation is for; but that is a short training, in which late stages have hardly learned.
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
from usthand.reconstruction.inference import estimate
from usthand.reconstruction.network_results import network_result
from usthand.training.checkpoint import SHIPPED, load_checkpoint


def _no_stpt(model: UstHand) -> None:
    """Points stay where the key hypotheses were triangulated."""
    for block in model.points.blocks:
        nn.init.zeros_(block.move[1][-1].weight)
        nn.init.zeros_(block.move[1][-1].bias)


def _no_attention(kind: str) -> Callable[[UstHand], None]:
    def take_out(model: UstHand) -> None:
        for block in model.points.blocks:
            block.parts = block.parts - {kind}

    return take_out


def _hypotheses(count: int) -> Callable[[UstHand], None]:
    return lambda model: setattr(model, "config", replace(model.config, hypotheses=count))


def _first_block(model: UstHand) -> None:
    model.points.blocks = model.points.blocks[:1]


CHANGES: dict[str, Callable[[UstHand], None]] = {
    "without-confidence": lambda model: setattr(model.views, "use_confidence", False),
    "without-casa": lambda model: setattr(model.views, "attention", nn.ModuleList()),
    "without-gcn": lambda model: setattr(model.views, "gcn", nn.ModuleList()),
    "without-couplings": lambda model: setattr(model.flow, "couplings", nn.ModuleList()),
    "without-fusion": lambda model: setattr(model.points, "fusion", None),
    "without-stpt": _no_stpt,
    "without-spatial": _no_attention("spatial"),
    "without-temporal": _no_attention("temporal"),
    "without-cross": _no_attention("cross"),
    "with-1-block": _first_block,
    "with-1-hypothesis": _hypotheses(1),
    "with-4-hypotheses": _hypotheses(4),
    "with-32-hypotheses": _hypotheses(32),
}


def answer_changed(change: str, capture: Capture) -> Result:
    """What the shipped network alone, so changed, says of a capture."""
    hand = load_hand_2d(capture, SIDE)
    fit = fit_hand(hand, capture.fps)  # places crops and gates
    model, crop, _ = load_checkpoint(SHIPPED, load_hand())
    CHANGES[change](model)
    with tempfile.TemporaryDirectory(prefix="usthand-") as folder:
        footage = footage_of(capture, hand, fit, crop, model.config.image_size, Path(folder))
        result = network_result(hand.rig, estimate(model, footage, crop, seed=0), right_hand())
    return hand.as_captured(result)
