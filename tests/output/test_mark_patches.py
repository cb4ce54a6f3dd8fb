"""Which frames and which parts of the images are shown to a person who marks, and that they give nothing away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.stand_in import exact_labels, make_capture, make_rig, moving_hand, result_of
from usthand.common.errors import UsthandError
from usthand.evaluation.marks import FINGER_NAMES
from usthand.hand.skeleton import FINGER_TIPS
from usthand.output.mark_patches import JITTER_MM, N_FRAMES, PATCH_MM, plan_views

FRAMES = 40


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    truth, rig = moving_hand(FRAMES), make_rig()
    capture = make_capture(tmp_path_factory.mktemp("patches"), truth, rig)
    return capture, result_of(truth), exact_labels(truth, rig)


def offsets_of(views, labels) -> np.ndarray:
    """Centres of the patches less the tips, over the patches' sizes."""
    return np.array(
        [
            (np.array(p.corner) + 0.5 * (p.size_px - 1) - labels.uv_px[v.frame, labels.cameras.index(v.camera), tip])
            / p.size_px
            for v in views
            for p in v.patches
            for tip in [FINGER_TIPS[FINGER_NAMES.index(p.finger)]]
        ]
    )


def test_eight_frames_spread_over_time_with_every_tip_in_every_image(scene):
    capture, result, labels = scene
    views = plan_views(capture, result, labels)
    frames = sorted({view.frame for view in views})
    assert len(frames) == N_FRAMES and all(i * 5 <= frame < i * 5 + 5 for i, frame in enumerate(frames))
    assert [(v.frame, v.camera) for v in views] == [(f, c) for f in frames for c in "abc"]
    assert all([p.finger for p in view.patches] == list(FINGER_NAMES) for view in views)


def test_of_each_part_the_pose_is_taken_that_differs_most(scene):
    """A hand that is bent in frame 17 alone: that frame is shown."""
    capture, result, labels = scene
    joints = np.tile(result.joints_world_m[:1], (FRAMES, 1, 1))
    joints[17, FINGER_TIPS] += (0.0, 0.02, 0.03)
    assert 17 in {view.frame for view in plan_views(capture, replace(result, joints_world_m=joints), labels)}


def test_a_patch_holds_its_tip_at_a_random_place(scene):
    """Uniform within the stated displacement: its spread is that of a uniform variable, its mean is nothing."""
    capture, result, labels = scene
    views = plan_views(capture, result, labels, frames=range(FRAMES))
    offsets, most = offsets_of(views, labels), JITTER_MM / PATCH_MM
    n, rounding = offsets.size, 0.5 / min(p.size_px for v in views for p in v.patches)
    assert n == FRAMES * 3 * 5 * 2
    assert np.abs(offsets).max() <= most + rounding and np.abs(offsets).max() > 0.95 * most
    assert np.abs(offsets.mean(0)).max() < 4 * most / np.sqrt(3 * n / 2)
    assert offsets.std() == pytest.approx(most / np.sqrt(3), rel=4 / np.sqrt(n))
    assert plan_views(capture, result, labels) == plan_views(capture, result, labels)
    assert plan_views(capture, result, labels) != plan_views(capture, result, labels, seed=1)


def test_a_patch_is_as_large_as_it_says_at_the_hands_depth(scene):
    """The focal length is 605 px; the cameras are .8 m from the hand, which reaches .12 m towards or away from them."""
    views = plan_views(*scene)
    for view in views:
        assert 605 / 0.92e3 < view.px_per_mm < 605 / 0.68e3
        assert all(patch.size_px == round(PATCH_MM * view.px_per_mm) for patch in view.patches)
        left, top, right, bottom = view.box
        assert 0 <= left < right <= 640 and 0 <= top < bottom <= 480
        for patch in view.patches:
            assert left <= patch.corner[0] and patch.corner[0] + patch.size_px <= right


def test_frames_that_too_few_views_show_are_not_chosen(scene):
    capture, result, labels = scene
    confidence = labels.confidence.copy()
    confidence[:30, 0] = 0
    later = {view.frame for view in plan_views(capture, result, replace(labels, confidence=confidence))}
    assert len(later) == N_FRAMES and min(later) >= 30
    asked = plan_views(capture, result, replace(labels, confidence=confidence), frames=(3, 3, 1))
    assert [view.frame for view in asked] == [1, 1, 1, 3, 3, 3]  # whoever asks for a frame gets it
    with pytest.raises(UsthandError, match="no frame shows the whole right hand in 3 views"):
        plan_views(capture, result, replace(labels, confidence=np.zeros_like(confidence)))
    aside = replace(result, joints_world_m=result.joints_world_m + np.array([2.0, 0, 0]))
    with pytest.raises(UsthandError, match="no tip of the right hand is inside an image"):
        plan_views(capture, aside, frames=[4])
    with pytest.raises(UsthandError, match="no frame shows the whole right hand in 3 views"):
        plan_views(capture, aside)


def test_tips_outside_an_image_are_not_asked_for(scene):
    """Moved to the image's edge, of camera a some tips are left, and the others see all of them."""
    capture, result, _ = scene
    shift = 0.8 * 320 / 600  # to the right edge of a's image
    joints = result.joints_world_m[:1] + np.array([shift, 0, 0])
    one = replace(result, joints_world_m=np.tile(joints, (FRAMES, 1, 1)))
    views = [view for view in plan_views(capture, one, frames=[0]) if view.camera == "a"]
    assert len(views) == 1 and 0 < len(views[0].patches) < 5
    assert max(p.corner[0] + p.size_px for p in views[0].patches) > 640 >= views[0].box[2]


def test_frames_that_are_not_there_are_told(scene):
    capture, result, labels = scene
    with pytest.raises(UsthandError, match=r"there is no frame 40: .* has frames 0 to 39"):
        plan_views(capture, result, labels, frames=[40])
    missed = replace(result, valid=np.arange(FRAMES) != 7)
    with pytest.raises(UsthandError, match="the right hand is not placed in frame 7"):
        plan_views(capture, missed, labels, frames=[6, 7])


def test_two_cameras_are_too_few(scene):
    capture, result, _ = scene
    with pytest.raises(UsthandError, match="has 2 cameras"):
        plan_views(replace(capture, rig=capture.rig.without("a")), result)
