"""The decoders of a checkpoint, from rendered codes to the text space, and the fast comparison with phrases.

The region-specific decoder ("sam") reads the first 16 channels of a code, the context-aware one ("patch")
the rest. They are the branches 0 and 1 of every result. Letters: H, W map; P = H * W pixels; D last hidden
width; C text space; K phrases.

Either both branches lead to the whole text space and are compared by the cosine, as published; or the space
is the direct sum of two: the first coordinates of a phrase are compared with the region-specific features by
the cosine, the others are weights of the context-aware features, each of which is one class's score.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsemsplat_ros.checkpoints.checkpoint import DECODERS
from gsemsplat_ros.network.config import CODE_DIM
from gsemsplat_ros.semantics.relevancy import MIN_ALPHA, NORM_EPS, Mixture, relevancy

_MAX_LAYERS = 64
_CHUNK = 1 << 12  # pixels that pass the layers together on a CPU, so that they stay in its cache


class Decoders(nn.Module):
    """Two stacks of convolutions, codes -> features, under the names of the public checkpoints.

    dims: channels of the features of both; dim: of the text space, their sum if they differ (summed).
    mixture: how the two branches are combined into one relevancy; None: the branch with the higher peak
    answers, as published.
    """

    def __init__(self, sam: nn.Sequential, patch: nn.Sequential, mixture: Mixture | None = None) -> None:
        super().__init__()
        self.mixture = mixture
        self.language_decoder_sam = sam
        self.language_decoder_patch = patch
        self.dims = _out_channels(sam), _out_channels(patch)
        self.summed = self.dims[0] != self.dims[1]
        self.dim = sum(self.dims) if self.summed else self.dims[0]
        self.code_dim = CODE_DIM + _in_channels(patch)
        self._roots: dict[nn.Sequential, Tensor] = {}  # of frozen stacks, made once: a GPU takes long

    @classmethod
    def small(cls, dims: Sequence[int] = (CODE_DIM, 64, 128, 384), context_dim: int = CODE_DIM) -> 'Decoders':
        """1x1 convolutions of the widths `dims` with ReLU between them, randomly initialised; the
        context-aware ones read `context_dim` channels."""

        def stack(*dims: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for wide_in, wide_out in pairwise(dims):
                layers += [nn.Conv2d(wide_in, wide_out, 1), nn.ReLU()]
            return nn.Sequential(*layers[:-1])

        return cls(stack(*dims), stack(context_dim, *dims[1:]))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], mixture: Mixture | None = None) -> 'Decoders':
        """The decoders in `state`, built from the shapes of their tensors; keys of other modules are ignored.

        `<branch>.<i>.weight` of rank 4 is a convolution with padding k // 2, `<branch>.<i>.running_mean`
        makes layer i a batch normalisation, and an index without tensors is a ReLU. The code of the public
        decoders was never released, so this rule replaces it.

        Raises:
            ValueError: a tensor that fits no layer (its key is named), or a region-specific decoder that does
                not read 16 channels.
        """
        sam, patch = (_stack(state, branch) for branch in DECODERS)
        if _in_channels(sam) != CODE_DIM:
            raise ValueError(f'{DECODERS[0]} reads {_in_channels(sam)} channels: wanted {CODE_DIM}')
        return cls(sam, patch, mixture).eval()

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (B, code_dim, H, W) -> features (B, C, H, W) of each branch, not normalised."""
        return (
            self.language_decoder_sam(codes[:, :CODE_DIM]),
            self.language_decoder_patch(codes[:, CODE_DIM:]),
        )

    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (H, W, code_dim) -> features (H, W, C) of each branch, not normalised."""
        self._check(codes)
        stacks = self.language_decoder_sam, self.language_decoder_patch
        parts = codes[..., :CODE_DIM], codes[..., CODE_DIM:]
        region, context = (_run(*each).reshape(*codes.shape[:2], -1) for each in zip(stacks, parts))
        return region, context

    @torch.inference_mode()
    def region(self, codes: Tensor) -> 'HiddenBranch':
        """The region-specific branch alone of codes (H, W, code_dim), compared in its own space."""
        return self._prepare(self.language_decoder_sam, codes[..., :CODE_DIM], slice(None))

    @torch.inference_mode()
    def prepare(
        self,
        codes: Tensor,
        canonical: np.ndarray | Tensor,
        alpha: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> 'HiddenCodes':
        """Computes once for a map what all queries share.

        codes: (H, W, code_dim), weighted by alpha as rendered and not divided by it, as published; those of N
        Gaussians: (N, 1, code_dim). canonical: (M, C) embeddings of the canonical phrases. alpha: (H, W)
        accumulated opacity, None: all opaque; codes of empty pixels decode to arbitrary words. counts (C, h,
        w): context-aware features of the picture itself, which cover the map; the context-aware codes, which
        say the same with less detail, may then be left out.
        """
        whole = slice(None), slice(None)
        first, second = (slice(self.dims[0]), slice(self.dims[0], None)) if self.summed else whole
        region = self._prepare(self.language_decoder_sam, codes[..., :CODE_DIM], first)
        if counts is None:
            self._check(codes)
            context: HiddenBranch | Counts = self._prepare(
                self.language_decoder_patch, codes[..., CODE_DIM:], second, cosine=not self.summed
            )
        else:
            context = Counts(counts.float(), codes.shape[:2], second)
        branches = region, context
        height, width, _ = codes.shape
        canonical = torch.as_tensor(canonical, dtype=region.hidden.dtype, device=codes.device)
        best_negative = torch.stack([branch.similarities(canonical).amax(0) for branch in branches])  # (2, P)
        inside = None if alpha is None else alpha >= MIN_ALPHA
        return HiddenCodes(branches, best_negative.reshape(2, height, width), inside, self.mixture)

    def _prepare(
        self, stack: nn.Sequential, codes: Tensor, part: slice, cosine: bool = True
    ) -> 'HiddenBranch':
        """Codes (H, W, D') -> the branch that queries read, which compares `part` of a phrase.

        With a linear last layer, f = W h + b, |f| = |R [h; 1]| follows from [W b] = Q R. That is the Gram
        form h^T W^T W h + 2 (W^T b)^T h + b^T b without its cancellation. Other decoders keep their features.
        """
        last = stack[-1]
        if _pointwise(last) and isinstance(last, nn.Conv2d):
            weight, bias = _linear(last)
            root = self._root(stack) if cosine else None
            hidden = weight.new_empty(codes[..., 0].numel(), weight.shape[1])
            scale = weight.new_ones(len(hidden))
            start = 0
            # all steps for some pixels while they are in the cache
            for some in _parts(nn.Sequential(*list(stack)[:-1]), codes):
                rows = slice(start, start + len(some))
                start += len(some)
                if root is None:
                    hidden[rows] = some
                    continue
                norm = F.linear(some, root[:, :-1], root[:, -1]).norm(dim=1)
                torch.reciprocal(norm.add_(NORM_EPS), out=scale[rows])
                torch.mul(some, scale[rows, None], out=hidden[rows])
            return HiddenBranch(hidden, scale, weight, bias, part)
        hidden = torch.cat(list(_parts(stack, codes)))  # (P, C)
        scale = 1 / (hidden.norm(dim=1) + NORM_EPS) if cosine else torch.ones_like(hidden[:, 0])  # (P,)
        weight = torch.eye(hidden.shape[1], dtype=hidden.dtype, device=hidden.device)
        return HiddenBranch(hidden.mul_(scale[:, None]), scale, weight, hidden.new_zeros(len(weight)), part)

    def _root(self, stack: nn.Sequential) -> Tensor:
        """R (<= D + 1, D + 1) of the last layer of `stack`, kept while its weights cannot change."""
        if stack in self._roots:
            return self._roots[stack]
        weight, bias = _linear(stack[-1])
        root = torch.linalg.qr(torch.cat([weight, bias[:, None]], 1), mode='r').R
        if not any(p.requires_grad for p in stack.parameters()):
            self._roots[stack] = root
        return root

    def _check(self, codes: Tensor) -> None:
        wanted = self.code_dim
        assert codes.ndim == 3 and codes.shape[2] == wanted, (
            f'wanted (H, W, {wanted}), got {tuple(codes.shape)}'
        )


@dataclass(frozen=True)
class HiddenBranch:
    """One decoder's share of `HiddenCodes`: f = weight @ h + bias is the feature of a pixel, never built.

    hidden (P, D): h / (|f| + 1e-6); scale (P,): 1 / (|f| + 1e-6), both without the norm where features are
    not compared by the cosine; weight (C, D), bias (C,): the last layer; part: of a phrase's coordinates that
    this branch reads.
    """

    hidden: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    part: slice

    def similarities(self, phrases: Tensor) -> Tensor:
        """Embeddings (K, ...) -> products (K, P): p . f = (weight^T p) . h + p . bias, D terms, not C."""
        phrases = phrases[:, self.part]
        assert phrases.ndim == 2 and phrases.shape[1] == len(self.bias), (phrases.shape, self.bias.shape)
        queries = phrases @ self.weight  # (K, D)
        if len(queries) == 1 and self.hidden.device.type == 'cpu':
            # by NumPy, at the speed of the memory: for one column PyTorch calls MKL's matrix-vector product,
            # which on an AMD EPYC took four times as long as a product with two columns
            dots = torch.from_numpy(self.hidden.numpy() @ queries[0].numpy())[None]
        else:
            dots = (self.hidden @ queries.T).T.contiguous()  # (K, P): read phrase by phrase below
        return torch.addcmul(dots, (phrases @ self.bias)[:, None], self.scale)  # (K, P)


@dataclass(frozen=True)
class Counts:
    """The context-aware share of `HiddenCodes` from a picture itself.

    counts (C, h, w): its features, each a class's score, on a grid of its own; size: (H, W) of the map; part:
    as of HiddenBranch.
    """

    counts: Tensor
    size: tuple[int, ...]
    part: slice

    def similarities(self, phrases: Tensor) -> Tensor:
        """Embeddings (K, ...) -> products (K, P)."""
        found = torch.einsum('kc,chw->khw', phrases[:, self.part], self.counts)[None]
        return F.interpolate(found, self.size, mode='bilinear', align_corners=False)[0].flatten(1)


@dataclass(frozen=True)
class HiddenCodes:
    """A map of codes prepared for queries by `Decoders.prepare`; read only, so threads may share it.

    branches: region-specific, context-aware; best_negative (2, H, W): the largest similarity with a canonical
    phrase; inside (H, W) bool or None: where something was rendered; mixture: of the decoders; only: the
    branch that answers alone, None for both.
    """

    branches: tuple[HiddenBranch, HiddenBranch | Counts]
    best_negative: Tensor
    inside: Tensor | None = None
    mixture: Mixture | None = None
    only: int | None = None

    @property
    def counts(self) -> Tensor | None:
        """(C, h, w) context-aware features of the picture itself; None where its codes answer."""
        context = self.branches[1]
        return context.counts if isinstance(context, Counts) else None

    @torch.inference_mode()
    def contrasts(self, phrases: np.ndarray | Tensor) -> Tensor:
        """Embeddings (K, C) -> (2, K, H, W): similarity with a phrase minus the largest with a canonical one;
        0 for a branch that shall not answer."""
        like = self.best_negative
        phrases = torch.as_tensor(phrases, dtype=like.dtype, device=like.device)
        found = torch.stack([branch.similarities(phrases) for branch in self.branches])  # (2, K, P)
        found = found.sub_(self.best_negative.flatten(1)[:, None])
        if self.only is not None:
            found[1 - self.only] = 0
        return found.reshape(2, len(phrases), *self.best_negative.shape[1:])

    @torch.inference_mode()
    def relevancy(
        self, phrases: np.ndarray | Tensor, smoothing: Callable[[Tensor], Tensor] = lambda maps: maps
    ) -> Tensor:
        """Embeddings (K, C) -> smoothed relevancy (2, K, H, W) in (0, 1); mixed: (1, K, H, W)."""
        found = relevancy(self.contrasts(phrases), self.mixture, smoothing, self.inside)
        if self.mixture is None and self.only is not None:
            found[1 - self.only] = 0  # so it never has the higher peak
        return found


def _linear(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,) of a 1x1 convolution."""
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight.flatten(1)
    return weight, layer.bias if layer.bias is not None else weight.new_zeros(len(weight))


def _run(stack: nn.Sequential, codes: Tensor) -> Tensor:
    """Codes (H, W, 16) through the layers -> (P, channels), always fresh memory."""
    return torch.cat(list(_parts(stack, codes)))


def _parts(stack: nn.Sequential, codes: Tensor) -> Iterator[Tensor]:
    """Codes (H, W, 16) through the layers, (<= P, channels) at a time, in order. Read each part once."""
    if not all(map(_pointwise, stack)):
        yield stack(codes.permute(2, 0, 1)[None])[0].flatten(1).T.contiguous()
        return
    for rows in _chunks(codes.flatten(0, 1)):  # matrix products: faster than convolutions of one pixel
        x = rows
        for layer in stack:
            if isinstance(layer, nn.Conv2d):
                x = F.linear(x, layer.weight.flatten(1), layer.bias)
            else:
                x = F.relu(x) if x is rows else x.relu_()
        yield x


def _chunks(rows: Tensor) -> tuple[Tensor, ...]:
    return rows.split(_CHUNK) if rows.device.type == 'cpu' else (rows,)


def _pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ReLU) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


def _in_channels(stack: nn.Sequential) -> int:
    return next(layer for layer in stack if isinstance(layer, nn.Conv2d)).in_channels


def _out_channels(stack: nn.Sequential) -> int:
    return [layer for layer in stack if isinstance(layer, nn.Conv2d)][-1].out_channels


def _stack(state: Mapping[str, Tensor], branch: str) -> nn.Sequential:
    """One decoder from the tensors under `branch.`, weights loaded. Raises ValueError with the key."""
    tensors: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        if not key.startswith(branch + '.'):
            continue
        match = re.fullmatch(r'(\d{1,4})\.(\w+)', key[len(branch) + 1 :])
        if match is None or int(match[1]) >= _MAX_LAYERS:
            raise ValueError(f'{key}: wanted {branch}.<layer 0-{_MAX_LAYERS - 1}>.<tensor>')
        tensors.setdefault(int(match[1]), {})[match[2]] = tensor
    if not tensors:
        raise ValueError(f'no tensor {branch}.<layer>.weight in the checkpoint')
    layers: list[nn.Module] = []
    channels = next(
        (w.shape[1] for i in sorted(tensors) if (w := tensors[i].get('weight')) is not None and w.ndim == 4),
        CODE_DIM,
    )
    for index in range(max(tensors) + 1):
        if index not in tensors:
            layers.append(nn.ReLU())
            continue
        layer = _layer(f'{branch}.{index}', tensors[index], channels)
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else channels
        layers.append(layer)
    if not any(isinstance(layer, nn.Conv2d) for layer in layers):
        raise ValueError(f'{branch}: no tensor {branch}.<layer>.weight of rank 4, so no convolution')
    return nn.Sequential(*layers)


def _layer(key: str, tensors: dict[str, Tensor], channels: int) -> nn.Module:
    """The convolution or batch normalisation that `tensors` describe, for an input of `channels`."""
    weight = tensors.get('weight')
    if 'running_mean' in tensors:
        if tensors['running_mean'].shape != (channels,):
            raise ValueError(
                f'{key}.running_mean: wanted shape ({channels},), got {tuple(tensors["running_mean"].shape)}'
            )
        layer: nn.Module = nn.BatchNorm2d(channels, affine=weight is not None)
        tensors = {'num_batches_tracked': torch.tensor(0), **tensors}  # absent in some files, not used
    elif weight is None or weight.ndim != 4:
        shape = 'is missing' if weight is None else f'has shape {tuple(weight.shape)}'
        raise ValueError(f'{key}.weight {shape}: wanted rank 4 (out, in, k, k)')
    else:
        wide_out, wide_in, rows, columns = weight.shape
        if wide_in != channels:
            raise ValueError(f'{key}.weight: takes {wide_in} channels, but {channels} arrive')
        if rows % 2 == 0 or columns % 2 == 0:
            raise ValueError(f'{key}.weight: a kernel of {rows}x{columns} would change the size of the map')
        layer = nn.Conv2d(
            wide_in, wide_out, (rows, columns), padding=(rows // 2, columns // 2), bias='bias' in tensors
        )
    try:
        layer.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f'{key}: {str(error).splitlines()[1].strip()}') from error
    return layer
