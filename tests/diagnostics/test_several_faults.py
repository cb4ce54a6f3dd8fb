"""Several faults at once, and a fault that no known mistake explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from support.check_captures import broken_rig, check, faults, labelled_rig, same_relative_pose
from usthand.diagnostics import corrections


def test_inverted_and_millimetres():
    made = labelled_rig(18, 4, "heavy")
    report = check(
        made, broken_rig(made.rig, lambda c: corrections.inverted(corrections.scaled_translation(c, 1000.0)))
    )
    assert [finding.fault for finding in report.findings] == ["inverted_extrinsics", "wrong_unit"]
    same_relative_pose(report.rig, made.rig, 1e-6, 1e-9)


def test_exchanged_and_out_of_step():
    made = labelled_rig(19, 4, "heavy", frames=150, timing={3: (11.0, 0.0)})
    one, two, *rest = made.rig.cameras
    rig = replace(made.rig, cameras=(replace(two, name=one.name), replace(one, name=two.name), *rest))
    report = check(made, rig)
    assert faults(report) == [("swapped_cameras", ("cam0", "cam1")), ("out_of_step", ("cam3",))]
    assert report.offsets == {"cam3": -11}


def test_two_cameras_inverted():
    made = labelled_rig(20, 5, "heavy")
    report = check(made, broken_rig(made.rig, corrections.inverted, [0, 3]))
    assert sorted(faults(report)) == [("inverted_extrinsics", ("cam0",)), ("inverted_extrinsics", ("cam3",))]
    same_relative_pose(report.rig, made.rig, 1e-6, 1e-9)


def test_what_nothing_explains_is_said():
    made = labelled_rig(21, 4, "light")
    rng = np.random.default_rng(0)
    rig = broken_rig(made.rig, lambda c: replace(c, rotation=Rotation.random(random_state=rng).as_matrix()))
    report = check(made, rig)
    assert [finding.fault for finding in report.findings] == ["disagreement"]
    assert report.rig is None and report.offsets is None
