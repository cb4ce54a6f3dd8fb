from __future__ import annotations

from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from support.stand_in import exact_labels, make_capture, make_rig, moving_hand, result_of, tube_faces
from usthand.common.errors import UsthandError
from usthand.geometry import raster
from usthand.output import draw, overlay
from usthand.output.overlay import OverlayConfig

FRAMES = 10


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(capture, truth, result) of ten frames in three distorted cameras."""
    truth = moving_hand(FRAMES)
    capture = make_capture(tmp_path_factory.mktemp("capture"), truth, make_rig())
    covariance = np.tile(np.diag([4.0, 9.0, 25.0]) * 1e-6, (FRAMES, 21, 1, 1))
    return capture, truth, result_of(truth, joints_cov_m2=covariance, faces=tube_faces())


def test_ellipse_is_the_region_it_claims():
    rng = np.random.default_rng(0)
    factor = np.array([[6.0, 0.0], [4.0, 3.0]])
    image = np.zeros((80, 90, 3), np.float32)
    centre = np.array([44.3, 39.6])
    draw.draw_ellipse(image, centre, factor @ factor.T, 4.605170185988092, (255, 255, 255), fill=1.0, line_px=0.0)
    drawn = rng.normal(size=(50000, 2)) @ factor.T + centre
    x, y = np.round(drawn).astype(int).T
    inside = (image[np.clip(y, 0, 79), np.clip(x, 0, 89), 0] > 127).mean()
    # Ellipse of about 260 px: half a pixel along its edge is 2.5 % of it at the very most, and counts for both sides.
    assert inside == pytest.approx(0.9, abs=0.01)


def test_stroke_covers_its_area_at_any_place():
    for shift in (0.0, 0.25, 0.5):
        image = np.zeros((40, 60, 3), np.float32)
        draw.draw_stroke(image, np.array([15 + shift, 20.0]), np.array([45 + shift, 20 + shift]), 3.0, (1, 1, 1))
        length = np.hypot(30, shift)
        assert image[..., 0].sum() == pytest.approx(2 * 3.0 * length + np.pi * 9, rel=0.01)


def test_drawing_outside_the_image_changes_nothing():
    image = np.full((20, 20, 3), 9.0, np.float32)
    before = image.copy()
    draw.draw_disc(image, np.array([-50.0, 500.0]), 4, (255, 0, 0))
    draw.draw_disc(image, np.array([np.nan, 5.0]), 4, (255, 0, 0))
    draw.draw_ellipse(image, np.array([400.0, -3.0]), np.eye(2), 4.6, (255, 0, 0))
    points = np.array([[0, 0, 1.0], [1, 0, 1], [0, 1, 1]])
    draw.draw_mesh(image, points[:, :2] - 100, points, np.array([[0, 1, 2]]))
    draw.draw_mesh(image, points[:, :2] * 10, points * [1, 1, -1], np.array([[0, 1, 2]]))  # behind the camera
    np.testing.assert_array_equal(image, before)


def test_mesh_covers_what_opencv_fills():
    rng = np.random.default_rng(1)
    corners = rng.uniform(5, 90, size=(20, 3, 2))
    for triangle in corners:
        buffer = raster.empty_buffer(100, 100)
        raster.rasterise(np.c_[triangle, np.ones(3)], np.array([[0, 1, 2]], np.int32), buffer, 1)
        ours = buffer.inverse_depth > 0
        theirs = np.zeros((100, 100), np.uint8)
        cv2.fillConvexPoly(theirs, np.round(triangle * 256).astype(np.int32), 1, shift=8)
        # OpenCV also fills the pixels that the edge touches: a band of one pixel around ours.
        assert not (ours & ~theirs.astype(bool)).any()
        assert (ours | ~cv2.erode(theirs, np.ones((3, 3))).astype(bool)).all()


def test_nearer_triangle_hides_the_farther():
    flat = np.array([[0.0, 0], [40, 0], [0, 40]])
    xy = np.concatenate([flat, flat])
    for near_first in (True, False):
        depth = np.r_[np.full(3, 0.5 if near_first else 2.0), np.full(3, 2.0 if near_first else 0.5)]
        buffer, faces = raster.empty_buffer(40, 40), np.array([[0, 1, 2], [3, 4, 5]], np.int32)
        raster.rasterise(np.column_stack([xy, depth]), faces, buffer, 1)
        value = np.zeros((40, 40), np.float32)
        raster.interpolate(buffer, faces, np.repeat([1.0, 2.0], 3), value)
        assert value[5, 5] == (1.0 if near_first else 2.0)
        assert buffer.inverse_depth[5, 5] == pytest.approx(2.0)


def test_projected_covariance_is_that_of_projected_samples(scene):
    capture, truth, result = scene
    rng = np.random.default_rng(2)
    cameras = capture.rig.tensors(torch.float64)
    uv, cov = overlay.project_covariance(cameras, result.joints_world_m[:1], result.joints_cov_m2[:1])
    np.testing.assert_allclose(uv[0], exact_labels(truth, capture.rig).uv_px[0], atol=1e-4)
    samples = result.joints_world_m[:1] + rng.normal(size=(20000, 21, 3)) * np.array([2.0, 3.0, 5.0]) * 1e-3
    drawn = overlay.project(cameras, torch.from_numpy(samples))[0].numpy()
    for view in range(3):
        for joint in (0, 4, 8):
            expected = np.cov(drawn[:, view, joint].T)
            # A sample covariance of 20000 is right to 1 %; four sigma. The projection bends by far less.
            assert np.abs(cov[0, view, joint] - expected).max() < 0.04 * np.trace(expected)


@pytest.mark.parametrize("crop", [False, True])
def test_drawn_tips_lie_on_the_footage(scene, crop):
    capture, _, result = scene
    config = OverlayConfig(crop=crop, mesh=False, ellipses=False, caption=False)
    plain = replace(config, skeleton=False)
    tip_colour = np.array(draw.FINGER_COLOURS["middle"], float)
    for (_, drawn), (_, bare) in zip(
        overlay.overlay_frames(capture, [result], "b", config),
        overlay.overlay_frames(capture, [result], "b", plain),
        strict=True,
    ):
        # The footage has white discs at the five tips; the drawn tip must cover the middle one's centre.
        coloured = np.abs(drawn.astype(float) - tip_colour).max(axis=-1) < 12
        white = bare.min(axis=-1) > 200
        near = cv2.dilate(white.astype(np.uint8), np.ones((3, 3))).astype(bool)
        assert (coloured & near).any()
        if not crop:
            assert drawn.shape == (480, 640, 3)


def test_crop_stays_inside_and_holds_the_hand():
    rng = np.random.default_rng(3)
    centre = np.c_[np.linspace(30, 600, 50), np.full(50, 200.0)]
    size = np.linspace(40, 80, 50)  # the hand comes nearer
    points = [c + s * rng.uniform(-0.5, 0.5, size=(21, 2)) for c, s in zip(centre, size, strict=True)]
    points[10] = np.zeros((0, 2))
    corners, side = overlay.crop_path(points, 640, 480, margin=1.7)
    np.testing.assert_allclose(side, 1.7 * size, rtol=0.15)  # 21 random joints span 90 to 100 % of it
    assert (corners >= 0).all() and (corners + side[:, None] <= np.array([640, 480]) + 1e-9).all()
    assert np.abs(np.diff(corners, axis=0)).max() < 15.0  # the hand moves 11.6 px a frame
    for t, p in enumerate(points):
        inside = np.clip(p, 0, [640, 480])
        assert (np.abs(inside - (corners[t] + side[t] / 2)) <= side[t] / 2 + 2.0).all()
    with pytest.raises(UsthandError, match="no hand to crop"):
        overlay.crop_path([np.zeros((0, 2))] * 3, 640, 480, 1.7)


def test_invalid_frames_show_the_footage_alone(scene):
    capture, _, result = scene
    config = OverlayConfig(caption=False)
    hidden = replace(result, valid=np.arange(FRAMES) != 4)
    frames = dict(overlay.overlay_frames(capture, [hidden], "a", config, [3, 4]))
    footage = dict(capture.read("a", 3, 5))
    np.testing.assert_array_equal(frames[4], footage[4])
    assert (frames[3] != footage[3]).mean() > 0.01


def test_uncertain_joints_are_drawn_faintly(scene):
    capture, _, result = scene
    config = OverlayConfig(caption=False, mesh=False, ellipses=False)
    footage = next(capture.read("a"))[1].astype(float)
    change = [
        np.abs(next(overlay.overlay_frames(capture, [r], "a", config, [0]))[1] - footage).sum()
        for r in (result, replace(result, joint_valid=np.zeros((FRAMES, 21), bool)))
    ]
    assert change[1] < 0.6 * change[0]


def test_files_are_written_once(scene, tmp_path):
    capture, _, result = scene
    seen = []
    out = tmp_path / "out"
    config = OverlayConfig(sheet_columns=3, sheet_px=64)
    paths = overlay.write_overlays(
        capture,
        [result, _other_hand(result)],
        out,
        config,
        progress=lambda done, total, task="", note="": seen.append((done, total)),
    )
    assert [p.name for p in paths] == ["overlay_a.mp4", "overlay_b.mp4", "overlay_c.mp4", "contact_sheet.png"]
    assert seen[0] == (1, 3 * FRAMES) and seen[-1] == (3 * FRAMES, 3 * FRAMES)
    with av.open(str(paths[0])) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in video.decode(video=0)) == FRAMES
    assert Image.open(paths[-1]).size == (3 * 64, 2 * 3 * 64)  # frames across; two hands in three cameras down
    before = paths[0].read_bytes()
    with pytest.raises(UsthandError, match=r"overlay_a\.mp4 is there already"):
        overlay.write_overlays(capture, [result], out, config)
    assert paths[0].read_bytes() == before


def _other_hand(result):
    shift = np.array([0.1, 0.05, 0.0])
    return replace(
        result,
        side="left",
        joints_world_m=result.joints_world_m * [-1, 1, 1] + shift,
        vertices_world_m=result.vertices_world_m * [-1, 1, 1] + shift,
    )


def test_foreign_results_are_refused(scene, tmp_path):
    capture, _, result = scene
    for results, message in (
        ([], "no result"),
        ([replace(result, cameras=("a", "z"))], "camera z"),
        ([replace(result, frame=np.arange(FRAMES) + 5)], "reaches frame 14"),
        ([replace(result, valid=np.zeros(FRAMES, bool))], "nothing to draw"),
    ):
        with pytest.raises(UsthandError, match=message):
            overlay.write_overlays(capture, results, tmp_path / "none")
    assert not (tmp_path / "none").exists()
