"""One hand of a capture, prepared for training or reconstruction: canonical, fitted and cropped.

The sequence fit of the labels has two uses. It places the crops, and its reprojections are the *consensus* labels, in
which other views and frames have corrected wrong detections and filled in missed ones. Both need the 2D labels alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from usthand.capture.capture import Capture
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.fit.canonical import CanonicalHand, canonical_hand
from usthand.fit.fit import fit_labels
from usthand.fit.sequence import FitConfig
from usthand.geometry.cameras import Cameras, project
from usthand.hand.result import Result
from usthand.labels.labels import Labels, load_labels, load_npz

CONSENSUS = "consensus"
ROUGH_ROUNDS = 2
HALF_WEIGHT_STD_M = 0.006  # a consensus joint of this uncertainty counts half


def choose_side(capture: Capture, side: str | None) -> str:
    """The hand asked for ("right", "left", or a further one such as "right-2"), or the only one that has labels.

    Raises:
        UsthandError: If there are none, or several and none was asked for.
    """
    if side is not None:
        return side
    sides = capture.label_hands()
    if not sides:
        raise UsthandError(
            f"{capture.path} has no labels", "no detector has been run on it", f"run `usthand label {capture.path}`"
        )
    if len(sides) == 1:
        return sides[0]
    counts = {s: int(load_npz(capture.labels_path(s)).mask.any(-1).sum()) for s in sides}
    # Detectors sometimes name the wrong side of a single hand: a few labels are not a second hand.
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


def without_camera(rig: Rig, labels: Labels, leave_out: str | None) -> tuple[Rig, Labels]:
    """Cameras and labels without the camera that is left out.

    Raises:
        UsthandError: If there is no such camera, or only one would be left.
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


def load_hand_2d(capture: Capture, side: str, leave_out: str | None = None) -> CanonicalHand:
    """Cameras in metres and labels of one hand as a right hand, less the camera that is left out."""
    return canonical_hand(*without_camera(capture.rig, load_labels(capture, side), leave_out))


def consensus_labels(hand: CanonicalHand, fit: Result) -> Labels:
    """The hand of `fit_hand`, projected into every view, as labels; confidence falls with the fit's own uncertainty."""
    cameras = hand.rig.tensors(torch.float64)
    points = torch.from_numpy(fit.joints_world_m)
    cameras = Cameras(*(t.expand(len(points), *t.shape) for t in cameras))
    uv, depth = (x.numpy() for x in project(cameras, points))
    variance = fit.joints_cov_m2.trace(axis1=-2, axis2=-1) / 3
    weight = 1.0 / (1.0 + variance / HALF_WEIGHT_STD_M**2)
    known = (fit.joint_valid & fit.valid[:, None])[:, None] & (depth > 0)
    confidence = np.where(known, weight[:, None], 0.0)
    return Labels(uv, confidence, hand.rig.names, "right", CONSENSUS)


def hold_out(labels: Labels, share: float, rng: np.random.Generator, block: int = 8) -> tuple[Labels, Labels]:
    """Split the labels for a check during training: those to train on, and about `share` of them to check with.

    Whole blocks of frames of a view are held out, because errors of labels are correlated in time: the neighbours of a
    single held-out label would have its error too.
    """
    n_frames, n_views = labels.confidence.shape[:2]
    blocks = rng.random((n_frames // block + 1, n_views)) < share
    held = np.repeat(blocks, block, 0)[:n_frames, :, None]
    return (
        replace(labels, confidence=np.where(held, 0, labels.confidence)),
        replace(labels, confidence=np.where(held, labels.confidence, 0)),
    )


def fit_hand(hand: CanonicalHand, fps: float) -> Result:
    """The sequence fit of the labels, with the joints where the detector sees them (`Result.as_detected`).

    Crops, gates and consensus labels are all of these: what a network learns from the labels is where to find them.
    """
    return fit_labels(hand.rig, hand.labels, FitConfig(fps=fps)).as_detected()


def rough_fit(hand: CanonicalHand, fps: float) -> Result:
    """Enough to place crops: a rigid hand, whose joints are then the detector's but for some millimetres."""
    return fit_labels(hand.rig, hand.labels, FitConfig(fps=fps, joint_model="rigid", rounds=ROUGH_ROUNDS))
