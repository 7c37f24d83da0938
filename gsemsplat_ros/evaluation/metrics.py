"""The metrics of the evaluations, in plain NumPy.

Depth maps (H, W) share one unit; a pixel counts if both depths are finite and positive. Without pixels to
count, a metric is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gsemsplat_ros.images.camera import pixel_grid
from gsemsplat_ros.scene.scene import Keyframe, Scene

BRANCHES = ('both', 'region', 'context')
DRAWS = 1000  # of the bootstrap
LEVEL = 0.95  # of its intervals
MIN_MSE = 1e-10  # limits PSNR to 100 dB


def countable(depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool where both depths are known."""
    return np.isfinite(depth) & (depth > 0) & np.isfinite(truth) & (truth > 0)


def abs_rel(depth: np.ndarray, truth: np.ndarray) -> float:
    """Mean of |depth - truth| / truth."""
    use = countable(depth, truth)
    return float(np.mean(np.abs(depth[use] - truth[use]) / truth[use])) if use.any() else float('nan')


def delta1(depth: np.ndarray, truth: np.ndarray) -> float:
    """Fraction of pixels whose depth is within a factor of 1.25 of the truth."""
    use = countable(depth, truth)
    ratio = depth[use] / truth[use]
    return float(np.mean(np.maximum(ratio, 1 / ratio) < 1.25)) if use.any() else float('nan')


def median_scale(depth: np.ndarray, truth: np.ndarray) -> float:
    """The median of truth / depth, the factor that aligns `depth` with the truth."""
    use = countable(depth, truth)
    return float(np.median(truth[use] / depth[use])) if use.any() else float('nan')


def best_constant(truth: np.ndarray) -> float:
    """The constant depth with the least abs_rel to `truth` (any shape): the median weighted by 1 / truth."""
    values = np.sort(truth[np.isfinite(truth) & (truth > 0)].astype(np.float64))
    if not len(values):
        return float('nan')
    weights = np.cumsum(1 / values)
    return float(values[np.searchsorted(weights, weights[-1] / 2)])


def angle_deg(cosine: float, sine: float) -> float:
    """Angle [deg] from its cosine and sine, up to a common factor; exact near 0 and 180."""
    return float(np.degrees(np.arctan2(sine, cosine)))


def rotation_error_deg(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Angle [deg] of the rotation between two poses (4, 4)."""
    turn = estimate[:3, :3].T @ truth[:3, :3]
    sine = np.linalg.norm([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
    return angle_deg(float(np.trace(turn) - 1) / 2, float(sine))


def direction_error_deg(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Angle [deg] between the translations of two poses (4, 4); NaN if one of them is zero."""
    a, b = estimate[:3, 3], truth[:3, 3]
    if not (np.linalg.norm(a) > 0 and np.linalg.norm(b) > 0):
        return float('nan')
    return angle_deg(float(a @ b), float(np.linalg.norm(np.cross(a, b))))


def psnr(picture: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio [dB] of pictures (H, W, 3) in [0, 1], over all channels in `mask` (H, W)."""
    if not mask.any():
        return float('nan')
    error = np.mean(np.square(picture[mask].astype(np.float64) - truth[mask]))
    return float(-10 * np.log10(max(error, MIN_MSE)))


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks; NaN if both are empty."""
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else float('nan')


def random_iou(fraction: float, count: int) -> float:
    """IoU expected for a name on `fraction` of the pixels if each gets one of `count` names at random."""
    both = fraction / count
    return both / (fraction + 1 / count - both)


def mean(groups: Sequence[Sequence[float]]) -> float | None:
    """Mean of all finite values; None (JSON's null) if there are none."""
    values = np.array([value for group in groups for value in group], np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def bootstrap_interval(groups: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of `mean(groups)`, from a bootstrap over whole groups.

    A group has the values of one image, because phrases of the same image are not independent. None for
    fewer than two groups with a finite value.
    """
    kept = [np.array(group, np.float64)[np.isfinite(group)] for group in groups]
    kept = [group for group in kept if len(group)]
    if len(kept) < 2:
        return None
    sums, counts = np.array([g.sum() for g in kept]), np.array([len(g) for g in kept])
    drawn = np.random.default_rng(seed).integers(len(kept), size=(DRAWS, len(kept)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def pooled_interval(
    groups: Sequence[np.ndarray], statistic: Callable[[np.ndarray], float], seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of `statistic` of all rows, for one that is no mean: whole groups are drawn,
    and their rows pooled.

    groups: arrays (n, ...) of the values of one pair each. Draws without a finite statistic do not count;
    None for fewer than two groups with a row.
    """
    kept = [group for group in groups if len(group)]
    if len(kept) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(kept), size=(DRAWS, len(kept)))
    values = np.array([statistic(np.concatenate([kept[i] for i in draw])) for draw in drawn])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def auc(scores: np.ndarray, present: np.ndarray) -> float:
    """Area under the ROC curve: how often a score (N,) of something `present` (N,) bool is higher than one of
    something absent, ties half; NaN without one of both.
    """
    there, absent = scores[present], scores[~present]
    if not (len(there) and len(absent)):
        return float('nan')
    return float((np.sign(np.subtract.outer(there, absent)) + 1).mean() / 2)


def calibration_error(scores: np.ndarray, present: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of scores (N,) in [0, 1], read as probabilities of being `present` (N,)
    bool: |mean score - share present| in each of `bins` of equal width, weighted by their numbers; NaN
    without scores (Guo et al. 2017, sec. 2).
    """
    if not len(scores):
        return float('nan')
    row = np.minimum((scores * bins).astype(int), bins - 1)
    surplus = np.bincount(row, scores, bins) - np.bincount(row, present.astype(float), bins)
    return float(np.abs(surplus).sum() / len(scores))


def at_keyframe(keyframe: Keyframe, truth: np.ndarray) -> np.ndarray:
    """`truth` of the input image (H, W, ...) at the pixels (h, w) of its rendering, nearest neighbour."""
    return nearest(truth, keyframe.to_input_pixel(pixel_grid(keyframe.camera.height, keyframe.camera.width)))


def nearest(values: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """`values` (H, W, ...) at the pixels nearest to `uv` (..., 2), clipped to the image."""
    u, v = np.rint(uv[..., 0]).astype(int), np.rint(uv[..., 1]).astype(int)
    return values[np.clip(v, 0, values.shape[0] - 1), np.clip(u, 0, values.shape[1] - 1)]


def only_branch(scene: Scene, branches: str) -> Scene:
    """The scene restricted to `branches`: 'both', 'region' (region-specific) or 'context' (context-aware).

    In a mixture, a single branch takes all the weight. Raises ValueError for other branches.
    """
    if branches not in BRANCHES:
        raise ValueError(f'branches {branches!r}: wanted one of {", ".join(BRANCHES)}')
    if branches == 'both':
        return scene
    hidden = replace(scene.keyframe.hidden_codes, only=BRANCHES.index(branches) - 1)  # 0 region, 1 context
    return replace(scene, keyframe=replace(scene.keyframe, hidden_codes=hidden))
