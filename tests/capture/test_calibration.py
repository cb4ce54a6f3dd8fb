"""What holds for every calibration format: faults end in one sentence, and nothing in a file is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.calibrations import (
    FIVE,
    make_rig,
    write_caliscope,
    write_colmap,
    write_dexycb,
    write_easymocap,
    write_kalibr,
    write_nerfstudio,
)
from usthand.capture.calibration.read import find_calibration, load_calibration, recognise
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError


def test_tiny_numbers_are_numbers_in_yaml(tmp_path):
    """YAML 1.1 takes 1e-05 for a text; a distortion of that size must not stop a calibration."""
    rig = make_rig(("pinhole", np.array([1e-05, -2e-07, 0, 0])), 2, names=("cam0", "cam1"))
    path = write_kalibr(tmp_path, rig, "radtan")
    assert "1e-05" in path.read_text()
    assert (load_calibration(path).cameras[0].distortion == rig.cameras[0].distortion).all()


def test_yaml_runs_nothing(tmp_path):
    (tmp_path / "camchain.yaml").write_text("cam0: !!python/object/apply:os.mkdir ['made']\n")
    with pytest.raises(UsthandError):
        load_calibration(tmp_path / "camchain.yaml")
    assert not Path("made").exists()


BROKEN = {
    "c.toml": ("[[", "is not TOML"),
    "c.json": ("{", "is not JSON"),
    "c.yaml": ("a: [1", "is not YAML"),
    "d.json": ('{"a": 1}', "of no calibration format"),
    "d.yaml": ("a: 1", "of no calibration format"),
    "d.csv": ("1,2", "of no calibration format"),
    "e.json": ('{"frames": [{"transform_matrix": [[1]], "file_path": "a"}], "w": 3, "h": 3}', "transform_matrix of a"),
    "g.json": (
        '{"CameraCalibrations": [{"Label": "a", "Projection": {"Name": "FisheyeRadTanThinPrism", "Params": [1]}, '
        '"T_Device_Camera": {"Translation": 1, "UnitQuaternion": 2}}]}',
        "cannot be read",
    ),
    "h.json": (
        '{"frames": [{"transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "file_path": 3}], '
        '"w": 3, "h": 3, "fl_x": 2}',
        "cannot be read",
    ),
    "f.json": (
        '{"cameras": [{}], "camera_to_world_transforms": [[[[1]]]]}',
        "camera_to_world_transforms cannot be read",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_end_in_one_sentence(tmp_path, name):
    text, fact = BROKEN[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(UsthandError, match=fact):
        load_calibration(tmp_path / name)


def test_what_is_not_there_or_not_said_rightly(tmp_path):
    with pytest.raises(UsthandError, match="there is no"):
        load_calibration(tmp_path / "nothing.toml")
    with pytest.raises(UsthandError, match="no calibration format"):
        load_calibration(tmp_path)
    rig = make_rig()
    path = write_caliscope(tmp_path, rig)
    with pytest.raises(UsthandError, match="no format 'opencv'"):
        load_calibration(path, "opencv")
    with pytest.raises(UsthandError, match="not of the format usthand"):
        load_calibration(path, "usthand")
    with pytest.raises(UsthandError, match="only nerfstudio and COLMAP"):
        load_calibration(path, images=("a",))
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(UsthandError, match="is no length"):
            load_calibration(path, scale=scale)
    (tmp_path / "cut").mkdir()
    write_colmap(tmp_path / "cut", make_rig(("pinhole", FIVE[:4])), "OPENCV", True)
    for file in ("images.bin", "cameras.bin"):
        whole = (tmp_path / "cut" / file).read_bytes()
        (tmp_path / "cut" / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UsthandError, match="cannot be read"):
            load_calibration(tmp_path / "cut")
        (tmp_path / "cut" / file).write_bytes(whole)


def test_a_value_that_is_not_finite_is_refused_in_every_format(tmp_path):
    rig = make_rig(("pinhole", FIVE[:4]))
    bad = Rig((replace(rig.cameras[0], translation=np.array([np.nan, 0, 0])), *rig.cameras[1:]))
    for write in (
        lambda p: write_easymocap(p, bad, 1.0, True),
        lambda p: write_colmap(p, bad, "OPENCV", True),
        lambda p: write_nerfstudio(p, bad, False),
        lambda p: write_dexycb(p, bad),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with pytest.raises(UsthandError, match="not finite"):
            load_calibration(write(folder))


def test_the_real_calibration(shared_data):
    """pyxy3d's four webcams: metres, and camera->world would put the cameras elsewhere."""
    path = shared_data / "webcams4" / "config.toml"
    rig = load_calibration(path)
    assert recognise(path) == "caliscope" and rig.metric and find_calibration(path).format == "Caliscope"
    centres = np.array([c.centre_world for c in rig.cameras])
    assert 0.3 < np.linalg.norm(np.ptp(centres, axis=0)) < 3
