"""What lies on skin covers what it should, and nothing else."""

import numpy as np
import pytest

from usthand.datasets.synthetic import appearance, scene, worn
from usthand.datasets.synthetic.surface import hand_surface
from usthand.hand.io import load_hand


@pytest.fixture(scope="module")
def surface():
    return hand_surface(load_hand(side="right"), np.zeros(10))


def painted(surface, painter):
    """Change of the texture's colour (F, CELLS, 3) by a painter, and where each cell is, metres (F, CELLS, 3)."""
    skin = appearance.sample_skin(np.random.default_rng(3))
    change = appearance.hand_texels(surface, skin, painter) - appearance.hand_texels(surface, skin)
    weights, cells = appearance.texel_corners()
    points = np.einsum("pk,fkc->fpc", weights, surface.vertices_m[surface.faces])[:, cells].mean(2)
    return change, points


def to_bone(points, a, b):
    t = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return np.linalg.norm(points - a - t[..., None] * (b - a), axis=-1)


@pytest.mark.parametrize("seed", range(4))
def test_rings_are_around_first_phalanges(surface, seed):
    change, points = painted(surface, worn._rings(np.random.default_rng(seed), surface))
    touched = np.abs(change[..., :3]).max(-1) > 0.02
    assert 20 < touched.sum() < 0.05 * touched.size
    joints = surface.joints_m
    near = np.min([to_bone(points, joints[4 * f + 1], joints[4 * f + 2]) for f in range(5)], axis=0)
    assert (near[touched] < 0.016).all()  # the flesh of a finger's first phalanx
    assert (change[..., 3][touched] > 1).mean() > 0.9  # and they shine


def test_polish_is_on_nails(surface):
    change, points = painted(surface, worn._polish(np.random.default_rng(0), surface))
    touched = np.abs(change[..., :3]).max(-1) > 0.02
    tips = surface.joints_m[[4, 8, 12, 16, 20]]
    assert touched.any()
    assert (np.linalg.norm(points[touched][:, None] - tips, axis=-1).min(1) < 0.024).all()


def test_gloves_hide_all_skin_or_all_but_fingertips(surface):
    whole = set()
    for seed in range(12):
        painter = worn._glove(np.random.default_rng(seed))
        dark, light = (
            appearance.hand_texels(surface, appearance.Skin(np.full(3, a), np.full(3, a), 1, 1, 1, 0), painter)
            for a in (0.1, 0.6)
        )
        hidden = np.abs(dark - light)[..., :3].max(-1) < 1e-6
        whole.add(bool(hidden.all()))
        assert hidden.mean() > 0.4
    assert whole == {True, False}


def test_textures_stay_physical_whatever_is_worn(surface):
    gloves = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        skin, (painter, gloved) = worn.sample_real_skin(rng), worn.sample_worn(rng, surface)
        gloves += gloved
        texels = appearance.hand_texels(surface, skin, painter)
        assert np.isfinite(texels).all()
        assert texels[..., :3].min() >= 0 and texels[..., :3].max() <= 1 and texels[..., 3].min() >= 0
    assert 0 < gloves < 12


def test_real_skin_lies_between_the_known_tones():
    """Less green than red, less blue than green, and as bright as skin is."""
    for seed in range(60):
        tone = worn.sample_real_skin(np.random.default_rng(seed)).tone
        assert tone[0] > tone[1] > tone[2] and 0.1 < tone[0] < 1.0


def test_a_watch_is_drawn_behind_the_wrist(surface):
    """Where the dice give one, a part of the forearm has the strap's colour and lies before the named ring."""
    bands = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rig = scene.sample_rig(rng, 1, "dome", 64)
        made = scene.sample_scene(np.random.default_rng(seed), rig, surface, looks="skin")
        plain = scene.sample_scene(np.random.default_rng(seed), rig, surface)
        assert len(made.model.faces) == len(plain.model.faces)
        worn_here = not np.allclose(made.swell_m, plain.swell_m)
        bands += worn_here
        if worn_here:
            swollen = np.flatnonzero(made.swell_m - plain.swell_m > 1e-6)
            assert set(swollen) <= {0, 1, 2} and len(swollen) == 2
    assert 2 <= bands <= 14
