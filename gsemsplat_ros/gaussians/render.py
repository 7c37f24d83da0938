"""The entry to the renderers, in one convention: gsplat for tensors on CUDA, render_cpu on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render_cpu import render_cpu
from gsemsplat_ros.gaussians.render_plain import DILATION, MIN_DEPTH_ALPHA, NEAR, Rendering
from gsemsplat_ros.images.camera import Camera

__all__ = ['Rendering', 'render']


def render(
    gaussians: Gaussians,
    camera: Camera,
    camera_from_world: np.ndarray,
    background: Sequence[float] = (0.0, 0.0, 0.0),
) -> Rendering:
    """Colour, expected depth, alpha and codes of one picture; the result is on the device of the Gaussians.

    camera: size and intrinsics [px] of the picture, pixel centres at integers; camera_from_world (4, 4)
    rigid, "world" being the frame of the Gaussians; background: RGB, seen through what stays transparent.
    Both follow `render_plain` (which is the one to differentiate on the CPU); gsplat caps one Gaussian's
    alpha at 0.999 where 3DGS and the CPU cap it at 0.99. Raises ValueError on CUDA without gsplat.
    """
    if gaussians.means.is_cuda:
        return _render_gsplat(gaussians, camera, camera_from_world, background)
    return render_cpu(gaussians, camera, camera_from_world, background)


def _render_gsplat(
    gaussians: Gaussians, camera: Camera, camera_from_world: np.ndarray, background: Sequence[float]
) -> Rendering:
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ValueError(f'rendering on CUDA needs gsplat ({error}): install it or use the CPU') from None
    means = gaussians.means
    K = camera.K
    K[:2, 2] += 0.5  # gsplat's pixel centres lie at halves, ours at integers
    drawn, alpha, _ = rasterization(
        means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        torch.cat([gaussians.colors.clamp(min=0), gaussians.codes], -1),
        viewmats=means.new_tensor(camera_from_world)[None],
        Ks=means.new_tensor(K)[None],
        width=camera.width,
        height=camera.height,
        near_plane=NEAR,
        eps2d=DILATION,
        packed=False,
        render_mode='RGB+ED',
    )
    drawn, alpha = drawn[0], alpha[0, ..., 0]  # (H, W, 3 + D + 1), expected depth last; (H, W)
    rgb = drawn[..., :3] + (1 - alpha)[..., None] * means.new_tensor(background)
    depth = torch.where(alpha >= MIN_DEPTH_ALPHA, drawn[..., -1], torch.nan)
    return Rendering(rgb, depth, alpha, drawn[..., 3:-1])
