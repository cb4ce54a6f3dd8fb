"""Meta's headsets: Project Aria and HOT3D (FISHEYE624), UmeTrack (FishEye62).

All: CAMERA->world or camera->device, OpenCV axes, pixel centres at integers. The world of the rig is the device's frame
where the file has one: a headset moves in the room, but its cameras do not move against each other.

FISHEYE624, metres: parameters [f cx cy] or [fx fy cx cy], then k1..k6 p1 p2 s1..s4, which is the order of our
`fisheye624`; p1 and p2 are swapped against OpenCV's. Three layouts:
    Aria        {"CameraCalibrations": [{Label, Projection: {Name, Params}, T_Device_Camera: {Translation,
                UnitQuaternion}}]}; sizes from ImageSizes, or by label as projectaria_tools takes them (at the full
                resolution of calibration)
    HOT3D       camera_models.json: [{label, imageWidth, imageHeight, projectionParams, T_Device_Camera:
                {quaternion_wxyz, ...}}]
    HOT3D clip  NNNNNN.cameras.json: {stream: {T_world_from_camera, calibration: {image_width, projection_params,
                ...}}}
UmeTrack, MILLIMETRES: {"cameras": [{ImageSizeX, fx, k1..k4, p1, p2, k5, k6, ...}], "camera_to_world_transforms":
T x V x 4 x 4}. Its lens is FISHEYE624 without thin prism, or a pinhole. Untracked frames are all zero.

Sources: projectaria_tools (FisheyeRadTanThinPrism.h, SensorCalibrationJson.cpp), hot3d (QuestDataProvider.py,
clip_util.py), UmeTrack (lib/common/camera.py, lib/tracker/video_pose_data.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from usthand.capture.calibration.base import Calibration, bad_calibration, inverted, pinhole_matrix, rotation_from_wxyz
from usthand.capture.calibration.documents import keys, numbers, read_json

MM = 1e-3
ARIA_SIZES = {
    "camera-rgb": (2880, 2880),
    "camera-slam-left": (640, 480),
    "camera-slam-right": (640, 480),
    "camera-et-left": (640, 480),
    "camera-et-right": (640, 480),
}
"""As projectaria_tools takes them: factory calibrations are made at full resolution."""
ARIA_EYES = ("camera-et-left", "camera-et-right")  # look at the wearer's eyes, not at the hands
RADIAL_AND_TANGENTIAL = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
RIGID_TOLERANCE_MM, RIGID_TOLERANCE = 1.0, 1e-3  # how far cameras of one headset may move against each other


def is_fisheye624(data: object) -> bool:
    """True for a parsed JSON in one of the FISHEYE624 layouts."""
    return (isinstance(data, dict) and "CameraCalibrations" in data) or bool(_snake_entries(data))


def is_umetrack(data: object) -> bool:
    """True for a parsed JSON of UmeTrack."""
    return isinstance(data, dict) and {"cameras", "camera_to_world_transforms"} <= set(data)


# ---- FISHEYE624 ---------------------------------------------------------------------------------------------------


def read_fisheye624(path: Path) -> Calibration:
    """Cameras of Project Aria or HOT3D.

    Raises:
        UsthandError: If a key is missing or the lens is another one.
    """
    data = read_json(path)
    if isinstance(data, dict) and "CameraCalibrations" in data:
        cameras = _aria(path, data)
    else:
        cameras = [_hot3d(path, name, entry) for name, entry in _snake_entries(data)]
    if not cameras:
        raise bad_calibration(path, "holds no camera", "it is none of Aria's or HOT3D's layouts")
    return Calibration(path, "FISHEYE624", tuple(cameras), 1.0, "metres")


def _aria(path: Path, data: dict) -> list[dict[str, Any]]:
    sizes, cameras = data.get("ImageSizes") or [], []
    for number, entry in enumerate(data["CameraCalibrations"]):
        entry = keys(path, f"camera {number}", entry, ["Label", "Projection", "T_Device_Camera"])
        label = entry["Label"]
        if label in ARIA_EYES:
            continue
        lens = keys(path, label, entry["Projection"], ["Name", "Params"])
        if lens["Name"] != "FisheyeRadTanThinPrism":
            raise bad_calibration(path, f"{label} has the lens {lens['Name']}", "only FisheyeRadTanThinPrism is known")
        pose = keys(path, label, entry["T_Device_Camera"], ["Translation", "UnitQuaternion"])
        w, xyz = pose["UnitQuaternion"]
        size = ARIA_SIZES.get(label)
        if number < len(sizes):
            size = numbers(path, "ImageSizes", sizes[number], 2).astype(int)
        cam_from_device = _cam_from(path, label, [w, *xyz], pose["Translation"])
        cameras.append(_fisheye624(path, label, size, lens["Params"], cam_from_device))
    return cameras


def _snake_entries(data: object) -> list[tuple[str, dict]]:
    """(name, entry) of HOT3D's layouts, whose keys come as projection_params or projectionParams."""
    if isinstance(data, dict):
        pairs = [(str(key), value) for key, value in data.items()]
    else:
        pairs = [(str(n), value) for n, value in enumerate(data)] if isinstance(data, list) else []
    found = []
    for name, value in pairs:
        if isinstance(value, dict):
            merged = {_plain(k): v for k, v in {**value, **(value.get("calibration") or {})}.items()}
            if "projectionparams" in merged:
                # A clip's key, a stream such as 214-1, names its images; in a list only the label is left.
                found.append((name if isinstance(data, dict) else str(merged.get("label", name)), merged))
    return found


def _plain(key: str) -> str:
    return key.replace("_", "").lower()


def _hot3d(path: Path, name: str, entry: dict) -> dict[str, Any]:
    model = str(entry.get("projectionmodeltype", "FISHEYE624")).rpartition(".")[2]
    if model != "FISHEYE624":
        raise bad_calibration(path, f"{name} has the lens {model}", "only FISHEYE624 is known here")
    keys(path, name, entry, ["imagewidth", "imageheight"])
    poses = [entry[k] for k in ("tdevicefromcamera", "tdevicecamera", "tworldfromcamera", "tworldcamera") if k in entry]
    if not poses:
        raise bad_calibration(
            path, f"{name} lacks its pose", "neither T_device_from_camera nor T_world_from_camera is there"
        )
    pose = keys(path, name, poses[0], ["quaternion_wxyz", "translation_xyz"])
    cam_from_device = _cam_from(path, name, pose["quaternion_wxyz"], pose["translation_xyz"])
    size = (entry["imagewidth"], entry["imageheight"])
    return _fisheye624(path, name, size, entry["projectionparams"], cam_from_device)


def _cam_from(path: Path, name: str, quaternion: object, translation: object) -> tuple[np.ndarray, np.ndarray]:
    turn = rotation_from_wxyz(numbers(path, f"the quaternion of {name}", quaternion, 4))
    return inverted(turn, numbers(path, f"the translation of {name}", translation, 3))


def _fisheye624(
    path: Path, name: str, size: object, given: object, pose: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    params = numbers(path, f"the parameters of {name}", given, -1)
    if len(params) not in (15, 16):
        raise bad_calibration(
            path, f"{name} has {len(params)} parameters", "FISHEYE624 has 15 (f cx cy ...) or 16 (fx fy cx cy ...)"
        )
    focal = params[:1].repeat(2) if len(params) == 15 else params[:2]
    centre = params[-14:-12]
    return {
        "name": name,
        "size": size,
        "matrix": pinhole_matrix(*focal, *centre),
        "distortion": params[-12:],
        "model": "fisheye624",
        "rotation": pose[0],
        "translation": pose[1],
    }


# ---- UmeTrack ------------------------------------------------------------------------------------------------------


def read_umetrack(path: Path) -> Calibration:
    """Cameras of an UmeTrack recording: cam_0, cam_1, ... in the order of its video's strips.

    If the headset moves, the rig's world is the frame of its first camera.

    Raises:
        UsthandError: If a key is missing, no frame is tracked, or the cameras move against each other.
    """
    data = keys(path, "it", read_json(path), ["cameras", "camera_to_world_transforms"])
    views = len(data["cameras"])
    world_from_cam = numbers(path, "camera_to_world_transforms", data["camera_to_world_transforms"], -1, views, 4, 4)
    world_from_cam = world_from_cam[np.abs(world_from_cam).sum((1, 2, 3)) > 0]  # frames without tracking are all zero
    if not len(world_from_cam):
        raise bad_calibration(
            path, "has no tracked frame", "camera_to_world_transforms is all zero", "take another recording"
        )
    cam_from_world = _headset_poses(path, world_from_cam)
    cameras = [_umetrack_camera(path, v, entry, cam_from_world[v]) for v, entry in enumerate(data["cameras"])]
    return Calibration(path, "UmeTrack", tuple(cameras), MM, "millimetres")


def _headset_poses(path: Path, world_from_cam: np.ndarray) -> np.ndarray:
    """cam_from_world (V, 4, 4) from poses (T, V, 4, 4), mm: the first tracked frame's."""
    cam_from_world = np.linalg.inv(world_from_cam)
    if _steady(world_from_cam):
        return cam_from_world[0]
    cam_from_first = cam_from_world @ world_from_cam[:, :1]
    if not _steady(cam_from_first):
        raise bad_calibration(
            path,
            "its cameras move against each other",
            "a rig is rigid: they are not all on one headset",
            "make a capture from the cameras that are",
        )
    return cam_from_first[0]


def _steady(poses: np.ndarray) -> bool:
    away = np.abs(poses - poses[0])
    return bool(away[..., :3, 3].max() < RIGID_TOLERANCE_MM and away[..., :3, :3].max() < RIGID_TOLERANCE)


def _umetrack_camera(path: Path, number: int, entry: object, cam_from_world: np.ndarray) -> dict[str, Any]:
    name = f"cam_{number}"
    entry = json.loads(entry) if isinstance(entry, str) else entry
    entry = entry.get("Camera", entry) if isinstance(entry, dict) else entry
    entry = keys(path, name, entry, ["ImageSizeX", "ImageSizeY", "DistortionModel", "fx", "fy", "cx", "cy"])
    if entry["DistortionModel"] == "PinholePlane":
        model, distortion = "pinhole", np.zeros(0)
    elif entry["DistortionModel"] == "FishEye62":
        keys(path, name, entry, RADIAL_AND_TANGENTIAL)
        given = numbers(path, name, [entry[key] for key in RADIAL_AND_TANGENTIAL], 8)
        model, distortion = "fisheye624", np.r_[given, np.zeros(4)]
    else:
        raise bad_calibration(
            path, f"{name} has the lens {entry['DistortionModel']}", "UmeTrack's own are PinholePlane and FishEye62"
        )
    inner = numbers(path, name, [entry[key] for key in ("fx", "fy", "cx", "cy")], 4)
    return {
        "name": name,
        "size": (entry["ImageSizeX"], entry["ImageSizeY"]),
        "matrix": pinhole_matrix(*inner),
        "distortion": distortion,
        "model": model,
        "rotation": cam_from_world[:3, :3],
        "translation": cam_from_world[:3, 3],
    }
