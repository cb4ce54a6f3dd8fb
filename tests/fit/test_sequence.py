"""The sequence fit's model of errors: the scale that it learns, sources that see the same cameras, and a detector that
sees the joints elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fit_parts import full_articulation
from support.fit_scene import Scene, error_mm, labels_of, make_scene
from usthand.capture.rig import Rig
from usthand.fit import sequence
from usthand.fit.detector_joints import DetectorJoints, bone_frames, load_detector_joints
from usthand.fit.fit import fit_observations, source_views, triangulate
from usthand.fit.observations import DETECTOR, Observations, Source
from usthand.fit.reweighting import ReweightingConfig
from usthand.fit.sequence import FitConfig, FitData, Fitter
from usthand.fit.validity import valid_joints
from usthand.geometry.cameras import project

FAST = FitConfig(rounds=6)
GAUSSIAN = ReweightingConfig(dof=1e6, learn_power=False, learn_joints=False)
NETWORK = Source("network", detected=False, sets_noise_scale=False)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(n_frames=24)


def rig_of(scene: Scene, views: int) -> Rig:
    return replace(scene.rig, cameras=scene.rig.cameras[:views])


def noisy(uv: np.ndarray, rng, sigma_px: float) -> np.ndarray:
    return uv + sigma_px * rng.normal(size=uv.shape)


def observed(*uv: np.ndarray, sigma_px: float = 1.0, sources: tuple[Source, ...] = (DETECTOR,)) -> Observations:
    """Each source's positions (T, V, J, 2), all with this stated error."""
    both = np.stack(uv, 1).astype(np.float64)
    return Observations(both, np.broadcast_to(np.eye(2) / sigma_px**2, (*both.shape, 2)).copy(), sources)


# ---- the noise scale -----------------------------------------------------------------------------------------------


def learned_scale(scene: Scene, views: int, seed: int) -> float:
    """Estimated over true standard deviation of Gaussian, independent errors of 2 px, of which 1 px is stated."""
    rig, rng = rig_of(scene, views), np.random.default_rng(seed)
    seen = observed(noisy(scene.labels.uv_px[:, :views], rng, 2.0))
    fitter = Fitter(
        full_articulation(),
        replace(FAST, rounds=8, reweighting=GAUSSIAN),
        FitData(source_views(rig, seen), (DETECTOR,)),
    )
    fitter.run()
    return 0.5 / np.sqrt(np.median(fitter.weight))


@pytest.mark.parametrize("views", [2, 4])
def test_the_learned_noise_scale_is_right_however_few_views(views, monkeypatch):
    """The fit follows its labels: residuals are smaller than errors, the more the fewer views. With leverages it
    learns the errors. Of N labels' axes, of which the fit leaves a part f, the scale is known to 1 / sqrt(2 f N): two
    views of 60 frames and f of a third leave 1.8 %; three times that is allowed. Without leverages the scale is that of
    the residuals: too small by more than that with two views, and by less with four."""
    scene = make_scene(n_frames=60)
    scale = np.mean([learned_scale(scene, views, seed) for seed in range(2)])
    assert abs(scale - 1) < 3 * 0.018
    monkeypatch.setattr(sequence, "LEVERAGE_ROUNDS", -1)
    without = np.mean([learned_scale(scene, views, seed) for seed in range(2)])
    assert without < 1 - (3 * 0.018 if views == 2 else 0)


# ---- sources -------------------------------------------------------------------------------------------------------


def test_two_sources_of_one_camera_are_one_view(scene):
    """Frames that one camera sees, through whatever number of sources, are not valid; and no joint counts as seen."""
    rng, rig = np.random.default_rng(1), rig_of(scene, 3)
    uv = scene.labels.uv_px[:, :3]
    seen = observed(noisy(uv, rng, 1.0), noisy(uv, rng, 1.0), sources=(DETECTOR, NETWORK))
    precision = seen.precision.copy()
    precision[5:9, :, 1:] = 0  # both sources see through the first camera alone
    precision[12:16, 0, 1:] = 0  # the detector too, the network through all
    seen = replace(seen, precision=precision)
    result = fit_observations(rig, seen, FAST)
    expected = np.ones(24, bool)
    expected[5:9] = False
    assert np.array_equal(result.valid, expected) and np.array_equal(result.joint_valid.all(1), expected)
    assert np.array_equal(valid_joints(rig, source_views(rig, seen)), result.joint_valid)
    data = FitData(source_views(rig, seen), seen.sources)
    assert data.source_of.tolist() == [0, 0, 0, 1, 1, 1]
    count = data.count_views(precision[..., 0, 0].reshape(24, 6, 21) > 0)
    assert count[5, 0] == 1 and count[12, 0] == 3 == count[0, 0]


def test_sources_are_in_the_order_of_their_cameras(scene):
    """Twice the same labels as two sources, and as one source of twice the information."""
    rig, uv = rig_of(scene, 3), noisy(scene.labels.uv_px[:, :3], np.random.default_rng(2), 1.0)
    views = source_views(rig, observed(uv, uv + 1, sources=(DETECTOR, NETWORK)))
    alone = source_views(rig, observed(uv)), source_views(rig, observed(uv + 1))
    for k, one in enumerate(alone):
        assert torch.equal(views.xy[:, 3 * k : 3 * k + 3], one.xy)
        assert torch.equal(views.cameras.cam_from_world[3 * k : 3 * k + 3], one.cameras.cam_from_world)


def test_a_source_that_does_not_set_the_scale_takes_that_of_the_others(scene):
    """A network that learned a detector's labels, errors of 3 px and all, states 1 px as they do. Both together fit no
    better than one; by its own residuals about the fit, which follows it, the network's scale would be the smaller."""
    rig, rng = rig_of(scene, 3), np.random.default_rng(3)
    uv = noisy(scene.labels.uv_px[:, :3], rng, 3.0)
    network = scene.labels.uv_px[:, :3] + 0.3 * rng.normal(size=uv.shape)
    scale = {}
    for sets in (False, True):
        seen = observed(uv, network, sources=(DETECTOR, replace(NETWORK, sets_noise_scale=sets)))
        fitter = Fitter(
            full_articulation(), replace(FAST, reweighting=GAUSSIAN), FitData(source_views(rig, seen), seen.sources)
        )
        fitter.run()
        scale[sets] = [1 / np.sqrt(np.median(fitter.weight[:, views])) for views in (slice(3), slice(3, 6))]
    assert np.isclose(*scale[False]), "one scale for both"
    assert abs(scale[False][0] / 3 - 1) < 0.1, "that of the detector"
    assert scale[True][1] < 0.9 * scale[False][1]


@pytest.mark.parametrize("part", [0.0, 0.4, 1.0])
def test_what_views_have_in_common_more_views_do_not_average_out(scene, part):
    """n equal labels, of whose variance a part p is common, tell as much as n / (1 + (n - 1) p)."""
    seen = observed(scene.labels.uv_px, sources=(replace(DETECTOR, common_part=part),))
    views, state = source_views(scene.rig, seen), full_state(scene)
    views = views._replace(precision=torch.eye(2, dtype=torch.float64).expand(*views.xy.shape, 2) * 1e4)
    fitter = Fitter(full_articulation(), FAST, FitData(views, seen.sources))
    fitter.weight = np.ones_like(fitter.weight)
    (term,) = fitter.energy(state).terms
    np.testing.assert_allclose((term.root**2).sum((-1, -2)), 2e4 / (1 + 3 * part), rtol=1e-9)


def test_a_view_that_stands_alone_has_nothing_in_common(scene):
    seen = observed(scene.labels.uv_px, sources=(replace(DETECTOR, common_part=0.5),))
    precision = seen.precision.copy()
    precision[:, 0, 1:] *= 1e-9
    fitter = Fitter(
        full_articulation(), FAST, FitData(source_views(scene.rig, replace(seen, precision=precision)), seen.sources)
    )
    fitter.weight = np.ones_like(fitter.weight)
    (term,) = fitter.energy(full_state(scene)).terms
    np.testing.assert_allclose((term.root**2).sum((-1, -2))[:, 0], fitter.stated[:, 0], rtol=1e-6)


def full_state(scene: Scene):
    """The scene's state with all shape coefficients of the fit's hand."""
    return replace(scene.state, shape=np.r_[scene.state.shape, np.zeros(30)])


# ---- a detector's joints -------------------------------------------------------------------------------------------


def isotropic(std_m: float) -> DetectorJoints:
    """A detector that strays by this much along each axis."""
    each = np.tile(std_m**2 * np.eye(3), (21, 1, 1))
    return DetectorJoints("test", np.zeros((21, 3)), each, each, 0.8)


def test_labels_of_a_detector_that_strays_tell_no_more_than_they_can(scene):
    """n views see x + e with one e of variance c along each axis: what they tell of x is (A^-1 + c)^-1 with A what
    they tell of x + e. Labels of equal weight w / (1 + n w c) instead tell no more, and two thirds of it or more, since
    n cameras see each direction with two of three axes on the average."""
    seen = replace(observed(scene.labels.uv_px), detector=isotropic(0.004))
    fitter = Fitter(full_articulation(), FAST, FitData(source_views(scene.rig, seen), seen.sources, seen.detector))
    fitter.weight, state = np.ones_like(fitter.weight), full_state(scene)
    (term,) = fitter.energy(state).terms
    joints = fitter.hand.detected(state)
    told, whole = (
        np.einsum("tvjab,tvjac->tjbc", rows, rows)
        for rows in (
            replace(term, previous=tuple(0 * p for p in term.previous)).residuals(joints)[1],
            replace(term, root=np.sqrt(fitter.stated / 2)[..., None, None] * np.eye(2)).residuals(joints)[1],
        )
    )
    most = np.linalg.inv(np.linalg.inv(whole) + 0.004**2 * np.eye(3))
    ratio = np.trace(told, axis1=-2, axis2=-1) / np.trace(most, axis1=-2, axis2=-1)
    assert ratio.max() < 1.02 and ratio.min() > 0.65
    assert (np.trace(most, axis1=-2, axis2=-1) < 0.5 * np.trace(whole, axis1=-2, axis2=-1)).all()


def displaced(scene: Scene, detector: DetectorJoints) -> tuple[np.ndarray, np.ndarray]:
    """Where a detector with these means sees the scene's joints, in space and in the images."""
    away = scene.hand.bone_turns(scene.state) @ bone_frames(scene.hand).swapaxes(-1, -2) @ detector.mean_m[..., None]
    seen = scene.joints + away[..., 0]
    return seen, project(scene.rig.tensors(torch.float64), torch.from_numpy(seen))[0].numpy()


def test_joints_are_the_hands_where_the_detector_sees_others(scene):
    """Exact labels of MediaPipe's joints, which lie up to a centimetre off the hand's. The fit that knows so places the
    hand's joints nearly as well as from labels of the hand's own, within 2 mm, and the detector's beside them within 1;
    one that does not know is as far off as the detector is."""
    detector = load_detector_joints("mediapipe")
    seen_m, uv = displaced(scene, detector)
    rng = np.random.default_rng(4)
    known = Observations.from_labels(replace(labels_of(scene.rig, noisy(uv, rng, 0.3)), detector="mediapipe"))
    result, untold = (fit_observations(scene.rig, one, FAST) for one in (known, replace(known, detector=None)))
    off = error_mm(seen_m, scene.joints).mean()
    assert off > 3 and result.joint_model == "soft" and untold.joint_model == "rigid"
    assert error_mm(result.joints_world_m, scene.joints).mean() < min(2.0, 0.5 * off)
    assert error_mm(result.detector_joints_world_m, seen_m).mean() < 1
    assert error_mm(untold.joints_world_m, scene.joints).mean() > 0.6 * off
    assert (
        error_mm(result.vertices_world_m, scene.vertices).mean()
        < error_mm(untold.vertices_world_m, scene.vertices).mean()
    )


def test_a_rigid_fit_ignores_what_is_known_of_the_detector(scene):
    known = replace(observed(scene.labels.uv_px), detector=load_detector_joints("mediapipe"))
    one, other = (
        fit_observations(scene.rig, seen, replace(FAST, joint_model=model))
        for seen, model in ((known, "rigid"), (replace(known, detector=None), "auto"))
    )
    assert np.array_equal(one.joints_world_m, other.joints_world_m) and one.joint_model == "rigid"
    assert one.detector_joints_world_m.shape[1] == 0


def test_a_source_of_the_models_joints_places_the_hand_beside_a_detector_of_others(scene):
    """A detector of whose joints nothing is known but that they differ, and a network that sees the model's own: told
    which is which, the fit places the hand better than if both count as the detector's."""
    rng = np.random.default_rng(8)
    _, uv = displaced(scene, load_detector_joints("mediapipe"))
    errors = {}
    for detected in (False, True):
        sources = (DETECTOR, replace(NETWORK, detected=detected, sets_noise_scale=True))
        seen = observed(noisy(uv, rng, 1.0), noisy(scene.labels.uv_px, rng, 1.0), sources=sources)
        result = fit_observations(scene.rig, replace(seen, detector=load_detector_joints("of my own")), FAST)
        errors[detected] = error_mm(result.joints_world_m, scene.joints).mean()
    assert errors[False] < 0.6 * errors[True] and errors[False] < 2


def test_triangulation_is_of_what_the_detector_sees(scene):
    seen_m, uv = displaced(scene, load_detector_joints("mediapipe"))
    raw = triangulate(scene.rig, replace(labels_of(scene.rig, uv), detector="mediapipe"))
    assert error_mm(raw.joints_world_m, seen_m).max() < 0.01
    assert error_mm(raw.vertices_world_m, scene.vertices).mean() < 3, "the mesh knows where MediaPipe's joints are"
