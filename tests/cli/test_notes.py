"""What commands say of a result that is not measured in the usual way, in one sentence each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.stand_in import exact_labels, make_capture, make_rig, make_truth, result_of
from usthand.cli import main, networks
from usthand.cli.show import save_and_show
from usthand.evaluation.evaluate import evaluate
from usthand.hand.result import BY_LABELS, BY_NETWORK

SENTENCE = "In 3 of the 11 valid frames the network alone places the hand: the detector missed it."


@pytest.fixture
def truth():
    return make_truth(np.random.default_rng(0))


@pytest.fixture
def result(truth):
    """Twelve frames, of which one is not valid and three are the network's alone."""
    source = np.array([BY_LABELS] * 8 + [BY_NETWORK] * 4)
    return replace(result_of(truth), source=source, valid=np.arange(12) < 11)


def test_frames_of_the_network_alone_are_told_of(result, tmp_path, capsys):
    save_and_show(result, tmp_path / "r.npz")
    assert capsys.readouterr().out.splitlines()[1:] == [SENTENCE]
    main(["evaluate", str(tmp_path / "r.npz")])
    assert SENTENCE in capsys.readouterr().out
    assert evaluate(result)["network_alone"] == SENTENCE


def test_nothing_is_told_where_there_are_none(result, tmp_path, capsys):
    by_labels = replace(result, source=np.full(12, BY_LABELS))
    save_and_show(by_labels, tmp_path / "r.npz")
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert "network_alone" not in evaluate(by_labels)


@pytest.mark.parametrize("lost", [0, 10])
def test_reconstruct_says_that_the_cameras_do_not_place_the_hand(truth, tmp_path, capsys, monkeypatch, lost):
    """As `usthand fit` does: where two views of most frames have labels, and the result is not valid in them."""
    folder, rig = tmp_path / "clip", make_rig()
    (folder / "labels").mkdir(parents=True)
    make_capture(folder, truth, rig)
    exact_labels(truth, rig).save(folder / "labels" / "right.npz")
    made = result_of(truth, valid=np.arange(12) >= lost)
    monkeypatch.setattr(networks, "run_reconstruction", lambda *rest: made)
    main(["reconstruct", str(folder), "--out", str(tmp_path / "r.npz")])
    told = capsys.readouterr().out
    assert (f"In {lost} of the 12 frames in which two cameras see the hand, they do not place it" in told) == bool(lost)
