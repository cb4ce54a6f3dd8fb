"""What a detector is: frames of one video in, hands in each image out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from usthand.labels.labels import Detection


@runtime_checkable
class Detector(Protocol):
    """Finds hands in single images, without the rig and the other views.

    Which hand is which over views and frames is decided later, in `usthand.labels.association.associate`.
    """

    name: str
    """Written into the labels."""

    def detect(self, frames: Iterable[UInt8[np.ndarray, "H W 3"]]) -> Iterator[list[Detection]]:
        """Hands in each RGB frame of one video, in order of time. A generator: one frame is in memory at a time."""
        ...

    def close(self) -> None:
        """Free the detector's resources; it cannot be used afterwards."""
        ...
