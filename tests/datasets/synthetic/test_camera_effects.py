"""Webcams' effects against what optics and arithmetic say they must do to simple pictures."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.ndimage import convolve1d, gaussian_filter

from usthand.datasets.synthetic import camera_effects as effects
from usthand.datasets.synthetic import render, shade
from usthand.geometry import raster

SIZE = 64
NEUTRAL = effects.CameraEffects()
BAR = np.array([[20.0, 10.0, 1.0], [30.0, 10.0, 1.0], [30.0, 54.0, 1.0], [20.0, 54.0, 1.0]])  # u, v, depth
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def drawn(screen, faces=FACES, colour=0.8, behind=0.1):
    """Linear image, background and z-buffer of flat triangles."""
    buffer = raster.empty_buffer(SIZE * shade.SAMPLES, SIZE * shade.SAMPLES)
    raster.rasterise(screen, faces, buffer, shade.SAMPLES)
    cover = (buffer.face_id >= 0).reshape(SIZE, shade.SAMPLES, SIZE, shade.SAMPLES).mean((1, 3))[..., None]
    background = np.full((SIZE, SIZE, 3), behind, np.float32)
    return (background + cover * (colour - background)).astype(np.float32), background, buffer


def develop(image, look=NEUTRAL, gain=(1.0, 1.0, 1.0), blur_px=0.0, noise=(0.0, 0.0), seed=0):
    return effects.develop_effects(image.copy(), look, np.array(gain), blur_px, noise, seed)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (9.0, 0.0), (0.0, 7.0), (8.0, -6.0)])
def test_motion_smears_as_the_mean_of_many_short_exposures(shift):
    """Against pictures drawn at 40 instants; a bilinear splat is off by less than half a pixel of an edge."""
    image, background, buffer = drawn(BAR)
    move = np.array([*shift, 0.0])
    instants = [drawn(BAR + part * move)[0] for part in (np.arange(40) + 0.5) / 40 - 0.5]
    effects.smear(image, background, buffer, FACES, np.tile(move[:2], (4, 1)))
    error = np.abs(image - np.mean(instants, 0))
    contrast, length = 0.7, max(np.abs(shift)) + 1
    assert error.max() <= contrast * (0.02 if shift == (0.0, 0.0) else 0.5 * (1 / length + 0.25))
    assert error.mean() < 0.004
    # No light is lost: the sum over the image stays.
    assert image.sum() == pytest.approx(np.mean(instants, 0).sum(), rel=2e-3)


def test_what_is_in_front_is_not_smeared_over():
    """A bar that stands still before one that moves keeps its edge."""
    near = BAR.copy()
    near[:, 2] = 0.5
    near[:, 0] += 10.0
    screen, faces = np.concatenate([BAR, near]), np.concatenate([FACES, FACES + 4])
    image, background, buffer = drawn(screen, faces)
    image[10:55, 30:41] = 0.3  # the near bar's own colour
    before = image.copy()
    smear_px = np.zeros((8, 2))
    smear_px[:4, 0] = 12.0
    effects.smear(image, background, buffer, faces, smear_px)
    np.testing.assert_allclose(image[12:52, 32:39], before[12:52, 32:39], atol=1e-5)
    assert np.abs(image - before)[12:52, 14:20].max() > 0.2  # the far one is smeared at its free side


def test_nothing_shines_through_where_parts_cross():
    """Halves of one surface that move apart: the gap is unknown, but it is not the background."""
    right = BAR.copy()
    right[:, 0] += 10.0
    screen, faces = np.concatenate([BAR, right]), np.concatenate([FACES, FACES + 4])
    image, background, buffer = drawn(screen, faces)
    smear_px = np.zeros((8, 2))
    smear_px[4:, 0] = 8.0
    effects.smear(image, background, buffer, faces, smear_px)
    assert image[20:44, 22:34].min() > 0.75


def test_rolling_shutter_shears_what_moves():
    """A line at row v is read (v - middle) / height of the readout later than the middle's, and what moves is there."""
    speed, readout = np.tile([300.0, 0.0], (4, 1)), 0.02
    rolled = effects.rolled(BAR, speed, readout, SIZE)
    middle = BAR[:, 1].mean()
    expected = 300.0 * readout * (BAR[:, 1] - middle) / SIZE
    np.testing.assert_allclose(rolled[:, 0] - BAR[:, 0], expected, atol=1e-9)
    image = drawn(rolled)[0]
    rows = np.arange(14, 50)
    centre = ((image[rows, :, 0] - 0.1) * np.arange(SIZE)).sum(1) / (image[rows, :, 0] - 0.1).sum(1)
    assert np.polyfit(rows, centre, 1)[0] == pytest.approx(300.0 * readout / SIZE, rel=0.05)
    hidden = np.array([[5.0, 5.0, -1.0]])
    np.testing.assert_array_equal(effects.rolled(hidden, np.ones((1, 2)), readout, SIZE), hidden)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
def test_defocus_is_a_gaussian(sigma):
    image = np.random.default_rng(0).uniform(size=(31, 40, 3)).astype(np.float32)
    expected = gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest", radius=math.ceil(3 * sigma))
    effects.convolve(image, effects.gaussian_taps(sigma))
    np.testing.assert_allclose(image, expected, atol=2e-6)


def test_a_camera_without_effects_is_the_plain_sensor():
    """Its tone curve differs from the plain kernel's table by rounding alone, and brightness and colour come back."""
    image = np.random.default_rng(1).uniform(0, 1.5, (SIZE, SIZE, 3)).astype(np.float32)
    gain, plain = np.array([1.1, 0.9, 1.0], np.float32), np.empty(image.shape, np.uint8)
    shade.develop(image, gain, 0.0, 0.0, render._TONE, np.uint64(0), plain)
    ours = develop(image, gain=gain)
    assert np.abs(ours.astype(int) - plain).max() <= 1


def test_noise_is_finer_in_brightness_than_in_colour():
    flat, read = np.full((SIZE, SIZE, 3), 0.3, np.float32), 0.01
    slope = 1.055 / 2.4 * 0.3 ** (1 / 2.4 - 1)  # of the sRGB curve
    grey = develop(flat, noise=(read, 0.0)).astype(float)
    # One value a pixel for all colours; quantisation adds 1/12.
    assert grey.std() == pytest.approx(math.hypot(255 * slope * read, 12**-0.5), rel=0.05)
    assert np.abs(grey[..., 0] - grey[..., 2]).max() <= 1
    look = dataclasses.replace(NEUTRAL, colour_noise=1.0)
    speckled = develop(flat, look, noise=(read, 0.0)).astype(float)
    tint = speckled[..., 0] - speckled[..., 2]
    assert tint.std() == pytest.approx(255 * slope * read * 2**0.5, rel=0.08)
    within = tint.reshape(SIZE // 2, 2, SIZE // 2, 2)
    assert np.abs(within - within.mean((1, 3), keepdims=True)).mean() < 0.2 * tint.std()  # blocks of two by two
    assert not np.array_equal(grey, develop(flat, noise=(read, 0.0), seed=1))


def test_denoising_smooths_noise_and_keeps_edges():
    step = np.full((SIZE, SIZE, 3), 0.1, np.float32)
    step[:, SIZE // 2 :] = 0.5
    noisy = develop(step, noise=(0.01, 0.0)).astype(float)
    smooth = develop(step, dataclasses.replace(NEUTRAL, denoise=0.12), noise=(0.01, 0.0)).astype(float)
    for side in (slice(4, 28), slice(36, 60)):
        assert smooth[4:-4, side].std() < 0.5 * noisy[4:-4, side].std()  # 13 samples: 0.28, and what is quantised
    jump = np.diff(smooth[..., 0].mean(0))[SIZE // 2 - 1]
    assert jump == pytest.approx(np.diff(noisy[..., 0].mean(0))[SIZE // 2 - 1], rel=0.03)


def test_sharpening_leaves_halos_of_the_masks_height():
    """Beside a step the binomial mask (1, 4, 6, 4, 1) / 16 holds 5/16 of the other side."""
    step = np.full((SIZE, SIZE, 3), 0.1, np.float32)
    step[:, SIZE // 2 :] = 0.3
    row = develop(step, dataclasses.replace(NEUTRAL, sharpen=0.8))[SIZE // 2, :, 1].astype(float)
    low, high = row[4], row[-4]
    halo = 0.8 * 5 / 16 * (high - low)
    assert row[SIZE // 2] - high == pytest.approx(halo, abs=1) and low - row[SIZE // 2 - 1] == pytest.approx(
        halo, abs=1
    )
    mask = convolve1d(np.where(np.arange(SIZE) < SIZE // 2, low, high), np.array([1, 4, 6, 4, 1]) / 16, mode="nearest")
    np.testing.assert_allclose(row, np.where(np.arange(SIZE) < SIZE // 2, low, high) * 1.8 - 0.8 * mask, atol=1)


def test_corners_colour_and_tone():
    flat = np.full((SIZE, SIZE, 3), 0.3, np.float32) * np.array([1.3, 1.0, 0.8], np.float32)
    dark = develop(flat, dataclasses.replace(NEUTRAL, vignette=0.5)).astype(int)
    middle, corner = dark[SIZE // 2, SIZE // 2], dark[0, 0]
    np.testing.assert_allclose(corner, develop(0.5 * flat)[0, 0], atol=1)
    np.testing.assert_allclose(middle, develop(flat)[0, 0], atol=1)
    pale = develop(flat, dataclasses.replace(NEUTRAL, saturation=0.0))
    assert np.ptp(pale[0, 0].astype(int)) <= 1
    ramp = np.linspace(0, 1, SIZE, dtype=np.float32)[None, :, None].repeat(3, 2).repeat(4, 0)
    hard, veiled = (
        develop(ramp, dataclasses.replace(NEUTRAL, **one))[0, :, 0] for one in ({"contrast": 0.9}, {"lift": 0.1})
    )
    plain = develop(ramp)[0, :, 0].astype(int)
    assert (np.diff(hard.astype(int)) >= 0).all() and hard[4] < plain[4] and hard[48] > plain[48]
    assert veiled[0] == pytest.approx(25.5, abs=1) and veiled[-1] == pytest.approx(plain[-1], abs=3)


def test_drift_is_slow_and_bounded():
    look = dataclasses.replace(NEUTRAL, drift=(0.1, 0.05, 0.5, 1.0))
    gains = np.array([look.gain_at(t) for t in np.arange(0, 10, 1 / 30)])
    assert (np.abs(np.log(gains)) <= 0.15 + 1e-9).all() and np.ptp(gains, axis=0).min() > 0.1
    assert np.abs(np.diff(np.log(gains), axis=0)).max() <= (0.1 * 0.5 * 2 * np.pi + 0.05 * 0.5 * 2 * np.pi) / 30
    np.testing.assert_array_equal(NEUTRAL.gain_at(3.0), 1.0)


def test_drawn_cameras_differ_and_stay_in_bounds():
    rng = np.random.default_rng(0)
    drawn_looks = [look for _ in range(50) for look in effects.sample_effects(rng, 4)]
    assert len(set(drawn_looks)) == 200
    for look in drawn_looks:
        assert 0.002 <= look.exposure_s <= 0.04 and 0 <= look.readout_s <= 0.025
        tone = look.tone
        assert np.isfinite(tone).all() and tone.min() >= 0 and tone.max() <= 1 and (np.diff(tone) >= -1e-6).all()
