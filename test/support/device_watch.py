"""What a step asks of a GPU, counted without one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# the host waits for the result of these, or for its size
READS = {
    *(
        '_local_scalar_dense',
        'is_nonzero',
        'equal',
        'nonzero',
        'masked_select',
        'bincount',
        'repeat_interleave',
    ),
    *('_unique2', 'unique_dim', 'unique_consecutive', '_linalg_check_errors', 'allclose'),
}
COPIES = {'_to_copy', 'copy_'}


class Uploads(TorchFunctionMode):
    """Adds to `copies` what `torch.tensor` and its like send from Python to a device: on the `meta` device
    lists take no copy that an operation makes."""

    def __init__(self, copies: list[int]):
        super().__init__()
        self.copies = copies

    def __torch_function__(self, func, types, args=(), kwargs=None):
        before, out = len(self.copies), func(*args, **(kwargs or {}))
        data = args[1] if func is Tensor.new_tensor else args[0] if args else None
        makes = func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and not isinstance(data, Tensor)
        if makes and out.device.type != 'cpu':
            self.copies[before:] = [out.numel()]
        return out


class DeviceWatch(TorchDispatchMode):
    """A `with` that lists what the operations inside do: `copies` (elements) of tensors to a device, `reads`
    of the host from one, and operations that `mixed` tensors of several devices."""

    def __init__(self):
        super().__init__()
        self.copies: list[int] = []
        self.reads: list[str] = []
        self.mixed: list[str] = []

    def __enter__(self):
        self.uploads = Uploads(self.copies)
        self.uploads.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.uploads.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.ndim}
        if name in READS and devices - {'cpu'}:
            self.reads.append(name)
        masks = args[1] if name in ('index', 'index_put_', '_index_put_impl_') else ()
        if devices - {'cpu'} and any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.reads.append(f'{name} by a mask')
        if name not in COPIES and len(devices) > 1:
            self.mixed.append(name)
        if name in COPIES:
            source, goal = args[0].device, (kwargs or {}).get('device') or args[0].device
            if name == 'copy_':
                source, goal = args[1].device, args[0].device
            if goal.type == 'cpu' != source.type:
                self.reads.append(name)
            elif goal.type != source.type:
                self.copies.append(args[0].numel())
        return func(*args, **(kwargs or {}))
