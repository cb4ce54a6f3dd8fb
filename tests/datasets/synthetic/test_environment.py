"""EnvironmentMap maps: what is stored comes back, and views look where cameras look."""

import numpy as np

from usthand.capture.rig import Camera
from usthand.datasets.synthetic import environment as env
from usthand.datasets.synthetic.scene import sample_rig


def test_bytes_hold_radiance_to_a_step():
    """Between two bytes of y = (x / (1 + x))^(1/2.2), half a step is dx = 1.1 y^1.2 / (1 - y^2.2)^2 / 255."""
    x = np.exp(np.linspace(np.log(1e-3), np.log(50), 400))
    y = (x / (1 + x)) ** (1 / 2.2)
    half_step = 1.1 * y**1.2 / (1 - y**2.2) ** 2 / 255
    assert (np.abs(env.decode(env.encode(x)) - x) <= 1.25 * half_step + 1e-6).all()
    assert np.isfinite(env.decode(np.arange(256, dtype=np.uint8))).all()


def test_directions_are_equirectangular():
    """Solid angles sum to 4 pi, the mean direction is 0, and the first row looks up."""
    towards = env.directions(32, 64)
    np.testing.assert_allclose(np.linalg.norm(towards, axis=-1), 1)
    solid = np.sin((np.arange(32) + 0.5) / 32 * np.pi)[:, None, None] * 2 * np.pi**2 / (32 * 64)
    np.testing.assert_allclose((towards * solid).sum((0, 1)), 0, atol=1e-9)
    assert (towards[0, :, 2] > 0.99).all() and (towards[:16, :, 2] > 0).all()


def place(view):
    one = np.ones(3)
    return env.EnvironmentMap(view, np.eye(3), np.tile(one, (3, 1)), np.full(3, 0.1), np.array([0, 0, 1.0]), one, one)


def test_a_camera_sees_the_direction_it_looks_in():
    """A map whose colour is its direction, as bytes of 1/255 and pixels of 1.4 degrees."""
    towards = env.directions(128, 256)
    shown = place(env.encode(0.5 + 0.4 * towards))
    to_world = env.turned(1.1)
    camera = sample_rig(np.random.default_rng(2), 3, "dome", 64).cameras[1]
    straight = Camera("c", 64, 64, camera.matrix, np.zeros(0), "pinhole", camera.rotation, camera.translation)
    seen = env.panorama_view(shown, to_world, straight)
    for u, v in ((5, 9), (32, 32), (60, 50)):
        ray = straight.rotation.T @ np.linalg.solve(straight.matrix, [u, v, 1.0])
        expected = to_world.T @ (ray / np.linalg.norm(ray))
        np.testing.assert_allclose((seen[v, u] - 0.5) / 0.4, expected, atol=0.03)
    wide = env.panorama_view(shown, to_world, straight, widen=2.0)
    assert np.ptp(wide[..., 2]) > 1.5 * np.ptp(seen[..., 2])


def test_the_packages_places():
    known, aside = env.environments(), env.environments(aside=True)
    assert len(known) == 14 and len(aside) == len(env.ASIDE) == 4
    means = {one.view.mean() for one in (*known, *aside)}
    assert len(means) == 18  # all differ
    for one in (*known, *aside):
        assert one.view.shape == (256, 512, 3) and one.direction.shape == (3, 3)
        for value in (one.colour, one.sky, one.ground):
            assert np.isfinite(value).all() and (value >= 0).all()
        np.testing.assert_allclose(np.linalg.norm(one.direction, axis=1), 1, atol=1e-5)
