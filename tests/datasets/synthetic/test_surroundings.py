"""Light and views of real places, and the colours of things in them."""

import numpy as np
import pytest

from usthand.datasets.synthetic import environment as env
from usthand.datasets.synthetic import render
from usthand.datasets.synthetic.scene import sample_rig
from usthand.datasets.synthetic.surroundings import BRIGHTEST, DARKEST, muted, sample_real_palette, sample_surroundings


@pytest.mark.parametrize("aside", [False, True])
def test_surroundings_are_finite_bright_enough_and_decided_by_the_seed(aside):
    for seed in range(6):
        rig = sample_rig(np.random.default_rng(seed), 2, "dome", 64)
        lights, images = sample_surroundings(np.random.default_rng(seed), rig, aside)
        assert 0.35 * 0.9 < env.on_white(lights) < 0.8 * 1.1  # white balance keeps the brightness but for its colour
        np.testing.assert_allclose(np.linalg.norm(lights.direction, axis=1), 1, atol=1e-5)
        for image in images:
            assert image.shape == (64, 64, 3) and image.dtype == np.float32
            assert DARKEST <= image.min() and image.max() <= BRIGHTEST
        assert not np.array_equal(*images)
        again, others = sample_surroundings(np.random.default_rng(seed), rig, aside)
        np.testing.assert_array_equal(again.colour, lights.colour)
        np.testing.assert_array_equal(others[0], images[0])


def test_real_colours_are_seldom_strong():
    colours = np.concatenate([sample_real_palette(np.random.default_rng(seed)) for seed in range(40)])
    saturation = 1 - colours.min(1) / colours.max(1)
    assert np.median(saturation) < 0.45 and (saturation > 0.8).mean() < 0.15


def test_things_lose_colour_and_keep_their_pattern():
    texels = np.random.default_rng(0).uniform(0.05, 0.6, (5, 36, 6)).astype(np.float32)
    part = render.Part(np.zeros((5, 3), int), render.OBJECT, texels)
    for seed in range(10):
        after = muted(np.random.default_rng(seed), part).texels
        np.testing.assert_array_equal(after[..., 3:], texels[..., 3:])
        before_spread, spread = (np.ptp(np.log(one[..., :3]), axis=-1) for one in (texels, after))
        free = (after[..., :3].max(-1) < 0.94) & (after[..., :3].min(-1) > 0.0051)
        ratio = spread[free] / before_spread[free]
        assert ratio.max() < 0.81 and np.ptp(ratio) < 1e-3  # one factor for the whole thing
