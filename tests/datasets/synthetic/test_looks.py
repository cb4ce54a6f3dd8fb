"""Steps towards reality: each changes what it is about and nothing else, and the seed decides the bytes."""

import dataclasses
import hashlib

import numpy as np
import pytest

from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.datasets.synthetic import render, scene
from usthand.datasets.synthetic.looks import LEVELS, looks_of
from usthand.datasets.synthetic.surface import hand_surface
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.truth import load_truth
from usthand.hand.io import load_hand
from usthand.labels.labels import load_npz

SMALL = SynthConfig(views=2, frames=4, size=96, seed=9, labels="light", objects="any")


@pytest.fixture(scope="module")
def surface():
    return hand_surface(load_hand(side="right"), np.zeros(10))


def make(surface, seed, level, views=3):
    rng = np.random.default_rng(seed)
    rig = scene.sample_rig(rng, views, "dome", 64)
    return scene.sample_scene(rng, rig, surface, ["static"], looks=level)


def posed(surface):
    centre = surface.joints_m.mean(0)
    return surface.vertices_m - centre, surface.joints_m - centre


@pytest.mark.parametrize("seed", [1, 2])
def test_each_step_changes_its_own_part_alone(surface, seed):
    plain, made = (
        make(surface, seed, "plain"),
        {level: make(surface, seed, level) for level in ("camera", "skin", "room")},
    )

    def skin(one):
        return one.model.texels[one.model.label == render.HAND]

    for level, one in made.items():
        assert one.seed == plain.seed
        np.testing.assert_array_equal(one.sway, plain.sway)
        np.testing.assert_array_equal(one.things[0].vertices_m, plain.things[0].vertices_m)
        assert np.array_equal(skin(one), skin(plain)) == (level != "skin")
        assert np.array_equal(one.model.texels[-1], plain.model.texels[-1]) == (level != "room")  # of the object
        assert np.array_equal(one.lights.colour, plain.lights.colour) == (level != "room")
        assert np.array_equal(one.backgrounds[0], plain.backgrounds[0]) == (level != "room")
        assert (one.sensors == plain.sensors) == (level != "camera")
        assert bool(one.transmissions) == (level == "camera")
    real, aside = make(surface, seed, "real"), make(surface, seed, "aside")
    np.testing.assert_array_equal(skin(real), skin(made["skin"]))
    np.testing.assert_array_equal(real.lights.colour, made["room"].lights.colour)
    assert real.transmissions == made["camera"].transmissions
    assert not np.array_equal(real.lights.colour, aside.lights.colour)
    np.testing.assert_array_equal(skin(real), skin(aside))


def test_levels_are_named():
    assert looks_of("plain") == LEVELS["plain"] and not any(vars(LEVELS["plain"]).values())
    with pytest.raises(UsthandError, match="looks"):
        looks_of("hyperreal")


def test_webcams_show_motion_and_the_threads_change_nothing(surface):
    """A hand that moves 1 m/s sideways is smeared in cameras with long exposures, and masks stay as sharp as ever."""
    made = make(surface, 4, "camera")
    slow = tuple(dataclasses.replace(s, effects=dataclasses.replace(s.effects, exposure_s=0.04)) for s in made.sensors)
    made = dataclasses.replace(made, sensors=slow, transmissions=())
    vertices, joints = posed(surface)
    shift = np.arange(3)[:, None, None] * np.array([1.0, 0.0, 0.0]) / made.fps
    sequence = vertices + shift, joints + shift
    moving = [list(made.draw_sequence(*sequence, threads=threads))[1] for threads in (1, 2)]
    for one, two in zip(*moving, strict=True):
        np.testing.assert_array_equal(one.rgb, two.rgb)
    velocity = made.velocity(*sequence, 1)
    np.testing.assert_allclose(velocity[: len(vertices)], np.tile([1.0, 0.0, 0.0], (len(vertices), 1)), atol=1e-9)
    still = made.draw(sequence[0][1], sequence[1][1], 1)
    assert max(np.abs(a.rgb.astype(int) - b.rgb).max() for a, b in zip(moving[0], still, strict=True)) > 40
    assert not make(surface, 4, "plain").velocity(*sequence, 1)


def test_the_sensors_drift_with_time():
    effects = render.CameraEffects(drift=(0.1, 0.05, 0.5, 0.3))
    sensor = render.Sensor((1.0, 1.1, 0.9), effects=effects)
    np.testing.assert_allclose(sensor.at(0.7).gain, np.array(sensor.gain) * effects.gain_at(0.7))
    assert render.Sensor().at(0.7) == render.Sensor()


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looks")
    levels = {"plain": "plain", "real": "real", "again": "real"}
    return {
        name: make_capture(folder / name, dataclasses.replace(SMALL, looks=level)) for name, level in levels.items()
    }


def test_same_seed_same_bytes(captures):
    digests = {
        name: [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.mp4"))]
        for name, folder in captures.items()
    }
    assert digests["real"] == digests["again"]
    assert not set(digests["real"]) & set(digests["plain"])


def test_looks_change_neither_cameras_nor_truth(captures):
    plain, real = captures["plain"], captures["real"]
    assert (plain / "rig.toml").read_text() == (real / "rig.toml").read_text()
    np.testing.assert_array_equal(load_truth(plain, "right").joints_world_m, load_truth(real, "right").joints_world_m)
    assert open_capture(real).n_frames == SMALL.frames
    # What is seen differs by pixels on outlines alone, which the rolling shutter moves.
    same = load_truth(plain, "right").visible == load_truth(real, "right").visible
    assert same.mean() > 0.97
    assert load_npz(real / "labels/right.npz").uv_px.shape == load_npz(plain / "labels/right.npz").uv_px.shape


def test_unknown_looks_end_in_a_sentence(tmp_path):
    with pytest.raises(UsthandError, match="hyperreal"):
        make_capture(tmp_path / "x", dataclasses.replace(SMALL, looks="hyperreal"))
