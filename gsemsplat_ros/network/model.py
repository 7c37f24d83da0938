"""The network: two images in, points, Gaussians and semantic codes of both views in the frame of the first.

One set of classes for the public ViT-L networks (`NetworkConfig.large`) and for the one that ships (`small`);
the names of the parameters are those of the public files, so these load key for key (docs/published.md 3-20).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsemsplat_ros.images.view import PATCH
from gsemsplat_ros.network.config import SH_C0, NetworkConfig
from gsemsplat_ros.network.context import ContextBranch
from gsemsplat_ros.network.heads import Head, gaussians, make_head, points
from gsemsplat_ros.network.layers import NORM_EPS, DecoderBlock, EncoderBlock, PatchEmbed, rope_table
from gsemsplat_ros.network.stem import DEEP_SPREAD, STEM_DIMS, Descriptors, Stem


@dataclass(frozen=True)
class ViewPrediction:
    """One view, everything in the frame of view 1; (h, w) is the image size over the output stride.

    pts3d (B, h, w, 3) [m], conf (B, h, w) > 1; with Gaussians: means (B, h, w, 3) [m], scales (B, h, w, 3)
    [m], quats_xyzw (B, h, w, 4) unit, sh (B, h, w, 3) degree-0 coefficients with the pixel's own colour added
    (colour is 0.5 + C0 * sh), opacities (B, h, w); with language: codes (B, h, w, C), region-specific
    channels, then context-aware ones, of the widths in NetworkConfig; on request desc (B, H, W, 24) of unit
    length with desc_conf (B, H, W), of the small network desc (B, H/4, W/4, 24) alone.
    """

    pts3d: Tensor
    conf: Tensor
    means: Tensor | None = None
    scales: Tensor | None = None
    quats_xyzw: Tensor | None = None
    sh: Tensor | None = None
    opacities: Tensor | None = None
    codes: Tensor | None = None
    desc: Tensor | None = None
    desc_conf: Tensor | None = None


@dataclass(frozen=True)
class Prediction:
    """Both views of a pair. Of Depth Anything 3, which predicts depths and poses, also first_from_second
    (B, 4, 4): the pose by which it brought the second view's points into the frame of the first, in their
    unit; and tokens (B, 2, h, w, C) of the four blocks that its head reads, as a head of ours would.
    """

    first: ViewPrediction
    second: ViewPrediction
    first_from_second: Tensor | None = None
    tokens: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Encoding:
    """One batch of images after the encoder; reused for a kept keyframe.

    images (B, 3, H, W) in [-1, 1]; tokens (B, N, C) after the final norm; maps: the stem's, by stride;
    context (B, 1080, H/8, W/8): the counts of the context-aware branch, None where they were not asked for or
    the network has none.
    """

    images: Tensor
    tokens: Tensor
    maps: dict[int, Tensor]
    context: Tensor | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens."""
        return self.images.shape[-2] // PATCH, self.images.shape[-1] // PATCH

    def split(self) -> tuple[Encoding, Encoding]:
        """A batch of twice B images to the encodings of its two halves."""
        n = len(self.images) // 2
        return self.part(slice(0, n)), self.part(slice(n, 2 * n))

    def part(self, items: slice) -> Encoding:
        """The encoding of some items of the batch."""
        maps = {stride: map_[items] for stride, map_ in self.maps.items()}
        context = None if self.context is None else self.context[items]
        return Encoding(self.images[items], self.tokens[items], maps, context)


Result = TypeVar('Result')


class Runner(Protocol):
    """Runs the independent work of the two views; returns both results."""

    def __call__(
        self, first: Callable[[], Result], second: Callable[[], Result]
    ) -> tuple[Result, Result]: ...


def run_serial(first: Callable[[], Result], second: Callable[[], Result]) -> tuple[Result, Result]:
    """A Runner: one after the other."""
    return first(), second()


def coordinates(maps: Tensor) -> Tensor:
    """Coordinates (B, 2, h, w) of each place of `maps` (B, C, h, w): x from -1 to 1, y in the same unit.

    Rotary positions are relative, a pixel's ray is not; without this it is learnt slowly, from the borders.
    """
    height, width = maps.shape[-2:]
    x = (torch.arange(width, device=maps.device, dtype=maps.dtype) + 0.5) * 2 / width - 1
    y = (2 * torch.arange(height, device=maps.device, dtype=maps.dtype) + 1 - height) / width
    return torch.stack(torch.meshgrid(x, y, indexing='xy')).expand(len(maps), -1, -1, -1)


def hybrid_patches(maps: dict[int, Tensor]) -> Tensor:
    """The stem's maps to patches (B, C, H/16, W/16): local features, coordinates, and the classifier's
    features of the surroundings, which by themselves identify things by more than their shape.
    """
    fine = maps[16]
    coarse = F.interpolate(maps[32] / DEEP_SPREAD, fine.shape[-2:], mode='bilinear', align_corners=False)
    return torch.cat((fine, coordinates(fine), coarse), 1)


class GSemSplat(nn.Module):
    """Siamese encoder, two cross-attending decoders, dense heads (MASt3R; Splatt3R; GSemSplat sec. 3)."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        c = config
        if c.stem:
            self.stem = Stem()
            self.context = ContextBranch(c.context_dim)
        if c.shared_trunk and c.descriptors:
            self.descriptors = Descriptors()
        stem_dim = STEM_DIMS[16] + 2 + STEM_DIMS[32]
        self.patch_embed = PatchEmbed(stem_dim, c.enc_dim, 1) if c.stem else PatchEmbed(3, c.enc_dim, PATCH)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.dec_dim))  # of the pre-training: stored, not used
        self.enc_blocks = nn.ModuleList(EncoderBlock(c.enc_dim, c.enc_heads) for _ in range(c.enc_depth))
        self.enc_norm = nn.LayerNorm(c.enc_dim, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(c.enc_dim, c.dec_dim)
        self.dec_blocks = nn.ModuleList(DecoderBlock(c.dec_dim, c.dec_heads) for _ in range(c.dec_depth))
        self.dec_blocks2 = nn.ModuleList(DecoderBlock(c.dec_dim, c.dec_heads) for _ in range(c.dec_depth))
        self.dec_norm = nn.LayerNorm(c.dec_dim, eps=NORM_EPS)
        self.downstream_head1 = make_head(c)
        self.downstream_head2 = make_head(c)

    def init_weights(self) -> None:
        """Initialise for training from scratch: Xavier transformer, equal decoders, points on a plane."""
        for module in (self.patch_embed, self.enc_blocks, self.decoder_embed, self.dec_blocks):
            for layer in module.modules():
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    nn.init.xavier_uniform_(layer.weight.flatten(1))
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
        self.dec_blocks2.load_state_dict(self.dec_blocks.state_dict())
        for head in (self.downstream_head1, self.downstream_head2):
            head.init_points()

    def encode(self, images: Tensor, context: bool = True) -> Encoding:
        """Images (B, 3, H, W) in [-1, 1] to an encoding. Raises ValueError unless 16 divides the sides.

        context: False leaves the frozen context branch out, if the network has one.
        """
        for axis, size in zip(('height', 'width'), images.shape[-2:]):
            if size % PATCH:
                raise ValueError(
                    f'image {axis} of {size} px: wanted a multiple of {PATCH} px; resize or crop it'
                )
        pixels = images.to(self.patch_embed.proj.weight.dtype)
        maps = self.stem(pixels) if self.config.stem else {}
        grid = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        patches = hybrid_patches(maps) if maps else pixels
        x = self.patch_embed(patches)  # (B, N, C)
        rope = rope_table(*grid, self.config.enc_dim // self.config.enc_heads, x.device, x.dtype)
        for block in self.enc_blocks:
            x = block(x, rope)
        counts = self.context(pixels) if maps and context else None
        return Encoding(images, self.enc_norm(x), maps, counts)

    def decode(
        self, first: Encoding, second: Encoding, run: Runner = run_serial
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Token lists (B, N, C) of both views: 0 is the encoder's output, k that of decoder block k."""
        out1, out2 = [first.tokens], [second.tokens]
        x1, x2 = self.decoder_embed(first.tokens), self.decoder_embed(second.tokens)
        rope = rope_table(*first.grid, self.config.dec_dim // self.config.dec_heads, x1.device, x1.dtype)
        for block1, block2 in zip(self.dec_blocks, self.dec_blocks2):
            # each reads both views' outputs of the previous layer
            x1, x2 = run(partial(block1, x1, x2, rope), partial(block2, x2, x1, rope))
            out1.append(x1)
            out2.append(x2)
        out1[-1], out2[-1] = self.dec_norm(x1), self.dec_norm(x2)
        return out1, out2

    def predict(
        self,
        head: Head,
        encoding: Encoding,
        tokens: list[Tensor],
        descriptors: bool,
        with_gaussians: bool = True,
    ) -> ViewPrediction:
        """The dense outputs of one view."""
        first, *_, last = maps = [
            tokens[i].transpose(1, 2).unflatten(2, encoding.grid) for i in self.config.hooks
        ]
        levels = [encoding.maps[4], encoding.maps[8], *maps[2:]] if self.config.stem else maps
        with_gaussians &= self.config.gaussians
        raw = head(levels, (first, last), with_gaussians, descriptors)
        pts3d, conf = points(raw.points.float())
        out = {'pts3d': pts3d, 'conf': conf}
        size = pts3d.shape[1:3]
        if raw.gaussians is not None:
            offset, scales, quats, sh, opacities = gaussians(raw.gaussians.float())
            image = encoding.images if self.config.output_stride == 1 else F.avg_pool2d(encoding.images, 2)
            residual = image.float().permute(0, 2, 3, 1) / 2 / SH_C0  # (x + 1) / 2 - 0.5 over C0
            # as published, no gradient flows from the means to the points
            out.update(
                means=pts3d.detach() + offset,
                scales=scales,
                quats_xyzw=quats,
                sh=sh + residual,
                opacities=opacities,
            )
        if raw.codes is not None:
            codes = raw.codes.float().permute(0, 2, 3, 1)
            if encoding.context is not None:
                # channels last: a code lies together in memory, as the Gaussians hold it
                code = (
                    self.context.code(encoding.context).float().contiguous(memory_format=torch.channels_last)
                )
                wide = F.interpolate(code, size, mode='bilinear', align_corners=False)
                codes = torch.cat((codes, wide.permute(0, 2, 3, 1)), -1)
            out['codes'] = codes
        if raw.desc is not None and raw.desc_conf is not None:
            out.update(desc=raw.desc, desc_conf=raw.desc_conf)
        elif descriptors and self.config.shared_trunk:
            out['desc'] = self.descriptors(encoding.maps)
        return ViewPrediction(**out)

    def forward(
        self,
        images1: Tensor,
        images2: Tensor,
        descriptors: bool = False,
        gaussians: bool = True,
        context: bool = True,
    ) -> Prediction:
        """Two batches (B, 3, H, W) in [-1, 1] of the same size; `gaussians` and `context` (see `encode`)
        False leave these out."""
        first, second = self.encode(torch.cat((images1, images2)), context).split()
        return self.forward_encoded(first, second, descriptors, gaussians=gaussians)

    def forward_encoded(
        self,
        first: Encoding,
        second: Encoding,
        descriptors: bool = False,
        run: Runner = run_serial,
        gaussians: bool = True,
    ) -> Prediction:
        """`forward` from existing encodings."""
        tokens1, tokens2 = self.decode(first, second, run)
        views = run(
            partial(self.predict, self.downstream_head1, first, tokens1, descriptors, gaussians),
            partial(self.predict, self.downstream_head2, second, tokens2, descriptors, gaussians),
        )
        return Prediction(*views)
