"""Distance from points to a triangle mesh, against closed forms and trimesh's own closest points."""

import numpy as np
from trimesh import Trimesh
from trimesh.proximity import closest_point_naive

from usthand.datasets.synthetic.shapes import box, sphere
from usthand.geometry.point_surface import point_surface_m


def test_against_trimesh_in_every_region_of_a_triangle():
    """Few large triangles, so that corners, edges and faces are all nearest to many points."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        vertices, faces = rng.normal(size=(6, 3)), np.array([[0, 1, 2], [2, 3, 4], [1, 5, 0]])
        points = 2 * rng.normal(size=(300, 3))
        closest, distance, _ = closest_point_naive(Trimesh(vertices, faces, process=False), points)
        np.testing.assert_allclose(point_surface_m(points, vertices, faces), distance, rtol=1e-9, atol=1e-12)
        on = closest + 1e-9 * rng.normal(size=closest.shape)
        np.testing.assert_allclose(point_surface_m(on, vertices, faces), 0, atol=1e-7)


def test_against_a_boxs_own_distance():
    half = np.array([0.1, 0.2, 0.05])
    vertices, faces = box(tuple(2 * half), cells=3)
    points = np.random.default_rng(1).uniform(-0.5, 0.5, size=(500, 3))
    outside = np.abs(points) - half
    signed = np.linalg.norm(np.maximum(outside, 0), axis=1) + np.minimum(outside.max(1), 0)
    np.testing.assert_allclose(point_surface_m(points, vertices, faces), np.abs(signed), atol=1e-12)


def test_nothing_near_is_missed_on_a_fine_mesh():
    """A point inside a sphere of many small triangles: between the sphere and its facets' sagitta."""
    vertices, faces = sphere(1.0, 40, 60)
    points = np.random.default_rng(2).normal(size=(200, 3))
    points *= np.random.default_rng(3).uniform(0.2, 2.0, size=(200, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    sagitta = 1 - np.cos(np.hypot(np.pi / 40, 2 * np.pi / 60) / 2)
    gap = point_surface_m(points, vertices, faces) - np.abs(np.linalg.norm(points, axis=1) - 1)
    assert np.abs(gap).max() < sagitta


def test_a_triangle_without_area_is_a_segment():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 5], [0, 1, 5], [1, 0, 5]])
    points = np.array([[1.5, 2.0, 0], [3.0, 0, 0], [-1.0, 0, 0]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    np.testing.assert_allclose(point_surface_m(points, vertices, faces), [2, 1, 1], atol=1e-12)
