"""Where does MediaPipe place its joints on our hand? Measured on renders, with the truth; written for the fit.

    python benchmarks/detector_joints.py record FOLDER [--subjects 31] [--first 0]
    python benchmarks/detector_joints.py measure FOLDER [--out measured.json] [--write]
    python benchmarks/detector_joints.py clip CAPTURE --first 6 --last 53

`record` renders three clips of each subject, 2 s at 6 frames/s, in eight views all round: the same hand, skin and room,
other motions and other cameras. MediaPipe labels every view as a video. `measure` splits the displacement that all
views share into its parts (`common_displacement.moments`), and combines it with anatomy to what the fit is told
(`stated`); `--write` puts that into the package. `clip` asks a real capture whether it holds there. Results:
docs/development/detector-joints.md.

MediaPipe runs in an environment of its own: `make detector`, or USTHAND_MEDIAPIPE_PYTHON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import usthand
from common_displacement import (
    FINGER_PAIRS,
    PALM,
    PALM_PAIRS,
    Moments,
    Sample,
    common_bending,
    displacements,
    held_out,
    moments,
    of_two_sources,
    open_median,
    rms,
    shared_by_joints,
    view_noise,
)
from usthand.datasets.synthetic.kinematics import kinematics
from usthand.datasets.synthetic.motion import finger_pose, sample_motion, sample_shape
from usthand.datasets.synthetic.render import project_camera
from usthand.datasets.synthetic.scene import sample_rig, sample_scene
from usthand.datasets.synthetic.surface import hand_surface
from usthand.fit.detector_joints import bone_frames, load_detector_joints, relative_size
from usthand.fit.kinematics import BONE_TURN, articulation
from usthand.geometry.cameras import undistort
from usthand.geometry.triangulation import triangulate_xy
from usthand.hand.fingertips import cap_weights
from usthand.hand.io import load_hand
from usthand.hand.proportions import with_proportions
from usthand.hand.skeleton import FINGER_TIPS, FINGERS, JOINTS, MANO_TO_OPENPOSE
from usthand.labels.detectors.mediapipe import MediaPipe
from usthand.labels.labels import hand_size_px

DATA = Path(__file__).parents[1] / "src" / "usthand" / "fit" / "data" / "mediapipe.toml"
CLIPS, VIEWS, FRAMES, FPS, SIZE_PX = 3, 8, 12, 6.0, 256
SAME_HAND = 0.25  # of the hand's size, median: what lies further off is on something else
STEP_M = 1e-4  # of the numerical derivative of the projection
HALVES = (((0, 2, 4, 6), (1, 3, 5, 7)), ((0, 1, 4, 5), (2, 3, 6, 7)), ((0, 3, 4, 7), (1, 2, 5, 6)))
HIDDEN_WEIGHT = 1 / 3  # the inverse ratio of the variances of hidden and seen joints
MOST_BENT = 120.0  # degrees: a finger whose bends add up to more is clenched
SUBJECT_STD_MM = {"base": 1.5, "knuckle": 1.0, "finger": 1.5, "tip": 1.0}
"""How far a person's joint may lie from what is stated, an axis, by the kind of joint (`joint_kinds`). The fewer places
there are that people would call the joint, the less."""
BENDING_MM = {"palm": (1.3, 2.0), "finger": (1.3, 1.1)}
"""`common_bending` of the real clip and of the renders: what `clip` and `measure` print."""
ROUNDED_TO_MM = 0.5


# ---- recording ------------------------------------------------------------------------------------------------------


def record(seed: int, detector: MediaPipe) -> dict[str, np.ndarray]:
    """One subject's labels and truth; C clips, T frames, V views, J joints."""
    streams = np.random.SeedSequence(seed).spawn(2 + CLIPS)
    hand = load_hand(side="right")
    shape = sample_shape(np.random.default_rng(streams[0]))
    clips = []
    for stream in streams[2:]:
        rng = np.random.default_rng(stream)
        rig = sample_rig(rng, VIEWS, "dome", SIZE_PX)
        scene = sample_scene(np.random.default_rng(streams[1]), rig, hand_surface(hand, shape), fps=FPS)
        motion = sample_motion(hand, FRAMES, FPS, rng, shape=shape)
        rotations = hand.rotations(torch.as_tensor(motion.pose, dtype=torch.float32), flat_hand_mean=True)
        shaped = hand.with_shape(torch.as_tensor(shape, dtype=torch.float32))
        posed = shaped.with_pose(rotations, torch.as_tensor(motion.translation_m, dtype=torch.float32))
        joints = posed.joints.double().numpy()
        frames = list(scene.draw_sequence(posed.vertices.numpy(), joints, 1))
        uv, by_place = projections(joints, rig.cameras)
        labels = np.full(uv.shape, np.nan)
        for view in range(VIEWS):
            for t, found in enumerate(detector.detect(frame[view].rgb for frame in frames)):
                labels[t, view] = nearest([one.uv_px for one in found], uv[t, view])
        clips.append(
            {
                "labels_px": labels,
                "uv_px": uv,
                "by_place": by_place,
                "visible": np.array([[view.visible for view in frame] for frame in frames]),
                "turns": posed.world_rotations.double().numpy()[:, BONE_TURN],
                "angles": motion.angles,
            }
        )
    return {"shape": shape, **{key: np.stack([clip[key] for clip in clips]) for key in clips[0]}}


def projections(joints, cameras):
    """Pixels (T, V, J, 2) of world points (T, J, 3), and their derivatives by the points (T, V, J, 2, 3), px/m."""

    def pixels(points):
        flat = points.reshape(-1, 3)
        return np.stack([project_camera(flat, c)[:, :2].reshape(*points.shape[:2], 2) for c in cameras], 1)

    step = STEP_M * np.eye(3)
    by_place = [(pixels(joints + axis) - pixels(joints - axis)) / (2 * STEP_M) for axis in step]
    return pixels(joints), np.stack(by_place, -1)


def nearest(found, exact):
    """The detection on the hand, or NaN."""
    size = np.ptp(exact, axis=0).max()
    gaps = [np.median(np.linalg.norm(one - exact, axis=-1)) / size for one in found]
    return found[int(np.argmin(gaps))] if gaps and min(gaps) < SAME_HAND else np.nan


def load_sample(folder: Path) -> Sample:
    """All recorded subjects."""
    hand = articulation(load_hand(dtype=torch.float64))
    frames = bone_frames(hand).swapaxes(1, 2)
    subjects = []
    for path in sorted(folder.glob("subject-*.npz")):
        with np.load(path) as file:
            data = dict(file)
        unit = 1000 / relative_size(hand, data["shape"])
        subjects.append(
            [
                _clip_displacements({k: v[c] for k, v in data.items() if k != "shape"}, frames, unit)
                for c in range(CLIPS)
            ]
        )
    return Sample(*(np.array([[clip[k] for clip in clips] for clips in subjects]) for k in range(6)))


def _clip_displacements(clip, frames, unit):
    size = np.median(np.ptp(clip["uv_px"], axis=2).max(-1), axis=0)[:, None, None]
    rows = clip["by_place"] @ (clip["turns"] @ frames)[:, None] / size[..., None]
    gap = (clip["labels_px"] - clip["uv_px"]) / size
    seen = np.where(clip["visible"], 1.0, HIDDEN_WEIGHT)
    whole, noise, weight = displacements(gap, rows, seen)
    halves = [
        [displacements(gap[:, list(half)], rows[:, list(half)], seen[:, list(half)])[0] for half in two]
        for two in HALVES
    ]
    return unit * whole, unit * np.array(halves), weight, noise, clip["visible"], finger_bends(clip["angles"])


def finger_bends(angles):
    """The bends of each joint's finger added up (T, J), degrees, of finger angles (T, 15, 3); 0 of the wrist."""
    bends = np.zeros((len(angles), len(JOINTS)))
    for ids in FINGERS.values():
        own = [MANO_TO_OPENPOSE[joint] - 1 for joint in ids[:-1]]
        bends[:, list(ids)] = np.degrees(angles[:, own, 0].sum(1))[:, None]
    return bends


# ---- a real capture -------------------------------------------------------------------------------------------------


def clip_residuals(folder: Path, first: int, last: int, rounds: int = 3) -> dict:
    """The constant displacement left over on a real hand, without and with the mean: mm per axis of the bones' frames.

    The rigid hand is fitted to the labels, moved back by the projected mean displacement. What all views still share,
    its median over the frames, is the subject's own, less what the fit's shape has taken.
    """
    capture, out = usthand.open_capture(folder), {}
    for side, labels in _clip_labels(capture, first, last):
        hand = with_proportions(load_hand(side=side, dtype=torch.float64))
        for name, mean in (("without", np.zeros((21, 3))), ("with", load_detector_joints("mediapipe").mean_m)):
            left, shape = _left_over(capture, labels, hand, mean, rounds if mean.any() else 1)
            constant = np.nanmedian(left, axis=0)
            out[f"{side}, {name} mean"] = {
                "rms_mm": round(float(np.sqrt((constant**2).mean())), 2),
                "rms_mm_by_axis": np.sqrt((constant**2).mean(0)).round(2).tolist(),
                "shape_norm": round(float(np.linalg.norm(shape)), 2),
            }
    return out


def _clip_labels(capture, first, last):
    for side in capture.label_sides():
        all_labels = usthand.load_labels(capture, side)
        here = slice(first, last + 1)
        yield side, replace(all_labels, uv_px=all_labels.uv_px[here], confidence=all_labels.confidence[here])


def clip_bending(folder: Path, first: int, last: int) -> dict:
    """`common_bending` of a real capture of four views, in clips as long as those of the renders."""
    capture = usthand.open_capture(folder)
    halves = [[], []]
    for _, labels in _clip_labels(capture, first, last):
        for split in (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))):
            for half, views in zip(halves, split, strict=True):
                weight = np.zeros(labels.mask.shape)
                weight[:, views] = ((labels.confidence / hand_size_px(labels)[..., None]) ** 2)[:, views]
                points = _triangulated(capture.rig.tensors(torch.float64), labels.uv_px, weight)
                half += [points[t : t + FRAMES] for t in range(0, len(points) - FRAMES + 1, FRAMES)]
    return _bending(*halves)


def _triangulated(cameras, uv_px, weight):
    """Points (T, J, 3), mm, NaN where fewer than two views have a weight (T, V, J)."""
    xy = undistort(cameras, torch.from_numpy(uv_px.astype(float)))
    precision = torch.diag_embed(torch.from_numpy(weight)[..., None] * cameras.intrinsics[:, None, :2] ** 2)
    points = 1000 * triangulate_xy(cameras, xy, precision)[0].numpy()
    return np.where(((weight > 0).sum(1) >= 2)[..., None], points, np.nan)


def render_bending(folder: Path) -> dict:
    """`common_bending` of the renders, from two halves of the views."""
    hand = load_hand(dtype=torch.float64)
    frames = bone_frames(articulation(hand)).swapaxes(1, 2)
    halves = [[], []]
    for path in sorted(folder.glob("subject-*.npz")):
        with np.load(path) as file:
            data = dict(file)
        kin = kinematics(hand, data["shape"])
        for c in range(CLIPS):
            clip = {key: value[c] for key, value in data.items() if key != "shape"}
            pose = np.concatenate([np.zeros((FRAMES, 3)), finger_pose(kin, clip["angles"])], axis=1)
            posed = hand.with_shape(torch.from_numpy(data["shape"])).with_pose(
                hand.rotations(torch.from_numpy(pose), flat_hand_mean=True)
            )
            turned = posed.world_rotations.numpy()[:, BONE_TURN] @ frames
            for half, found in zip(halves, _clip_displacements(clip, frames, 1000.0)[1][0], strict=True):
                half.append(1000 * posed.joints.numpy() + (turned @ found[..., None])[..., 0])
    return _bending(*halves)


def _bending(one, other):
    one, other = np.array(one), np.array(other)
    return {
        "palm_mm": common_bending(one, other, PALM_PAIRS),
        "finger_bones_mm": common_bending(one, other, FINGER_PAIRS),
    }


def _left_over(capture, labels, hand, mean_m, rounds):
    """Common displacement less the mean, (T, J, 3) mm of a hand of mean size, and the fitted shape."""
    parts, moved, rig = articulation(hand), labels, capture.rig
    for _ in range(rounds):
        result = usthand.fit_labels(rig, moved, usthand.FitConfig(fps=capture.fps, joint_model="rigid"))
        posed = hand.with_shape(torch.from_numpy(result.shape)).with_pose(
            hand.rotations(torch.from_numpy(result.pose), flat_hand_mean=True)
        )
        shift = result.vertices_world_m[:, :1] - posed.vertices[:, :1].numpy()
        joints = posed.joints.numpy() + shift
        frames = posed.world_rotations.numpy()[:, BONE_TURN] @ bone_frames(parts).swapaxes(1, 2)
        size = relative_size(parts, result.shape)
        uv, by_place = projections(joints, rig.cameras)
        seen, _ = projections(joints + (frames @ (size * mean_m)[..., None])[..., 0], rig.cameras)
        moved = replace(labels, uv_px=labels.uv_px - (seen - uv))
    pixels = hand_size_px(labels)[..., None, None]
    gap = np.where(labels.mask[..., None], moved.uv_px - uv, np.nan) / pixels
    rows = by_place @ frames[:, None] / pixels[..., None]
    return 1000 / size * displacements(gap, rows, labels.mask * 1.0)[0], result.shape


# ---- what the fit is told -------------------------------------------------------------------------------------------


def stated(sample: Sample) -> Moments:
    """What is known of MediaPipe's joints on a real hand, from renders and from anatomy.

    Renders know where MediaPipe sees the joints of the palm, which no anatomy defines: their median is stated. Of the
    fingers there are two sources. Renders say that MediaPipe sees a finger shorter than it is; anatomy says that the
    centre of a joint is the centre of a joint, and on real hands a tip is the centre of the round cap. Neither is
    certain for a real hand: see `of_two_sources`.
    """
    renders, kinds = open_median(sample, MOST_BENT), joint_kinds()
    std = np.array([SUBJECT_STD_MM[kind] for kind in kinds])
    palm = np.isin(np.arange(len(JOINTS)), PALM)
    mean, subject = of_two_sources(renders, np.where(palm[:, None], renders, anatomy_mm()), std)
    pose = np.where(palm, pose_std_mm("palm"), pose_std_mm("finger"))[:, None, None] ** 2 * np.eye(3)
    measured = moments(sample, FPS)
    return Moments(mean, subject, pose, measured.correlation, measured.memory_s)


def joint_kinds() -> list[str]:
    """Of the 21 joints; the wrist and the thumb's base are a "base"."""
    thumb_base = FINGERS["thumb"][0]
    knuckles = [ids[0] for ids in FINGERS.values()]
    names = ["finger"] * len(JOINTS)
    for ids, name in ((knuckles, "knuckle"), (FINGER_TIPS, "tip"), ((0, thumb_base), "base")):
        for joint in ids:
            names[joint] = name
    return names


def anatomy_mm() -> np.ndarray:
    """Displacements (J, 3) of a detector that sees the centres of the joints, and of the caps of the fingertips."""
    hand = load_hand(dtype=torch.float64)
    vertices, frames = hand.v_template.numpy(), bone_frames(articulation(hand))
    out = np.zeros((len(JOINTS), 3))
    gap = cap_weights(hand) @ vertices - vertices[hand.tip_ids.numpy()]
    out[list(FINGER_TIPS)] = 1000 * (frames[list(FINGER_TIPS)] @ gap[..., None])[..., 0]
    return out


def pose_std_mm(part: str) -> float:
    """Of a joint's stray with the pose, an axis: the larger of real clip and renders, rounded up.

    The distance of two joints that stray independently changes by the root of two times as much as either.
    """
    return float(np.ceil(max(BENDING_MM[part]) / np.sqrt(2) / ROUNDED_TO_MM) * ROUNDED_TO_MM)


# ---- output ---------------------------------------------------------------------------------------------------------


def package_text(told: Moments, n_subjects: int) -> str:
    """The data file of the package."""
    lines = [
        "# MediaPipe Hands 0.10.21 on the embedded hand: its joints less the hand model's, of a hand of mean size,",
        "# across, dorsal and along the bone (usthand.fit.detector_joints). Written by benchmarks/detector_joints.py",
        f"# from {n_subjects} rendered subjects and anatomy: the palm as rendered, fingers half way between the two,",
        "# with half the difference of the two as uncertainty. See docs/development/detector-joints.md.",
        f"memory_s = {told.memory_s:.2f}",
    ]
    for j, name in enumerate(JOINTS):
        lines += [
            "",
            f"[joints.{name}]",
            f"mean_mm = {_row(told.mean[j])}",
            f"subject_mm2 = [{', '.join(_row(row) for row in told.subject[j])}]",
            f"pose_mm2 = [{', '.join(_row(row) for row in told.pose[j])}]",
        ]
    return "\n".join(lines) + "\n"


def _row(values) -> str:
    return f"[{', '.join(f'{v + 0.0:.2f}' for v in np.round(values, 2))}]"


def _by_joint(found: Moments) -> dict:
    """Means and standard deviations, mm."""
    std = {name: np.sqrt(np.einsum("jaa->ja", getattr(found, name))).round(2) for name in ("subject", "pose")}
    return {
        name: {"mean_mm": found.mean[j].round(2).tolist(), **{f"{k}_std_mm": v[j].tolist() for k, v in std.items()}}
        for j, name in enumerate(JOINTS)
    }


def report(sample: Sample) -> dict:
    found = moments(sample, FPS)
    return {
        "subjects": len(sample.whole),
        "joints": _by_joint(found),
        "stated": _by_joint(stated(sample)),
        "rms_mm": {
            "mean": rms((found.mean**2).sum(-1)),
            "subject": rms(np.trace(found.subject, axis1=1, axis2=2)),
            "pose": rms(np.trace(found.pose, axis1=1, axis2=2)),
        },
        "pose_correlation_by_lag": [round(c, 3) for c in found.correlation],
        "memory_s": round(found.memory_s, 2),
        "held_out": held_out(sample),
        "correlation_of_joints": shared_by_joints(sample, found),
        "view_noise": view_noise(sample),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording, measuring, asking = (commands.add_parser(name) for name in ("record", "measure", "clip"))
    for one in (recording, measuring, asking):
        one.add_argument("folder", type=Path)
    recording.add_argument("--subjects", type=int, default=31)
    recording.add_argument("--first", type=int, default=0)
    measuring.add_argument("--out", type=Path)
    measuring.add_argument("--write", action="store_true")
    asking.add_argument("--first", type=int, default=0)
    asking.add_argument("--last", type=int, required=True)
    options = parser.parse_args()
    if options.command == "clip":
        frames = options.first, options.last
        left, bending = clip_residuals(options.folder, *frames), clip_bending(options.folder, *frames)
        print(json.dumps({"left_over": left, "common_bending": bending}, indent=1))
    elif options.command == "measure":
        sample = load_sample(options.folder)
        found = {**report(sample), "common_bending": render_bending(options.folder)}
        text = json.dumps(found, indent=1)
        print(text)
        if options.out:
            options.out.write_text(text + "\n")
        if options.write:
            DATA.write_text(package_text(stated(sample), len(sample.whole)))
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        with MediaPipe() as detector:
            for seed in range(options.first, options.first + options.subjects):
                values = record(seed, detector)
                np.savez_compressed(options.folder / f"subject-{seed:03d}.npz", **values)
                print(f"subject {seed}: found {np.isfinite(values['labels_px']).mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
