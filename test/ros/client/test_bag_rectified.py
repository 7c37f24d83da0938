"""Whether the images of a bag are rectified: said by the user, seen in them, or told by their names."""

import cv2
import numpy as np
import pytest

from gsemsplat_ros.datasets.demo_pairs import load_scene
from gsemsplat_ros.ros.client.bag_rectified import Rectified, tried
from gsemsplat_ros.ros.client.bag_topics import StereoTopics
from gsemsplat_ros.ros.client.player import stereo_messages
from gsemsplat_ros.ros.conversions import image_message, make_header

pytestmark = pytest.mark.usefixtures('own_environment')
# distortion of left and right, and how far each camera is turned [degrees]
KITTI = (
    [-0.3691481, 0.1968681, 0.001353473, 0.0005677587, -0.06770705],
    [-0.3639558, 0.1788651, 0.0006029694, -0.0003922424, -0.0538246],
    1.0,
)
BARREL = [-0.28, 0.07, 0.0003, 0.0001, 0.0], [-0.283, 0.074, -0.0001, 0.0002, 0.0], 0.5
FAINT = [-0.002, 0.0004, 0.0, 0.0, 0.0], [-0.002, 0.0004, 0.0, 0.0, 0.0], 0.0
NONE = [0.0] * 5, [0.0] * 5, 0.0


def named(left='/left/image', right='/right/image'):
    return StereoTopics((left, right), ('/left/camera_info', '/right/camera_info'), False)


def pictures(room, lens, raw):
    """Left and right messages of a packaged room, as they are (rectified) or as this lens saw them, and the
    camera_info of the lens."""
    messages = stereo_messages(load_scene(room).pair, 0)
    *distortions, degrees = lens
    images, infos = [], messages[:2]
    for number, (info, image, D) in enumerate(zip(infos, messages[2:], distortions)):
        P = np.reshape(info.p, (3, 4))[:, :3]
        turned, K = np.eye(3), P.copy()
        if degrees:
            axis = np.random.default_rng(number + 1).normal(size=3)
            turned = cv2.Rodrigues(axis / np.linalg.norm(axis) * np.deg2rad(degrees))[0]
            K[:2] *= 1.02
        info.d, info.k, info.r = D, K.ravel().tolist(), turned.ravel().tolist()
        if raw:
            pixels = np.reshape(image.data, (image.height, image.width, 3))
            grid = np.stack(np.meshgrid(np.arange(image.width), np.arange(image.height)), -1)
            uv = cv2.undistortPoints(grid.reshape(-1, 1, 2).astype(float), K, np.array(D), R=turned, P=P)
            uv = uv.reshape(grid.shape).astype(np.float32)
            image = image_message(cv2.remap(pixels, uv, None, cv2.INTER_LINEAR), make_header('left', 0))
        images.append(image)
    return tuple(images), tuple(infos)


@pytest.mark.parametrize('room', ['living_room', 'corridor', 'bedroom_chair'])
@pytest.mark.parametrize('lens', [KITTI, BARREL], ids=['KITTI', 'barrel'])
@pytest.mark.parametrize('raw', [True, False], ids=['raw', 'rectified'])
def test_the_reading_whose_rows_fit_wins_whatever_the_names_say(room, lens, raw):
    images, infos = pictures(room, lens, raw)
    for topics in named(), named('/left/image_rect', '/right/image_rect'):
        found = tried([images], infos, topics)
        assert found.value is not raw and found.reason.startswith('because matches differ by'), found


@pytest.mark.parametrize(
    'name, rectified',
    [
        ('/{}/image_rect', True),
        ('/camera/{}/image_rect_raw', True),
        ('/zed/{}/color/rect/image', True),
        ('/{}/image_rect_color', True),
        ('/{}/rectified', True),
        ('/{}/image_raw', False),
        ('/{}/image', False),
        ('/direct/{}/image', False),
        ('/rectory/{}/image_raw', False),
        ('/{}/unrectified', False),
    ],
)
def test_the_names_decide_where_the_pictures_do_not_tell(name, rectified):
    images, infos = pictures('desk', FAINT, raw=False)
    found = tried([images], infos, named(name.format('left'), name.format('right')))
    assert found.value is rectified
    assert found.reason.startswith(
        'by the names of their topics' if rectified else 'since their names do not'
    )
    assert '; the pictures do not tell (matches differ by' in found.reason


def test_pictures_without_matches_do_not_tell():
    images, infos = pictures('desk', KITTI, raw=False)
    height, step = images[1].height, images[1].step
    stripes = np.tile(np.arange(step) // 40 % 2 * 200, (height, 1)).astype(np.uint8)
    images[1].data = stripes.tobytes()
    found = tried([images], infos, named())
    assert found == Rectified(
        False, 'since their names do not say rect; the pictures do not tell (too few matches)'
    )


def test_a_dead_camera_is_said():
    images, infos = pictures('desk', KITTI, raw=False)
    images[1].data = bytes(len(images[1].data))
    with pytest.raises(ValueError, match='image is black'):
        tried([images], infos, named())


def test_a_camera_info_without_a_lens_leaves_no_doubt():
    images, infos = pictures('desk', NONE, raw=False)
    assert tried([images], infos, named()) == Rectified(
        True, 'because their camera_info has nothing to rectify'
    )


def test_images_that_cannot_be_rectified_are_rectified():
    images, infos = pictures('desk', NONE, raw=False)
    infos[0].distortion_model = 'unknown'
    found = tried([images], infos, named())
    assert found.value and 'they cannot be rectified: /left/camera_info has distortion_model' in found.reason
