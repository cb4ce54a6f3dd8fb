"""Pseudo-labels for synthetic captures: exact projections made as wrong as a detector makes them.

The model, per camera and frame, with ``s`` the hand's size in pixels (longest side of the box of its joints)::

    uv = exact + s * f_j * sd(h) * a * g        g ~ N(0, 1),   a^2 ~ (dof - 2) / chi^2(dof)

- ``h`` in [0, 1] is how hidden the joint is (its visibility, softened over a few frames), and
  ``sd(h)^2 = (1 - h) * seen_std^2 + h * hidden_std^2``; ``f_j`` says which joints are hard (root mean square 1).
- ``a * g`` is Student's t, scaled to unit variance; ``a`` is a function of a Gaussian difficulty, so that large errors
  come in bursts, as a detector's do.
- ``g`` and the difficulty are each a mixture of three parts. Two are *systematic*: fixed smooth random functions of the
  hand's layout in the image, one coarse, one fine. The same layout meets the same error whenever it returns, so no
  smoothing over time removes it. The third is fresh noise, AR(1) in time. All are partly shared by the hand and by each
  finger.
- Two neighbouring fingers are exchanged for several frames, more often where the hand hides itself.
- A whole hand is missed in bursts, more often the more of it is hidden, and always when most of it is out of the image.
- Now and then a detection is filed under the other side.
- Confidence falls with the expected amplitude of the error (hidden, hard joint, burst). It does not depend on the error
  itself or on swaps, and it is too high: informative, not calibrated.

Truth is an argument here; nothing returned contains it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import lfilter
from scipy.special import expit, ndtr
from scipy.stats import chi2

from usthand.common.errors import UsthandError
from usthand.hand.skeleton import FINGERS, N_JOINTS
from usthand.labels.labels import Labels

# Measured on the real clip (docs/development/label-noise.md): the errors of distant frames correlate by .72 where their
# layouts are less than .03 apart (rms over joints, hand sizes), .5 at .08, .43 at .13, .38 at .2, .25 at .4. That is
# .30 and .30 of the variance in squared exponentials of these two scales, and .12 of a constant of hand and camera,
# which the calibration explains as well as the detector and which is left out.
COARSE_SCALE, FINE_SCALE = 0.25, 0.06
N_FEATURES = 128  # Fourier features of each field: enough to be nearly Gaussian
SHARED_HAND, SHARED_FINGER = 0.36, 0.25  # parts of the variance common to the whole hand and to a finger; measured
DETECTOR_SEED = 20  # one imaginary detector, wrong in the same way on every capture
MIN_SIZE_PX = 8.0  # smaller hands get the noise of this size: no detector is better than a fraction of a pixel
MAX_ERROR = 1.0  # hand sizes: a detector's output stays inside its crop
SOFTEN_FRAMES = 5  # occlusion comes and goes over this many frames
MIN_INSIDE = 0.5  # share of the joints that must lie in the image for a detection
SWAP_HIDDEN_GAIN = 4.0  # how many times likelier a swap starts with every joint hidden than with none
NEIGHBOURS = (("index", "middle"), ("middle", "ring"), ("ring", "little"))

# Which joints are hard: relative error, wrist and thumb worst; measured.
_HARD_FINGERS = {
    "thumb": (1.83, 1.60, 1.14, 1.09),
    "index": (0.97, 0.85, 0.82, 0.86),
    "middle": (0.84, 0.74, 0.73, 0.80),
    "ring": (0.76, 0.67, 0.73, 0.84),
    "little": (0.76, 0.68, 0.74, 0.81),
}
_HARD = np.array([1.62, *np.ravel(list(_HARD_FINGERS.values()))])
JOINT_FACTOR = _HARD / np.sqrt(np.mean(_HARD**2))

CONFIDENCE_TOP = 0.97
CONFIDENCE_AT_SEEN = 1.9  # log-odds (before the top) at the amplitude of a seen joint: the overconfidence
CONFIDENCE_SLOPE = 1.1  # log-odds lost per factor e of expected amplitude
CONFIDENCE_NOISE = 0.9  # log-odds, Gaussian, AR(1): what makes confidence only a hint
CONFIDENCE_MIN = 0.05  # a detection is never worth nothing; 0 means missing


@dataclass(frozen=True)
class NoiseLevel:
    """How wrong labels are. Standard deviations are per image axis, in hand sizes; rates are shares of view-frames."""

    seen_std: float = 0.040
    """Measured .042."""
    hidden_std: float = 0.080
    """Measured .066, for bare hands, with visibility itself judged from noisy joints, which dilutes the contrast."""
    tail_dof: float = 3.5
    """Student's t; the smaller, the heavier the tails. Measured."""
    coarse_share: float = 0.30
    """Of the variance: systematic, a slowly varying function of the layout."""
    fine_share: float = 0.30
    """Of the variance: systematic, a quickly varying function of the layout."""
    correlation: float = 0.8
    """Of the fresh part with the next frame's, at 30 frames/s."""
    swap_rate: float = 0.01
    """None in 381 hands of the real clip: below .01."""
    swap_frames: float = 6.0
    """Mean length."""
    miss_rate: float = 0.25
    """As on the real clip once the hands hold something."""
    miss_frames: float = 6.0
    miss_hidden_gain: float = 4.0
    """Log-odds of a miss, all joints hidden against none."""
    wrong_side_rate: float = 0.01
    """None in 383 hands of the real clip."""
    wrong_side_frames: float = 3.0
    displaced: bool = False
    """Whether the detector's joints are others than the model's (`usthand.datasets.synthetic.displacement`)."""


HEAVY = NoiseLevel()
LIGHT = replace(
    HEAVY,
    seen_std=HEAVY.seen_std / 3,
    hidden_std=HEAVY.hidden_std / 3,
    swap_rate=HEAVY.swap_rate / 3,
    miss_rate=0.08,
    wrong_side_rate=HEAVY.wrong_side_rate / 3,
)
BIASED = replace(HEAVY, displaced=True)
LEVELS: dict[str, NoiseLevel | None] = {"heavy": HEAVY, "light": LIGHT, "exact": None, "biased": BIASED}


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
        uv_exact_px: Projections of the joints that the detector looks for, (T, V, 21, 2) px, finite: the model's, or of
            a displaced level the displaced ones (`usthand.datasets.synthetic.write.synthetic_labels`).
        visible: Which joints are seen, (T, V, 21).
        in_image: Which joints project into the image, (T, V, 21).
        rng: Source of all randomness except the detector's systematic error, which is always the same.
        level: "heavy", "light", "exact", "biased", or parameters of your own.
        cameras: V names.
        side: The hand's true side.

    Returns:
        Labels by side. The other side is present only if some detection was filed under it.

    Raises:
        UsthandError: If the level is unknown.
    """
    noise = noise_level(level)
    uv_exact_px = np.asarray(uv_exact_px, np.float64)
    if noise is None:
        exact = np.ones(uv_exact_px.shape[:-1], np.float32)
        return {side: Labels(uv_exact_px.astype(np.float32), exact, tuple(cameras), side, "synthetic-exact")}

    size = hand_size_px(uv_exact_px)
    hiddenness = soften(1.0 - (visible & in_image))
    hidden_share = hiddenness.mean(-1)
    error, amplitude = label_error(uv_exact_px, size, hiddenness, rng, noise)
    uv = swap_fingers(uv_exact_px + error, hidden_share, rng, noise)
    confidence = label_confidence(amplitude, rng, noise)

    missed = bursts(miss_probability(hidden_share, noise), noise.miss_frames, rng)
    missed |= in_image.mean(-1) < MIN_INSIDE
    elsewhere = bursts(np.full(size.shape, noise.wrong_side_rate), noise.wrong_side_frames, rng) & ~missed
    other = "left" if side == "right" else "right"
    detector = "synthetic-biased" if noise.displaced else "synthetic"
    labels = {side: _labels(uv, confidence, ~missed & ~elsewhere, cameras, side, detector)}
    if elsewhere.any():
        labels[other] = _labels(uv, confidence, elsewhere, cameras, other, detector)
    return labels


def hand_size_px(uv_px: np.ndarray) -> np.ndarray:
    """Longest side of the box of the joints, at least `MIN_SIZE_PX`: (..., 21, 2) -> (...)."""
    return np.maximum((uv_px.max(-2) - uv_px.min(-2)).max(-1), MIN_SIZE_PX)


def label_error(
    uv_px: np.ndarray, size_px: np.ndarray, hiddenness: np.ndarray, rng: np.random.Generator, level: NoiseLevel
) -> tuple[np.ndarray, np.ndarray]:
    """Errors (T, V, 21, 2) in px, and their expected amplitude (T, V, 21) in hand sizes."""
    difficulty, direction = np.split(_mixture(uv_px, size_px, rng, level), [1], axis=-1)
    burst = np.sqrt((level.tail_dof - 2) / chi2.ppf(ndtr(-difficulty[..., 0]), level.tail_dof))
    variance = (1 - hiddenness) * level.seen_std**2 + hiddenness * level.hidden_std**2
    amplitude = JOINT_FACTOR * np.sqrt(variance) * burst
    error = amplitude[..., None] * direction
    error *= MAX_ERROR / np.maximum(np.linalg.norm(error, axis=-1, keepdims=True), MAX_ERROR)
    return error * size_px[..., None, None], amplitude


def _mixture(uv_px: np.ndarray, size_px: np.ndarray, rng: np.random.Generator, level: NoiseLevel) -> np.ndarray:
    """Unit Gaussians (T, V, 21, 3): the difficulty and two axes, each partly systematic and partly fresh."""
    layout = (uv_px - uv_px.mean(-2, keepdims=True)) / size_px[..., None, None]
    coarse = systematic_field(layout, COARSE_SCALE, DETECTOR_SEED)
    fine = systematic_field(layout, FINE_SCALE, DETECTOR_SEED + 1)
    fresh = _mix(*(autoregressive(rng, (*size_px.shape, n, 3), level.correlation) for n in (1, 6, N_JOINTS)))
    shares = level.coarse_share, level.fine_share, 1 - level.coarse_share - level.fine_share
    scaled = [np.sqrt(share) * part for share, part in zip(shares, (coarse, fine, fresh), strict=True)]
    return scaled[0] + scaled[1] + scaled[2]


def systematic_field(layout: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """Three fixed random functions per joint (..., 21, 3) of the layout (..., 21, 2), of unit variance.

    Values at two layouts correlate by exp(-d^2 / (2 scale^2)), d the root mean square distance of their joints in hand
    sizes.
    """
    rng = np.random.default_rng(seed)
    flat = layout.reshape(*layout.shape[:-2], -1)
    features = fourier_features(flat, scale * np.sqrt(N_JOINTS), rng)
    gain = _mix(*(rng.normal(size=(N_FEATURES, n, 3)) for n in (1, 6, N_JOINTS)))
    gain /= np.sqrt((gain**2).mean(0))  # this one detector has the stated variance, not only the average detector
    return (features @ gain.reshape(N_FEATURES, -1)).reshape(*flat.shape[:-1], N_JOINTS, 3)


def fourier_features(x: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Features (..., N_FEATURES) of points (..., D), for random functions of unit variance as their weighted sums.

    Rahimi and Recht 2007: with unit Gaussian weights values at two points correlate by exp(-d^2 / (2 scale^2)), d their
    distance.
    """
    frequency = rng.normal(size=(x.shape[-1], N_FEATURES)) / scale
    return np.sqrt(2 / N_FEATURES) * np.cos(x @ frequency + rng.uniform(0, 2 * np.pi, N_FEATURES))


def label_confidence(amplitude: np.ndarray, rng: np.random.Generator, level: NoiseLevel) -> np.ndarray:
    """Confidence (T, V, 21) in (0, 1) from the expected amplitude in hand sizes."""
    n_frames, n_views = amplitude.shape[:2]
    noise = _mix(*(autoregressive(rng, (n_frames, n_views, n, 1), level.correlation) for n in (1, 6, N_JOINTS)))[..., 0]
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
    event = np.cumsum(starts, axis=0, dtype=int)
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
    low, middle, high = -30.0, 0.0, 30.0
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
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise, axis=0))


def _mix(hand: np.ndarray, finger: np.ndarray, joint: np.ndarray) -> np.ndarray:
    own = 1 - SHARED_HAND - SHARED_FINGER
    return np.sqrt(SHARED_HAND) * hand + np.sqrt(SHARED_FINGER) * finger[..., FINGER_OF_JOINT, :] + np.sqrt(own) * joint


def _finger_of_joint() -> np.ndarray:
    """Which finger a joint belongs to: 0 the wrist alone, 1 to 5 thumb to little."""
    finger = np.zeros(N_JOINTS, int)
    for k, joints in enumerate(FINGERS.values(), start=1):
        finger[list(joints)] = k
    return finger


FINGER_OF_JOINT = _finger_of_joint()


def noise_level(level: str | NoiseLevel) -> NoiseLevel | None:
    """The parameters of a level; None for exact labels.

    Raises:
        UsthandError: If the level is unknown.
    """
    if isinstance(level, NoiseLevel):
        return level
    if level not in LEVELS:
        known = ", ".join(LEVELS)
        raise UsthandError(f"no label level is called {level!r}", "a typing error", f"choose one of {known}")
    return LEVELS[level]


def _labels(
    uv_px: np.ndarray, confidence: np.ndarray, found: np.ndarray, cameras: tuple[str, ...], side: str, detector: str
) -> Labels:
    """Labels of the view-frames in `found` (T, V); the others are zero."""
    uv = np.where(found[..., None, None], uv_px, 0.0).astype(np.float32)
    conf = np.where(found[..., None], confidence, 0.0).astype(np.float32)
    return Labels(uv, conf, tuple(cameras), side, detector)
