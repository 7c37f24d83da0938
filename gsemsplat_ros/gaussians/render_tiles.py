"""The renderer of GPUs without gsplat: PyTorch operations alone, on any device, differentiable.

`render_plain` defines what is computed. Here several pictures are drawn at once, and the host waits once or
twice:

1. All Gaussians are projected. A Gaussian's box gives the tiles of 4 x 4 pixels that it touches; sums over
   the corners of all boxes give the number of Gaussians of every tile. These numbers are read.
2. Gaussians are sorted by depth and repeated for each of their tiles; a stable sort by tile makes the lists.
   Where these would take too much memory (Gaussians of many pixels), tiles have 16 x 16 pixels. Where lists
   are long, they end where the light of the whole tile has: that needs a second read.
3. Tiles are taken in groups whose lists are about as long, longest first. A group is a full array (tiles,
   pixels, Gaussians) of bounded size: alphas, the light behind each by a cumulative sum, and all channels by
   one batched matrix product. The backward pass computes each group again, so no alpha is kept.

Its cost on a GPU, by count (it has not been measured on one): each pixel and Gaussian of a tile moves about
30 float32 (120 bytes), each Gaussian of a tile some 500 bytes more. A Gaussian with a standard deviation of
1 px touches 6 to 7 tiles, so 524,288 of them with 35 channels move about 8 GB: 3 ms at the 3 TB/s of an H100,
40 ms at the 200 GB/s of a Jetson Orin; a backward pass about three times that. These are some 15 groups of 40
launches. gsplat ends each pixel where its light runs out; here what lies behind is mostly computed too, and
weighs nothing: in the scene of a pair less than a tenth, but much where Gaussians are many pixels large.

On one core of a CPU the same picture takes 5 times as long as by `render_cpu`, and 0.3 GB of memory; with the
backward pass 15 times and 1 GB. A smaller picture takes a seventh of the time of `render_plain`. Gaussians of
6 px take 13 times as long as by `render_cpu`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gsemsplat_ros.gaussians.projection import MIN_ALPHA, project
from gsemsplat_ros.gaussians.render_plain import MAX_ALPHA, MIN_DEPTH_ALPHA, STOP, Rendering
from gsemsplat_ros.gaussians.tile_lists import Group, TileLists, list_tiles

FAINT = 1e-9  # opacity of what only fills up a list: far below MIN_ALPHA


def render_tiles(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    codes: Tensor,
    *,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
) -> Rendering:
    """Gaussians (..., N, ...) seen from viewmats (..., C, 4, 4), `camera_from_world`, with Ks (..., C, 3, 3)
    [px], pixel centres at integers, as pictures (..., C, height, width, ...) on black.

    Differentiable, once, in all tensors of the Gaussians. The host reads one tensor from the device, two
    where many Gaussians lie behind each other.
    """
    pictures = viewmats.shape[:-2]  # (..., C); V in all
    at = len(pictures) - 1

    def each(values: Tensor) -> Tensor:  # (..., N, rest) -> (V, N, rest)
        return values.unsqueeze(at).expand(*pictures, *values.shape[at:]).flatten(0, at)

    matrices, Ks = viewmats.flatten(0, at), Ks.flatten(0, at)
    lens = Ks[:, 0, 0, None], Ks[:, 1, 1, None], Ks[:, 0, 2, None], Ks[:, 1, 2, None]
    seen = project(each(means), each(quats), each(scales), each(opacities), matrices, lens, width, height)
    z = seen.z[..., None]
    features = torch.cat([each(colors).clamp(min=0), z, torch.ones_like(z), each(codes)], -1)
    with torch.no_grad():
        lists = list_tiles(seen, width, height)
    drawn = _Drawing.apply(seen.geometry.flatten(0, 1), features.flatten(0, 1), lists)  # (T, y, x, channels)
    rows, columns = -(-height // lists.side), -(-width // lists.side)
    drawn = drawn.unflatten(0, (-1, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    drawn = drawn[:, :height, :width].unflatten(0, pictures)
    total = drawn[..., 4]
    depth = drawn[..., 3] / total.clamp(min=MIN_DEPTH_ALPHA)
    depth = torch.where(total >= MIN_DEPTH_ALPHA, depth, torch.nan)
    return Rendering(drawn[..., :3], depth, total, drawn[..., 5:])


class _Drawing(torch.autograd.Function):
    """Sums (T, side, side, C) over the Gaussians of each pixel, of geometry (M, 6) and features (M, C)."""

    @staticmethod
    def forward(ctx: Any, geometry: Tensor, features: Tensor, lists: TileLists) -> Tensor:
        ctx.save_for_backward(geometry, features)
        ctx.lists = lists
        drawn = features.new_zeros(len(lists.pixels), lists.side, lists.side, features.shape[1])
        for group in lists.groups:
            picked = _pick(geometry, group), _pick(features, group)
            drawn.index_copy_(0, group.tiles, _draw(*picked, group.used, lists.pixels[group.tiles]))
        return drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        lists, (geometry, features) = ctx.lists, ctx.saved_tensors
        totals = torch.zeros_like(geometry), torch.zeros_like(features)
        for group in lists.groups:
            picked = _pick(geometry, group).requires_grad_(), _pick(features, group).requires_grad_()
            with torch.enable_grad():
                drawn = _draw(*picked, group.used, lists.pixels[group.tiles])
            for total, part in zip(totals, torch.autograd.grad(drawn, picked, gradient[group.tiles])):
                total.index_add_(0, group.index.flatten(), part.flatten(0, 1))
        return *totals, None


def _pick(table: Tensor, group: Group) -> Tensor:
    """Rows (B, K, C) of a table (M, C)."""
    return table.index_select(0, group.index.flatten()).unflatten(0, group.index.shape)


def _draw(geometry: Tensor, features: Tensor, used: Tensor, pixels: Tensor) -> Tensor:
    """Sums (B, side, side, C) of B tiles with K Gaussians each: geometry (B, K, 6), features (B, K, C), used
    (B, K), pixels (B, side, 2).

    Of the exponent only the one square that mixes x and y is computed for every pixel.
    """
    u, v, precision, slope, inverse_y, opacities = geometry[:, None].unbind(-1)  # (B, 1, K)
    x, y = pixels.to(geometry.dtype)[..., None].unbind(2)
    dx, dy = x - u, y - v  # (B, side, K)
    root = (0.5 * precision).sqrt()
    mixed = (root * dx)[:, None] - (root * slope * dy)[:, :, None]  # (B, side, side, K), y before x
    of_row = torch.where(used[:, None], opacities, FAINT).log() - 0.5 * inverse_y * dy.square()
    alpha = torch.addcmul(of_row[:, :, None], mixed, mixed, value=-1).exp().clamp(max=MAX_ALPHA)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
    log_pass = torch.log1p(-alpha)
    log_after = log_pass.cumsum(-1)  # ln of the light behind each
    weights = torch.where(log_after >= math.log(STOP), alpha * (log_after - log_pass).exp(), 0.0)
    return (weights.flatten(1, 2) @ features).unflatten(1, weights.shape[1:3])
