"""From a trained network to hands with uncertainty.

A network gives 2D distributions: per view and joint a mean and a 2x2 covariance, the flow's
(`usthand.reconstruction.inference`). Each network and the detector are sources of the same sequence fit that `usthand
fit` runs on labels alone (`usthand.reconstruction.fusion`). Its joints are the hand model's; those that the detector
sees are beside them, and the network's own results have the joints that the network predicts.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from usthand.capture.capture import Capture
from usthand.common.device import check_device
from usthand.common.progress import Progress, silent
from usthand.data.footage import footage_of
from usthand.data.prepare import choose_side, fit_hand, load_hand_2d
from usthand.fit.canonical import CanonicalHand
from usthand.hand.io import load_hand, right_hand
from usthand.hand.model import HandModel
from usthand.hand.result import Result
from usthand.reconstruction.bridging import bridged, trusted
from usthand.reconstruction.fusion import NetworkSource, fit_networks_and_labels
from usthand.reconstruction.inference import Estimates, estimate
from usthand.reconstruction.network_results import head_result, network_result
from usthand.training.checkpoint import SHIPPED, load_checkpoint


@dataclass(frozen=True)
class ReconstructConfig:
    """How hands are reconstructed.

    Examples:
        >>> import usthand
        >>> config = usthand.ReconstructConfig(answer="network", leave_out="cam0")
    """

    leave_out: str | None = None
    """A camera not to use."""
    answer: Literal["final", "network", "head"] = "final"
    """The sequence fit on network and labels (final); the mesh fitted to the network's points, frame by frame, without
    labels (network); or that of the network's own hand head, the published way (head)."""
    hand: HandModel | None = None
    """The hand of the mesh, by default the embedded one. The network's hand head knows only the latter."""
    device: str = "cpu"
    """Where the networks run, in torch's words: cpu, cuda, cuda:1."""
    with_shipped: bool = True
    """Use the shipped network, which did not learn these labels' errors, as a second source beside a trained one."""


@dataclass(frozen=True)
class Reconstruction:
    """The final result and the network's own ones."""

    final: Result
    """The sequence fit on the networks' distributions and the labels."""
    network: Result
    """The network's refined points, and the hand fitted to them frame by frame."""
    head: Result
    """The network's refined points with the mesh of its hand head (the published way)."""
    estimates: Estimates
    """The network's output; points in metres even where the rig has no scale."""


class _Evidence(NamedTuple):
    hand: CanonicalHand
    fit: Result
    sources: list[NetworkSource]
    """The trained network first."""


def reconstruct(
    capture: Capture,
    run: str | Path | None = None,
    side: str | None = None,
    config: ReconstructConfig | None = None,
    progress: Progress = silent,
) -> Result:
    """Hands of one side of a capture, from a trained network and the capture's labels.

    Args:
        capture: Where images and labels are. The labels say where to look, and are a source of the final fit.
        run: A training's folder, or one of its checkpoints; by default the shipped weights, not adapted to the footage.
        side: Which hand: right, left, or a further one such as right-2; by default the only one that has labels.
        config: Which result, on which device and so on.
        progress: Counts frames, over all networks.

    Returns:
        T frames of joints (T, 21, 3) with covariances, and a mesh, in the world frame. `Result.source` says in which
        frames the detector missed the hand and the network alone places it.

    Raises:
        UsthandError: If there is no such device, no network in `run`, no such hand, or the labels place no frame.

    Examples:
        >>> import usthand
        >>> capture = usthand.open_capture("clip")
        >>> config = usthand.ReconstructConfig(answer="network")
        >>> result = usthand.reconstruct(capture, side="right", config=config)
        >>> result.method, result.vertices_world_m.shape  # "usthand network", (T, 778, 3)
    """
    config = config or ReconstructConfig()
    final = config.answer == "final"
    evidence = _collect(capture, run, side, config if final else replace(config, with_shipped=False), progress)
    if final:
        result = _final(evidence, capture.fps, config)
    else:
        result = _network(evidence, config)
        if config.answer == "head":
            result = head_result(result, evidence.sources[0].estimates, right_hand())
    return evidence.hand.as_captured(result)


def reconstruct_all(
    capture: Capture,
    run: str | Path | None = None,
    side: str | None = None,
    config: ReconstructConfig | None = None,
    progress: Progress = silent,
) -> Reconstruction:
    """All the results that `reconstruct` chooses from; same arguments, of which `config.answer` has no effect."""
    config = config or ReconstructConfig()
    evidence = _collect(capture, run, side, config, progress)
    estimates = evidence.sources[0].estimates
    network = _network(evidence, config)
    results = (_final(evidence, capture.fps, config), network, head_result(network, estimates, right_hand()))
    final, network, head = (evidence.hand.as_captured(one) for one in results)
    return Reconstruction(final, network, head, estimates)


def _network(evidence: _Evidence, config: ReconstructConfig) -> Result:
    return network_result(evidence.hand.rig, evidence.sources[0].estimates, right_hand(config.hand))


def _final(evidence: _Evidence, fps: float, config: ReconstructConfig) -> Result:
    return fit_networks_and_labels(evidence.hand, evidence.sources, fps, right_hand(config.hand))


def _collect(
    capture: Capture, run: str | Path | None, side: str | None, config: ReconstructConfig, progress: Progress
) -> _Evidence:
    """Fit the labels, cut crops around the fit, and run the networks over them."""
    check_device(config.device)
    hand = load_hand_2d(capture, choose_side(capture, side), config.leave_out)
    # It places crops and gates.
    fit = fit_hand(hand, capture.fps)
    networks = _networks(Path(run or SHIPPED), config.with_shipped)
    placed, sources, footages = bridged(fit), [], {}
    with tempfile.TemporaryDirectory(prefix="usthand-") as folder:
        for number, (path, adapted) in enumerate(networks):
            model, crop, _ = load_checkpoint(path, load_hand())
            size = model.config.image_size
            key = (crop.factor, size)
            if key not in footages:  # the footage is read once where the networks' crops are alike
                footages[key] = footage_of(capture, hand, placed, crop, size, Path(folder) / str(number))

            def counted(done: int, total: int, task: str = "", note: str = "", before: int = number) -> None:
                progress(before * total + done, len(networks) * total, task, note)

            estimates = trusted(estimate(model.to(config.device), footages[key], crop, counted), fit)
            sources.append(NetworkSource(estimates, adapted))
    return _Evidence(hand, fit, sources)


def _networks(run: Path, with_shipped: bool) -> list[tuple[Path, bool]]:
    """The networks, the trained one first, and whether they learned this footage."""
    if run.resolve() == SHIPPED.resolve():
        return [(SHIPPED, False)]
    return [(run, True), (SHIPPED, False)] if with_shipped else [(run, True)]
