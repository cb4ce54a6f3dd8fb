"""Two cameras verged on a moving hand, at any angle: the problem that narrow baselines pose. No images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2

from support.check_captures import hand, hidden_joints
from usthand.capture.rig import Camera, Rig
from usthand.datasets.synthetic.motion import sample_motion
from usthand.datasets.synthetic.noise import noisy_labels
from usthand.datasets.synthetic.subjects import pose_hand
from usthand.datasets.synthetic.write import project
from usthand.fit.observations import SIGMA_FRACTION
from usthand.hand.result import Result
from usthand.labels.labels import Labels, hand_size_px

SIZE_PX = 320
HAND_PX, HAND_M, DISTANCE_M = 130, 0.18, 0.6
FPS = 30.0
NOISES = ("white", "heavy")


@dataclass(frozen=True)
class VergedScene:
    """What two cameras see of a hand, and where it is."""

    rig: Rig
    labels: Labels
    joints_world_m: Float[np.ndarray, "T 21 3"]


def verged_rig(degrees: float, azimuth: float = 0.3, elevation: float = 0.4) -> Rig:
    """Two cameras at one height whose axes cross at the world's origin, at this angle."""
    half = np.radians(degrees) / 2
    focal = HAND_PX / HAND_M * DISTANCE_M
    matrix = np.array([[focal, 0, SIZE_PX / 2], [0, focal, SIZE_PX / 2], [0, 0, 1]])
    towards = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    side = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    cameras = []
    for name, sign in (("left", -1), ("right", 1)):
        centre = DISTANCE_M * (np.cos(half) * towards + sign * np.sin(half) * side)
        forward = -centre / DISTANCE_M
        across = np.cross(forward, np.cross(side, forward))
        turn = np.stack([across, np.cross(forward, across), forward])
        turn /= np.linalg.norm(turn, axis=1, keepdims=True)
        cameras.append(Camera(name, SIZE_PX, SIZE_PX, matrix, np.zeros(0), "pinhole", turn, -turn @ centre))
    return Rig(tuple(cameras))


def verged_scene(seed: int, degrees: float, noise: str, frames: int = 60) -> VergedScene:
    """A hand of random shape that moves for some seconds, with labels of one of the `NOISES`.

    `white`: independent Gaussian errors, as large as the fit assumes of a fully confident label. `heavy`: a detector's,
    with misses, confidences that are too high, and errors that last and are shared by the hand.
    """
    rng = np.random.default_rng(seed)
    rig = verged_rig(degrees, *rng.uniform((0, 0), (2 * np.pi, 0.8)))
    joints = _motion(seed, frames)
    uv, inside = project(rig, joints)
    if noise == "white":
        exact = Labels(uv.astype(np.float32), inside.astype(np.float32), rig.names, "right", "synthetic-exact")
        sigma = SIGMA_FRACTION * hand_size_px(exact)[..., None, None]
        wrong = uv + sigma * rng.normal(size=uv.shape)
        return VergedScene(rig, replace(exact, uv_px=wrong.astype(np.float32)), joints)
    labels = noisy_labels(uv, ~hidden_joints(rig, joints, uv), inside, rng, noise, rig.names)["right"]
    return VergedScene(rig, replace(labels, confidence=np.where(inside, labels.confidence, 0)), joints)


@cache
def _motion(seed: int, frames: int) -> Float[np.ndarray, "T 21 3"]:
    return pose_hand(hand(), sample_motion(hand(), frames, FPS, np.random.default_rng(seed)))[1]


def errors_mm(result: Result, scene: VergedScene) -> Float[np.ndarray, "T 21"]:
    """Distances of a result's joints from where they are."""
    return 1000 * np.linalg.norm(result.joints_world_m - scene.joints_world_m, axis=-1)


def inside_region(result: Result, scene: VergedScene, level: float) -> Float[np.ndarray, "T 21"]:
    """Whether each joint lies in the result's credible region of this level."""
    off = result.joints_world_m - scene.joints_world_m
    distance2 = np.einsum("tji,tjik,tjk->tj", off, np.linalg.inv(result.joints_cov_m2), off)
    return distance2 < chi2.ppf(level, 3)
