"""One hand of a capture, made ready for training or reconstruction: mirrored, less a camera, fitted, cropped.

The sequence fit of the labels serves twice: it says where to cut the crops, and its reprojections are the *consensus*
labels, in which views and time have already outvoted single wrong detections and filled in missed ones. Both come from
the 2D labels alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from usthand.capture.capture import Capture
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.fit.fit import FitConfig, fit_labels
from usthand.fit.kinematics import articulation
from usthand.fit.metric_scale import in_own_unit, scaled_by_hand
from usthand.geometry.cameras import Cameras, project
from usthand.hand.io import right_hand
from usthand.hand.result import Result
from usthand.labels.labels import Labels, Observations, load_labels, load_npz

CONSENSUS = "consensus"
ROUGH_ROUNDS = 2
TRUSTED_STD_M = 0.006  # a consensus joint of this uncertainty counts half


@dataclass(frozen=True)
class Hand2D:
    """Rig and labels of one hand as a right hand (a left one mirrored, with its cameras)."""

    rig: Rig
    labels: Labels
    mirrored: bool
    own_unit_m: float | None = None
    """How long the unit of a calibration without scale is; `rig` is in metres all the same (`usthand.fit.metric_scale`)."""

    def as_captured(self, result: Result) -> Result:
        """A result of this right hand as the side and in the unit that the capture has."""
        result = in_own_unit(result, self.own_unit_m)
        return result.mirrored() if self.mirrored else result


def choose_side(capture: Capture, side: str | None) -> str:
    """The hand asked for ("right", "left", or a further one such as "right-2"), or the only one that has labels.

    Raises:
        UsthandError: if there are none, or several and none was asked for.
    """
    if side is not None:
        return side
    sides = capture.label_hands()
    if not sides:
        raise UsthandError(
            f"{capture.path} has no labels", "no detector has been run on it", f"run `usthand label {capture.path}`"
        )
    if len(sides) > 1:
        counts = {s: int(load_npz(capture.labels_path(s)).mask.any(-1).sum()) for s in sides}
        # Detectors now and then call a single hand by the wrong side: a handful of labels is not a second hand.
        main = max(counts, key=counts.__getitem__)
        sure = [s for s in sides if counts[s] > 0.2 * counts[main]]
        if len(sure) > 1:
            which = "both hands" if sure == ["right", "left"] else f"{len(sure)} hands"
            raise UsthandError(
                f"{capture.path} has labels of {which}",
                "one run handles one hand",
                f"add --side {' or --side '.join(sure)}",
            )
        return main
    return sides[0]


def as_right_hand(rig: Rig, labels: Labels) -> Hand2D:
    """Mirror a left hand's rig and labels; a right hand stays as it is."""
    if labels.side == "right":
        return Hand2D(rig, labels, False)
    return Hand2D(rig.mirrored(), labels.mirrored(rig.widths), True)


def without_camera(rig: Rig, labels: Labels, leave_out: str | None) -> tuple[Rig, Labels]:
    """Rig and labels less the camera that is left out.

    Raises:
        UsthandError: if there is no such camera, or only one would be left.
    """
    if leave_out is not None:
        rig, labels = rig.without(leave_out), labels.without(leave_out)
    if len(rig) < 2:
        raise UsthandError(
            f"only {len(rig)} camera is left",
            "depth needs two views or more",
            "leave none out, or add a camera to the rig",
        )
    return rig, labels


def load_hand_2d(capture: Capture, side: str, leave_out: str | None = None) -> Hand2D:
    """Rig, in metres, and labels of one hand as a right hand, less the camera that is left out."""
    hand = as_right_hand(*without_camera(capture.rig, load_labels(capture, side), leave_out))
    rig, own_unit_m = scaled_by_hand(hand.rig, Observations.from_labels(hand.labels), articulation(right_hand()))
    return replace(hand, rig=rig, own_unit_m=own_unit_m)


def consensus_labels(hand: Hand2D, fit: Result) -> Labels:
    """The fitted hand, projected into every view, as labels; confidence falls with the fit's own uncertainty."""
    cameras = hand.rig.tensors(torch.float64)
    points = torch.from_numpy(fit.joints_world_m)
    cameras = Cameras(*(t.expand(len(points), *t.shape) for t in cameras))
    uv, depth = (x.numpy() for x in project(cameras, points))
    variance = fit.joints_cov_m2.trace(axis1=-2, axis2=-1) / 3
    trust = 1.0 / (1.0 + variance / TRUSTED_STD_M**2)
    known = (fit.joint_valid & fit.valid[:, None])[:, None] & (depth > 0)
    confidence = np.where(known, trust[:, None], 0.0)
    return Labels(uv, confidence, hand.rig.names, "right", CONSENSUS)


def hold_out(labels: Labels, share: float, rng: np.random.Generator, block: int = 8) -> tuple[Labels, Labels]:
    """Split off about `share` of the labels, in blocks of frames of one view, for a check during training.

    Blocks, because a label's error is correlated in time: its neighbours would give a held-out label away.
    """
    n_frames, n_views = labels.confidence.shape[:2]
    blocks = rng.random((n_frames // block + 1, n_views)) < share
    held = np.repeat(blocks, block, 0)[:n_frames, :, None]
    return (
        replace(labels, confidence=np.where(held, 0, labels.confidence)),
        replace(labels, confidence=np.where(held, labels.confidence, 0)),
    )


def fit_hand(hand: Hand2D, fps: float) -> Result:
    """The sequence fit of the labels."""
    return fit_labels(hand.rig, hand.labels, FitConfig(fps=fps))


def rough_fit(hand: Hand2D, fps: float) -> Result:
    """Enough to place crops."""
    return fit_labels(hand.rig, hand.labels, FitConfig(fps=fps, joint_model="rigid", rounds=ROUGH_ROUNDS))
