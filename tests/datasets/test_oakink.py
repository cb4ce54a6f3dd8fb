"""OakInk's readers on captures that are laid out as the official release is."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from support.dataset_scene import Hostile, assert_same_cameras, in_camera, moving_hand, ring, skinned, write_image
from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.datasets import reader
from usthand.datasets.base import check_recording, write_recording
from usthand.datasets.reading import timeline
from usthand.evaluation.truth import load_truth
from usthand.hand.io import load_hand

CAMERAS = ("north_east", "south_east", "north_west", "south_west")
SIZE = (848, 480)
SOLO, HANDOVER = "A01001_0001_0000/2021-09-26-19-59-58", "C20001_0004_0001_0003/2021-10-01-10-00-00"
FRAMES = (7, 8, 9, 10)


def write_person(root: Path, sequence: str, person: int, rig, hand, frames=FRAMES) -> list[list]:
    """All annotation files of one person and the images; returns the rows of seq_all.json."""
    rows = []
    for t, frame in enumerate(frames):
        for v, camera in enumerate(rig.cameras):
            stem = "__".join((*sequence.split("/"), str(person), str(frame), str(v)))
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = camera.rotation, camera.translation
            quaternions = Rotation.from_rotvec(hand.pose[t].reshape(16, 3)).as_quat()[:, [3, 0, 1, 2]]
            info = {
                "hand_anno": {
                    "hand_pose": torch.tensor(quaternions, dtype=torch.float32),
                    "hand_shape": torch.tensor(hand.shape, dtype=torch.float32),
                    "hand_tsl": torch.tensor(hand.joints_m[t, 0], dtype=torch.float32),
                },
                "cam_extr": torch.tensor(pose, dtype=torch.float32),
                "cam_intr": camera.matrix.astype(np.float32),
                "obj_anno": torch.eye(4),
            }
            files = {
                "cam_intr": camera.matrix.astype(np.float32),
                "general_info": info,
                "hand_j": in_camera(hand.joints_m[t], camera).astype(np.float32),
                "hand_v": in_camera(hand.vertices_m[t], camera).astype(np.float32),
            }
            for kind, content in files.items():
                path = root / "image" / "anno" / kind / f"{stem}.pkl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(pickle.dumps(content))
            write_image(
                root / "image" / "stream_release_v2" / sequence / f"{CAMERAS[v]}_color_{frame}.png", SIZE, 10 * v + t
            )
            rows.append([sequence, person, frame, v])
    return rows


def write_split(root: Path, folder: str, split: str, rows: list[list]) -> None:
    path = root / "image" / "anno" / "split" / folder / f"seq_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    random.Random(0).shuffle(rows)
    path.write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """One person alone and a handover of two, four cameras; the test view of split 0 is the third."""
    root, rig, other = tmp_path_factory.mktemp("made") / "OakInk", ring(CAMERAS, SIZE, 1), ring(CAMERAS, SIZE, 2)
    hands = {(SOLO, 0): moving_hand(4, 1), (HANDOVER, 0): moving_hand(4, 2), (HANDOVER, 1): moving_hand(4, 3)}
    rows = []
    for (sequence, person), hand in hands.items():
        rows += write_person(root, sequence, person, rig if sequence == SOLO else other, hand)
    write_split(root, "split0", "train", [row for row in rows if row[3] != 2])
    write_split(root, "split0", "test", [row for row in rows if row[3] == 2])
    write_split(root, "split2", "train", [row for row in rows if row[0] == HANDOVER])
    # Images that show less than half of the joints are not in the splits of single views.
    write_split(root, "split2", "test", [row for row in rows if row[0] == SOLO and not (row[2] == 8 and row[3] > 0)])
    return root, {SOLO: rig, HANDOVER: other}, hands


@pytest.fixture
def oakink(release, tmp_path):
    """The release, to be spoilt."""
    root, rigs, hands = release
    return shutil.copytree(root, tmp_path / "OakInk"), rigs, hands


def read(root, dataset="oakink-mv", split="test", protocol="", hand=None):
    return list(reader(dataset)(root, split, protocol, hand))


def test_cameras_joints_meshes_and_poses_come_back(release):
    root, rigs, hands = release
    (found,) = read(root, hand=load_hand())
    hand = hands[SOLO, 0]
    assert found.name == "A01001_0001_0000__2021-09-26-19-59-58__0"
    assert (found.dataset, found.protocol, found.split) == ("oakink-mv", "objects", "test")
    assert_same_cameras(found.rig, rigs[SOLO])
    assert found.present.shape == (4, 4) and found.present.all() and found.note == ""
    ((side, truth),) = [(h.side, h.truth) for h in found.hands]
    assert side == "right" and truth.valid.all()
    np.testing.assert_allclose(truth.joints_world_m, hand.joints_m, atol=2e-6)
    np.testing.assert_allclose(truth.vertices_world_m, hand.vertices_m, atol=2e-6)
    np.testing.assert_allclose(truth.shape, hand.shape, atol=1e-6)
    np.testing.assert_allclose(truth.translation_m, hand.translation_m, atol=2e-6)
    vertices, _ = skinned(truth.pose, truth.shape, truth.translation_m)
    np.testing.assert_allclose(vertices, hand.vertices_m, atol=1e-5)


def test_the_check_finds_exact_views_and_a_palm_of_human_width(release):
    root, _, hands = release
    numbers = check_recording(read(root)[0])["right"]
    assert numbers["frames"] == 4 and numbers["residual_px"] < 0.01 and numbers["truth_px"] < 0.01
    palm = np.linalg.norm(hands[SOLO, 0].joints_m[:, 5] - hands[SOLO, 0].joints_m[:, 17], axis=-1)
    assert numbers["palm_mm"] == pytest.approx(1000 * np.median(palm), abs=0.01)


def test_a_capture_is_written_and_read_back(release, tmp_path):
    root, rigs, hands = release
    folder = write_recording(read(root)[0], tmp_path / "out")
    capture = open_capture(folder)
    assert_same_cameras(capture.rig, rigs[SOLO])
    shades = [image[0, 0, 0] for _, image in capture.read("south_west")]
    assert shades == [30, 31, 32, 33]
    np.testing.assert_allclose(load_truth(folder, "right").vertices_world_m, hands[SOLO, 0].vertices_m, atol=2e-6)
    assert capture.label_sides() == ()  # truth does not become a label


def test_the_multi_view_set_has_all_views_of_frames_of_which_the_split_has_any(release):
    root, _, _ = release
    (single,), (multi,) = read(root, "oakink-image", protocol="objects"), read(root)
    np.testing.assert_array_equal(single.present, [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert multi.present.all()


def test_each_person_of_a_handover_is_a_recording_of_its_own(release):
    root, rigs, hands = release
    found = read(root, split="train+val")
    assert [r.name[-3:] for r in found] == ["__0", "__1"]
    for person, recording in enumerate(found):
        truth = recording.hands[0].truth
        np.testing.assert_allclose(truth.joints_world_m, hands[HANDOVER, person].joints_m, atol=2e-6)
        assert_same_cameras(recording.rig, rigs[HANDOVER])
    assert found[0].images == found[1].images


def test_split_0_keeps_one_view_for_the_test(release):
    root, rigs, _ = release
    train, test = read(root, "oakink-image", "train+val"), read(root, "oakink-image", "test")
    assert [r.rig.names for r in test] == [("north_west",)] * 3
    assert [r.rig.names for r in train] == [tuple(c for c in CAMERAS if c != "north_west")] * 3
    np.testing.assert_allclose(test[0].rig.cameras[0].matrix, rigs[SOLO].cameras[2].matrix, rtol=1e-6)


def test_a_lost_image_loses_one_view_of_one_frame(oakink):
    root, _, hands = oakink
    whole = read(root)[0]
    lost = root / "image" / "stream_release_v2" / SOLO / "south_east_color_9.png"
    lost.unlink()
    (found,) = read(root)
    expected = np.ones((4, 4), bool)
    expected[2, 1] = False
    np.testing.assert_array_equal(found.present, expected)
    assert [
        [a == b for a, b in zip(x, y, strict=True)] for x, y in zip(found.images, whole.images, strict=True)
    ] == expected.tolist()
    np.testing.assert_allclose(found.hands[0].truth.joints_world_m, hands[SOLO, 0].joints_m, atol=2e-6)
    np.testing.assert_array_equal(found.hands[0].truth.visible.any(-1), expected)


def test_a_view_without_annotation_takes_the_truth_of_the_others(oakink):
    root, rigs, hands = oakink
    for frame, view in ((7, 0), (7, 1), (10, 3)):
        stem = SOLO.replace("/", "__") + f"__0__{frame}__{view}.pkl"
        for kind in ("cam_intr", "general_info", "hand_j", "hand_v"):
            (root / "image" / "anno" / kind / stem).unlink()
    (found,) = read(root)
    assert found.present.all()
    assert_same_cameras(found.rig, rigs[SOLO])
    np.testing.assert_allclose(found.hands[0].truth.vertices_world_m, hands[SOLO, 0].vertices_m, atol=2e-6)
    assert not found.hands[0].annotated.mask[0, :2].any() and found.hands[0].annotated.mask[0, 2:].any()


def turn_round(root: Path, sequence: str, frame: int, view: int, kind: str = "cam_extr") -> None:
    """Swap the two directions of a camera's pose in one file."""
    path = root / "image" / "anno" / "general_info" / (sequence.replace("/", "__") + f"__0__{frame}__{view}.pkl")
    info = pickle.loads(path.read_bytes())
    info[kind] = torch.linalg.inv(info[kind])
    path.write_bytes(pickle.dumps(info))


def test_poses_of_the_wrong_direction_are_refused(oakink):
    root, _, _ = oakink
    for frame in FRAMES:
        for view in range(4):
            turn_round(root, SOLO, frame, view)
    with pytest.raises(UsthandError, match=r"the views of A01001.* place the hand \d+ mm apart"):
        read(root)


def test_one_frame_in_which_the_views_disagree_is_left_without_truth(oakink):
    root, _, hands = oakink
    path = root / "image" / "anno" / "hand_j" / (SOLO.replace("/", "__") + "__0__8__1.pkl")
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) + np.float32(0.03)))
    (found,) = read(root)
    truth = found.hands[0].truth
    np.testing.assert_array_equal(truth.valid, [True, False, True, True])
    assert not truth.joints_world_m[1].any() and not truth.vertices_world_m[1].any()
    np.testing.assert_allclose(truth.joints_world_m[2:], hands[SOLO, 0].joints_m[2:], atol=2e-6)
    assert "1 frames are left without truth" in found.note


def test_a_frame_that_is_not_in_the_split_stays_as_a_gap_in_time(oakink):
    root, _, hands = oakink
    file = root / "image" / "anno" / "split" / "split2" / "seq_test.json"
    file.write_text(json.dumps([row for row in json.loads(file.read_text()) if row[2] != 8]))
    (found,) = read(root)
    np.testing.assert_array_equal(found.present, [[1] * 4, [0] * 4, [1] * 4, [1] * 4])
    truth = found.hands[0].truth
    np.testing.assert_array_equal(truth.valid, [True, False, True, True])
    np.testing.assert_allclose(truth.joints_world_m[2:], hands[SOLO, 0].joints_m[2:], atol=2e-6)


@pytest.mark.parametrize(
    "numbers, rows",
    [
        ([], []),
        ([5], [5]),
        ([9, 12, 18, 15], [9, 12, 15, 18]),
        ([1, 2, 5, 6], [1, 2, 3, 4, 5, 6]),
        ([3, 6, 12], [3, 6, 9, 12]),
        ([3, 6, 9, 10], [3, 6, 9, 10]),
        ([1, 2, 100], [1, 2, 100]),
    ],
)
def test_the_timeline_has_the_lost_frames_but_no_long_breaks(numbers, rows):
    assert timeline(numbers) == rows


def test_without_mano_there_is_a_mesh_but_no_translation(release):
    truth = read(release[0])[0].hands[0].truth
    assert truth.has_mesh and truth.pose.shape == (4, 48) and truth.translation_m.shape == (0, 3)


@pytest.mark.parametrize("kind", ["cam_intr", "hand_j", "hand_v", "general_info"])
def test_a_hostile_pickle_is_refused_and_not_run(oakink, tmp_path, kind):
    root, _, _ = oakink
    path = root / "image" / "anno" / kind / (SOLO.replace("/", "__") + "__0__7__0.pkl")
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "marker")))
    with pytest.raises(UsthandError, match="which was not run"):
        read(root)
    assert not (tmp_path / "marker").exists()


def test_what_is_misspelt_missing_or_damaged_is_told(oakink):
    root, _, _ = oakink
    with pytest.raises(UsthandError, match="no protocol 'view'"):
        read(root, "oakink-image", protocol="view")
    with pytest.raises(UsthandError, match="no protocol 'views'"):
        read(root, protocol="views")  # one view per sequence is in that test set
    with pytest.raises(UsthandError, match="no split 'testing'"):
        read(root, split="testing")
    with pytest.raises(UsthandError, match=r"there is no .*example_split_val.json"):
        read(root, split="val")
    with pytest.raises(UsthandError, match=r"there is no .*seq_test.json"):
        read(root.parent)
    (root / "image" / "anno" / "split" / "split2" / "seq_test.json").write_text('[["x", 0, 1]]')
    with pytest.raises(UsthandError, match="no list of samples"):
        read(root)


def test_a_sequence_without_images_on_disk_is_passed_over(oakink):
    root, _, _ = oakink
    for path in (root / "image" / "stream_release_v2" / HANDOVER).iterdir():
        path.unlink()
    assert [r.name for r in read(root, "oakink-image", "train+val")] == ["A01001_0001_0000__2021-09-26-19-59-58__0"]
