"""Exported ONNX files against PyTorch: every layer of the large architecture at a tiny size, and the shipped
network as a whole."""

import builtins
import contextlib
import io
import json
import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.pictures import clouds
from support.tiny_network import TINY

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints import onnx_export
from gsemsplat_ros.checkpoints.onnx_check import Difference, differences, read_contents, run_exported
from gsemsplat_ros.checkpoints.onnx_export import Predict, export, in_half_precision, targets
from gsemsplat_ros.checkpoints.parity import rule_model
from gsemsplat_ros.cli import main
from gsemsplat_ros.datasets.demo_pairs import load_scene
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.pixels import to_tensor
from gsemsplat_ros.network.tensors import encoding_tensors, prediction_tensors
from gsemsplat_ros.pipeline import Pipeline

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
onnx_ir = pytest.importorskip('onnx_ir')
fake_tensorrt = pytest.importorskip('support.fake_tensorrt')

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'jetson.md'
WIDTH, HEIGHT = 64, 48
LAYERS = (
    'enc_blocks',
    'enc_norm',
    'dec_blocks',
    'dec_blocks2',
    'dec_norm',
    'act_postprocess',
    'refinenet',
    'head.4',
)
# what TensorRT 10.0 reads of the operators that such networks need: none holds a graph or reads a shape
READ_BY_TENSORRT = {
    'Add',
    'AveragePool',
    'Cast',
    'Clip',
    'Concat',
    'Conv',
    'ConvTranspose',
    'Div',
    'Erf',
    'Exp',
    'Gather',
    'InstanceNormalization',
    'LayerNormalization',
    'LeakyRelu',
    'MatMul',
    'MaxPool',
    'Mul',
    'ReduceL2',
    'ReduceMax',
    'Relu',
    'Reshape',
    'Resize',
    'Sigmoid',
    'Slice',
    'Softmax',
    'Split',
    'Sqrt',
    'Sub',
    'Transpose',
    'Unsqueeze',
}


def pictures():
    """Two different images (HEIGHT, WIDTH, 3) uint8 with detail at every scale."""
    image = clouds(WIDTH + 8, HEIGHT)
    return np.ascontiguousarray(image[:, :WIDTH]), np.ascontiguousarray(image[:, 8:])


def encoded(model, images):
    with torch.no_grad():
        return tuple(model.encode(to_tensor(image)[None]) for image in images)


def predicted(model, pair):
    with torch.no_grad():
        tensors = prediction_tensors(model.forward_encoded(*pair))
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    """A checkpoint of the public architecture at a tiny size."""
    path = tmp_path_factory.mktemp('onnx') / 'tiny.safetensors'
    card = {'config': TINY.to_json(), 'kind': 'gsemsplat', 'licence': 'CC-BY-NC-SA-4.0'}
    weights.save(path, rule_model(TINY).state_dict(), card)
    return path


@pytest.fixture(scope='module')
def exported(path):
    checkpoint = weights.load(path)
    return export(checkpoint, path.with_name('tiny.onnx'), encoded(checkpoint.model, pictures()))


def test_every_layer_computes_what_pytorch_does(path, exported):
    """The output of a layer is that of its last node: names of nodes begin with that of their layer."""
    model, images = weights.load(path).model, pictures()
    wanted = {}  # of each layer the outputs of all its calls, copied: some are overwritten
    for name, layer in model.named_modules():
        if any(part in name for part in LAYERS):
            layer.register_forward_hook(
                lambda _, inputs, output, name=name: wanted.setdefault(name, []).append(output.clone())
            )
    pair = encoded(model, images)
    encode_calls = {name: values[0] for name, values in wanted.items()}
    wanted.clear()
    predicted(model, pair)
    predict_calls = {name: values[0] for name, values in wanted.items() if len(values) == 1}
    feeds = {
        exported.encode: {'image': images[0][None]},
        exported.predict: {
            f'{view}.{name}': tensor.numpy()
            for view, encoding in zip(('first', 'second'), pair)
            for name, tensor in encoding_tensors(encoding).items()
        },
    }
    compared = set()
    for file, calls in ((exported.encode, encode_calls), (exported.predict, predict_calls)):
        graph = onnx.load(file)
        last = {}
        for node in graph.graph.node:
            place = node.name.rpartition('/')[0]
            for name in calls:
                if place == name or place.startswith(name + '.'):
                    last[name] = node.output[0]
        known = {value.name for value in graph.graph.output}
        for value in sorted(set(last.values()) - known):
            graph.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=['CPUExecutionProvider'])
        outputs = dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds[file])))
        for name, value in last.items():
            want, found = calls[name].numpy(), outputs[value]
            assert found.shape == want.shape, name
            np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max(), rtol=0, err_msg=name)
        compared |= last.keys()
    blocks = {f'enc_blocks.{i}' for i in range(TINY.enc_depth)}
    blocks |= {f'{stack}.{i}' for stack in ('dec_blocks', 'dec_blocks2') for i in range(TINY.dec_depth)}
    dpts = [
        f'downstream_head{view}.{dpt}'
        for view in (1, 2)
        for dpt in ('dpt', 'gaussian_dpt.dpt', 'gaussian_language.dpt')
    ]
    fusions = {f'{dpt}.scratch.refinenet{level}' for dpt in dpts for level in (1, 2, 3, 4)}
    assert compared >= blocks | {'enc_norm'} | fusions | {f'{dpt}.head.4' for dpt in dpts}


def test_both_files_predict_what_pytorch_does(path, exported):
    images = pictures()
    model = weights.load(path).model
    apart = differences(run_exported(exported, images), predicted(model, encoded(model, images)))
    assert len(apart) == 16 and all(each.largest < 1e-4 for each in apart.values()), apart


def test_files_are_plain_enough_for_tensorrt(path, exported):
    encode, predict = read_contents(exported.encode), read_contents(exported.predict)
    assert encode.inputs == {'image': [1, HEIGHT, WIDTH, 3]}
    assert encode.outputs == {'images': [1, 3, HEIGHT, WIDTH], 'tokens': [1, 12, TINY.enc_dim]}
    assert predict.inputs == {
        f'{view}.{name}': shape for view in ('first', 'second') for name, shape in encode.outputs.items()
    }
    model = weights.load(path).model
    wanted = predicted(model, encoded(model, pictures()))
    assert predict.outputs == {name: list(array.shape) for name, array in wanted.items()}
    for contents in (encode, predict):
        assert contents.operators.keys() <= READ_BY_TENSORRT
        graph = onnx.load(contents.path)
        assert [(each.domain, each.version) for each in graph.opset_import] == [('', 18)]
        about = {each.key: each.value for each in graph.metadata_props}
        assert about.pop('exporter').startswith('PyTorch')
        assert about == {
            'network': 'large',
            'checkpoint_sha256': weights.opened(path)[0].digest(),
            'licence': 'CC-BY-NC-SA-4.0',
            'image_size': f'{WIDTH}x{HEIGHT}',
            'precision': 'float32',
        }
        assert graph.producer_name == 'gsemsplat_ros' and not graph.functions
        assert b'.py' not in graph.SerializeToString(), 'paths of source files'
    first = next(each for each in onnx.load(exported.predict).graph.output if each.name == 'first.pts3d')
    assert first.doc_string == 'm, in the frame of the first camera'
    # uint8 is read at the border alone
    assert onnx.load(exported.encode).graph.node[0].op_type == 'Cast'


def test_half_precision_changes_little(path):
    checkpoint, images = weights.load(path), pictures()
    wanted = predicted(checkpoint.model, encoded(checkpoint.model, images))
    in_half_precision(checkpoint.model)
    with torch.no_grad():
        pair = [encoding_tensors(each) for each in encoded(checkpoint.model, images)]
        assert {each['tokens'].dtype for each in pair} == {torch.float16}
        names = list(pair[0])
        outputs = Predict(checkpoint.model, names)(*(each[name].float() for each in pair for name in names))
    assert {output.dtype for output in outputs} == {torch.float32}
    apart = differences({name: x.numpy() for name, x in zip(wanted, outputs)}, wanted)
    assert max(each.mean for each in apart.values()) < 5e-3, apart


@pytest.mark.heavy
def test_half_precision_leaves_norms_and_outputs_in_float32(path, exported):
    checkpoint, images = weights.load(path), pictures()
    pair = encoded(checkpoint.model, images)
    wanted = predicted(checkpoint.model, pair)
    halved = export(checkpoint, path.with_name('half.onnx'), pair, half=True)
    apart = differences(run_exported(halved, images), wanted)
    # random numbers for weights are no network: one whose directions are as good as zero turns by roundings
    assert max(each.mean for each in apart.values()) < 5e-3, apart
    files = (halved.encode, exported.encode), (halved.predict, exported.predict)
    for contents, whole in (map(read_contents, each) for each in files):
        graph = onnx.shape_inference.infer_shapes(onnx.load(contents.path)).graph
        kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        weight = {each.name: each.data_type for each in graph.initializer}
        for node in graph.node:
            if node.op_type in ('Conv', 'ConvTranspose'):
                assert weight[node.input[1]] == onnx.TensorProto.FLOAT16, node.name
            if node.op_type in ('LayerNormalization', 'InstanceNormalization', 'Exp', 'ReduceL2', 'Sigmoid'):
                assert kinds[node.output[0]] == onnx.TensorProto.FLOAT, node.name
        for value in graph.output:
            assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT, value.name
        assert contents.outputs == whole.outputs and contents.bytes < 0.8 * whole.bytes


def test_many_weights_lie_beside_the_file(exported, monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_export, 'IN_ONE_FILE', 0)
    outside = replace(exported, encode=tmp_path / 'a.encode.onnx', predict=tmp_path / 'a.predict.onnx')
    for file, same in ((outside.encode, exported.encode), (outside.predict, exported.predict)):
        onnx_export.write(onnx_ir.load(same), file, {})
        assert read_contents(file).bytes == pytest.approx(read_contents(same).bytes, rel=0.1)
        assert file.stat().st_size < read_contents(file).bytes / 2
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        'a.encode.onnx',
        'a.encode.onnx.data',
        'a.predict.onnx',
        'a.predict.onnx.data',
    ]
    found, same = (run_exported(each, pictures()) for each in (outside, exported))
    assert all(np.array_equal(found[name], same[name]) for name in same)


@pytest.mark.heavy
def test_a_network_of_points_takes_no_images(path, tmp_path):
    config = TINY.replace(gaussians=False, language_channels=0, enc_depth=1)
    weights.save(
        tmp_path / 'points.safetensors', rule_model(config).state_dict(), {'config': config.to_json()}
    )
    checkpoint = weights.load(tmp_path / 'points.safetensors')
    exported = export(checkpoint, tmp_path / 'points.onnx', encoded(checkpoint.model, pictures()))
    assert list(read_contents(exported.encode).outputs) == ['tokens']
    assert list(read_contents(exported.predict).inputs) == ['first.tokens', 'second.tokens']
    assert len(run_exported(exported, pictures())) == 4


def test_what_cannot_be_written_is_said_in_one_line(tmp_path, capsys, monkeypatch):
    assert [each.name for each in targets(tmp_path / 'a.b.onnx')] == ['a.b.encode.onnx', 'a.b.predict.onnx']
    for name, reason in (
        ('small.engine', 'does not end in .onnx: FILE.onnx gives FILE.encode.onnx and FILE.predict.onnx'),
        ('.onnx', 'does not end in .onnx'),
        ('no/small.onnx', 'make it first'),
    ):
        assert main(['weights', 'export', str(tmp_path / name)]) == 2
        assert reason in capsys.readouterr().err
    assert main(['weights', 'export', 'small.onnx', '--weights', str(tmp_path / 'no.safetensors')]) == 2
    assert 'no checkpoint at' in capsys.readouterr().err

    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name == 'onnxscript':
            raise ImportError("No module named 'onnxscript'")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    assert main(['weights', 'export', str(tmp_path / 'small.onnx')]) == 2
    assert 'run `pip install onnx onnxscript`' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_differences_are_parts_of_the_range():
    wanted = {'x': np.array([0.0, 4.0])}
    apart = differences({'x': np.array([0.01, 4.0])}, wanted)['x']
    assert apart == Difference(pytest.approx(0.0025), pytest.approx(0.00125))
    assert apart.allowed(half=True) and not apart.allowed(half=False)
    assert not replace(apart, mean=float('nan')).allowed(half=True)
    assert not replace(apart, largest=float('nan')).allowed(half=False)
    with pytest.raises(ValueError, match=r'x of the ONNX file is \(1,\), wanted \(2,\)'):
        differences({'x': np.zeros(1)}, wanted)


def page_tables():
    """Name -> shape of the tables of docs/jetson.md: the image, an encoding, one view of a prediction."""
    rows = re.findall(r'^\| `([a-z_0-9.]+)`[^|]*\| (\d[\dx ]*) \|', PAGE.read_text(), re.M)
    return {name: [int(side) for side in shape.split(' x ')] for name, shape in rows}


def test_the_page_names_the_tensors_of_the_shipped_network():
    with torch.device('meta'):
        model = weights.without_weights(
            weights.SHIPPED, NetworkConfig.from_json(weights.read_card(weights.SHIPPED)['config'])
        )
        encoding = model.encode(torch.zeros(1, 3, 384, 512))
        prediction = prediction_tensors(model.forward_encoded(encoding, encoding))
    wanted = {name.partition('.')[2]: list(tensor.shape) for name, tensor in prediction.items()}
    wanted |= {name: list(tensor.shape) for name, tensor in encoding_tensors(encoding).items()}
    del wanted['maps.16'], wanted['maps.32']  # the prediction does not read them
    assert page_tables() == {'image': [1, 384, 512, 3], **wanted}


@pytest.fixture(scope='module', params=[False, True], ids=['float32', 'float16'])
def shipped(request, tmp_path_factory):
    """Whether in half precision, and what `export --json` says of the shipped network."""
    path, said = tmp_path_factory.mktemp('shipped') / 'small.onnx', io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(['weights', 'export', str(path), '--json', *(['--fp16'] if request.param else [])]) == 0
    return request.param, json.loads(said.getvalue().splitlines()[-1])


@pytest.mark.heavy
def test_the_shipped_network(shipped):
    half, said = shipped
    assert said['checkpoint_sha256'] == weights.SHIPPED_DIGEST
    assert (said['width'], said['height']) == (512, 384)
    assert len(said['differences']) == 16
    for name, apart in said['differences'].items():
        assert apart['largest'] < (0.01 if half else 1e-5), name
    encode, predict = said['files']
    operators = encode['operators'].keys() | predict['operators'].keys()
    assert f'opset {encode["opset"]}. They use {len(operators)} operators' in PAGE.read_text()
    for file in (encode, predict):
        assert file['opset'] == 18 and file['operators'].keys() <= READ_BY_TENSORRT
    table = page_tables()
    assert {**encode['inputs'], **encode['outputs']}.items() <= table.items()
    assert {name.partition('.')[2]: shape for name, shape in predict['inputs'].items()} == encode['outputs']
    outputs = {name.partition('.')[2]: shape for name, shape in predict['outputs'].items()}
    assert table == {**encode['inputs'], **encode['outputs'], **outputs}


@pytest.mark.heavy
def test_the_engines_of_the_page_are_the_network_of_a_pipeline(shipped, monkeypatch):
    """The page's Python, on the CPU, with ONNX Runtime for TensorRT."""
    half, said = shipped
    monkeypatch.setitem(sys.modules, 'tensorrt', fake_tensorrt)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)
    text = PAGE.read_text()
    code = textwrap.dedent(text[text.index('    import tensorrt') : text.index('    # scene = ')])
    for kind, file in zip(('encode', 'predict'), said['files']):
        code = code.replace(f'small.{kind}.engine', file['path'])
    names = {}
    exec(code.replace("'cuda'", "'cpu'").replace('load()', "load(device='cpu')"), names)
    pair = load_scene('living_room').pair
    pipeline = names['pipeline']
    found = pipeline.build(pair)
    plain = Pipeline.load(device='cpu', exact=True)  # not in bfloat16, but corrected by the images
    plain.as_published = False
    kept = pipeline.network.kept[0][1]
    assert pipeline.network.encode([pair.first.image[:384, :512]], [pair.first.image])[0] is kept
    same = plain.build(pair)
    assert len(found.gaussians) == len(same.gaussians)
    apart = (found.gaussians.means - same.gaussians.means).norm(dim=1)
    assert apart.median() < (0.01 if half else 1e-4)
    for phrase in ('potted plant', 'bathtub'):
        score = pipeline.query(found, phrase).score
        assert score == pytest.approx(plain.query(same, phrase).score, abs=0.02 if half else 1e-3)
    with pytest.raises(ValueError, match='image is .*, the engine wants'):
        pipeline.network.encode([np.zeros((480, 640, 3), np.uint8)])
