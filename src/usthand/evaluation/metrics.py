"""How good a result is: against truth, against a camera that was left out, and by its own steadiness.

Every name carries its alignment and unit:

* ``mpjpe_mm``, ``mpvpe_mm``: mean distance of joints, of vertices, *absolute*, in the world frame, nothing aligned;
* ``*_wrist_mm``: both hands moved so that their wrists coincide;
* ``*_scale_mm``: wrist-relative, and the estimate scaled about its wrist by the least-squares factor of the frame;
* ``*_pa_mm``: after Procrustes (rotation, translation and scale, per frame);
* ``auc_j``, ``auc_v``: area under the share-of-points-within-t curve, t from 0 to 50 mm, absolute;
* ``f5``, ``f15``: F-score of the vertices at 5 and 15 mm, absolute; ``f5_pa``, ``f15_pa``: after Procrustes, which is
  what FreiHAND's and HaMuCo's tables show;
* ``surface*_mm``: point to surface, where vertices do not correspond (`usthand.evaluation.surface`);
* ``accel_mm_s2``: mean difference from the truth's acceleration;
* ``coverage50``, ``coverage90``: share of joints inside their own 50 and 90 % credible region.

Errors are taken over *all* 21 joints of the valid frames, also joints that the result marks as uncertain: leaving those
out would reward a method for giving up. `select_frames` says which frames count, `select_truth` which of them have
truth; a frame without truth enters no number and does not count against the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree
from scipy.stats import chi2

from usthand.common.errors import UsthandError
from usthand.evaluation.surface import surface_errors
from usthand.geometry.rotations import align_similarity
from usthand.hand.mesh_joints import mesh_joints
from usthand.hand.result import MM_PER_M, Result
from usthand.hand.skeleton import BONES, JOINTS, PALM_BONES, bone_lengths
from usthand.labels.quality import reprojection_px

if TYPE_CHECKING:
    from usthand.capture.rig import Rig
    from usthand.evaluation.truth import Truth
    from usthand.labels.labels import Labels

AUC_MAX_MM = 50.0
F_THRESHOLDS_MM = (5.0, 15.0)
COVERAGE_LEVELS = (0.5, 0.9)
# A standard deviation below a micrometre is rounding; it keeps a zero covariance invertible (and covering nothing).
_VARIANCE_FLOOR_M2 = 1e-12
# The five bones inside the palm, which hardly bend, against the fingers' fifteen.
_PALM = np.isin(np.arange(len(BONES)), PALM_BONES)

Points = Float[np.ndarray, "T points 3"]
Frames = Int[np.ndarray, "asked"] | Bool[np.ndarray, "capture_time"] | None
"""Which frames to measure: their numbers, or a mask over the capture's frames; None for all."""
Numbers = dict[str, float | int | None]
"""Numbers by name; None where one does not exist."""


def select_frames(result: Result, frames: Frames = None) -> Int[np.ndarray, "n"]:
    """Rows of a result that count: valid, and among the frames asked for.

    Raises:
        UsthandError: If none is left.
    """
    keep = result.valid & np.isin(result.frame, _frame_numbers(result, frames))
    if not keep.any():
        raise UsthandError(
            "no frame is left to measure",
            "the result is valid in none of the frames asked for",
            "choose other frames, or look at usthand overlay to see why the hand was not found",
        )
    return np.flatnonzero(keep)


def select_truth(
    result: Result, truth: Truth, frames: Frames = None
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Rows of a result as `select_frames` gives them, less those without truth, and the truth's rows for them.

    Raises:
        UsthandError: If none is left, or the truth ends before the result.
    """
    rows = select_frames(result, frames)
    at, end = result.frame[rows], len(truth.joints_world_m)
    if at.max() >= end:
        raise UsthandError(
            f"the result reaches frame {at.max()}, the truth ends at {end - 1}",
            "result and truth are of different captures",
            "give the capture that the result was made from",
        )
    known = truth.valid[at]
    if not known.any():
        raise UsthandError(
            "no frame is left to measure",
            "the data set has truth in none of the result's frames",
            "choose other frames, or measure without truth",
        )
    return rows[known], at[known]


def common_frames(results: Sequence[Result]) -> Int[np.ndarray, "n"]:
    """Frame numbers in which every result is valid, so that a table compares like with like."""
    return reduce(np.intersect1d, [result.frame[result.valid] for result in results])


def evaluate_truth(result: Result, truth: Truth, frames: Frames = None, *, fps: float) -> Numbers:
    """All numbers against truth; the module's head says what each means. Millimetres unless the name says more.

    A number that does not exist is None: those of the mesh where result or truth has none, and `accel_mm_s2` without
    three consecutive frames. Against a mesh that is not our hand model's the surfaces are compared in place of vertices
    (`usthand.evaluation.surface`).

    Args:
        result: What to measure; its frame numbers index the truth.
        truth: Of the same capture.
        frames: Which frames to measure.
        fps: Frames per second, for the acceleration.

    Raises:
        UsthandError: If no frame is left, or the truth is too short.
    """
    rows, at = select_truth(result, truth, frames)
    joints, true_joints = result.joints_world_m[rows], np.asarray(truth.joints_world_m, np.float64)[at]
    numbers: Numbers = {
        **_point_errors("j", joints, true_joints, joints, true_joints),
        "accel_mm_s2": acceleration_error(joints, true_joints, result.frame[rows], fps),
        **coverages(joints - true_joints, result.joints_cov_m2[rows]),
        "valid_fraction": len(rows) / max(_count_asked(result, truth, frames), 1),
        "frames": len(rows),
    }
    if truth.of_other_mesh:
        numbers |= surface_errors(result, truth, rows, at)
    elif result.has_mesh and truth.has_mesh:
        vertices, true_vertices = result.vertices_world_m[rows], np.asarray(truth.vertices_world_m, np.float64)[at]
        numbers |= _point_errors("v", vertices, true_vertices, joints, true_joints)
        for ending, points in (("", vertices), ("_pa", procrustes(vertices, true_vertices))):
            for threshold, score in zip(F_THRESHOLDS_MM, f_scores(points, true_vertices, F_THRESHOLDS_MM), strict=True):
                numbers[f"f{threshold:.0f}{ending}"] = score
    else:
        names = ["mpvpe_mm", "mpvpe_wrist_mm", "mpvpe_scale_mm", "mpvpe_pa_mm", "auc_v"]
        numbers |= dict.fromkeys(names + [f"f{t:.0f}{a}" for t in F_THRESHOLDS_MM for a in ("", "_pa")])
    return numbers


def evaluate_mesh_joints(result: Result, truth: Truth) -> dict[str, float]:
    """Errors of the mesh's own joints (`usthand.hand.mesh_joints`), `mesh_mpjpe*_mm`.

    They differ from `evaluate_truth`'s only where nothing ties the result's joints to its mesh (free). Empty for a mesh
    that is not the embedded hand's.
    """
    try:
        joints = mesh_joints(result)
    except UsthandError:
        return {}
    rows, at = select_truth(result, truth)
    true_joints = np.asarray(truth.joints_world_m, np.float64)[at]
    errors = _point_errors("j", joints[rows], true_joints, joints[rows], true_joints)
    return {f"mesh_{name}": value for name, value in errors.items() if name.startswith("mpjpe")}


def pooled(recordings: Sequence[Numbers]) -> Numbers:
    """One set of numbers for several recordings: means weighted by their frames, and the sum of `frames`.

    Args:
        recordings: Each from `evaluate_truth` and perhaps `evaluate_mesh_joints`. A number that a recording lacks is
            averaged over the others.
    """
    frames = np.array([numbers["frames"] for numbers in recordings], np.float64)
    found: Numbers = {}
    for name in dict.fromkeys(name for numbers in recordings for name in numbers):
        values = [numbers.get(name) for numbers in recordings]
        known = [(value, weight) for value, weight in zip(values, frames, strict=True) if value is not None]
        weight = sum(weight for _, weight in known)
        found[name] = float(sum(value * weight for value, weight in known) / weight) if weight else None
    # A recording in which the method gave up half the frames weighs as all that it was asked for.
    asked = sum(n / float(numbers["valid_fraction"] or 1.0) for n, numbers in zip(frames, recordings, strict=True))
    return found | {"frames": int(frames.sum()), "valid_fraction": float(frames.sum() / asked)}


def joint_errors_mm(
    result: Result, truth: Truth, frames: Frames = None
) -> tuple[Float[np.ndarray, "n 21"], Int[np.ndarray, "n"]]:
    """Absolute error of each joint in the selected frames, mm, and the frame numbers."""
    rows, at = select_truth(result, truth, frames)
    return distance_mm(result.joints_world_m[rows], truth.joints_world_m[at]), result.frame[rows]


def evaluate_left_out(
    result: Result, rig: Rig, labels: Labels, camera: str, frames: Frames = None
) -> dict[str, object]:
    """Distance in pixels between the joints projected into a camera and that camera's own labels.

    Args:
        result: What to measure, made without the camera.
        rig: All cameras of the capture.
        labels: Those of all cameras, indexed by frame number.
        camera: The one that was left out.
        frames: Which frames to measure.

    Raises:
        UsthandError: If the result has used that camera (the number would flatter), or the camera has no label in the
            selected frames.
    """
    if camera in result.cameras:
        raise UsthandError(
            f"the result was made with {camera}",
            "it was not left out when the result was made",
            f"make it again with --leave-out {camera}",
        )
    residual, seen = label_residuals_px(result, rig, labels, (camera,), frames)
    if not seen.any():
        raise UsthandError(
            f"{camera} has no label of the {result.side} hand in the frames measured",
            "the detector never found the hand there",
            "leave out another camera",
        )
    errors = residual[seen]
    return {
        "camera": camera,
        "leave_out_median_px": float(np.median(errors)),
        "leave_out_p90_px": float(np.percentile(errors, 90)),
        "leave_out_points": int(seen.sum()),
        "leave_out_joint_median_px": {
            name: float(np.median(residual[..., j][seen[..., j]])) if seen[..., j].any() else None
            for j, name in enumerate(JOINTS)
        },
    }


def evaluate_labels(result: Result, rig: Rig, labels: Labels, fps: float, frames: Frames = None) -> Numbers:
    """What can be said without truth: distance to the labels of the cameras used, px, and `steadiness`.

    A low distance is necessary, but not sufficient: labels err.
    """
    residual, seen = label_residuals_px(result, rig, labels, result.cameras, frames)
    errors = residual[seen]
    return {
        "label_residual_median_px": float(np.median(errors)) if len(errors) else None,
        "label_residual_p90_px": float(np.percentile(errors, 90)) if len(errors) else None,
        **steadiness(result, fps, frames),
    }


def label_residuals_px(
    result: Result, rig: Rig, labels: Labels, cameras: Sequence[str], frames: Frames = None
) -> tuple[Float[np.ndarray, "n cameras 21"], Bool[np.ndarray, "n cameras 21"]]:
    """Distance of projected joints from labels, px (0 where there is no label), and whether there is a label.

    The joints are those that the labels are of (`Result.as_detected`).

    Raises:
        UsthandError: If the labels are of the other hand, or end before the result.
    """
    if labels.side != result.side:
        raise UsthandError(
            f"the labels are of the {labels.side} hand, the result of the {result.side} one",
            "the two belong to different hands",
            f"give the labels of the {result.side} hand",
        )
    rows = select_frames(result, frames)
    numbers = result.frame[rows]
    if numbers.max() >= len(labels.uv_px):
        raise UsthandError(
            f"the result reaches frame {numbers.max()}, the labels end at {len(labels.uv_px) - 1}",
            "result and labels are of different captures",
            "give the capture that the result was made from",
        )
    result = result.as_detected()
    views, labels = [rig.index(name) for name in cameras], labels.subset(cameras)
    metric = rig.in_metres(result.unit_m)
    chosen = replace(metric, cameras=tuple(metric.cameras[view] for view in views))
    distance, in_front = reprojection_px(chosen, result.joints_world_m[rows], labels.uv_px[numbers])
    seen = labels.mask[numbers] & in_front
    return np.where(seen, distance, 0.0), seen


def steadiness(result: Result, fps: float, frames: Frames = None) -> Numbers:
    """Bone-length spread and jitter, which need no truth. The bones of a hand model do not change: their spread is 0.

    `*_spread_mm`: standard deviation over time of a bone's length, averaged over the palm's five bones, the fingers'
    fifteen, and all. `jitter_mm_s2`: root mean square of the joints' acceleration; `jitter_mm`: mean length of the
    second difference over one frame. Only three consecutive frame numbers make an acceleration; None without any.
    """
    rows = select_frames(result, frames)
    joints = result.joints_world_m[rows]
    spread = MM_PER_M * bone_lengths(joints).std(axis=0)
    second = _second_difference(joints, result.frame[rows])
    lengths = MM_PER_M * np.linalg.norm(second, axis=-1)
    return {
        "bone_spread_mm": float(spread.mean()),
        "palm_spread_mm": float(spread[_PALM].mean()),
        "finger_bone_spread_mm": float(spread[~_PALM].mean()),
        "jitter_mm_s2": float(np.sqrt((lengths**2).mean()) * fps**2) if len(lengths) else None,
        "jitter_mm": float(lengths.mean()) if len(lengths) else None,
    }


def distance_mm(a_m: Float[np.ndarray, "*b 3"], b_m: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b"]:
    """Euclidean distance, metres in, millimetres out."""
    return MM_PER_M * np.linalg.norm(np.asarray(a_m, np.float64) - np.asarray(b_m, np.float64), axis=-1)


def procrustes(points_m: Points, target_m: Points) -> Points:
    """The points turned, moved and scaled onto the target, each frame by itself, in the least-squares sense."""
    source, target = (torch.from_numpy(np.ascontiguousarray(p, np.float64)) for p in (points_m, target_m))
    return align_similarity(source, target, scale=True).numpy()


def scale_to(points_m: Points, target_m: Points) -> Points:
    """The points times the one factor per frame that brings them closest to the target: sum(p . t) / sum(p . p).

    Both are relative to their wrist already.
    """
    dot = (points_m * target_m).sum(axis=(1, 2), keepdims=True)
    square = (points_m**2).sum(axis=(1, 2), keepdims=True)
    return points_m * (dot / np.maximum(square, np.finfo(np.float64).tiny))


def auc(errors_mm: Float[np.ndarray, "*b"], max_mm: float = AUC_MAX_MM) -> float:
    """Area under the share-of-points-within-t curve, t from 0 to `max_mm`, over its whole width: 0 to 1.

    Exact: a point at distance e is inside for the share 1 - e / max of the thresholds, so no thresholds are sampled.
    """
    return float(np.clip(1.0 - np.asarray(errors_mm) / max_mm, 0.0, None).mean())


def f_scores(points_m: Points, target_m: Points, thresholds_mm: Sequence[float]) -> list[float]:
    """F-score of each threshold, mean over frames (Knapitsch et al. 2017, as in FreiHAND).

    It is the harmonic mean of precision (share of estimated points nearer than the threshold to some true one) and
    recall (of true points to some estimated one).
    """
    scores = np.zeros((len(points_m), len(thresholds_mm)))
    limits, reach = np.asarray(thresholds_mm) / MM_PER_M, max(thresholds_mm) / MM_PER_M
    for row, points, target in zip(scores, points_m, target_m, strict=True):
        ours, theirs = KDTree(points), KDTree(target)
        precision = (theirs.query(points, distance_upper_bound=reach)[0][:, None] < limits).mean(axis=0)
        recall = (ours.query(target, distance_upper_bound=reach)[0][:, None] < limits).mean(axis=0)
        row[:] = 2.0 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return scores.mean(axis=0).tolist()


def acceleration_error(points_m: Points, target_m: Points, frame: Int[np.ndarray, "T"], fps: float) -> float | None:
    """Mean length of the difference between the accelerations of both tracks, mm/s^2.

    Taken over consecutive frame numbers; None if no three frames are consecutive.
    """
    difference = _second_difference(points_m - target_m, frame)
    return float(MM_PER_M * np.linalg.norm(difference, axis=-1).mean() * fps**2) if len(difference) else None


def joint_mahalanobis2(
    error_m: Float[np.ndarray, "*b 3"], covariance_m2: Float[np.ndarray, "*b 3 3"]
) -> Float[np.ndarray, "*b"]:
    """Squared Mahalanobis distance; chi-squared with 3 degrees of freedom if the covariance is right."""
    floor = _VARIANCE_FLOOR_M2 * np.eye(3)
    solved = np.linalg.solve(covariance_m2 + floor, error_m[..., None])[..., 0]
    return (error_m * solved).sum(axis=-1)


def coverages(
    error_m: Float[np.ndarray, "*b 3"],
    covariance_m2: Float[np.ndarray, "*b 3 3"],
    levels: Sequence[float] = COVERAGE_LEVELS,
) -> dict[str, float]:
    """Share of errors inside the 50 and the 90 % credible region of their own covariance, or those of other levels."""
    square = joint_mahalanobis2(error_m, covariance_m2)
    return {f"coverage{100 * q:.0f}": float((square <= chi2.ppf(q, 3)).mean()) for q in levels}


def _point_errors(
    kind: str, points: Points, target: Points, joints: Float[np.ndarray, "T 21 3"], true: Float[np.ndarray, "T 21 3"]
) -> dict[str, float]:
    """Errors of points (kind j: joints, v: vertices) after each alignment; the joints are those of the same hands."""
    absolute = distance_mm(points, target)
    relative, true_relative = points - joints[:, :1], target - true[:, :1]
    return {
        f"mp{kind}pe_mm": float(absolute.mean()),
        f"mp{kind}pe_wrist_mm": float(distance_mm(relative, true_relative).mean()),
        f"mp{kind}pe_scale_mm": float(distance_mm(scale_to(relative, true_relative), true_relative).mean()),
        f"mp{kind}pe_pa_mm": float(distance_mm(procrustes(points, target), target).mean()),
        f"auc_{kind}": auc(absolute),
    }


def _second_difference(points: Points, frame: Int[np.ndarray, "T"]) -> Float[np.ndarray, "n points 3"]:
    """p[t-1] - 2 p[t] + p[t+1] where the three frame numbers are consecutive."""
    middle = np.flatnonzero((np.diff(frame)[:-1] == 1) & (np.diff(frame)[1:] == 1)) + 1
    return points[middle - 1] - 2.0 * points[middle] + points[middle + 1]


def _frame_numbers(result: Result, frames: Frames) -> Int[np.ndarray, "n"]:
    """The numbers of the frames asked for: the result's own by default."""
    if frames is None:
        return result.frame
    return np.flatnonzero(frames) if frames.dtype == bool else frames


def _count_asked(result: Result, truth: Truth, frames: Frames) -> int:
    """How many frames were to be measured: those asked for that have truth, or that the truth does not reach."""
    asked = _frame_numbers(result, frames)
    inside = asked[(asked >= 0) & (asked < len(truth.valid))]
    return int(truth.valid[inside].sum()) + len(asked) - len(inside)
