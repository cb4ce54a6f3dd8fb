"""Scenes: rigs that see the hand, an arm that follows it, still objects and rooms, all decided by the seed."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from usthand.common.errors import UsthandError
from usthand.datasets.synthetic import render, scene
from usthand.datasets.synthetic.background import sample_background, sample_palette
from usthand.datasets.synthetic.surface import (
    ARM_RINGS,
    ELBOW_M,
    boundary_loop,
    forearm_faces,
    hand_surface,
    palm_frame,
    ring_distances_m,
)
from usthand.hand.io import load_hand


@pytest.fixture(scope="module")
def surface():
    return hand_surface(load_hand(side="right"), np.zeros(10))


def posed(surface, turn=None):
    """The rest hand, turned, with its joints' mean at the origin."""
    turn = np.eye(3) if turn is None else turn
    vertices, joints = surface.vertices_m @ turn.T, surface.joints_m @ turn.T
    return vertices - joints.mean(0), joints - joints.mean(0)


def make(surface, seed=0, views=3, size=64, occluders=(), **more):
    rng = np.random.default_rng(seed)
    rig = scene.sample_rig(rng, views, "dome", size)
    return scene.sample_scene(rng, rig, surface, occluders, **more)


@pytest.mark.parametrize("layout", scene.LAYOUTS)
@pytest.mark.parametrize("views", [1, 4, 9])
def test_rigs_look_at_the_hand(layout, views):
    target = np.array([0.3, -0.2, 1.1])
    rig = scene.sample_rig(np.random.default_rng(views), views, layout, 200, target)
    assert len(rig) == views and len(set(rig.names)) == views
    for camera in rig.cameras:
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.rotation) == pytest.approx(1)
        assert camera.rotation[1, 2] < 0  # image down is not world up: no camera hangs upside down
        u, v, depth = render.project_camera(target[None], camera)[0]
        assert 0.4 < depth < 0.85
        assert np.hypot(u - 99.5, v - 99.5) < 0.16 * 200  # 15 mm off aim and the shifted principal point


def test_an_average_hand_fills_its_share_of_the_image():
    rig = scene.sample_rig(np.random.default_rng(3), 20, "dome", 256)
    for camera in rig.cameras:
        right = camera.rotation[0]
        ends = np.stack([-0.5 * right, 0.5 * right]) * scene.HAND_LENGTH_M
        length = np.ptp(render.project_camera(ends, camera)[:, 0]) / 256
        assert 0.9 * scene.HAND_SHARE < length < 1.12 * scene.HAND_SHARE  # focal length +-8 %, aim, distortion


def test_side_rigs_stay_on_one_side():
    rig = scene.sample_rig(np.random.default_rng(1), 4, "side", 128)
    direction = np.stack([c.centre_world for c in rig.cameras])[:, :2]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    assert (direction @ direction.T).min() > np.cos(np.radians(150))


def test_the_seed_decides_everything(surface):
    vertices, joints = posed(surface)
    first, again, other = (make(surface, seed).draw(vertices, joints, 3) for seed in (5, 5, 6))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        np.testing.assert_array_equal(a.visible, b.visible)
        assert (a.rgb != c.rgb).mean() > 0.9


def test_a_sequence_equals_its_frames_whatever_the_threads(surface):
    vertices, joints = posed(surface)
    steps = 0.004 * np.arange(6)[:, None, None]
    one = make(surface)
    for t, views in enumerate(one.draw_sequence(vertices + steps, joints + steps, threads=2)):
        for view, alone in zip(views, one.draw(vertices + steps[t], joints + steps[t], t), strict=True):
            np.testing.assert_array_equal(view.rgb, alone.rgb)
    assert t == 5


def test_the_scene_follows_the_hand_rigidly(surface):
    """Turning and moving the hand turns and moves the forearm and a grasped object with it."""
    vertices, joints = posed(surface)
    turn, shift = Rotation.from_rotvec([0.4, -1.0, 0.3]).as_matrix(), np.array([0.03, -0.02, 0.05])
    one = make(surface, occluders=["cylinder"])
    before = one.mesh(vertices, joints, 17)
    after = one.mesh(vertices @ turn.T + shift, joints @ turn.T + shift, 17)
    follows = np.ones(len(before), bool)  # all but the arm beyond the elbow, which hangs down in the world
    ring = len(surface.wrist_loop)
    before_elbow = int((ring_distances_m() <= ELBOW_M[0]).sum())
    follows[len(vertices) + before_elbow * ring : len(vertices) + (ARM_RINGS - 1) * ring] = False
    assert before_elbow > 5
    np.testing.assert_allclose(after[follows], (before @ turn.T + shift)[follows], atol=1e-12)
    assert np.abs(after - before @ turn.T - shift).max() > 0.02


def test_a_static_object_stays(surface):
    vertices, joints = posed(surface)
    one = make(surface, occluders=["static"])
    n = len(one.things[0].vertices_m)
    np.testing.assert_array_equal(one.mesh(vertices, joints, 0)[-n:], one.mesh(vertices + 0.01, joints + 0.01, 30)[-n:])


def test_the_wrist_bends_smoothly(surface):
    one = make(surface)
    bends = np.array([one.wrist_bend(t) for t in range(300)])
    assert np.abs(bends).max() < 0.5
    assert np.abs(np.diff(bends, axis=0)).max() < 0.45 * 2 * np.pi * 0.25 / 30


def test_forearm_closes_the_wrist(surface):
    """The open edge of hand and forearm together is the forearm's far end alone, and the surface stays oriented."""
    loop = surface.wrist_loop
    assert len(loop) > 8 and len(set(loop)) == len(loop)
    first = len(surface.vertices_m)
    faces = np.concatenate([surface.faces, forearm_faces(loop, first)])
    assert (boundary_loop(faces) >= first + (ARM_RINGS - 2) * len(loop)).all()
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)


def test_forearm_points_away_from_the_fingers(surface):
    vertices, joints = posed(surface)
    mesh = make(surface).mesh(vertices, joints, 0)[len(vertices) :]
    local = (mesh - joints[0]) @ palm_frame(joints)[1]
    assert local.min() < -0.2 and np.quantile(local, 0.95) < 0.02


def test_forearm_is_as_wide_as_an_arm(surface):
    vertices, joints = posed(surface)
    one = make(surface, seed=2)
    rings = one.mesh(vertices, joints, 0)[len(vertices) :].reshape(ARM_RINGS - 1, -1, 3)
    across = np.linalg.norm(rings - rings.mean(1, keepdims=True), axis=-1)
    assert 0.015 < across.min() and across.max() < 0.075


def test_masks_name_hand_forearm_and_object(surface):
    vertices, joints = posed(surface)
    views = make(surface, seed=1, views=6, occluders=["sphere"]).draw(vertices, joints)
    assert {label for view in views for label in np.unique(view.mask)} == {0, 1, 2, 3}
    for view in views:
        np.testing.assert_array_equal(view.mask > 0, np.isfinite(view.depth_m))


def face_on(surface, sign, occluders=()):
    """The view of a camera at which the palm (sign 1) or the back (sign -1) of the open hand looks, fingers up."""
    rig = scene.sample_rig(np.random.default_rng(0), 1, "side", 128)
    towards = sign * rig.cameras[0].centre_world / np.linalg.norm(rig.cameras[0].centre_world)
    across = np.cross([0.0, 0, 1], towards)
    across /= np.linalg.norm(across)
    goal = np.stack([across, np.cross(towards, across), towards])
    vertices, joints = posed(surface, goal.T @ surface.palm_frame)
    return scene.sample_scene(np.random.default_rng(0), rig, surface, occluders).draw(vertices, joints)[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_flat_hand_seen_face_on_shows_its_joints(surface, sign):
    assert face_on(surface, sign).visible.all()


def test_an_object_in_the_palm_hides_joints_from_the_front_only(surface):
    front, behind = face_on(surface, 1, ["sphere"]).visible, face_on(surface, -1, ["sphere"]).visible
    assert behind.all()
    assert 1 <= (~front).sum() <= 8  # some of wrist, thumb base and knuckles, no fingertip
    assert front[[4, 8, 12, 16, 20]].all()


def test_backgrounds_fill_the_range_and_differ():
    rng = np.random.default_rng(0)
    palette = sample_palette(rng)
    rooms = [sample_background(rng, 96, 128, palette) for _ in range(6)]
    for room in rooms:
        assert room.shape == (96, 128, 3) and np.isfinite(room).all() and room.min() > 0
        assert 0.08 < room.mean() < 0.6 and room.std() > 0.02
    assert min(np.abs(a - b).mean() for i, a in enumerate(rooms) for b in rooms[:i]) > 0.02


def test_dorsal_directions_are_unit_and_point_to_the_back(surface):
    np.testing.assert_allclose(np.linalg.norm(surface.dorsal, axis=-1), 1, atol=1e-9)
    assert (surface.dorsal[1:] @ -surface.palm_frame[2] > 0.7).all()
    fingers = surface.joints_m[1:].reshape(5, 4, 3)
    bones = np.diff(fingers, axis=1)
    np.testing.assert_allclose((surface.dorsal * bones).sum(-1), 0, atol=1e-9)


def test_many_objects_at_once(surface):
    """Each has its own triangles over its own vertices, held and standing ones in one scene."""
    vertices, joints = posed(surface)
    one = make(surface, occluders=["box", "static", "static"])
    assert [thing.grasped for thing in one.things] == [True, False, False]
    faces = one.model.faces[one.model.label == render.OBJECT]
    counts = [len(thing.vertices_m) for thing in one.things]
    total = len(one.mesh(vertices, joints))
    assert set(np.unique(faces)) == set(range(total - sum(counts), total))
    part = np.searchsorted(np.cumsum(counts), faces - (total - sum(counts)), side="right")
    assert (part == part[:, :1]).all(), "no triangle joins two objects"


def test_bad_requests_end_in_a_sentence(surface):
    rng = np.random.default_rng(0)
    with pytest.raises(UsthandError, match="layout"):
        scene.sample_rig(rng, 4, "ring")
    with pytest.raises(UsthandError, match="views"):
        scene.sample_rig(rng, 0)
    with pytest.raises(UsthandError, match="occluder"):
        scene.sample_scene(rng, scene.sample_rig(rng, 2), surface, ["teapot"])


def test_surface_follows_the_shape():
    hand = load_hand(side="right")
    shape = np.zeros(10)
    shape[0] = 2.0
    small, large = hand_surface(hand, np.zeros(10)), hand_surface(hand, shape)
    assert not np.allclose(small.vertices_m, large.vertices_m)
    with torch.no_grad():
        want = hand.with_shape(torch.as_tensor(shape, dtype=hand.v_template.dtype))
    assert want is not None and np.isfinite(large.vertices_m).all()
