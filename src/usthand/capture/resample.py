"""Squares of an image, scaled with anti-aliasing straight from the planes of a video's frame.

Pillow's bilinear filter, but on luma and chroma as they are decoded: half as many samples as RGB has, and only the
small result is turned into RGB. Both steps are linear, so their order does not matter, up to rounding and to colours
that RGB cannot hold. Numba without state that releases the GIL, so that crops can be cut by several threads at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float, UInt8
from numba import njit

BAND = 8
Taps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""First sample, number of samples, weights and their sum, for each pixel along one axis; see `_taps`."""


class Planes(NamedTuple):
    """An image as three planes, of which the second and third may be coarser."""

    planes: tuple[UInt8[np.ndarray, "h line"], UInt8[np.ndarray, "_h _line"], UInt8[np.ndarray, "_h _line"]]
    """Rows may be longer than the image is wide."""
    size: tuple[int, int]
    """Width and height of the image, px."""
    coarse: tuple[int, int]
    """Pixels per sample of the second and third plane, across and down; the sample of pixel x is x // coarse."""
    rgb_from_planes: Float[np.ndarray, "3 4"]
    """float32: RGB in [0, 255] as a matrix of the three samples and 1."""


@no_type_check  # numba compiles it: nothing may be wrapped around it
@njit(cache=True, nogil=True)
def _taps(origin: int, side: int, out: int, length: int, coarse: int) -> Taps:
    """Which samples of a plane make each of `out` pixels of a square of `side` that begins at `origin`.

    First sample and number of samples, which stand for `coarse` pixels each; their weights; and the sum of the weights,
    which is 1 except where the image (`length`) ends. The weights are a
    triangle of the half width max(side / out, 1) around the pixel's centre, as in Pillow's `Resample.c`.
    """
    scale = side / out
    reach = max(scale, 1.0)
    first, count = np.zeros(out, np.int64), np.zeros(out, np.int64)
    weight = np.zeros((out, 2 * math.ceil(reach) + 1), np.float32)
    share = np.zeros(out, np.float32)
    for i in range(out):
        centre = (i + 0.5) * scale
        low = max(int(centre - reach + 0.5), 0)
        high = min(int(centre + reach + 0.5), side)
        total = 0.0
        for k in range(low, high):
            total += max(1.0 - abs(k + 0.5 - centre) / reach, 0.0)
        low, high = max(low, -origin), min(high, length - origin)
        first[i] = max(origin + low, 0) // coarse
        for k in range(low, high):
            w = max(1.0 - abs(k + 0.5 - centre) / reach, 0.0) / total
            at = (origin + k) // coarse - first[i]
            weight[i, at] += w
            share[i] += w
            count[i] = at + 1
    return first, count, weight, share


@no_type_check  # numba compiles it: nothing may be wrapped around it
@njit(cache=True, nogil=True)
def _weighted_sum(
    total: np.ndarray, weight: np.ndarray, count: int, rows: np.ndarray, first: int, begin: int, end: int
) -> None:
    """`total` becomes the sum of `count` rows from `first` on, columns `begin` to `end`.

    Three rows at a time, so that the total is fetched and stored less often.
    """
    total[:] = 0
    k = 0
    while k + 2 < count:
        a, b, c = weight[k], weight[k + 1], weight[k + 2]
        one, two, three = rows[first + k, begin:end], rows[first + k + 1, begin:end], rows[first + k + 2, begin:end]
        for i in range(len(total)):
            total[i] += a * one[i] + b * two[i] + c * three[i]
        k += 3
    while k < count:
        a, one = weight[k], rows[first + k, begin:end]
        for i in range(len(total)):
            total[i] += a * one[i]
        k += 1


@no_type_check  # numba compiles it: nothing may be wrapped around it
@njit(cache=True, nogil=True)
def _scale_down(plane: np.ndarray, begin: int, end: int, taps: Taps, padded: int) -> np.ndarray:
    """The first pass: columns `begin` to `end` of a plane, scaled along the other axis; columns become rows.

    Whole rows are added up, for which the compiler uses vector instructions; `BAND` of them are then turned at a time,
    so that memory is used while it is near.
    """
    first, count, weight, _ = taps
    turned = np.empty((end - begin, padded), np.float32)
    band = np.zeros((BAND, end - begin), np.float32)
    for y0 in range(0, padded, BAND):
        for y in range(y0, min(y0 + BAND, len(first))):
            _weighted_sum(band[y - y0], weight[y], count[y], plane, first[y], begin, end)
        for x in range(end - begin):
            for j in range(BAND):
                turned[x, y0 + j] = band[j, x]
    return turned


@no_type_check  # numba compiles it: nothing may be wrapped around it
@njit(cache=True, nogil=True)
def _sum_rows(total: np.ndarray, turned: np.ndarray, begin: int, taps: Taps, x: int) -> None:
    first, count, weight, _ = taps
    _weighted_sum(total, weight[x], count[x], turned, first[x] - begin, 0, turned.shape[1])


@no_type_check  # numba compiles it: nothing may be wrapped around it
@njit(cache=True, nogil=True)
def _to_levels(
    levels: np.ndarray,
    one: np.ndarray,
    two: np.ndarray,
    three: np.ndarray,
    covered: np.ndarray,
    a: float,
    b: float,
    c: float,
    d: float,
) -> None:
    for i in range(len(levels)):
        value = np.int32(a * one[i] + b * two[i] + c * three[i] + d * covered[i] + np.float32(0.5))
        levels[i] = np.uint8(min(max(value, np.int32(0)), np.int32(255)))


@no_type_check  # numba compiles it: nothing may be wrapped around it
@njit(cache=True, nogil=True)
def _resize(
    planes: tuple[np.ndarray, np.ndarray, np.ndarray],
    size: tuple[int, int],
    coarse: tuple[int, int],
    matrix: np.ndarray,
    x: int,
    y: int,
    side: int,
    mirrored: bool,
    out: np.ndarray,
) -> None:
    n, (width, height), (across, down) = len(out), size, coarse
    padded = (n + BAND - 1) // BAND * BAND
    left, right = max(x, 0), min(x + side, width)
    columns, rows = _taps(x, side, n, width, 1), _taps(y, side, n, height, 1)
    chroma_columns = _taps(x, side, n, width, across)
    chroma_rows = _taps(y, side, n, height, down)
    begin, end = left // across, (right - 1) // across + 1
    fine = _scale_down(planes[0], left, right, rows, padded)
    second = _scale_down(planes[1], begin, end, chroma_rows, padded)
    third = _scale_down(planes[2], begin, end, chroma_rows, padded)
    one, two, three = np.empty(padded, np.float32), np.empty(padded, np.float32), np.empty(padded, np.float32)
    covered = np.zeros(padded, np.float32)
    covered[:n] = rows[3]
    levels = np.empty((3 * BAND, padded), np.uint8)
    for x0 in range(0, n, BAND):
        here = min(BAND, n - x0)
        for j in range(here):
            _sum_rows(one, fine, left, columns, x0 + j)
            _sum_rows(two, second, begin, chroma_columns, x0 + j)
            _sum_rows(three, third, begin, chroma_columns, x0 + j)
            for channel in range(3):
                a, b, c, d = matrix[channel, 0], matrix[channel, 1], matrix[channel, 2], matrix[channel, 3]
                _to_levels(levels[3 * j + channel], one, two, three, covered, a, b, c, d * columns[3][x0 + j])
        for i in range(n):
            for j in range(here):
                to = n - 1 - x0 - j if mirrored else x0 + j
                for channel in range(3):
                    out[i, to, channel] = levels[3 * j + channel, i]


def resize_square(
    image: Planes, x: int, y: int, side: int, out: UInt8[np.ndarray, "S S 3"], mirrored: bool = False
) -> None:
    """Scale a square of `side` px, whose upper left pixel is (x, y), into `out`; black outside the image.

    Args:
        image: The planes.
        x: Column of the square's upper left pixel; it may lie outside the image.
        y: Row of it.
        side: Sides of the square, px of the image.
        out: What is written.
        mirrored: Turn the result left to right.
    """
    if x >= image.size[0] or y >= image.size[1] or x + side <= 0 or y + side <= 0:
        out[:] = 0
    else:
        _resize(*image, x, y, side, mirrored, out)
