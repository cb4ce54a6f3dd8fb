"""Results against marked fingertips, where the truth is known: distances, offsets and regions are what was put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fit_scene import make_scene, rig_in_unit
from support.marked import marks_of, result_of_scene, seen_by, true_caps
from usthand.common.errors import UsthandError
from usthand.evaluation.mark_errors import evaluate_marks, fingertip_errors
from usthand.evaluation.mark_triangulation import place_tips
from usthand.evaluation.marks import FINGER_NAMES
from usthand.hand.fingertips import cap_weights
from usthand.hand.io import load_hand
from usthand.hand.skeleton import FINGER_TIPS

SCENE = make_scene(n_frames=12)
CAPS = true_caps(SCENE)
TRUE = result_of_scene(SCENE)


def judged(result, marks, rig=SCENE.rig, point="cap"):
    return evaluate_marks({"r": result}, marks, rig)["results"]["r"][point]


def test_the_true_mesh_is_at_the_marks():
    numbers = evaluate_marks({"r": TRUE}, marks_of(SCENE.rig, CAPS), SCENE.rig)
    assert numbers["results"]["r"]["tips"] == 60 and numbers["mark_px"] == 0
    assert numbers["results"]["r"]["cap"]["mean_mm"] == 0 and numbers["results"]["r"]["cap"]["median_mm"] == 0
    # The tip joint is a vertex on the skin; its distance from the cap's centre is known.
    apart = 1000 * np.linalg.norm(SCENE.joints[:, FINGER_TIPS] - CAPS, axis=-1)
    assert numbers["results"]["r"]["joint"]["mean_mm"] == pytest.approx(apart.mean(), abs=0.006)


def test_the_true_left_hand_is_at_the_marks():
    """In the mirrored world, with the mirror image of the hand model."""
    rig, caps = SCENE.rig.mirrored(), CAPS * (-1, 1, 1)
    marks = marks_of(rig, caps, side="left")
    assert judged(TRUE.mirrored(), marks, rig)["mean_mm"] == 0
    assert judged(replace(TRUE.mirrored(), vertices_world_m=TRUE.mirrored().vertices_world_m + 0.001), marks, rig)[
        "mean_mm"
    ] == pytest.approx(np.sqrt(3), abs=0.006)


def test_lengths_of_a_rig_without_scale_are_the_results():
    rig = rig_in_unit(SCENE.rig, 0.054)
    marks = marks_of(rig, CAPS / 0.054)
    right, wrong = (judged(replace(TRUE, metric=False, unit_m=unit), marks, rig) for unit in (0.054, 0.108))
    assert right["mean_mm"] == 0 and wrong["mean_mm"] > 10
    assert right["mark_std_mm"] == 0


def test_noise_gives_the_distance_and_the_regions_that_follow_from_it():
    """Exact hand, marks with .5 px: errors are normal with s^2 (J'J)^-1, J by OpenCV; the regions hold their share."""
    marks = marks_of(SCENE.rig, CAPS, noise_px=0.5)
    found = judged(TRUE, marks)
    points = CAPS.reshape(-1, 3)
    jacobian = np.concatenate([seen_by(camera, points)[1] for camera in SCENE.rig.cameras], axis=1)
    covariance = 0.25 * np.linalg.inv(jacobian.swapaxes(1, 2) @ jacobian)
    normal = np.random.default_rng(9).normal(size=(4000, 60, 3))
    draws = np.einsum("nij,knj->kni", np.linalg.cholesky(covariance), normal)
    means = 1000 * np.linalg.norm(draws, axis=-1).mean(1)  # of 60 tips, again and again
    assert (
        abs(found["mean_mm"] - means.mean()) < 4 * means.std() + 0.02 * means.mean()
    )  # the lens's stretch is in neither
    expected = 1000 * np.median(np.sqrt(np.linalg.eigvalsh(covariance)[:, -1]))
    assert found["mark_std_mm"] == pytest.approx(expected, rel=4 / np.sqrt(2 * 60 * 5) + 0.02)
    for level in (0.5, 0.9):
        share = found[f"in_{100 * level:.0f}_region"]
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 60)


def test_uncertainty_of_mesh_and_joints_is_added_to_the_marks():
    """A hand displaced by a known covariance: without it the regions hold nothing, with it their share."""
    rng = np.random.default_rng(3)
    scene = make_scene(n_frames=60)
    covariance = np.diag([4.0, 9.0, 16.0]) * 1e-6
    moved = rng.multivariate_normal(np.zeros(3), covariance, 60)[:, None]
    time, known = 60, np.broadcast_to(covariance, (60, 778, 3, 3)).astype(np.float32)
    result = result_of_scene(scene, joints_world_m=scene.joints + moved, vertices_world_m=scene.vertices + moved)
    tips = place_tips(marks_of(scene.rig, true_caps(scene), noise_px=0.05), scene.rig)
    assert fingertip_errors(result, tips, scene.rig)["cap"]["in_90_region"] < 0.1
    certain = replace(result, vertices_cov_m2=known)
    told = replace(result, joints_cov_m2=np.tile(covariance, (time, 21, 1, 1)))  # no vertices': the tip joint's
    for one in (certain, told):
        found = fingertip_errors(one, tips, scene.rig)["cap"]
        assert found["std_mm"] == pytest.approx(4.0, abs=0.01)
        for level in (0.5, 0.9):  # five tips of a frame move as one
            assert abs(found[f"in_{100 * level:.0f}_region"] - level) < 4 * np.sqrt(level * (1 - level) / time)


def test_offsets_along_the_last_bone_are_found_and_taken_out():
    """Each cap is moved along its finger by an amount of its own, in the mesh alone and in the joints alone."""
    amounts = np.array([2.0, -3.0, 1.0, 0.5, -1.5]) * 1e-3
    tips = np.array(FINGER_TIPS)
    axis = SCENE.joints[:, tips] - SCENE.joints[:, tips - 1]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    person = load_hand(dtype=torch.float64).with_shape(torch.from_numpy(SCENE.state.shape))
    vertices = SCENE.vertices.copy()
    for finger, row in enumerate(cap_weights(person)):
        vertices[:, np.flatnonzero(row)] += amounts[finger] * axis[:, finger, None]
    joints = SCENE.joints.copy()
    joints[:, tips] = CAPS + amounts[:, None] * axis
    marks = marks_of(SCENE.rig, CAPS)
    found = judged(replace(TRUE, vertices_world_m=vertices), marks)
    assert found["offset_mm"] == pytest.approx(dict(zip(FINGER_NAMES, 1000 * amounts, strict=True)), abs=0.006)
    assert found["mean_mm"] == pytest.approx(1000 * np.abs(amounts).mean(), abs=0.006)
    assert found["less_offset"]["mean_mm"] == 0
    # A joint that moves turns its own last bone: the offset is along the new one, and nearly all of it is found.
    moved = judged(replace(TRUE, joints_world_m=joints, joint_model="free"), marks, point="joint")
    assert moved["mean_mm"] == pytest.approx(1.6, abs=0.006) and moved["less_offset"]["mean_mm"] < 0.4


def test_only_tips_that_the_result_has_are_judged():
    valid = np.ones((12, 21), bool)
    valid[:, FINGER_TIPS[0]] = False
    later = replace(TRUE, joint_valid=valid, frame=np.arange(12) + 6)  # frames 6 to 11 are marked, and are others
    numbers = evaluate_marks({"r": later}, marks_of(SCENE.rig, CAPS), SCENE.rig)["results"]["r"]
    assert numbers["tips"] == 6 * 4 and "thumb" not in numbers["cap"]["offset_mm"]
    bare = replace(TRUE, vertices_world_m=np.zeros((12, 0, 3)))
    assert set(evaluate_marks({"r": bare}, marks_of(SCENE.rig, CAPS), SCENE.rig)["results"]["r"]) == {"tips", "joint"}


def test_marks_alone_are_judged_without_any_result():
    marks = [*marks_of(SCENE.rig, CAPS), *marks_of(SCENE.rig, CAPS + 1e-4, "B")[:30]]
    numbers = evaluate_marks({}, marks, SCENE.rig)
    assert numbers["results"] == {} and numbers["marks"]["markers"] == ["A", "B"]
    assert numbers["marks"]["marked_twice"] == 30 and 0 < numbers["marks"]["agreement_median_px"] < 0.2
    assert numbers["marks"]["tips_placed"] == len(place_tips(marks, SCENE.rig).tips) == 60


def test_a_result_that_was_not_marked_is_told():
    marks = marks_of(SCENE.rig, CAPS)
    with pytest.raises(UsthandError, match="left is of the left hand, the marks place no tip of it: the other hand"):
        evaluate_marks({"left": replace(TRUE, side="left")}, marks, SCENE.rig)
    with pytest.raises(UsthandError, match="late has none of the tips that are marked in frames 0, 1"):
        evaluate_marks({"late": replace(TRUE, frame=TRUE.frame + 100)}, marks, SCENE.rig)
