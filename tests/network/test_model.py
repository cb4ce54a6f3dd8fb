"""The network's symmetries: rigid motions of the rig, order of the cameras, views that are not there."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation

from support.networks import SMALL, make_inputs, make_model, run
from usthand.common.errors import UsthandError
from usthand.geometry.affine import affine_apply, affine_inverse
from usthand.geometry.cameras import Cameras, project
from usthand.hand.io import load_hand
from usthand.network.config import ModelConfig
from usthand.network.hand_head import pose_hand
from usthand.network.heatmaps import soft_argmax
from usthand.network.model import Inputs
from usthand.network.point_cloud import lift, palm_frame, project_to_crops

KINDS = {"joint": SMALL, "hand": ModelConfig(**{**vars(SMALL), "flow": "hand"})}


def spread(points: torch.Tensor) -> float:
    return float((points - points.mean((0, 1, 2))).norm(dim=-1).max())


@pytest.fixture(params=KINDS)
def model(request):
    return make_model(KINDS[request.param])


def test_a_rigid_motion_of_the_rig_moves_the_output_and_nothing_else(model):
    inputs = make_inputs()
    turn = torch.from_numpy(Rotation.from_rotvec([0.4, -1.2, 2.0]).as_matrix()).float()
    shift = torch.tensor([0.3, -0.5, 0.2])
    rotation = inputs.cameras.cam_from_world[..., :3] @ turn.T
    translation = inputs.cameras.cam_from_world[..., 3:] - (rotation @ shift)[..., None]
    moved = inputs._replace(cameras=inputs.cameras._replace(cam_from_world=torch.cat((rotation, translation), -1)))
    here, there = run(model, inputs), run(model, moved)
    # float32, camera coordinates of about a metre: 1e-6 m per operation, and the features amplify it a little.
    assert spread(here.points[-1]) > 0.01
    for a, b in zip(here.points, there.points, strict=True):
        assert (a @ turn.T + shift - b).abs().max() < 2e-4
    hand = model.hand_head.hand
    one, two = (pose_hand(hand, model.hand_head.axes, answer.hand).joints for answer in (here, there))
    assert (one @ turn.T + shift - two).abs().max() < 5e-4
    assert (here.hypotheses - there.hypotheses).abs().max() < 1e-5


def test_the_order_of_the_cameras_does_not_matter(model):
    inputs, order = make_inputs(), torch.tensor([2, 0, 1])
    shuffled = Inputs(
        inputs.images[:, :, order],
        inputs.crop_from_px[:, :, order],
        inputs.view_mask[:, :, order],
        Cameras(*(t[:, :, order] for t in inputs.cameras)),
    )
    here, there = run(model, inputs), run(model, shuffled)
    assert (here.points[-1] - there.points[-1]).abs().max() < 2e-4
    assert (here.hypotheses[:, :, order] - there.hypotheses).abs().max() < 1e-5


def test_a_masked_view_is_as_good_as_no_view(model):
    inputs = make_inputs(views=4)
    mask = inputs.view_mask.clone()
    mask[:, :, 3] = False
    masked = inputs._replace(view_mask=mask)
    other = masked._replace(images=masked.images.clone())
    other.images[:, :, 3] = 7.0
    gone = Inputs(
        inputs.images[:, :, :3],
        inputs.crop_from_px[:, :, :3],
        mask[:, :, :3],
        Cameras(*(t[:, :, :3] for t in inputs.cameras)),
    )
    here = run(model, masked)
    assert torch.equal(here.points[-1], run(model, other).points[-1])
    without = run(model, gone)
    assert (here.points[-1] - without.points[-1]).abs().max() < 2e-4
    assert (here.hypotheses[:, :, :3] - without.hypotheses).abs().max() < 1e-5
    # The view counts when it is there: the estimate does change.
    assert (run(model, inputs).points[-1] - here.points[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("left", [0, 1])
def test_frames_that_few_views_see_stay_finite(model, left):
    inputs = make_inputs()
    mask = inputs.view_mask.clone()
    mask[0, 1, left:] = False
    found = run(model, inputs._replace(view_mask=mask))
    assert all(torch.isfinite(p).all() for p in (*found.points, found.hypotheses, *found.hand))


def test_window_reaches_as_far_as_it_says():
    """A frame is influenced by the frames within blocks * (window // 2), and by no other."""
    model = make_model()
    inputs = make_inputs(batch=1, frames=7)
    changed = inputs._replace(images=inputs.images.clone())
    changed.images[0, 0] = 3.0
    difference = (run(model, inputs).points[-1] - run(model, changed).points[-1]).abs().amax((0, 2, 3))
    reach = SMALL.blocks * (SMALL.window // 2)
    assert (difference[: reach + 1] > 0).all() and (difference[reach + 1 :] == 0).all()


def test_confidence_is_the_heatmaps_maximum_and_masks_follow(model):
    found = run(model, make_inputs())
    assert torch.equal(found.views.confidence, found.views.heatmaps.amax((-1, -2)))
    assert (found.views.confidence > 0).all() and (found.views.confidence < 1).all()


def test_triangulating_the_projections_of_a_hand_gives_the_hand_back():
    inputs = make_inputs()
    rest = (
        load_hand().with_shape(torch.zeros(1, 10)).with_pose(torch.eye(3).expand(1, 16, 3, 3), torch.zeros(1, 3)).joints
    )
    joints = (rest - rest.mean(1, keepdim=True)).expand(2, 3, 21, 3)
    uv = project_to_crops(inputs.cameras, inputs.crop_from_px, joints)
    cloud = lift(
        inputs.cameras, inputs.crop_from_px, uv.unsqueeze(-2).expand(-1, -1, -1, -1, 4, -1), torch.ones(2, 3, 3, 21)
    )
    assert (cloud.query - joints).abs().max() < 1e-5 and cloud.anchors.shape == (2, 3, 21, 3, 3)
    pixels, _ = project(inputs.cameras, joints)
    assert (affine_apply(affine_inverse(inputs.crop_from_px), uv) - pixels).abs().max() < 1e-3


def test_soft_argmax_finds_a_peak():
    logits = torch.full((1, 24, 24), -20.0)
    logits[0, 5, 17] = 20.0
    assert torch.allclose(soft_argmax(logits), torch.tensor([[2 * 17 + 1, 2 * 5 + 1]]) / 24 - 1, atol=1e-5)


def test_the_palms_frame_is_proper_and_scales():
    joints = torch.randn(2, 3, 21, 3, generator=torch.Generator().manual_seed(0))
    frame = palm_frame(joints)
    assert torch.allclose(torch.linalg.det(frame.axes), torch.ones(2, 3), atol=1e-5)
    back = frame.vectors_to_world(frame.to_local(joints)) + frame.origin.unsqueeze(-2)
    assert torch.allclose(back, joints, atol=1e-5)
    assert torch.allclose(palm_frame(3 * joints).to_local(3 * joints), frame.to_local(joints), atol=1e-5)


@pytest.mark.parametrize(
    "switch",
    [
        {"use_confidence": False},
        {"use_casa": False},
        {"use_gcn": False},
        {"use_fusion": False},
        {"flow": "none"},
        {"attention": ("spatial",)},
        {"attention": ()},
        {"backbone": "resnet34"},
    ],
)
def test_every_switch_changes_the_network_and_keeps_it_running(switch):
    changed = make_model(ModelConfig(**{**vars(SMALL), **switch}))
    plain = make_model()
    found = run(changed, make_inputs())
    assert torch.isfinite(found.points[-1]).all()
    same_names = set(changed.state_dict()) == set(plain.state_dict())
    assert not same_names or not torch.equal(found.points[-1], run(plain, make_inputs()).points[-1])


def test_imagenet_weights_load_by_their_common_names(tmp_path):
    """The names and shapes of the published ResNet-34 file, written out here by rule."""
    state, channels_in = (
        {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64), "fc.weight": (1000, 512), "fc.bias": (1000,)},
        64,
    )
    for stage, depth in enumerate((3, 4, 6, 3)):
        channels = 64 * 2**stage
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            first = channels_in if block == 0 else channels
            state |= {
                f"{name}.conv1.weight": (channels, first, 3, 3),
                f"{name}.conv2.weight": (channels, channels, 3, 3),
            }
            state |= _norm(f"{name}.bn1", channels) | _norm(f"{name}.bn2", channels)
            if block == 0 and stage > 0:
                state |= {
                    f"{name}.downsample.0.weight": (channels, first, 1, 1),
                    **_norm(f"{name}.downsample.1", channels),
                }
        channels_in = channels
    tensors = {k: torch.full(shape, 0.5) if shape else torch.tensor(3) for k, shape in state.items()}
    save_file(tensors, tmp_path / "resnet34.safetensors")
    torch.save(tensors, tmp_path / "resnet34.pth")
    model = make_model(ModelConfig(**{**vars(SMALL), "backbone": "resnet34", "width": 64}))
    for name in ("resnet34.safetensors", "resnet34.pth"):
        torch.nn.init.zeros_(model.backbone.trunk.layer3[5].conv2.weight)
        model.backbone.trunk.load_imagenet(tmp_path / name)
        assert (model.backbone.trunk.layer3[5].conv2.weight == 0.5).all()
    with pytest.raises(UsthandError, match="does not fit the backbone"):
        make_model().backbone.trunk.load_imagenet(tmp_path / "resnet34.pth")
    with pytest.raises(UsthandError, match="there is no"):
        make_model().backbone.trunk.load_imagenet(tmp_path / "nothing.pth")


@pytest.mark.parametrize("name", ["page.pth", "empty.pth", "broken.safetensors", "module.pth"])
def test_a_file_that_is_no_backbone_ends_in_one_sentence(tmp_path, name):
    """A web page in place of the weights, a download that never began or broke off, a whole pickled module."""
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "broken.safetensors").write_bytes(b"rubbish")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UsthandError, match="does not fit the backbone"):
        make_model().backbone.trunk.load_imagenet(tmp_path / name)


def _norm(name: str, channels: int) -> dict:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}
