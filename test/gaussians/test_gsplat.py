"""How gsplat is called, without a GPU: its own Python code over operators in plain torch."""

import importlib.util
import inspect
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import gsplat_operators
from support.drawn_scenes import as_double, assert_same_picture, make, random_scene
from support.gsplat_header import CameraModelType
from support.pretend_gpu import PretendGPU
from support.random_gaussians import pose
from torch.utils import cpp_extension

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render_on_gpu
from gsemsplat_ros.gaussians.render_gsplat import render_gsplat
from gsemsplat_ros.gaussians.render_plain import render_plain
from gsemsplat_ros.images.camera import Camera

gsplat = pytest.importorskip('gsplat')
CAMERA = Camera(48, 40, 60.0, 50.0, 20.0, 17.0)
DEFAULTS = {  # what our call leaves to gsplat
    'far_plane': 1e10,
    'radius_clip': 0.0,
    'sh_degree': None,
    'backgrounds': None,
    'absgrad': False,
    'rasterize_mode': 'classic',
    'distributed': False,
    'camera_model': 'pinhole',
    'covars': None,
    'with_ut': False,
    'with_eval3d': False,
}


@pytest.fixture(autouse=True)
def operators(monkeypatch):
    gsplat_operators.install(monkeypatch)


def below_both_caps(scene):
    """Without opacities between gsplat's cap of one alpha, 0.999, and that of the plain twin, 0.99."""
    return Gaussians(**{**vars(scene), 'opacities': scene.opacities.clamp(max=0.98)})


@pytest.mark.parametrize(
    'camera', [CAMERA, Camera(16, 16, 40.0, 45.0, 7.5, 7.5), Camera(50, 7, 30.0, 35.0, 4, 6)]
)
@pytest.mark.parametrize('seed', range(3))
def test_gsplat_equals_plain(camera, seed):
    """With the 36 channels of a keyframe, which gsplat draws in two passes."""
    scene = below_both_caps(random_scene(camera, 400, seed, codes=32))
    camera_from_world = pose(seed)
    scene = scene.transformed(np.linalg.inv(camera_from_world), 'world')
    got = render_on_gpu(scene, camera, camera_from_world, (0.2, 0.4, 0.6))
    plain = render_plain(as_double(scene), camera, camera_from_world, (0.2, 0.4, 0.6))
    assert_same_picture(got, plain)
    assert plain.alpha.max() > 0.5 and got.rgb.dtype == torch.float32


def test_gradients_are_those_of_plain():
    """Of two scenes in two cameras each, drawn at once."""
    scenes = [below_both_caps(random_scene(CAMERA, 100, seed)) for seed in range(2)]
    poses = np.stack([np.eye(4)] * 4).reshape(2, 2, 4, 4)
    poses[..., :3, 3] = np.random.default_rng(0).normal(0, 0.1, (2, 2, 3))
    weights = torch.randn(2, 2, 40, 48, 10, generator=torch.manual_seed(0))

    def gradients(draw, dtype):
        values = {
            name: torch.stack([getattr(scene, name) for scene in scenes]).to(dtype).requires_grad_()
            for name in ('means', 'quats', 'scales', 'opacities', 'colors', 'codes')
        }
        drawn = draw(**{**values, 'quats': F.normalize(values['quats'], dim=-1)})
        rgb, depth, alpha, codes = drawn
        maps = torch.cat((rgb, depth.nan_to_num()[..., None], alpha[..., None], codes), -1)
        (maps * weights.to(dtype)).sum().backward()
        return maps.detach(), {name: value.grad for name, value in values.items()}

    def by_gsplat(**values):
        K = torch.tensor(CAMERA.K, dtype=torch.float32).expand(2, 2, 3, 3)
        viewmats = torch.tensor(poses, dtype=torch.float32)
        return vars(render_gsplat(**values, viewmats=viewmats, Ks=K, width=48, height=40)).values()

    def by_plain(**values):
        drawn = [
            render_plain(
                Gaussians(**{name: value[i] for name, value in values.items()}, frame='world'), CAMERA, matrix
            )
            for i in range(2)
            for matrix in poses[i]
        ]
        return [torch.stack([vars(d)[name] for d in drawn]).unflatten(0, (2, 2)) for name in vars(drawn[0])]

    maps, got = gradients(by_gsplat, torch.float32)
    plain, wanted = gradients(by_plain, torch.float64)
    torch.testing.assert_close(maps.double(), plain, atol=1e-4, rtol=0)
    for name, gradient in wanted.items():
        size = gradient.abs().max()
        assert size > 0
        torch.testing.assert_close(
            got[name].double() / size, gradient / size, atol=1e-5, rtol=1e-3, msg=lambda m: f'{name}: {m}'
        )


def test_one_alpha_is_capped_at_0_999():
    picture = render_on_gpu(make([[0, 0, 2]], 0.3, 1.0), CAMERA, np.eye(4), (0, 0, 0))
    assert picture.alpha[17, 20] == pytest.approx(0.999, abs=1e-6)


def test_nothing_to_see():
    """No Gaussians; all behind, too near, beside or too faint; values that are no numbers: the background."""
    bad = make(
        [[0, 0, -2], [0, 0, 0.005], [9, 0, 1], [np.nan, 0, 1], [0, np.inf, 1], [0, 0, 2], [0, 0, 2]],
        [0.1, 0.1, 0.1, 0.1, 0.1, np.nan, 0.1],
        [0.9] * 6 + [0.001],
    )
    for scene in (bad, bad.select(slice(0, 0))):
        picture = render_on_gpu(scene, CAMERA, np.eye(4), (0.5, 0.25, 1.0))
        assert (picture.rgb == torch.tensor([0.5, 0.25, 1.0])).all()
        assert not picture.alpha.any() and not picture.codes.any() and picture.depth.isnan().all()


def rasterization_of_1_6(
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmats,
    Ks,
    width,
    height,
    near_plane=0.01,
    far_plane=1e10,
    radius_clip=0.0,
    eps2d=0.3,
    sh_degree=None,
    packed=True,
    tile_size=None,
    backgrounds=None,
    render_mode='RGB',
    sparse_grad=False,
    absgrad=False,
    rasterize_mode='classic',
    channel_chunk=32,
    distributed=False,
    camera_model='pinhole',
    segmented=False,
    covars=None,
    with_ut=False,
    with_eval3d=False,
    return_normals=False,
    global_z_order=True,
    rays=None,
    radial_coeffs=None,
    tangential_coeffs=None,
    thin_prism_coeffs=None,
    ftheta_coeffs=None,
    lidar_coeffs=None,
    external_distortion_coeffs=None,
    rolling_shutter=gsplat.RollingShutterType.GLOBAL,
    viewmats_rs=None,
    ut_params=None,
    extra_signals=None,
    extra_signals_sh_degree=None,
    renderer_config=None,
):
    """Names and defaults in gsplat 1.6.0, which PyPI did not have then: gsplat/rendering.py of
    github.com/nerfstudio-project/gsplat at 90d7b4b of 2026-08-20."""


@pytest.mark.parametrize('version', [gsplat.rasterization, rasterization_of_1_6])
def test_the_call_fits(version, monkeypatch):
    calls, genuine = [], gsplat.rasterization

    def recorded(*values, **named):
        calls.append((values, named))
        return genuine(*values, **named)

    monkeypatch.setattr(gsplat, 'rasterization', recorded)
    render_on_gpu(random_scene(CAMERA, 5, 0), CAMERA, np.eye(4), (0, 0, 0))
    ((values, named),) = calls
    parameters = inspect.signature(version).bind(*values, **named)
    assert [*parameters.arguments][:9] == [
        *('means', 'quats', 'scales', 'opacities', 'colors', 'viewmats', 'Ks', 'width', 'height')
    ]
    parameters.apply_defaults()
    assert {name: parameters.arguments[name] for name in DEFAULTS} == DEFAULTS
    assert parameters.arguments['render_mode'] == 'RGB+ED' and not parameters.arguments['packed']


def test_operators_refuse_what_the_extension_refuses():
    offsets = gsplat_operators.intersect_offset
    ids = torch.zeros(6, dtype=torch.int64)
    assert offsets(ids, 1, 3, 2).shape == (1, 2, 3)
    for wrong in ((ids, 1, 3), (ids.int(), 1, 3, 2), (ids[::2], 1, 3, 2), (ids, 1.0, 3, 2), (None, 1, 3, 2)):
        with pytest.raises(AssertionError):
            offsets(*wrong)
    scene = random_scene(CAMERA, 5, 0)
    values = scene.means, None, scene.quats, scene.scales, scene.opacities
    views = torch.eye(4)[None], torch.eye(3)[None]
    rest = 48, 40, 0.3, 0.01, 1e10, 0.0, False, CameraModelType.PINHOLE
    project = gsplat_operators.projection_ewa_3dgs_fused_fwd
    assert project(*values, *views, *rest)[0].shape == (1, 5, 2)
    for wrong in (
        (*values[:3], scene.scales[:4], scene.opacities, *views, *rest),
        (*values, views[0][0], views[1], *rest),
        (*values, *views, *rest[:-1], 'pinhole'),
    ):
        with pytest.raises(AssertionError):
            project(*wrong)


def test_a_compiled_copy_for_other_machines(tmp_path, monkeypatch):
    """All sources are compiled, as the module that gsplat looks for first, and stay behind themselves."""
    if not (Path(gsplat.__file__).parent / 'cuda' / 'csrc').exists():
        pytest.skip('gsplat is a compiled copy itself, without its sources')
    path = Path(__file__).parents[2] / '.ci' / 'build_gsplat.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert version('gsplat') == tool.VERSION

    def load(name, sources, build_directory, **flags):
        assert name == 'csrc' and len(sources) == len({Path(source).name for source in sources}) == 29
        assert all(Path(source).suffix in ('.cu', '.cpp') for source in sources)
        assert all(Path(folder).is_dir() for folder in flags['extra_include_paths'])
        (Path(build_directory) / 'csrc.so').write_bytes(b'compiled')

    with pytest.raises(RuntimeError, match='a PyTorch for CUDA and the CUDA toolkit'):
        monkeypatch.setattr(cpp_extension, 'CUDA_HOME', None)
        tool.build(tmp_path)
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', '/cuda')
    monkeypatch.setattr(cpp_extension, 'load', load)
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '9.0')
    monkeypatch.setenv('CPLUS_INCLUDE_PATH', '')
    tool.build(tmp_path)
    made = tmp_path / 'gsplat'
    assert {path.name for path in tmp_path.iterdir()} == {'gsplat', f'gsplat-{tool.VERSION}.dist-info'}
    assert (made / 'csrc.so').read_bytes() == b'compiled' and (made / 'rendering.py').exists()
    assert not (made / 'cuda' / 'csrc').exists()


def test_one_number_is_read_of_the_gpu():
    """By gsplat: how many pairs of tile and Gaussian there are. Camera and background go up."""
    scene = below_both_caps(random_scene(CAMERA, 100, 0))
    on_cpu = render_on_gpu(scene, CAMERA, pose(0), (0.2, 0.4, 0.6))
    with PretendGPU() as gpu:
        on_gpu = scene.to('cuda')
        with gpu.watch() as seen:
            drawn = render_on_gpu(on_gpu, CAMERA, pose(0), (0.2, 0.4, 0.6))
        assert drawn.rgb.is_cuda and seen.reads == ['_local_scalar_dense'] and not seen.waits
        assert seen.up == [9 + 16, 3] and not seen.down
        for name, values in vars(on_cpu).items():
            assert torch.equal(getattr(drawn, name).cpu().nan_to_num(), values.nan_to_num())
