"""The command line: `usthand COMMAND`. Each command is a function whose arguments are its options.

Heavy modules are imported inside the commands, so that `usthand --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from usthand.common.errors import UsthandError

if TYPE_CHECKING:
    from usthand.capture.capture import Capture
    from usthand.hand.result import Result

Side = Literal["right", "left"]
Format = Literal[
    "auto",
    "usthand",
    "caliscope",
    "anipose",
    "freemocap",
    "easymocap",
    "kalibr",
    "fisheye624",
    "umetrack",
    "nerfstudio",
    "colmap",
    "dexycb",
]
"""As `usthand.capture.calibration.read.Format`, which is too heavy to import here; a test compares them."""
CapturePath = Annotated[Path, arg(metavar="CAPTURE")]


def _refuse_existing(path: Path, overwrite: bool, kind: str = "file") -> None:
    if path.exists() and not overwrite:
        raise UsthandError(
            f"{path} is there already", f"an earlier run wrote this {kind}", "choose another --out, or add --overwrite"
        )


def _save(result: Result, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    result.save(out)
    scale = "" if result.metric else f" Lengths are not metric: {result.unit_source}."
    if result.joint_model == "soft":
        scale += " The detector's joints are not the hand model's: they may leave it by some millimetres (soft joints)."
    print(
        f"{out}: {int(result.valid.sum())} of {len(result.valid)} frames, {result.side} hand, {result.method}.{scale}"
    )


def synth(
    out: Positional[Path],
    views: int | None = None,
    frames: int = 400,
    labels: Literal["heavy", "light", "exact"] = "heavy",
    seed: int = 0,
    occluder: bool = False,
    size: int = 256,
    cameras: Literal["dome", "side"] = "dome",
    side: Side = "right",
    layout: Literal["capture", "hanco"] = "capture",
    sequences: int = 1,
) -> None:
    """Make a synthetic capture with exact truth.

    Args:
        out: Folder to write; must not exist yet.
        views: Number of cameras: 4 if not given, and always 8 in HanCo's layout.
        frames: Number of frames, 30 a second.
        labels: How wrong the 2D labels are.
        seed: The same seed gives the same capture.
        occluder: The hand holds an object, or something stands between it and a camera.
        size: Width and height of the images, px.
        cameras: All round (dome) or on one side.
        side: Whose hand.
        layout: A capture folder, or the folders of the data set HanCo, for code that reads only those.
        sequences: With --layout hanco, so many sequences for training and as many for testing.
    """
    from usthand.datasets.synthetic.write import SynthConfig, make_capture

    views = views or (8 if layout == "hanco" else 4)
    config = SynthConfig(
        views=views,
        frames=frames,
        labels=labels,
        seed=seed,
        objects="any" if occluder else "none",
        size=size,
        layout=cameras,
        side=side,
    )
    if layout == "hanco":
        from usthand.datasets.hanco_write import HAND_FILE, write_hanco

        print(
            f"{write_hanco(out, config, sequences)}: {sequences} sequences for training and {sequences} for testing, "
            f"{frames} frames each, in HanCo's layout; their hand is {out / HAND_FILE}."
        )
        return
    if sequences != 1:
        raise UsthandError(
            "a capture folder holds one sequence", "--sequences goes with --layout hanco", "add it, or leave it out"
        )
    print(f"{make_capture(out, config)}: {frames} frames from {views} cameras.")


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
    projected truth, and how wide the palm is: a data set that was misread shows there. docs/datasets.md has the details.

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
    from usthand.datasets.importing import import_recordings

    import_recordings(reader(dataset), root, out, split, protocol, limit, hand, annotated)


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
    from usthand.capture.create import create_capture
    from usthand.output.overlay import progress_bar

    made = create_capture(
        videos,
        calibration,
        out,
        format,
        scale,
        dict(_pairs("--names", names)),
        {name: _whole("--offset", frames) for name, frames in _pairs("--offset", offset)},
        fps,
        copy,
        images,
        progress_bar("copying" if copy else "linking"),
    )
    for camera in made.capture.rig.cameras:
        part = made.footage[camera.name]
        print(f"{camera.name:<12} {part.path}  {camera.width}x{camera.height}, {camera.model}, {part.n_frames} frames")
    rig = made.capture.rig
    print(
        f"Lengths: {rig.unit_source}"
        + ("." if rig.metric else "; without --scale the hand's own size gives the scale.")
    )
    print(f"Frame rate: {made.capture.fps:g}, {made.fps_from}.")
    _tell_overlap(made.capture)
    print(
        f"{out}: {made.capture.n_frames} frames from {len(rig)} cameras, videos {'copied' if made.copied else 'linked'}."
    )
    print(f"Next: usthand label {out}")


def _pairs(option: str, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """CAMERA=VALUE, each camera once."""
    pairs = [tuple(value.split("=", 1)) for value in values]
    for value, pair in zip(values, pairs, strict=True):
        if len(pair) != 2 or not all(pair):
            raise UsthandError(
                f"{option} {value} is no pair", "it wants CAMERA=VALUE", f"write {option} cam_0=..., without spaces"
            )
    twice = [name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1]
    if twice:
        raise UsthandError(f"{option} names {twice[0]} twice", "each camera has one value", "leave one of them out")
    return pairs


def _whole(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsthandError(
            f"{option} has {text!r}", "offsets are whole frames", "give a number such as 12 or -3"
        ) from None


def _tell_overlap(capture: Capture) -> None:
    """Frames are never cut silently."""
    if capture.overlap is not None:
        print(capture.overlap)


def label(
    capture: Positional[CapturePath],
    detector: Literal["mediapipe"] = "mediapipe",
    overwrite: bool = False,
    max_hands: int = 2,
) -> None:
    """Detect the hands' 2D joints in all videos; writes CAPTURE/labels/right.npz and left.npz.

    Args:
        capture: Folder with rig.toml and one video per camera.
        detector: What detects; install MediaPipe with `make detector`.
        overwrite: Write over labels that are there.
        max_hands: Most hands in view at once; 4 for two people, whose further hands go to right-2.npz and left-2.npz.
    """
    from usthand.capture.capture import open_capture
    from usthand.labels.detection import label_capture

    opened = open_capture(capture)
    _tell_overlap(opened)
    label_capture(opened, detector, overwrite=overwrite, max_hands=max_hands)


def import_labels(
    capture: Positional[CapturePath],
    source: Positional[Annotated[Path, arg(metavar="FOLDER_OR_FILE")]],
    format: Literal["auto", "openpose", "mediapipe", "wholebody", "mmpose", "holistic-csv", "hands-npz"] = "auto",
    overwrite: bool = False,
    first_frame: int = 0,
    swap_sides: Literal["auto", "yes", "no"] = "auto",
    max_hands: int = 8,
) -> None:
    """2D joints from another detector's files; writes CAPTURE/labels/right.npz and left.npz (docs/labels.md).

    Args:
        capture: Folder with rig.toml and one video per camera.
        source: Folder with one file or subfolder per camera, named as in rig.toml, or one file that holds all cameras.
        format: What wrote the files; auto looks into them.
        overwrite: Write over labels that are there.
        first_frame: What the files call the videos' first frame.
        swap_sides: Right for left, where the detector saw mirrored images; auto lets the hands' bend decide.
        max_hands: Most hands in view at once; 2 says that all are one person's.
    """
    from usthand.capture.capture import open_capture
    from usthand.labels.importing import import_labels as read
    from usthand.output.overlay import progress_bar

    opened, bar = open_capture(capture), progress_bar("reading labels")
    _tell_overlap(opened)
    read(opened, source, format, overwrite, first_frame, swap_sides, max_hands, bar)


def check(capture: Positional[CapturePath], json: bool = False, fix: bool = False) -> None:
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
    from usthand.output.overlay import progress_bar

    bar = progress_bar("checking")
    report = check_capture(capture, lambda done, total, task="", note="": bar(done, total))
    todo = write_fixes(report) if fix else []
    print(as_json(report, todo) if json else as_text(report))
    if todo and not json:
        print("Fixed files are beside the old ones; to use them:\n" + "\n".join(f"    {line}" for line in todo))
    if report.findings:
        sys.exit(1)


def fit(
    capture: Positional[CapturePath],
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
        joints: Of the rigid hand, or soft: free to leave it as far as the views agree; auto lets cameras left out decide.
        hand: The hand model: embedded, mano (put there by `usthand hand install`), or a file in MANO's layout.
        seed: Taken for uniformity; the fit has no randomness.
        overwrite: Write over a result that is there.
    """
    from usthand.capture.capture import open_capture
    from usthand.data.prepare import choose_side, without_camera
    from usthand.fit.fit import FitConfig, fit_labels, raw_triangulation
    from usthand.hand.io import load_hand
    from usthand.labels.labels import load_labels
    from usthand.output.overlay import progress_bar

    if smooth and not raw:
        raise UsthandError(
            "--smooth is for plain triangulation",
            "the sequence fit is smooth by itself",
            "add --raw, or leave --smooth out",
        )
    _refuse_existing(out, overwrite)
    opened, model = open_capture(capture), load_hand(hand)
    _tell_overlap(opened)
    labels = load_labels(opened, choose_side(opened, side))
    rig, labels = without_camera(opened.rig, labels, leave_out)
    if raw:
        _save(raw_triangulation(rig, labels, model, opened.fps if smooth else None), out)
    else:
        config = FitConfig(fps=opened.fps, joint_model=joints)
        _save(fit_labels(rig, labels, config, model, progress_bar("fitting")), out)


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
    from usthand.training.config import PRESETS, from_nothing
    from usthand.training.loop import train as run

    chosen = from_nothing(PRESETS[preset]) if from_scratch or backbone_weights else PRESETS[preset]
    changes = {"seed": seed, **({"steps": steps} if steps else {}), **({"targets": targets} if targets else {})}
    chosen = replace(chosen, train=replace(chosen.train, **changes))
    best = run(captures, out, chosen, side, leave_out, backbone_weights, crop_cache=crop_cache, device=device)
    print(f"{best}: the trained network, chosen by held-out labels.")


def reconstruct(
    capture: Positional[CapturePath],
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
        seed: Of the hypotheses.
        answer: The sequence fit on network and labels (final); the hand laid on the network's points, frame by frame, without
            labels (network); or with the mesh of the network's own hand head, the published way (head).
        hand: The hand model of the mesh: embedded, mano, or a file; the head's is always the embedded one.
        device: Where to run the network, in torch's words: cpu, cuda, cuda:1.
        overwrite: Write over a result that is there.
    """
    from usthand.capture.capture import open_capture
    from usthand.data.prepare import choose_side
    from usthand.hand.io import load_hand
    from usthand.output.overlay import progress_bar
    from usthand.reconstruction.reconstruct import reconstruct as use
    from usthand.training.checkpoint import SHIPPED

    _refuse_existing(out, overwrite)
    opened, model = open_capture(capture), load_hand(hand)
    _tell_overlap(opened)
    bar = progress_bar("reconstructing")
    _save(use(opened, run or SHIPPED, choose_side(opened, side), leave_out, seed, answer, bar, model, device), out)


def evaluate(
    result: Positional[Annotated[Path, arg(metavar="R.npz")]],
    capture: Path | None = None,
    leave_out: str | None = None,
    side: str | None = None,
    json: bool = False,
) -> None:
    """How good a result is: against truth where there is one, else against the labels and by its steadiness.

    For footage of a data set it also shows what papers print for the same protocol, and how far ours is from it.

    Args:
        result: A result file; or a folder of them, NAME.npz for each capture NAME, to be averaged over a data set.
        capture: The capture it was made from, for truth, labels and frame rate; or the folder of captures.
        leave_out: Measure in this camera, which must have been left out when the result was made.
        side: Whose labels, where there are several hands of the result's side: right, right-2 ...
        json: Print JSON.
    """
    from usthand.capture.capture import open_capture
    from usthand.evaluation.evaluate import evaluate_folder, evaluate_result
    from usthand.evaluation.published import compare, comparison_table, has_annotated_labels
    from usthand.hand.result import load_result
    from usthand.output.overlay import progress_bar

    if result.is_dir():
        numbers, opened, left_out = evaluate_folder(result, capture, progress_bar("measuring"))
        for line in left_out:
            print(f"usthand: {line}", file=sys.stderr)
    else:
        opened = open_capture(capture) if capture else None
        numbers = evaluate_result(load_result(result), opened, leave_out, side)
    rows = compare(numbers, opened.dataset, opened.protocol, opened.split) if opened is not None else []
    if json:
        beside = (
            {"published": [row._asdict() for row in rows], "annotated_labels": has_annotated_labels(opened)}
            if rows
            else {}
        )
        print(_json(numbers | beside))
        return
    width = max(map(len, numbers))
    for name, value in numbers.items():
        if not isinstance(value, dict):
            print(f"{name:<{width}}  {value:.3f}" if isinstance(value, float) else f"{name:<{width}}  {value}")
    if rows:
        print(f"\n{comparison_table(rows, opened, numbers.get('recordings', 'one recording'))}")


def _json(data: dict) -> str:
    return json.dumps(data, indent=2)


def overlay(
    results: Positional[Annotated[list[Path], arg(metavar="R.npz...")]],
    capture: Path,
    out: Path,
    crop: bool = False,
    overwrite: bool = False,
) -> None:
    """Draw meshes, joints and 90 % ellipses over the footage: a video per camera and a contact sheet.

    Args:
        results: One or more result files (for instance of both hands).
        capture: The capture they were made from.
        out: Folder to write.
        crop: Show only the surroundings of the hands.
        overwrite: Write over files that are there.
    """
    from usthand.capture.capture import open_capture
    from usthand.hand.result import load_result
    from usthand.output.overlay import OverlayConfig, progress_bar, write_overlays

    config = replace(OverlayConfig(), crop=crop)
    loaded = [load_result(path) for path in results]
    for path in write_overlays(
        open_capture(capture), loaded, out, config, overwrite, on_progress=progress_bar("drawing")
    ):
        print(path)


def demo(out: Path = Path("runs/demo"), seed: int = 0, steps: int | None = None, frames: int = 400) -> None:
    """The whole method on a synthetic capture, from nothing to a report with pictures and a table.

    Args:
        out: Folder to write: capture, training, results, metrics.json, report.html.
        seed: Of the capture and the training.
        steps: Length of the training, if not the preset's.
        frames: Length of the capture.
    """
    from usthand.experiments.demo import run_demo

    run_demo(out, seed, steps, frames)


def bench(
    table: Positional[
        Literal[
            "headline",
            "spread",
            "fresh",
            "targets",
            "detector",
            "labels",
            "views",
            "ablation",
            "parts",
            "window",
            "blocks",
            "hypotheses",
        ]
    ],
    cache: Path = Path("runs/bench"),
    results: Path = Path("benchmarks/results"),
    seeds: tuple[int, ...] | None = None,
    run: bool = True,
    minutes: float | None = None,
    into: Path | None = None,
    preset: Literal["tiny", "paper"] = "tiny",
    device: str = "cpu",
) -> None:
    """Fill a table of the evidence, cell by cell, and print it; cells that are there are not run again.

    Args:
        table: Which one; docs/benchmarks.md says what each shows.
        cache: Captures and trainings under way.
        results: Numbers of the cells, and the table's JSON.
        seeds: Of the trainings; 0 to 2 for the headline, 0 to 4 for the spread, else 0, if not given.
        run: Run missing cells; --no-run prints what is there.
        minutes: Begin no further cell after so long.
        into: A document to put the table into, between its markers.
        preset: Networks of these sizes; `paper` (the headline) wants a GPU.
        device: Where to train, in torch's words: cpu, cuda, cuda:1.
    """
    from usthand.experiments.bench.fill import fill

    print(fill(table, cache, results, seeds, run, minutes, into, preset, device))


def hand_install(path: Positional[Annotated[Path, arg(metavar="PATH")]]) -> None:
    """Check an official MANO file (MANO_RIGHT.pkl, which you download under its own licence) and install it.

    Args:
        path: The file, or a folder that holds it.
    """
    from usthand.hand.io import install

    print(f"{install(path)}: installed and checked.")


def hand_export(path: Positional[Annotated[Path, arg(metavar="PATH")]], side: Side = "right") -> None:
    """Write the embedded hand in MANO's file layout (.pkl or .npz), for programs that read MANO files.

    Args:
        path: File to write.
        side: Which hand.
    """
    from usthand.hand.io import export

    print(f"{export(path, side)}: the embedded {side} hand in MANO's layout.")


COMMANDS = {
    "init": init,
    "synth": synth,
    "import": import_dataset,
    "label": label,
    "import-labels": import_labels,
    "check": check,
    "fit": fit,
    "train": train,
    "reconstruct": reconstruct,
    "evaluate": evaluate,
    "overlay": overlay,
    "demo": demo,
    "bench": bench,
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a `UsthandError` becomes one sentence on stderr and exit code 1."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["hand"] and len(arguments) > 1:
        arguments[:2] = [" ".join(arguments[:2])]  # two words on the command line, one name here
    app = tyro.extras.SubcommandApp()
    for name, function in COMMANDS.items():
        app.command(function, name=name)
    app.command(hand_install, name="hand install")
    app.command(hand_export, name="hand export")
    try:
        app.cli(
            args=arguments, prog="usthand", description="3D hands with uncertainty from calibrated multi-camera video."
        )
    except UsthandError as error:
        print(f"usthand: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        print("usthand: stopped.", file=sys.stderr)
        sys.exit(130)
