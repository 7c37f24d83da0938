"""The reader of labelled pairs: every member, what contradicts another, and the labels for development."""

import json
import logging
import math

import cv2
import numpy as np
import pytest
from support.labelled_pairs import HEIGHT, WIDTH, copy_development_labels, development_folder, write_labels

from gsemsplat_ros.evaluation.pair_labels import LabelledObject, read_labels

SECOND, MOTION = ('pairs', 1, 'second_camera'), ('pairs', 1, 'second_from_first')
CAMERA = {'fx': 20, 'fy': 21.0, 'cx': 15.5, 'cy': 7.5}


def moved(x=0.0, scale=1.0):
    """A motion along x, or a matrix that is none, as it stands in labels."""
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[0, 3] = x
    return matrix.tolist()


def wrong(*keys, value=None):
    """A change of the labels: the value at `keys`, removed when None."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        if value is None:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return change


def several(*changes):
    """Changes of the labels one after the other."""

    def change(content):
        for each in changes:
            each(content)

    return change


@pytest.mark.parametrize(
    'change, words',
    [
        (wrong('pairs'), 'pairs is missing'),
        (wrong('pairs', value=[]), r'pairs is \[\]: wanted at least one pair'),
        (wrong('pairs', value='a'), r'pairs is "a": wanted a list'),
        (wrong('pairs', 1, value=3), r'pairs\[1\] is 3: wanted an object'),
        (wrong('pairs', 1, 'first'), r'pairs\[1\].first is missing'),
        (wrong('pairs', 1, 'first', value='no.png'), r'pairs\[1\].first: no image at .*no.png'),
        (
            wrong('pairs', 1, 'second', value='labels.json'),
            r'pairs\[1\].second: .*cannot be read as an image',
        ),
        (wrong('pairs', 0, 'camera', 'cy'), r'pairs\[0\].camera.cy is missing'),
        (wrong('pairs', 0, 'camera', 'fx', value='2'), r'camera.fx is "2": wanted a positive number'),
        (wrong('pairs', 0, 'baseline', value=-1), r'baseline is -1: wanted a'),
        (wrong('pairs', 0, 'camera', 'cx', value=math.nan), r'camera.cx is NaN: wanted a number'),
        (wrong('pairs', 0, 'camera', 'cx', value=True), r'camera.cx is true: wanted a number'),
        (wrong('pairs', 0, 'disparity', value='no.npz'), r'pairs\[0\].disparity: no disparity at .*no.npz'),
        (wrong('pairs', 0, 'disparity', value='a_left.png'), r'\[0\].disparity: .*cannot be read as an .npz'),
        (wrong('pairs', 0, 'disparity', value='small.npz'), r'is "small.npz": wanted an array of \(16, 32\)'),
        (wrong('pairs', 0, 'disparity', value='text.npz'), r'disparity: .*its first array is <U1 \(1,\)'),
        (
            wrong('pairs', 0, 'disparity', value='array.npy'),
            r'pairs\[0\].disparity: .*cannot be read as an .npz',
        ),
        (
            wrong('pairs', 0, 'objects', 1, 'text', value=' '),
            r's\[0\].objects\[1\].text is " ": wanted words',
        ),
        (wrong('pairs', 0, 'objects', 0, 'text', value='x' * 201), r'\[0\].text is "x+\.\.\.: wanted words'),
        (wrong('pairs', 0, 'objects', 0, 'boxes'), r'pairs\[0\].objects\[0\].boxes is missing'),
        (
            wrong('pairs', 0, 'objects', 0, 'boxes', 0, value=[4, 2, 12]),
            r'\[0\].boxes\[0\] is \[4, 2, 12\]: wanted \[x0, y0',
        ),
        (
            wrong('pairs', 0, 'objects', 0, 'boxes', 0, value=[12, 2, 4, 10]),
            r'boxes\[0\] is \[12, 2, 4, 10\]: wanted \[x0',
        ),
        (wrong('pairs', 0, 'objects', 0, 'boxes', 0, value=[4, 2, 33, 10]), r'inside the 32 x 16 image'),
        (
            wrong('pairs', 0, 'objects', 0, 'boxes', 0, value=[4, 2, 'a', 9]),
            r'\[0\].boxes\[0\]\[2\] is "a": wanted a number',
        ),
        (wrong('pairs', 1, 'absent', 0, value=7), r'pairs\[1\].absent\[0\] is 7: wanted words'),
        (wrong('pairs', 0, 'objects', 0, 'boxes', value=[]), r'boxes is \[\]: wanted at least one box'),
        (wrong('pairs', 0, 'absent', 1, value='door'), r'absent\[1\] is "door": .* among the objects too'),
        (wrong('pairs', 1, 'camera'), r'pairs\[1\].baseline is 0.2: wanted the camera'),
        (wrong('pairs', 0, 'baseline'), r'pairs\[0\].disparity is "a_disparity.npz": wanted a "baseline"'),
        (
            several(wrong('pairs', 1, 'baseline'), wrong('pairs', 1, 'doffs', value=3.0)),
            r'pairs\[1\].doffs is 3.0: wanted a "baseline"',
        ),
        (
            several(wrong(*SECOND, value=CAMERA), wrong('pairs', 1, 'baseline'), wrong('pairs', 1, 'camera')),
            r'pairs\[1\].second_camera is \{.*: wanted the camera of the first image',
        ),
        (wrong('pairs', 1, 'camera', 'baseline', value=0.1), r'camera.baseline is 0.1: wanted only fx, fy'),
        (wrong('pairs', 1, 'camera', 'cx', value=40.5), r'cx is 40.5: wanted a point inside the 32 x 16'),
        (
            wrong(*SECOND, value=dict(CAMERA, fy=30.0)),
            r'second_camera is .*: wanted the camera of a rectified',
        ),
        (
            several(wrong(*SECOND, value=CAMERA), wrong('pairs', 1, 'doffs', value=3.0)),
            r'second_camera is .*: wanted the camera of a rectified',
        ),
        (wrong(*MOTION, value=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]), r'second_from_first is .*: wanted 4 rows'),
        (wrong(*MOTION, value=moved(scale=1.1)), r'second_from_first is .*: wanted a rigid motion'),
        (wrong(*MOTION, value=np.diag([-1.0, 1, 1, 1]).tolist()), r'second_from_first .* a rigid motion'),
        (wrong(*MOTION, value=moved(0.2)), r'wanted the motion of a rectified pair: .* -0.2 m along x'),
    ],
)
def test_wrong_labels(tmp_path, change, words):
    np.savez(tmp_path / 'small.npz', np.ones((HEIGHT, WIDTH - 1)))
    np.savez(tmp_path / 'text.npz', np.array(['a']))
    np.save(tmp_path / 'array.npy', np.ones((HEIGHT, WIDTH)))
    path = write_labels(tmp_path, change)
    with pytest.raises(ValueError, match=words) as caught:
        read_labels(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def free(content):
    """The second pair as free views, with its motion."""
    del content['pairs'][1]['baseline']
    content['pairs'][1]['second_from_first'] = [[0, -1, 0, 0.5], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_free_views(tmp_path):
    labelled = read_labels(write_labels(tmp_path, free))[1]
    assert labelled.pair.baseline_m is None and labelled.depth is None
    assert labelled.pair.first.camera == labelled.pair.second.camera
    assert labelled.first_from_second[:3, 3] == pytest.approx([0, 0.5, 0])  # -R^T t
    second = dict(CAMERA, fx=18)
    labelled = read_labels(write_labels(tmp_path, several(free, wrong(*SECOND, value=second))))[1]
    assert (labelled.pair.first.camera.fx, labelled.pair.second.camera.fx) == (20, 18)


def test_images_alone(tmp_path):
    def bare(content):
        content['pairs'] = [{'first': 'a_left.png', 'second': 'b_right.png'}]

    [labelled] = read_labels(write_labels(tmp_path, bare))
    assert labelled.pair.first.camera is labelled.pair.second.camera is labelled.pair.baseline_m is None
    assert labelled.first_from_second is labelled.depth is None
    assert labelled.objects == labelled.absent == ()


def test_rectified_pairs_know_their_motion(tmp_path):
    for change in (None, wrong(*MOTION, value=moved(-0.205)), wrong(*SECOND, value=dict(CAMERA, cx=17.5))):
        labelled = read_labels(write_labels(tmp_path, change))[1]
        assert labelled.first_from_second[:3, 3] == pytest.approx([0.2, 0, 0], abs=0.006)
    assert labelled.pair.second.camera.cx == 17.5


def test_boxes_of_one_text_are_one_object(tmp_path):
    def twice(content):
        content['pairs'][0]['objects'][1]['text'] = 'chair'

    [thing] = read_labels(write_labels(tmp_path, twice))[0].objects
    assert thing == LabelledObject('chair', ((4, 2, 12, 10), (16, 0, 32, 16)))


def test_boxes():
    thing = LabelledObject('chair', ((0, 0, 4, 2), (2, 1, 6, 3), (10, 10, 11, 12), (0, 0, 1, 1)))
    assert thing.area == 8 + 8 - 2 + 2
    assert [thing.contains(p) for p in ((4, 2), (6, 0), (10.5, 11), (0, 3), None)] == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_unknown_members_are_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, 'gsemsplat_ros'):
        read_labels(write_labels(tmp_path, wrong('pairs', 1, 'abset', value=['bed'])))
    [record] = caplog.records
    assert 'labels.json: abset of its pairs not read: known are first, second,' in record.getMessage()


def test_two_sizes(tmp_path):
    cv2.imwrite(str(tmp_path / 'wide.png'), np.zeros((HEIGHT, 2 * WIDTH), np.uint8))
    wide = wrong('pairs', 1, 'second', value='wide.png')
    with pytest.raises(ValueError, match='two sizes need a "second_camera"'):
        read_labels(write_labels(tmp_path, several(free, wide)))
    second = dict(CAMERA, cx=31.5)
    labelled = read_labels(write_labels(tmp_path, several(free, wide, wrong(*SECOND, value=second))))[1]
    assert labelled.pair.second.camera.width == 2 * WIDTH
    with pytest.raises(ValueError, match='a baseline makes the pair rectified'):
        read_labels(write_labels(tmp_path, several(wide, wrong(*SECOND, value=CAMERA))))


def test_sizes_that_differ(tmp_path):
    path = write_labels(tmp_path)
    cv2.imwrite(str(tmp_path / 'b_right.png'), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    with pytest.raises(ValueError, match=r'pairs\[1\].second is "b_right.png": .* 32 x 16, got 33 x 16'):
        read_labels(path)


@pytest.mark.parametrize(
    'content, words',
    [
        (None, 'no labels at'),
        (b'[]', 'the content is'),
        (b'{"pairs": [', 'cannot be read as JSON'),
        (b'\xff\xfe\x00', 'cannot be read as JSON'),
    ],
)
def test_no_labels(tmp_path, content, words):
    path = tmp_path / 'labels.json'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_labels(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_unreadable_labels(tmp_path):
    with pytest.raises(ValueError, match='cannot be read as JSON'):
        read_labels(tmp_path)


def test_principal_points_may_differ(tmp_path):
    """Middlebury's doffs: depth = fx * baseline / (disparity + doffs), and the pipeline is told."""

    def shift(content):
        content['pairs'][0]['doffs'] = 4.0

    labelled = read_labels(write_labels(tmp_path, shift))[0]
    assert labelled.pair.second.camera.cx == 19.5 and labelled.pair.first.camera.cx == 15.5
    assert labelled.depth[0, 0] == pytest.approx(0.5) and labelled.depth[0, 20] == pytest.approx(20 * 0.2 / 6)
    assert np.isnan(labelled.depth[10, 30])


def test_development_labels(tmp_path):
    pytest.importorskip('stereodemo')
    oak = json.loads((development_folder() / 'stereodemo_calibration.json').read_text())
    pairs = read_labels(copy_development_labels(tmp_path))
    assert [pair.name for pair in pairs] == [
        f'{name}_left.png' for name in ('bedroom_chair', 'desk', 'kid_bedroom', 'living_room')
    ]
    for pair in pairs:
        camera = pair.pair.first.camera
        assert [camera.fx, camera.fy, camera.cx, camera.cy] == [oak['fx'], oak['fy'], oak['cx0'], oak['cy']]
        assert pair.pair.baseline_m == oak['baseline_meters']
        assert 3 <= len(pair.objects) <= 5 and len(pair.absent) == 3
        assert not {thing.text for thing in pair.objects} & set(pair.absent)
        # the cameras see nothing beyond column 611: what stands there repeats it
        for thing in pair.objects:
            assert max(x1 for _, _, x1, _ in thing.boxes) <= 611 and thing.area < 640 * 480 / 2, thing.text
