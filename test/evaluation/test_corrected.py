"""Words in annotated views: the published rule against plain loops, the corrected rule, LSM's eight
classes.
"""

import math

import numpy as np
import pytest
from support.plain_majority import plain_majority

from gsemsplat_ros.evaluation.corrected import EIGHT, class_of, evaluate_corrected, evaluate_eight, label_map
from gsemsplat_ros.evaluation.published import evaluate_frame

HEIGHT, WIDTH = 44, 52


def mirrored(i, count):
    """Where a row outside 0..count-1 is read from: the border mirrors without repeating itself."""
    return -i if i < 0 else 2 * (count - 1) - i if i >= count else i


def plain_smooth(map_):
    """Half the map and half its mean over 30 x 30, one pixel after the other."""
    height, width = map_.shape
    out = np.zeros_like(map_)
    for v in range(height):
        rows = [mirrored(r, height) for r in range(v - 15, v + 15)]
        for u in range(width):
            columns = [mirrored(c, width) for c in range(u - 15, u + 15)]
            out[v, u] = 0.5 * map_[v, u] + 0.5 * map_[np.ix_(rows, columns)].mean()
    return out


def plain_published(relevancy, truths, visible, threshold):
    """IoU and localisation of every phrase, as the published rule is worded (docs/published.md 30)."""
    scores = []
    for k, truth in enumerate(truths):
        maps = [plain_smooth(relevancy[head, k]) for head in range(2)]
        ious = []
        gt = plain_majority(truth) & visible
        for map_ in maps:
            z = map_ - map_.min()
            z = z / (z.max() + 1e-9)
            found = plain_majority(np.clip(2 * z - 1, 0, 1) > threshold) & visible
            ious.append((found & gt).sum() / (found | gt).sum() if gt.any() else None)
        if ious[0] is None:
            scores.append(None)
            continue
        chosen = 0 if maps[0].max() >= maps[1].max() else 1
        masked = [map_ * visible for map_ in maps]
        best = masked[0] if masked[0].max() >= masked[1].max() else masked[1]
        scores.append((ious[chosen], bool(gt[best == best.max()].any()), chosen))
    return scores


def blob(v, u, size, height=HEIGHT, width=WIDTH):
    y, x = np.mgrid[:height, :width]
    return np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * size**2))


def square(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


def inside(ring, height=HEIGHT, width=WIDTH):
    """A square of whole pixels, its last row and column included, as OpenCV fills it."""
    y, x = np.mgrid[:height, :width]
    return (x >= ring[0, 0]) & (x <= ring[2, 0]) & (y >= ring[0, 1]) & (y <= ring[2, 1])


def some_frame(seed):
    rng = np.random.default_rng(seed)
    rings = [square(6, 5, 24, 20), square(28, 18, 48, 40), square(2, 30, 12, 42)]
    relevancy = np.stack(
        [
            [
                0.3
                + 0.5 * rng.random() * blob(rng.uniform(5, 40), rng.uniform(5, 48), rng.uniform(4, 12))
                + 0.02 * rng.random((HEIGHT, WIDTH))
                for _ in rings
            ]
            for _ in range(2)
        ]
    ).astype(np.float64)
    visible = rng.random((HEIGHT, WIDTH)) < 0.97
    visible[:, :14] = seed % 2 == 0  # the third thing is out of sight in odd frames
    return relevancy, rings, visible


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('threshold', [0.5, 0.4])
def test_published_rule_is_the_plain_one(seed, threshold):
    relevancy, rings, visible = some_frame(seed)
    scores = evaluate_frame(relevancy, [[ring] for ring in rings], visible, threshold)
    plain = plain_published(relevancy, [inside(ring) for ring in rings], visible, threshold)
    for k, wanted in enumerate(plain):
        if wanted is None:
            assert math.isnan(scores.iou[k]) and not scores.localised[k]
        else:
            assert (scores.iou[k], scores.localised[k], scores.branch[k]) == (
                pytest.approx(wanted[0]),
                *wanted[1:],
            )
    assert sum(wanted is None for wanted in plain) == seed % 2


def test_the_threshold_of_langsplat_takes_more():
    relevancy, rings, visible = some_frame(0)
    strict, loose = (evaluate_frame(relevancy, [[ring] for ring in rings], visible, t) for t in (0.5, 0.4))
    assert (loose.found.sum((1, 2)) > strict.found.sum((1, 2))).all()


def test_what_was_compared_is_handed_out():
    relevancy, rings, visible = some_frame(0)
    scores = evaluate_frame(relevancy, [[ring] for ring in rings], visible)
    for k in range(3):
        both, either = scores.found[k] & scores.truth[k], scores.found[k] | scores.truth[k]
        assert scores.iou[k] == both.sum() / either.sum()
        assert scores.localised[k] == any(scores.truth[k][y, x] for x, y in scores.peaks[k]) and len(
            scores.peaks[k]
        )


def corrected(relevancy, ring, visible=None, alpha=None):
    visible = np.ones((HEIGHT, WIDTH), bool) if visible is None else visible
    return evaluate_corrected(relevancy[:, None].astype(np.float32), [[ring]], visible, alpha)


RING = square(10, 10, 29, 29)


def test_what_is_out_of_sight_neither_wins_nor_sets_the_range():
    map_ = np.where(inside(RING), 0.8, 0.2)
    map_[:, 45:] = 0.99  # a louder place that no input view saw
    visible = np.ones((HEIGHT, WIDTH), bool)
    visible[:, 45:] = False
    scores = corrected(map_[None], RING, visible)
    assert scores.localised[0] and scores.iou[0] > 0.9
    published = evaluate_frame(map_[None, None].astype(np.float32), [[RING]], visible)
    assert published.iou[0] < 0.5, 'the published rule measures the hidden place'
    drawn = np.where(visible, 1.0, 0.2)  # not rendered is like not seen
    assert corrected(map_[None], RING, None, drawn).iou[0] > 0.9


def test_truth_that_was_not_rendered_is_missed():
    map_, drawn = np.where(inside(RING), 0.8, 0.2), np.ones((HEIGHT, WIDTH))
    drawn[:20] = 0.0
    scores = corrected(map_[None], RING, None, drawn)
    assert scores.truth[0].sum() == 400 and 0.4 < scores.iou[0] < 0.55


def test_a_weak_peak_is_not_found():
    weak = np.where(inside(RING), 0.45, 0.2)
    scores = corrected(weak[None], RING)
    assert scores.iou[0] == 0 and not scores.found.any() and scores.localised[0]
    assert (
        evaluate_frame(weak[None, None].astype(np.float32), [[RING]], np.ones((HEIGHT, WIDTH), bool)).iou[0]
        > 0.8
    ), 'the published rule finds everything everywhere'


def test_one_head_answers_for_both_numbers():
    loud, right = np.full((HEIGHT, WIDTH), 0.2), np.where(inside(RING), 0.8, 0.2)
    loud[:, 45:] = 0.95
    visible = np.ones((HEIGHT, WIDTH), bool)
    visible[:, 45:] = False
    scores = corrected(np.stack([loud, right]), RING, visible)
    assert scores.branch[0] == 1 and scores.iou[0] > 0.9 and scores.localised[0]
    published = evaluate_frame(np.stack([loud, right])[:, None].astype(np.float32), [[RING]], visible)
    assert published.branch[0] == 0 and published.localised[0], 'two branches answer there'


def test_the_corrected_box_shifts_nothing():
    map_ = np.zeros((HEIGHT, WIDTH))
    map_[22, 26] = 1.0
    around = corrected(map_[None], RING).maps[0, 0] > 0
    assert np.argwhere(around).mean(0) == pytest.approx([22, 26])


def test_nothing_visible_and_nothing_rendered():
    map_ = np.where(inside(RING), 0.8, 0.2)[None]
    assert math.isnan(corrected(map_, RING, np.zeros((HEIGHT, WIDTH), bool)).iou[0])
    assert corrected(map_, RING, None, np.zeros((HEIGHT, WIDTH))).iou[0] == 0


@pytest.mark.parametrize(
    'category, name',
    [
        ('office chair', 'chair'),
        ('Wall', 'wall'),
        ('coffee table', 'table'),
        ('couch', 'sofa'),
        ('storage cabinet', 'other'),
        ('bed', 'bed'),
        ('table lamp', 'other'),
        ('ceiling', 'ceiling'),
        ('ceiling lamp', 'other'),
    ],
)
def test_classes(category, name):
    assert EIGHT[class_of(category)] == name


def test_eight_classes_by_hand():
    wall, chair = square(0, 0, 19, 19), square(0, 0, 9, 19)  # the chair stands before the wall
    polygons = {'office chair': [chair], 'wall': [wall]}
    labels = label_map(polygons, HEIGHT, WIDTH)
    assert (labels[:20, :10] == EIGHT.index('chair')).all() and (
        labels[:20, 10:20] == EIGHT.index('wall')
    ).all()
    assert (labels[20:] == -1).all() and (labels[:, 20:] == -1).all()
    relevancy = np.full((2, 8, HEIGHT, WIDTH), 0.1)
    relevancy[0, EIGHT.index('wall')] = 0.5  # head 0 says wall everywhere
    relevancy[1, EIGHT.index('chair'), :10, :10] = 0.9  # head 1 is surer of half a chair
    relevancy[1, EIGHT.index('bed'), 10:, :5] = 0.8  # and takes a quarter of it for a bed
    visible = np.ones((HEIGHT, WIDTH), bool)
    visible[0] = False
    scores = evaluate_eight(relevancy, polygons, visible)
    wall_iou, chair_iou = 190 / (190 + 50), 90 / 190
    assert scores['accuracy'] == pytest.approx((190 + 90) / 380)
    assert scores['miou'] == pytest.approx((wall_iou + chair_iou + 0) / 3), (
        'the bed was said, and is not there'
    )
    assert evaluate_eight(relevancy, polygons, np.zeros((HEIGHT, WIDTH), bool)) == {
        'miou': None,
        'accuracy': None,
    }
