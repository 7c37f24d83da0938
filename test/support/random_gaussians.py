"""Random Gaussians, poses and predictions."""

import math

import numpy as np
import torch

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.network.model import Prediction, ViewPrediction


def axis_angle(axis, angle):
    """(rotation (3, 3), quaternion w x y z); the matrix is an exponential, independent of the quaternion."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    x, y, z = axis * angle
    generator = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    rotation = torch.linalg.matrix_exp(generator).numpy()
    return rotation, np.array([math.cos(angle / 2), *(math.sin(angle / 2) * axis)])


def random_gaussians(n=20, codes=4, seed=0, frame='camera'):
    """Random Gaussians and their rotations as matrices (N, 3, 3)."""
    rng = np.random.default_rng(seed)
    turns = [axis_angle(rng.normal(size=3), rng.uniform(0, math.pi)) for _ in range(n)]
    arrays = {
        'means': rng.normal(size=(n, 3)),
        'quats': np.stack([quat for _, quat in turns]),
        'scales': rng.uniform(0.01, 0.3, (n, 3)),
        'opacities': rng.uniform(0.05, 0.95, n),
        'colors': rng.uniform(size=(n, 3)),
        'codes': rng.normal(size=(n, codes)),
    }
    tensors = {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}
    return Gaussians(**tensors, frame=frame), np.stack([rotation for rotation, _ in turns])


def pose(seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3], _ = axis_angle(rng.normal(size=3), rng.uniform(0, math.pi))
    matrix[:3, 3] = rng.normal(size=3)
    return matrix


def make_prediction(h=2, w=3, channels=33, dtype=torch.float32):
    def view(seed):
        rng = torch.Generator().manual_seed(seed)

        def field(*shape):
            return torch.rand(2, h, w, *shape, generator=rng).to(dtype)

        quats = torch.nn.functional.normalize(field(4), dim=-1)
        return ViewPrediction(
            pts3d=field(3),
            conf=1 + field(),
            means=field(3),
            scales=field(3),
            quats_xyzw=quats,
            sh=field(3),
            opacities=field(),
            codes=field(channels),
        )

    return Prediction(view(0), view(1))
