"""A hand that real people fit: the length of every bone, the palm and the thickness of fingers as further shape.

A hand model's own ten shapes are those of the people it was made from, or of nobody in particular. `with_proportions`
adds `N_PROPORTIONS` directions to those of any hand in MANO's layout, each with a standard deviation of one:

- the lengths of the 15 phalanges (of the thumb: metacarpal and two phalanges) and of the four other metacarpals;
- the breadth and the arch of the palm, and the place of the thumb's base along, across and out of it;
- the thickness of each finger, and of the palm.

How far people differ is published: Buryanov and Kotiuk, "Proportions of Hand Segments", Int. J. Morphol. 28(3), 2010,
give mean and standard deviation of every segment of 66 hands, on the average 8.5 % of a metacarpal's length and 11 % of
a phalanx's. A hand model's own shapes hold what the segments have in common, some 6 %: `METACARPAL_STD` and
`PHALANX_STD` are the rest. Breadths: Greiner, "Hand Anthropometry of U.S. Army Personnel", 1991: some 6 % in all.

Displacements are linear in the coefficients. A bone that grows carries along what hangs on it, and stretches its own
flesh evenly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from usthand.hand.limits import palm_directions
from usthand.hand.model import N_MANO_JOINTS, N_SHAPES, HandModel
from usthand.hand.skeleton import MANO_PARENTS

PHALANX_STD, METACARPAL_STD = 0.08, 0.05  # of a length
BREADTH_STD, THICKNESS_STD = 0.05, 0.08  # of the palm's breadth; of a finger's and the palm's thickness
ARCH_STD_M = 0.003  # of the middle of the palm, out of the plane of its edges
THUMB_BASE_STD_M = 0.004  # across and out of the palm
RAY_REACH_M = 0.012  # how far a metacarpal's move is felt to its sides
_BASES = (1, 4, 7, 10, 13)  # MANO's first joints of index, middle, little, ring, thumb
_THUMB = 4
_MCP, _TIP_LEVEL = 0, 2

_FINGERS = ("index", "middle", "little", "ring")
PROPORTIONS: tuple[str, ...] = (
    *(f"{finger} {part} length" for finger in _FINGERS for part in ("proximal", "middle", "distal")),
    *(f"thumb {part} length" for part in ("metacarpal", "proximal", "distal")),
    *(f"{finger} metacarpal length" for finger in _FINGERS),
    "palm breadth",
    "palm arch",
    *(f"thumb base {way}" for way in ("distal", "radial", "palmar")),
    *(f"{finger} thickness" for finger in (*_FINGERS, "thumb")),
    "palm thickness",
)
"""What each further coefficient is, in order."""
N_PROPORTIONS = len(PROPORTIONS)


def with_proportions(hand: HandModel) -> HandModel:
    """The same hand with `N_PROPORTIONS` further shapes after its own.

    Args:
        hand: Either side. A hand that has them already is returned as it is.
    """
    if hand.shapedirs.shape[-1] > N_SHAPES:
        return hand
    if hand.side == "left":
        return with_proportions(hand.mirrored()).mirrored()
    vertices, joints = _Growth(hand).directions()
    return replace(
        hand,
        shapedirs=torch.cat((hand.shapedirs, torch.from_numpy(vertices).to(hand.shapedirs)), -1),
        joints_shapedirs=torch.cat((hand.joints_shapedirs, torch.from_numpy(joints).to(hand.shapedirs)), -1),
    )


class _Growth:
    """Displacement fields over the rest mesh of a right hand; float64."""

    def __init__(self, hand: HandModel) -> None:
        self.vertices, self.joints, self.weights = (
            value.detach().double().cpu().numpy() for value in (hand.v_template, hand.joints_template, hand.weights)
        )
        tips = self.vertices[hand.tip_ids.cpu().numpy()][[1, 2, 4, 3, 0]]  # MANO's order of fingers
        self.ends = np.array([tips[j // 3] if j % 3 == _TIP_LEVEL else self.joints[j + 2] for j in range(15)])
        palmar, ulnar = palm_directions(self.joints)
        self.palmar, self.radial = palmar, -ulnar
        self.distal = np.cross(self.radial, palmar)
        if self.distal @ (self.joints[4] - self.joints[0]) < 0:
            self.distal = -self.distal

    def directions(self) -> tuple[Float[np.ndarray, "N 3 P"], Float[np.ndarray, "16 3 P"]]:
        """Of vertices and of MANO's joints, metres per unit coefficient."""
        fields = [self._phalanx(j) for j in range(15)]
        fields += [self._bases({f: METACARPAL_STD * (self.joints[_BASES[f]] - self.joints[0])}) for f in range(4)]
        fields += [self._bases(self._breadth()), self._bases(self._arch())]
        thumb = METACARPAL_STD * np.linalg.norm(self.joints[_BASES[0]] - self.joints[0])
        for way, size in ((self.distal, thumb), (self.radial, THUMB_BASE_STD_M), (self.palmar, THUMB_BASE_STD_M)):
            fields.append(self._bases({_THUMB: size * way}))
        fields += [self._thickness(f) for f in range(5)]
        fields.append(self._palm_thickness())
        vertices, joints = zip(*fields, strict=True)
        return np.stack(vertices, -1), np.stack(joints, -1)

    def _along(self, start: np.ndarray, end: np.ndarray) -> Float[np.ndarray, "N"]:
        """Where each vertex lies between two points, 0 to 1."""
        axis = end - start
        return np.clip((self.vertices - start) @ axis / (axis @ axis), 0.0, 1.0)

    def _phalanx(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """A bone of a finger, longer by one standard deviation: joint j + 1 of MANO to its end."""
        start, end = self.joints[j + 1], self.ends[j]
        grown = PHALANX_STD * (end - start)
        beyond = [k for k in range(N_MANO_JOINTS) if _is_below(k, j + 1) and k != j + 1]
        share = self.weights[:, j + 1] * self._along(start, end) + self.weights[:, beyond].sum(1)
        joints = np.zeros((N_MANO_JOINTS, 3))
        joints[beyond] = grown
        return share[:, None] * grown, joints

    def _bases(self, moves: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """First joints of fingers moved, with their fingers, and with the flesh of the palm around the metacarpals."""
        near = self._rays()
        vertices, joints = np.zeros_like(self.vertices), np.zeros((N_MANO_JOINTS, 3))
        for finger, move in moves.items():
            chain = range(_BASES[finger], _BASES[finger] + 3)
            share = self.weights[:, chain].sum(1)
            share += self.weights[:, 0] * near[:, finger] * self._along(self.joints[0], self.joints[_BASES[finger]])
            vertices += share[:, None] * move
            joints[list(chain)] += move
        return vertices, joints

    def _rays(self) -> Float[np.ndarray, "N 5"]:
        """How much of each vertex belongs to each metacarpal; rows sum to one."""
        distance = []
        for base in _BASES:
            s = self._along(self.joints[0], self.joints[base])[:, None]
            foot = self.joints[0] + s * (self.joints[base] - self.joints[0])
            distance.append(((self.vertices - foot) ** 2).sum(1))
        squared = np.stack(distance, -1)
        near = np.exp(-(squared - squared.min(1, keepdims=True)) / (2 * RAY_REACH_M**2))
        return near / near.sum(1, keepdims=True)

    def _breadth(self) -> dict[int, np.ndarray]:
        middle = self.joints[list(_BASES[:4])].mean(0)
        return {f: BREADTH_STD * ((self.joints[_BASES[f]] - middle) @ self.radial) * self.radial for f in range(4)}

    def _arch(self) -> dict[int, np.ndarray]:
        """The two inner knuckles out of the palm's back, the outer ones towards its front."""
        return {f: (-0.5 if f in (1, 3) else 0.5) * ARCH_STD_M * self.palmar for f in range(4)}

    def _thickness(self, finger: int) -> tuple[np.ndarray, np.ndarray]:
        """A finger's flesh away from its bones."""
        moved = np.zeros_like(self.vertices)
        for j in range(3 * finger, 3 * finger + 3):
            axis = self.ends[j] - self.joints[j + 1]
            axis = axis / np.linalg.norm(axis)
            lever = self.vertices - self.joints[j + 1]
            across = lever - (lever @ axis)[:, None] * axis
            moved += self.weights[:, j + 1, None] * across
        return THICKNESS_STD * moved, np.zeros((N_MANO_JOINTS, 3))

    def _palm_thickness(self) -> tuple[np.ndarray, np.ndarray]:
        """The palm's flesh out of the plane of its bones."""
        deep = (self.vertices - self.joints[list((0, *_BASES[:4]))].mean(0)) @ self.palmar
        moved = self.weights[:, 0, None] * deep[:, None] * self.palmar
        return THICKNESS_STD * moved, np.zeros((N_MANO_JOINTS, 3))


def _is_below(joint: int, ancestor: int) -> bool:
    while joint > ancestor:
        joint = MANO_PARENTS[joint]
    return joint == ancestor
