"""Papers' figures beside ours: only for the protocol they were measured by, with the alignment named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from support.stand_in import exact_labels, make_rig, make_truth, result_of
from usthand.capture.rig import save_rig
from usthand.cli import main
from usthand.evaluation import metrics
from usthand.evaluation.published import OURS, compare, published
from usthand.evaluation.truth import Truth, save_truth
from usthand.hand.io import load_hand
from usthand.labels.labels import ANNOTATION, load_npz


def make_dataset_capture(folder, truth, settings='dataset = "hanco"\nprotocol = "hamuco"\nsplit = "test"\n'):
    folder.mkdir(parents=True)
    rig = make_rig()
    save_rig(rig, folder / "rig.toml")
    (folder / "capture.toml").write_text("fps = 30.0\n" + settings)
    Image.new("RGB", (640, 480)).save(folder / "black.png")
    for name in rig.names:
        (folder / f"{name}.txt").write_text("black.png\n" * len(truth.joints_world_m))
    exact_labels(truth, rig).save(folder / "labels" / "right.npz")
    save_truth(folder, "right", truth)
    return folder


@pytest.fixture
def truth():
    made = make_truth(np.random.default_rng(1))
    return replace(made, visible=np.ones((len(made.joints_world_m), 3, 21), bool))


def moved(truth, millimetres):
    """A result that is wrong by so much everywhere."""
    shift = np.array([millimetres / 1000, 0, 0])
    return result_of(truth, truth.joints_world_m + shift, truth.vertices_world_m + shift)


def test_every_figure_can_be_compared():
    numbers = dict.fromkeys([name for names in OURS.values() for name in names], 1.0)
    for dataset, protocol, views in (("hanco", "hamuco", 8), ("dexycb-mv", "s0", 8), ("oakink-mv", "objects", 4)):
        tables = published(dataset, protocol, "test")
        own = [f for table in tables for f in table["figures"] if (f["method"], f["metric"]) == ("UST-Hand", "MPVPE")]
        theirs = [f for table in tables for f in table["figures"] if (f["method"], f["metric"]) == ("HaMuCo", "MPVPE")]
        assert len(own) == len(theirs) == 1 and own[0]["value"] < theirs[0]["value"]
        assert {table["views"] for table in tables} == {views} and all(table["source"] for table in tables)
        rows = compare(numbers, dataset, protocol, "test")
        assert {(r.method, r.metric) for r in rows} == {
            (f["method"], f["metric"]) for t in tables for f in t["figures"]
        }
        assert all(row.gap == pytest.approx(1.0 - row.paper) for row in rows)


def test_an_unknown_alignment_is_compared_with_all_of_ours():
    numbers = {"mpvpe_mm": 7.0, "mpvpe_wrist_mm": 6.0, "mpvpe_scale_mm": 5.0, "mpvpe_pa_mm": 4.0}
    rows = [r for r in compare(numbers, "hanco", "hamuco", "test") if r.method == "UST-Hand"]
    found = {(r.metric, r.our_alignment): (r.paper, r.ours, r.alignment) for r in rows}
    assert found == {
        ("MPVPE", "absolute"): (5.82, 7.0, "not stated"),
        ("MPVPE", "wrist-relative"): (5.82, 6.0, "not stated"),
        ("MPVPE", "wrist and scale"): (5.82, 5.0, "not stated"),
        ("PA-MPVPE", "Procrustes"): (4.13, 4.0, "Procrustes"),
    }


@pytest.mark.parametrize(
    "asked", [("hanco", "hamuco", "train"), ("hanco", "official", "test"), ("dexycb", "s0", "test"), ("", "", "")]
)
def test_other_protocols_are_not_compared(asked):
    assert not compare({"mpvpe_mm": 1.0}, *asked)


def test_evaluate_prints_paper_ours_and_gap(tmp_path, truth, capsys):
    capture = make_dataset_capture(tmp_path / "0001", truth)
    moved(truth, 8.0).save(tmp_path / "r.npz")
    main(["evaluate", str(tmp_path / "r.npz"), "--capture", str(capture)])
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("UST-Hand  ") and "absolute" in line)
    assert line.split() == ["UST-Hand", "MPVPE", "not", "stated", "5.82", "8.00", "absolute", "+2.18"]
    assert "one recording" in text and "whole split" in text and "2605.17742" in text
    main(["evaluate", str(tmp_path / "r.npz"), "--capture", str(capture), "--json"])
    rows = json.loads(capsys.readouterr().out)["published"]
    assert {"method", "metric", "alignment", "paper", "ours", "our_alignment", "gap"} <= set(rows[0])


def test_labels_that_are_truth_do_not_compare(tmp_path, truth, capsys):
    capture = make_dataset_capture(tmp_path / "0001", truth)
    moved(truth, 8.0).save(tmp_path / "r.npz")
    asked = ["evaluate", str(tmp_path / "r.npz"), "--capture", str(capture)]
    main(asked)
    assert "NOT COMPARABLE" not in capsys.readouterr().out
    given = load_npz(capture / "labels" / "right.npz")
    replace(given, detector=ANNOTATION).save(capture / "labels" / "right.npz")
    main(asked)
    assert "NOT COMPARABLE: the labels here are the data set's own 2D truth" in capsys.readouterr().out
    main([*asked, "--json"])
    assert json.loads(capsys.readouterr().out)["annotated_labels"] is True


def test_footage_of_ones_own_has_no_paper(tmp_path, truth, capsys):
    capture = make_dataset_capture(tmp_path / "mine", truth, "")
    moved(truth, 8.0).save(tmp_path / "r.npz")
    main(["evaluate", str(tmp_path / "r.npz"), "--capture", str(capture)])
    assert "paper" not in capsys.readouterr().out


def test_truth_without_meshes_is_compared_by_joints_alone(tmp_path, truth, capsys):
    bare = Truth.of_joints(truth.joints_world_m, truth.visible)
    capture = make_dataset_capture(tmp_path / "0001", bare)
    moved(truth, 8.0).save(tmp_path / "r.npz")
    main(["evaluate", str(tmp_path / "r.npz"), "--capture", str(capture)])
    text = capsys.readouterr().out
    assert "MPJPE" in text and "MPVPE  " not in text and "AUC-V" not in text


def test_a_folder_of_results_is_averaged_by_frames(tmp_path, truth, capsys):
    short = Truth(
        *(x[:4] for x in (truth.joints_world_m, truth.vertices_world_m, truth.visible, truth.pose)),
        truth.shape,
        truth.translation_m[:4],
    )
    for name, one, error in (("0001", truth, 2.0), ("0002", short, 10.0)):
        make_dataset_capture(tmp_path / "captures" / name, one)
        (tmp_path / "results").mkdir(exist_ok=True)
        moved(one, error).save(tmp_path / "results" / f"{name}.npz")
    make_dataset_capture(tmp_path / "captures" / "0003", truth)
    main(["evaluate", str(tmp_path / "results"), "--capture", str(tmp_path / "captures"), "--json"])
    found = json.loads(capsys.readouterr().out)
    nowhere = replace(moved(truth, 1.0), valid=np.zeros(12, bool))
    nowhere.save(tmp_path / "results" / "0003.npz")
    main(["evaluate", str(tmp_path / "results"), "--capture", str(tmp_path / "captures"), "--json"])
    told = capsys.readouterr()
    assert json.loads(told.out) == found and "0003 is left out: no frame is left" in told.err
    assert found["mpjpe_mm"] == pytest.approx((12 * 2 + 4 * 10) / 16) and found["frames"] == 16
    assert found["recordings"] == "2 of 3 recordings" and found["published"]


def test_beside_free_joints_the_meshs_own_are_averaged_and_compared(tmp_path, capsys):
    """Half of the recordings have free joints, 9 mm off, on right meshes: papers' joints are the hand model's."""
    hand = load_hand()
    posed = hand.with_shape(torch.zeros(10)).with_pose(hand.rotations(torch.zeros(12, 48), flat_hand_mean=True))
    joints, vertices = posed.joints.numpy().astype(float), posed.vertices.numpy().astype(float)
    truth = Truth(joints, vertices, np.ones((12, 3, 21), bool), np.zeros((12, 48)), np.zeros(10), np.zeros((12, 3)))
    (tmp_path / "results").mkdir()
    for name, shift, kind in (("0001", 0.0, "rigid"), ("0002", 0.009, "free")):
        make_dataset_capture(tmp_path / "captures" / name, truth)
        replace(result_of(truth, joints + np.array([shift, 0, 0])), joint_model=kind).save(
            tmp_path / "results" / f"{name}.npz"
        )
    asked = ["evaluate", str(tmp_path / "results"), "--capture", str(tmp_path / "captures"), "--json"]
    main(asked)
    found = json.loads(capsys.readouterr().out)
    assert found["mpjpe_mm"] == pytest.approx(4.5) and found["mesh_mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    ours = {row["our_alignment"]: row["ours"] for row in found["published"] if row["metric"] == "MPJPE"}
    assert ours["absolute"] == found["mpjpe_mm"] and ours["absolute, of the mesh"] == found["mesh_mpjpe_mm"]
    (tmp_path / "results" / "0002.npz").unlink()
    main(asked)
    assert "mesh_mpjpe_mm" not in json.loads(capsys.readouterr().out)


def test_pooled_numbers_count_frames_that_were_given_up(truth):
    whole, half = moved(truth, 4.0), replace(moved(truth, 4.0), valid=np.arange(12) < 6)
    numbers = [metrics.evaluate_truth(result, truth, fps=30) for result in (whole, half)]
    found = metrics.pooled(numbers)
    assert found["frames"] == 18 and found["valid_fraction"] == pytest.approx(18 / 24)
    assert found["mpjpe_mm"] == pytest.approx(4.0)
    assert metrics.pooled([numbers[0] | {"auc_v": None}, numbers[1]])["auc_v"] == pytest.approx(numbers[1]["auc_v"])


def test_folders_that_do_not_fit_are_refused(tmp_path, truth, capsys):
    make_dataset_capture(tmp_path / "captures" / "0001", truth)
    (tmp_path / "results").mkdir()
    for arguments, told in (([], "add --capture FOLDER"), (["--capture", str(tmp_path / "captures")], "NAME.npz")):
        with pytest.raises(SystemExit):
            main(["evaluate", str(tmp_path / "results"), *arguments])
        assert told in capsys.readouterr().err
    make_dataset_capture(tmp_path / "captures" / "0002", truth, 'dataset = "hanco"\n')
    for name in ("0001", "0002"):
        moved(truth, 1.0).save(tmp_path / "results" / f"{name}.npz")
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "results"), "--capture", str(tmp_path / "captures")])
    assert "several splits" in capsys.readouterr().err
