"""What the sequence fit minimises: labels, joint limits, smoothness and weak priors, as Gauss-Newton normal equations.

The negative log posterior of a `HandState` is half of the sum of

- labels and points (`usthand.fit.evidence`);
- offsets: where a detector sees the joints on the bones, about what is known of it beforehand;
- smoothness: accelerations and velocities of angles, wrist and rotation over their physical scales;
- limits: one-sided squares outside the joint limits; pose and shape: weak Gaussians.

Legend: T frames, V views, J joints, D unknowns of a frame, S shape, and all unknowns that frames share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import block_diag

from usthand.fit.arrow_system import ArrowSystem, solve
from usthand.fit.evidence import LabelTerm, PointTerm, joint_normal
from usthand.fit.kinematics import (
    FIRST_ANGLE,
    N_OFFSETS,
    ROOT,
    WRIST,
    Articulation,
    HandState,
    PosedJoints,
    inverse_left_jacobian,
)
from usthand.geometry.rotations import rotation_vector

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e8
SMALL_DECREASE = 1e-4  # relative; steps that gain less end the minimisation


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


class _Columns:
    """Derivatives of the joints by the unknowns, dense but for the offsets, whose own are the identity."""

    def __init__(self, posed: PosedJoints, size: int, n_shared: int) -> None:
        n_frames, n_joints = posed.joints.shape[:2]
        n_shape = posed.by_shared.shape[-1] - (N_OFFSETS if posed.turns is not None else 0)
        self.size, self.shape, self.offsets = size, slice(0, n_shape), slice(n_shape, None)
        self.axes = posed.turns if n_shared > n_shape else None
        dense = np.concatenate([posed.by_frame, posed.by_shared[..., :n_shape]], -1)
        dense = dense if self.axes is None else self.axes.swapaxes(-1, -2) @ dense
        self.dense = dense.reshape(n_frames, 3 * n_joints, -1)

    def add_right(self, system: ArrowSystem, right: Float[np.ndarray, "T J 3"]) -> None:
        """Add J' times minus the gradient by the joints."""
        flat = right.reshape(len(right), -1)
        pull = (self.dense.swapaxes(-1, -2) @ flat[..., None])[..., 0]
        system.right += pull[:, : self.size]
        system.right_shared[self.shape] += pull[:, self.size :].sum(0)
        if self.axes is not None:
            system.right_shared[self.offsets] += flat.sum(0)

    def add(self, system: ArrowSystem, information: Float[np.ndarray, "n J3 J3"], gap: int) -> None:
        """Add J'QJ; `information` has rows of frame t + gap and columns of frame t."""
        here, d, shape, offsets = len(information), self.size, self.shape, self.offsets
        late = self.dense[gap:]
        carried = information @ self.dense[:here]
        block = late.swapaxes(-1, -2) @ carried
        target = system.below[gap - 1] if gap else system.diagonal
        target[:here] += block[:, :d, :d]
        system.arrow[gap : gap + here, :, shape] += block[:, :d, d:]
        corner = np.zeros_like(system.corner)
        corner[shape, shape] = block[:, d:, d:].sum(0)
        if gap:
            system.arrow[:here, :, shape] += block[:, d:, :d].swapaxes(-1, -2)
        if self.axes is not None:
            back = late.swapaxes(-1, -2) @ information if gap else carried.swapaxes(-1, -2)
            system.arrow[gap : gap + here, :, offsets] += back[:, :d]
            if gap:
                system.arrow[:here, :, offsets] += carried[..., :d].swapaxes(-1, -2)
            corner[offsets, shape] = carried[..., d:].sum(0)
            corner[shape, offsets] = back[:, d:].sum(0)
            corner[offsets, offsets] = information.sum(0)
        system.corner += corner + corner.T if gap else corner


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
            self._add_data(system, terms, posed)
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
        precision = np.asarray(block_diag(*blocks))
        return precision, precision @ np.concatenate(off)

    def _add_data(self, system: ArrowSystem, terms: list[LabelTerm | PointTerm], posed: PosedJoints) -> None:
        """Add J'QJ with Q the information of all terms about the joints that they see.

        With offsets, the joints' coordinates are along the axes of their bones, by which offsets have unit derivatives.
        """
        columns = _Columns(posed, self.hand.size, self.n_shared)
        found = [joint_normal(term, posed.joints, columns.axes) for term in terms]
        columns.add_right(system, np.sum([pull for _, pull in found], axis=0))
        for gap in range(3):
            parts = [part for information, _ in found if (part := information[gap]) is not None]
            if parts:
                columns.add(system, sum(parts[1:], parts[0]), gap)

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
