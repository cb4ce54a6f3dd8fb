"""What several readers of data sets need: options, timelines, files of numbers, cameras."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from usthand.capture.rig import Camera
from usthand.common.errors import UsthandError

MAX_STRETCH = 2
"""A timeline with more than this many times the given frames is not footage with gaps, but a choice of images."""


def choose(dataset: str, what: str, value: str, known: Sequence[str]) -> str:
    """`value`, or the first of `known` where it is empty.

    Raises:
        UsthandError: If it is not known.
    """
    value = value or known[0]
    if value not in known:
        raise UsthandError(
            f"{dataset} has no {what} {value!r}", f"it has {', '.join(known)}", f"choose one of these with --{what}"
        )
    return value


def timeline(frames: Iterable[int]) -> list[int]:
    """The frames' numbers in order, and the lost ones between them, so that every row is one step in time.

    The step is the commonest difference. Where some numbers do not keep it, or most would be lost, the images are a
    choice rather than footage with gaps: then the numbers stay as they are.
    """
    numbers = sorted(set(frames))
    steps = np.diff(numbers)
    if not len(steps):
        return numbers
    step = int(np.bincount(steps).argmax())
    whole = list(range(numbers[0], numbers[-1] + 1, step))
    return whole if not (steps % step).any() and len(whole) <= MAX_STRETCH * len(numbers) else numbers


def read_json(file: Path, fix: str, hook: Callable[[dict[str, Any]], object] | None = None) -> object:
    """What a JSON file holds; `hook` replaces each of its tables as soon as it is read.

    Raises:
        FileNotFoundError: If there is no such file.
        UsthandError: If it cannot be read; `fix` says what to do then.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            return json.load(opened, object_hook=hook)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsthandError(
            f"{file} cannot be read ({error})", "the download was cut short, or it is of another release", fix
        ) from error


def checked_numbers(value: object, shape: tuple[int, ...], where: str, fix: str) -> np.ndarray:
    """The numbers of an annotation, float64, in a shape.

    Args:
        value: Nested lists or an array.
        shape: Which they are to have; the nesting need not be the same.
        where: What they are and in which file, for the message.
        fix: What to do where they are damaged, for the message.

    Raises:
        UsthandError: If there are more or fewer, or one of them is not finite.
    """
    try:
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError):
        array = np.zeros(0)
    if array.size != math.prod(shape) or not np.isfinite(array).all():
        size = " x ".join(map(str, shape))
        raise UsthandError(f"{where} is not {size} finite numbers", "it is damaged, or of another release", fix)
    return array.reshape(shape)


def nearest_rotation(matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation matrix nearest to one that was stored with few digits."""
    u, _, vh = np.linalg.svd(matrix)
    return u @ vh


def pinhole_camera(
    name: str,
    size: tuple[int, int],
    matrix: Float[np.ndarray, "3 3"],
    rotation: Float[np.ndarray, "3 3"],
    translation_m: Float[np.ndarray, "3"],
) -> Camera:
    """A camera without distortion, from its intrinsics (px) and its pose, camera from world."""
    return Camera(name, *size, matrix, np.zeros(0), "pinhole", rotation, translation_m)
