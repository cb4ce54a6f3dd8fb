"""Using a trained network: distributions for every view and frame, then hands with uncertainty.

The network's 2D distributions (per view and joint a mean and a 2x2 covariance from the flow's samples) and its refined
points go into the same sequence fit that `usthand fit` runs on raw labels: one shape, joint limits, smooth motion.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from usthand.articulation import articulation
from usthand.capture import Capture
from usthand.checkpoint import SHIPPED, load_checkpoint
from usthand.device import check_device
from usthand.fit import FitConfig, fit_observations
from usthand.geometry import Cameras, axis_angle_from_rotation, triangulate_precision
from usthand.hand.files import load_hand, right_hand
from usthand.hand.limits import anatomical_axes
from usthand.hand.model import HandModel
from usthand.initial import metres_per_unit
from usthand.labels import Observations
from usthand.lay import Laid, lay_hand
from usthand.network.hand_head import HandParameters, pose_hand
from usthand.network.lift import PALM, affine_apply, affine_inverse
from usthand.network.model import UstHand
from usthand.prepare import Hand2D, fit_hand, footage_of, load_hand_2d
from usthand.result import Result
from usthand.rig import Rig
from usthand.robust import mahalanobis2, straighten
from usthand.windows import CropConfig, Footage, make_batch

CHUNK = 12  # frames that go through the network at once
# Measured: docs/notes/gate.md.
TEMPER = {"rigid": 2.0, "soft": 4.0}
"""Factor on the variances of a network that did not learn this footage. Joints are soft for real detectors, on real images:
there it errs more than on the images that it learned."""
ADAPTED_TEMPER = 8.0
"""... and of one that did, whose errors go with the labels', which testify too."""
FAIR_SCALE = {"rigid": 0.5, "soft": 0.2}
"""Variance of labels about their fit over the variance that they state, of labels somewhat better than a usual detector's
(.6 to .9; .15 to .4 where joints are soft and follow the labels). Labels that agree better still deserve more beside a network
whose errors stay as they are: its variances are raised by as much."""
MOST_RAISED = 1e4
ABSORBED = 0.6  # of a label's two coordinates, over the number of views: what the fit follows
CHI2_MEDIAN = 2 * np.log(2)  # of two degrees of freedom
COVARIANCE_INFLATION = 1.9
SPREAD_SAMPLES = 64  # of the flow, for the 2x2 covariances: 9 % error of a standard deviation
HALF_CONFIDENCE_CROP = 0.05  # crop coordinates: samples that spread this far are worth a confidence of one half
STD_FLOOR_CROP = 0.006  # crop coordinates: a third of a pixel in a 96 px crop; nothing is localised better


Answer = Literal["final", "network", "head"]
"""Which result: see `Reconstruction`."""


@dataclass(frozen=True)
class Estimates:
    """What the network says of every frame, in the rig's (mirrored, for a left hand) world and image pixels."""

    uv_px: Float[np.ndarray, "T V J 2"]
    cov_px2: Float[np.ndarray, "T V J 2 2"]
    confidence: Float[np.ndarray, "T V J"]
    """Of `uv_px`, in (0, 1]; 0 in a view that does not see the hand. From the spread of the flow's samples, which has
    heard all views and ranks the errors better than the heatmap does (docs/notes/pretraining.md)."""
    heatmap_confidence: Float[np.ndarray, "T V J"]
    """The published one, inside the network: maximum of the view's unnormalised heatmap; 0 as above."""
    points_world_m: Float[np.ndarray, "T J 3"]
    """Refined points of the last block."""
    angles: Float[np.ndarray, "T 15 3"]
    root: Float[np.ndarray, "T 3 3"]
    shape: Float[np.ndarray, "10"]
    translation_m: Float[np.ndarray, "T 3"]
    valid: Bool[np.ndarray, "T"]
    """Frames that two views or more see."""


@torch.no_grad()
def estimate(
    model: UstHand, footage: Footage, crop: CropConfig, seed: int, progress: Callable[[int, int], None] | None = None
) -> Estimates:
    """Run the network over a footage, in chunks that overlap by its reach in time."""
    n_frames, device = len(footage.frames), next(model.parameters()).device
    reach = model.config.blocks * (model.config.window // 2)
    generator = torch.Generator().manual_seed(seed)
    count = model.config.hypotheses if model.flow is not None else 1
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, n_frames, CHUNK):
        low, high = max(start - reach, 0), min(start + CHUNK + reach, n_frames)
        inputs, _ = make_batch([(footage, np.arange(low, high))], model.config.image_size, crop, None, device)
        # The same noise in every frame and view, so that equal images give equal answers wherever they stand.
        shape = inputs.view_mask.shape
        noise, spread = (_shared_noise(model, shape, n, generator).to(device) for n in (count, SPREAD_SAMPLES))
        prediction = model(inputs, noise)
        samples = model.hypothesise(prediction.views, spread)
        inside = slice(start - low, min(start + CHUNK, n_frames) - low)
        parts.append(_chunk(prediction, samples, inputs.crop_from_px, inside))
        generator.manual_seed(seed)
        if progress is not None:
            progress(min(start + CHUNK, n_frames), n_frames)
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    valid = footage.crops.view_mask.sum(1) >= 2
    shapes = merged.pop("shape")
    return Estimates(**merged, shape=shapes[valid].mean(0) if valid.any() else shapes.mean(0), valid=valid)


def _shared_noise(model: UstHand, lead: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Antithetic standard normal noise (n, -n), equal for all frames, views and joints: its mean is exactly zero."""
    dims = 42 if model.config.flow == "hand" else 2
    half = torch.randn((count + 1) // 2, dims, generator=generator)
    noise = torch.cat((half, -half))[:count]
    joints = () if model.config.flow == "hand" else (21,)
    return noise.expand(*lead, *joints, count, dims)


def _chunk(prediction, samples: Tensor, crop_from_px: Tensor, inside: slice) -> dict[str, np.ndarray]:
    px_from_crop = affine_inverse(crop_from_px)
    key = samples[..., 0, :]
    offsets = (samples[..., 1:, :] - key.unsqueeze(-2)) if samples.shape[-2] > 2 else torch.zeros_like(samples)
    covariance = (offsets.unsqueeze(-1) * offsets.unsqueeze(-2)).mean(-3) + STD_FLOOR_CROP**2 * torch.eye(2, device=key.device)
    linear = px_from_crop[..., None, :, :2]
    frames = prediction.hand.root.shape[1]
    heatmap = prediction.views.confidence
    spread = covariance.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
    sure = heatmap if samples.shape[-2] <= 2 else (heatmap > 0) / (1 + spread / HALF_CONFIDENCE_CROP)
    values = {
        "uv_px": affine_apply(px_from_crop, key),
        "cov_px2": linear @ covariance @ linear.transpose(-1, -2),
        "confidence": sure,
        "heatmap_confidence": heatmap,
        "points_world_m": prediction.points[-1],
        "angles": prediction.hand.angles,
        "root": prediction.hand.root,
        "shape": prediction.hand.shape.unsqueeze(1).expand(-1, frames, -1),
        "translation_m": prediction.hand.translation_m,
    }
    return {name: value[0, inside].double().cpu().numpy() for name, value in values.items()}


def network_result(rig: Rig, estimates: Estimates, hand: HandModel) -> Result:
    """The network's own answer, frame by frame: refined points, covariances from the 2D distributions, and the hand laid on
    these points. No label is heard and nothing is smoothed.

    Args:
        hand: a right hand in float64.
    """
    points, covariance = estimates.points_world_m, _covariances(rig, estimates)
    seen = np.repeat(estimates.valid[:, None], points.shape[1], 1)
    unit_m = _unit_m(rig, estimates, hand)
    laid = _shrunk(lay_hand(hand, points * unit_m, seen, covariance * unit_m**2), unit_m, np.zeros(3))
    return _network_result(rig, estimates, covariance, laid, hand)


def head_result(rig: Rig, estimates: Estimates, hand: HandModel) -> Result:
    """As `network_result`, with the published mesh: that of the network's own hand head, which learns slower than its points.

    Args:
        hand: the embedded hand, for which the head has learned the parameters.
    """
    parameters = HandParameters(
        *(torch.from_numpy(x) for x in (estimates.angles, estimates.root, estimates.shape, estimates.translation_m))
    )
    axes = anatomical_axes(hand)
    posed = pose_hand(hand, axes, parameters)
    fingers = (axes * parameters.angles.unsqueeze(-1)).sum(-2).flatten(-2)
    pose = torch.cat((axis_angle_from_rotation(parameters.root), fingers), -1).numpy()
    laid = Laid(pose, estimates.shape, estimates.translation_m, posed.vertices.numpy())
    palm = estimates.points_world_m[:, PALM].mean(1)  # where the head lays its hand, in metres whatever the rig's unit
    return _network_result(rig, estimates, _covariances(rig, estimates), _shrunk(laid, _unit_m(rig, estimates, hand), palm), hand)


def _unit_m(rig: Rig, estimates: Estimates, hand: HandModel) -> float:
    """Metres in the rig's unit, by the size of the hand where the rig does not know."""
    if rig.metric:
        return 1.0
    seen = np.repeat(estimates.valid[:, None], estimates.points_world_m.shape[1], 1)
    return metres_per_unit(articulation(hand), estimates.points_world_m, seen)


def _shrunk(laid: Laid, unit_m: float, about: np.ndarray) -> Laid:
    """In units of `unit_m`, from metres, with the points `about` (T 3 or 3) staying where they are."""
    place = about + (laid.translation_m - about) / unit_m
    mesh = np.expand_dims(about, -2) + (laid.vertices_world_m - np.expand_dims(about, -2)) / unit_m
    return laid._replace(translation_m=place, vertices_world_m=mesh)


def _network_result(rig: Rig, estimates: Estimates, covariance_m2: np.ndarray, laid: Laid, hand: HandModel) -> Result:
    valid = estimates.valid
    return Result(
        **laid._asdict(), joints_world_m=estimates.points_world_m, joints_cov_m2=covariance_m2, side="right",
        frame=np.arange(len(valid)), valid=valid, joint_valid=np.broadcast_to(valid[:, None], (len(valid), 21)),
        scale=rig.scale, metric=rig.metric, method="usthand network", joints="free", cameras=rig.names, faces=hand.faces.numpy(),
    )  # fmt: skip


def observations(estimates: Estimates) -> Observations:
    """The 2D distributions as the sequence fit takes them."""
    precision = np.linalg.inv(estimates.cov_px2) * (estimates.confidence > 0)[..., None, None]
    uv = np.where(estimates.confidence[..., None] > 0, estimates.uv_px, 0.0)
    return Observations(uv, precision)


def _covariances(rig: Rig, estimates: Estimates) -> np.ndarray:
    seen = observations(estimates)
    cameras = rig.tensors(torch.float64)
    cameras = Cameras(*(t.expand(len(seen.uv_px), *t.shape) for t in cameras))
    precision = torch.from_numpy(seen.precision)
    return triangulate_precision(cameras, torch.from_numpy(seen.uv_px), precision)[1].numpy()


@dataclass(frozen=True)
class Witness:
    """What one network says of a hand, as evidence for the final fit."""

    estimates: Estimates
    temper: float
    """Its variances are raised by this factor: errors of a network go together over frames, joints and views, where the fit
    counts each as news, and those of a network that learned this footage's labels go with the labels', which testify too."""
    firm: bool
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
    """What the trained network says."""


def reconstruct_both(
    capture: Capture, run: Path, side: str, leave_out: str | None = None, seed: int = 0,
    progress: Callable[[int, int], None] | None = None, fitted_hand: HandModel | None = None, shipped: bool = True,
    device: str = "cpu",
) -> Reconstruction:  # fmt: skip
    """Hands of one side of a capture: the final result and the network's own.

    Args:
        run: a training's folder, or one of its checkpoints.
        progress: called with (frames done, frames in all).
        fitted_hand: the hand of the mesh; the embedded one if none. The network's hand head knows only the latter.
        shipped: hear the package's network, which did not learn this footage's label errors, as a second witness.
        device: of torch, where the networks are used.

    Raises:
        UserError: if there is no such device, no network in `run`, or the labels place no frame.
    """
    check_device(device)
    hand_model, fitted_hand = load_hand(), right_hand(fitted_hand)
    hand = load_hand_2d(capture, side, leave_out)
    fit = fit_hand(hand, capture.fps)  # places crops and gates, finds out whether joints are soft and how good labels are
    raised, witnesses, footages = label_excellence(hand, fit), [], {}
    networks = _networks(Path(run), shipped, fit.joints)
    with tempfile.TemporaryDirectory(prefix="usthand-") as folder:
        for number, (path, temper, firm) in enumerate(networks):
            model, crop, _ = load_checkpoint(path, hand_model)
            cut = (crop.factor, model.config.image_size)
            if cut not in footages:  # the footage is read once where the networks' crops are alike
                cache = Path(folder) / str(number)
                footages[cut] = footage_of(capture, hand, fit, hand.labels, crop, model.config.image_size, cache=cache)
            bar = progress and (lambda done, total, before=number: progress(before * total + done, len(networks) * total))
            witnesses.append(Witness(estimate(model.to(device), footages[cut], crop, seed, bar), raised * temper, firm))
    estimates = witnesses[0].estimates
    results = (
        polish_fit(hand, witnesses, capture.fps, fit.joints, fitted_hand), network_result(hand.rig, estimates, fitted_hand),
        head_result(hand.rig, estimates, right_hand()),
    )  # fmt: skip
    return Reconstruction(*(one.mirrored() if hand.mirrored else one for one in results), estimates)


def _networks(run: Path, shipped: bool, joints: str) -> list[tuple[Path, float, bool]]:
    """Networks to hear, the trained one first, their tempers, and whether they are firm."""
    untrained = (SHIPPED, TEMPER[joints], True)
    if run.resolve() == SHIPPED.resolve():
        return [untrained]
    adapted = (run, ADAPTED_TEMPER, False)
    return [adapted, untrained] if shipped else [adapted]


def label_excellence(hand: Hand2D, fit: Result) -> float:
    """How many times smaller than `FAIR_SCALE` the labels' variance about their fit is; at least 1."""
    seen = Observations.from_labels(hand.labels)
    views = straighten(hand.rig.tensors(torch.float64), torch.from_numpy(seen.uv_px), torch.from_numpy(seen.precision))
    squared = mahalanobis2(views, torch.from_numpy(fit.joints_world_m)).numpy()
    present = hand.labels.mask & fit.valid[:, None, None]
    own = 1 - ABSORBED / np.maximum(present.sum(1, keepdims=True), 1)
    scale = np.median((squared / own)[present]) / CHI2_MEDIAN
    return float(np.clip(FAIR_SCALE[fit.joints] / max(scale, 1e-9), 1.0, MOST_RAISED))


def polish_fit(hand: Hand2D, witnesses: list[Witness], fps: float, joints: str, model: HandModel | None = None) -> Result:
    """The sequence fit on the networks' distributions and, as evidence of its own, the labels.

    Each camera stands in the rig once for each network and once for the detector. What is still too sure in the covariance
    that comes out is mended by `COVARIANCE_INFLATION`. `joints` is "rigid" or "soft", as the fit of the labels alone found
    to be right.
    """
    labelled, cameras = Observations.from_labels(hand.labels), hand.rig.cameras
    seen = [observations(witness.estimates) for witness in witnesses]
    firm = np.repeat([*(witness.firm for witness in witnesses), False], len(cameras))
    # Residuals of a network that learned these labels, and is tempered for it, do not tell how large errors are.
    judged = np.repeat([*(witness.firm for witness in witnesses), True], len(cameras)) if firm.any() else None
    copies = [replace(camera, name=f"{camera.name} {number}") for number in range(len(seen)) for camera in cameras]
    both = Observations(
        np.concatenate([one.uv_px for one in seen] + [labelled.uv_px], 1),
        np.concatenate([one.precision / w.temper for one, w in zip(seen, witnesses, strict=True)] + [labelled.precision], 1),
        firm=firm, judged=judged,
    )  # fmt: skip
    config = FitConfig(fps=fps, joints=joints)
    # The kinds of stated precision are not on one scale: no common power could correct them.
    config = replace(config, trust=replace(config.trust, learn_power=False))
    result = fit_observations(replace(hand.rig, cameras=(*copies, *cameras)), both, config, hand=model)
    # Several pieces of evidence from one camera are one view.
    valid = witnesses[0].estimates.valid
    return replace(
        result, method="usthand", cameras=hand.rig.names, valid=valid & result.valid,
        joint_valid=result.joint_valid & valid[:, None], joints_cov_m2=COVARIANCE_INFLATION * result.joints_cov_m2,
    )  # fmt: skip


def reconstruct(
    capture: Capture, run: Path, side: str, leave_out: str | None = None, seed: int = 0, answer: Answer = "final",
    progress: Callable[[int, int], None] | None = None, fitted_hand: HandModel | None = None,
    device: str = "cpu",
) -> Result:  # fmt: skip
    """One of the answers of `reconstruct_both`."""
    return getattr(reconstruct_both(capture, run, side, leave_out, seed, progress, fitted_hand, device=device), answer)
