"""Boxes of answers against true ones, with numbers by hand."""

from dataclasses import replace

import numpy as np
import pytest
from support.evaluated_rooms import HEIGHT, WIDTH, FakePipeline, make_sample

from gsemsplat_ros.evaluation.boxes import box_iou, box_scores, boxes_of, true_boxes
from gsemsplat_ros.evaluation.held_out_rooms import evaluate_rooms
from gsemsplat_ros.semantics.objects import Object


def cube(x, side=1.0):
    return [[x, 0, 0], [x + side, side, side]]


def test_iou_by_hand():
    a = np.array([cube(0.0), cube(0.5), [[0, 0, 0], [1, 1, 0]]])
    b = np.array([cube(0.0), cube(0.0, 2.0), cube(5.0), [[0, 0, 0], [1, 1, 0]]])
    expected = [[1, 1 / 8, 0, 0], [1 / 3, 1 / 8, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(box_iou(a, b), expected)
    assert box_iou(a, np.zeros((0, 2, 3))).shape == (3, 0)


def test_boxes_of_objects_in_true_scale():
    things = [Object((1.0, 2.0, 3.0), (2.0, 2.0, 1.0), 0.9)]
    np.testing.assert_allclose(boxes_of(things, 2.0), [[[0, 2, 5], [4, 6, 7]]])
    assert boxes_of([]).shape == (0, 2, 3)


def test_true_boxes_are_of_the_visible_part_of_each_instance():
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(30.0)), -1)
    points = np.concatenate([grid, np.full((30, 40, 1), 2.0)], -1)
    instance = np.zeros((30, 40), int)
    instance[5:10, 3:9], instance[20:, 30:], instance[0, 0] = 1, 2, 3  # the third on a single pixel of 1200
    boxes = true_boxes(points, instance, (1, 2, 3, 4))
    np.testing.assert_allclose(boxes, [[[3, 5, 2], [8, 9, 2]], [[30, 20, 2], [39, 29, 2]]])
    assert true_boxes(points, instance, ()).shape == (0, 2, 3)


def test_each_true_box_is_found_once():
    true = np.array([cube(0.0), cube(3.0), cube(6.0)])
    found = np.array([cube(0.1), cube(0.0), cube(6.7), cube(3.5)])  # right, again, IoU 0.18, IoU 0.33
    assert box_scores(found, true) == {
        'box_precision': [1, 0, 0, 1],
        'box_recall': [1, 1, 0],
        'box_count_error': [1],
    }
    nothing = np.zeros((0, 2, 3))
    assert box_scores(nothing, true) == {'box_precision': [], 'box_recall': [0, 0, 0], 'box_count_error': [3]}
    assert box_scores(found[:1], nothing) == {'box_precision': [0], 'box_recall': [], 'box_count_error': [1]}


def test_rooms_score_the_boxes_of_found_names_in_true_scale():
    """A wall at 2 m and a chair before its left half at 1 m; the scene has half the true scale."""
    sample = make_sample(names=('void', 'wall', 'chair', 'lamp'))
    sample.instance[:, :, : WIDTH // 2] = 2
    sample.depth[:, :, : WIDTH // 2] = 1.0
    sample.depth[0, :2] += 0.5  # so that neither is flat
    points = sample.points(0)
    (chair,) = true_boxes(points, sample.instance[0], (2,)) / 2
    thing = Object(tuple(chair.mean(0)), tuple(chair[1] - chair[0]), 0.9)
    shard = Object((0.0, 0.0, 3.0), (0.1, 0.1, 0.1), 0.8)
    everywhere = np.ones((HEIGHT // 2, WIDTH // 2), np.float32)

    class Boxes(FakePipeline):
        def query(self, scene, text):
            answer = super().query(scene, text)
            return replace(answer, objects=(thing, shard) if text == 'chair' else ())

    depth = np.where(np.arange(WIDTH // 2) < WIDTH // 4, 0.5, 1.0)
    pipeline = Boxes(depth, answers={'chair': (everywhere, True), 'wall': (everywhere, False)})
    result = evaluate_rooms(pipeline, [sample])
    assert result['box_precision'] == pytest.approx(1 / 2)
    assert result['box_recall'] == 1 and result['box_count_error'] == 1  # the wall was not found
    nothing = evaluate_rooms(FakePipeline(depth), [sample])
    assert nothing['box_precision'] is None and nothing['box_count_error'] is None
