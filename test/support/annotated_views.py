"""Annotated views of the drawn room in the layout of the published `eval_datasets`."""

import json

import cv2
import numpy as np
from support.drawn_room import write_scannetpp

from gsemsplat_ros.datasets.scannetpp import ScanNetPP
from gsemsplat_ros.geometry.visibility import seen_by, surface_points

SCENE = 'aaaa000001'
SIDE = 64
CONTEXT, TARGET = (1, 3), 2  # indices of the frames
NAMES = {1: 'wall', 2: 'floor', 3: 'storage box'}


def rings(mask):
    """The outlines of a mask (H, W) bool, as lists of [x, y]."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0].tolist() for contour in contours if len(contour) >= 3]


def ids_of(frame):
    """The key of NAMES for each pixel (H, W) of a frame of the drawn room, from its depth."""
    points = surface_points(frame.geometry.depth, frame.geometry.camera, frame.geometry.world_from_camera)
    x, y, z = np.moveaxis(points, -1, 0)
    crate = (np.abs(x - 1.9) < 0.42) & (np.abs(y - 2.6) < 0.42) & (z > 0.02) & (z < 0.92)
    return np.where(crate, 3, np.where(z < 0.02, 2, 1))


def write_eval(folder, root, cameras=True, queries=('wall', 'storage box', 'floor', 'piano')):
    """Write a scene of `eval_datasets` into `folder`, ScanNet++ into `root`; returns the scene's folder."""
    names = write_scannetpp(root, (SCENE,), split='val')
    source = ScanNetPP(root, 'val', SIDE, SIDE)
    frames = [source.frame(SCENE, name) for name in names]
    target = frames[TARGET]
    scene = folder / SCENE
    scene.mkdir(parents=True)
    ids = ids_of(target)
    objects = [
        {'category': name, 'segmentation': ring, 'bbox': [0, 0, 1, 1]}
        for row, name in NAMES.items()
        for ring in rings(ids == row)
    ]
    write_annotation(scene, 'frame_00003', objects, target.image)
    (scene / 'queries.txt').write_text('\n'.join(queries) + '\n')
    geometry = target.geometry
    points = surface_points(geometry.depth, geometry.camera, geometry.world_from_camera)
    seen = [
        seen_by(
            points,
            frames[i].geometry.depth,
            frames[i].geometry.camera,
            np.linalg.inv(frames[i].geometry.world_from_camera),
        )
        for i in CONTEXT
    ]
    np.save(scene / 'mask_00003.npy', seen[0] | seen[1])
    if cameras:
        write_cameras(scene, [frames[i] for i in CONTEXT], {'frame_00003': target})
    return scene


def write_annotation(scene, name, objects, image):
    """Write frame_*.json and frame_*.jpg."""
    height, width = image.shape[:2]
    info = {
        'name': f'{scene.name}_{name[6:]}.jpg',
        'width': width,
        'height': height,
        'scene_name': scene.name,
    }
    (scene / f'{name}.json').write_text(json.dumps({'info': info, 'objects': objects}))
    cv2.imwrite(str(scene / f'{name}.jpg'), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])


def write_cameras(scene, context, views):
    """Write cameras.json and the two input images."""
    entries = []
    for i, frame in enumerate(context):
        cv2.imwrite(str(scene / f'context_{i}.png'), frame.image[..., ::-1])
        entries.append({'image': f'context_{i}.png', **camera_entry(frame)})
    (scene / 'cameras.json').write_text(
        json.dumps(
            {'context': entries, 'frames': {name: camera_entry(frame) for name, frame in views.items()}}
        )
    )


def camera_entry(frame):
    return {
        'K': frame.geometry.camera.K.tolist(),
        'world_from_camera': frame.geometry.world_from_camera.tolist(),
    }
