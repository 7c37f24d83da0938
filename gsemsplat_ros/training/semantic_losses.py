"""What the semantic training minimises: codes, drawn at target views and decoded, against both maps, and
colours.

The paper gives the maps, the colour losses and their weights. The semantic losses and how many pixels are
asked are ours (docs/training.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.checkpoints.lpips import LPIPS, SMALLEST
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.gaussians.render_plain import Rendering, render_windows
from gsemsplat_ros.network.model import Prediction
from gsemsplat_ros.semantics.decoder import CODE, Decoders
from gsemsplat_ros.training.losses import on_true_points, point_losses
from gsemsplat_ros.training.semantic_batches import Views

WEIGHTS = {'region': 1.0, 'context': 1.0, 'colour': 1.0, 'perceptual': 0.25, 'points': 0.05}
PIXELS = 16384  # of a drawn window that are decoded
WINDOW, WINDOWS = (
    64,
    2,
)  # side [px] and number of the parts of a target that the CPU draws; a GPU draws all of it

Window = tuple[int, int, int, int]  # x0, y0, width, height [px]


def windows_of(height: int, width: int, whole: bool, generator: torch.Generator) -> list[Window]:
    """The parts of a target that are drawn: everything, or some at random places."""
    if whole:
        return [(0, 0, width, height)]
    high, wide = min(WINDOW, height), min(WINDOW, width)
    ys, xs = (
        torch.randint(0, size - side + 1, (WINDOWS,), generator=generator).tolist()
        for size, side in ((height, high), (width, wide))
    )
    return [(x, y, wide, high) for x, y in zip(xs, ys)]


def drawings(gaussians: Gaussians, views: Views, t: int, windows: list[Window]) -> list[Rendering]:
    """Target `t`, drawn so that gradients flow: by gsplat on a GPU, by the plain renderer on the CPU."""
    camera, pose = views.cameras[t], views.target_from_first[t]
    if not gaussians.means.is_cuda:
        return render_windows(gaussians, camera, pose, windows)
    whole = render(gaussians, camera, pose)
    return [
        Rendering(
            *(getattr(whole, name)[y : y + h, x : x + w] for name in ('rgb', 'depth', 'alpha', 'codes'))
        )
        for x, y, w, h in windows
    ]


def decode(stack: nn.Sequential, codes: Tensor, picks: Tensor) -> Tensor:
    """Features (M, C) of the pixels `picks` (M,), rows of the flat map, of `codes` (h, w, 16) as drawn."""
    if all(isinstance(layer, nn.ReLU) or getattr(layer, 'kernel_size', None) == (1, 1) for layer in stack):
        return stack(codes.flatten(0, 1)[picks].T[None, :, :, None])[0, :, :, 0].T
    return stack(codes.permute(2, 0, 1)[None])[0].flatten(1).T[picks]  # neighbours count: the whole map


def context_at(context: Tensor, v: Tensor, u: Tensor, height: int, width: int) -> Tensor:
    """A dense map (h', w', C) over a picture of (height, width), bilinear at pixels (v, u) (M,): (M, C)."""
    grid = torch.stack(((2 * u + 1) / width - 1, (2 * v + 1) / height - 1), -1)[None, None]  # (1, 1, M, 2)
    maps = context.permute(2, 0, 1)[None]
    return F.grid_sample(maps, grid, padding_mode='border', align_corners=False)[0, :, 0].T


def away(features: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - cosine over rows (M, C); queries read directions alone."""
    return (1 - F.cosine_similarity(features, targets, dim=1)).mean()


def view_losses(
    drawing: Rendering,
    window: Window,
    views: Views,
    t: int,
    decoders: Decoders,
    perceptual: LPIPS | None,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Every term of one drawn window of target `t` that has something to say there; nothing where no pixel is
    seen.

    Means are over the pixels of the mask and, for colours, over their three channels (docs/published.md 39:
    the published expression divides by the pixels alone, and mixes up the masks of several targets).
    """
    x0, y0, width, height = window
    part = (..., slice(y0, y0 + height), slice(x0, x0 + width))
    seen = views.seen[t][part]
    flat = seen.flatten().nonzero()[:, 0]
    if not len(flat):
        return {}
    out = {}
    rgb, true = drawing.rgb.permute(2, 0, 1), views.targets[t][part]  # (3, h, w)
    out['colour'] = (rgb - true).square()[:, seen].mean()
    if perceptual is not None and min(height, width) >= SMALLEST:
        masked = (picture.clamp(0, 1) * seen for picture in (rgb, true))
        out['perceptual'] = perceptual(*(picture[None] for picture in masked))[0][seen].mean()
    if len(flat) > PIXELS:
        flat = flat[torch.randperm(len(flat), generator=generator)[:PIXELS].to(flat.device)]
    v, u = flat // width + y0, flat % width + x0
    context = context_at(views.context[t], v, u, *views.seen[t].shape)
    out['context'] = away(
        decode(decoders.language_decoder_patch, drawing.codes[..., CODE : 2 * CODE], flat), context
    )
    ids = views.ids[t][v, u]
    if (ids > 0).any():
        named = flat[ids > 0]
        features = views.features[t][ids[ids > 0] - 1]
        out['region'] = away(
            decode(decoders.language_decoder_sam, drawing.codes[..., :CODE], named), features
        )
    return out


def semantic_losses(
    prediction: Prediction,
    views: Views,
    decoders: Decoders,
    perceptual: LPIPS | None,
    true_points: bool,
    tuned: bool,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Every term of one pair, unweighted, and `total`, their sum by WEIGHTS; a term that nothing was seen for
    is absent.

    prediction: of a batch of one. true_points: the Gaussians are moved onto the measured points first, which
    a network of soft geometry needs. tuned: the backbone learns too, so its points are held to the measured
    ones.
    """
    gaussians = (
        on_true_points(prediction, views, 0)
        if true_points
        else Gaussians.from_prediction(prediction, 'first')
    )
    terms: dict[str, list[Tensor]] = {}
    for t, seen in enumerate(views.seen):
        windows = windows_of(*seen.shape, gaussians.means.is_cuda, generator)
        for window, drawing in zip(windows, drawings(gaussians, views, t, windows)):
            for name, value in view_losses(
                drawing, window, views, t, decoders, perceptual, generator
            ).items():
                terms.setdefault(name, []).append(value)
    out = {name: torch.stack(values).mean() for name, values in terms.items()}
    if tuned:
        pair = prediction.first, prediction.second
        out['points'], _ = point_losses(
            torch.stack([view.pts3d for view in pair], 1), torch.stack([view.conf for view in pair], 1), views
        )
    zero = prediction.first.means.sum() * 0 + prediction.first.codes.sum() * 0  # a pair that sees nothing
    out['total'] = sum((WEIGHTS[name] * value for name, value in out.items()), zero)
    return out
