"""A pretended GPU: tensors that say they are on CUDA, refuse what CUDA's refuse, and hold their values on
the CPU. What is written for a GPU runs on it as it stands, so that its results can be compared with the
CPU's, and each copy and each wait of the host is counted.

    with PretendGPU() as gpu:
        pipeline = Pipeline.load(device='cuda')
        with gpu.watch() as seen:
            scene = pipeline.build(pair)
        assert seen.reads == []

A tensor on it is a `GpuTensor`, which PyTorch's C++ takes for one of the `meta` device, so that views and
backward work without CUDA. Refused, as by CUDA: `numpy()`, operations that mix devices, and inside a graph's
capture reads, waits and copies from the host. A graph's replay runs the operations of its capture again, into
the same memory, so a value that Python computed at the capture stays as it was.

Streams are not modelled (all is done in order), nor are kernels (their rounding, limits and speed). Threads
other than the one that entered it use the tensors freely and make new ones inside `with gpu.here():`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, META, CUDA = torch.device('cpu'), torch.device('meta'), torch.device('cuda', 0)
# the host waits for the result of these, or for its size
READS = {
    *('_local_scalar_dense', 'is_nonzero', 'equal', 'allclose', 'nonzero', 'masked_select', 'bincount'),
    *('_unique2', 'unique_dim', 'unique_consecutive', '_linalg_check_errors', 'repeat_interleave'),
}
INDEXING = {'index', 'index_put', 'index_put_', '_index_put_impl_', '_unsafe_index'}
FROM_PYTHON = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
NAME = 'NVIDIA pretended'


@dataclass
class Seen:
    """What was asked of the GPU: elements of each copy `up` to it and `down` from it, `reads` of a value or
    size that the host waited for, by operation, and `waits` for all its work."""

    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    waits: int = 0


class GpuTensor(Tensor):
    """A tensor on the pretended GPU; `held` has its values on the CPU."""

    held: Tensor
    gpu: PretendGPU

    @staticmethod
    def __new__(cls, held: Tensor, gpu: PretendGPU) -> GpuTensor:
        with torch.inference_mode(False):  # views of what was made outside of it are no inference tensors
            made = Tensor._make_wrapper_subclass(
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=META,
                requires_grad=held.requires_grad,
            )
        made.held, made.gpu = held, gpu
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def _take_over(self, other: GpuTensor) -> None:
        Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.held = other.held

    data = property(lambda self: self.detach(), _take_over)  # as `Module.to` changes parameters

    def __deepcopy__(self, memo: dict) -> Tensor:
        made: Tensor = GpuTensor(self.held.clone(), self.gpu)
        if isinstance(self, nn.Parameter):
            made = nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made

    def __repr__(self, **options) -> str:
        return f'GpuTensor({self.held})'

    def numpy(self, **options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self):
        return self.cpu().tolist()

    def pin_memory(self, *options):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        gpu = next(leaf.gpu for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, GpuTensor))
        return gpu.run(func, args, kwargs or {})


class PretendGPU:
    """The device; a `with` under which `torch.cuda` tells of it, until its end.

    bf16: whether it multiplies bfloat16. largest: the bytes of the largest tensor that its memory can take;
    a larger one raises torch.OutOfMemoryError.
    """

    def __init__(self, bf16: bool = False, largest: float = float('inf')):
        self.bf16, self.largest = bf16, largest
        self.seen: list[Seen] = [Seen()]
        self.captures = 0
        self.emptied = 0  # times that cached memory was given back
        self._capture = threading.local()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> PretendGPU:
        for name, value in self._cuda().items():
            self._stack.enter_context(mock.patch(f'torch.cuda.{name}', value))
        self._stack.enter_context(mock.patch('torch.Tensor.pin_memory', Tensor.clone))
        self._stack.enter_context(self.here())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """In this thread, new tensors can be made on the GPU."""
        with _ByName(self), _ByDevice(self):
            yield

    @contextlib.contextmanager
    def watch(self) -> Iterator[Seen]:
        """What is asked of the GPU meanwhile."""
        seen = Seen()
        self.seen.append(seen)
        try:
            yield seen
        finally:
            self.seen.remove(seen)

    def take(self, held: Tensor) -> GpuTensor:
        """`held` as a tensor of the GPU."""
        assert held.device == CPU, held.device
        size = held.untyped_storage().nbytes()
        if size > self.largest:
            raise torch.OutOfMemoryError(f'CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB.')
        return GpuTensor(held, self)

    def copied_up(self, elements: int) -> None:
        self._refuse_in_capture('a copy from the host')
        for seen in self.seen:
            seen.up.append(elements)

    def run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """An operation of PyTorch on tensors of which some are ours, or that is to make some."""
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), 'CompositeImplicitAutograd'):
            with _ByDevice(self):  # in inference mode these come whole
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        name = func.overloadpacket.__name__
        goal = kwargs.get('device')
        if goal is not None:
            kwargs = {**kwargs, 'device': CPU}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = any(isinstance(tensor, GpuTensor) for tensor in tensors)
        on_gpu = ours if goal is None else goal.type != 'cpu'
        if name == 'copy_':
            on_gpu = isinstance(args[0], GpuTensor)
            self._count_copy(args[1], on_gpu)
        elif name == '_to_copy':
            self._count_copy(args[0], on_gpu)
        elif ours:
            self._check(name, args, kwargs, tensors)
        held_args, held_kwargs = tree_map(_held, args), tree_map(_held, kwargs)
        out = func(*held_args, **held_kwargs)
        recorded = getattr(self._capture, 'operations', None)
        if recorded is not None and on_gpu:
            recorded.append((func, held_args, held_kwargs, out))
        if not on_gpu:
            return out
        given = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, GpuTensor)}

        def wrapped(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return given[id(x)] if id(x) in given else self.take(x)

        return tree_map(wrapped, out)

    def _check(self, name: str, args: tuple, kwargs: dict, tensors: list[Tensor]) -> None:
        """Refuse mixed devices, as CUDA does but for single numbers; count what the host waits for."""
        indices = [x for x in args[1] if x is not None] if name in INDEXING else []
        for index in indices:  # may be on the host, from where they are copied
            if not isinstance(index, GpuTensor):
                self.copied_up(index.numel())
        others = [tensor for tensor in tensors if not any(tensor is index for index in indices)]
        if any(tensor.ndim and not isinstance(tensor, GpuTensor) for tensor in others):
            raise RuntimeError(
                'Expected all tensors to be on the same device, but found at least two devices, cuda:0 and '
                f'cpu! (when checking arguments of {name})'
            )
        masked = any(isinstance(x, GpuTensor) and x.dtype == torch.bool for x in indices)
        sized = kwargs.get('output_size') is not None  # of repeat_interleave, known before
        if (name in READS and not sized) or masked:
            self._refuse_in_capture(f'{name}, for which the host waits,')
            for seen in self.seen:
                seen.reads.append(f'{name} by a mask' if masked else name)

    def _count_copy(self, source: Tensor, to_gpu: bool) -> None:
        if to_gpu and not isinstance(source, GpuTensor):
            self.copied_up(source.numel())
        elif not to_gpu and isinstance(source, GpuTensor):
            self._refuse_in_capture('a copy to the host')
            for seen in self.seen:
                seen.down.append(source.numel())

    def _refuse_in_capture(self, what: str) -> None:
        if getattr(self._capture, 'operations', None) is not None:
            raise RuntimeError(f'CUDA error: operation not permitted when stream is capturing: {what}')

    def _cuda(self) -> dict[str, Any]:
        """What replaces the attributes of `torch.cuda`."""
        gpu = self

        class Graph:
            operations: list[tuple]

            def replay(self) -> None:
                for func, args, kwargs, out in self.operations:
                    before = {
                        t.untyped_storage().data_ptr()
                        for t in tree_leaves((args, kwargs))
                        if isinstance(t, Tensor)
                    }
                    new = func(*args, **kwargs)
                    for mine, made in zip(tree_leaves(out), tree_leaves(new), strict=True):
                        if isinstance(mine, Tensor) and mine.untyped_storage().data_ptr() not in before:
                            mine.copy_(made)

        @contextlib.contextmanager
        def capture(graph: Graph, pool=None, stream=None, capture_error_mode='global') -> Iterator[None]:
            gpu.wait()
            gpu.captures += 1
            gpu._capture.operations = graph.operations = []
            try:
                yield
            finally:
                gpu._capture.operations = None

        class Stream:
            def __init__(self, device=None, priority=0):
                self.device = CUDA

            def wait_stream(self, other) -> None:
                pass

            wait_event = record_event = wait_stream

            def synchronize(self) -> None:
                gpu.wait()

        def empty_cache() -> None:
            gpu.emptied += 1

        return {
            'is_available': lambda: True,
            'device_count': lambda: 1,
            'current_device': lambda: 0,
            'set_device': lambda device: None,
            'get_device_name': lambda device=None: NAME,
            'is_bf16_supported': lambda including_emulation=True: gpu.bf16 or including_emulation,
            'is_current_stream_capturing': lambda: getattr(gpu._capture, 'operations', None) is not None,
            'synchronize': lambda device=None: gpu.wait(),
            'Stream': Stream,
            'current_stream': lambda device=None: Stream(),
            'stream': lambda stream: contextlib.nullcontext(),
            'CUDAGraph': Graph,
            'graph': capture,
            'graph_pool_handle': lambda: (0, 0),
            'empty_cache': empty_cache,
            'mem_get_info': lambda device=None: (0, 2**33),
            'memory_allocated': lambda device=None: 0,
            'max_memory_allocated': lambda device=None: 0,
            'max_memory_reserved': lambda device=None: 0,
            'reset_peak_memory_stats': lambda device=None: None,
        }

    def wait(self) -> None:
        """The host waits for all work."""
        self._refuse_in_capture('a wait for the device')
        for seen in self.seen:
            seen.waits += 1


class _ByName(TorchFunctionMode):
    """Calls that name a CUDA device: C++ gets `meta` for it."""

    def __init__(self, gpu: PretendGPU):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in FROM_PYTHON:
            return self._from_python(func, args, kwargs)
        if func is torch.device:
            return func(*args, **kwargs)
        if func is Tensor.cuda:
            func, args = Tensor.to, (args[0], CUDA)
        kwargs.pop('pin_memory', None)
        return func(*map(_renamed, args), **{name: _renamed(value) for name, value in kwargs.items()})

    def _from_python(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        """Numbers of Python made into a tensor, which C++ does out of sight of the dispatcher."""
        if func is Tensor.new_tensor:
            like, data = args
            kwargs = {'dtype': like.dtype, 'device': like.device, **kwargs}
        else:
            (data,) = args
        goal = torch.device(kwargs.pop('device', None) or (data.device if isinstance(data, Tensor) else CPU))
        if isinstance(data, GpuTensor):
            return data.to(_renamed(goal), kwargs.get('dtype', data.dtype))
        make = torch.tensor if func is Tensor.new_tensor else func
        held = make(data, **kwargs)
        if goal.type == 'cpu':
            return held
        self.gpu.copied_up(held.numel())
        return self.gpu.take(held.detach().clone()).requires_grad_(kwargs.get('requires_grad', False))


class _ByDevice(TorchDispatchMode):
    """Operations that get the `meta` device, also from C++."""

    def __init__(self, gpu: PretendGPU):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.gpu.run(func, args, kwargs or {})


def _held(x: Any) -> Any:
    return x.held if isinstance(x, GpuTensor) else x


def _renamed(x: Any) -> Any:
    if isinstance(x, torch.device):
        return META if x.type == 'cuda' else x
    return 'meta' if isinstance(x, str) and x.split(':')[0] == 'cuda' else x
