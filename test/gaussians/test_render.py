"""Rendering: closed forms for the plain twin, the plain twin for the fast renderers."""

import threading

import numpy as np
import pytest
import torch
from support.drawn_scenes import as_double, assert_same_picture, make, random_scene
from support.random_gaussians import axis_angle, pose
from support.tile_pictures import draw_tiles

from gsemsplat_ros.gaussians import render_cpu as cpu_module
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.projection import jacobian_limits
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.gaussians.render_cpu import render_cpu
from gsemsplat_ros.gaussians.render_plain import render_plain, render_windows
from gsemsplat_ros.images.camera import Camera

EACH = pytest.mark.parametrize('draw', [render_plain, render_cpu, draw_tiles])
IDENTITY = np.eye(4)
CAMERA = Camera(48, 40, 60.0, 50.0, 20.0, 17.0)


@EACH
def test_one_gaussian_has_the_right_profile(draw):
    """On the optical axis the picture is o exp(-d^2 / 2 var) with var = (f s / z)^2 + 0.3, per axis."""
    s, z, opacity, background = 0.08, 2.0, 0.7, (0.1, 0.2, 0.3)
    gaussians = make([[0, 0, z]], s, opacity)
    picture = draw(gaussians, CAMERA, IDENTITY, background)
    v, u = np.mgrid[:40, :48]
    power = (u - 20.0) ** 2 / ((60 * s / z) ** 2 + 0.3) + (v - 17.0) ** 2 / ((50 * s / z) ** 2 + 0.3)
    alpha = opacity * np.exp(-power / 2)
    alpha[alpha < 1 / 255] = 0
    np.testing.assert_allclose(picture.alpha, alpha, atol=5e-6)
    assert picture.alpha[17, 20] == pytest.approx(opacity, abs=1e-5)
    color, code = gaussians.colors[0].numpy(), gaussians.codes[0].numpy()
    a = alpha[..., None]
    np.testing.assert_allclose(picture.rgb, a * color + (1 - a) * background, atol=1e-5)
    np.testing.assert_allclose(picture.codes, a * code, atol=1e-5)
    np.testing.assert_allclose(picture.depth, np.where(alpha >= 0.01, z, np.nan), atol=1e-5)
    assert 100 < (alpha > 0).sum() < 400  # neither empty nor everywhere


@EACH
def test_projection_of_a_turned_gaussian_seen_from_elsewhere(draw):
    """The image covariance is J V J^T + 0.3 I with J by finite differences of the pinhole formula."""
    camera_from_world = pose(3)
    rotation, quat = axis_angle((1, 2, -1), 0.9)
    in_camera = np.array([0.25, -0.2, 1.5])
    world_from_camera = np.linalg.inv(camera_from_world)
    mean = world_from_camera[:3, :3] @ in_camera + world_from_camera[:3, 3]
    scales = np.array([0.02, 0.15, 0.06])

    def pixel(world_point):
        x, y, z = camera_from_world[:3, :3] @ world_point + camera_from_world[:3, 3]
        return np.array([60 * x / z + 20, 50 * y / z + 17])

    h = 1e-5
    J = np.stack([(pixel(mean + h * e) - pixel(mean - h * e)) / (2 * h) for e in np.eye(3)], -1)  # (2, 3)
    S = J @ rotation @ np.diag(scales**2) @ rotation.T @ J.T + 0.3 * np.eye(2)
    v, u = np.mgrid[:40, :48]
    d = np.stack([u, v], -1) - pixel(mean)
    alpha = 0.9 * np.exp(-0.5 * np.einsum('hwi,ij,hwj->hw', d, np.linalg.inv(S), d))
    alpha[alpha < 1 / 255] = 0
    picture = draw(make([mean], [scales], 0.9, quat), CAMERA, camera_from_world)
    np.testing.assert_allclose(picture.alpha, alpha, atol=2e-5)
    np.testing.assert_allclose(picture.depth[alpha > 0.02], 1.5, atol=1e-5)


@EACH
def test_order_is_by_depth_and_light_runs_out(draw):
    """At the centre pixel: weights o1, (1 - o1) o2, ...; the one that takes the light below 1e-4 ends the
    pixel, and so the faint one behind it is not drawn either. Rows are shuffled: depth decides, not order of
    storage."""
    depths, opacities = [3.0, 1.0, 4.0, 2.0], [0.98, 0.98, 0.1, 0.98]
    colors = np.eye(4)[:, :3]
    gaussians = make([[0, 0, z] for z in depths], 0.2, opacities, colors=colors, codes=np.eye(4))
    picture = draw(gaussians, CAMERA, IDENTITY)
    weights = [0.0, 0.98, 0.0, 0.02 * 0.98]
    np.testing.assert_allclose(picture.codes[17, 20], weights, atol=1e-6)
    np.testing.assert_allclose(picture.rgb[17, 20], weights[:3], atol=1e-6)
    total = sum(weights)
    assert picture.alpha[17, 20] == pytest.approx(total, abs=1e-6)
    assert picture.depth[17, 20] == pytest.approx((1.0 * weights[1] + 2.0 * weights[3]) / total, abs=1e-5)


@EACH
def test_alpha_of_one_gaussian_is_capped_and_dark_colors_are_black(draw):
    picture = draw(make([[0, 0, 2]], 0.3, 1.0, colors=[[-0.5, 0.5, 1.5]]), CAMERA, IDENTITY)
    assert picture.alpha[17, 20] == pytest.approx(0.99, abs=1e-6)
    np.testing.assert_allclose(picture.rgb[17, 20], [0, 0.495, 1.485], atol=1e-5)


@EACH
def test_nothing_to_see(draw):
    """No Gaussians; all behind or too near; values that are no numbers or absurd: the background."""
    bad = make(
        [[0, 0, -2], [0, 0, 0.005], [np.nan, 0, 1], [0, np.inf, 1], [0, 0, 2], [0, 0, 2], [0, 0, 2]],
        [0.1, 0.1, 0.1, 0.1, np.nan, 1e30, 0.1],
        [0.9] * 6 + [0.001],
    )
    for gaussians in (bad, bad.select(slice(0, 0))):
        picture = draw(gaussians, CAMERA, IDENTITY, (0.5, 0.25, 1.0))
        assert (picture.rgb == torch.tensor([0.5, 0.25, 1.0])).all()
        assert not picture.alpha.any() and not picture.codes.any() and picture.depth.isnan().all()


def test_jacobian_limits():
    """Centred they are 1.3 tan(fov / 2); a shifted principal point shifts them by the same angle."""
    x_min, x_max, y_min, y_max = jacobian_limits(50.0, 60.0, 49.5, 39.5, 100, 80)
    np.testing.assert_allclose([x_min, x_max, y_min, y_max], 1.3 * np.array([-1, 1, -40 / 60, 40 / 60]))
    shifted = jacobian_limits(50.0, 60.0, 59.5, 33.5, 100, 80)
    np.testing.assert_allclose(shifted, np.array([x_min, x_max, y_min, y_max]) + [-0.2, -0.2, 0.1, 0.1])


SIZES = [(16, 16), (1, 1), (37, 50), (100, 33), (64, 17)]


@pytest.mark.parametrize('width, height', SIZES)
@pytest.mark.parametrize('shift', [(0.5, 0.5), (0.2, 0.9)])
def test_cpu_equals_plain(width, height, shift):
    camera = Camera(width, height, 40.0, 45.0, shift[0] * width - 0.5, shift[1] * height - 0.5)
    gaussians = random_scene(camera, 400, seed=width)
    camera_from_world = IDENTITY if shift[0] == 0.5 else pose(1)
    gaussians = gaussians.transformed(np.linalg.inv(camera_from_world), 'world')
    background = (0.3, 0.6, 0.9)
    plain = render_plain(as_double(gaussians), camera, camera_from_world, background)
    fast = render(gaussians, camera, camera_from_world, background)
    assert_same_picture(fast, plain)
    assert plain.alpha.max() > 0.5 and fast.rgb.dtype == torch.float32


@pytest.mark.parametrize('n, codes', [(3000, 32), (40, 0), (5, 13)])
def test_cpu_equals_plain_for_any_number_of_gaussians_and_channels(n, codes):
    gaussians = random_scene(CAMERA, n, seed=n, codes=codes)
    plain = render_plain(as_double(gaussians), CAMERA, IDENTITY)
    assert_same_picture(render(gaussians, CAMERA, IDENTITY), plain)


def test_cpu_equals_plain_for_faint_gaussians_between_pixels():
    """Opacities just above 1/255 reach less than a pixel: many of them touch no pixel centre."""
    rng = np.random.default_rng(8)
    z = np.full(3000, 2.0)
    u, v = rng.uniform(0, 48, 3000), rng.uniform(0, 40, 3000)
    means = np.stack([(u - 20) / 60 * z, (v - 17) / 50 * z, z], -1)
    gaussians = make(means, 1e-3, rng.uniform(0.0039, 0.0043, 3000), codes=np.ones((3000, 1)))
    plain = render_plain(as_double(gaussians), CAMERA, IDENTITY)
    assert_same_picture(render(gaussians, CAMERA, IDENTITY), plain)
    touching = plain.codes.sum() / 0.0041
    assert 100 < touching < 1500


def test_windows_are_parts_of_the_picture():
    gaussians = random_scene(CAMERA, 300, seed=4)
    whole = render_plain(gaussians, CAMERA, IDENTITY, (0.1, 0.5, 0.9))
    windows = [(0, 0, 8, 8), (13, 5, 7, 9), (47, 39, 1, 1), (3, 30, 45, 10)]
    parts = render_windows(gaussians, CAMERA, IDENTITY, windows, (0.1, 0.5, 0.9))
    for (x0, y0, width, height), part in zip(windows, parts, strict=True):
        for name, value in vars(part).items():
            wanted = getattr(whole, name)[y0 : y0 + height, x0 : x0 + width]
            torch.testing.assert_close(value, wanted, rtol=0, atol=2e-6, equal_nan=True)


def test_gradients_of_a_window_are_those_of_its_part():
    def gradients(draw):
        scene = random_scene(CAMERA, 300, seed=4)
        values = {name: value.requires_grad_() for name, value in vars(scene).items() if name != 'frame'}
        draw(Gaussians(**values, frame='camera')).square().sum().backward()
        return {name: value.grad for name, value in values.items()}

    of_window = gradients(lambda scene: render_windows(scene, CAMERA, IDENTITY, [(13, 5, 7, 9)])[0].codes)
    of_picture = gradients(lambda scene: render_plain(scene, CAMERA, IDENTITY).codes[5:14, 13:20])
    for name in ('means', 'quats', 'scales', 'opacities', 'codes'):
        torch.testing.assert_close(of_window[name], of_picture[name], atol=1e-5, rtol=1e-4)
    assert 0 < (of_window['means'] != 0).any(1).sum() < 150


def test_gradients_of_plain():
    camera = Camera(6, 5, 8.0, 7.0, 2.2, 2.4)
    rng = np.random.default_rng(5)
    quats = rng.normal(size=(3, 4))
    means = [[0.1, -0.1, 1.0], [-0.2, 0.1, 1.3], [0.3, 0.2, 0.8]]
    scene = make(
        means,
        rng.uniform(0.1, 0.3, (3, 3)),
        [0.5, 0.8, 0.6],
        quats / np.linalg.norm(quats, axis=1, keepdims=True),
        dtype=torch.float64,
    )
    tensors = {name: value.requires_grad_() for name, value in vars(scene).items() if name != 'frame'}

    def draw(*values):
        picture = render_plain(Gaussians(*values, frame='camera'), camera, pose_near, (0.2, 0.1, 0.4))
        return picture.rgb, picture.depth.nan_to_num(), picture.alpha, picture.codes

    pose_near = np.eye(4)
    pose_near[:3, 3] = 0.02, -0.03, 0.1
    assert torch.autograd.gradcheck(draw, tuple(tensors.values()), eps=1e-6, atol=1e-6)
    sum(x.sum() for x in draw(*tensors.values())).backward()
    for name, value in tensors.items():
        assert value.grad.abs().sum() > 1e-3, f'{name} has no influence'


def test_gradients_stay_finite_where_nothing_is_drawn():
    means = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, -1.0]], requires_grad=True)
    scene = make([[0, 0, 2], [0, 0, -1]], 0.01)
    picture = render_plain(Gaussians(**{**vars(scene), 'means': means}), CAMERA, IDENTITY)
    (picture.depth.nansum() + picture.rgb.sum()).backward()
    assert means.grad.isfinite().all() and means.grad[0].abs().sum() > 0 and not means.grad[1].any()


def test_several_threads_may_render_at_once_and_nothing_is_compiled_again():
    scenes = [random_scene(CAMERA, 500, seed) for seed in range(4)]
    alone = [render(scene, CAMERA, IDENTITY) for scene in scenes]
    versions = [len(f.signatures) for f in (cpu_module._project, cpu_module._draw)]
    together = [None] * 4

    def work(k):
        for _ in range(5):
            together[k] = render(scenes[k], CAMERA, IDENTITY)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.rgb, b.rgb) and torch.equal(a.codes, b.codes)
    render(random_scene(CAMERA, 60, 9, codes=7), Camera(20, 70, 30, 30, 9, 30), IDENTITY)
    assert [len(f.signatures) for f in (cpu_module._project, cpu_module._draw)] == versions == [1, 1]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cuda_equals_plain():
    gaussians = random_scene(CAMERA, 400, seed=2)
    opacities = gaussians.opacities.clamp(max=0.98)  # below both caps of alpha
    gaussians = Gaussians(**{**vars(gaussians), 'opacities': opacities})
    picture = render(gaussians.to('cuda'), CAMERA, pose(0), (0.2, 0.4, 0.6))
    assert picture.rgb.is_cuda
    on_cpu = type(picture)(**{name: value.cpu() for name, value in vars(picture).items()})
    plain = render_plain(as_double(gaussians), CAMERA, pose(0), (0.2, 0.4, 0.6))
    assert_same_picture(on_cpu, plain, rare=0.01)
