"""The table of other programs: its numbers, its lines, and what it does where programs are missing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from support.bench import fake_cell
from support.peers import four_cameras, swaying_hand
from usthand.capture.capture import Capture
from usthand.cli.experiments import bench
from usthand.common.errors import UsthandError
from usthand.evaluation.truth import Truth
from usthand.experiments.bench import fill as filling
from usthand.experiments.bench import methods, tables
from usthand.experiments.bench.cells import Cell, is_whole, read_cell, run_cell
from usthand.experiments.bench.fill import FillConfig, fill
from usthand.experiments.bench.methods import METHODS
from usthand.experiments.bench.tables import PEER_SETTINGS, make_table
from usthand.experiments.peers.exchange import Placed, as_result
from usthand.experiments.peers.measure import JOINT_KEYS, SOME_KEYS, joint_numbers, less_offset
from usthand.experiments.peers.run import PEERS, Run
from usthand.fit import fit

FRAMES = 12
ALL = np.arange(FRAMES)


def turning_hand() -> tuple[np.ndarray, np.ndarray]:
    """Joints of a hand that turns a long way, and its rotation in each frame."""
    pose = swaying_hand(1)[0]
    turn = Rotation.from_rotvec(np.linspace(0, 2, FRAMES)[:, None] * np.array([[0.5, 1.0, -0.3]])).as_matrix()
    return np.einsum("tij,kj->tki", turn, pose), turn


def truth_of(joints: np.ndarray) -> Truth:
    return Truth.of_joints(joints, np.ones((FRAMES, 4, 21), bool))


def result_of(joints: np.ndarray, placed: np.ndarray | None = None, covariance: np.ndarray | None = None):
    placed = np.ones((FRAMES, 21), bool) if placed is None else placed
    return as_result(Placed(joints, placed, covariance), four_cameras(), "right", "eks")


def test_a_joint_that_lies_elsewhere_on_the_hand_costs_nothing_less_its_offset():
    """Whatever the offset is, the hand's turn takes it along."""
    joints, turn = turning_hand()
    offset = np.random.default_rng(0).normal(scale=0.004, size=(21, 3))
    moved = joints + np.einsum("tij,kj->tki", turn, offset)
    found = joint_numbers(result_of(moved), truth_of(joints), ALL, 30.0, 2.5)
    assert found["mpjpe_mm"] == pytest.approx(1000 * np.linalg.norm(offset, axis=-1).mean(), rel=1e-9)
    assert found["less_offset_mm"] == pytest.approx(0, abs=1e-9)
    assert found["seconds"] == 2.5 and found["frames"] == FRAMES and "coverage90" not in found
    still = np.ones_like(joints) * np.array([0.003, 0, 0])  # the same in the world, not on the hand
    assert np.linalg.norm(less_offset(still, joints), axis=-1).mean() > 0.0005


def test_giving_up_is_no_gain():
    joints, _ = turning_hand()
    error = np.zeros_like(joints)
    error[3, :7, 0] = 0.021
    placed = np.ones((FRAMES, 21), bool)
    placed[3, :7] = False
    found = joint_numbers(result_of(joints + error, placed), truth_of(joints), ALL, 30.0, 1.0)
    assert found["placed"] == pytest.approx(1 - 7 / (21 * FRAMES))
    assert found["mpjpe_mm"] == pytest.approx(21 * 7 / (21 * FRAMES)) and found["placed_mpjpe_mm"] == 0


def test_coverage_is_that_of_the_programs_own_covariances():
    joints, _ = turning_hand()
    rng = np.random.default_rng(0)
    wide = np.tile(np.eye(3) * 1e-4, (FRAMES, 21, 1, 1))
    noise = rng.normal(size=joints.shape) * 0.01
    share = joint_numbers(result_of(joints + noise, covariance=wide), truth_of(joints), ALL, 30.0, 1.0)["coverage90"]
    assert share == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / (21 * FRAMES)))  # four binomial standard deviations


def test_lines_name_the_release_and_every_setting_has_ours_beside_the_others():
    table = make_table("peers", (0,))
    groups = {row.group for row in table.rows}
    assert groups == {f"{regime}, {level} labels" for regime, level in PEER_SETTINGS}
    for group in groups:
        of = {row.of: row.label for row in table.rows if row.group == group}
        assert {"raw", "smooth", "fit", "shipped"} <= set(of) and set(PEERS) - {"anipose-ransac"} <= set(of)
        assert ("anipose-ransac" in of) == group.startswith("oakink"), "247 sets of 8 cameras take too long"
        assert "ensemble-kalman-smoother 4.6.2" in of["eks"] and "athena-tracking 0.9" in of["athena"]


def test_a_setting_more_is_a_line_more(monkeypatch):
    monkeypatch.setattr(tables, "PEER_SETTINGS", (*PEER_SETTINGS, ("oakink-like", "light")))
    assert "oakink-like, light labels" in {row.group for row in make_table("peers", (0,)).rows}


def test_a_cell_counts_for_one_release_only(tmp_path, monkeypatch):
    cell = Cell("oakink-like", "eks", labels="mediapipe", measures="joints")
    fake_cell(tmp_path, cell, 1.0)
    assert read_cell(cell, tmp_path) is not None
    newer = replace(PEERS["eks"], environment=replace(PEERS["eks"].environment, version="9.9"))
    monkeypatch.setitem(PEERS, "eks", newer)
    assert read_cell(cell, tmp_path) is None


def test_a_program_is_timed_by_its_own_work(tmp_path, monkeypatch):
    """Not by the start of its Python."""
    joints, _ = turning_hand()
    monkeypatch.setattr(methods, "load_labels", lambda capture, side: None)
    monkeypatch.setattr(methods, "run_peer", lambda name, rig, labels, fps: Run(result_of(joints), 7.0))
    results, seconds = METHODS["eks"].timed(Capture(tmp_path, four_cameras(), (), 30.0), None)
    assert seconds == 7.0 and set(results) == {"eks"}


def test_missing_programs_are_told_and_the_rest_is_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "missing_environments", lambda: ["athena", "pose2sim"])
    ran = []
    monkeypatch.setattr(filling, "run_cell", lambda cell, *rest: ran.append(cell.method))
    told = fill("peers", FillConfig(tmp_path, tmp_path)).splitlines()
    assert set(ran) == {
        "anipose",
        "anipose-program",
        "anipose-ransac",
        "eks",
        "eks-inflated",
        "raw",
        "smooth",
        "fit",
        "shipped",
    }
    assert told[-1] == (
        "athena-tracking and pose2sim are not installed: each peer has an environment of its own; "
        "run `usthand bench peers --install`."
    )


def test_environments_are_made_on_request_only(tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr("usthand.cli.experiments.install_peers", lambda progress: made.append(1))
    config = FillConfig(tmp_path, tmp_path, run=False)
    bench("peers", config)
    assert not made
    bench("peers", config, install=True)
    assert made == [1] and "| joints |" in capsys.readouterr().out


def test_a_clip_has_a_table_of_its_own_below(tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "missing_environments", lambda: ["pose2sim"])
    given = []

    def measured(clip, kept, progress):
        given.append((clip, kept))
        return {
            "fit": {"leave_out_median_px": 6.25, "seconds": 3.0},
            "eks": {"leave_out_median_px": 6.5, "placed": 1.0},
        }

    monkeypatch.setattr(filling, "measure_footage", measured)
    clip = tmp_path / "webcams"
    text = fill("peers", FillConfig(tmp_path / "cache", tmp_path, run=False, clip=clip))
    assert given == [(clip, tmp_path / "cache" / "peers" / "webcams")]
    below = text.split("\n\n")[1].splitlines()
    assert text.split("\n\n")[2].startswith("pose2sim is not installed: ")
    assert below[2] == "| *webcams* | | | | | | |" and below[3] == "| fit | 6.25 |  |  |  |  | 3.0 |"
    assert below[4].startswith("| ensemble-kalman-smoother 4.6.2, as it comes | 6.50 |  |  |  | 1.000 |")
    assert json.loads((tmp_path / "peers-webcams.json").read_text())["fit"]["leave_out_median_px"] == 6.25
    with pytest.raises(UsthandError, match="has no clip"):
        fill("headline", FillConfig(tmp_path, tmp_path, run=False, clip=clip))


def test_a_cell_of_joints_is_run_and_kept(small, tmp_path, monkeypatch):
    """Ours by the clock, a peer by its own; over the same frames."""
    cache, results = tmp_path / "cache", tmp_path / "results"

    def run(name, rig, labels, fps):
        return Run(fit.triangulate(rig, labels), 7.0)

    monkeypatch.setattr(methods, "run_peer", run)
    for name in ("raw", "eks"):
        cell = Cell("oakink-like", name, measures="joints")
        rows = run_cell(cell, cache, results)
        assert set(JOINT_KEYS) <= set(rows[name]) <= {*JOINT_KEYS, *SOME_KEYS, "frames"}
        assert read_cell(cell, results) == rows and is_whole(cell, results)
    ours, peers = (read_cell(Cell("oakink-like", n, measures="joints"), results)[n] for n in ("raw", "eks"))
    assert peers.pop("seconds") == 7.0 and 0 < ours.pop("seconds") < 7.0
    assert peers == ours
