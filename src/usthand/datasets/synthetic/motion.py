"""Smooth, natural hand motion within the joint limits: a walk between key poses, and the hand turned and carried about.

Fingers go from pose to pose in minimum-jerk strokes (Flash and Hogan 1985), each finger with a little lead or lag, and
hold in between. A stroke on which a finger would run through another is not taken: another pose is tried, in the end
the open hand. The hand as a whole turns along a smooth curve through orientations that are chosen far apart, so that
all sides of it are seen, and wanders through a ball around the world's origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from usthand.datasets.synthetic.kinematics import FINGER_OF, Kinematics, kinematics, limits_rad
from usthand.datasets.synthetic.poses import LIBRARY, library
from usthand.datasets.synthetic.poses import grasp as close_around
from usthand.hand.model import HandModel

MAX_STROKE_RAD_S = 7.0  # peak joint speed; fast voluntary finger movements reach 10 to 15 rad/s
MIN_JERK_PEAK = 1.875  # peak over mean speed of a minimum-jerk stroke
STROKE_S = (0.30, 0.80)  # duration of a pose change
HOLD_S = (0.10, 0.60)
PHASE_S = 0.06  # standard deviation of a finger's lead or lag
THUMB_LAG = 0.45  # of the stroke: a thumb that lies over fingers comes after them and leaves before
TURN_RAD_S = 1.4  # mean speed of turning; peaks are about twice that, as in showing an object around
TURN_RAD = (0.7, 2.1)  # angle between key orientations
MAX_ELBOW_SINE = 0.3  # of the elbow's elevation above the hand: people reach up, forward and a little down
CARRY_M_S = 0.15  # mean speed of carrying
BALL_RADIUS_M = 0.06  # the hand's centre stays within about this distance of the world's origin
TREMOR_RAD, TREMOR_HZ = 0.003, (8.0, 12.0)  # physiological tremor
DRIFT_RAD, DRIFT_HZ = 0.02, (0.3, 1.5)  # no pose is held quite still
MAX_OVERLAP_M = 0.006  # of softened capsules on the way; about 1 mm less than the flesh of two fingers gives
TRIES = 12
SHAPE_LIMIT = 2.0  # standard deviations

GRASP_OPENING = 0.10  # a hand that holds something opens at most by this part of the way to the open hand


@dataclass(frozen=True)
class Motion:
    """One subject's motion. The hand's frame is the right hand's rest frame; world metres."""

    pose: np.ndarray
    """(T, 48) axis-angle, flat-hand mean; the first three turn the whole hand."""
    translation_m: np.ndarray
    """(T, 3), added after the hand has been turned about its root joint."""
    shape: np.ndarray
    """(10,)"""
    angles: np.ndarray
    """(T, 15, 3) finger angles: flexion, abduction, twist; radians."""
    names: tuple[str, ...]
    """The pose that each frame is in or on the way to."""


def sample_shape(rng: np.random.Generator, n: int = 10) -> np.ndarray:
    """Shape coefficients: standard normal, cut off at two standard deviations."""
    shape = rng.normal(size=n)
    while (outside := np.abs(shape) > SHAPE_LIMIT).any():
        shape[outside] = rng.normal(size=outside.sum())
    return shape


def sample_motion(
    hand: HandModel,
    n_frames: int,
    fps: float,
    rng: np.random.Generator,
    grasp: np.ndarray | None = None,
    shape: np.ndarray | None = None,
) -> Motion:
    """Draw a motion of a right hand.

    Args:
        hand: The hand model; a right one.
        n_frames: T.
        fps: Frames per second.
        rng: Source of randomness.
        grasp: Surface of a held object, (N, 3) m in the palm's frame (radial, distal, palmar from the wrist): the
            fingers close around it and stay there, instead of walking through all poses.
        shape: The subject, (10,); drawn if not given.
    """
    shape = sample_shape(rng) if shape is None else np.asarray(shape, float)
    kin = kinematics(hand, shape)
    held = None if grasp is None else close_around(kin, grasp)
    angles, names = finger_motion(kin, library(kin), n_frames, fps, rng, held)
    time = np.arange(n_frames) / fps
    root = turning(time, kin.frame[1], rng)
    pose = np.concatenate([root, finger_pose(kin, angles)], axis=1)
    centre = hand_centre(hand, shape, pose)
    return Motion(pose, wandering(time, rng) - centre, shape, angles, names)


def finger_pose(kin: Kinematics, angles: np.ndarray) -> np.ndarray:
    """Finger angles (..., 15, 3) as axis-angle (..., 45), flat-hand mean."""
    vectors = np.einsum("...ja,jax->...jx", angles, kin.axes)
    return vectors.reshape(*angles.shape[:-2], 45)


def hand_centre(hand: HandModel, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Mean of the 21 joints (T, 3) of a hand with translation zero."""
    dtype = hand.v_template.dtype
    with torch.no_grad():
        rotations = hand.rotations(torch.as_tensor(pose, dtype=dtype), flat_hand_mean=True)
        shaped = hand.skeleton_model().with_shape(torch.as_tensor(shape, dtype=dtype))
        posed = shaped.with_pose(rotations, torch.zeros(len(pose), 3, dtype=dtype))
    return posed.joints.mean(-2).double().numpy()


def finger_motion(
    kin: Kinematics,
    poses: dict[str, np.ndarray],
    n_frames: int,
    fps: float,
    rng: np.random.Generator,
    held: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Finger angles (T, 15, 3) and pose names (T,): a walk through the `poses`, or around the grasp `held` (15, 3)."""
    time = np.arange(n_frames) / fps
    low, high = limits_rad()
    name, here = _draw(poses, rng, held)
    angles = np.repeat(here[None], n_frames, 0)
    names = [name] * n_frames
    clock = rng.uniform(*HOLD_S)
    while clock < time[-1]:
        stroke = _next_stroke(kin, poses, name, here, rng, held)
        angles += stroke.change[None] * stroke.progress(time - clock)
        for frame in range(int(np.ceil(clock * fps)), n_frames):
            names[frame] = stroke.name
        name, here = stroke.name, stroke.end
        clock += stroke.duration + stroke.slack + rng.uniform(*HOLD_S)
    angles += _unrest(time, DRIFT_RAD, DRIFT_HZ, rng) + _unrest(time, TREMOR_RAD, TREMOR_HZ, rng)
    return np.clip(angles, low, high), tuple(names)


@dataclass(frozen=True)
class Stroke:
    """A change from one pose to the next."""

    name: str
    end: np.ndarray
    """(15, 3) angles at the end."""
    change: np.ndarray
    """(15, 3) angles, end minus start."""
    duration: float
    lag: np.ndarray
    """(15, 1) seconds after the stroke's start, >= 0, at which each joint sets out."""

    @property
    def slack(self) -> float:
        """The longest lag, seconds."""
        return float(self.lag.max())

    def progress(self, time: np.ndarray) -> np.ndarray:
        """Part of the change done (n, 15, 1) at times (n,) after the start, in seconds."""
        return minimum_jerk((time[:, None, None] - self.lag) / self.duration)


def minimum_jerk(u: np.ndarray) -> np.ndarray:
    """Position in [0, 1] at normalised time u, at rest before 0 and after 1."""
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10 - 15 * u + 6 * u * u)


def _next_stroke(
    kin: Kinematics,
    poses: dict[str, np.ndarray],
    name: str,
    here: np.ndarray,
    rng: np.random.Generator,
    held: np.ndarray | None,
) -> Stroke:
    """A stroke to another pose on which no finger runs through another; if none is found, towards the open hand."""
    tried = []
    for attempt in range(TRIES):
        target_name, target = _draw(poses, rng, held)
        if attempt == TRIES - 1 and held is None:
            target_name, target = "open", poses["open"]
        stroke = _stroke(name, here, target_name, target, rng)
        check = np.linspace(0, stroke.duration + stroke.slack, 13)[1:]
        way = here + stroke.change * stroke.progress(check)
        overlap = kin.penetration_m(way).max()
        if overlap < MAX_OVERLAP_M:
            return stroke
        tried.append((overlap, stroke))
    return min(tried, key=lambda one: one[0])[1]


def _stroke(name: str, here: np.ndarray, target_name: str, target: np.ndarray, rng: np.random.Generator) -> Stroke:
    change = target - here
    duration = max(rng.uniform(*STROKE_S), MIN_JERK_PEAK * np.abs(change).max() / MAX_STROKE_RAD_S)
    lag = rng.normal(scale=PHASE_S, size=5)
    thumb = FINGER_OF["thumb"]
    others = np.arange(5) != thumb
    over = [key in LIBRARY and LIBRARY[key].thumb_last for key in (name, target_name)]
    if over[1]:
        lag[thumb] = lag[others].max() + THUMB_LAG * duration
    elif over[0]:
        lag[thumb] = lag[others].min() - THUMB_LAG * duration
    return Stroke(target_name, target, change, duration, (lag - lag.min()).repeat(3)[:, None])


def _draw(poses: dict[str, np.ndarray], rng: np.random.Generator, held: np.ndarray | None) -> tuple[str, np.ndarray]:
    """A pose of the library, sometimes not quite reached (blended with the relaxed one); or the grasp, a bit open."""
    if held is not None:
        return "grasp", held + rng.uniform(0, GRASP_OPENING) * (poses["open"] - held)
    name = str(rng.choice(list(poses)))
    short = 0.0 if LIBRARY[name].meets else rng.uniform(0, 0.25)
    return name, poses[name] + short * (poses["relaxed"] - poses[name])


def _unrest(time: np.ndarray, amplitude: float, band_hz: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Sinusoids (T, 15, 3) of random frequency and phase; `amplitude` rad rms in flexion, a third in abduction."""
    frequency = rng.uniform(*band_hz, size=(15, 3))
    phase = rng.uniform(0, 2 * np.pi, size=(15, 3))
    size = amplitude * np.sqrt(2) * np.array([1.0, 1 / 3, 0.0])
    return size * np.sin(2 * np.pi * frequency * time[:, None, None] + phase)


def turning(time: np.ndarray, distal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth rotations of the whole hand, rotation vectors (T, 3), through keys that keep away from earlier ones.

    distal (3,): where the fingers point at rest; the elbow lies the other way. World z is up.
    """

    def elbow_height(key: Rotation) -> float:
        return -float(key.apply(distal)[2])

    keys, times = [min((Rotation.random(None, rng) for _ in range(8)), key=elbow_height)], [-0.5]
    while times[-1] < time[-1] + 0.5 or len(keys) < 3:
        axis = rng.normal(size=(16, 3))
        turn = axis / np.linalg.norm(axis, axis=1, keepdims=True) * rng.uniform(*TURN_RAD, size=(16, 1))
        candidates = sorted((Rotation.from_rotvec(v) * keys[-1] for v in turn), key=elbow_height)
        allowed = [key for key in candidates if elbow_height(key) < MAX_ELBOW_SINE] or candidates[:1]
        fresh = [min((old.inv() * key).magnitude() for old in keys) for key in allowed]
        keys.append(allowed[int(np.argmax(fresh))])
        angle = (keys[-2].inv() * keys[-1]).magnitude()
        times.append(times[-1] + max(0.5, angle / TURN_RAD_S * rng.uniform(0.8, 1.4)))
    return RotationSpline(times, Rotation.concatenate(keys))(time).as_rotvec()


def wandering(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth path (T, 3), metres, through a ball around the origin."""
    points, times = [_in_ball(rng)], [-0.5]
    while times[-1] < time[-1] + 0.5 or len(points) < 3:
        points.append(_in_ball(rng))
        distance = float(np.linalg.norm(points[-1] - points[-2]))
        times.append(times[-1] + max(0.5, distance / CARRY_M_S * rng.uniform(0.8, 1.5)))
    return CubicSpline(times, np.array(points))(time)


def _in_ball(rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=3)
    return BALL_RADIUS_M * rng.uniform() ** (1 / 3) * direction / np.linalg.norm(direction)
