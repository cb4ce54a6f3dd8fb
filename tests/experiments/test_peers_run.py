"""Every other program returns the truth from exact labels: what separates it from ours is no fault of our files.

They run in environments of their own (`usthand bench peers --install`); without these, only a stand-in runs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.peers import exact_labels, four_cameras, swaying_hand
from usthand.common.errors import UsthandError
from usthand.experiments.peers import environments
from usthand.experiments.peers.environments import ENVIRONMENTS, missing_environments
from usthand.experiments.peers.run import PEERS, run_peer

MOST_MM = 1.0
REACH_M = {"anipose": 1e-4, "eks": 5e-4, "eks-inflated": 5e-4}
"""As they come, these smooth so heavily that exact labels of a hand that moves by millimetres give other joints."""
# A linear triangulation of all views, in the place of aniposelib.
STAND_IN = """
import json, sys, tomllib
from pathlib import Path
import cv2, numpy as np
folder = Path(sys.argv[3])
assert sys.argv[2] == "anipose" and Path(sys.argv[1]).name == "worker.py" and Path.cwd() == folder
assert json.loads((folder / "settings.json").read_text()) == {"cameras_of": "ransac"}
cameras = [c for k, c in tomllib.loads((folder / "calibration.toml").read_text()).items() if k != "metadata"]
points = np.load(folder / "points.npy")
assert [c["name"] for c in cameras] == ["view00", "view01", "view02", "view03"][: len(points)]
rows = []
for camera, seen in zip(cameras, points):
    xy = cv2.undistortPoints(seen.reshape(-1, 1, 2), np.array(camera["matrix"]), np.array(camera["distortions"]))[:, 0]
    p = np.c_[cv2.Rodrigues(np.array(camera["rotation"]))[0], camera["translation"]]
    rows += [xy[:, :1] * p[2] - p[0], xy[:, 1:] * p[2] - p[1]]
x = np.linalg.svd(np.stack(rows, 1))[2][:, -1]
np.save(folder / "joints.npy", (x[:, :3] / x[:, 3:]).reshape(*points.shape[1:3], 3))
(folder / "run.json").write_text(json.dumps({"seconds": 1.5}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_exact_labels_give_the_truth(name):
    if PEERS[name].environment.name in missing_environments():
        pytest.skip(f"{PEERS[name].environment.package} is not installed")
    rig, joints = four_cameras(), swaying_hand(reach_m=REACH_M.get(name, 0.004))
    labels = exact_labels(rig, joints)
    # EKS's inflation looks for the frames of more than median confidence.
    confidence = np.random.default_rng(0).uniform(0.9, 1, labels.confidence.shape)
    run = run_peer(name, rig, replace(labels, confidence=confidence), 30.0)
    error_mm = 1000 * np.linalg.norm(run.result.joints_world_m - joints, axis=-1)
    assert error_mm[run.result.joint_valid].max() < MOST_MM
    # Pose2Sim's filter drops the last frame.
    assert run.result.joint_valid[:-1].all() and run.seconds > 0
    assert run.result.joints_cov_m2.any() == name.startswith("eks")


def stand_in(folder: Path, script: str) -> None:
    """An environment whose Python runs a script in place of the worker."""
    python = folder / "anipose" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (folder / "stand_in.py").write_text(script)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder / "stand_in.py"}" "$@"\n')
    python.chmod(0o755)


def test_a_program_gets_its_files_and_its_joints_come_back(tmp_path, monkeypatch):
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path))
    stand_in(tmp_path, STAND_IN)
    rig, joints = four_cameras(), swaying_hand()
    run = run_peer("anipose-ransac", rig, exact_labels(rig, joints), 30.0)
    # Labels are single precision: 3e-5 px, a hundredth of a micrometre at the hand.
    assert np.abs(run.result.joints_world_m - joints).max() < 1e-6
    assert run.seconds == 1.5 and run.result.cameras == rig.names and run.result.method == "anipose-ransac"


def test_a_camera_that_was_left_out_is_not_among_those_used(tmp_path, monkeypatch):
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path))
    stand_in(tmp_path, STAND_IN)
    rig, joints = four_cameras(), swaying_hand()
    labels = exact_labels(rig, joints).without(rig.names[1])
    assert run_peer("anipose-ransac", rig, labels, 30.0).result.cameras == (rig.names[0], *rig.names[2:])


def test_a_program_that_fails_says_why_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path))
    stand_in(tmp_path, 'raise SystemExit("its own words.")')
    rig = four_cameras()
    with pytest.raises(UsthandError, match=r"aniposelib 0\.8\.0 ended before .*: its own words; "):
        run_peer("anipose", rig, exact_labels(rig, swaying_hand(4)), 30.0)


def test_a_missing_environment_is_told_with_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path))
    rig = four_cameras()
    with pytest.raises(UsthandError, match=r"pose2sim is not installed: .*usthand bench peers --install"):
        run_peer("pose2sim", rig, exact_labels(rig, swaying_hand(4)), 30.0)
    assert missing_environments() == list(ENVIRONMENTS)
    stand_in(tmp_path, "")
    assert missing_environments() == [name for name in ENVIRONMENTS if name != "anipose"]
    assert environments.absence(["eks"]).startswith("ensemble-kalman-smoother is not installed: ")


def test_only_missing_environments_are_made_and_none_is_left_half_made(tmp_path, monkeypatch):
    monkeypatch.setenv(environments.FOLDER_VARIABLE, str(tmp_path))
    stand_in(tmp_path, "")
    monkeypatch.setattr(environments, "ENVIRONMENTS", {name: ENVIRONMENTS[name] for name in ("anipose", "eks")})
    ran = []

    def run(command, environment):
        ran.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[3], "bin").mkdir(parents=True)
            Path(command[3], "bin", "python").touch()
        elif len(ran) < 3:
            raise UsthandError("no network", "it is off", "turn it on")

    monkeypatch.setattr(environments, "_run", run)
    with pytest.raises(UsthandError, match="no network"):
        environments.install()
    assert not (tmp_path / "eks").exists()
    environments.install()
    assert (tmp_path / "eks").is_dir() and not missing_environments()
    assert f"ensemble-kalman-smoother=={ENVIRONMENTS['eks'].version}" in ran[-1]


def test_a_program_without_its_own_requirements_is_installed_last(tmp_path):
    """Or they would be replaced by what it asks for."""
    first, last = ENVIRONMENTS["athena"].commands(tmp_path)
    assert "mediapipe==0.10.21" in first and "athena-tracking==0.9" in last and "--no-deps" in last
