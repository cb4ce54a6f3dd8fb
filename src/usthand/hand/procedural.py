"""Generates the embedded hand: `python -m usthand.hand.procedural [OUT.npz]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from usthand.hand.anatomy import rest_skeleton
from usthand.hand.flesh import build_flesh
from usthand.hand.limits import axes_from_skeleton
from usthand.hand.skinning import joint_regressor, shape_directions, skinning_weights, vertex_fields
from usthand.hand.template import build_template
from usthand.skeleton import MANO_PARENTS

SHIPPED = Path(__file__).parent / "data" / "embedded.npz"


def generate() -> dict[str, np.ndarray]:
    """All arrays of the embedded hand, in MANO's layout, with the extra per-vertex fields."""
    skeleton = rest_skeleton()
    axes = axes_from_skeleton(skeleton.joints, skeleton.tips)
    palmar = np.concatenate(([[0.0, -1.0, 0.0]], -axes[:, 1]))
    flesh = build_flesh(skeleton, -palmar)
    points, faces = build_template(flesh, skeleton)
    weights = skinning_weights(points, faces, skeleton)
    shapedirs, joint_dirs, _ = shape_directions(points, weights, skeleton)
    regressor = joint_regressor(points, shapedirs, weights, skeleton, joint_dirs)
    mean = np.zeros((15, 3))
    for j in range(15):
        mean[j] = np.deg2rad((15, 25, 12)[j % 3] if j < 12 else (5, 8, 8)[j % 3]) * axes[j, 0]
    return {
        "v_template": points,
        "f": faces.astype(np.int32),
        "weights": weights,
        "shapedirs": shapedirs,
        "posedirs": np.zeros((778, 3, 135)),
        "J_regressor": regressor,
        "kintree_table": np.array((MANO_PARENTS, range(16)), np.int32),
        "hands_mean": mean.ravel(),
        "hands_components": np.eye(45),
        **vertex_fields(points, faces, weights, skeleton, palmar),
    }


def main(path: str | None = None) -> None:
    """Write the embedded hand."""
    np.savez_compressed(path or SHIPPED, **generate())


if __name__ == "__main__":
    main(*sys.argv[1:2])
