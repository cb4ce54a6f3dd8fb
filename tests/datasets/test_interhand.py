"""InterHand2.6M's reader on captures that are laid out as the official release is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.dataset_scene import assert_same_cameras, moving_hand, ring, skinned, write_image
from usthand.capture.capture import open_capture
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.datasets import reader
from usthand.datasets.base import check_recording, write_recording
from usthand.evaluation.truth import load_truth
from usthand.hand.io import load_hand
from usthand.hand.skeleton import FINGERS

SIZE = (334, 512)
CAMERAS = ("cam400053", "cam400262", "cam410001")
BOTH, ONE = "ROM04_RT_Occlusion", "0000_neutral_relaxed"
FRAMES = {BOTH: (9, 12, 15, 102), ONE: (230, 233, 236, 239)}  # strings would sort 102 before 12
TIP_TO_BASE = [j for finger in FINGERS.values() for j in reversed(finger)] + [0]


class Release:
    """The annotation files, as tables to be spoilt before they are written."""

    def __init__(self, root: Path, split: str = "test"):
        self.root, self.split, self.serial = root, split, 0
        self.data = {"images": [], "annotations": []}
        self.cameras, self.joints, self.mano = {}, {}, {}

    def add(self, capture: int, sequence: str, rig: Rig, hands: dict, frames: tuple[int, ...], hand_type: str) -> None:
        table = self.cameras.setdefault(str(capture), {key: {} for key in ("campos", "camrot", "focal", "princpt")})
        for camera in rig.cameras:
            number = camera.name.removeprefix("cam")
            table["campos"][number] = (1000 * camera.centre_world).tolist()
            table["camrot"][number] = camera.rotation.tolist()
            table["focal"][number] = [camera.matrix[0, 0], camera.matrix[1, 1]]
            table["princpt"][number] = camera.matrix[:2, 2].tolist()
        for t, frame in enumerate(frames):
            world, valid = np.ones((42, 3)), np.zeros((42, 1))  # what is not annotated is no zero
            fits = {"right": None, "left": None}
            for side, hand in hands.items():
                at = slice(0, 21) if side == "right" else slice(21, 42)
                world[at], valid[at] = 1000 * hand.joints_m[t][TIP_TO_BASE], 1
                pose = hand.pose[t].copy()
                pose[3:] -= load_hand(side=side).hands_mean.double().numpy()
                fits[side] = {
                    "pose": pose.tolist(),
                    "shape": hand.shape.tolist(),
                    "trans": hand.translation_m[t].tolist(),
                }
            entry = {
                "world_coord": world.tolist(),
                "joint_valid": valid.tolist(),
                "hand_type": hand_type,
                "hand_type_valid": [1],
            }
            self.joints.setdefault(str(capture), {})[str(frame)] = entry
            self.mano.setdefault(str(capture), {})[str(frame)] = fits
            for camera in rig.cameras:
                self.add_image(capture, sequence, camera.name, frame, valid, hand_type)

    def add_image(self, capture, sequence, camera, frame, valid, hand_type) -> None:
        self.serial += 1
        name = f"Capture{capture}/{sequence}/{camera}/image{frame}.jpg"
        self.data["images"].append(
            {
                "id": self.serial,
                "file_name": name,
                "width": SIZE[0],
                "height": SIZE[1],
                "capture": capture,
                "subject": 3,
                "seq_name": sequence,
                "camera": camera.removeprefix("cam"),
                "frame_idx": frame,
            }
        )
        self.data["annotations"].append(
            {
                "id": 1000 + self.serial,
                "image_id": self.serial,
                "bbox": [1.0, 2.0, 30.0, 40.0],
                "joint_valid": valid.tolist(),
                "hand_type": hand_type,
                "hand_type_valid": 1,
            }
        )
        write_image(self.root / "images" / self.split / name, SIZE)

    def write(self) -> Path:
        folder = self.root / "annotations" / self.split
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"data": self.data, "camera": self.cameras, "joint_3d": self.joints, "MANO_NeuralAnnot": self.mano}
        for name, table in tables.items():
            (folder / f"InterHand2.6M_{self.split}_{name}.json").write_text(json.dumps(table))
        return self.root


@pytest.fixture
def made(tmp_path):
    """Two hands in capture 10 and a left one in capture 2, whose cameras stand elsewhere."""
    release, rigs = (
        Release(tmp_path / "InterHand2.6M_5fps_batch1"),
        {BOTH: ring(CAMERAS, SIZE, 3), ONE: ring(CAMERAS, SIZE, 4)},
    )
    hands = {"right": moving_hand(4, 11), "left": moving_hand(4, 12, "left")}
    release.add(10, BOTH, rigs[BOTH], hands, FRAMES[BOTH], "interacting")
    release.add(2, ONE, rigs[ONE], {"left": hands["left"]}, FRAMES[ONE], "left")
    return release, rigs, hands


def read(release: Release, protocol="", hand=None, split="test"):
    return list(reader("interhand26m")(release.write(), split, protocol, hand))


def sides(recording):
    return {hand.side: hand.truth for hand in recording.hands}


def test_cameras_joints_and_meshes_of_both_hands_come_back(made):
    release, rigs, hands = made
    one, both = read(release, hand=load_hand())
    assert (one.name, both.name) == (f"Capture2_{ONE}", f"Capture10_{BOTH}") and one.fps == 5.0
    for recording, sequence in ((one, ONE), (both, BOTH)):
        assert_same_cameras(recording.rig, rigs[sequence])
        assert recording.present.all() and recording.note == ""
        assert [row[0].name for row in recording.images] == [f"image{frame}.jpg" for frame in FRAMES[sequence]]
    assert set(sides(one)) == {"left"} and set(sides(both)) == {"right", "left"}
    for side, truth in [*sides(both).items(), *sides(one).items()]:
        assert truth.valid.all()
        np.testing.assert_allclose(truth.joints_world_m, hands[side].joints_m, atol=1e-6)
        np.testing.assert_allclose(truth.vertices_world_m, hands[side].vertices_m, atol=1e-6)
        np.testing.assert_allclose(truth.pose, hands[side].pose, atol=1e-6)
        again, _ = skinned(truth.pose, truth.shape, truth.translation_m, side)
        np.testing.assert_allclose(again, hands[side].vertices_m, atol=1e-5)


def test_the_check_knows_a_wrong_camera_convention(made):
    release, rigs, hands = made
    numbers = check_recording(read(release)[1])
    for side, found in numbers.items():
        palm = np.linalg.norm(hands[side].joints_m[:, 5] - hands[side].joints_m[:, 17], axis=-1)
        assert found["palm_mm"] == pytest.approx(1000 * np.median(palm), abs=0.01) and found["inside"] > 0.9
    for camera in rigs[BOTH].cameras:  # a translation in place of the camera's position
        release.cameras["10"]["campos"][camera.name[3:]] = (1000 * camera.translation).tolist()
    assert all(found["inside"] < 0.5 for found in check_recording(read(release)[1]).values())


def test_one_shape_for_all_frames_leaves_the_wrist_where_it_was(made):
    """The release has a shape for each frame, truth has one for all; and MANO's wrist at rest moves with the shape."""
    release, _, hands = made
    plain, along = load_hand(dtype=torch.float64), torch.from_numpy(np.random.default_rng(0).normal(0, 0.01, (3, 10)))
    model = replace(plain, shapedirs=plain.shapedirs + along, joints_shapedirs=plain.joints_shapedirs + along)

    def posed(pose, shapes, shift):
        pose, shapes, shift = (torch.from_numpy(np.asarray(a, np.float64)) for a in (pose, shapes, shift))
        made = model.with_shape(shapes).with_pose(model.rotations(pose, flat_hand_mean=True), shift)
        return made.vertices.numpy(), made.joints.numpy()

    hand = hands["right"]
    shapes = hand.shape + 0.3 * np.arange(4)[:, None]
    vertices, joints = posed(hand.pose, shapes, hand.translation_m)
    for t, frame in enumerate(FRAMES[BOTH]):
        release.mano["10"][str(frame)]["right"]["shape"] = shapes[t].tolist()
        release.joints["10"][str(frame)]["world_coord"][:21] = (1000 * joints[t][TIP_TO_BASE]).tolist()
        release.mano["10"][str(frame)]["left"] = None
    release.mano["2"] = {}
    truth = sides(read(release, hand=model)[1])["right"]
    np.testing.assert_allclose(truth.vertices_world_m, vertices, atol=1e-6)
    np.testing.assert_allclose(truth.shape, np.median(shapes, 0), atol=1e-9)
    np.testing.assert_allclose(posed(truth.pose, truth.shape, truth.translation_m)[1][:, 0], joints[:, 0], atol=1e-6)


def test_without_mano_there_are_joints_alone(made):
    release, _, hands = made
    truth = sides(read(release)[1])["left"]
    assert not truth.has_mesh and truth.pose.shape == (0, 48)
    np.testing.assert_allclose(truth.joints_world_m, hands["left"].joints_m, atol=1e-6)


def test_frames_with_a_joint_that_is_not_annotated_are_not_valid(made):
    release, _, hands = made
    release.joints["10"]["12"]["joint_valid"][5] = [0]
    release.joints["10"]["12"]["world_coord"][5] = [1.0, 1.0, 1.0]
    del release.joints["10"]["15"]
    recording = read(release)[1]
    truth = sides(recording)
    np.testing.assert_array_equal(truth["right"].valid, [True, False, False, True])
    np.testing.assert_array_equal(truth["left"].valid, [True, True, False, True])
    assert not truth["right"].joints_world_m[1:3].any()
    np.testing.assert_allclose(truth["right"].joints_world_m[3], hands["right"].joints_m[3], atol=1e-6)
    assert recording.note == "1 frames of the right hand are left without truth: a joint is not annotated"


def test_visible_says_which_joints_an_image_has(made):
    release, _, _ = made
    first = next(a for a in release.data["annotations"])  # capture 10, frame 9, first camera
    first["joint_valid"][3], first["joint_valid"][41] = [0], [0]  # the thumb's base of the right hand, the left wrist
    truth = sides(read(release)[1])
    for side, joint in (("right", 1), ("left", 0)):
        expected = np.ones((4, 3, 21), bool)
        expected[0, 0, joint] = False
        np.testing.assert_array_equal(truth[side].visible, expected)


def test_few_frames_without_mesh_are_given_up_and_many_give_up_the_mesh(tmp_path):
    release, hand = Release(tmp_path), moving_hand(12, 14)
    release.add(0, ONE, ring(CAMERAS[:2], SIZE, 4), {"right": hand}, tuple(range(12)), "right")
    release.mano["0"]["4"]["right"] = None
    (few,) = read(release, hand=load_hand())
    truth = few.hands[0].truth
    np.testing.assert_array_equal(np.flatnonzero(~truth.valid), [4])
    assert truth.has_mesh and "1 frames of the right hand are left without truth: they have no mesh" in few.note
    release.mano["0"]["5"] = {}
    (many,) = read(release, hand=load_hand())
    assert not many.hands[0].truth.has_mesh and many.hands[0].truth.valid.all()
    assert "no meshes of the right hand: 2 frames have none" in many.note


def test_a_lost_image_loses_one_view_of_one_frame_and_a_lost_camera_itself(made):
    release, rigs, hands = made
    folder = release.root / "images" / "test" / "Capture10" / BOTH
    (folder / CAMERAS[1] / "image15.jpg").unlink()
    for path in (folder / CAMERAS[2]).iterdir():
        path.unlink()
    recording = read(release)[1]
    assert_same_cameras(recording.rig, Rig(rigs[BOTH].cameras[:2]))
    np.testing.assert_array_equal(recording.present, [[1, 1], [1, 1], [1, 0], [1, 1]])
    np.testing.assert_allclose(sides(recording)["right"].joints_world_m, hands["right"].joints_m, atol=1e-6)


def test_sequences_that_were_not_downloaded_are_passed_over(made):
    release, _, _ = made
    for path in (release.root / "images" / "test" / "Capture10").rglob("*.jpg"):
        path.unlink()
    assert [r.name for r in read(release)] == [f"Capture2_{ONE}"]


def test_the_human_protocol_keeps_the_listed_annotations(made):
    release, _, _ = made
    with pytest.raises(UsthandError, match=r"there is no aid_human_annot_test.txt"):
        read(release, "human")
    kept = [
        a["id"]
        for a, i in zip(release.data["annotations"], release.data["images"], strict=True)
        if i["capture"] == 10 and (i["frame_idx"], i["camera"]) != (9, "400262")
    ]
    (release.root / "annotations" / "aid_human_annot_test.txt").write_text("\n".join(map(str, kept)))
    (found,) = read(release, "human")
    assert found.protocol == "human"
    np.testing.assert_array_equal(found.present, [[1, 0, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]])


def test_the_layout_of_the_first_release_is_known(made):
    release, _, _ = made
    release.write()
    (release.root / "annotations" / "test").rename(release.root / "annotations" / "all")
    assert len(list(reader("interhand26m")(release.root, "test", "all", None))) == 2


def test_the_frame_rate_is_the_downloads(tmp_path):
    release = Release(tmp_path / "InterHand2.6M_30fps_batch1")
    release.add(0, ONE, ring(CAMERAS[:2], SIZE, 4), {"right": moving_hand(2)}, (1, 2), "right")
    assert read(release)[0].fps == 30.0


def test_a_capture_is_written_and_read_back(made, tmp_path):
    release, rigs, hands = made
    folder = write_recording(read(release)[1], tmp_path / "out")
    capture = open_capture(folder)
    assert_same_cameras(capture.rig, rigs[BOTH])
    assert [image.shape for _, image in capture.read(CAMERAS[0])] == [(512, 334, 3)] * 4
    for side in ("right", "left"):
        np.testing.assert_allclose(load_truth(folder, side).joints_world_m, hands[side].joints_m, atol=1e-6)


def test_what_is_misspelt_missing_or_damaged_is_told(made):
    release, _, _ = made
    with pytest.raises(UsthandError, match="no split 'evaluation'"):
        read(release, split="evaluation")
    with pytest.raises(UsthandError, match="no protocol 'machine'"):
        read(release, "machine")
    with pytest.raises(UsthandError, match=r"there is no InterHand2.6M_train_data.json"):
        read(release, split="train")
    release.data["images"][0]["width"] = 512
    with pytest.raises(UsthandError, match="images of several sizes"):
        read(release)
    release.data["images"][0]["width"] = SIZE[0]
    del release.cameras["2"]["focal"]["400262"]
    with pytest.raises(UsthandError, match=r"camera 400262 of Capture2.* has no usable pose"):
        read(release)
    release.write()
    for name, message in (("joint_3d", "cannot be read"), ("camera", "cannot be read"), ("data", "cannot be read")):
        path = release.root / "annotations" / "test" / f"InterHand2.6M_test_{name}.json"
        path.write_text(path.read_text()[:-20])
        with pytest.raises(UsthandError, match=message):
            list(reader("interhand26m")(release.root, "test", "", None))


def test_another_hand_than_mano_is_refused(made):
    with pytest.raises(UsthandError, match=r"the meshes of Capture2_.* lie \d+ mm from its joints"):
        read(made[0], hand=load_hand(side="left"))
