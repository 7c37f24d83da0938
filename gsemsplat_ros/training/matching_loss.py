"""The loss of the matching descriptors: pixels of two views that show the same point are to be alike.

Contrastive, as in MASt3R (sec. 3.2): each of some pixels of the first view has to find its own partner among
those of all, and the partner it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.training.random_numbers import pick
from gsemsplat_ros.training.surfaces import moved, shown_at

ANCHORS = 512  # pairs of pixels a pair of views
TEMPERATURE = 0.07  # of the cosines (InfoNCE)
CLOSE = 0.01  # share of its depth by which a point may miss the surface that the other view shows there


def partners(points: Tensor, valid: Tensor, cameras: Tensor, second_from_first: Tensor) -> Tensor:
    """The pixel of the second view that shows the same point as each pixel of the first.

    points (B, 2, h, w, 3) [m] of both views in the first frame, valid (B, 2, h, w); cameras (B, 4) of the
    second view at this size; second_from_first (B, 4, 4). Returns rows (B, h, w) of the flattened second
    view, -1 where it shows none.
    """
    count, _, height, width, _ = points.shape
    first, second = points.flatten(2, 3).unbind(1)  # (B, h w, 3)
    row, z, inside = shown_at(first, cameras, second_from_first, (height, width))
    there = moved(second, second_from_first)[..., 2].gather(1, row)
    known = valid[:, 1].flatten(1).gather(1, row) & valid[:, 0].flatten(1)
    same = inside & known & ((there - z).abs() < CLOSE * z)
    return torch.where(same, row, -1).view(count, height, width)


def at_pixels(desc: Tensor, size: torch.Size) -> Tensor:
    """Unit descriptors (B, h', w', C) interpolated to (B, h, w, C) for `size` (h, w)."""
    maps = F.interpolate(desc.permute(0, 3, 1, 2), list(size), mode='bilinear', align_corners=False)
    return F.normalize(maps, dim=1).permute(0, 2, 3, 1)


def matching_loss(first: Tensor, second: Tensor, partner: Tensor, uniform: Tensor) -> Tensor:
    """InfoNCE both ways; 0 for a pair of views without partners.

    first, second (B, h, w, C): unit descriptors; partner (B, h, w): rows of the second, -1 for none;
    uniform (B, N) in [0, 1): which of the pixels with partners are taken. Returns (B,).
    """
    partner = partner.flatten(1)
    known = partner >= 0
    here = pick(known, uniform)
    there = partner.gather(1, here).clamp(min=0)
    one = first.flatten(1, 2).gather(1, here[..., None].expand(-1, -1, first.shape[-1]))
    two = second.flatten(1, 2).gather(1, there[..., None].expand(-1, -1, second.shape[-1]))
    logits = one @ two.mT / TEMPERATURE  # (B, N, N)
    same = there[:, None] == there[..., None]  # drawn twice: no wrong answer
    same &= ~torch.eye(len(same[0]), dtype=torch.bool, device=same.device)
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    losses = [F.cross_entropy(x.mT, target, reduction='none').mean(1) for x in (logits, logits.mT)]
    return torch.where(known.any(1), (losses[0] + losses[1]) / 2, 0.0)
