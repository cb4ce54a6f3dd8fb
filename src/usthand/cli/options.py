"""Types that several commands' options share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from usthand.common.errors import UsthandError

Side = Literal["right", "left"]
CapturePath = Positional[Annotated[Path, arg(metavar="CAPTURE")]]


def camera_values(option: str, values: tuple[str, ...]) -> dict[str, str]:
    """What an option such as `--names cam_0=a.mp4 cam_1=b.mp4` gives each camera.

    Raises:
        UsthandError: If a value is not CAMERA=VALUE, or a camera is named twice.
    """
    found: dict[str, str] = {}
    for text in values:
        camera, _, value = text.partition("=")
        if not (camera and value):
            raise UsthandError(
                f"{option} {text} is no pair", "it wants CAMERA=VALUE", f"write {option} cam_0=..., without spaces"
            )
        if camera in found:
            raise UsthandError(f"{option} names {camera} twice", "each camera has one value", "leave one of them out")
        found[camera] = value
    return found


def whole_number(option: str, text: str) -> int:
    """A number of frames.

    Raises:
        UsthandError: If the text is no whole number.
    """
    try:
        return int(text)
    except ValueError:
        raise UsthandError(
            f"{option} has {text!r}", "offsets are whole frames", "give a number such as 12 or -3"
        ) from None
