"""Simple closed meshes, facing outward, centred at the origin: sphere, box and cylinder; metres."""

import numpy as np


def sphere(radius_m: float, rings: int = 16, segments: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) and faces (F, 3) of a sphere with its poles on the z axis."""
    polar = np.pi * np.arange(1, rings) / rings
    around = 2 * np.pi * np.arange(segments) / segments
    sine, height = np.sin(polar)[:, None], np.repeat(np.cos(polar)[:, None], segments, 1)
    ring = np.stack([sine * np.cos(around), sine * np.sin(around), height], -1)
    vertices = radius_m * np.concatenate([[[0.0, 0.0, 1.0]], ring.reshape(-1, 3), [[0.0, 0.0, -1.0]]])
    return vertices, _stack_faces(rings - 1, segments)


def cylinder(radius_m: float, length_m: float, rings: int = 10, segments: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a cylinder along z. The rims are doubled so that they shade as edges."""
    around = 2 * np.pi * np.arange(segments) / segments
    circle = np.stack([np.cos(around), np.sin(around)], -1) * radius_m
    z = 0.5 * length_m * np.concatenate([[1, 1], np.linspace(1, -1, rings), [-1, -1]])
    scale = np.concatenate([[0.5, 0.999], np.ones(rings), [0.999, 0.5]])
    ring = np.concatenate([scale[:, None, None] * circle, np.repeat(z[:, None, None], segments, 1)], -1)
    ends = [[0.0, 0.0, 0.5 * length_m]], [[0.0, 0.0, -0.5 * length_m]]
    return np.concatenate([ends[0], ring.reshape(-1, 3), ends[1]]), _stack_faces(len(z), segments)


def box(size_m: tuple[float, float, float], cells: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a box; every side is a grid of its own, so edges shade sharp."""
    step = np.linspace(-0.5, 0.5, cells + 1)
    grid_u, grid_v = (g.ravel() for g in np.meshgrid(step, step, indexing="ij"))
    vertices, faces = [], []
    quad = _grid_faces(cells)
    for axis in range(3):
        for sign in (1.0, -1.0):
            side = np.empty((len(grid_u), 3))
            side[:, axis] = 0.5 * sign
            side[:, (axis + 1) % 3], side[:, (axis + 2) % 3] = grid_u, grid_v
            faces.append((quad if sign > 0 else quad[:, ::-1]) + len(vertices) * len(side))
            vertices.append(side * np.asarray(size_m))
    return np.concatenate(vertices), np.concatenate(faces)


def tube_faces(rings: np.ndarray) -> np.ndarray:
    """Faces (2 R' S, 3) of a tube through rings of vertex ids (R, S); outward if ids run clockwise seen from ring 0."""
    here, there = rings[:-1], rings[1:]
    here_next, there_next = np.roll(here, -1, 1), np.roll(there, -1, 1)
    first = np.stack([here, there, here_next], -1).reshape(-1, 3)
    second = np.stack([here_next, there, there_next], -1).reshape(-1, 3)
    return np.concatenate([first, second])


def _stack_faces(rings: int, segments: int) -> np.ndarray:
    """A tube of rings closed by a fan at each pole; vertices: pole, rings, pole."""
    ids = 1 + np.arange(rings * segments).reshape(rings, segments)
    last = rings * segments + 1
    top = np.stack([np.zeros(segments, int), ids[0], np.roll(ids[0], -1)], -1)
    bottom = np.stack([np.full(segments, last), np.roll(ids[-1], -1), ids[-1]], -1)
    return np.concatenate([top, tube_faces(ids), bottom])


def _grid_faces(cells: int) -> np.ndarray:
    """Two triangles for each square of a (cells + 1)^2 grid whose normal is u x v."""
    ids = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
