"""Pairs as they cross from the loading processes, and as a training step sees them.

Letters: B pairs, V views, (H, W) image, (h, w) network output, K names, C text space. Poses are OpenCV,
metres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.pixels import to_tensor
from gsemsplat_ros.training.surfaces import resized, shrink, surface_points

Value = TypeVar('Value')
SomeArrays = TypeVar('SomeArrays', bound='Arrays')


@dataclass(frozen=True)
class Arrays:
    """B pairs as they are stored, contiguous and of one size, so that they cross processes cheaply.

    images (B, V, H, W, 3) uint8 RGB and depth (B, V, H, W) float32 [m], 0 for nothing, the context views
    first; cameras (B, V, 4) float32: fx, fy, cx, cy [px]; poses (B, V, 4, 4) float32: first_from_camera;
    seeds (B,) int64 of the losses.
    """

    images: Tensor
    depth: Tensor
    cameras: Tensor
    poses: Tensor
    seeds: Tensor

    def pin_memory(self: SomeArrays) -> SomeArrays:
        """A copy from which the transfer to a GPU overlaps computation."""
        return each_tensor(self, Tensor.pin_memory)

    def to(self: SomeArrays, device: torch.device) -> SomeArrays:
        """On the device, without waiting for it."""
        return each_tensor(self, lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True)
class Batch:
    """The pairs of a step: images (2, B, 3, H, W) in [-1, 1]; points (B, 2, h, w, 3) [m] in the first frames,
    and valid (B, 2, h, w) bool: whether they are known; seeds (B,) int64 of random numbers."""

    images: Tensor
    points: Tensor
    valid: Tensor
    seeds: Tensor


def each_tensor(value: Value, function: Callable[[Tensor], Tensor]) -> Value:
    """`value` with `function` applied to the tensors in it, in its tuples and in its dataclasses."""
    out: Any = value
    if isinstance(value, Tensor):
        out = function(value)
    elif isinstance(value, tuple):
        out = tuple(each_tensor(item, function) for item in value)
    elif is_dataclass(value) and not isinstance(value, (type, Camera)):
        out = replace(value, **{name: each_tensor(item, function) for name, item in vars(value).items()})
    return out


def joined(parts: Sequence[SomeArrays]) -> SomeArrays:
    """All pairs of `parts` in order; a field marked `shared` is that of the first. Raises
    ValueError for pairs of several sizes."""
    sizes = sorted({tuple(part.images.shape[2:4]) for part in parts})
    if len(sizes) > 1:
        raise ValueError(
            f'rooms of {" and ".join(f"{h}x{w}" for h, w in sizes)} px: wanted rooms of one size; '
            'pack others into a folder of their own'
        )
    if len(parts) == 1:
        return parts[0]
    whole: dict[str, Any] = {}
    for field in fields(parts[0]):
        if 'shared' not in field.metadata:
            values = [getattr(part, field.name) for part in parts]
            whole[field.name] = torch.cat(values) if isinstance(values[0], Tensor) else sum(values, ())
    return replace(parts[0], **whole)


def camera_row(camera: Camera) -> np.ndarray:
    """fx, fy, cx, cy [px] float32."""
    return np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)


def camera_of(row: Tensor, height: int, width: int) -> Camera:
    """The camera of (`height`, `width`) px with fx, fy, cx, cy in `row` (4,)."""
    return Camera(width, height, *row.tolist())


def context_images(images: Tensor) -> Tensor:
    """The context views of (B, V, H, W, 3) uint8 as network input (2, B, 3, H, W) in [-1, 1]."""
    return to_tensor(images[:, :2]).transpose(0, 1)


def output_cameras(arrays: Arrays, stride: int) -> Tensor:
    """The cameras (B, V, 4) of the views at the output pixels of the network."""
    height, width = arrays.depth.shape[-2:]
    return resized(arrays.cameras, width // stride / width, height // stride / height)


def context_surfaces(arrays: Arrays, labels: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """The surfaces of the context views at the output pixels of the network: points (B, 2, h, w, 3) [m] in
    the first frames, whether they are known, and labels, of `labels` (B, V, H, W), (B, 2, h, w) each."""
    depth, shown = shrink(arrays.depth[:, :2], labels[:, :2], stride)
    points = surface_points(depth, output_cameras(arrays, stride)[:, :2], arrays.poses[:, :2])
    return points, depth > 0, shown
