"""A library of natural hand poses, solved for a subject's own proportions.

A pose says how far the four fingers bend, in degrees, and *where the thumb goes*: a direction, or what it touches. The
thumb's angles (and those of a finger that it meets) then follow from a small least-squares problem within the joint
limits, so that a pinch closes on every hand and no thumb runs through a finger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from usthand.datasets.synthetic.kinematics import FINGER_OF, PAIRS, SOFTNESS, Kinematics, limits_rad

FOUR = ("index", "middle", "ring", "little")
DIP_PER_PIP = 0.6  # the tendon couples the last two joints
CONVERGED = 1e-3  # relative decrease of the sum of squares at which a pose is good enough
TOLERANCE_M = 0.004  # overlap of softened capsules that still looks like flesh pressed together


Residual = Callable[[np.ndarray], np.ndarray]
"""Angles (n, 15, 3) -> residuals (n, m)."""


class Thumb(NamedTuple):
    """Where the thumb points from its base, (radial, distal, palmar), and how its two outer joints bend, in degrees."""

    direction: tuple[float, float, float]
    mcp: float = 8.0
    ip: float = 10.0


BESIDE = Thumb((0.35, 0.93, 0.12))
OPEN = Thumb((0.72, 0.68, 0.18))
WIDE = Thumb((0.88, 0.46, 0.10), 0, -5)
LOOSE = Thumb((0.48, 0.78, 0.42), 14, 20)
OPPOSED = Thumb((0.15, 0.75, 0.65), 15, 22)
ACROSS = Thumb((-0.40, 0.75, 0.45), 30, 35)
UP = Thumb((0.85, 0.52, -0.05), 0, -8)


Fingers = dict[str, tuple[float, ...]]
"""Of each finger: flexion of base, middle and last joint, and lean of its base to the thumb's side, in degrees."""


@dataclass(frozen=True)
class Pose:
    """What the fingers and the thumb do."""

    fingers: Fingers
    thumb: Thumb = OPEN
    meets: tuple[str, ...] = ()  # fingertips that touch the thumb's
    over: str = ""  # finger whose middle phalanx the thumb lies upon

    @property
    def thumb_last(self) -> bool:
        """The thumb closes after the fingers and opens before them."""
        return bool(self.over)


def _bent(mcp: float, pip: float, lean: float = 0.0, dip: float | None = None) -> tuple[float, ...]:
    return (mcp, pip, DIP_PER_PIP * pip if dip is None else dip, lean)


def _curled(lean: float = 0.0) -> tuple[float, ...]:
    return _bent(84, 102, lean, 58)


def _each(*fingers: tuple[float, ...]) -> Fingers:
    return dict(zip(FOUR, fingers, strict=True))


def _all(mcp: float, pip: float, dip: float | None = None, leans: tuple[float, ...] = (3, 0, -4, -10)) -> Fingers:
    return _each(*(_bent(mcp, pip, lean, dip) for lean in leans))


_FIST = _each(_curled(), _curled(), _curled(1), _curled(2))


def _only(*names: str, thumb: str, **other: tuple[float, ...]) -> Pose:
    """A fist from which the named fingers stand out."""
    straight = {"index": (4, 6, 4, 5), "middle": (4, 6, 4, 0), "ring": (6, 8, 5, -5), "little": (6, 10, 6, -14)}
    fingers = _FIST | {name: straight[name] for name in names}
    return Pose(fingers | other, over=thumb)


LIBRARY: dict[str, Pose] = {
    "open": Pose(_all(5, 6, 4, (8, 1, -6, -15)), thumb=OPEN),
    "flat": Pose(_all(3, 3, 2, (1, 0, -1, -3)), thumb=BESIDE),
    "spread": Pose(_all(2, 4, 2, (17, 2, -13, -28)), thumb=WIDE),
    "relaxed": Pose(_each(_bent(22, 28, 4), _bent(27, 34), _bent(30, 36, -3), _bent(30, 34, -8)), LOOSE),
    "fist": Pose(_FIST, over="middle"),
    "point": _only("index", thumb="middle"),
    "victory": _only("index", "middle", thumb="ring", index=(4, 5, 3, 14), middle=(2, 4, 3, -7)),
    "three": _only("index", "middle", "ring", thumb="little"),
    "four": Pose(_all(3, 5, 3, (6, 1, -5, -13)), thumb=ACROSS),
    "thumbs_up": Pose(_FIST, thumb=UP),
    "gun": Pose(_FIST | {"index": (4, 6, 4, 3)}, thumb=UP),
    "horns": _only("index", "little", thumb="middle"),
    "call": Pose(_FIST | {"little": (4, 8, 5, -20)}, thumb=WIDE),
    "pinch": Pose(_each(_bent(48, 45), _bent(36, 34), _bent(34, 32, -2), _bent(30, 30, -8)), OPPOSED, meets=("index",)),
    "ok": Pose(_each(_bent(50, 48), _bent(12, 16, -2), _bent(6, 10, -8), _bent(2, 8, -17)), OPPOSED, meets=("index",)),
    "pinch_middle": Pose(
        _each(_bent(22, 26, 7), _bent(52, 46), _bent(38, 34, -2), _bent(32, 30, -8)), OPPOSED, meets=("middle",)
    ),
    "tripod": Pose(
        _each(_bent(48, 42, -1), _bent(52, 46, 1), _bent(60, 64, 0), _bent(62, 66, -3)),
        OPPOSED,
        meets=("index", "middle"),
    ),
    "beak": Pose(_all(58, 22, 12, (-2, 0, 1, 0)), thumb=OPPOSED, meets=("index", "middle")),
    "hook": Pose(_all(8, 82, 45, (2, 0, -1, -4)), thumb=BESIDE),
    "claw": Pose(_all(2, 52, 34, (12, 2, -8, -20)), thumb=WIDE),
    "table": Pose(_all(68, 6, 4, (1, 0, 0, -1)), thumb=BESIDE),
    "hold_cylinder": Pose(_all(42, 50, 28, (3, 0, -2, -5)), thumb=Thumb((0.15, 0.62, 0.77), 12, 25)),
    "hold_sphere": Pose(_all(30, 36, 24, (13, 2, -8, -19)), thumb=Thumb((0.30, 0.68, 0.67), 10, 20)),
    "hold_box": Pose(_all(52, 18, 10, (5, 1, -4, -10)), thumb=Thumb((0.22, 0.68, 0.70), 12, 8)),
}


# The ends between which fingers close around a thing.
_REACH = Pose(_all(8, 8, 5, (8, 1, -6, -14)), thumb=Thumb((0.92, 0.38, 0.10), 0, 0))
_GRIP = Pose(_all(78, 92, 55, (3, 0, -3, -6)), thumb=Thumb((-0.25, 0.72, 0.65), 35, 45))


def _effort() -> np.ndarray:
    """How far (15, 3) the solver bends each angle from the pose's own as lightly as it misses a goal by one unit."""
    effort = np.full((15, 3), np.deg2rad(30))
    effort[3 * FINGER_OF["thumb"]] = np.deg2rad(50)  # the thumb's saddle joint does the aiming
    effort[:12, 1] = np.deg2rad(8)
    return effort


EFFORT_RAD = _effort()


def solve(pose: Pose, kin: Kinematics) -> np.ndarray:
    """Angles (15, 3) in radians, within the limits, for one subject."""
    low, high = limits_rad()
    start = np.clip(_finger_angles(pose, kin), low, high)
    free = np.zeros((15, 3), bool)
    thumb = slice(3 * FINGER_OF["thumb"], 3 * FINGER_OF["thumb"] + 3)
    free[thumb] = True
    for name in pose.meets:
        joint = 3 * FINGER_OF[name]
        free[joint : joint + 3, 0] = True
        free[joint, 1] = True
    free &= high - low > 1e-3
    return _least_squares(_residual(pose, kin, start), start, free, low, high)


def grasp(kin: Kinematics, points_m: np.ndarray) -> np.ndarray:
    """Close the hand around a thing: each finger bends until it touches, then its outer joints go on until they do.

    points_m (N, 3): the thing's surface in the palm's frame (radial, distal, palmar, from the wrist). Returns (15, 3).
    """
    low, high = limits_rad()
    points = points_m @ kin.frame
    angles, shut = solve(_REACH, kin), solve(_GRIP, kin)
    for joints in ((0, 1, 2), (1, 2)):  # the whole finger, then the two outer joints
        for finger in range(5):
            moving = [3 * finger + k for k in joints]
            angles = close_finger(kin, points, angles, shut, finger, moving)
    return np.clip(angles, low, high)


def close_finger(
    kin: Kinematics,
    points: np.ndarray,
    angles: np.ndarray,
    shut: np.ndarray,
    finger: int,
    moving: list[int],
    steps: int = 48,
) -> np.ndarray:
    """Move some joints of one finger towards `shut` up to the last step before the finger enters the thing."""
    way = np.repeat(angles[None], steps, 0)
    part = np.linspace(0, 1, steps)[:, None, None]
    way[:, moving] += part * (shut - angles)[moving]
    start, end, radius = kin.capsules(kin.joints(way)[0])
    # The ball of the thumb is soft and part of the palm: its first bone does not count.
    mine = slice(3 * finger + (finger == FINGER_OF["thumb"]), 3 * finger + 3)
    a, b = start[:, mine, None], end[:, mine, None]
    t = np.clip(((points - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)
    gap = np.linalg.norm(points - a - t[..., None] * (b - a), axis=-1).min(-1) - SOFTNESS * radius[mine]
    inside = (gap < 0).any(-1)
    first = int(inside.argmax()) if inside.any() else steps
    return way[max(first - 1, 0)]


def library(kin: Kinematics) -> dict[str, np.ndarray]:
    """All poses of `LIBRARY` for one subject: name -> angles (15, 3)."""
    return {name: solve(pose, kin) for name, pose in LIBRARY.items()}


def _finger_angles(pose: Pose, kin: Kinematics) -> np.ndarray:
    """The pose's finger angles in radians; the thumb's in the middle of its range.

    Poses are told against the palm; angles count from the rest pose, in which fingers already spread and droop.
    """
    low, high = limits_rad()
    angles = np.zeros((15, 3))
    rest_flexion, rest_lean = kin.rest_angles()
    for name in FOUR:
        joint, finger = 3 * FINGER_OF[name], FINGER_OF[name]
        *flexion, lean = np.deg2rad(pose.fingers[name])
        angles[joint : joint + 3, 0] = flexion - rest_flexion[finger]
        angles[joint, 1] = (lean - rest_lean[finger]) * kin.radial_sign[finger]
    thumb = 3 * FINGER_OF["thumb"]
    angles[thumb] = 0.5 * (low + high)[thumb]
    angles[thumb + 1, 0], angles[thumb + 2, 0] = np.deg2rad([pose.thumb.mcp, pose.thumb.ip])
    return angles


def _residual(pose: Pose, kin: Kinematics, start: np.ndarray) -> Residual:
    """Residuals (n, m) of candidate angles (n, 15, 3): what the thumb should do, no collision, little effort."""
    thumb = FINGER_OF["thumb"]
    aim = kin.frame.T @ np.array(pose.thumb.direction) / np.linalg.norm(pose.thumb.direction)
    touching = np.ones(len(PAIRS))
    for name in pose.meets:
        tips = {3 * thumb + 2, 3 * FINGER_OF[name] + 2}
        touching[[set(pair) == tips for pair in PAIRS.tolist()]] = 0.3  # pads give

    def goal(points: np.ndarray, turn: np.ndarray) -> np.ndarray:
        if pose.meets:
            pad, normal = kin.pads(points, turn)
            others = [FINGER_OF[name] for name in pose.meets]
            gap = pad[..., thumb, :] - pad[..., others, :].mean(-2)
            facing = 1 + (normal[..., thumb, :] * normal[..., others, :].mean(-2)).sum(-1, keepdims=True)
            return np.concatenate([gap / 0.0015, facing / 0.5], axis=-1)
        if pose.over:
            finger = FINGER_OF[pose.over]
            above = kin.palmar(turn)[..., finger, 1, :]
            middle = 0.5 * (points[..., finger, 1, :] + points[..., finger, 2, :])
            reach = kin.radius_m[finger, 1] + kin.radius_m[thumb, 2]
            return (points[..., thumb, 3, :] - middle + reach * above) / 0.005
        way = points[..., thumb, 3, :] - points[..., thumb, 0, :]
        return (way / np.linalg.norm(way, axis=-1, keepdims=True) - aim) / 0.05

    def residual(angles: np.ndarray) -> np.ndarray:
        lead = angles.shape[:-2]
        points, turn = kin.joints(angles)
        overlap = np.maximum(0, kin.overlap_m(points) - 0.5 * TOLERANCE_M) * touching / 0.0015
        effort = ((angles - start) / EFFORT_RAD).reshape(*lead, 45)
        return np.concatenate([goal(points, turn), overlap, effort], axis=-1)

    return residual


def _least_squares(
    residual: Residual, start: np.ndarray, free: np.ndarray, low: np.ndarray, high: np.ndarray, iterations: int = 40
) -> np.ndarray:
    """Levenberg-Marquardt over the free angles, clipped to their limits; derivatives by differences, batched."""
    step = 1e-5
    angles, damping = start.copy(), 1e-2
    index = np.argwhere(free)
    value = residual(angles)
    for _ in range(iterations):
        moved = np.repeat(angles[None], len(index), 0)
        moved[np.arange(len(index)), index[:, 0], index[:, 1]] += step
        jacobian = ((residual(moved) - value) / step).T
        normal = jacobian.T @ jacobian
        change = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-6), -jacobian.T @ value)
        trial = angles.copy()
        trial[free] += change
        trial = np.clip(trial, low, high)
        trial_value = residual(trial)
        before, after = value @ value, trial_value @ trial_value
        if after < before:
            angles, value, damping = trial, trial_value, max(damping / 3, 1e-6)
        else:
            damping *= 4
        if before - CONVERGED * before < after < before or damping > 1e6:
            break
    return angles
