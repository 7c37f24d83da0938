"""The map from above, and the boxes drawn over the robot's images."""

import io

import numpy as np
from PIL import Image

from gsemsplat_ros.pictures.top_view import EMPTY, TopView
from gsemsplat_ros.semantics.objects import Object
from gsemsplat_ros.simulation.film import LARGEST, WIDTH, Mark, Shot, film, marked, seen_from_above
from gsemsplat_ros.simulation.robot import stereo_camera

VIEW = TopView(np.array([0.0, 0.0]), np.array([4.0, 2.0]), 10.0)


def test_the_highest_below_the_ceiling_is_seen_at_its_place():
    points = np.array([[1.05, 0.55, 0.0], [1.05, 0.55, 1.0], [1.05, 0.55, 2.5], [3.95, 1.95, 0.5], [9, 9, 0]])
    colors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 1, 1.0]])
    image = VIEW.picture(points, colors, 0.1)
    assert image.shape == (20, 40, 3)
    assert image[14, 10].tolist() == [0, 255, 0]  # y up: row 19 - 5
    assert image[0, 39].tolist() == [255, 255, 255]
    image[14, 10] = image[0, 39] = EMPTY
    assert (image == EMPTY).all(), 'nothing else, not even from outside'
    np.testing.assert_allclose(VIEW.pixels(np.array([[1.05, 0.55], [1.05, 1.85]])), [[10, 14], [10, 1]])


def test_a_point_covers_its_width():
    image = VIEW.picture(np.array([[2.0, 1.0, 0.0]]), np.array([[1.0, 1, 1]]), 0.4)
    assert ((image == 255).all(2).sum(0) > 0).sum() == 4 and ((image == 255).all(2).sum(1) > 0).sum() == 4


def test_a_box_is_drawn_where_the_camera_sees_it():
    """A thing 2 m ahead of a robot at (1, 1) that looks along +y, half a metre to its right."""
    camera, image = stereo_camera(400, 300), np.full((300, 400, 3), 90, np.uint8)
    pose = np.array([1.0, 1.0, np.pi / 2])
    thing = Object((1.5, 3.0, 1.1), (0.4, 0.4, 0.4), 0.9)
    drawn = marked(image, camera, pose, Mark(thing, 'cup'))
    assert (drawn != image).any()
    changed = np.argwhere((drawn != image).any(2)[140:]) + [140, 0]  # the label is above
    # near face 1.8 m away; the left camera stands 6 cm to the left
    left, right = (camera.fx * (x + 0.06) / 1.8 + camera.cx for x in (0.3, 0.7))
    assert abs(changed[:, 1].min() - min(left, camera.fx * 0.36 / 2.2 + camera.cx)) < 5
    assert abs(changed[:, 1].max() - right) < 5
    assert abs(changed[:, 0].max() - (camera.fy * 0.2 / 1.8 + camera.cy)) < 5
    behind = marked(image, camera, np.array([1.0, 5.0, np.pi / 2]), Mark(thing, 'cup'))
    assert (behind == image).all()


def test_what_was_found_is_lit_in_the_map():
    view = TopView(VIEW.low, VIEW.high, 60.0)
    points = np.array([[1.0, 0.5, 0.5], [3.0, 1.5, 0.5]])
    colors, path = np.full((2, 3), 0.5), np.array([[3.5, 0.5, 0.0]])
    mark = Mark(Object((1.0, 0.5, 0.5), (0.9, 0.5, 0.4), 1.0), 'x')
    plain, lit = (seen_from_above(view, points, colors, 0.1, path, marks) for marks in ((), [mark]))
    assert plain[30, 180].tolist() == lit[30, 180].tolist() == [128, 128, 128]
    assert lit[90, 60, 0] > 180 > plain[90, 60, 0] and lit[90, 60, 2] < plain[90, 60, 2]
    assert (colors == 0.5).all()


def test_the_film_is_an_animation_with_its_times():
    rng = np.random.default_rng(0)
    shots = [
        Shot(rng.integers(0, 255, (96, 128, 3), np.uint8), plain, 'a title', 'a detail', 0.1 * k)
        for k, plain in enumerate(rng.integers(0, 255, (3, 90, 100, 3), np.uint8), 1)
    ]
    data = film(shots)
    assert len(data) < LARGEST
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == 3 and opened.size[0] == WIDTH
        seconds = []
        for k in range(3):
            opened.seek(k)
            opened.load()
            seconds.append(opened.info['duration'])
        assert seconds == [100, 200, 300]
