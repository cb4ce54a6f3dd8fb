"""Every calibration format: a random rig is laid out in it by formulas of scipy's, and comes back as it was."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from usthand.capture.calibration.read import FORMATS, find_calibration, read_calibration, recognise
from usthand.capture.rig import Camera, Rig, load_rig, save_rig
from usthand.common.errors import UsthandError
from usthand.geometry.cameras import project

SIZE = (640, 480)
FIVE = np.array([-0.3, 0.05, -0.01, 0.02, 0.06])
EIGHT = np.array([0.2, -0.1, 0.001, -0.002, 0.03, 0.1, -0.05, 0.01])
FISHEYE = np.array([0.05, -0.02, 0.004, -0.001])
META = np.array([-0.03, 0.1, -0.07, 0.01, 0.002, -0.001, 0.03, -0.02, 0.04, -0.01, -0.02, 0.03])


def make_rig(lens=("pinhole", FIVE), count: int = 3, square: bool = False, names=None) -> Rig:
    """Cameras anywhere within a metre or two, in metres."""
    rng = np.random.default_rng(7)
    cameras = []
    for i, turn in enumerate(Rotation.random(count, random_state=7)):
        fx, fy = rng.uniform(400, 700, 2)
        matrix = np.array([[fx, 0, rng.uniform(300, 340)], [0, fx if square else fy, rng.uniform(220, 260)], [0, 0, 1]])
        name = names[i] if names else f"cam_{i}"
        cameras.append(Camera(name, *SIZE, matrix, lens[1], lens[0], turn.as_matrix(), rng.uniform(-1, 1, 3)))
    return Rig(tuple(cameras))


def assert_same(found: Rig, truth: Rig, unit_m: float = 1.0, tolerance: float = 1e-9) -> None:
    """The same cameras; `unit_m`: metres in a unit of a rig that is not metric."""
    assert found.names == truth.names
    for a, b in zip(found.cameras, truth.cameras, strict=True):
        assert (a.width, a.height, a.model) == (b.width, b.height, b.model)
        assert np.abs(a.matrix - b.matrix).max() < tolerance * 1000
        assert np.abs(a.coefficients - b.coefficients).max() < tolerance
        assert np.abs(a.rotation - b.rotation).max() < tolerance
        assert np.abs(a.translation * unit_m - b.translation).max() < tolerance


def world_from_cam(camera: Camera) -> np.ndarray:
    """4x4, by scipy."""
    turn = Rotation.from_matrix(camera.rotation).inv()
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn.as_matrix(), -turn.apply(camera.translation)
    return pose


def vector(camera: Camera) -> np.ndarray:
    return Rotation.from_matrix(camera.rotation).as_rotvec()


def wxyz(matrix: np.ndarray) -> list[float]:
    x, y, z, w = Rotation.from_matrix(matrix).as_quat()
    return [w, x, y, z]


def lists(values) -> str:
    return json.dumps(np.asarray(values).tolist())


# ---- TOML ---------------------------------------------------------------------------------------------------------


def toml_table(key: str, camera: Camera, rotation, unit_m: float, **more) -> str:
    lines = [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in more.items()), f"size = {lists(SIZE)}"]
    lines += [f"matrix = {lists(camera.matrix)}", f"distortions = {lists(camera.distortion)}"]
    return (
        "\n".join([*lines, f"rotation = {lists(rotation)}", f"translation = {lists(camera.translation / unit_m)}"])
        + "\n"
    )


def write_caliscope(path: Path, rig: Rig, keys=("cam_0", "cam_2", "cam_10")) -> Path:
    """Keys in the order of strings, as TOML writers sort them."""
    tables = sorted(
        (key, toml_table(key, camera, camera.rotation, 1.0)) for key, camera in zip(keys, rig.cameras, strict=True)
    )
    (path / "config.toml").write_text("".join(table for _, table in tables) + "[capture_volume]\nstage = 2\n")
    return path / "config.toml"


def write_anipose(path: Path, rig: Rig, unit_m: float, metadata: str = "", fisheye: bool = False, **more) -> Path:
    tables = [
        toml_table(f"cam_{i}", c, vector(c), unit_m, name=c.name, fisheye=fisheye, **more)
        for i, c in enumerate(rig.cameras)
    ]
    (path / "calibration.toml").write_text("".join(sorted(tables)) + f"[metadata]\nadjusted = false\n{metadata}")
    return path / "calibration.toml"


def test_caliscope(tmp_path):
    """cam_10 comes after cam_2, although its string comes before."""
    rig = make_rig(names=("cam_0", "cam_2", "cam_10"))
    assert_same(read_calibration(write_caliscope(tmp_path, rig)), rig)
    assert recognise(tmp_path / "config.toml") == "caliscope"
    assert_same(load_rig(tmp_path / "config.toml"), rig)
    short = write_caliscope(tmp_path, rig, ("cameras.0", "cameras.2", "cameras.10"))
    assert_same(read_calibration(short), rig)


@pytest.mark.parametrize("lens", [("pinhole", FIVE), ("fisheye", FISHEYE)])
def test_anipose(tmp_path, lens):
    """Eleven cameras, so that their keys sort wrongly; rotation vectors; no metre."""
    rig = make_rig(lens, 11)
    path = write_anipose(tmp_path, rig, 0.0254, fisheye=lens[0] == "fisheye")
    found = read_calibration(path)
    assert recognise(path) == "anipose" and not found.metric and "board" in found.unit_source
    assert_same(found, rig, 0.0254)
    scaled = read_calibration(path, scale=0.0254)
    assert scaled.metric and "0.0254 m" in scaled.unit_source and "--scale" in scaled.unit_source
    assert_same(scaled, rig)


def test_freemocap_is_in_millimetres(tmp_path):
    rig = make_rig(names=("Camera_000", "Camera_001", "Camera_002"))
    path = write_anipose(tmp_path, rig, 1e-3, "charuco_square_size = 58.0\n")
    found = read_calibration(path)
    assert recognise(path) == "freemocap" and found.metric and "millimetres" in found.unit_source
    assert_same(found, rig)
    assert_same(load_rig(path), rig)
    path = write_anipose(tmp_path, rig, 1e-3, world_position=[1.0, 2.0, 3.0])
    assert recognise(path) == "freemocap"
    assert_same(read_calibration(path), rig)


def test_a_freemocap_board_of_unit_squares_has_no_scale(tmp_path):
    rig = make_rig()
    found = read_calibration(write_anipose(tmp_path, rig, 0.058, "charuco_square_size = 1\n"))
    assert not found.metric and "given as 1" in found.unit_source
    assert_same(found, rig, 0.058)


def test_our_own_is_read_too(tmp_path):
    rig = make_rig(("fisheye624", META))
    save_rig(rig, tmp_path / "rig.toml")
    assert_same(read_calibration(tmp_path / "rig.toml"), rig)
    doubled = read_calibration(tmp_path / "rig.toml", scale=2.0)
    assert_same(doubled, rig, 0.5)


# ---- EasyMocap -----------------------------------------------------------------------------------------------------


def write_easymocap(
    path: Path, rig: Rig, unit_m: float, sizes: bool, leave: str = "", header: str = "%YAML:1.0\r\n---\r\n"
):
    """As OpenCV's FileStorage writes, with all digits."""

    def matrix(key: str, value) -> str:
        rows, cols = np.atleast_2d(value).shape
        data = ", ".join(f"{v:.17g}" for v in np.ravel(value))
        return f"{key}: !!opencv-matrix\r\n  rows: {rows}\r\n  cols: {cols}\r\n  dt: d\r\n  data: [{data}]\r\n"

    names = "names:\r\n" + "".join(f'  - "{c.name}"\r\n' for c in rig.cameras)
    intri, extri = header + names, header + names
    for c in rig.cameras:
        intri += matrix(f"K_{c.name}", c.matrix) + matrix(f"dist_{c.name}", c.distortion[None])
        intri += f"H_{c.name}: {SIZE[1]}\r\nW_{c.name}: {SIZE[0]}\r\n" if sizes else ""
        extri += "" if leave == "vector" else matrix(f"R_{c.name}", vector(c)[:, None])
        extri += "" if leave == "matrix" else matrix(f"Rot_{c.name}", c.rotation)
        extri += matrix(f"T_{c.name}", c.translation[:, None] / unit_m)
    (path / "intri.yml").write_text(intri)
    (path / "extri.yml").write_text(extri)
    return path


@pytest.mark.parametrize("leave", ["", "vector", "matrix"])
def test_easymocap(tmp_path, leave):
    """Names with leading zeros stay as they are; R_ is a vector, Rot_ a matrix, and either suffices."""
    rig = make_rig(names=("01", "02", "08"))
    path = write_easymocap(tmp_path, rig, 0.1, True, leave)
    found = read_calibration(path)
    assert recognise(path) == recognise(path / "intri.yml") == "easymocap" and not found.metric
    assert_same(found, rig, 0.1)
    assert_same(read_calibration(path / "extri.yml", scale=0.1), rig)


def test_easymocap_takes_sizes_from_the_videos(tmp_path):
    rig = make_rig()
    path = write_easymocap(tmp_path, rig, 1.0, False)
    with pytest.raises(UsthandError, match="does not say the size of camera 'cam_0'"):
        read_calibration(path)
    assert_same(read_calibration(path, sizes={name: SIZE for name in rig.names}), rig)


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
    assert_same(read_calibration(tmp_path, sizes={name: SIZE for name in rig.names}), rig)


def test_easymocap_whose_rotations_disagree(tmp_path):
    rig = make_rig()
    write_easymocap(tmp_path, rig, 1.0, True)
    text = (tmp_path / "extri.yml").read_text()
    turned = Rotation.from_rotvec([0, 0, 0.1]).as_matrix() @ rig.cameras[0].rotation
    old = ", ".join(f"{v:.17g}" for v in rig.cameras[0].rotation.ravel())
    (tmp_path / "extri.yml").write_text(text.replace(old, ", ".join(f"{v:.17g}" for v in turned.ravel())))
    with pytest.raises(UsthandError, match="R_cam_0 and Rot_cam_0 are different"):
        read_calibration(tmp_path)


# ---- Kalibr --------------------------------------------------------------------------------------------------------


def write_kalibr(path: Path, rig: Rig, model: str, **changes) -> Path:
    before, text = np.eye(4), ""
    for i, c in enumerate(rig.cameras):
        pose = np.linalg.inv(world_from_cam(c))
        fx, fy, cx, cy = c.matrix[0, 0], c.matrix[1, 1], c.matrix[0, 2], c.matrix[1, 2]
        entry = {
            "camera_model": "pinhole",
            "intrinsics": [fx, fy, cx, cy],
            "distortion_model": model,
            "distortion_coeffs": c.distortion.tolist(),
            "resolution": list(SIZE),
            "rostopic": f"/cam{i}/image",
        } | changes
        text += f"cam{i}:\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in entry.items())
        if i:
            text += "  T_cn_cnm1:\n" + "".join(f"  - {lists(row)}\n" for row in pose @ np.linalg.inv(before))
        before = pose
    (path / "camchain.yaml").write_text(text)
    return path / "camchain.yaml"


@pytest.mark.parametrize("model, lens", [("radtan", ("pinhole", FIVE[:4])), ("equidistant", ("fisheye", FISHEYE))])
def test_kalibr_is_a_chain_from_cam0(tmp_path, model, lens):
    """Twelve cameras: each hangs on the one before, in order of numbers, and the world is cam0's frame."""
    rig = make_rig(lens, 12, names=[f"cam{i}" for i in range(12)])
    first = world_from_cam(rig.cameras[0])
    moved = []
    for c in rig.cameras:
        pose = np.linalg.inv(world_from_cam(c)) @ first
        moved.append(replace(c, rotation=pose[:3, :3], translation=pose[:3, 3]))
    path = write_kalibr(tmp_path, Rig(tuple(moved)), model)
    found = read_calibration(path)
    assert recognise(path) == "kalibr" and found.metric
    assert_same(found, Rig(tuple(moved)))


REFUSED_BY_KALIBR = {
    "camera model omni": {"camera_model": "omni", "intrinsics": [1.2, 500, 500, 320, 240]},
    "camera model ds": {"camera_model": "ds"},
    "distortion model fov": {"distortion_model": "fov"},
    "intrinsics of cam0 cannot be read": {"intrinsics": [500, 320, 240]},
}


@pytest.mark.parametrize("fact", REFUSED_BY_KALIBR)
def test_what_kalibr_has_and_we_have_not(tmp_path, fact):
    rig = make_rig(("pinhole", FIVE[:4]))
    with pytest.raises(UsthandError, match=fact):
        read_calibration(write_kalibr(tmp_path, rig, "radtan", **REFUSED_BY_KALIBR[fact]))


def test_a_broken_chain(tmp_path):
    path = write_kalibr(tmp_path, make_rig(("pinhole", FIVE[:4])), "radtan")
    path.write_text(path.read_text().replace("cam1:", "cam4:"))
    with pytest.raises(UsthandError, match="cam2 but no cam1"):
        read_calibration(path)
    path.write_text(path.read_text().replace("cam4:", "cam1:").replace("T_cn_cnm1", "T_cam_imu"))
    with pytest.raises(UsthandError, match="cam1 lacks T_cn_cnm1"):
        read_calibration(path)


# ---- headsets ------------------------------------------------------------------------------------------------------


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
    found = read_calibration(tmp_path / "cameras.json")
    assert found.metric
    assert_same(found, rig)


def test_metas_tangential_terms_are_opencvs_the_other_way_round(tmp_path):
    """On the axis x, Meta's first tangential coefficient moves x, as OpenCV's second does."""
    k = np.zeros(12)
    k[6] = 0.02
    rig = make_rig(("fisheye624", k), 1, names=("214-1",))
    (tmp_path / "cameras.json").write_text(json.dumps(hot3d_models(rig, 16)))
    camera = read_calibration(tmp_path / "cameras.json").cameras[0]
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
    found = read_calibration(tmp_path / "calib.json")
    assert [(c.width, c.height) for c in found.cameras] == [(640, 480), (2880, 2880)]


def test_fisheye624_with_other_lenses_and_counts(tmp_path):
    rig = make_rig(("fisheye624", META))
    for change, fact in (
        ({"projectionParams": [1.0] * 14}, "14 parameters"),
        ({"projectionModelType": "PINHOLE"}, "lens PINHOLE"),
    ):
        (tmp_path / "c.json").write_text(json.dumps([{**entry, **change} for entry in hot3d_models(rig, 15)]))
        with pytest.raises(UsthandError, match=fact):
            read_calibration(tmp_path / "c.json")


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
    found = read_calibration(tmp_path / "r.json")
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
        read_calibration(tmp_path / "r.json")


# ---- structure from motion -----------------------------------------------------------------------------------------


def opengl(camera: Camera) -> list:
    """Camera->world with OpenGL's axes: a half turn about x, by scipy."""
    pose = world_from_cam(camera)
    pose[:3, :3] = (Rotation.from_matrix(pose[:3, :3]) * Rotation.from_euler("x", 180, degrees=True)).as_matrix()
    return pose.tolist()


def write_nerfstudio(path: Path, rig: Rig, shared: bool, files=None, **changes) -> Path:
    frames, common = [], {}
    for i, c in enumerate(rig.cameras):
        names = ("k1", "k2", "k3", "k4") if c.model == "fisheye" else ("k1", "k2", "p1", "p2", "k3")
        inner = {
            "fl_x": c.matrix[0, 0],
            "fl_y": c.matrix[1, 1],
            "cx": c.matrix[0, 2] + 0.5,
            "cy": c.matrix[1, 2] + 0.5,
            "w": SIZE[0],
            "h": SIZE[1],
            **dict(zip(names, c.distortion.tolist(), strict=False)),
        }
        frame = {"file_path": files[i] if files else f"images/{c.name}.png", "transform_matrix": opengl(c)}
        common = inner if shared else {}
        frames.append(frame if shared else {**frame, **inner})
    model = "OPENCV_FISHEYE" if rig.cameras[0].model == "fisheye" else "OPENCV"
    (path / "transforms.json").write_text(json.dumps({"camera_model": model, **common, "frames": frames, **changes}))
    return path


def one_lens(rig: Rig) -> Rig:
    return Rig(tuple(replace(c, matrix=rig.cameras[0].matrix) for c in rig.cameras))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("lens", [("pinhole", FIVE), ("fisheye", FISHEYE)])
def test_nerfstudio(tmp_path, lens, shared):
    """OpenGL's axes, camera->world, half a pixel, and intrinsics for all or for each."""
    rig = make_rig(lens)
    rig = one_lens(rig) if shared else rig
    found = read_calibration(write_nerfstudio(tmp_path, rig, shared))
    assert recognise(tmp_path) == recognise(tmp_path / "transforms.json") == "nerfstudio"
    assert not found.metric and "arbitrary" in found.unit_source
    assert_same(found, rig)
    assert_same(read_calibration(tmp_path, scale=2.5), rig, 1 / 2.5)


def test_a_nerf_with_a_field_of_view_only(tmp_path):
    rig = make_rig(("pinhole", np.zeros(5)), 2)
    frames = [{"file_path": f"./{c.name}.png", "transform_matrix": opengl(c)} for c in rig.cameras]
    data = {"camera_angle_x": 2 * np.arctan(0.5), "w": 640, "h": 480, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    found = read_calibration(tmp_path).cameras[0]
    assert np.abs(found.matrix - [[640, 0, 319.5], [0, 640, 239.5], [0, 0, 1]]).max() < 1e-9


@pytest.mark.parametrize(
    "change, fact",
    [({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"), ({"k4": 0.1}, "perspective camera with k4")],
)
def test_what_nerfstudio_has_and_we_have_not(tmp_path, change, fact):
    write_nerfstudio(tmp_path, one_lens(make_rig()), True, **change)
    with pytest.raises(UsthandError, match=fact):
        read_calibration(tmp_path)


COLMAP_LENSES = {
    "SIMPLE_PINHOLE": (0, "pinhole", []),
    "PINHOLE": (1, "pinhole", []),
    "SIMPLE_RADIAL": (2, "pinhole", [0.1]),
    "RADIAL": (3, "pinhole", [0.1, -0.05]),
    "OPENCV": (4, "pinhole", FIVE[:4]),
    "OPENCV_FISHEYE": (5, "fisheye", FISHEYE),
    "FULL_OPENCV": (6, "pinhole", EIGHT),
    "SIMPLE_RADIAL_FISHEYE": (8, "fisheye", [0.1]),
    "RADIAL_FISHEYE": (9, "fisheye", [0.1, -0.05]),
    "RAD_TAN_THIN_PRISM_FISHEYE": (11, "fisheye624", META),
    "FOV": (7, "pinhole", [0.9]),
    "THIN_PRISM_FISHEYE": (10, "pinhole", EIGHT),
}
ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")


def write_colmap(path: Path, rig: Rig, kind: str, binary: bool, files=None, cameras=None) -> Path:
    """`cameras`: which camera each image is of; by default each its own."""
    path.mkdir(parents=True, exist_ok=True)
    number, cameras = COLMAP_LENSES[kind][0], cameras or list(range(1, len(rig) + 1))
    files = files or [f"{c.name}.jpg" for c in rig.cameras]
    lenses, images = {}, []
    for c, camera, file in zip(rig.cameras, cameras, files, strict=True):
        fx, fy, cx, cy = c.matrix[0, 0], c.matrix[1, 1], c.matrix[0, 2] + 0.5, c.matrix[1, 2] + 0.5
        lenses[camera] = [*([fx] if kind in ONE_FOCAL else [fx, fy]), cx, cy, *np.asarray(c.distortion).tolist()]
        images.append((wxyz(c.rotation), c.translation.tolist(), camera, file))
    if binary:
        data = struct.pack("<Q", len(lenses))
        for camera, params in lenses.items():
            data += struct.pack(f"<iiQQ{len(params)}d", camera, number, *SIZE, *params)
        (path / "cameras.bin").write_bytes(data)
        data = struct.pack("<Q", len(images))
        for i, (q, t, camera, file) in enumerate(images):
            data += struct.pack("<i7di", i + 1, *q, *t, camera) + file.encode() + b"\0"
            data += struct.pack("<Q", i) + struct.pack("<ddq", 1.0, 2.0, -1) * i  # as many points as its number
        (path / "images.bin").write_bytes(data)
        return path
    text = "# Camera list\n" + "".join(
        f"{camera} {kind} {SIZE[0]} {SIZE[1]} {' '.join(map(repr, map(float, params)))}\n"
        for camera, params in lenses.items()
    )
    (path / "cameras.txt").write_text(text)
    text = "# Image list\n# POINTS2D[]\n"
    for i, (q, t, camera, file) in enumerate(images):
        points = "1.0 2.0 -1 " * i  # the first image has an empty line
        text += f"{i + 1} {' '.join(map(repr, map(float, [*q, *t])))} {camera} {file}\n{points.strip()}\n"
    (path / "images.txt").write_text(text)
    return path


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", COLMAP_LENSES)
def test_colmap(tmp_path, kind, binary):
    """World->camera, half a pixel; text and binary; lenses that are none of ours are refused by name."""
    _, model, k = COLMAP_LENSES[kind]
    rig = make_rig((model, np.asarray(k, float)), square=kind in ONE_FOCAL)
    path = write_colmap(tmp_path / "sparse" / "0", rig, kind, binary)
    if kind in ("FOV", "THIN_PRISM_FISHEYE"):
        with pytest.raises(UsthandError, match=f"has the model {kind}"):
            read_calibration(path)
        return
    found = read_calibration(tmp_path)
    assert (
        recognise(tmp_path) == recognise(path / f"images.{'bin' if binary else 'txt'}") == "colmap" and not found.metric
    )
    assert_same(found, rig)


def frames_of(rig: Rig, moved_m: float = 0.0) -> Rig:
    """Every camera twice, the second time moved."""
    return Rig(
        tuple(
            replace(c, name=f"{c.name}_{k}", translation=c.translation + moved_m * k)
            for c in rig.cameras
            for k in (0, 1)
        )
    )


@pytest.mark.parametrize("kind", ["colmap", "nerfstudio"])
def test_several_images_of_a_camera(tmp_path, kind):
    rig = make_rig(("pinhole", FIVE[:4]), names=("left", "mid", "right"))
    twice = frames_of(rig, 1e-4)

    def write(which: Rig, files, cameras=None) -> Path:
        if kind == "colmap":
            return write_colmap(tmp_path, which, "OPENCV", False, files, cameras)
        return write_nerfstudio(tmp_path, which, False, files)

    folders = [f"images/{c.name.split('_')[0]}/000{i % 2}.jpg" for i, c in enumerate(twice.cameras)]
    found = read_calibration(write(twice, folders, [1, 1, 2, 2, 3, 3]))
    assert_same(found, rig)  # one of each folder, named by it
    flat = [f"images/{c.name.split('_')[0]}_000{i % 2}.jpg" for i, c in enumerate(twice.cameras)]
    assert_same(
        read_calibration(write(twice, flat, [1, 1, 2, 2, 3, 3])), rig
    )  # one of each lens, named by what is common
    chosen = read_calibration(tmp_path, images=("left_0000", "right_0001.jpg"))
    assert chosen.names == ("left_0000", "right_0001")
    with pytest.raises(UsthandError, match="has 0 images 'centre'"):
        read_calibration(tmp_path, images=("centre",))
    with pytest.raises(UsthandError, match="camera of images/left moves"):
        read_calibration(write(frames_of(rig, 0.5), folders, [1, 1, 2, 2, 3, 3]))
    # One lens for all and every image elsewhere: each is a camera.
    same = Rig(tuple(replace(c, matrix=rig.cameras[0].matrix) for c in rig.cameras))
    assert_same(read_calibration(write(same, None, [1, 1, 1])), same)


# ---- DexYCB --------------------------------------------------------------------------------------------------------


def write_dexycb(path: Path, rig: Rig, session: str = "20200702_151821") -> Path:
    (path / "intrinsics").mkdir(parents=True, exist_ok=True)
    (path / f"extrinsics_{session}").mkdir()
    text = f"extrinsics:\n  apriltag: {lists(np.eye(4)[:3].ravel())}\n"
    for c in rig.cameras:
        text += f"  '{c.name}': {lists(world_from_cam(c)[:3].ravel())}\n"
        inner = {"fx": c.matrix[0, 0], "fy": c.matrix[1, 1], "ppx": c.matrix[0, 2], "ppy": c.matrix[1, 2]}
        depth = {key: 1.0 for key in inner}
        file = path / "intrinsics" / f"{c.name}_640x480.yml"
        file.write_text(f"color: {json.dumps(inner)}\ndepth: {json.dumps(depth)}\n")
    (path / f"extrinsics_{session}" / "extrinsics.yml").write_text(text + f"master: '{rig.cameras[0].name}'\n")
    return path


def test_dexycb_is_camera_to_master(tmp_path):
    rig = make_rig(("pinhole", np.zeros(0)), names=("836212060125", "839512060362", "932122060857"))
    path = write_dexycb(tmp_path / "calibration", rig)
    inner = path / "extrinsics_20200702_151821"
    for given in (path, inner, inner / "extrinsics.yml"):
        assert recognise(given) == "dexycb"
        assert_same(read_calibration(given), rig)
    write_dexycb(tmp_path / "calibration", rig, "20200813_143449")
    with pytest.raises(UsthandError, match="has 2 sessions"):
        read_calibration(path)
    assert_same(read_calibration(inner), rig)


# ---- all -----------------------------------------------------------------------------------------------------------


def test_tiny_numbers_are_numbers_in_yaml(tmp_path):
    """YAML 1.1 takes 1e-05 for a text; a distortion of that size must not stop a calibration."""
    rig = make_rig(("pinhole", np.array([1e-05, -2e-07, 0, 0])), 2, names=("cam0", "cam1"))
    path = write_kalibr(tmp_path, rig, "radtan")
    assert "1e-05" in path.read_text()
    assert (read_calibration(path).cameras[0].distortion == rig.cameras[0].distortion).all()


def test_yaml_runs_nothing(tmp_path):
    (tmp_path / "camchain.yaml").write_text("cam0: !!python/object/apply:os.mkdir ['made']\n")
    with pytest.raises(UsthandError):
        read_calibration(tmp_path / "camchain.yaml")
    assert not Path("made").exists()


BROKEN = {
    "c.toml": ("[[", "is not TOML"),
    "c.json": ("{", "is not JSON"),
    "c.yaml": ("a: [1", "is not YAML"),
    "d.json": ('{"a": 1}', "of no calibration format"),
    "d.yaml": ("a: 1", "of no calibration format"),
    "d.csv": ("1,2", "of no calibration format"),
    "e.json": ('{"frames": [{"transform_matrix": [[1]], "file_path": "a"}], "w": 3, "h": 3}', "transform_matrix of a"),
    "g.json": (
        '{"CameraCalibrations": [{"Label": "a", "Projection": {"Name": "FisheyeRadTanThinPrism", "Params": [1]}, '
        '"T_Device_Camera": {"Translation": 1, "UnitQuaternion": 2}}]}',
        "cannot be read",
    ),
    "h.json": (
        '{"frames": [{"transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "file_path": 3}], "w": 3, "h": 3, "fl_x": 2}',
        "cannot be read",
    ),
    "f.json": (
        '{"cameras": [{}], "camera_to_world_transforms": [[[[1]]]]}',
        "camera_to_world_transforms cannot be read",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_end_in_one_sentence(tmp_path, name):
    text, fact = BROKEN[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(UsthandError, match=fact):
        read_calibration(tmp_path / name)


def test_what_is_not_there_or_not_said_rightly(tmp_path):
    with pytest.raises(UsthandError, match="there is no"):
        read_calibration(tmp_path / "nothing.toml")
    with pytest.raises(UsthandError, match="no calibration format"):
        read_calibration(tmp_path)
    rig = make_rig()
    path = write_caliscope(tmp_path, rig)
    with pytest.raises(UsthandError, match="no format 'opencv'"):
        read_calibration(path, "opencv")
    with pytest.raises(UsthandError, match="not of the format usthand"):
        read_calibration(path, "usthand")
    with pytest.raises(UsthandError, match="only nerfstudio and COLMAP"):
        read_calibration(path, images=("a",))
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(UsthandError, match="is no length"):
            read_calibration(path, scale=scale)
    (tmp_path / "cut").mkdir()
    write_colmap(tmp_path / "cut", make_rig(("pinhole", FIVE[:4])), "OPENCV", True)
    for file in ("images.bin", "cameras.bin"):
        whole = (tmp_path / "cut" / file).read_bytes()
        (tmp_path / "cut" / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UsthandError, match="cannot be read"):
            read_calibration(tmp_path / "cut")
        (tmp_path / "cut" / file).write_bytes(whole)


def test_a_value_that_is_not_finite_is_refused_in_every_format(tmp_path):
    rig = make_rig(("pinhole", FIVE[:4]))
    bad = Rig((replace(rig.cameras[0], translation=np.array([np.nan, 0, 0])), *rig.cameras[1:]))
    for write in (
        lambda p: write_easymocap(p, bad, 1.0, True),
        lambda p: write_colmap(p, bad, "OPENCV", True),
        lambda p: write_nerfstudio(p, bad, False),
        lambda p: write_dexycb(p, bad),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with pytest.raises(UsthandError, match="not finite"):
            read_calibration(write(folder))


def test_the_command_line_has_all_formats():
    from usthand import cli

    assert FORMATS == cli.Format.__args__


def test_the_real_calibration(shared_data):
    """pyxy3d's four webcams: metres, and camera->world would put the cameras elsewhere."""
    path = shared_data / "webcams4" / "config.toml"
    rig = read_calibration(path)
    assert recognise(path) == "caliscope" and rig.metric and find_calibration(path).format == "Caliscope"
    centres = np.array([c.centre_world for c in rig.cameras])
    assert 0.3 < np.linalg.norm(np.ptp(centres, axis=0)) < 3
