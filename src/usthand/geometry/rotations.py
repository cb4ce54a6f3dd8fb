"""Rotations in their usual forms, and the similarity that best aligns two sets of points.

The torch functions are differentiable and batched; the NumPy functions are SciPy's for any batch axes.
Shapes: `*b` any batch axes, N points.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor


def rotation_matrix(vector: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """Rotation matrices from rotation vectors (axis times angle, radians), in the vectors' precision."""
    return Rotation.from_rotvec(vector.reshape(-1, 3)).as_matrix().reshape(*vector.shape, 3).astype(vector.dtype)


def rotation_vector(matrix: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b 3"]:
    """The shortest rotation vectors (radians) of rotation matrices, in their precision; stable at all angles."""
    vector = Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec()
    return vector.reshape(matrix.shape[:-1]).astype(matrix.dtype)


def skew(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The matrix of the cross product: it takes b to v x b."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))


def rotation_from_axis_angle(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rodrigues' formula; smooth at zero (Taylor terms below 1e-4 rad)."""
    angle2 = (v * v).sum(-1)
    small = angle2 < 1e-8
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    a = torch.where(small, 1 - angle2 / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - angle2 / 24, (1 - torch.cos(angle)) / safe)
    k = skew(v)
    eye = torch.eye(3, dtype=v.dtype, device=v.device)
    return eye + a[..., None, None] * k + b[..., None, None] * (k @ k)


def axis_angle_from_rotation(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """The shortest rotation vector, radians; by way of the quaternion, so it is stable up to and at pi."""
    q = quaternion_from_rotation(rotation)
    q = torch.where(q[..., :1] < 0, -q, q)
    sin_half = torch.linalg.vector_norm(q[..., 1:], dim=-1)
    half = torch.atan2(sin_half, q[..., 0])
    factor = torch.where(sin_half < 1e-6, torch.full_like(half, 2.0), 2 * half / sin_half.clamp_min(1e-6))
    return q[..., 1:] * factor.unsqueeze(-1)


def quaternion_from_rotation(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions (w, x, y, z), from the best conditioned of the four formulas of Shepperd (1978)."""
    m = rotation
    xx, yy, zz = m.diagonal(dim1=-2, dim2=-1).unbind(-1)
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    candidates = torch.stack(
        (
            torch.stack((1 + xx + yy + zz, wx, wy, wz), -1),
            torch.stack((wx, 1 + xx - yy - zz, xy, xz), -1),
            torch.stack((wy, xy, 1 - xx + yy - zz, yz), -1),
            torch.stack((wz, xz, yz, 1 - xx - yy + zz), -1),
        ),
        -2,
    )
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    return F.normalize(chosen, dim=-1)


def rotation_from_6d(sixd: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Gram-Schmidt on two 3-vectors, the first two columns (Zhou et al., CVPR 2019)."""
    first = F.normalize(sixd[..., :3], dim=-1, eps=1e-8)
    second = sixd[..., 3:] - (first * sixd[..., 3:]).sum(-1, keepdim=True) * first
    second = F.normalize(second, dim=-1, eps=1e-8)
    return torch.stack((first, second, torch.linalg.cross(first, second)), -1)


def similarity_between(
    source: Float[Tensor, "*b N 3"], target: Float[Tensor, "*b N 3"], scale: bool = True
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b 3 3"], Float[Tensor, "*b 3"]]:
    """Least-squares similarity (s, R, t) with `s R source + t ~ target`, proper rotation (Umeyama 1991)."""
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = source - source_mean, target - target_mean
    u, s, vh = torch.linalg.svd(b.transpose(-1, -2) @ a)
    sign = torch.ones_like(s)
    sign[..., 2] = torch.linalg.det(u @ vh).sign()
    rotation = u @ (sign.unsqueeze(-1) * vh)
    factor = (s * sign).sum(-1) / (a * a).sum((-1, -2)).clamp_min(1e-12) if scale else torch.ones_like(s[..., 0])
    shift = target_mean - factor[..., None, None] * (source_mean @ rotation.transpose(-1, -2))
    return factor, rotation, shift.squeeze(-2)


def align_similarity(
    source: Float[Tensor, "*b N 3"], target: Float[Tensor, "*b N 3"], scale: bool = True
) -> Float[Tensor, "*b N 3"]:
    """`source` moved onto `target` by the best similarity (Procrustes), or rigid motion if `scale` is False."""
    factor, rotation, shift = similarity_between(source, target, scale)
    return factor[..., None, None] * (source @ rotation.transpose(-1, -2)) + shift.unsqueeze(-2)
