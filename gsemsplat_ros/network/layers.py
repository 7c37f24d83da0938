"""Transformer layers: rotary positions, attention, encoder and decoder blocks (architecture notes 2 and 3).

Shapes: B batch, N tokens (row-major over an h x w grid), C channels, H heads, D channels a head.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE = 100.0
NORM_EPS = 1e-6


@lru_cache(maxsize=16)
def rope_table(height: int, width: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines (N, 2, 1, D/4) and signed sines (N, 2, 2, D/4) of the 2-D rotary embedding of a token grid.

    A head's channels are [u_y, v_y, u_x, v_x]; (u_k, v_k) turns by coordinate * 100^(-4k/D).
    """
    frequencies = ROPE_BASE ** (-torch.arange(head_dim // 4, dtype=torch.float32, device=device) / (head_dim // 4))
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing='ij')
    positions = torch.stack((y, x), -1).reshape(-1, 2, 1, 1).float()     # (N, 2, 1, 1)
    angles = positions * frequencies                                     # (N, 2, 1, D/4)
    sine = angles.sin()
    return angles.cos().to(dtype), torch.cat((-sine, sine), 2).to(dtype)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys (B, H, N, D) by their tokens' positions."""
    cosine, sine = table
    pairs = x.unflatten(-1, (2, 2, -1))                                  # (B, H, N, axis, u|v, D/4)
    return (pairs * cosine + pairs.flip(-2) * sine).flatten(-3)


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
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)   # (3, B, H, N, D)
        x = F.scaled_dot_product_attention(rotate(q, rope), rotate(k, rope), v)
        return self.proj(x.transpose(1, 2).flatten(2))                   # (B, N, C)


class CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens `x` ask tokens `y` of the other view; both views have the same grid."""
        q, k, v = (projection(t).unflatten(-1, (self.heads, -1)).transpose(1, 2)          # (B, H, N, D)
                   for projection, t in ((self.projq, x), (self.projk, y), (self.projv, y)))
        x = F.scaled_dot_product_attention(rotate(q, rope), rotate(k, rope), v)
        return self.proj(x.transpose(1, 2).flatten(2))


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
