"""A prepared scene and networks small enough to train semantic heads in tests."""

from pathlib import Path

import numpy as np
import torch
from support.drawn_room import draw, poses, write_scannetpp

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.datasets.frames import Frame, Geometry
from gsemsplat_ros.datasets.sources import open_source
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.semantics.decoder import Decoders
from gsemsplat_ros.supervision.features import Features, Space, Supervision
from gsemsplat_ros.training.small_network import frozen_parts

SCENE, SIZE, DIM = 'aaaa000001', 32, 24
# the public architecture with a few blocks; a higher scale bias, because its 1 mm are too thin for 32 px
TINY = NetworkConfig.large().replace(
    name='tiny',
    enc_dim=64,
    enc_depth=2,
    enc_heads=2,
    dec_dim=48,
    dec_depth=4,
    dec_heads=2,
    layer_dims=(8, 16, 16, 32),
    dpt_dim=16,
    last_dim=16,
    descriptors=False,
    scale_bias=-3.0,
)
# the stem and norms of the shipped network, so that it learns fast, and the heads of the public ones
SMALL = NetworkConfig.small().replace(
    enc_dim=64,
    enc_depth=1,
    dec_dim=64,
    layer_dims=(16, 16, 32, 32),
    dpt_dim=16,
    last_dim=16,
    shared_trunk=False,
    descriptors=False,
)


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def prepare(root: Path, encoder='openclip:tiny', dim=DIM, count=4, size=SIZE) -> Path:
    """Write a scene in the layout of ScanNet++ below `root`, and made-up features for it: one direction per
    object, one per half of the image. Returns the folder of features."""
    names = write_scannetpp(root / 'data', count=count)
    source = open_source(root / 'data', 'train', size, size)
    rng = np.random.default_rng(0)
    things, halves = unit(rng, 3, dim), unit(rng, 2, dim)
    features = Features(root / 'features')
    features.begin(Space(encoder, dim, None, 'scannetpp', 'train', size, size, 'mask folder'))
    for name, pose in zip(names, poses(count)):
        ids = source.cut(SCENE, name).nearest(draw(pose)[2])
        context = halves[[0, 0, 1, 1]][None].repeat(4, 0)  # (4, 4, C)
        features.save(SCENE, name, Supervision(ids, things, context))
    return root / 'features'


def checkpoint(path: Path, config=TINY, dim=0, encoder=None, seed=0) -> Path:
    """Save an untrained network, its points on a plane 2 m ahead; with `dim`, also decoders of that width."""
    torch.manual_seed(seed)
    model = GSemSplat(config)
    model.init_weights()
    if config.stem:
        frozen_parts(model)
    tensors = dict(model.state_dict())
    if dim:
        tensors |= Decoders.small((16, 32, dim), config.context_dim).state_dict()
    weights.save(
        path,
        weights.stored(tensors) if config.stem else {name: t.clone() for name, t in tensors.items()},
        {'config': config.to_json(), 'text_encoder': encoder, 'licence': 'of its parent'},
    )
    return path


def frame(pose, camera):
    """A frame of the drawn room, seen by `camera` from `pose`."""
    rgb, depth, ids = draw(pose, camera)
    return Frame(SCENE, 'x', rgb, Geometry(depth, camera, pose), ids)
