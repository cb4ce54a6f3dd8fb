"""A synthetic capture holds what it says: pixels, labels and truth agree, and nothing but the seed decides."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch

from usthand.capture.capture import open_capture
from usthand.capture.rig import MIRROR
from usthand.common.errors import UsthandError
from usthand.datasets.synthetic import write
from usthand.datasets.synthetic.render import FOREARM, HAND
from usthand.datasets.synthetic.write import SynthConfig, made_capture, make_capture
from usthand.evaluation.truth import load_truth
from usthand.geometry.cameras import project
from usthand.hand.io import load_hand
from usthand.labels.labels import load_labels, load_npz

SMALL = SynthConfig(views=3, frames=12, size=96, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_capture(tmp_path_factory.mktemp("synthetic") / "right", SMALL)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    config = dataclasses.replace(SMALL, side="left", labels="exact")
    return make_capture(tmp_path_factory.mktemp("synthetic") / "left", config)


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def arrays(path):
    with np.load(path) as data:
        return {key: data[key] for key in data.files}


def uv_of_truth(capture, side):
    truth = load_truth(capture.path, side)
    uv, depth = project(capture.rig.tensors(dtype=torch.float64), torch.from_numpy(truth.joints_world_m).double())
    return uv.numpy(), depth.numpy(), truth


def test_the_capture_opens_and_is_complete(folder):
    capture = open_capture(folder)
    assert len(capture.rig) == 3 and capture.n_frames == 12 and capture.fps == 30.0
    assert capture.rig.metric
    for name in capture.rig.names:
        frames = list(capture.read(name))
        assert len(frames) == 12 and frames[0][1].shape == (96, 96, 3)
    labels = load_labels(capture, "right")
    assert labels.uv_px.shape == (12, 3, 21, 2) and labels.cameras == capture.rig.names
    truth = load_truth(folder, "right")
    assert truth.vertices_world_m.shape == (12, 778, 3) and truth.visible.shape == (12, 3, 21)


def test_truth_is_in_no_labels_file(folder):
    """Noisy labels differ from the exact projection everywhere; their files hold labels and nothing else."""
    capture = open_capture(folder)
    uv, _, _ = uv_of_truth(capture, "right")
    for path in (folder / "labels").iterdir():
        labels = load_npz(path)
        distance = np.linalg.norm(labels.uv_px - uv, axis=-1)[labels.mask]
        assert np.median(distance) > 0.2 and (distance < 1e-3).mean() < 0.01
        allowed = {"uv_px", "confidence", "cameras", "side", "detector", "version"}
        assert set(arrays(path)) <= allowed


def test_truth_is_the_hand_model_at_the_stored_pose(folder):
    truth = load_truth(folder, "right")
    hand = load_hand(side="right", dtype=torch.float64)
    rotations = hand.rotations(torch.from_numpy(truth.pose).double(), flat_hand_mean=True)
    shaped = hand.with_shape(torch.from_numpy(truth.shape).double())
    posed = shaped.with_pose(rotations, torch.from_numpy(truth.translation_m).double())
    # Stored in float32: 1e-7 relative of lengths of 0.2 m and of angles of some radians.
    np.testing.assert_allclose(truth.vertices_world_m, posed.vertices.numpy(), atol=3e-6)
    np.testing.assert_allclose(truth.joints_world_m, posed.joints.numpy(), atol=3e-6)


@pytest.fixture(scope="module")
def spied(tmp_path_factory):
    """A capture with exact labels, and the views as they left the renderer: [frame][view] of rgb and mask."""
    views, sample = [], write.sample_scene

    class Spy:
        def __init__(self, *args, **options):
            self.scene = sample(*args, **options)

        def __getattr__(self, name):
            return getattr(self.scene, name)

        def draw_sequence(self, *args, **options):
            for row in self.scene.draw_sequence(*args, **options):
                views.append(row)
                yield row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "sample_scene", Spy)
        config = dataclasses.replace(SMALL, labels="exact")
        path = make_capture(tmp_path_factory.mktemp("synthetic") / "spied", config)
    return open_capture(path), views


def test_exact_labels_are_the_projected_truth(spied):
    capture, _ = spied
    uv, depth, _ = uv_of_truth(capture, "right")
    assert (depth > 0.2).all()
    np.testing.assert_allclose(load_labels(capture, "right").uv_px, uv, atol=2e-3)  # truth is stored in float32


def test_seen_joints_lie_on_the_drawn_hand(spied):
    """Against the renderer's own mask: a seen joint's pixel is hand, or forearm at the wrist."""
    capture, views = spied
    uv, _, truth = uv_of_truth(capture, "right")
    hits = []
    for t, row in enumerate(views):
        for view, image in enumerate(row):
            seen = truth.visible[t, view]
            column, line = np.rint(uv[t, view, seen]).astype(int).T
            hits.append(np.isin(image.mask[line, column], (HAND, FOREARM)))
    hits = np.concatenate(hits)
    assert len(hits) > 100 and hits.mean() > 0.97  # a fingertip's vertex may lie on the outline, half a pixel off


def test_videos_hold_the_drawn_frames_in_order(spied):
    """Up to the codec; another frame of the same camera differs by several times more where the hand is."""
    capture, views = spied
    for view, name in enumerate(capture.rig.names):
        for t, image in capture.read(name):
            hand = views[t][view].mask == HAND
            drawn = views[t][view].rgb.astype(float)
            assert np.abs(image - drawn).mean() < 4.0
            other = views[(t + 6) % len(views)][view].rgb.astype(float)
            assert np.abs(image - drawn)[hand].mean() < 0.5 * np.abs(image - other)[hand].mean()


def test_the_hand_fills_a_good_part_of_the_image(folder):
    uv, _, _ = uv_of_truth(open_capture(folder), "right")
    side = (uv.max(2) - uv.min(2)).max(-1) / SMALL.size
    assert 0.2 < np.median(side) < 0.55
    assert ((uv > 0) & (uv < SMALL.size - 1)).mean() > 0.95


def test_same_seed_same_bytes(folder, tmp_path):
    again = make_capture(tmp_path / "again", SMALL)
    first, second = digests(folder), digests(again)
    assert first.keys() == second.keys()
    # Zip archives carry times: compare what they hold.
    for name in first:
        if name.endswith(".npz"):
            one, two = arrays(folder / name), arrays(again / name)
            assert all(np.array_equal(one[key], two[key]) for key in one), name
        else:
            assert first[name] == second[name], name


def test_another_label_level_changes_the_labels_alone(folder, left, tmp_path):
    light = make_capture(tmp_path / "light", dataclasses.replace(SMALL, labels="light"))
    first, second = digests(folder), digests(light)
    assert all(first[name] == second[name] for name in first if name.endswith((".mp4", ".toml")))
    np.testing.assert_array_equal(load_truth(folder, "right").joints_world_m, load_truth(light, "right").joints_world_m)
    one, two = load_npz(folder / "labels/right.npz"), load_npz(light / "labels/right.npz")
    assert not np.array_equal(one.uv_px, two.uv_px)


def test_another_seed_is_another_capture(folder, tmp_path):
    other = make_capture(tmp_path / "other", dataclasses.replace(SMALL, seed=6, frames=2))
    assert (folder / "rig.toml").read_text() != (other / "rig.toml").read_text()
    assert not np.array_equal(load_truth(folder, "right").shape, load_truth(other, "right").shape)


def test_a_left_capture_is_the_mirror_of_the_right_one(folder, left):
    right_truth, left_truth = load_truth(folder, "right"), load_truth(left, "left")
    np.testing.assert_allclose(left_truth.joints_world_m, right_truth.joints_world_m * MIRROR, atol=1e-7)
    hand = load_hand(side="left", dtype=torch.float64)
    rotations = hand.rotations(torch.from_numpy(left_truth.pose).double(), flat_hand_mean=True)
    shaped = hand.with_shape(torch.from_numpy(left_truth.shape).double())
    posed = shaped.with_pose(rotations, torch.from_numpy(left_truth.translation_m).double())
    np.testing.assert_allclose(left_truth.vertices_world_m, posed.vertices.numpy(), atol=3e-6)
    uv, _, _ = uv_of_truth(open_capture(left), "left")
    labels = load_npz(left / "labels/left.npz")
    assert labels.side == "left" and not (left / "labels/right.npz").exists()
    np.testing.assert_allclose(labels.uv_px, uv, atol=2e-3)
    one = next(iter(open_capture(folder).read("cam1")))[1]
    other = next(iter(open_capture(left).read("cam1")))[1]
    # Lossy twice, and chroma is subsampled: equal up to what the codec takes.
    assert np.abs(one[:, ::-1].astype(float) - other).mean() < 3.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_occluders_hide_joints(tmp_path, seed):
    plain = SynthConfig(views=2, frames=3, size=64, seed=seed)
    hidden = make_capture(tmp_path / "o", dataclasses.replace(plain, objects="any"))
    truth = load_truth(hidden, "right")
    assert truth.visible.shape == (3, 2, 21) and not truth.visible.all()
    assert open_capture(hidden).n_frames == 3


def test_more_objects_hide_more(tmp_path):
    """Held, and held among two that stand in the way: fewer joints are seen, over a few scenes."""
    seen = {}
    for objects in ("none", "held", "many"):
        shares = []
        for seed in range(4):
            config = SynthConfig(views=4, frames=2, size=64, seed=seed, objects=objects)
            path = make_capture(tmp_path / f"{objects}{seed}", config)
            shares.append(load_truth(path, "right").visible.mean())
        seen[objects] = np.mean(shares)
    assert seen["many"] < seen["held"] < seen["none"]


def test_nothing_is_written_over(folder):
    before = digests(folder)
    with pytest.raises(UsthandError, match="exists"):
        make_capture(folder, SMALL)
    assert digests(folder) == before


def test_a_capture_is_used_again_only_for_its_own_settings(tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, frames=2, views=2)
    made, real = [], write.make_capture
    monkeypatch.setattr(write, "make_capture", lambda *a: (made.append(a[1]), real(*a))[1])
    for _ in range(2):
        assert made_capture(tmp_path / "captures" / "0001", config).is_dir()
    assert made == [config]
    with pytest.raises(UsthandError, match="other settings"):
        made_capture(tmp_path / "captures" / "0001", dataclasses.replace(config, seed=6))
    settings = tmp_path / "captures" / "0001.json"
    known = json.loads(settings.read_text())
    settings.write_text(json.dumps({key: value for key, value in known.items() if key != "looks"}))
    made_capture(tmp_path / "captures" / "0001", config)  # from before there was a choice of looks
    assert made == [config]
    settings.unlink()
    with pytest.raises(UsthandError, match="other settings"):
        made_capture(tmp_path / "captures" / "0001", config)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(write, "write_video", broken)
    with pytest.raises(RuntimeError, match="disk is full"):
        make_capture(tmp_path / "c", SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"labels": "medium"},
        {"side": "both"},
        {"views": 0},
        {"frames": 0},
        {"fps": 0.0},
        {"size": 97},
        {"layout": "ring"},
        {"objects": "teapot"},
    ],
)
def test_bad_configurations_are_user_errors_and_leave_nothing(tmp_path, change):
    with pytest.raises(UsthandError):
        make_capture(tmp_path / "c", dataclasses.replace(SMALL, **change))
    assert list(tmp_path.iterdir()) == []
