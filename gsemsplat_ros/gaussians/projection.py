"""Gaussians as a pinhole camera sees them: EWA projection, of 3D Gaussian splatting (docs/published.md 21).

A Gaussian at camera point (x, y, z) with covariance V = A A^T becomes the image Gaussian with covariance
S = (J A)(J A)^T + 0.3 I, J the Jacobian of the projection. At pixel offset d = (dx, dy) from its centre,
completing the square,

    d^T S^-1 d = precision (dx - slope dy)^2 + dy^2 / variance_y,
    variance_y = S_yy, slope = S_xy / S_yy, precision = S_yy / det S,

a sum of squares that rounding cannot make negative; det S is likewise |row_x x row_y|^2 + 0.3 tr + 0.09.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from gsemsplat_ros.gaussians.rotations import quats_to_rotations

NEAR = 0.01  # [m] Gaussians nearer to the camera plane are left out
DILATION = 0.3  # [px^2] added to both image variances: no Gaussian falls between pixels
MIN_ALPHA = 1 / 255  # weaker contributions are skipped
MAX_PIXELS = 1e9  # centres and extents beyond this are left out (float32 cannot hold their pixels)

Number = TypeVar('Number', float, Tensor)


@dataclass(frozen=True)
class Projected:
    """N Gaussians in a picture, or in each of several: shapes (..., N, ...).

    geometry (..., N, 6): u, v [px], precision, slope, 1 / variance_y, opacity; z (..., N) [m]; extents
    (..., N, 2) [px]: half sides of the box outside of which alpha < MIN_ALPHA, without gradient; visible
    (..., N) bool: before the camera, and of finite place and size. The others' values mean nothing.
    """

    geometry: Tensor
    z: Tensor
    extents: Tensor
    visible: Tensor


def jacobian_limits(
    fx: Number, fy: Number, cx: Number, cy: Number, width: int, height: int
) -> tuple[Number, Number, Number, Number]:
    """Bounds (x_min, x_max, y_min, y_max) of x/z and y/z in the Jacobian: the image plus 15 % a side.

    Beyond them the linearisation explodes. For a centred principal point this is 3DGS's 1.3 tan(fov / 2).
    """
    left, top = (cx + 0.5) / fx, (cy + 0.5) / fy
    wide, high = width / fx, height / fy
    return -left - 0.15 * wide, wide - left + 0.15 * wide, -top - 0.15 * high, high - top + 0.15 * high


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    camera_from_world: Tensor,
    lens: tuple[Number, Number, Number, Number],
    width: int,
    height: int,
) -> Projected:
    """Gaussians (..., N, ...) as the camera at camera_from_world (..., 4, 4) sees them; differentiable.

    lens: fx, fy, cx, cy [px], pixel centres at integers; numbers, or tensors (..., 1) where each set has a
    camera of its own. Nothing is read back from a GPU.
    """
    fx, fy, cx, cy = lens
    rotation, shift = camera_from_world[..., None, :3, :3], camera_from_world[..., None, :3, 3]
    x, y, z = ((rotation * means[..., None, :]).sum(-1) + shift).unbind(-1)  # exact where products use TF32
    in_front = z > NEAR
    z = torch.where(in_front, z, 1.0)  # what lies behind is not drawn, and divides by no zero
    x_min, x_max, y_min, y_max = jacobian_limits(fx, fy, cx, cy, width, height)
    zoom_x, zoom_y = fx / z, fy / z
    # rows of the Jacobian times the camera's rotation, then times the Gaussian's axes
    right, down, ahead = rotation.unbind(-2)
    along_x = zoom_x[..., None] * (right - (x / z).clamp(x_min, x_max)[..., None] * ahead)
    along_y = zoom_y[..., None] * (down - (y / z).clamp(y_min, y_max)[..., None] * ahead)
    axes = quats_to_rotations(quats) * scales[..., None, :]
    row_x, row_y = ((along[..., None] * axes).sum(-2) for along in (along_x, along_y))  # (..., N, 3) of J A
    xx, yy = (row_x * row_x).sum(-1), (row_y * row_y).sum(-1)
    xy = (row_x * row_y).sum(-1)
    det = torch.linalg.cross(row_x, row_y).square().sum(-1) + DILATION * (xx + yy) + DILATION**2
    variance_x, variance_y = xx + DILATION, yy + DILATION
    u, v = zoom_x * x + cx, zoom_y * y + cy
    geometry = torch.stack([u, v, variance_y / det, xy / variance_y, 1 / variance_y, opacities], -1)
    with torch.no_grad():
        reach = 2 * torch.log(opacities / MIN_ALPHA)  # d^T S^-1 d where alpha falls to MIN_ALPHA
        extents = torch.stack([(reach * variance_x).sqrt(), (reach * variance_y).sqrt()], -1)
        inside = ((geometry[..., :2].abs() + extents) < MAX_PIXELS).all(-1)  # rejects NaN too
        visible = in_front & (opacities > MIN_ALPHA) & inside
    return Projected(geometry, z, extents, visible)
