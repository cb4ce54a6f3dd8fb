"""Colours for a standard deviation in millimetres, and the scale that explains them.

The map is viridis: perceptually uniform, and the same for the colour-blind. Its range is fixed, so that a colour means
the same in every frame, picture and result. It is logarithmic, since rigs differ by factors: four cameras around a hand
give 2 to 5 mm, two next to each other more than 10.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float, UInt8

from usthand.output.draw import Picture, draw_text

STD_MARKS_MM = (1, 2, 4, 8, 16)
"""Evenly spread along the scale. Standard deviations beyond its ends have the colour of the end."""
SCALE_TITLE = "std of the surface (mm)"
_STEPS = 256
_BACKGROUND = 24


@cache
def _table() -> Float[np.ndarray, "256 3"]:
    import matplotlib  # here, so that drawing without these colours loads nothing of it

    return 255.0 * matplotlib.colormaps["viridis"](np.linspace(0.0, 1.0, _STEPS))[:, :3]


def std_colours(std_mm: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3"]:
    """RGB, 0 to 255, of standard deviations in millimetres."""
    low, high = STD_MARKS_MM[0], STD_MARKS_MM[-1]
    share = np.log(np.clip(std_mm, low, high) / low) / np.log(high / low)
    return _table()[np.rint(share * (_STEPS - 1)).astype(int)]


def draw_std_scale(image: Picture) -> None:
    """The colours' scale, drawn in place at the lower left."""
    width, text, thick = _scale_size(image.shape[1])
    left, top = text // 2, image.shape[0] - _scale_height(image.shape[1])
    draw_text(image, SCALE_TITLE, (left, top), text)
    bar = image[top + text + 4 : top + text + 4 + thick, left : left + width]
    bar[:] = std_colours(np.geomspace(STD_MARKS_MM[0], STD_MARKS_MM[-1], bar.shape[1]))
    for place, mark in zip(np.linspace(0.0, 1.0, len(STD_MARKS_MM)), STD_MARKS_MM, strict=True):
        # The first label begins where the bar does, the last one ends where it does.
        shift = place * (width - 0.6 * text * len(str(mark)))
        draw_text(image, str(mark), (left + round(shift), top + text + 4 + thick), text)


def std_scale_strip(width: int) -> UInt8[np.ndarray, "height width 3"]:
    """The scale on a dark strip, to go below pictures of that width."""
    strip = np.full((_scale_height(width) + 4, width, 3), float(_BACKGROUND), np.float32)
    draw_std_scale(strip)
    return strip.astype(np.uint8)


def std_css_gradient() -> str:
    """The scale's colours as a CSS gradient from left to right."""
    between = [np.geomspace(low, high, 4, endpoint=False) for low, high in pairwise(STD_MARKS_MM)]
    stops = std_colours(np.append(np.concatenate(between), STD_MARKS_MM[-1])).round().astype(int)
    return f"linear-gradient(90deg, {', '.join(f'rgb({r},{g},{b})' for r, g, b in stops)})"


def _scale_size(image_width: int) -> tuple[int, int, int]:
    """Width of the bar, size of its text and its thickness, px."""
    width = int(np.clip(image_width // 3, 60, 200))
    return width, max(8, width // 11), max(4, width // 20)


def _scale_height(image_width: int) -> int:
    _, text, thick = _scale_size(image_width)
    return 2 * text + thick + 4 + text // 2
