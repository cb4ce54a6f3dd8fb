"""Plain triangulation and the sequence fit: exact from exact labels, robust against bad ones, and independent of the
world's frame, the order of the cameras and the side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fit_scene import Scene, error_mm, labels_of, make_scene
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.fit.fit import fit_labels, fit_observations, triangulate
from usthand.fit.observations import Observations
from usthand.fit.sequence import FitConfig
from usthand.geometry.robust_triangulation import triangulate_robust, undistorted_views
from usthand.geometry.rotations import rotation_matrix
from usthand.labels.labels import Labels

FAST = FitConfig(rounds=5, joint_model="rigid")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene()


@pytest.fixture(scope="module")
def noisy(scene) -> Labels:
    """Gaussian errors of 1.5 px (1.4 % of the hand), independent."""
    rng = np.random.default_rng(7)
    return labels_of(scene.rig, scene.labels.uv_px + 1.5 * rng.normal(size=scene.labels.uv_px.shape))


@pytest.fixture(scope="module")
def fitted(scene, noisy):
    return fit_labels(scene.rig, noisy, FAST)


def moved_rig(rig: Rig, turn: np.ndarray, shift: np.ndarray) -> Rig:
    """The rig in the world X' = turn X + shift."""
    cameras = []
    for c in rig.cameras:
        rotation_ = c.rotation @ turn.T
        cameras.append(replace(c, rotation=rotation_, translation=c.translation - rotation_ @ shift))
    return replace(rig, cameras=tuple(cameras))


def test_exact_labels_give_exact_joints(scene):
    raw = triangulate(scene.rig, scene.labels)
    assert error_mm(raw.joints_world_m, scene.joints).max() < 0.01  # labels are float32: 1e-5 px
    fit = fit_labels(scene.rig, scene.labels)
    # What is left is the pull of the priors against labels whose assumed error is some pixels.
    assert error_mm(fit.joints_world_m, scene.joints).mean() < 0.6
    assert error_mm(fit.vertices_world_m, scene.vertices).mean() < 1.5
    assert fit.valid.all() and fit.joint_valid.all()
    assert raw.method == "raw" and fit.method == "fit"


def test_bones_of_the_fit_are_rigid_and_angles_keep_their_limits(scene, fitted):
    hand = scene.hand
    angles = np.einsum("jac,tjc->tja", hand.axes, fitted.pose[:, 3:].reshape(-1, 15, 3))
    joint, axis = np.array(hand.free).T
    assert (angles[:, joint, axis] < hand.high + np.deg2rad(3)).all()
    assert (angles[:, joint, axis] > hand.low - np.deg2rad(3)).all()
    held = np.ones((15, 3), bool)
    held[joint, axis] = False
    assert np.abs(angles[:, held]).max() < 1e-9
    knuckle = np.linalg.norm(fitted.joints_world_m[:, 9] - fitted.joints_world_m[:, 0], axis=-1)
    assert knuckle.std() < 1e-9


def test_the_fit_beats_triangulation_on_noise(scene, noisy, fitted):
    """Independent noise is the kindest case for triangulation, and 20 frames are short: a tenth is gained at least."""
    raw = triangulate(scene.rig, noisy)
    assert (
        error_mm(fitted.joints_world_m, scene.joints).mean() < 0.9 * error_mm(raw.joints_world_m, scene.joints).mean()
    )


def test_robust_to_misses_and_a_view_that_is_wrong(scene, noisy):
    rng = np.random.default_rng(8)
    uv, seen = noisy.uv_px.copy(), np.ones(noisy.uv_px.shape[:2], bool)
    uv[4:12, 2] += np.array([60.0, -40.0], np.float32)  # a whole hand elsewhere, for eight frames
    seen[:, [0, 1, 3]] = rng.uniform(size=(len(uv), 3)) > 0.25
    labels = labels_of(scene.rig, uv, np.broadcast_to(seen[..., None], uv.shape[:3]))
    good = (seen[:, [0, 1, 3]].sum(1) >= 2)[:, None]
    fit, raw = fit_labels(scene.rig, labels, FAST), triangulate(scene.rig, labels)
    error = error_mm(fit.joints_world_m, scene.joints)[good[:, 0]]
    assert error.mean() < 4
    assert error.mean() < 0.4 * error_mm(raw.joints_world_m, scene.joints)[good[:, 0]].mean()


def test_smoothed_triangulation_is_steadier_and_follows_the_hand(scene, noisy):
    """Independent errors fall to the filters' noise gain. A median of 5 keeps 0.54 of the standard deviation of
    Gaussian errors (its efficiency is 0.70), and the Gaussian of 1.5 frames removes more: 0.6 is a safe bound. The
    filters cost this fast hand some millimetres; more would mean that they lag."""
    raw, smooth = triangulate(scene.rig, noisy), triangulate(scene.rig, noisy, smooth_fps=30.0)
    assert smooth.method == "smooth" and np.array_equal(smooth.joints_cov_m2, raw.joints_cov_m2)
    without_noise = triangulate(scene.rig, scene.labels, smooth_fps=30.0).joints_world_m
    noise = error_mm(smooth.joints_world_m, without_noise)[3:-3].mean()
    assert noise < 0.6 * error_mm(raw.joints_world_m, scene.joints)[3:-3].mean()
    assert error_mm(without_noise, scene.joints)[3:-3].mean() < 4
    slow = triangulate(scene.rig, noisy, smooth_fps=2.0).joints_world_m
    assert error_mm(slow, raw.joints_world_m).max() < 0.01, (
        "filters of a tenth of a second leave two frames a second alone"
    )
    jitter = [
        np.linalg.norm(np.diff(r.joints_world_m - scene.joints, 2, axis=0), axis=-1).mean() for r in (smooth, raw)
    ]
    assert jitter[0] < 0.5 * jitter[1]
    left = triangulate(scene.rig.mirrored(), noisy.mirrored(scene.rig.widths), smooth_fps=30.0)
    assert error_mm(left.joints_world_m, smooth.mirrored().joints_world_m).max() < 0.01


def test_robust_triangulation_needs_no_temporal_help(scene, noisy):
    uv = noisy.uv_px.astype(np.float64)
    uv[:, 1, ::3] += 80
    precision = np.broadcast_to(np.eye(2) / 1.5**2, (*uv.shape[:3], 2, 2)).copy()
    views = undistorted_views(scene.rig.tensors(torch.float64), torch.from_numpy(uv), torch.from_numpy(precision))
    found = triangulate_robust(views)
    # A third of the joints lose one view of four: their error grows by sqrt(4/3), all by 6 %; twice that is allowed.
    clean = error_mm(triangulate(scene.rig, noisy).joints_world_m, scene.joints).mean()
    assert error_mm(found.points_world.numpy(), scene.joints).mean() < 1.12 * clean
    assert found.weight[:, 1, ::3].max() < 0.05 < found.weight[:, 1, 1::3].median()
    assert 0.7 < found.scale < 1.4


def test_equivariant_to_a_rigid_motion_of_the_rig(scene, noisy, fitted):
    turn, shift = rotation_matrix(np.array([0.3, -1.1, 0.7])), np.array([0.4, -0.2, 1.3])
    moved = fit_labels(moved_rig(scene.rig, turn, shift), noisy, FAST)
    assert error_mm(moved.joints_world_m, fitted.joints_world_m @ turn.T + shift).max() < 0.01
    assert np.allclose(moved.joints_cov_m2, turn @ fitted.joints_cov_m2 @ turn.T, rtol=1e-3, atol=1e-9)


def test_independent_of_camera_order(scene, noisy, fitted):
    order = [2, 0, 3, 1]
    rig = replace(scene.rig, cameras=tuple(scene.rig.cameras[i] for i in order))
    assert error_mm(fit_labels(rig, noisy, FAST).joints_world_m, fitted.joints_world_m).max() < 0.01
    shuffled = fit_labels(rig, noisy.subset(rig.names), FAST)  # labels are matched to cameras by name
    assert error_mm(shuffled.joints_world_m, fitted.joints_world_m).max() < 0.01


def test_a_view_without_labels_is_a_view_that_is_not_there(scene, noisy):
    seen = np.ones(noisy.uv_px.shape[:3])
    seen[:, 3] = 0
    blind = fit_labels(scene.rig, labels_of(scene.rig, noisy.uv_px, seen), FAST)
    absent = fit_labels(scene.rig.without("cam_3"), noisy.without("cam_3"), FAST)
    assert error_mm(blind.joints_world_m, absent.joints_world_m).max() < 0.01


def test_left_is_the_mirror_of_right(scene, noisy, fitted):
    left = fit_labels(scene.rig.mirrored(), noisy.mirrored(scene.rig.widths), FAST)
    mirror = fitted.mirrored()
    assert left.side == "left"
    # Not to the last bit: mirrored labels are rounded to float32 again.
    assert error_mm(left.joints_world_m, mirror.joints_world_m).max() < 0.01
    assert error_mm(left.vertices_world_m, mirror.vertices_world_m).max() < 0.01
    assert np.allclose(left.pose, mirror.pose, atol=1e-4)
    raw = triangulate(scene.rig.mirrored(), noisy.mirrored(scene.rig.widths))
    assert error_mm(raw.joints_world_m, triangulate(scene.rig, noisy).mirrored().joints_world_m).max() < 0.01


def test_same_input_same_output(scene, noisy, fitted):
    assert np.array_equal(fit_labels(scene.rig, noisy, FAST).joints_world_m, fitted.joints_world_m)


def test_frames_without_labels_are_bridged_and_flagged(scene, noisy):
    seen = np.ones(noisy.uv_px.shape[:3])
    seen[8:11] = 0
    seen[15, 1:] = 0  # one view only
    labels = labels_of(scene.rig, noisy.uv_px, seen)
    for result in (fit_labels(scene.rig, labels, FAST), triangulate(scene.rig, labels)):
        assert not result.valid[[8, 9, 10, 15]].any() and result.valid[[7, 11, 14, 16]].all()
        assert error_mm(result.joints_world_m[8:11], scene.joints[8:11]).mean() < 12
        assert result.std_mm[9].mean() > result.std_mm[4].mean()


def test_a_rig_without_scale_takes_it_from_the_hand(scene, noisy, fitted):
    cameras = tuple(replace(c, translation=25 * c.translation) for c in scene.rig.cameras)
    rig = Rig(cameras, metric=False, unit_source="board squares")
    result = fit_labels(rig, noisy, FAST)
    assert not result.metric and "mean size" in result.unit_source
    size = np.linalg.norm(np.diff(result.joints_world_m[:, [0, 9]], axis=1), axis=-1).mean()
    truth = np.linalg.norm(np.diff(scene.joints[:, [0, 9]], axis=1), axis=-1).mean()
    assert np.isclose(size, truth, rtol=0.03) and np.isclose(result.unit_m, 1 / 25, rtol=0.03)


def test_covariance_covers_gaussian_errors():
    """Credible regions hold what they promise of independent errors."""
    inside50, inside90, n = 0, 0, 0
    for seed in range(3):
        scene = make_scene(seed, n_frames=24)
        rng = np.random.default_rng(seed)
        labels = labels_of(scene.rig, scene.labels.uv_px + 2 * rng.normal(size=scene.labels.uv_px.shape))
        fit = fit_labels(scene.rig, labels, FAST)
        offset = fit.joints_world_m - scene.joints
        distance = np.einsum("tji,tjik,tjk->tj", offset, np.linalg.inv(fit.joints_cov_m2), offset)
        inside50, inside90, n = (
            inside50 + (distance < 2.366).sum(),
            inside90 + (distance < 6.251).sum(),
            n + distance.size,
        )
    # Joints and frames of a capture are correlated: about 60 independent ones in 3 x 24 x 21; 3 standard deviations.
    assert abs(inside50 / n - 0.5) < 3 * np.sqrt(0.25 / 60)
    assert abs(inside90 / n - 0.9) < 3 * np.sqrt(0.09 / 60)


def test_precise_points_in_space_take_over(scene, noisy):
    observations = Observations.from_labels(noisy)
    information = np.broadcast_to(np.eye(3) / 1e-4**2, (*scene.joints.shape, 3)).copy()
    known = replace(observations, points_world_m=scene.joints, points_precision=information)
    result = fit_observations(scene.rig, known, FAST)
    without = fit_observations(scene.rig, observations, FAST)
    assert (
        error_mm(result.joints_world_m, scene.joints).mean()
        < 0.5 * error_mm(without.joints_world_m, scene.joints).mean()
    )


def test_bad_input_is_told_in_one_sentence(scene):
    uv, none = scene.labels.uv_px, np.zeros(scene.labels.uv_px.shape[:3])
    with pytest.raises(UsthandError, match="no camera has a label"):
        fit_labels(scene.rig, labels_of(scene.rig, uv, none))
    one = none.copy()
    one[:, 1] = 1
    for method in (fit_labels, triangulate):
        with pytest.raises(UsthandError, match="only camera 'cam_1' has labels"):
            method(scene.rig, labels_of(scene.rig, uv, one))
    turns = none.copy()
    turns[::2, 0], turns[1::2, 1] = 1, 1
    with pytest.raises(UsthandError, match="no frame has labels in two views"):
        fit_labels(scene.rig, labels_of(scene.rig, uv, turns))
    stranger = replace(scene.labels, cameras=("cam_0", "cam_1", "cam_2", "phone"))
    with pytest.raises(UsthandError, match="camera 'phone' that the rig lacks"):
        fit_labels(scene.rig, stranger)


def test_never_diverges_on_nonsense(scene):
    rng = np.random.default_rng(9)
    labels = labels_of(scene.rig, rng.uniform(0, 256, size=scene.labels.uv_px.shape))
    result = fit_labels(scene.rig, labels, FAST)
    assert np.isfinite(result.joints_world_m).all()
    assert np.linalg.norm(result.joints_world_m, axis=-1).max() < 2.0


def test_progress_is_reported_to_the_end(scene, noisy):
    seen = []
    fit_labels(scene.rig, noisy, FAST, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k + 1, FAST.rounds) for k in range(FAST.rounds)]
