"""Camera paths: where they stand, where they look, that they are smooth, and the published one pose for
pose.
"""

import math
import re

import numpy as np
import pytest

from gsemsplat_ros.commands.infer import PATHS
from gsemsplat_ros.flight.paths import FRAMES, PRESETS, around, camera_path, looking

DISTANCE = 2.5


def positions(path):
    return path.start_from_camera[:, :3, 3]


def steps(path):
    """Movements and turns [rad] from pose to pose; but for the published path, the last to the first too."""
    poses = path.start_from_camera
    relative = np.linalg.inv(poses) @ np.roll(poses, -1, axis=0)
    relative = relative[:-1] if path.name == 'published' else relative
    cosines = (np.trace(relative[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    return np.linalg.norm(relative[:, :3, 3], axis=1), np.arccos(np.clip(cosines, -1, 1))


@pytest.mark.parametrize('preset', PRESETS)
def test_poses_are_upright_cameras(preset):
    path = camera_path(preset, DISTANCE)
    rotations = path.start_from_camera[:, :3, :3]
    assert path.name == preset and path.start_from_camera.shape == (len(path), 4, 4)
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotations), 1) and (path.start_from_camera[:, 3] == (0, 0, 0, 1)).all()
    assert np.allclose(rotations[:, 1, 0], 0), "the picture's horizontal is the scene's"
    assert (rotations[:, 1, 1] > 0.9).all(), 'nothing hangs upside down'


@pytest.mark.parametrize('preset', [name for name in PRESETS if name != 'published'])
def test_paths_look_at_the_pivot_and_close(preset):
    path = camera_path(preset, DISTANCE)
    assert len(path) == FRAMES and path.seconds == 3.0
    seen = np.linalg.inv(path.start_from_camera) @ (0, 0, DISTANCE, 1)
    assert np.allclose(seen[:, :2], 0, atol=1e-12) and (seen[:, 2] > 0).all(), (
        'the pivot stays in the middle, ahead'
    )
    moves, turns = steps(path)
    # the longest of 48 steps of a sine is pi / 2 times the mean one; a jump would be many times that
    assert moves.max() < 1.7 * moves.mean() and turns.max() < math.radians(3)
    assert moves.sum() > 0.3 * DISTANCE


@pytest.mark.parametrize('preset', [name for name in PRESETS if name != 'published'])
def test_a_path_grows_with_its_distance(preset):
    near, far = camera_path(preset, 1.0), camera_path(preset, 3.0)
    assert np.allclose(positions(far), 3 * positions(near))
    assert np.allclose(far.start_from_camera[:, :3, :3], near.start_from_camera[:, :3, :3])


def test_arc_by_value():
    path = camera_path('arc', DISTANCE)
    assert np.allclose(path.start_from_camera[0], np.eye(4)), 'it begins at the camera of the scene'
    quarter = path.start_from_camera[FRAMES // 4]  # furthest to the right
    angle = math.radians(12)
    assert np.allclose(quarter[:3, 3], (DISTANCE * math.sin(angle), 0, DISTANCE * (1 - math.cos(angle))))
    assert np.allclose(quarter[:3, 2], (-math.sin(angle), 0, math.cos(angle))), (
        'and looks to the left from there'
    )
    assert np.allclose(positions(path)[3 * FRAMES // 4] * (-1, 1, 1), quarter[:3, 3])
    assert np.allclose(np.linalg.norm(positions(path) - (0, 0, DISTANCE), axis=1), DISTANCE)


def test_orbit_by_value():
    path = camera_path('orbit', DISTANCE)
    right, below = positions(path)[0], positions(path)[FRAMES // 4]
    tilt = math.radians(6)
    assert np.allclose(right, (DISTANCE * math.sin(tilt), 0, DISTANCE * (1 - math.cos(tilt))))
    assert np.allclose(below, (0, DISTANCE * math.sin(tilt), DISTANCE * (1 - math.cos(tilt))))
    assert np.allclose(steps(path)[0], steps(path)[0][0]), 'as fast everywhere'


def test_dolly_by_value():
    path = camera_path('dolly', DISTANCE)
    assert np.allclose(path.start_from_camera[0], np.eye(4))
    assert np.allclose(positions(path)[FRAMES // 2], (0, 0, 0.3 * DISTANCE)), 'at most 30 % of the way'
    assert np.allclose(path.start_from_camera[:, :3, :3], np.eye(3))


def test_published_path_by_value():
    """docs/published.md 25: 18 poses from -16 to 18 degrees, radius 1e-4, f 582.69 px, centre (256, 256),
    16 a second.
    """
    path = camera_path('published', DISTANCE)
    assert len(path) == 18 and path.fps == 16.0
    assert np.allclose(path.start_from_camera[8, :3, :3], np.eye(3)), 'azimuth 0 looks along +z'
    ahead = path.start_from_camera[:, :3, 2]
    assert np.allclose(np.degrees(np.arctan2(ahead[:, 0], ahead[:, 2])), np.arange(-16, 19, 2))
    assert np.allclose(ahead[:, 1], 0) and np.allclose(positions(path), 1e-4 * ahead)
    assert np.allclose(np.degrees(steps(path)[1]), 2)
    camera = path.camera
    assert (camera.width, camera.height, camera.fx, camera.fy) == (512, 512, 582.69, 582.69)
    # (256, 256) from the corner of the picture: half of it lies on either side
    assert camera.cx == camera.cy == 255.5 == (camera.width - 1) / 2


def test_around_is_where_the_angle_says():
    left, middle, right = around(2.0, (-10, 0, 10))
    assert np.allclose(middle, np.eye(4))
    for pose, side in ((left, -1), (right, 1)):
        assert np.allclose(np.linalg.inv(pose) @ (0, 0, 2, 1), (0, 0, 2, 1)), (
            'the pivot is as far away as before'
        )
        assert np.allclose(
            pose[:3, 3], (side * 2 * math.sin(math.radians(10)), 0, 2 - 2 * math.cos(math.radians(10)))
        )


def test_looking_puts_the_target_ahead():
    pose = looking(np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 3.0]))
    seen = np.linalg.inv(pose) @ (0, 1, 3, 1)
    assert np.allclose(seen[:3], (0, 0, math.sqrt(1 + 9 + 6.25)))


@pytest.mark.parametrize(
    'preset, distance, said',
    [
        ('spiral', 1.0, "no camera path 'spiral': wanted one of arc, orbit, dolly, published"),
        ('arc', 0.0, 'something 0 away: wanted a distance above zero'),
        ('arc', float('nan'), 'something nan away'),
        ('orbit', float('inf'), 'something inf away'),
    ],
)
def test_impossible_paths(preset, distance, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        camera_path(preset, distance)


def test_the_command_offers_every_preset():
    assert tuple(PRESETS) == PATHS
