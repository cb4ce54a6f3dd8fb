"""Other programs' files: each laid out as its program does it, read back to the hands that were laid out."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from support.hands_in_views import exact_uv, moving_hands, people, ring_rig
from usthand.capture.capture import Capture, open_capture
from usthand.capture.offsets import Overlap
from usthand.capture.rig import Rig, save_rig
from usthand.capture.video import write_video
from usthand.common.errors import UsthandError
from usthand.hand.skeleton import INTERHAND_TO_OPENPOSE, inverse_order
from usthand.labels.formats import hands_npz, mediapipe, mmpose, openpose, wholebody
from usthand.labels.formats.base import UNKNOWN_CONFIDENCE, camera_files
from usthand.labels.formats.openpose import write_openpose_json
from usthand.labels.importing import FORMATS, find_format, import_labels
from usthand.labels.labels import Labels, load_labels

N_FRAMES = 6
OTHER = {"right": "left", "left": "right"}


@dataclass(frozen=True)
class Seen:
    """Both hands in every view, some joints and one hand of one view missing, as a detector would have them."""

    rig: Rig
    uv_px: dict[str, np.ndarray]
    """Per side (T, V, 21, 2)."""
    confidence: dict[str, np.ndarray]
    """Per side (T, V, 21), two decimals."""

    def hands(self, frame: int, view: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(side, positions, confidence) of the hands that are there."""
        return [
            (side, self.uv_px[side][frame, view], self.confidence[side][frame, view])
            for side in self.uv_px
            if self.confidence[side][frame, view].any()
        ]


@pytest.fixture(scope="module")
def seen() -> Seen:
    rng = np.random.default_rng(5)
    rig = ring_rig(3)
    uv = {side: exact_uv(rig, joints) for side, joints in moving_hands(N_FRAMES).items()}
    confidence = {side: np.round(rng.uniform(0.3, 1, one.shape[:3]), 2) for side, one in uv.items()}
    confidence["right"][2, 1] = 0
    confidence["left"][4, 0, 7] = 0
    return Seen(rig, uv, confidence)


@pytest.fixture(scope="module")
def footage(seen, tmp_path_factory) -> Path:
    """A capture's folder with black videos: the import only counts their frames."""
    folder = tmp_path_factory.mktemp("footage")
    save_rig(seen.rig, folder / "rig.toml")
    for camera in seen.rig.cameras:
        write_video(
            folder / f"{camera.name}.mp4", [np.zeros((camera.height, camera.width, 3), np.uint8)] * N_FRAMES, fps=30
        )
    return folder


@pytest.fixture
def capture(footage, tmp_path) -> Capture:
    return open_capture(shutil.copytree(footage, tmp_path / "capture"))


def told(error: pytest.ExceptionInfo, *words: str) -> None:
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.endswith(".")
    for word in words:
        assert word in sentence, f"{word!r} is not in {sentence!r}"


def assert_same(
    labels: dict[str, Labels], seen: Seen, states_confidence: bool, px: float = 2e-3, all_joints: bool = False
) -> None:
    """The hands that were laid out, to single precision, with their confidence or that of a program that states none."""
    assert list(labels) == ["right", "left"]
    for side, one in labels.items():
        expected = seen.confidence[side]
        if not states_confidence:
            there = expected.any(axis=-1, keepdims=True) if all_joints else expected > 0
            expected = np.where(np.broadcast_to(there, expected.shape), UNKNOWN_CONFIDENCE, 0)
        np.testing.assert_allclose(one.confidence, expected, atol=1e-6)
        np.testing.assert_allclose(one.uv_px, np.where(one.mask[..., None], seen.uv_px[side], 0), atol=px)
        assert one.cameras == seen.rig.names


# ---- as each program lays it out -----------------------------------------------------------------------------------


def write(path: Path, data) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def each(seen: Seen):
    return ((t, v, name) for v, name in enumerate(seen.rig.names) for t in range(N_FRAMES))


def missing_as_zero(uv: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    return np.concatenate([np.where(confidence[:, None] > 0, uv, 0), confidence[:, None]], axis=1)


def lay_openpose(seen: Seen, root: Path, flat: bool = False) -> None:
    """--write_json: version, people, all the parts; file names of twelve digits behind the video's name."""
    for t, v, name in each(seen):
        person = {"person_id": [-1], "pose_keypoints_2d": [1.0] * 75, "face_keypoints_2d": []}
        person |= {f"hand_{side}_keypoints_2d": [0] * 63 for side in OTHER}
        for side, uv, c in seen.hands(t, v):
            person[f"hand_{side}_keypoints_2d"] = missing_as_zero(uv, c).reshape(-1).tolist()
        folder = root if flat else root / name
        write(folder / f"{name}_{t:012d}_keypoints.json", {"version": 1.3, "people": [person]})


def as_whole_body(seen: Seen, t: int, v: int) -> np.ndarray:
    """133 points (x, y, score) of the one person."""
    points = np.full((133, 3), 0.9)
    points[91:] = 0
    for side, uv, c in seen.hands(t, v):
        points[{"left": 91, "right": 112}[side] :][:21] = missing_as_zero(uv, c)
    return points


def lay_pose2sim(seen: Seen, root: Path) -> None:
    for t, v, name in each(seen):
        person = {"pose_keypoints_2d": as_whole_body(seen, t, v).reshape(-1).tolist(), "hand_left_keypoints_2d": []}
        write(root / f"{name}_json" / f"{name}_{t:06d}_keypoints.json", {"people": [person]})


def lay_wholebody(seen: Seen, root: Path) -> None:
    """COCO-WholeBody's result file: image_id, the parts apart, flags instead of scores are not used here."""
    for v, name in enumerate(seen.rig.names):
        entries = []
        for t in range(N_FRAMES):
            parts = {f"{side}hand_kpts": [0] * 63 for side in OTHER}
            parts |= {
                f"{side}hand_kpts": missing_as_zero(uv, c).reshape(-1).tolist() for side, uv, c in seen.hands(t, v)
            }
            entries.append({"image_id": t, "category_id": 1, "keypoints": [0] * 51, "score": 0.9, **parts})
        write(root / f"{name}.json", entries)


def lay_wholebody_annotations(seen: Seen, root: Path) -> None:
    """The annotation file: images named by file, v of 0, 1, 2, and a validity of each hand."""
    for v, name in enumerate(seen.rig.names):
        annotations = []
        for t in range(N_FRAMES):
            entry = {"id": t, "image_id": 900 + t, "keypoints": [0] * 51}
            for side in OTHER:
                uv, c = seen.uv_px[side][t, v], seen.confidence[side][t, v]
                flags = 2.0 * (c > 0)
                entry[f"{side}hand_kpts"] = missing_as_zero(uv, flags).reshape(-1).tolist()
                entry[f"{side}hand_valid"] = bool(c.any())
            annotations.append(entry)
        images = [{"id": 900 + t, "file_name": f"frame_{t:05d}.jpg"} for t in range(N_FRAMES)]
        write(root / f"{name}.json", {"images": images, "annotations": annotations, "categories": []})


def instance(points: np.ndarray) -> dict:
    """MMPose's split_instances: the bbox comes out as a tuple around its list."""
    box = [*points[:, :2].min(axis=0).tolist(), *points[:, :2].max(axis=0).tolist()]
    return {
        "keypoints": points[:, :2].tolist(),
        "keypoint_scores": points[:, 2].tolist(),
        "bbox": [box],
        "bbox_score": 0.9,
    }


def lay_mmpose_video(seen: Seen, root: Path) -> None:
    for v, name in enumerate(seen.rig.names):
        write(
            root / f"{name}.json",
            [{"frame_id": t, "instances": [instance(as_whole_body(seen, t, v))]} for t in range(N_FRAMES)],
        )


def lay_mmpose_images(seen: Seen, root: Path) -> None:
    for t, v, name in each(seen):
        write(root / name / f"{t:06d}.json", [instance(as_whole_body(seen, t, v))])


def lay_mmpose_demo(seen: Seen, root: Path, order: tuple[int, ...] = tuple(range(21))) -> None:
    """--save-predictions of the demos, with a hand model: one instance a hand, no side, frames from 1."""
    for v, name in enumerate(seen.rig.names):
        info = [
            {
                "frame_id": t + 1,
                "instances": [instance(missing_as_zero(uv, c)[list(order)]) for _, uv, c in seen.hands(t, v)],
            }
            for t in range(N_FRAMES)
        ]
        write(root / f"results_{name}.json", {"meta_info": {"dataset_name": "x"}, "instance_info": info})


def lay_mmpose_both_hands(seen: Seen, root: Path) -> None:
    """InterHand2.6M's 42 points: right 0 to 20, left 21 to 41, tip to base, the wrist last."""
    back = list(inverse_order(INTERHAND_TO_OPENPOSE))
    for v, name in enumerate(seen.rig.names):
        frames = []
        for t in range(N_FRAMES):
            points = np.zeros((42, 3))
            for side, uv, c in seen.hands(t, v):
                points[{"right": 0, "left": 21}[side] :][:21] = missing_as_zero(uv, c)[back]
            frames.append({"frame_id": t, "instances": [instance(points)]})
        write(root / f"{name}.json", frames)


def normalised(seen: Seen, v: int, uv: np.ndarray) -> np.ndarray:
    return (uv + 0.5) / [seen.rig.cameras[v].width, seen.rig.cameras[v].height]


def lay_mediapipe(seen: Seen, root: Path, kind: str) -> None:
    """The layouts in which MediaPipe's results are dumped. All give 21 joints; sides are a mirror's, but Holistic's."""
    for v, name in enumerate(seen.rig.names):
        frames = []
        for t in range(N_FRAMES):
            hands = [(side, normalised(seen, v, uv)) for side, uv, _ in seen.hands(t, v)]
            points = [[{"x": x, "y": y, "z": -0.01} for x, y in uv] for _, uv in hands]
            words = [OTHER[side].capitalize() for side, _ in hands]
            frames.append(
                {
                    "tasks": {
                        "hand_landmarks": points,
                        "handedness": [[{"category_name": w, "score": 0.97, "index": 0}] for w in words],
                    },
                    "javascript": {
                        "frame": t,
                        "landmarks": points,
                        "handednesses": [[{"categoryName": w, "score": 0.97}] for w in words],
                    },
                    "solutions": {
                        "multi_hand_landmarks": [{"landmark": p} for p in points],
                        "multi_handedness": [
                            {"classification": [{"index": 0, "score": 0.97, "label": w}]} for w in words
                        ],
                    },
                    "holistic": {
                        "pose_landmarks": [],
                        **{f"{side}_hand_landmarks": p for (side, _), p in zip(hands, points, strict=True)},
                    },
                    "own": {
                        "hands": [
                            {"landmarks": uv.tolist(), "handedness": w} for w, (_, uv) in zip(words, hands, strict=True)
                        ]
                    },
                }[kind]
            )
        if kind == "own":
            write(root / f"{name}.json", {"fps": 30, "frames": {str(t): one for t, one in enumerate(frames)}})
        elif kind == "solutions":
            for t, one in enumerate(frames):
                write(root / name / f"frame_{t:04d}.json", one)
        else:
            write(root / f"{name}_landmarks.json", frames)


def lay_holistic_csv(seen: Seen, root: Path) -> None:
    """pyxy3d's table, a header and whole pixels: what int(x * width) makes of x = (u + 0.5) / width."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "xy_HOLISTIC.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            "sync_index,port,frame_index,frame_time,point_id,img_loc_x,img_loc_y,obj_loc_x,obj_loc_y".split(",")
        )
        for t in range(N_FRAMES):
            for v in range(len(seen.rig)):
                table.writerow([t, v, t, 0.1 * t, 0, 400, 300, "", ""])
                for side, uv, c in seen.hands(t, v):
                    for j in np.flatnonzero(c):
                        u, w = np.floor(uv[j] + 0.5).astype(int)
                        table.writerow([t, v, t, 0.1 * t, {"right": 100, "left": 200}[side] + j, u, w, "", ""])


def lay_hands_npz(seen: Seen, root: Path, single: bool = False) -> None:
    rows = [(t, name, side, uv, c) for t, v, name in each(seen) for side, uv, c in seen.hands(t, v)]
    root.mkdir(parents=True, exist_ok=True)
    for name in ["all"] if single else seen.rig.names:
        own = [row for row in rows if single or row[1] == name]
        columns = dict(
            zip(("frame", "camera", "side", "uv_px", "confidence"), map(np.array, zip(*own, strict=True)), strict=True)
        )
        columns["is_right"] = (columns.pop("side") == "right").astype(float)
        if not single:
            del columns["camera"]
        np.savez(root / f"{name}.npz", **columns)


def lay_hands_json(seen: Seen, root: Path) -> None:
    for v, name in enumerate(seen.rig.names):
        write(
            root / f"{name}.json",
            [
                {"frame": t, "side": side, "uv_px": uv.tolist(), "confidence": c.tolist()}
                for t in range(N_FRAMES)
                for side, uv, c in seen.hands(t, v)
            ],
        )


LAYOUTS: dict[str, tuple[str, Callable[[Seen, Path], None], bool]] = {
    "openpose": ("openpose", lay_openpose, True),
    "openpose in one folder": ("openpose", lambda s, p: lay_openpose(s, p, flat=True), True),
    "pose2sim": ("openpose", lay_pose2sim, True),
    "wholebody results": ("wholebody", lay_wholebody, True),
    "mmpose video": ("mmpose", lay_mmpose_video, True),
    "mmpose images": ("mmpose", lay_mmpose_images, True),
    "mmpose both hands": ("mmpose", lay_mmpose_both_hands, True),
    "hands npz": ("hands-npz", lay_hands_npz, True),
    "hands json": ("hands-npz", lay_hands_json, True),
    **{
        f"mediapipe {kind}": ("mediapipe", lambda s, p, kind=kind: lay_mediapipe(s, p, kind), False)
        for kind in ("tasks", "javascript", "solutions", "holistic", "own")
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip(seen, capture, tmp_path, layout):
    """What a program writes is told by itself, read, told apart, and on disk as it was laid out."""
    format, lay, states = LAYOUTS[layout]
    lay(seen, tmp_path / "in")
    assert find_format(tmp_path / "in") == format
    labels = import_labels(capture, tmp_path / "in", quiet=True)
    assert_same(labels, seen, states, all_joints=True)
    stored = load_labels(capture, "right")
    np.testing.assert_array_equal(stored.uv_px, labels["right"].uv_px)
    assert stored.detector == format


def test_mmpose_hands_without_sides(seen, capture, tmp_path):
    """A hand model says no side: the hands' bend does. Its joints may be in another data set's order."""
    rhd = inverse_order(mmpose.RHD_TO_OPENPOSE)
    for name, order in (("usual", tuple(range(21))), ("rhd", rhd), ("interhand", inverse_order(INTERHAND_TO_OPENPOSE))):
        lay_mmpose_demo(seen, tmp_path / name, order)
        assert_same(import_labels(capture, tmp_path / name, "mmpose", overwrite=True, quiet=True), seen, True)


def test_wholebody_annotations_by_file_name(seen, capture, tmp_path):
    lay_wholebody_annotations(seen, tmp_path / "in")
    sure = replace(seen, confidence={side: (c > 0).astype(float) for side, c in seen.confidence.items()})
    assert_same(import_labels(capture, tmp_path / "in", quiet=True), sure, True)


def test_holistic_csv(seen, capture, tmp_path):
    """Half a pixel of rounding, and no bias: the mean over 700 joints is within three standard errors of .29 px / sqrt(n)."""
    numbered = Rig(tuple(replace(camera, name=f"cam_{k}") for k, camera in enumerate(seen.rig.cameras)))
    seen, capture = replace(seen, rig=numbered), replace(capture, rig=numbered)
    lay_holistic_csv(seen, tmp_path / "in")
    for source in (tmp_path / "in", tmp_path / "in" / "xy_HOLISTIC.csv"):
        labels = import_labels(capture, source, overwrite=True, quiet=True)
        assert_same(labels, seen, False, px=0.51)
    error = np.concatenate([(one.uv_px - seen.uv_px[side])[one.mask] for side, one in labels.items()])
    assert np.abs(error.mean(axis=0)).max() < 3 * 12**-0.5 / len(error) ** 0.5


def test_one_npz_for_all_cameras(seen, capture, tmp_path):
    lay_hands_npz(seen, tmp_path, single=True)
    assert_same(import_labels(capture, tmp_path / "all.npz", quiet=True), seen, True)


def test_our_own_openpose_export_comes_back(seen, capture, tmp_path):
    for side in OTHER:
        write_openpose_json(Labels(seen.uv_px[side], seen.confidence[side], seen.rig.names, side, "x"), tmp_path / "in")
    assert (tmp_path / "in" / seen.rig.names[0] / "000004_keypoints.json").is_file()
    assert_same(import_labels(capture, tmp_path / "in", quiet=True), seen, True, px=1e-4)


# ---- what else can be in the files ---------------------------------------------------------------------------------


def test_several_people_in_openpose_files(capture, tmp_path, capsys):
    """Two people, in another order in every file: four files of labels, told so, and `--side right-2` reads one."""
    rig = capture.rig
    hands = {name: exact_uv(rig, joints) for name, joints in people(N_FRAMES).items()}
    rng = np.random.default_rng(0)
    for t in range(N_FRAMES):
        for v, camera in enumerate(rig.names):
            persons = [
                {
                    f"hand_{side}_keypoints_2d": np.c_[hands[f"{side} of {k}"][t, v], np.full(21, 0.9)]
                    .reshape(-1)
                    .tolist()
                    for side in OTHER
                }
                for k in rng.permutation(2)
            ]
            write(tmp_path / "in" / camera / f"{t:06d}_keypoints.json", {"people": persons})
    labels = import_labels(capture, tmp_path / "in")
    assert list(labels) == ["right", "right-2", "left", "left-2"] == list(capture.label_hands())
    said = capsys.readouterr().out
    assert "4 hands" in said and "--side right-2" in said
    found = {side: load_labels(capture, side).uv_px for side in ("right", "right-2")}
    for uv in found.values():
        assert any(np.allclose(uv, hands[f"right of {k}"], atol=1e-3) for k in range(2))
    assert np.abs(found["right"] - found["right-2"]).max() > 50
    # One person's hands later on: the other's files go.
    import_labels(capture, tmp_path / "in", max_hands=2, overwrite=True, quiet=True)
    assert capture.label_hands() == ("right", "left")


def test_sides_as_in_a_mirror_are_found_out(seen, capture, tmp_path, capsys):
    """Files whose sides are all wrong are swapped and said to be; asked not to, they are not."""
    lay_hands_json(
        replace(
            seen,
            uv_px={s: seen.uv_px[OTHER[s]] for s in OTHER},
            confidence={s: seen.confidence[OTHER[s]] for s in OTHER},
        ),
        tmp_path / "in",
    )
    assert_same(import_labels(capture, tmp_path / "in"), seen, True)
    assert "Sides are swapped: only 0 of" in capsys.readouterr().out
    lay_hands_json(seen, tmp_path / "good")
    assert_same(import_labels(capture, tmp_path / "good", overwrite=True), seen, True)
    assert "swapped" not in capsys.readouterr().out
    wrong = import_labels(capture, tmp_path / "good", overwrite=True, swap_sides="yes", quiet=True)
    assert wrong["right"].side == "right" and not np.allclose(wrong["right"].uv_px, seen.uv_px["right"], atol=1)


def test_pixels_in_a_mediapipe_file_are_pixels(seen, tmp_path):
    camera, uv = seen.rig.cameras[0], seen.uv_px["right"][0, 0]
    frame = {"hands": [{"landmarks": uv.tolist(), "handedness": "Left"}]}
    write(tmp_path / "c.json", [frame])
    (found,) = mediapipe.read(tmp_path / "c.json", camera)[0]
    np.testing.assert_allclose(found.uv_px, uv)
    assert found.side == "right"


def test_missing_is_a_mask_never_nan(seen, tmp_path):
    """NaN, null and zero confidence are missing joints; a hand without a joint is none."""
    camera = seen.rig.cameras[0]
    uv = seen.uv_px["right"][0, 0].tolist()
    holes = [[float("nan"), 1.0], [None, None], *uv[2:]]
    write(tmp_path / "h.json", [{"frame": 0, "side": "right", "uv_px": uv, "confidence": [float("nan"), *[0.5] * 20]}])
    write(tmp_path / "m.json", [{"hands": [{"landmarks": holes, "handedness": "Left"}]}])
    write(
        tmp_path / "0_keypoints.json",
        {"people": [{"hand_right_keypoints_2d": [0.0] * 63, "hand_left_keypoints_2d": []}]},
    )
    (one,) = hands_npz.read(tmp_path / "h.json", camera)[0]
    (two,) = mediapipe.read(tmp_path / "m.json", camera)[0]
    assert (one.confidence > 0).sum() == 20 and (two.confidence > 0).sum() == 19
    for found in (one, two):
        assert np.isfinite(found.uv_px).all() and (found.uv_px[found.confidence == 0] == 0).all()
    assert openpose.read(tmp_path / "0_keypoints.json", camera) == {0: []}


def test_a_hand_that_a_whole_body_model_only_guesses_is_none(seen, tmp_path):
    """133 points always have hands: where the median joint has a confidence of a tenth there is none."""
    faint = replace(
        seen, confidence={"right": seen.confidence["right"], "left": np.full_like(seen.confidence["left"], 0.1)}
    )
    lay_mmpose_video(faint, tmp_path)
    view = mmpose.read(tmp_path / f"{seen.rig.names[0]}.json", seen.rig.cameras[0])
    assert {one.side for hands in view.values() for one in hands} == {"right"}


def test_scores_above_one_are_one(seen, tmp_path):
    lay_mmpose_video(replace(seen, confidence={s: 3 * c for s, c in seen.confidence.items()}), tmp_path)
    view = mmpose.read(tmp_path / f"{seen.rig.names[0]}.json", seen.rig.cameras[0])
    assert max(one.confidence.max() for hands in view.values() for one in hands) == 1


def test_frames_are_counted_from_where_the_user_says(seen, capture, tmp_path):
    for t, v, name in each(seen):
        write(tmp_path / "in" / name / f"{t + 26:06d}.json", [instance(as_whole_body(seen, t, v))])
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "in")
    told(error, "frames 26 to 31", "0 to 5", "--first-frame 26")
    assert_same(import_labels(capture, tmp_path / "in", first_frame=26, quiet=True), seen, True)


def test_files_count_the_frames_of_their_own_video(seen, capture, tmp_path):
    """Camera c1 started two frames early and runs three longer: its files' frame t + 2 is the capture's frame t."""
    n = capture.n_frames
    shared = Overlap(((0, n), (2, n + 2), (0, n)), {"c1": (2, 3)})
    for t, v, name in each(seen):
        write(tmp_path / "in" / name / f"{t + 2 * (name == 'c1'):06d}.json", [instance(as_whole_body(seen, t, v))])
    late = replace(capture, overlap=shared)
    assert_same(import_labels(late, tmp_path / "in", quiet=True), seen, True)
    write(tmp_path / "in" / "c1" / f"{n + 5:06d}.json", [instance(as_whole_body(seen, 0, 1))])
    with pytest.raises(UsthandError) as error:
        import_labels(late, tmp_path / "in", overwrite=True)
    told(error, "of c1", f"its video has 0 to {n + 4}")


# ---- complaints ----------------------------------------------------------------------------------------------------


def test_cameras_that_do_not_match(seen, capture, tmp_path):
    lay_openpose(seen, tmp_path / "in")
    (tmp_path / "in" / "c1").rename(tmp_path / "in" / "middle")
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "in")
    told(error, "no labels of camera c1", "c0, c1, c2", "c0, c2, middle", "rename")
    lay_hands_npz(
        replace(seen, rig=Rig(tuple(replace(c, name=c.name.upper()) for c in seen.rig.cameras))), tmp_path, single=True
    )
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "all.npz")
    told(error, "C0, C1, C2", "c0, c1, c2")
    lay_holistic_csv(seen, tmp_path / "csv")
    shifted = replace(capture, rig=Rig(tuple(replace(c, name=f"cam_{k + 1}") for k, c in enumerate(seen.rig.cameras))))
    with pytest.raises(UsthandError) as error:
        import_labels(shifted, tmp_path / "csv")
    told(error, "ports 0, 1, 2", "cam_1, cam_2, cam_3")


def test_names_of_files_and_folders(tmp_path):
    """cam_1 is not cam_10; prefixes and suffixes of programs do no harm; what is not asked for does not either."""
    for name in (
        "results_cam_1.json",
        "cam_10_json/a_0.json",
        "cam_2_000_keypoints.json",
        "cam_2_001_keypoints.json",
        "other.json",
    ):
        write(tmp_path / name, {})
    found = camera_files(tmp_path, ("cam_1", "cam_10", "cam_2"), (".json",))
    assert {name: len(files) for name, files in found.items()} == {"cam_1": 1, "cam_10": 1, "cam_2": 2}


def test_labels_are_not_written_over(seen, capture, tmp_path):
    lay_openpose(seen, tmp_path / "in")
    import_labels(capture, tmp_path / "in", quiet=True)
    before = capture.labels_path("right").read_bytes()
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "in")
    told(error, "exists", "usthand import-labels", "--overwrite")
    assert capture.labels_path("right").read_bytes() == before


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_refuses_another_and_what_is_not_there(seen, capture, tmp_path, format):
    names = seen.rig.names
    suffix = {"holistic-csv": "csv", "hands-npz": "npz"}.get(format, "json")
    for name in names:
        path = tmp_path / "in" / (f"{name}/0_keypoints.json" if format == "openpose" else f"{name}.{suffix}")
        write(path, {"something": "else"})
    for source in (tmp_path / "in", tmp_path / "nothing"):
        with pytest.raises(UsthandError) as error:
            import_labels(capture, source, format)
        told(error, str(source))
    with pytest.raises(UsthandError):
        import_labels(capture, tmp_path / "in")
    assert not capture.label_hands()


def test_damaged_files(seen, capture, tmp_path):
    lay_openpose(seen, tmp_path / "in")
    path = tmp_path / "in" / "c2" / "c2_000000000003_keypoints.json"
    for content, words in (
        ("{", ("is not JSON",)),
        ('{"people": [{"hand_right_keypoints_2d": [1, 2, 3]}]}', ("3 numbers", "63")),
        (
            json.dumps({"people": [{"hand_left_keypoints_2d": [0.4, 0.5, 0.9] * 21}]}),
            ("normalised", "--keypoint_scale 0"),
        ),
    ):
        path.write_text(content)
        with pytest.raises(UsthandError) as error:
            import_labels(capture, tmp_path / "in")
        told(error, path.name, *words)
    write(tmp_path / "m" / "c0.json", [{"keypoints": [[1, 2]] * 17, "keypoint_scores": [1] * 17}])
    with pytest.raises(UsthandError) as error:
        mmpose.read(tmp_path / "m" / "c0.json", seen.rig.cameras[0])
    told(error, "17 points", "133")
    write(tmp_path / "w.json", [{"image_id": 0, "keypoints": [0] * 51}])
    with pytest.raises(UsthandError) as error:
        wholebody.read(tmp_path / "w.json", seen.rig.cameras[0])
    told(error, "51 numbers", "399")
    write(tmp_path / "p.json", [{"hands": [{"landmarks": [[0.1, 0.2]] * 20, "handedness": "Left"}]}])
    with pytest.raises(UsthandError) as error:
        mediapipe.read(tmp_path / "p.json", seen.rig.cameras[0])
    told(error, "p.json", "21 joints")
    write(tmp_path / "s.json", [{"hands": [{"landmarks": [[0.1, 0.2]] * 21, "handedness": "both"}]}])
    with pytest.raises(UsthandError) as error:
        mediapipe.read(tmp_path / "s.json", seen.rig.cameras[0])
    told(error, "'both'", "Left or Right")


def test_unknown_format(capture, tmp_path):
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path, "sapiens")
    told(error, "sapiens", "openpose", "holistic-csv")


def test_no_hand_that_two_views_agree_on(seen, capture, tmp_path):
    lay_openpose(seen, tmp_path / "in")
    for name in seen.rig.names[1:]:
        for path in (tmp_path / "in" / name).iterdir():
            write(path, {"people": []})
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "in")
    told(error, "two cameras at once", "12 hands in single images")
    assert not capture.label_hands()
