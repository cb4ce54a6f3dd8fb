"""The rasteriser against ray geometry and OpenCV: silhouettes, depth, order, shading, noise, visibility."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from usthand.capture.rig import Camera
from usthand.datasets.synthetic import render, shade, shapes
from usthand.geometry import raster

SIZE = 96
PINHOLE = np.array([-0.28, 0.12, 0.002, -0.003, 0.0])
RATIONAL = np.array([0.3, -0.1, 0.001, 0.002, 0.02, 0.4, -0.05, 0.01])
FISHEYE = np.array([0.05, -0.02, 0.004, -0.001])
LENSES = {"none": ("pinhole", np.zeros(0)), "pinhole": ("pinhole", PINHOLE), "fisheye": ("fisheye", FISHEYE)}


def make_camera(model="pinhole", distortion=None, focal=110.0, size=SIZE):
    matrix = np.array([[focal, 0, 0.5 * size + 1.3], [0, focal * 1.02, 0.5 * size - 2.1], [0, 0, 1]])
    distortion = np.zeros(0) if distortion is None else distortion
    return Camera("c", size, size, matrix, distortion, model, np.eye(3), np.zeros(3))


def rays(camera, offset=(0.0, 0.0)):
    """Unit rays (H, W, 3) through pixels, by OpenCV's undistortion."""
    v, u = np.mgrid[0 : camera.height, 0 : camera.width].astype(float)
    uv = np.stack([u + offset[0], v + offset[1]], -1).reshape(-1, 1, 2)
    if camera.model == "fisheye":
        xy = cv2.fisheye.undistortPoints(uv, camera.matrix, camera.distortion)
    else:
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
        xy = cv2.undistortPoints(uv, camera.matrix, camera.distortion, criteria=stop)
    ray = np.concatenate([xy[:, 0], np.ones((len(xy), 1))], 1)
    return (ray / np.linalg.norm(ray, axis=1, keepdims=True)).reshape(camera.height, camera.width, 3)


def hits_sphere(ray, centre, radius):
    return (ray @ centre) ** 2 >= centre @ centre - radius**2


def plain_texels(n_faces, albedo):
    """Texture of one colour without relief."""
    texels = np.zeros((n_faces, shade.CELLS, shade.CHANNELS), np.float32)
    texels[..., :3] = albedo
    texels[..., 3] = 1.0
    return texels


def build(*bodies):
    """SceneModel and vertices from (vertices, faces, label, colour)."""
    parts, vertices, n = [], [], 0
    for v, f, label, colour in bodies:
        parts.append(render.Part(f + n, label, plain_texels(len(f), colour)))
        vertices.append(v)
        n += len(v)
    return render.merge(parts), np.concatenate(vertices)


def one_lamp(direction=(0.0, 0.0, -1.0), power=0.8, ambient=0.2):
    d = np.array(direction, float)[None]
    grey = np.full(3, ambient)
    return render.Lights(d / np.linalg.norm(d), np.full((1, 3), power), np.array([0.004]), sky=grey, ground=grey)


SILENT = render.Sensor(blur_px=0.0, read_noise=0.0, shot_noise=0.0)


def draw(model, vertices, camera, lights=None, sensor=SILENT, background=0.1, seed=0):
    lit = render.light_mesh(model, vertices, lights or one_lamp())
    flat = np.full((camera.height, camera.width, 3), background, np.float32)
    return render.render(model, lit, camera, flat, sensor, seed)


@pytest.mark.parametrize("lens", LENSES)
def test_silhouette_of_a_sphere_is_the_cone_of_its_tangents(lens):
    camera = make_camera(*LENSES[lens])
    centre, radius, rings, segments = np.array([0.05, -0.04, 0.5]), 0.11, 64, 96
    vertices, faces = shapes.sphere(radius, rings, segments)
    model, vertices = build((vertices + centre, faces, render.HAND, (0.5, 0.5, 0.5)))
    mask = draw(model, vertices, camera).mask > 0
    # The mesh is inscribed, so its outline lies between the sphere and that of the chords' middles. A pixel counts as
    # covered by two of four samples, which lie 0.25 px from its centre along both axes: 0.36 px at most.
    inner = radius * np.cos(np.pi / segments) * np.cos(0.5 * np.pi / rings)
    pixel = 0.36 * centre[2] / camera.matrix[0, 0] / np.cos(0.3)
    ray = rays(camera)
    assert mask[hits_sphere(ray, centre, inner - pixel)].all()
    assert not mask[~hits_sphere(ray, centre, radius + pixel)].any()
    corners = [(a, b) for a in (-0.25, 0.25) for b in (-0.25, 0.25)]
    fine = np.mean([hits_sphere(rays(camera, corner), centre, radius) for corner in corners], 0) >= 0.5
    area = fine.sum()
    # Area: the inscribed polyhedron's deficit, and pixels whose samples it moves across the threshold.
    deficit = area * (1 - (inner / radius) ** 2)
    assert abs(mask.sum() - area) <= deficit + 3 * np.sqrt(deficit)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    for axis in (rows, columns):
        assert abs((axis * mask).sum() / mask.sum() - (axis * fine).sum() / area) < 0.05


@pytest.mark.parametrize(
    "model, distortion", [("pinhole", np.zeros(0)), ("pinhole", PINHOLE), ("pinhole", RATIONAL), ("fisheye", FISHEYE)]
)
def test_projection_equals_opencv(model, distortion):
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.3, -0.3, 0.5], [0.3, 0.3, 1.0], (50, 3))
    turn, shift = cv2.Rodrigues(np.array([0.2, -0.3, 0.1]))[0], np.array([0.02, 0.03, 0.1])
    camera = Camera("c", SIZE, SIZE, make_camera().matrix, distortion, model, turn, shift)
    ours = render.project_camera(points, camera)
    vector = cv2.Rodrigues(turn)[0]
    if model == "fisheye":
        theirs = cv2.fisheye.projectPoints(points[:, None], vector, shift, camera.matrix, distortion)[0]
    else:
        theirs = cv2.projectPoints(points, vector, shift, camera.matrix, distortion)[0]
    np.testing.assert_allclose(ours[:, :2], theirs.reshape(-1, 2), atol=1e-9)
    np.testing.assert_allclose(ours[:, 2], (points @ turn.T + shift)[:, 2], atol=1e-12)


def test_points_that_the_lens_cannot_see_are_marked():
    camera = make_camera("pinhole", np.array([-0.4, 0.0, 0.0, 0.0]))
    # With k1 = -0.4 the radius r (1 - 0.4 r^2) stops growing at r = 0.913: a point beyond would fold into the image.
    screen = render.project_camera(np.array([[0.90, 0, 1.0], [0.95, 0, 1.0], [0, 0, -1.0]]), camera)
    assert (screen[:, 2] > 0).tolist() == [True, False, False]


def test_depth_and_barycentrics_are_perspective_correct_on_a_steep_plane():
    camera = make_camera()
    corner = np.array([[-0.4, -0.5, 0.4], [0.4, -0.5, 0.9], [0.4, 0.5, 1.6], [-0.4, 0.5, 1.1]])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    n = shade.SAMPLES
    buffer = raster.empty_buffer(SIZE * n, SIZE * n)
    raster.rasterise(render.project_camera(corner, camera), faces, buffer, n)
    inverse, ids, weights = buffer
    hit = np.argwhere(ids >= 0)
    assert len(hit) > 3000
    row, column = hit.T
    ray = np.stack([column, row], 1) / n - (0.5 - 0.5 / n)
    ray = np.concatenate([(ray - camera.matrix[:2, 2]) / camera.matrix[[0, 1], [0, 1]], np.ones((len(ray), 1))], 1)
    normal = np.cross(corner[1] - corner[0], corner[2] - corner[0])
    truth = ray * ((corner[0] @ normal) / (ray @ normal))[:, None]
    np.testing.assert_allclose(1 / inverse[row, column], truth[:, 2], rtol=1e-5)  # float32 buffers
    b = weights[row, column]
    b = np.concatenate([1 - b.sum(1, keepdims=True), b], 1)
    met = np.einsum("nk,nkc->nc", b, corner[faces[ids[row, column]]])
    np.testing.assert_allclose(met, truth, atol=2e-5)
    depth = np.zeros(ids.shape, np.float32)
    raster.interpolate(buffer, faces, corner[:, 2].copy(), depth)
    np.testing.assert_allclose(depth[row, column], truth[:, 2], atol=2e-5)


def test_neighbouring_triangles_leave_no_crack():
    camera = make_camera()
    vertices, faces = shapes.sphere(0.2, 40, 60)
    model, vertices = build((vertices + np.array([0, 0, 0.5]), faces, 1, (0.5, 0.5, 0.5)))
    depth = draw(model, vertices, camera).depth_m
    inside = hits_sphere(rays(camera), np.array([0, 0, 0.5]), 0.19)
    assert (depth[inside] < 0.5).all()  # the front, never the far side through a crack


def test_the_nearer_surface_wins_whatever_the_order():
    camera = make_camera()
    near = (*shapes.sphere(0.05, 32, 48), render.HAND, (0.7, 0.2, 0.2))
    far = (*shapes.sphere(0.12, 32, 48), render.OBJECT, (0.2, 0.2, 0.7))
    near = (near[0] + np.array([0.02, 0, 0.4]), *near[1:])
    far = (far[0] + np.array([0, 0, 0.7]), *far[1:])
    first, second = draw(*build(near, far), camera), draw(*build(far, near), camera)
    np.testing.assert_array_equal(first.mask, second.mask)
    ray = rays(camera)
    front = hits_sphere(ray, np.array([0.02, 0, 0.4]), 0.046)
    behind = hits_sphere(ray, np.array([0, 0, 0.7]), 0.112) & ~hits_sphere(ray, np.array([0.02, 0, 0.4]), 0.054)
    assert front.sum() > 300 and behind.sum() > 300
    assert (first.mask[front] == render.HAND).all() and (first.mask[behind] == render.OBJECT).all()
    assert first.rgb[front].mean(0)[0] > first.rgb[front].mean(0)[2]
    assert first.rgb[behind].mean(0)[2] > first.rgb[behind].mean(0)[0]


def test_mask_is_where_the_image_is_covered():
    camera = make_camera()
    vertices, faces = shapes.cylinder(0.05, 0.2)
    model, vertices = build((vertices + np.array([0.03, 0.02, 0.6]), faces, render.HAND, (0.6, 0.5, 0.4)))
    image = draw(model, vertices, camera, background=0.0)
    mask = image.mask > 0
    np.testing.assert_array_equal(mask, np.isfinite(image.depth_m))
    lit = image.rgb.max(-1) > 0
    assert lit[mask].all()
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert not lit[~grown].any()
    # A pixel with one sample of four covered is lit, yet not in the mask.
    assert 0 < (lit & ~mask).sum() < 0.25 * mask.sum()


def test_a_mesh_behind_the_camera_leaves_the_background():
    camera = make_camera()
    vertices, faces = shapes.sphere(0.1)
    model, vertices = build((vertices - np.array([0, 0, 0.5]), faces, 1, (0.6, 0.5, 0.4)))
    image = draw(model, vertices, camera)
    assert image.mask.max() == 0 and np.isinf(image.depth_m).all() and np.ptp(image.rgb) == 0


def test_lights_shadow_what_lies_behind():
    camera = make_camera()
    wall = (*shapes.box((0.8, 0.8, 0.02), 16), render.OBJECT, (0.5, 0.5, 0.5))
    wall = (wall[0] + np.array([0, 0, 0.9]), *wall[1:])
    ball = (*shapes.sphere(0.08), render.HAND, (0.5, 0.5, 0.5))
    ball = (ball[0] + np.array([-0.15, 0, 0.7]), *ball[1:])
    # Light from the left front: the ball at x = -0.15, 0.19 m before the wall, shadows the wall at x = 0.04.
    image = draw(*build(wall, ball), camera, one_lamp((-1, 0, -1), 0.8, 0.1))
    spot = render.project_camera(np.array([[0.04, 0, 0.89], [0.28, 0, 0.89]]), camera)[:, :2].round().astype(int)
    dark, bright = image.rgb[spot[0, 1], spot[0, 0]], image.rgb[spot[1, 1], spot[1, 0]]
    assert (dark.astype(int) + 40 < bright).all()


def test_a_crevice_sees_less_of_the_sky_than_a_ridge():
    a, faces = shapes.sphere(0.05, 24, 32)
    model, vertices = build((a, faces, 1, (0.5,) * 3), (a + np.array([0.098, 0, 0]), faces, 1, (0.5,) * 3))
    openness = render.light_mesh(model, vertices, one_lamp()).openness
    assert openness.min() >= 0 and openness.max() <= 1
    crevice = np.linalg.norm(vertices - np.array([0.049, 0, 0]), axis=1) < 0.022
    outside = vertices[:, 0] < -0.02
    assert openness[crevice].mean() < openness[outside].mean() - 0.25


def test_noise_has_the_promised_spread_and_follows_the_seed():
    camera = make_camera(size=192)
    vertices, faces = shapes.sphere(0.1)
    model, vertices = build((vertices - np.array([0, 0, 0.5]), faces, 1, (0.5,) * 3))
    noisy = render.Sensor(blur_px=0.0, read_noise=0.01, shot_noise=0.02)
    first = draw(model, vertices, camera, sensor=noisy, background=0.3, seed=5).rgb
    again = draw(model, vertices, camera, sensor=noisy, background=0.3, seed=5).rgb
    other = draw(model, vertices, camera, sensor=noisy, background=0.3, seed=6).rgb
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    sigma = np.hypot(0.01, 0.02 * np.sqrt(0.3))
    slope = 255 * 1.055 / 2.4 * 0.3 ** (1 / 2.4 - 1)  # of the sRGB curve
    assert first.astype(float).std() == pytest.approx(sigma * slope, rel=0.05)
    shared = (first.astype(float) - first.mean()).ravel() @ (other.astype(float) - other.mean()).ravel()
    assert abs(shared) / first.size / first.astype(float).var() < 0.02  # independent: 1/sqrt(110592) = 0.003


def test_threads_change_nothing():
    vertices, faces = shapes.sphere(0.1)
    model, vertices = build((vertices + np.array([0, 0, 0.5]), faces, 1, (0.5,) * 3))
    lit = render.light_mesh(model, vertices, one_lamp())
    cameras = [make_camera(focal=f) for f in (80.0, 100.0, 120.0, 140.0)]
    flat = [np.full((SIZE, SIZE, 3), 0.2, np.float32)] * 4
    alone = render.render_views(model, lit, cameras, flat, [render.Sensor()] * 4, 3)
    with ThreadPoolExecutor(2) as pool:
        together = render.render_views(model, lit, cameras, flat, [render.Sensor()] * 4, 3, pool)
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        np.testing.assert_array_equal(a.depth_m, b.depth_m)


def test_texture_cells_tile_the_triangle():
    weights, cells = render.texel_corners()
    assert len(cells) == shade.CELLS
    assert np.allclose(weights.sum(1), 1) and weights.min() >= 0
    # One upright cell has 1/TEXELS^2 of the triangle's area, and its corners differ by one step along b1 and b2.
    step = weights[cells[:, 1:]] - weights[cells[:, :1]]
    np.testing.assert_allclose(step[..., 1:], np.broadcast_to(np.eye(2) / shade.TEXELS, (len(cells), 2, 2)), atol=1e-12)


def test_joints_hide_behind_other_flesh_but_not_behind_their_own():
    camera = make_camera()
    radius = 0.02
    ball = shapes.sphere(radius, 32, 48)
    far, near = np.array([0, 0, 0.6]), np.array([0, 0, 0.4])
    aside, outside, back = np.array([0.12, 0, 0.6]), np.array([0.6, 0, 0.6]), np.array([0, 0, -0.6])
    model, vertices = build(*[(ball[0] + c, ball[1], 1, (0.5,) * 3) for c in (far, near, aside)])
    depth = draw(model, vertices, camera).depth_m
    joints = np.stack([far, near, aside, outside, back, [0.0, 0.2, 0.6]])
    seen = render.joint_visibility(joints, depth, camera, flesh_m=radius + 0.002)
    assert seen.tolist() == [False, True, True, False, False, True]
    assert not render.joint_visibility(joints[1:2], depth, camera, flesh_m=radius - 0.005)[0]
