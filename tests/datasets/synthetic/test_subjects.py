"""Whose hand a capture shows: the kinds that there are, and that nothing learns from those that are for measuring."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from usthand.common.errors import UsthandError
from usthand.datasets.hanco_write import write_hanco
from usthand.datasets.synthetic import foreign, write
from usthand.datasets.synthetic.subjects import LEARNABLE, SUBJECTS, require_learnable, sample_subject
from usthand.datasets.synthetic.surface import ARM_RINGS, Stump, forearm_vertices, half_widths_m
from usthand.datasets.synthetic.write import SynthConfig, make_capture, synthetic_labels
from usthand.experiments import pretrain
from usthand.experiments.bench.cells import Cell, run_cell
from usthand.experiments.bench.regimes import capture_name
from usthand.experiments.pretrain import PretrainConfig, make_captures

SMALL = SynthConfig(views=2, frames=2, size=64, labels="exact")


def test_pretraining_draws_hands_that_may_teach_and_refuses_others(tmp_path, monkeypatch):
    config = PretrainConfig(tmp_path, captures=2, frames=2, views=2)
    assert {pretrain.capture_config(index, config).subject for index in range(640)} == set(LEARNABLE)
    made = []
    monkeypatch.setattr(pretrain, "made_capture", lambda path, settings: made.append(path))
    real = pretrain.capture_config
    monkeypatch.setattr(
        pretrain, "capture_config", lambda index, config: replace(real(index, config), subject="foreign")
    )
    with pytest.raises(UsthandError, match="nothing may learn"):
        make_captures(config)
    assert not made


def test_no_cell_is_trained_on_hands_that_are_for_measuring(tmp_path):
    for name in ("usthand", "hamuco", "no-stpt"):
        with pytest.raises(UsthandError, match="nothing may learn"):
            run_cell(Cell("foreign", name), tmp_path / "cache", tmp_path / "results")
    assert not list((tmp_path / "cache").rglob("*.mp4"))


def test_the_kinds_are_known_and_which_may_teach():
    assert set(SUBJECTS) - set(LEARNABLE) == {"foreign"}
    for kind in LEARNABLE:
        require_learnable(kind)
    with pytest.raises(UsthandError, match="no subject"):
        sample_subject("mine", np.random.default_rng(0))
    with pytest.raises(UsthandError, match="no subject"):
        make_capture(Path("c"), replace(SMALL, subject="mine"))


def test_without_anny_one_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    foreign.load_anny.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsthandError, match=r"usthand\[foreign\]"):
        make_capture(tmp_path / "c", replace(SMALL, subject="foreign"))
    foreign.load_anny.cache_clear()
    assert not (tmp_path / "c").exists()


def test_what_keeps_our_models_pose_refuses_other_hands(tmp_path):
    with pytest.raises(UsthandError, match="biased"):
        make_capture(tmp_path / "c", replace(SMALL, subject="foreign", labels="biased"))
    with pytest.raises(UsthandError, match="HanCo"):
        write_hanco(tmp_path / "h", SynthConfig(views=8, frames=2, subject="foreign"))


def test_labels_of_other_joints_name_a_detector_of_their_own():
    """A fit must not take them for its model's joints."""
    rig = write.sample_rig(np.random.default_rng(0), 2)
    joints, seen = np.random.default_rng(1).normal(scale=0.05, size=(3, 21, 3)), np.ones((3, 2, 21), bool)
    none = np.zeros((0, 48)), np.zeros(0)
    for posture, detector in (((np.zeros((3, 48)), np.zeros(10)), "synthetic-exact"), (none, write.OTHERS_JOINTS)):
        labels = synthetic_labels(rig, joints, posture, seen, np.random.default_rng(2), "exact")
        assert labels["right"].detector == detector
    with pytest.raises(UsthandError, match="biased"):
        synthetic_labels(rig, joints, none, seen, np.random.default_rng(2), "biased")


def test_a_usual_subject_is_told_as_before_there_were_others():
    """Folders and settings of captures that are kept must be found again."""
    for name in ("subject", "looks"):
        assert name not in SMALL.settings() and name not in capture_name(SMALL)
    other = replace(SMALL, subject="foreign")
    assert other.settings()["subject"] == "foreign" and "subject-foreign" in capture_name(other)
    assert {**SMALL.settings(), "subject": "own", "looks": "plain"} == vars(SMALL)


def test_an_arm_goes_on_from_a_stump_as_from_the_wrist():
    """A ring cut from an average arm behind the wrist, and turned: the arm behind it is the average arm, turned."""
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    half, behind = half_widths_m(np.array([0.06]))[0], 0.06
    ring = np.stack([half[0] * np.cos(angle), np.full(16, -behind), half[1] * np.sin(angle)], 1)
    stump = Stump(ring, np.eye(3), behind)
    assert stump.width(half) == pytest.approx(1.0, abs=1e-9)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(stump.posed_frame(ring @ turn.T + 0.3), turn.T, atol=1e-9)
    arm = forearm_vertices(ring, np.eye(3), (0.0, 0.0), 1.0, np.zeros(ARM_RINGS - 1), behind).reshape(-1, 16, 3)
    straight = -arm[:, :, 1].mean(1) < 0.2  # before the elbow
    wide = np.abs(arm[straight]).max(1)
    want = half_widths_m(-arm[straight][:, :, 1].mean(1))
    np.testing.assert_allclose(wide[1:, [0, 2]], want[1:], rtol=0.02)
