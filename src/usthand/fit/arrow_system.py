"""Normal equations of a sequence: one block per frame, coupled to the next two frames, and a few shared unknowns.

    | K  B | |x|   |g|      K: block-banded, T x T blocks of D x D, two block diagonals below the main one
    | B' C | |s| = |h|      B: T blocks of D x S (the arrow), C: S x S

Solved by a banded Cholesky factorisation and the Schur complement of the shared unknowns; the parts of the inverse that
a covariance needs come from a block recursion. Cost is linear in T. All arrays float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cho_solve_banded, cholesky_banded

COUPLED_FRAMES = 2  # how many later frames a frame is coupled with


@dataclass
class ArrowSystem:
    """Symmetric block-banded matrix with an arrow, and its right-hand side."""

    diagonal: Float[np.ndarray, "T D D"]
    below: tuple[Float[np.ndarray, "T D D"], Float[np.ndarray, "T D D"]]
    """`below[k][t]` is the block in row t+k+1 and column t; the last k+1 blocks are not used and must be zero."""
    arrow: Float[np.ndarray, "T D S"]
    corner: Float[np.ndarray, "S S"]
    right: Float[np.ndarray, "T D"]
    right_shared: Float[np.ndarray, "S"]

    @staticmethod
    def zeros(n_frames: int, size: int, shared: int) -> ArrowSystem:
        """An empty system of T frames, D unknowns each and S shared ones."""
        block = (n_frames, size, size)
        return ArrowSystem(
            np.zeros(block),
            (np.zeros(block), np.zeros(block)),
            np.zeros((n_frames, size, shared)),
            np.zeros((shared, shared)),
            np.zeros((n_frames, size)),
            np.zeros(shared),
        )

    def add_tied(
        self, jacobians: tuple[Float[np.ndarray, "n m D"], ...], residual: Float[np.ndarray, "n m"], weight: np.ndarray
    ) -> None:
        """Add weighted squares of residuals i that touch frames i, i+1, ... by one Jacobian each: 1/2 sum w r^2.

        `jacobians[k][i]` is the derivative of residual i by the unknowns of frame i + k; `weight` broadcasts to (n, m).
        """
        n = residual.shape[0]
        weight = np.broadcast_to(weight, residual.shape)
        for late, by_late in enumerate(jacobians):
            weighted = (by_late * weight[..., None]).swapaxes(-1, -2)
            self.right[late : late + n] -= (weighted @ residual[..., None])[..., 0]
            for early in range(late + 1):
                target = self.diagonal if early == late else self.below[late - early - 1]
                target[early : early + n] += weighted @ jacobians[early]


def _lower_band(system: ArrowSystem, damping: float) -> Float[np.ndarray, "bandwidth TD"]:
    """LAPACK's lower banded storage, `band[i - j, j] = K[i, j]`, with the diagonal grown by 1 + damping."""
    n_frames, size = system.right.shape
    column = np.concatenate([system.diagonal, *system.below], axis=1)  # (T, 3D, D): all rows under each diagonal block
    band = np.zeros(((COUPLED_FRAMES + 1) * size, n_frames, size))
    for j in range(size):
        band[: (COUPLED_FRAMES + 1) * size - j, :, j] = column[:, j:, j].T
    band[0] *= 1 + damping
    return band.reshape(band.shape[0], n_frames * size)


def solve(system: ArrowSystem, damping: float = 0.0) -> tuple[Float[np.ndarray, "T D"], Float[np.ndarray, "S"]] | None:
    """The solution with Levenberg-Marquardt damping of the diagonal; None if the matrix is not positive definite."""
    try:
        step, step_shared = solve_many(system, system.right[..., None], system.right_shared[:, None], damping)
    except LinAlgError:
        return None
    if not (np.isfinite(step).all() and np.isfinite(step_shared).all()):
        return None
    return step[..., 0], step_shared[:, 0]


def solve_many(
    system: ArrowSystem, right: Float[np.ndarray, "T D M"], right_shared: Float[np.ndarray, "S M"], damping: float = 0.0
) -> tuple[Float[np.ndarray, "T D M"], Float[np.ndarray, "S M"]]:
    """Solutions for M right-hand sides in place of the system's own.

    Raises:
        LinAlgError: If the matrix is not positive definite.
    """
    n_frames, size, shared = system.arrow.shape
    arrow, flat = system.arrow.reshape(n_frames * size, shared), right.reshape(n_frames * size, -1)
    factor = cholesky_banded(_lower_band(system, damping), lower=True, overwrite_ab=True, check_finite=False)
    solved = cho_solve_banded((factor, True), np.concatenate([arrow, flat], 1), check_finite=False)
    corner = system.corner + damping * np.diag(system.corner.diagonal())
    schur = cho_factor(corner - arrow.T @ solved[:, :shared], lower=True, check_finite=False)
    step_shared = cho_solve(schur, right_shared - arrow.T @ solved[:, shared:], check_finite=False)
    step = solved[:, shared:] - solved[:, :shared] @ step_shared
    return step.reshape(n_frames, size, -1), step_shared


@dataclass
class InverseBlocks:
    """Parts of the inverse of an `ArrowSystem`'s matrix: the covariances of the unknowns."""

    frame: Float[np.ndarray, "T D D"]
    """Of the unknowns of each frame."""
    shared: Float[np.ndarray, "T D S"]
    """Of each frame with the shared unknowns."""
    corner: Float[np.ndarray, "S S"]
    """Of the shared unknowns."""

    def __add__(self, other: InverseBlocks) -> InverseBlocks:
        return InverseBlocks(self.frame + other.frame, self.shared + other.shared, self.corner + other.corner)


def inverse_blocks(system: ArrowSystem) -> InverseBlocks:
    """Diagonal blocks of the inverse, and all of the arrow, without forming the rest.

    Frames are taken in pairs, which makes the matrix block-tridiagonal; the recursion is that of Takahashi et al.
    (1973), known from smoothing: inverse_i = L_i + G_i inverse_{i+1} G_i', G_i = -L_i C_i'.

    Raises:
        LinAlgError: If the matrix is singular.
    """
    n_frames, size, shared = system.arrow.shape
    pairs = (n_frames + 1) // 2
    main, lower = _paired(system, pairs)
    eye = np.eye(2 * size)
    left = np.empty_like(main)  # inverses of the Schur complements from the start
    left[0] = cho_solve(cho_factor(main[0]), eye)
    for i in range(1, pairs):
        left[i] = cho_solve(cho_factor(main[i] - lower[i - 1] @ left[i - 1] @ lower[i - 1].T), eye)
    inverse = left.copy()
    for i in range(pairs - 2, -1, -1):
        gain = -left[i] @ lower[i].T
        inverse[i] += gain @ (inverse[i + 1] @ gain.T)
    frame = np.stack([inverse[:, :size, :size], inverse[:, size:, size:]], 1).reshape(-1, size, size)[:n_frames]

    factor = cholesky_banded(_lower_band(system, 0.0), lower=True, overwrite_ab=True)
    arrow = system.arrow.reshape(n_frames * size, shared)
    solved = cho_solve_banded((factor, True), arrow).reshape(n_frames, size, shared)
    corner = cho_solve(cho_factor(system.corner - arrow.T @ solved.reshape(-1, shared)), np.eye(shared))
    return InverseBlocks(frame + solved @ (solved @ corner).swapaxes(-1, -2), -solved @ corner, corner)


def _paired(system: ArrowSystem, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of two frames each, (pairs, 2D, 2D) and below them (pairs - 1, 2D, 2D); identity pads an odd end."""
    n_frames, size = system.right.shape
    main, lower = np.zeros((pairs, 2, size, 2, size)), np.zeros((max(pairs - 1, 0), 2, size, 2, size))
    main[:, 0, :, 0] = system.diagonal[0::2]
    main[:, 1, :, 1] = np.eye(size)
    main[: n_frames // 2, 1, :, 1] = system.diagonal[1::2]
    inside = system.below[0][0 : 2 * (n_frames // 2) : 2]
    main[: n_frames // 2, 1, :, 0] = inside
    main[: n_frames // 2, 0, :, 1] = inside.swapaxes(-1, -2)
    lower[:, 0, :, 1] = system.below[0][1::2][: pairs - 1]
    lower[:, 0, :, 0] = system.below[1][0::2][: pairs - 1]
    across = system.below[1][1::2][: pairs - 1]
    lower[: len(across), 1, :, 1] = across
    return main.reshape(pairs, 2 * size, 2 * size), lower.reshape(-1, 2 * size, 2 * size)
