"""The file of a geometry backbone: Depth Anything 3 as published, or a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from gsemsplat_ros.checkpoints import checkpoint
from gsemsplat_ros.checkpoints.card import CARD_KEY
from gsemsplat_ros.checkpoints.state_dict import read_state_dict
from gsemsplat_ros.checkpoints.tensor_file import read_tensor_file
from gsemsplat_ros.network.backbone import Backbone
from gsemsplat_ros.network.depth_anything_3 import SIZES, DepthAnything3
from gsemsplat_ros.network.inference import has_bfloat16

TOKEN = 'backbone.pretrained.cls_token'  # (1, 1, width), in every public file of Depth Anything 3


def load_backbone(path: str | Path, device: torch.device, exact: bool = False) -> tuple[Backbone, str]:
    """The backbone in a safetensors file, in evaluation mode, and what it is, in words.

    exact: compute it in float32 even where the device has units for bfloat16. A checkpoint of ours is always
    computed so. Raises ValueError, in one line, for another file, and for a size of Depth Anything 3 that a
    company may not use or that gives no pose.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'no file at {path}: give the weights of a geometry backbone (docs/backbones.md)')
    try:
        file = read_tensor_file(path)
    except ValueError as error:
        raise ValueError(f'{path} is no safetensors file ({error}): see docs/backbones.md') from None
    if CARD_KEY in file.metadata:
        loaded = checkpoint.load(path, device)
        return loaded.model, f'{loaded.card.get("kind") or loaded.model.config.name}, {path.name}'
    tokens = [stored for name, stored in file.tensors.items() if name.endswith(TOKEN)]
    widths = [stored.shape[-1] if stored.shape else 0 for stored in tokens]
    if len(widths) != 1 or widths[0] not in SIZES:
        raise ValueError(f'{path} {other_size(widths, file.tensors)}: wanted DA3-SMALL or DA3-BASE')
    size = SIZES[widths[0]]
    model = DepthAnything3(size, not exact and has_bfloat16(device))
    model.net.load_state_dict(read_state_dict(path, model.net, more=True))
    title = f"Depth Anything 3 {size.upper()}, the user's file {path.name}"
    return model.to(device).eval().requires_grad_(False), title


def other_size(widths: list[int], names: Collection[str]) -> str:
    """What a file is that is neither SMALL nor BASE, by the widths of its tokens and the names in it."""
    if not widths:
        return 'holds neither Depth Anything 3 nor a checkpoint of ours'
    if len(widths) > 1:
        return 'is DA3-NESTED, whose weights are non-commercial (CC BY-NC 4.0)'
    if not any('cam_dec.' in name for name in names):
        return 'is Depth Anything 3 for single images, which gives no pose'
    return 'is DA3-LARGE or DA3-GIANT, whose weights are non-commercial (CC BY-NC 4.0)'
