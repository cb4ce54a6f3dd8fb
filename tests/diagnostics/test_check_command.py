"""`usthand check` as a command: its text, its JSON and the files that --fix writes."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import pytest

from support.check_captures import broken_labels, broken_rig, facts, labelled_rig, same_relative_pose
from usthand.capture.rig import load_rig, save_rig
from usthand.cli import main
from usthand.common.errors import UsthandError
from usthand.diagnostics import corrections
from usthand.diagnostics.check import check_facts
from usthand.diagnostics.folder import read_facts
from usthand.diagnostics.write import as_json, as_text, write_fixes
from usthand.labels.labels import load_npz


@pytest.fixture
def folder(tmp_path):
    """A capture on disk whose cameras are inverted; images stand for the videos."""
    from PIL import Image

    made = labelled_rig(22, 3, "light", frames=60)
    save_rig(broken_rig(made.rig, corrections.inverted), tmp_path / "rig.toml")
    for name in made.rig.names:
        (tmp_path / name).mkdir()
        for k in range(60):
            image = tmp_path / name / f"{k:03d}.png"
            Image.new("L", (256, 256)).save(image)
    for one in made.labels:
        one.save(tmp_path / "labels" / f"{one.side}.npz")
    return tmp_path, made


def test_command_line(folder, capsys):
    path, made = folder
    before = (path / "rig.toml").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["check", str(path), "--json", "--fix"])
    assert ended.value.code == 1
    data = json.loads(capsys.readouterr().out)
    (finding,) = data["findings"]
    assert finding["fault"] == "inverted_extrinsics" and finding["evidence"]["after_px"] < 2
    assert (path / "rig.toml").read_text() == before, "the old file stays"
    same_relative_pose(load_rig(path / "rig.fixed.toml"), made.rig, 1e-6, 1e-9)
    with pytest.raises(SystemExit) as ended:
        main(["check", str(path), "--fix"])
    assert ended.value.code == 1 and "is there already" in capsys.readouterr().err
    (path / "rig.fixed.toml").rename(path / "rig.toml")
    main(["check", str(path)])  # exit code 0
    out = capsys.readouterr().out
    assert "nothing wrong" in out and out.count("\n") == 1


def test_fixed_offsets_and_labels(tmp_path):
    made = labelled_rig(23, 3, "light", frames=150, timing={2: (5.0, 0.0)})
    wrong = broken_labels(made, lambda one: replace(one, side="left"))
    told = replace(facts(wrong), path=tmp_path, offsets={"cam2": 2, "cam0": 1})
    report = check_facts(told)
    assert [finding.fault for finding in report.findings] == ["out_of_step", "wrong_side"]
    todo = write_fixes(report)
    settings = tomllib.loads((tmp_path / "capture.fixed.toml").read_text())
    # The camera started five frames earlier than what was stated.
    assert settings == {"fps": 30.0, "offset": {"cam2": -3, "cam0": 1}}
    assert load_npz(tmp_path / "labels.fixed" / "right.npz").side == "right"
    assert len(todo) == 2 and all("mv " in line for line in todo)
    assert json.loads(as_json(report, todo))["todo"] == todo
    assert as_text(report).count("fix:") == 2


def test_refusals(tmp_path):
    with pytest.raises(UsthandError, match="no folder"):
        read_facts(tmp_path / "none")
    save_rig(labelled_rig(22, 3, "light", frames=40).rig, tmp_path / "rig.toml")
    with pytest.raises(UsthandError, match="no labels"):
        read_facts(tmp_path)
