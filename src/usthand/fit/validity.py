"""Which joints the views really place. Two views that see a joint do so only if their rays cross at an angle.

A joint counts as placed if its triangulation by the labels alone, with their stated noise, is certain along its worst
direction (`usthand.geometry.conditioning`) to

- a hand's length. Beyond it, nothing but the assumed size of the hand says how far away the joint is. The stated noise
  is a fraction of the hand's size (`usthand.fit.observations`), so with two views and fully confident labels this is an
  angle of 2 degrees between the rays, whatever the lens, the distance and the image's size; and
- a third of its distance from the camera. Otherwise parallel rays are within three standard deviations, and the joint
  may be anywhere behind. For hands closer than half a metre this is the stricter bound.

All of it is in sizes of the hand as each view sees it, so that no depth enters: where the rays hardly cross, every
depth that was found is wrong. The angle is that between the mean rays of the hand's joints, because the angle between
the rays of one joint is mostly their noise there.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.fit.sequence import MIN_VIEWS
from usthand.geometry.conditioning import ray_information, worst_std
from usthand.geometry.robust_triangulation import UndistortedViews
from usthand.hand.result import Result
from usthand.labels.labels import Labels

MOST_OF_DISTANCE = 1 / 3
"""Largest standard deviation of a placed joint over its distance: parallel rays are then three of them away."""
MIN_JOINTS = 5
"""Placed joints that make a frame valid."""
APART = "move the cameras apart or add one that looks from the side; `usthand check CAPTURE` names the cameras"
FEW = 0.95  # of the frames that two views see; below it a note is due


def placed(views: UndistortedViews) -> Bool[np.ndarray, "T J"]:
    """Whether the views alone place each joint. Several observations from one camera count as one view.

    Args:
        views: Labels with their stated precision.
    """
    precision = views.precision.diagonal(dim1=-2, dim2=-1).mean(-1)
    present = precision > 0
    sees = present & (present.sum(1, keepdim=True) >= MIN_VIEWS)
    size = _hand_size(views.xy, sees)
    rays = torch.cat((views.xy, torch.ones_like(views.xy[..., :1])), -1) @ views.cameras.cam_from_world[..., :3]
    rays = torch.nn.functional.normalize(rays, dim=-1) * sees[..., None]
    middle = torch.nn.functional.normalize(rays.sum(2), dim=-1)  # (T, V, 3)
    weight = (precision * size[..., None] ** 2 * sees).swapaxes(1, 2)
    std = worst_std(ray_information(middle[:, None].expand(-1, precision.shape[2], -1, -1), weight))
    return ((std < 1) & (std < MOST_OF_DISTANCE / size.amax(1).clamp_min(1e-9)[:, None])).numpy()


def _hand_size(xy: Float[Tensor, "T V J 2"], sees: Bool[Tensor, "T V J"]) -> Float[Tensor, "T V"]:
    """The longer side of the box around the joints, at depth 1: the hand's size over its distance; 0 if not seen."""
    low = torch.where(sees[..., None], xy, torch.inf).amin(2)
    high = torch.where(sees[..., None], xy, -torch.inf).amax(2)
    return torch.where(sees.any(2), (high - low).amax(-1), 0.0)


def valid_joints(rig: Rig, views: UndistortedViews) -> Bool[np.ndarray, "T J"]:
    """The placed joints of the frames in which enough are placed.

    Raises:
        UsthandError: If there is no such frame.
    """
    joints = placed(views)
    joints &= (joints.sum(1) >= MIN_JOINTS)[:, None]
    if not joints.any():
        who = " and ".join(rig.names) if len(rig) == 2 else "those that see it"
        raise UsthandError(
            "the cameras do not place the hand in any frame",
            f"{who} look at it from nearly the same place, so their rays hardly cross and its depth stays open",
            APART,
        )
    return joints


def placement_note(labels: Labels, result: Result) -> str | None:
    """One sentence for the user where the views do not place the hand in many of the frames in which two see it.

    Args:
        labels: That the result was made from.
        result: Of `fit_labels`, `triangulate` or `reconstruct`.
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
