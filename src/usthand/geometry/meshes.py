"""Triangle meshes: what follows from vertices and faces alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def vertex_normals(vertices: Float[np.ndarray, "N 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "N 3"]:
    """Unit normals of the vertices, in the vertices' type: the mean of their triangles' normals, weighted by area.

    A vertex without area around it gets the normal zero.
    """
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    normals = np.zeros_like(vertices)
    weighted = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    for axis in range(3):  # much faster than all at once, and no triangle's order changes
        np.add.at(normals[:, axis], faces.ravel(), weighted[:, axis])
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-20)
