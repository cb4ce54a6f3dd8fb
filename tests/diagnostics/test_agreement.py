"""How far two cameras miss each other, and the elementary fixes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.check_captures import FRAMES, labelled_rig, wide_rig
from usthand.capture.rig import Camera, Rig
from usthand.diagnostics import corrections
from usthand.diagnostics.agreement import CAP, Case, ViewRays, make_view, pair_agreement
from usthand.diagnostics.check import make_case
from usthand.geometry.cameras import project


def test_pair_residual_is_the_label_noise_in_hand_sizes():
    """Independent Gaussian errors of s hand sizes per axis give a residual of deviation s, whatever the lens."""
    for lens in ("fisheye", "barrel", "pinhole"):
        made = labelled_rig(3, 2, "exact", rig=wide_rig(3, 2, lens), frames=FRAMES)
        case = make_case(made.rig, made.labels)
        exact = [make_view(c, case.uv_px[:, v], case.present[:, v]) for v, c in enumerate(case.cameras)]
        sigma = 0.03
        rng = np.random.default_rng(0)
        noise = rng.normal(size=case.uv_px.shape) * sigma * np.array([v.size_px for v in exact])[None, :, None, None]
        uv = case.uv_px + noise
        a, b = (make_view(c, uv[:, v], case.present[:, v]) for v, c in enumerate(case.cameras))
        # The box of noisy joints is a little larger than the hand; the exact size is what the noise was scaled by.
        a, b = a._replace(size_rad=exact[0].size_rad), b._replace(size_rad=exact[1].size_rad)
        # 2 % of sampling error at 2500 joints for a median, and the lens's stretch across the image.
        assert pair_agreement(a, b)[0] == pytest.approx(0.6745 * sigma, rel=0.12)


def test_joints_behind_a_camera_count_as_wrong():
    made = labelled_rig(3, 2, "exact", frames=60)
    case = make_case(made.rig, made.labels)
    views = [
        make_view(corrections.opencv_axes(c), case.uv_px[:, v], case.present[:, v]) for v, c in enumerate(case.cameras)
    ]
    error, _, behind = pair_agreement(*views)
    assert error == CAP and behind == 1.0


def test_pair_that_shares_too_little_has_no_residual():
    nothing = ViewRays(np.zeros(3), np.ones((3, 50)) / np.sqrt(3), np.arange(50) < 10, 0.2, 100.0)
    assert np.isnan(pair_agreement(nothing, nothing._replace(centre=np.ones(3)))[0])


def test_case_keeps_views_without_labels_empty():
    made = labelled_rig(22, 3, "light", frames=40)
    case = make_case(made.rig, tuple(one.subset(["cam2", "cam0"]) for one in made.labels))
    assert isinstance(case, Case) and not case.present[:, 1].any()
    assert np.allclose(case.uv_px[:, 2], made.labels[0].uv_px[:, 2])


@pytest.mark.parametrize("fix", [corrections.inverted, corrections.opencv_axes, corrections.turned_matrix])
def test_involutions_undo_themselves(fix):
    camera = labelled_rig(0, 2, "exact", frames=30).rig.cameras[0]
    twice = fix(fix(camera))
    for field in ("matrix", "rotation", "translation"):
        assert np.allclose(getattr(twice, field), getattr(camera, field), atol=1e-12)


def test_resizing_a_camera_is_resizing_its_image():
    """A pixel's edges, at half-integers, scale with the image (the convention of cv2.resize)."""
    camera = Camera(
        "a",
        640,
        480,
        np.array([[500.0, 0, 300], [0, 510, 250], [0, 0, 1]]),
        np.zeros(0),
        "pinhole",
        np.eye(3),
        np.zeros(3),
    )
    points = torch.tensor([[0.1, -0.2, 1.0], [0.0, 0.1, 2.0]], dtype=torch.float64)
    small = corrections.resized(camera, 320, 240)
    before, after = (project(Rig((c,)).tensors(torch.float64), points)[0][0].numpy() for c in (camera, small))
    assert np.allclose(after + 0.5, (before + 0.5) / 2)
    assert np.allclose(corrections.scaled_matrix(camera, 0.5).matrix, small.matrix)


def test_orders_are_permutations():
    for name, order in corrections.ORDERS.items():
        assert sorted(order) == list(range(21)), name
