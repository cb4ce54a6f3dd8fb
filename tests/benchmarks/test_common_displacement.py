"""What all views share is recovered from projections: as a whole, and split into its parts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from common_displacement import (
    Sample,
    common_bending,
    displacements,
    held_out,
    moments,
    of_two_sources,
    open_median,
    view_noise,
)

HALVES = (((0, 2, 4, 6), (1, 3, 5, 7)), ((0, 1, 4, 5), (2, 3, 6, 7)))
S, C, T, V, J = 40, 3, 12, 8, 21
FPS = 6.0
NOISE = 0.03  # hand sizes
UNIT_MM = 180.0  # of a hand size


def rows_all_round(rng, n_frames):
    """Derivatives (T, V, J, 2, 3) of image places by places in frames that are turned at random."""
    turn = np.linalg.qr(rng.normal(size=(n_frames, V, J, 3, 3)))[0]
    return turn[..., :2, :]


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    mean = 4 * rng.normal(size=(J, 3))
    return mean, np.array([1.0, 2.0, 1.5]), np.array([2.0, 3.0, 2.5]), 0.8  # mean, subject's and pose's std, memory


@pytest.fixture(scope="module")
def sample(truth):
    """Subjects whose displacements have known parts, seen with errors of each view's own."""
    mean, subject_std, pose_std, memory_s = truth
    rng = np.random.default_rng(1)
    rho = np.exp(-1 / (FPS * memory_s))
    subjects = []
    for _ in range(S):
        own, clips = subject_std * rng.normal(size=(J, 3)), []
        for _ in range(C):
            step = rng.normal(size=(T, J, 3))
            step[1:] *= np.sqrt(1 - rho**2)
            d = mean + own + pose_std * lfilter([1.0], [1.0, -rho], step, axis=0)
            rows = rows_all_round(rng, T)
            gap = np.einsum("tvjab,tjb->tvja", rows, d / UNIT_MM) + NOISE * rng.normal(size=(T, V, J, 2))
            gap[rng.random((T, V)) < 0.05] = np.nan
            seen = np.ones((T, V, J))
            visible = rng.random((T, V, J)) < 0.7
            whole, noise, weight = displacements(gap, rows, seen)
            halves = [
                [displacements(gap[:, list(h)], rows[:, list(h)], seen[:, list(h)])[0] for h in two] for two in HALVES
            ]
            bends = np.broadcast_to(rng.uniform(0, 200, size=(T, 1)), (T, J))
            clips.append((UNIT_MM * whole, UNIT_MM * np.array(halves), weight, noise, visible, bends))
        subjects.append(clips)
    return Sample(*(np.array([[clip[k] for clip in clips] for clips in subjects]) for k in range(6)))


def test_exact_projections_give_the_displacement_back():
    rng = np.random.default_rng(2)
    rows, d = rows_all_round(rng, 3), 0.02 * rng.normal(size=(3, J, 3))
    gap = np.einsum("tvjab,tjb->tvja", rows, d)
    gap[0, :6] = np.nan
    gap[1, :7] = np.nan
    found, noise, weight = displacements(gap, rows, np.ones((3, V, J)))
    np.testing.assert_allclose(found[[0, 2]], d[[0, 2]], atol=1e-6)
    assert np.isnan(found[1]).all() and np.isnan(noise[1]).all() and not weight[1].any()
    np.testing.assert_allclose(noise[2], 0, atol=1e-6)
    assert (weight[0] == 2).all() and (weight[2] == V).all()


def test_a_view_that_is_lost_takes_little_part():
    rng = np.random.default_rng(3)
    rows, d = rows_all_round(rng, 5), 0.02 * rng.normal(size=(5, J, 3))
    gap = np.einsum("tvjab,tjb->tvja", rows, d)
    gap[:, 2] += 0.5
    plain = np.linalg.lstsq(rows[0, :, 0].reshape(-1, 3), gap[0, :, 0].ravel(), rcond=None)[0]
    found = displacements(gap, rows, np.ones((5, V, J)))[0]
    assert np.linalg.norm(found[0, 0] - d[0, 0]) < 0.1 * np.linalg.norm(plain - d[0, 0])


def test_parts_are_told_apart(sample, truth):
    mean, subject_std, pose_std, memory_s = truth
    found = moments(sample, FPS)
    # A subject's mean holds its own part, the pose's (a clip of 2 s is worth about one sample of it) and noise.
    error = np.sqrt((subject_std**2 + pose_std**2 / C + 1.0) / S)
    assert (np.abs(found.mean - mean) < 4.5 * error).all()
    # Over 21 joints: J S subjects, and J S C clips worth about two samples of the pose's part each.
    subject = np.einsum("jaa->ja", found.subject).mean(0)
    spread = (subject_std**2 + pose_std**2) * np.sqrt(2 / (J * S))
    assert (np.abs(subject - subject_std**2) < 4 * spread).all()
    pose = np.einsum("jaa->ja", found.pose).mean(0)
    assert (np.abs(pose - pose_std**2) < 4 * (spread + pose_std**2 * np.sqrt(2 / (J * S * C)))).all()
    assert abs(np.einsum("jab->ab", found.subject)[0, 1]) / J < 4 * 3 * np.sqrt(2 / (J * S))
    assert found.memory_s == pytest.approx(memory_s, rel=0.2)


def test_clenched_fingers_have_no_part_in_the_median(sample, truth):
    """Whatever they show; and a few lost joints change nothing, as they would a mean."""
    mean, subject_std, pose_std, _ = truth
    shown = np.where(sample.bends[..., None] < 120, sample.whole, 1000.0)
    lost = np.random.default_rng(5).random(shown.shape[:-1]) < 0.01
    found = open_median(replace(sample, whole=np.where(lost[..., None], 300.0, shown)), 120.0)
    # Pi / 2: of a median's variance over a mean's; half the frames are used, which are as good as one of each clip.
    error = np.sqrt(np.pi / 2 * (subject_std**2 + pose_std**2 / C + 1.0) / S)
    assert (np.abs(found - mean) < 4.5 * error).all()


def test_two_sources_that_disagree_leave_their_difference_as_uncertainty():
    """The covariance is that of points which either source is as likely to have told, each with its own errors."""
    rng = np.random.default_rng(6)
    one, other, std = 3 * rng.normal(size=(J, 3)), 3 * rng.normal(size=(J, 3)), rng.uniform(0.5, 2, J)
    mean, covariance = of_two_sources(one, other, std)
    n = 40000
    which = rng.integers(2, size=(n, 1, 1))
    points = np.where(which, one, other) + std[:, None] * rng.normal(size=(n, J, 3))
    spread = np.sqrt(np.einsum("jaa->ja", covariance))
    np.testing.assert_array_less(np.abs(points.mean(0) - mean), 5 * spread / np.sqrt(n))
    drawn = np.einsum("nja,njb->jab", points - mean, points - mean) / n
    np.testing.assert_array_less(np.abs(drawn - covariance), 5 * np.sqrt(2 / n) * spread[:, :, None] * spread[:, None])


def test_views_own_noise_is_what_was_put_in(sample):
    """Of the stated size after the correction for leverage, and independent between joints and frames."""
    found = view_noise(sample)
    rms = found["rms_per_axis_seen_hidden"][0]
    assert rms == pytest.approx(NOISE, rel=0.1)  # the robust weights and the clipping change it a little
    assert abs(found["correlation_same_finger"]) < 0.02 and abs(found["correlation_by_lag"][0]) < 0.02


def test_the_mean_explains_the_constant_part_of_other_subjects(sample, truth):
    found = held_out(sample)
    mean, subject_std, pose_std, _ = truth
    before, after = found["constant_mm_before"]["all"], found["constant_mm_after"]["all"]
    assert before == pytest.approx(np.sqrt((mean**2).sum(-1).mean() + (subject_std**2).sum()), rel=0.1)
    assert after == pytest.approx(np.sqrt((subject_std**2).sum()), rel=0.15)
    frames = found["frames_mm_after"]["all"]
    assert frames == pytest.approx(np.sqrt((subject_std**2).sum() + (pose_std**2).sum()), rel=0.1)


def test_bending_counts_what_both_halves_see_and_nothing_else():
    """A rigid hand that moves does not bend; one half's noise is no bending; a joint that both see move is."""
    rng = np.random.default_rng(4)
    hand = 40 * rng.normal(size=(J, 3))
    moving = hand + 100 * rng.normal(size=(20, T, 1, 3))
    halves = [moving + rng.normal(size=moving.shape) for _ in range(2)]
    pairs = [(0, 5), (0, 9), (5, 9)]
    # Of the products of independent lengths of variance 2: 3 pairs (sharing joints), 20 clips of 12 frames.
    assert common_bending(*halves, pairs) ** 2 < 4 * 2 / np.sqrt(20 * T)
    sway = 5 * np.sin(np.linspace(0, 6, T))
    along = (hand[5] - hand[0]) / np.linalg.norm(hand[5] - hand[0])
    for half in halves:
        half[:, :, 5] += sway[:, None] * along
    expected = np.sqrt(np.mean((sway - np.median(sway)) ** 2))
    assert common_bending(*halves, [(0, 5)]) == pytest.approx(expected, rel=0.15)
