"""What errors that last do to a fit that takes them for short ones.

A detector is wrong in the same way wherever the hand looks the same, so a part of a label's error hardly changes over
a second, while the fit's model of errors forgets within a few frames: it averages out what does not average out. The
estimate is still good, its covariance is too small. The part that lasts is taken to be constant here, and carried
through the fit.

To first order the fit moves by H^-1 J' P s for an error s of the whitened labels, with H the matrix of the normal
equations, J the labels' derivatives and P the inverse of the errors' modelled covariance (a "sandwich", White,
Econometrica 50, 1982). The lasting error of a view is a sum of independent shifts of the hand, of each finger and of
each joint, with the variances that `usthand.fit.evidence.sharing` has for them; every such shift in either image axis
is one s. The sum of the squares of all moves is the covariance that they add.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from usthand.fit.arrow_system import ArrowSystem, InverseBlocks, solve_many
from usthand.fit.evidence import LabelTerm
from usthand.fit.kinematics import PosedJoints
from usthand.fit.objective import Energy
from usthand.hand.skeleton import N_JOINTS


def lasting_covariance(
    energy: Energy, system: ArrowSystem, posed: dict[bool, PosedJoints], parts: dict[bool, float]
) -> InverseBlocks:
    """Covariance of the unknowns from errors that last, to be added to the inverse of `system`.

    Args:
        energy: The cost at its minimum.
        system: Its normal equations there.
        posed: The joints that its labels see: the model's (False) and the detector's (True).
        parts: Of a label's variance that lasts; for sources of either kind.
    """
    n_frames, size, n_shared = system.arrow.shape
    total = InverseBlocks(
        np.zeros((n_frames, size, size)), np.zeros((n_frames, size, n_shared)), np.zeros((n_shared, n_shared))
    )
    for term in energy.terms:
        if not isinstance(term, LabelTerm):
            continue
        seen, part = posed[term.detected], parts[term.detected]
        by_shared = seen.by_shared[..., :n_shared]
        back = np.concatenate([seen.by_frame, by_shared], -1).swapaxes(-1, -2)  # (T, J, D + shared, 3)
        rows = term.residuals(seen.joints)[1]
        influence = term.influence(_shifts(term))
        for view in range(rows.shape[1]):
            by_label = (back @ rows[:, view].swapaxes(-1, -2)).transpose(0, 3, 2, 1)  # (T, 2, D + shared, J)
            pull = (by_label @ influence[:, view, None]).swapaxes(1, 2).reshape(n_frames, back.shape[2], -1)
            shared = np.zeros((n_shared, pull.shape[-1]))
            shared[: by_shared.shape[-1]] = pull[:, size:].sum(0)
            moved, moved_shared = solve_many(system, pull[:, :size], shared)
            total.frame += part * moved @ moved.swapaxes(-1, -2)
            total.shared += part * moved @ moved_shared.T
            total.corner += part * moved_shared @ moved_shared.T
    return total


def _shifts(term: LabelTerm) -> Float[np.ndarray, "T V J M"]:
    """What labels of a view are shifted by together, in units of their standard deviations: hand, fingers, joints."""
    present = (term.root**2).sum((-1, -2)) > 0
    own = np.sqrt(np.where(present, term.own, 0.0))[..., None] * np.eye(N_JOINTS)
    return own if term.groups is None else np.concatenate([term.groups * present[..., None], own], -1)
