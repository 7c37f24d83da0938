"""The losses of the semantic heads: rendered and decoded codes against both feature maps, and colours.

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
from gsemsplat_ros.network.config import CODE_CHANNELS, CODE_DIM
from gsemsplat_ros.network.model import GSemSplat, Prediction
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.training.batches import SceneBatch, SceneTarget
from gsemsplat_ros.training.objective import Objective, on_true_points, point_losses, predicted

WEIGHTS = {'region': 1.0, 'context': 1.0, 'colour': 1.0, 'perceptual': 0.25, 'points': 0.05}
PIXELS = 16384  # of a drawn window that are decoded
WINDOW = 64  # side of the parts of a target that the CPU draws [px]; a GPU draws all of it
WINDOWS = 2  # of these parts

Window = tuple[int, int, int, int]  # x0, y0, width, height [px]


class SemanticObjective(Objective):
    """perceptual: None for no perceptual loss; tuned: the backbone learns too, so its points are held to the
    measured ones."""

    terms = ('total', *WEIGHTS)

    def __init__(self, model: GSemSplat, decoders: Decoders, perceptual: LPIPS | None, tuned: bool):
        super().__init__(model, decoders)
        self.perceptual, self.tuned = perceptual, tuned

    def train(self, mode: bool = True) -> SemanticObjective:
        """Stays in evaluation mode: a public decoder may hold batch norms, whose statistics are to stay."""
        return super().train(False)

    def losses(
        self, prediction: Prediction, batch: SceneBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        gaussians = self.gaussians(prediction, batch)
        drawn: dict[str, list[Tensor]] = {}
        for target in batch.targets:
            height, width = target.seen.shape
            windows = windows_of(height, width, gaussians.means.is_cuda, generator)
            for window, drawing in zip(windows, drawings(gaussians, target, windows)):
                for name, value in self.window_losses(drawing, window, target, generator).items():
                    drawn.setdefault(name, []).append(value)
        terms = {name: torch.stack(values).mean() for name, values in drawn.items()}
        if self.tuned:
            terms['points'], _ = point_losses(prediction, batch)
        # a pair that sees nothing has a gradient too, of zeros
        zero = 0 * predicted(prediction.first.means).sum() + 0 * predicted(prediction.first.codes).sum()
        terms['total'] = sum((WEIGHTS[name] * value for name, value in terms.items()), zero)
        return terms

    def gaussians(self, prediction: Prediction, batch: SceneBatch) -> Gaussians:
        """Those of one pair; on the measured points for the small network, whose geometry is soft."""
        if self.model.config.stem:
            return on_true_points(prediction, batch)
        return Gaussians.from_prediction(prediction, 'first')

    def window_losses(
        self, drawing: Rendering, window: Window, target: SceneTarget, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Every term of one drawn window of a target that has something to say there; nothing where no pixel
        is seen.

        Means are over the pixels of the mask and, for colours, over their three channels (docs/published.md
        39: the published expression divides by the pixels alone, and mixes up the masks of several targets).
        """
        x0, y0, width, height = window
        part = (..., slice(y0, y0 + height), slice(x0, x0 + width))
        seen = target.seen[part]
        flat = seen.flatten().nonzero()[:, 0]
        if not len(flat):
            return {}
        out = {}
        rgb, true = drawing.rgb.permute(2, 0, 1), target.image[part]  # (3, h, w)
        out['colour'] = (rgb - true).square()[:, seen].mean()
        if self.perceptual is not None and min(height, width) >= SMALLEST:
            masked = [(picture.clamp(0, 1) * seen)[None] for picture in (rgb, true)]
            out['perceptual'] = self.perceptual(*masked)[0][seen].mean()
        if len(flat) > PIXELS:
            flat = flat[torch.randperm(len(flat), generator=generator)[:PIXELS].to(flat.device)]
        v, u = flat // width + y0, flat % width + x0
        context = context_at(target.context, v, u, *target.seen.shape)
        found = decode(self.codec.language_decoder_patch, drawing.codes[..., CODE_DIM:CODE_CHANNELS], flat)
        out['context'] = away(found, context)
        ids = target.ids[v, u]
        if (ids > 0).any():
            found = decode(self.codec.language_decoder_sam, drawing.codes[..., :CODE_DIM], flat[ids > 0])
            out['region'] = away(found, target.features[ids[ids > 0] - 1])
        return out


def drawings(gaussians: Gaussians, target: SceneTarget, windows: list[Window]) -> list[Rendering]:
    """Windows of a target, drawn so that gradients flow: by gsplat on a GPU, by the plain renderer on the
    CPU."""
    if not gaussians.means.is_cuda:
        return render_windows(gaussians, target.camera, target.camera_from_first, windows)
    whole = render(gaussians, target.camera, target.camera_from_first)
    maps = whole.rgb, whole.depth, whole.alpha, whole.codes
    return [Rendering(*(m[y : y + h, x : x + w] for m in maps)) for x, y, w, h in windows]


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
