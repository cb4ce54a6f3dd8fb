"""Write a synthetic capture: rig, videos, labels as a detector would give them, and the truth.

The same configuration gives the same bytes. The cameras, the motion, the room and the labels each have a random stream
of their own, so that another label level changes the labels and nothing else.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from usthand.capture.rig import MIRROR, Rig, save_rig
from usthand.capture.settings import CaptureSettings, save_settings
from usthand.capture.video import write_video
from usthand.common.errors import UsthandError
from usthand.common.files import whole_folder
from usthand.common.progress import Progress, silent
from usthand.datasets.synthetic.displacement import displaced_joints
from usthand.datasets.synthetic.looks import looks_of
from usthand.datasets.synthetic.noise import LEVELS, NoiseLevel, noise_level, noisy_labels
from usthand.datasets.synthetic.render import project_camera
from usthand.datasets.synthetic.scene import GRASPED, sample_rig, sample_scene
from usthand.datasets.synthetic.subjects import SUBJECTS, sample_subject
from usthand.datasets.synthetic.transmission import Transmission, transmit
from usthand.evaluation.truth import Truth, save_truth
from usthand.hand.skeleton import N_JOINTS
from usthand.labels.labels import Labels

QUEUED = 8  # frames that wait for an encoder
THREADS = 2  # that render
OTHERS_JOINTS = "synthetic-foreign"
"""The detector that labels of hands that are not ours name: its joints are not our hand model's."""
OBJECTS = ("none", "held", "standing", "any", "many")


@dataclass(frozen=True)
class SynthConfig:
    """What a synthetic capture holds."""

    views: int = 4
    frames: int = 400
    labels: str = "heavy"
    """How wrong the labels are: heavy, light, exact, or biased (heavy, of a detector with joints of its own)."""
    seed: int = 0
    size: int = 256
    """Width and height of the images, px; even."""
    fps: float = 30.0
    objects: str = "none"
    """What else is in the scene: none; held, an object in the hand; standing, one between the hand and a camera; any,
    one of these two; many, one in the hand and two between it and cameras."""
    layout: str = "dome"
    """Where the cameras stand: dome or side."""
    side: str = "right"
    """right, or left (the exact mirror image of the right hand)."""
    subject: str = "own"
    """Whose hand: own, our hand model's; varied, that in other proportions; webxr, WebXR's generic hand; or foreign, of
    the body model Anny, for tests and benchmarks alone."""
    looks: str = "plain"
    """How near to reality the images are drawn: plain, real, or one step of it alone (see `looks`)."""

    def settings(self) -> dict[str, object]:
        """The settings by name, less a usual subject and usual looks, so that names are as before there were others."""
        usual = {"subject": "own", "looks": "plain"}
        return {name: value for name, value in vars(self).items() if usual.get(name) != value}


def make_capture(out: str | Path, config: SynthConfig, progress: Progress = silent) -> Path:
    """Write a capture folder with images, labels and exact truth; it appears under its name only once it is complete.

    Args:
        out: Folder to write; must not exist yet, or be empty.
        config: What to make.
        progress: Told after each frame.

    Returns:
        The folder.

    Raises:
        UsthandError: If something is there already, or the configuration makes no sense.

    Examples:
        >>> from usthand.datasets.synthetic.write import SynthConfig, make_capture
        >>> make_capture("clip", SynthConfig(views=2, frames=30, size=128))
    """
    _check(config)
    with whole_folder(out, "a capture") as partial:
        _fill(partial, config, progress)
    return Path(out)


def made_capture(folder: Path, config: SynthConfig, progress: Progress = silent) -> Path:
    """The capture of these settings in `folder`, made if it is not there; its settings are beside it in FOLDER.json.

    Raises:
        UsthandError: If the capture that is there was made with other settings.
    """
    settings = folder.with_name(f"{folder.name}.json")
    if folder.is_dir() and _settings_in(settings) != config:
        fix = "choose another output folder, or remove it"
        raise UsthandError(f"{folder} was made with other settings", "another run's capture is there", fix)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Before: a capture that is there has its settings, whenever this is ended.
        settings.write_text(json.dumps(vars(config), indent=2) + "\n")
        make_capture(folder, config, progress)
    return folder


def _settings_in(file: Path) -> SynthConfig | None:
    """The settings in a file, in which those that are newer than it have their default; None if there are none."""
    try:
        return SynthConfig(**json.loads(file.read_text()))
    except (OSError, TypeError, ValueError):
        return None


def _check(config: SynthConfig) -> None:
    _choose(config.labels, "label level", LEVELS)
    _choose(config.side, "side", ("right", "left"))
    _choose(config.objects, "choice of objects", OBJECTS)
    _choose(config.subject, "subject", SUBJECTS)
    if config.subject != "own":
        _require_in_place(noise_level(config.labels))
    looks_of(config.looks)
    if config.views < 1 or config.frames < 1 or config.fps <= 0:
        raise UsthandError("the capture would be empty", "views, frames or fps is zero", "ask for at least one")
    if config.size % 2 or config.size < 32:
        fact = f"images of {config.size} px cannot be encoded"
        raise UsthandError(fact, "H.264 needs an even size; the hand needs 32 px or more", "choose 128 or 256")


def _choose(value: str, kind: str, known: Iterable[str]) -> None:
    if value not in known:
        raise UsthandError(f"no {kind} is called {value!r}", "a typing error", f"choose one of {', '.join(known)}")


def _require_in_place(level: NoiseLevel | None) -> None:
    """Refuse, for hands that are not ours, a detector with joints of its own."""
    if level is not None and level.displaced:
        cause = "this level displaces the joints by the pose and shape of our own hand model"
        raise UsthandError("labels biased do not go with hands that are not ours", cause, "choose heavy or light")


def _fill(folder: Path, config: SynthConfig, progress: Progress) -> None:
    streams = np.random.SeedSequence(config.seed).spawn(4)
    rng_rig, rng_motion, rng_scene, rng_labels = map(np.random.default_rng, streams)
    rig = sample_rig(rng_rig, config.views, config.layout, config.size)
    occluders = sample_occluders(rng_scene, config.objects)
    subject = sample_subject(config.subject, rng_motion)
    scene = sample_scene(rng_scene, rig, subject.surface, occluders, config.fps, config.looks)
    held = next((thing.vertices_m + thing.centre_m for thing in scene.things if thing.grasped), None)
    moved = subject.move(config.frames, config.fps, rng_motion, held)
    left = config.side == "left"
    shown = rig.mirrored() if left else rig
    save_rig(shown, folder / "rig.toml")
    save_settings(folder / "capture.toml", CaptureSettings(float(config.fps)))

    visible = np.empty((config.frames, config.views, N_JOINTS), bool)
    videos = VideoFan(folder, shown, config.fps, scene.transmissions)
    views = scene.draw_sequence(moved.vertices_world_m, moved.joints_world_m, THREADS)
    try:
        for frame, row in enumerate(views):
            visible[frame] = [view.visible for view in row]
            videos.put([view.rgb[:, ::-1] if left else view.rgb for view in row])
            progress(frame + 1, config.frames, "rendering")
    finally:
        videos.close()

    posture = moved.pose, moved.shape
    labels = synthetic_labels(rig, moved.joints_world_m, posture, visible, rng_labels, config.labels)
    truth = moved.truth(visible)
    if left:
        widths = [camera.width for camera in rig.cameras]
        labels = {one.side: one for one in (right.mirrored(widths) for right in labels.values())}
        truth = mirrored_truth(truth)
    (folder / "labels").mkdir()
    for name, one in labels.items():
        one.save(folder / "labels" / f"{name}.npz")
    save_truth(folder, config.side, truth)


def sample_occluders(rng: np.random.Generator, objects: str) -> list[str]:
    """Kinds of the objects of a scene, as `sample_scene` takes them."""
    if objects == "none":
        return []
    kinds = {"any": ("static", *GRASPED), "standing": ("static",)}.get(objects, GRASPED)
    first = str(rng.choice(kinds))
    return [first, "static", "static"] if objects == "many" else [first]


def synthetic_labels(
    rig: Rig,
    joints_world_m: np.ndarray,
    posture: tuple[np.ndarray, np.ndarray],
    visible: np.ndarray,
    rng: np.random.Generator,
    level: str | NoiseLevel,
) -> dict[str, Labels]:
    """Labels of a right hand, by side, as a detector of this level would give them; see `noisy_labels`.

    A detector with joints of its own sees those: joints are displaced in space, alike for all views, before
    they are projected. What a level draws for this leaves its other draws as they are.

    Args:
        rig: V cameras.
        joints_world_m: The hand model's joints, (T, 21, 3).
        posture: Pose about the flat hand, axis-angle (T, 48), and shape (10,); both empty for joints of a hand that is
            not our model's. Their labels name a detector of their own, of which a fit knows nothing.
        visible: Which joints are seen, (T, V, 21).
        rng: Source of all randomness but the detector's own.
        level: A level's name or parameters.

    Raises:
        UsthandError: If the level is unknown, or displaces the joints of our model and they are another's.
    """
    parameters, others = noise_level(level), not len(posture[0])
    if others:
        _require_in_place(parameters)
    elif parameters is not None and parameters.displaced:
        joints_world_m = displaced_joints(joints_world_m, *posture, rng.spawn(1)[0])
    uv, in_image = project(rig, joints_world_m)
    labels = noisy_labels(uv, visible, in_image, rng, level, rig.names)
    return {side: replace(one, detector=OTHERS_JOINTS) if others else one for side, one in labels.items()}


def project(rig: Rig, joints_world_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (T, V, 21, 2) of joints (T, 21, 3), and which of them lie in the image (T, V, 21)."""
    flat = joints_world_m.reshape(-1, 3)
    screen = np.stack([project_camera(flat, camera) for camera in rig.cameras]).reshape(len(rig), -1, N_JOINTS, 3)
    screen = screen.swapaxes(0, 1)
    uv, depth = screen[..., :2], screen[..., 2]
    corner = np.array([(camera.width, camera.height) for camera in rig.cameras])[:, None] - 0.5
    return uv, (depth > 0) & ((uv > -0.5) & (uv < corner)).all(-1)


def mirrored_truth(truth: Truth) -> Truth:
    """The truth of the left hand that is the mirror of a right one: x -> -x."""
    turned = truth.pose.reshape(-1, 16, 3) * -MIRROR  # a mirror reverses rotation vectors
    return replace(
        truth,
        joints_world_m=truth.joints_world_m * MIRROR,
        vertices_world_m=truth.vertices_world_m * np.float32(MIRROR),
        pose=turned.reshape(truth.pose.shape),
        translation_m=truth.translation_m * MIRROR,
        faces=truth.faces[:, ::-1],
    )


class VideoFan:
    """One encoder thread per camera, each fed through a short queue, so that memory stays constant."""

    def __init__(self, folder: Path, rig: Rig, fps: float, transmissions: Sequence[Transmission | None] = ()) -> None:
        ways = transmissions or [None] * len(rig)
        self._pool = ThreadPoolExecutor(len(rig))
        self._queues: list[queue.Queue] = [queue.Queue(QUEUED) for _ in rig.cameras]
        self._jobs: list[Future] = [
            self._pool.submit(write_video, folder / f"{camera.name}.mp4", transmit(_drain(q), way, fps), fps)
            for camera, q, way in zip(rig.cameras, self._queues, ways, strict=True)
        ]

    def put(self, images: list[np.ndarray]) -> None:
        """Hand over one frame of all cameras, each (H, W, 3) uint8; waits while the encoders are behind."""
        for job, waiting, image in zip(self._jobs, self._queues, images, strict=True):
            _put(job, waiting, image)

    def close(self) -> None:
        """Finish the files; raises what an encoder raised."""
        for job, waiting in zip(self._jobs, self._queues, strict=True):
            _put(job, waiting, None)
        for job in self._jobs:
            job.result()
        self._pool.shutdown()


def _drain(waiting: queue.Queue) -> Iterator[np.ndarray]:
    while (image := waiting.get()) is not None:
        yield image


def _put(job: Future, waiting: queue.Queue, item: np.ndarray | None) -> None:
    while not job.done():
        try:
            return waiting.put(item, timeout=1.0)
        except queue.Full:
            continue
    job.result()
