"""What the fit is given of the joints, as whitened residuals, and the information that it holds about them.

Labels: residuals in undistorted image coordinates, whitened by their precision. The errors of a view and joint are
AR(1) in time, so that what counts is the difference from `rho` times the error before (gaps of one missing frame are
bridged with rho^2). Several labels of one joint reduce to a 3x3 information matrix at the joint, so the cost of a step
does not grow with the number of views. Points: optional 3D observations with precision, independent in time.

Both see the model's joints, or the joints as a detector sees them (`detected`): with the offsets. Legend: T frames, V
views, J joints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from usthand.hand.skeleton import FINGERS, N_JOINTS

MIN_DEPTH_M = 1e-3  # as in usthand.geometry.cameras: points behind a camera are finite and far outside the image
LIKE = 1.4  # labels whose standard deviations differ by this factor still have like errors


@dataclass(frozen=True)
class LabelTerm:
    """Undistorted labels, whitened: row `root @ (projection - xy)` is a unit Gaussian."""

    rotation: Float[np.ndarray, "V 3 3"]
    translation_m: Float[np.ndarray, "V 3"]
    xy: Float[np.ndarray, "T V J 2"]
    root: Float[np.ndarray, "T V J 2 2"]
    """A square root of the precision, P = root' root; zero where missing."""
    previous: tuple[Float[np.ndarray, "T V J"], Float[np.ndarray, "T V J"]]
    """Factors on the same label's error one, and two, frames earlier that predict this one; at most one is not zero."""
    correlation: float = 0.0
    """AR(1) coefficient per frame, between equally good labels."""
    own: Float[np.ndarray, "T V J"] | float = 1.0
    """Part of a label's variance that is its own; see `sharing`."""
    shared: Float[np.ndarray, "T V J G"] | None = None
    """The rest is shared with other joints of the view: C^-1 = own^-1/2 (I - shared shared') own^-1/2."""
    groups: Float[np.ndarray, "T V J G"] | None = None
    """Standard deviations of the shifts that joints share, in units of each label's; see `sharing`."""
    detected: bool = False
    """Whether the labels see the joints as a detector sees them, with the offsets."""

    def residuals(
        self, joints: Float[np.ndarray, "T J 3"]
    ) -> tuple[Float[np.ndarray, "T V J 2"], Float[np.ndarray, "T V J 2 3"]]:
        """Whitened residuals of the labels and their derivatives by the joint."""
        cam = joints[:, None] @ self.rotation.swapaxes(-1, -2) + self.translation_m[:, None]
        depth = np.maximum(cam[..., 2:], MIN_DEPTH_M)
        xy = cam[..., :2] / depth
        rows = (self.rotation[:, None, :2] - xy[..., None] * self.rotation[:, None, 2:]) / depth[..., None]
        return (self.root @ (xy - self.xy)[..., None])[..., 0], self.root @ rows

    def weighted(self, weight: Float[np.ndarray, "T V J"], hand: float = 0.0, finger: float = 0.0) -> LabelTerm:
        """The same labels, each precision times `weight`, with parts of a label's variance shared; see `sharing`.

        The next error is predicted as `rho` times this one in pixels, whatever the weights of the two labels, so that a
        common shift of all labels never cancels between them: labels that are all bad must not look consistent. A label
        much worse than the next one does not predict its error.
        """
        root = np.sqrt(weight)
        previous = []
        for gap, rho in enumerate(self.previous, start=1):
            scaled = rho.copy()
            ratio = root[gap:] / np.maximum(root[:-gap], 1e-12)
            scaled[gap:] *= ratio * np.minimum(1.0, LIKE / np.maximum(ratio, 1e-12)) ** 2
            previous.append(scaled)
        whole = replace(self, root=self.root * root[..., None, None], previous=tuple(previous))
        if hand + finger == 0:
            return whole
        own, shared, groups = sharing(0.5 * weight * (self.root**2).sum((-1, -2)), hand, finger)
        return replace(whole, own=own, shared=shared, groups=groups)

    def chain(
        self, residual: Float[np.ndarray, "T V J M"]
    ) -> tuple[Float[np.ndarray, "T V J M"], Float[np.ndarray, "T V J"]]:
        """Innovations of the AR(1) chains, and 1 / their variance."""
        innovation = residual.copy()
        variance = np.ones(residual.shape[:3])
        for gap, rho in enumerate(self.previous, start=1):
            innovation[gap:] -= rho[gap:, ..., None] * residual[:-gap]
            variance += rho**2 - 2 * self.correlation**gap * rho
        return innovation, 1 / variance

    def influence(self, residual: Float[np.ndarray, "T V J M"]) -> Float[np.ndarray, "T V J M"]:
        """M whitened residuals times the inverse of their modelled covariance, for each image axis alike."""
        innovation, gain = self.chain(residual)
        root = np.sqrt(gain / self.own)[..., None]
        unit = innovation * root
        if self.shared is not None:
            unit -= self.shared @ (self.shared.swapaxes(-1, -2) @ unit)
        unit *= root
        out = unit.copy()
        for gap, rho in enumerate(self.previous, start=1):
            out[:-gap] -= rho[gap:, ..., None] * unit[gap:]
        return out

    def energy(self, innovation: Float[np.ndarray, "T V J 2"], gain: Float[np.ndarray, "T V J"]) -> float:
        """Sum of squares of the fully whitened residuals."""
        unit = innovation * np.sqrt(gain / self.own)[..., None]
        total = float((unit**2).sum())
        if self.shared is not None:
            total -= float(((self.shared.swapaxes(-1, -2) @ unit) ** 2).sum())
        return total


def sharing(
    precision: Float[np.ndarray, "T V J"], hand: float, finger: float
) -> tuple[Float[np.ndarray, "T V J"], Float[np.ndarray, "T V J G"], Float[np.ndarray, "T V J G"]]:
    """Errors that the whole hand and a finger have in common in a view: own, shared and groups of `LabelTerm`.

    In units of each label's standard deviation the covariance is C = diag(own) + U U'. The common shifts have variances
    `hand` and `finger` times that of a typical (harmonic mean) label of the group, the same for all of its joints. What
    makes a label worse than that is its own error, so no label ever has a negative weight in the common shift. Woodbury
    gives C^-1 = own^-1/2 (I - W W') own^-1/2.
    """
    present = precision > 0
    groups = np.zeros((*precision.shape, 1 + len(FINGERS)))
    for column, (ids, share) in enumerate([(range(N_JOINTS), hand), *((ids, finger) for ids in FINGERS.values())]):
        part = list(ids)
        typical = precision[..., part].sum(-1, keepdims=True) / np.maximum(present[..., part].sum(-1, keepdims=True), 1)
        ratio = precision[..., part] / np.maximum(typical, 1e-30)
        groups[..., part, column] = np.sqrt(share * np.minimum(ratio, 1.0))
    own = 1 - (groups**2).sum(-1)
    scaled = groups / np.sqrt(own)[..., None]
    inner = np.eye(groups.shape[-1]) + scaled.swapaxes(-1, -2) @ scaled
    return own, scaled @ np.linalg.cholesky(np.linalg.inv(inner)), groups


def earlier_correlation(
    present: Bool[np.ndarray, "T V J"], rho: float
) -> tuple[Float[np.ndarray, "T V J"], Float[np.ndarray, "T V J"]]:
    """`LabelTerm.previous` for labels that are `present` and an AR(1) coefficient per frame."""
    one, two = np.zeros(present.shape), np.zeros(present.shape)
    one[1:] = rho * (present[1:] & present[:-1])
    two[2:] = rho**2 * (present[2:] & ~present[1:-1] & present[:-2])
    return one, two


@dataclass(frozen=True)
class PointTerm:
    """3D observations of joints, whitened like `LabelTerm`, independent in time."""

    points_world_m: Float[np.ndarray, "T J 3"]
    root: Float[np.ndarray, "T J 3 3"]
    detected: bool = False
    """As `LabelTerm.detected`."""

    def residuals(self, joints: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T J 3"]:
        """Whitened."""
        return (self.root @ (joints - self.points_world_m)[..., None])[..., 0]


def joint_information(
    term: LabelTerm | PointTerm, joints: Float[np.ndarray, "T J 3"], axes: Float[np.ndarray, "T J 3 3"] | None = None
) -> tuple[list[Float[np.ndarray, "T J 3 3"]], Float[np.ndarray, "T J 3"]]:
    """Information of the data about the joints that they see, and minus the gradient.

    Information comes in blocks [same frame, one later, two later] by the earlier frame; rows are the later frame's
    coordinates. Errors that joints share are left out.

    Args:
        term: The data.
        joints: What they see, world, metres.
        axes: Columns are the axes of each joint's coordinates; the world's by default.
    """
    if isinstance(term, PointTerm):
        root = term.root if axes is None else term.root @ axes
        back = root.swapaxes(-1, -2)
        none = np.zeros((*joints.shape, 3))
        return [back @ root, none, none], -(back @ term.residuals(joints)[..., None])[..., 0]
    n_frames = len(joints)
    information = [np.zeros((*joints.shape, 3)) for _ in range(3)]
    residual, rows = term.residuals(joints)
    rows = rows if axes is None else rows @ axes[:, None]
    innovation, gain = term.chain(residual)
    gain = gain / term.own
    scaled = rows.swapaxes(-1, -2) * gain[..., None, None]
    information[0] += (scaled @ rows).sum(1)
    right = -(scaled @ innovation[..., None])[..., 0].sum(1)
    for gap, rho in enumerate(term.previous, start=1):
        if not rho.any():
            continue
        rho = rho[gap:, ..., None, None]
        late, early = scaled[gap:], rows[:-gap] * rho
        information[0][: n_frames - gap] += ((early * gain[gap:, ..., None, None]).swapaxes(-1, -2) @ early).sum(1)
        information[gap][: n_frames - gap] -= (late @ early).sum(1)
        pull = early.swapaxes(-1, -2) @ (innovation * gain[..., None])[gap:, ..., None]
        right[: n_frames - gap] += pull[..., 0].sum(1)
    return information, right


def joint_normal(
    term: LabelTerm | PointTerm, joints: Float[np.ndarray, "T J 3"], axes: Float[np.ndarray, "T J 3 3"] | None = None
) -> tuple[list[np.ndarray | None], Float[np.ndarray, "T J 3"]]:
    """`joint_information` of all joints together, with what they share: (n, 3 J, 3 J); no information is None."""
    blocks, right = joint_information(term, joints, axes)
    n_frames, n_joints = joints.shape[:2]
    dense: list[np.ndarray | None] = [None] * len(blocks)
    joint = np.arange(n_joints)
    for gap, block in enumerate(blocks):
        if gap == 0 or block.any():
            whole = np.zeros((n_frames - gap, n_joints, 3, n_joints, 3))
            whole[:, joint, :, joint] = block[: n_frames - gap].swapaxes(0, 1)
            dense[gap] = whole.reshape(n_frames - gap, 3 * n_joints, -1)
    if isinstance(term, LabelTerm) and term.shared is not None:
        _subtract_shared(dense, right, term, joints, axes)
    return dense, right


def _subtract_shared(
    dense: list[np.ndarray | None],
    right: np.ndarray,
    term: LabelTerm,
    joints: Float[np.ndarray, "T J 3"],
    axes: Float[np.ndarray, "T J 3 3"] | None,
) -> None:
    """Subtract S'S, with S the combinations of whitened residuals that joints of a view share."""
    assert term.shared is not None and dense[0] is not None
    residual, rows = term.residuals(joints)
    rows = rows if axes is None else rows @ axes[:, None]
    innovation, gain = term.chain(residual)
    root = np.sqrt(gain / term.own)
    n_frames = len(joints)
    mix = term.shared.swapaxes(-1, -2)  # (T, V, G, J)
    common = (mix @ (innovation * root[..., None])).reshape(n_frames, -1, 1)
    late = _common_rows(mix, rows * root[..., None, None])
    dense[0] -= late.swapaxes(-1, -2) @ late
    right += (late.swapaxes(-1, -2) @ common).reshape(right.shape)
    for gap, rho in enumerate(term.previous, start=1):
        block = dense[gap]
        if block is None:
            continue
        # Innovation t also touches frame t - gap; its row is stored there.
        here = n_frames - gap
        early = -_common_rows(mix[gap:], rows[:here] * (rho * root)[gap:, ..., None, None])
        dense[0][:here] -= early.swapaxes(-1, -2) @ early
        block -= late[gap:].swapaxes(-1, -2) @ early
        right[:here] += (early.swapaxes(-1, -2) @ common[gap:]).reshape(here, *right.shape[1:])


def _common_rows(mix: Float[np.ndarray, "T V G J"], rows: Float[np.ndarray, "T V J 2 3"]) -> np.ndarray:
    """Derivatives of the shared combinations by one frame's joints, (T, V G 2, 3 J)."""
    by_joint = mix[..., :, None, :, None] * rows.swapaxes(2, 3)[:, :, None]  # (T, V, G, 2, J, 3)
    return by_joint.reshape(len(mix), -1, 3 * mix.shape[-1])


def matrix_root(precision: Float[np.ndarray, "*b 2 2"]) -> Float[np.ndarray, "*b 2 2"]:
    """Upper triangular R with R' R = P; zero for zero."""
    a, b, c = precision[..., 0, 0], precision[..., 0, 1], precision[..., 1, 1]
    first = np.sqrt(np.maximum(a, 0))
    root = np.zeros_like(precision)
    root[..., 0, 0] = first
    root[..., 0, 1] = np.where(first > 0, b / np.where(first > 0, first, 1), 0)
    root[..., 1, 1] = np.sqrt(np.maximum(c - root[..., 0, 1] ** 2, 0))
    return root
