"""Packed rooms, and a training small enough for tests."""

import json

import numpy as np

from gsemsplat_ros.datasets.packed_rooms import VOCABULARY, encode
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.network.config import NetworkConfig
from gsemsplat_ros.training import small_network as run
from gsemsplat_ros.training import textspace
from gsemsplat_ros.training.distributed import Processes

HEIGHT, WIDTH = 32, 48
NAMES = {'chair': 'chair', 'floor': 'floor', 'oak table': 'table'}


def sample(seed=0, stereo=True):
    """A slanted wall seen by three parallel cameras within 10 cm; left half a chair, right half a table."""
    rng = np.random.default_rng(seed)
    u = np.arange(WIDTH)[None].repeat(HEIGHT, 0)
    poses = np.stack([np.eye(4)] * 3)
    poses[:, 0, 3] = 0, 0.1, 0.05
    # the plane z = 2 + 0.2 x: z = (2 + 0.2 eye) / (1 - 0.2 (u - cx) / fx)
    depth = np.stack([(2 + 0.2 * pose[0, 3]) / (1 - 0.2 * (u - 23.5) / 40) for pose in poses]).astype(
        np.float32
    )
    instance = np.stack([np.where(u < 24, 1, 2)] * 3).astype(np.int16)
    images = np.kron(rng.integers(0, 255, (3, HEIGHT // 8, WIDTH // 8, 3)), np.ones((1, 8, 8, 1))).astype(
        np.uint8
    )
    camera = Camera(WIDTH, HEIGHT, 40, 40, 23.5, 15.5)
    return Sample(images, depth, instance, poses, camera, ['void', 'chair', 'oak table'], stereo)


def pack_folder(folder, count=2):
    folder.mkdir()
    (folder / VOCABULARY).write_text(json.dumps(NAMES))
    for i in range(count):
        with (folder / f'train_{i:06d}.npz').open('wb') as file:
            np.savez(file, **encode([sample(2 * i), sample(2 * i + 1, stereo=False)]))


def quicken(setattr=setattr):
    """Make training fast: few weights and words, a short warm-up, no processes that load pairs."""
    small = NetworkConfig.small().replace(
        enc_dim=64, enc_depth=1, dec_dim=64, layer_dims=(16, 16, 32, 32), dpt_dim=16, last_dim=16
    )
    setattr(NetworkConfig, 'small', classmethod(lambda cls: small))
    setattr(Processes, 'workers', 0)
    setattr(run, 'WARMUP', 2)  # so that both halves of the schedule run
    setattr(textspace, 'imagenet_names', lambda: ['tench'])
