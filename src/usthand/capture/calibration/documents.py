"""JSON and YAML files as plain values.

YAML's numbers stay strings, for its readers to convert: YAML 1.1 takes 1e-05 for a text, 01 for an octal number and a
camera's serial number for an integer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from usthand.capture.calibration.base import bad_calibration


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UsthandError: If it is missing or no text.
    """
    if not path.is_file():
        raise bad_calibration(path, "is not there", "the calibration is incomplete or the path wrong", "check the path")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise bad_calibration(path, "is not text", "it is damaged or of another format") from None


def read_json(path: Path) -> object:
    """JSON.

    Raises:
        UsthandError: If the file is missing or no JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise bad_calibration(path, f"is not JSON ({error})", "it is damaged or of another format") from None


def read_yaml(path: Path) -> object:
    """YAML, OpenCV's FileStorage included; every scalar is a string, tags are ignored, nothing is run.

    Raises:
        UsthandError: If the file is missing or no YAML.
    """
    text = read_text(path)
    if text.startswith("%YAML:"):  # OpenCV's header, which is not YAML's own `%YAML 1.2`
        text = text.partition("\n")[2]
    try:
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise bad_calibration(path, f"is not YAML ({reason})", "it is damaged or of another format") from None


def numbers(path: Path, what: str, value: object, *shape: int) -> np.ndarray:
    """Numbers of a document as a float64 array of a shape (-1: any length).

    Raises:
        UsthandError: If they are none, or too many or few.
    """
    try:
        return np.array(value, float).reshape(shape)
    except (TypeError, ValueError):
        need = " x ".join(str(n) for n in shape if n > 0) or "some"
        raise bad_calibration(path, f"{what} cannot be read", f"it should be {need} numbers") from None


def keys(path: Path, who: str, table: object, needed: Iterable[str]) -> dict[str, Any]:
    """`table`, if it is one and has all the keys needed.

    Raises:
        UsthandError: If not.
    """
    if not isinstance(table, dict):
        raise bad_calibration(path, f"{who} is no table of keys", "the file is of another format")
    missing = [key for key in needed if key not in table]
    if missing:
        raise bad_calibration(path, f"{who} lacks {', '.join(missing)}", "the file is incomplete or of another format")
    return table
