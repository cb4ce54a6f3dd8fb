"""Candidate faults of cameras or labels: every known mistake, in all views alike and in each alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations, permutations

import numpy as np
from jaxtyping import Float, Int

from usthand.capture.rig import Camera
from usthand.diagnostics import corrections
from usthand.diagnostics.agreement import CAP, Case, ViewRays, make_view, pair_agreement
from usthand.diagnostics.corrections import LabelCorrection

LABEL_SCALES = (0.25, 1 / 3, 0.5, 2 / 3, 0.75, 4 / 3, 1.5, 2.0, 3.0, 4.0)
"""Ratios of the usual video sizes (480, 540, 720, 1080, 1440, 2160 lines)."""

LENGTH_UNITS = (1e-3, 1e-2, 1e2, 1e3)
ALL_PERMUTATIONS = 7  # views up to which every exchange of cameras is tried; beyond, pairs and cycles of three
BEST_ORDERS = 6


@dataclass(frozen=True)
class CandidateFault:
    """A fault with its fix."""

    fault: str
    """Name of the fault, as in the JSON."""
    kind: str
    """Which form of it; with `fault` it chooses the sentence."""
    views: tuple[int, ...]
    """Views that are wrong, by number."""
    cameras: dict[int, Camera] = field(default_factory=dict)
    """The fixed cameras, by view."""
    labels: dict[int, LabelCorrection] = field(default_factory=dict)
    """How to fix the labels, by view."""
    value: float | tuple[float, ...] | str | None = None
    """A factor, the coefficients of a lens, the order of a permutation or the name of a joint order."""

    def apply(self, case: Case) -> Case:
        """The case with the fault fixed."""
        fixed = case.with_cameras(self.cameras)
        if not self.labels:
            return fixed
        uv, present = case.uv_px.copy(), case.present.copy()
        for v, fix in self.labels.items():
            uv[:, v], present[:, v] = fix.apply(case.uv_px[:, v], case.present[:, v])
        return replace(fixed, uv_px=uv, present=present)


EXTRINSICS = {
    ("inverted_extrinsics", "inverted"): corrections.inverted,
    ("inverted_extrinsics", "centre"): corrections.from_centre,
    ("inverted_extrinsics", "transposed"): corrections.transposed,
    ("flipped_axes", "opengl"): corrections.opencv_axes,
    ("flipped_axes", "opengl_inverted"): corrections.inverted_opencv,
}

LABELS = {
    ("mirrored_labels", "mirrored"): corrections.mirrored_labels,
    ("upside_down", "turned"): corrections.upside_down_labels,
    ("flipped_axes", "bottom_up"): corrections.bottom_up_labels,
}


def candidate_faults(case: Case) -> Iterator[CandidateFault]:
    """Everything to try on a case except exchanged cameras, the likelier first."""
    everything = tuple(range(len(case.cameras)))
    for group in (everything, *((v,) for v in everything)):
        for name, fix in EXTRINSICS.items():
            yield _cameras(case, name, group, fix)
        for (fault, kind), fix in LABELS.items():
            yield CandidateFault(fault, kind, group, labels={v: fix(case.cameras[v]) for v in group})
        yield from _sizes(case, group)
        yield from lenses(case, group)
        if len(group) == 1:
            yield from _one_unlike_the_others(case, group)


def _cameras(
    case: Case,
    name: tuple[str, str],
    group: tuple[int, ...],
    fix: Callable[[Camera], Camera],
    value: float | None = None,
) -> CandidateFault:
    """`name`: fault and kind."""
    return CandidateFault(*name, group, {v: fix(case.cameras[v]) for v in group}, value=value)


def _sizes(case: Case, group: tuple[int, ...]) -> Iterator[CandidateFault]:
    """The matrix or the labels are of another image size.

    The principal point decides which of the two: it lies near the middle of the images that the matrix is of.
    """
    for factor in LABEL_SCALES:
        off, off_scaled = ([_off_centre(case.cameras[v], f) for v in group] for f in (1.0, factor))
        if np.mean(off_scaled) < np.mean(off):
            scaled = partial(corrections.scaled_matrix, factor=factor)
            yield _cameras(case, ("wrong_size", "matrix"), group, scaled, factor)
        else:
            labels = dict.fromkeys(group, corrections.scaled_labels(1 / factor))
            yield CandidateFault("wrong_size", "labels", group, labels=labels, value=1 / factor)
    if any(case.cameras[v].width != case.cameras[v].height for v in group):
        yield _cameras(case, ("wrong_size", "turned"), group, corrections.turned_matrix)


def _off_centre(camera: Camera, factor: float) -> float:
    """Distance of the principal point from the image's centre, image widths, if the matrix is scaled."""
    middle = np.array([camera.width - 1, camera.height - 1]) / 2
    return float(np.linalg.norm((camera.matrix[:2, 2] + 0.5) * factor - 0.5 - middle) / camera.width)


def lenses(case: Case, group: tuple[int, ...]) -> Iterator[CandidateFault]:
    """The other lens model where it has as many numbers, and no distortion."""
    chosen = [case.cameras[v] for v in group]
    if all(c.model == "pinhole" and len(c.distortion) == 4 for c in chosen):
        yield _cameras(case, ("wrong_lens", "fisheye"), group, corrections.as_fisheye)
    elif all(c.model == "fisheye" for c in chosen):
        yield _cameras(case, ("wrong_lens", "pinhole"), group, corrections.as_pinhole)
    if any(c.distortion.any() for c in chosen):
        yield _cameras(case, ("wrong_lens", "undistorted"), group, corrections.without_distortion)


def _one_unlike_the_others(case: Case, group: tuple[int, ...]) -> Iterator[CandidateFault]:
    """Mistakes that rays do not show where all views make them, and that are therefore tried on one view alone."""
    for factor in LENGTH_UNITS:
        scaled = partial(corrections.scaled_translation, factor=factor)
        yield _cameras(case, ("wrong_unit", "one"), group, scaled, factor)
    for name, order in corrections.ORDERS.items():
        yield CandidateFault(
            "joint_order", "one", group, labels={group[0]: corrections.order_labels(order)}, value=name
        )


# ---- exchanged cameras ---------------------------------------------------------------------------------------------


def exchanges(case: Case) -> Iterator[CandidateFault]:
    """The best exchanges of whole cameras (or of videos) and of extrinsics alone, and every exchange of two."""
    n = len(case.cameras)
    if n < 2:
        return
    for kind in ("videos", "extrinsics"):
        best = [tuple(int(v) for v in order) for order in _best_orders(_table(case, kind), n)]
        pairs = [tuple(int(v) for v in order) for order in _exchanges_of_two(n)]
        for order in dict.fromkeys((*best, *pairs)):
            moved = tuple(v for v in range(n) if order[v] != v)
            if moved:
                changed = {v: _exchanged(case.cameras[v], case.cameras[order[v]], kind) for v in moved}
                yield CandidateFault("swapped_cameras", kind, moved, changed, value=order)


def _exchanged(camera: Camera, other: Camera, kind: str) -> Camera:
    """The camera of this name, with what stands under the other's name."""
    if kind == "videos":
        return replace(other, name=camera.name)
    return replace(camera, rotation=other.rotation, translation=other.translation)


def _table(case: Case, kind: str) -> Float[np.ndarray, "V V V V"]:
    """Error between view i under camera a and view j under camera b."""
    n = len(case.cameras)
    views: dict[tuple[int, int], ViewRays] = {
        (i, a): make_view(_exchanged(case.cameras[i], case.cameras[a], kind), case.uv_px[:, i], case.present[:, i])
        for i in range(n)
        for a in range(n)
    }
    table = np.full((n, n, n, n), CAP)
    for i, j in combinations(range(n), 2):
        for a, b in permutations(range(n), 2):
            error = pair_agreement(views[i, a], views[j, b])[0]
            table[i, a, j, b] = table[j, b, i, a] = 0.0 if np.isnan(error) else error
    return table


def _best_orders(table: Float[np.ndarray, "V V V V"], n: int) -> list[Int[np.ndarray, "V"]]:
    """Permutations of least total error: order[v] is the camera whose entry belongs to view v's labels."""
    if n <= ALL_PERMUTATIONS:
        candidates = np.array(list(permutations(range(n))))
        return list(candidates[np.argsort(_total(table, candidates), kind="stable")[:BEST_ORDERS]])
    order = np.arange(n)
    while True:  # steepest descent over exchanges of two and cycles of three
        steps = np.array([order, *_short_cycles(order)])
        best = steps[np.argmin(_total(table, steps))]
        if (best == order).all():
            return [order]
        order = best


def _exchanges_of_two(n: int) -> Iterator[Int[np.ndarray, "V"]]:
    for pair in combinations(range(n), 2):
        order = np.arange(n)
        order[list(pair)] = pair[::-1]
        yield order


def _short_cycles(order: Int[np.ndarray, "V"]) -> Iterator[Int[np.ndarray, "V"]]:
    for cycle in (*combinations(range(len(order)), 2), *permutations(range(len(order)), 3)):
        if len(cycle) == 3 and cycle[0] != min(cycle):
            continue
        moved = order.copy()
        moved[list(cycle)] = order[list(np.roll(cycle, 1))]
        yield moved


def _total(table: Float[np.ndarray, "V V V V"], orders: Int[np.ndarray, "K V"]) -> Float[np.ndarray, "K"]:
    """Sum of the errors of all pairs for each permutation; ties go to the one listed first."""
    pairs = combinations(range(orders.shape[1]), 2)
    return np.sum([table[i, orders[:, i], j, orders[:, j]] for i, j in pairs], axis=0)
