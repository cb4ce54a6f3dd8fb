"""How uncertain each vertex of a fitted mesh is: the covariance of the unknowns carried to the skin.

To first order a vertex moves by its derivatives by the pose of the frame and by the shape, among which the thickness of
the flesh, which joints do not tell, counts with all of its prior. Pose blend shapes are left out of the derivatives:
they move the skin by a millimetre or two over a whole bend.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from usthand.fit.arrow_system import InverseBlocks
from usthand.fit.kinematics import (
    DESCENDANTS,
    FIRST_ANGLE,
    N_MANO,
    ROOT,
    WRIST,
    Articulation,
    Chain,
    HandState,
    cross_matrix,
)
from usthand.hand.model import HandModel

CHUNK = 16  # frames at once: some 40 MB of derivatives


def vertex_covariance(
    hand: HandModel, model: Articulation, state: HandState, posterior: InverseBlocks
) -> Float[np.ndarray, "T N 3 3"]:
    """Covariance of every vertex, world, m^2, single precision.

    Args:
        hand: A right hand in float64.
        model: Its articulation.
        state: T frames.
        posterior: Covariance of the state's unknowns.
    """
    known = model.n_shape
    out = np.empty((len(state.angles), len(hand.v_template), 3, 3), np.float32)
    skin = _Skin(hand, model)
    for start in range(0, len(out), CHUNK):
        part = slice(start, start + CHUNK)
        some = HandState(state.root[part], state.wrist_m[part], state.angles[part], state.shape)
        rows = skin.derivatives(some).astype(np.float32)  # (t, N, 3, D + S)
        whole = np.zeros((len(rows), rows.shape[-1], rows.shape[-1]), np.float32)
        size = model.size
        whole[:, :size, :size] = posterior.frame[part]
        whole[:, :size, size:] = posterior.shared[part, :, :known]
        whole[:, size:, :size] = posterior.shared[part, :, :known].swapaxes(-1, -2)
        whole[:, size:, size:] = posterior.corner[:known, :known]
        flat = rows.reshape(len(rows), -1, rows.shape[-1])
        out[part] = (flat @ whole).reshape(rows.shape) @ rows.swapaxes(-1, -2)
    return 0.5 * (out + out.swapaxes(-1, -2))


class _Skin:
    """The vertices of a hand as functions of a state."""

    def __init__(self, hand: HandModel, model: Articulation) -> None:
        self.model = model
        self.rest, self.by_shape, self.weights, posedirs = (
            value.detach().cpu().numpy() for value in (hand.v_template, hand.shapedirs, hand.weights, hand.posedirs)
        )
        self.posedirs = posedirs.reshape(len(self.rest), 3, N_MANO - 1, 3, 3)

    def derivatives(self, state: HandState) -> Float[np.ndarray, "T N 3 DS"]:
        """By the unknowns of the frame, then by the shape."""
        model, weights = self.model, self.weights
        chain = Chain(model, state)
        rest = self.rest + self.by_shape @ state.shape
        blend = np.tensordot(chain.local - np.eye(3), self.posedirs, axes=((1, 2, 3), (2, 3, 4)))
        joint = model.joint + model.joint_by_shape @ state.shape
        # Where each joint alone would carry each vertex, times its weight: (T, 16, N, 3).
        lever = (rest + blend)[:, None] - joint[:, None]
        carried = weights.T[..., None] * (lever @ chain.turn.swapaxes(-1, -2) + chain.origin[:, :, None])
        vertices = carried.sum(1)
        out = np.zeros((*vertices.shape, model.size + model.n_shape))
        out[..., ROOT] = -cross_matrix(vertices - chain.origin[:, :1])
        out[..., WRIST] = np.eye(3)
        for column, (j, _) in enumerate(model.free, start=FIRST_ANGLE):
            below = np.flatnonzero(DESCENDANTS[j + 1])
            moved = np.flatnonzero(weights[:, below].any(1))
            arm = carried[:, below][:, :, moved].sum(1)
            arm -= weights[moved][:, below].sum(1)[:, None] * chain.origin[:, None, j + 1]
            out[..., column][:, moved] = np.cross(chain.spin(column)[:, None], arm)
        turn = np.einsum("nk,tkab->tnab", weights, chain.turn)
        held = chain.by_shape()[:, :N_MANO] - chain.turn @ model.joint_by_shape
        out[..., model.size :] = turn @ self.by_shape + np.einsum("nk,tkas->tnas", weights, held)
        return out
