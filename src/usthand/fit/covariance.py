"""Covariance of the fitted joints, from the inverse of the fit's normal equations (Laplace's approximation).

The labels' errors are modelled as correlated in time and their precision is learned from the residuals, so the
curvature of the cost is the inverse covariance. Only the blocks within a frame and with the shape are needed.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from usthand.fit.arrow_system import InverseBlocks
from usthand.fit.kinematics import Articulation, HandState


def joint_covariance(hand: Articulation, state: HandState, inverse: InverseBlocks) -> Float[np.ndarray, "T 21 3 3"]:
    """Covariance of every joint, world, m^2: J_f C_ff J_f' + J_f C_fs J_s' + its transpose + J_s C_ss J_s'."""
    posed = hand.posed(state)
    across = posed.by_frame @ inverse.shared[:, None] @ posed.by_shape.swapaxes(-1, -2)
    return (
        posed.by_frame @ inverse.frame[:, None] @ posed.by_frame.swapaxes(-1, -2)
        + across
        + across.swapaxes(-1, -2)
        + posed.by_shape @ inverse.corner @ posed.by_shape.swapaxes(-1, -2)
    )
