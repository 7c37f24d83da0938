"""Queries and depth on real rectified stereo pairs, labelled with boxes.

The labels are one JSON file, paths relative to it:
    {"pairs": [{"left": path, "right": path,
                "calibration": {"fx", "fy", "cx", "cy" [px], "baseline" [m], "doffs" [px]},
                "disparity": path of an .npz,                           (its first array, for the left image)
                "objects": [{"text": words, "box": [x0, y0, x1, y1]}],  (px of the left image)
                "absent": [words, ...]}]}
Optional: disparity, objects, absent, and doffs (default 0), right cx minus left cx (Middlebury's name).
"""

from __future__ import annotations

import math
import time
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gsemsplat_ros.evaluation.json_fields import Field
from gsemsplat_ros.evaluation.metrics import (
    abs_rel,
    at_keyframe,
    bootstrap_interval,
    countable,
    delta1,
    mean,
    median_scale,
    only_branch,
)
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View, read_image
from gsemsplat_ros.pipeline import Pipeline

MEANS = (
    'localisation_accuracy',
    'chance',
    'found_rate',
    'false_alarm_rate',
    'abs_rel_aligned',
    'abs_rel_metric',
    'delta1',
    'coverage',
)


@dataclass(frozen=True)
class LabelledPair:
    """A calibrated pair with its labels.

    name: path of the left image in the labels; depth (H, W) m: of the left image, NaN where unknown, or None;
    objects: words and box (x0, y0, x1, y1) [px] of objects in the left image; absent: words for others.
    """

    name: str
    pair: Pair
    depth: np.ndarray | None
    objects: tuple[tuple[str, tuple[float, float, float, float]], ...]
    absent: tuple[str, ...]


def evaluate_stereo(pipeline: Pipeline, labels_path: str | Path, branches: str = 'both') -> dict:
    """Score `pipeline` on the labelled pairs; shows a progress bar on a terminal.

    `branches`: 'both', or only 'region' or 'context'.

    Returns means over all pairs (None if nothing counts), with 95 % bootstrap `intervals` by the same keys:
    - localisation_accuracy: the peak is in the box, edges included, found or not; chance: the same for a
      random pixel (the box's share of the image); found_rate; false_alarm_rate: absent phrases found.
    - abs_rel_metric, delta1: of the rendered depth of the left view, for pairs with a disparity (depth = fx *
      baseline / (disparity + doffs), if finite and positive, nearest to each pixel of the rendering);
      abs_rel_aligned: after the median scale; coverage: share of the true depth that was rendered.
    Also pairs, seconds_pair (median), branches; phrases [{pair, text, present, found, score, head,
    peak_pixel, localised}]; depths [{pair, abs_rel_aligned, abs_rel_metric, delta1, coverage, scale_source}].

    Raises ValueError for unusable labels, with file and field.
    """
    pairs = read_labels(labels_path)
    groups: dict[str, list[list[float]]] = {name: [[] for _ in pairs] for name in MEANS}
    phrases, depths, seconds = [], [], []
    for index, labelled in enumerate(tqdm(pairs, unit='pair', desc='stereo', disable=None)):
        start = time.perf_counter()
        scene = only_branch(pipeline.build(labelled.pair), branches)
        seconds.append(time.perf_counter() - start)
        height, width = labelled.pair.first.image.shape[:2]

        add = partial(add_values, groups, index)
        for text, box in [*labelled.objects, *((text, None) for text in labelled.absent)]:
            answer = pipeline.query(scene, text)
            u, v = answer.peak_pixel or (math.nan, math.nan)
            row = {
                'pair': labelled.name,
                'text': text,
                'present': box is not None,
                'found': answer.found,
                'score': answer.score,
                'head': answer.branch,
                'peak_pixel': [u, v] if answer.peak_pixel else None,
            }
            if box is None:
                add(false_alarm_rate=answer.found)
            else:
                x0, y0, x1, y1 = box
                row['localised'] = bool(x0 <= u <= x1 and y0 <= v <= y1)  # false for NaN
                add(
                    localisation_accuracy=row['localised'],
                    found_rate=answer.found,
                    chance=(x1 - x0) * (y1 - y0) / (width * height),
                )
            phrases.append(row)
        if labelled.depth is not None:
            depth = scene.keyframe.rendering.depth.cpu().numpy()
            truth = at_keyframe(scene.keyframe, labelled.depth)
            known = countable(truth, truth)
            values = {
                'abs_rel_aligned': abs_rel(depth * median_scale(depth, truth), truth),
                'abs_rel_metric': abs_rel(depth, truth),
                'delta1': delta1(depth, truth),
                'coverage': float(np.isfinite(depth[known]).mean()) if known.any() else float('nan'),
            }
            add(**values)
            depths.append(
                {
                    'pair': labelled.name,
                    **{name: mean([[value]]) for name, value in values.items()},
                    'scale_source': scene.scale_source,
                }
            )
    return {
        **{name: mean(groups[name]) for name in MEANS},
        'pairs': len(pairs),
        'seconds_pair': float(np.median(seconds)),
        'branches': branches,
        'intervals': {name: bootstrap_interval(groups[name]) for name in MEANS},
        'phrases': phrases,
        'depths': depths,
    }


def add_values(groups: dict[str, list[list[float]]], index: int, **values: float) -> None:
    """Append `values` to the groups of pair `index`."""
    for name, value in values.items():
        groups[name][index].append(float(value))


def read_labels(path: str | Path) -> list[LabelledPair]:
    """All pairs of a file of labels, images and depth included. Raises ValueError as `evaluate_stereo`."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f'no labels at {path}')
    labels = Field.read(path, 'an object with "pairs"')
    pairs = labels.get('pairs').items()
    if not pairs:
        raise labels.get('pairs').wrong('at least one pair')
    return [read_pair(pair) for pair in pairs]


def read_pair(field: Field) -> LabelledPair:
    """One pair of the labels. Raises ValueError as `evaluate_stereo`."""
    calibration = field.get('calibration')
    fx, fy, baseline = (calibration.get(name).number(positive=True) for name in ('fx', 'fy', 'baseline'))
    cx, cy = (calibration.get(name).number() for name in ('cx', 'cy'))
    doffs = calibration.get('doffs').number() if calibration.has('doffs') else 0.0
    left, right = (field.get(name).load(read_image) for name in ('left', 'right'))
    if left.shape != right.shape:
        raise field.get('right').wrong(f"an image of the left one's size, {size(left)}, got {size(right)}")
    height, width = left.shape[:2]
    camera = Camera(width, height, fx, fy, cx, cy)
    depth = None
    if field.has('disparity'):
        disparity = field.get('disparity').load(read_disparity)
        if disparity.shape != (height, width):
            raise field.get('disparity').wrong(
                f'an array of {(height, width)}, the size of the left image, got {disparity.shape}'
            )
        known = np.isfinite(disparity) & (disparity > 0) & (disparity + doffs > 0)
        depth = np.where(known, fx * baseline / np.where(known, disparity + doffs, 1), np.nan)
    objects = tuple(
        (thing.get('text').words(), read_box(thing.get('box'), width, height))
        for thing in (field.get('objects').items() if field.has('objects') else ())
    )
    absent = tuple(thing.words() for thing in (field.get('absent').items() if field.has('absent') else ()))
    pair = Pair(View(left, camera), View(right, replace(camera, cx=cx + doffs)), baseline)
    return LabelledPair(str(field.get('left').value), pair, depth, objects, absent)


def read_box(field: Field, width: int, height: int) -> tuple[float, float, float, float]:
    """A box (x0, y0, x1, y1) [px] inside the image. Raises ValueError."""
    wanted = f'[x0, y0, x1, y1] with x0 < x1 and y0 < y1 inside the {width} x {height} image'
    numbers = field.items()
    if len(numbers) != 4:
        raise field.wrong(wanted)
    x0, y0, x1, y1 = (number.number() for number in numbers)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise field.wrong(wanted)
    return x0, y0, x1, y1


def read_disparity(path: Path) -> np.ndarray:
    """The first array of an .npz, (H, W) float64. Raises ValueError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = archive[archive.files[0]]
    except FileNotFoundError:
        raise ValueError(f'no disparity at {path}') from None
    # TypeError, AttributeError: an .npy, which is an array, not an archive
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f'{path} cannot be read as an .npz with an array ({error})') from None
    if values.dtype.kind not in 'fiu' or values.ndim != 2:
        raise ValueError(
            f'{path}: its first array is {values.dtype} {values.shape}: wanted (height, width) numbers'
        )
    return values.astype(np.float64)


def size(image: np.ndarray) -> str:
    """Width x height of an image (H, W, ...), for messages."""
    return f'{image.shape[1]} x {image.shape[0]}'
