"""The embedded hand's rest mesh: 778 vertices, 1538 triangles, an open wrist of 16 edges, fingertips at known ids."""

from __future__ import annotations

import numpy as np

from embedded_hand.anatomy import MM, Skeleton, from_hand
from embedded_hand.flesh import Flesh
from embedded_hand.remesh import Mesh, collapse_to, flip_to_delaunay, relax, surface_net

N_VERTICES = 778
N_RIM = 16
GRID_M = 2.0 * MM  # finer than the gaps between the fingers, which must stay open
CUT_M = 14 * MM  # how far beyond the wrist joint the mesh ends
TIP_GROUPS = ((317, 320), (444, 443, 445), (672, 671, 673), (555, 554, 556), (744, 745))
"""Ids on the fingertips that other tools hard-code, MANO's order of fingers (index, middle, little, ring, thumb)."""
PRIMARY_TIPS = (317, 444, 673, 556, 744)


def build_template(flesh: Flesh, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (778, 3), metres, and outward triangles (1538, 3), in the final order of vertices."""
    cut = skeleton.joints[0, 0] + CUT_M
    low, high = from_hand((205, -75, -60)), np.array((0.0, 0.05, 0.11))
    high[0] = cut + 0.5 * GRID_M
    low[0] = high[0] - GRID_M * np.ceil((high[0] - low[0]) / GRID_M)
    points, faces = surface_net(flesh.distance, low, high, GRID_M)
    points = flesh.project(points)
    mesh = Mesh(points, faces)
    _make_rim(mesh, flesh, cut)
    rim = set(mesh.rim())
    tips = flesh.project(skeleton.tips)
    pinned = _pin(mesh, tips)
    collapse_to(mesh, N_VERTICES, wanted_edge(mesh.points, skeleton), rim | set(pinned), flesh.project)
    flip_to_delaunay(mesh)
    for _ in range(6):
        points, faces = mesh.compact()
        fixed = np.array(sorted(set(Mesh(points, faces).rim()) | {_nearest(points, t) for t in tips}))
        points = relax(points, faces, wanted_edge(points, skeleton), fixed, flesh.project, rounds=8)
        mesh = Mesh(points, faces)
        flip_to_delaunay(mesh)
    points, faces = mesh.compact()
    return _order(points, faces, tips)


def wanted_edge(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """The length of edges that is wanted, relative: short at fingers and their joints, long on palm and wrist."""
    size = np.full(len(points), 1.75)
    for f in range(5):
        chain = [*skeleton.joints[1 + 3 * f : 4 + 3 * f], skeleton.tips[f]]
        for i in range(3):
            a, b = chain[i], chain[i + 1]
            if f == 4 and i == 0:
                a = a + 0.6 * (b - a)
            ab = b - a
            t = np.clip(((points - a) * ab).sum(-1) / (ab * ab).sum(), 0, 1)
            gap = np.sqrt(((points - a - t[:, None] * ab) ** 2).sum(-1))
            size = np.minimum(size, 1.0 + 0.75 * np.clip((gap - 11 * MM) / (14 * MM), 0, 1))
        for joint in chain[1:]:
            gap = np.sqrt(((points - joint) ** 2).sum(-1))
            size = np.minimum(size, 0.85 + 0.15 * np.clip((gap - 9 * MM) / (5 * MM), 0, 4))
        gap = np.sqrt(((points - chain[3]) ** 2).sum(-1))
        size = np.minimum(size, 0.68 + 0.2 * np.clip((gap - 3 * MM) / (6 * MM), 0, 4))
    for one, other in ((1, 4), (4, 10), (10, 7)):  # the webs are thin saddles
        ends = [skeleton.joints[j] + 0.4 * (skeleton.joints[j + 1] - skeleton.joints[j]) for j in (one, other)]
        gap = np.sqrt(((points - 0.5 * (ends[0] + ends[1])) ** 2).sum(-1))
        size = np.minimum(size, 0.7 + 0.3 * np.clip((gap - 7 * MM) / (6 * MM), 0, 4))
    return size


def _make_rim(mesh: Mesh, flesh: Flesh, cut: float) -> None:
    """Collapse the boundary to 16 vertices and place them evenly on the skin in the plane of the cut."""
    while len(loop := mesh.rim()) > N_RIM:
        lengths = [
            ((mesh.points[a] - mesh.points[b]) ** 2).sum() for a, b in zip(loop, loop[1:] + loop[:1], strict=True)
        ]
        for i in np.argsort(lengths):
            a, b = loop[i], loop[(i + 1) % len(loop)]
            if len(mesh.neighbours(a) & mesh.neighbours(b)) == 1:
                mesh.collapse(a, b, 0.5 * (mesh.points[a] + mesh.points[b]))
                break
    loop = mesh.rim()
    mesh.points[loop] = _even_section(flesh, cut, mesh.points[loop])


def _even_section(flesh: Flesh, cut: float, near: np.ndarray) -> np.ndarray:
    """Points evenly spaced along the skin's section at x = cut, starting at the angle of the first of `near`."""
    centre = near.mean(0)
    start = np.arctan2(near[0, 2] - centre[2], near[0, 1] - centre[1])
    step = np.arctan2(near[1, 2] - centre[2], near[1, 1] - centre[1]) - start
    sign = 1.0 if (step + np.pi) % (2 * np.pi) - np.pi > 0 else -1.0
    angle = start + sign * np.linspace(0, 2 * np.pi, 2001)
    lo, hi = np.zeros(len(angle)), np.full(len(angle), 0.06)
    ray = np.stack((np.zeros_like(angle), np.cos(angle), np.sin(angle)), -1)
    origin = np.array((cut, centre[1], centre[2]))
    for _ in range(40):
        mid = 0.5 * (lo + hi)
        inside = flesh.distance(origin + mid[:, None] * ray) < 0
        lo, hi = np.where(inside, mid, lo), np.where(inside, hi, mid)
    curve = origin + (0.5 * (lo + hi))[:, None] * ray
    along = np.concatenate(([0], np.cumsum(np.sqrt(((curve[1:] - curve[:-1]) ** 2).sum(-1)))))
    wanted = np.arange(len(near)) * along[-1] / len(near)
    return np.stack([np.interp(wanted, along, curve[:, k]) for k in range(3)], -1)


def _nearest(points: np.ndarray, target: np.ndarray) -> int:
    return int(np.argmin(((points - target) ** 2).sum(-1)))


def _pin(mesh: Mesh, tips: np.ndarray) -> list[int]:
    ids = [_nearest(mesh.points, tip) for tip in tips]
    mesh.points[ids] = tips
    return ids


def _order(points: np.ndarray, faces: np.ndarray, tips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber: the fingertip and its nearest neighbours get the known ids, the others follow from wrist to fingers."""
    place = np.full(len(points), -1)
    mesh = Mesh(points, faces)
    for group, primary, tip in zip(TIP_GROUPS, PRIMARY_TIPS, tips, strict=True):
        first = _nearest(points, tip)
        around = sorted(mesh.neighbours(first), key=lambda v: float(((points[v] - tip) ** 2).sum()))
        others = [i for i in group if i != primary]
        place[first] = primary
        for vertex, number in zip(around, others, strict=False):
            place[vertex] = number
    free = np.setdiff1d(np.arange(len(points)), place)
    rest = np.flatnonzero(place < 0)
    place[rest[np.argsort(-points[rest, 0], kind="stable")]] = free
    ordered = np.empty_like(points)
    ordered[place] = points
    renumbered = place[faces]
    start = renumbered.argmin(1)
    renumbered = np.stack([renumbered[np.arange(len(faces)), (start + k) % 3] for k in range(3)], -1)
    return ordered, renumbered[np.lexsort(renumbered.T[::-1])]
