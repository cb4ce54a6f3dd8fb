"""The HaMuCo baseline: its geometry is right, masked views have no say, and it learns from 2D labels alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from usthand.capture.capture import open_capture
from usthand.data.batches import Targets
from usthand.data.crops import CropConfig
from usthand.datasets.synthetic.scene import sample_rig
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.experiments.hamuco.model import (
    ROOT,
    UNIT_M,
    Hamuco,
    HamucoLearner,
    HamucoPrediction,
    ViewHands,
    aligned_pairs,
    crop_rotations,
    hamuco_losses,
    mean_hands,
    place,
)
from usthand.experiments.hamuco.reconstruct import reconstruct_hamuco
from usthand.geometry.affine import affine_apply
from usthand.geometry.cameras import Cameras, project, to_camera
from usthand.geometry.rotations import rotation_from_axis_angle
from usthand.hand.io import load_hand
from usthand.network.config import ModelConfig
from usthand.network.model import Inputs
from usthand.training.checkpoint import load_state
from usthand.training.config import OptimisationConfig, Preset, TrainConfig
from usthand.training.loop import load_hands, prepare_footages, start_training, train
from usthand.training.objective import Batch, UstHandLearner
from usthand.training.step import draw_batch

MODEL = ModelConfig(
    width=8, image_size=64, map_channels=16, graph_width=32, flow_hidden=16, couplings=2, point_width=32, blocks=1
)
B, T, V = 2, 2, 4


@pytest.fixture(scope="module")
def scene():
    """A hand before four cameras, with crops around it: cameras, crop_from_px, joints and vertices (world, m)."""
    rig = sample_rig(np.random.default_rng(0), V, "dome", 256)
    cameras = Cameras(*(t.expand(B, T, *t.shape) for t in rig.tensors(dtype=torch.float64)))
    hand = load_hand(dtype=torch.float64)
    turns = rotation_from_axis_angle(
        torch.randn(B, T, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.3
    )
    posed = hand.with_shape(torch.zeros(10, dtype=torch.float64)).with_pose(turns)
    middle = posed.joints.mean(-2, keepdim=True)
    joints, vertices = posed.joints - middle, posed.vertices - middle
    uv, _ = project(cameras, joints)
    centre = (uv.amax(-2) + uv.amin(-2)) / 2
    side = 1.7 * (uv.amax(-2) - uv.amin(-2)).amax(-1)
    angle = torch.linspace(-0.4, 0.4, V, dtype=torch.float64).expand(B, T, V)
    c, s = angle.cos() * 2 / side, angle.sin() * 2 / side
    linear = torch.stack((torch.stack((c, -s), -1), torch.stack((s, c), -1)), -2)
    shift = -(linear @ centre.unsqueeze(-1))
    return cameras, torch.cat((linear, shift), -1), joints, vertices


def ideal(scene, mask=None) -> tuple[HamucoPrediction, Inputs]:
    """A prediction whose hands are the scene's own, seen from each view, with exact 2D joints; and its inputs."""
    cameras, crop_from_px, joints, vertices = scene
    turn = crop_rotations(cameras, crop_from_px)
    root = joints[..., ROOT : ROOT + 1, :]
    seen = [((x - root) / UNIT_M).unsqueeze(2) @ turn.transpose(-1, -2) for x in (vertices, joints)]
    uv = affine_apply(crop_from_px, project(cameras, joints)[0])
    six = torch.zeros(B, T, V, 16, 6, dtype=torch.float64)
    six[..., 0] = six[..., 4] = 1.0
    hands = ViewHands(*seen, uv, six, torch.zeros(B, T, V, 10, dtype=torch.float64))
    mask = torch.ones(B, T, V, dtype=torch.bool) if mask is None else mask
    inputs = Inputs(torch.zeros(B, T, V, 3, 64, 64, dtype=torch.float64), crop_from_px, mask, cameras)
    return HamucoPrediction(hands, hands, turn), inputs


def labels_of(prediction: HamucoPrediction) -> Targets:
    uv = prediction.cross.uv_crop
    return Targets(uv, torch.ones_like(uv[..., 0]), uv, torch.ones_like(uv[..., 0]))


def test_crop_cameras_look_through_the_crops_centre(scene):
    cameras, crop_from_px, joints, _ = scene
    turn = crop_rotations(cameras, crop_from_px)
    eye = torch.eye(3, dtype=torch.float64).expand_as(turn)
    torch.testing.assert_close(turn @ turn.transpose(-1, -2), eye)
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones_like(turn[..., 0, 0]))
    # In such a camera an undistorted pinhole projection is the crop, up to its scale: directions of joints agree.
    from_cam = turn @ cameras.cam_from_world[..., :3].transpose(-1, -2)
    points = to_camera(cameras, joints) @ from_cam.transpose(-1, -2)
    uv = affine_apply(crop_from_px, project(cameras, joints)[0])
    pinhole = points[..., :2] / points[..., 2:]
    assert (uv - uv.mean(-2, keepdim=True)).abs().max() > 0.3
    scale = (uv * pinhole).sum((-2, -1)) / (pinhole * pinhole).sum((-2, -1))
    # What is left is the lens: within 4 % of the crop's half at distortions of up to a quarter.
    assert (scale[..., None, None] * pinhole - uv).abs().max() < 0.04


def test_a_right_prediction_costs_nothing_but_priors(scene):
    prediction, inputs = ideal(scene)
    for step in (0, 1):
        terms = hamuco_losses(prediction, inputs, labels_of(prediction), step)
        assert all(float(value) < 1e-9 for value in terms.values()), terms


def test_views_are_compared_up_to_scale_and_shift(scene):
    points = torch.randn(1, 1, 3, 30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points[:, :, 1] = 1.7 * points[:, :, 0] + 0.3
    pairs = aligned_pairs(points)
    torch.testing.assert_close(pairs[:, :, 0, 1], points[:, :, 0])
    torch.testing.assert_close(pairs[:, :, 1, 0], points[:, :, 1])
    torch.testing.assert_close(pairs.diagonal(dim1=2, dim2=3).movedim(-1, 2), points)


def test_a_masked_view_has_no_part_in_the_mean_or_the_losses(scene):
    mask = torch.ones(B, T, V, dtype=torch.bool)
    mask[..., 1] = False
    prediction, inputs = ideal(scene, mask)
    labels = labels_of(prediction)
    spoiled = prediction.cross.joints.clone()
    spoiled[..., 1, :, :] = torch.randn_like(spoiled[..., 1, :, :])
    wrong = prediction._replace(cross=prediction.cross._replace(joints=spoiled))
    pairs = aligned_pairs(wrong.cross.points @ wrong.crop_from_world)
    good = aligned_pairs(prediction.cross.points @ prediction.crop_from_world)
    torch.testing.assert_close(mean_hands(pairs, mask)[:, :, 0], mean_hands(good, mask)[:, :, 0])
    for step in (0, 1):
        assert float(hamuco_losses(wrong, inputs, labels, step)["consistency"]) < 1e-9


def test_the_fused_hand_is_placed_by_the_calibration(scene):
    """Exact hands of a wrong size land on the true joints and mesh: the rig knows the scale."""
    _, _, joints, vertices = scene
    prediction, inputs = ideal(scene)
    small = prediction.cross._replace(vertices=0.8 * prediction.cross.vertices, joints=0.8 * prediction.cross.joints)
    placed_joints, placed_vertices = place(prediction._replace(cross=small), inputs)
    torch.testing.assert_close(placed_joints, joints, atol=2e-5, rtol=0)
    torch.testing.assert_close(placed_vertices, vertices, atol=2e-5, rtol=0)


def test_missing_views_change_nothing_but_the_estimate(scene):
    """Whatever a masked view shows, the others' cross-view hands stay; and all is finite with no view at all."""
    cameras, crop_from_px, _, _ = scene
    torch.manual_seed(0)
    model = Hamuco(MODEL, load_hand()).eval()
    cameras = Cameras(*(t.float() if t.is_floating_point() else t for t in cameras))
    mask = torch.ones(B, T, V, dtype=torch.bool)
    mask[..., 2] = False
    mask[1, 1] = False
    images = torch.randn(B, T, V, 3, 64, 64)
    inputs = Inputs(images, crop_from_px.float(), mask, cameras)
    other = images.clone()
    other[:, :, 2] = torch.randn(B, T, 3, 64, 64)
    with torch.no_grad():
        one, two = model(inputs), model(inputs._replace(images=other))
    seen = mask[0, 0]
    torch.testing.assert_close(one.cross.joints[0, :, seen], two.cross.joints[0, :, seen])
    assert not torch.equal(one.single.joints[0, :, 2], two.single.joints[0, :, 2])
    assert all(torch.isfinite(x).all() for x in place(one, inputs))


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("hamuco") / "small"
    return make_capture(path, SynthConfig(views=3, frames=16, labels="exact", size=128, seed=3))


def preset(**changes) -> Preset:
    return Preset(
        MODEL,
        train=OptimisationConfig(
            **({"steps": 4, "points_from": 1.0, "single_frames": 2, "warmup": 1, "targets": "labels"} | changes)
        ),
    )


def test_it_is_trained_and_used_by_the_same_code(capture, tmp_path):
    train([capture], tmp_path / "run", TrainConfig(preset()), learner=HamucoLearner())
    result = reconstruct_hamuco(open_capture(capture), tmp_path / "run", "right")
    assert (
        result.joints_world_m.shape == (16, 21, 3)
        and result.vertices_world_m.shape == (16, 778, 3)
        and result.valid.all()
    )
    train([capture], tmp_path / "again", TrainConfig(preset()), learner=HamucoLearner())
    one, two = (load_state(tmp_path / name / "last") for name in ("run", "again"))
    assert all(torch.equal(one[key], two[key]) for key in one), "the seed decides, dropout included"


def test_it_may_start_from_a_checkpoint_of_its_own(capture, tmp_path):
    train([capture], tmp_path / "run", TrainConfig(preset()), learner=HamucoLearner())
    state = start_training(preset(), [], [], tmp_path, HamucoLearner(tmp_path / "run" / "best"))
    kept = load_state(tmp_path / "run" / "best")
    assert all(torch.equal(value, kept[name]) for name, value in state.model.state_dict().items())


def test_both_methods_see_the_same_batches(capture, tmp_path):
    """Equal terms: same images, cameras, crops and labels in every step."""
    config = preset(points_from=1.0)
    footages, checks = prepare_footages(load_hands([capture], "right", None), config, tmp_path)
    batches = [
        draw_batch(start_training(config, footages, checks, tmp_path, learner), 3)
        for learner in (UstHandLearner(), HamucoLearner())
    ]
    for one, two in zip(
        batches[0].inputs[:3] + batches[0].targets, batches[1].inputs[:3] + batches[1].targets, strict=True
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.slow
def test_one_small_batch_can_be_overfitted(capture, tmp_path):
    """2D joints of both predictions reach the labels to a fiftieth of the crop from 2D labels alone."""
    config = replace(preset(), crop=CropConfig(rotation_deg=0.0, shift=0.0, colour=0.0, scale=(1.0, 1.0)))
    footages, checks = prepare_footages(load_hands([capture], "right", None), config, tmp_path)
    learner = HamucoLearner()
    state = start_training(config, footages, checks, tmp_path, learner)
    batch, model = draw_batch(state, 0), state.model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(250):
        batch = Batch(batch.inputs, batch.targets, step, np.random.default_rng(step), batch.generator)
        optimizer.zero_grad()
        sum(learner.terms(model, batch, config).values()).backward()
        optimizer.step()
    error = (model.eval()(batch.inputs).cross.uv_crop - batch.targets.uv_crop).norm(dim=-1)
    present = batch.targets.weight > 0
    assert float(error[present].detach().median()) < 0.04
