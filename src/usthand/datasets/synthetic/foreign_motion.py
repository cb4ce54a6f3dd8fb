"""How hands that are not ours move: random joint angles within published limits, and grasps; none of our poses.

Each finger goes through key angles of its own: all joints at random, all fingers curled alike, or closed around a ball,
a rod or a block until they touch it. A key that takes a finger through another, at itself or on the straight way from
the key before, is drawn again; the least bad of some draws is taken. Monotone cubic interpolation keeps between two
keys what both allow, and a Gaussian over time makes it smooth. The hand as a whole turns and wanders as ours does, for
that decides only from where it is seen; the wrist bends by a slow sum of sines.

Limits, in degrees from the straight finger: Hume, Gellman, McKellop and Brumfield, Functional range of motion of the
joints of the hand, J. Hand Surg. 15-A, 1990 (active motion: base joints 0 to 100, middle ones 0 to 105, last ones 0 to
85; thumb, middle joint 0 to 56, last joint -5 to 73). Spread and the thumb's saddle joint: American Academy of
Orthopaedic Surgeons, Joint Motion, 1965 (flexion 15, extension 20, abduction 70, of which the rest pose has about 40).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from usthand.datasets.synthetic import shapes
from usthand.datasets.synthetic.kinematics import FINGER_OF, Kinematics
from usthand.datasets.synthetic.motion import turning, wandering
from usthand.datasets.synthetic.poses import close_finger
from usthand.datasets.synthetic.skinned import THUMB, SkinnedHand

FLEXION_DEG = np.array([(0.0, 100.0), (0.0, 105.0), (0.0, 85.0)])
LEAN_DEG = 18.0  # of a straight finger, either way; it fades as the finger bends, for then the ligaments are tight
NEUTRAL_LEAN_DEG = np.array(
    [3.0, 0.0, -8.0, -4.0]
)  # of fingers that lie side by side, to the thumb's side; MANO's order
THUMB_DEG = np.array([[(-20.0, 15.0), (-15.0, 30.0)], [(0.0, 56.0), (0.0, 0.0)], [(-5.0, 73.0), (0.0, 0.0)]])
THUMB_TWIST_PER_ABDUCTION = 0.5  # the saddle joint turns the thumb's pad to the fingers as it opposes
KEY_S = (0.35, 1.0)
MAX_RAD_S = 7.0  # mean speed of the fastest joint between two keys; twice that are the peaks
OUT_OF_STEP_S = 0.05  # standard deviation of a finger's key times
SMOOTH_S = 0.06
FINE_HZ = 120.0  # of the grid on which the angles are interpolated and smoothed
MAX_OVERLAP_M = 0.003  # of softened capsules
TRIES = 16
WRIST_FLEXION_RAD, WRIST_DEVIATION_RAD = (0.1, 0.6), (0.05, 0.2)  # amplitudes


@dataclass(frozen=True)
class ForeignMotion:
    """Arguments of `SkinnedHand.pose`: T frames."""

    angles: np.ndarray  # (T, 15, 3)
    turn: np.ndarray  # (T, 3)
    wrist: np.ndarray  # (T, 3)
    translation_m: np.ndarray  # (T, 3)


def sample_foreign_motion(
    hand: SkinnedHand, n_frames: int, fps: float, rng: np.random.Generator, held: np.ndarray | None = None
) -> ForeignMotion:
    """Draw a motion.

    Args:
        hand: The person's.
        n_frames: T.
        fps: Frames per second.
        rng: Source of randomness.
        held: Surface of a held object, (N, 3) m in the palm's frame: the fingers stay closed around it.
    """
    kin, time = hand.sticks(), np.arange(n_frames) / fps
    angles = finger_angles(kin, time, rng, held)
    turn = turning(time, kin.frame[1], rng)
    wrist = _wrist(time, rng) @ kin.frame
    _, joints = hand.pose(angles, turn, wrist, np.zeros((n_frames, 3)))
    return ForeignMotion(angles, turn, wrist, wandering(time, rng) - joints.mean(1))


def finger_angles(
    kin: Kinematics, time: np.ndarray, rng: np.random.Generator, held: np.ndarray | None = None
) -> np.ndarray:
    """Angles (T, 15, 3) at times (T,), seconds, ascending from 0."""
    grip = None if held is None else close_hand(kin, held @ kin.frame, random_key(kin, rng, curl=0.1))
    keys, at = [_draw(kin, rng, grip)], [-0.5]
    while at[-1] < time[-1] + 0.5 or len(keys) < 4:
        key = _next(kin, keys[-1], rng, grip)
        at.append(at[-1] + max(rng.uniform(*KEY_S), np.abs(key - keys[-1]).max() / MAX_RAD_S))
        keys.append(key)
    fine = np.arange(-0.4, time[-1] + 0.4, 1 / FINE_HZ)
    angles = np.empty((len(fine), 15, 3))
    for finger in range(5):
        own = np.array(at) + np.clip(rng.normal(scale=OUT_OF_STEP_S, size=len(at)), -0.15, 0.15)
        mine = slice(3 * finger, 3 * finger + 3)
        angles[:, mine] = PchipInterpolator(own, np.array(keys)[:, mine], extrapolate=True)(
            np.clip(fine, own[0], own[-1])
        )
    angles = gaussian_filter1d(angles, SMOOTH_S * FINE_HZ, axis=0, mode="nearest")
    return np.stack([np.interp(time, fine, one) for one in angles.reshape(len(fine), 45).T], 1).reshape(-1, 15, 3)


def random_key(kin: Kinematics, rng: np.random.Generator, curl: float | None = None) -> np.ndarray:
    """Angles (15, 3) within the limits: each joint at random, or all fingers curled alike (0 straight to 1 shut)."""
    rest_flexion, rest_lean = kin.rest_angles()
    low, high = np.deg2rad(FLEXION_DEG).T
    angles = np.zeros((15, 3))
    for finger in range(4):
        if curl is None:
            part = rng.uniform(size=3)
            part[2] = np.clip(0.75 * part[1] + rng.normal(scale=0.12), 0, 1)  # one tendon bends both outer joints
        else:
            part = np.clip(curl + rng.normal(scale=0.12, size=3), 0, 1)
        flexion = low + part * (high - low)
        lean = NEUTRAL_LEAN_DEG[finger] + LEAN_DEG * (1 - part[0]) * np.clip(rng.normal(scale=0.5), -1, 1)
        mine = slice(3 * finger, 3 * finger + 3)
        angles[mine, 0] = flexion - rest_flexion[finger]
        angles[3 * finger, 1] = (np.deg2rad(lean) - rest_lean[finger]) * kin.radial_sign[finger]
    thumb = np.deg2rad(THUMB_DEG)
    drawn = rng.uniform(size=(3, 2)) if curl is None else np.clip(curl + rng.normal(scale=0.2, size=(3, 2)), 0, 1)
    angles[THUMB : THUMB + 3, :2] = thumb[..., 0] + drawn * (thumb[..., 1] - thumb[..., 0])
    angles[THUMB, 2] = THUMB_TWIST_PER_ABDUCTION * max(angles[THUMB, 1], 0.0)
    return angles


def close_hand(kin: Kinematics, points_m: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Angles (15, 3) of a hand that closes from `start` until each finger touches a thing; (N, 3) m, the rest frame."""
    shut = start.copy()
    rest_flexion, _ = kin.rest_angles()
    shut[:12, 0] = (np.deg2rad(FLEXION_DEG[:, 1]) - rest_flexion[:4]).ravel()
    shut[THUMB : THUMB + 3, :2] = np.deg2rad(THUMB_DEG[..., 1])
    angles = start
    for joints in ((0, 1, 2), (1, 2)):
        for finger in range(5):
            angles = close_finger(kin, points_m, angles, shut, finger, [3 * finger + k for k in joints])
    return angles


def _grasp(kin: Kinematics, rng: np.random.Generator) -> np.ndarray:
    """A hand around a ball, a rod or a block of its own size, which touches the palm."""
    radius = rng.uniform(0.012, 0.04)
    kind = rng.integers(3)
    if kind == 0:
        surface, _ = shapes.sphere(radius)
    elif kind == 1:
        surface, _ = shapes.cylinder(0.7 * radius, 0.16)
        surface = surface[:, [2, 0, 1]]  # across the palm
    else:
        surface, _ = shapes.box((2 * radius, 2 * radius, 1.4 * radius))
    reach = 0.8 * np.linalg.norm(kin.base[FINGER_OF["middle"]])
    centre = np.array([rng.uniform(-0.01, 0.01), reach, 0.016 + 0.8 * radius])
    return close_hand(kin, (surface + centre) @ kin.frame, random_key(kin, rng, curl=rng.uniform(0, 0.15)))


def _draw(kin: Kinematics, rng: np.random.Generator, grip: np.ndarray | None) -> np.ndarray:
    if grip is not None:  # a little looser at times
        return grip + rng.uniform(0, 0.08) * (random_key(kin, rng, curl=0.0) - grip)
    kind = rng.uniform()
    if kind < 0.5:
        return random_key(kin, rng)
    return random_key(kin, rng, curl=rng.uniform(0, 0.85)) if kind < 0.75 else _grasp(kin, rng)


def _next(kin: Kinematics, here: np.ndarray, rng: np.random.Generator, grip: np.ndarray | None) -> np.ndarray:
    part = np.linspace(0, 1, 9)[1:, None, None]
    tried = []
    for _ in range(TRIES):
        key = _draw(kin, rng, grip)
        overlap = kin.penetration_m(here + part * (key - here)).max()
        tried.append((overlap, key))
        if overlap < MAX_OVERLAP_M:
            break
    return min(tried, key=lambda one: one[0])[1]


def _wrist(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotation vectors (T, 3) in the palm's frame: flexion about its radial axis, deviation about the palmar one."""
    flexion, deviation = rng.uniform(*WRIST_FLEXION_RAD), rng.uniform(*WRIST_DEVIATION_RAD)
    frequency, phase = rng.uniform(0.05, 0.3, size=2), rng.uniform(0, 2 * np.pi, size=2)
    swing = np.sin(2 * np.pi * frequency * time[:, None] + phase)
    return np.stack([flexion * swing[:, 0], np.zeros(len(time)), deviation * swing[:, 1]], 1)
