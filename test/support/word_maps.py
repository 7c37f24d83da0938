"""Clouds of Gaussians for maps, and a map in which a word is found."""

import numpy as np
import torch

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.mapping.map import Map

HERE = np.array([0.3, -0.2, 0.1])


def cloud(means, seed=0, channels=32):
    """Random Gaussians at `means` (N, 3) in the frame 'map'."""
    rng, count = np.random.default_rng(seed), len(means)
    quats = rng.normal(size=(count, 4))
    arrays = (
        means,
        quats / np.linalg.norm(quats, axis=1, keepdims=True),
        rng.uniform(0.002, 0.02, (count, 3)),
        rng.uniform(0.01, 1, count),
        rng.uniform(size=(count, 3)),
        rng.normal(size=(count, channels)),
    )
    return Gaussians(*(torch.from_numpy(np.asarray(array).astype(np.float32)) for array in arrays), 'map')


def scene_cloud(seed, count=1500, side=0.45, channels=32):
    """Random Gaussians, dense enough that voxels of 5 cm hold several."""
    return cloud(np.random.default_rng(seed).uniform(-side, side, (count, 3)), seed, channels)


def worded_map(pipeline, text='chair'):
    """A floor with codes least relevant to `text` and two clusters on it with the most relevant ones.

    Returns the map, the centres (2, 3) of the clusters, and the highest relevancy.
    """
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.normal(size=(4000, 32)).astype(np.float32))
    scores = pipeline.decoders.prepare(codes[:, None], pipeline.canonical).relevancy(
        pipeline.text_encoder.encode([text])
    )
    scores = scores[:, 0, :, 0].amax(0)
    best, worst = codes[scores.argmax()], codes[scores.argmin()]
    centers = np.array([[1.0, 1.0, 0.4], [3.0, 2.0, 0.4]])
    floor = rng.uniform((0, 0, -0.02), (4, 3, 0.0), (20_000, 3))
    clusters = [rng.uniform(-0.2, 0.2, (1500, 3)) + center for center in centers]
    means = torch.from_numpy(np.concatenate([floor, *clusters]).astype(np.float32))
    count = len(means)
    gaussians = Gaussians(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.full((count, 3), 0.01),
        torch.from_numpy(rng.uniform(0.3, 1, count).astype(np.float32)),
        torch.rand(count, 3),
        torch.where((means[:, 2:] > 0.1), best, worst),
        'map',
    )
    return (
        Map.empty('map', 0.03).merged(gaussians, np.array([2, 1.5, 1.5]), 10**6),
        centers,
        float(scores.max()),
    )
