"""The displacement that all views of a detector's joints share, and its parts: of all, of a subject, of the pose.

What `detector_joints.py` computes with; arrays in, arrays out. Legend: S subjects, C clips of each, T frames, V views,
J joints, H ways to split the views into halves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from usthand.hand.skeleton import FINGER_TIPS, FINGERS

ROBUST_AT = 0.08  # hand sizes
CLIP_MM = 25.0  # no displacement is larger; a lost finger's is
NOISE_CLIP = 0.3  # hand sizes
PALM = [0, 1, 5, 9, 13, 17]
PALM_PAIRS = [(a, b) for a in PALM for b in PALM if a < b]
FINGER_PAIRS = [pair for ids in FINGERS.values() for pair in pairwise(ids)]


def displacements(gap, rows, weight, rounds: int = 6):
    """What all views share: robust least squares of ``gap = rows @ d`` over the views, by frame and joint.

    gap (T, V, J, 2): label less projected joint, hand sizes, NaN where there is none; rows (T, V, J, 2, 3): its
    derivatives by d; weight (T, V, J). Returns d (T, J, 3), NaN with fewer than two views, the residuals (T, V, J, 2)
    over the root of 1 - leverage, NaN likewise, and the total weight (T, J).
    """
    known = np.isfinite(gap).all(-1)
    stated = weight * known
    gap = np.where(known[..., None], gap, 0.0)
    total = stated
    for _ in range(rounds):
        normal = np.einsum("tvj,tvjab,tvjac->tjbc", total, rows, rows) + 1e-9 * np.eye(3)
        inverse = np.linalg.inv(normal)
        d = np.einsum("tjbc,tvj,tvjac,tvja->tjb", inverse, total, rows, gap)
        residual = gap - np.einsum("tvjab,tjb->tvja", rows, d)
        lever = 0.5 * np.einsum("tvj,tvjab,tjbc,tvjac->tvj", total, rows, inverse, rows)
        total = stated / (1 + (residual**2).sum(-1) / ROBUST_AT**2)
    enough = known.sum(1) >= 2
    residual = residual / np.sqrt(np.maximum(1 - lever, 0.1))[..., None]
    return (
        np.where(enough[..., None], d, np.nan),
        np.where((known & enough[:, None])[..., None], residual, np.nan),
        stated.sum(1) * enough,
    )


@dataclass(frozen=True)
class Sample:
    """Displacements of many subjects, mm for a hand of mean size, in the bones' frames."""

    whole: np.ndarray  # (S, C, T, J, 3), from all views
    halves: np.ndarray  # (S, C, H, 2, T, J, 3), from each of two halves of the views, split in H ways
    weight: np.ndarray  # (S, C, T, J)
    noise: np.ndarray  # (S, C, T, V, J, 2), hand sizes: what the views do not share
    visible: np.ndarray  # (S, C, T, V, J)
    bends: np.ndarray  # (S, C, T, J), degrees: of the joint's finger, added up; 0 of the wrist


@dataclass(frozen=True)
class Moments:
    """What is measured on renders, or what the fit is told."""

    mean: np.ndarray  # (J, 3) mm
    subject: np.ndarray  # (J, 3, 3) mm^2
    pose: np.ndarray  # (J, 3, 3) mm^2
    correlation: list[float]  # of the pose's part, by lag in frames
    memory_s: float


def moments(sample: Sample, fps: float) -> Moments:
    """Mean, covariance between subjects, covariance within a subject and its memory.

    No noise is subtracted: every product is of two estimates that share no view. Two clips of a subject have other
    cameras and motions, so the product of their deviations has the subject's covariance alone as its mean. Two halves
    of the views of one frame share the subject's part and the pose's. Each subject's deviation is from the mean of the
    others'.
    """
    count = len(sample.whole)
    weight = sample.weight
    of_clip = weighted_mean(sample.whole, weight, axis=2)  # (S, C, J, 3)
    clip_weight = weight.sum(2)
    of_subject = weighted_mean(of_clip, clip_weight, axis=1)
    mean = of_subject.mean(0)
    others = (count * mean - of_subject) / (count - 1)
    # E (own - mean of the others)^2 is the variance times 1 + 1 / (S - 1).
    shrink = 1 / (1 + 1 / (count - 1))
    clip = clipped(of_clip - others[:, None])
    pairs = [(a, b) for a in range(clip.shape[1]) for b in range(clip.shape[1]) if a != b]
    subject = shrink * np.mean([_products(clip[:, a], clip[:, b], 1.0) for a, b in pairs], axis=0)
    one, other = np.moveaxis(clipped(sample.halves - others[:, None, None, None, None]), 3, 0)
    w = np.broadcast_to(weight[:, :, None], one.shape[:-1])
    total = []
    for lag in range(w.shape[3] - 2):
        here, there = slice(None, w.shape[3] - lag), slice(lag, None)
        pair_weight = np.sqrt(w[..., here, :] * w[..., there, :])
        crossed = _products(one[..., here, :, :], other[..., there, :, :], pair_weight)
        crossed = crossed + _products(other[..., here, :, :], one[..., there, :, :], pair_weight)
        total.append(shrink * (crossed + crossed.swapaxes(1, 2)) / 4)
    changing = [np.trace(part - subject, axis1=1, axis2=2).sum() for part in total]
    correlation = [float(c / changing[0]) for c in changing]
    return Moments(mean, _positive(subject), _positive(total[0] - subject), correlation, _memory(correlation) / fps)


def open_median(sample: Sample, most_bent: float) -> np.ndarray:
    """Median displacement (J, 3) of fingers whose bends add up to less than this, degrees.

    Clenched fingers are left out because they are mostly hidden, and a detector that guesses shortens them.
    """
    used = np.isfinite(sample.whole).all(-1) & (sample.bends < most_bent)
    flat, used = sample.whole.reshape(-1, *sample.whole.shape[-2:]), used.reshape(-1, used.shape[-1])
    return np.stack([np.median(flat[used[:, j], j], axis=0) for j in range(flat.shape[1])])


def of_two_sources(one, other, std):
    """Mean (J, 3) and covariance (J, 3, 3) of displacements that two sources state differently, (J, 3) each.

    Neither is certain, so the mean is taken. Each source lies half their difference h from it, and the truth may lie
    near either: h h' is the covariance of the two, about which the truth has a standard deviation std (J,) an axis.
    """
    half = (one - other) / 2
    covariance = std[:, None, None] ** 2 * np.eye(3) + half[:, :, None] * half[:, None]
    return (one + other) / 2, covariance


def weighted_mean(values, weight, axis):
    """Weighted; NaN counts nothing."""
    weight = weight[..., None] * np.isfinite(values)
    return (weight * np.nan_to_num(values)).sum(axis) / np.maximum(weight.sum(axis), 1e-9)


def clipped(values):
    return np.clip(values, -CLIP_MM, CLIP_MM)


def _products(one, other, weight):
    """Weighted mean of outer products (J, 3, 3) over all leading axes."""
    known = np.isfinite(one).all(-1) & np.isfinite(other).all(-1)
    weight = weight * known
    axes = "abcd"[: one.ndim - 2]
    product = np.einsum(f"{axes}jx,{axes}jy,{axes}j->jxy", np.nan_to_num(one), np.nan_to_num(other), weight)
    return product / weight.sum(tuple(range(weight.ndim - 1)))[:, None, None]


def _positive(covariance, least: float = 0.3**2):
    """The nearest symmetric matrices whose variances are at least this, mm^2."""
    value, vector = np.linalg.eigh((covariance + covariance.swapaxes(1, 2)) / 2)
    return (vector * np.maximum(value, least)[:, None, :]) @ vector.swapaxes(1, 2)


def _memory(correlation) -> float:
    """Frames after which the correlation first falls below 1/e, between lags linearly."""
    for lag, (here, there) in enumerate(pairwise(correlation)):
        if there < np.exp(-1):
            return lag + (here - np.exp(-1)) / (here - there)
    return float(len(correlation))


def held_out(sample: Sample) -> dict:
    """How much of the common displacement the mean of three quarters of the subjects explains in the others."""
    count = len(sample.whole)
    learn = 3 * count // 4
    first = Sample(*(getattr(sample, f.name)[:learn] for f in fields(Sample)))
    last = Sample(*(getattr(sample, f.name)[learn:] for f in fields(Sample)))
    mean = moments(first, 1.0).mean
    clips = weighted_mean(last.whole, last.weight, axis=2)
    pairs = [(a, b) for a in range(clips.shape[1]) for b in range(clips.shape[1]) if a != b]
    out = {"learned_on": learn, "subjects": count - learn}
    for name, shift in (("before", 0.0), ("after", mean)):
        constant = np.mean([_products(clips[:, a] - shift, clips[:, b] - shift, 1.0) for a, b in pairs], axis=0)
        one, other = np.moveaxis(clipped(last.halves - shift), 3, 0)
        frames = _products(one, other, np.broadcast_to(last.weight[:, :, None], one.shape[:-1]))
        for what, part in (("constant", constant), ("frames", frames)):
            square = np.trace(part, axis1=1, axis2=2)
            out[f"{what}_mm_{name}"] = {
                "all": rms(square),
                "tips": rms(square[list(FINGER_TIPS)]),
                "palm": rms(square[PALM]),
            }
    return out


def rms(square) -> float:
    return round(float(np.sqrt(max(np.mean(square), 0.0))), 2)


def view_noise(sample: Sample) -> dict:
    """What the views do not share, in hand sizes."""
    noise, seen = sample.noise, sample.visible
    size = np.linalg.norm(noise, axis=-1)
    clipped_noise = np.clip(noise, -NOISE_CLIP, NOISE_CLIP)
    fingers = list(FINGERS.values())
    same = [(a, b) for ids in fingers for a in ids for b in ids if a < b]
    apart = [(a, b) for one in fingers for two in fingers if one < two for a in one for b in two]

    def correlation(a, b):
        both = np.isfinite(a) & np.isfinite(b)
        return round(float((a[both] * b[both]).sum() / np.sqrt((a[both] ** 2).sum() * (b[both] ** 2).sum())), 3)

    def pairs(which):
        one, two = np.array(which).T
        return correlation(clipped_noise[..., one, :], clipped_noise[..., two, :])

    return {
        "p50_p90_p99": [round(float(q), 4) for q in np.nanpercentile(size, (50, 90, 99))],
        "p50_seen_hidden": [round(float(np.nanmedian(size[which])), 4) for which in (seen, ~seen)],
        "rms_per_axis_seen_hidden": [
            round(float(np.sqrt(np.nanmean(clipped_noise[which] ** 2))), 4) for which in (seen, ~seen)
        ],
        "correlation_by_lag": [correlation(clipped_noise[:, :, :-k], clipped_noise[:, :, k:]) for k in (1, 2, 3, 6)],
        "correlation_same_finger": pairs(same),
        "correlation_other_finger": pairs(apart),
        "found": round(float(np.isfinite(noise).mean()), 4),
    }


def shared_by_joints(sample: Sample, found: Moments) -> dict:
    """Correlations of the common displacement of two joints: of the subject's part, and of both parts in a frame."""
    clips = clipped(weighted_mean(sample.whole, sample.weight, axis=2) - found.mean)
    one, other = np.moveaxis(clipped(sample.halves - found.mean), 3, 0)
    scale = {
        "subject": np.sqrt(np.einsum("jaa->ja", found.subject)),
        "frame": np.sqrt(np.einsum("jaa->ja", found.subject + found.pose)),
    }
    fingers = list(FINGERS.values())
    same = [(a, b) for ids in fingers for a, b in pairwise(ids)]
    apart = [(a, b) for x, y in pairwise(fingers[1:]) for a, b in zip(x, y, strict=True)]
    out = {}
    for name, which in (("joints of a finger side by side", same), ("joints of two fingers side by side", apart)):
        a, b = np.array(which).T
        pairs = [(c, d) for c in range(clips.shape[1]) for d in range(clips.shape[1]) if c != d]
        between = np.mean([np.nanmean(clips[:, c][:, a] * clips[:, d][:, b], 0) for c, d in pairs], axis=0)
        shared = one[..., a, :] * other[..., b, :]
        shared_weight = np.sqrt(sample.weight[..., a] * sample.weight[..., b])[:, :, None, :, :]
        within = weighted_mean(shared, np.broadcast_to(shared_weight, shared.shape[:-1]), axis=(0, 1, 2, 3))
        out[name] = {
            "subject": (between.mean(0) / (scale["subject"][a] * scale["subject"][b]).mean(0)).round(2).tolist(),
            "frame": (within.mean(0) / (scale["frame"][a] * scale["frame"][b]).mean(0)).round(2).tolist(),
        }
    return out


def common_bending(one, other, pairs) -> float:
    """How much the distances of pairs of joints change within a clip, as two halves of the views agree: rms, mm.

    Joints (N, T, J, 3), mm, each half's own estimate, of N clips. A rigid part of a hand would give 0: errors of one
    half's views are no part of the product. Needs no hand model, so real footage can be asked.
    """
    a, b = np.array(pairs).T
    changes = []
    for joints in (one, other):
        length = np.linalg.norm(joints[:, :, a] - joints[:, :, b], axis=-1)
        changes.append(clipped(length - np.nanmedian(length, axis=1, keepdims=True)))
    return round(float(np.sqrt(max(np.nanmean(changes[0] * changes[1]), 0.0))), 2)
