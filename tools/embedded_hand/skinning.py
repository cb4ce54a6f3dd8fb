"""Skinning weights, shape directions, joint regressor and per-vertex meaning of the embedded hand."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from embedded_hand.anatomy import FINGER_ORDER, MM, RADII_MM, Skeleton
from usthand.geometry.meshes import vertex_normals

SMOOTHING_ROUNDS = 2


def adjacency(n: int, faces: np.ndarray) -> sparse.csr_matrix:
    """Symmetric 0/1 matrix of the mesh's edges."""
    rows = np.concatenate([faces[:, k] for k in range(3)])
    cols = np.concatenate([faces[:, (k + 1) % 3] for k in range(3)])
    half = sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n))
    return ((half + half.T) > 0).astype(np.float64).tocsr()


def smooth(values: np.ndarray, edges: sparse.csr_matrix, rounds: int, rate: float = 0.5) -> np.ndarray:
    """Averages over neighbours on the mesh: never across the gap between two fingers."""
    degree = np.asarray(edges.sum(1)).ravel()
    for _ in range(rounds):
        mean = (edges @ values.reshape(len(degree), -1)) / degree[:, None]
        values = values + rate * (mean.reshape(values.shape) - values)
    return values


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def segment_distance(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of points (n, 3) to the segment a-b."""
    ab = b - a
    t = np.clip(((points - a) @ ab) / (ab @ ab), 0, 1)
    return np.linalg.norm(points - a - t[:, None] * ab, axis=-1)


def chain(skeleton: Skeleton, f: int) -> np.ndarray:
    """(4, 3): the three joints of finger f and its tip."""
    return np.concatenate((skeleton.joints[1 + 3 * f : 4 + 3 * f], skeleton.tips[f : f + 1]))


def finger_membership(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(n, 5): how much a vertex belongs to each finger's surroundings; rows sum to one.

    Neighbours share the skin around the knuckles by distance; half-way along the first phalanx it is all the nearest's.
    """
    gaps, beyond = [], []
    for f in range(5):
        c = chain(skeleton, f)
        radius = np.mean(RADII_MM[FINGER_ORDER[f]]) * MM
        gaps.append(np.min([segment_distance(points, c[i], c[i + 1]) for i in range(3)], 0) / radius)
        first = c[1] - c[0]
        beyond.append(_smoothstep(((points - c[0]) @ first / (first @ first) - 0.15) / 0.35))
    gaps, beyond = np.stack(gaps, -1), np.stack(beyond, -1)
    score = np.maximum(gaps, 0.3) ** -8.0
    nearest = np.eye(5)[gaps.argmin(-1)]
    alone = (beyond * nearest).sum(-1, keepdims=True)
    return (1 - alone) * score / score.sum(-1, keepdims=True) + alone * nearest


def skinning_weights(points: np.ndarray, faces: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Weights (n, 16).

    Along a finger each joint hands over to the next by a smooth step; around the knuckles neighbouring fingers share; a
    little smoothing over the mesh removes the steps that remain.
    """
    member = finger_membership(points, skeleton)
    weights = np.zeros((len(points), 16))
    for f in range(5):
        c = chain(skeleton, f)
        before = skeleton.joints[0] if f < 4 else skeleton.joints[0] * 0.5 + c[0] * 0.5
        steps = []
        for i in range(3):
            incoming = c[i] - (before if i == 0 else c[i - 1])
            axis = incoming / np.linalg.norm(incoming) + (c[i + 1] - c[i]) / np.linalg.norm(c[i + 1] - c[i])
            axis /= np.linalg.norm(axis)
            half = _half_width(f, i)
            steps.append(_smoothstep(0.5 + ((points - c[i]) @ axis) / (2 * half)))
        reach = member[:, f]
        weights[:, 1 + 3 * f] = reach * steps[0] * (1 - steps[1])
        weights[:, 2 + 3 * f] = reach * steps[0] * steps[1] * (1 - steps[2])
        weights[:, 3 + 3 * f] = reach * steps[0] * steps[1] * steps[2]
    weights[:, 0] = np.maximum(1 - weights[:, 1:].sum(-1), 0)
    weights = smooth(weights, adjacency(len(points), faces), SMOOTHING_ROUNDS, 0.4)
    weights[weights < 0.01] = 0
    return weights / weights.sum(-1, keepdims=True)


def _half_width(f: int, level: int) -> float:
    radius = RADII_MM[FINGER_ORDER[f]][level] * MM
    return radius * ((1.25, 0.85, 0.8)[level] if f < 4 else (1.7, 1.0, 0.85)[level])


# ---- shape ---------------------------------------------------------------------------------------------------------


SHAPE_NAMES = (
    "size",
    "finger length",
    "breadth",
    "thickness",
    "thumb length",
    "finger thickness",
    "palm length",
    "index length",
    "little length",
    "knuckle spread",
)
"""The ten directions; each unit is about one standard deviation of adults, where published."""


def shape_directions(
    points: np.ndarray, weights: np.ndarray, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets of vertices (n, 3, 10), joints (16, 3, 10) and tips (5, 3, 10) for one unit of each direction, metres.

    Standard deviations: hand length 5 %, breadth 5 %, both beyond size (Greiner 1991; men and women together: length
    187 +- 11 mm, breadth 84 +- 6 mm); lengths of single fingers about 3 % beyond the others'.
    """
    everything = [_direction(k, points, weights, skeleton) for k in range(10)]
    vertices, joints, tips = zip(*everything, strict=True)
    return np.stack(vertices, -1), np.stack(joints, -1), np.stack(tips, -1)


STRETCH = {  # direction: (factor of finger bones per finger, factor of their thickness, palm scale along, across, deep)
    "size": ((0.055,) * 5, 0.055, (0.055, 0.055, 0.055)),
    "finger length": ((0.04,) * 5, 0.0, (0.0, 0.0, 0.0)),
    "breadth": ((0.0,) * 5, 0.015, (0.0, 0.045, 0.0)),
    "thickness": ((0.0,) * 5, 0.03, (0.0, 0.0, 0.06)),
    "thumb length": ((0.0, 0.0, 0.0, 0.0, 0.05), 0.0, (0.0, 0.0, 0.0)),
    "finger thickness": ((0.0,) * 5, 0.07, (0.0, 0.0, 0.0)),
    "palm length": ((0.0,) * 5, 0.0, (0.04, 0.0, 0.0)),
    "index length": ((0.04, 0.0, 0.0, -0.04, 0.0), 0.0, (0.0, 0.0, 0.0)),
    "little length": ((0.0, 0.0, 0.06, 0.0, 0.0), 0.0, (0.0, 0.0, 0.0)),
    "knuckle spread": ((0.0,) * 5, 0.0, (0.0, 0.0, 0.0)),
}
SPREAD_DEG = {"index": 2.0, "middle": 0.5, "ring": -1.0, "little": -2.5, "thumb": 3.0}


def _direction(
    k: int, points: np.ndarray, weights: np.ndarray, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each bone carries a linear displacement field; the vertices blend the fields with their skinning weights."""
    name = SHAPE_NAMES[k]
    lengths, thick, palm = STRETCH[name]
    joints, tips = skeleton.joints, skeleton.tips
    palm = np.array((palm[0], palm[2], palm[1]))  # MANO's axes: x along, y deep, z across
    d_joints, d_tips = np.zeros_like(joints), np.zeros_like(tips)
    fields = [lambda p: (p - joints[0]) * palm]
    d_joints[0] = 0
    for f in range(5):
        c = chain(skeleton, f)
        turn = np.deg2rad(SPREAD_DEG[FINGER_ORDER[f]]) if name == "knuckle spread" else 0.0
        spin = np.array((0.0, turn, 0.0))
        base = (c[0] - joints[0]) * palm
        for i in range(3):
            j = 1 + 3 * f + i
            d_joints[j] = base
            axis = (c[i + 1] - c[i]) / np.linalg.norm(c[i + 1] - c[i])
            long = lengths[f] * (0.5 if f == 4 and i == 0 and name == "finger length" else 1.0)

            def bone(
                p: np.ndarray,
                start: np.ndarray = c[i],
                axis: np.ndarray = axis,
                base: np.ndarray = base,
                long: float = long,
                spin: np.ndarray = spin,
            ) -> np.ndarray:
                q = p - start
                along = (q @ axis)[:, None] * axis
                return base + long * along + thick * (q - along) + np.cross(np.broadcast_to(spin, q.shape), q)

            fields.append(bone)
            base = bone(c[i + 1][None])[0]
        d_tips[f] = base
    moved = np.zeros_like(points)
    for weight, field in zip(weights.T, fields, strict=True):
        moved += weight[:, None] * field(points)
    return moved, d_joints, d_tips


# ---- joints --------------------------------------------------------------------------------------------------------


def joint_regressor(
    points: np.ndarray, shapedirs: np.ndarray, weights: np.ndarray, skeleton: Skeleton, joint_dirs: np.ndarray
) -> np.ndarray:
    """(16, n): each joint from a ring of vertices around it, so that it stays the joint's centre under every shape.

    Least squares with exact constraints: of all weights on the nearest vertices that sum to one and reproduce the joint
    and its ten shape derivatives, the smallest departure from a soft ring.
    """
    n = len(points)
    regressor = np.zeros((16, n))
    for j in range(16):
        gap = np.linalg.norm(points - skeleton.joints[j], axis=-1)
        own = weights[:, j] + (weights[:, _parent(j)] if j else 0) > 0.3
        order = np.argsort(np.where(own, gap, gap + 1), kind="stable")[:64]
        prior = np.exp(-((gap[order] / gap[order][20]) ** 2))
        prior /= prior.sum()
        rows = np.concatenate(
            (
                np.ones((1, len(order))),
                points[order].T / 0.01,
                shapedirs[order].transpose(1, 2, 0).reshape(30, -1) / 1e-3,
            )
        )
        wanted = np.concatenate(([1.0], skeleton.joints[j] / 0.01, joint_dirs[j].reshape(30) / 1e-3))
        scaled = rows * np.sqrt(prior + 1e-4)
        step = np.linalg.lstsq(scaled, wanted - rows @ prior, rcond=1e-7)[0]
        regressor[j, order] = prior + np.sqrt(prior + 1e-4) * step
    return regressor


def _parent(j: int) -> int:
    return 0 if j == 0 or j % 3 == 1 else j - 1


# ---- meaning -------------------------------------------------------------------------------------------------------


def vertex_fields(
    points: np.ndarray, faces: np.ndarray, weights: np.ndarray, skeleton: Skeleton, palmar: np.ndarray
) -> dict[str, np.ndarray]:
    """What a renderer wants to know: `nail` and `palmar` in [0, 1] and `finger` (0 palm, 1 thumb ... 5 little).

    `palmar` argument: (16, 3), the direction in which each bone's palmar side faces.
    """
    normals = vertex_normals(points, faces)
    facing = np.einsum("nj,jc,nc->n", weights, palmar, normals)
    nail = np.zeros(len(points))
    for f in range(5):
        c = chain(skeleton, f)
        axis = (c[3] - c[2]) / np.linalg.norm(c[3] - c[2])
        length = np.linalg.norm(c[3] - c[2])
        along = ((points - c[2]) @ axis) / length
        own = weights[:, 3 + 3 * f] > 0.5
        here = own & (along > 0.42) & (along < 0.98) & (normals @ palmar[3 + 3 * f] < -0.72)
        nail[here] = 1.0
    order = np.array([2, 3, 5, 4, 1])  # MANO's fingers, counted from the thumb
    share = np.stack([weights[:, 1 + 3 * f : 4 + 3 * f].sum(-1) for f in range(5)], -1)
    finger = np.where(share.max(-1) > 0.5, order[share.argmax(-1)], 0)
    return {"nail": nail, "palmar": np.clip(0.5 + 0.5 * facing, 0, 1), "finger": finger}
