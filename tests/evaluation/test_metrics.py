from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from support.stand_in import T, exact_labels, make_rig, make_truth, result_of
from usthand.common.errors import UsthandError
from usthand.evaluation import metrics
from usthand.hand.skeleton import BONES

FPS = 30.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def truth(rng):
    return make_truth(rng)


def test_truth_itself_has_no_error(truth):
    numbers = metrics.evaluate_truth(result_of(truth), truth, fps=FPS)
    # Procrustes in double precision of decimetres leaves 1e-12 mm; the bound is a picometre.
    assert all(abs(v) < 1e-9 for k, v in numbers.items() if k.endswith("_mm") or k == "accel_mm_s2")
    assert all(numbers[k] == 1.0 for k in ("auc_j", "auc_v", "f5", "f15", "f5_pa", "f15_pa", "valid_fraction"))
    assert numbers["coverage50"] == numbers["coverage90"] == 1.0 and numbers["frames"] == T


def test_each_alignment_removes_what_it_says_and_no_more(truth, rng):
    joints, vertices = truth.joints_world_m, truth.vertices_world_m
    wrist = joints[:, :1]
    shift = np.array([0.003, 0.0, 0.004])
    moved = metrics.evaluate_truth(result_of(truth, joints + shift, vertices + shift), truth, fps=FPS)
    for kind in "jv":
        assert moved[f"mp{kind}pe_mm"] == pytest.approx(5.0)
        assert moved[f"mp{kind}pe_wrist_mm"] == pytest.approx(0.0, abs=1e-9)
    assert moved["auc_j"] == pytest.approx(1 - 5 / 50) and moved["accel_mm_s2"] == pytest.approx(0.0, abs=1e-6)

    factor = rng.uniform(0.8, 1.2, size=(T, 1, 1))
    grown = result_of(truth, shift + wrist + factor * (joints - wrist), shift + wrist + factor * (vertices - wrist))
    grown = metrics.evaluate_truth(grown, truth, fps=FPS)
    for kind in "jv":
        assert grown[f"mp{kind}pe_wrist_mm"] > 1.0
        assert grown[f"mp{kind}pe_scale_mm"] == pytest.approx(0.0, abs=1e-9)

    turn = Rotation.random(T, random_state=1).as_matrix().swapaxes(-1, -2)
    turned = result_of(truth, shift + wrist + (joints - wrist) @ turn, shift + wrist + (vertices - wrist) @ turn)
    turned = metrics.evaluate_truth(turned, truth, fps=FPS)
    for kind in "jv":
        assert turned[f"mp{kind}pe_scale_mm"] > 5.0
        assert turned[f"mp{kind}pe_pa_mm"] == pytest.approx(0.0, abs=1e-9)
    assert turned["f5_pa"] == 1.0 and turned["f5"] < 1.0


def test_procrustes_equals_scipy(truth, rng):
    noisy = truth.joints_world_m + rng.normal(size=(T, 21, 3)) * 0.01
    aligned = metrics.procrustes(noisy, truth.joints_world_m)
    for estimate, target, ours in zip(noisy, truth.joints_world_m, aligned, strict=True):
        a, b = estimate - estimate.mean(0), target - target.mean(0)
        rotation, trace = orthogonal_procrustes(a, b)
        assert np.linalg.det(rotation) > 0  # scipy allows mirrors; ours must not, so compare only where it makes none
        np.testing.assert_allclose(ours, a @ rotation * trace / (a**2).sum() + target.mean(0), atol=1e-12)


def test_procrustes_does_not_mirror(truth):
    mirrored = truth.joints_world_m * [-1, 1, 1]
    assert metrics.distance_mm(metrics.procrustes(mirrored, truth.joints_world_m), truth.joints_world_m).mean() > 1.0


def test_scale_is_the_least_squares_one(truth, rng):
    relative = truth.joints_world_m - truth.joints_world_m[:, :1]
    noisy = relative + rng.normal(size=relative.shape) * 0.01
    best = ((metrics.scale_to(noisy, relative) - relative) ** 2).sum(axis=(1, 2))
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        assert (((metrics.scale_to(noisy, relative) * factor - relative) ** 2).sum(axis=(1, 2)) > best).all()


def test_auc_is_the_area_of_the_pck_curve(rng):
    errors = rng.exponential(20.0, size=(40, 21))
    thresholds = np.linspace(0.0, 50.0, 20001)
    pck = (errors.ravel()[:, None] <= thresholds).mean(axis=0)
    # The trapezoid rule over a step function is off by at most one step of thresholds: 50 / 20000 of 50.
    assert metrics.auc(errors) == pytest.approx(np.trapezoid(pck, thresholds) / 50.0, abs=1 / 20000)
    assert metrics.auc(np.array([0.0, 50.0, 80.0])) == pytest.approx(1 / 3)


def test_f_score_equals_all_distances(truth, rng):
    vertices = truth.vertices_world_m + rng.normal(size=truth.vertices_world_m.shape) * 0.006
    thresholds = (5.0, 15.0)
    expected = np.zeros((T, 2))
    for row, ours, target in zip(expected, vertices, truth.vertices_world_m, strict=True):
        distance = cdist(ours, target) * 1000
        for i, threshold in enumerate(thresholds):
            precision, recall = ((distance.min(axis) < threshold).mean() for axis in (1, 0))
            row[i] = 2 * precision * recall / (precision + recall)
    assert 0.1 < expected[:, 0].mean() < expected[:, 1].mean() <= 1.0
    found = metrics.f_scores(vertices, truth.vertices_world_m, thresholds)
    np.testing.assert_allclose(found, expected.mean(axis=0), atol=1e-12)
    assert metrics.f_scores(vertices + 1.0, truth.vertices_world_m, thresholds) == [0.0, 0.0]


def test_acceleration_of_a_known_motion():
    time = np.arange(T)[:, None, None] / FPS
    direction = np.array([0.6, 0.0, 0.8])
    curved, straight = (s * direction + np.zeros((1, 21, 1)) for s in (0.5 * 0.25 * time**2, 0.1 * time))
    # Half a t^2 with a = 0.25 m/s^2 against no acceleration at all: 250 mm/s^2, whatever the frame rate.
    assert metrics.acceleration_error(curved, straight, np.arange(T), FPS) == pytest.approx(250.0)
    gap = np.r_[0:6, 100 : 100 + T - 6]  # the jump over the gap is no acceleration
    assert metrics.acceleration_error(curved, straight, gap, FPS) == pytest.approx(250.0)
    assert metrics.acceleration_error(curved, straight, 2 * np.arange(T), FPS) is None


def test_coverage_of_errors_that_keep_the_promise(rng):
    factor = rng.normal(size=(20000, 3, 3))
    covariance = factor @ factor.swapaxes(-1, -2) * 1e-6
    error = (factor @ rng.normal(size=(20000, 3, 1)))[..., 0] * 1e-3
    found = metrics.coverages(error, covariance)
    for level in (0.5, 0.9):
        sigma = np.sqrt(level * (1 - level) / 20000)  # of a binomial share
        assert abs(found[f"coverage{level * 100:.0f}"] - level) < 4 * sigma
    assert metrics.coverages(error, covariance * 1e-12)["coverage90"] < 0.01
    assert metrics.coverages(error + 1e-3, covariance * 0.0)["coverage90"] == 0.0


def test_only_the_frames_asked_for_count(truth):
    joints = truth.joints_world_m.copy()
    joints[3] += 1.0
    joints[7] += 0.01
    valid = np.arange(T) != 3
    result = result_of(truth, joints, valid=valid)
    assert metrics.evaluate_truth(result, truth, fps=FPS)["mpjpe_mm"] == pytest.approx(10 * np.sqrt(3) / (T - 1))
    some = metrics.evaluate_truth(result, truth, frames=np.array([2, 3, 7]), fps=FPS)
    assert some["mpjpe_mm"] == pytest.approx(10 * np.sqrt(3) / 2) and some["valid_fraction"] == pytest.approx(2 / 3)
    mask = np.zeros(T, bool)
    mask[[2, 3, 7]] = True
    assert metrics.evaluate_truth(result, truth, frames=mask, fps=FPS) == some
    assert some["accel_mm_s2"] is None
    with pytest.raises(UsthandError, match="no frame is left"):
        metrics.evaluate_truth(result, truth, frames=np.array([3]), fps=FPS)
    assert list(metrics.common_frames([result, result_of(truth, frame=np.arange(T) + 2)])) == [2, *range(4, T)]


def test_truth_is_found_by_frame_number(truth):
    rows = np.array([1, 4, 5, 6])
    part = result_of(truth)
    part = replace(
        part,
        **{
            name: getattr(part, name)[rows]
            for name in (
                "joints_world_m",
                "joints_cov_m2",
                "vertices_world_m",
                "pose",
                "translation_m",
                "frame",
                "valid",
                "joint_valid",
                "detector_joints_world_m",
                "detector_joints_cov_m2",
                "vertices_cov_m2",
                "source",
            )
        },
    )
    assert metrics.evaluate_truth(part, truth, fps=FPS)["mpvpe_mm"] == 0.0
    with pytest.raises(UsthandError, match="truth ends at"):
        metrics.evaluate_truth(replace(part, frame=rows + 100), truth, fps=FPS)


def test_without_a_mesh_its_numbers_are_none_not_nan(truth):
    numbers = metrics.evaluate_truth(result_of(truth, vertices=np.zeros((T, 0, 3))), truth, fps=FPS)
    assert numbers["mpvpe_mm"] is None and numbers["f5_pa"] is None and numbers["mpjpe_mm"] == 0.0
    assert set(numbers) == set(metrics.evaluate_truth(result_of(truth), truth, fps=FPS))


def test_marking_joints_as_uncertain_does_not_flatter(truth, rng):
    joints = truth.joints_world_m + rng.normal(size=(T, 21, 3)) * 0.01
    sure, unsure = result_of(truth, joints), result_of(truth, joints, joint_valid=np.zeros((T, 21), bool))
    assert metrics.evaluate_truth(sure, truth, fps=FPS) == metrics.evaluate_truth(unsure, truth, fps=FPS)


def test_errors_by_joint_add_up(truth, rng):
    result = result_of(truth, truth.joints_world_m + rng.normal(size=(T, 21, 3)) * 0.01)
    errors, frames = metrics.joint_errors_mm(result, truth)
    assert errors.mean() == pytest.approx(metrics.evaluate_truth(result, truth, fps=FPS)["mpjpe_mm"])
    assert frames.tolist() == list(range(T))


def test_left_out_camera_in_pixels(truth, rng):
    rig = make_rig()
    labels = exact_labels(truth, rig)
    # Labels are float32 of some hundred pixels: 4e-5.
    assert metrics.evaluate_left_out(result_of(truth), rig, labels, "c")["leave_out_p90_px"] < 1e-4
    shift = rng.normal(size=labels.uv_px.shape) * 3.0
    off = replace(labels, uv_px=labels.uv_px + shift, confidence=(rng.random((T, 3, 21)) < 0.8).astype(np.float32))
    found = metrics.evaluate_left_out(result_of(truth), rig, off, "c")
    expected = np.linalg.norm(shift, axis=-1)[:, 2][off.mask[:, 2]]
    assert found["leave_out_median_px"] == pytest.approx(np.median(expected), abs=1e-4)
    assert found["leave_out_p90_px"] == pytest.approx(np.percentile(expected, 90), abs=1e-4)
    assert found["leave_out_points"] == off.mask[:, 2].sum()
    tip = np.linalg.norm(shift, axis=-1)[:, 2, 8][off.mask[:, 2, 8]]
    assert found["leave_out_joint_median_px"]["index_tip"] == pytest.approx(np.median(tip), abs=1e-4)
    used = metrics.evaluate_labels(result_of(truth), rig, off, FPS)["label_residual_median_px"]
    expected = np.linalg.norm(shift, axis=-1)[:, :2][off.mask[:, :2]]
    assert used == pytest.approx(np.median(expected), abs=1e-4)


def test_labels_are_compared_with_the_joints_that_the_detector_places(truth):
    """The detector's are where its labels say; the hand model's lie 8 mm off, and are what truth is compared with."""
    rig, off = make_rig(), truth.joints_world_m + np.array([0.008, 0.0, 0.0])
    labels, cov_m2 = exact_labels(truth, rig), result_of(truth).joints_cov_m2
    found = result_of(truth, off, detector_joints_world_m=truth.joints_world_m, detector_joints_cov_m2=cov_m2)
    # Labels are float32 of some hundred pixels: 4e-5.
    assert metrics.evaluate_left_out(found, rig, labels, "c")["leave_out_p90_px"] < 1e-4
    assert metrics.evaluate_labels(found, rig, labels, FPS)["label_residual_p90_px"] < 1e-4
    assert metrics.evaluate_truth(found, truth, fps=FPS)["mpjpe_mm"] == pytest.approx(8.0)
    assert metrics.evaluate_labels(result_of(truth, off), rig, labels, FPS)["label_residual_median_px"] > 1.0


def test_misuse_of_the_left_out_camera_is_refused(truth):
    rig = make_rig()
    labels, result = exact_labels(truth, rig), result_of(truth)
    with pytest.raises(UsthandError, match="--leave-out b"):
        metrics.evaluate_left_out(result, rig, labels, "b")
    with pytest.raises(UsthandError, match="no camera 'z'"):
        metrics.evaluate_left_out(result, rig, labels, "z")
    with pytest.raises(UsthandError, match="left hand"):
        metrics.evaluate_left_out(result, rig, exact_labels(truth, rig, "left"), "c")
    confidence = np.ones((T, 3, 21))
    confidence[:, 2] = 0.0
    with pytest.raises(UsthandError, match="c has no label"):
        metrics.evaluate_left_out(result, rig, replace(labels, confidence=confidence), "c")
    with pytest.raises(UsthandError, match="labels end at"):
        metrics.evaluate_left_out(replace(result, frame=np.arange(T) + 50), rig, labels, "c")


def test_bone_spread_and_jitter(truth, rng):
    rigid = metrics.steadiness(result_of(truth), FPS)
    assert rigid["bone_spread_mm"] == pytest.approx(0.0, abs=1e-9)  # the truth only moves as a whole
    joints = truth.joints_world_m + rng.normal(size=(T, 21, 3)) * 0.004
    found = metrics.steadiness(result_of(truth, joints), FPS)
    lengths = np.array([[np.linalg.norm(j[p] - j[c]) * 1000 for p, c in BONES] for j in joints])
    palm = [i for i, (parent, _) in enumerate(BONES) if parent == 0]
    assert found["palm_spread_mm"] == pytest.approx(lengths.std(0)[palm].mean())
    assert found["bone_spread_mm"] == pytest.approx(lengths.std(0).mean())
    assert found["bone_spread_mm"] == pytest.approx(
        (5 * found["palm_spread_mm"] + 15 * found["finger_bone_spread_mm"]) / 20
    )
    second = np.diff(joints, n=2, axis=0) * 1000
    assert found["jitter_mm"] == pytest.approx(np.linalg.norm(second, axis=-1).mean())
    assert found["jitter_mm_s2"] == pytest.approx(np.sqrt((second**2).sum(-1).mean()) * FPS**2)
    assert metrics.steadiness(result_of(truth, frame=2 * np.arange(T)), FPS)["jitter_mm"] is None


def test_frames_without_truth_are_measured_by_no_number(truth, rng):
    """Garbage where there is no truth changes nothing, and does not count as a frame that the method gave up."""
    joints = truth.joints_world_m + rng.normal(size=(T, 21, 3)) * 0.004
    known = np.arange(T) != 7
    gaps = replace(truth, joints_world_m=np.where(known[:, None, None], truth.joints_world_m, 9.0), valid=known)
    result = result_of(truth, joints)
    found = metrics.evaluate_truth(result, gaps, fps=FPS)
    assert found == metrics.evaluate_truth(result, truth, np.flatnonzero(known), fps=FPS)
    assert found["frames"] == T - 1 and found["valid_fraction"] == 1.0
    assert metrics.joint_errors_mm(result, gaps)[1].tolist() == np.flatnonzero(known).tolist()
    half = replace(result, valid=np.arange(T) % 2 == 0)
    # Frame 7 is odd: of the eleven frames with truth six are valid.
    assert metrics.evaluate_truth(half, gaps, fps=FPS)["valid_fraction"] == pytest.approx(6 / 11)
    with pytest.raises(UsthandError, match="truth in none"):
        metrics.evaluate_truth(result, replace(truth, valid=np.zeros(T, bool)), fps=FPS)


def test_truth_without_a_mesh_gives_no_numbers_of_the_mesh(truth):
    bare = type(truth).of_joints(truth.joints_world_m, truth.visible)
    found = metrics.evaluate_truth(result_of(truth), bare, fps=FPS)
    whole = metrics.evaluate_truth(result_of(truth), truth, fps=FPS)
    assert set(found) == set(whole)
    mesh = {"mpvpe_mm", "mpvpe_wrist_mm", "mpvpe_scale_mm", "mpvpe_pa_mm", "auc_v", "f5", "f15", "f5_pa", "f15_pa"}
    assert {name for name, value in found.items() if value is None} == mesh
    assert found["mpjpe_mm"] == 0.0
