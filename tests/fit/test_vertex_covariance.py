"""Covariances of vertices against states drawn from the posterior, skinned by the hand model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fit_parts import dense, full_articulation, full_hand, numeric_jacobian, smooth_state, two_views
from usthand.fit.arrow_system import inverse_blocks
from usthand.fit.detector_joints import load_detector_joints
from usthand.fit.kinematics import HandState, articulation
from usthand.fit.mesh import skinned
from usthand.fit.objective import Energy
from usthand.fit.sequence import FitConfig, fit_prior
from usthand.fit.vertex_covariance import CHUNK, vertex_covariance

SOME = np.arange(0, 778, 7)


@pytest.fixture(scope="module")
def model():
    return full_articulation()


def posterior_of(model, n_frames: int, detected: bool = False):
    """Normal equations of labels of two cameras at a state."""
    rng = np.random.default_rng(3)
    state = smooth_state(model, rng, n_frames)
    seen = model.detected(state) if detected else model.joints(state)
    term = two_views(rng, n_frames, 0.7, detected, near_m=seen)
    term = replace(term, root=20 * term.root)
    prior = fit_prior(model, FitConfig(), load_detector_joints("mediapipe") if detected else None)
    return state, Energy(model, prior, [term]).normal_equations(state)


def jacobian(hand, model, state: HandState) -> np.ndarray:
    """Of some vertices of the skinned mesh by all unknowns, (T, n, 3, T D + S), by central differences."""
    found = numeric_jacobian(lambda s: skinned(hand, model, s).vertices_world_m[:, SOME], model, state, model.n_shape)
    return found.reshape(len(state.angles), len(SOME), 3, -1)


def worst_std(covariance: np.ndarray) -> np.ndarray:
    return np.sqrt(np.linalg.eigvalsh(covariance)[..., -1])


@pytest.mark.parametrize("detected", [False, True])
def test_without_pose_blend_shapes_it_is_exact(model, detected):
    """The mesh's own derivatives, with the posterior of all frames at once, dense; single precision. With a detector's
    offsets among the unknowns, which move no vertex."""
    hand = replace(full_hand(), posedirs=torch.zeros_like(full_hand().posedirs))
    bare = articulation(hand)
    state, system = posterior_of(bare, 2, detected)
    rows = jacobian(hand, bare, state)
    known = rows.shape[-1]
    wanted = rows @ np.linalg.inv(dense(system)[0])[:known, :known] @ rows.swapaxes(-1, -2)
    found = vertex_covariance(hand, bare, state, inverse_blocks(system))[:, SOME]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * wanted.max())


def test_with_them_it_is_off_by_no_more_than_they_move(model):
    """The rows that are left out are those of the mesh less those of a mesh whose pose blend shapes are held, and a
    standard deviation |J L| is off by |dJ L| at most. That is little: a tenth in the median, as a mesh that moves by
    a millimetre or two over a whole bend suggests."""
    hand = full_hand()
    state, system = posterior_of(model, 2)
    covariance = np.linalg.inv(dense(system)[0])
    rows = jacobian(hand, model, state)
    held = jacobian_with_blend_held(hand, model, state)
    wanted, off = (worst_std(part @ covariance @ part.swapaxes(-1, -2)) for part in (rows, rows - held))
    found = worst_std(vertex_covariance(hand, model, state, inverse_blocks(system))[:, SOME])
    assert (np.abs(found - wanted) <= off + 1e-3 * wanted).all()
    assert np.median(off / wanted) < 0.1 and np.median(np.abs(found / wanted - 1)) < 0.02


def jacobian_with_blend_held(hand, model, state: HandState) -> np.ndarray:
    """`jacobian` of meshes whose pose blend shapes are those of the state, frame by frame."""
    out = np.zeros((len(state.angles), len(SOME), 3, len(state.angles) * model.size + model.n_shape))
    for t in range(len(state.angles)):
        rotations = hand.rotations(torch.from_numpy(model.pose(state)), flat_hand_mean=True)[t, 1:]
        moved = torch.einsum("...k,k->...", hand.posedirs, (rotations - torch.eye(3)).reshape(-1))
        fixed = replace(hand, v_template=hand.v_template + moved, posedirs=torch.zeros_like(hand.posedirs))
        out[t] = jacobian(fixed, model, state)[t]
    return out


def test_samples_of_the_posterior_spread_as_stated(model):
    """States drawn from a posterior a hundred times narrower, so that the mesh is linear, and skinned with all of its
    blend shapes. 300 draws leave a standard deviation along a fixed axis 4 %, the blend shapes 2 % in the median."""
    hand, rng = full_hand(), np.random.default_rng(0)
    state, system = posterior_of(model, 2)
    root = np.linalg.cholesky(np.linalg.inv(dense(system)[0])) / 100
    here = skinned(hand, model, state).vertices_world_m[:, SOME]
    moves = []
    for _ in range(300):
        step = root @ rng.normal(size=len(root))
        drawn = state.moved(step[: 2 * model.size].reshape(2, -1), step[2 * model.size :])
        moves.append(skinned(hand, model, drawn).vertices_world_m[:, SOME] - here)
    found = vertex_covariance(hand, model, state, inverse_blocks(system))[:, SOME]
    ratio = 100 * np.std(moves, axis=0) / np.sqrt(np.einsum("tnaa->tna", found))
    assert abs(np.median(ratio) - 1) < 0.06 and ((0.75 < ratio) & (ratio < 1.25)).mean() > 0.97


def test_frames_are_by_themselves_whatever_the_chunk(model):
    state, system = posterior_of(model, CHUNK + 3)
    posterior = inverse_blocks(system)
    whole = vertex_covariance(full_hand(), model, state, posterior)
    last = HandState(state.root[-1:], state.wrist_m[-1:], state.angles[-1:], state.shape)
    alone = replace(posterior, frame=posterior.frame[-1:], shared=posterior.shared[-1:])
    np.testing.assert_allclose(vertex_covariance(full_hand(), model, last, alone)[0], whole[-1], rtol=1e-4, atol=1e-12)
    assert whole.dtype == np.float32 and (np.linalg.eigvalsh(whole[:, SOME].astype(float)) > 0).all()
