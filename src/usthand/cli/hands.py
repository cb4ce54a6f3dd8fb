"""Hands without a network, and the hand models themselves: fit, hand install, hand export."""

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
    same_person: tuple[Path, ...] = (),
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
        joints: Where the detector sees them: rigid, where the hand model has them; soft, at places of its own on the
            bones, which the fit estimates; auto, soft unless the detector is known to see the model's.
        hand: The hand model: embedded, mano (put there by `usthand hand install`), or a file in MANO's layout.
        same_person: Results of the same person's other hand, or of other captures: what they know of the hand's shape
            is used.
        overwrite: Write over a result that is there.
    """
    from usthand.capture.capture import open_capture
    from usthand.data.prepare import choose_side, without_camera
    from usthand.fit.fit import fit_labels, triangulate
    from usthand.fit.person import person_of
    from usthand.fit.sequence import FitConfig
    from usthand.fit.validity import placement_note
    from usthand.hand.io import load_hand
    from usthand.hand.result import load_result
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
        person = person_of([load_result(path) for path in same_person]) if same_person else None
        config = FitConfig(fps=opened.fps, joint_model=joints, person=person)
        result = fit_labels(rig, labels, config, model, progress_bar("fitting"))
    save_and_show(result, out, placement_note(labels, result))


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
