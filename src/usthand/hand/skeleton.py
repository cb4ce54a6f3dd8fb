"""The 21 joints of a hand in OpenPose's order, the maps to other orders, and the lengths of bones and palm."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Bool, Float

N_JOINTS: Final = 21

FINGERS: Final[dict[str, tuple[int, int, int, int]]] = {
    "thumb": (1, 2, 3, 4),
    "index": (5, 6, 7, 8),
    "middle": (9, 10, 11, 12),
    "ring": (13, 14, 15, 16),
    "little": (17, 18, 19, 20),
}
"""Joint ids of each finger, base to tip."""

JOINTS: Final[tuple[str, ...]] = (
    "wrist",
    *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{part}" for finger in ("index", "middle", "ring", "little") for part in ("mcp", "pip", "dip", "tip")),
)

PARENTS: Final[tuple[int, ...]] = (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)

BONES: Final[tuple[tuple[int, int], ...]] = tuple((PARENTS[j], j) for j in range(1, N_JOINTS))

PALM_BONES: Final[tuple[int, ...]] = tuple(i for i, (parent, _) in enumerate(BONES) if parent == 0)
"""Ids into `BONES` of the five bones that start at the wrist."""

FINGER_TIPS: Final[tuple[int, ...]] = (4, 8, 12, 16, 20)

WRIST: Final = 0
MIDDLE_MCP: Final = 9

MANO_PARENTS: Final[tuple[int, ...]] = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""MANO's 16 joints: wrist, then three each of index, middle, little, ring, thumb."""

MANO_TO_OPENPOSE: Final[tuple[int, ...]] = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""MANO's 16 joints followed by five tips (thumb to little), in OpenPose's order: `op = mano[MANO_TO_OPENPOSE]`."""

INTERHAND_TO_OPENPOSE: Final[tuple[int, ...]] = (20, *(tip - k for tip in (3, 7, 11, 15, 19) for k in range(4)))
"""InterHand2.6M lists each finger from tip to base and the wrist last."""

SIDES: Final[tuple[str, str]] = ("right", "left")


def inverse_order(order: tuple[int, ...]) -> tuple[int, ...]:
    """The order that undoes `order`: `x[order][inverse_order(order)] == x`."""
    inverse = [0] * len(order)
    for position, source in enumerate(order):
        inverse[source] = position
    return tuple(inverse)


def bone_lengths(joints: Float[np.ndarray, "*b 21 3"]) -> Float[np.ndarray, "*b 20"]:
    """Lengths of `BONES`, in the unit of the joints."""
    parent, child = np.array(BONES).T
    return np.linalg.norm(joints[..., child, :] - joints[..., parent, :], axis=-1)


def median_bone_lengths(
    joints: Float[np.ndarray, "T 21 3"], seen: Bool[np.ndarray, "T 21"]
) -> tuple[Float[np.ndarray, "20"], Bool[np.ndarray, "20"]]:
    """Median length of each bone over the frames that see both ends, or 0; and whether there is such a frame."""
    parent, child = np.array(BONES).T
    both = seen[:, parent] & seen[:, child]
    known = np.any(both, axis=0)
    median = np.zeros(len(BONES))
    median[known] = np.nanmedian(np.where(both, bone_lengths(joints), np.nan)[:, known], axis=0)
    return median, known


def palm_length(joints: Float[np.ndarray, "*b 21 3"]) -> Float[np.ndarray, "*b"]:
    """Distance from the wrist to the middle finger's knuckle, in the unit of the joints."""
    return np.asarray(np.linalg.norm(joints[..., MIDDLE_MCP, :] - joints[..., WRIST, :], axis=-1))
