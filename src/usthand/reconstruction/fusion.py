"""The final fit: the networks' 2D distributions and the detector's labels, each a source with a weight of its own.

Errors of a network are correlated over frames, joints and views, while the fit takes them as independent. So a
network's variances are multiplied by a variance scale before the fit. docs/development/gate.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from usthand.fit.canonical import CanonicalHand
from usthand.fit.fit import fit_observations
from usthand.fit.observations import Observations
from usthand.fit.sequence import FitConfig
from usthand.geometry.robust_triangulation import reprojection_mahalanobis2, undistorted_views
from usthand.hand.model import HandModel
from usthand.hand.result import Result
from usthand.reconstruction.inference import Estimates, observations

VARIANCE_SCALE = {"rigid": 2.0, "soft": 4.0}
"""Of a network that did not learn this footage, by joint model. Soft joints mean a real detector on real images, where
the network errs more than on the images that it learned."""
ADAPTED_VARIANCE_SCALE = 2.0
"""Per view, of a network that learned this footage. Its errors are correlated with those of the labels, which are a
source too. It learned a fitted hand's projections, so its errors are a hand's; more views do not average them out."""
FAIR_SCALE = {"rigid": 0.5, "soft": 0.2}
"""Variance of labels about their fit over the variance that they state, for labels somewhat better than a usual
detector's (0.6 to 0.9; 0.15 to 0.4 with soft joints, which follow the labels). Below it, the networks' variances are
raised by the missing factor, because their errors do not shrink with those of the labels."""
MOST_RAISED = 1e4
ABSORBED = 0.6  # of a label's two coordinates, over the number of views: what the fit follows
CHI2_MEDIAN = 2 * np.log(2)  # of two degrees of freedom
COVARIANCE_INFLATION = 1.9  # of the final covariances, which the fit states too small


@dataclass(frozen=True)
class NetworkSource:
    """One network's estimates of a hand, as a source for the final fit."""

    estimates: Estimates
    variance_scale: float
    """Factor on its variances."""
    predicts_model_joints: bool
    """Whether its joints are the hand model's own, as the shipped network's are, and not this footage's detector's."""


def label_excellence(hand: CanonicalHand, fit: Result) -> float:
    """How many times smaller than `FAIR_SCALE` the labels' variance about their fit is; at least 1."""
    seen = Observations.from_labels(hand.labels)
    uv_px, precision = torch.from_numpy(seen.uv_px), torch.from_numpy(seen.precision)
    views = undistorted_views(hand.rig.tensors(torch.float64), uv_px, precision)
    squared = reprojection_mahalanobis2(views, torch.from_numpy(fit.joints_world_m)).numpy()
    present = hand.labels.mask & fit.valid[:, None, None]
    own = 1 - ABSORBED / np.maximum(present.sum(1, keepdims=True), 1)
    scale = np.median((squared / own)[present]) / CHI2_MEDIAN
    return float(np.clip(FAIR_SCALE[fit.joint_model] / max(scale, 1e-9), 1.0, MOST_RAISED))


def fit_networks_and_labels(
    hand: CanonicalHand,
    sources: list[NetworkSource],
    fps: float,
    joint_model: Literal["rigid", "soft"],
    model: HandModel | None = None,
) -> Result:
    """The sequence fit on the networks' distributions and the labels.

    Each camera is in the rig once for each network and once for the detector.

    Args:
        hand: Rig and labels.
        sources: The networks; frames that the first one sees in less than two views are not valid.
        fps: Frames per second.
        joint_model: As the fit of the labels alone found it.
        model: The hand to fit, a right one; the embedded one by default.
    """
    labelled, cameras = Observations.from_labels(hand.labels), hand.rig.cameras
    seen = [observations(source.estimates) for source in sources]
    scaled = [one.precision / source.variance_scale for one, source in zip(seen, sources, strict=True)]
    model_joints = [source.predicts_model_joints for source in sources]
    # The residuals of a network that learned these labels do not tell how large errors are, so they set no noise scale.
    sets_noise_scale = np.repeat([*model_joints, True], len(cameras)) if any(model_joints) else None
    both = Observations(
        np.concatenate([*(one.uv_px for one in seen), labelled.uv_px], 1),
        np.concatenate([*scaled, labelled.precision], 1),
        predicts_model_joints=np.repeat([*model_joints, False], len(cameras)),
        sets_noise_scale=sets_noise_scale,
    )
    config = FitConfig(fps=fps, joint_model=joint_model)
    # Networks and detector state precisions on different scales, so no common power could correct them.
    config = replace(config, reweighting=replace(config.reweighting, learn_power=False))
    copies = [replace(camera, name=f"{camera.name} {number}") for number in range(len(seen)) for camera in cameras]
    result = fit_observations(replace(hand.rig, cameras=(*copies, *cameras)), both, config, hand=model)
    # Several observations from one camera are one view.
    valid = sources[0].estimates.valid
    return replace(
        result,
        method="usthand",
        cameras=hand.rig.names,
        valid=valid & result.valid,
        joint_valid=result.joint_valid & valid[:, None],
        joints_cov_m2=COVARIANCE_INFLATION * result.joints_cov_m2,
    )
