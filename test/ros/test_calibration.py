"""camera_info to cameras, baselines and rectified images, against numbers worked out by hand or by
projection.
"""

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import RegionOfInterest
from support.ros_messages import HEADER, info

from gsemsplat_ros.ros import inputs, sources
from gsemsplat_ros.ros.calibration import Rectifier, baseline_of, camera_of
from gsemsplat_ros.ros.conversions import image_message
from gsemsplat_ros.ros.parameters import Parameters


def test_camera_from_info():
    camera = camera_of(info(), 640, 480)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (400, 410, 319.5, 239.5)
    empty_p = camera_of(info(P=[0.0] * 12), 640, 480)  # a monocular driver
    assert empty_p == camera


def test_camera_from_binned_and_cropped_info():
    roi = RegionOfInterest(x_offset=100, y_offset=40, width=320, height=240)
    camera = camera_of(info(roi=roi, binning_x=2, binning_y=2), 160, 120)
    assert (camera.width, camera.height, camera.fx, camera.fy) == (160, 120, 200, 205)
    # pixel 0 of the image averages columns 100 and 101: their middle, 100.5, is its centre
    assert camera.cx == pytest.approx((319.5 - 100.5) / 2)
    assert camera.cy == pytest.approx((239.5 - 40.5) / 2)


@pytest.mark.parametrize(
    'bad, words',
    [
        (info(K=[0.0] * 9), ['uncalibrated', 'K[0] = 0', 'calibrate']),
        (info(K=(float('nan'), 0, 1, 0, 1, 1, 0, 0, 1)), ['uncalibrated']),
        (info(width=1280, height=720), ['1280x720', '640x480']),
        (info(binning_x=2, binning_y=2), ['320x240', '640x480', 'binning']),
    ],
)
def test_camera_info_that_cannot_be_used(bad, words):
    with pytest.raises(ValueError) as error:
        camera_of(bad, 640, 480, '/left/camera_info')
    assert all(word in str(error.value) for word in words + ['/left/camera_info']), str(error.value)


def projection(tx, fx=400.0, cx=319.5, cy=239.5, ty=0.0):
    """camera_info of a rectified camera with P[3] = `tx`."""
    return info(P=(fx, 0, cx, tx, 0, fx, cy, ty, 0, 0, 1, 0))


def test_the_baseline_counts_both_projections():
    assert baseline_of(projection(0), projection(-48)) == pytest.approx(0.12)
    assert baseline_of(projection(44.0), projection(-4.0)) == pytest.approx(0.12)  # a rig of more cameras
    assert baseline_of(projection(-100.0), projection(-148.0)) == pytest.approx(0.12)
    assert baseline_of(projection(0), projection(-48, cx=330.0)) == pytest.approx(0.12)  # toed in


@pytest.mark.parametrize(
    'left, right, words',
    [
        (projection(0), projection(0), 'one by one'),
        (projection(0), projection(48), 'exchanged'),
        (projection(-48), projection(0), 'exchanged'),
        (projection(0), projection(-24056.0), 'is P\\[3\\] in millimetres'),
        (projection(0), projection(-8205.0, fx=400.0), 'is P\\[3\\] in centimetres'),
        (projection(0), projection(-0.0836), 'not multiplied by fx'),
        (projection(0), projection(-1e39), 'wanted 5 mm to 3 m'),
        (projection(0), projection(-48, fx=440.0), 'fx is 400 px on the left and 440 px on the right'),
        (projection(0), projection(-48, cy=260.0), 'cy is 239.5 px on the left and 260 px on the right'),
        (projection(0), projection(-48, cx=319.5 - 481), 'cx is 319.5 px on the left'),
        (projection(0), projection(-48, ty=40.0), 'side by side'),
    ],
)
def test_a_stereo_calibration_that_no_pair_has_is_refused_with_the_likely_reason(left, right, words):
    with pytest.raises(ValueError, match=words) as error:
        baseline_of(left, right, '/right/camera_info')
    assert '/right/camera_info' in str(error.value) and '\n' not in str(error.value)


def test_k_or_p_may_be_empty_where_rep_104_needs_the_other():
    zero, raw = [0.0] * 9, np.zeros((480, 640, 3), np.uint8)
    P = info().p
    assert camera_of(info(K=zero, P=P), 640, 480) == camera_of(info(), 640, 480)  # rectified: P alone
    with pytest.raises(ValueError, match=r'uncalibrated \(K\[0\] = 0'):  # raw: K too
        Rectifier()(raw, info(K=zero, P=P, D=(0.1, 0, 0, 0)), '/info')
    assert Rectifier()(raw, info(P=[0.0] * 12, D=(0.1, 0, 0, 0)), '/info').shape == raw.shape


@pytest.mark.parametrize(
    'bad, size, words',
    [
        (
            info(width=1280, height=960, binning_x=2, binning_y=2),
            (640, 480),
            'binning and roi were applied already',
        ),
        (
            info(
                K=(400.0, 0, 159.5, 0, 400.0, 119.5, 0, 0, 1),
                width=1280,
                height=960,
                roi=RegionOfInterest(x_offset=800, y_offset=600, width=320, height=240),
            ),
            (320, 240),
            'binning and roi were applied already',
        ),
        (
            info(roi=RegionOfInterest(x_offset=400, y_offset=0, width=320, height=240)),
            (320, 240),
            'outside its picture',
        ),
    ],
)
def test_binning_and_region_of_interest_that_are_applied_twice_are_refused(bad, size, words):
    with pytest.raises(ValueError, match=words):
        camera_of(bad, *size, '/info')


@pytest.mark.parametrize(
    'model, D',
    [
        ('plumb_bob', (-0.3, 0.1, 0.001, -0.002, 0.0)),
        ('rational_polynomial', (-0.3, 0.1, 0.001, -0.002, 0.0, 0.01, 0.0, 0.0)),
        ('equidistant', (-0.05, 0.01, 0.0, 0.0)),
    ],
)
def test_rectification_makes_the_pinhole_image(model, D):
    """Pixels of the rectified image are looked up at the raw pixels that the distortion model sends them
    to.
    """
    u, v = np.meshgrid(np.arange(640, dtype=np.float32), np.arange(480, dtype=np.float32))
    picture = np.dstack([u / 640 * 255, v / 480 * 255, np.zeros_like(u)]).astype(
        np.uint8
    )  # colour says where
    P = (350.0, 0, 300.0, 0, 0, 350.0, 230.0, 0, 0, 0, 1, 0)
    description = info(P=P, D=D, model=model)
    rectify = Rectifier()
    rectified = rectify(picture, description)
    points = np.array([[300.0, 230.0], [420.0, 300.0], [150.0, 140.0]])
    rays = np.column_stack([(points - (300, 230)) / 350, np.ones(3)])
    K = np.array(description.k).reshape(3, 3)
    project = cv2.fisheye.projectPoints if model == 'equidistant' else cv2.projectPoints
    raw_points = project(rays.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), K, np.array(D))[0].reshape(-1, 2)
    for (x, y), (raw_x, raw_y) in zip(points.astype(int), raw_points):
        np.testing.assert_allclose(rectified[y, x, :2], [raw_x / 640 * 255, raw_y / 480 * 255], atol=1.5)
    maps = rectify._maps
    rectify(picture, info(P=P, D=D, model=model))
    assert rectify._maps is maps  # the same calibration in a new message


@pytest.mark.parametrize('model, D', [('plumb_bob', ()), ('', ()), ('crooked_lens', (0.1,) * 5)])
def test_unknown_distortion_is_refused(model, D):
    with pytest.raises(ValueError, match='distortion_model.*plumb_bob.*equidistant.*rectified: true'):
        Rectifier()(np.zeros((480, 640, 3), np.uint8), info(D=D, model=model))


@pytest.mark.parametrize('rectified', [True, False])
def test_stereo_messages_become_a_pair(rectified):
    P = (350.0, 0, 300.0, 0, 0, 350.0, 230.0, 0, 0, 0, 1, 0)
    D = () if rectified else (-0.3, 0.1, 0.0, 0.0, 0.0)
    pixels = np.random.default_rng(9).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    messages_in = inputs.Input(
        images=(image_message(pixels, HEADER), image_message(pixels[::-1], HEADER)),
        infos=(info(P=P, D=D), info(P=P[:3] + (-42.0,) + P[4:], D=D)),
    )
    warnings = []
    source = sources.make_source(
        Parameters(rectified=rectified), [('/l', '/li'), ('/r', '/ri')], warnings.append
    )
    pair = source.pair(messages_in)
    assert pair.baseline_m == pytest.approx(0.12) and not warnings
    assert (pair.first.camera.fx, pair.first.camera.cx, pair.first.frame) == (350, 300, 'left_optical')
    assert pair.first.stamp_ns == 12_345_678_901
    expected = pixels if rectified else Rectifier()(pixels, info(P=P, D=D))
    np.testing.assert_array_equal(pair.first.image, expected)
    with pytest.raises(ValueError, match='no camera_info on /li yet'):
        source.pair(inputs.Input(messages_in.images, (None, None)))
