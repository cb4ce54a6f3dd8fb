"""Results drawn over the footage: mesh, skeleton and uncertainty, one video and one contact sheet for the eye.

Everything is projected by `usthand.geometry.cameras.project`, lens included. The hand's crop keeps faces out of view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from scipy.stats import chi2

from usthand.capture.capture import Capture
from usthand.capture.video import write_video
from usthand.common.errors import UsthandError
from usthand.common.files import refuse_existing
from usthand.common.progress import Progress, silent
from usthand.geometry.cameras import Cameras, project, projection_jacobian, to_camera
from usthand.hand.result import Result
from usthand.hand.skeleton import BONES, FINGERS, WRIST
from usthand.output import draw
from usthand.output.std_colours import draw_std_scale, std_colours, std_scale_strip

VIEWING_CRF = "23"  # for the eye, not for measuring: a third of the size of a capture's own videos
# The crop follows the hand, and its size, as slowly as this many frames (standard deviation): it must not tremble.
_CROP_SMOOTH_FRAMES, _ZOOM_SMOOTH_FRAMES = 8.0, 25.0
_MIN_CROP_PX = 32.0
_JOINT_COLOUR = {WRIST: draw.WRIST_COLOUR} | {
    joint: draw.FINGER_COLOURS[finger] for finger, ids in FINGERS.items() for joint in ids
}
Image8 = UInt8[np.ndarray, "H W 3"]
"""RGB."""


@dataclass(frozen=True)
class OverlayConfig:
    """What is drawn, and how large.

    Examples:
        >>> import usthand
        >>> config = usthand.OverlayConfig(crop=True, mesh=False)
    """

    crop: bool = False
    """A square around each hand, side by side, instead of the whole image."""
    size_px: int = 384
    """Side of a cropped picture."""
    margin: float = 1.9
    """Side of the crop over the hand's own size."""
    mesh: bool = True
    colour: Literal["std", "plain"] = "std"
    """Of the mesh. std: each vertex by its standard deviation (`vertices_std_mm`), where the result has one.
    plain: one colour for each side."""
    scale: bool = True
    """What the colours of std mean, in the lower left corner."""
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


_DEFAULT = OverlayConfig()


@dataclass(frozen=True)
class _Track:
    """One result as one camera sees it, in px of the whole image."""

    result: Result
    joints_px: Float[np.ndarray, "T 21 2"]
    joints_cov_px2: Float[np.ndarray, "T 21 2 2"]
    vertices_px: Float[np.ndarray, "T N 2"]
    vertices_camera_m: Float[np.ndarray, "T N 3"]
    vertices_std_mm: Float[np.ndarray, "T covariances"]
    row: dict[int, int]
    """Row of a frame number, valid frames only."""


def project_covariance(
    cameras: Cameras, points_world_m: Float[np.ndarray, "T N 3"], covariance_m2: Float[np.ndarray, "T N 3 3"]
) -> tuple[Float[np.ndarray, "T V N 2"], Float[np.ndarray, "T V N 2 2"]]:
    """Points and their covariances as every camera sees them, px and px^2.

    J C J' with J the projection's derivative, lens included.
    """
    points = torch.from_numpy(np.asarray(points_world_m, np.float64))
    jacobian = projection_jacobian(cameras, points).numpy()
    cov = jacobian @ np.asarray(covariance_m2, np.float64)[:, None] @ jacobian.swapaxes(-1, -2)
    return project(cameras, points)[0].numpy(), cov


def _track(capture: Capture, result: Result, camera: str) -> _Track:
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
        result.vertices_std_mm,
        {int(frame): row for row, frame in enumerate(result.frame) if result.valid[row]},
    )


def shows_std(results: Sequence[Result], config: OverlayConfig = _DEFAULT) -> bool:
    """Whether some mesh is coloured by its standard deviation."""
    return config.mesh and config.colour == "std" and any(result.has_vertices_cov for result in results)


def crop_path(
    joints_px: Sequence[Float[np.ndarray, "_ 2"]], width: int, height: int, margin: float
) -> tuple[Float[np.ndarray, "T 2"], Float[np.ndarray, "T"]]:
    """A square that follows the hand: its top-left corner (px, pixel edges) and its side in each frame.

    Frames without points (empty arrays) are bridged. The square stays inside the image.

    Raises:
        UsthandError: If no frame has a point.
    """
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
    config: OverlayConfig = _DEFAULT,
    frames: Sequence[int] | Int[np.ndarray, "n"] | None = None,
) -> Iterator[tuple[int, Image8]]:
    """One camera's drawn images, one by one, in constant memory; without a valid hand, the footage alone.

    Args:
        capture: The footage.
        results: What to draw. A result without faces has those of the embedded hand.
        camera: Name of the camera.
        config: What is drawn.
        frames: Numbers of some frames, increasing; all by default.

    Yields:
        Frame number and image.
    """
    frames = range(capture.n_frames) if frames is None else frames
    start, stop, wanted = int(frames[0]), int(frames[-1]) + 1, {int(frame) for frame in frames}
    tracks = [_track(capture, result, camera) for result in results]
    windows = _windows(capture, tracks, camera, config, range(start, stop))
    for frame, footage in capture.read(camera, start, stop):
        if frame not in wanted:
            continue
        pictures = []
        for corners, sides, size in windows:
            corner, side = corners[frame - start], float(sides[frame - start])
            image, zoom = _cut(footage, corner, side, size)
            for track in tracks:
                if frame in track.row:
                    _draw_hand(image, track, track.row[frame], corner, zoom, config)
            if config.scale and not pictures and shows_std(results, config):
                draw_std_scale(image)
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


def _cut(
    footage: Image8, corner: draw.Point, side: float, size: int
) -> tuple[Float[np.ndarray, "size_y size_x 3"], float]:
    """A picture to draw on, and its zoom."""
    if not size:
        return footage.astype(np.float32), 1.0
    right, bottom = np.minimum(corner + side, footage.shape[1::-1])  # rounding must not leave the image
    box = (float(corner[0]), float(corner[1]), float(right), float(bottom))
    cut = Image.fromarray(footage).resize((size, size), Image.Resampling.BICUBIC, box)
    return np.asarray(cut).astype(np.float32), size / side


def _draw_hand(
    image: draw.Picture, track: _Track, row: int, corner: draw.Point, zoom: float, config: OverlayConfig
) -> None:
    def place(uv: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:  # pixel centres at integers in both images
        return (uv + 0.5 - corner) * zoom - 0.5

    line = max(image.shape[0] / 300.0, 1.0)
    if config.mesh and track.result.has_mesh:
        faces = track.result.faces if len(track.result.faces) else embedded_faces()
        points = track.vertices_camera_m[row]
        plain = config.colour == "plain" or not track.result.has_vertices_cov
        colour = draw.MESH_COLOURS[track.result.side] if plain else std_colours(track.vertices_std_mm[row])
        draw.draw_mesh(image, place(track.vertices_px[row]), points, faces, colour, config.opacity)
    joints, sure = place(track.joints_px[row]), track.result.joint_valid[row]
    if config.ellipses:
        radius2, covariance = float(chi2.ppf(config.level, 2)), track.joints_cov_px2[row] * zoom**2
        for joint, colour in _JOINT_COLOUR.items():
            draw.draw_ellipse(image, joints[joint], covariance[joint], radius2, colour, line_px=0.9 * line)
    if config.skeleton:
        for wider, tint in ((1.7, draw.OUTLINE), (1.0, None)):
            for parent, child in BONES:
                opacity = (0.55 if tint else 0.95) * (1.0 if sure[parent] and sure[child] else 0.3)
                ends, colour = (joints[parent], joints[child]), tint or _JOINT_COLOUR[child]
                draw.draw_stroke(image, *ends, wider * line, colour, opacity)
        for joint, colour in _JOINT_COLOUR.items():
            opacity = 1.0 if sure[joint] else 0.3
            draw.draw_disc(image, joints[joint], 2.1 * line, draw.OUTLINE, opacity)
            draw.draw_disc(image, joints[joint], 1.5 * line, colour, opacity)


def write_overlays(
    capture: Capture,
    results: Sequence[Result],
    out: str | Path,
    config: OverlayConfig = _DEFAULT,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Draw results over the footage: a video for each camera, and one contact sheet, cropped to the hand.

    Args:
        capture: The footage that the results were made from.
        results: One or more, for instance of both hands.
        out: Folder to write overlay_CAMERA.mp4 and contact_sheet.png into.
        config: What is drawn.
        overwrite: Write over files that are there.
        progress: Called after each frame.

    Returns:
        The files written.

    Raises:
        UsthandError: If there is no result, one of them belongs to another rig or a longer capture, or a file is there
            already and `overwrite` is not set; nothing is written then.

    Examples:
        >>> import usthand
        >>> result, capture = usthand.load_result("fit.npz"), usthand.open_capture("clip")
        >>> paths = usthand.write_overlays(capture, [result], "overlay", usthand.OverlayConfig(crop=True))
    """
    _check(capture, results)
    videos = {name: Path(out) / f"overlay_{name}.mp4" for name in capture.rig.names}
    sheet = Path(out) / "contact_sheet.png"
    refuse_existing([*videos.values(), sheet], overwrite)
    picture, total, done = contact_sheet(capture, results, config), capture.n_frames * len(videos), 0

    def pictures(camera: str) -> Iterator[Image8]:
        nonlocal done
        for _, image in overlay_frames(capture, results, camera, config):
            yield _even(image)
            done += 1
            progress(done, total)

    for camera, path in videos.items():
        write_video(path, pictures(camera), capture.fps, VIEWING_CRF)
    Image.fromarray(picture).save(sheet)
    return [*videos.values(), sheet]


def contact_sheet(capture: Capture, results: Sequence[Result], config: OverlayConfig = _DEFAULT) -> Image8:
    """Crops of some frames: cameras and hands down, time across, and below them the scale of the colours.

    Raises:
        UsthandError: If there is no result, one of them belongs to another rig or a longer capture, or none is valid.
    """
    _check(capture, results)
    side, small = config.sheet_px, replace(config, crop=True, size_px=config.sheet_px, scale=False)
    frames, rows = sheet_frames(results, config.sheet_columns), []
    for camera in capture.rig.names:
        drawn = [image for _, image in overlay_frames(capture, results, camera, small, frames)]
        for hand in range(len(results)):
            rows.append(np.concatenate([image[:, hand * side : (hand + 1) * side] for image in drawn], axis=1))
    if config.scale and shows_std(results, config):
        rows.append(std_scale_strip(rows[0].shape[1]))
    return np.concatenate(rows)


def sheet_frames(results: Sequence[Result], columns: int) -> Int[np.ndarray, "n"]:
    """Evenly spread frame numbers in which some hand is valid.

    Raises:
        UsthandError: If there is none.
    """
    valid = np.unique(np.concatenate([result.frame[result.valid] for result in results]))
    if not len(valid):
        raise UsthandError(
            "there is nothing to draw",
            "the result is valid in no frame",
            "look at the labels, or make the result again with more cameras",
        )
    return valid[np.unique(np.linspace(0, len(valid) - 1, min(columns, len(valid))).round().astype(int))]


def _check(capture: Capture, results: Sequence[Result]) -> None:
    if not results:
        raise UsthandError("there is no result to draw", "none was given", "give the file that usthand fit wrote")
    for result in results:
        strangers = [name for name in result.cameras if name not in capture.rig.names]
        fact = ""
        if strangers:
            fact = f"the result was made with camera {strangers[0]}, which {capture.path} does not have"
        elif len(result) and result.frame[-1] >= capture.n_frames:
            fact = f"the result reaches frame {result.frame[-1]}, {capture.path} ends at {capture.n_frames - 1}"
        if fact:
            fix = "give the capture that the result was made from"
            raise UsthandError(fact, "it belongs to another capture", fix)


@cache
def embedded_faces() -> Int[np.ndarray, "1538 3"]:
    """Triangles of the embedded hand."""
    from usthand.hand.io import load_hand  # here, so that drawing with given faces needs no hand file

    return np.asarray(load_hand().faces)


def _even(image: Image8) -> UInt8[np.ndarray, "even_H even_W 3"]:
    """H.264 needs even sides: an odd last row or column is repeated."""
    return np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
