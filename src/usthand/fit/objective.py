"""What the sequence fit minimises: labels, joint limits, smoothness and weak priors, as Gauss-Newton normal equations.

The negative log posterior of a `HandState` is half of the sum of

- labels: residuals in undistorted image coordinates, whitened by their precision. The errors of a view and joint are
  AR(1) in time, so that what counts is the difference from `rho` times the error before (gaps of one missing frame are
  bridged with rho^2). Several labels of one joint reduce to a 3x3 information matrix at the joint, so the cost of a
  step does not grow with the number of views;
- points: optional 3D observations with precision;
- offsets: where a detector sees the joints on the bones, about what is known of it beforehand;
- smoothness: accelerations and velocities of angles, wrist and rotation over their physical scales;
- limits: one-sided squares outside the joint limits; pose and shape: weak Gaussians.

Labels and points see the model's joints, or the joints as a detector sees them (`detected`): with the offsets.

Legend: T frames, V views, J joints, D unknowns of a frame, S shape, and all unknowns that frames share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import block_diag

from usthand.fit.arrow_system import ArrowSystem, solve
from usthand.fit.kinematics import FIRST_ANGLE, N_OFFSETS, ROOT, WRIST, Articulation, HandState, PosedJoints, inverse_left_jacobian
from usthand.geometry.rotations import rotation_vector
from usthand.hand.skeleton import FINGERS, N_JOINTS

MIN_DEPTH_M = 1e-3  # as in usthand.geometry.cameras: points behind a camera are finite and far outside the image
LIKE = 1.4  # labels whose standard deviations differ by this factor still have like errors
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e8
SMALL_DECREASE = 1e-4  # relative; steps that gain less end the minimisation


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
        own, shared = 1.0, None
        if hand + finger > 0:
            own, shared = sharing(0.5 * weight * (self.root**2).sum((-1, -2)), hand, finger)
        return replace(self, root=self.root * root[..., None, None], previous=tuple(previous), own=own, shared=shared)

    def chain(
        self, residual: Float[np.ndarray, "T V J 2"]
    ) -> tuple[Float[np.ndarray, "T V J 2"], Float[np.ndarray, "T V J"]]:
        """Innovations of the AR(1) chains, and 1 / their variance."""
        innovation = residual.copy()
        variance = np.ones(residual.shape[:3])
        for gap, rho in enumerate(self.previous, start=1):
            innovation[gap:] -= rho[gap:, ..., None] * residual[:-gap]
            variance += rho**2 - 2 * self.correlation**gap * rho
        return innovation, 1 / variance

    def energy(self, innovation: Float[np.ndarray, "T V J 2"], gain: Float[np.ndarray, "T V J"]) -> float:
        """Sum of squares of the fully whitened residuals."""
        unit = innovation * np.sqrt(gain / self.own)[..., None]
        total = float((unit**2).sum())
        if self.shared is not None:
            total -= float(((self.shared.swapaxes(-1, -2) @ unit) ** 2).sum())
        return total


def sharing(
    precision: Float[np.ndarray, "T V J"], hand: float, finger: float
) -> tuple[Float[np.ndarray, "T V J"], Float[np.ndarray, "T V J G"]]:
    """Errors that the whole hand and a finger have in common in a view, as `LabelTerm.own` and `LabelTerm.shared`.

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
    return own, scaled @ np.linalg.cholesky(np.linalg.inv(inner))


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


@dataclass(frozen=True)
class Prior:
    """Everything but the data. Standard deviations per frame interval, already free of the frame rate."""

    acceleration: Float[np.ndarray, "D"]
    """Of rotation (rad), wrist (m) and angles (rad), per frame squared; infinite to leave out."""
    velocity: Float[np.ndarray, "D"]
    pose_mean: Float[np.ndarray, "A"]
    pose_root: Float[np.ndarray, "n A"]
    """Rows of linear combinations of the angles with unit variance about the mean."""
    limit_rad: float
    """Softness of the joint limits: one standard deviation outside."""
    shape_mean: Float[np.ndarray, "S"]
    shape_precision: Float[np.ndarray, "S S"]
    offset_mean_m: Float[np.ndarray, "J 3"]
    """Of a detector's offsets, as `HandState.offsets_m`."""
    offset_precision: Float[np.ndarray, "J 3 3"] | None = None
    """Inverse covariance of the offsets, m^-2; None: they are not unknown."""


def joint_information(
    term: LabelTerm | PointTerm, joints: Float[np.ndarray, "T J 3"]
) -> tuple[list[Float[np.ndarray, "T J 3 3"]], Float[np.ndarray, "T J 3"]]:
    """Information of the data about the joints that they see, and minus the gradient.

    Information comes in blocks [same frame, one later, two later] by the earlier frame; rows are the later frame's
    coordinates. Errors that joints share are left out.
    """
    if isinstance(term, PointTerm):
        back = term.root.swapaxes(-1, -2)
        none = np.zeros((*joints.shape, 3))
        return [back @ term.root, none, none], -(back @ term.residuals(joints)[..., None])[..., 0]
    n_frames = len(joints)
    information = [np.zeros((*joints.shape, 3)) for _ in range(3)]
    residual, rows = term.residuals(joints)
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


class Energy:
    """Cost, and normal equations of a Gauss-Newton step, of a hand over a sequence."""

    def __init__(self, hand: Articulation, prior: Prior, terms: Sequence[LabelTerm | PointTerm]) -> None:
        self.hand, self.prior, self.terms = hand, prior, terms
        self.n_shared = hand.n_shape + (N_OFFSETS if prior.offset_precision is not None else 0)

    def cost(self, state: HandState) -> float:
        """Negative log posterior up to a constant."""
        total = 0.0
        for detected, terms in self._by_kind():
            joints = self.hand.detected(state) if detected else self.hand.joints(state)
            for term in terms:
                if isinstance(term, PointTerm):
                    total += float((term.residuals(joints) ** 2).sum())
                else:
                    total += term.energy(*term.chain(term.residuals(joints)[0]))
        for residual, scale in self._motion(state):
            total += float(((residual / scale) ** 2).sum())
        total += float((self._pose_residual(state) ** 2).sum() + (self._beyond_limits(state) ** 2).sum())
        shape = state.shape - self.prior.shape_mean
        total += float(shape @ self.prior.shape_precision @ shape)
        if self.prior.offset_precision is not None:
            off = state.offsets_m - self.prior.offset_mean_m
            total += float(np.einsum("ji,jik,jk->", off, self.prior.offset_precision, off))
        return 0.5 * total

    def normal_equations(self, state: HandState) -> ArrowSystem:
        """Of the whole cost at a state; `right` is the negative gradient."""
        system = ArrowSystem.zeros(len(state.angles), self.hand.size, self.n_shared)
        for detected, terms in self._by_kind():
            posed = self.hand.posed_detected(state) if detected else self.hand.posed(state)
            for term in terms:
                self._add_data(system, term, posed)
        self._add_linear_motion(system, state)
        self._add_turning(system, state)
        self._add_pose(system, state)
        precision, pull = self._shared_prior(state)
        system.corner += precision
        system.right_shared += pull
        return system

    def _by_kind(self) -> list[tuple[bool, list[LabelTerm | PointTerm]]]:
        """The terms that see the model's joints, and those that see a detector's."""
        kinds = ((kind, [term for term in self.terms if term.detected == kind]) for kind in (False, True))
        return [(kind, terms) for kind, terms in kinds if terms]

    def _shared_prior(self, state: HandState) -> tuple[Float[np.ndarray, "shared shared"], Float[np.ndarray, "shared"]]:
        """Precision of the shared unknowns before the data, and minus the gradient."""
        prior = self.prior
        blocks, off = [prior.shape_precision], [prior.shape_mean - state.shape]
        if prior.offset_precision is not None:
            blocks += list(prior.offset_precision)
            off.append((prior.offset_mean_m - state.offsets_m).ravel())
        precision = block_diag(*blocks)
        return precision, precision @ np.concatenate(off)

    def _add_data(self, system: ArrowSystem, term: LabelTerm | PointTerm, posed: PosedJoints) -> None:
        joints = posed.joints
        information, right = joint_information(term, joints)
        n_frames, size = len(joints), self.hand.size
        by_shared = posed.by_shared[..., : self.n_shared]
        jacobian = np.concatenate([posed.by_frame, by_shared], axis=-1)  # (T, J, 3, D + shared)
        width = jacobian.shape[-1]
        flat = jacobian.reshape(n_frames, -1, width)
        gradient = (flat.swapaxes(-1, -2) @ right.reshape(n_frames, -1, 1))[..., 0]
        system.right += gradient[:, :size]
        system.right_shared[: width - size] += gradient[:, size:].sum(0)
        for gap in range(3):
            if gap and not information[gap].any():
                continue
            here = n_frames - gap
            carried = (information[gap][:here] @ jacobian[:here]).reshape(here, -1, width)
            block = flat[gap:].swapaxes(-1, -2) @ carried  # rows of frame t + gap, columns of frame t
            _add(system, block, gap, size)
        if isinstance(term, LabelTerm) and term.shared is not None:
            self._add_shared(system, term, term.shared, joints, jacobian)

    def _add_shared(
        self,
        system: ArrowSystem,
        labels: LabelTerm,
        shared: Float[np.ndarray, "T V J G"],
        joints: Float[np.ndarray, "T J 3"],
        jacobian: Float[np.ndarray, "T J 3 DS"],
    ) -> None:
        """Subtract S'S, with S the combinations of whitened residuals that joints of a view share."""
        size = self.hand.size
        residual, rows = labels.residuals(joints)
        innovation, gain = labels.chain(residual)
        root = np.sqrt(gain / labels.own)
        n_frames = len(joints)
        mix = shared.swapaxes(-1, -2)  # (T, V, G, J)
        common = (mix @ (innovation * root[..., None])).reshape(n_frames, -1, 1)
        parts = {0: _common_rows(mix, rows * root[..., None, None], jacobian)}
        for gap, rho in enumerate(labels.previous, start=1):
            # Innovation t also touches frame t - gap; its row is stored there.
            early = rows[: n_frames - gap] * (rho * root)[gap:, ..., None, None]
            if rho.any():
                parts[gap] = -_common_rows(mix[gap:], early, jacobian[: n_frames - gap])
        for gap, part in parts.items():
            turned = part.swapaxes(-1, -2)
            gradient = (turned @ common[gap:])[..., 0]
            system.right[: n_frames - gap] += gradient[:, :size]
            system.right_shared[: gradient.shape[1] - size] += gradient[:, size:].sum(0)
            _add(system, -turned @ part, 0, size)
            if gap:
                _add(system, -parts[0][gap:].swapaxes(-1, -2) @ part, gap, size)

    def _motion(self, state: HandState) -> list[tuple[np.ndarray, np.ndarray]]:
        """(residual, its standard deviation) of velocities and accelerations of all unknowns but the shape."""
        linear = np.concatenate([state.wrist_m, state.angles], axis=1)
        spin = self._spin(state)
        return [
            (spin, self.prior.velocity[ROOT]),
            (np.diff(spin, axis=0), self.prior.acceleration[ROOT]),
            (np.diff(linear, axis=0), self.prior.velocity[WRIST.start :]),
            (np.diff(linear, 2, axis=0), self.prior.acceleration[WRIST.start :]),
        ]

    @staticmethod
    def _spin(state: HandState) -> Float[np.ndarray, "gaps 3"]:
        """Rotation vectors from each frame's root to the next, world."""
        return rotation_vector(state.root[1:] @ state.root[:-1].swapaxes(-1, -2))

    def _add_linear_motion(self, system: ArrowSystem, state: HandState) -> None:
        linear = np.concatenate([state.wrist_m, state.angles], axis=1)
        ids = np.arange(WRIST.start, self.hand.size)
        for order, std in ((1, self.prior.velocity), (2, self.prior.acceleration)):
            stencil = (-1.0, 1.0) if order == 1 else (1.0, -2.0, 1.0)
            n = len(linear) - order
            if n <= 0:
                continue
            weight = 1 / std[ids] ** 2
            pull = np.diff(linear, order, axis=0) * weight
            for late, a in enumerate(stencil):
                system.right[late : late + n, ids] -= a * pull
                for early in range(late + 1):
                    target = system.diagonal if early == late else system.below[late - early - 1]
                    target[early : early + n, ids, ids] += a * stencil[early] * weight

    def _add_turning(self, system: ArrowSystem, state: HandState) -> None:
        """Rotation: with w = log(R' R^-1), d w = Jl(w)^-1 d' - Jl(-w)^-1 d for steps d of R and d' of R'."""
        if len(state.root) < 2:
            return
        spin = self._spin(state)
        ahead, behind = inverse_left_jacobian(spin), -inverse_left_jacobian(-spin)
        part = ArrowSystem.zeros(len(state.root), 3, 0)
        part.add_tied((behind, ahead), spin, 1 / self.prior.velocity[ROOT] ** 2)
        if len(spin) > 1:
            change = (-behind[:-1], behind[1:] - ahead[:-1], ahead[1:])
            part.add_tied(change, np.diff(spin, axis=0), 1 / self.prior.acceleration[ROOT] ** 2)
        system.right[:, ROOT] += part.right
        system.diagonal[:, ROOT, ROOT] += part.diagonal
        for whole, own in zip(system.below, part.below, strict=True):
            whole[:, ROOT, ROOT] += own

    def _pose_residual(self, state: HandState) -> np.ndarray:
        return (state.angles - self.prior.pose_mean) @ self.prior.pose_root.T

    def _beyond_limits(self, state: HandState) -> np.ndarray:
        """How far each angle is outside its limits, in standard deviations; signed, zero inside."""
        beyond = np.maximum(state.angles - self.hand.high, 0) + np.minimum(state.angles - self.hand.low, 0)
        return beyond / self.prior.limit_rad

    def _add_pose(self, system: ArrowSystem, state: HandState) -> None:
        angles = slice(FIRST_ANGLE, None)
        root = self.prior.pose_root
        system.diagonal[:, angles, angles] += root.T @ root
        system.right[:, angles] -= self._pose_residual(state) @ root
        beyond = self._beyond_limits(state)
        ids = np.arange(FIRST_ANGLE, self.hand.size)
        system.diagonal[:, ids, ids] += (beyond != 0) / self.prior.limit_rad**2
        system.right[:, angles] -= beyond / self.prior.limit_rad


def _common_rows(
    mix: Float[np.ndarray, "T V G J"], rows: Float[np.ndarray, "T V J 2 3"], jacobian: Float[np.ndarray, "T J 3 DS"]
) -> Float[np.ndarray, "T VG2 DS"]:
    """Derivatives of the shared combinations by one frame's unknowns and the shape."""
    n_frames, n_views, n_joints = rows.shape[:3]
    by_joint = (rows @ jacobian[:, None]).reshape(n_frames, n_views, n_joints, -1)
    return (mix @ by_joint).reshape(n_frames, -1, jacobian.shape[-1])


def _add(system: ArrowSystem, block: Float[np.ndarray, "n DS DS"], gap: int, size: int) -> None:
    """Add blocks in rows of (frame t + gap, shared) and columns of (frame t, shared); shared may lack the offsets."""
    here, shared = len(block), block.shape[-1] - size
    target = system.below[gap - 1] if gap else system.diagonal
    target[:here] += block[:, :size, :size]
    system.arrow[gap : gap + here, :, :shared] += block[:, :size, size:]
    corner = block[:, size:, size:].sum(0)
    system.corner[:shared, :shared] += corner
    if gap:
        system.arrow[:here, :, :shared] += block[:, size:, :size].swapaxes(-1, -2)
        system.corner[:shared, :shared] += corner.T


def minimise(energy: Energy, state: HandState, iterations: int, fixed_shared: bool = False) -> HandState:
    """Levenberg-Marquardt: a step is taken only if it lowers the cost, so bad data cannot make it diverge."""
    damping, cost = FIRST_DAMPING, energy.cost(state)
    for _ in range(iterations):
        system = energy.normal_equations(state)
        if fixed_shared:
            system.arrow[:] = 0
            system.right_shared[:] = 0
        decrease = 0.0
        while damping < MOST_DAMPING:
            step = solve(system, damping)
            if step is not None:
                moved = state.moved(*step)
                trial = energy.cost(moved)
                if np.isfinite(trial) and trial < cost:
                    decrease, state, cost = cost - trial, moved, trial
                    damping = max(0.2 * damping, LEAST_DAMPING)
                    break
            damping *= 8
        if decrease <= SMALL_DECREASE * cost:
            break
    return state
