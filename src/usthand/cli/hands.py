"""Commands that find hands: fit, train, reconstruct; and the hand models themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from usthand.cli.options import CapturePath, Side
from usthand.cli.progress import progress_bar
from usthand.cli.show import save_and_show, show_overlap
from usthand.common.errors import UsthandError
from usthand.common.files import refuse_existing

HandPath = Positional[Annotated[Path, arg(metavar="PATH")]]


def fit(
    capture: CapturePath,
    out: Path,
    side: str | None = None,
    leave_out: str | None = None,
    raw: bool = False,
    smooth: bool = False,
    joints: Literal["auto", "rigid", "soft"] = "auto",
    hand: str = "embedded",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Hands from the labels alone, without training: robust triangulation and a fit of the whole sequence.

    Args:
        capture: Folder with rig.toml, videos and labels.
        out: Result file (npz).
        side: Which hand, right, left or a further one such as right-2; may be left out if only one has labels.
        leave_out: A camera not to use, to be judged by (`usthand evaluate --leave-out`).
        raw: Plain triangulation instead, for comparison.
        smooth: With --raw: each joint's track through a running median and a Gaussian, as most people do.
        joints: Of the rigid hand, or soft: free to leave it as far as the views agree; auto lets left-out cameras
            decide.
        hand: The hand model: embedded, mano (put there by `usthand hand install`), or a file in MANO's layout.
        seed: Taken for uniformity; the fit has no randomness.
        overwrite: Write over a result that is there.
    """
    from usthand.capture.capture import open_capture
    from usthand.data.prepare import choose_side, without_camera
    from usthand.fit.fit import fit_labels, triangulate
    from usthand.fit.sequence import FitConfig
    from usthand.hand.io import load_hand
    from usthand.labels.labels import load_labels

    if smooth and not raw:
        raise UsthandError(
            "--smooth is for plain triangulation",
            "the sequence fit is smooth by itself",
            "add --raw, or leave --smooth out",
        )
    refuse_existing([out], overwrite)
    opened, model = open_capture(capture), load_hand(hand)
    show_overlap(opened)
    labels = load_labels(opened, choose_side(opened, side))
    rig, labels = without_camera(opened.rig, labels, leave_out)
    if raw:
        result = triangulate(rig, labels, model, opened.fps if smooth else None)
    else:
        config = FitConfig(fps=opened.fps, joint_model=joints)
        result = fit_labels(rig, labels, config, model, progress_bar("fitting"))
    save_and_show(result, out)


def train(
    captures: Positional[Annotated[list[Path], arg(metavar="CAPTURE...")]],
    out: Path,
    preset: Literal["tiny", "paper"] = "tiny",
    side: str | None = None,
    leave_out: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    targets: Literal["consensus", "labels"] | None = None,
    from_scratch: bool = False,
    backbone_weights: Path | None = None,
    crop_cache: Path | None = None,
    device: str = "cpu",
) -> None:
    """Train the network on the captures' labels. Started again with the same settings, it goes on where it was.

    Args:
        captures: One or more capture folders with labels.
        out: Folder of the run: config, metrics.jsonl, TensorBoard, best and last checkpoint.
        preset: `tiny` for a CPU, `paper` for the published sizes.
        side: Which hand, right, left or a further one such as right-2; may be left out if only one has labels.
        leave_out: A camera not to use.
        seed: Of weights, batches and augmentation.
        steps: Length of the training, if not the preset's.
        targets: Learn the labels' consensus over views and time, or each label as it is (the paper's way).
        from_scratch: Start from nothing, not from the package's weights (tiny) learned on synthetic captures.
        backbone_weights: A file of ImageNet weights for the backbone (paper: ResNet-34).
        crop_cache: Folder that keeps the crops, so that other trainings on the same labels need not decode again.
        device: Where to compute, in torch's words: cpu, cuda, cuda:1.
    """
    from usthand.training.config import TrainConfig
    from usthand.training.loop import train as run

    config = TrainConfig(
        preset, side, leave_out, seed, steps, targets, from_scratch, backbone_weights, crop_cache, device
    )
    print(f"{run(captures, out, config, progress_bar('training'))}: the trained network, chosen by held-out labels.")


def reconstruct(
    capture: CapturePath,
    out: Path,
    run: Path | None = None,
    side: str | None = None,
    leave_out: str | None = None,
    seed: int = 0,
    answer: Literal["final", "network", "head"] = "final",
    hand: str = "embedded",
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Hands from a trained network: its 2D distributions, then the sequence fit on them.

    Args:
        capture: Folder with rig.toml, videos and labels (which say where to look).
        out: Result file (npz).
        run: Folder of a training; without one the weights that come with usthand, not adapted to this footage.
        side: Which hand, right, left or a further one such as right-2; may be left out if only one has labels.
        leave_out: A camera not to use.
        seed: Of the flow's samples.
        answer: The sequence fit on network and labels (final); the mesh fitted to the network's points, frame by frame,
            without labels (network); or with the mesh of the network's own hand head, the published way (head).
        hand: The hand model of the mesh: embedded, mano, or a file; the head's is always the embedded one.
        device: Where to run the network, in torch's words: cpu, cuda, cuda:1.
        overwrite: Write over a result that is there.
    """
    from usthand.capture.capture import open_capture
    from usthand.hand.io import load_hand
    from usthand.reconstruction.reconstruct import ReconstructConfig
    from usthand.reconstruction.reconstruct import reconstruct as use

    refuse_existing([out], overwrite)
    opened, config = open_capture(capture), ReconstructConfig(leave_out, seed, answer, load_hand(hand), device)
    show_overlap(opened)
    save_and_show(use(opened, run, side, config, progress_bar("reconstructing")), out)


def hand_install(path: HandPath) -> None:
    """Check an official MANO file (MANO_RIGHT.pkl, which you download under its own licence) and install it.

    Args:
        path: The file, or a folder that holds it.
    """
    from usthand.hand.io import install

    print(f"{install(path)}: installed and checked.")


def hand_export(path: HandPath, side: Side = "right") -> None:
    """Write the embedded hand in MANO's file layout (.pkl or .npz), for programs that read MANO files.

    Args:
        path: File to write.
        side: Which hand.
    """
    from usthand.hand.io import export

    print(f"{export(path, side)}: the embedded {side} hand in MANO's layout.")
