"""Cameras and projection as pure, differentiable, batched functions.

Frames: `cam` is OpenCV's camera frame (x right, y down, z forward), `X_cam = R X_world + t`. Lengths are in the
cameras' unit of length, which is the unit of `Cameras.cam_from_world`: metres wherever the rig has a scale. `px` are
pixels with pixel centres at integers. `xy` are undistorted image coordinates at depth 1.
Shapes: `*b` any batch axes, V views, N points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from usthand.geometry.lenses import distort, undistort_xy

MIN_DEPTH_M = 1e-3
"""Points at or behind a camera are projected as if they were this far in front of it: finite, far outside the image."""
# Step of the numerical derivative of the projection: 0.1 mm, far above rounding and far below any curvature.
_STEP_M = 1e-4


class Cameras(NamedTuple):
    """V cameras as tensors."""

    cam_from_world: Float[Tensor, "*b V 3 4"]
    """Rotation and translation. The translation's unit is the cameras' unit of length."""
    intrinsics: Float[Tensor, "*b V 4"]
    """fx, fy, cx, cy in pixels."""
    distortion: Float[Tensor, "*b V 12"]
    """The lens's coefficients and zeros; only thin prism and FISHEYE624 use those past the eighth:
    pinhole k1 k2 p1 p2 k3 k4 k5 k6, with a thin prism also s1 s2 s3 s4 (OpenCV's order); fisheye k1 k2 k3 k4;
    FISHEYE624 k1 k2 k3 k4 k5 k6 p1 p2 s1 s2 s3 s4 (Meta's order and meaning); double sphere xi alpha."""
    lens: Int[Tensor, "*b V"]
    """PINHOLE or THIN_PRISM (OpenCV's models), FISHEYE (OpenCV's equidistant model), FISHEYE624 (Meta's) or
    DOUBLE_SPHERE (Usenko et al. 2018)."""

    def to(self, device: torch.device | str) -> Cameras:
        """On another device."""
        return Cameras(*(t.to(device) for t in self))


def undistort(cameras: Cameras, uv_px: Float[Tensor, "*b V N 2"], iterations: int = 10) -> Float[Tensor, "*b V N 2"]:
    """Pixels to undistorted image coordinates at depth 1. Differentiable through its iterations."""
    focal, centre = cameras.intrinsics[..., None, :2], cameras.intrinsics[..., None, 2:]
    bent = (uv_px - centre) / focal
    if not cameras.distortion.any() and not cameras.lens.any():
        return bent
    return undistort_xy(bent, cameras.distortion, cameras.lens, iterations)


def to_camera(cameras: Cameras, points_world: Float[Tensor, "*b N 3"]) -> Float[Tensor, "*b V N 3"]:
    """World points in every camera's frame, in the cameras' unit of length."""
    rotation, translation = cameras.cam_from_world[..., :3], cameras.cam_from_world[..., 3]
    return points_world.unsqueeze(-3) @ rotation.transpose(-1, -2) + translation.unsqueeze(-2)


def project(
    cameras: Cameras, points_world: Float[Tensor, "*b N 3"]
) -> tuple[Float[Tensor, "*b V N 2"], Float[Tensor, "*b V N"]]:
    """Pixels of world points in every view, and their depths in the cameras' unit of length.

    Equal to OpenCV's projectPoints.
    """
    cam = to_camera(cameras, points_world)
    depth = cam[..., 2]
    xy = cam[..., :2] / depth.clamp_min(MIN_DEPTH_M).unsqueeze(-1)
    bent = distort(xy, cameras.distortion, cameras.lens)
    return bent * cameras.intrinsics[..., None, :2] + cameras.intrinsics[..., None, 2:], depth


def projection_jacobian(cameras: Cameras, points_world: Float[Tensor, "*b N 3"]) -> Float[Tensor, "*b V N 2 3"]:
    """Derivative of `project`'s pixels by the points, lens included, in px per unit of length; central differences.

    A covariance C of a point is J C J' in the image, to first order.
    """
    steps = _STEP_M * torch.eye(3, dtype=points_world.dtype, device=points_world.device)
    ahead, behind = (
        torch.stack([project(cameras, points_world + sign * step)[0] for step in steps], dim=-1) for sign in (1.0, -1.0)
    )
    return (ahead - behind) / (2.0 * _STEP_M)
