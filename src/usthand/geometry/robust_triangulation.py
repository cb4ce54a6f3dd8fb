"""Robust multi-view triangulation: points from labels of which many are wrong.

Every pair of views proposes a point, all views vote with a capped error, joints of one hand share half of their vote
(a detector that mistakes the hand mistakes all of it), and iteratively reweighted least squares polishes the winner.
Vectorised over frames and joints; the loop is over the V(V-1)/2 pairs. Shapes: T frames, V views, J joints.
Points and covariances are in the cameras' unit of length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from usthand.geometry.cameras import MIN_DEPTH_M, Cameras, to_camera, undistort
from usthand.geometry.lenses import distort
from usthand.geometry.triangulation import inverse_3x3, triangulate_xy

CAP_SIGMA = 4.0  # a label further than this many standard deviations off is simply wrong: its vote is capped here
SHARED_VOTE = 0.5  # part of a pair's cost that is the mean over the hand
IRLS_ITERATIONS = 8
SCALE_RANGE = (0.3, 3.0)  # labels may be this much better or worse than their stated precision
MEDIAN_CHI2 = {1: 0.455, 2: 1.386}  # medians of chi-square with one and two degrees of freedom
MIN_TRUSTED_WEIGHT = 0.05  # a view whose robust weight is below this did not help to place the joint
PRIOR_STD = 0.5  # bounds the covariance along the ray of a single view


class Triangulation(NamedTuple):
    """Points with the evidence for them, in the cameras' unit of length."""

    points_world: Float[Tensor, "T J 3"]
    """Finite everywhere; meaningful where `seen`."""
    covariance: Float[Tensor, "T J 3 3"]
    """Of the weighted least squares, for independent errors of the stated precision times the estimated scale."""
    weight: Float[Tensor, "T V J"]
    """Robust weight of each label in [0, 1]; 0 where missing."""
    seen: Bool[Tensor, "T J"]
    """True where at least two views agree on the point."""
    scale: float
    """Estimated standard deviation of a good label over its stated one."""


class UndistortedViews(NamedTuple):
    """Labels without their lens: coordinates at depth 1 with the precision they have there."""

    cameras: Cameras
    xy: Float[Tensor, "T V J 2"]
    precision: Float[Tensor, "T V J 2 2"]


def undistorted_views(
    cameras: Cameras, uv_px: Float[Tensor, "T V J 2"], precision_px: Float[Tensor, "T V J 2 2"]
) -> UndistortedViews:
    """Undo the lens once; the precision follows by the local derivative of the lens, P_xy = A' P_px A, A = d uv / d xy.

    Residuals of a few pixels are then as good as in pixels, and the fit needs no lens model. Missing labels (precision
    zero) sit on the optical axis.
    """
    present = precision_px.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) > 0
    focal, centre = cameras.intrinsics[..., None, :2], cameras.intrinsics[..., None, 2:]
    xy = undistort(cameras, torch.where(present, uv_px, centre.expand_as(uv_px)))
    step = 1e-5
    columns = []
    for axis in range(2):
        shift = torch.zeros(2, dtype=xy.dtype)
        shift[axis] = step
        ahead = distort(xy + shift, cameras.distortion, cameras.lens)
        behind = distort(xy - shift, cameras.distortion, cameras.lens)
        columns.append((ahead - behind) / (2 * step) * focal)
    lens = torch.stack(columns, -1)
    return UndistortedViews(cameras, xy, lens.transpose(-1, -2) @ precision_px @ lens)


def reprojection_mahalanobis2(views: UndistortedViews, points: Float[Tensor, "T J 3"]) -> Float[Tensor, "T V J"]:
    """Squared reprojection error in standard deviations; 0 for missing labels, very large behind a camera."""
    cam = to_camera(views.cameras, points)
    residual = cam[..., :2] / cam[..., 2:].clamp_min(MIN_DEPTH_M) - views.xy
    return torch.einsum("tvja,tvjab,tvjb->tvj", residual, views.precision, residual)


def geman_weight(squared: Tensor, scale2: float) -> Tensor:
    """IRLS weight of Geman and McClure's loss with its inflection near `CAP_SIGMA` standard deviations."""
    return (1 + squared / (scale2 * CAP_SIGMA**2)) ** -2


def subset_views(views: UndistortedViews, ids: Sequence[int]) -> UndistortedViews:
    """Some of the views, in the order given."""
    cameras = Cameras(*(field[list(ids)] for field in views.cameras))
    return UndistortedViews(cameras, views.xy[:, list(ids)], views.precision[:, list(ids)])


def _best_pair(views: UndistortedViews, present: Tensor) -> Tensor:
    """The point of the pair of views with the least capped error over all views, (T, J, 3)."""
    n_frames, n_views, n_joints = present.shape
    best_cost = torch.full((n_frames, n_joints), float("inf"), dtype=torch.float64)
    best = triangulate_xy(views.cameras, views.xy, views.precision, 0)[0]
    for pair in combinations(range(n_views), 2):
        both = present[:, pair[0]] & present[:, pair[1]]
        if not both.any():
            continue
        chosen = subset_views(views, pair)
        points = triangulate_xy(chosen.cameras, chosen.xy, chosen.precision, 1)[0]
        cost = reprojection_mahalanobis2(views, points).clamp_max(CAP_SIGMA**2)
        cost = torch.where(present, cost, 0).sum(1)
        shared = (cost * both).sum(-1, keepdim=True) / both.sum(-1, keepdim=True).clamp_min(1)
        cost = torch.where(both, (1 - SHARED_VOTE) * cost + SHARED_VOTE * shared, float("inf"))
        better = cost < best_cost
        best_cost = torch.where(better, cost, best_cost)
        best = torch.where(better[..., None], points, best)
    return best


def _label_scale2(squared: Tensor, present: Tensor) -> float:
    """Variance of good labels over the stated one, from the median error of points seen by three views or more.

    The fit of three coordinates takes its share of the error: (2n - 3) / 2n of it is left with n views.
    """
    n_views = present.sum(1, keepdim=True).expand_as(squared)
    usable = present & (n_views >= 3)
    if usable.sum() < 50:
        return 1.0
    left = (2 * n_views - 3) / (2 * n_views).clamp_min(1)
    estimate = (squared / left)[usable].median().item() / MEDIAN_CHI2[2]
    return min(max(estimate, SCALE_RANGE[0] ** 2), SCALE_RANGE[1] ** 2)


def triangulate_robust(views: UndistortedViews) -> Triangulation:
    """Points from at least two agreeing views, whatever the others say. Deterministic; independent of camera order."""
    present = views.precision.diagonal(dim1=-2, dim2=-1).sum(-1) > 0
    points = _best_pair(views, present)
    scale2 = _label_scale2(reprojection_mahalanobis2(views, points), present)
    weight = present.to(torch.float64)
    normal = torch.zeros((*points.shape, 3), dtype=torch.float64)
    for _ in range(IRLS_ITERATIONS):
        weight = torch.where(present, geman_weight(reprojection_mahalanobis2(views, points), scale2), 0)
        moved, normal = triangulate_xy(views.cameras, views.xy, views.precision * weight[..., None, None], 1)
        enough = (weight > MIN_TRUSTED_WEIGHT).sum(1) >= 2
        points = torch.where(enough[..., None], moved, points)
    seen = (torch.where(present, weight, 0) > MIN_TRUSTED_WEIGHT).sum(1) >= 2
    return Triangulation(points, _bounded_inverse(normal / scale2), weight, seen, scale2**0.5)


def _bounded_inverse(information: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    information = information + torch.eye(3, dtype=information.dtype) / PRIOR_STD**2
    size = information.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    return inverse_3x3(information / size) / size


def interpolate_gaps(points: Float[Tensor, "T J 3"], seen: Bool[Tensor, "T J"]) -> Float[Tensor, "T J 3"]:
    """Fill what was not seen by linear interpolation in time, holding the first and last seen position at the ends.

    A joint never seen takes the mean of the joints that were, frame by frame (zero if there is none at all).
    """
    time = torch.arange(points.shape[0], dtype=points.dtype)
    filled = points.clone()
    never = ~seen.any(0)
    for joint in range(points.shape[1]):
        known = seen[:, joint].nonzero()[:, 0]
        if len(known) == 0 or len(known) == len(time):
            continue
        right = torch.searchsorted(known, torch.arange(len(time))).clamp_max(len(known) - 1)
        left = (right - 1).clamp_min(0)
        left = torch.where(known[right] <= time, right, left)
        span = (known[right] - known[left]).clamp_min(1)
        part = ((time - known[left]) / span).clamp(0, 1)[:, None]
        filled[:, joint] = (1 - part) * points[known[left], joint] + part * points[known[right], joint]
    if never.any():
        filled[:, never] = filled[:, ~never].mean(1, keepdim=True) if (~never).any() else 0.0
    return filled
