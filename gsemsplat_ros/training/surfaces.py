"""Depths to surfaces, batched, on any device: twins of geometry/visibility.py in torch.

Cameras are rows (..., 4) of fx, fy, cx, cy [px], pixel centres at integers; poses (..., 4, 4) are rigid [m].
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsemsplat_ros.geometry.visibility import TOLERANCE

SAME = 1.05  # depths of a block up to this factor of its nearest belong to one surface


def shrink(depth: Tensor, labels: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Depth and labels (..., H, W) reduced to blocks of `stride` x `stride` pixels, (..., h, w) each.

    A block takes the label of its nearest pixel and the mean depth of the pixels within 5 % of that.
    """
    height, width = (side // stride * stride for side in depth.shape[-2:])
    corners = [(i, j) for i in range(stride) for j in range(stride)]
    depths, shown = (
        [maps[..., i:height:stride, j:width:stride] for i, j in corners] for maps in (depth, labels)
    )
    near = [torch.where(z > 0, z, torch.inf) for z in depths]
    nearest, label = near[0], shown[0]
    for z, other in zip(near[1:], shown[1:]):
        label = torch.where(z < nearest, other, label)
        nearest = torch.minimum(z, nearest)
    total, count = torch.zeros_like(nearest), torch.zeros_like(nearest)
    for z, limited in zip(depths, near):
        close = limited <= SAME * nearest
        total += torch.where(close, z, 0)
        count += close
    return total / count, label


def resized(cameras: Tensor, scale_x: float, scale_y: float) -> Tensor:
    """The cameras (..., 4) of pictures resampled by these factors."""
    fx, fy, cx, cy = cameras.unbind(-1)
    return torch.stack(
        (fx * scale_x, fy * scale_y, (cx + 0.5) * scale_x - 0.5, (cy + 0.5) * scale_y - 0.5), -1
    )


def intrinsics(cameras: Tensor) -> Tensor:
    """K (..., 3, 3) of cameras (..., 4)."""
    fx, fy, cx, cy = cameras.unbind(-1)
    zero = torch.zeros_like(fx)
    rows = fx, zero, cx, zero, fy, cy, zero, zero, zero + 1
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def moved(points: Tensor, a_from_b: Tensor) -> Tensor:
    """Points (..., M, 3) of frames b in frames a."""
    return points @ a_from_b[..., :3, :3].mT + a_from_b[..., None, :3, 3]


def inverse(a_from_b: Tensor) -> Tensor:
    """b_from_a (..., 4, 4)."""
    out = a_from_b.clone()
    turned = a_from_b[..., :3, :3].mT
    out[..., :3, :3] = turned
    out[..., :3, 3] = -(turned @ a_from_b[..., :3, 3:])[..., 0]
    return out


def unproject(depth: Tensor, v: Tensor, u: Tensor, cameras: Tensor) -> Tensor:
    """Depths (..., M) [m] at pixels (..., M) to points (..., M, 3) in the frames of the cameras (..., 4)."""
    fx, fy, cx, cy = cameras[..., None].unbind(-2)
    return torch.stack(((u - cx) / fx * depth, (v - cy) / fy * depth, depth), -1)


def surface_points(depth: Tensor, cameras: Tensor, first_from_camera: Tensor) -> Tensor:
    """Depth (..., h, w) [m] to points (..., h, w, 3) in the first frames."""
    height, width = depth.shape[-2:]
    v, u = torch.meshgrid(
        torch.arange(height, device=depth.device), torch.arange(width, device=depth.device), indexing='ij'
    )
    points = unproject(depth.flatten(-2), v.flatten(), u.flatten(), cameras)
    return moved(points, first_from_camera).unflatten(-2, (height, width))


def shown_at(
    points: Tensor, cameras: Tensor, camera_from_first: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where points (B, M, 3) of the first frames lie in views of `size` (h, w): rows (B, M) of the flattened
    view, 0 outside it; depths (B, M) [m]; whether they are inside, (B, M) bool."""
    height, width = size
    x, y, z = moved(points, camera_from_first).unbind(-1)
    fx, fy, cx, cy = cameras[..., None].unbind(-2)
    in_front = z > 0
    ahead = torch.where(in_front, z, 1)
    u, v = fx * x / ahead + cx, fy * y / ahead + cy
    inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
    row, column = (torch.where(inside, place, 0).round().long() for place in (v, u))
    return row * width + column, z, in_front & inside


def seen_by(points: Tensor, depth: Tensor, cameras: Tensor, camera_from_first: Tensor) -> Tensor:
    """Which points (B, M, 3) of the first frames are visible in views with `depth` (B, h, w; 0: unknown)."""
    height, width = depth.shape[-2:]
    row, z, inside = shown_at(points, cameras, camera_from_first, (height, width))
    found = depth.flatten(-2).gather(-1, row)
    return inside & (found > 0) & ((found - z).abs() < TOLERANCE * (1 + z))
