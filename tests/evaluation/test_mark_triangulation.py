"""Marks in space: each step against OpenCV, and the whole against the package's geometry, of which it uses nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from support.fit_scene import dome, make_scene
from support.marked import marks_of, seen_by, true_caps
from usthand.capture.calibration.read import load_calibration
from usthand.capture.capture import Capture, FrameSource
from usthand.capture.rig import Camera, build_rig
from usthand.common.errors import UsthandError
from usthand.evaluation.mark_triangulation import imaged, place, place_tips, undistorted
from usthand.evaluation.marks import load_marks
from usthand.geometry.cameras import project
from usthand.geometry.triangulation import triangulate

RIG = dome(4)
LENSES = {
    "pinhole 0": ("pinhole", []),
    "pinhole 5": ("pinhole", [-0.33, 0.05, -0.004, 0.004, 0.06]),
    "pinhole 8": ("pinhole", [0.2, -0.1, 0.001, 0.002, 0.01, 0.3, 0.02, 0.005]),
    "pinhole 12": ("pinhole", [0.1, -0.05, 0.001, 0.002, 0.01, 0.2, 0.01, 0.001, 0.01, -0.002, 0.008, 0.001]),
    "fisheye": ("fisheye", [0.05, -0.02, 0.01, -0.003]),
    "fisheye624": ("fisheye624", [0.05, -0.02, 0.01, -0.003, 0.001, 0.0005, 2e-3, -1e-3, 1e-3, 2e-4, -5e-4, 1e-4]),
    "double_sphere": ("double_sphere", [-0.2, 0.6]),
}


def camera_with(lens: str) -> Camera:
    model, k = LENSES[lens]
    return replace(RIG.cameras[1], model=model, distortion=np.array(k))


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(-0.15, 0.15, (50, 3))


@pytest.mark.parametrize("lens", [name for name in LENSES if name.startswith(("pinhole", "fisheye"))][:5])
def test_cameras_image_as_opencv_does(lens, points):
    camera = camera_with(lens)
    turn, k = cv2.Rodrigues(camera.rotation)[0], np.array(camera.distortion)
    of = cv2.fisheye.projectPoints if camera.model == "fisheye" else cv2.projectPoints
    order = (turn, camera.translation, camera.matrix, k)
    np.testing.assert_allclose(imaged(camera, points), of(points[:, None], *order)[0][:, 0], atol=1e-9)


@pytest.mark.parametrize("lens", ["fisheye624", "double_sphere"])
def test_lenses_that_opencv_lacks_agree_with_the_packages_own(lens, points):
    """Which `tests/geometry` compares with the makers' formulas."""
    camera = camera_with(lens)
    theirs = project(replace(RIG, cameras=(camera,)).tensors(torch.float64), torch.from_numpy(points))[0][0].numpy()
    np.testing.assert_allclose(imaged(camera, points), theirs, atol=1e-9)


@pytest.mark.parametrize("lens", LENSES)
def test_undistorting_is_the_inverse(lens, points):
    camera = camera_with(lens)
    seen = points @ camera.rotation.T + camera.translation
    for pixel, ray in zip(imaged(camera, points), seen[:, :2] / seen[:, 2:], strict=True):
        np.testing.assert_allclose(undistorted(camera, pixel), ray, atol=1e-7)


def test_a_place_is_where_opencvs_undistorted_errors_are_least(points):
    """At the optimum the gradient of the squared errors is zero; rays and derivative are OpenCV's."""
    rng = np.random.default_rng(1)
    for point in points[:10]:
        seen = {c.name: seen_by(c, point)[0][0] + rng.normal(size=2) for c in RIG.cameras}
        found = place(RIG, seen)
        gradient, size = np.zeros(3), 0.0
        for camera in RIG.cameras:
            ideal = replace(camera, distortion=np.zeros(0))
            uv, jacobian = seen_by(ideal, found.point)
            stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 200, 1e-12)
            k = (camera.matrix, camera.distortion)
            straight = cv2.undistortPoints(seen[camera.name][None, None], *k, None, None, camera.matrix, stop)
            gradient += jacobian[0].T @ (uv[0] - straight[0, 0])
            size += np.linalg.norm(jacobian[0].T @ (uv[0] - straight[0, 0]))
            np.testing.assert_allclose(
                found.residuals[camera.name], seen_by(camera, found.point)[0][0] - seen[camera.name]
            )
        assert np.linalg.norm(gradient) < 1e-5 * size
        information = sum(j.T @ j for j in (seen_by(c, found.point)[1][0] for c in RIG.cameras))
        np.testing.assert_allclose(found.information, information, rtol=1e-4, atol=1e-4 * information.max())


def test_exact_marks_give_the_exact_points():
    scene = make_scene(n_frames=3)
    caps = true_caps(scene)
    tips = place_tips(marks_of(scene.rig, caps), scene.rig)
    assert tips.marked == tips.in_views == len(tips.tips) == 15
    assert {(tip.side, tip.frame, tip.finger) for tip in tips.tips} == {
        ("right", t, f) for t in range(3) for f in range(5)
    }
    for tip in tips.tips:
        np.testing.assert_allclose(tip.tip, caps[tip.frame, tip.finger], atol=1e-9)
    assert tips.std_px < 1e-5 and max(tips.camera_px.values()) < 1e-5


def test_noise_is_found_again():
    """.5 px on each axis: the estimate has 5 x 5 tips x 5 degrees of freedom each, so it is good to 1 / sqrt(2 n)."""
    caps = true_caps(scene := make_scene(n_frames=5))
    tips = place_tips(marks_of(scene.rig, caps, noise_px=0.5), scene.rig)
    assert tips.std_px == pytest.approx(0.5, rel=4 / np.sqrt(2 * 25 * 5))
    both = [*marks_of(scene.rig, caps, "A", 0.5, 1), *marks_of(scene.rig, caps, "B", 0.5, 2)]
    assert place_tips(both, scene.rig).std_px == pytest.approx(0.5 / np.sqrt(2), rel=4 / np.sqrt(2 * 25 * 5))


def test_a_view_that_disagrees_is_left_out_and_counted():
    caps = true_caps(scene := make_scene(n_frames=3))
    marks = marks_of(scene.rig, caps)
    wrong = [replace(m, u_px=m.u_px + 40) if m.view == (1, "right", "ring", "cam_2") else m for m in marks]
    tips = place_tips(wrong, scene.rig)
    assert tips.dropped == {"cam_0": 0, "cam_1": 0, "cam_2": 1, "cam_3": 0} and len(tips.tips) == 15
    assert max(np.linalg.norm(tip.tip - caps[tip.frame, tip.finger]) for tip in tips.tips) < 1e-9
    strict = place_tips([m for m in wrong if m.camera != "cam_3"], scene.rig)
    assert len(strict.tips) == 14 and strict.in_views == 15  # three views, of which one is wrong, place nothing
    assert len(place_tips([m for m in wrong if m.camera != "cam_3"], scene.rig, max_residual_px=100).tips) == 15


def test_what_cannot_be_placed_is_told():
    caps = true_caps(scene := make_scene(n_frames=2))
    marks = marks_of(scene.rig, caps)
    with pytest.raises(UsthandError, match="no fingertip is marked in 3 views of one frame"):
        place_tips([m for m in marks if m.camera in ("cam_0", "cam_1")], scene.rig)
    half = [replace(m, u_px=m.u_px / 2, v_px=m.v_px / 2) for m in marks]
    with pytest.raises(UsthandError, match=r"no 3 views agree within 6 px on any of 10 .* another size"):
        place_tips(half, scene.rig)


def test_two_implementations_agree_on_the_real_clip(shared_data):
    """Four webcams, of which one has strong distortion: the package's own triangulation finds the same points."""
    folder = shared_data / "webcams4"
    rig = build_rig(load_calibration(folder / "config.toml"))
    sources = tuple(FrameSource(folder / f"{c.name}.mp4", 111, c.size) for c in rig.cameras)
    marks = load_marks([folder / "fingertips.csv"], Capture(folder, rig, sources, 6.0))
    views = defaultdict(lambda: defaultdict(list))
    for mark in marks:
        views[mark.side, mark.frame, mark.finger][mark.camera].append((mark.u_px, mark.v_px))
    compared = 0
    for seen in views.values():
        if len(seen) < 3:
            continue
        seen = {name: np.mean(uv, 0) for name, uv in seen.items()}
        uv, weight = np.zeros((len(rig), 1, 2)), np.zeros((len(rig), 1))
        for name, pixel in seen.items():
            uv[rig.index(name)], weight[rig.index(name)] = pixel, 1.0
        own = triangulate(rig.tensors(torch.float64), torch.from_numpy(uv), torch.from_numpy(weight), iterations=5)
        np.testing.assert_allclose(place(rig, seen).point, own[0].numpy(), atol=1e-6)
        compared += 1
    assert compared > 50
