"""The light that the converter finds in an environment map."""

import numpy as np
import pytest

from environments.convert import split_light
from usthand.datasets.synthetic import environment as env


def test_light_of_an_analytic_sky():
    """A sky that brightens upwards, and one lamp: a disc of radiance R and angle a gives pi R sin^2 a of irradiance.

    Of ambient radiance A + B cos the white ball's top receives A + 2/3 B. The disc's edge is one pixel wide,
    1.4 degrees of 11.
    """
    towards = env.directions(128, 256)
    peak = np.array([0.6, 0.0, 0.8])
    colour = np.array([1.0, 0.8, 0.6])
    radius, bright = np.radians(11), 300.0
    sky = (0.5 + 0.3 * towards[..., 2:]) * colour
    disc = (towards @ peak > np.cos(radius))[..., None] * bright * colour[::-1]
    light = split_light(sky + disc)
    strongest = int(np.argmax(light.colour @ env.LUMINANCE))
    assert strongest == 0 and light.direction[0] @ peak > np.cos(np.radians(0.7))
    expected = bright * np.sin(radius) ** 2 * colour[::-1]
    np.testing.assert_allclose(light.colour[0], expected, rtol=0.06)
    assert light.size_rad[0] == pytest.approx(radius / 2**0.5, rel=0.1)  # root mean square radius of a disc
    assert (light.colour[1:] @ env.LUMINANCE).max() < 0.02 * light.colour[0] @ env.LUMINANCE
    assert light.up[2] > 0.99
    np.testing.assert_allclose(light.sky, (0.5 + 0.2) * colour, rtol=0.06)
    np.testing.assert_allclose(light.ground, (0.5 - 0.2) * colour, rtol=0.06)
