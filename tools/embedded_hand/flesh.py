"""The flesh of the embedded hand: a smooth union of round cones that hang on the bones, as a signed distance.

Every primitive's end points are fixed to bones, so that the same flesh is known in every pose: the rest pose gives the
mesh, bent poses give the targets of the pose blend shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedded_hand.anatomy import (
    FINGER_ORDER,
    MM,
    RADII_MM,
    Skeleton,
    from_hand,
    oval_cone,
    round_cone,
    round_triangle,
    smooth_min,
)

FINGER_BLEND_M = 4 * MM
PALM_BLEND_M = 12 * MM
ROOT_BLEND_M = 9 * MM  # finger into palm: makes the webs
NEIGHBOUR_BLEND_M = 2 * MM  # of one finger with the next: little, or they would grow together
FINGER_FLATNESS = (1.0, 0.95, 0.92, 0.82)  # depth over breadth at the three joints and the tip
PALM_CONES = (  # bone, (distal, radial, dorsal) and radius at both ends, mm
    ("metacarpal index", (24, 12, 1), 13.0, (86, 22.5, 1.5), 11.2),
    ("metacarpal middle", (24, 2, 2.5), 13.0, (87, 2, 3.5), 11.5),
    ("metacarpal ring", (24, -8, 1), 13.0, (81, -17, 2.0), 11.2),
    ("metacarpal little", (20, -16, -2), 13.0, (72, -33.5, -3.0), 9.8),
    ("knuckle index", (86, 23.2, 5.5), 7.5, (90, 23.7, 5.5), 7.3),
    ("knuckle middle", (88, 2, 8), 7.5, (92, 2, 8), 7.3),
    ("knuckle ring", (81, -17, 6.3), 7.0, (85, -17.6, 6.3), 6.8),
    ("knuckle little", (72, -34, 1.5), 6.4, (76, -34.8, 1.5), 6.2),
    ("hypothenar", (14, -16, -8), 14.0, (62, -33, -8), 10.5),
    ("pads index", (85, 19, -7), 8.5, (82, -3, -6), 8.5),
    ("pads little", (82, -3, -6), 8.5, (72, -31, -8), 8.0),
    ("interosseous", (40, 25, -3), 9.5, (74, 25, -1), 8.5),
)
WRIST_OVAL = ((-70, 0, 0), 29.0, (6, 0, -1), 28.0, (0.70, 0.72))


@dataclass(frozen=True)
class Primitive:
    """A cone or triangle whose corners hang on bones."""

    corners: np.ndarray
    """(2 or 3, 3), rest pose, metres."""
    bones: tuple[int, ...]
    radii: tuple[float, float]
    flat_axis: np.ndarray | None = None
    flatness: tuple[float, float] = (1.0, 1.0)

    def distance(self, p: np.ndarray, rotations: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Signed distance of points (n, 3) in a pose: bone b carries x to rotations[b] x + shifts[b]."""
        c = [_apply(rotations[b], x) + shifts[b] for b, x in zip(self.bones, self.corners, strict=True)]
        if len(c) == 3:
            return round_triangle(p, c[0], c[1], c[2], self.radii[0])
        if self.flat_axis is None:
            return round_cone(p, c[0], c[1], *self.radii)
        return oval_cone(p, c[0], c[1], *self.radii, _apply(rotations[self.bones[0]], self.flat_axis), self.flatness)


def _apply(rotation: np.ndarray, x: np.ndarray) -> np.ndarray:
    return rotation[:, 0] * x[0] + rotation[:, 1] * x[1] + rotation[:, 2] * x[2]


@dataclass(frozen=True)
class Flesh:
    """The primitives of the palm and of MANO's five fingers in order."""

    palm: tuple[Primitive, ...]
    fingers: tuple[tuple[Primitive, ...], ...]

    def parts(
        self, p: np.ndarray, rotations: np.ndarray | None = None, shifts: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances to the palm (n,) and to the fingers (5, n)."""
        rotations = np.broadcast_to(np.eye(3), (16, 3, 3)) if rotations is None else rotations
        shifts = np.zeros((16, 3)) if shifts is None else shifts

        def union(items: tuple[Primitive, ...], width: float) -> np.ndarray:
            if not items:
                return np.full(len(p), np.inf)
            total = items[0].distance(p, rotations, shifts)
            for item in items[1:]:
                total = smooth_min(total, item.distance(p, rotations, shifts), width)
            return total

        return union(self.palm, PALM_BLEND_M), np.stack([union(f, FINGER_BLEND_M) for f in self.fingers])

    def distance(
        self, p: np.ndarray, rotations: np.ndarray | None = None, shifts: np.ndarray | None = None
    ) -> np.ndarray:
        """Signed distance to the skin, metres, negative inside."""
        palm, fingers = self.parts(p, rotations, shifts)
        together = fingers[0]
        for finger in fingers[1:]:
            together = smooth_min(together, finger, NEIGHBOUR_BLEND_M)
        return smooth_min(palm, together, ROOT_BLEND_M)

    def value_and_gradient(
        self, p: np.ndarray, rotations: np.ndarray | None = None, shifts: np.ndarray | None = None, step: float = 2e-5
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distance (n,) and outward direction (n, 3), not normalised; four evaluations at a tetrahedron's corners."""
        value, gradient = np.zeros(len(p)), np.zeros_like(p)
        for corner in ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)):
            corner = np.array(corner)
            d = self.distance(p + step * corner, rotations, shifts)
            value += d / 4
            gradient += d[:, None] * corner / (4 * step)
        return value, gradient

    def project(
        self, p: np.ndarray, rotations: np.ndarray | None = None, shifts: np.ndarray | None = None, iterations: int = 4
    ) -> np.ndarray:
        """Nearest points of the skin, by Newton steps along the gradient."""
        for _ in range(iterations):
            d, g = self.value_and_gradient(p, rotations, shifts)
            g2 = np.maximum(g[:, 0] ** 2 + g[:, 1] ** 2 + g[:, 2] ** 2, 0.1)
            p = p - (d / g2)[:, None] * g
        return p


def build_flesh(skeleton: Skeleton, dorsal: np.ndarray) -> Flesh:
    """Flesh around a rest skeleton; `dorsal` (16, 3): the direction of the back of each bone, unit."""
    joints, tips = skeleton.joints, skeleton.tips
    palm = [
        Primitive(np.stack((from_hand(a), from_hand(b))), (0, 0), (ra * MM, rb * MM)) for _, a, ra, b, rb in PALM_CONES
    ]
    a, ra, b, rb, flat = WRIST_OVAL
    up = np.array((0.0, 1.0, 0.0))
    palm.append(Primitive(np.stack((from_hand(a), from_hand(b))), (0, 0), (ra * MM, rb * MM), up, flat))
    palm += _thumb_base(joints) + _webs(joints)
    fingers = tuple(_finger(f, joints, tips, dorsal) for f in range(5))
    return Flesh(tuple(palm), fingers)


def _finger(f: int, joints: np.ndarray, tips: np.ndarray, dorsal: np.ndarray) -> tuple[Primitive, ...]:
    radii = np.array(RADII_MM[FINGER_ORDER[f]]) * MM
    ids = [1 + 3 * f + i for i in range(3)]
    axis = tips[f] - joints[ids[2]]
    axis = axis / np.sqrt((axis * axis).sum())
    end = tips[f] - axis * radii[3] - dorsal[ids[2]] * 0.8 * MM
    points = [*joints[ids], end]
    return tuple(
        Primitive(
            np.stack((points[i], points[i + 1])),
            (ids[i], ids[i]),
            (radii[i], radii[i + 1]),
            dorsal[ids[i]],
            (FINGER_FLATNESS[i], FINGER_FLATNESS[i + 1]),
        )
        for i in range(3)
    )


def _thumb_base(joints: np.ndarray) -> list[Primitive]:
    cmc, mcp = joints[13], joints[14]
    belly_a, belly_b = from_hand((22, 12, -14)), cmc + 0.72 * (mcp - cmc) + from_hand((0, 0, -3)) - from_hand((0, 0, 0))
    web = np.stack((cmc + 0.25 * (mcp - cmc), cmc + 0.86 * (mcp - cmc), from_hand((70, 23, -4))))
    return [
        Primitive(np.stack((belly_a, belly_b)), (0, 13), (14.5 * MM, 12.0 * MM)),
        Primitive(web, (13, 13, 0), (6.0 * MM, 6.0 * MM)),
    ]


def _webs(joints: np.ndarray) -> list[Primitive]:
    """The skin between neighbouring fingers: it reaches a third of the proximal phalanges, towards the palm's side."""
    webs = []
    palmar = np.array((0.0, -2.0 * MM, 0.0))
    for one, other in ((1, 4), (4, 10), (10, 7)):
        ends = [joints[j] + 0.30 * (joints[j + 1] - joints[j]) + palmar for j in (one, other)]
        root = 0.5 * (joints[one] + joints[other]) + np.array((8.0 * MM, 0.0, 0.0))
        webs.append(Primitive(np.stack((*ends, root)), (one, other, 0), (5.4 * MM, 5.4 * MM)))
    return webs
