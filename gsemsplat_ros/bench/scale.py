"""Growth of time and memory with image size, Gaussians in a map and standing queries."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.bench.furnished_map import furnished_map
from gsemsplat_ros.bench.tools import Memory, Times, available_megabytes, machine, picture, unit_phrases, wall
from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.mapping.ask_map import ask_map
from gsemsplat_ros.mapping.map_index import MapIndex
from gsemsplat_ros.network.inference import Inference, keep_memory
from gsemsplat_ros.network.model import Prediction
from gsemsplat_ros.pipeline import TOGETHER
from gsemsplat_ros.semantics.answer import Question
from gsemsplat_ros.semantics.decoder import Decoders, HiddenCodes
from gsemsplat_ros.semantics.relevancy import MIN_ALPHA, Mixture, box_size, decide, smooth

SIDES = 256, 320, 384, 448, 512
COUNTS = 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000
QUERIES = 1, 2, 5, 10, 20, 50, 100
DRAWN = 512  # side of the rendering for the standing queries [px]
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
    """The first question to a map, with all that it prepares; one for a thing that was not asked for before,
    the same again, and one for all floors."""
    checkpoint = weights.load(device=device)
    mixture = Mixture.of_card(checkpoint.card)
    decoders = Decoders.from_state_dict(checkpoint.decoders, mixture).to(device).eval().requires_grad_(False)
    asked = Question('thing', mixture.threshold if mixture else None)
    bytes_each = 4 * (decoders.code_dim + 14) + 25 + 100  # a Gaussian, its history, and what questions need
    for count in COUNTS:
        if SPARE * count * bytes_each / 2**20 > available_megabytes():
            left_out.append(
                f'a map of {count} Gaussians needs {count * bytes_each / 2**30:.1f} GiB, which are not free'
            )
            continue
        step(f'map of {count} Gaussians')
        yield from map_of(count, decoders, asked, device)


def map_of(count: int, decoders: Decoders, asked: Question, device: torch.device) -> Rows:
    """The rows of one map."""
    rooms = furnished_map(count, decoders)
    things = itertools.cycle(np.split(rooms.things, len(rooms.things)))

    def first() -> MapIndex:
        index = MapIndex.prepare(rooms.map, decoders, rooms.canonical)
        ask_map(index, asked, next(things))
        return index

    index, same = first(), next(things)

    def another() -> object:
        return ask_map(index, asked, next(things))

    yield measured(count, 'first question', first, device, repeats=2)
    yield measured(count, 'question for another thing', another, device, repeats=2)
    yield measured(count, 'the same question again', partial(ask_map, index, asked, same), device)
    yield measured(count, 'question for all floors', partial(ask_map, index, asked, rooms.floor), device)


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
