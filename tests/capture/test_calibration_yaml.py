"""Calibrations in YAML: EasyMocap, Kalibr and DexYCB."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from support.calibrations import (
    DOUBLE_SPHERE,
    FISHEYE,
    FIVE,
    SIZE,
    assert_same,
    make_rig,
    world_from_cam,
    write_dexycb,
    write_easymocap,
    write_kalibr,
)
from usthand.capture.calibration.read import load_calibration, recognise
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError


@pytest.mark.parametrize("leave", ["", "vector", "matrix"])
def test_easymocap(tmp_path, leave):
    """Names with leading zeros stay as they are; R_ is a vector, Rot_ a matrix, and either suffices."""
    rig = make_rig(names=("01", "02", "08"))
    path = write_easymocap(tmp_path, rig, 0.1, True, leave)
    found = load_calibration(path)
    assert recognise(path) == recognise(path / "intri.yml") == "easymocap" and not found.metric
    assert_same(found, rig, 0.1)
    assert_same(load_calibration(path / "extri.yml", scale=0.1), rig)


def test_easymocap_takes_sizes_from_the_videos(tmp_path):
    rig = make_rig()
    path = write_easymocap(tmp_path, rig, 1.0, False)
    with pytest.raises(UsthandError, match="does not say the size of camera 'cam_0'"):
        load_calibration(path)
    assert_same(load_calibration(path, sizes={name: SIZE for name in rig.names}), rig)


def test_easymocap_as_opencv_itself_writes_it(tmp_path):
    rig = make_rig()
    for file, parts in (
        ("intri.yml", {"K": "matrix", "dist": "distortion"}),
        ("extri.yml", {"Rot": "rotation", "T": "translation"}),
    ):
        storage = cv2.FileStorage(str(tmp_path / file), cv2.FILE_STORAGE_WRITE)
        for c in rig.cameras:
            for key, attribute in parts.items():
                storage.write(f"{key}_{c.name}", np.atleast_2d(getattr(c, attribute)))
        storage.release()
    assert_same(load_calibration(tmp_path, sizes={name: SIZE for name in rig.names}), rig)


def test_easymocap_whose_rotations_disagree(tmp_path):
    rig = make_rig()
    write_easymocap(tmp_path, rig, 1.0, True)
    text = (tmp_path / "extri.yml").read_text()
    turned = Rotation.from_rotvec([0, 0, 0.1]).as_matrix() @ rig.cameras[0].rotation
    old = ", ".join(f"{v:.17g}" for v in rig.cameras[0].rotation.ravel())
    (tmp_path / "extri.yml").write_text(text.replace(old, ", ".join(f"{v:.17g}" for v in turned.ravel())))
    with pytest.raises(UsthandError, match="R_cam_0 and Rot_cam_0 are different"):
        load_calibration(tmp_path)


@pytest.mark.parametrize(
    "model, lens",
    [
        ("radtan", ("pinhole", FIVE[:4])),
        ("equidistant", ("fisheye", FISHEYE)),
        ("none", ("double_sphere", DOUBLE_SPHERE)),
    ],
)
def test_kalibr_is_a_chain_from_cam0(tmp_path, model, lens):
    """Twelve cameras: each hangs on the one before, in order of numbers, and the world is cam0's frame."""
    rig = make_rig(lens, 12, names=[f"cam{i}" for i in range(12)])
    first = world_from_cam(rig.cameras[0])
    moved = []
    for c in rig.cameras:
        pose = np.linalg.inv(world_from_cam(c)) @ first
        moved.append(replace(c, rotation=pose[:3, :3], translation=pose[:3, 3]))
    path = write_kalibr(tmp_path, Rig(tuple(moved)), model)
    found = load_calibration(path)
    assert recognise(path) == "kalibr" and found.metric
    assert_same(found, Rig(tuple(moved)))


REFUSED_BY_KALIBR = {
    "camera model omni": {"camera_model": "omni", "intrinsics": [1.2, 500, 500, 320, 240]},
    "camera model ds": {"camera_model": "ds"},  # with radtan on top, which Kalibr has not either
    "distortion model fov": {"distortion_model": "fov"},
    "intrinsics of cam0 cannot be read": {"intrinsics": [500, 320, 240]},
}


@pytest.mark.parametrize("fact", REFUSED_BY_KALIBR)
def test_what_kalibr_has_and_we_have_not(tmp_path, fact):
    rig = make_rig(("pinhole", FIVE[:4]))
    with pytest.raises(UsthandError, match=fact):
        load_calibration(write_kalibr(tmp_path, rig, "radtan", **REFUSED_BY_KALIBR[fact]))


def test_a_broken_chain(tmp_path):
    path = write_kalibr(tmp_path, make_rig(("pinhole", FIVE[:4])), "radtan")
    path.write_text(path.read_text().replace("cam1:", "cam4:"))
    with pytest.raises(UsthandError, match="cam2 but no cam1"):
        load_calibration(path)
    path.write_text(path.read_text().replace("cam4:", "cam1:").replace("T_cn_cnm1", "T_cam_imu"))
    with pytest.raises(UsthandError, match="cam1 lacks T_cn_cnm1"):
        load_calibration(path)


def test_dexycb_is_camera_to_master(tmp_path):
    rig = make_rig(("pinhole", np.zeros(0)), names=("836212060125", "839512060362", "932122060857"))
    path = write_dexycb(tmp_path / "calibration", rig)
    inner = path / "extrinsics_20200702_151821"
    for given in (path, inner, inner / "extrinsics.yml"):
        assert recognise(given) == "dexycb"
        assert_same(load_calibration(given), rig)
    write_dexycb(tmp_path / "calibration", rig, "20200813_143449")
    with pytest.raises(UsthandError, match="has 2 sessions"):
        load_calibration(path)
    assert_same(load_calibration(inner), rig)
