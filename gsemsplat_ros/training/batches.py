"""Samples of rooms to tensors that the losses read.

A sample holds three views (first, second, target) of one room; see datasets. Poses are OpenCV, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.geometry.visibility import surface_points
from gsemsplat_ros.images.camera import Camera


@dataclass(frozen=True)
class Batch:
    """B pairs; (H, W) image, (h, w) output size.

    images (2, B, 3, H, W) in [-1, 1]; points (B, 2, h, w, 3) [m] in the first frame; valid (B, 2, h, w) bool;
    labels (B, 2, h, w) and target_labels (B, H, W): rows of `names` (K, C), -1 for nothing; target (B, 3, H,
    W) in [0, 1]; target_seen (B, H, W) bool: a context view sees the surface; target_from_first: B poses (4,
    4); cameras: B, of the image size.
    """

    images: Tensor
    points: Tensor
    valid: Tensor
    labels: Tensor
    names: Tensor
    target: Tensor
    target_labels: Tensor
    target_seen: Tensor
    target_from_first: list[np.ndarray]
    cameras: list[Camera]


def shrink(depth: np.ndarray, instance: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth and instances (H, W) at the middles of blocks of `stride` pixels, (h, w) each.

    A block shows its nearest surface: its instance, and the mean depth of the pixels within 5 % of it.
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


def collate(samples: list[Sample], rows: dict[str, int], names: Tensor, stride: int) -> Batch:
    """Samples of one size to a batch; `rows`: name -> row of `names`, the table of phrases; `stride` of the
    network's output."""
    images, points, valid, labels, target, target_labels, target_seen, poses, cameras = ([] for _ in range(9))
    for sample in samples:
        height, width = sample.depth.shape[1:]
        camera = sample.camera
        small = camera.resized(width // stride, height // stride)
        table = np.array([-1] + [rows[name] for name in sample.names[1:]])
        shrunk = [shrink(sample.depth[i], sample.instance[i], stride) for i in range(2)]
        depth, instance = (np.stack(x) for x in zip(*shrunk))
        images.append(torch.from_numpy(sample.images[:2]).permute(0, 3, 1, 2).float() / 127.5 - 1)
        points.append(
            np.stack([surface_points(d, small, pose) for d, pose in zip(depth, sample.first_from_camera)])
        )
        valid.append(depth > 0)
        labels.append(table[instance])
        target.append(torch.from_numpy(sample.images[2]).permute(2, 0, 1).float() / 255)
        target_labels.append(table[sample.instance[2]])
        target_seen.append(sample.target_seen())
        poses.append(np.linalg.inv(sample.first_from_camera[2]))
        cameras.append(camera)
    return Batch(
        torch.stack(images, 1),
        torch.from_numpy(np.stack(points)).float(),
        torch.from_numpy(np.stack(valid)),
        torch.from_numpy(np.stack(labels)),
        names,
        torch.stack(target),
        torch.from_numpy(np.stack(target_labels)),
        torch.from_numpy(np.stack(target_seen)),
        poses,
        cameras,
    )
