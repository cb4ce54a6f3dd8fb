"""What several results know of one person's hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.fit_scene import labels_of, make_scene
from usthand.common.errors import UsthandError
from usthand.fit.fit import fit_labels, triangulate
from usthand.fit.person import HANDS_DIFFER, person_of
from usthand.fit.sequence import FitConfig

FAST = FitConfig(rounds=4)


@pytest.fixture(scope="module")
def scene():
    return make_scene(seed=2, n_frames=12)


@pytest.fixture(scope="module")
def fits(scene):
    rng = np.random.default_rng(0)
    noisy = [scene.labels.uv_px + 2 * rng.normal(size=scene.labels.uv_px.shape) for _ in range(3)]
    return [fit_labels(scene.rig, labels_of(scene.rig, uv), FAST) for uv in noisy]


def test_of_one_result_it_is_its_shape_loosened_by_what_hands_differ(fits):
    """The posterior precision, less what the other hand may differ by, but never less than the population's."""
    person, size = person_of(fits[:1]), len(fits[0].shape)
    np.testing.assert_allclose(person.mean, fits[0].shape, atol=1e-9)
    known = np.linalg.inv(fits[0].shape_cov + HANDS_DIFFER**2 * np.eye(size))
    value = np.linalg.eigvalsh(known - np.eye(size))
    found = np.linalg.eigvalsh(person.precision - np.eye(size))
    np.testing.assert_allclose(found, np.sort(np.maximum(value, 0)), atol=1e-6)


def test_every_result_adds_what_it_learned_and_the_population_counts_once(fits):
    one, three = person_of(fits[:1]), person_of(fits)
    eye = np.eye(len(one.mean))
    learned = sum(person_of([fit]).precision - eye for fit in fits)
    np.testing.assert_allclose(three.precision, eye + learned, atol=1e-6)
    assert (np.linalg.eigvalsh(three.precision - one.precision) > -1e-9).all()


def test_what_others_know_makes_the_shape_surer(scene, fits):
    labels = labels_of(
        scene.rig, scene.labels.uv_px + 4 * np.random.default_rng(9).normal(size=scene.labels.uv_px.shape)
    )
    alone = fit_labels(scene.rig, labels, FAST)
    helped = fit_labels(scene.rig, labels, replace(FAST, person=person_of(fits)))
    assert np.trace(helped.shape_cov) < np.trace(alone.shape_cov)
    true = np.concatenate([scene.state.shape, np.zeros(len(alone.shape) - len(scene.state.shape))])
    told = [(fit.shape - true) @ person_of(fits).precision @ (fit.shape - true) for fit in (helped, alone)]
    assert told[0] < told[1], "nearer to the truth in the directions that the others know"


def test_a_result_without_a_covariance_of_its_shape_is_refused(scene):
    with pytest.raises(UsthandError, match="does not say how certain its hand's shape is"):
        person_of([triangulate(scene.rig, scene.labels)])
