"""Calibrations by structure from motion: nerfstudio and COLMAP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.calibrations import (
    COLMAP_LENSES,
    FISHEYE,
    FIVE,
    ONE_FOCAL,
    assert_same,
    make_rig,
    opengl,
    write_colmap,
    write_nerfstudio,
)
from usthand.capture.calibration.read import load_calibration, recognise
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError


def one_lens(rig: Rig) -> Rig:
    return Rig(tuple(replace(c, matrix=rig.cameras[0].matrix) for c in rig.cameras))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("lens", [("pinhole", FIVE), ("fisheye", FISHEYE)])
def test_nerfstudio(tmp_path, lens, shared):
    """OpenGL's axes, camera->world, half a pixel, and intrinsics for all or for each."""
    rig = make_rig(lens)
    rig = one_lens(rig) if shared else rig
    found = load_calibration(write_nerfstudio(tmp_path, rig, shared))
    assert recognise(tmp_path) == recognise(tmp_path / "transforms.json") == "nerfstudio"
    assert not found.metric and "arbitrary" in found.unit_source
    assert_same(found, rig)
    assert_same(load_calibration(tmp_path, scale=2.5), rig, 1 / 2.5)


def test_a_nerf_with_a_field_of_view_only(tmp_path):
    rig = make_rig(("pinhole", np.zeros(5)), 2)
    frames = [{"file_path": f"./{c.name}.png", "transform_matrix": opengl(c)} for c in rig.cameras]
    data = {"camera_angle_x": 2 * np.arctan(0.5), "w": 640, "h": 480, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    found = load_calibration(tmp_path).cameras[0]
    assert np.abs(found.matrix - [[640, 0, 319.5], [0, 640, 239.5], [0, 0, 1]]).max() < 1e-9


@pytest.mark.parametrize(
    "change, fact",
    [({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"), ({"k4": 0.1}, "perspective camera with k4")],
)
def test_what_nerfstudio_has_and_we_have_not(tmp_path, change, fact):
    write_nerfstudio(tmp_path, one_lens(make_rig()), True, **change)
    with pytest.raises(UsthandError, match=fact):
        load_calibration(tmp_path)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", COLMAP_LENSES)
def test_colmap(tmp_path, kind, binary):
    """World->camera, half a pixel; text and binary; lenses that are none of ours are refused by name."""
    _, model, k = COLMAP_LENSES[kind]
    rig = make_rig((model, np.asarray(k, float)), square=kind in ONE_FOCAL)
    path = write_colmap(tmp_path / "sparse" / "0", rig, kind, binary)
    if kind in ("FOV", "THIN_PRISM_FISHEYE"):
        with pytest.raises(UsthandError, match=f"has the model {kind}"):
            load_calibration(path)
        return
    found = load_calibration(tmp_path)
    assert (
        recognise(tmp_path) == recognise(path / f"images.{'bin' if binary else 'txt'}") == "colmap" and not found.metric
    )
    assert_same(found, rig)


def frames_of(rig: Rig, moved_m: float = 0.0) -> Rig:
    """Every camera twice, the second time moved."""
    return Rig(
        tuple(
            replace(c, name=f"{c.name}_{k}", translation=c.translation + moved_m * k)
            for c in rig.cameras
            for k in (0, 1)
        )
    )


@pytest.mark.parametrize("kind", ["colmap", "nerfstudio"])
def test_several_images_of_a_camera(tmp_path, kind):
    rig = make_rig(("pinhole", FIVE[:4]), names=("left", "mid", "right"))
    twice = frames_of(rig, 1e-4)

    def write(which: Rig, files, cameras=None) -> Path:
        if kind == "colmap":
            return write_colmap(tmp_path, which, "OPENCV", False, files, cameras)
        return write_nerfstudio(tmp_path, which, False, files)

    folders = [f"images/{c.name.split('_')[0]}/000{i % 2}.jpg" for i, c in enumerate(twice.cameras)]
    found = load_calibration(write(twice, folders, [1, 1, 2, 2, 3, 3]))
    assert_same(found, rig)  # one of each folder, named by it
    flat = [f"images/{c.name.split('_')[0]}_000{i % 2}.jpg" for i, c in enumerate(twice.cameras)]
    assert_same(
        load_calibration(write(twice, flat, [1, 1, 2, 2, 3, 3])), rig
    )  # one of each lens, named by what is common
    chosen = load_calibration(tmp_path, images=("left_0000", "right_0001.jpg"))
    assert chosen.names == ("left_0000", "right_0001")
    with pytest.raises(UsthandError, match="has 0 images 'centre'"):
        load_calibration(tmp_path, images=("centre",))
    with pytest.raises(UsthandError, match="camera of images/left moves"):
        load_calibration(write(frames_of(rig, 0.5), folders, [1, 1, 2, 2, 3, 3]))
    # One lens for all and every image elsewhere: each is a camera.
    same = Rig(tuple(replace(c, matrix=rig.cameras[0].matrix) for c in rig.cameras))
    assert_same(load_calibration(write(same, None, [1, 1, 1])), same)
