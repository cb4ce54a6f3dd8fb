"""Normals of triangle meshes."""

import numpy as np
import pytest

from usthand.datasets.synthetic.shapes import sphere
from usthand.geometry.meshes import vertex_normals


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normals_of_a_sphere_point_away_from_its_centre(dtype):
    vertices, faces = sphere(0.1, 64, 96)
    normals = vertex_normals(vertices.astype(dtype), faces)
    assert normals.dtype == dtype
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    # Facets of 3.8 degrees: the mean of those around a vertex is off by a small part of that.
    assert (normals * vertices / 0.1).sum(1).min() > np.cos(np.radians(1.0))


def test_larger_triangles_weigh_more_and_a_lone_vertex_has_no_normal():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 3, 0], [0, 0, 1], [5, 5, 5]])
    normals = vertex_normals(vertices, np.array([[0, 1, 2], [0, 3, 4]]))
    np.testing.assert_allclose(normals[0], np.array([3, 0, 1]) / np.sqrt(10))
    np.testing.assert_array_equal(normals[5], 0)
