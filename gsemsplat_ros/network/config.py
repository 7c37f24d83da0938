"""The sizes of the network: one frozen description from which every module is built."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

CODE_DIM = 16  # width of the region-specific code, and of a context-aware one that the language head predicts
SH_C0 = 0.28209479177387814  # degree-0 spherical harmonic: color = 0.5 + C0 * sh
DESC_DIM = 24  # width of a matching descriptor
WIDEST, DEEPEST = 4096, 64  # channels of a layer, blocks or heads: four times those of the public networks
CLASSES = 1000  # ImageNet classes, of the classifier of the context-aware branch


@dataclass(frozen=True)
class NetworkConfig:
    """All sizes of one network; defaults: the public ViT-L encoder with two base decoders (MASt3R, 2024).

    long_side: of the images that the network was trained on [px]; inputs are resized to it.
    stem: True for the hybrid network, whose 16-pixel patches and fine levels come from an
    EfficientNet-Lite0; its context-aware code is that of a frozen branch (network/context.py), so its
    language head predicts the region-specific code alone.
    context_dim: width of the context-aware code.
    enc_*, dec_*: width, blocks and heads of the encoder and of each decoder; heads are `dim / heads` wide.
    layer_dims, dpt_dim, last_dim: channels of the DPT's four levels, its fusion and its last convolutions.
    dpt_norm: normalise the DPT's features (groups of channels); the public heads do not, and learn slowly.
    output_stride: input pixels per output pixel, 1 or 2.
    shared_trunk: one DPT for all outputs of a view, at stride 2, and descriptors of the stem; the public
    networks have a DPT for points, one for Gaussians and one for codes, and descriptors of tokens.
    gaussians, language_channels, descriptors: heads beside the point head (0 channels: no language head).
    scale_bias: initial ln of a Gaussian's scale [ln m].

    Raises ValueError for values of another type, out of their range, or that do not fit together.
    """

    name: str = 'large'
    long_side: int = 512
    stem: bool = False
    enc_dim: int = 1024
    enc_depth: int = 24
    enc_heads: int = 16
    dec_dim: int = 768
    dec_depth: int = 12
    dec_heads: int = 12
    layer_dims: tuple[int, int, int, int] = (96, 192, 384, 768)
    dpt_dim: int = 256
    last_dim: int = 128
    dpt_norm: bool = False
    output_stride: int = 1
    shared_trunk: bool = False
    gaussians: bool = True
    language_channels: int = 33
    context_dim: int = CODE_DIM
    descriptors: bool = True
    scale_bias: float = -7.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not _suits(name, value):
                raise ValueError(f'{name} of a network configuration is {repr(value)[:60]}: {_wanted(name)}')
        object.__setattr__(self, 'layer_dims', tuple(self.layer_dims))
        for name in ('enc', 'dec'):
            dim, heads = getattr(self, name + '_dim'), getattr(self, name + '_heads')
            if dim % (4 * heads):
                raise ValueError(
                    f'{name}_dim {dim} with {name}_heads {heads}: a head needs a multiple of 4 channels'
                )
        if self.dec_depth % 4:
            raise ValueError(
                f'dec_depth {self.dec_depth}: wanted a multiple of 4 (the heads read its quarters)'
            )
        if self.output_stride not in (1, 2):
            raise ValueError(f'output_stride {self.output_stride}: wanted 1 or 2')
        if self.shared_trunk and not (self.stem and self.output_stride == 2):
            raise ValueError('shared_trunk: wanted a stem, and output_stride 2')

    @classmethod
    def large(cls, kind: str = 'gsemsplat') -> NetworkConfig:
        """The public network `kind`: 'mast3r', 'splatt3r' or 'gsemsplat'. Raises ValueError for another."""
        if kind not in ('mast3r', 'splatt3r', 'gsemsplat'):
            raise ValueError(f"unknown network {kind!r}: wanted 'mast3r', 'splatt3r' or 'gsemsplat'")
        return cls(gaussians=kind != 'mast3r', language_channels=33 if kind == 'gsemsplat' else 0)

    @classmethod
    def small(cls) -> NetworkConfig:
        """The network that ships: hybrid, half resolution out, one trunk for all outputs of a view."""
        return cls(
            name='small',
            long_side=512,
            stem=True,
            enc_dim=256,
            enc_depth=3,
            enc_heads=4,
            dec_dim=256,
            dec_depth=4,
            dec_heads=4,
            layer_dims=(32, 64, 128, 256),
            dpt_dim=64,
            last_dim=32,
            dpt_norm=True,
            output_stride=2,
            shared_trunk=True,
            language_channels=CODE_DIM,
            context_dim=112,
            scale_bias=-4.5,
        )

    @property
    def code_dim(self) -> int:
        """Channels of a Gaussian's code: region-specific, then context-aware (the public network's 33rd is
        unused)."""
        return CODE_DIM + self.context_dim if self.language_channels else 0

    @property
    def hooks(self) -> tuple[int, int, int, int]:
        """Entries of the decoder list that a DPT reads (0 is the encoder's output)."""
        return 0, self.dec_depth // 2, self.dec_depth * 3 // 4, self.dec_depth

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> NetworkConfig:
        """What an older file does not say is as by default. Raises ValueError when a field is unknown."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(
                f'network configuration with the unknown fields {unknown}: this file was written by another '
                'version'
            )
        return cls(**values)

    def replace(self, **changes: Any) -> NetworkConfig:
        return replace(self, **changes)


_KINDS = {field.name: field.type for field in fields(NetworkConfig)}


def _range(name: str) -> tuple[int, int]:
    """The smallest and largest of a number of the configuration."""
    if name.endswith(('_depth', '_heads', '_stride')):
        return 1, DEEPEST
    return (0 if name == 'language_channels' else 1), WIDEST


def _suits(name: str, value: Any) -> bool:
    """Whether `value`, of a file, is of the type and in the range of the field `name`."""
    match _KINDS[name]:
        case 'bool':
            return type(value) is bool
        case 'str':
            return isinstance(value, str) and len(value) <= 64 and value.isprintable()
        case 'float':
            return type(value) in (int, float) and math.isfinite(value) and abs(value) <= 20
    sides = value if name == 'layer_dims' else (value,)
    low, high = _range(name)
    return (
        isinstance(sides, (list, tuple))
        and len(sides) == (4 if name == 'layer_dims' else 1)
        and all(type(side) is int and low <= side <= high for side in sides)
    )


def _wanted(name: str) -> str:
    """What suits, in words."""
    kind = _KINDS[name]
    if kind in ('bool', 'str', 'float'):
        return {'bool': 'wanted true or false', 'str': 'wanted a short name', 'float': 'wanted -20 to 20'}[
            kind
        ]
    low, high = _range(name)
    return f'wanted {"4 whole numbers" if name == "layer_dims" else "a whole number"} from {low} to {high}'
