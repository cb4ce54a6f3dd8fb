"""Weights of labels from the errors of made-up labels whose variances are known."""

from __future__ import annotations

import numpy as np

from usthand.fit.reweighting import ReweightingConfig, label_weights


def test_weights_find_a_bad_joint_and_a_wrong_precision():
    rng = np.random.default_rng(5)
    present = np.ones((200, 3, 21), bool)
    stated = np.exp(rng.normal(size=present.shape))
    honest = np.ones(present.shape)
    honest[..., 4] = 9.0
    squared = stated * honest * (rng.normal(size=(*present.shape, 2)) ** 2).sum(-1)  # whatever is `stated`
    effective = label_weights(squared, stated, present, ReweightingConfig(dof=1e6)) * stated
    assert np.log(effective).std() < 0.6
    assert 5 < np.median(effective[..., :4]) / np.median(effective[..., 4]) < 14


def test_weights_are_not_learned_from_views_that_do_not_set_the_noise_scale():
    """A third view fits far better than its stated precision: the others' weights stay, and it takes their scale."""
    rng = np.random.default_rng(6)
    present, stated = np.ones((200, 3, 21), bool), np.ones((200, 3, 21))
    squared = 0.5 * (rng.normal(size=(*present.shape, 2)) ** 2).sum(-1)
    squared[:, 2] /= 100
    alone = label_weights(squared[:, :2], stated[:, :2], present[:, :2], ReweightingConfig())
    beside = label_weights(squared, stated, present, ReweightingConfig(), np.array([True, True, False]))
    assert np.allclose(beside[:, :2], alone)
    assert np.allclose(np.median(beside[:, 2]), (4 + 2) / 4 * np.median(alone), rtol=0.3), (
        "at residuals of nought Student's t gives (dof + 2) / dof"
    )
    assert np.median(label_weights(squared, stated, present, ReweightingConfig())[:, :2]) > 1.3 * np.median(alone)
