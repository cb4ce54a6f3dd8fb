"""The WebXR community's generic hand, stretched to many people: a second mesh and skeleton that pretraining may draw.

`data/webxr_hand.npz` is `generic-hand` of npm's `@webxr-input-profiles/assets` 1.0.20 (MIT, Copyright (c) 2019 Amazon;
the licence lies beside it), turned by `tools/convert_webxr_hand.py`. Its joints are WebXR's: the wrist, of each finger
the heads of its phalanges, of the thumb first the metacarpal's head. WebXR's tips lie in the flesh; here they are the
skin vertex farthest from the last joint, as fingertips of hand models are.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np

from usthand.datasets.synthetic.skinned import THUMB, SkinnedHand, bend_axes
from usthand.datasets.synthetic.surface import palm_frame
from usthand.hand.skeleton import MANO_TO_OPENPOSE

JOINT_DEFINITION = (
    "WebXR's generic hand: wrist, heads of the phalanges and of the thumb's metacarpal, "
    "tips at the skin vertex farthest from the last joint"
)
SIZE = (0.86, 1.06)  # of the file's hand, which is a large one
PALM = (0.92, 1.1), (0.93, 1.07), (0.9, 1.12)  # factors of the palm's width, length and thickness
LENGTH, THICKNESS = 0.05, 0.06  # standard deviations of the factors of a phalanx's length and of all fingers' thickness
AXIS_TILT_RAD = np.deg2rad(3.0)


def sample_webxr(rng: np.random.Generator) -> SkinnedHand:
    """Draw a person: the file's hand with its palm and each phalanx stretched."""
    size = rng.uniform(*SIZE)
    palm = size * np.array([rng.uniform(*bounds) for bounds in PALM])
    thick = size * np.clip(rng.normal(1, THICKNESS), 1 - 2 * THICKNESS, 1 + 2 * THICKNESS)
    length = size * np.clip(rng.normal(1, LENGTH, 15), 1 - 2 * LENGTH, 1 + 2 * LENGTH)
    return stretched(palm, length, float(thick), rng.normal(scale=AXIS_TILT_RAD, size=(15, 3)))


def stretched(palm: np.ndarray, length: np.ndarray, thick: float, tilt: np.ndarray) -> SkinnedHand:
    """The file's hand with other proportions; each bone stretches its skin by its own weights.

    Args:
        palm: Factors of the palm's width, length and thickness, (3,).
        length: Factors of the 15 phalanges' lengths, MANO's order.
        thick: Factor of the fingers' thickness.
        tilt: Rotation vectors (15, 3), radians, that turn each finger joint's axes.
    """
    vertices, faces, weights, joints = _file()
    frame = palm_frame(joints)
    scale = [np.eye(3), frame.T @ np.diag(palm) @ frame]
    shift = [np.zeros(3), np.zeros(3)]
    moved = np.zeros((21, 3))
    for bone in range(15):
        joint = MANO_TO_OPENPOSE.index(bone + 1)
        parent = 1 if bone % 3 == 0 else 1 + bone
        moved[joint] = scale[parent] @ joints[joint] + shift[parent]
        along = joints[joint + 1] - joints[joint]
        along = along / np.linalg.norm(along)
        scale.append(thick * np.eye(3) + (length[bone] - thick) * np.outer(along, along))
        shift.append(moved[joint] - scale[-1] @ joints[joint])
        if bone % 3 == 2:
            moved[joint + 1] = scale[-1] @ joints[joint + 1] + shift[-1]
    maps = np.concatenate([np.stack(scale), np.stack(shift)[..., None]], 2).reshape(17, 12)
    blended = (weights @ maps).reshape(-1, 3, 4)
    rest = (blended[..., :3] @ vertices[..., None])[..., 0] + blended[..., 3]
    axes = bend_axes(moved, rest[weights[:, 2 + THUMB + 2] > 0.9], tilt)
    return SkinnedHand(faces, rest, weights, moved, -frame[1], axes)


@cache
def _file() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (N, 3), faces (F, 3), weights (N, 17) and joints (21, 3) of the file; metres, the wrist at 0."""
    path = resources.files("usthand.datasets.synthetic") / "data" / "webxr_hand.npz"
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as data:
        vertices, weights, joints = (data[name].astype(float) for name in ("vertices_m", "weights", "joints_m"))
        faces = data["faces"].astype(np.int64)
    return vertices, faces, weights / weights.sum(1, keepdims=True), joints
