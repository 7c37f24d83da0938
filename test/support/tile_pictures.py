"""The tile renderer, called as the others, and on a GPU chosen anew."""

import functools

import pytest
import torch

from gsemsplat_ros.gaussians import render
from gsemsplat_ros.gaussians.gaussians import TENSORS
from gsemsplat_ros.gaussians.render_gsplat import why_not
from gsemsplat_ros.gaussians.render_plain import Rendering
from gsemsplat_ros.gaussians.render_tiles import render_tiles


def renew_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the renderer try gsplat, and warn, as in a new process."""
    monkeypatch.setattr(render, 'why_not', functools.cache(why_not.__wrapped__))
    monkeypatch.setattr(render, '_warn', functools.cache(render._warn.__wrapped__))


def draw_tiles(gaussians, camera, camera_from_world, background=(0.0, 0.0, 0.0)):
    """Arguments and result as of `render`."""
    means = gaussians.means
    drawn = render_tiles(
        *(getattr(gaussians, name) for name in TENSORS),
        viewmats=torch.as_tensor(camera_from_world).to(means)[None],
        Ks=torch.as_tensor(camera.K).to(means)[None],
        width=camera.width,
        height=camera.height,
    )
    rgb, depth, alpha, codes = (maps[0] for maps in vars(drawn).values())
    return Rendering(rgb + (1 - alpha)[..., None] * means.new_tensor(background), depth, alpha, codes)
