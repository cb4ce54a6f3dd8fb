"""`usthand check` on cameras that stand too close together, or opposite each other, to place a hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.baselines import FPS, NOISES, verged_scene
from support.check_captures import check, faults, labelled_rig, only
from usthand.capture.rig import Rig
from usthand.diagnostics.agreement import make_views
from usthand.diagnostics.check import CheckReport, check_facts, make_case
from usthand.diagnostics.folder import CaptureFacts
from usthand.diagnostics.placement import placement
from usthand.labels.labels import Labels


def check_verged(rig: Rig, labels: Labels) -> CheckReport:
    return check_facts(CaptureFacts(Path("capture"), rig, (labels,), dict.fromkeys(rig.names), FPS, {}, {}))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("degrees", [4, 8])
def test_a_narrow_baseline_is_reported_with_its_angle_and_depth(degrees, noise):
    """The stated depth is that of two views: 0.025 of 180 mm over sqrt(2) sin(b / 2). The hand wanders 6 cm about the
    point that the axes cross in, a tenth of its distance, which the angle follows."""
    scene = verged_scene(1, degrees, noise, frames=90)
    finding = only(check_verged(scene.rig, scene.labels))
    assert finding.fault == "narrow_baseline" and finding.severity == "warning"
    assert finding.cameras == ("left", "right")
    assert finding.evidence["angle_deg"] == pytest.approx(degrees, rel=0.1)
    expected = 0.025 * 180 / (np.sqrt(2) * np.sin(np.radians(degrees) / 2))
    assert finding.evidence["std_mm"] == pytest.approx(expected, rel=0.1)
    assert f"{finding.evidence['std_mm']:.0f} mm" in finding.sentence


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("degrees", [12, 30, 90])
def test_wider_baselines_are_sound(degrees, noise):
    scene = verged_scene(1, degrees, noise, frames=90)
    assert not faults(check_verged(scene.rig, scene.labels))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("degrees", [0, 1])
def test_cameras_in_one_place_are_an_error_and_end_the_check(degrees, noise):
    scene = verged_scene(1, degrees, noise, frames=90)
    finding = only(check_verged(scene.rig, scene.labels))
    assert finding.fault == "coincident_cameras" and finding.severity == "error"
    assert finding.evidence["angle_deg"] == pytest.approx(degrees, abs=0.3)


def test_cameras_that_face_each_other_are_as_narrow():
    """Angles near 180 degrees: at 180 the hand's own way from the axis is all that there is."""
    views = {
        d: placement(make_views(make_case(s.rig, (s.labels,)))) for d in (90, 176) if (s := verged_scene(1, d, "white"))
    }
    assert np.median(views[176].std) > 5 * np.median(views[90].std)
    assert np.median(views[176].angle_deg) < 15 < np.median(views[90].angle_deg)


def test_of_several_cameras_two_in_one_place_are_named_and_the_others_still_checked():
    """A pose that was copied by mistake, and two cameras that really share a place; then a further fault."""
    made = labelled_rig(3, 4, "heavy")
    cams = list(made.rig.cameras)
    cams[1] = replace(cams[1], rotation=cams[0].rotation, translation=cams[0].translation)
    copied = replace(made.rig, cameras=tuple(cams))
    finding = only(check(made, copied))
    assert finding.fault == "coincident_cameras" and finding.cameras == ("cam0", "cam1")
    shared = labelled_rig(3, 4, "heavy", rig=copied)
    assert only(check(shared)).fault == "coincident_cameras"
    cams[3] = replace(cams[3], rotation=cams[3].rotation.T)
    found = faults(check(shared, replace(copied, cameras=tuple(cams))))
    assert found[0][0] == "coincident_cameras" and ("inverted_extrinsics", ("cam3",)) in found[1:]


def test_placement_in_hand_sizes_is_that_of_repeated_measurements():
    """Monte Carlo: rays of three views that err by 2.5 % of a hand, met by least squares, scatter along the worst
    direction as stated. 4000 give a standard deviation to 1.1 %; four of these are allowed."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.6, 0.0, 0.1], [0.58, 0.15, 0.0], [0.57, 0.1, 0.2]])
    size_m = 0.18
    rays = -centres / np.linalg.norm(centres, axis=1, keepdims=True)
    points = []
    for _ in range(4000):
        left, right = np.zeros((3, 3)), np.zeros(3)
        for centre, ray in zip(centres, rays, strict=True):
            across = np.eye(3) - np.outer(ray, ray)
            shift = across @ rng.normal(size=3) * 0.025 * size_m
            left, right = left + across, right + across @ (centre + shift)
        points.append(np.linalg.solve(left, right))
    scattered = np.sqrt(np.linalg.eigvalsh(np.cov(np.array(points).T))[-1])
    from usthand.diagnostics.agreement import ViewRays

    views = [
        ViewRays(c, np.repeat(r[:, None], 21, 1), np.ones(21, bool), 0.3, 100.0)
        for c, r in zip(centres, rays, strict=True)
    ]
    assert placement(views).std[0] * size_m == pytest.approx(scattered, rel=0.045)
