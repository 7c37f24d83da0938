"""The public algorithm in plain steps, on the same weights: the reference of the bench.

float32; both images encoded; attention as softmax(Q K^T / sqrt(D)) V with rotary tables made for every call;
the last convolution of a DPT level after the upsampling; all heads, descriptors included; a full feature for
every pixel; dense compositing of every pixel. Written from docs/published.md, only for `gsemsplat bench`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render_plain import Rendering, render_windows
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network import heads
from gsemsplat_ros.network.config import SH_C0
from gsemsplat_ros.network.dpt import DPT, FusionBlock
from gsemsplat_ros.network.heads import Head, Raw, SeparateHead, SharedHead
from gsemsplat_ros.network.layers import ROPE_BASE, CrossAttention, DecoderBlock, EncoderBlock, SelfAttention
from gsemsplat_ros.network.model import Encoding, GSemSplat, Prediction, ViewPrediction, hybrid_patches
from gsemsplat_ros.network.pixel_mlp import PixelMlp
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.semantics.relevancy import BELOW, FALL, LEAN, NORM_EPS, PLATEAU, TEMPERATURE, Mixture

WINDOW = 32  # side of the windows composited one after the other [px], to limit memory


def rope(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Queries or keys (B, H, N, D) rotated by the positions of their tokens on the `grid` (rows, columns)."""
    height, width = grid
    quarter = x.shape[-1] // 4
    frequencies = ROPE_BASE ** (-torch.arange(quarter, device=x.device).float() / quarter)
    y, x_ = torch.meshgrid(
        torch.arange(height, device=x.device), torch.arange(width, device=x.device), indexing='ij'
    )
    parts = []
    for part, positions in zip(x.chunk(2, -1), (y.flatten(), x_.flatten())):
        angles = positions[:, None].float() * frequencies  # (N, D/4)
        cosine, sine = angles.cos(), angles.sin()
        u, v = part.chunk(2, -1)
        parts += [u * cosine - v * sine, v * cosine + u * sine]
    return torch.cat(parts, -1)


def attention(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
    """Attention with rotary positions: q, k, v (B, H, N, D) to (B, N, H * D)."""
    weights = torch.softmax(rope(q, grid) @ rope(k, grid).mT / math.sqrt(q.shape[-1]), -1)  # (B, H, N, N)
    return (weights @ v).transpose(1, 2).flatten(2)


def self_attention(layer: SelfAttention, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens x (B, N, C) attend to each other; returns the same shape."""
    q, k, v = layer.qkv(x).unflatten(-1, (3, layer.heads, -1)).permute(2, 0, 3, 1, 4)
    return layer.proj(attention(q, k, v, grid))


def cross_attention(layer: CrossAttention, x: Tensor, y: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens x (B, N, C) attend to y (B, N, C) of the other view; returns the shape of x."""
    q, k, v = (
        projection(t).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for projection, t in ((layer.projq, x), (layer.projk, y), (layer.projv, y))
    )
    return layer.proj(attention(q, k, v, grid))


def encoder_block(block: EncoderBlock, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens x (B, N, C) to the same shape, as `EncoderBlock.forward`."""
    x = x + self_attention(block.attn, block.norm1(x), grid)
    return x + block.mlp(block.norm2(x))


def decoder_block(block: DecoderBlock, x: Tensor, y: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens x (B, N, C) with y of the other view to the shape of x, as `DecoderBlock.forward`."""
    x = x + self_attention(block.attn, block.norm1(x), grid)
    x = x + cross_attention(block.cross_attn, block.norm2(x), block.norm_y(y), grid)
    return x + block.mlp(block.norm3(x))


def encode(model: GSemSplat, images: Tensor) -> tuple[Encoding, Encoding]:
    """Encode both images (2, 3, H, W) in one batch."""
    maps = model.stem(images) if model.config.stem else {}
    x = model.patch_embed(hybrid_patches(maps) if maps else images)
    grid = Encoding(images, x, maps).grid
    for block in model.enc_blocks:
        assert isinstance(block, EncoderBlock)
        x = encoder_block(block, x, grid)
    counts = model.context(images) if maps else None  # of packaged networks: plain convolutions in both paths
    return Encoding(images, model.enc_norm(x), maps, counts).split()


def decode(model: GSemSplat, first: Encoding, second: Encoding) -> tuple[list[Tensor], list[Tensor]]:
    """Token lists of both views, as `GSemSplat.decode`."""
    out1, out2 = [first.tokens], [second.tokens]
    x1, x2 = model.decoder_embed(first.tokens), model.decoder_embed(second.tokens)
    for block1, block2 in zip(model.dec_blocks, model.dec_blocks2):
        assert isinstance(block1, DecoderBlock) and isinstance(block2, DecoderBlock)
        x1, x2 = decoder_block(block1, x1, x2, first.grid), decoder_block(block2, x2, x1, first.grid)
        out1.append(x1)
        out2.append(x2)
    out1[-1], out2[-1] = model.dec_norm(x1), model.dec_norm(x2)
    return out1, out2


def fuse(fusion: FusionBlock, x: Tensor, level: Tensor | None = None) -> Tensor:
    """Maps (B, C, h, w) to (B, C, 2h, 2w), as `FusionBlock.forward`."""
    if level is not None:
        x = x + fusion.resConfUnit1(level)
    x = fusion.resConfUnit2(x)
    if not isinstance(fusion.norm, torch.nn.Identity):  # our small network normalises before upsampling
        return F.interpolate(
            fusion.norm(fusion.out_conv(x)), scale_factor=2, mode='bilinear', align_corners=True
        )
    return fusion.out_conv(F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True))


def fused(dpt: DPT, levels: list[Tensor]) -> Tensor:
    """Four maps to one, as `DPT.fuse`."""
    s = dpt.scratch
    f = [
        getattr(s, f'layer{i + 1}_rn')(process(level))
        for i, (process, level) in enumerate(zip(dpt.act_postprocess, levels))
    ]
    refine = [getattr(s, f'refinenet{i + 1}') for i in range(4)]
    x = fuse(refine[3], f[3])[..., : f[2].shape[-2], : f[2].shape[-1]]
    for fusion, level in ((refine[2], f[2]), (refine[1], f[1]), (refine[0], f[0])):
        x = fuse(fusion, x, level)
    return x


def dense(dpt: DPT, levels: list[Tensor]) -> Tensor:
    """Four maps to one, as `DPT.forward`."""
    return finish(dpt, fused(dpt, levels))


def pixel_mlp(mlp: PixelMlp, maps: Sequence[Tensor]) -> Tensor:
    """As `PixelMlp.forward`, on interpolated maps, a level at a time as there."""
    x = maps[-1]
    for level in reversed(maps[:-1]):
        if x.shape[-2:] != level.shape[-2:]:
            x = F.interpolate(x, level.shape[-2:], mode='bilinear', align_corners=False)
        x = torch.cat((level, x), 1)
    weights: list[Tensor] = [layer.get_parameter('weight') for layer in mlp.inputs]
    x = F.conv2d(x, torch.cat(weights, 1), mlp.inputs[0].get_parameter('bias')).relu()
    return mlp.hidden(x).relu()


def finish(dpt: DPT, x: Tensor) -> Tensor:
    """The last convolutions, as `DPT.finish`."""
    x = dpt.head[0](x)
    if dpt.full_resolution:
        x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
    return dpt.head[1:](x)


def outputs(head: Head, levels: list[Tensor], tokens: tuple[Tensor, Tensor], grid: tuple[int, int]) -> Raw:
    """All outputs of a head, as `Head.forward`."""
    if isinstance(head, SeparateHead):
        described: tuple[Tensor, ...] = ()
        if hasattr(head, 'head_local_features'):
            encoded, decoded = (x.transpose(1, 2).unflatten(2, grid) for x in tokens)
            described = head.described(encoded, decoded)
        gaussians, codes = dense(head.gaussian_dpt.dpt, levels), dense(head.gaussian_language.dpt, levels)
        return Raw(dense(head.dpt, levels), gaussians, codes, *described)
    assert isinstance(head, SharedHead)
    x = fused(head.dpt, levels)
    surface = pixel_mlp(head.surface, [x, *levels])
    return Raw(finish(head.dpt, x), head.gaussian_layer(surface), head.language_layer(surface))


def predict(
    model: GSemSplat, first: Encoding, second: Encoding, tokens: tuple[list[Tensor], list[Tensor]]
) -> Prediction:
    """All dense outputs of both views."""
    config, views = model.config, []
    for head, encoding, own in zip((model.downstream_head1, model.downstream_head2), (first, second), tokens):
        levels = [own[i].transpose(1, 2).unflatten(2, encoding.grid) for i in config.hooks]
        if config.stem:
            levels[:2] = encoding.maps[4], encoding.maps[8]
        raw = outputs(head, levels, (own[0], own[-1]), encoding.grid)
        pts3d, conf = heads.points(raw.points)
        assert raw.gaussians is not None and raw.codes is not None, 'a network without Gaussians or codes'
        offset, scales, quats, sh, opacities = heads.gaussians(raw.gaussians)
        codes, desc = raw.codes, raw.desc
        if config.shared_trunk and config.descriptors:
            maps = [encoding.maps[stride] for stride in model.descriptors.STRIDES]
            desc = model.descriptors.output(pixel_mlp(model.descriptors.mlp, maps))
            desc = F.normalize(desc, dim=1).permute(0, 2, 3, 1)
        if encoding.context is not None:
            code = model.context.code(encoding.context)
            wide = F.interpolate(code, codes.shape[-2:], mode='bilinear', align_corners=False)
            codes = torch.cat((codes, wide), 1)
        image = encoding.images if config.output_stride == 1 else F.avg_pool2d(encoding.images, 2)
        sh = sh + image.permute(0, 2, 3, 1) / 2 / SH_C0
        views.append(
            ViewPrediction(
                pts3d,
                conf,
                pts3d + offset,
                scales,
                quats,
                sh,
                opacities,
                codes.permute(0, 2, 3, 1),
                desc,
                raw.desc_conf,
            )
        )
    return Prediction(views[0], views[1])


def composite(gaussians: Gaussians, camera: Camera, camera_from_world: np.ndarray) -> Rendering:
    """Render window by window; each pixel weighs all Gaussians that reach its block."""
    corners = [(x, y) for y in range(0, camera.height, WINDOW) for x in range(0, camera.width, WINDOW)]
    windows = [(x, y, min(WINDOW, camera.width - x), min(WINDOW, camera.height - y)) for x, y in corners]
    parts = render_windows(gaussians, camera, camera_from_world, windows)
    across = -(-camera.width // WINDOW)
    rows = [parts[i : i + across] for i in range(0, len(parts), across)]
    return Rendering(
        *(
            torch.cat([torch.cat([getattr(part, name) for part in row], 1) for row in rows])
            for name in ('rgb', 'depth', 'alpha', 'codes')
        )
    )


def features(decoders: Decoders, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (H, W, C') to the features (H, W, C) of all pixels, of both branches; unit ones where they are
    compared by the cosine."""
    region, context = (x[0].permute(1, 2, 0) for x in decoders(codes.permute(2, 0, 1)[None]))
    region = region / (region.norm(dim=-1, keepdim=True) + NORM_EPS)
    return region, context if decoders.summed else context / (context.norm(dim=-1, keepdim=True) + NORM_EPS)


def contrasts(found: tuple[Tensor, Tensor], phrase: Tensor, canonical: Tensor) -> Tensor:
    """Features of both branches and a phrase (C,) to (2, H, W): its product less the best canonical one."""
    summed = found[0].shape[-1] != found[1].shape[-1]
    parts = [x.split([f.shape[-1] for f in found], -1) if summed else (x, x) for x in (phrase, canonical)]
    return torch.stack([f @ one - (f @ many.T).amax(-1) for f, one, many in zip(found, *parts)])


def relevancy(found: tuple[Tensor, Tensor], phrase: Tensor, canonical: Tensor) -> Tensor:
    """Unit features of both branches and a unit phrase (C,) to relevancy (2, H, W): the least pairwise
    softmax."""
    features = torch.stack(found)
    similarity, negatives = features @ phrase, features @ canonical.T  # (2, H, W), (2, H, W, M)
    pairs = torch.stack((similarity[..., None].expand_as(negatives), negatives), -1)  # (2, H, W, M, 2)
    return torch.softmax(TEMPERATURE * pairs, -1)[..., 0].amin(-1)


def mixed(smoothed: Tensor, mixture: Mixture) -> Tensor:
    """Smoothed contrasts (2, H, W) to one relevancy (1, H, W), as `Mixture.of`."""
    seen = mixture.context * torch.log1p(torch.exp(smoothed[1] + BELOW))
    place, extent = smoothed[0] + seen, smoothed[0] + seen / 4
    there = extent.flatten()[place.argmax()]
    fall = torch.minimum(extent - there, torch.zeros(())) + LEAN * (place - place.max())
    score = torch.sigmoid(mixture.slope * place.max() + mixture.offset)
    return (score * torch.sigmoid(PLATEAU + FALL * fall) / torch.sigmoid(torch.tensor(PLATEAU)))[None]
