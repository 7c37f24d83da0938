"""The published evaluation of text queries, exactly (docs/published.md 30), and a check with stored results.

Per phrase: IoU of the top quarter of the smoothed relevancy with the annotated polygon, for the branch with
the higher peak, and whether the peak is in the polygon. Two flaws are kept because the published numbers have
them: the majority filter of both masks ignores the last row and column, and the branch is chosen on the whole
map for the IoU but on the visible part for the localisation. Letters: K phrases; H, W map.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from gsemsplat_ros.semantics.relevancy import (
    CANONICAL,
    SMOOTHING_BOX,
    relative_mask,
    relevancy_of_features,
    smooth,
)

THRESHOLD = 0.5  # of the published script
MAX_RELEVANCY_ERROR = 1e-5
MAX_IOU_ERROR = 1e-6
_MAJORITY = 7  # pixels
_ARRAYS = ('pos', 'neg', 'feat', 'vis', 'prompts', 'polygons', 'relevancy', 'iou', 'level', 'loc_acc')


@dataclass(frozen=True)
class FrameScores:
    """Scores of one frame, and the maps and masks behind them.

    iou (K,): of the chosen branch, NaN if the phrase does not count; branch (K,) int: 0 region, 1 context;
    localised (K,) bool: a peak lies in the ground truth; maps (branches, K, H, W): smoothed relevancy; found,
    truth (K, H, W) bool: the compared masks; peaks: for each phrase its peak pixels (n, 2) of x, y, none if
    it does not count.
    """

    iou: np.ndarray
    branch: np.ndarray
    localised: np.ndarray
    maps: np.ndarray
    found: np.ndarray
    truth: np.ndarray
    peaks: tuple[np.ndarray, ...]

    @property
    def localisation_accuracy(self) -> float:
        """Share of correct peaks of the phrases that count, to four digits as published; NaN if none do."""
        counted = np.isfinite(self.iou)
        return round(float(self.localised[counted].mean()), 4) if counted.any() else float('nan')


def evaluate_frame(
    relevancy: np.ndarray,
    polygons: Sequence[Sequence[np.ndarray]],
    visible: np.ndarray,
    threshold: float = THRESHOLD,
) -> FrameScores:
    """Score one frame.

    relevancy (2, K, H, W): of both branches before smoothing, or (1, K, H, W) of a single one; polygons: for
    each phrase its polygons (n, 2) of pixel x, y, united; visible (H, W) bool: an input view sees the pixel;
    threshold: of the published script (0.5; LangSplat 0.4), on the upper half of a map's range as [0, 1].
    """
    _, count, height, width = relevancy.shape
    assert visible.shape == (height, width) and len(polygons) == count, (relevancy.shape, visible.shape)
    maps = smooth(torch.as_tensor(relevancy)).numpy()  # (2, K, H, W)
    iou = np.full(count, np.nan)
    chosen = maps.max((2, 3)).argmax(0)  # (K,)
    localised = np.zeros(count, bool)
    found, truth = (np.zeros((count, height, width), bool) for _ in range(2))
    peaks: list[np.ndarray] = [np.zeros((0, 2), int) for _ in range(count)]
    for k in range(count):
        truth[k] = majority(fill(polygons[k], height, width)) & visible
        found[k] = majority(relative_mask(maps[chosen[k], k], (1 + threshold) / 2)) & visible
        if not truth[k].any():
            continue  # neither branch can be scored, so the phrase does not count
        iou[k] = np.count_nonzero(found[k] & truth[k]) / np.count_nonzero(found[k] | truth[k])
        masked = maps[:, k] * visible  # (2, H, W)
        highest = masked[masked.max((1, 2)).argmax()] == masked.max()
        localised[k] = (highest & truth[k]).any()
        peaks[k] = np.argwhere(highest)[:, ::-1]
    return FrameScores(iou, chosen, localised, maps, found, truth, tuple(peaks))


def fill(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union (H, W) bool of polygons (n, 2) of x, y, with coordinates truncated to whole pixels."""
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.asarray(polygon).astype(np.int32)], 1)
    return mask.astype(bool)


def majority(mask: np.ndarray) -> np.ndarray:
    """Majority filter of a mask (H, W) bool: true where more than half of the 7x7 window is; ties are false.

    The window is cut at the border and never includes the last row and column.
    """
    usable = np.zeros(mask.shape, np.float32)
    usable[:-1, :-1] = 1
    size = (_MAJORITY, _MAJORITY)
    true, total = (
        cv2.boxFilter(values, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        for values in (usable * mask, usable)
    )
    return 2 * true > total  # whole numbers up to 49, exact in float32


def check_protocol(path: str | Path) -> dict:
    """Run the evaluation on the stored inputs of `path` (.npz) and compare with the stored results.

    Returns `max_relevancy_error`, `max_iou_error`, `heads_equal`, `localisation_equal`, and `passed`:
    relevancy to 1e-5, IoU to 1e-6, the other two equal.

    Raises:
        ValueError: the file is missing, truncated, or not such a fixture.
    """
    fixture = _read_fixture(Path(path))
    features, phrases, canonical = (
        torch.as_tensor(fixture[name].astype(np.float32)) for name in ('feat', 'pos', 'neg')
    )
    relevancy = relevancy_of_features(features, phrases, canonical).numpy()
    scores = evaluate_frame(relevancy, fixture['polygons'], fixture['vis'].astype(bool))
    relevancy_error = float(np.abs(relevancy - fixture['relevancy']).max())
    iou_error = float(np.abs(scores.iou - fixture['iou']).max())
    branches = bool((scores.branch == fixture['level']).all())
    localisation = scores.localisation_accuracy == float(fixture['loc_acc'])
    # with <=, so that a NaN fails
    passed = (
        relevancy_error <= MAX_RELEVANCY_ERROR and iou_error <= MAX_IOU_ERROR and branches and localisation
    )
    return {
        'max_relevancy_error': relevancy_error,
        'max_iou_error': iou_error,
        'heads_equal': branches,
        'localisation_equal': localisation,
        'passed': passed,
    }


def _read_fixture(path: Path) -> Mapping:
    """The arrays of the fixture by name, `polygons` as one list of polygons per phrase. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f'no such fixture: {path}')
    try:
        with np.load(path, allow_pickle=False) as archive:
            fixture = {name: archive[name] for name in _ARRAYS}
        named = json.loads(str(fixture['polygons']))
        polygons = [[np.array(named[str(name)], np.float64).reshape(-1, 2)] for name in fixture['prompts']]
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f'{path} is no protocol fixture (.npz of pos, neg, feat, vis, prompts, polygons and '
            f'results), or it is damaged: {reason}'
        ) from error
    if fixture['feat'].ndim != 4 or min(fixture['feat'].shape[1:3]) <= SMOOTHING_BOX or not polygons:
        raise ValueError(
            f'{path}: feat must be (2, H, W, C) with sides above {SMOOTHING_BOX}, for at least '
            f'one prompt; got {fixture["feat"].shape} and {len(polygons)} prompts'
        )
    _, height, width, dim = fixture['feat'].shape
    count = len(polygons)
    wanted = {
        'feat': (2, height, width, dim),
        'pos': (count, dim),
        'neg': (len(CANONICAL), dim),
        'vis': (height, width),
        'relevancy': (2, count, height, width),
        'iou': (count,),
        'level': (count,),
        'loc_acc': (),
    }
    for name, shape in wanted.items():
        if fixture[name].shape != shape or fixture[name].dtype.kind not in 'fiub':
            raise ValueError(
                f'{path}: {name} must be numbers of shape {shape}, got {fixture[name].dtype} '
                f'{fixture[name].shape}'
            )
    return {**fixture, 'polygons': polygons}
