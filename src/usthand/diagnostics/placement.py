"""Whether the cameras look from places far enough apart to place a hand: the angle at which their rays cross.

A label errs by a fraction of the hand's size (`SIGMA_FRACTION`), in every view and at any distance. So the rays alone
tell how well they place the hand, in hand sizes: no unit, no triangulation and no lens enters. The rays of a hand's
joints are averaged first, because the angle between two nearly parallel rays is mostly their noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.diagnostics.agreement import Case, ViewRays, make_views
from usthand.diagnostics.diagnosis import Diagnosis
from usthand.diagnostics.findings import Evidence, Finding, who
from usthand.fit.observations import SIGMA_FRACTION
from usthand.fit.validity import MOST_OF_DISTANCE
from usthand.geometry.conditioning import ray_information, worst_std
from usthand.hand.skeleton import N_JOINTS

HAND_M = 0.18  # from the wrist to the tip of the middle finger of an average adult; for millimetres in sentences
NARROW = 0.2
"""Standard deviation in depth, hand sizes, from which on depth is poor: two views at 10 degrees. The stereo cameras of
headsets, at 12 to 22 degrees, are at 0.1 to 0.17."""
COINCIDENT = 1e-3
"""Two cameras' distance over that of all cameras from their middle, from which on they stand apart."""


@dataclass(frozen=True)
class Placement:
    """How well each hand is placed: N hands of all frames that two views or more see, V views."""

    std: Float[np.ndarray, "N"]
    """Standard deviation along the worst direction, hand sizes, for labels of the usual noise."""
    angle_deg: Float[np.ndarray, "N"]
    """Widest angle at which the lines of sight of two views cross, 0 to 90."""
    sees: Bool[np.ndarray, "N V"]
    limit: float
    """Standard deviation from which on a hand is not placed at all; as in `usthand.fit.validity`."""

    @property
    def std_mm(self) -> Float[np.ndarray, "N"]:
        """The same in millimetres, for an average hand."""
        return 1000 * HAND_M * self.std

    @property
    def unplaced(self) -> Bool[np.ndarray, "N"]:
        """Hands that the views do not place at all."""
        return self.std > self.limit


def placement(views: list[ViewRays]) -> Placement:
    """How well the rays of some views place the hands."""
    present = np.stack([view.present.reshape(-1, N_JOINTS) for view in views], axis=1)
    rays = np.stack([view.rays.T.reshape(-1, N_JOINTS, 3) for view in views], axis=1)
    middle = np.where(present[..., None] & np.isfinite(rays), rays, 0.0).sum(2)
    length = np.linalg.norm(middle, axis=-1)
    sees = (present.sum(2) > N_JOINTS // 2) & (length > 0)
    hands = sees.sum(1) >= 2
    sees, unit = sees[hands], middle[hands] / np.maximum(length[hands], 1e-12)[..., None]
    information = ray_information(torch.from_numpy(unit), torch.from_numpy(sees / SIGMA_FRACTION**2))
    # The largest sine of the angle between two of the rays; opposite rays count as parallel.
    cosine = np.abs(unit @ unit.swapaxes(-1, -2)) + 2.0 * ~(sees[:, :, None] & sees[:, None])
    sizes = [view.size_rad for view in views if np.isfinite(view.size_rad)]
    limit = min(1.0, MOST_OF_DISTANCE / max(np.median(sizes), 1e-9)) if sizes else 1.0
    angle = np.degrees(np.arccos(np.clip(cosine.min((1, 2), initial=1.0), 0.0, 1.0)))
    return Placement(worst_std(information).numpy(), angle, sees, float(limit))


def coincident_pairs(views: list[ViewRays]) -> list[tuple[int, int]]:
    """Pairs of views whose cameras stand in one place, as far as the rig says."""
    centres = np.stack([view.centre for view in views])
    extent = np.linalg.norm(centres - centres.mean(0), axis=1).mean()
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    return [(i, j) for i in range(len(views)) for j in range(i + 1, len(views)) if apart[i, j] <= COINCIDENT * extent]


# ---- findings ------------------------------------------------------------------------------------------------------


def check_coincident(diagnosis: Diagnosis) -> bool:
    """Report cameras in one place.

    Of two that are exactly in one place only the first is used from then on: their rays have no epipolar line.

    Returns:
        Whether the cameras are far enough apart to go on.
    """
    pairs = coincident_pairs(make_views(diagnosis.current.sampled(1)))
    doubled = sorted({second for _, second in pairs})
    if pairs:
        names = [f"{diagnosis.names[i]} and {diagnosis.names[j]}" for i, j in pairs]
        sentence = (
            f"cameras {', '.join(names)} stand in one place according to the rig: "
            "their rays never cross, so together they count as one view."
        )
        cameras = tuple(diagnosis.names[v] for v in sorted({v for pair in pairs for v in pair}))
        fix = "look whether one's rotation and translation were copied from the other, or move one of them away"
        diagnosis.add(Finding("coincident_cameras", cameras, sentence, fix, {"angle_deg": 0.0}))
        diagnosis.current = _without(diagnosis.current, doubled)
        diagnosis.untimed = _without(diagnosis.untimed, doubled)
    found = placement(diagnosis.measured().views)
    if not len(found.std):
        return False
    if np.mean(found.unplaced) > 0.5:
        if not pairs:
            diagnosis.add(_finding(diagnosis, found, found.unplaced, "coincident_cameras"))
        return False
    return True


def check_narrow(diagnosis: Diagnosis, views: list[ViewRays]) -> bool:
    """Report cameras that see the hand from nearly one direction; `views` with all fixes.

    Returns:
        Whether they do, so that lengths of bones say nothing.
    """
    found = placement(views)
    poor = found.std > NARROW
    narrow = bool(len(poor) and np.mean(poor) > 0.5)
    if narrow:
        diagnosis.add(_finding(diagnosis, found, poor, "narrow_baseline"))
    return narrow


def _finding(diagnosis: Diagnosis, found: Placement, poor: Bool[np.ndarray, "N"], fault: str) -> Finding:
    chosen = tuple(diagnosis.names[v] for v in np.flatnonzero(found.sees[poor].mean(0) >= 0.5))
    names = chosen or diagnosis.names
    angle, std_mm, share = float(np.median(found.angle_deg[poor])), float(np.median(found.std_mm[poor])), np.mean(poor)
    told = who(names, len(names) == len(diagnosis.names) > 2)
    meeting = (
        f"{told} look at the hand from nearly the same or opposite directions: their rays cross at {angle:.1f} degrees"
    )
    where = "" if share > 0.99 else f" in {100 * share:.0f} % of the frames"
    if fault == "coincident_cameras":
        sentence = (
            f"{meeting}{where}, less than labels err by, so they do not place the hand, and no frame would be valid."
        )
        fix = "move the cameras apart, or add one that looks from the side"
        return Finding(fault, names, sentence, fix, {"angle_deg": angle, "share": float(share)})
    sentence = (
        f"{meeting}{where}, so a usual detector's labels leave a standard deviation of {std_mm:.0f} mm along the view "
        f"in each joint of each frame (90 degrees would leave {1000 * HAND_M * SIGMA_FRACTION:.0f} mm)."
    )
    fix = "move the cameras apart (30 degrees are good), or add one that looks from the side"
    numbers: Evidence = {"angle_deg": angle, "std_mm": std_mm, "share": float(share)}
    return Finding(fault, names, sentence, fix, numbers, "warning")


def _without(case: Case, views: list[int]) -> Case:
    present = case.present.copy()
    present[:, views] = False
    return replace(case, present=present)
