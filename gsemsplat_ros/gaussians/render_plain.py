"""The renderer in plain differentiable torch: twin of the fast ones, and the renderer of training on a CPU.

Every pixel takes the Gaussians in its block, nearest first, and stops where little light is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.projection import MIN_ALPHA, NEAR, project
from gsemsplat_ros.images.camera import Camera

MAX_ALPHA = 0.99  # one Gaussian never hides all behind it
STOP = 1e-4  # a Gaussian that would take the transmittance below this ends its pixel, undrawn
MIN_DEPTH_ALPHA = 0.01  # depth is NaN where less was drawn; for firmer depths threshold `alpha`
BLOCK = 4  # pixels are drawn in blocks of this side, each with the Gaussians that reach it


@dataclass(frozen=True)
class Rendering:
    """One picture: torch tensors on the device of the Gaussians.

    rgb (H, W, 3), background included, not clamped above; depth (H, W) [m], expected z = sum(w z) / sum(w),
    NaN where alpha < 0.01; alpha (H, W) = sum(w); codes (H, W, D) = sum(w code), neither background nor
    division by alpha. w is what a Gaussian contributes: its alpha times the transmittance before it.
    """

    rgb: Tensor
    depth: Tensor
    alpha: Tensor
    codes: Tensor


@dataclass(frozen=True)
class _Visible:
    """Visible Gaussians, nearest first.

    index (M,): which of those that were given; geometry (M, 6) and extents (M, 2) as in `Projected`; features
    (M, 4 + D): r, g, b, z, codes.
    """

    index: Tensor
    geometry: Tensor
    features: Tensor
    extents: Tensor


def render_plain(
    gaussians: Gaussians,
    camera: Camera,
    camera_from_world: np.ndarray,
    background: Sequence[float] = (0.0, 0.0, 0.0),
) -> Rendering:
    """The whole picture; differentiable in every tensor of `gaussians`. Arguments as of `render`."""
    window = (0, 0, camera.width, camera.height)
    return render_windows(gaussians, camera, camera_from_world, [window], background)[0]


def render_windows(
    gaussians: Gaussians,
    camera: Camera,
    camera_from_world: np.ndarray,
    windows: Sequence[tuple[int, int, int, int]],
    background: Sequence[float] = (0.0, 0.0, 0.0),
) -> list[Rendering]:
    """Parts of one picture, projected once: `windows` are (x0, y0, width, height) [px]; differentiable.

    Each result equals that part of `render_plain`'s picture; its cost grows with the window, not the picture.
    """
    with torch.no_grad():  # Gaussians outside all windows need no gradient and no memory
        rough = _project(replace(gaussians, codes=gaussians.codes[:, :0]), camera, camera_from_world)
        near = torch.stack([_reaches(rough, window) for window in windows]).any(0)
    projected = _project(gaussians.select(rough.index[near]), camera, camera_from_world)
    return [_draw(projected, window, background) for window in windows]


def _project(gaussians: Gaussians, camera: Camera, camera_from_world: np.ndarray) -> _Visible:
    matrix = torch.as_tensor(camera_from_world).to(gaussians.means)
    assert matrix.shape == (4, 4), matrix.shape
    rotation, shift = matrix[:3, :3], matrix[:3, 3]
    in_front = gaussians.means.detach() @ rotation[2] + shift[2] > NEAR
    visible = (in_front & (gaussians.opacities.detach() > MIN_ALPHA)).nonzero()[:, 0]
    gaussians = gaussians.select(visible)

    drawn = project(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        matrix,
        (camera.fx, camera.fy, camera.cx, camera.cy),
        camera.width,
        camera.height,
    )
    features = torch.cat([gaussians.colors.clamp(min=0), drawn.z[:, None], gaussians.codes], -1)
    with torch.no_grad():
        inside = drawn.visible.nonzero()[:, 0]
        order = inside[torch.argsort(drawn.z[inside], stable=True)]
    return _Visible(
        visible[order],
        drawn.geometry.index_select(0, order),
        features.index_select(0, order),
        drawn.extents[order],
    )


def _reaches(projected: _Visible, window: tuple[int, int, int, int]) -> Tensor:
    """Which Gaussians (M,) bool have pixels in the window."""
    x0, y0, width, height = window
    centres, extents = projected.geometry[:, :2], projected.extents
    origin, size = centres.new_tensor([x0, y0]), centres.new_tensor([width, height])
    return ((centres + extents >= origin) & (centres - extents <= origin + size)).all(-1)


def _draw(projected: _Visible, window: tuple[int, int, int, int], background: Sequence[float]) -> Rendering:
    """Shapes: M Gaussians; B blocks of P pixels, each with up to K of the Gaussians."""
    x0, y0, width, height = window
    columns, rows = -(-width // BLOCK), -(-height // BLOCK)
    with torch.no_grad():
        near = _reaches(projected, window).nonzero()[:, 0]
        centres, extents = projected.geometry[near, :2], projected.extents[near]
        low, high = centres - extents, centres + extents
        corners = low.new_tensor([x0, y0]) + BLOCK * _grid(rows, columns).to(low)  # (B, 2) first pixels
        touches = ((high >= corners[:, None]) & (low <= corners[:, None] + (BLOCK - 1))).all(-1)
        counts = touches.sum(1)  # (B,)
        block, member = touches.nonzero(as_tuple=True)  # by block, nearest first
        place = torch.arange(len(block)).to(block) - (counts.cumsum(0) - counts)[block]
        index = near.new_zeros(len(corners), int(counts.max()))  # (B, K)
        index[block, place] = near[member]
        used = torch.arange(index.shape[1]).to(counts) < counts[:, None]  # (B, K), else padding
        pixels = corners[:, None] + _grid(BLOCK, BLOCK).to(low)  # (B, P, 2)

    def pick(table: Tensor) -> Tensor:  # (M, C) -> (B, K, C)
        return table.index_select(0, index.flatten()).unflatten(0, index.shape)

    # (B, 1, K) each, to broadcast against the pixels (B, P, 1)
    u, v, precision, slope, inverse_y, opacities = pick(projected.geometry)[:, None].unbind(-1)
    dx, dy = pixels[..., :1] - u, pixels[..., 1:] - v  # (B, P, K)
    power = -0.5 * (precision * (dx - slope * dy).square() + inverse_y * dy.square())
    alpha = (opacities * power.exp()).clamp(max=MAX_ALPHA)
    alpha = torch.where((alpha >= MIN_ALPHA) & used[:, None], alpha, 0.0)
    log_pass = torch.log1p(-alpha)
    log_after = log_pass.cumsum(-1)  # ln of the light behind each
    weights = torch.where(log_after.exp() >= STOP, alpha * (log_after - log_pass).exp(), 0.0)

    def picture(blocks: Tensor) -> Tensor:  # (B, P, C) -> (height, width, C)
        grid = blocks.unflatten(1, (BLOCK, BLOCK)).unflatten(0, (rows, columns))
        return grid.transpose(1, 2).flatten(2, 3).flatten(0, 1)[:height, :width]

    drawn = picture(weights @ pick(projected.features))  # r, g, b, z, codes
    total = picture(weights.sum(-1, keepdim=True))
    rgb = drawn[..., :3] + (1 - total) * total.new_tensor(background)
    depth = drawn[..., 3:4] / total.clamp(min=MIN_DEPTH_ALPHA)
    depth = torch.where(total >= MIN_DEPTH_ALPHA, depth, torch.nan)
    return Rendering(rgb, depth[..., 0], total[..., 0], drawn[..., 4:])


def _grid(rows: int, columns: int) -> Tensor:
    """(rows * columns, 2) of x, y, row by row."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(-1)
