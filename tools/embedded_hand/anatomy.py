"""The bones and flesh of the embedded hand: where joints lie and the smooth union of round cones around them.

Axes are those of MANO's right hand at rest: the origin near the middle knuckle, fingers along -x, the back of the hand
towards +y, the thumb towards +z; metres. (A right hand lying palm down on a table with the fingers pointing to -x.)

Bone lengths: means of Buryanov and Kotiuk, "Proportions of Hand Segments", Int. J. Morphol. 28(3), 2010 (66
radiographs): metacarpals, phalanges and the soft tissue at the tips. Positions of the knuckles follow the hand
breadth of Greiner, "Hand Anthropometry of U.S. Army Personnel", 1991 (means of men and women: length 187, breadth
84.5 mm), as do the breadths of the finger joints (index 20/18, middle 20/18, ring 19/17, little 17/15, thumb 22 mm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MM = 1e-3
FINGER_ORDER = ("index", "middle", "little", "ring", "thumb")
"""MANO's order of fingers."""

# Proximal, middle and distal bone, and the soft tissue beyond; thumb: metacarpal, proximal, distal, soft tissue.
PHALANGES_MM = {
    "index": (39.78, 22.38, 15.82, 3.84),
    "middle": (44.63, 26.33, 17.40, 3.95),
    "ring": (41.37, 25.65, 17.30, 3.95),
    "little": (32.74, 18.11, 15.96, 3.73),
    "thumb": (46.22, 31.57, 21.67, 3.67),
}
# First joint of each finger in (distal, radial, dorsal) from the wrist, mm: the metacarpals of 68, 65, 58 and 54 mm and
# two rows of carpal bones of together about 25 mm put the knuckles there.
BASES_MM = {
    "index": (89.0, 23.5, 2.0),
    "middle": (90.5, 2.0, 4.0),
    "ring": (84.0, -17.5, 2.5),
    "little": (75.0, -34.5, -2.0),
    "thumb": (24.0, 22.0, -9.0),
}
CARPUS_MM = {  # proximal ends of the metacarpals
    "index": (24.0, 12.0, 1.0),
    "middle": (26.0, 2.0, 2.5),
    "ring": (25.0, -7.5, 1.5),
    "little": (22.0, -15.0, -1.0),
}
SPREAD_DEG = {"index": 9.0, "middle": 1.0, "ring": -9.0, "little": -22.0}  # towards the thumb
DROOP_DEG = (3.0, 8.0, 12.0)  # of the three phalanges below the plane of the palm, a nearly flat hand
THUMB_DIRECTIONS = ((0.735, 0.60, -0.32), (0.83, 0.50, -0.245), (0.88, 0.42, -0.22))

RADII_MM = {  # at the three joints and at the centre of the tip's sphere
    "index": (10.2, 9.8, 8.8, 7.7),
    "middle": (10.3, 9.9, 9.0, 7.9),
    "ring": (9.8, 9.3, 8.5, 7.4),
    "little": (8.8, 8.3, 7.6, 6.6),
    "thumb": (14.0, 12.0, 11.2, 9.2),
}
WRIST_MM = (91.5, 1.5, 1.0)  # the wrist in MANO's axes


def from_hand(distal_radial_dorsal_mm: npt.ArrayLike) -> np.ndarray:
    """(distal, radial, dorsal) from the wrist in mm to MANO's axes in metres."""
    d = np.asarray(distal_radial_dorsal_mm, np.float64)
    return MM * (np.stack((-d[..., 0], d[..., 2], d[..., 1]), -1) + np.array(WRIST_MM))


@dataclass(frozen=True)
class Skeleton:
    """Joint centres and fingertips of the rest pose, metres."""

    joints: np.ndarray
    """(16, 3), MANO's order."""
    tips: np.ndarray
    """(5, 3), the skin at the end of each finger, MANO's order of fingers."""
    carpus: np.ndarray
    """(4, 3), proximal ends of the metacarpals of index, middle, little, ring."""


def rest_skeleton() -> Skeleton:
    """The joints of the embedded hand."""
    joints, tips = np.zeros((16, 3)), np.zeros((5, 3))
    joints[0] = from_hand((0.0, 0.0, 0.0))
    for f, name in enumerate(FINGER_ORDER):
        point = np.array(BASES_MM[name])
        for i in range(3):
            joints[1 + 3 * f + i] = from_hand(point)
            length = PHALANGES_MM[name][i] + (PHALANGES_MM[name][3] if i == 2 else 0.0)
            point = point + length * _direction(name, i)
        tips[f] = from_hand(point)
    carpus = np.stack([from_hand(CARPUS_MM[name]) for name in FINGER_ORDER[:4]])
    return Skeleton(joints, tips, carpus)


def _direction(finger: str, phalanx: int) -> np.ndarray:
    if finger == "thumb":
        d = np.array(THUMB_DIRECTIONS[phalanx])
        return d / np.sqrt((d * d).sum())
    spread, droop = np.deg2rad(SPREAD_DEG[finger]), np.deg2rad(DROOP_DEG[phalanx])
    return np.array((np.cos(droop) * np.cos(spread), np.cos(droop) * np.sin(spread), -np.sin(droop)))


# ---- signed distances ---------------------------------------------------------------------------------------------


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # Written out: sums in a fixed order give the same bits on every machine, BLAS does not.
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def round_cone(p: np.ndarray, a: np.ndarray, b: np.ndarray, ra: float, rb: float) -> np.ndarray:
    """Distance to a segment a-b whose radius runs from ra to rb (linear along the axis: a bound, exact on the axis)."""
    ab = b - a
    t = np.clip(_dot(p - a, ab) / _dot(ab, ab), 0.0, 1.0)
    gap = p - a - t[..., None] * ab
    return np.sqrt(_dot(gap, gap)) - (ra + (rb - ra) * t)


def oval_cone(
    p: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    ra: float,
    rb: float,
    flat_axis: np.ndarray,
    flatness: tuple[float, float],
) -> np.ndarray:
    """A round cone squeezed along `flat_axis` (unit) by `flatness` < 1 about the segment; distance approximate."""
    ab = b - a
    t = np.clip(_dot(p - a, ab) / _dot(ab, ab), 0.0, 1.0)
    gap = p - a - t[..., None] * ab
    along = _dot(gap, flat_axis)
    flat = flatness[0] + (flatness[1] - flatness[0]) * t
    scaled2 = _dot(gap, gap) + along * along * (1 / (flat * flat) - 1)
    radius = ra + (rb - ra) * t
    plain = np.sqrt(scaled2)
    # First-order correction: divide by the gradient's length, so that the level sets are nearly distances.
    grad2 = _dot(gap, gap) + along * along * (1 / flat**4 - 1)
    slope = np.sqrt(grad2) / np.maximum(plain, 1e-12)
    return (plain - radius) / np.maximum(slope, 1.0)


def round_triangle(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, r: float) -> np.ndarray:
    """Distance to a triangle thickened by r (Quilez, "udTriangle")."""
    ba, cb, ac = b - a, c - b, a - c
    pa, pb, pc = p - a, p - b, p - c
    n = np.cross(ba, ac)

    def edge(e: np.ndarray, q: np.ndarray) -> np.ndarray:
        t = np.clip(_dot(e, q) / _dot(e, e), 0, 1)[..., None]
        gap = e * t - q
        return _dot(gap, gap)

    inside = (
        np.sign(_dot(np.cross(ba, n), pa)) + np.sign(_dot(np.cross(cb, n), pb)) + np.sign(_dot(np.cross(ac, n), pc))
    )
    edges = np.minimum(np.minimum(edge(ba, pa), edge(cb, pb)), edge(ac, pc))
    plane = _dot(n, pa) ** 2 / _dot(n, n)
    return np.sqrt(np.where(inside < 2.0, edges, plane)) - r


def smooth_min(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Quadratic smooth union of width k (Quilez, "smin"); exact where |a - b| > k."""
    h = np.maximum(k - np.abs(a - b), 0.0) / k
    return np.minimum(a, b) - h * h * (k / 4)
