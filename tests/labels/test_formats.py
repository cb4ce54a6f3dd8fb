"""Readers of other programs' files: each layout read back to the hands that were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.label_files import (
    OTHER,
    Seen,
    assert_same,
    told,
    write,
    write_hands_json,
    write_hands_npz,
    write_holistic_csv,
    write_mediapipe,
    write_mmpose_both_hands,
    write_mmpose_demo,
    write_mmpose_images,
    write_mmpose_video,
    write_openpose,
    write_pose2sim,
    write_wholebody,
    write_wholebody_annotations,
)
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.hand.skeleton import INTERHAND_TO_OPENPOSE, inverse_order
from usthand.labels.formats import hands_npz, mediapipe, mmpose, openpose, wholebody
from usthand.labels.formats.base import camera_files
from usthand.labels.formats.openpose import write_openpose_json
from usthand.labels.importing import ImportConfig, find_format, import_labels
from usthand.labels.labels import Labels, load_labels

LAYOUTS: dict[str, tuple[str, Callable[[Seen, Path], None], bool]] = {
    "openpose": ("openpose", write_openpose, True),
    "openpose in one folder": ("openpose", lambda s, p: write_openpose(s, p, flat=True), True),
    "pose2sim": ("openpose", write_pose2sim, True),
    "wholebody results": ("wholebody", write_wholebody, True),
    "mmpose video": ("mmpose", write_mmpose_video, True),
    "mmpose images": ("mmpose", write_mmpose_images, True),
    "mmpose both hands": ("mmpose", write_mmpose_both_hands, True),
    "hands npz": ("hands-npz", write_hands_npz, True),
    "hands json": ("hands-npz", write_hands_json, True),
    **{
        f"mediapipe {kind}": ("mediapipe", lambda s, p, kind=kind: write_mediapipe(s, p, kind), False)
        for kind in ("tasks", "javascript", "solutions", "holistic", "own")
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip(seen, capture, tmp_path, layout):
    """What a program writes is told by itself, read, told apart, and on disk as it was written."""
    format, writer, states = LAYOUTS[layout]
    writer(seen, tmp_path / "in")
    assert find_format(tmp_path / "in") == format
    labels = import_labels(capture, tmp_path / "in")
    assert_same(labels, seen, states, all_joints=True)
    stored = load_labels(capture, "right")
    np.testing.assert_array_equal(stored.uv_px, labels["right"].uv_px)
    assert stored.detector == format


def test_mmpose_hands_without_sides(seen, capture, tmp_path):
    """A hand model says no side: the hands' bend does. Its joints may be in another data set's order."""
    rhd = inverse_order(mmpose.RHD_TO_OPENPOSE)
    for name, order in (("usual", tuple(range(21))), ("rhd", rhd), ("interhand", inverse_order(INTERHAND_TO_OPENPOSE))):
        write_mmpose_demo(seen, tmp_path / name, order)
        assert_same(import_labels(capture, tmp_path / name, ImportConfig(format="mmpose", overwrite=True)), seen, True)


def test_wholebody_annotations_by_file_name(seen, capture, tmp_path):
    write_wholebody_annotations(seen, tmp_path / "in")
    sure = replace(seen, confidence={side: (c > 0).astype(float) for side, c in seen.confidence.items()})
    assert_same(import_labels(capture, tmp_path / "in"), sure, True)


def test_holistic_csv(seen, capture, tmp_path):
    """Half a pixel of rounding, no bias: the mean of 700 joints is within three standard errors, .29 px / sqrt(n)."""
    numbered = Rig(tuple(replace(camera, name=f"cam_{k}") for k, camera in enumerate(seen.rig.cameras)))
    seen, capture = replace(seen, rig=numbered), replace(capture, rig=numbered)
    write_holistic_csv(seen, tmp_path / "in")
    for source in (tmp_path / "in", tmp_path / "in" / "xy_HOLISTIC.csv"):
        labels = import_labels(capture, source, ImportConfig(overwrite=True))
        assert_same(labels, seen, False, px=0.51)
    error = np.concatenate([(one.uv_px - seen.uv_px[side])[one.mask] for side, one in labels.items()])
    assert np.abs(error.mean(axis=0)).max() < 3 * 12**-0.5 / len(error) ** 0.5


def test_one_npz_for_all_cameras(seen, capture, tmp_path):
    write_hands_npz(seen, tmp_path, single=True)
    assert_same(import_labels(capture, tmp_path / "all.npz"), seen, True)


def test_our_own_openpose_export_comes_back(seen, capture, tmp_path):
    for side in OTHER:
        write_openpose_json(Labels(seen.uv_px[side], seen.confidence[side], seen.rig.names, side, "x"), tmp_path / "in")
    assert (tmp_path / "in" / seen.rig.names[0] / "000004_keypoints.json").is_file()
    assert_same(import_labels(capture, tmp_path / "in"), seen, True, px=1e-4)


# ---- what else can be in the files ---------------------------------------------------------------------------------


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
    write_mmpose_video(faint, tmp_path)
    view = mmpose.read(tmp_path / f"{seen.rig.names[0]}.json", seen.rig.cameras[0])
    assert {one.side for hands in view.values() for one in hands} == {"right"}


def test_scores_above_one_are_one(seen, tmp_path):
    write_mmpose_video(replace(seen, confidence={s: 3 * c for s, c in seen.confidence.items()}), tmp_path)
    view = mmpose.read(tmp_path / f"{seen.rig.names[0]}.json", seen.rig.cameras[0])
    assert max(one.confidence.max() for hands in view.values() for one in hands) == 1


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


def test_damaged_files(seen, capture, tmp_path):
    write_openpose(seen, tmp_path / "in")
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
