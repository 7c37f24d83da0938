"""One training pair as tensors, with the target views at which its Gaussians are rendered.

Letters: (H, W) image, (h, w) network output, K names, C text space. Poses are OpenCV, metres.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.datasets.coverage import loss_mask
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.datasets.sources import SceneViews
from gsemsplat_ros.geometry.visibility import surface_points
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.pixels import to_tensor
from gsemsplat_ros.supervision.features import Supervision
from gsemsplat_ros.training.matching_loss import partners


@dataclass(frozen=True)
class Target:
    """A view to render: image (3, H, W) in [0, 1]; seen (H, W) bool: a context view sees this surface too;
    camera of (H, W) px; camera_from_first (4, 4) [m]."""

    image: Tensor
    seen: Tensor
    camera: Camera
    camera_from_first: np.ndarray


@dataclass(frozen=True)
class RoomTarget(Target):
    """labels (H, W): rows of the batch's `names`, -1 for none."""

    labels: Tensor


@dataclass(frozen=True)
class SceneTarget(Target):
    """ids (H, W) int64: rows of `features` (M, C) counted from 1, 0 for none; context (h', w', C)."""

    ids: Tensor
    features: Tensor
    context: Tensor


@dataclass(frozen=True)
class Batch:
    """One pair as a batch of one: images (2, 1, 3, H, W) in [-1, 1]; points (1, 2, h, w, 3) [m] in the first
    frame, and valid (1, 2, h, w) bool: whether they are known."""

    images: Tensor
    points: Tensor
    valid: Tensor


@dataclass(frozen=True)
class RoomBatch(Batch):
    """labels (1, 2, h, w): rows of `names` (K, C), -1 for none; partner (1, h, w): pixel of the second view
    that shows the same point as one of the first (matching_loss.partners)."""

    labels: Tensor
    names: Tensor
    partner: Tensor
    target: RoomTarget


@dataclass(frozen=True)
class SceneBatch(Batch):
    """A pair of a scene with its targets."""

    targets: tuple[SceneTarget, ...]


AnyBatch = TypeVar('AnyBatch', bound=Batch)


def room_batch(sample: Sample, rows: dict[str, int], names: Tensor, stride: int) -> RoomBatch:
    """The batch of a sample; `rows`: name -> row of `names` (K, C); `stride`: of the network's output."""
    table = np.array([-1] + [rows[name] for name in sample.names[1:]])
    points, valid, instance = context_surfaces(
        sample.depth[:2], sample.instance[:2], [sample.camera] * 2, sample.first_from_camera, stride
    )
    target = RoomTarget(
        image=target_image(sample.images[2]),
        seen=torch.from_numpy(sample.target_seen()),
        camera=sample.camera,
        camera_from_first=np.linalg.inv(sample.first_from_camera[2]),
        labels=torch.from_numpy(table[sample.instance[2]]),
    )
    images = context_images(sample.images[:2])
    camera = sample.camera.resized(points.shape[3], points.shape[2])
    second_from_first = np.linalg.inv(sample.first_from_camera[1])
    partner = partners(
        points,
        valid,
        torch.from_numpy(camera.K).float()[None],
        torch.from_numpy(second_from_first).float()[None],
    )
    return RoomBatch(images, points, valid, torch.from_numpy(table[instance]), names, partner, target)


def scene_batch(views: SceneViews, supervision: Sequence[Supervision], stride: int) -> SceneBatch:
    """The batch of a scene's views and the supervision of each target; `stride`: of the network's output."""
    contexts, frames = views.frames[:2], views.frames[2:]
    geometries = [frame.geometry for frame in contexts]
    points, valid, _ = context_surfaces(
        [geometry.depth for geometry in geometries],
        [np.zeros(geometry.depth.shape, np.int16) for geometry in geometries],
        [geometry.camera for geometry in geometries],
        views.first_from_camera,
        stride,
    )
    targets = tuple(
        SceneTarget(
            image=target_image(frame.image),
            seen=torch.from_numpy(loss_mask(frame.geometry, geometries)),
            camera=frame.geometry.camera,
            camera_from_first=np.linalg.inv(pose),
            ids=torch.from_numpy(wanted.ids.astype(np.int64)),
            features=torch.from_numpy(wanted.features),
            context=torch.from_numpy(wanted.context),
        )
        for frame, pose, wanted in zip(frames, views.first_from_camera[2:], supervision)
    )
    return SceneBatch(context_images([frame.image for frame in contexts]), points, valid, targets)


def context_images(images: Iterable[np.ndarray]) -> Tensor:
    """Two images (H, W, 3) uint8 as network input (2, 1, 3, H, W) in [-1, 1]."""
    return to_tensor(np.stack(list(images)))[:, None]


def target_image(image: np.ndarray) -> Tensor:
    """An image (H, W, 3) uint8 as (3, H, W) in [0, 1], for comparison with renderings."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def context_surfaces(
    depths: Iterable[np.ndarray],
    instances: Iterable[np.ndarray],
    cameras: Iterable[Camera],
    first_from_camera: np.ndarray,
    stride: int,
) -> tuple[Tensor, Tensor, np.ndarray]:
    """The surfaces of two views (H, W) at the output pixels of the network: points (1, 2, h, w, 3) [m] in the
    first frame, whether they are known (1, 2, h, w), and instances (1, 2, h, w)."""
    points, valid, shown = [], [], []
    for depth, instance, camera, pose in zip(depths, instances, cameras, first_from_camera):
        depth, instance = shrink(depth, instance, stride)
        points.append(
            surface_points(depth, camera.resized(camera.width // stride, camera.height // stride), pose)
        )
        valid.append(depth > 0)
        shown.append(instance)
    return (
        torch.from_numpy(np.stack(points)).float()[None],
        torch.from_numpy(np.stack(valid))[None],
        np.stack(shown)[None],
    )


def shrink(depth: np.ndarray, instance: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth and instances (H, W) reduced to blocks of `stride` x `stride` pixels, (h, w) each.

    A block takes the instance of its nearest pixel and the mean depth of the pixels within 5 % of that.
    """
    height, width = depth.shape[0] // stride, depth.shape[1] // stride

    def blocks(x: np.ndarray) -> np.ndarray:
        x = x[: height * stride, : width * stride].reshape(height, stride, width, stride)
        return x.swapaxes(1, 2).reshape(height, width, stride * stride)

    z = np.where(blocks(depth) > 0, blocks(depth), np.inf)
    nearest = z.argmin(-1)[..., None]
    close = z <= 1.05 * np.take_along_axis(z, nearest, -1)
    mean = np.where(close, blocks(depth), 0).sum(-1) / close.sum(-1)
    return mean, np.take_along_axis(blocks(instance), nearest, -1)[..., 0]


def to_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    """The batch with all its tensors on the device; pinned first, so that the copy overlaps computation."""
    return _moved(batch, device) if device.type == 'cuda' else batch


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_cuda else value.pin_memory().to(device, non_blocking=True)
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    if isinstance(value, (Batch, Target)):
        return replace(value, **{name: _moved(part, device) for name, part in vars(value).items()})
    return value
