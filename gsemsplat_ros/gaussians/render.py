"""The entry to the renderers, in one convention: gsplat for tensors on CUDA, render_cpu on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.device import upload
from gsemsplat_ros.gaussians.gaussians import Gaussians, flat
from gsemsplat_ros.gaussians.render_cpu import render_cpu
from gsemsplat_ros.gaussians.render_plain import DILATION, MIN_DEPTH_ALPHA, NEAR, Rendering
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.model import Prediction

__all__ = ['Rendering', 'render', 'render_views']


def render(
    gaussians: Gaussians,
    camera: Camera,
    camera_from_world: np.ndarray,
    background: Sequence[float] = (0.0, 0.0, 0.0),
) -> Rendering:
    """Colour, expected depth, alpha and codes of one picture; the result is on the device of the Gaussians.

    camera: size and intrinsics [px] of the picture, pixel centres at integers; camera_from_world (4, 4)
    rigid, "world" being the frame of the Gaussians; background: RGB, seen through what stays transparent.
    Both follow `render_plain` (which is the one to differentiate on the CPU); gsplat 1.5 caps one Gaussian's
    alpha at 0.999, where 3DGS, gsplat 1.6 and the CPU cap it at 0.99. Raises ValueError on CUDA without it.
    """
    if gaussians.means.device.type != 'cpu':
        return _render_gsplat(gaussians, camera, camera_from_world, background)
    return render_cpu(gaussians, camera, camera_from_world, background)


def render_views(
    prediction: Prediction, Ks: Tensor, cameras_from_first: Tensor, height: int, width: int
) -> Rendering:
    """One picture (B, height, width, ...) of the Gaussians of each of B pairs, on a GPU, without a loop and
    differentiable.

    Ks (B, 3, 3) [px], pixel centres at integers; cameras_from_first (B, 4, 4). Raises ValueError without
    gsplat.
    """
    drawn = _rasterize(
        *flat(prediction).values(),
        viewmats=cameras_from_first[:, None],
        Ks=Ks[:, None],
        width=width,
        height=height,
    )
    return Rendering(*(maps[:, 0] for maps in vars(drawn).values()))


def _render_gsplat(
    gaussians: Gaussians, camera: Camera, camera_from_world: np.ndarray, background: Sequence[float]
) -> Rendering:
    device = gaussians.means.device
    placed = upload(
        np.concatenate((np.ravel(camera_from_world), camera.K.ravel())).astype(np.float32), device
    )
    drawn = _rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.colors,
        gaussians.codes,
        viewmats=placed[:16].view(1, 4, 4),
        Ks=placed[16:].view(1, 3, 3),
        width=camera.width,
        height=camera.height,
    )
    rgb, depth, alpha, codes = (maps[0] for maps in vars(drawn).values())
    if any(background):
        rgb = rgb + (1 - alpha)[..., None] * upload(np.array(background, np.float32), device)
    return Rendering(rgb, depth, alpha, codes)


def _rasterize(
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
    """gsplat on black: Gaussians (..., N, ...) seen from (..., C, 4, 4) with Ks (..., C, 3, 3), pixel centres
    at integers, as pictures (..., C, height, width, ...)."""
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ValueError(f'rendering on CUDA needs gsplat ({error}): install it or use the CPU') from None
    half = torch.zeros_like(Ks)
    half[..., :2, 2] = 0.5  # gsplat's pixel centres lie at halves, ours at integers
    drawn, alpha, _ = rasterization(
        means,
        quats,
        scales,
        opacities,
        torch.cat([colors.clamp(min=0), codes], -1),
        viewmats=viewmats,
        Ks=Ks + half,
        width=width,
        height=height,
        near_plane=NEAR,
        eps2d=DILATION,
        packed=False,
        render_mode='RGB+ED',
    )
    alpha = alpha[..., 0]
    depth = torch.where(alpha >= MIN_DEPTH_ALPHA, drawn[..., -1], torch.nan)  # expected depth comes last
    return Rendering(drawn[..., :3], depth, alpha, drawn[..., 3:-1])
