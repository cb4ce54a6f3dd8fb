"""Generate the embedded hand: `python -m embedded_hand [OUT.npz]`, from the folder `tools`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedded_hand.anatomy import Skeleton, rest_skeleton
from embedded_hand.flesh import Flesh, build_flesh
from embedded_hand.posing import natural_poses, pose_directions, principal_components
from embedded_hand.skinning import joint_regressor, shape_directions, skinning_weights, vertex_fields
from embedded_hand.template import build_template
from usthand.hand.limits import axes_from_skeleton
from usthand.hand.skeleton import MANO_PARENTS

SEED = 2026
SHIPPED = Path(__file__).parents[2] / "src" / "usthand" / "hand" / "data" / "embedded.npz"


def generate() -> dict[str, np.ndarray]:
    """All arrays of the embedded hand, in MANO's layout, with the extra per-vertex fields."""
    skeleton = rest_skeleton()
    flesh, axes, palmar = rest_flesh(skeleton)
    points, faces = build_template(flesh, skeleton)
    weights = skinning_weights(points, faces, skeleton)
    shapedirs, joint_dirs, _ = shape_directions(points, weights, skeleton)
    regressor = joint_regressor(points, shapedirs, weights, skeleton, joint_dirs)
    mean = relaxed_pose(axes)
    components, coefficients = principal_components(natural_poses(axes, np.random.default_rng(SEED)), mean)
    return {
        "v_template": points,
        "f": faces.astype(np.int32),
        "weights": weights,
        "shapedirs": shapedirs,
        "posedirs": pose_directions(points, faces, weights, skeleton, flesh, axes),
        "J_regressor": regressor,
        "kintree_table": np.array((MANO_PARENTS, range(16)), np.int32),
        "hands_mean": mean,
        "hands_components": components,
        "hands_coeffs": coefficients,
        **vertex_fields(points, faces, weights, skeleton, palmar),
    }


def rest_flesh(skeleton: Skeleton) -> tuple[Flesh, np.ndarray, np.ndarray]:
    """The flesh, the anatomical axes (15, 3, 3) and the palmar direction of each bone (16, 3)."""
    axes = axes_from_skeleton(skeleton.joints, skeleton.tips)
    palmar = np.concatenate(([[0.0, -1.0, 0.0]], -axes[:, 1]))
    return build_flesh(skeleton, -palmar), axes, palmar


def relaxed_pose(axes: np.ndarray) -> np.ndarray:
    """(45,) the pose of a hand at rest: fingers gently curled, more so towards the little finger."""
    degrees = np.zeros((15, 3))
    for finger, more in enumerate((0.0, 3.0, 8.0, 5.0)):  # index, middle, little, ring
        degrees[3 * finger : 3 * finger + 3, 0] = 16 + more, 26 + more, 14 + 0.5 * more
    degrees[12:15, 0] = 4, 8, 10
    degrees[12, 1:] = 6, 5
    return np.einsum("jac,ja->jc", axes, np.deg2rad(degrees)).ravel()


def main(path: str | None = None) -> None:
    """Write the embedded hand."""
    arrays = generate()
    np.savez_compressed(path or SHIPPED, allow_pickle=False, **arrays)
