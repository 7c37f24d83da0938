"""The network as two ONNX files, for robots with TensorRT or ONNX Runtime (docs/jetson.md).

FILE.encode.onnx encodes one image, FILE.predict.onnx takes both encodings and predicts; so a kept keyframe is
encoded once. Their sizes are fixed. The image is that of a camera, (1, H, W, 3) uint8 RGB: a quarter of the
bytes of floats, and nobody can normalise it in another way. Other inputs and all outputs are float32, with
the names of network/tensors.py. Graphs have no control flow, no operators of other domains, and attention as
MatMul, Softmax, MatMul, with both factors scaled before the first, which TensorRT fuses.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gsemsplat_ros.checkpoints.checkpoint import Checkpoint, opened
from gsemsplat_ros.files import write_whole
from gsemsplat_ros.network.layers import rope_table
from gsemsplat_ros.network.model import Encoding, GSemSplat
from gsemsplat_ros.network.pixels import to_tensor
from gsemsplat_ros.network.tensors import encoding_from, encoding_tensors, prediction_tensors

if TYPE_CHECKING:
    from onnx_ir import Model

OPSET = 18  # the lowest that PyTorch's exporter writes; TensorRT from 10.0 reads it
ENDING = '.onnx'
IMAGE = 'image'
# bytes of weights: protobuf ends at 2 GiB, and to write a file with its weights inside takes two copies
IN_ONE_FILE = 1 << 29
INSIDE = 1024  # bytes of a tensor that stays in the file: shapes and other small constants
MEANINGS = {  # of inputs and outputs, by the last part of their names
    IMAGE: 'RGB, 0 to 255, rows from the top',
    'images': 'the image in [-1, 1], channels first',
    'tokens': 'of 16 x 16 pixels each, after the final norm',
    'context': 'counts of 1,080 classes, by which the picture itself is asked',
    'pts3d': 'm, in the frame of the first camera',
    'conf': 'confidence of the point, above 1',
    'means': 'm, in the frame of the first camera',
    'scales': 'm, standard deviations',
    'quats_xyzw': 'unit quaternions x, y, z, w',
    'sh': 'of degree 0: the colour is 0.5 + 0.28209479 sh',
    'opacities': '0 to 1',
    'codes': 'semantic codes, region-specific channels first',
}
FEATURES = 'features of the stem'  # what other names mean: maps.STRIDE


@dataclass(frozen=True)
class Exported:
    """Both files, and the SHA-256 of the checkpoint's tensors, which is in their metadata too."""

    encode: Path
    predict: Path
    digest: str


class Encode(nn.Module):
    """An image to the tensors `names` of its encoding."""

    def __init__(self, network: GSemSplat, names: Sequence[str]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # TensorRT takes uint8 at the border only, so the type changes first
        made = encoding_tensors(self.network.encode(to_tensor(image.float())))
        return tuple(made[name].float() for name in self.names)


class Predict(nn.Module):
    """The tensors of both encodings, `names` of each, to those of the prediction."""

    def __init__(self, network: GSemSplat, names: Sequence[str]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        dtype = self.network.decoder_embed.weight.dtype
        count = len(self.names)
        first, second = (
            # colours are taken of the image itself, which stays as it is
            encoding_from({name: x if name == 'images' else x.to(dtype) for name, x in zip(self.names, half)})
            for half in (tensors[:count], tensors[count:])
        )
        return tuple(prediction_tensors(self.network.forward_encoded(first, second)).values())


def needed_packages() -> None:
    """Raises ValueError, with what to install, where a package is missing that `export` needs."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f'ONNX files need onnx and onnxscript ({error}): run `pip install onnx onnxscript`'
        ) from None


def targets(path: str | Path) -> tuple[Path, Path]:
    """The files that `path`, FILE.onnx, stands for. Raises ValueError for another ending or no folder."""
    path = Path(path)
    if path.suffix != ENDING or path.name == ENDING:
        raise ValueError(
            f'{path} does not end in {ENDING}: FILE.onnx gives FILE.encode.onnx and FILE.predict.onnx'
        )
    if not path.parent.is_dir():
        raise ValueError(f'no folder {path.parent} for {path.name}: make it first')
    return path.with_suffix('.encode' + ENDING), path.with_suffix('.predict' + ENDING)


def in_half_precision(network: GSemSplat) -> None:
    """Make the network compute in float16, but for what has to stay float32.

    Norms stay, because they sum squares over hundreds of channels or whole maps. So does all that
    `network/heads.py` computes of the raw outputs: positions, exponentials, colours.
    """
    network.half()
    for layer in network.modules():
        if isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
            layer.float()
            layer.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
            layer.register_forward_hook(lambda _, inputs, output: output.half())


@torch.no_grad()
def export(
    checkpoint: Checkpoint, path: str | Path, pair: tuple[Encoding, Encoding], half: bool = False
) -> Exported:
    """Write both files for images of the size of those in `pair`, whose encodings the network made.

    half: weights and products in float16; this changes the network of `checkpoint`.
    Raises ValueError as `targets` and `needed_packages`.
    """
    needed_packages()
    encode_path, predict_path = targets(path)
    network, config = checkpoint.model, checkpoint.model.config
    outputs = list(prediction_tensors(network.forward_encoded(*pair)))
    if half:
        in_half_precision(network)
    # tables made by a traced network would be kept without values
    dtype = network.decoder_embed.weight.dtype
    for dim, heads in ((config.enc_dim, config.enc_heads), (config.dec_dim, config.dec_heads)):
        rope_table(*pair[0].grid, dim // heads, torch.device('cpu'), dtype)

    first, second = map(encoding_tensors, pair)
    inputs = [f'{view}.{name}' for view in ('first', 'second') for name in first]
    tensors = (*first.values(), *second.values())
    predict = traced(Predict(network, list(first)), tensors, inputs, outputs)
    unread = [value for value in predict.graph.inputs if not value.uses()]
    for value in unread:
        predict.graph.inputs.remove(value)
    names = [name for name in first if not any(value.name == f'first.{name}' for value in unread)]
    height, width = pair[0].images.shape[-2:]
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)

    digest = opened(checkpoint.path)[0].digest()
    about = {
        'network': config.name,
        'checkpoint_sha256': digest,
        'licence': str(checkpoint.card.get('licence')),
        'image_size': f'{width}x{height}',
        'precision': 'float16' if half else 'float32',
        'exporter': f'PyTorch {torch.__version__}',
    }
    write(predict, predict_path, about)
    del predict  # its weights, before the others are laid out
    write(traced(Encode(network, names), (image,), [IMAGE], names), encode_path, about)
    return Exported(encode_path, predict_path, digest)


def traced(
    module: nn.Module, arguments: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str]
) -> Model:
    """The graph of a module. Names of nodes begin with the part of the network that they come from, which
    TensorRT's profiles repeat; what else the exporter notes (paths of source files) is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)  # of PyTorch at itself
        program = torch.onnx.export(
            module.eval(),
            arguments,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model
    model.graph.metadata_props.clear()
    for node in model.graph:
        scopes = node.metadata_props.get('pkg.torch.onnx.name_scopes', '').split("'")
        parts = [scope for scope in scopes if scope.startswith('network.')]
        node.name = '/'.join((*parts[-1:], f'{node.name}')).removeprefix('network.')
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    borders = (*model.graph.inputs, *model.graph.outputs)
    for value, name in zip(borders, (*inputs, *outputs), strict=True):
        value.doc_string = MEANINGS.get(name.rpartition('.')[2], FEATURES)
    for value in (*borders, *model.graph.initializers.values()):
        value.metadata_props.clear()
    return model


def write(model: Model, path: Path, about: dict[str, str]) -> None:
    """Write the graph with its weights inside, or, from half a gigabyte, in PATH.data beside it."""
    import onnx_ir as ir

    model.producer_name, model.producer_version = 'gsemsplat_ros', None
    model.metadata_props.update(about)
    weights = [value.const_value for value in model.graph.initializers.values()]
    if sum(weight.nbytes for weight in weights if weight is not None) > IN_ONE_FILE:
        data = path.with_name(path.name + '.data')
        with write_whole(data) as part:
            ir.external_data.unload_from_model(model, part.parent, part.name, size_threshold_bytes=INSIDE)
            proto = ir.to_proto(model)
            for tensor in proto.graph.initializer:
                for entry in tensor.external_data:
                    if entry.key == 'location':
                        entry.value = data.name
    else:
        proto = ir.to_proto(model)
    with write_whole(path) as part:
        part.write_bytes(proto.SerializeToString())
