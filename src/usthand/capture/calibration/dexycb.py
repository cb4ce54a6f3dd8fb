"""DexYCB: the folder `calibration` with intrinsics/{serial}_640x480.yml and extrinsics_{id}/extrinsics.yml.

The 12 numbers of a serial are 3x4, CAMERA->MASTER (the world is the master camera's frame), row by row; OpenCV axes,
metres, pixel centres at integers. `color` holds fx fy ppx ppy; the colour lens has no distortion in the toolkit.
`apriltag` among the serials is the table's tag, no camera.
Source: dex_ycb_toolkit/sequence_loader.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from usthand.capture.calibration.base import Calibration, bad_calibration, inverted, natural, pinhole_matrix
from usthand.capture.calibration.documents import keys, numbers, read_yaml

SIZE = (640, 480)
TAG = "apriltag"


def is_dexycb(folder: Path) -> bool:
    """True for a folder with the calibration of a session."""
    return bool(_extrinsics(folder))


def _extrinsics(folder: Path) -> list[Path]:
    if (folder / "extrinsics.yml").is_file():
        return [folder / "extrinsics.yml"]
    return sorted(folder.glob("extrinsics_*/extrinsics.yml")) if (folder / "intrinsics").is_dir() else []


def read_dexycb(path: Path) -> Calibration:
    """The cameras of one recording session.

    Args:
        path: An extrinsics.yml, its folder extrinsics_{id}, or the folder `calibration` if that has one session only.

    Raises:
        UsthandError: If it is not clear which session is meant, or a file or key is missing.
    """
    found = [path] if path.is_file() else _extrinsics(path)
    if len(found) != 1:
        listed = ", ".join(file.parent.name for file in found[:3]) + (" and more" if len(found) > 3 else "")
        raise bad_calibration(
            path,
            f"has {len(found)} sessions ({listed})" if found else "has no extrinsics.yml",
            "each recording has its own, named in its meta.yml as `extrinsics`",
            "give the folder extrinsics_{id} of your recording",
        )
    file = found[0]
    poses = keys(file, "it", keys(file, "it", read_yaml(file), ["extrinsics"])["extrinsics"], ())
    serials = sorted((serial for serial in poses if serial != TAG), key=natural)
    intrinsics = file.parent.parent / "intrinsics"
    return Calibration(file, "DexYCB", tuple(_entry(file, intrinsics, s, poses[s]) for s in serials), 1.0, "metres")


def _entry(file: Path, intrinsics: Path, serial: str, pose: object) -> dict[str, Any]:
    inner = intrinsics / f"{serial}_{SIZE[0]}x{SIZE[1]}.yml"
    colour = keys(inner, "it", read_yaml(inner), ["color"])["color"]
    colour = keys(inner, "color", colour, ["fx", "fy", "ppx", "ppy"])
    centre = numbers(inner, "color", [colour[key] for key in ("fx", "fy", "ppx", "ppy")], 4)
    world_from_cam = numbers(file, f"the pose of {serial}", pose, 3, 4)
    rotation, translation = inverted(world_from_cam[:, :3], world_from_cam[:, 3])
    return {
        "name": serial,
        "size": SIZE,
        "matrix": pinhole_matrix(*centre),
        "distortion": [],
        "model": "pinhole",
        "rotation": rotation,
        "translation": translation,
    }
