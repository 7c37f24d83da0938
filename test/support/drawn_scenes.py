"""Scenes of Gaussians to draw, and when two pictures of one are the same."""

import numpy as np
import torch

from gsemsplat_ros.gaussians.gaussians import Gaussians


def make(means, scales=0.05, opacities=0.8, quats=(1, 0, 0, 0), colors=None, codes=None, dtype=torch.float32):
    """Gaussians from lists; single values are shared."""
    n, scales = len(means), np.asarray(scales, float)
    colors = np.linspace(0.2, 0.9, 3 * n).reshape(n, 3) if colors is None else colors
    codes = np.arange(2.0 * n).reshape(n, 2) - 1 if codes is None else codes
    scales = np.broadcast_to(scales if scales.ndim == 2 else scales.reshape(-1, 1), (n, 3))
    values = {
        'means': means,
        'quats': np.broadcast_to(quats, (n, 4)),
        'scales': scales,
        'opacities': np.broadcast_to(opacities, n),
        'colors': colors,
        'codes': codes,
    }
    tensors = {name: torch.tensor(np.array(value, float), dtype=dtype) for name, value in values.items()}
    return Gaussians(**tensors, frame='camera')


def random_scene(camera, n, seed, codes=5):
    """Gaussians before, behind and beside the camera, from far below a pixel to larger than the picture."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.5, 4, n) * rng.choice([1, -1], n, p=[0.9, 0.1])
    u, v = rng.uniform(-0.4, 1.4, n) * camera.width, rng.uniform(-0.4, 1.4, n) * camera.height
    means = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], -1)
    scales = np.abs(z)[:, None] / camera.fx * np.exp(rng.normal(0.3, 1.0, (n, 3)))
    scales[:2] *= 300
    scales[2:4] *= 1e-4
    quats = rng.normal(size=(n, 4))
    return make(
        means,
        scales,
        rng.uniform(0, 1, n),
        quats / np.linalg.norm(quats, axis=1, keepdims=True),
        rng.uniform(-0.2, 1.1, (n, 3)),
        rng.normal(size=(n, codes)),
    )


def as_double(gaussians):
    return Gaussians(
        **{name: value.double() for name, value in vars(gaussians).items() if name != 'frame'},
        frame=gaussians.frame,
    )


def assert_same_picture(got, wanted, rare=0.002):
    """Equal to 1e-4 but for rare pixels: those where one Gaussian's alpha stands at 1/255, or the light at
    1e-4, to the last bits, and the two renderers decide differently."""
    for name in ('rgb', 'depth', 'alpha', 'codes'):
        a, b = getattr(got, name).double(), getattr(wanted, name).double()
        assert a.shape == b.shape and torch.equal(a.isnan(), b.isnan()), name
        error = (a - b).abs().nan_to_num()
        if error.numel():
            assert (error > 1e-4).double().mean() <= rare, (name, error.max())
            assert error.max() < 0.05, (name, error.max())
