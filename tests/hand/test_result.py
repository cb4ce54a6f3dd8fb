from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.type_checks import unchecked
from usthand.common.errors import UsthandError
from usthand.geometry.rotations import rotation_from_axis_angle
from usthand.hand.result import Result, load_result
from usthand.hand.skeleton import JOINTS, MANO_TO_OPENPOSE


def covariances(rng: np.random.Generator, time: int, points: int, std_m: float) -> np.ndarray:
    factor = rng.normal(size=(time, points, 3, 3)) * std_m
    return factor @ factor.swapaxes(-1, -2)


def make_result(rng: np.random.Generator, time: int = 7, vertices: int = 778) -> Result:
    """A result that has everything a result can have."""
    return Result(
        joints_world_m=rng.normal(size=(time, 21, 3)) * 0.1,
        joints_cov_m2=covariances(rng, time, 21, 0.003),
        vertices_world_m=rng.normal(size=(time, vertices, 3)) * 0.1,
        pose=rng.normal(size=(time, 48)),
        shape=rng.normal(size=34),
        translation_m=rng.normal(size=(time, 3)),
        side="right",
        frame=np.arange(time) * 2,
        valid=rng.random(time) < 0.7,
        joint_valid=rng.random((time, 21)) < 0.8,
        unit_source="metres from the calibration",
        metric=True,
        method="test",
        joint_model="soft",
        cameras=("cam_0", "cam_1"),
        faces=rng.integers(0, max(vertices, 1), size=(5 if vertices else 0, 3)),
        detector_joints_world_m=rng.normal(size=(time, 21, 3)) * 0.1,
        detector_joints_cov_m2=covariances(rng, time, 21, 0.003),
        vertices_cov_m2=covariances(rng, time, vertices, 0.004).astype(np.float32),
    )


@pytest.fixture
def result() -> Result:
    return make_result(np.random.default_rng(0))


def assert_same(a: Result, b: Result, atol: float = 0.0) -> None:
    for field in fields(Result):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray) and left.dtype.kind == "f":
            assert left.dtype == right.dtype, field.name
            np.testing.assert_allclose(left, right, rtol=0, atol=atol, err_msg=field.name)
        else:
            assert np.array_equal(left, right), field.name


def test_file_gives_back_what_was_saved(result, tmp_path):
    path = result.save(tmp_path / "deep" / "r.npz")
    # Vertices are stored in single precision: 1e-7 of a metre here. All else comes back as it was.
    assert_same(load_result(path), result, atol=1e-7)
    assert_same(replace(load_result(path), vertices_world_m=result.vertices_world_m), result)
    assert [p.name for p in path.parent.iterdir()] == ["r.npz"]
    assert load_result(path).cameras == ("cam_0", "cam_1")


def test_plain_numpy_reads_the_file(result, tmp_path):
    with np.load(result.save(tmp_path / "r.npz"), allow_pickle=False) as file:
        assert tuple(file["joint_names"]) == JOINTS
        np.testing.assert_array_equal(file["joints_world_m"], result.joints_world_m)
        assert str(file["unit_source"]) == "metres from the calibration"


@pytest.mark.parametrize(
    "name",
    [
        *("joints_world_m", "joints_cov_m2", "vertices_world_m", "pose", "shape", "translation_m"),
        *("detector_joints_world_m", "vertices_cov_m2"),
    ],
)
def test_nan_is_refused(result, name):
    spoilt = getattr(result, name).copy()
    spoilt.flat[3] = np.nan
    with pytest.raises(ValueError, match=f"{name} holds 1 numbers that are not finite"):
        replace(result, **{name: spoilt})


def test_wrong_shapes_sides_and_frames_are_refused(result):
    with unchecked(), pytest.raises(ValueError, match=r"pose has shape \(7, 45\)"):
        replace(result, pose=result.pose[:, :45])
    with pytest.raises(ValueError, match="side"):
        replace(result, side="Right")
    with pytest.raises(ValueError, match="faces name vertices"):
        replace(result, faces=np.array([[0, 1, 778]]))
    with pytest.raises(ValueError, match="increase"):
        replace(result, frame=result.frame[::-1])
    with pytest.raises(ValueError, match="9 coefficients, expected 10 or more"):
        replace(result, shape=result.shape[:9])
    with pytest.raises(ValueError, match="detector_joints_world_m has 20 points, expected 21 or none"):
        few = {"detector_joints_world_m": result.joints_world_m[:, :20]}
        replace(result, **few, detector_joints_cov_m2=result.joints_cov_m2[:, :20])
    with pytest.raises(ValueError, match="vertices_cov_m2 has 777 points, expected 778 or none"):
        replace(result, vertices_cov_m2=result.vertices_cov_m2[:, :777])


def test_what_a_method_may_leave_out_is_empty(result, tmp_path):
    without = {f.name: getattr(result, f.name) for f in fields(Result)}
    del without["detector_joints_world_m"], without["detector_joints_cov_m2"], without["vertices_cov_m2"]
    bare = Result(**without)
    assert result.has_vertices_cov and not bare.has_vertices_cov
    for one in (bare, bare.mirrored(), bare.keep(1.0), load_result(bare.save(tmp_path / "r.npz"))):
        assert one.detector_joints_world_m.shape == (7, 0, 3)
        assert one.detector_joints_cov_m2.shape == one.vertices_cov_m2.shape == (7, 0, 3, 3)
        assert one.vertices_std_mm.shape == (7, 0) and one.std_mm.shape == (7, 21)
    names = ("joints_world_m", "joints_cov_m2", "vertices_world_m", "pose", "translation_m")
    cut = {name: getattr(bare, name)[:3] for name in (*names, "frame", "valid", "joint_valid", "source")}
    with unchecked():  # what is empty needs no cutting
        assert replace(bare, **cut).vertices_cov_m2.shape == (3, 0, 3, 3)
    detected = {name: getattr(result, name)[:3] for name in ("detector_joints_world_m", "detector_joints_cov_m2")}
    with unchecked(), pytest.raises(ValueError, match=r"vertices_cov_m2 has shape \(7, 778, 3, 3\)"):
        replace(result, **cut, **detected)


def test_the_std_of_a_vertex_is_along_its_worst_direction(result):
    """Axes of 1, 2 and 3 mm, turned anyhow: 3 mm, to single precision."""
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(7, 778, 3, 3)))[0]
    cov = np.einsum("tvab,b,tvcb->tvac", turn, np.array([1.0, 4.0, 9.0]) * 1e-6, turn)
    turned = replace(result, vertices_cov_m2=cov.astype(np.float32))
    np.testing.assert_allclose(turned.vertices_std_mm, 3.0, rtol=1e-5)


def test_a_file_keeps_each_covariance_of_a_vertex_once(result, tmp_path):
    with np.load(result.save(tmp_path / "r.npz")) as file:
        upper = file["vertices_cov_m2"]
    cov = result.vertices_cov_m2
    assert upper.dtype == np.float32 and upper.shape == (7, 778, 6)
    for place, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]):
        np.testing.assert_array_equal(upper[..., place], cov[..., row, column])


def test_joint_by_name(result):
    np.testing.assert_array_equal(result.joint("index_tip"), result.joints_world_m[:, 8])
    with pytest.raises(ValueError, match="index_tip"):
        result.joint("index_finger_tip")


def test_mano_order_undoes_our_map(result):
    np.testing.assert_array_equal(result.to_order("mano")[:, list(MANO_TO_OPENPOSE)], result.joints_world_m)
    np.testing.assert_array_equal(result.to_order(["wrist", "little_tip"]), result.joints_world_m[:, [0, 20]])
    with pytest.raises(ValueError, match="mano"):
        result.to_order("smplx")


def test_keep_uses_the_worst_direction(result):
    variance_mm2 = np.zeros((7, 21, 3))
    variance_mm2[..., 0] = 1.0
    variance_mm2[..., 2] = 36.0  # six millimetres in depth: no longer within five
    variance_mm2[:, 3, 2] = 16.0
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    cov = np.einsum("ab,tjb,cb->tjac", turn, variance_mm2 * 1e-6, turn)
    sure = replace(result, joints_cov_m2=cov, joint_valid=np.ones((7, 21), bool))
    np.testing.assert_allclose(sure.std_mm[:, 3], 4.0, rtol=1e-9)
    kept = sure.keep(max_std_mm=5.0)
    assert kept.joint_valid[:, 3].all() and kept.joint_valid.sum() == 7
    assert not sure.keep(max_std_mm=3.9).joint_valid.any()
    assert not replace(sure, joint_valid=np.zeros((7, 21), bool)).keep(1e9).joint_valid.any()


def test_mirror_is_exact_and_its_own_inverse(result):
    mirror = result.mirrored()
    assert mirror.side == "left" and mirror.mirrored().side == "right"
    assert_same(mirror.mirrored(), result)
    flip = np.diag([-1.0, 1.0, 1.0])
    np.testing.assert_array_equal(mirror.joints_cov_m2, flip @ result.joints_cov_m2 @ flip)
    np.testing.assert_array_equal(mirror.vertices_cov_m2, flip @ result.vertices_cov_m2 @ flip)
    np.testing.assert_array_equal(mirror.joints_world_m, result.joints_world_m @ flip)
    np.testing.assert_array_equal(mirror.detector_joints_world_m, result.detector_joints_world_m @ flip)
    before, after = (
        rotation_from_axis_angle(torch.from_numpy(r.pose.reshape(-1, 3))).numpy() for r in (result, mirror)
    )
    np.testing.assert_allclose(after, flip @ before @ flip, atol=1e-12)


def test_result_without_mesh(tmp_path):
    bare = make_result(np.random.default_rng(3), vertices=0)
    assert not bare.has_mesh
    assert load_result(bare.save(tmp_path / "r.npz")).vertices_world_m.shape == (7, 0, 3)


def test_bad_files_end_in_one_sentence(result, tmp_path):
    path = result.save(tmp_path / "r.npz")
    with pytest.raises(UsthandError, match="does not exist"):
        load_result(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UsthandError, match="cannot be read"):
        load_result(tmp_path / "text.npz")
    whole = path.read_bytes()
    for share in (0.0, 0.3, 0.9, 0.999):
        (tmp_path / "cut.npz").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UsthandError, match="cannot be read"):
            load_result(tmp_path / "cut.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UsthandError, match="cannot be read"):
        load_result(tmp_path / "array.npy")
    np.savez(tmp_path / "other.npz", uv_px=np.zeros(3))
    with pytest.raises(UsthandError, match="no usthand result"):
        load_result(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": np.array(4)}, "result version 4"),
        ({"pose": None}, "lacks pose"),
        ({"pose": np.full((7, 48), np.nan)}, "not finite"),
        ({"valid": np.ones(6, bool)}, "valid has shape"),
        ({"vertices_cov_m2": np.zeros((7, 778, 3, 3))}, "vertices_cov_m2 has shape"),
        ({"detector_joints_world_m": None}, "lacks detector_joints_world_m"),
    ],
)
def test_edited_files_end_in_one_sentence(result, tmp_path, change, message):
    with np.load(result.save(tmp_path / "r.npz")) as file:
        arrays = {name: file[name] for name in file.files} | change
    np.savez(tmp_path / "edited.npz", **{name: array for name, array in arrays.items() if array is not None})
    with unchecked(), pytest.raises(UsthandError, match=message):
        load_result(tmp_path / "edited.npz")


def test_in_a_notebook_it_is_one_line(result):
    assert repr(result) == f"<{result.valid.sum()} of 7 frames, right hand, test, soft joints>"


def as_version(result: Result, path: Path, version: int, **changes) -> Path:
    """A file as that version of the program wrote it."""
    with np.load(result.save(path)) as file:
        arrays = {name: file[name] for name in file.files} | {"version": np.array(version)}
    del arrays["detector_joints_world_m"], arrays["detector_joints_cov_m2"], arrays["vertices_cov_m2"]
    if version == 1:
        arrays |= {"scale": arrays.pop("unit_source"), "joints": arrays.pop("joint_model")}
    np.savez(path, **arrays | changes)
    return path


def test_an_old_file_in_the_calibrations_own_unit_is_converted(result, tmp_path):
    """Version 1 kept lengths in the unit of a calibration without scale, here a decimetre, and other names."""
    path = as_version(result, tmp_path / "r.npz", 1, metric=np.array(False), unit_m=np.array(0.1))
    found = load_result(path)
    assert not found.metric and found.unit_m == 0.1
    for name, factor in (("joints_world_m", 0.1), ("joints_cov_m2", 0.01), ("translation_m", 0.1)):
        np.testing.assert_allclose(getattr(found, name), factor * getattr(result, name), rtol=1e-12)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "unit_m"}  # files before the unit was kept
    np.savez(path, **arrays)
    assert load_result(path).unit_m == 1.0


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["rigid", "soft", "free"])
def test_the_soft_joints_of_an_old_file_are_the_detectors(result, tmp_path, version, kind):
    """Before version 3 they were in place of the model's, of which such a file says nothing."""
    path = as_version(replace(result, joint_model=kind), tmp_path / "r.npz", version)
    found, empty = load_result(path), np.zeros((7, 0, 3))
    np.testing.assert_array_equal(found.joints_world_m, result.joints_world_m)
    assert found.joint_model == ("rigid" if kind == "rigid" else "free") and not found.has_vertices_cov
    np.testing.assert_array_equal(found.detector_joints_world_m, result.joints_world_m if kind == "soft" else empty)
    covariance = result.joints_cov_m2 if kind == "soft" else np.zeros((7, 0, 3, 3))
    np.testing.assert_array_equal(found.detector_joints_cov_m2, covariance)
    again = load_result(found.save(tmp_path / "again.npz"))
    assert_same(again, found, atol=1e-7)
