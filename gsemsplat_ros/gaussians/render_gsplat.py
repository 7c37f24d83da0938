"""Pictures by gsplat, where its compiled operators run on the GPU at hand."""

from __future__ import annotations

import functools
import logging
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor

from gsemsplat_ros.gaussians.projection import DILATION, NEAR
from gsemsplat_ros.gaussians.render_plain import MIN_DEPTH_ALPHA, Rendering

log = logging.getLogger(__name__)


def render_gsplat(
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

    gsplat 1.5 caps one Gaussian's alpha at 0.999, where 3DGS, gsplat 1.6 and our other renderers cap it at
    0.99.
    """
    from gsplat import rasterization

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


@functools.cache
def why_not(device: str) -> str | None:
    """What keeps gsplat from drawing on a device of this type; None: nothing does.

    One small picture is tried, because gsplat can be imported also where its operators are missing, do not
    run on this GPU, or have yet to be compiled. That takes minutes and is logged before.
    """
    ones = torch.ones(1, 4, device=device)
    try:
        if device == 'cuda' and not _is_compiled():
            log.warning(
                'gsplat: its operators are not compiled yet. Where there is a CUDA toolkit that is done now; '
                'it takes some minutes, once'
            )
        with redirect_stdout(sys.stderr):  # gsplat prints, and the output of a command is for programs
            render_gsplat(
                *(ones[:, :3], ones / 2, ones[:, :3], ones[:, 0], ones[:, :3], ones[:, :2]),
                viewmats=torch.eye(4, device=device)[None],
                Ks=torch.eye(3, device=device)[None],
                width=16,
                height=16,
            )
        if device == 'cuda':
            torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        raise  # no verdict
    except Exception as error:  # of the import, the compiler, the loader, the driver, or gsplat's own
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def _is_compiled() -> bool:
    """Whether there are compiled operators: in the package, or in PyTorch's folder of extensions."""
    import gsplat
    from torch.utils.cpp_extension import get_default_build_root

    extensions = os.environ.get('TORCH_EXTENSIONS_DIR') or get_default_build_root()
    inside = Path(gsplat.__file__).parent.glob('csrc.*')
    return any(inside) or any(Path(extensions).glob('**/gsplat_cuda*.so'))
