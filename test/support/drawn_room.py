"""A room with a crate, ray-traced, and writers for the layouts of public data sets."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('moderngl', reason='moderngl is not installed')

from gsemsplat_ros.datasets.scannetpp import FLIP
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.rooms.cameras import look

CAMERA = Camera(120, 90, 70.0, 72.0, 61.3, 43.2)
ROOM = np.array([[0.0, 0.0, 0.0], [4.0, 5.0, 2.5]])
CRATE = np.array([[1.5, 2.2, 0.0], [2.3, 3.0, 0.9]])
NAMES = 'nothing', 'wall', 'floor', 'crate'


def hit(box, eye, rays, inside):
    """Distance along `rays` (H, W, 3) to an axis-parallel box, from inside or outside; infinite if missed."""
    with np.errstate(divide='ignore', invalid='ignore'):
        a, b = ((side - eye) / rays for side in box)
    near, far = np.fmin(a, b).max(-1), np.fmax(a, b).min(-1)
    return far if inside else np.where((near > 0) & (near <= far), near, np.inf)


def draw(pose, camera=CAMERA):
    """Colour (H, W, 3) uint8, depth (H, W) float32 [m] and ids (H, W) of what a camera at `pose` sees."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u, float)), -1)
    rays = rays @ pose[:3, :3].T  # z of the camera is 1, so distances along them are depths
    eye = pose[:3, 3]
    far, near = hit(ROOM, eye, rays, True), hit(CRATE, eye, rays, False)
    depth = np.minimum(far, near)
    points = eye + rays * depth[..., None]
    ids = np.where(near < far, 3, np.where(points[..., 2] < 1e-6, 2, 1))
    tint = np.array([(0, 0, 0), (60, 20, 120), (10, 90, 30), (120, 60, 0)])[ids]
    rgb = tint + 100 * (0.5 + 0.5 * np.sin(3 * points + np.arange(3)))  # smooth, and independent of the view
    return rgb.astype(np.uint8), depth.astype(np.float32), ids.astype(np.uint16)


def poses(count=5):
    """world_from_camera (count, 4, 4): cameras side by side, all looking at the crate."""
    return np.stack(
        [
            look(np.array([0.9 + 0.35 * i, 0.6, 1.4]), np.array([1.9, 2.6, 0.5 + 0.02 * i]))
            for i in range(count)
        ]
    )


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_scannetpp(root, scenes=('aaaa000001',), count=5, bad=(), split='train'):
    """Write scenes in the public layout, with the frames `bad` flagged; returns the names of the frames."""
    names = [f'DSC{i:05d}.JPG' for i in range(count)]
    splits = root / 'raw' / 'splits'
    splits.mkdir(parents=True, exist_ok=True)
    (splits / f'nvs_sem_{split}.txt').write_text('\n'.join(scenes) + '\n')
    for scene in scenes:
        raw, processed = root / 'raw' / 'data' / scene / 'dslr', root / 'processed' / scene / 'dslr'
        write_json(raw / 'train_test_lists.json', {'train': names, 'test': [], 'has_masks': False})
        entries = [
            {'file_path': name, 'transform_matrix': (FLIP @ pose @ FLIP).tolist(), 'is_bad': name in bad}
            for name, pose in zip(names, poses(count))
        ]
        write_json(
            raw / 'nerfstudio' / 'transforms.json', {'camera_model': 'OPENCV_FISHEYE', 'frames': entries}
        )
        write_json(
            processed / 'nerfstudio' / 'transforms_undistorted.json',
            {
                'fl_x': CAMERA.fx,
                'fl_y': CAMERA.fy,
                'cx': CAMERA.cx,
                'cy': CAMERA.cy,
                'w': CAMERA.width,
                'h': CAMERA.height,
                'camera_model': 'OPENCV',
                'frames': entries,
            },
        )
        for name, pose in zip(names, poses(count)):
            rgb, depth, _ = draw(pose)
            for folder in ('undistorted_images', 'undistorted_depths'):
                (processed / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgb).save(processed / 'undistorted_images' / name, quality=98, subsampling=0)
            cv2.imwrite(
                str(processed / 'undistorted_depths' / f'{name[:-4]}.png'),
                np.rint(1000 * depth).astype(np.uint16),
            )
    return names


def write_masks(folder, scene, names):
    """Write the ids of every frame of `poses` as PNG of the image size."""
    (folder / scene).mkdir(parents=True)
    for name, pose in zip(names, poses(len(names))):
        cv2.imwrite(str(folder / scene / f'{name}.png'), draw(pose)[2])


def write_tum(folder, count=4, intrinsics=True):
    """Write a scene in the TUM layout: depths 7 ms, poses 3 ms after the images; returns the image stamps."""
    (folder / 'rgb').mkdir(parents=True)
    (folder / 'depth').mkdir()
    stamps = [1305031102.175304 + i / 3 for i in range(count)]
    lines = {name: [f'# {name}', '# what the benchmark says'] for name in ('rgb', 'depth', 'groundtruth')}
    for stamp, pose in zip(stamps, poses(count)):
        rgb, depth, _ = draw(pose)
        files = f'rgb/{stamp:.6f}.png', f'depth/{stamp + 0.007:.6f}.png'
        cv2.imwrite(str(folder / files[0]), rgb[..., ::-1])
        cv2.imwrite(str(folder / files[1]), np.rint(5000 * depth).astype(np.uint16))
        lines['rgb'].append(f'{stamp:.6f} {files[0]}')
        lines['depth'].append(f'{stamp + 0.007:.6f} {files[1]}')
        lines['groundtruth'].append(
            ' '.join(map('{:.6f}'.format, (stamp + 0.003, *pose[:3, 3], *quaternion(pose))))
        )
        lines['groundtruth'].append(f'{stamp + 0.1:.6f} 9 9 9 0 0 0 1')  # between the images
    for name, rows in lines.items():
        (folder / f'{name}.txt').write_text('\n'.join(rows) + '\n')
    if intrinsics:
        (folder / 'intrinsics.txt').write_text(f'{CAMERA.fx} {CAMERA.fy} {CAMERA.cx} {CAMERA.cy}\n')
    return [f'{stamp:.6f}' for stamp in stamps]


def quaternion(pose):
    """qx qy qz qw of a pose, by its axis and angle."""
    rotation = cv2.Rodrigues(pose[:3, :3])[0].ravel()
    angle = np.linalg.norm(rotation)
    return (*np.sin(angle / 2) * rotation / angle, np.cos(angle / 2))


def assert_true(frame, pose):
    """Assert that a frame equals the view of its camera from `pose`; detects a shift of half a pixel."""
    rgb, depth, _ = draw(pose, frame.geometry.camera)
    away, tint = frame.geometry.depth - depth, frame.image.astype(float) - rgb
    smooth = np.abs(away) < 0.1  # not across the edges of the crate
    assert smooth.mean() > 0.95
    assert np.abs(away[smooth].mean()) < 0.002
    assert np.abs(np.median(tint[smooth], 0)).max() < 1.5 and np.median(np.abs(tint[smooth])) < 2
    ys, xs = np.gradient(depth)
    flat = smooth & (np.abs(xs) < 0.05) & (np.abs(ys) < 0.05)
    for slope in (xs, ys):  # shift in pixels
        moved = (away * slope)[flat].sum() / (slope**2)[flat].sum()
        assert abs(moved) < 0.1, moved


def assert_consistent(a, b, tolerance=0.02):
    """Assert that the surfaces of frame `a`, where `b` sees them, have the same depth and colour in `b`."""
    from gsemsplat_ros.geometry.visibility import surface_points

    g, h = a.geometry, b.geometry
    points = surface_points(g.depth, g.camera, g.world_from_camera)
    local = (points - h.world_from_camera[:3, 3]) @ h.world_from_camera[:3, :3]
    z = local[..., 2]
    u = (h.camera.fx * local[..., 0] / z + h.camera.cx).astype(np.float32)
    v = (h.camera.fy * local[..., 1] / z + h.camera.cy).astype(np.float32)
    inside = (
        (z > 0) & (u > 1) & (u < h.camera.width - 2) & (v > 1) & (v < h.camera.height - 2) & (g.depth > 0)
    )
    depth = cv2.remap(h.depth, u, v, cv2.INTER_LINEAR)
    seen = inside & (np.abs(depth - z) < 0.1)
    assert seen.mean() > 0.3
    assert np.median(np.abs(depth - z)[seen]) < tolerance, np.median(np.abs(depth - z)[seen])
    colour = cv2.remap(b.image, u, v, cv2.INTER_LINEAR).astype(float)
    assert np.median(np.abs(colour - a.image)[seen]) < 4, np.median(np.abs(colour - a.image)[seen])
