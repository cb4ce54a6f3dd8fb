"""HO-3D's readers on captures that are laid out as the official releases are."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from support.dataset_scene import Hand, Hostile, assert_same_cameras, in_camera, moving_hand, ring, skinned, write_image
from usthand.capture.capture import open_capture
from usthand.capture.rig import Camera, Rig
from usthand.common.errors import UsthandError
from usthand.datasets import reader
from usthand.datasets.base import check_recording, write_recording
from usthand.evaluation.truth import load_truth
from usthand.hand.io import load_hand
from usthand.hand.skeleton import MANO_TO_OPENPOSE, inverse_order

SIZE = (640, 480)
OPENGL = np.diag([1.0, -1.0, -1.0])
IDS = ("0008", "0009", "0010", "0011")
ORDER = (1, 3, 0, 2, 4)  # of its own inverse it differs, so that the two readings of the calibration do


def write_view(
    root: Path, folder: str, name: str, camera: Camera, hand: Hand, suffix: str, ids=IDS, root_only=False
) -> list[str]:
    """One sequence of one camera; returns its lines of train.txt or evaluation.txt."""
    model_root = load_hand().with_shape(np_tensor(hand.shape)).rest_joints[0].double().numpy()
    for t, number in enumerate(ids):
        to_gl = OPENGL @ camera.rotation  # from the world into the camera's OpenGL axes
        joints = in_camera(hand.joints_m[t], camera) @ OPENGL
        meta = {
            "camMat": camera.matrix.astype(np.float64),
            "handBoundingBox": [1, 2, 3, 4],
            "objName": "021_bleach_cleanser",
            "objRot": np.zeros((3, 1), np.float32),
            "objTrans": np.zeros(3, np.float32),
            "objLabel": 12,
            "handJoints3D": joints[0].astype(np.float32),
        }
        if not root_only:
            turned = Rotation.from_matrix(to_gl) * Rotation.from_rotvec(hand.pose[t, :3])
            meta |= {
                "handJoints3D": joints[list(inverse_order(MANO_TO_OPENPOSE))].astype(np.float32),
                "handPose": np.concatenate([turned.as_rotvec(), hand.pose[t, 3:]]).astype(np.float32),
                "handBeta": hand.shape.astype(np.float32),
                "handTrans": (joints[0] - model_root).astype(np.float32),
            }
        path = root / folder / name / "meta" / f"{number}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(meta, protocol=2))
        write_image(root / folder / name / "rgb" / f"{number}{suffix}", SIZE, 20 + t)
    return [f"{name}/{number}" for number in ids]


def np_tensor(array):
    import torch

    return torch.tensor(array, dtype=torch.float32)


def write_calibration(root: Path, stem: str, rig: Rig, file_of_camera: dict[int, int]) -> None:
    """`file_of_camera[c]` is the number of the file that holds camera c's pose."""
    folder = root / "calibration" / stem / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "cam_orders.txt", ORDER)
    for c, i in file_of_camera.items():
        camera, pose = rig.cameras[c], np.eye(4)
        pose[:3, :3], pose[:3, 3] = camera.rotation.T, camera.centre_world
        np.savetxt(folder / f"trans_{i}.txt", pose)
        k = camera.matrix
        text = f"width: 640, height: 480, ppx: {k[0, 2]}, ppy: {k[1, 2]}, fx: {k[0, 0]}, fy: {k[1, 1]}\n"
        (folder / f"cam_{i}_intrinsics.txt").write_text(text)


OFFICIAL = {c: ORDER.index(c) for c in range(5)}
POEM = {c: ORDER[c] for c in range(5)}


def names(stem: str) -> tuple[str, ...]:
    return tuple(f"{stem}{c}" for c in range(5))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Version 3: a sequence of one camera, one of five for training, and SB1 with two cameras for evaluation."""
    root = tmp_path_factory.mktemp("made") / "HO3D_v3"
    rigs = {stem: ring(names(stem), SIZE, seed) for seed, stem in enumerate(("ABF1", "SB1"))}
    hands = {"ABF1": moving_hand(4, 5), "SB1": moving_hand(4, 6), "MC1": moving_hand(4, 7)}
    lines = {"train": [], "evaluation": []}
    for stem, rig in rigs.items():
        write_calibration(root, stem, rig, OFFICIAL)
        for c, name in enumerate(names(stem)):
            folder = "evaluation" if name in ("SB11", "SB13") else "train"
            lines[folder] += write_view(
                root, folder, name, rig.cameras[c], hands[stem], ".jpg", root_only=folder != "train"
            )
    alone = ring(("MC1",), SIZE, 9)
    lines["train"] += write_view(root, "train", "MC1", alone.cameras[0], hands["MC1"], ".jpg")
    for folder, rows in lines.items():
        (root / f"{folder}.txt").write_text("\n".join(reversed(rows)) + "\n")
    return root, rigs | {"MC1": alone}, hands


@pytest.fixture
def ho3d(release, tmp_path):
    """The release, to be spoilt."""
    root, rigs, hands = release
    return shutil.copytree(root, tmp_path / "HO3D_v3"), rigs, hands


def read(root, dataset="ho3d-mv", split="train", protocol="", hand=None):
    return list(reader(dataset)(root, split, protocol, hand))


def assert_same_hand(truth, hand: Hand, atol=3e-6):
    assert truth.valid.all()
    np.testing.assert_allclose(truth.joints_world_m, hand.joints_m, atol=atol)
    np.testing.assert_allclose(truth.shape, hand.shape, atol=1e-6)
    np.testing.assert_allclose(truth.translation_m, hand.translation_m, atol=atol)
    np.testing.assert_allclose(skinned(truth.pose, truth.shape, truth.translation_m)[0], hand.vertices_m, atol=1e-5)


def test_five_cameras_joints_meshes_and_poses_come_back(release):
    root, rigs, hands = release
    (found,) = read(root, hand=load_hand())
    assert (found.name, found.dataset, found.protocol, found.split) == ("ABF1", "ho3d-mv", "poem", "train")
    assert_same_cameras(found.rig, rigs["ABF1"])
    assert found.present.shape == (4, 5) and found.present.all()
    truth = found.hands[0].truth
    assert_same_hand(truth, hands["ABF1"])
    np.testing.assert_allclose(truth.vertices_world_m, hands["ABF1"].vertices_m, atol=1e-5)
    numbers = check_recording(found)["right"]
    assert numbers["frames"] == 4 and numbers["residual_px"] < 0.01 and numbers["truth_px"] < 0.01


def test_without_mano_there_are_joints_and_poses_but_no_mesh(release):
    root, _, hands = release
    truth = read(root)[0].hands[0].truth
    assert not truth.has_mesh
    assert_same_hand(truth, hands["ABF1"])


@pytest.mark.parametrize(
    "file_of_camera, said",
    [
        (OFFICIAL, "trans_i is of camera cam_orders[i]"),
        (POEM, "trans_{cam_orders[c]} is of camera c"),
        ({c: c for c in range(5)}, "trans_c is of camera c"),
    ],
)
def test_the_rays_decide_whose_the_calibration_files_are(ho3d, file_of_camera, said):
    root, rigs, hands = ho3d
    write_calibration(root, "ABF1", rigs["ABF1"], file_of_camera)
    (found,) = read(root)
    assert found.note.startswith(f"calibration: {said}, residual 0.00 px (")
    assert_same_cameras(found.rig, rigs["ABF1"])
    assert_same_hand(found.hands[0].truth, hands["ABF1"])


def test_a_calibration_that_fits_in_no_reading_is_refused(ho3d):
    root, _, _ = ho3d
    folder = root / "calibration" / "ABF1" / "calibration"
    for i in range(5):
        np.savetxt(folder / f"trans_{i}.txt", np.linalg.inv(np.loadtxt(folder / f"trans_{i}.txt")))
    with pytest.raises(UsthandError, match="no reading of the calibration of ABF1"):
        read(root)


def test_cameras_of_the_evaluation_split_take_the_truth_of_the_others(release):
    root, rigs, hands = release
    (found,) = read(root, split="test", hand=load_hand())
    assert found.name == "SB1" and found.present.all()
    assert_same_cameras(found.rig, rigs["SB1"])
    assert_same_hand(found.hands[0].truth, hands["SB1"])
    assert "evaluation" in str(found.images[0][1]) and "train" in str(found.images[0][2])
    assert not found.hands[0].annotated.mask[:, [1, 3]].any()


@pytest.mark.parametrize("dataset, suffix", [("ho3d-v2", ".png"), ("ho3d-v3", ".jpg")])
def test_single_images_have_their_camera_as_the_world(tmp_path, dataset, suffix):
    hand, camera = moving_hand(4, 7), ring(("MC1",), SIZE, 9).cameras[0]
    lines = write_view(tmp_path, "train", "MC1", camera, hand, suffix)
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (found,) = read(tmp_path, dataset, hand=load_hand())
    assert found.rig.names == ("MC1",) and [row[0].suffix for row in found.images] == [suffix] * 4
    np.testing.assert_array_equal(found.rig.cameras[0].rotation, np.eye(3))
    np.testing.assert_array_equal(found.rig.cameras[0].translation, np.zeros(3))
    truth = found.hands[0].truth
    np.testing.assert_allclose(truth.joints_world_m, in_camera(hand.joints_m, camera), atol=1e-6)
    np.testing.assert_allclose(truth.vertices_world_m, in_camera(hand.vertices_m, camera), atol=1e-5)
    assert (truth.joints_world_m[..., 2] > 0).all()  # in front of the camera, which OpenGL's axes would not have
    np.testing.assert_allclose(
        skinned(truth.pose, truth.shape, truth.translation_m)[0], truth.vertices_world_m, atol=1e-5
    )


def test_the_evaluation_split_has_no_truth(release):
    root, _, _ = release
    for split in ("evaluation", "test"):
        found = read(root, "ho3d-v3", split)
        assert [r.name for r in found] == ["SB11", "SB13"]
        assert all(r.hands[0].truth is None and r.present.all() and "wrist alone" in r.note for r in found)
    assert [r.name for r in read(root, "ho3d-v3")] == [*names("ABF1"), "MC1", "SB10", "SB12", "SB14"]


def write_released(root: Path, rigs, hands, where: Path) -> None:
    """The truth of the evaluation split as the makers released it later: a row for each line of evaluation.txt."""
    xyz, verts = [], []
    for line in (root / "evaluation.txt").read_text().split():
        name, number = line.split("/")
        camera, t = rigs["SB1"].cameras[int(name[-1])], IDS.index(number)
        joints = in_camera(hands["SB1"].joints_m[t], camera) @ OPENGL
        xyz.append(joints[list(inverse_order(MANO_TO_OPENPOSE))].tolist())
        verts.append((in_camera(hands["SB1"].vertices_m[t], camera) @ OPENGL).tolist())
    where.mkdir(exist_ok=True)
    (where / "evaluation_xyz.json").write_text(json.dumps(xyz))
    (where / "evaluation_verts.json").write_text(json.dumps(verts))


@pytest.mark.parametrize("folder", ["HO3D_v3", "HO3D_v3_official_gt"])
def test_the_evaluation_splits_released_truth_is_taken_by_line(ho3d, folder):
    root, rigs, hands = ho3d
    write_released(root, rigs, hands, root.parent / folder)
    for recording, view in zip(read(root, "ho3d-v3", "evaluation"), (1, 3), strict=True):
        truth, camera = recording.hands[0].truth, rigs["SB1"].cameras[view]
        assert truth.valid.all() and recording.note == ""
        np.testing.assert_allclose(truth.joints_world_m, in_camera(hands["SB1"].joints_m, camera), atol=1e-6)
        np.testing.assert_allclose(truth.vertices_world_m, in_camera(hands["SB1"].vertices_m, camera), atol=1e-6)
        assert check_recording(recording)["right"]["truth_px"] < 0.01
    (root.parent / folder / "evaluation_verts.json").unlink()
    assert not read(root, "ho3d-v3", "evaluation")[0].hands[0].truth.has_mesh
    assert len(read(root, split="test")) == 1


def test_released_truth_of_other_lines_is_refused(ho3d):
    root, rigs, hands = ho3d
    write_released(root, rigs, hands, root)
    rows = json.loads((root / "evaluation_xyz.json").read_text())
    (root / "evaluation_xyz.json").write_text(json.dumps(rows[::-1]))
    with pytest.raises(UsthandError, match="the released wrists of SB11 lie"):
        read(root, "ho3d-v3", "evaluation")
    (root / "evaluation_xyz.json").write_text(json.dumps(rows[:-1]))
    with pytest.raises(UsthandError, match="has the shape"):
        read(root, "ho3d-v3", "evaluation")


def test_a_lost_image_loses_one_view_of_one_frame(ho3d):
    root, _, hands = ho3d
    (root / "train" / "ABF12" / "rgb" / "0009.jpg").unlink()
    (found,) = read(root)
    expected = np.ones((4, 5), bool)
    expected[1, 2] = False
    np.testing.assert_array_equal(found.present, expected)
    assert [path.stem for path in found.images[2]] == ["0010"] * 5
    assert_same_hand(found.hands[0].truth, hands["ABF1"])


def test_frames_are_matched_by_their_number(ho3d):
    root, _, hands = ho3d
    lines = [x for x in (root / "train.txt").read_text().split() if x not in ("ABF10/0008", "ABF14/0009")]
    (root / "train.txt").write_text("\n".join(lines))
    for name, number in (("ABF10", "0008"), ("ABF14", "0009")):
        (root / "train" / name / "rgb" / f"{number}.jpg").unlink()
        (root / "train" / name / "meta" / f"{number}.pkl").unlink()
    (found,) = read(root)
    assert [[path and path.stem for path in row] for row in found.images] == [
        [None, *["0008"] * 4],
        [*["0009"] * 4, None],
        ["0010"] * 5,
        ["0011"] * 5,
    ]
    assert_same_hand(found.hands[0].truth, hands["ABF1"])


def test_frames_that_are_not_listed_stay_as_gaps_in_time(ho3d):
    """Their images and annotations may be there: they are not in the split."""
    root, _, hands = ho3d
    lines = [line for line in (root / "train.txt").read_text().split() if not line.endswith("0009")]
    (root / "train.txt").write_text("\n".join(lines))
    (found,) = read(root)
    np.testing.assert_array_equal(found.present, [[1] * 5, [0] * 5, [1] * 5, [1] * 5])
    truth = found.hands[0].truth
    np.testing.assert_array_equal(truth.valid, [True, False, True, True])
    np.testing.assert_allclose(truth.joints_world_m[2:], hands["ABF1"].joints_m[2:], atol=3e-6)


def test_frames_without_annotation_are_not_valid(ho3d):
    root, _, hands = ho3d
    for name in names("ABF1"):
        path = root / "train" / name / "meta" / "0009.pkl"
        meta = pickle.loads(path.read_bytes())
        meta |= dict.fromkeys(("handJoints3D", "handPose", "handBeta", "handTrans", "camMat"))
        path.write_bytes(pickle.dumps(meta))
    truth = read(root, hand=load_hand())[0].hands[0].truth
    np.testing.assert_array_equal(truth.valid, [True, False, True, True])
    assert (
        not truth.joints_world_m[1].any() and not truth.vertices_world_m[1].any() and not truth.translation_m[1].any()
    )
    np.testing.assert_allclose(truth.joints_world_m[2:], hands["ABF1"].joints_m[2:], atol=3e-6)


def test_a_capture_is_written_and_read_back(release, tmp_path):
    root, rigs, hands = release
    folder = write_recording(read(root)[0], tmp_path / "out")
    capture = open_capture(folder)
    assert_same_cameras(capture.rig, rigs["ABF1"])
    assert [image.shape for _, image in capture.read("ABF13")] == [(480, 640, 3)] * 4
    np.testing.assert_allclose(load_truth(folder, "right").joints_world_m, hands["ABF1"].joints_m, atol=3e-6)


def test_another_hand_than_mano_is_refused(release):
    with pytest.raises(UsthandError, match=r"the meshes of ABF1 lie \d+ mm from its joints"):
        read(release[0], hand=load_hand(side="left"))


def test_a_hostile_pickle_is_refused_and_not_run(ho3d, tmp_path):
    root, _, _ = ho3d
    (root / "train" / "ABF11" / "meta" / "0010.pkl").write_bytes(pickle.dumps({"camMat": Hostile(tmp_path / "marker")}))
    with pytest.raises(UsthandError, match="which was not run"):
        read(root)
    assert not (tmp_path / "marker").exists()


def test_what_is_misspelt_missing_or_damaged_is_told(ho3d):
    root, _, _ = ho3d
    with pytest.raises(UsthandError, match="no split 'val'"):
        read(root, split="val")
    with pytest.raises(UsthandError, match="no protocol 'v3'"):
        read(root, protocol="v3")
    with pytest.raises(UsthandError, match=r"there is no .*train.txt"):
        read(root.parent)
    meta = root / "train" / "ABF11" / "meta" / "0010.pkl"
    whole = pickle.loads(meta.read_bytes())
    meta.write_bytes(pickle.dumps(whole | {"camMat": whole["camMat"] * 2}))
    with pytest.raises(UsthandError, match="another camMat"):
        read(root)
    meta.write_bytes(pickle.dumps({key: value for key, value in whole.items() if key != "handPose"}))
    with pytest.raises(UsthandError, match="no handPose"):
        read(root)
    shutil.rmtree(root / "calibration")
    meta.write_bytes(pickle.dumps(whole))
    with pytest.raises(UsthandError, match="comes with version 3 only"):
        read(root)
