"""Codecs between camera and disk: frames arrive in order, one for one, the coarser the worse."""

import numpy as np
import pytest

from usthand.datasets.synthetic.transmission import CODECS, Transmission, sample_transmissions, transmit

SIZE = 64


def clip(n=9):
    """A bright square that moves over smooth noise; frames differ from each other."""
    rng = np.random.default_rng(0)
    behind = np.kron(rng.integers(40, 160, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    frames = []
    for t in range(n):
        frame = behind.copy()
        frame[20:40, 4 + 5 * t : 18 + 5 * t] = (230, 200, 170)
        frames.append(frame)
    return frames


def received(way, frames):
    return [image.astype(float) for image in transmit(iter(frames), way, 30.0)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_frames_arrive_in_order_and_size(codec, scale):
    frames = clip()
    arrived = received(Transmission(codec, 6, scale), frames)
    assert len(arrived) == len(frames)
    for t, image in enumerate(arrived):
        assert image.shape == frames[t].shape
        distance = [np.abs(image - other).mean() for other in frames]
        assert int(np.argmin(distance)) == t


@pytest.mark.parametrize("codec", CODECS)
def test_coarser_is_worse_and_the_same_frames_give_the_same(codec):
    frames = clip()
    errors = []
    for quality in (3, 12, 30):
        arrived = received(Transmission(codec, quality), frames)
        errors.append(np.mean([np.abs(image - frame).mean() for image, frame in zip(arrived, frames, strict=True)]))
    assert errors[0] < errors[1] < errors[2]
    for one, two in zip(
        received(Transmission(codec, 20), frames), received(Transmission(codec, 20), frames), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_fewer_pixels_carry_no_fine_detail():
    """A grid finer than what half the pixels can hold becomes grey; at full size it is kept."""
    grid = np.zeros((SIZE, SIZE, 3), np.uint8)
    grid[:, ::2] = 255
    kept, lost = (received(Transmission("mjpeg", 1, scale), [grid])[0] for scale in (1.0, 0.5))
    assert kept.std() > 100 and lost[:, 4:-4].std() < 20


def test_some_cameras_lose_nothing_and_no_frames_give_none():
    frames = clip(2)
    for one, two in zip(transmit(iter(frames), None, 30.0), frames, strict=True):
        np.testing.assert_array_equal(one, two)
    assert received(Transmission(), []) == []
    ways = [way for seed in range(60) for way in sample_transmissions(np.random.default_rng(seed), 4)]
    assert 0.1 < np.mean([way is None for way in ways]) < 0.5
    assert {way.codec for way in ways if way} == set(CODECS)
