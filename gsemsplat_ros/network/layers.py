"""Transformer layers: rotary positions, attention, encoder and decoder blocks (docs/published.md 4-6).

Shapes: B batch, N tokens (row-major over an h x w grid), C channels, H heads, D channels a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE = 100.0
NORM_EPS = 1e-6
CACHED_HEADS = 4  # their scores of 768 tokens, 5 MB, fit a CPU's cache


@cache  # for ever: a recorded pass of a GPU reads it where it lies
@torch.inference_mode(False)  # so that training may use what inference has made
def rope_table(
    height: int, width: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (N, 1, D) of the 2-D rotary embedding of a token grid; cached for each grid.

    A head's channels are [u_y, v_y, u_x, v_x]; (u_k, v_k) turns by coordinate * 100^(-4k/D).
    """
    frequencies = ROPE_BASE ** (
        -torch.arange(head_dim // 4, dtype=torch.float32, device=device) / (head_dim // 4)
    )
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing='ij'
    )
    positions = torch.stack((y, x), -1).reshape(-1, 2, 1, 1).float()  # (N, 2, 1, 1)
    angles = positions * frequencies  # (N, 2, 1, D/4)
    cosine, sine = angles.cos(), angles.sin()
    cosines = torch.cat((cosine, cosine), 2).reshape(-1, 1, head_dim)
    sines = torch.cat((-sine, sine), 2).reshape(-1, 1, head_dim)
    return cosines.to(dtype), sines.to(dtype)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys (B, N, H, D) by their tokens' positions."""
    cosine, sine = table
    swapped = x.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)  # [v_y, u_y, v_x, u_x]
    return torch.addcmul(x * cosine, swapped, sine)


class AttendInCache(torch.autograd.Function):
    """Attention over (B, N, H, D) in bfloat16 on a CPU, a few heads at a time to keep scores in the cache.

    Scores and their exponentials are rounded to bfloat16 once, as everything else is.
    """

    @staticmethod
    def parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Views (h, N, D) of every tensor (B, N, H, D): a few heads of one image at a time."""
        step = max(CACHED_HEADS, torch.get_num_threads())
        for b in range(len(tensors[0])):
            for h in range(0, tensors[0].shape[2], step):
                yield tuple(x[b, :, h : h + step].transpose(0, 1) for x in tensors)

    @staticmethod
    @torch.amp.custom_fwd(device_type='cpu', cast_inputs=torch.bfloat16)
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, out, weights = q * q.shape[-1] ** -0.5, torch.empty_like(q), []
        for some_q, some_k, some_v, some_out in AttendInCache.parts(q, k, v, out):
            weight = torch.softmax(some_q @ some_k.mT, -1)
            some_out.copy_(weight @ some_v)
            if any(ctx.needs_input_grad):
                weights.append(weight)
        ctx.save_for_backward(q, k, v, *weights)
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type='cpu')
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *weights = ctx.saved_tensors
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        parts = AttendInCache.parts(grad.to(q.dtype), q, k, v, *grads)
        for weight, (some_grad, some_q, some_k, some_v, *some_grads) in zip(weights, parts):
            scores = torch.ops.aten._softmax_backward_data(some_grad @ some_v.mT, weight, -1, weight.dtype)
            for out, value in zip(some_grads, (scores @ some_k, scores.mT @ some_q, weight.mT @ some_grad)):
                out.copy_(value)
        grads[0].mul_(q.shape[-1] ** -0.5)
        return grads


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention: queries, keys and values (B, N, H, D) to (B, N, H * D).

    PyTorch's fused attention, except in bfloat16 on a CPU: there it does not use the units for bfloat16 (65
    of 380 GFLOP/s, AMD EPYC), and matrix products are 2.5 times as fast.
    """
    if q.device.type == 'cpu' and q.dtype == torch.bfloat16:
        return AttendInCache.apply(q, k, v).flatten(2)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, N, D)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, out: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3 * self.heads, -1))  # (B, N, 3 H, D)
        q, k = rotate(qkv[:, :, : 2 * self.heads], rope).chunk(2, 2)  # (B, N, H, D)
        return self.proj(attend(q, k, qkv[:, :, 2 * self.heads :]))  # (B, N, C)


class CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens `x` (B, N, C) attend to tokens `y` of the other view; both views have the same grid."""
        q, k, v = (
            projection(t).unflatten(-1, (self.heads, -1))  # (B, N, H, D)
            for projection, t in ((self.projq, x), (self.projk, y), (self.projv, y))
        )
        return self.proj(attend(rotate(q, rope), rotate(k, rope), v))


class EncoderBlock(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, 4 * dim, dim)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.norm_y = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, 4 * dim, dim)

    def forward(self, x: Tensor, y: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Own tokens `x`, the other view's tokens `y`; returns the new `x`."""
        x = x + self.attn(self.norm1(x), rope)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), rope)
        return x + self.mlp(self.norm3(x))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens: (B, in_dim, H, W) -> (B, N, dim), row-major."""

    def __init__(self, in_dim: int, dim: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)
