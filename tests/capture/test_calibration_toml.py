"""Calibrations in TOML: Caliscope, Anipose, FreeMoCap and our own."""

from __future__ import annotations

import pytest

from support.calibrations import FISHEYE, FIVE, META, assert_same, make_rig, write_anipose, write_caliscope
from usthand.capture.calibration.read import load_calibration, recognise
from usthand.capture.rig import load_rig, save_rig


def test_caliscope(tmp_path):
    """cam_10 comes after cam_2, although its string comes before."""
    rig = make_rig(names=("cam_0", "cam_2", "cam_10"))
    assert_same(load_calibration(write_caliscope(tmp_path, rig)), rig)
    assert recognise(tmp_path / "config.toml") == "caliscope"
    assert_same(load_rig(tmp_path / "config.toml"), rig)
    short = write_caliscope(tmp_path, rig, ("cameras.0", "cameras.2", "cameras.10"))
    assert_same(load_calibration(short), rig)


@pytest.mark.parametrize("lens", [("pinhole", FIVE), ("fisheye", FISHEYE)])
def test_anipose(tmp_path, lens):
    """Eleven cameras, so that their keys sort wrongly; rotation vectors; no metre."""
    rig = make_rig(lens, 11)
    path = write_anipose(tmp_path, rig, 0.0254, fisheye=lens[0] == "fisheye")
    found = load_calibration(path)
    assert recognise(path) == "anipose" and not found.metric and "board" in found.unit_source
    assert_same(found, rig, 0.0254)
    scaled = load_calibration(path, scale=0.0254)
    assert scaled.metric and "0.0254 m" in scaled.unit_source and "--scale" in scaled.unit_source
    assert_same(scaled, rig)


def test_freemocap_is_in_millimetres(tmp_path):
    rig = make_rig(names=("Camera_000", "Camera_001", "Camera_002"))
    path = write_anipose(tmp_path, rig, 1e-3, "charuco_square_size = 58.0\n")
    found = load_calibration(path)
    assert recognise(path) == "freemocap" and found.metric and "millimetres" in found.unit_source
    assert_same(found, rig)
    assert_same(load_rig(path), rig)
    path = write_anipose(tmp_path, rig, 1e-3, world_position=[1.0, 2.0, 3.0])
    assert recognise(path) == "freemocap"
    assert_same(load_calibration(path), rig)


def test_a_freemocap_board_of_unit_squares_has_no_scale(tmp_path):
    rig = make_rig()
    found = load_calibration(write_anipose(tmp_path, rig, 0.058, "charuco_square_size = 1\n"))
    assert not found.metric and "given as 1" in found.unit_source
    assert_same(found, rig, 0.058)


def test_our_own_is_read_too(tmp_path):
    rig = make_rig(("fisheye624", META))
    save_rig(rig, tmp_path / "rig.toml")
    assert_same(load_calibration(tmp_path / "rig.toml"), rig)
    doubled = load_calibration(tmp_path / "rig.toml", scale=2.0)
    assert_same(doubled, rig, 0.5)
