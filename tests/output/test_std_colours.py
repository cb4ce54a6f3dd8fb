"""A colour means the same standard deviation everywhere, and the scale says which."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import LogNorm

from support.stand_in import make_capture, make_rig, moving_hand, result_of, tube_faces
from usthand.output import draw, overlay
from usthand.output.overlay import OverlayConfig
from usthand.output.std_colours import STD_MARKS_MM, draw_std_scale, std_colours, std_css_gradient, std_scale_strip

FRAMES = 4
# The mesh alone, hiding all behind it.
SURFACE = OverlayConfig(skeleton=False, ellipses=False, caption=False, scale=False, opacity=1.0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A capture, and the same hand without and with a covariance for each vertex: 3 mm in depth, less across."""
    truth = moving_hand(FRAMES)
    capture = make_capture(tmp_path_factory.mktemp("capture"), truth, make_rig())
    plain = result_of(truth, faces=tube_faces())
    cov = np.tile(np.diag([1.0, 4.0, 9.0]) * 1e-6, (FRAMES, plain.vertices_world_m.shape[1], 1, 1))
    return capture, plain, replace(plain, vertices_cov_m2=cov.astype(np.float32))


def viridis(std_mm):
    """RGB, 0 to 255, by matplotlib's own logarithmic norm."""
    return 255.0 * np.asarray(matplotlib.colormaps["viridis"](LogNorm(1.0, 16.0)(std_mm)))[..., :3]


def drawn(capture, result, config, frame=1):
    return next(overlay.overlay_frames(capture, [result], "a", config, [frame]))[1].astype(float)


def test_colours_are_viridis_on_a_logarithmic_scale():
    std = np.geomspace(1.0, 16.0, 300)
    # Two neighbouring entries of the map's 256 differ by at most 2.9 of 255; rounding may choose either.
    assert np.abs(std_colours(std) - viridis(std)).max() < 3.0
    np.testing.assert_array_equal(std_colours(np.array([0.0, 99.0])), std_colours(np.array([1.0, 16.0])))


def test_a_mesh_has_the_colour_of_its_std_however_it_is_lit(scene):
    """Light scales red, green and blue alike, so their proportions stay the map's."""
    capture, plain, certain = scene
    changed = (drawn(capture, certain, SURFACE) != drawn(capture, plain, replace(SURFACE, mesh=False))).all(axis=-1)
    inside = np.zeros_like(changed)
    inside[2:-2, 2:-2] = np.lib.stride_tricks.sliding_window_view(changed, (5, 5)).all(axis=(-1, -2))
    assert inside.sum() > 1000
    colours = drawn(capture, certain, SURFACE)[inside]
    assert colours.max(axis=1).std() > 5  # the form is still shaded
    want = viridis(np.array(3.0))
    # Each channel is rounded down to a whole number, and the map's entry may be the neighbouring one. The tubes' open
    # ends let the footage through along their edges, in fewer than one pixel in fifty.
    off = np.abs(colours / colours.max(axis=1, keepdims=True) - want / want.max()).max(axis=1)
    assert np.quantile(off, 0.98) < 2.0 / colours.max(axis=1).min() + 0.02


def test_without_covariances_or_in_plain_nothing_changes(scene):
    capture, plain, certain = scene
    config = OverlayConfig()
    before = drawn(capture, plain, replace(config, colour="plain"))
    np.testing.assert_array_equal(drawn(capture, plain, config), before)
    np.testing.assert_array_equal(drawn(capture, certain, replace(config, colour="plain")), before)
    assert (drawn(capture, certain, config) != before).any()
    assert overlay.shows_std([plain, certain]) and not overlay.shows_std([plain])
    assert not overlay.shows_std([certain], OverlayConfig(mesh=False))


def test_the_scale_is_in_the_corner_and_once_on_a_sheet(scene):
    capture, plain, certain = scene
    for crop in (False, True):
        config = OverlayConfig(crop=crop)
        change = drawn(capture, certain, config) != drawn(capture, certain, replace(config, scale=False))
        rows, columns = np.nonzero(change.any(axis=-1))
        height, width = change.shape[:2]
        assert rows.min() > 0.8 * height and columns.max() < 0.4 * width
    small = OverlayConfig(sheet_columns=2, sheet_px=128)
    bare, marked = (overlay.contact_sheet(capture, [r], small) for r in (plain, certain))
    strip = std_scale_strip(2 * 128)
    assert marked.shape[0] == bare.shape[0] + len(strip) and marked.shape[1] == bare.shape[1] == 2 * 128
    np.testing.assert_array_equal(marked[len(bare) :], strip)


def test_the_bar_runs_through_the_colours():
    """Somewhere in the picture a row holds the whole map, from its first to its last colour, left to right."""
    image = np.zeros((60, 640, 3), np.float32)
    draw_std_scale(image)
    ends = np.abs(image[:, :, None] - std_colours(np.array([1.0, 16.0]))).max(axis=-1) < 1.0
    row = int(ends[..., 0].any(axis=1).argmax())
    first, last = int(ends[row, :, 0].argmax()), int(np.flatnonzero(ends[row, :, 1]).max())
    at = np.linspace(first, last, 5).round().astype(int)
    assert last - first > 150
    assert np.abs(image[row, at] - viridis(np.array(STD_MARKS_MM, float))).max() < 8.0


def test_the_pages_scale_has_the_same_ends():
    found = [tuple(map(int, c)) for c in re.findall(r"rgb\((\d+),(\d+),(\d+)\)", std_css_gradient())]
    assert found[0] == tuple(viridis(np.array(1.0)).round()) and found[-1] == tuple(viridis(np.array(16.0)).round())
    # The marks are evenly spread along it, and so are the stops.
    marks = np.array(found)[:: (len(found) - 1) // (len(STD_MARKS_MM) - 1)]
    assert np.abs(marks - viridis(np.array(STD_MARKS_MM, float))).max() < 2.5


def test_colours_of_vertices_are_blended_across_a_triangle():
    """Flat and facing the viewer, so lit alike everywhere: the middle has the mean of the three corners' colours."""
    xy, colours = np.array([[5.0, 5], [65, 5], [35, 57]]), np.array([[240.0, 0, 0], [0, 240, 0], [0, 0, 240]])
    points, image = np.c_[xy / 100, np.ones(3)], np.zeros((70, 70, 3), np.float32)
    draw.draw_mesh(image, xy, points, np.array([[0, 1, 2]]), colours, opacity=1.0)
    corner, middle = image[7, 8], image[22, 35]
    assert corner[0] > 10 * corner[1:].max()
    assert middle.min() > 0.9 * middle.max() and middle.sum() == pytest.approx(corner.sum(), rel=0.01)
