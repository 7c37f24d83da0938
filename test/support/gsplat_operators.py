"""gsplat 1.5.3 without a GPU: its own Python code, over the operators of its extension in plain torch.

Only the operators on the renderer's way are here: Gaussians by quaternions and scales, not packed, pinhole
cameras. They refuse what the extension refuses: another number, type, element type, shape or layout of
arguments. Values are those of the kernels: pixel centres at halves, one alpha at most 0.999, a Gaussian
weaker than 1/255 or one that would leave less light than 1e-4 not drawn, values that are no numbers compared
as they compare them. What the kernels leave unwritten is NaN. Gradients are autograd's.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support.gsplat_header import CameraModelType, operator
from torch import Tensor

from gsemsplat_ros.gaussians import render
from gsemsplat_ros.gaussians.rotations import quats_to_rotations

MAX_ALPHA, MIN_ALPHA, STOP = 0.999, 1 / 255, 1e-4
REACH = 3.33  # standard deviations, at most, to the edge of a Gaussian
LARGEST = 2**31 - 128  # of int32 in float32
CHANNELS = {1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 512, 513}  # compiled ones

GAUSSIANS = {'means': '... N 3', 'covars': '... N 6', 'quats': '... N 4', 'scales': '... N 3'}
CAMERAS = {'viewmats': '... C 4 4', 'Ks': '... C 3 3'}
IN_PICTURE = {'means2d': '... N 2', 'conics': '... N 3', 'colors': '... N channels', 'opacities': '... N'}
PAIRS = {'tile_offsets': 'int32 ... tile_height tile_width', 'flatten_ids': 'int32 pairs'}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets gsplat compute with these operators, where it would load or compile its extension, and no
    trial is made. Skips the test without gsplat."""
    pytest.importorskip('gsplat')
    operators = (
        *(projection_ewa_3dgs_fused_fwd, projection_ewa_3dgs_fused_bwd, intersect_tile, intersect_offset),
        *(rasterize_to_pixels_3dgs_fwd, rasterize_to_pixels_3dgs_bwd),
    )
    extension = SimpleNamespace(**{function.__name__: function for function in operators})
    vars(extension).update(CameraModelType=CameraModelType, **CameraModelType.__members__)
    backend = ModuleType('gsplat.cuda._backend')
    vars(backend)['_C'] = extension
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    monkeypatch.setattr(render, 'why_not', lambda device: None)


@operator(**GAUSSIANS, opacities='... N', **CAMERAS)
def projection_ewa_3dgs_fused_fwd(given: SimpleNamespace) -> tuple[Tensor | None, ...]:
    """Radii (..., C, N, 2), 0 for what is not drawn; image points (..., C, N, 2), depths (..., C, N), inverse
    covariances xx, xy, yy (..., C, N, 3); no compensations."""
    assert given.covars is None and not given.calc_compensations
    assert given.camera_model is CameraModelType.PINHOLE
    depths = in_camera(given.means, given.viewmats)[..., 2]
    drawn = ~((depths < given.near_plane) | (depths > given.far_plane))
    gaussians = given.means, given.quats, given.scales, given.viewmats
    points, depths, covariances = project(given, *gaussians, drawn)
    conics, det = inverse(covariances)
    reach = (2 * (given.opacities / MIN_ALPHA).log()).sqrt()
    reach = torch.fmin(reach, reach.new_full((), REACH))
    radii = (reach[..., None, :, None] * covariances[..., ::2].sqrt()).ceil()
    low, high = points - radii, points + radii
    drawn &= ~(
        (det <= 0) | (given.opacities < MIN_ALPHA)[..., None, :] | (radii <= given.radius_clip).all(-1)
    )
    drawn &= ~((low[..., 0] >= given.image_width) | (low[..., 1] >= given.image_height) | (high <= 0).any(-1))
    radii = torch.where(drawn[..., None], radii, 0).nan_to_num(0, posinf=LARGEST).int()
    points, conics = (torch.where(drawn[..., None], values, torch.nan) for values in (points, conics))
    return radii, points, torch.where(drawn, depths, torch.nan), conics, None


@operator(
    **GAUSSIANS,
    **CAMERAS,
    radii='int32 ... C N 2',
    conics='... C N 3',
    v_means2d='... C N 2',
    v_depths='... C N',
    v_conics='... C N 3',
)
def projection_ewa_3dgs_fused_bwd(given: SimpleNamespace) -> tuple[Tensor | None, ...]:
    """Gradients by means, covariances (none), quaternions, scales and camera poses."""
    assert given.compensations is None and given.v_compensations is None
    drawn = (given.radii > 0).all(-1)
    with torch.enable_grad():
        inputs = leaves(given.means, given.quats, given.scales, given.viewmats)
        points, depths, covariances = project(given, *inputs, drawn)
        outputs = points, depths, inverse(covariances)[0]
        gradients = [
            torch.where(drawn[..., None], given.v_means2d, 0),
            torch.where(drawn, given.v_depths, 0),
            torch.where(drawn[..., None], given.v_conics, 0),
        ]
        v_means, v_quats, v_scales, v_viewmats = torch.autograd.grad(outputs, inputs, gradients)
    return v_means, None, v_quats, v_scales, v_viewmats if given.viewmats_requires_grad else None


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().requires_grad_() for tensor in tensors]


def in_camera(means: Tensor, viewmats: Tensor) -> Tensor:
    """Points (..., N, 3) in each camera: (..., C, N, 3)."""
    return means[..., None, :, :] @ viewmats[..., :3, :3].mT + viewmats[..., None, :3, 3]


def project(
    given: SimpleNamespace, means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, drawn: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Image points, depths and image covariances xx, xy, yy, (..., C, N, ...) each; finite, and with finite
    gradients, also where not `drawn`."""
    x, y, z = in_camera(means, viewmats).unbind(-1)
    depth = torch.where(drawn, z, 1)
    axes = quats_to_rotations(F.normalize(quats, dim=-1)) * scales[..., None, :]  # (..., N, 3, 3)
    axes = viewmats[..., None, :3, :3] @ axes[..., None, :, :, :]  # (..., C, N, 3, 3)
    points, rows = [], []
    for i, (along, size) in enumerate(((x, given.image_width), (y, given.image_height))):
        focal, centre = given.Ks[..., i, i, None], given.Ks[..., i, 2, None]
        margin = 0.15 * size / focal  # of slopes beyond the picture; further out they count as at its end
        tangent = along / depth
        slope = torch.minimum((size - centre) / focal + margin, tangent)
        slope = torch.maximum(-centre / focal - margin, slope)
        rows.append((focal / depth)[..., None] * (axes[..., i, :] - slope[..., None] * axes[..., 2, :]))
        points.append(focal * tangent + centre)
    xx, xy, yy = ((rows[i] * rows[j]).sum(-1) for i, j in ((0, 0), (0, 1), (1, 1)))
    return torch.stack(points, -1), z, torch.stack((xx + given.eps2d, xy, yy + given.eps2d), -1)


def inverse(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Of symmetric matrices xx, xy, yy (..., 3): the inverse and the determinant."""
    xx, xy, yy = covariances.unbind(-1)
    det = xx * yy - xy * xy
    return torch.stack((yy, -xy, xx), -1) / torch.where(det == 0, 1, det)[..., None], det


@operator(host_waits=True, means2d='... N 2', radii='int32 ... N 2', depths='... N')
def intersect_tile(given: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor]:
    """How many tiles each Gaussian reaches (..., N); the pairs of tile and Gaussian, by image, tile and
    depth: their keys, and which Gaussian of all images."""
    assert given.means2d.ndim > 2 and given.means2d.shape[:-2].numel() == given.I
    assert given.image_ids is None and given.gaussian_ids is None and given.sort and not given.segmented
    centres = given.means2d.nan_to_num().flatten(0, -2) / given.tile_size
    sides = given.radii.flatten(0, -2) / given.tile_size
    low, high = (centres - sides).floor().long(), (centres + sides).ceil().long()
    left, right = (x.clamp(0, given.tile_width) for x in (low[:, 0], high[:, 0]))
    top, bottom = (y.clamp(0, given.tile_height) for y in (low[:, 1], high[:, 1]))
    wide = right - left
    reached = torch.where((sides > 0).all(-1), wide * (bottom - top), 0)
    ends = reached.cumsum(0)
    pairs = int(ends[-1]) if len(ends) else 0  # for which gsplat's host waits
    pair = torch.arange(pairs, device=ends.device)
    owner = torch.searchsorted(ends, pair, right=True)
    place = pair - (ends - reached)[owner]
    tile = (top[owner] + place // wide[owner]) * given.tile_width + left[owner] + place % wide[owner]
    image = owner // given.depths.shape[-1]
    keys = (image << (32 + tile_bits(given))) | (tile << 32)
    keys, order = (keys | given.depths.flatten().view(torch.int32)[owner]).sort(stable=True)
    return reached.int().view(given.depths.shape), keys, owner[order].int()


@operator(isect_ids='int64 pairs')
def intersect_offset(given: SimpleNamespace) -> Tensor:
    """The first pair of each tile, (I, tile_height, tile_width)."""
    keys = given.isect_ids >> 32
    images = torch.arange(given.I)[:, None] << tile_bits(given)
    tiles = images | torch.arange(given.tile_width * given.tile_height)
    return torch.searchsorted(keys, tiles).int().view(given.I, given.tile_height, given.tile_width)


def tile_bits(given: SimpleNamespace) -> int:
    return (given.tile_width * given.tile_height).bit_length()


@operator(**IN_PICTURE, **PAIRS)
def rasterize_to_pixels_3dgs_fwd(given: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (..., image_height, image_width, channels), their alphas (..., 1), and which pair of tile and
    Gaussian was the last in each pixel: only the backward pass asks, and that of here does not."""
    assert given.means2d.ndim > 2 and given.colors.shape[-1] in CHANNELS
    assert given.backgrounds is None and given.masks is None
    drawn, alphas = draw(given, given.means2d, given.conics, given.colors, given.opacities)
    return drawn, alphas, torch.zeros_like(alphas[..., 0], dtype=torch.int32)


@operator(
    **IN_PICTURE,
    **PAIRS,
    render_alphas='... image_height image_width 1',
    last_ids='int32 ... image_height image_width',
    v_render_colors='... image_height image_width channels',
    v_render_alphas='... image_height image_width 1',
)
def rasterize_to_pixels_3dgs_bwd(given: SimpleNamespace) -> tuple[Tensor | None, ...]:
    """Gradients by image points: absolute (none) and plain; by inverse covariances, colours and opacities."""
    assert not given.absgrad
    with torch.enable_grad():
        inputs = leaves(given.means2d, given.conics, given.colors, given.opacities)
        outputs = draw(given, *inputs)
        return None, *torch.autograd.grad(outputs, inputs, (given.v_render_colors, given.v_render_alphas))


def draw(
    given: SimpleNamespace, means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor
) -> tuple[Tensor, Tensor]:
    """Pictures and alphas, tile by tile: K Gaussians, nearest first, in side x side pixels."""
    *images, rows, columns = given.tile_offsets.shape
    side, tiles = given.tile_size, []
    table = torch.cat((means2d, conics, opacities[..., None], colors), -1).flatten(0, -2)
    table = torch.cat((table, torch.ones_like(table[:, :1])), -1)  # what is summed to alpha
    starts = [*given.tile_offsets.flatten().tolist(), len(given.flatten_ids)]
    for number, (start, end) in enumerate(pairwise(starts)):
        row, column = number // columns % rows, number % columns
        gaussians = table[given.flatten_ids[start:end]]
        u, v, xx, xy, yy, opacity = gaussians[:, :6, None, None].unbind(1)  # (K, 1, 1) each
        pixels = torch.arange(side) + 0.5
        dx, dy = u - (column * side + pixels), v - (row * side + pixels)[:, None]
        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy  # (K, side, side)
        alpha = torch.fmin(opacity * (-sigma.clamp(min=0)).exp(), torch.tensor(MAX_ALPHA))
        alpha = torch.where((sigma < 0) | (alpha < MIN_ALPHA), 0, alpha)
        light = (1 - alpha).cumprod(0)  # behind each
        before = torch.cat((torch.ones_like(light[:1]), light[:-1]))
        weights = torch.where(light > STOP, alpha * before, 0)
        tiles.append(torch.einsum('kyx,kc->yxc', weights, gaussians[:, 6:]))
    whole = torch.stack(tiles).view(*images, rows, columns, side, side, -1)
    whole = whole.transpose(-4, -3).flatten(-5, -4).flatten(-3, -2)
    whole = whole[..., : given.image_height, : given.image_width, :].contiguous()
    return whole[..., :-1].contiguous(), whole[..., -1:].contiguous()
