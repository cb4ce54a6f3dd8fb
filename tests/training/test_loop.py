"""Training and using a network on small synthetic captures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from support.trainings import MODEL, SHORT, state_of
from usthand.capture.capture import open_capture
from usthand.capture.frames import planes_of
from usthand.common.errors import UsthandError
from usthand.data.prepare import as_right_hand, choose_side, consensus_labels, fit_hand, hold_out, load_hand_2d
from usthand.data.windows import CropConfig, Footage, Targets, augmentation, cut_crop, make_batch, place_crops
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation import truth as truth_module
from usthand.evaluation.truth import load_truth
from usthand.hand.io import load_hand
from usthand.labels.labels import load_labels, load_npz
from usthand.network.model import TINY, Inputs
from usthand.network.point_cloud import affine_apply
from usthand.reconstruction import reconstruct as reconstruct_module
from usthand.reconstruction.reconstruct import ADAPTED_VARIANCE_SCALE, VARIANCE_SCALE, reconstruct, reconstruct_both
from usthand.training.checkpoint import SHIPPED, from_json, load_checkpoint, weights_digest
from usthand.training.config import PRESETS, Preset, TrainConfig
from usthand.training.loop import learning_rate, train


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Three cameras, 24 frames, exact labels."""
    path = tmp_path_factory.mktemp("captures") / "small"
    return make_capture(path, SynthConfig(views=3, frames=24, labels="exact", size=128, seed=3))


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "short"
    train([small], out, SHORT, quiet=True)
    return out


# ---- truth stays out -----------------------------------------------------------------------------------------------


def test_inputs_and_targets_have_no_room_for_truth():
    """Of the labels, the inputs hold where their fit expects the hand (crop maps, gate): see tests/test_gate.py."""
    assert Inputs._fields == ("images", "crop_from_px", "view_mask", "cameras", "gate")
    assert Targets._fields == ("uv_crop", "weight", "detected_uv_crop", "detected_weight")


def test_training_and_reconstruction_never_read_truth(small, tmp_path, monkeypatch, trained):
    """Without its truth folder, and with its reader broken, a capture gives bit for bit the same network and hands."""
    blind = tmp_path / "blind"
    shutil.copytree(small, blind)
    shutil.rmtree(blind / "truth")

    def refuse(*_):
        raise AssertionError("truth was read")

    monkeypatch.setattr(truth_module, "load_truth", refuse)
    train([blind], tmp_path / "run", SHORT, quiet=True)
    ours, theirs = state_of(tmp_path / "run"), state_of(trained)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    a = reconstruct(open_capture(blind), tmp_path / "run", "right")
    b = reconstruct(open_capture(small), trained, "right")
    assert np.array_equal(a.joints_world_m, b.joints_world_m)


# ---- crops ---------------------------------------------------------------------------------------------------------


def test_crops_hold_the_labelled_hand_and_their_maps_are_right(small):
    """A crop, found again in the image by its affine map: colours agree to the resampling's blur."""
    capture = open_capture(small)
    hand = load_hand_2d(capture, "right")
    fit = fit_hand(hand, capture.fps)
    crops = place_crops(hand.rig, fit.joints_world_m, fit.valid, 1.7)
    labels = load_labels(capture, "right")
    low, high = crops.corner_px[..., None, :] - 0.5, (crops.corner_px + crops.side_px[..., None])[..., None, :] - 0.5
    inside = ((labels.uv_px >= low) & (labels.uv_px <= high)).all(-1)
    assert inside[labels.mask & crops.view_mask[..., None]].all()
    assert crops.view_mask.all()


def test_a_crop_equals_the_image_at_its_own_size():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)

    def cut(x, y):
        out = np.full((20, 20, 3), 7, np.uint8)
        cut_crop(planes_of(image), np.array([x, y]), 20, False, out)
        return out

    assert np.array_equal(cut(5, 7), image[7:27, 5:25])
    beyond = cut(-4, 30)
    assert np.array_equal(beyond[:10, 4:], image[30:40, :16]) and not beyond[10:].any() and not beyond[:, :4].any()
    assert not cut(500, 500).any()


def test_augmented_batches_keep_image_label_and_camera_together(small):
    """A bright dot painted at the label is found at the label's crop coordinates, whatever the augmentation."""
    capture = open_capture(small)
    hand = load_hand_2d(capture, "right")
    fit = fit_hand(hand, capture.fps)
    crops = place_crops(hand.rig, fit.joints_world_m, fit.valid, 1.7)
    footage = Footage(
        hand.rig, hand.labels, hand.labels, np.zeros((24, 3, 160, 160, 3), np.uint8), crops, np.arange(24)
    )
    joint = 8
    at = affine_apply(
        torch.from_numpy(footage.store_from_px), torch.from_numpy(hand.labels.uv_px[:, :, [joint]]).double()
    )
    column, row = (((at[:, :, 0] + 1) * 80 - 0.5).round().long().numpy()[..., k] for k in range(2))
    t, v = np.indices(column.shape)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            footage.images[t, v, row + dy, column + dx] = 255
    inputs, targets = make_batch(
        [(footage, np.arange(4)), (footage, np.arange(4, 8))], 96, CropConfig(colour=0.0), np.random.default_rng(0)
    )
    brightness = inputs.images.sum(3)
    peak = brightness.flatten(-2).argmax(-1)
    found = torch.stack(((2 * (peak % 96) + 1) / 96 - 1, (2 * (peak // 96) + 1) / 96 - 1), -1)
    # Half a stored pixel from rounding, one network pixel from the blob: 3 pixels of 96 are a safe bound.
    assert ((found - targets.uv_crop[..., joint, :]).abs().amax() < 6 / 96) and (targets.weight[..., joint] > 0).all()
    uv_px = affine_apply(
        inputs.crop_from_px.double(), torch.from_numpy(hand.labels.uv_px[:8]).double().reshape(2, 4, 3, 21, 2)
    )
    assert (uv_px - targets.uv_crop).abs().max() < 1e-4


def test_augmentation_stays_within_its_ranges():
    maps = augmentation((500,), CropConfig(scale=(0.9, 1.1), rotation_deg=30), np.random.default_rng(0))
    scale = np.sqrt(np.linalg.det(maps[:, :, :2])) * 1.3
    angle = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert 0.9 <= scale.min() < 0.92 and 1.08 < scale.max() <= 1.1 and 28 < np.abs(angle).max() <= 30


# ---- labels --------------------------------------------------------------------------------------------------------


def test_consensus_of_exact_labels_is_the_labels(small):
    capture = open_capture(small)
    hand = load_hand_2d(capture, "right")
    consensus = consensus_labels(hand, fit_hand(hand, capture.fps))
    error = np.linalg.norm(consensus.uv_px - hand.labels.uv_px, axis=-1)
    assert np.median(error[hand.labels.mask]) < 0.7  # px of 128: the shape priors pull a little


def test_held_out_labels_are_in_no_loss(small):
    labels = load_labels(open_capture(small), "right")
    kept, held = hold_out(labels, 0.3, np.random.default_rng(0))
    assert not (kept.mask & held.mask).any() and np.array_equal(kept.mask | held.mask, labels.mask)
    assert 0 < held.mask.mean() < 0.6


def test_a_left_hand_is_the_mirrored_right_one():
    from support.toy import toy_labels, toy_rig

    rig, labels = toy_rig(), toy_labels()
    left = as_right_hand(rig.mirrored(), labels.mirrored(rig.widths))
    assert left.mirrored and left.labels.side == "right"
    assert np.abs(left.labels.uv_px - labels.uv_px).max() < 1e-3
    assert np.abs(left.rig.cameras[0].rotation - rig.cameras[0].rotation).max() < 1e-12


# ---- runs ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_network_and_another_another(small, trained, tmp_path):
    train([small], tmp_path / "again", SHORT, quiet=True)
    train([small], tmp_path / "other", replace(SHORT, train=replace(SHORT.train, seed=1)), quiet=True)
    first, again, other = state_of(trained), state_of(tmp_path / "again"), state_of(tmp_path / "other")
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["backbone.resnet.conv1.weight"], other["backbone.resnet.conv1.weight"])


def test_a_resumed_run_is_the_same_run(small, trained, tmp_path, monkeypatch):
    from usthand.training import loop as module

    monkeypatch.setattr(module, "LOG_EVERY", 1)
    monkeypatch.setattr(module, "CHECK_EVERY", 3)
    real, count = module.training_step, []

    def dies(state, step):
        if step == 3 and not count:
            count.append(1)
            raise KeyboardInterrupt
        return real(state, step)

    monkeypatch.setattr(module, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train([small], tmp_path / "run", SHORT, quiet=True)
    train([small], tmp_path / "run", SHORT, quiet=True)
    resumed, whole = state_of(tmp_path / "run"), state_of(trained)
    assert all(torch.equal(resumed[k], whole[k]) for k in whole)


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_best_is_the_last_that_is_not_noticeably_worse(small, tmp_path, monkeypatch, interrupted):
    """Checks of 3, 2, 2.04 and 2.5 px after steps 1, 2, 3, 4: 2.04 is 2 within the noise, and later."""
    from usthand.training import loop as module

    monkeypatch.setattr(module, "LOG_EVERY", 1)
    monkeypatch.setattr(module, "CHECK_EVERY", 1)
    errors, real = {0: 3.0, 1: 2.0, 2: 2.04, 3: 2.5}, module.training_step
    at, dead = [], []

    def step_of(state, step):
        if interrupted and step == 2 and not dead:
            dead.append(True)
            raise KeyboardInterrupt
        at.append(step)
        return real(state, step)

    monkeypatch.setattr(module, "training_step", step_of)
    monkeypatch.setattr(module, "held_out_error", lambda state: errors[at[-1]])
    preset = replace(SHORT, train=replace(SHORT.train, steps=4))
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            train([small], tmp_path / "run", preset, quiet=True)
    train([small], tmp_path / "run", preset, quiet=True)
    assert at == [0, 1, 2, 3]
    best = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert (best["step"], best["held_out_px"]) == (3, 2.04)


def test_a_run_leaves_what_it_promises(trained):
    for name in ("best", "last"):
        assert (trained / name / "model.safetensors").is_file()
        data = json.loads((trained / name / "config.json").read_text())
        assert data["preset"]["train"]["steps"] == 6 and data["model"]["image_size"] == 64
    assert list((trained / "tensorboard").iterdir())
    assert not list(trained.glob("crops*"))


def test_another_training_in_the_same_folder_is_refused(small, trained):
    with pytest.raises(UsthandError, match="other settings"):
        train([small], trained, replace(SHORT, train=replace(SHORT.train, learning_rate=0.1)), quiet=True)


def test_a_checkpoint_says_which_weights_of_the_package_it_began_from(small, trained, tmp_path):
    began = Preset(TINY, train=TrainConfig(start="shipped", steps=1, clips=1, clip_frames=1))
    train([small], tmp_path / "run", began, quiet=True)
    said = [json.loads((run / "best" / "config.json").read_text())["shipped"] for run in (tmp_path / "run", trained)]
    assert said == [weights_digest(), None], "the short one began from nothing"


def test_other_lessons_in_the_same_folder_are_refused(small, trained, tmp_path):
    """A network must not be taken for one that learned another capture, or that never saw a camera which it did see."""
    before = (trained / "best" / "model.safetensors").read_bytes()
    relabelled = tmp_path / "relabelled"
    shutil.copytree(small, relabelled)
    path = relabelled / "labels" / "right.npz"
    labels = load_npz(path)
    replace(labels, uv_px=labels.uv_px + 1).save(path)
    for captures, leave_out in (
        ([relabelled], None),
        ([small, relabelled], None),
        ([small], open_capture(small).rig.names[0]),
    ):
        with pytest.raises(UsthandError, match="on other captures or labels"):
            train(captures, trained, SHORT, leave_out=leave_out, quiet=True)
    assert (trained / "best" / "model.safetensors").read_bytes() == before
    shutil.copytree(small, tmp_path / "moved")
    train(
        [tmp_path / "moved"], trained, SHORT, quiet=True
    )  # the same training_data_fingerprint from another place: it has ended


@pytest.mark.parametrize("killed_at", ["model.safetensors", "config.json", "optimizer.safetensors"])
def test_a_run_killed_while_it_saves_is_the_same_run(small, trained, tmp_path, monkeypatch, killed_at):
    """Whichever file of `last` is the first that is not written any more."""
    from pathlib import Path

    from usthand.training import loop as module

    monkeypatch.setattr(module, "LOG_EVERY", 1)
    monkeypatch.setattr(module, "CHECK_EVERY", 2)
    real, saves, out = Path.replace, [], tmp_path / "run"

    def dies(path, target):
        if target == out / "last" / killed_at:
            saves.append(target)
            if len(saves) == 2:
                raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        train([small], out, SHORT, quiet=True)
    (out / "metrics.jsonl").open("a").write('{"step": 5, "tot')  # and what was being logged
    train([small], out, SHORT, quiet=True)
    resumed, whole = state_of(out), state_of(trained)
    assert all(torch.equal(resumed[k], whole[k]) for k in whole)
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_optimiser_ends_in_one_sentence(small, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "last" / "optimizer.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UsthandError, match=r"optimizer\.safetensors does not fit"):
        train([small], tmp_path / "run", SHORT, quiet=True)


def test_a_wrong_checkpoint_ends_in_one_sentence(trained, tmp_path):
    hand = load_hand()
    with pytest.raises(UsthandError, match="no trained network"):
        load_checkpoint(tmp_path, hand)
    copy = tmp_path / "copy"
    shutil.copytree(trained / "best", copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model": {**config["model"], "widht": 9}}))
    with pytest.raises(UsthandError, match="unknown key 'widht'"):
        load_checkpoint(copy, hand)
    (copy / "config.json").write_text(json.dumps({**config, "model": {**config["model"], "width": 16}}))
    with pytest.raises(UsthandError, match="does not fit"):
        load_checkpoint(copy, hand)
    (copy / "config.json").write_text(json.dumps({**config, "version": 99}))
    with pytest.raises(UsthandError, match="version 99"):
        load_checkpoint(copy, hand)
    (copy / "config.json").write_text("{")
    with pytest.raises(UsthandError, match="does not fit"):
        load_checkpoint(copy, hand)
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UsthandError, match="does not fit"):
        load_checkpoint(copy, hand)


def test_unknown_keys_of_a_config_are_refused():
    with pytest.raises(UsthandError, match="unknown key 'focal'"):
        from_json(CropConfig, {"focal": 1}, "config.json")


def test_learning_rates():
    config = TrainConfig(steps=1000, warmup=100, learning_rate=1.0)
    assert learning_rate(0, config) == 0.01 and learning_rate(99, config) == 1.0
    assert abs(learning_rate(999, config) - 0.01) < 1e-3
    published = replace(config, schedule="step")
    assert learning_rate(500, published) == 1.0 and learning_rate(900, published) == 0.1


def test_presets_say_what_the_paper_says():
    paper = PRESETS["paper"]
    assert (paper.model.backbone, paper.model.image_size, paper.model.window, paper.model.blocks) == (
        "resnet34",
        256,
        5,
        4,
    )
    loss = paper.loss
    assert (loss.hmap, loss.hm2d, loss.nll, loss.proj2d) == (0.001, 10.0, 0.1, 10.0)
    assert paper.train.learning_rate == 3e-4 and paper.train.clips == 8 and paper.train.targets == "labels"


def test_the_side_must_be_said_only_where_both_hands_are_labelled(small):
    assert choose_side(open_capture(small), None) == "right" and choose_side(open_capture(small), "left") == "left"


def test_leaving_a_camera_out_keeps_it_out(small, trained):
    capture = open_capture(small)
    result = reconstruct(capture, trained, "right", leave_out="cam1")
    assert result.cameras == ("cam0", "cam2")
    with pytest.raises(UsthandError, match="no camera 'nine'"):
        reconstruct(capture, trained, "right", leave_out="nine")


@pytest.mark.slow
def test_one_tiny_capture_can_be_overfitted(small, tmp_path):
    """A few minutes of a small network: its own points come within some millimetres of the exactly labelled hand, an
    order of magnitude closer than untrained, and the 2D error within a pixel or two of the 64 px crops."""
    model = replace(MODEL, width=16)
    preset = Preset(
        model, CropConfig(rotation_deg=5, shift=0.02, colour=0.05), train=TrainConfig(steps=500, clips=4, clip_frames=2)
    )
    train([small], tmp_path / "run", preset, quiet=True)
    both = reconstruct_both(open_capture(small), tmp_path / "run", "right")
    truth = load_truth(small, "right")
    error = np.linalg.norm(both.network.joints_world_m - truth.joints_world_m, axis=-1).mean()
    assert error < 0.010
    assert both.estimates.valid.all()


def test_confidence_falls_as_the_samples_spread(small, trained):
    """In one image, joints in the order of their samples' spread are in the reverse order of their confidence."""
    estimates = reconstruct_both(open_capture(small), trained, "right").estimates
    seen = estimates.heatmap_confidence > 0
    assert ((estimates.confidence > 0) == seen).all() and (estimates.confidence <= 1).all()
    spread = estimates.cov_px2.trace(axis1=-2, axis2=-1)
    for t, v in np.argwhere(seen.all(-1))[::7]:
        assert (np.diff(estimates.confidence[t, v][np.argsort(spread[t, v])]) <= 1e-9).all()


@pytest.mark.parametrize("shipped", [True, False])
def test_the_shipped_network_is_heard_beside_a_trained_one(small, trained, monkeypatch, shipped):
    heard, real = [], reconstruct_module.polish_fit

    def listen(hand, sources, *rest):
        heard.extend(sources)
        return real(hand, sources, *rest)

    monkeypatch.setattr(reconstruct_module, "polish_fit", listen)
    monkeypatch.setattr(reconstruct_module, "label_excellence", lambda hand, fit: 3.0)
    judged, fit_both = [], reconstruct_module.fit_observations
    monkeypatch.setattr(
        reconstruct_module,
        "fit_observations",
        lambda rig, both, *rest, **more: (
            judged.append(None if both.sets_noise_scale is None else both.sets_noise_scale.tolist()),
            fit_both(rig, both, *rest, **more),
        )[1],
    )
    steps = []
    both = reconstruct_both(
        open_capture(small), trained, "right", progress=lambda *at: steps.append(at), shipped=shipped
    )
    adapted = 3 * ADAPTED_VARIANCE_SCALE  # three views
    networks = [adapted, VARIANCE_SCALE[both.final.joint_model]] if shipped else [adapted]
    assert [one.variance_scale for one in heard] == [3 * variance_scale for variance_scale in networks] and heard[
        0
    ].estimates is both.estimates
    assert len({id(one.estimates) for one in heard}) == len(networks)
    assert judged == [None if not shipped else [False] * 3 + [True] * 6], (
        "of three views each: the trained network, the shipped one, labels"
    )
    assert [one.firm for one in heard] == [False, True][: len(networks)], (
        "the trained network has learned the detector's joints"
    )
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1] == len(networks) * len(both.final.valid)


def test_the_shipped_network_is_not_its_own_second_witness(small, monkeypatch):
    heard = []
    monkeypatch.setattr(reconstruct_module, "polish_fit", lambda hand, sources, *rest: heard.extend(sources))
    monkeypatch.setattr(reconstruct_module, "label_excellence", lambda hand, fit: 1.0)
    reconstruct_both(open_capture(small), SHIPPED, "right")
    assert len(heard) == 1 and heard[0].variance_scale in VARIANCE_SCALE.values() and heard[0].predicts_model_joints
