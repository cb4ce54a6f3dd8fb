"""The still surfaces of a scene's body: the subject's hand at rest, and the forearm that continues its open wrist."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from usthand.datasets.synthetic.shapes import tube_faces
from usthand.hand.limits import anatomical_axes
from usthand.hand.model import HandModel
from usthand.hand.skeleton import MANO_TO_OPENPOSE

ARM_LENGTH_M = 0.62  # to the upper arm's middle, so that its end lies outside the images or behind the arm
ELBOW_M = (0.22, 0.32)  # where the arm bends down towards the body
ARM_RINGS = 20
_BEND_WITHIN_M = 0.05


def ring_distances_m() -> np.ndarray:
    """Where the arm's rings lie behind the wrist's own, (ARM_RINGS - 1,); finer where the wrist bends."""
    return ARM_LENGTH_M * np.linspace(0, 1, ARM_RINGS)[1:] ** 1.5


_RING_AT_M = ring_distances_m()
# Half-widths of the forearm (radial, palmar), in metres, at distances from the wrist; adult averages.
_HALF_AT_M = np.array([0.0, 0.10, 0.20, ARM_LENGTH_M])
_HALF_WIDTHS_M = np.array([[0.028, 0.020], [0.034, 0.028], [0.042, 0.039], [0.047, 0.045]])


@dataclass(frozen=True)
class Stump:
    """The end of a mesh that has a piece of forearm of its own, at rest; the rest of the arm goes on from there."""

    ring_m: np.ndarray  # (S, 3) the open edge
    frame: np.ndarray  # (3, 3) of the forearm: rows radial, distal, palmar, as a palm's
    behind_m: float  # how far behind the wrist the ring lies

    def posed_frame(self, ring_m: np.ndarray) -> np.ndarray:
        """The frame (3, 3) that goes with a moved ring (S, 3): turned as the ring is, in the least-squares sense."""
        turn = Rotation.align_vectors(ring_m - ring_m.mean(0), self.ring_m - self.ring_m.mean(0))[0]
        return turn.apply(self.frame)

    def width(self, average_m: np.ndarray) -> float:
        """How many times wider the ring is than an average arm of these half-widths (2,), radial and palmar."""
        flat = (self.ring_m - self.ring_m.mean(0)) @ self.frame.T
        return float((np.abs(flat[:, [0, 2]]).max(0) / average_m).mean())


@dataclass(frozen=True)
class HandSurface:
    """One subject's right hand at rest, in metres; what textures are painted on."""

    faces: np.ndarray  # (F, 3)
    vertices_m: np.ndarray  # (N, 3)
    joints_m: np.ndarray  # (21, 3) OpenPose order
    dorsal: np.ndarray  # (5, 3, 3) unit direction of the back of each phalanx, thumb to little finger, base to tip
    stump: Stump | None = None  # None: the mesh ends at the wrist

    @cached_property
    def palm_frame(self) -> np.ndarray:
        """(3, 3): rows point to the thumb's side, to the fingertips and out of the palm."""
        return palm_frame(self.joints_m)

    @cached_property
    def wrist_loop(self) -> np.ndarray:
        """Vertex ids around the open wrist, in the order in which a tube continues it outward."""
        return boundary_loop(self.faces)


def hand_surface(hand: HandModel, shape: np.ndarray) -> HandSurface:
    """The rest surface of a hand of the given shape (10,)."""
    dtype = hand.v_template.dtype
    shaped = hand.with_shape(torch.as_tensor(np.asarray(shape), dtype=dtype)[None])
    posed = shaped.with_pose(torch.eye(3, dtype=dtype).expand(1, 16, 3, 3), torch.zeros(1, 3, dtype=dtype))
    vertices, joints = posed.vertices[0].double().numpy(), posed.joints[0].double().numpy()
    # Flexion turns a bone towards its palmar side, so its dorsal side is bone x flexion axis.
    flexion = np.asarray(anatomical_axes(hand), float).reshape(15, 3, 3)[:, 0]
    dorsal = np.empty((5, 3, 3))
    for mano in range(1, 16):
        joint = MANO_TO_OPENPOSE.index(mano)
        side = np.cross(joints[joint + 1] - joints[joint], flexion[mano - 1])
        dorsal[(joint - 1) // 4, (joint - 1) % 4] = side / np.linalg.norm(side)
    return HandSurface(np.asarray(hand.faces), vertices, joints, dorsal)


def palm_frame(joints_m: np.ndarray) -> np.ndarray:
    """Rows: towards the thumb's side, towards the fingertips, out of the palm; of right hands (..., 21, 3)."""
    distal = joints_m[..., 9, :] - joints_m[..., 0, :]
    distal = distal / np.linalg.norm(distal, axis=-1, keepdims=True)
    radial = joints_m[..., 5, :] - joints_m[..., 17, :]
    radial = radial - (radial * distal).sum(-1, keepdims=True) * distal
    radial = radial / np.linalg.norm(radial, axis=-1, keepdims=True)
    return np.stack([radial, distal, np.cross(radial, distal)], -2)


def boundary_loop(faces: np.ndarray) -> np.ndarray:
    """The ordered vertex ids of a mesh's one open edge; empty for a closed mesh.

    The order is that of the missing neighbours: the new triangles (loop[i], new, loop[i + 1]) face outward.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = set(map(tuple, edges.tolist()))
    following = {a: b for a, b in edges.tolist() if (b, a) not in present}
    if not following:
        return np.zeros(0, int)
    start = min(following)
    loop = [start]
    while following[loop[-1]] != start:
        loop.append(following[loop[-1]])
    return np.array(loop)


def forearm_faces(loop: np.ndarray, first_free: int) -> np.ndarray:
    """Faces of the forearm: its first ring is the hand's own wrist loop, the others are numbered from `first_free`."""
    rest = first_free + np.arange((ARM_RINGS - 1) * len(loop)).reshape(-1, len(loop))
    return tube_faces(np.concatenate([loop[None], rest]))


def half_widths_m(behind_m: np.ndarray) -> np.ndarray:
    """Half-widths (n, 2) of an average forearm, radial and palmar, at distances (n,) behind the wrist."""
    return np.stack([np.interp(behind_m, _HALF_AT_M, column) for column in _HALF_WIDTHS_M.T], 1)


def forearm_vertices(
    wrist_ring_m: np.ndarray,
    frame: np.ndarray,
    bend: tuple[float, float],
    width: float,
    swell_m: np.ndarray,
    behind_m: float = 0.0,
) -> np.ndarray:
    """Pose the forearm: vertices ((ARM_RINGS - 1) * S, 3) behind the wrist's ring (S, 3).

    frame (3, 3): the palm's radial, distal and palmar directions. bend: angles (flexion, deviation) in rad by which the
    forearm leaves the hand's line, reached smoothly over the first 5 cm. width: scale of the cross-section. swell_m
    (ARM_RINGS - 1,): extra radius of each ring (a sleeve). behind_m: how far behind the wrist the ring lies. Beyond the
    elbow the arm turns down, along the world's -z.
    """
    radial, distal, palmar = frame
    centre = wrist_ring_m.mean(0)
    flat = (wrist_ring_m - centre) @ frame.T  # the wrist's own outline: radial, distal, palmar
    angle = np.arctan2(flat[:, 2], flat[:, 0])
    turned = np.clip(_RING_AT_M / _BEND_WITHIN_M, 0, 1)
    turned = (turned * turned * (3 - 2 * turned))[:, None]
    flexion, deviation = bend[0] * turned, bend[1] * turned
    back = -np.cos(flexion) * np.cos(deviation) * distal + np.sin(flexion) * palmar + np.sin(deviation) * radial
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    from_wrist_m = _RING_AT_M + behind_m
    elbow = np.clip((from_wrist_m - ELBOW_M[0]) / (ELBOW_M[1] - ELBOW_M[0]), 0, 1)[:, None]
    back = (1 - elbow) * back + elbow * (0.7 * back[-1] - np.array([0.0, 0.0, 1.0]))
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    side = radial - (back @ radial)[:, None] * back
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    front = np.cross(side, -back)
    middle = centre + np.cumsum(np.diff(_RING_AT_M, prepend=0.0)[:, None] * back, axis=0)
    half = width * half_widths_m(from_wrist_m)
    half = half + swell_m[:, None]
    # Near the hand the outline is the wrist's own, carried into the bent frame; it becomes an oval over the first 3 cm.
    blend = np.clip(_RING_AT_M / 0.03, 0, 1)[:, None]
    across = (1 - blend) * flat[:, 0] + blend * half[:, :1] * np.cos(angle)
    up = (1 - blend) * flat[:, 2] + blend * half[:, 1:] * np.sin(angle)
    along = (1 - blend) * (1 - turned) * flat[:, 1]
    rings = across[..., None] * side[:, None] + up[..., None] * front[:, None] + along[..., None] * distal
    return (middle[:, None] + rings).reshape(-1, 3)
