"""Results drawn over the footage: mesh, skeleton and uncertainty, one video and one contact sheet for the eye.

Everything is projected by `usthand.geometry.cameras.project`, lens included. The hand's crop keeps faces out of view.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from usthand.capture.capture import Capture
from usthand.capture.video import write_video
from usthand.common.errors import UsthandError
from usthand.evaluation.reliability import chi2_radius2
from usthand.geometry.cameras import Cameras, project, to_camera
from usthand.hand.result import Result
from usthand.hand.skeleton import BONES, FINGERS, N_JOINTS
from usthand.output import draw

BAR_AFTER_S = 2.0
VIEWING_CRF = "23"  # for the eye, not for measuring: a third of the size of a capture's own videos
# Step of the numerical derivative of the projection: 0.1 mm, far above rounding and far below any curvature.
_STEP_M = 1e-4
# The crop follows the hand, and its size, as slowly as this many frames (standard deviation): it must not tremble.
_CROP_SMOOTH_FRAMES, _ZOOM_SMOOTH_FRAMES = 8.0, 25.0
_MIN_CROP_PX = 32.0
_JOINT_COLOUR = {joint: draw.FINGER_COLOURS[finger] for finger, ids in FINGERS.items() for joint in ids} | {
    0: draw.WRIST_COLOUR
}


@dataclass(frozen=True)
class OverlayConfig:
    """What is drawn, and how large."""

    crop: bool = False
    """A square around each hand, side by side, instead of the whole image."""
    size_px: int = 384
    """Side of a cropped picture."""
    margin: float = 1.9
    """Side of the crop over the hand's own size."""
    mesh: bool = True
    skeleton: bool = True
    ellipses: bool = True
    """The region in which the joint's image lies with probability `level`."""
    opacity: float = 0.65
    """Of the mesh: 0 shows none, 1 hides the footage."""
    level: float = 0.9
    caption: bool = True
    """Camera and frame number in the corner."""
    sheet_columns: int = 8
    """Frames on the contact sheet."""
    sheet_px: int = 256
    """Side of one picture on the contact sheet."""


@dataclass(frozen=True)
class _Track:
    """One result as one camera sees it, in px of the whole image."""

    result: Result
    joints_px: Float[np.ndarray, "T 21 2"]
    joints_cov_px2: Float[np.ndarray, "T 21 2 2"]
    vertices_px: Float[np.ndarray, "T N 2"]
    vertices_camera_m: Float[np.ndarray, "T N 3"]
    faces: Int[np.ndarray, "F 3"]
    row: dict[int, int]
    """Row of a frame number, valid frames only."""


def project_covariance(
    cameras: Cameras, points_world_m: Float[np.ndarray, "T N 3"], covariance_m2: Float[np.ndarray, "T N 3 3"]
) -> tuple[Float[np.ndarray, "T V N 2"], Float[np.ndarray, "T V N 2 2"]]:
    """Points and their covariances as every camera sees them (px, px^2): J C J' with J the projection's derivative by
    central differences, lens included."""
    points = torch.from_numpy(np.asarray(points_world_m, np.float64))
    steps = _STEP_M * torch.eye(3, dtype=torch.float64)
    ahead, behind = (
        torch.stack([project(cameras, points + sign * step)[0] for step in steps], dim=-1) for sign in (1.0, -1.0)
    )
    jacobian = ((ahead - behind) / (2.0 * _STEP_M)).numpy()
    cov = jacobian @ np.asarray(covariance_m2, np.float64)[:, None] @ jacobian.swapaxes(-1, -2)
    return project(cameras, points)[0].numpy(), cov


def _track(capture: Capture, result: Result, camera: str, faces: np.ndarray) -> _Track:
    view = capture.rig.index(camera)
    rig = capture.rig.in_metres(result.unit_m)
    cameras = Cameras(*(field[view : view + 1] for field in rig.tensors(torch.float64)))
    joints, cov = project_covariance(cameras, result.joints_world_m, result.joints_cov_m2)
    vertices = torch.from_numpy(result.vertices_world_m)
    return _Track(
        result,
        joints[:, 0],
        cov[:, 0],
        project(cameras, vertices)[0][:, 0].numpy(),
        to_camera(cameras, vertices)[:, 0].numpy(),
        faces,
        {int(frame): row for row, frame in enumerate(result.frame) if result.valid[row]},
    )


def crop_path(
    joints_px: Sequence[Float[np.ndarray, "n 2"]], width: int, height: int, margin: float
) -> tuple[Float[np.ndarray, "T 2"], Float[np.ndarray, "T"]]:
    """A square that follows the hand: its top-left corner (px, pixel edges) and its side in each frame. Frames without
    points (empty arrays) are bridged. The square stays inside the image."""
    known = [t for t, points in enumerate(joints_px) if len(points)]
    if not known:
        raise UsthandError(
            "there is no hand to crop to",
            "the result is valid in none of these frames",
            "draw whole images, without --crop",
        )
    low, high = (np.array([bound(joints_px[t], axis=0) for t in known]) for bound in (np.min, np.max))
    frames = np.arange(len(joints_px))
    size = _smooth(np.interp(frames, known, (high - low).max(axis=1)), _ZOOM_SMOOTH_FRAMES)
    limit = float(min(width, height))
    side = np.clip(margin * size, min(_MIN_CROP_PX, limit), limit)
    centre = [_smooth(np.interp(frames, known, (low + high)[:, axis] / 2.0), _CROP_SMOOTH_FRAMES) for axis in (0, 1)]
    corner = np.stack(centre, axis=1) + 0.5 - side[:, None] / 2.0
    return np.clip(corner, 0.0, np.array([width, height]) - side[:, None]), side


def _smooth(track: Float[np.ndarray, "T"], frames: float) -> Float[np.ndarray, "T"]:
    """Gaussian smoothing; the ends continue by odd reflection, so that a steady change is not held back there."""
    if len(track) == 1:
        return track
    reach = int(3 * frames)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    padded = np.pad(track, reach, mode="reflect", reflect_type="odd")
    return np.convolve(padded, weight / weight.sum(), mode="valid")


def overlay_frames(
    capture: Capture,
    results: Sequence[Result],
    camera: str,
    config: OverlayConfig | None = None,
    frames: Sequence[int] | None = None,
    faces: Int[np.ndarray, "F 3"] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """(frame, drawn RGB uint8 image) of one camera for some increasing ``frames`` (default all), one by one, in
    constant memory. Frames without a valid hand show the footage alone. ``faces`` default to the result's own, or to
    the embedded hand's."""
    config, frames = config or OverlayConfig(), range(capture.n_frames) if frames is None else frames
    start, stop, wanted = int(frames[0]), int(frames[-1]) + 1, {int(frame) for frame in frames}
    tracks = [_track(capture, r, camera, _faces(faces, r) if config.mesh else np.zeros((0, 3))) for r in results]
    windows = _windows(capture, tracks, camera, config, range(start, stop))
    for frame, footage in capture.read(camera, start, stop):
        if frame not in wanted:
            continue
        pictures = []
        for corners, sides, size in windows:
            image, corner, zoom = _cut(footage, corners[frame - start], sides[frame - start], size)
            for track in tracks:
                if frame in track.row:
                    _draw_hand(image, track, track.row[frame], corner, zoom, config)
            if config.caption:
                draw.draw_text(image, f"{camera}  {frame}", (6, 4), max(11, image.shape[0] // 26))
            pictures.append(np.clip(image, 0, 255).astype(np.uint8))
        yield frame, np.concatenate(pictures, axis=1)


def _windows(
    capture: Capture, tracks: Sequence[_Track], camera: str, config: OverlayConfig, frames: range
) -> list[tuple[Float[np.ndarray, "T 2"], Float[np.ndarray, "T"], int]]:
    """Corners, sides and shown size of each picture: a square around each hand, or (size 0) the whole image."""
    nothing = np.zeros((len(frames), 2)), np.zeros(len(frames))
    if not config.crop:
        return [(*nothing, 0)]
    lens = capture.rig.cameras[capture.rig.index(camera)]
    paths = []
    for track in tracks:
        points = [track.joints_px[track.row[f]] if f in track.row else np.zeros((0, 2)) for f in frames]
        if any(len(p) for p in points):
            paths.append((*crop_path(points, lens.width, lens.height, config.margin), config.size_px))
        else:  # a hand that is not there in these frames still has its place, so that the picture keeps its size
            paths.append((nothing[0], nothing[1] + min(lens.width, lens.height), config.size_px))
    return paths


def _cut(footage: np.ndarray, corner: np.ndarray, side: float, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """A picture to draw on, its corner in the footage and its zoom."""
    if not size:
        return footage.astype(np.float32), corner, 1.0
    box = (*corner, *np.minimum(corner + side, footage.shape[1::-1]))  # rounding must not leave the image
    cut = Image.fromarray(footage).resize((size, size), Image.Resampling.BICUBIC, box)
    return np.asarray(cut).astype(np.float32), corner, size / side


def _draw_hand(
    image: np.ndarray, track: _Track, row: int, corner: np.ndarray, zoom: float, config: OverlayConfig
) -> None:
    def place(uv: np.ndarray) -> np.ndarray:  # pixel centres at integers in both images
        return (uv + 0.5 - corner) * zoom - 0.5

    line = max(image.shape[0] / 300.0, 1.0)
    if config.mesh and track.result.has_mesh:
        draw.draw_mesh(
            image,
            place(track.vertices_px[row]),
            track.vertices_camera_m[row],
            track.faces,
            draw.MESH_COLOURS[track.result.side],
            config.opacity,
        )
    joints, sure = place(track.joints_px[row]), track.result.joint_valid[row]
    if config.ellipses:
        radius2 = float(chi2_radius2(config.level, dimensions=2))
        for joint in range(N_JOINTS):
            draw.draw_ellipse(
                image,
                joints[joint],
                track.joints_cov_px2[row, joint] * zoom**2,
                radius2,
                _JOINT_COLOUR[joint],
                line_px=0.9 * line,
            )
    if config.skeleton:
        for wider, tint in ((1.7, draw.OUTLINE), (1.0, None)):
            for parent, child in BONES:
                opacity = (0.55 if tint else 0.95) * (1.0 if sure[parent] and sure[child] else 0.3)
                draw.draw_stroke(
                    image, joints[parent], joints[child], wider * line, tint or _JOINT_COLOUR[child], opacity
                )
        for joint in range(N_JOINTS):
            opacity = 1.0 if sure[joint] else 0.3
            draw.draw_disc(image, joints[joint], 2.1 * line, draw.OUTLINE, opacity)
            draw.draw_disc(image, joints[joint], 1.5 * line, _JOINT_COLOUR[joint], opacity)


def write_overlays(
    capture: Capture,
    results: Sequence[Result],
    out: str | Path,
    config: OverlayConfig | None = None,
    overwrite: bool = False,
    faces: Int[np.ndarray, "F 3"] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """One ``overlay_<camera>.mp4`` for each camera and one ``contact_sheet.png`` (cropped to the hand) in ``out``.

    UsthandError if there is no result, one of them belongs to another rig or a longer capture, or a file is there already
    and ``overwrite`` is not set: nothing is written then. ``on_progress(done, total)`` is called after every frame."""
    config, out = config or OverlayConfig(), Path(out)
    _check(capture, results)
    videos = {name: out / f"overlay_{name}.mp4" for name in capture.rig.names}
    sheet = out / "contact_sheet.png"
    refuse_overwriting([*videos.values(), sheet], overwrite)
    total, done = capture.n_frames * len(videos), 0
    chosen, rows = sheet_frames(results, config.sheet_columns), []

    def pictures(camera: str) -> Iterator[np.ndarray]:
        nonlocal done
        for _, image in overlay_frames(capture, results, camera, config, faces=faces):
            yield _even(image)
            done += 1
            if on_progress:
                on_progress(done, total)

    for camera, path in videos.items():
        rows.append(_sheet_row(capture, results, camera, config, chosen, faces))
        write_video(path, pictures(camera), capture.fps, VIEWING_CRF)
    Image.fromarray(np.concatenate(rows)).save(sheet)
    return [*videos.values(), sheet]


def _sheet_row(capture, results, camera, config, frames, faces) -> np.ndarray:
    """One camera's part of the contact sheet: a row for each hand."""
    side, small = config.sheet_px, replace(config, crop=True, size_px=config.sheet_px)
    drawn = [image for _, image in overlay_frames(capture, results, camera, small, frames, faces)]
    hands = [[image[:, n * side : (n + 1) * side] for image in drawn] for n in range(len(results))]
    return np.concatenate([np.concatenate(row, axis=1) for row in hands])


def contact_sheet(
    capture: Capture, results: Sequence[Result], config: OverlayConfig | None = None, faces: np.ndarray | None = None
) -> np.ndarray:
    """Crops of some frames, cameras and hands down, time across: RGB uint8."""
    config = config or OverlayConfig()
    _check(capture, results)
    chosen = sheet_frames(results, config.sheet_columns)
    return np.concatenate([_sheet_row(capture, results, n, config, chosen, faces) for n in capture.rig.names])


def sheet_frames(results: Sequence[Result], columns: int) -> Int[np.ndarray, "n"]:
    """Evenly spread frame numbers in which some hand is valid."""
    valid = np.unique(np.concatenate([result.frame[result.valid] for result in results]))
    if not len(valid):
        raise UsthandError(
            "there is nothing to draw",
            "the result is valid in no frame",
            "look at the labels, or make the result again with more cameras",
        )
    return valid[np.unique(np.linspace(0, len(valid) - 1, min(columns, len(valid))).round().astype(int))]


def refuse_overwriting(paths: Sequence[Path], overwrite: bool) -> None:
    """UsthandError naming the first of ``paths`` that exists, unless ``overwrite``."""
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise UsthandError(
            f"{there[0]} is there already",
            "an earlier run wrote it",
            "choose another folder with --out, or allow it with --overwrite",
        )


def progress_bar(label: str) -> Callable[[int, int], None]:
    """A callback for ``on_progress`` that shows a bar on stderr once the work has taken two seconds, and only there
    where a person looks at it."""
    started, bar = time.monotonic(), None

    def show(done: int, total: int, task: str = "", note: str = "") -> None:
        nonlocal bar
        if bar is None and time.monotonic() - started > BAR_AFTER_S and done < total and sys.stderr.isatty():
            bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            bar.add_task(label, total=total)
            bar.start()
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done)
            if done >= total:
                bar.stop()

    return show


def _check(capture: Capture, results: Sequence[Result]) -> None:
    if not results:
        raise UsthandError("there is no result to draw", "none was given", "give the file that usthand fit wrote")
    for result in results:
        strangers = [name for name in result.cameras if name not in capture.rig.names]
        if strangers:
            raise UsthandError(
                f"the result was made with camera {strangers[0]}, which {capture.path} does not have",
                "it belongs to another capture",
                "give the capture that the result was made from",
            )
        if len(result) and result.frame[-1] >= capture.n_frames:
            raise UsthandError(
                f"the result reaches frame {result.frame[-1]}, {capture.path} ends at {capture.n_frames - 1}",
                "it belongs to another capture",
                "give the capture that the result was made from",
            )


def _faces(faces: np.ndarray | None, result: Result) -> np.ndarray:
    if faces is not None:
        return np.asarray(faces)
    return result.faces if len(result.faces) or not result.has_mesh else embedded_faces()


@cache
def embedded_faces() -> Int[np.ndarray, "1538 3"]:
    """Triangles of the embedded hand."""
    from usthand.hand.io import load_hand  # here, so that drawing with given faces needs no hand file

    return np.asarray(load_hand().faces)


def _even(image: np.ndarray) -> np.ndarray:
    """H.264 needs even sides: an odd last row or column is repeated."""
    return np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
