"""What is written for other programs, and what is read of theirs, against OpenCV and by the meaning of each format."""

from __future__ import annotations

import csv
import json
import tomllib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.signal import butter, savgol_filter

from support.fit_scene import rig_in_unit
from support.peers import exact_labels, four_cameras, project, swaying_hand
from usthand.common.errors import UsthandError
from usthand.experiments.peers import anipose, athena, eks, pose2sim
from usthand.experiments.peers.exchange import CALIBRATION, as_result, given, placed_joints
from usthand.hand.skeleton import BONES, JOINTS

RATES = (6.0, 15.0, 24.0, 29.97, 30.0, 60.0, 120.0, 240.0)
FRAMES = 5


@pytest.fixture
def scene():
    rig, joints = four_cameras(), swaying_hand(FRAMES)
    labels = exact_labels(rig, joints)
    confidence = labels.confidence * 0.5
    confidence[2, 1] = 0  # no hand in one image
    confidence[1:3, 0, 7] = 0  # a joint missing for two frames
    return rig, joints, replace(labels, confidence=confidence)


def seen_by_file(camera: dict, points: np.ndarray) -> np.ndarray:
    """By OpenCV, from a table of a calibration file."""
    values = [np.array(camera[key], float) for key in ("rotation", "translation", "matrix", "distortions")]
    return cv2.projectPoints(np.ascontiguousarray(points.reshape(-1, 1, 3)), *values)[0].reshape(*points.shape[:-1], 2)


def test_an_anipose_calibration_sees_the_same_from_millimetres(scene, tmp_path):
    rig, joints, labels = scene
    anipose.write(given(rig, labels, 30.0, lens=True), tmp_path)
    tables = tomllib.loads((tmp_path / CALIBRATION).read_text())
    assert set(tables) == {"cam_0", "cam_1", "cam_2", "cam_3", "metadata"}
    for number, camera in enumerate(rig.cameras):
        table = tables[f"cam_{number}"]
        assert table["name"] == f"view{number:02d}" and table["size"] == list(camera.size)
        assert np.abs(seen_by_file(table, 1000 * joints) - project(camera, joints)).max() < 1e-6
    points = np.load(tmp_path / anipose.POINTS)
    assert points.shape == (4, FRAMES, 21, 2) and np.isnan(points[1, 2]).all() and np.isnan(points[0, 1:3, 7]).all()
    there = ~np.isnan(points[..., 0])
    assert (points[there] == labels.uv_px.swapaxes(0, 1)[there]).all() and there.sum() == labels.mask.sum()


def test_without_the_lens_labels_lie_where_an_ideal_camera_sees_the_joints(scene, tmp_path):
    rig, joints, labels = scene
    data = given(rig, labels, 30.0, lens=False)
    for view, camera in enumerate(data.rig.cameras):
        assert not camera.distortion.any() and (camera.matrix == rig.cameras[view].matrix).all()
        away = np.linalg.norm(data.labels.uv_px[:, view] - project(camera, joints), axis=-1)
        # Single precision at 200 px is 2e-5 px; the lens itself moves these points by tenths.
        assert away[labels.mask[:, view]].max() < 1e-3
        assert np.abs(labels.uv_px[:, view] - project(camera, joints))[labels.mask[:, view]].max() > 0.1
    pose2sim.write(data, tmp_path)
    tables = tomllib.loads((tmp_path / "calibration" / "Calib.toml").read_text())
    for camera in data.rig.cameras:
        assert np.abs(seen_by_file(tables[camera.name], joints) - project(camera, joints)).max() < 1e-6


def test_a_lens_that_the_programs_do_not_know_is_taken_out(scene):
    rig, joints, _ = scene
    fisheye = tuple(replace(c, model="fisheye", distortion=np.array([0.1, -0.02, 0.0, 0.0])) for c in rig.cameras)
    uv = []
    for camera in fisheye:
        inside = joints @ camera.rotation.T + camera.translation
        flat = np.ascontiguousarray(inside.reshape(-1, 1, 3))
        seen = cv2.fisheye.projectPoints(flat, np.zeros(3), np.zeros(3), camera.matrix, camera.distortion)[0]
        uv.append(seen.reshape(FRAMES, 21, 2))
    labels = replace(exact_labels(rig, joints), uv_px=np.stack(uv, 1))
    data = given(replace(rig, cameras=fisheye), labels, 30.0, lens=True)
    for view, camera in enumerate(data.rig.cameras):
        assert camera.model == "pinhole" and np.abs(data.labels.uv_px[:, view] - project(camera, joints)).max() < 1e-3


def test_cameras_without_labels_are_left_out_and_what_cannot_be_done_is_said(scene):
    rig, _, labels = scene
    blind = replace(labels, confidence=labels.confidence * (np.arange(4) != 2)[None, :, None])
    data = given(rig, blind, 30.0, lens=True)
    assert data.rig.names == data.labels.cameras == ("view00", "view01", "view02")
    assert (data.rig.cameras[2].translation == rig.cameras[3].translation).all()
    with pytest.raises(UsthandError, match="1 cameras have labels"):
        given(rig, labels.subset(rig.names[:1]), 30.0, lens=True)
    with pytest.raises(UsthandError, match="no metric scale"):
        given(rig_in_unit(rig, 0.1), labels, 30.0, lens=True)


@pytest.mark.parametrize("side", ["right", "left"])
def test_athena_reads_one_hand_and_none_beside_it(scene, tmp_path, side):
    rig, joints, labels = scene
    labels = replace(labels, side=side)
    data = given(rig, labels, 12.5, lens=False)
    athena.write(data, tmp_path)
    other = "left" if side == "right" else "right"
    for view, name in enumerate(data.rig.names):
        place = tmp_path / "landmarks" / athena.RECORDING / name
        hand = np.load(place / f"2Dlandmarks_{side}.npy")
        assert hand.shape == (FRAMES, 21, 2) and ((hand == -1).all(-1) == ~labels.mask[:, view]).all()
        assert (hand[labels.mask[:, view]] == data.labels.uv_px[:, view][labels.mask[:, view]]).all()
        assert (np.load(place / f"2Dlandmarks_{other}.npy") == -1).all()
        assert np.load(place / "2Dlandmarks_body.npy").shape == (FRAMES, 33, 2)
    video = cv2.VideoCapture(str(tmp_path / "videos" / athena.RECORDING / "view00.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    found = np.full((FRAMES, 75, 3), np.nan)
    first = 33 if side == "right" else 54  # of its landmarks: 33 of a body, then the right hand and the left
    found[:, first : first + 21] = 1000 * joints
    np.save(tmp_path / "landmarks" / athena.RECORDING / "recording_3Dlandmarks.npy", found)
    assert np.abs(athena.read(data, tmp_path).joints_world_m - joints).max() < 1e-12


@pytest.mark.parametrize("fps", RATES)
def test_filters_run_at_every_frame_rate(fps):
    """ATHENA fits cubics in windows of int(2 fps / cutoff + 1) made odd; Pose2Sim a Butterworth below half the rate."""
    window = int(fps / athena.settings(fps)["all_landmarks_lfc"] * 2 + 1) | 1
    savgol_filter(np.zeros(99), window, 3)
    assert (athena.settings(fps)["all_landmarks_lfc"] == 10) == (fps >= 15), "as it comes, wherever that runs"
    cutoff = pose2sim.settings(fps)["filtering"]["butterworth"]["cut_off_frequency"]
    butter(2, cutoff / (fps / 2))
    assert (cutoff == 6) == (6 < fps / 2)
    for_hands = pose2sim.settings_for_hands(fps)
    assert for_hands["triangulation"] == {"make_c3d": False, "reproj_error_threshold_triangulation": 6}
    assert {**for_hands, "triangulation": 0} == {**pose2sim.settings(fps), "triangulation": 0}


def test_pose2sim_gets_openpose_hands(scene, tmp_path):
    rig, _, labels = scene
    data = given(rig, labels, 30.0, lens=False)
    pose2sim.write(data, tmp_path)
    for view, name in enumerate(data.rig.names):
        for frame in range(FRAMES):
            path = tmp_path / "pose" / f"{name}_json" / f"{name}_{frame:06d}.json"
            people = json.loads(path.read_text())["people"]
            if not labels.mask[frame, view].any():
                assert people == []
                continue
            hand = np.array(people[0]["pose_keypoints_2d"]).reshape(21, 3)
            assert np.abs(hand[:, :2] - data.labels.uv_px[frame, view]).max() < 1e-4
            assert (hand[:, 2] == labels.confidence[frame, view]).all()


def test_pose2sims_joints_come_back_from_its_axes_its_order_and_its_frames(scene, tmp_path):
    """A .trc has y, z and x of the calibration; frames before and after it are not placed, nor is a joint of zeros."""
    rig, _, _ = scene
    joints = swaying_hand(8)
    data = given(rig, exact_labels(rig, joints), 30.0, lens=False)
    fingers = ("Thumb", "Index", "Middle", "Ring", "Pinky")
    names = ["RWrist", *(f"R{finger}{n}" for finger in fingers for n in range(1, 5))]
    order = np.random.default_rng(0).permutation(21)
    kept = joints.copy()
    kept[4, 3] = 0
    lines = [
        "PathFileType",
        "DataRate",
        "30",
        "Frame#\tTime\t" + "\t\t\t".join(names[i] for i in order) + "\t\t\t",
        "X1",
    ]
    for frame in range(2, 7):
        row = kept[frame, order][:, [1, 2, 0]].reshape(-1)
        lines.append("\t".join([str(frame), f"{frame / 30}", *(repr(float(value)) for value in row)]))
    (tmp_path / "pose-3d").mkdir()
    (tmp_path / "pose-3d" / "project_2-7.trc").write_text("unfiltered")
    (tmp_path / "pose-3d" / "project_2-7_filt_butterworth.trc").write_text("\n".join(lines) + "\n")
    found = pose2sim.read(data, tmp_path)
    wanted = np.zeros((8, 21), bool)
    wanted[2:7] = True
    wanted[4, 3] = False
    assert (found.placed == wanted).all()
    assert np.abs(found.joints_world_m - joints)[wanted].max() < 1e-12


def test_eks_gets_a_point_in_every_camera_and_frame(scene, tmp_path):
    rig, _, labels = scene
    data = given(rig, labels, 30.0, lens=True)
    eks.write(data, tmp_path)
    for view, name in enumerate(data.rig.names):
        rows = list(csv.reader((tmp_path / eks.INPUTS / f"{name}.csv").open()))
        assert [row[0] for row in rows] == ["scorer", "bodyparts", "coords", *map(str, range(FRAMES))]
        assert rows[1][1::3] == list(JOINTS) and rows[2][1:4] == ["x", "y", "likelihood"]
        table = np.array([row[1:] for row in rows[3:]], float).reshape(FRAMES, 21, 3)
        mask = labels.mask[:, view]
        assert np.isfinite(table).all() and (table[mask, :2] == labels.uv_px[:, view][mask]).all()
        assert (table[mask, 2] == labels.confidence[:, view][mask]).all() and (table[~mask, 2] == 1e-5).all()
        if view == 0:  # a joint is missing in frames 1 and 2
            between = table[0, 7, :2] + (table[3, 7, :2] - table[0, 7, :2]) * np.array([[1 / 3], [2 / 3]])
            assert np.abs(table[1:3, 7, :2] - between).max() < 1e-9


def test_eks_joints_and_variances_come_back_in_metres(scene, tmp_path):
    rig, joints, labels = scene
    variance = np.random.default_rng(0).uniform(1, 9, joints.shape)  # mm^2
    kinds = ["x", "y", "z", "x_posterior_var", "y_posterior_var", "z_posterior_var"]
    names = list(reversed(JOINTS))
    (tmp_path / eks.OUTPUTS).mkdir()
    with (tmp_path / eks.OUTPUTS / eks.OUTPUT).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["scorer", *["tracker"] * 126])
        table.writerow(["bodyparts", *[name for name in names for _ in kinds]])
        table.writerow(["coords", *kinds * 21])
        values = np.concatenate((1000 * joints, variance), -1)[:, ::-1].reshape(FRAMES, -1)
        table.writerows([frame, *row] for frame, row in enumerate(values.tolist()))
    found = eks.read(given(rig, labels, 30.0, lens=True), tmp_path)
    assert found.placed.all() and np.abs(found.joints_world_m - joints).max() < 1e-12
    assert np.allclose(found.joints_cov_m2, 1e-6 * variance[..., None] * np.eye(3), rtol=1e-12, atol=0)


def test_gaps_are_bridged_and_nothing_but_a_number_comes_out(scene):
    rig, joints, _ = scene
    given_joints = joints.copy()
    given_joints[1:3, 4] = np.nan
    given_joints[4] = np.nan
    found = placed_joints(given_joints)
    assert np.isfinite(found.joints_world_m).all() and found.placed.sum() == FRAMES * 21 - 2 - 21
    between = joints[0, 4] + (joints[3, 4] - joints[0, 4]) * np.array([[1 / 3], [2 / 3]])
    assert np.abs(found.joints_world_m[1:3, 4] - between).max() < 1e-12
    result = as_result(found, rig, "left", "eks")
    assert not result.valid[4] and result.valid[:4].all() and (result.joint_valid == found.placed).all()
    assert result.side == "left" and not result.has_mesh and not result.joints_cov_m2.any()
    with pytest.raises(UsthandError, match="no joint in any frame"):
        placed_joints(np.full_like(joints, np.nan))


def test_bones_are_held_constant_from_knuckle_to_tip():
    assert sorted(map(tuple, anipose.optimised(30.0)["options"]["constraints"])) == sorted(BONES)
    as_program = anipose.optimised_as_the_program(30.0)["options"]
    assert as_program["constraints"] == anipose.optimised(30.0)["options"]["constraints"]
    assert as_program["n_deriv_smooth"] == 3
