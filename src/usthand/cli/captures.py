"""Commands that make a capture, label it and check it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from usthand.capture.calibration.read import Format
from usthand.cli.options import CapturePath, Side, camera_values, whole_number
from usthand.cli.progress import progress_bar
from usthand.cli.show import show_created
from usthand.common.errors import UsthandError


def init(
    videos: Positional[Annotated[list[Path], arg(metavar="VIDEOS")]],
    calibration: Path,
    out: Path,
    format: Format = "auto",
    scale: float | None = None,
    names: tuple[str, ...] = (),
    offset: tuple[str, ...] = (),
    fps: float | None = None,
    copy: bool = False,
    images: tuple[str, ...] = (),
) -> None:
    """Make a capture of your own videos and calibration; docs/calibrations.md has the formats.

    Args:
        videos: Folder of the videos, or of folders of images, or the videos themselves.
        calibration: File or folder that your calibration program wrote.
        out: Folder to write; the videos are linked, not copied.
        format: Of the calibration; auto recognises it.
        scale: Metres per unit of a calibration without a true scale (Anipose, EasyMocap, COLMAP, nerfstudio).
        names: CAMERA=VIDEO for those whose names do not match; CAMERA=none leaves a camera out.
        offset: CAMERA=FRAMES for one that started so many frames later than the others (negative: earlier).
        fps: Frame rate, if the videos do not say it.
        copy: Copy the videos instead of linking them.
        images: Images to take as cameras, where a COLMAP or nerfstudio calibration has several of each.
    """
    from usthand.capture.create import CreateConfig, create_capture

    videos_of = camera_values("--names", names)
    offsets = {camera: whole_number("--offset", text) for camera, text in camera_values("--offset", offset).items()}
    config = CreateConfig(format, scale, videos_of, offsets, fps, copy, images)
    made = create_capture(videos, calibration, out, config, progress_bar("copying" if copy else "linking"))
    show_created(made, out)


def synth(
    out: Positional[Path],
    views: int | None = None,
    frames: int = 400,
    labels: Literal["heavy", "light", "exact", "biased"] = "heavy",
    seed: int = 0,
    occluder: bool = False,
    size: int = 256,
    cameras: Literal["dome", "side"] = "dome",
    side: Side = "right",
    layout: Literal["capture", "hanco"] = "capture",
    sequences: int = 1,
    subject: Literal["own", "varied", "webxr", "foreign"] = "own",
    looks: Literal["plain", "camera", "skin", "room", "real", "aside"] = "plain",
) -> None:
    """Make a synthetic capture with exact truth.

    Args:
        out: Folder to write; must not exist yet.
        views: Number of cameras: 4 if not given, and always 8 in HanCo's layout.
        frames: Number of frames, 30 a second.
        labels: How wrong the 2D labels are; biased is heavy, of a detector whose joints are others than the hand's.
        seed: The same seed gives the same capture.
        occluder: The hand holds an object, or something stands between it and a camera.
        size: Width and height of the images, px.
        cameras: All round (dome) or on one side.
        side: Whose hand.
        layout: A capture folder, or the folders of the data set HanCo, for code that reads only those.
        sequences: With --layout hanco, so many sequences for training and as many for testing.
        subject: Our own hand model; varied, that in other proportions; webxr, another mesh and skeleton; or foreign,
            of the body model Anny, for tests and benchmarks alone.
        looks: How near to reality: plain, real, or one step of real alone: webcams' blur, noise and codecs (camera),
            skin with what is worn on it (skin), or light and views of real places (room). aside is real in places
            that no training sees.
    """
    from usthand.datasets.synthetic.write import SynthConfig, make_capture

    views = views or (8 if layout == "hanco" else 4)
    objects = "any" if occluder else "none"
    config = SynthConfig(
        views, frames, labels, seed, size, objects=objects, layout=cameras, side=side, subject=subject, looks=looks
    )
    bar = progress_bar("rendering")
    if layout == "hanco":
        from usthand.datasets.hanco_write import HAND_FILE, write_hanco

        told = (
            f"{sequences} sequences for training and {sequences} for testing, {frames} frames each, in HanCo's layout"
        )
        print(f"{write_hanco(out, config, sequences, bar)}: {told}; their hand is {out / HAND_FILE}.")
        return
    if sequences != 1:
        raise UsthandError(
            "a capture folder holds one sequence", "--sequences goes with --layout hanco", "add it, or leave it out"
        )
    print(f"{make_capture(out, config, bar)}: {frames} frames from {views} cameras.")


def import_dataset(
    dataset: Positional[Annotated[str, arg(metavar="DATASET")]],
    root: Positional[Annotated[Path, arg(metavar="ROOT")]],
    out: Positional[Annotated[Path, arg(metavar="OUT")]],
    split: str = "test",
    protocol: str = "",
    limit: int | None = None,
    hand: str | None = None,
    annotated: bool = False,
) -> None:
    """Turn a public data set, as its makers released it, into captures; no image is copied.

    For each sequence it prints how far the 2D joints are from the points triangulated from them, how far from the
    projected truth, and how wide the palm is: a data set that was misread shows there. docs/datasets.md has the
    details.

    Args:
        dataset: hanco, dexycb, dexycb-mv, ...; docs/datasets.md lists them.
        root: Folder of the data set.
        out: Folder to write the captures into; those that are there already are kept.
        split: train, val or test of the protocol.
        protocol: Which one; the data set's usual one if left out.
        limit: Import so many sequences at most.
        hand: File of the hand in MANO's layout for the truth's meshes; by default the installed one, if there is one.
        annotated: Write the makers' 2D ground truth as labels. Learning from it is no longer learning without labels.
    """
    from usthand.datasets import reader
    from usthand.datasets.importing import NO_MESHES, DatasetConfig, import_recordings

    config, bare, count = DatasetConfig(split, protocol, limit, hand, annotated), False, 0
    for imported in import_recordings(reader(dataset), root, out, config):
        print("\n".join(imported.report), flush=True)
        bare, count = bare or imported.lacks_meshes, count + 1
    print(f"{out}: {count} captures.")
    if bare:
        print(NO_MESHES, file=sys.stderr)


def check(capture: CapturePath, json: bool = False, fix: bool = False) -> None:
    """What is wrong with a capture: calibration, units, lenses, timing, labels. One sentence each, with its fix.

    Needs labels (`usthand label`); decodes no video. Ends with exit code 0 if the capture is sound and 1 if it has
    faults.

    Args:
        capture: Folder with rig.toml, one video per camera, and labels.
        json: Print JSON.
        fix: Write what can be fixed into rig.fixed.toml, capture.fixed.toml and labels.fixed/ beside the old files.
    """
    from usthand.diagnostics.check import check_capture
    from usthand.diagnostics.write import as_json, as_text, write_fixes

    report = check_capture(capture, progress_bar("checking"))
    todo = write_fixes(report) if fix else []
    print(as_json(report, todo) if json else as_text(report))
    if todo and not json:
        print("Fixed files are beside the old ones; to use them:\n" + "\n".join(f"    {line}" for line in todo))
    if report.findings:
        sys.exit(1)
