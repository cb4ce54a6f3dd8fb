"""Labels that agree better than a detector's usually do get more weight beside the network."""

from __future__ import annotations

import numpy as np
import pytest

from support.check_captures import labelled_rig
from usthand.capture.capture import open_capture
from usthand.data.prepare import fit_hand, load_hand_2d
from usthand.datasets.synthetic.noise import HEAVY, LIGHT
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.metrics import evaluate_truth
from usthand.evaluation.truth import load_truth
from usthand.fit.canonical import canonical_hand
from usthand.reconstruction.fusion import MOST_RAISED, label_excellence
from usthand.reconstruction.reconstruct import reconstruct


def excellence(views: int, level: str, seed: int) -> float:
    made = labelled_rig(seed, views, level, frames=40)
    hand = canonical_hand(made.rig, made.labels[0])
    return label_excellence(hand, fit_hand(hand, made.fps))


@pytest.mark.parametrize("views", [2, 4])
def test_usual_labels_are_not_excellent_and_light_ones_by_their_variance(views):
    """Light errors are a third of heavy ones, their variance a ninth; `FAIR_SCALE` lies somewhat below heavy ones."""
    usual = [excellence(views, "heavy", seed) for seed in range(3)]
    light = [excellence(views, "light", seed) for seed in range(3)]
    assert np.median(usual) < 1.2 and max(usual) < 2
    assert 3 < np.median(light) <= (HEAVY.seen_std / LIGHT.seen_std) ** 2


def test_exact_labels_leave_nothing_to_the_network():
    assert excellence(3, "exact", 5) > 0.01 * MOST_RAISED


@pytest.mark.slow
def test_the_network_helps_with_good_labels_too(tmp_path):
    """The mean mesh error over three captures of light labels is less than the fit's: 1.80 against 1.86 mm.

    It is 1.92 mm with the variance scales for usual labels.
    """
    errors = []
    for seed in (78, 79, 80):
        config = SynthConfig(views=4, frames=40, labels="light", seed=seed)
        capture = open_capture(make_capture(tmp_path / str(seed), config))
        truth = load_truth(capture.path, "right")
        final = reconstruct(capture)
        alone = fit_hand(load_hand_2d(capture, "right"), capture.fps)
        errors.append([evaluate_truth(result, truth, fps=capture.fps)["mpvpe_mm"] for result in (final, alone)])
    ours, theirs = np.mean(errors, 0)
    assert ours < theirs
