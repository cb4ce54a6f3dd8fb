"""Pseudo-labels for synthetic captures: exact projections made as wrong as a detector makes them.

The model, per camera and frame, with ``s`` the hand's size in pixels (longest side of the box of its joints)::

    uv = exact + s * f_j * sd(h) * ( sqrt(b) * B_j(layout) + sqrt(1 - b) * a_t * g_t )

- ``h`` in [0, 1] is how hidden the joint is (its visibility, softened over a few frames), and
  ``sd(h)^2 = (1 - h) * seen_std^2 + h * hidden_std^2``; ``f_j`` says which joints are hard (root mean square 1).
- ``g_t`` is unit Gaussian, AR(1) in time, partly shared by the hand and by each finger. ``a_t`` is a slowly changing
  amplitude with ``a^2 ~ (dof - 2) / chi^2(dof)``: ``a * g`` is Student's t, scaled to unit variance, and its outliers
  come in bursts, as a detector's do.
- ``B_j`` is a fixed smooth random function of the hand's layout in the image (random Fourier features). It is the same
  each time that the same layout is seen, so no smoothing over time removes it.
- Two neighbouring fingers are exchanged for several frames, more often where the hand hides itself.
- A whole hand is missed in bursts, more often the more of it is hidden, and always when most of it is out of the image.
- Now and then a detection is filed under the other side.
- Confidence falls with the amplitude of the error that was to be expected (hidden, hard joint, burst), but knows not
  the error itself, nor swaps, and is too high: informative, not honest.

Truth is an argument here and nowhere in what is returned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import lfilter
from scipy.special import expit, ndtr
from scipy.stats import chi2

from usthand.errors import UserError
from usthand.labels import Labels
from usthand.skeleton import FINGERS, N_JOINTS

DETECTOR_SEED = 20  # one imaginary detector, wrong in the same way on every capture
N_FEATURES = 64  # Fourier features of the systematic error: enough for a near-Gaussian field
LAYOUT_SCALE = 1.2  # hand sizes; unrelated layouts are about 2.5 apart, neighbouring frames about 0.1
SHARED_HAND, SHARED_FINGER = 0.15, 0.35  # parts of the variance common to the whole hand and to a finger
AMPLITUDE_CORRELATION = 0.95  # per frame: a burst of outliers lasts some 20 frames
MIN_SIZE_PX = 8.0  # smaller hands get the noise of this size: no detector is better than a fraction of a pixel
MAX_ERROR = 1.0  # hand sizes: a detector's output stays inside its crop
SOFTEN_FRAMES = 5  # occlusion comes and goes over this many frames
MIN_INSIDE = 0.5  # share of the joints that must lie in the image for a detection
SWAP_HIDDEN_GAIN = 4.0  # how many times likelier a swap starts with every joint hidden than with none
NEIGHBOURS = (("index", "middle"), ("middle", "ring"), ("ring", "little"))

# Which joints are hard: relative error, wrist and thumb base worst, as on the real clip (docs/notes/label-noise.md).
_HARD = np.array(
    [1.6, 1.5, 1.1, 0.9, 0.9, 1.1, 0.9, 0.8, 0.9, 1.0, 0.9, 0.8, 0.9, 1.0, 0.9, 0.8, 0.9, 1.1, 0.9, 0.9, 1.0]
)
JOINT_FACTOR = _HARD / np.sqrt(np.mean(_HARD**2))

CONFIDENCE_TOP = 0.97
CONFIDENCE_AT_SEEN = 1.9  # log-odds (before the top) at the amplitude of a seen joint: the overconfidence
CONFIDENCE_SLOPE = 1.1  # log-odds lost per factor e of expected amplitude
CONFIDENCE_NOISE = 0.9  # log-odds, Gaussian, AR(1): what makes confidence only a hint
CONFIDENCE_MIN = 0.05  # a detection is never worth nothing; 0 means missing


@dataclass(frozen=True)
class NoiseLevel:
    """How wrong labels are. Standard deviations are per image axis, in hand sizes; rates are shares of view-frames."""

    seen_std: float = 0.03
    hidden_std: float = 0.10
    tail_dof: float = 3.0  # Student's t; the smaller, the heavier the tails
    correlation: float = 0.8  # of the error with the next frame's
    bias_share: float = 0.2  # of the variance is systematic
    swap_rate: float = 0.03
    swap_frames: float = 6.0  # mean length
    miss_rate: float = 0.25
    miss_frames: float = 6.0
    miss_hidden_gain: float = 4.0  # log-odds of a miss, all joints hidden against none
    wrong_side_rate: float = 0.03
    wrong_side_frames: float = 3.0


HEAVY = NoiseLevel()
LIGHT = replace(
    HEAVY,
    seen_std=HEAVY.seen_std / 3,
    hidden_std=HEAVY.hidden_std / 3,
    swap_rate=HEAVY.swap_rate / 3,
    miss_rate=0.08,
    wrong_side_rate=HEAVY.wrong_side_rate / 3,
)
LEVELS: dict[str, NoiseLevel | None] = {"heavy": HEAVY, "light": LIGHT, "exact": None}


def noisy_labels(
    uv_exact_px: np.ndarray,
    visible: np.ndarray,
    in_image: np.ndarray,
    rng: np.random.Generator,
    level: str | NoiseLevel,
    cameras: tuple[str, ...],
    side: str = "right",
) -> dict[str, Labels]:
    """Labels as a detector would give them for projections that are known exactly.

    Args:
        uv_exact_px: projected joints, shape (T, V, 21, 2), pixels. Must be finite.
        visible: which joints are seen, not hidden by anything, shape (T, V, 21).
        in_image: which joints project into the image, shape (T, V, 21).
        rng: source of all randomness but the detector's systematic error, which is always the same.
        level: "heavy", "light", "exact", or parameters of your own.
        cameras: V names.
        side: the hand's true side.

    Returns:
        Labels by side. The other side is present only if some detection was filed under it.

    Raises:
        UserError: if the level is unknown.
    """
    level = _level(level)
    uv_exact_px = np.asarray(uv_exact_px, np.float64)
    if level is None:
        exact = np.ones(uv_exact_px.shape[:-1], np.float32)
        return {side: Labels(uv_exact_px.astype(np.float32), exact, tuple(cameras), side, "synthetic-exact")}

    size = hand_size_px(uv_exact_px)
    hiddenness = soften(1.0 - (visible & in_image))
    hidden_share = hiddenness.mean(-1)
    error, amplitude = label_error(uv_exact_px, size, hiddenness, rng, level)
    uv = swap_fingers(uv_exact_px + error, hidden_share, rng, level)
    confidence = label_confidence(amplitude, rng, level)

    missed = bursts(miss_probability(hidden_share, level), level.miss_frames, rng)
    missed |= in_image.mean(-1) < MIN_INSIDE
    elsewhere = bursts(np.full(size.shape, level.wrong_side_rate), level.wrong_side_frames, rng) & ~missed
    other = "left" if side == "right" else "right"
    labels = {side: _labels(uv, confidence, ~missed & ~elsewhere, cameras, side)}
    if elsewhere.any():
        labels[other] = _labels(uv, confidence, elsewhere, cameras, other)
    return labels


def hand_size_px(uv_px: np.ndarray) -> np.ndarray:
    """Longest side of the box of the joints, at least `MIN_SIZE_PX`: (..., 21, 2) -> (...)."""
    return np.maximum((uv_px.max(-2) - uv_px.min(-2)).max(-1), MIN_SIZE_PX)


def label_error(
    uv_px: np.ndarray, size_px: np.ndarray, hiddenness: np.ndarray, rng: np.random.Generator, level: NoiseLevel
) -> tuple[np.ndarray, np.ndarray]:
    """Errors (T, V, 21, 2) in pixels, and the amplitude that was to be expected of them (T, V, 21) in hand sizes."""
    n_frames, n_views = size_px.shape
    variance = (1 - hiddenness) * level.seen_std**2 + hiddenness * level.hidden_std**2
    std = JOINT_FACTOR * np.sqrt(variance)
    difficulty = _shared(rng, n_frames, n_views, 1, AMPLITUDE_CORRELATION)[..., 0]
    burst = np.sqrt((level.tail_dof - 2) / chi2.ppf(ndtr(-difficulty), level.tail_dof))
    random = burst[..., None] * _shared(rng, n_frames, n_views, 2, level.correlation)
    systematic = detector_bias(uv_px, size_px)
    error = std[..., None] * (np.sqrt(level.bias_share) * systematic + np.sqrt(1 - level.bias_share) * random)
    length = np.linalg.norm(error, axis=-1, keepdims=True)
    error *= MAX_ERROR / np.maximum(length, MAX_ERROR)
    return error * size_px[..., None, None], std * burst


def detector_bias(uv_px: np.ndarray, size_px: np.ndarray, seed: int = DETECTOR_SEED) -> np.ndarray:
    """The systematic error (..., 21, 2) of the imaginary detector, of unit variance over unrelated layouts.

    Random Fourier features (Rahimi and Recht 2007) of the joints' layout, which is free of position and scale.
    """
    rng = np.random.default_rng(seed)
    layout = (uv_px - uv_px.mean(-2, keepdims=True)) / size_px[..., None, None]
    flat = layout.reshape(*layout.shape[:-2], -1)
    frequency = rng.normal(size=(flat.shape[-1], N_FEATURES)) / LAYOUT_SCALE
    phase = rng.uniform(0, 2 * np.pi, N_FEATURES)
    features = np.sqrt(2 / N_FEATURES) * np.cos(flat @ frequency + phase)
    gain = _mix(*(rng.normal(size=(N_FEATURES, n, 2)) for n in (1, 6, N_JOINTS)))
    return np.einsum("...k,kjc->...jc", features, gain)


def label_confidence(amplitude: np.ndarray, rng: np.random.Generator, level: NoiseLevel) -> np.ndarray:
    """Confidence (T, V, 21) in (0, 1) from the expected amplitude in hand sizes."""
    n_frames, n_views = amplitude.shape[:2]
    noise = _shared(rng, n_frames, n_views, 1, level.correlation)[..., 0]
    typical = level.seen_std / np.sqrt(level.tail_dof)
    log_odds = CONFIDENCE_AT_SEEN - CONFIDENCE_SLOPE * np.log(amplitude / typical) + CONFIDENCE_NOISE * noise
    return np.clip(CONFIDENCE_TOP * expit(log_odds), CONFIDENCE_MIN, 1.0)


def swap_fingers(
    uv_px: np.ndarray, hidden_share: np.ndarray, rng: np.random.Generator, level: NoiseLevel
) -> np.ndarray:
    """Exchange the joints of two neighbouring fingers for several frames at a time."""
    gain = 1 + (SWAP_HIDDEN_GAIN - 1) * hidden_share
    swapped = bursts(np.minimum(level.swap_rate * gain / gain.mean(), 0.5), level.swap_frames, rng)
    starts = swapped & ~np.concatenate([np.zeros_like(swapped[:1]), swapped[:-1]])
    event = np.cumsum(starts, axis=0)
    draw = rng.integers(len(NEIGHBOURS), size=(event.max() + 1, event.shape[1]))
    pair = np.take_along_axis(draw, event, axis=0)
    out = uv_px.copy()
    for k, (one, two) in enumerate(NEIGHBOURS):
        here = swapped & (pair == k)
        a, b = list(FINGERS[one]), list(FINGERS[two])
        out[np.ix_(*map(range, out.shape[:2]), a)] = np.where(here[..., None, None], uv_px[:, :, b], out[:, :, a])
        out[np.ix_(*map(range, out.shape[:2]), b)] = np.where(here[..., None, None], uv_px[:, :, a], out[:, :, b])
    return out


def miss_probability(hidden_share: np.ndarray, level: NoiseLevel) -> np.ndarray:
    """Probability of a miss (T, V): logistic in the hidden share, shifted so that its mean is the level's rate."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        mean = expit(middle + level.miss_hidden_gain * hidden_share).mean()
        low, high = (middle, high) if mean < level.miss_rate else (low, middle)
    return expit(middle + level.miss_hidden_gain * hidden_share)


def bursts(probability: np.ndarray, mean_frames: float, rng: np.random.Generator) -> np.ndarray:
    """A two-state Markov chain per view: true with `probability` (T, V), in runs of `mean_frames` on average."""
    draw = rng.random(probability.shape)
    stop = 1.0 / mean_frames
    start = np.minimum(1.0, stop * probability / np.maximum(1.0 - probability, 1e-6))
    on = np.empty(probability.shape, bool)
    on[0] = draw[0] < probability[0]
    for t in range(1, len(on)):
        on[t] = np.where(on[t - 1], draw[t] >= stop, draw[t] < start[t])
    return on


def soften(indicator: np.ndarray, frames: int = SOFTEN_FRAMES) -> np.ndarray:
    """Moving average over time (axis 0) of an indicator, ends repeated."""
    half = frames // 2
    padded = np.concatenate([indicator[:1].repeat(half, 0), indicator, indicator[-1:].repeat(half, 0)])
    total = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0, dtype=np.float64)
    return np.clip((total[frames:] - total[:-frames]) / frames, 0.0, 1.0)


def autoregressive(rng: np.random.Generator, shape: tuple[int, ...], correlation: float) -> np.ndarray:
    """Stationary unit Gaussian AR(1) series along axis 0."""
    noise = rng.normal(size=shape)
    noise[1:] *= np.sqrt(1 - correlation**2)
    return lfilter([1.0], [1.0, -correlation], noise, axis=0)


def _shared(rng: np.random.Generator, n_frames: int, n_views: int, axes: int, correlation: float) -> np.ndarray:
    """AR(1) unit Gaussians (T, V, 21, axes), partly common to the hand and to each finger."""
    series = [autoregressive(rng, (n_frames, n_views, n, axes), correlation) for n in (1, 6, N_JOINTS)]
    return _mix(*series)


def _mix(hand: np.ndarray, finger: np.ndarray, joint: np.ndarray) -> np.ndarray:
    own = 1 - SHARED_HAND - SHARED_FINGER
    return np.sqrt(SHARED_HAND) * hand + np.sqrt(SHARED_FINGER) * finger[..., _FINGER_OF, :] + np.sqrt(own) * joint


def _finger_of_joint() -> np.ndarray:
    """Which finger a joint belongs to: 0 the wrist alone, 1 to 5 thumb to little."""
    finger = np.zeros(N_JOINTS, int)
    for k, joints in enumerate(FINGERS.values(), start=1):
        finger[list(joints)] = k
    return finger


_FINGER_OF = _finger_of_joint()


def _level(level: str | NoiseLevel) -> NoiseLevel | None:
    if isinstance(level, NoiseLevel):
        return level
    if level not in LEVELS:
        raise UserError(f"no label level is called {level!r}", "a typing error", f"choose one of {', '.join(LEVELS)}")
    return LEVELS[level]


def _labels(uv_px: np.ndarray, confidence: np.ndarray, found: np.ndarray, cameras, side: str) -> Labels:
    """Labels of the view-frames in `found` (T, V); the others are zero."""
    uv = np.where(found[..., None, None], uv_px, 0.0).astype(np.float32)
    conf = np.where(found[..., None], confidence, 0.0).astype(np.float32)
    return Labels(uv, conf, tuple(cameras), side, "synthetic")
