"""Does a detector trained on real hands see our renders as hands?

    python benchmarks/detectability.py --out build/detectability [--subjects 4] [--orientation raised]

Draws 8 poses x 8 views of a dome at 256 px for each of several subjects, each with its own room, light and skin, and
lets MediaPipe (0.10.21, full model, single images, threshold 0.3) look at them. Prints the share found, by pose and by
view, and where found the distance of its landmarks from the true joints, in parts of the hand's size (the larger side
of the box around its true joints in that image). Leaves contact sheets and `detectability.json` in the output folder.

MediaPipe runs in an environment of its own: `make detector`, or USTHAND_MEDIAPIPE_PYTHON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from usthand.datasets.synthetic.kinematics import kinematics
from usthand.datasets.synthetic.motion import finger_pose, sample_shape
from usthand.datasets.synthetic.poses import library
from usthand.datasets.synthetic.render import project_camera
from usthand.datasets.synthetic.scene import sample_rig, sample_scene
from usthand.datasets.synthetic.surface import hand_surface, palm_frame
from usthand.hand.io import load_hand
from usthand.labels.detectors.mediapipe import find_python

POSES = ("open", "relaxed", "fist", "point", "pinch", "hold_cylinder", "four", "victory")
VIEWS, SIZE = 8, 256
SAME_HAND = 0.25  # landmarks whose median lies further off than this part of the hand's size are on something else


def orientation(kind: str, palm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotation (3, 3) of the rest hand: `raised`, fingers within 50 degrees of straight up, or `any`."""
    if kind == "any":
        return Rotation.random(random_state=rng).as_matrix()
    upright = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])  # radial, distal, palmar -> world
    tilt = Rotation.from_rotvec(rng.uniform(-0.6, 0.6, 3) * [1, 1, 0])
    spin = Rotation.from_rotvec([0, 0, rng.uniform(0, 2 * np.pi)])
    return (tilt * spin).as_matrix() @ upright.T @ palm


def pose_hand(hand, shape, angles, kin, turn):
    """Vertices and joints, m, of one pose with the joints' mean at the origin."""
    pose = torch.as_tensor(np.concatenate([np.zeros(3), finger_pose(kin, angles)]), dtype=hand.v_template.dtype)
    rotations = hand.rotations(pose, flat_hand_mean=True)
    posed = hand.with_shape(torch.as_tensor(shape, dtype=pose.dtype)).with_pose(rotations, torch.zeros(3).to(pose))
    vertices, joints = posed.vertices.double().numpy() @ turn.T, posed.joints.double().numpy() @ turn.T
    centre = joints.mean(0)
    return vertices - centre, joints - centre


def draw(seed: int, kind: str):
    """Images (8 poses, 8 views) and true joints (8, 8, 21, 2) of one subject."""
    rng = np.random.default_rng(seed)
    hand = load_hand(side="right")
    shape = sample_shape(rng)
    kin = kinematics(hand, shape)
    surface = hand_surface(hand, shape)
    rig = sample_rig(rng, VIEWS, "dome", SIZE)
    scene = sample_scene(rng, rig, surface)
    images, truth = [], []
    for i, name in enumerate(POSES):
        turn = orientation(kind, palm_frame(surface.joints_m), rng)
        vertices, joints = pose_hand(hand, shape, library(kin)[name], kin, turn)
        images.append([view.rgb for view in scene.draw(vertices, joints, 40 * i)])
        truth.append([project_camera(joints, camera)[:, :2] for camera in rig.cameras])
    return np.array(images), np.array(truth)


def look(images: np.ndarray) -> list:
    """MediaPipe's landmarks for images (N, H, W, 3): a list of (21, 2) or None."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, f"{i:05d}.png")) for i in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        script = str(Path(__file__).with_name("mediapipe_static.py"))
        done = subprocess.run([str(find_python()), script, *paths], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def sheet(images: np.ndarray, found: list, path: Path) -> None:
    """A contact sheet (poses down, views across) with the landmarks drawn; a red frame where nothing was found."""
    rows, columns = images.shape[:2]
    page = Image.new("RGB", (columns * SIZE, rows * SIZE))
    for n in range(rows * columns):
        tile = Image.fromarray(images[divmod(n, columns)])
        pen = ImageDraw.Draw(tile)
        if found[n] is None:
            pen.rectangle([0, 0, SIZE - 1, SIZE - 1], outline=(255, 0, 0), width=4)
        else:
            for u, v in found[n]:
                pen.point([(u, v), (u + 1, v), (u, v + 1), (u + 1, v + 1)], fill=(0, 255, 0))
        page.paste(tile, ((n % columns) * SIZE, (n // columns) * SIZE))
    page.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/detectability"))
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--orientation", choices=("raised", "any"), default="raised")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    seen, errors = [], []
    for seed in range(options.first, options.first + options.subjects):
        images, truth = draw(seed, options.orientation)
        found = look(images.reshape(-1, SIZE, SIZE, 3))
        sheet(images, found, options.out / f"subject{seed}.png")
        hit = np.zeros(len(found), bool)
        for n, (marks, true) in enumerate(zip(found, truth.reshape(-1, 21, 2), strict=True)):
            if marks is not None:
                relative = np.linalg.norm(np.array(marks) - true, axis=-1) / np.ptp(true, axis=0).max()
                hit[n] = np.median(relative) < SAME_HAND
                if hit[n]:
                    errors.append(relative)
        seen.append(hit.reshape(len(POSES), VIEWS))
        anything = np.mean([marks is not None for marks in found])
        print(f"subject {seed}: found {hit.mean():.2f} (anything {anything:.2f})", flush=True)
    seen, errors = np.array(seen), np.array(errors)
    result = {
        "images": int(seen.size),
        "orientation": options.orientation,
        "found": float(seen.mean()),
        "by_pose": dict(zip(POSES, seen.mean((0, 2)).round(3).tolist(), strict=True)),
        "by_view": seen.mean((0, 1)).round(3).tolist(),
        "median_error_of_hand_size": float(np.median(errors)),
        "p90_error_of_hand_size": float(np.quantile(errors, 0.9)),
        "median_error_by_joint": np.median(errors, 0).round(4).tolist(),
    }
    (options.out / "detectability.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
