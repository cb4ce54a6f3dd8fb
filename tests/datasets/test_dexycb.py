"""DexYCB: what is laid out as the release lays it out comes back to the last digit, and its traps are sprung."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from support.pca import rotations_from_pca
from usthand.capture.calibration.documents import read_yaml
from usthand.capture.capture import open_capture
from usthand.capture.rig import MIRROR
from usthand.common.errors import UsthandError
from usthand.datasets import dexycb, reader
from usthand.datasets.base import check_recording, write_recording
from usthand.datasets.importing import DatasetConfig, import_recordings
from usthand.evaluation.truth import load_truth
from usthand.geometry.cameras import project
from usthand.hand.io import embedded_arrays, hand_from_arrays, load_hand
from usthand.labels.labels import load_labels

FRAMES = 6
SUBJECT = "20200820-subject-03"
RIGHT, LEFT = 4, 9  # places of the two sequences in the subject's folder; both i % 5 == 4: the test split of s0


@dataclass
class Scene:
    """One hand over six frames and eight cameras, in numpy: the reference."""

    side: str
    master_from_cam: np.ndarray  # (8, 3, 4)
    k: np.ndarray  # (8, 3, 3)
    joints: np.ndarray  # world, that is the master camera's frame
    vertices: np.ndarray
    joints_cam: np.ndarray  # (T, V, 21, 3)
    uv: np.ndarray  # (T, V, 21, 2)
    pose_m: np.ndarray  # (T, V, 51)
    betas: np.ndarray


def official_file(side: str):
    """A hand as MANO's own file of that side has it: the left one mirrors all but the sign of shapedirs' x."""
    arrays = dict(embedded_arrays())
    if side == "left":
        feature = np.tile(np.outer(MIRROR, MIRROR).ravel(), 15)
        spin = np.tile(-MIRROR, 15)
        arrays["v_template"] = arrays["v_template"] * MIRROR
        arrays["shapedirs"] = arrays["shapedirs"] * MIRROR[:, None] * MIRROR[:, None]  # mirrored, and x wrong again
        arrays["posedirs"] = arrays["posedirs"] * MIRROR[:, None] * feature
        arrays["hands_mean"] = arrays["hands_mean"] * spin
        arrays["hands_components"] = arrays["hands_components"] * spin
    return hand_from_arrays(arrays, torch.float64)


def make_scene(side: str) -> Scene:
    rng = np.random.default_rng(5)
    hand = official_file(side)
    cam_rotation = Rotation.random(8, random_state=1).as_matrix()
    cam_rotation[2] = np.eye(3)  # 840412060917 is the master
    centre = np.array([0.05, -0.02, 0.7])
    translation = np.array([0.0, 0.0, 0.8]) + rng.normal(0, 0.02, (8, 3)) - cam_rotation @ centre
    translation[2] = 0
    betas, root, coefficients = rng.normal(0, 1, 10), rng.normal(0, 0.5, (FRAMES, 3)), rng.normal(0, 0.6, (FRAMES, 45))
    shift = centre + rng.normal(0, 0.02, (FRAMES, 3))
    shaped = hand.with_shape(torch.from_numpy(betas))
    rest_root = shaped.rest_joints[0].numpy()

    def posed(turn, move):
        rotations = rotations_from_pca(
            hand, torch.from_numpy(turn), torch.from_numpy(coefficients), flat_hand_mean=False
        )
        made = shaped.with_pose(rotations, torch.from_numpy(move))
        return made.vertices.numpy(), made.joints.numpy()

    vertices, joints = posed(root, shift)
    k = np.tile(np.diag([0.0, 0.0, 1.0]), (8, 1, 1))
    k[:, 0, 0], k[:, 1, 1] = rng.uniform(605, 620, 8), rng.uniform(605, 620, 8)
    k[:, :2, 2] = (313.0, 245.0)
    joints_cam, uv = np.zeros((FRAMES, 8, 21, 3)), np.zeros((FRAMES, 8, 21, 2))
    pose_m = np.zeros((FRAMES, 8, 51))
    for v in range(8):
        turn = (Rotation.from_matrix(cam_rotation[v]) * Rotation.from_rotvec(root)).as_rotvec()
        move = (rest_root + shift) @ cam_rotation[v].T + translation[v] - rest_root
        cam_vertices, joints_cam[:, v] = posed(turn, move)
        np.testing.assert_allclose(cam_vertices, vertices @ cam_rotation[v].T + translation[v], atol=1e-9)
        pose_m[:, v] = np.concatenate((turn, coefficients, move), 1)
        uv[:, v] = cv2.projectPoints(joints_cam[:, v].reshape(-1, 3), np.zeros(3), np.zeros(3), k[v], None)[0].reshape(
            -1, 21, 2
        )
    inverse = cam_rotation.swapaxes(1, 2)
    master_from_cam = np.concatenate((inverse, -inverse @ translation[..., None]), 2)
    return Scene(side, master_from_cam, k, joints, vertices, joints_cam, uv, pose_m, betas)


@pytest.fixture(scope="module")
def scenes():
    return {side: make_scene(side) for side in ("right", "left")}


def lay_out(root, scenes):
    """A subject's hundred folders, two of them filled, and the calibration, as the archives unpack."""
    names = [f"20200820_{100000 + i}" for i in range(100)]
    for name in names:
        (root / SUBJECT / name).mkdir(parents=True)
    calibration = root / "calibration"
    for place, side in ((RIGHT, "right"), (LEFT, "left")):
        scene, folder = scenes[side], root / SUBJECT / names[place]
        lines = [
            "extrinsics: '20200702_151821'",
            "mano_calib:",
            f"- 20200514-subject-03_{side}",
            "mano_sides:",
            f"- {side}",
        ]
        lines += [
            f"num_frames: {FRAMES}",
            "serials:",
            *(f"- '{s}'" for s in dexycb.SERIALS),
            "ycb_grasp_ind: 0",
            "ycb_ids:",
            "- 1",
        ]
        (folder / "meta.yml").write_text("\n".join(lines) + "\n")
        mano = calibration / f"mano_20200514-subject-03_{side}"
        mano.mkdir(parents=True)
        (mano / "mano.yml").write_text("betas:\n" + "".join(f"- {b!r}\n" for b in scene.betas.tolist()))
        for v, serial in enumerate(dexycb.SERIALS):
            (folder / serial).mkdir()
            for t in range(FRAMES):
                Image.new("RGB", (640, 480), (20 * v, 10 * t, 90)).save(folder / serial / f"color_{t:06d}.jpg")
                save_label(folder / serial, t, scene.joints_cam[t, v], scene.uv[t, v], scene.pose_m[t, v])
    scene = scenes["right"]
    (calibration / "intrinsics").mkdir()
    for v, serial in enumerate(dexycb.SERIALS):
        k = scene.k[v].tolist()
        text = "".join(
            f"{kind}:\n  fx: {a!r}\n  fy: {b!r}\n  ppx: {c!r}\n  ppy: {d!r}\n"
            for kind, (a, b, c, d) in {
                "color": (k[0][0], k[1][1], k[0][2], k[1][2]),
                "depth": (1.0, 1.0, 0.5, 0.5),
            }.items()
        )
        (calibration / "intrinsics" / f"{serial}_640x480.yml").write_text(text)
    (calibration / "extrinsics_20200702_151821").mkdir()
    rows = {serial: scene.master_from_cam[v] for v, serial in enumerate(dexycb.SERIALS)} | {"apriltag": np.eye(3, 4)}
    text = "extrinsics:\n"
    for name, matrix in rows.items():
        key = name if name == "apriltag" else f"'{name}'"
        text += f"  {key}: !!python/tuple\n" + "".join(f"  - {x!r}\n" for x in matrix.ravel().tolist())
    (calibration / "extrinsics_20200702_151821" / "extrinsics.yml").write_text(text + "master: '840412060917'\n")
    return root


def save_label(folder, t, joints, uv, pose):
    np.savez_compressed(
        folder / f"labels_{t:06d}.npz",
        seg=np.zeros((480, 640), np.uint8),
        pose_y=np.zeros((1, 3, 4), np.float32),
        pose_m=pose[None].astype(np.float32),
        joint_3d=joints[None].astype(np.float32),
        joint_2d=uv[None].astype(np.float32),
    )


def unlabel(root, place, view, t):
    """As released where the hand is not seen or not annotated."""
    save_label(sequence(root, place) / dexycb.SERIALS[view], t, -np.ones((21, 3)), -np.ones((21, 2)), np.zeros(51))


def sequence(root, place):
    return root / SUBJECT / f"20200820_{100000 + place}"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory, scenes):
    return lay_out(tmp_path_factory.mktemp("untouched"), scenes)


@pytest.fixture
def root(tmp_path, untouched):
    return shutil.copytree(untouched, tmp_path / "dex-ycb")


@pytest.fixture(scope="module")
def hand():
    return load_hand(dtype=torch.float64)


@pytest.mark.parametrize("side", ["right", "left"])
def test_cameras_joints_and_meshes_come_back(root, scenes, hand, side):
    recording = {r.hands[0].side: r for r in dexycb.recordings(root, "test", "", hand)}[side]
    scene = scenes[side]
    assert recording.name == f"{SUBJECT}_20200820_{100000 + (RIGHT if side == 'right' else LEFT)}"
    assert (recording.dataset, recording.protocol, recording.split, recording.fps) == ("dexycb", "s0", "test", 30.0)
    assert recording.rig.names == dexycb.SERIALS and recording.present.all()
    uv, depth = project(recording.rig.tensors(torch.float64), torch.from_numpy(scene.joints))
    np.testing.assert_allclose(uv.numpy(), scene.uv, atol=1e-6)
    np.testing.assert_allclose(depth.numpy(), scene.joints_cam[..., 2], atol=1e-9)
    truth = recording.hands[0].truth
    # Released in single precision at 0.8 m and 3 rad: 1e-7 m; the turn of the root works on a lever of 0.15 m.
    np.testing.assert_allclose(truth.joints_world_m, scene.joints, atol=3e-7)
    np.testing.assert_allclose(truth.vertices_world_m, scene.vertices, atol=1e-6)
    # The stored pose, shape and translation make the mesh again, on the hand they were made for.
    model = official_file(side)
    rotations = model.rotations(torch.from_numpy(truth.pose).double(), flat_hand_mean=True)
    shift = torch.from_numpy(truth.translation_m).double()
    posed = model.with_shape(torch.from_numpy(truth.shape).double()).with_pose(rotations, shift)
    np.testing.assert_allclose(posed.vertices.numpy(), scene.vertices, atol=2e-6)


def test_a_left_hand_by_the_mirrored_right_one_would_be_another(scenes, hand):
    """The mistake in MANO's left file is worth millimetres: that is why the reader makes it too."""
    right_way = hand.mirrored().with_shape(torch.from_numpy(scenes["left"].betas)).rest_vertices
    released = official_file("left").with_shape(torch.from_numpy(scenes["left"].betas)).rest_vertices
    assert 1000 * (right_way - released).norm(dim=-1).mean() > 1


def test_the_check_finds_nothing_wrong_and_gives_the_palm(root, scenes):
    for recording in dexycb.recordings(root, "test"):
        ((side, found),) = check_recording(recording).items()
        joints = scenes[side].joints
        palm = 1000 * np.median(np.linalg.norm(joints[:, 5] - joints[:, 17], axis=-1))
        assert found["residual_px"] < 1e-3 and found["truth_px"] < 1e-3 and found["frames"] == FRAMES
        assert found["palm_mm"] == pytest.approx(palm, abs=1e-3)


def test_the_check_finds_extrinsics_that_were_not_inverted(root):
    """What the toolkits' names suggest: the file's matrix taken as it is."""
    file = root / "calibration" / "extrinsics_20200702_151821" / "extrinsics.yml"
    table = {serial: np.array(values, float) for serial, values in read_yaml(file)["extrinsics"].items()}
    text = "extrinsics:\n"
    for serial, values in table.items():
        inverse = np.linalg.inv(np.vstack((np.reshape(values, (3, 4)), (0, 0, 0, 1))))[:3]
        text += f"  '{serial}': !!python/tuple\n" + "".join(f"  - {x!r}\n" for x in inverse.ravel().tolist())
    file.write_text(text + "master: '840412060917'\n")
    found = check_recording(next(dexycb.recordings(root, "test")))["right"]
    assert found["residual_px"] > 20 and found["truth_px"] > 20


def test_a_visible_hand_without_annotation_keeps_its_image(root, scenes):
    """DexYCB's own protocol has the image; it has no label there, and the truth comes from another camera."""
    unlabel(root, RIGHT, 0, 2)
    for view in range(8):
        unlabel(root, RIGHT, view, 4)
    recording = next(dexycb.recordings(root, "test"))
    assert recording.present.all()
    truth, annotated = recording.hands[0].truth, recording.hands[0].annotated
    assert truth.valid.tolist() == [True, True, True, True, False, True]
    np.testing.assert_allclose(truth.joints_world_m[2], scenes["right"].joints[2], atol=3e-7)
    assert (truth.joints_world_m[4] == 0).all() and np.isfinite(truth.joints_world_m).all()
    expected = np.ones((FRAMES, 8), bool)
    expected[2, 0] = expected[4] = False
    assert (annotated.mask.all(-1) == expected).all() and (truth.visible.all(-1) == expected).all()


def test_the_multi_view_protocol_drops_views_and_left_hands(root):
    """A single coordinate of -1 drops the view; groups may be smaller than eight."""
    unlabel(root, RIGHT, 0, 2)
    label = sequence(root, RIGHT) / dexycb.SERIALS[3]
    with np.load(label / "labels_000001.npz") as data:
        uv, joints, pose = data["joint_2d"][0].copy(), data["joint_3d"][0], data["pose_m"][0]
    uv[7, 0] = -1
    save_label(label, 1, joints, uv, pose)
    recordings = list(dexycb.multi_view_recordings(root, "test"))
    assert [r.hands[0].side for r in recordings] == ["right"] and recordings[0].dataset == "dexycb-mv"
    expected = np.ones((FRAMES, 8), bool)
    expected[2, 0] = expected[1, 3] = False
    assert (recordings[0].present == expected).all() and recordings[0].hands[0].truth.valid.all()


def test_a_joint_outside_the_image_is_annotated_but_not_seen(root, scenes):
    """Labels with the hand beyond the border: the truth is good, but no 2D joint is there to be found."""
    folder = sequence(root, RIGHT) / dexycb.SERIALS[5]
    scene = scenes["right"]
    uv = scene.uv[3, 5].copy()
    uv[:4, 0] += 700
    save_label(folder, 3, scene.joints_cam[3, 5], uv, scene.pose_m[3, 5])
    hand_data = next(dexycb.recordings(root, "test")).hands[0]
    expected = np.ones((FRAMES, 8, 21), bool)
    expected[3, 5, :4] = False
    assert (hand_data.annotated.mask == expected).all() and hand_data.truth.valid.all()
    assert next(dexycb.multi_view_recordings(root, "test")).present.all()


def test_a_lost_image_loses_one_view_of_one_frame(root):
    (sequence(root, RIGHT) / dexycb.SERIALS[1] / "color_000002.jpg").unlink()
    (sequence(root, RIGHT) / dexycb.SERIALS[6] / "labels_000003.npz").unlink()
    recording = next(dexycb.recordings(root, "test"))
    expected = np.ones((FRAMES, 8), bool)
    expected[2, 1] = False
    assert (recording.present == expected).all() and recording.hands[0].truth.valid.all()
    expected[3, 6] = False
    assert (recording.hands[0].annotated.mask.all(-1) == expected).all()
    assert recording.images[3][1].name == "color_000003.jpg"


def test_labels_are_written_only_when_the_annotation_is_asked_for(root, tmp_path, monkeypatch):
    monkeypatch.setenv("USTHAND_HAND", str(tmp_path / "none.npz"))
    (plain,) = import_recordings(reader("dexycb-mv"), root, tmp_path / "plain", DatasetConfig("test"))
    assert open_capture(plain.folder).label_sides() == ()
    assert "residual 0 px, truth 0 px, palm" in plain.report[0]
    config = DatasetConfig("test", annotated=True)
    (annotated,) = import_recordings(reader("dexycb-mv"), root, tmp_path / "annotated", config)
    labels = load_labels(open_capture(annotated.folder), "right")
    assert labels.detector == "annotation" and labels.mask.all()
    capture = open_capture(plain.folder)
    np.testing.assert_allclose(next(capture.read(dexycb.SERIALS[3], 5))[1][240, 320], (60, 50, 90), atol=3)
    assert load_truth(plain.folder, "right").valid.all()


def test_a_capture_is_never_written_over(root, tmp_path):
    recording = next(dexycb.recordings(root, "test"))
    write_recording(recording, tmp_path)
    with pytest.raises(UsthandError, match="exists"):
        write_recording(recording, tmp_path)


def test_the_setups_are_the_official_ones():
    """Counts of subjects, cameras and sequences, from the toolkit's description; no sequence is in two splits."""
    sizes = {
        "s0": [(10, 8, 80), (2, 8, 20), (8, 8, 20)],
        "s1": [(7, 8, 100), (1, 8, 100), (2, 8, 100)],
        "s2": [(10, 6, 100), (10, 1, 100), (10, 1, 100)],
        "s3": [(10, 8, 75), (10, 8, 10), (10, 8, 15)],
    }
    for setup, expected in sizes.items():
        splits = [dexycb.SETUPS[setup][name] for name in ("train", "val", "test")]
        assert [tuple(len(part) for part in split) for split in splits] == expected
        cells = [{(s, c, q) for s in split[0] for c in split[1] for q in split[2]} for split in splits]
        assert not cells[0] & cells[1] and not cells[0] & cells[2] and not cells[1] & cells[2]
    assert dexycb.SETUPS["s0"]["test"][2][:3] == (4, 9, 14)
    assert dexycb.SETUPS["s3"]["test"][2][:6] == (35, 36, 37, 38, 39, 55)


def test_splits_choose_sequences_and_cameras(root):
    assert [r.hands[0].side for r in dexycb.recordings(root, "test")] == ["right", "left"]
    assert not list(dexycb.recordings(root, "train"))
    assert [len(r.rig) for r in dexycb.recordings(root, "train", "s2")] == [6, 6]
    assert [r.rig.names for r in dexycb.recordings(root, "test", "s2")] == [("932122062010",)] * 2
    with pytest.raises(UsthandError, match="no subject of the split"):
        list(dexycb.recordings(root, "val"))
    with pytest.raises(UsthandError, match="no protocol 's2'"):
        list(dexycb.multi_view_recordings(root, "test", "s2"))
    with pytest.raises(UsthandError, match="no split 'all'"):
        list(dexycb.recordings(root, "all"))


def test_a_missing_sequence_would_shift_the_split_and_is_refused(root):
    sequence(root, 0).rmdir()
    with pytest.raises(UsthandError, match="has 99 sequences, not 100"):
        list(dexycb.recordings(root, "test"))


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        (
            "calibration/extrinsics_20200702_151821/extrinsics.yml",
            "extrinsics:\n  '836212060125':\n  - 1.0\n",
            "pose of 836212060125 cannot be read",
        ),
        ("calibration/intrinsics/836212060125_640x480.yml", "color:\n  fx: 600.0\n", "color lacks fy, ppx, ppy"),
        (
            f"{SUBJECT}/20200820_100004/meta.yml",
            "extrinsics: x\nnum_frames: 6\nmano_sides: [right, left]\n",
            "not one side",
        ),
        (
            f"{SUBJECT}/20200820_100004/meta.yml",
            "extrinsics: x\nnum_frames: many\nmano_sides:\n- right\n",
            "num_frames 'many'",
        ),
        (f"{SUBJECT}/20200820_100004/836212060125/labels_000000.npz", "torn", "cannot be read"),
    ],
)
def test_damaged_files_are_named(root, file, text, told):
    (root / file).write_text(text)
    with pytest.raises(UsthandError, match=told) as error:
        list(dexycb.recordings(root, "test"))
    assert file in str(error.value)


def test_another_hand_than_the_data_sets_is_refused(root):
    arrays = dict(embedded_arrays()) | {"hands_mean": np.zeros(45)}
    with pytest.raises(UsthandError, match="mm from its joints"):
        list(dexycb.recordings(root, "test", "", hand_from_arrays(arrays, torch.float64)))
