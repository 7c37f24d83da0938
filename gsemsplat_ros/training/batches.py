"""Samples of rooms to tensors that the losses read.

A sample holds three views (first, second, target) of one room; see datasets. Poses are OpenCV, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.geometry.visibility import seen_by, unproject
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


def reversed_pair(sample: dict) -> dict:
    """The same sample with the two context views exchanged and everything in the frame of the new first."""
    order = [1, 0, 2]
    poses = sample['first_from_camera']
    out = {key: sample[key][order] for key in ('images', 'depth', 'instance')}
    return {**sample, **out, 'first_from_camera': np.linalg.inv(poses[1]) @ poses[order]}


def mirrored(sample: dict) -> dict:
    """The same sample in a mirror that exchanges left and right; a rectified pair has its views exchanged, so
    that the second camera still stands to the right."""
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    out = {key: np.ascontiguousarray(np.flip(sample[key], 2)) for key in ('images', 'depth', 'instance')}
    K = sample['K'].copy()
    K[0, 2] = sample['depth'].shape[2] - 1 - K[0, 2]
    out = {**sample, **out, 'K': K, 'first_from_camera': mirror @ sample['first_from_camera'] @ mirror}
    return reversed_pair(out) if sample['stereo'] else out


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


def collate(samples: list[dict], rows: dict[str, int], names: Tensor, stride: int) -> Batch:
    """Samples of one size to a batch; `rows`: name -> row of `names`, the table of phrases; `stride` of the
    network's output."""
    images, points, valid, labels, target, target_labels, target_seen, poses, cameras = ([] for _ in range(9))
    for sample in samples:
        height, width = sample['depth'].shape[1:]
        camera = Camera.from_K(sample['K'], width, height)
        small = camera.resized(width // stride, height // stride)
        table = np.array([-1] + [rows[name] for name in sample['names'][1:]])
        shrunk = [shrink(sample['depth'][i], sample['instance'][i], stride) for i in range(2)]
        depth, instance = (np.stack(x) for x in zip(*shrunk))
        images.append(torch.from_numpy(sample['images'][:2]).permute(0, 3, 1, 2).float() / 127.5 - 1)
        points.append(
            np.stack([unproject(d, small, pose) for d, pose in zip(depth, sample['first_from_camera'])])
        )
        valid.append(depth > 0)
        labels.append(table[instance])
        pose = sample['first_from_camera'][2]
        surface = unproject(sample['depth'][2], camera, pose)
        seen = np.zeros((height, width), bool)
        for i in range(2):
            seen |= seen_by(
                surface, sample['depth'][i], camera, np.linalg.inv(sample['first_from_camera'][i])
            )
        target.append(torch.from_numpy(sample['images'][2]).permute(2, 0, 1).float() / 255)
        target_labels.append(table[sample['instance'][2]])
        target_seen.append(seen & (sample['depth'][2] > 0))
        poses.append(np.linalg.inv(pose))
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
