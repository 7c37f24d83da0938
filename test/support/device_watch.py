"""What a step asks of a GPU, counted without one, and a stand-in for gsplat."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render_plain import render_plain
from gsemsplat_ros.images.camera import Camera

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


def gsplat() -> ModuleType:
    """A module `gsplat` with version 1.5.3's arguments of `rasterization`, which draws with the plain
    renderer; on a device without data, something of the right shape."""
    module = ModuleType('gsplat')
    vars(module)['rasterization'] = rasterization
    return module


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    eps2d: float = 0.3,
    packed: bool = True,
    render_mode: str = 'RGB',
) -> tuple[Tensor, Tensor, dict]:
    """Gaussians (..., N, ...) seen from (..., C, 4, 4): pictures (..., C, height, width, D + 1), expected
    depth last, alphas (..., C, height, width, 1)."""
    batch, views = means.shape[:-2], viewmats.shape[-3]
    assert (near_plane, eps2d, packed, render_mode) == (0.01, 0.3, False, 'RGB+ED')
    assert quats.shape[-1:] == (4,) and scales.shape == means.shape and opacities.shape == means.shape[:-1]
    assert colors.shape[:-1] == means.shape[:-1]
    assert viewmats.shape == (*batch, views, 4, 4) and Ks.shape == (*batch, views, 3, 3)
    if means.device.type != 'cpu':
        every = torch.cat((means, quats, scales, opacities[..., None]), -1).mean((-2, -1))[..., None]
        pixel = torch.cat((colors.mean(-2) + every, every), -1)[..., None, None, None, :]
        pixel = pixel + 0 * (viewmats.sum((-2, -1)) + Ks.sum((-2, -1)))[..., None, None, None]
        drawn = pixel.expand(*batch, views, height, width, -1)
        return drawn, drawn[..., -1:], {}
    pictures = []
    flat = [t.reshape(-1, *t.shape[len(batch) :]) for t in (means, quats, scales, opacities, colors)]
    for *gaussians, matrices, K in zip(*flat, viewmats.view(-1, views, 4, 4), Ks.view(-1, views, 3, 3)):
        means_, quats_, scales_, opacities_, colors_ = gaussians
        scene = Gaussians(means_, quats_, scales_, opacities_, colors_[:, :3], colors_[:, 3:], 'first')
        for matrix, k in zip(matrices, K):
            camera = Camera(
                width,
                height,
                *(float(k[at]) for at in ((0, 0), (1, 1))),
                float(k[0, 2]) - 0.5,
                float(k[1, 2]) - 0.5,
            )
            drawn = render_plain(scene, camera, matrix.detach().numpy())
            parts = drawn.rgb, drawn.codes, drawn.depth[..., None].nan_to_num(), drawn.alpha[..., None]
            pictures.append(torch.cat(parts, -1))
    whole = torch.stack(pictures).view(*batch, views, height, width, -1)
    return whole[..., :-1], whole[..., -1:], {}
