"""A room of patches of grey, the scenes that a perfect network would make of two views in it, and a walk."""

import numpy as np
import torch

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import Rendering
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.images.window import Window
from gsemsplat_ros.mapping.fusion import START
from gsemsplat_ros.scene.scene import Keyframe, Scene

SIZE = np.array([6.0, 5.0, 2.6])  # m, z up; the walls carry patches of 8 cm
GRID = 96, 72
CAMERA = Camera(*GRID, 70.0, 70.0, 47.5, 35.5)
PATCH = 0.08
PATCHES = np.random.default_rng(0).integers(0, 255, (6, 80, 80), dtype=np.uint8)


def look(x, y, yaw_deg):
    """map_from_camera of a level camera 1.2 m above the floor."""
    yaw = np.deg2rad(yaw_deg)
    turned = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turned @ START[:3, :3], (x, y, 1.2)
    return pose


def picture(pose, camera, thing=None):
    """(depth (h, w) [m], gray (h, w) uint8) of the room; thing (2, 3): corners of a box that stands there."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = (
        np.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)), -1)
        @ pose[:3, :3].T
    )
    here = pose[:3, 3]
    with np.errstate(divide='ignore'):
        times = np.where(rays > 0, (SIZE - here) / rays, np.where(rays < 0, -here / rays, np.inf))
    depth, axis = times.min(-1), times.argmin(-1)
    points = here + depth[..., None] * rays
    side = 2 * axis + (np.take_along_axis(rays, axis[..., None], -1)[..., 0] > 0)
    along = np.stack(
        [
            np.where(axis == 0, points[..., 1], points[..., 0]),
            np.where(axis == 2, points[..., 1], points[..., 2]),
        ],
        -1,
    )
    cells = np.clip((along / PATCH).astype(int), 0, 79)
    gray = PATCHES[side, cells[..., 0], cells[..., 1]]
    if thing is not None:
        with np.errstate(divide='ignore', invalid='ignore'):
            enter, leave = np.sort((np.asarray(thing)[:, None, None] - here) / rays, 0)
        enter, leave = enter.max(-1), leave.min(-1)
        hit = (enter > 0) & (enter < leave)
        depth, gray = np.where(hit, enter, depth), np.where(hit, 230, gray).astype(np.uint8)
    return depth, gray


def seen(
    first,
    second,
    unit=1.0,
    source='network',
    stamps=(1, 0),
    baseline=None,
    bend=None,
    given=None,
    thing=None,
    see=None,
    measured=None,
):
    """Scene and pair of a perfect network whose unit is `unit` metres; first, second: where the cameras
    stand; given: where the first view says that it stands in the map; thing: as in `picture`; see: makes
    depths (h, w) those of another network; measured (h, w): of the scene."""
    big = CAMERA.resized(384, 288)
    images = [np.repeat(picture(pose, big, thing)[1][..., None], 3, -1) for pose in (first, second)]
    first_from_map = np.linalg.inv(first)
    means, colors, depth, rgb = [], [], None, None
    u, v = np.meshgrid(np.arange(GRID[0]), np.arange(GRID[1]))
    for pose in (first, second):
        z, gray = picture(pose, CAMERA, thing)
        z = z if see is None else see(z)
        depth = z if depth is None else depth
        rgb = np.repeat(gray[..., None] / np.float32(255), 3, -1) if rgb is None else rgb
        rays = np.stack(((u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones_like(z)), -1)
        there = first_from_map @ pose
        points = (rays * z[..., None]).reshape(-1, 3) @ there[:3, :3].T + there[:3, 3]
        means.append(points if bend is None else bend(points))
        colors.append(np.repeat(gray.reshape(-1, 1) / 255, 3, 1))
    means = torch.from_numpy((np.concatenate(means) / unit).astype(np.float32))
    count = len(means)
    scales = means[:, 2:].abs() * 0.7 / CAMERA.fx * torch.ones(1, 3)
    gaussians = Gaussians(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        scales,
        torch.full((count,), 0.9),
        torch.from_numpy(np.concatenate(colors).astype(np.float32)),
        torch.ones(count, 32),
        'camera',
    )
    rendering = Rendering(
        torch.from_numpy(rgb),
        torch.from_numpy((depth / unit).astype(np.float32)),
        torch.ones(*GRID[::-1]),
        torch.zeros(*GRID[::-1], 32),
    )
    window = Window(384, 288, 384, 288, 1.0, 1.0, 0.0, 0.0)
    keyframe = Keyframe(CAMERA, rendering, None, images[0], window, 'camera', stamps[0])
    pose = first_from_map @ second
    pose[:3, 3] /= unit
    views = [
        View(image, big, 'camera', stamp, place) for image, stamp, place in zip(images, stamps, (given, None))
    ]
    scene = Scene(gaussians, keyframe, pose, 1.0, source, 900, 1000, {}, measured=measured)
    return scene, Pair(*views, baseline_m=baseline)


def off_the_walls(map_, map_from_room=np.eye(4)):
    """Distance [m] of every Gaussian from the nearest wall, floor or ceiling of the room."""
    room_from_map = np.linalg.inv(map_from_room)
    means = map_.gaussians.means.double().numpy() @ room_from_map[:3, :3].T + room_from_map[:3, 3]
    return np.abs(np.concatenate((means, SIZE - means), 1)).min(1)


WALK = [look(1.2 + 0.25 * k, 1.5 + 0.1 * k, 12 * k) for k in range(5)]
ROOM = START @ np.linalg.inv(WALK[1])  # the map begins at the first pair's newest camera

# where cameras see a box that stands in the room
AROUND = [look(1.2, 2.2, 0), look(1.4, 1.2, 30), look(1.4, 3.4, -30)]
BOX = np.array([[3.0, 2.0, 0.4], [3.5, 2.6, 1.5]])
BASELINE = 0.2


def stereo(pose, **more):
    """Scene and pair of a stereo camera that is known to stand at `pose`."""
    right = np.eye(4)
    right[0, 3] = BASELINE
    more = {'given': pose, 'measured': np.ones(GRID[::-1], bool), **more}
    return seen(pose, pose @ right, source='stereo baseline', baseline=BASELINE, **more)
