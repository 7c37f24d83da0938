"""The tile renderer against its plain twin: in float64 to rounding, values and gradients."""

import sys

import numpy as np
import pytest
import torch
from support.drawn_scenes import as_double, assert_same_picture, make, random_scene
from support.pretend_gpu import PretendGPU
from support.random_gaussians import make_prediction, pose
from support.tile_pictures import draw_tiles, renew_trial
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gsemsplat_ros.gaussians import render_tiles as render_tiles_module
from gsemsplat_ros.gaussians import tile_lists
from gsemsplat_ros.gaussians.gaussians import TENSORS, Gaussians
from gsemsplat_ros.gaussians.render import render, render_views
from gsemsplat_ros.gaussians.render_plain import render_plain
from gsemsplat_ros.gaussians.render_tiles import render_tiles
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.training.objective import pair_of

CAMERA = Camera(50, 37, 60.0, 50.0, 20.0, 17.0)
BACKGROUND = (0.3, 0.6, 0.9)


@pytest.fixture(params=['small tiles', 'large tiles', 'small tiles, cut lists', 'large tiles, cut lists'])
def tiles(request, monkeypatch):
    if 'large' in request.param:
        monkeypatch.setattr(tile_lists, 'ENTRIES', 0)
    if 'cut' in request.param:
        monkeypatch.setattr(tile_lists, 'LONG', 0)


def draw_with_gradients(draw, gaussians, camera, camera_from_world):
    """The picture, and the gradients of a random sum of it."""
    tensors = {name: getattr(gaussians, name).clone().requires_grad_() for name in TENSORS}
    picture = draw(Gaussians(**tensors, frame='camera'), camera, camera_from_world, BACKGROUND)
    random = torch.Generator().manual_seed(1)
    total = sum(
        (maps.nan_to_num() * torch.randn(maps.shape, generator=random).to(maps)).sum()
        for maps in vars(picture).values()
    )
    return picture, torch.autograd.grad(total, list(tensors.values()))


def assert_equal_to_plain(gaussians, camera, camera_from_world=np.eye(4)):
    """Picture and gradients."""
    gaussians = as_double(gaussians)
    got, gradients = draw_with_gradients(draw_tiles, gaussians, camera, camera_from_world)
    wanted, wanted_gradients = draw_with_gradients(render_plain, gaussians, camera, camera_from_world)
    for name, value in vars(got).items():
        torch.testing.assert_close(value, getattr(wanted, name), rtol=1e-10, atol=1e-10, equal_nan=True)
    scale = max(float(expected.abs().sum()) for expected in wanted_gradients)
    for name, value, expected in zip(TENSORS, gradients, wanted_gradients):
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-12 * scale, msg=name)
    return got


@pytest.mark.parametrize('width, height', [(16, 16), (1, 1), (37, 50), (100, 33), (64, 17)])
def test_pictures_and_gradients(tiles, width, height):
    """Gaussians behind the camera, beside the picture, larger than it, far below a pixel, opaque, faint."""
    camera = Camera(width, height, 40.0, 45.0, 0.2 * width, 0.9 * height)
    gaussians = random_scene(camera, 400, seed=width).transformed(np.linalg.inv(pose(1)), 'world')
    picture = assert_equal_to_plain(gaussians, camera, pose(1))
    assert picture.alpha.max() > 0.5
    with torch.no_grad():
        in_float32 = draw_tiles(gaussians, camera, pose(1), BACKGROUND)
    assert_same_picture(in_float32, picture)


@pytest.mark.parametrize('codes', [0, 1, 32])
def test_any_number_of_channels(tiles, codes):
    assert_equal_to_plain(random_scene(CAMERA, 60, seed=3, codes=codes), CAMERA)


def test_hundreds_in_one_pixel(tiles):
    """Faint ones so that the last still count, at a corner of four tiles; and opaque ones that end it."""
    rng = np.random.default_rng(2)
    z = rng.uniform(1, 3, 900)
    offsets = rng.normal(0, 0.6, (2, 900)) + [[-4.5], [-1.5]]
    means = np.stack([offsets[0] * z / 60, offsets[1] * z / 50, z], -1)
    faint = make(means, 1e-3, 0.008, codes=rng.normal(size=(900, 3)))
    picture = assert_equal_to_plain(faint, CAMERA)
    assert 0.6 < picture.alpha.max() < 0.999
    mixed = make(means, 1e-3, rng.choice([0.01, 0.3, 1.0], 900), codes=rng.normal(size=(900, 3)))
    assert assert_equal_to_plain(mixed, CAMERA).alpha.max() > 0.9998


def test_degenerate_shapes(tiles):
    """Needles, discs and points, seen from along and across, near and far, at the edge of the picture."""
    means = [
        [0, 0, 0.02],
        [0.1, 0, 1],
        [-0.3, 0.2, 1],
        [0.5, 0.4, 1],
        [0.0, 0.1, 500],
        [2, 0, 0.5],
        [0, 0, 1],
    ]
    scales = [
        [1e-4] * 3,
        [1, 1e-7, 1e-7],
        [0, 0, 0],
        [0.5, 0.5, 1e-9],
        [1e-3] * 3,
        [3, 1e-3, 1],
        [50, 50, 50],
    ]
    quats = np.random.default_rng(4).normal(size=(7, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    gaussians = make(means, scales, [0.9, 0.5, 1.0, 0.7, 0.9, 0.6, 0.2], quats)
    assert_equal_to_plain(gaussians, CAMERA)


def test_nothing_visible(tiles):
    behind = make([[0, 0, -2], [0, 0, 0.005], [9, 0, 1], [0, 0, 2]], 0.01, [0.9, 0.9, 0.9, 0.001])
    for gaussians in (behind, behind.select(slice(0, 0))):
        assert not assert_equal_to_plain(gaussians, CAMERA).alpha.any()


def test_groups_do_not_show(monkeypatch, tiles):
    """One group for the whole picture, and groups of single tiles with more Gaussians than a group takes."""
    gaussians = random_scene(CAMERA, 500, seed=6)
    whole = draw_with_gradients(draw_tiles, gaussians, CAMERA, np.eye(4))
    monkeypatch.setattr(tile_lists, 'GROUP', 40)
    parts = draw_with_gradients(draw_tiles, gaussians, CAMERA, np.eye(4))
    for name, value in vars(whole[0]).items():
        torch.testing.assert_close(value, getattr(parts[0], name), rtol=1e-5, atol=1e-5, equal_nan=True)
    for value, of_parts in zip(whole[1], parts[1]):
        torch.testing.assert_close(value, of_parts, rtol=1e-3, atol=1e-5 * float(value.abs().max()))


def test_long_lists_end_where_the_light_does(monkeypatch):
    """Of a thousand layers before the whole picture few are drawn, and the picture is the same."""
    z = np.linspace(1, 3, 1000)
    layers = make(np.stack([0 * z, 0 * z, z], -1), z[:, None] * [[2, 2, 0.01]], 0.2)
    drawn = []
    genuine = tile_lists.list_tiles

    def counted(*arguments):
        lists = genuine(*arguments)
        drawn.append(sum(int(group.used.sum()) for group in lists.groups))
        return lists

    monkeypatch.setattr(render_tiles_module, 'list_tiles', counted)
    assert_equal_to_plain(layers, CAMERA)
    layers_drawn = drawn[0] / (13 * 10)
    assert 41 <= layers_drawn < 50  # light is below 1e-4 behind 41 of them


def test_several_scenes_and_views_at_once(tiles):
    """Two scenes, each seen by three cameras: every picture is that of its own scene and camera."""
    scenes = [as_double(random_scene(CAMERA, 150, seed=seed)) for seed in (1, 2)]
    focals = torch.tensor([[60, 50, 20, 17], [80, 90, 25, 18], [30, 30, 0, 36]], dtype=torch.float64)
    Ks = torch.zeros(2, 3, 3, 3, dtype=torch.float64)
    Ks[..., 0, 0], Ks[..., 1, 1], Ks[..., 0, 2], Ks[..., 1, 2] = (focals + torch.ones(2, 1, 1)).unbind(-1)
    Ks[..., 2, 2] = 1
    moved = torch.eye(4, dtype=torch.float64).repeat(2, 3, 1, 1)
    moved[..., :3, 3] = torch.linspace(-0.2, 0.3, 18, dtype=torch.float64).view(2, 3, 3)
    drawn = render_tiles(
        *(torch.stack([getattr(scene, name) for scene in scenes]) for name in TENSORS),
        viewmats=moved,
        Ks=Ks,
        width=50,
        height=37,
    )
    for s, scene in enumerate(scenes):
        for c in range(3):
            plain = render_plain(scene, Camera.from_K(Ks[s, c].numpy(), 50, 37), moved[s, c].numpy())
            for name, value in vars(drawn).items():
                wanted = getattr(plain, name)
                torch.testing.assert_close(value[s, c], wanted, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_a_training_draws_pairs_without_gsplat(monkeypatch):
    """`render_views` as on a GPU: pictures and gradients of each pair are those of the plain renderer."""
    monkeypatch.setitem(sys.modules, 'gsplat', None)
    renew_trial(monkeypatch)
    prediction = make_prediction(h=6, w=8, channels=4)
    views = prediction.first, prediction.second
    leaves = [view.means.requires_grad_() for view in views] + [view.codes.requires_grad_() for view in views]
    cameras = [Camera(21, 18, 15.0, 16.0, 10.0, 9.0), Camera(21, 18, 25.0, 20.0, 3.0, 12.0)]
    back = np.eye(4)
    back[2, 3] = 0.7

    drawn = render_views(
        prediction,
        torch.tensor(np.stack([camera.K for camera in cameras]), dtype=torch.float32),
        torch.tensor(np.stack([back, back]), dtype=torch.float32),
        18,
        21,
    )
    gradients = torch.autograd.grad(drawn.rgb.square().sum() + drawn.codes.square().sum(), leaves)
    total = torch.zeros(())
    for b, camera in enumerate(cameras):
        plain = render_plain(Gaussians.from_prediction(pair_of(prediction, b), 'first'), camera, back)
        total = total + plain.rgb.square().sum() + plain.codes.square().sum()
        for name, value in vars(drawn).items():
            wanted = getattr(plain, name)
            torch.testing.assert_close(value[b], wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
    for got, wanted in zip(gradients, torch.autograd.grad(total, leaves)):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def pixel_aligned(side, codes, seed=0):
    """Two Gaussians a pixel on a wavy wall, about a pixel large, as the network predicts them, and the
    camera."""
    rng = np.random.default_rng(seed)
    camera = Camera.centred(side, side, 0.9 * side)
    v, u = np.mgrid[:side, :side].reshape(2, -1) + rng.normal(0, 0.3, (2, 2, side**2)).swapaxes(0, 1)
    u, v = u.flatten(), v.flatten()
    z = 2 + 0.5 * np.sin(u / 37) + 0.4 * np.cos(v / 23) + rng.normal(0, 0.02, u.shape)
    means = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], -1)
    n = len(means)
    scales = 0.8 / camera.fx * z[:, None] * np.exp(rng.normal(0, 0.4, (n, 3)))
    return make(means, scales, rng.uniform(0.3, 1, n), codes=rng.normal(size=(n, codes))), camera


def test_a_whole_scene_is_drawn_as_by_the_compiled_renderer():
    gaussians, camera = pixel_aligned(128, 32)
    with torch.no_grad():
        assert_same_picture(draw_tiles(gaussians, camera, np.eye(4)), render(gaussians, camera, np.eye(4)))


class Largest(TorchDispatchMode):
    """Inside, `elements` is the size of the largest tensor that an operation has made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [
            leaf.untyped_storage().nbytes() // leaf.itemsize
            for leaf in tree_leaves(out)
            if torch.is_tensor(leaf)
        ]
        self.elements = max(self.elements, *sizes, 0)
        return out


def test_memory_is_bounded(monkeypatch):
    """No tensor is larger than a group, the lists, or the table of features, in the backward pass neither."""
    monkeypatch.setattr(tile_lists, 'GROUP', 2**16)
    gaussians, camera = pixel_aligned(96, 32)
    with Largest() as largest:
        draw_with_gradients(draw_tiles, gaussians, camera, np.eye(4))
    table = len(gaussians) * (5 + 32)
    assert largest.elements <= max(table, 2**16), (largest.elements, table)


@pytest.mark.fake_cuda
def test_one_tensor_is_read_of_the_gpu(tiles):
    """The lengths of the lists, once more if these are cut; the backward pass reads nothing. Only camera and
    background go up."""

    def draw(device):
        values = {name: getattr(scene, name).to(device).requires_grad_() for name in TENSORS}
        gaussians = Gaussians(**values, frame='camera')
        with gpu.watch() as seen:
            picture = draw_tiles(gaussians, CAMERA, np.eye(4), BACKGROUND)
            (picture.rgb.square().sum() + picture.codes.square().sum()).backward()
        gradients = [value.grad.cpu() for value in values.values()]
        return seen, [maps.detach().cpu() for maps in vars(picture).values()], gradients

    scene = random_scene(CAMERA, 300, seed=2)
    with PretendGPU() as gpu:
        seen, maps, gradients = draw('cuda')
        _, wanted, wanted_gradients = draw('cpu')
    small, large = 13 * 10, 4 * 3  # tiles
    read = [small + large]
    if tile_lists.LONG == 0:
        read.append(small if tile_lists.ENTRIES else large)
    assert seen.down == read and seen.up == [16, 9, 3]
    assert not seen.reads and not seen.waits
    for got, expected in zip(maps + gradients, wanted + wanted_gradients):
        assert torch.equal(got.nan_to_num(), expected.nan_to_num())


@pytest.mark.cuda
def test_on_a_gpu(tiles):
    gaussians = random_scene(CAMERA, 400, seed=2)
    plain, wanted = draw_with_gradients(render_plain, as_double(gaussians), CAMERA, pose(0))
    picture, gradients = draw_with_gradients(draw_tiles, gaussians.to('cuda'), CAMERA, pose(0))
    on_cpu = type(picture)(**{name: value.detach().cpu() for name, value in vars(picture).items()})
    assert_same_picture(on_cpu, plain)
    for got, expected in zip(gradients, wanted):
        error = (got.cpu() - expected).norm() / expected.norm()
        assert error < 0.01, error
