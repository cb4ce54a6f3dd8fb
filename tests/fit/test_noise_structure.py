"""What is learned of the errors' structure from labels whose structure is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fit_scene import make_scene
from usthand.fit import noise_structure
from usthand.fit.noise_structure import LEAST_PAIRS, MOST, MOST_OF_VIEWS, NoiseStructure, estimate_structure
from usthand.geometry.robust_triangulation import UndistortedViews, undistorted_views
from usthand.hand.skeleton import FINGERS

SIGMA_PX, FPS = 2.0, 30.0


@pytest.fixture(scope="module")
def scene():
    return make_scene(n_frames=200)


def views_of(scene, error: np.ndarray, frames: int = 200, count: int = 4) -> UndistortedViews:
    uv = (scene.labels.uv_px + SIGMA_PX * error)[:frames, :count]
    precision = np.broadcast_to(np.eye(2) / SIGMA_PX**2, (*uv.shape, 2)).copy()
    cameras = replace(scene.rig, cameras=scene.rig.cameras[:count]).tensors(torch.float64)
    return undistorted_views(cameras, torch.from_numpy(uv), torch.from_numpy(precision))


def made_errors(rng, shape, rho: float, hand: float, finger: float) -> np.ndarray:
    """Of unit variance, AR(1) in time, with these parts in common to a view's joints."""

    def chain(*size: int) -> np.ndarray:
        steps = rng.normal(size=(shape[0], *size))
        for t in range(1, len(steps)):
            steps[t] = rho * steps[t - 1] + np.sqrt(1 - rho**2) * steps[t]
        return steps

    shared = np.sqrt(hand) * chain(shape[1], 1, 2) + np.sqrt(1 - hand - finger) * chain(*shape[1:])
    own = chain(*shape[1:])
    for ids in FINGERS.values():
        own[:, :, list(ids)] = chain(shape[1], 1, 2)
    return shared + np.sqrt(finger) * own


@pytest.mark.parametrize("count", [2, 4])
def test_independent_errors_have_next_to_no_structure(scene, count):
    """Correlations of residuals of 4200 joints, each with one free axis at least, are 0 within 0.016; the structure is
    that over 0.5 and 0.3; four standard deviations."""
    error = np.random.default_rng(0).normal(size=scene.labels.uv_px.shape)
    found = estimate_structure(views_of(scene, error, count=count))
    bound = 4 / np.sqrt(200 * 21)
    assert found.memory_s < bound / 0.5 * MOST.memory_s and found.lasting < bound / 0.5 * MOST.lasting
    assert found.hand < bound / 0.3 * MOST.hand and found.finger < bound / 0.3 * MOST.finger


@pytest.mark.parametrize("most", [MOST, MOST_OF_VIEWS])
def test_errors_of_a_detector_have_all_of_it(scene, most):
    rho = np.exp(-1 / (MOST.memory_s * FPS))
    error = made_errors(np.random.default_rng(1), scene.labels.uv_px.shape, rho, MOST.hand, MOST.finger)
    assert estimate_structure(views_of(scene, error), most) == most


def test_time_and_view_are_learned_apart(scene):
    rng, shape, rho = np.random.default_rng(2), scene.labels.uv_px.shape, np.exp(-1 / (MOST.memory_s * FPS))
    lasting, together = (
        estimate_structure(views_of(scene, made_errors(rng, shape, *k))) for k in ((rho, 0, 0), (0, 0.35, 0.25))
    )
    assert lasting.memory_s == MOST.memory_s and lasting.lasting == MOST.lasting and lasting.hand < 0.3 * MOST.hand
    assert together.hand == MOST.hand and together.finger == MOST.finger and together.memory_s < 0.3 * MOST.memory_s


def test_half_of_the_usual_correlation_is_half_of_the_structure(scene):
    """0.25 from frame to frame and 0.15 in a finger, where 0.5 and 0.3 are usual; as certain as above."""
    error = made_errors(np.random.default_rng(3), scene.labels.uv_px.shape, 0.25, 0.0, 0.15)
    found = estimate_structure(views_of(scene, error))
    wanted = NoiseStructure(*(0.5 * value for value in (MOST.memory_s, MOST.hand, MOST.finger, MOST.lasting)))
    for name in ("memory_s", "hand", "finger", "lasting"):
        assert np.isclose(getattr(found, name), getattr(wanted, name), rtol=0.25), name


def test_one_mistake_does_not_make_a_structure(scene, monkeypatch):
    """A view that loses the hand for five frames has errors in common in time and in the view, of 50 times the others'
    size. As they are, nothing else would count; they are cut short."""
    error = np.random.default_rng(4).normal(size=scene.labels.uv_px.shape)
    error[100:105, 1] += 50
    views = views_of(scene, error)
    found = estimate_structure(views)
    monkeypatch.setattr(noise_structure, "CAP", np.inf)
    assert estimate_structure(views) == MOST
    assert found.memory_s < 0.5 * MOST.memory_s and found.hand < 0.9 * MOST.hand


def test_few_labels_tell_nothing(scene):
    frames = LEAST_PAIRS // 21
    error = np.random.default_rng(5).normal(size=scene.labels.uv_px.shape)
    assert estimate_structure(views_of(scene, error, frames)) == MOST
    assert estimate_structure(views_of(scene, error, frames + 1)) != MOST
    views = views_of(scene, error)
    assert estimate_structure(views._replace(precision=0 * views.precision)) == MOST
