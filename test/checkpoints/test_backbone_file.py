"""Files of geometry backbones: what is read, what is refused, and the public classes' own numbers."""

import sys

import pytest
import torch
from safetensors.torch import save_file, save_model

from gsemsplat_ros.checkpoints.backbone import load_backbone
from gsemsplat_ros.network.depth_anything_3 import HOOKS, DepthAnything3, normalised, public_network
from gsemsplat_ros.network.model import GSemSplat

CPU = torch.device('cpu')
SMALL = 'model.backbone.pretrained.cls_token', 384


@pytest.fixture
def random_file(tmp_path):
    """Writes a file of `size` as the official ones are, with random weights and a field of view above 0."""
    pytest.importorskip('depth_anything_3')

    def write(size):
        torch.manual_seed(0)
        network = public_network(size)
        torch.nn.init.ones_(network.cam_dec.fc_fov[0].bias)
        path = tmp_path / f'da3-{size}.safetensors'
        save_model(torch.nn.ModuleDict({'model': network}), path)
        return path, network.eval()

    return write


@pytest.mark.parametrize('size', ['small', pytest.param('base', marks=pytest.mark.heavy)])
def test_the_numbers_are_those_of_the_public_classes(random_file, size):
    path, public = random_file(size)
    loaded, title = load_backbone(path, CPU, exact=True)
    assert title == f"Depth Anything 3 {size.upper()}, the user's file da3-{size}.safetensors"
    images = torch.rand(2, 1, 3, 64, 512) * 2 - 1
    with torch.inference_mode():
        found = loaded(*images)
        given = torch.stack([normalised(image) for image in images], 1)
        assert given.shape == (1, 2, 3, 56, 504)
        own = public(given, export_feat_layers=HOOKS)
        assert torch.equal(loaded.net(given).depth, own.depth)
    assert torch.equal(found.first.pts3d[..., 2], own.depth[:, 0])
    assert torch.equal(found.first.conf, own.depth_conf[:, 0])
    assert torch.equal(found.second.conf, own.depth_conf[:, 1])
    for tokens, layer in zip(found.tokens, HOOKS, strict=True):
        assert torch.equal(tokens, own.aux[f'feat_layer_{layer}'])
    homogeneous = torch.cat((own.extrinsics.double(), torch.tensor([0, 0, 0, 1.0]).expand(1, 2, 1, 4)), 2)
    pose = homogeneous[:, 0] @ homogeneous[:, 1].inverse()
    torch.testing.assert_close(found.first_from_second.double(), pose, atol=1e-5, rtol=0)
    # the second view's points, brought back, lie at its own depths on the rays of its own K
    local = (found.second.pts3d[0].double() - pose[0, :3, 3]) @ pose[0, :3, :3]
    torch.testing.assert_close(local[..., 2], own.depth[0, 1].double(), atol=1e-5, rtol=0)
    pixels = local @ own.intrinsics[0, 1].double().T
    u = (pixels[..., 0] / pixels[..., 2])[:, [0, -1]]
    torch.testing.assert_close(u, torch.tensor([0.5, 503.5]).double().expand(56, 2), atol=0.01, rtol=0)


@pytest.mark.heavy
def test_what_the_file_lacks_is_said_and_what_it_has_more_is_left_out(random_file):
    path, public = random_file('small')
    state = {f'model.{name}': tensor.clone() for name, tensor in public.state_dict().items()}
    save_file({**state, 'model.head.of_another_version': torch.zeros(1)}, path)
    assert isinstance(load_backbone(path, CPU)[0], DepthAnything3)
    name = 'model.cam_dec.fc_t.bias'
    for change, said in (
        ({name: torch.zeros(4)}, r'cam_dec.fc_t.bias has shape \(4,\), wanted \(3,\)'),
        ({name: torch.full((3,), torch.nan)}, '3 of the 3 numbers of cam_dec.fc_t.bias'),
        ({'model.cam_dec.fc_t.other': state.pop(name)}, 'cam_dec.fc_t.bias is missing'),
    ):
        save_file({**state, **change}, path)
        with pytest.raises(ValueError, match=said) as error:
            load_backbone(path, CPU)
        assert '\n' not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    'widths, names, said',
    [
        ({'model.': 1024}, ['model.cam_dec.fc_t.bias'], 'DA3-LARGE or DA3-GIANT.* non-commercial'),
        ({'model.': 1536}, ['model.cam_dec.fc_t.bias'], 'DA3-LARGE or DA3-GIANT.* non-commercial'),
        ({'model.da3.': 1536, 'model.da3_metric.': 1024}, [], 'DA3-NESTED.* non-commercial'),
        ({'model.': 1024}, ['model.head.norm.weight'], 'for single images, which gives no pose'),
        ({}, ['model.backbone.pretrained.cls_token'], 'for single images'),  # of another shape
        ({}, ['weight'], 'neither Depth Anything 3 nor a checkpoint of ours'),
    ],
)
def test_another_size_is_refused_by_name(tmp_path, widths, names, said):
    tensors = {f'{prefix}backbone.pretrained.cls_token': torch.zeros(1, 1, x) for prefix, x in widths.items()}
    save_file({**tensors, **dict.fromkeys(names, torch.zeros(1))}, tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match=said + '.*wanted DA3-SMALL or DA3-BASE') as error:
        load_backbone(tmp_path / 'a.safetensors', CPU)
    assert '\n' not in str(error.value)


def test_other_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / 'a.safetensors'
    with pytest.raises(ValueError, match='no file at'):
        load_backbone(path, CPU)
    torch.save({'a': torch.zeros(1)}, path)  # a pickle
    with pytest.raises(ValueError, match='is no safetensors file') as error:
        load_backbone(path, CPU)
    assert '\n' not in str(error.value)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    for name in ('depth_anything_3', 'depth_anything_3.cfg'):
        monkeypatch.setitem(sys.modules, name, None)
    save_file({SMALL[0]: torch.zeros(1, 1, SMALL[1])}, tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match='not installed .*depth_anything_3.*--no-deps') as error:
        load_backbone(tmp_path / 'a.safetensors', CPU)
    assert '\n' not in str(error.value)


def test_a_checkpoint_of_ours_is_one_too(pipeline_weights):
    backbone, title = load_backbone(pipeline_weights, CPU)
    assert isinstance(backbone, GSemSplat) and not backbone.training and title == 'large, tiny.safetensors'
