"""`usthand mark` as a user meets it: a folder to mark in, numbers from the marks, and each mistake in a sentence."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from support.marked import marks_of, write_marks
from usthand.capture.capture import open_capture
from usthand.cli import main
from usthand.evaluation.truth import load_truth
from usthand.hand.fingertips import cap_centres
from usthand.hand.io import load_hand
from usthand.hand.result import load_result


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("mark") / "cap"
    main(["synth", str(path), "--views", "3", "--frames", "10", "--labels", "exact", "--size", "128", "--seed", "5"])
    return path


@pytest.fixture(scope="module")
def fitted(capture, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "fit.npz"
    main(["fit", str(capture), "--joints", "rigid", "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def marks(capture):
    """The true caps of the synthetic hand, as two people would mark them who do not err."""
    truth = load_truth(capture, "right")
    person = load_hand(dtype=torch.float64).with_shape(torch.from_numpy(np.asarray(truth.shape, np.float64)))
    caps = cap_centres(person, np.asarray(truth.vertices_world_m, np.float64))
    rig = open_capture(capture).rig
    return [mark for marker in "AB" for mark in marks_of(rig, caps, marker)]


def fails(capsys, *arguments) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["mark", *map(str, arguments)])
    error = capsys.readouterr().err.strip()
    assert stopped.value.code == 1 and error.startswith("usthand: ") and len(error.splitlines()) == 1
    assert error.count(";") >= 1 and error.endswith("."), "fact, cause and fix"
    return error


def test_a_folder_to_mark_in(capture, tmp_path, capsys):
    main(["mark", str(capture), "--out", str(tmp_path / "m"), "--frames", "1", "8"])
    said = capsys.readouterr().out
    assert "right hand" in said and str(tmp_path / "m" / "mark.html") in said and "--read" in said
    with (tmp_path / "m" / "marks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["frame"] for row in rows} == {"1", "8"} and {row["side"] for row in rows} == {"right"}
    assert len(list((tmp_path / "m" / "sheets").glob("*.png"))) == len({(r["frame"], r["camera"]) for r in rows})
    assert "is never written over" in fails(capsys, capture, "--out", tmp_path / "m")


def test_a_result_may_place_the_patches_and_frames_be_chosen(capture, fitted, tmp_path, capsys):
    main(["mark", str(capture), str(fitted), "--out", str(tmp_path / "m"), "--frames", "4", "2"])
    assert "frames 2, 4, right hand" in capsys.readouterr().out
    assert "there is no frame 10" in fails(capsys, capture, "--out", tmp_path / "n", "--frames", "10")
    assert "2 results were given" in fails(capsys, capture, fitted, fitted, "--out", tmp_path / "n")
    told = fails(capsys, capture, fitted, "--out", tmp_path / "n", "--side", "left")
    assert "--side left, but the result is of the right hand" in told
    assert "no labels of the left hand" in fails(capsys, capture, "--out", tmp_path / "n", "--side", "left")
    assert not (tmp_path / "n").exists()


def test_what_was_marked_measures_results(capture, fitted, marks, tmp_path, capsys):
    """Labels and marks are exact: the fit's caps are at the marks, but for what no joint tells of a finger's thickness.

    An offset along the finger is left then, as in life.
    """
    halves = [write_marks(tmp_path / f"{who}.csv", [m for m in marks if m.marker == who]) for who in "AB"]
    main(["mark", str(capture), str(fitted), "--read", *map(str, halves), "--json"])
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["marks"]["markers"] == ["A", "B"] and numbers["marks"]["agreement_median_px"] == 0
    assert numbers["marks"]["tips_placed"] == numbers["results"]["fit"]["tips"] == 50
    cap, joint = (numbers["results"]["fit"][point] for point in ("cap", "joint"))
    assert cap["mean_mm"] < 2 < joint["mean_mm"] and cap["less_offset"]["mean_mm"] < 0.3
    main(["mark", str(capture), "--read", *map(str, halves), str(fitted), "--json"])  # in the other order
    assert json.loads(capsys.readouterr().out) == numbers
    main(["mark", str(capture), str(fitted), "--read", *map(str, halves)])
    said = capsys.readouterr().out
    assert "50 fingertips are placed" in said and "Markers agree to 0.0 px" in said and "fit, mesh's caps" in said
    main(["mark", str(capture), "--read", str(halves[0])])  # the marks alone
    said = capsys.readouterr().out
    assert "marks by A." in said and "agree" not in said and "mesh" not in said


def test_results_of_one_name_are_told_apart(capture, fitted, marks, tmp_path, capsys):
    other = tmp_path / "other" / "fit.npz"
    other.parent.mkdir()
    replace(load_result(fitted), vertices_world_m=load_result(fitted).vertices_world_m + 0.01).save(other)
    read = write_marks(tmp_path / "a.csv", marks)
    main(["mark", str(capture), str(fitted), str(other), "--read", str(read), "--json"])
    found = json.loads(capsys.readouterr().out)["results"]
    assert set(found) == {str(fitted)[:-4], str(other)[:-4]}
    assert found[str(other)[:-4]]["cap"]["mean_mm"] == pytest.approx(10 * np.sqrt(3), abs=1)


def test_how_far_a_view_may_be_off_can_be_chosen(capture, marks, tmp_path, capsys):
    """One view of one tip is 3 px off: with three cameras that tip is placed or not."""
    first = marks[0].view
    wrong = [replace(m, u_px=m.u_px + 3) if m.view == first else m for m in marks]
    read = write_marks(tmp_path / "a.csv", wrong)
    for limit, count in ((None, 50), ("0.5", 49)):
        main(["mark", str(capture), "--read", str(read), "--json", *(["--max-residual-px", limit] if limit else [])])
        assert json.loads(capsys.readouterr().out)["marks"]["tips_placed"] == count


def test_mistakes_are_told_in_a_sentence(capture, fitted, marks, tmp_path, capsys):
    read = write_marks(tmp_path / "a.csv", marks)
    assert "one of two things" in fails(capsys, capture)
    assert "one of two things" in fails(capsys, capture, "--read", read, "--out", tmp_path / "m")
    assert "no folder" in fails(capsys, tmp_path / "none", "--read", read)
    assert "does not exist" in fails(capsys, capture, tmp_path / "none.npz", "--read", read)
    assert "there is no mark in" in fails(capsys, capture, "--read", write_marks(tmp_path / "e.csv", []))
    assert "given twice" in fails(capsys, capture, "--read", read, read)
    assert "only results were given" in fails(capsys, capture, "--read", fitted)
    other = write_marks(tmp_path / "l.csv", [replace(m, side="left") for m in marks])
    assert "fit is of the right hand, the marks place no tip of it" in fails(capsys, capture, fitted, "--read", other)
    two = write_marks(tmp_path / "2.csv", [m for m in marks if m.camera != "cam0"])
    assert "marked in 3 views" in fails(capsys, capture, "--read", two)
    double = write_marks(tmp_path / "d.csv", [replace(m, u_px=m.u_px * 2, v_px=m.v_px * 2) for m in marks])
    assert "images of another size" in fails(capsys, capture, "--read", double)
