"""Crops, batches and labels of a small synthetic capture: image, label and camera stay together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.toy import toy_labels, toy_rig
from support.trainings import small_capture
from usthand.capture.capture import open_capture
from usthand.capture.frames import planes_of
from usthand.data.augmentation import augmentation
from usthand.data.batches import make_batch
from usthand.data.crops import CropConfig, cut_crop, place_crops
from usthand.data.footage import Footage, footage_of
from usthand.data.prepare import consensus_labels, fit_hand, hold_out, load_hand_2d
from usthand.fit.canonical import canonical_hand
from usthand.geometry.affine import affine_apply
from usthand.labels.labels import load_labels


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_capture(tmp_path_factory.mktemp("captures") / "small")


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


def test_how_uncertain_the_expected_place_is_in_the_image(small):
    """As joints displaced at random scatter when projected. Perspective and the lens are worth some per cent."""
    capture = open_capture(small)
    hand = load_hand_2d(capture, "right")
    fit = fit_hand(hand, capture.fps)
    std_m = np.linspace(0.001, 0.01, len(fit))
    crops = place_crops(hand.rig, fit.joints_world_m, fit.valid, 1.7, std_m=std_m)
    noise = np.random.default_rng(0).standard_normal((100, *fit.joints_world_m.shape)) * std_m[:, None, None]
    moved = [place_crops(hand.rig, fit.joints_world_m + one, fit.valid, 1.7).expected_px for one in noise]
    scatter = np.sqrt(np.square(np.stack(moved) - crops.expected_px).mean((0, 3, 4)))
    # 4,200 numbers each, so known to 1.1 %.
    assert np.abs(crops.expected_std_px / scatter - 1).max() < 0.1
    assert not place_crops(hand.rig, fit.joints_world_m, fit.valid, 1.7).expected_std_px.any()


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


@pytest.mark.parametrize("upright", [False, True])
def test_augmented_batches_keep_image_label_and_camera_together(small, upright):
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
    config = CropConfig(colour=0.0, upright=upright)
    inputs, targets = make_batch(
        [(footage, np.arange(4)), (footage, np.arange(4, 8))], 96, config, np.random.default_rng(0)
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


def test_hands_point_up_in_upright_crops(small):
    """From wrist to middle knuckle, as the labels' fit expects them; with the crop's own turns about that."""
    capture = open_capture(small)
    hand = load_hand_2d(capture, "right")
    config = CropConfig(upright=True, rotation_deg=10.0)
    footage = footage_of(capture, hand, fit_hand(hand, capture.fps), config, 64)
    clips = [(footage, np.arange(8))]
    for rng, most_deg in ((None, 0.01), (np.random.default_rng(0), 10.01)):
        inputs, _ = make_batch(clips, 64, config, rng)
        expected = affine_apply(inputs.crop_from_px.double(), torch.from_numpy(footage.crops.expected_px[:8])[None])
        along = (expected[..., 9, :] - expected[..., 0, :]).numpy()
        off = np.degrees(np.arctan2(along[..., 0], -along[..., 1]))
        assert np.abs(off).max() < most_deg
        size = np.linalg.norm(inputs.crop_from_px[..., :2].numpy(), axis=-2)
        assert np.allclose(size[..., 0], size[..., 1], rtol=1e-5), "turned and scaled, not sheared"
    plain, _ = make_batch(clips, 64, CropConfig(), None)
    assert not torch.allclose(plain.crop_from_px, make_batch(clips, 64, config, None)[0].crop_from_px)


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
    rig, labels = toy_rig(), toy_labels()
    left = canonical_hand(rig.mirrored(), labels.mirrored(rig.widths.tolist()))
    assert left.mirrored and left.labels.side == "right"
    assert np.abs(left.labels.uv_px - labels.uv_px).max() < 1e-3
    assert np.abs(left.rig.cameras[0].rotation - rig.cameras[0].rotation).max() < 1e-12
