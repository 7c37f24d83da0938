"""The entry to the renderers: render_cpu on the CPU; on a GPU gsplat where it runs, else render_tiles."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from gsemsplat_ros.device import upload
from gsemsplat_ros.gaussians.gaussians import Gaussians, flat
from gsemsplat_ros.gaussians.render_cpu import render_cpu
from gsemsplat_ros.gaussians.render_gsplat import render_gsplat, why_not
from gsemsplat_ros.gaussians.render_plain import Rendering
from gsemsplat_ros.gaussians.render_tiles import render_tiles
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.model import Prediction

__all__ = ['Rendering', 'render', 'render_on_gpu', 'render_views']
log = logging.getLogger(__name__)


def render(
    gaussians: Gaussians,
    camera: Camera,
    camera_from_world: np.ndarray,
    background: Sequence[float] = (0.0, 0.0, 0.0),
) -> Rendering:
    """Colour, expected depth, alpha and codes of one picture; the result is on the device of the Gaussians.

    camera: size and intrinsics [px] of the picture, pixel centres at integers; camera_from_world (4, 4)
    rigid, "world" being the frame of the Gaussians; background: RGB, seen through what stays transparent.
    All renderers follow `render_plain`, which is the one to differentiate on the CPU; on a GPU this one is.
    """
    if gaussians.means.device.type != 'cpu':
        return render_on_gpu(gaussians, camera, camera_from_world, background)
    return render_cpu(gaussians, camera, camera_from_world, background)


def render_views(
    prediction: Prediction, Ks: Tensor, cameras_from_first: Tensor, height: int, width: int
) -> Rendering:
    """One picture (B, height, width, ...) of the Gaussians of each of B pairs, on a GPU, without a loop and
    differentiable.

    Ks (B, 3, 3) [px], pixel centres at integers; cameras_from_first (B, 4, 4).
    """
    drawn = _rasterize(
        *flat(prediction).values(),
        viewmats=cameras_from_first[:, None],
        Ks=Ks[:, None],
        width=width,
        height=height,
    )
    return Rendering(*(maps[:, 0] for maps in vars(drawn).values()))


def _rasterize(*tensors: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int) -> Rendering:
    """As `render_gsplat` and `render_tiles`, by the first where it runs."""
    fault = why_not(viewmats.device.type)
    if fault is not None:
        _warn(fault)
    draw = render_gsplat if fault is None else render_tiles
    return draw(*tensors, viewmats=viewmats, Ks=Ks, width=width, height=height)


@functools.cache
def _warn(fault: str) -> None:
    """Once in a process."""
    log.warning(
        f'gsplat does not run here ({fault}): rendering with PyTorch operations, several times as slow; '
        'see docs/troubleshooting.md'
    )


def render_on_gpu(
    gaussians: Gaussians,
    camera: Camera,
    camera_from_world: np.ndarray,
    background: Sequence[float] = (0.0, 0.0, 0.0),
    draw: Callable[..., Rendering] = _rasterize,
) -> Rendering:
    """`render` by `draw`, which is `render_gsplat`, `render_tiles` or what the GPU allows of these."""
    device = gaussians.means.device
    placed = upload(
        np.concatenate((np.ravel(camera_from_world), camera.K.ravel())).astype(np.float32), device
    )
    drawn = draw(
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
