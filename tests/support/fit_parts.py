"""States, terms and dense algebra for the tests of the fit's parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from usthand.fit.arrow_system import ArrowSystem
from usthand.fit.evidence import LabelTerm, PointTerm, earlier_correlation
from usthand.fit.kinematics import Articulation, HandState, articulation
from usthand.geometry.rotations import rotation_matrix
from usthand.hand.io import load_hand
from usthand.hand.model import HandModel
from usthand.hand.proportions import with_proportions


@cache
def full_hand() -> HandModel:
    """The right hand with all of its proportions, in float64."""
    return with_proportions(load_hand(dtype=torch.float64))


@cache
def full_articulation() -> Articulation:
    return articulation(full_hand())


def random_state(hand: Articulation, rng: np.random.Generator, n_frames: int) -> HandState:
    """Any poses within the limits, any shape, and a detector's places some millimetres off."""
    low, high = hand.low, hand.high
    return HandState(
        rotation_matrix(rng.normal(size=(n_frames, 3))),
        0.1 * rng.normal(size=(n_frames, 3)),
        rng.uniform(low, high, size=(n_frames, len(low))),
        rng.normal(size=hand.n_shape),
        0.005 * rng.normal(size=(21, 3)),
    )


def smooth_state(hand: Articulation, rng: np.random.Generator, n_frames: int) -> HandState:
    """Slow motion inside the limits."""
    phase = np.linspace(0, 1.5, n_frames)[:, None]
    middle, reach = 0.5 * (hand.low + hand.high), 0.35 * (hand.high - hand.low)
    angles = middle + reach * np.sin(phase + rng.uniform(0, 6, len(middle)))
    root = rotation_matrix(rng.normal(size=(1, 3)) + 0.3 * np.sin(phase + rng.uniform(0, 6, 3)))
    wrist = 0.02 * np.sin(phase + rng.uniform(0, 6, 3))
    offsets_m = 0.005 * rng.normal(size=(21, 3))
    return HandState(root, wrist, angles, 0.5 * rng.normal(size=hand.n_shape), offsets_m)


def two_views(
    rng: np.random.Generator, n_frames: int, rho: float = 0.7, detected: bool = False, near_m: np.ndarray | None = None
) -> LabelTerm:
    """Labels of two cameras, full 2x2 precisions, gaps and correlated errors; around the projections of `near_m`."""
    present = np.broadcast_to(rng.uniform(size=(n_frames, 2, 1)) < 0.7, (n_frames, 2, 21))
    root = rng.normal(size=(n_frames, 2, 21, 2, 2)) * present[..., None, None] * 10
    rotation = rotation_matrix(np.array([[0.1, 0.0, 0.0], [0.0, 1.2, 0.0]]))
    translation = np.array([[0, 0, 0.6], [0.1, 0, 0.7]])
    xy = 0.1 * rng.normal(size=(n_frames, 2, 21, 2))
    if near_m is not None:
        cam = near_m[:, None] @ rotation.swapaxes(-1, -2) + translation[:, None]
        xy = 0.1 * xy + cam[..., :2] / cam[..., 2:]
    return LabelTerm(rotation, translation, xy, root, earlier_correlation(present, rho), rho, detected=detected)


def some_points(rng: np.random.Generator, n_frames: int, detected: bool = False) -> PointTerm:
    """3D observations with full precisions."""
    at = 0.1 * rng.normal(size=(n_frames, 21, 3))
    return PointTerm(at, 20 * rng.normal(size=(n_frames, 21, 3, 3)), detected)


def dense_inverse_covariance(term: LabelTerm) -> np.ndarray:
    """Of the whitened residuals of one image axis, (T V J, T V J), built step by step from the model's own words.

    An innovation is a residual less `previous` times the one or two frames before; innovations of a view and frame have
    a variance that follows from the labels' correlation, part of it shared by groups of joints.
    """
    n_frames, n_views, n_joints = term.root.shape[:3]
    at = np.arange(n_frames * n_views * n_joints).reshape(n_frames, n_views, n_joints)
    chain, variance = np.eye(at.size), np.ones(at.size)
    for gap, rho in enumerate(term.previous, start=1):
        for t in range(gap, n_frames):
            here, before, factor = at[t].ravel(), at[t - gap].ravel(), rho[t].ravel()
            chain[here, before] -= factor
            variance[here] += factor**2 - 2 * term.correlation**gap * factor
    own = np.broadcast_to(term.own, at.shape)
    covariance = np.zeros((at.size, at.size))
    for t in range(n_frames):
        for v in range(n_views):
            std = np.sqrt(variance[at[t, v]])
            alike = np.diag(own[t, v])
            if term.groups is not None:
                alike = alike + term.groups[t, v] @ term.groups[t, v].T
            covariance[np.ix_(at[t, v], at[t, v])] = std[:, None] * alike * std
    return chain.T @ np.linalg.inv(covariance) @ chain


def dense(system: ArrowSystem) -> tuple[np.ndarray, np.ndarray]:
    """The whole matrix and right-hand side."""
    n_frames, size, shared = system.arrow.shape
    matrix = np.zeros((n_frames * size + shared,) * 2)
    for t in range(n_frames):
        here = slice(t * size, (t + 1) * size)
        matrix[here, here] = system.diagonal[t]
        matrix[here, n_frames * size :] = system.arrow[t]
        matrix[n_frames * size :, here] = system.arrow[t].T
        for k in range(2):
            if t + k + 1 < n_frames:
                there = slice((t + k + 1) * size, (t + k + 2) * size)
                matrix[there, here] = system.below[k][t]
                matrix[here, there] = system.below[k][t].T
    matrix[n_frames * size :, n_frames * size :] = system.corner
    return matrix, np.concatenate([system.right.ravel(), system.right_shared])


def numeric_jacobian(
    of: Callable[[HandState], np.ndarray], hand: Articulation, state: HandState, shared: int, step: float = 1e-6
) -> np.ndarray:
    """Derivatives (values, T D + shared) of a function of a state by central differences."""
    n_frames, columns = len(state.angles), []
    for k in range(n_frames * hand.size + shared):
        flat = np.zeros(n_frames * hand.size + shared)
        flat[k] = step
        by_frame, by_shared = flat[: n_frames * hand.size].reshape(n_frames, -1), flat[n_frames * hand.size :]
        ahead, behind = state.moved(by_frame, by_shared), state.moved(-by_frame, -by_shared)
        columns.append((of(ahead) - of(behind)).ravel() / (2 * step))
    return np.stack(columns, -1)
