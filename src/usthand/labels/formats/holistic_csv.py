"""Caliscope's and pyxy3d's xy_HOLISTIC.csv (also xy_HAND.csv ...): MediaPipe points of all cameras in one table.

Columns sync_index, port, point_id, img_loc_x, img_loc_y, one row a point. Points 100 to 120 are the right hand and 200
to 220 the left, in OpenPose's order (0 to 32 are the body, 500 and up the face). Points outside the image have no row.
`sync_index` counts instants, as our frames do. Positions are int(x * width). Their mean error against pixel centres at
integers is 0, so half a pixel must not be subtracted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from usthand.common.errors import UsthandError
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.formats.base import UNKNOWN_CONFIDENCE, View, hand

COLUMNS = ("sync_index", "port", "point_id", "img_loc_x", "img_loc_y")
FIRST_POINT = {"right": 100, "left": 200}


def looks_like(path: Path) -> bool:
    """Whether a CSV file's columns are of this format."""
    with path.open(newline="") as file:
        return set(COLUMNS) <= set(next(csv.reader(file), []))


def read(path: Path, cameras: Sequence[str]) -> dict[str, View]:
    """The hands of every camera; a port belongs to the camera whose name ends in its number.

    Raises:
        UsthandError: If columns are missing, a value is no number, or ports and cameras do not match.
    """
    hands: dict[tuple[int, int, str], np.ndarray] = {}
    ports: set[int] = set()
    if not looks_like(path):
        raise UsthandError(
            f"{path} lacks one of the columns {', '.join(COLUMNS)}", "it is another table", "give xy_HOLISTIC.csv"
        )
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                instant, port, point = (int(float(row[name])) for name in COLUMNS[:3])
                uv = [float(row[name] or "nan") for name in COLUMNS[3:]]
            except (TypeError, ValueError):
                raise UsthandError(
                    f"line {line} of {path} has a value that is no number", "the table is damaged", "export it again"
                ) from None
            ports.add(port)
            for side, first in FIRST_POINT.items():
                if first <= point < first + N_JOINTS:
                    joints = hands.setdefault((port, instant, side), np.full((N_JOINTS, 2), np.nan))
                    joints[point - first] = uv
    names = _camera_of_port(ports, cameras, path)
    views: dict[str, View] = {name: {} for name in cameras}
    for (port, instant, side), joints in sorted(hands.items()):
        views[names[port]].setdefault(instant, []).extend(hand(joints, UNKNOWN_CONFIDENCE, side, where=path))
    return views


def _camera_of_port(ports: set[int], cameras: Sequence[str], path: Path) -> dict[int, str]:
    numbers = {name: re.findall(r"\d+$", name) for name in cameras}
    by_number = {int(found[0]): name for name, found in numbers.items() if found}
    if ports != set(by_number) or len(by_number) != len(cameras):
        known = ", ".join(map(str, sorted(ports))) or "none"
        raise UsthandError(
            f"the ports of {path} do not match the rig",
            f"it has ports {known} and the rig's cameras are {', '.join(cameras)}",
            "name the cameras in rig.toml after their ports, cam_0 for port 0, or remove those without labels",
        )
    return by_number
