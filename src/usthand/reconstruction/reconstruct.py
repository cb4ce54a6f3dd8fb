"""From a trained network to hands with uncertainty: the final fit of networks and labels.

The networks' 2D distributions (`usthand.reconstruction.inference`: per view and joint a mean and a 2x2 covariance from the flow's samples) go
into the same sequence fit that `usthand fit` runs on raw labels: one shape, joint limits, smooth motion.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from usthand.capture.capture import Capture
from usthand.common.device import check_device
from usthand.data.prepare import fit_hand, footage_of, load_hand_2d
from usthand.fit.canonical import CanonicalHand
from usthand.fit.fit import FitConfig, fit_observations
from usthand.geometry.robust_triangulation import reprojection_mahalanobis2, undistorted_views
from usthand.hand.io import load_hand, right_hand
from usthand.hand.model import HandModel
from usthand.hand.result import Result
from usthand.labels.labels import Observations
from usthand.reconstruction.inference import Estimates, estimate, observations
from usthand.reconstruction.network_results import head_result, network_result
from usthand.training.checkpoint import SHIPPED, load_checkpoint

# Measured: docs/notes/gate.md.
VARIANCE_SCALE = {"rigid": 2.0, "soft": 4.0}
"""Factor on the variances of a network that did not learn this footage. Joints are soft for real detectors, on real images:
there it errs more than on the images that it learned."""
ADAPTED_VARIANCE_SCALE = 2.0
"""... and, for each view, of one that did. Its errors go with the labels', which testify too; and as it learned a fitted hand's
projections, they are a hand's errors, which more views do not average out."""
FAIR_SCALE = {"rigid": 0.5, "soft": 0.2}
"""Variance of labels about their fit over the variance that they state, of labels somewhat better than a usual detector's
(.6 to .9; .15 to .4 where joints are soft and follow the labels). Labels that agree better still deserve more beside a network
whose errors stay as they are: its variances are raised by as much."""
MOST_RAISED = 1e4
ABSORBED = 0.6  # of a label's two coordinates, over the number of views: what the fit follows
CHI2_MEDIAN = 2 * np.log(2)  # of two degrees of freedom
COVARIANCE_INFLATION = 1.9

Answer = Literal["final", "network", "head"]
"""Which result: see `Reconstruction`."""


@dataclass(frozen=True)
class NetworkSource:
    """What one network says of a hand, as evidence for the final fit."""

    estimates: Estimates
    variance_scale: float
    """Its variances are raised by this factor: errors of a network go together over frames, joints and views, where the fit
    counts each as news, and those of a network that learned this footage's labels go with the labels', which testify too."""
    predicts_model_joints: bool
    """It sees the hand model's joints, which the package's network learned, and not those of this footage's detector."""


@dataclass(frozen=True)
class Reconstruction:
    """The final result with what led to it."""

    final: Result
    """The sequence fit on the networks' distributions and the labels."""
    network: Result
    """The trained network's own answer."""
    head: Result
    """The same with the mesh of its hand head (published)."""
    estimates: Estimates
    """What the trained network says; points in metres even where the rig has no scale."""


def reconstruct_both(
    capture: Capture,
    run: Path,
    side: str,
    leave_out: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    fitted_hand: HandModel | None = None,
    shipped: bool = True,
    device: str = "cpu",
) -> Reconstruction:
    """Hands of one side of a capture: the final result and the network's own.

    Args:
        run: a training's folder, or one of its checkpoints.
        progress: called with (frames done, frames in all).
        fitted_hand: the hand of the mesh; the embedded one if none. The network's hand head knows only the latter.
        shipped: hear the package's network, which did not learn this footage's label errors, as a second source.
        device: of torch, where the networks are used.

    Raises:
        UsthandError: if there is no such device, no network in `run`, or the labels place no frame.
    """
    check_device(device)
    hand_model, fitted_hand = load_hand(), right_hand(fitted_hand)
    hand = load_hand_2d(capture, side, leave_out)
    fit = fit_hand(
        hand, capture.fps
    )  # places crops and gates, finds out whether joints are soft and how good labels are
    raised, sources, footages = label_excellence(hand, fit), [], {}
    networks = _networks(Path(run), shipped, fit.joint_model, len(hand.rig))
    with tempfile.TemporaryDirectory(prefix="usthand-") as folder:
        for number, (path, variance_scale, predicts_model_joints) in enumerate(networks):
            model, crop, _ = load_checkpoint(path, hand_model)
            cut = (crop.factor, model.config.image_size)
            if cut not in footages:  # the footage is read once where the networks' crops are alike
                cache = Path(folder) / str(number)
                footages[cut] = footage_of(capture, hand, fit, hand.labels, crop, model.config.image_size, cache=cache)
            bar = progress and (
                lambda done, total, before=number: progress(before * total + done, len(networks) * total)
            )
            sources.append(
                NetworkSource(
                    estimate(model.to(device), footages[cut], crop, seed, bar),
                    raised * variance_scale,
                    predicts_model_joints,
                )
            )
    estimates = sources[0].estimates
    network = network_result(hand.rig, estimates, fitted_hand)
    final = polish_fit(hand, sources, capture.fps, fit.joint_model, fitted_hand)
    results = (final, network, head_result(network, estimates, right_hand()))
    return Reconstruction(*(hand.as_captured(one) for one in results), estimates)


def _networks(run: Path, shipped: bool, joints: str, views: int) -> list[tuple[Path, float, bool]]:
    """Networks to hear, the trained one first, their tempers, and whether they are predicts_model_joints."""
    untrained = (SHIPPED, VARIANCE_SCALE[joints], True)
    if run.resolve() == SHIPPED.resolve():
        return [untrained]
    adapted = (run, ADAPTED_VARIANCE_SCALE * views, False)
    return [adapted, untrained] if shipped else [adapted]


def label_excellence(hand: CanonicalHand, fit: Result) -> float:
    """How many times smaller than `FAIR_SCALE` the labels' variance about their fit is; at least 1."""
    seen = Observations.from_labels(hand.labels)
    views = undistorted_views(
        hand.rig.tensors(torch.float64), torch.from_numpy(seen.uv_px), torch.from_numpy(seen.precision)
    )
    squared = reprojection_mahalanobis2(views, torch.from_numpy(fit.joints_world_m)).numpy()
    present = hand.labels.mask & fit.valid[:, None, None]
    own = 1 - ABSORBED / np.maximum(present.sum(1, keepdims=True), 1)
    scale = np.median((squared / own)[present]) / CHI2_MEDIAN
    return float(np.clip(FAIR_SCALE[fit.joint_model] / max(scale, 1e-9), 1.0, MOST_RAISED))


def polish_fit(
    hand: CanonicalHand, sources: list[NetworkSource], fps: float, joints: str, model: HandModel | None = None
) -> Result:
    """The sequence fit on the networks' distributions and, as evidence of its own, the labels.

    Each camera stands in the rig once for each network and once for the detector. What is still too sure in the covariance
    that comes out is fixed by `COVARIANCE_INFLATION`. `joints` is "rigid" or "soft", as the fit of the labels alone found
    to be right.
    """
    labelled, cameras = Observations.from_labels(hand.labels), hand.rig.cameras
    seen = [observations(source.estimates) for source in sources]
    predicts_model_joints = np.repeat([*(source.predicts_model_joints for source in sources), False], len(cameras))
    # Residuals of a network that learned these labels, and is tempered for it, do not tell how large errors are.
    sets_noise_scale = (
        np.repeat([*(source.predicts_model_joints for source in sources), True], len(cameras))
        if predicts_model_joints.any()
        else None
    )
    copies = [replace(camera, name=f"{camera.name} {number}") for number in range(len(seen)) for camera in cameras]
    both = Observations(
        np.concatenate([one.uv_px for one in seen] + [labelled.uv_px], 1),
        np.concatenate(
            [one.precision / w.variance_scale for one, w in zip(seen, sources, strict=True)] + [labelled.precision], 1
        ),
        predicts_model_joints=predicts_model_joints,
        sets_noise_scale=sets_noise_scale,
    )
    config = FitConfig(fps=fps, joint_model=joints)
    # The kinds of stated precision are not on one scale: no common power could correct them.
    config = replace(config, reweighting=replace(config.reweighting, learn_power=False))
    result = fit_observations(replace(hand.rig, cameras=(*copies, *cameras)), both, config, hand=model)
    # Several pieces of evidence from one camera are one view.
    valid = sources[0].estimates.valid
    return replace(
        result,
        method="usthand",
        cameras=hand.rig.names,
        valid=valid & result.valid,
        joint_valid=result.joint_valid & valid[:, None],
        joints_cov_m2=COVARIANCE_INFLATION * result.joints_cov_m2,
    )


def reconstruct(
    capture: Capture,
    run: Path,
    side: str,
    leave_out: str | None = None,
    seed: int = 0,
    answer: Answer = "final",
    progress: Callable[[int, int], None] | None = None,
    fitted_hand: HandModel | None = None,
    device: str = "cpu",
) -> Result:
    """One of the answers of `reconstruct_both`."""
    return getattr(reconstruct_both(capture, run, side, leave_out, seed, progress, fitted_hand, device=device), answer)
