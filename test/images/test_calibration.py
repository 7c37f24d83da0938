"""Which calibrations are believed: numbers of real cameras pass, other units and sizes are refused."""

import math

import numpy as np
import pytest

from gsemsplat_ros.images.calibration import check_calibration, doubt_baseline, doubt_camera, doubt_pair
from gsemsplat_ros.images.camera import Camera


@pytest.mark.parametrize(
    'camera',
    [
        Camera(640, 480, 451.0, 451.0, 319.5, 239.5),
        Camera(2964, 2000, 3979.9, 3979.9, 1244.8, 1019.5),  # Middlebury 2014, Motorcycle
        Camera(1242, 375, 721.5, 721.5, 609.6, 172.9),  # KITTI
        Camera(640, 512, 6000.0, 6000.0, 319.5, 255.5),  # thermal, 6 degrees
        Camera(1280, 720, 300.0, 300.0, 639.5, 359.5),  # a wide lens rectified, 130 degrees
        Camera(720, 576, 820.0, 750.0, 359.5, 287.5),  # PAL
    ],
)
def test_cameras_that_exist_are_believed(camera):
    assert doubt_camera(camera) is None
    assert doubt_pair(camera, camera) is None


@pytest.mark.parametrize(
    'numbers, words',
    [
        ((0.7, 0.9, 0.5, 0.5), 'normalised units'),
        ((math.inf, 400, 319.5, 239.5), 'finite'),
        ((400, 400, math.nan, 239.5), 'finite'),
        ((400, 800, 319.5, 239.5), 'fx and fy'),
        ((20, 20, 319.5, 239.5), 'field of view of 173 degrees'),
        ((1e6, 1e6, 319.5, 239.5), 'field of view'),
        ((800, 800, 639.5, 479.5), 'another image size'),
        ((200, 200, 159.5, 119.5), 'another image size'),
        ((400, 400, 1e300, 239.5), 'principal point'),
    ],
)
def test_numbers_that_no_camera_has_are_refused_in_one_line(numbers, words):
    with pytest.raises(ValueError, match=words) as error:
        check_calibration(Camera(640, 480, *numbers))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('cx, cy', [(-2.7e107, 99.5), (99.5, 1e300), (1000.0, 99.5), (99.5, -801.0)])
def test_a_part_of_a_picture_is_not_seen_from_the_side(cx, cy):
    assert doubt_camera(Camera(200, 200, 200.0, 200.0, -400.0, 300.0), whole=False) is None
    assert 'degrees off the axis, wanted at most 75' in doubt_camera(
        Camera(200, 200, 200.0, 200.0, cx, cy), whole=False
    )


def test_baselines_between_millimetres_and_metres_are_believed():
    assert not any(map(doubt_baseline, (0.005, 0.05, 0.12, 0.54, 3.0)))
    assert 'in millimetres?' in doubt_baseline(75.0) and 'in centimetres?' in doubt_baseline(8.95)
    assert 'multiplied by fx' in doubt_baseline(0.0836 / 696.8, 696.8)
    assert 'exchanged?' in doubt_baseline(-0.1) and 'one by one?' in doubt_baseline(0.0)
    assert all(doubt_baseline(wrong) for wrong in (1e39, math.inf, math.nan, 1e-9))


def test_a_rectified_pair_may_differ_in_cx_alone():
    left = Camera(2964, 2000, 3979.9, 3979.9, 1244.8, 1019.5)
    assert doubt_pair(left, Camera(2964, 2000, 3979.9, 3979.9, 1369.1, 1019.5)) is None  # doffs 124 px
    for name, value in (('fx', 4100.0), ('fy', 4100.0), ('cy', 1060.0), ('cx', 2200.0), ('cx', np.nan)):
        other = Camera(**{**left.__dict__, name: value})
        assert doubt_pair(left, other).startswith(f'{name} is ')
