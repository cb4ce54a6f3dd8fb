"""Captures for the tests of `check`, without images: rig, motion, and labels as a detector would give them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from usthand.capture.rig import Camera, Rig
from usthand.datasets.synthetic.motion import sample_motion
from usthand.datasets.synthetic.noise import noisy_labels
from usthand.datasets.synthetic.scene import sample_rig
from usthand.datasets.synthetic.subjects import pose_hand
from usthand.datasets.synthetic.write import project
from usthand.diagnostics.check import CheckReport, check_facts
from usthand.diagnostics.findings import Finding
from usthand.diagnostics.folder import CaptureFacts
from usthand.hand.io import load_hand
from usthand.hand.model import HandModel
from usthand.labels.labels import Labels

FRAMES = 90  # enough for every fault but those in time
DEPTH_M = 0.012  # half a finger's thickness: a joint behind another one by more than this is hidden by it


@dataclass(frozen=True)
class LabelledRig:
    """Cameras with the labels of what they saw."""

    rig: Rig
    labels: tuple[Labels, ...]
    fps: float


@cache
def hand() -> HandModel:
    """The embedded hand, as all captures here show it."""
    return load_hand(side="right", dtype=torch.float64)


def hidden_joints(
    rig: Rig, joints: Float[np.ndarray, "T 21 3"], uv: Float[np.ndarray, "T V 21 2"]
) -> Bool[np.ndarray, "T V 21"]:
    """Whether another joint lies in front, within a finger's width in the image."""
    depth = np.stack([joints @ c.rotation[2] + c.translation[2] for c in rig.cameras], axis=1)
    focal = np.array([c.matrix[0, 0] for c in rig.cameras])[None, :, None, None]
    width = DEPTH_M * focal / np.maximum(depth[..., None], 0.05)
    near = np.linalg.norm(uv[:, :, :, None] - uv[:, :, None], axis=-1) < width
    return (near & (depth[:, :, None] < depth[..., None] - DEPTH_M)).any(-1)


def labelled_rig(
    seed: int,
    views: int = 4,
    level: str = "heavy",
    frames: int = FRAMES,
    layout: str = "dome",
    sides: tuple[str, ...] = ("right",),
    fps: float = 30.0,
    rig: Rig | None = None,
    roam_m: float = 0.0,
    timing: dict[int, tuple[float, float]] | None = None,
) -> LabelledRig:
    """Labels of a moving hand, with a detector's errors.

    Args:
        seed: Of the rig, the motion and the errors.
        views: Cameras.
        level: How noisy the labels are: "heavy", "light" or "exact".
        frames: Length of the videos.
        layout: Of the cameras, "dome" or "side".
        sides: The hands, side by side.
        fps: Of the videos.
        rig: The cameras; made of the seed if None.
        roam_m: The hand wanders this much further, to all parts of the images.
        timing: view -> (offset, drift): its video's frame k + offset + drift k is the instant k of the others.
    """
    rng = np.random.default_rng(seed)
    rig = sample_rig(rng, views, layout, 256) if rig is None else rig
    extra = 0 if timing is None else int(np.ceil(max(abs(o) + abs(d) * frames for o, d in timing.values()))) + 2
    labels = []
    for number, side in enumerate(sides):
        joints = _motion(seed + 1000 * number, frames + 2 * extra, fps)
        away = np.array([0.12, 0.0, 0.0]) * number
        time = np.arange(len(joints)) / fps
        phase, speed = rng.uniform(0, 6, 3), np.array([0.31, 0.37, 0.23]) * 2 * np.pi
        joints = joints + away + roam_m * np.sin(time[:, None] * speed + phase)[:, None]
        shown = rig.mirrored() if side == "left" else rig
        per_view = []
        for v in range(len(rig)):
            offset, drift = (timing or {}).get(v, (0.0, 0.0))
            # Frame f of this video is the instant k with f = k + offset + drift k.
            instant = (np.arange(frames) - offset) / (1 + drift) + extra
            per_view.append(_at(joints, instant))
        uv, inside, hidden = zip(*(_seen(shown, p, v) for v, p in enumerate(per_view)), strict=True)
        uv, inside, hidden = (np.concatenate(x, axis=1) for x in (uv, inside, hidden))
        made = noisy_labels(uv, ~hidden, inside, rng, level, rig.names)["right"]
        made = replace(made, confidence=np.where(inside, made.confidence, 0))
        labels.append(made if side == "right" else made.mirrored([c.width for c in shown.cameras]))
    return LabelledRig(rig, tuple(labels), fps)


@cache
def _motion(seed: int, frames: int, fps: float) -> Float[np.ndarray, "T 21 3"]:
    return pose_hand(hand(), sample_motion(hand(), frames, fps, np.random.default_rng(seed)))[1]


def _at(joints: Float[np.ndarray, "T 21 3"], instant: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N 21 3"]:
    """Joints between frames, by cubic interpolation."""
    return CubicSpline(np.arange(len(joints)), joints)(instant)


def _seen(rig: Rig, joints: Float[np.ndarray, "T 21 3"], v: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, and which are in the image and which hidden, of one camera: (T, 1, 21, ...) each."""
    one = Rig((rig.cameras[v],))
    uv, inside = project(one, joints)
    return uv, inside, hidden_joints(one, joints, uv)


def wide_rig(seed: int, views: int = 4, lens: str = "fisheye") -> Rig:
    """Wide lenses, 640 x 480, the hand anywhere in the image."""
    base = sample_rig(np.random.default_rng(seed), views, "dome", 256)
    f = {"fisheye": 230.0, "barrel": 300.0, "pinhole": 300.0}[lens]
    k = {"fisheye": [0.05, -0.02, 0.004, -0.001], "barrel": [-0.28, 0.09, 5e-4, -5e-4, -0.012], "pinhole": []}[lens]
    matrix = np.array([[f, 0, 322.0], [0, f * 1.003, 236.0], [0, 0, 1]])
    model = "fisheye" if lens == "fisheye" else "pinhole"
    lens_of = {"width": 640, "height": 480, "matrix": matrix, "distortion": np.array(k, float), "model": model}
    return Rig(tuple(replace(camera, **lens_of) for camera in base.cameras))


def facts(
    made: LabelledRig, rig: Rig | None = None, videos: dict[str, VideoHeader | None] | None = None
) -> CaptureFacts:
    """What would be read of a capture's folder; `rig` and `videos` may differ from what the labels were made with."""
    rig = made.rig if rig is None else rig
    videos = dict.fromkeys(rig.names) if videos is None else videos
    return CaptureFacts(Path("capture"), rig, made.labels, videos, made.fps, {}, {})


def check(
    made: LabelledRig, rig: Rig | None = None, videos: dict[str, VideoHeader | None] | None = None
) -> CheckReport:
    """What `usthand check` says of it."""
    return check_facts(facts(made, rig, videos))


def broken_rig(rig: Rig, mistake: Callable[[Camera], Camera], views: Collection[int] | None = None) -> Rig:
    """The rig with a mistake in some cameras, or all."""
    wrong = range(len(rig)) if views is None else views
    return replace(rig, cameras=tuple(mistake(c) if v in wrong else c for v, c in enumerate(rig.cameras)))


def broken_labels(made: LabelledRig, mistake: Callable[[Labels], Labels]) -> LabelledRig:
    """The same with a mistake in the labels."""
    return replace(made, labels=tuple(mistake(labels) for labels in made.labels))


def faults(report: CheckReport) -> list[tuple[str, tuple[str, ...]]]:
    """(fault, cameras) of all findings."""
    return [(finding.fault, finding.cameras) for finding in report.findings]


def only(report: CheckReport) -> Finding:
    """The finding of a report that has one."""
    assert len(report.findings) == 1, [finding.sentence for finding in report.findings]
    return report.findings[0]


def same_relative_pose(one: Rig, other: Rig, degrees: float, metres: float) -> None:
    """The cameras stand alike relative to the first one: the world's frame may be any."""
    for a, b in zip(one.cameras[1:], other.cameras[1:], strict=True):
        turns, shifts = [], []
        for rig, camera in ((one, a), (other, b)):
            first = rig.cameras[0]
            turns.append(camera.rotation @ first.rotation.T)
            shifts.append(camera.translation - turns[-1] @ first.translation)
        assert np.degrees(Rotation.from_matrix(turns[0].T @ turns[1]).magnitude()) < degrees
        assert np.linalg.norm(shifts[0] - shifts[1]) < metres
