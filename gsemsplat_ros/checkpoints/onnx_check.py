"""What an exported ONNX file holds, and whether ONNX Runtime computes with both what PyTorch does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from gsemsplat_ros.checkpoints.onnx_export import IMAGE, Exported

LARGEST = 1e-3  # allowed of float32: the largest difference of an output, as part of its range
MEAN = 1e-2  # allowed of float16: as of bfloat16 on GPUs, a hundredth of the range in the mean


@dataclass(frozen=True)
class Contents:
    """A checked file: its bytes with those of its data; shapes by name, in order; operators by frequency."""

    path: Path
    bytes: int
    opset: int
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    operators: dict[str, int]


@dataclass(frozen=True)
class Difference:
    """Of one output: the largest and the mean difference, each as part of the output's largest value."""

    largest: float
    mean: float

    def allowed(self, half: bool) -> bool:
        """Whether it is within the bounds above; never where a number is not finite."""
        return self.mean <= MEAN if half else self.largest <= LARGEST


def read_contents(path: Path) -> Contents:
    """Check a file with the checker of ONNX, and read what it holds. Raises ValueError for a file that is not
    as the standard says."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f'{path} is no sound ONNX file: {str(error).partition(chr(10))[0]}') from None
    model = onnx.load(path, load_external_data=False)
    [opset] = [each.version for each in model.opset_import if not each.domain]
    data = path.with_name(path.name + '.data')
    outside = any(each.external_data for each in model.graph.initializer)

    def shapes(values: Sequence[onnx.ValueInfoProto]) -> dict[str, list[int]]:
        return {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in values}

    return Contents(
        path,
        path.stat().st_size + (data.stat().st_size if outside else 0),
        opset,
        shapes(model.graph.input),
        shapes(model.graph.output),
        dict(Counter(node.op_type for node in model.graph.node).most_common()),
    )


def patterns(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Two images (height, width, 3) uint8 with coloured spots of the size of a patch."""
    rng = np.random.default_rng(0)
    spots = rng.integers(0, 256, (2, max(1, height // 16), max(1, width // 16), 3), np.uint8)
    first, second = (cv2.resize(each, (width, height), interpolation=cv2.INTER_CUBIC) for each in spots)
    return first, second


def can_run() -> bool:
    """Whether ONNX Runtime is installed."""
    return find_spec('onnxruntime') is not None


def run_exported(exported: Exported, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The prediction for two images (H, W, 3) uint8, by ONNX Runtime on the CPU: the encodings that one file
    gives go into the other."""
    import onnxruntime

    def session(path: Path) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])

    encode, predict = session(exported.encode), session(exported.predict)
    names = [output.name for output in encode.get_outputs()]
    feeds = {
        f'{view}.{name}': value
        for view, image in zip(('first', 'second'), images)
        for name, value in zip(names, encode.run(None, {IMAGE: image[None]}))
    }
    return dict(zip([output.name for output in predict.get_outputs()], predict.run(None, feeds)))


def differences(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, Difference]:
    """Of every output that is wanted. Raises ValueError where one has another shape."""
    out = {}
    for name, want in wanted.items():
        if found[name].shape != want.shape:
            raise ValueError(f'{name} of the ONNX file is {found[name].shape}, wanted {want.shape}')
        apart = np.abs(found[name] - want) / max(float(np.abs(want).max()), 1e-12)
        out[name] = Difference(float(apart.max()), float(apart.mean()))
    return out
