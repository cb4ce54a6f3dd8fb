"""Calibrations of random rigs in the formats of other programs, laid out by formulas of SciPy's."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera, Rig

SIZE = (640, 480)
FIVE = np.array([-0.3, 0.05, -0.01, 0.02, 0.06])
EIGHT = np.array([0.2, -0.1, 0.001, -0.002, 0.03, 0.1, -0.05, 0.01])
FISHEYE = np.array([0.05, -0.02, 0.004, -0.001])
DOUBLE_SPHERE = np.array([-0.17, 0.59])
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


def write_kalibr(path: Path, rig: Rig, model: str, **changes) -> Path:
    before, text = np.eye(4), ""
    for i, c in enumerate(rig.cameras):
        pose = np.linalg.inv(world_from_cam(c))
        inner = [c.matrix[0, 0], c.matrix[1, 1], c.matrix[0, 2], c.matrix[1, 2]]
        entry = {
            "camera_model": "pinhole",
            "intrinsics": inner,
            "distortion_model": model,
            "distortion_coeffs": c.distortion.tolist(),
            "resolution": list(SIZE),
            "rostopic": f"/cam{i}/image",
        } | changes
        if c.model == "double_sphere":
            entry |= {"camera_model": "ds", "intrinsics": [*c.distortion, *inner], "distortion_coeffs": []}
        text += f"cam{i}:\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in entry.items())
        if i:
            text += "  T_cn_cnm1:\n" + "".join(f"  - {lists(row)}\n" for row in pose @ np.linalg.inv(before))
        before = pose
    (path / "camchain.yaml").write_text(text)
    return path / "camchain.yaml"


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
