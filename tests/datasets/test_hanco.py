"""HanCo: what is laid out as the release lays it out comes back to the last digit, and its traps are sprung."""

from __future__ import annotations

import json
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.datasets import hanco, reader
from usthand.datasets.base import check_recording, write_recording
from usthand.datasets.hanco_write import HAND_PX, crop_matrices, cut_undistorted, write_hanco
from usthand.datasets.importing import DatasetConfig, import_recordings, report_lines
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.truth import load_truth
from usthand.geometry.cameras import project
from usthand.hand.io import hand_from_arrays, load_hand, mano_layout
from usthand.labels.labels import load_labels

FRAMES, VIEWS, PX = 6, 3, 224


@dataclass
class Scene:
    """What was laid out, in numpy alone: the reference."""

    k: np.ndarray  # (T, V, 3, 3)
    m: np.ndarray  # (V, 4, 4)
    joints: np.ndarray
    vertices: np.ndarray
    pose: np.ndarray  # relative to the flat hand

    def uv(self) -> np.ndarray:
        """(T, V, 21, 2) in the crops, by OpenCV."""
        uv = np.zeros((FRAMES, VIEWS, 21, 2))
        for t in range(FRAMES):
            for v in range(VIEWS):
                r, _ = cv2.Rodrigues(self.m[v, :3, :3])
                uv[t, v] = cv2.projectPoints(self.joints[t], r, self.m[v, :3, 3], self.k[t, v], None)[0][:, 0]
        return uv


@pytest.fixture(scope="module")
def hand():
    return load_hand(dtype=torch.float64)


@pytest.fixture(scope="module")
def scene(hand):
    rng = np.random.default_rng(3)
    mean = hand.hands_mean.numpy()
    pose = np.concatenate((rng.normal(0, 0.4, (FRAMES, 3)), mean + rng.normal(0, 0.15, (FRAMES, 45))), 1)
    shape, shift = rng.normal(0, 0.7, 10), np.array([0.02, -0.03, 0.05]) + rng.normal(0, 0.01, (FRAMES, 3))
    rotations = hand.rotations(torch.from_numpy(pose), flat_hand_mean=True)
    posed = hand.with_shape(torch.from_numpy(shape)).with_pose(rotations, torch.from_numpy(shift))
    m = np.tile(np.eye(4), (VIEWS, 1, 1))
    m[:, :3, :3] = Rotation.random(VIEWS, random_state=0).as_matrix()
    m[:, :3, 3] = (0.0, 0.0, 0.6)
    k = np.tile(np.diag([0.0, 0.0, 1.0]), (FRAMES, VIEWS, 1, 1))
    focal = rng.uniform(280, 330, (FRAMES, VIEWS))
    k[..., 0, 0], k[..., 1, 1] = focal, 1.003 * focal
    cam = np.einsum("vij,tj->tvi", m[:, :3, :3], posed.joints.numpy().mean(1)) + m[:, :3, 3]
    k[..., :2, 2] = 111.5 + rng.uniform(-3, 3, (FRAMES, VIEWS, 2)) - focal[..., None] * cam[..., :2] / cam[..., 2:]
    made = Scene(k, m, posed.joints.numpy(), posed.vertices.numpy(), pose)
    made.shape, made.shift, made.mean = shape, shift, mean
    return made


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def lay_out(root, scene, name="1203", images="rgb_merged", k=None):
    """The scene as HanCo's archives unpack, with HaMuCo's labels; images of one plain colour."""
    k = scene.k if k is None else k
    uv = scene.uv()
    for t in range(FRAMES):
        stem = f"{t:08d}"
        write_json(root / "calib" / name / f"{stem}.json", {"K": k[t].tolist(), "M": scene.m.tolist()})
        write_json(root / "xyz" / name / f"{stem}.json", scene.joints[t].tolist())
        pose = scene.pose[t].copy()
        pose[3:] -= scene.mean
        content = {"poses": [pose.tolist()], "shapes": [scene.shape.tolist()], "global_t": [[scene.shift[t].tolist()]]}
        write_json(root / "shape" / name / f"{stem}.json", content)
        for v in range(VIEWS):
            folder = root / images / name / f"cam{v}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (PX, PX), (40 * v + 10, 10 * t + 10, 200)).save(folder / f"{stem}.jpg")
            write_json(root / "rgb_2D_keypoints" / name / f"cam{v}" / f"{stem}.json", [uv[t, v].tolist(), [0.8] * 21])
    return root


@pytest.fixture
def root(tmp_path, scene):
    return lay_out(tmp_path / "HanCo", scene)


def only(items):
    items = list(items)
    assert len(items) == 1
    return items[0]


def in_crop(recording, uv):
    """Pixels of the virtual cameras back in the crops, by what the list of images says."""
    back = np.zeros_like(uv)
    for t, row in enumerate(recording.images):
        for v, ref in enumerate(row):
            if ref is not None:
                back[t, v] = (uv[t, v] - (ref.x, ref.y)) / ref.scale
    return back


def test_cameras_joints_and_meshes_come_back(root, scene, hand):
    recording = only(hanco.recordings(root, "test", "", hand))
    assert (recording.name, recording.dataset, recording.protocol, recording.split) == (
        "1203",
        "hanco",
        "hamuco",
        "test",
    )
    for camera, m in zip(recording.rig.cameras, scene.m, strict=True):
        np.testing.assert_allclose(camera.rotation, m[:3, :3], atol=1e-12)
        np.testing.assert_allclose(camera.translation, m[:3, 3], atol=1e-12)
    truth = only(recording.hands).truth
    # float32 of decimetres: 1e-8 m.
    np.testing.assert_allclose(truth.joints_world_m, scene.joints, atol=3e-8)
    np.testing.assert_allclose(truth.vertices_world_m, scene.vertices, atol=3e-8)
    np.testing.assert_allclose(truth.pose, scene.pose, atol=3e-7)
    np.testing.assert_allclose(truth.shape, scene.shape, atol=3e-7)
    np.testing.assert_allclose(truth.translation_m, scene.shift, atol=3e-8)
    assert truth.valid.all() and truth.visible.all()


def test_every_frames_own_intrinsics_are_one_camera_with_placed_crops(root, scene, hand):
    """What the virtual camera sees at (X, Y) is what the frame's own K sees at (X - x) / s: to 1e-9 px."""
    recording = only(hanco.recordings(root, "test"))
    uv, _ = project(recording.rig.tensors(torch.float64), torch.from_numpy(scene.joints))
    for axis, focal in ((0, 0), (1, 1)):  # the same aspect in all frames, so both axes are exact
        assert np.ptp(scene.k[..., focal, focal]) > 20
        np.testing.assert_allclose(in_crop(recording, uv.numpy())[..., axis], scene.uv()[..., axis], atol=1e-6)
    labels = only(recording.hands).labels
    np.testing.assert_allclose(in_crop(recording, labels.uv_px.astype(float)), scene.uv(), atol=1e-4)
    for t, row in enumerate(recording.images):
        for v, ref in enumerate(row):
            camera = recording.rig.cameras[v]
            low, high = np.array([ref.x, ref.y]) - 0.5 * ref.scale, np.array([ref.x, ref.y]) + (PX - 0.5) * ref.scale
            assert (low >= -0.5 - 1e-9).all() and (
                high <= np.array([camera.width, camera.height]) - 0.5 + 1e-9
            ).all(), t


def test_constant_intrinsics_leave_the_images_as_they_are(tmp_path, scene):
    root = lay_out(tmp_path, scene, k=np.tile(scene.k[:1], (FRAMES, 1, 1, 1)))
    recording = only(hanco.recordings(root, "test"))
    camera = recording.rig.cameras[1]
    assert (camera.width, camera.height) == (PX, PX) and recording.images[2][
        1
    ] == root / "rgb_merged/1203/cam1/00000002.jpg"
    np.testing.assert_array_equal(camera.matrix, scene.k[0, 1])


def test_the_capture_holds_the_crops(root, scene, tmp_path):
    recording = only(hanco.recordings(root, "test"))
    capture = open_capture(write_recording(recording, tmp_path / "captures"))
    assert (capture.dataset, capture.protocol, capture.split) == ("hanco", "hamuco", "test")
    ref = recording.images[4][2]
    image = next(capture.read("cam2", 4))[1]
    u, v = (round(ref.x + 112 * ref.scale), round(ref.y + 112 * ref.scale))
    np.testing.assert_allclose(image[v, u], (90, 50, 200), atol=3)  # JPEG
    np.testing.assert_array_equal(load_labels(capture, "right").uv_px, recording.hands[0].labels.uv_px)
    np.testing.assert_array_equal(
        load_truth(capture.path, "right").joints_world_m, recording.hands[0].truth.joints_world_m
    )


def test_the_check_finds_nothing_wrong_and_gives_the_palm(root, scene):
    found = check_recording(only(hanco.recordings(root, "test")))["right"]
    palm = np.median(np.linalg.norm(scene.joints[:, 5] - scene.joints[:, 17], axis=-1)) * 1000
    assert found["residual_px"] < 1e-3 and found["truth_px"] < 1e-3 and found["inside"] == 1.0
    assert found["palm_mm"] == pytest.approx(palm, abs=1e-3) and found["frames"] == FRAMES


def test_the_check_finds_inverted_extrinsics(tmp_path, scene):
    scene_wrong = Scene(scene.k, np.linalg.inv(scene.m), scene.joints, scene.vertices, scene.pose)
    root = lay_out(tmp_path, scene)
    for file in (root / "calib" / "1203").iterdir():
        data = json.loads(file.read_text())
        file.write_text(json.dumps(data | {"M": scene_wrong.m.tolist()}))
    found = check_recording(only(hanco.recordings(root, "test")))["right"]
    assert found["residual_px"] > 10 and found["truth_px"] > 10


def test_a_lost_image_loses_one_view_of_one_frame(root, scene):
    whole = only(hanco.recordings(root, "test"))
    (root / "rgb_merged/1203/cam1/00000002.jpg").unlink()
    recording = only(hanco.recordings(root, "test"))
    lost = np.ones((FRAMES, VIEWS), bool)
    lost[2, 1] = False
    assert (recording.present == lost).all()
    same = [[a == b for a, b in zip(*rows, strict=True)] for rows in zip(recording.images, whole.images, strict=True)]
    assert (np.array(same) == lost).all()
    labels = recording.hands[0].labels
    assert (labels.mask.all(-1) == lost).all()
    np.testing.assert_array_equal(labels.uv_px[lost], whole.hands[0].labels.uv_px[lost])
    assert (recording.hands[0].truth.visible.all(-1) == lost).all() and recording.hands[0].truth.valid.all()


def test_a_lost_frame_shifts_no_other(root, scene):
    """Image, calibration, joints: whatever frame 1 lacks, frame 2 stays row 2."""
    for v in range(VIEWS):
        (root / f"rgb_merged/1203/cam{v}/00000001.jpg").unlink()
    (root / "calib/1203/00000003.json").unlink()
    (root / "xyz/1203/00000004.json").unlink()
    recording = only(hanco.recordings(root, "test"))
    assert recording.present.all(1).tolist() == [True, False, True, False, True, True]
    truth = recording.hands[0].truth
    assert truth.valid.tolist() == [True, False, True, False, False, True]
    np.testing.assert_allclose(truth.joints_world_m[5], scene.joints[5], atol=3e-8)
    assert (truth.joints_world_m[~truth.valid] == 0).all()


def test_labels_may_be_missing_in_one_file_or_in_all(root):
    (root / "rgb_2D_keypoints/1203/cam0/00000000.json").unlink()
    write_json(root / "rgb_2D_keypoints/1203/cam0/00000001.json", [[[0, 0]] * 21, [0.0] * 21])
    mask = only(hanco.recordings(root, "test")).hands[0].labels.mask
    assert not mask[:2, 0].any() and mask[2:, 0].all() and mask[:, 1:].all()
    (root / "rgb_2D_keypoints").rename(root / "rgb_2d_keypoints")
    assert only(hanco.recordings(root, "test")).hands[0].labels is not None
    (root / "rgb_2d_keypoints").rename(root / "elsewhere")
    assert only(hanco.recordings(root, "test")).hands[0].labels is None


def test_hamucos_protocol(root, scene):
    lay_out(root, scene, "0007", "rgb")
    lay_out(root, scene, "1199", "rgb_merged")  # in no split: trained on from rgb, where it is not
    assert [r.name for r in hanco.recordings(root, "train")] == ["0007"]
    assert [r.name for r in hanco.recordings(root, "test")] == ["1203"]


def test_the_official_split(root, scene):
    lay_out(root, scene, "0000", "rgb")
    lay_out(root, scene, "0001", "rgb")
    green, good = [[True] * FRAMES, [False] * FRAMES], [[True] * FRAMES, [True, False] * (FRAMES // 2)]
    write_json(root / "meta.json", {"is_train": green, "is_valid": good})
    assert [r.name for r in hanco.recordings(root, "train", "official")] == ["0000"]
    test = only(hanco.recordings(root, "test", "official"))
    assert test.name == "0001" and test.present.all()
    assert test.hands[0].truth.valid.tolist() == [True, False] * (FRAMES // 2)


def test_without_a_hand_there_are_joints_and_it_is_said(root, tmp_path, monkeypatch):
    monkeypatch.setenv("USTHAND_HAND", str(tmp_path / "none.npz"))
    imported = only(import_recordings(reader("hanco"), root, tmp_path / "out", DatasetConfig("test")))
    assert not load_truth(imported.folder, "right").has_mesh and imported.lacks_meshes
    assert "palm" in imported.report[0] and "residual 0 px" in imported.report[0]
    again = only(import_recordings(reader("hanco"), root, tmp_path / "out", DatasetConfig("test")))
    assert "kept as it was" in again.report[0]


def test_an_import_does_not_mix_protocols(root, scene, tmp_path, monkeypatch):
    monkeypatch.setenv("USTHAND_HAND", str(tmp_path / "none.npz"))
    lay_out(root, scene, "1203", "rgb")
    write_json(
        root / "meta.json", {"is_train": [[]] * 1203 + [[False] * FRAMES], "is_valid": [[]] * 1203 + [[True] * FRAMES]}
    )
    list(import_recordings(reader("hanco"), root, tmp_path / "out", DatasetConfig("test")))
    with pytest.raises(UsthandError, match="is there already, of hanco hamuco test"):
        list(import_recordings(reader("hanco"), root, tmp_path / "out", DatasetConfig("test", "official")))


def test_another_hand_than_the_data_sets_is_refused(root, hand):
    """A hand whose mean pose is the flat one is `flat_hand_mean` mixed up."""
    arrays = mano_layout(hand) | {"hands_mean": np.zeros(45)}
    with pytest.raises(UsthandError, match="mm from its joints"):
        list(hanco.recordings(root, "test", "", hand_from_arrays(arrays, torch.float64)))


def test_a_camera_that_moves_is_refused(root):
    file = root / "calib/1203/00000002.json"
    data = json.loads(file.read_text())
    data["M"][1][0][3] += 0.1
    file.write_text(json.dumps(data))
    with pytest.raises(UsthandError, match="camera 1 of sequence 1203 moves"):
        list(hanco.recordings(root, "test"))


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("calib/1203/00000001.json", "{", "cannot be read"),
        ("calib/1203/00000001.json", '{"K": 1}', "no K and M"),
        ("xyz/1203/00000001.json", "[[1, 2, 3]]", "21 x 3 finite numbers"),
        ("xyz/1203/00000001.json", "[" + ", ".join(["[NaN, 0, 0]"] * 21) + "]", "finite numbers"),
        ("rgb_2D_keypoints/1203/cam0/00000001.json", "[[], []]", "21 points"),
    ],
)
def test_damaged_files_are_named(root, file, content, told):
    (root / file).write_text(content)
    with pytest.raises(UsthandError, match=told) as error:
        list(hanco.recordings(root, "test"))
    assert file in str(error.value)


def test_what_is_no_hanco(tmp_path, root):
    with pytest.raises(UsthandError, match="no split 'val'"):
        list(hanco.recordings(root, "val"))
    with pytest.raises(UsthandError, match="no protocol 'mine'"):
        list(hanco.recordings(root, "test", "mine"))
    with pytest.raises(UsthandError, match=r"there is no .*calib"):
        list(hanco.recordings(tmp_path, "test"))
    with pytest.raises(UsthandError, match=r"rgb: the folder is not HanCo's"):
        list(hanco.recordings(root, "train"))
    with pytest.raises(UsthandError, match="no reader for the data set 'hanko'"):
        reader("hanko")


# ---- writing HanCo's layout ----------------------------------------------------------------------------------------

CONFIG = SynthConfig(views=8, frames=2, seed=11, size=192)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The data set, and the capture that its test sequence was cut from."""
    folder = tmp_path_factory.mktemp("synthetic")
    root = write_hanco(folder / "hanco", CONFIG, 1)
    source = make_capture(folder / "source", SynthConfig(views=8, frames=2, seed=12, size=192))
    return root, source


def test_what_is_written_has_the_official_files(written):
    root, _ = written
    for number, images in (("0000", "rgb"), ("1200", "rgb_merged")):
        assert len(list((root / images / number).glob("cam?/????????.jpg"))) == 16
        assert len(list((root / "rgb_2D_keypoints" / number).glob("cam?/????????.json"))) == 16
        for kind in ("calib", "xyz", "shape"):
            assert len(list((root / kind / number).glob("????????.json"))) == 2
    assert {p.name for p in root.iterdir()} == {
        "rgb",
        "rgb_merged",
        "rgb_2D_keypoints",
        "calib",
        "xyz",
        "shape",
        "meta.json",
        "mano",
        "synthetic.txt",
    }
    meta = json.loads((root / "meta.json").read_text())
    assert {len(table) for table in meta.values()} == {1518}
    assert (
        meta["is_train"][0] == [True, True] and meta["is_train"][1200] == [False, False] and meta["is_train"][5] == []
    )
    with Image.open(root / "rgb/0000/cam3/00000001.jpg") as image:
        assert image.size == (224, 224)
    # As the official example reads it.
    shape = json.loads((root / "shape/1200/00000001.json").read_text())
    assert {key: np.shape(value) for key, value in shape.items()} == {
        "poses": (1, 48),
        "shapes": (1, 10),
        "global_t": (1, 1, 3),
    }


def test_what_is_written_is_read_back(written):
    root, source = written
    recording = only(
        hanco.recordings(root, "test", "", load_hand(root / "mano" / "MANO_RIGHT.pkl", dtype=torch.float64))
    )
    assert recording.dataset == "hanco-synthetic"  # and so is never compared with what papers print for HanCo
    truth, exact = recording.hands[0].truth, load_truth(source, "right")
    np.testing.assert_allclose(truth.joints_world_m, exact.joints_world_m, atol=1e-7)
    np.testing.assert_allclose(truth.vertices_world_m, exact.vertices_world_m, atol=3e-6)  # written in single precision
    np.testing.assert_allclose(truth.pose, exact.pose, atol=1e-6)
    assert "palm" in report_lines(recording)[0] and truth.visible.mean() > 0.99


def test_crops_show_what_the_capture_showed(written, tmp_path):
    """At every joint the imported capture has the colour that the rendered one has there, and its labels' distances."""
    root, source = written
    ours = open_capture(write_recording(only(hanco.recordings(root, "test")), tmp_path))
    theirs = open_capture(source)
    joints = torch.from_numpy(load_truth(source, "right").joints_world_m).double()
    uv = [project(c.rig.tensors(torch.float64), joints)[0].numpy() for c in (ours, theirs)]
    differences = []
    for view, name in enumerate(theirs.rig.names):
        for (t, image), (_, expected) in zip(ours.read(name), theirs.read(name), strict=True):
            for joint in range(21):
                pixels = [
                    cv2.getRectSubPix(i, (3, 3), tuple(map(float, p[t, view, joint]))).mean((0, 1))
                    for i, p in zip((image, expected), uv, strict=True)
                ]
                differences.append(np.abs(pixels[0] - pixels[1]).mean())
    # Grey levels; a shift by one pixel of the crop costs about as much as the two codecs together.
    assert np.median(differences) < 3 and np.mean(differences) < 5


def test_crops_are_centred_and_as_large_as_hamuco_looks(written):
    """The joints lie in the middle: their box has HAND_PX as its longer side and its middle at 111.5."""
    root, _ = written
    for t in range(2):
        data = json.loads((root / f"calib/0000/{t:08d}.json").read_text())
        joints = np.array(json.loads((root / f"xyz/0000/{t:08d}.json").read_text()))
        for k, m in zip(np.array(data["K"]), np.array(data["M"]), strict=True):
            uv = cv2.projectPoints(joints, cv2.Rodrigues(m[:3, :3])[0], m[:3, 3], k, None)[0][:, 0]
            np.testing.assert_allclose((uv.min(0) + uv.max(0)) / 2, 111.5, atol=1e-4)
            assert (uv.max(0) - uv.min(0)).max() == pytest.approx(HAND_PX, abs=1e-4) and HAND_PX < 130


def test_undistorting_is_opencvs(written):
    """Against cv2.undistort with the crop's matrix, on a smooth image."""
    _, source = written
    rig = open_capture(source).rig
    matrix = crop_matrices(rig, load_truth(source, "right").joints_world_m)[0, 2]
    v, u = np.mgrid[:192, :192]
    image = np.stack((u, v, 128 + 60 * np.sin(u / 15)), -1).astype(np.uint8)
    camera = rig.cameras[2]
    maps = cv2.initUndistortRectifyMap(camera.matrix, camera.distortion, None, matrix, (224, 224), cv2.CV_32FC1)
    expected = cv2.remap(image, *maps, cv2.INTER_LINEAR)
    inside = (maps[0] > 2) & (maps[0] < 189) & (maps[1] > 2) & (maps[1] < 189)
    assert inside.mean() > 0.5
    difference = cut_undistorted(image, camera, matrix).astype(int) - expected
    assert np.abs(difference[inside]).max() <= 2  # rounding of both, and OpenCV's 1/32 px steps


@pytest.mark.parametrize(
    ("changes", "sequences", "told"),
    [({"views": 4}, 1, "cannot hold 4 cameras"), ({"side": "left"}, 1, "left hand"), ({}, 0, "0 sequences")],
)
def test_what_cannot_be_written(tmp_path, changes, sequences, told):
    with pytest.raises(UsthandError, match=told):
        write_hanco(tmp_path / "x", SynthConfig(**({"views": 8} | changes)), sequences)
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "z").touch()
    with pytest.raises(UsthandError, match="exists"):
        write_hanco(tmp_path / "y", SynthConfig(views=8))
