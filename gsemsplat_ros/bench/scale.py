"""Growth of time and memory with image size, Gaussians in a map and standing queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.bench.tools import Memory, Times, available_megabytes, machine, picture, unit_phrases, wall
from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.network.inference import Inference, keep_memory
from gsemsplat_ros.network.model import Prediction
from gsemsplat_ros.pipeline import TOGETHER
from gsemsplat_ros.scene.map import Map, cut
from gsemsplat_ros.scene.map_index import MapIndex
from gsemsplat_ros.scene.tile import Tile
from gsemsplat_ros.scene.voxels import voxel_keys
from gsemsplat_ros.semantics.decoder import Decoders, HiddenCodes
from gsemsplat_ros.semantics.relevancy import MIN_ALPHA, box_size, decide, smooth

SIDES = 256, 320, 384, 448, 512
COUNTS = 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000
QUERIES = 1, 2, 5, 10, 20, 50, 100
DRAWN = 512  # side of the rendering for the standing queries [px]
VOXEL = 0.03  # of the map [m]
REPEATS = 5
SHORT_S, LONG_S = 0.3, 2.0  # shorter work is measured three times as often, longer work once
SPARE = 1.3  # free memory required, relative to the need of the next size


@dataclass(frozen=True)
class Axis:
    """A growing quantity. name: key in the result; label: in the plot."""

    name: str
    label: str


AXES = (
    Axis('image_side', 'image side [px]'),
    Axis('map_gaussians', 'Gaussians in the map'),
    Axis('standing_queries', 'standing queries'),
)
Rows = Iterator[dict]


def scale(device: torch.device, step: Callable[[str], None] = lambda name: None) -> dict:
    """Measure along all three axes; rows as of `measured`. Sizes that do not fit into the free memory are
    skipped and listed in 'left_out'."""
    keep_memory()
    left_out: list[str] = []
    with torch.inference_mode():
        return {
            'device': machine(device),
            'image_side': list(images(device, step)),
            'map_gaussians': list(maps(device, step, left_out)),
            'standing_queries': list(queries(device, step)),
            'left_out': left_out,
        }


def measured(at: int, what: str, work: Callable, device: torch.device, repeats: int = REPEATS) -> dict:
    """One row {at, what, seconds, iqr_seconds, megabytes}: medians of `repeats` runs, more if they are short,
    fewer if long, after one run for the memory."""
    times = Times()
    with Memory(device) as used:
        times.of(work, device)
    first = times.seconds.pop()
    for _ in range(3 * repeats if first < SHORT_S else repeats if first < LONG_S else 1):
        times.of(work, device)
    return {
        'at': at,
        'what': what,
        'seconds': times.median,
        'iqr_seconds': times.spread,
        'megabytes': used.megabytes,
    }


def images(device: torch.device, step: Callable[[str], None]) -> Rows:
    """The small network on square pairs, and the rendering of its scene with codes."""
    network = Inference(weights.load(device=device).model, device)
    codes = network.model.config.code_dim
    for side in SIDES:
        step(f'images of {side} px')
        predict = partial(predict_new_pair, network, [picture(side, side, seed) for seed in (0, 1)])
        gaussians, camera = wall(side, side, codes)
        draw = partial(render, gaussians.to(device), camera, np.eye(4))
        if side == SIDES[0]:  # do not count memory that libraries keep
            predict()
            draw()
        yield measured(side, 'small network', predict, device)
        yield measured(side, f'drawing two Gaussians a pixel, {codes} codes', draw, device)


def predict_new_pair(network: Inference, images: Sequence[np.ndarray]) -> Prediction:
    """The prediction for a pair as if it were new: copies, so that no kept encoding is used."""
    first, second = network.encode([image.copy() for image in images])
    return network.predict(first, second)


def maps(device: torch.device, step: Callable[[str], None], left_out: list[str]) -> Rows:
    """The first query of a map, which decodes its codes, and the next one."""
    decoders = (
        Decoders.from_state_dict(weights.load(device=device).decoders).to(device).eval().requires_grad_(False)
    )
    phrases = unit_phrases(5, decoders.dim)
    bytes_each = 4 * (decoders.code_dim + 16) + 2 * (128 + decoders.code_dim + 16) + 64
    for count in COUNTS:
        if SPARE * count * bytes_each / 2**20 > available_megabytes():
            left_out.append(
                f'a map of {count} Gaussians needs {count * bytes_each / 2**30:.1f} GiB, which are not free'
            )
            continue
        step(f'map of {count} Gaussians')
        map_ = random_map(count, decoders.code_dim)
        prepare = partial(MapIndex.prepare, map_, decoders, phrases[1:].numpy())
        yield measured(count, 'first question (decodes the map)', prepare, device, repeats=2)
        yield measured(count, 'each further question', partial(ask_map, prepare(), phrases[:1]), device)


def ask_map(index: MapIndex, phrase: Tensor) -> object:
    """The answer of a map to a unit phrase (1, C)."""
    return decide(index.relevancy(phrase.numpy())[:, 0].cpu().numpy(), index.support, 0.5, 1)


def random_map(count: int, channels: int) -> Map:
    """`count` Gaussians with codes of so many `channels`, each in a voxel of its own, spread over a volume
    that grows with `count`."""
    rng = np.random.default_rng(0)
    side = int(np.ceil((4 * count) ** (1 / 3)))
    cells = rng.permutation(side**3)[:count]  # a quarter of the voxels
    means = (np.stack(np.unravel_index(cells, (side,) * 3), -1) + 0.5).astype(np.float32) * np.float32(VOXEL)
    keys = voxel_keys(means, VOXEL)[0]
    order = keys.argsort()
    ones = torch.ones(count)
    codes = torch.randn(count, channels, generator=torch.Generator().manual_seed(0))
    quats, threes = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1), ones[:, None].repeat(1, 3)
    gaussians = Gaussians(torch.from_numpy(means[order]), quats, threes, ones, threes, codes, 'map')
    once, none = ones.int(), torch.zeros(count, dtype=torch.uint8)
    whole = Tile(gaussians, torch.from_numpy(keys[order]), ones, once, once, none, once)
    return Map('map', VOXEL, cut(whole), 1, 'tf')


def queries(device: torch.device, step: Callable[[str], None]) -> Rows:
    """Standing queries on one decoded rendering, as in Pipeline.query_all."""
    checkpoint = weights.load(device=device)
    decoders = Decoders.from_state_dict(checkpoint.decoders).to(device).eval().requires_grad_(False)
    gaussians, camera = wall(DRAWN, DRAWN, decoders.code_dim)
    rendering = render(gaussians.to(device), camera, np.eye(4))
    hidden = decoders.prepare(rendering.codes, unit_phrases(4, decoders.dim, seed=1))
    for count in QUERIES:
        step(f'{count} standing queries')
        ask = partial(ask_picture, hidden, unit_phrases(count, decoders.dim), rendering.alpha)
        yield measured(count, f'answers at {DRAWN}x{DRAWN}', ask, device)


def ask_picture(hidden: HiddenCodes, phrases: Tensor, alpha: Tensor) -> None:
    """Answer unit phrases (K, C) on a rendering of opacity `alpha` (H, W)."""
    inside, opacity = alpha >= MIN_ALPHA, alpha.cpu().numpy()
    for some in phrases.split(TOGETHER):
        smoothing = partial(smooth, box=box_size(*opacity.shape), inside=inside)
        relevancy = hidden.relevancy(some, smoothing).cpu().numpy()
        for k in range(len(some)):
            decide(relevancy[:, k], opacity, 0.5, MIN_ALPHA)
