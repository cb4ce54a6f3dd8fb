"""Rigs on disk and mirrored, and what is refused. test_calibration*.py have the formats of other programs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera, Rig, load_rig, save_rig
from usthand.common.errors import UsthandError
from usthand.geometry.cameras import project

CALISCOPE = """
[cam_10]
port = 10
size = [1280, 720]
error = 0.4
matrix = [[900.0, 0.0, 618.0], [0.0, 905.0, 394.0], [0.0, 0.0, 1.0]]
distortions = [-0.33, 0.05, -0.004, 0.004, 0.06]
translation = [0.1, -0.2, 0.7]
rotation = {rotation}
[cam_2]
port = 2
size = [640, 480]
matrix = [[500.0, 0.0, 320.0], [0.0, 500.0, 240.0], [0.0, 0.0, 1.0]]
distortions = [0.0, 0.0, 0.0, 0.0, 0.0]
translation = [0.0, 0.0, 0.6]
rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
[capture_volume]
stage = 2
"""

ANIPOSE = """
[cam_0]
name = "left"
size = [640, 480]
matrix = [[500.0, 0.0, 320.0], [0.0, 500.0, 240.0], [0.0, 0.0, 1.0]]
distortions = [0.01, 0.0, 0.0, 0.0, 0.0]
rotation = [0.1, -0.5, 0.3]
translation = [10.0, 0.0, 60.0]
fisheye = false
[metadata]
adjusted = true
"""


LENSES = {
    "pinhole": ("pinhole", [-0.3, 0.05, -0.01, 0.02, 0.06]),
    "thin prism": ("pinhole", [0.2, -0.1, 0.001, -0.002, 0.03, 0.1, -0.05, 0.01, 0.04, -0.02, -0.03, 0.01]),
    "fisheye": ("fisheye", [0.05, -0.02, 0.004, -0.001]),
    "fisheye624": ("fisheye624", [-0.03, 0.1, -0.07, 0.01, 0.002, -0.001, 0.03, -0.02, 0.04, -0.01, -0.02, 0.03]),
    "double sphere": ("double_sphere", [-0.17, 0.59]),
}


def rig(lens: str = "pinhole") -> Rig:
    turns = Rotation.random(3, random_state=0).as_matrix()
    model, k = LENSES[lens][0], np.array(LENSES[lens][1])
    matrix = np.array([[600.0, 0, 300.5], [0, 610, 250], [0, 0, 1]])
    return Rig(
        tuple(Camera(f"c{i}", 640, 480, matrix, k, model, turns[i], np.array([0.01 * i, 0, 0.7])) for i in range(3))
    )


def write(tmp_path, text):
    path = tmp_path / "rig.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("lens", LENSES)
def test_own_format_keeps_every_bit(tmp_path, lens):
    save_rig(rig(lens), tmp_path / "rig.toml")
    for a, b in zip(rig(lens).cameras, load_rig(tmp_path / "rig.toml").cameras, strict=True):
        assert (a.name, a.width, a.height, a.model) == (b.name, b.width, b.height, b.model)
        assert (a.matrix == b.matrix).all() and (a.distortion == b.distortion).all()
        assert (a.translation == b.translation).all()
        assert np.abs(a.rotation - b.rotation).max() < 1e-14  # made orthogonal again by an SVD


EARLIER = """version = 1
metric = false
scale = "unit of the calibration board"

[[cameras]]
name = "left \\"wide\\""
size = [640, 480]  # px
model = "pinhole"
matrix = [[500.0, 0.0, 320.1], [0.0, 500.0, 240.0], [0.0, 0.0, 1.0]]
distortion = []
rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]  # cam_from_world
translation = [0.1, -1e-17, 3.0]  # cam_from_world, the calibration's own unit
"""


def test_files_of_earlier_versions_are_read_and_written_alike(tmp_path):
    found = load_rig(write(tmp_path, EARLIER))
    assert found.names == ('left "wide"',) and not found.metric
    assert found.unit_source == "unit of the calibration board" and found.cameras[0].size == (640, 480)
    assert found.cameras[0].translation.tolist() == [0.1, -1e-17, 3.0]
    save_rig(found, tmp_path / "rig.toml")
    lines = {line.partition("  #")[0] for line in EARLIER.splitlines()}
    assert lines <= set((tmp_path / "rig.toml").read_text().splitlines())


def test_metres_are_kept_and_other_units_converted():
    metric = rig()
    assert metric.in_metres(0.1) is metric
    converted = replace(metric, metric=False).in_metres(0.1, "a guess")
    assert converted.metric and converted.unit_source == "a guess"
    np.testing.assert_allclose(converted.cameras[1].centre_world, 0.1 * metric.cameras[1].centre_world, rtol=1e-12)


def test_caliscope_is_read_in_order_of_number(tmp_path):
    turn = Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix()
    found = load_rig(write(tmp_path, CALISCOPE.format(rotation=turn.tolist())))
    assert found.names == ("cam_2", "cam_10") and found.metric
    assert np.abs(found.cameras[1].rotation - turn).max() < 1e-12
    assert (found.cameras[1].translation == [0.1, -0.2, 0.7]).all()


def test_anipose_has_rotation_vectors_and_no_metre(tmp_path):
    found = load_rig(write(tmp_path, ANIPOSE))
    assert found.names == ("left",) and not found.metric and "board" in found.unit_source
    assert np.abs(found.cameras[0].rotation - Rotation.from_rotvec([0.1, -0.5, 0.3]).as_matrix()).max() < 1e-12


def test_the_real_calibration_is_read(shared_data):
    found = load_rig(shared_data / "webcams4" / "config.toml")
    assert found.names == ("cam_0", "cam_1", "cam_2", "cam_3") and found.metric


@pytest.mark.parametrize("lens", LENSES)
def test_the_mirrored_rig_sees_the_mirrored_world(lens):
    points = torch.from_numpy(np.random.default_rng(0).uniform(-0.1, 0.1, (21, 3)))
    uv, depth = project(rig(lens).tensors(torch.float64), points)
    mirrored, same_depth = project(rig(lens).mirrored().tensors(torch.float64), points * torch.tensor([-1.0, 1, 1]))
    assert (mirrored[..., 0] - (639 - uv[..., 0])).abs().max() < 1e-9
    assert (mirrored[..., 1] - uv[..., 1]).abs().max() < 1e-9 and (depth - same_depth).abs().max() < 1e-12


@pytest.mark.parametrize("lens", LENSES)
def test_mirroring_twice_is_the_same_rig(lens):
    twice = rig(lens).mirrored().mirrored()
    for a, b in zip(rig(lens).cameras, twice.cameras, strict=True):
        assert np.allclose(a.matrix, b.matrix, atol=1e-12) and (a.rotation == b.rotation).all()
        assert (a.distortion == b.distortion).all() and (a.translation == b.translation).all()


def test_leaving_a_camera_out():
    assert rig().without("c1").names == ("c0", "c2")
    with pytest.raises(UsthandError, match="no camera 'nine'"):
        rig().without("nine")


BROKEN = {
    "is not TOML": "[[cameras\n",
    "holds no camera": "[metadata]\nboard = 3\n",
    "unknown key 'focal'": '[[cameras]]\nname = "a"\nfocal = 3\n',
    "unknown key 'lens'": 'lens = 3\n[[cameras]]\nname = "a"\n',
    "cannot be read": '[[cameras]]\nname = "a"\nsize = [3, 4]\n',
    "version 9": "version = 9\n[[cameras]]\n",
}


@pytest.mark.parametrize("fact", BROKEN)
def test_broken_files_end_in_one_sentence(tmp_path, fact):
    with pytest.raises(UsthandError, match=fact):
        load_rig(write(tmp_path, BROKEN[fact]))


CAMERA_FAULTS = {
    "the rotation of camera 'c0' is none": {"rotation": np.diag([1.0, 1, -1])},
    "not finite": {"translation": np.array([np.nan, 0, 0])},
    "focal length of zero": {"matrix": np.diag([0.0, 600, 1])},
    "3 distortion coefficients": {"distortion": np.zeros(3)},
    "lens model 'wide'": {"model": "wide"},
    "xi 0.59 and alpha -0.17": {"model": "double_sphere", "distortion": np.array([0.59, -0.17])},
    "5 distortion coefficients": {"model": "fisheye624", "distortion": np.zeros(5)},
    "more than focal lengths and a centre": {"matrix": np.array([[600.0, 5, 300], [0, 600, 240], [0, 0, 1]])},
    "matrix of camera 'c0' has more": {"matrix": np.array([[600.0, 0, 0], [0, 600, 0], [300, 240, 1]])},
}


@pytest.mark.parametrize("fact", CAMERA_FAULTS)
def test_impossible_cameras_are_refused(tmp_path, fact):
    good = rig()
    save_rig(Rig((replace(good.cameras[0], **CAMERA_FAULTS[fact]), *good.cameras[1:])), tmp_path / "rig.toml")
    with pytest.raises(UsthandError, match=fact):
        load_rig(tmp_path / "rig.toml")


def test_a_missing_file_and_a_name_used_twice(tmp_path):
    with pytest.raises(UsthandError, match="there is no"):
        load_rig(tmp_path / "rig.toml")
    save_rig(Rig((rig().cameras[0],) * 2), tmp_path / "rig.toml")
    with pytest.raises(UsthandError, match="twice"):
        load_rig(tmp_path / "rig.toml")
