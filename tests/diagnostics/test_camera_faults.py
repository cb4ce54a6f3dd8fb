"""Faults of cameras: each is found, named and fixed in a capture that has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from support.check_captures import broken_rig, check, faults, labelled_rig, only, same_relative_pose, wide_rig
from usthand.capture.rig import Camera
from usthand.diagnostics import corrections


@pytest.mark.parametrize("views,level", [(2, "heavy"), (4, "heavy")])
@pytest.mark.parametrize(
    "fault,mistake",
    [
        ("inverted_extrinsics", corrections.inverted),
        ("inverted_extrinsics", lambda c: replace(c, translation=c.centre_world)),
        ("flipped_axes", corrections.opencv_axes),
        ("flipped_axes", lambda c: corrections.inverted(corrections.opencv_axes(c))),
        ("wrong_size", lambda c: corrections.scaled_matrix(c, 2.0)),
    ],
    ids=["inverted", "centre", "opengl", "opengl inverted", "matrix of another size"],
)
def test_mistakes_of_all_cameras(views, level, fault, mistake):
    made = labelled_rig(2, views, level)
    report = check(made, broken_rig(made.rig, mistake))
    finding = only(report)
    assert (finding.fault, finding.cameras) == (fault, made.rig.names)
    assert finding.evidence["after"] < finding.evidence["before"] / 2.5
    same_relative_pose(report.rig, made.rig, 1e-6, 1e-9)
    for fixed, true in zip(report.rig.cameras, made.rig.cameras, strict=True):
        assert np.allclose(fixed.matrix, true.matrix)


@pytest.mark.parametrize(
    "fault,mistake",
    [
        ("inverted_extrinsics", corrections.inverted),
        ("flipped_axes", corrections.opencv_axes),
        ("wrong_size", lambda c: corrections.scaled_matrix(c, 0.5)),
        ("wrong_unit", lambda c: corrections.scaled_translation(c, 1000.0)),
    ],
    ids=["inverted", "opengl", "size", "millimetres"],
)
def test_mistakes_of_one_camera(fault, mistake):
    made = labelled_rig(5, 4, "heavy")
    report = check(made, broken_rig(made.rig, mistake, [2]))
    assert faults(report) == [(fault, ("cam2",))]
    same_relative_pose(report.rig, made.rig, 1e-6, 1e-9)


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (2, 0, 1, 3), (1, 2, 3, 0)], ids=["two", "three", "all"])
def test_exchanged_cameras(order):
    made = labelled_rig(4, 4, "heavy")
    cameras = tuple(replace(made.rig.cameras[o], name=c.name) for o, c in zip(order, made.rig.cameras, strict=True))
    report = check(made, replace(made.rig, cameras=cameras))
    finding = only(report)
    assert finding.fault == "swapped_cameras"
    assert set(finding.cameras) == {f"cam{v}" for v in range(4) if order[v] != v}
    for fixed, true in zip(report.rig.cameras, made.rig.cameras, strict=True):
        assert fixed.name == true.name and np.array_equal(fixed.rotation, true.rotation)


@pytest.mark.parametrize("factor,unit", [(1000.0, "millimetres"), (100.0, "centimetres"), (1 / 0.0254, "inches")])
def test_units(factor, unit):
    made = labelled_rig(6, 3, "heavy")
    rig = broken_rig(made.rig, lambda c: corrections.scaled_translation(c, factor))
    report = check(made, rig)
    finding = only(report)
    assert finding.fault == "wrong_unit" and finding.evidence["unit"] == unit
    same_relative_pose(report.rig, made.rig, 1e-6, 1e-9)


def test_a_rig_that_says_it_is_not_metric_is_sound():
    made = labelled_rig(6, 3, "heavy")
    rig = broken_rig(made.rig, lambda c: corrections.scaled_translation(c, 1000.0))
    assert not check(made, replace(rig, metric=False)).findings


def test_board_units():
    made = labelled_rig(6, 3, "heavy")
    report = check(made, broken_rig(made.rig, lambda c: corrections.scaled_translation(c, 1 / 0.054)))
    finding = only(report)
    assert finding.evidence["unit"] == "unknown"
    assert finding.evidence["factor"] == pytest.approx(0.054, rel=0.3)  # of the palm people's differ by 15 % or so
    assert not report.rig.metric


@pytest.mark.parametrize("views,level,degrees", [(4, "heavy", 12.0), (3, "light", 4.0)])
def test_turned_camera(views, level, degrees):
    made = labelled_rig(7, views, level)

    def turned(camera: Camera) -> Camera:
        turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, -0.64, 0.48])).as_matrix()
        return replace(camera, rotation=turn @ camera.rotation, translation=turn @ camera.translation)

    report = check(made, broken_rig(made.rig, turned, [1]))
    finding = only(report)
    assert (finding.fault, finding.cameras) == ("moved_camera", ("cam1",))
    # What of the label noise is constant for a view (.02 hand sizes of some 20 degrees) goes into the angle.
    assert finding.evidence["angle_deg"] == pytest.approx(degrees, abs=1.0)
    same_relative_pose(report.rig, made.rig, 1.5, 0.03)


def test_two_cameras_that_disagree_are_not_told_apart():
    made = labelled_rig(7, 2, "light")
    turn = Rotation.from_rotvec([0.5, 0.2, 0.3]).as_matrix()
    rig = broken_rig(made.rig, lambda c: replace(c, rotation=turn @ c.rotation, translation=turn @ c.translation), [1])
    report = check(made, rig)
    assert "moved_camera" not in [finding.fault for finding in report.findings] and report.findings


LENS_MISTAKES = {
    "fisheye read as pinhole": ("fisheye", lambda c: replace(c, model="pinhole"), "fisheye"),
    "pinhole read as fisheye": ("pinhole", lambda c: replace(c, model="fisheye", distortion=np.zeros(4)), "pinhole"),
    "distortion dropped": ("barrel", lambda c: replace(c, distortion=np.zeros(0)), "fitted"),
    "undistorted already": ("pinhole", lambda c: replace(c, distortion=np.array([-0.3, 0.1, 0, 0, 0])), "undistorted"),
}


@pytest.mark.parametrize("name", LENS_MISTAKES)
@pytest.mark.parametrize("views", [None, [1]], ids=["all", "one"])
def test_lenses(name, views):
    lens, mistake, kind = LENS_MISTAKES[name]
    made = labelled_rig(8, 4, "light", rig=wide_rig(8, 4, lens), roam_m=0.25, frames=200)
    report = check(made, broken_rig(made.rig, mistake, views))
    finding = only(report)
    assert finding.fault == "wrong_lens" and finding.evidence["kind"] == kind
    assert finding.cameras == (made.rig.names if views is None else ("cam1",))
    assert finding.evidence["after_px"] < finding.evidence["before_px"] / 1.5
