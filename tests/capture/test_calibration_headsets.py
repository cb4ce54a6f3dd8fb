"""Calibrations of headsets and head rigs: Project Aria, HOT3D, UmeTrack and Basalt."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from support.calibrations import DOUBLE_SPHERE, FISHEYE, META, SIZE, assert_same, make_rig, world_from_cam, wxyz
from usthand.capture.calibration.read import load_calibration, recognise
from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.geometry.cameras import project


def meta_params(c: Camera, fields: int = 16) -> list[float]:
    fx, fy, cx, cy = c.matrix[0, 0], c.matrix[1, 1], c.matrix[0, 2], c.matrix[1, 2]
    return [*([fx] if fields == 15 else [fx, fy]), cx, cy, *c.distortion.tolist()]


def pose_wxyz(c: Camera) -> dict:
    pose = world_from_cam(c)
    return {"quaternion_wxyz": wxyz(pose[:3, :3]), "translation_xyz": pose[:3, 3].tolist()}


def hot3d_clip(rig: Rig, fields: int) -> dict:
    return {
        c.name: {
            "T_world_from_camera": {"quaternion_wxyz": [1, 0, 0, 0], "translation_xyz": [9, 9, 9]},
            "calibration": {
                "label": "camera",
                "image_width": SIZE[0],
                "image_height": SIZE[1],
                "T_device_from_camera": pose_wxyz(c),
                "projection_model_type": "CameraModelType.FISHEYE624",
                "projection_params": meta_params(c, fields),
            },
        }
        for c in rig.cameras
    }


def hot3d_models(rig: Rig, fields: int) -> list:
    return [
        {
            "label": c.name,
            "T_Device_Camera": pose_wxyz(c),
            "imageWidth": SIZE[0],
            "imageHeight": SIZE[1],
            "projectionModelType": "CameraModelType.FISHEYE624",
            "projectionParams": meta_params(c, fields),
            "serialNumber": "0",
        }
        for c in rig.cameras
    ]


def aria(rig: Rig, fields: int) -> dict:
    cameras = []
    for c in rig.cameras:
        pose = pose_wxyz(c)
        w, *xyz = pose["quaternion_wxyz"]
        cameras.append(
            {
                "Label": c.name,
                "SerialNumber": "0",
                "Calibrated": True,
                "Projection": {"Name": "FisheyeRadTanThinPrism", "Params": meta_params(c, fields)},
                "T_Device_Camera": {"Translation": pose["translation_xyz"], "UnitQuaternion": [w, xyz]},
            }
        )
    eye = {**cameras[0], "Label": "camera-et-left", "Projection": {"Name": "KannalaBrandtK3", "Params": [1, 2]}}
    return {"CameraCalibrations": [*cameras, eye], "ImageSizes": [list(SIZE)] * len(rig)}


@pytest.mark.parametrize("layout", [hot3d_clip, hot3d_models, aria])
@pytest.mark.parametrize("fields", [15, 16])
def test_fisheye624(tmp_path, layout, fields):
    """Camera->device is inverted, and the device is the world; one focal length or two."""
    rig = make_rig(("fisheye624", META), square=fields == 15, names=("214-1", "1201-1", "1201-2"))
    (tmp_path / "cameras.json").write_text(json.dumps(layout(rig, fields)))
    assert recognise(tmp_path / "cameras.json") == "fisheye624"
    found = load_calibration(tmp_path / "cameras.json")
    assert found.metric
    assert_same(found, rig)


def test_metas_tangential_terms_are_opencvs_the_other_way_round(tmp_path):
    """On the axis x, Meta's first tangential coefficient moves x, as OpenCV's second does."""
    k = np.zeros(12)
    k[6] = 0.02
    rig = make_rig(("fisheye624", k), 1, names=("214-1",))
    (tmp_path / "cameras.json").write_text(json.dumps(hot3d_models(rig, 16)))
    camera = load_calibration(tmp_path / "cameras.json").cameras[0]
    still = Rig((replace(camera, rotation=np.eye(3), translation=np.zeros(3)),))
    uv = project(still.tensors(torch.float64), torch.tensor([[np.tan(0.5), 0.0, 1.0]], dtype=torch.float64))[0][
        0, 0
    ].numpy()
    expected = camera.matrix[0, 0] * (0.5 + 0.02 * 3 * 0.5**2) + camera.matrix[0, 2]
    assert abs(uv[0] - expected) < 1e-9 and abs(uv[1] - camera.matrix[1, 2]) < 1e-9


def test_aria_sizes_by_label(tmp_path):
    rig = make_rig(("fisheye624", META), 2, names=("camera-slam-left", "camera-rgb"))
    data = aria(rig, 15)
    del data["ImageSizes"]
    (tmp_path / "calib.json").write_text(json.dumps(data))
    found = load_calibration(tmp_path / "calib.json")
    assert [(c.width, c.height) for c in found.cameras] == [(640, 480), (2880, 2880)]


def test_fisheye624_with_other_lenses_and_counts(tmp_path):
    rig = make_rig(("fisheye624", META))
    for change, fact in (
        ({"projectionParams": [1.0] * 14}, "14 parameters"),
        ({"projectionModelType": "PINHOLE"}, "lens PINHOLE"),
    ):
        (tmp_path / "c.json").write_text(json.dumps([{**entry, **change} for entry in hot3d_models(rig, 15)]))
        with pytest.raises(UsthandError, match=fact):
            load_calibration(tmp_path / "c.json")


def umetrack(rig: Rig, drift: str) -> dict:
    """Three frames: one untracked, then the rig as it is, then moved as a whole, or one camera alone."""
    poses = np.stack([world_from_cam(c) for c in rig.cameras])
    poses[:, :3, 3] *= 1000
    walk = np.eye(4)
    walk[:3, :3], walk[:3, 3] = Rotation.from_rotvec([0.1, 0.4, 0]).as_matrix(), [100, 20, -50]
    later = {"still": poses, "walks": walk @ poses, "comes apart": np.stack([poses[0], *(walk @ poses[1:])])}[drift]
    names = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
    cameras = [
        {
            "ImageSizeX": SIZE[0],
            "ImageSizeY": SIZE[1],
            "DistortionModel": "FishEye62",
            **dict(zip(("fx", "fy", "cx", "cy"), meta_params(c)[:4], strict=True)),
            **dict(zip(names, c.distortion, strict=False)),
        }
        for c in rig.cameras
    ]
    nested = [{"Camera": cameras[0]}, json.dumps(cameras[1]), *cameras[2:]]
    transforms = np.stack([np.zeros_like(poses), poses, later])
    return {"cameras": nested, "camera_angles": [0.0] * len(rig), "camera_to_world_transforms": transforms.tolist()}


@pytest.mark.parametrize("drift", ["still", "walks"])
def test_umetrack_is_in_millimetres_and_may_walk(tmp_path, drift):
    """A headset that moves is a rig all the same; the world is then its first camera's frame."""
    rig = make_rig(("fisheye624", np.r_[META[:8], np.zeros(4)]))
    (tmp_path / "r.json").write_text(json.dumps(umetrack(rig, drift)))
    found = load_calibration(tmp_path / "r.json")
    assert recognise(tmp_path / "r.json") == "umetrack" and found.metric
    if drift == "walks":
        first, moved = world_from_cam(rig.cameras[0]), []
        for c in rig.cameras:
            pose = np.linalg.inv(world_from_cam(c)) @ first
            moved.append(replace(c, rotation=pose[:3, :3], translation=pose[:3, 3]))
        rig = Rig(tuple(moved))
    assert_same(found, rig)


def test_umetrack_cameras_that_come_apart(tmp_path):
    rig = make_rig(("fisheye624", np.r_[META[:8], np.zeros(4)]))
    (tmp_path / "r.json").write_text(json.dumps(umetrack(rig, "comes apart")))
    with pytest.raises(UsthandError, match="move against each other"):
        load_calibration(tmp_path / "r.json")


def basalt(rig: Rig) -> dict:
    names = {"double_sphere": ("ds", ("xi", "alpha")), "fisheye": ("kb4", ("k1", "k2", "k3", "k4"))}
    poses, lenses = [], []
    for c in rig.cameras:
        pose, (kind, keys) = world_from_cam(c), names[c.model]
        w, x, y, z = wxyz(pose[:3, :3])
        px, py, pz = pose[:3, 3].tolist()
        poses.append({"px": px, "py": py, "pz": pz, "qx": x, "qy": y, "qz": z, "qw": w})
        inner = dict(zip(("fx", "fy", "cx", "cy"), meta_params(c)[:4], strict=True))
        inner |= dict(zip(keys, c.distortion.tolist(), strict=True))
        lenses.append({"camera_type": kind, "intrinsics": inner})
    return {"value0": {"T_imu_cam": poses, "intrinsics": lenses, "resolution": [list(SIZE)] * len(rig)}}


@pytest.mark.parametrize("lens", [("double_sphere", DOUBLE_SPHERE), ("fisheye", FISHEYE)])
def test_basalt(tmp_path, lens):
    """Camera->IMU is inverted, and the IMU's frame is the world."""
    rig = make_rig(lens, names=("cam0", "cam1", "cam2"))
    (tmp_path / "calibration.json").write_text(json.dumps(basalt(rig)))
    assert recognise(tmp_path / "calibration.json") == "basalt"
    found = load_calibration(tmp_path / "calibration.json")
    assert found.metric
    assert_same(found, rig)


def test_basalt_with_other_lenses_and_cut_short(tmp_path):
    data = basalt(make_rig(("double_sphere", DOUBLE_SPHERE), names=("cam0", "cam1", "cam2")))
    data["value0"]["intrinsics"][1]["camera_type"] = "eucm"
    (tmp_path / "c.json").write_text(json.dumps(data))
    with pytest.raises(UsthandError, match="cam1 has the camera type eucm"):
        load_calibration(tmp_path / "c.json")
    del data["value0"]["intrinsics"][1]
    (tmp_path / "c.json").write_text(json.dumps(data))
    with pytest.raises(UsthandError, match="not as many poses"):
        load_calibration(tmp_path / "c.json")
