"""From a signed distance to a triangle mesh with an exact number of vertices and an open end.

Naive surface nets on a grid, edge collapses down to the count, then flips and tangential relaxation on the surface. An
edge collapse inside a disc removes one vertex and two triangles, so with V vertices and a rim of b edges the mesh
always ends with 2 V - 2 - b triangles.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray], np.ndarray]
Projection = Callable[[np.ndarray], np.ndarray]
"""Points (n, 3) -> the nearest points of the surface."""


def surface_net(distance: Distance, low: np.ndarray, high: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) and triangles (m, 3), outward, of the zero level; open where the surface leaves the box."""
    axes = [np.arange(lo, hi + 0.5 * step, step) for lo, hi in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    value = distance(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    shape = np.array(value.shape)
    total, count = np.zeros((*(shape - 1), 3)), np.zeros(shape - 1)
    crossings = []
    for axis in range(3):
        a, b = np.moveaxis(value, axis, 0)[:-1], np.moveaxis(value, axis, 0)[1:]
        cross = np.moveaxis((a < 0) != (b < 0), 0, axis)
        where = np.argwhere(cross)
        va = value[tuple(where.T)]
        ahead = where.copy()
        ahead[:, axis] += 1
        vb = value[tuple(ahead.T)]
        point = grid[tuple(where.T)].copy()
        point[:, axis] += step * va / (va - vb)
        crossings.append((axis, where, va < 0))
        u, v = [k for k in range(3) if k != axis]
        for du in (0, 1):
            for dv in (0, 1):
                cell = where.copy()
                cell[:, u] -= du
                cell[:, v] -= dv
                good = (cell >= 0).all(1) & (cell < shape - 1).all(1)
                np.add.at(total, tuple(cell[good].T), point[good])
                np.add.at(count, tuple(cell[good].T), 1)
    index = np.full(shape - 1, -1)
    index[count > 0] = np.arange((count > 0).sum())
    vertices = total[count > 0] / count[count > 0][:, None]
    faces = [_quads(axis, where, inside, index, shape) for axis, where, inside in crossings]
    quads = np.concatenate(faces)
    return vertices, _split(vertices, quads)


def _quads(axis: int, where: np.ndarray, inside: np.ndarray, index: np.ndarray, shape: np.ndarray) -> np.ndarray:
    u, v = (axis + 1) % 3, (axis + 2) % 3
    corners = []
    for du, dv in ((0, 0), (1, 0), (1, 1), (0, 1)):
        cell = where.copy()
        cell[:, u] -= du
        cell[:, v] -= dv
        good = (cell >= 0).all(1) & (cell < shape - 1).all(1)
        corners.append(np.where(good, index[tuple(np.clip(cell, 0, shape - 2).T)], -1))
    quad = np.stack(corners, -1)
    quad = np.where(inside[:, None], quad, quad[:, ::-1])
    return quad[(quad >= 0).all(1)]


def _split(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    p = vertices[quads]
    first = ((p[:, 0] - p[:, 2]) ** 2).sum(-1) <= ((p[:, 1] - p[:, 3]) ** 2).sum(-1)
    one = np.where(first[:, None], quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    two = np.where(first[:, None], quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.concatenate((one, two))


class Mesh:
    """A triangle mesh that can be collapsed and flipped; vertex ids stay, removed ones are left empty."""

    def __init__(self, points: np.ndarray, faces: np.ndarray) -> None:
        self.points = points.copy()
        self.faces: dict[int, tuple[int, ...]] = {i: tuple(int(k) for k in f) for i, f in enumerate(faces)}
        self.around: list[set[int]] = [set() for _ in points]
        for i, face in self.faces.items():
            for v in face:
                self.around[v].add(i)
        self.n_vertices = sum(1 for s in self.around if s)

    def neighbours(self, v: int) -> set[int]:
        """Vertices that share an edge with `v`."""
        return {w for f in self.around[v] for w in self.faces[f]} - {v}

    def shared(self, a: int, b: int) -> set[int]:
        """Triangles at the edge a-b."""
        return self.around[a] & self.around[b]

    def edges(self) -> list[tuple[int, int]]:
        """All edges, the smaller id first, sorted."""
        return sorted(
            {(min(a, b), max(a, b)) for f in self.faces.values() for a, b in zip(f, f[1:] + f[:1], strict=True)}
        )

    def rim(self) -> list[int]:
        """The vertices of the one boundary loop, in the order of the triangles' winding."""
        follow = {}
        for f in self.faces.values():
            for a, b in zip(f, f[1:] + f[:1], strict=True):
                if len(self.shared(a, b)) == 1:
                    follow[a] = b
        loop = [min(follow)] if follow else []
        while loop and follow[loop[-1]] != loop[0]:
            loop.append(follow[loop[-1]])
        return loop

    def normal(self, face: tuple[int, ...], moved: int = -1, to: np.ndarray | None = None) -> tuple[float, ...]:
        """Normal of a triangle, twice its area long, as if vertex `moved` were at `to`."""
        # Plain floats: numpy is slow on three numbers, and this is called a million times.
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (
            (self.points[v] if to is None or v != moved else to).tolist() for v in face
        )
        ux, uy, uz, wx, wy, wz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
        return uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx

    def can_collapse(self, a: int, b: int, to: np.ndarray) -> bool:
        """Link condition, and no triangle may turn over or become a sliver."""
        shared = self.shared(a, b)
        if len(self.neighbours(a) & self.neighbours(b)) != len(shared):
            return False
        for v in (a, b):
            for f in self.around[v] - shared:
                before, after = self.normal(self.faces[f]), self.normal(self.faces[f], v, to)
                dot, size = _inner(before, after), _inner(before, before) * _inner(after, after)
                if dot <= 0 or dot * dot < 0.25 * size:
                    return False
        return True

    def collapse(self, keep: int, gone: int, to: np.ndarray) -> None:
        """Merge vertex `gone` into `keep`, which moves to the point `to`."""
        for f in self.shared(keep, gone):
            for v in self.faces.pop(f):
                self.around[v].discard(f)
        for f in self.around[gone]:
            self.faces[f] = tuple(keep if v == gone else v for v in self.faces[f])
            self.around[keep].add(f)
        self.around[gone] = set()
        self.points[keep] = to
        self.n_vertices -= 1

    def flip(self, a: int, b: int) -> None:
        """Replace the inner edge a-b by the one between the two opposite corners."""
        f, g = sorted(self.shared(a, b))
        face = self.faces[f]
        if face[(face.index(a) + 1) % 3] != b:
            f, g = g, f
        c = next(v for v in self.faces[f] if v not in (a, b))
        d = next(v for v in self.faces[g] if v not in (a, b))
        self.faces[f], self.faces[g] = (a, d, c), (d, b, c)
        self.around[b].discard(f)
        self.around[a].discard(g)
        self.around[d].add(f)
        self.around[c].add(g)

    def compact(self) -> tuple[np.ndarray, np.ndarray]:
        """Points and faces with the empty ids left out."""
        used = np.array([v for v, s in enumerate(self.around) if s])
        number = np.full(len(self.points), -1)
        number[used] = np.arange(len(used))
        return self.points[used], number[np.array([self.faces[f] for f in sorted(self.faces)])]


def _inner(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def collapse_to(mesh: Mesh, count: int, size: np.ndarray, fixed: set[int], project: Projection) -> None:
    """Collapse the edges that are shortest for the wanted length `size` (per vertex) until `count` vertices remain.

    Vertices in `fixed` neither move nor vanish. New points are put back on the surface now and then, all at once.
    """

    def cost(a: int, b: int) -> float:
        (ax, ay, az), (bx, by, bz) = mesh.points[a].tolist(), mesh.points[b].tolist()
        x, y, z = ax - bx, ay - by, az - bz
        return (x * x + y * y + z * z) / float(size[a] * size[b])

    heap = [(cost(a, b), a, b) for a, b in mesh.edges()]
    heapq.heapify(heap)
    moved: set[int] = set()
    while mesh.n_vertices > count and heap:
        old, a, b = heapq.heappop(heap)
        if not mesh.around[a] or not mesh.around[b] or not mesh.shared(a, b) or (a in fixed and b in fixed):
            continue
        if cost(a, b) != old:
            heapq.heappush(heap, (cost(a, b), a, b))
            continue
        keep, gone = (b, a) if b in fixed else (a, b)
        to = mesh.points[keep] if keep in fixed else 0.5 * (mesh.points[a] + mesh.points[b])
        if _flattens_rim(mesh, keep, gone, fixed) or not mesh.can_collapse(keep, gone, to):
            continue
        size[keep] = size[keep] if keep in fixed else 0.5 * (size[a] + size[b])
        mesh.collapse(keep, gone, to)
        moved.add(keep)
        for v in mesh.neighbours(keep):
            heapq.heappush(heap, (cost(keep, v), min(keep, v), max(keep, v)))
        if len(moved) >= 200:
            ids = np.array(sorted(v for v in moved if mesh.around[v] and v not in fixed))
            mesh.points[ids] = project(mesh.points[ids])
            moved.clear()


def _flattens_rim(mesh: Mesh, keep: int, gone: int, fixed: set[int]) -> bool:
    """Whether the collapse would leave a triangle with all its corners fixed: a flat one across the rim."""
    if keep not in fixed:
        return False
    return any(len(fixed.intersection(mesh.faces[f])) == 2 for f in mesh.around[gone] - mesh.around[keep])


def flip_to_delaunay(mesh: Mesh, rounds: int = 4) -> None:
    """Flip edges whose opposite angles sum to more than pi, unless that folds the surface or cuts across its rim."""
    rim = set(mesh.rim())
    for _ in range(rounds):
        changed = 0
        for a, b in mesh.edges():
            shared = sorted(mesh.shared(a, b))
            if len(shared) != 2:
                continue
            c, d = (next(v for v in mesh.faces[f] if v not in (a, b)) for f in shared)
            face = mesh.faces[shared[0]]
            if face[(face.index(a) + 1) % 3] != b:
                c, d = d, c
            if {c, d} <= rim or d in mesh.neighbours(c) or not _wants_flip(mesh, a, b, c, d):
                continue
            mesh.flip(a, b)
            changed += 1
        if not changed:
            return


def _wants_flip(mesh: Mesh, a: int, b: int, c: int, d: int) -> bool:
    """Whether the angles at c and d, opposite to edge a-b in triangles (a, b, c) and (b, a, d), sum to more than pi."""
    if _cotangent(mesh.points, c, a, b) + _cotangent(mesh.points, d, a, b) > -0.02:
        return False
    before = [mesh.normal(f) for f in ((a, b, c), (a, d, b))]
    after = [mesh.normal(f) for f in ((a, d, c), (d, b, c))]
    return all(
        (inner := _inner(m, n)) > 0 and inner * inner > 0.25 * _inner(m, m) * _inner(n, n)
        for m in before
        for n in after
    )


def _cotangent(points: np.ndarray, at: int, u: int, v: int) -> float:
    (ox, oy, oz), (ux, uy, uz), (vx, vy, vz) = points[at].tolist(), points[u].tolist(), points[v].tolist()
    e, f = (ux - ox, uy - oy, uz - oz), (vx - ox, vy - oy, vz - oz)
    cross = (e[1] * f[2] - e[2] * f[1], e[2] * f[0] - e[0] * f[2], e[0] * f[1] - e[1] * f[0])
    return _inner(e, f) / max(math.sqrt(_inner(cross, cross)), 1e-18)


def relax(
    points: np.ndarray,
    faces: np.ndarray,
    size: np.ndarray,
    fixed: np.ndarray,
    project: Projection,
    rounds: int,
    rate: float = 0.5,
) -> np.ndarray:
    """Move vertices to their triangles' weighted centres, along the surface; `size`: wanted edge length per vertex."""
    points = points.copy()
    free = np.setdiff1d(np.arange(len(points)), fixed)
    for _ in range(rounds):
        corner = points[faces]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        area = 0.5 * np.sqrt((normal**2).sum(-1)) / size[faces].mean(1) ** 2
        total, weight = np.zeros_like(points), np.zeros(len(points))
        for k in range(3):
            np.add.at(total, faces[:, k], area[:, None] * corner.mean(1))
            np.add.at(weight, faces[:, k], area)
        points[free] += rate * (total[free] / weight[free][:, None] - points[free])
        points[free] = project(points[free])
    return points
