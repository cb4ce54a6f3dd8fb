"""Which joints the views really place. Two views that see a joint do so only if their rays cross at an angle.

A joint counts as placed if its triangulation by the labels alone, with their stated noise, is certain along its worst
direction (`usthand.geometry.conditioning`) to

- a hand's length. Beyond it, nothing but the assumed size of the hand says how far away the joint is. The stated noise
  is a fraction of the hand's size (`usthand.fit.observations`), so with two views and fully confident labels this is an
  angle of 2 degrees between the rays, whatever the lens, the distance and the image's size; and
- a third of its distance from the nearest camera that sees it. Otherwise parallel rays are within three standard
  deviations, and the joint may be anywhere behind. For hands closer than half a metre this is the stricter bound.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float

from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.fit.sequence import MIN_VIEWS
from usthand.geometry.cameras import to_camera
from usthand.geometry.conditioning import view_information, worst_std
from usthand.geometry.robust_triangulation import UndistortedViews
from usthand.hand.result import Result
from usthand.labels.labels import Labels

HAND_M = 0.18
"""From the wrist to the tip of the middle finger of an average adult."""
MOST_OF_DISTANCE = 1 / 3
"""Largest standard deviation of a placed joint over its distance: parallel rays are then three of them away."""
MIN_JOINTS = 5
"""Placed joints that make a frame valid."""
APART = "move the cameras apart or add one that looks from the side; `usthand check CAPTURE` names the cameras"
FEW = 0.95  # of the frames that two views see; below it a note is due


def placed(views: UndistortedViews, joints_world_m: Float[np.ndarray, "T J 3"]) -> Bool[np.ndarray, "T J"]:
    """Whether the views alone place each joint, at the positions that were found for them.

    Args:
        views: Labels with their stated precision, in metres. Several observations from one camera count as one view.
        joints_world_m: The joints found.
    """
    points = torch.from_numpy(joints_world_m)
    std_m = worst_std(view_information(views.cameras, points, views.precision))
    sees = views.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0
    distance = torch.linalg.vector_norm(to_camera(views.cameras, points), dim=-1)
    nearest = torch.where(sees, distance, torch.inf).amin(1)
    return ((std_m < HAND_M) & (std_m < MOST_OF_DISTANCE * nearest)).numpy()


def require_placed(rig: Rig, valid: Bool[np.ndarray, "T"]) -> None:
    """Raise `UsthandError` if no frame is valid although two views see the hand."""
    if not valid.any():
        raise UsthandError(
            "the cameras do not place the hand in any frame",
            f"{' and '.join(rig.names[:2]) if len(rig) == 2 else 'those that see it'} look at it from nearly the same "
            "place, so their rays do not cross at an angle and its depth stays open",
            APART,
        )


def placement_note(labels: Labels, result: Result) -> str | None:
    """One sentence for the user where the views do not place the hand in many of the frames in which two see it.

    Args:
        labels: That the result was made from.
        result: Of `fit_labels` or `triangulate`.
    """
    two_views = (labels.mask.sum(1) >= MIN_VIEWS).sum(1) >= MIN_JOINTS
    lost = int((two_views & ~result.valid).sum())
    if not lost > (1 - FEW) * two_views.sum():
        return None
    return (
        f"In {lost} of the {int(two_views.sum())} frames in which two cameras see the hand, they do not place it, and "
        "these frames are not valid: the cameras look from nearly the same place, or the labels' confidence is too low "
        f"for the angle at which the rays cross; {APART}."
    )
