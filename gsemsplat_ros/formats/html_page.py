"""Gaussians as one HTML file that shows them in any browser: no server, no network, nothing to install.

The page is html_page.html, which holds the viewer too. Of each Gaussian it has 17 bytes: the mean in 16 bits
an axis of their box, the quaternion as the three smaller parts in 10 bits each, logarithms of the scales,
colour and opacity in 8 bits. The bytes lie by place and not by Gaussian, so that deflate takes a third off.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from dataclasses import replace
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch

from gsemsplat_ros.files import write_whole
from gsemsplat_ros.formats.axes import Axes, rotation
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.projection import MIN_ALPHA

MOST = 400_000  # Gaussians of a page: 6 MB
MIDDLE = 0.05, 0.95  # quantiles of the means that the first view of a map contains
STEPS = 255, 1023, 65535  # of 8, 10 and 16 bits


def write_html(path: Path, splats: Splats) -> None:
    """Write the page. Raises OSError."""
    gaussians = seen(splats.joined().to('cpu'))
    kept = fewer(gaussians)
    data, ranges = packed(kept)
    about = {'count': len(kept), 'of': len(splats), **ranges, **first_view(kept, splats)}
    page = Template(resources.files(__package__).joinpath('html_page.html').read_text(encoding='utf-8'))
    text = page.substitute(
        title=escape(path.stem),
        about=json.dumps(about, ensure_ascii=True).replace('<', '\\u003c'),  # no end of the element within
        data=base64.b64encode(data).decode(),
        policy='$policy',
    )
    with write_whole(path) as new:
        new.write_text(text.replace('$policy', policy(text), 1), encoding='utf-8')


def policy(page: str) -> str:
    """The content security policy: the script and the style of the page itself, and nothing else."""
    rules = []
    for name in 'script', 'style':
        found = re.search(rf'<{name}>(.*?)</{name}>', page, re.DOTALL)
        assert found is not None, name
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        rules.append(f"{name}-src 'sha256-{digest}'")
    return '; '.join(["default-src 'none'", *rules, "base-uri 'none'", "form-action 'none'"])


def seen(gaussians: Gaussians) -> Gaussians:
    """Those that a picture can show: of finite numbers and not transparent."""
    sound = gaussians.opacities >= MIN_ALPHA
    for name in 'means', 'quats', 'scales', 'colors':
        sound &= torch.isfinite(getattr(gaussians, name)).all(1)
    return gaussians.select(sound)


def fewer(gaussians: Gaussians) -> Gaussians:
    """At most MOST, always the same: an even sample, enlarged so that surfaces still close."""
    count = len(gaussians)
    if count <= MOST:
        return gaussians
    rows = np.sort(np.random.default_rng(0).choice(count, MOST, replace=False))
    kept = gaussians.select(torch.from_numpy(rows))
    return replace(kept, scales=kept.scales * math.sqrt(count / MOST))


def packed(gaussians: Gaussians) -> tuple[bytes, dict[str, Any]]:
    """The bytes of Gaussians on the CPU, and what the page needs to read them: the corners of the box of the
    means, and the smallest and largest logarithm of a scale."""
    means = gaussians.means.numpy().astype(np.float64)
    logs = np.log(gaussians.scales.numpy().clip(1e-12))
    box = [means.min(0), means.max(0)] if len(means) else [np.zeros(3), np.zeros(3)]
    bounds = [float(logs.min()), float(logs.max())] if len(means) else [0.0, 0.0]
    planes = [
        steps(means, box[0], box[1], STEPS[2]).astype('<u2').view('u1').reshape(-1, 6),
        steps(logs, bounds[0], bounds[1], STEPS[0]).astype('u1'),
        smallest_three(gaussians.quats.numpy()).astype('<u4')[:, None].view('u1'),
        steps(gaussians.colors.numpy(), 0, 1, STEPS[0]).astype('u1'),
        steps(gaussians.opacities.numpy()[:, None], 0, 1, STEPS[0]).astype('u1'),
    ]
    data = np.ascontiguousarray(np.concatenate(planes, 1).T).tobytes()
    return zlib.compress(data, 9), {'low': box[0].tolist(), 'high': box[1].tolist(), 'logs': bounds}


def steps(values: np.ndarray, low: Any, high: Any, most: int) -> np.ndarray:
    """Values between `low` and `high` as whole numbers from 0 to `most`, int64; others are clipped."""
    width = np.maximum(np.subtract(high, low), 1e-12)
    return np.rint(((values - low) / width).clip(0, 1) * most).astype(np.int64)


def smallest_three(quats: np.ndarray) -> np.ndarray:
    """Unit quaternions (N, 4), w x y z, in 32 bits: the place of the largest part, and 10 bits of each other
    one, which lies within 1 / sqrt(2)."""
    rows = np.arange(len(quats))
    largest = np.abs(quats).argmax(1)
    quats = quats * np.where(quats[rows, largest] < 0, -1, 1)[:, None]
    others = np.stack([quats[rows, (largest + i) % 4] for i in (1, 2, 3)], 1) * np.sqrt(2)
    a, b, c = steps(others, -1, 1, STEPS[1]).T
    return largest << 30 | a << 20 | b << 10 | c


def first_view(gaussians: Gaussians, splats: Splats) -> dict[str, Any]:
    """Where the page begins, in the axes of `splats`: `forward` and `up`, the `target` in the middle of the
    view and its `distance`; `camera`: size and intrinsics [px] of the one that saw the scene, or None."""
    _, up, backward = rotation(splats.axes, Axes.Y_UP).T
    means = gaussians.means.numpy().astype(np.float64)
    camera = splats.camera
    if camera is not None:
        depths = means @ -backward
        distance = max(float(np.median(depths)), 1e-3) if len(depths) else 1.0
        target, tilt = -backward * distance, 0.0
    else:  # a map, from above
        low, high = np.quantile(means, MIDDLE, axis=0) if len(means) else (-np.ones(3), np.ones(3))
        distance = max(0.9 * float(np.linalg.norm(high - low)), 1e-3)
        target, tilt = (low + high) / 2, -0.6
    return {
        'forward': (-backward).tolist(),
        'up': up.tolist(),
        'target': target.tolist(),
        'distance': distance,
        'tilt': tilt,
        'camera': None
        if camera is None
        else {name: getattr(camera, name) for name in ('width', 'height', 'fx', 'fy', 'cx', 'cy')},
    }
