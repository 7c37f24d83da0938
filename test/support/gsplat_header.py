"""Functions that gsplat's Python code calls as operators of its extension, checked by gsplat's own header."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from support.pretend_gpu import GpuTensor
from torch import Tensor
from torch.utils._pytree import tree_map

CameraModelType = enum.Enum('CameraModelType', 'PINHOLE ORTHO FISHEYE FTHETA', start=0)
CONVERTIBLE: dict[str, Callable[[Any], bool]] = {  # C++ types of arguments, and what pybind11 makes them of
    'at::Tensor': lambda value: isinstance(value, Tensor),
    'at::optional<at::Tensor>': lambda value: value is None or isinstance(value, Tensor),
    'uint32_t': lambda value: hasattr(value, '__index__') and not isinstance(value, Tensor) and value >= 0,
    'float': lambda value: isinstance(value, (int, float)),
    'bool': lambda value: isinstance(value, bool),
    'CameraModelType': lambda value: isinstance(value, CameraModelType),
}


def operator(
    host_waits: bool = False, **layouts: str
) -> Callable[[Callable[[SimpleNamespace], Any]], Callable]:
    """Makes a function of all arguments, by name, one of arguments by position, checked: their number and C++
    types as the header has them for this name, tensors contiguous and on one device.

    host_waits: whether more than kernels is in it. What kernels do with values is not seen on a pretended
    GPU: they get those on the CPU.
    layouts: of each tensor that is not None the sizes, by name or number, `...` for all leading ones; before
    them the element type, where that is not float32. Sizes of one name are equal in a call, and equal to the
    argument of that name if there is one.
    """

    def made(function: Callable[[SimpleNamespace], Any]) -> Callable:
        @functools.wraps(function)
        def checked(*values: Any) -> Any:
            arguments = declared(function.__name__)
            assert len(values) == len(arguments), f'{len(values)} arguments instead of {len(arguments)}'
            given = {name: value for value, (_, name) in zip(values, arguments)}
            for cpp_type, name in arguments:
                assert CONVERTIBLE[cpp_type](given[name]), f'{name}: {given[name]!r} is no {cpp_type}'
            sizes = {name: given[name] for cpp_type, name in arguments if cpp_type == 'uint32_t'}
            tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
            assert len({tensor.device for tensor in tensors.values()}) == 1, 'tensors on several devices'
            for name, tensor in tensors.items():
                check(name, tensor, layouts[name].split(), sizes)
            gpus = [tensor.gpu for tensor in tensors.values() if isinstance(tensor, GpuTensor)]
            if host_waits or not gpus:
                return function(SimpleNamespace(**given))
            given = {name: value.held if name in tensors else value for name, value in given.items()}
            results = function(SimpleNamespace(**given))
            return tree_map(
                lambda value: gpus[0].take(value) if isinstance(value, Tensor) else value, results
            )

        return checked

    return made


@functools.cache
def declared(name: str) -> list[tuple[str, str]]:
    """The arguments of an operator in the header of the gsplat that is installed: C++ types and names."""
    import gsplat

    header = (Path(gsplat.__file__).parent / 'cuda' / 'include' / 'Ops.h').read_text()
    found = re.search(rf'\b{name}\(([^()]*)\);', re.sub('//.*', '', header))
    assert found, f'gsplat {gsplat.__version__} has no operator {name}'
    arguments = [argument.split() for argument in found[1].replace('const ', '').split(',')]
    return [(cpp_type, argument) for cpp_type, argument in arguments]


def check(name: str, tensor: Tensor, layout: list[str], sizes: dict[str, Any]) -> None:
    """One argument against its layout; `sizes` of the call so far, to which its own are added."""
    dtype = getattr(torch, layout.pop(0)) if hasattr(torch, layout[0]) else torch.float32
    assert tensor.dtype == dtype, f'{name}: {tensor.dtype} instead of {dtype}'
    assert tensor.is_contiguous(), f'{name}: not contiguous'
    shape: list[Any] = [*tensor.shape]
    if layout[0] == '...':
        leading = len(shape) - len(layout) + 1
        shape = [tuple(shape[:leading]), *shape[leading:]]
    wanted = [
        int(size) if size.isdigit() else sizes.setdefault(size, got) for size, got in zip(layout, shape)
    ]
    assert shape == wanted, f'{name}: {tuple(tensor.shape)} is not {" ".join(layout)} with {sizes}'
