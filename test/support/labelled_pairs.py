"""Labelled pairs on disk: two rectified ones."""

import importlib.util
import json
import shutil
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 32, 16
DEVELOPMENT = Path(__file__).parents[1] / 'data' / 'pair_labels.json'


def write_labels(folder, change=None):
    """Write labels of two pairs, images and a disparity into `folder`; `change` edits the labels first."""
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    for name in ('a_left', 'a_right', 'b_left', 'b_right'):
        cv2.imwrite(str(folder / f'{name}.png'), image)
    disparity = np.full((HEIGHT, WIDTH), 4.0)  # 20 px * 0.2 m / 4 px = 1 m
    disparity[:, 16:] = 2.0  # 2 m
    disparity[:8, 24:] = np.inf  # unknown, as are the next two
    disparity[8:10, 24:] = np.nan
    disparity[10:12, 24:] = -1
    np.savez(folder / 'a_disparity.npz', disparity, np.zeros(3))
    camera = {'fx': 20, 'fy': 21.0, 'cx': 15.5, 'cy': 7.5}
    content = {
        'pairs': [
            {
                'first': 'a_left.png',
                'second': 'a_right.png',
                'camera': dict(camera),
                'baseline': 0.2,
                'disparity': 'a_disparity.npz',
                'objects': [
                    {'text': 'chair', 'boxes': [[4, 2, 12, 10]]},
                    {'text': 'door', 'boxes': [[16, 0, 32, 16]]},
                ],
                'absent': ['bed', 'sink'],
            },
            {
                'first': 'b_left.png',
                'second': 'b_right.png',
                'camera': dict(camera),
                'baseline': 0.2,
                'objects': [{'text': 'lamp', 'boxes': [[0, 0, 8, 4]]}],
                'absent': ['tree'],
            },
        ]
    }
    if change:
        change(content)
    path = folder / 'labels.json'
    path.write_text(json.dumps(content))
    return path


def development_folder():
    """The images of the package `stereodemo`, which is not imported."""
    [package] = importlib.util.find_spec('stereodemo').submodule_search_locations
    return Path(package) / 'datasets' / 'oak-d'


def copy_development_labels(folder):
    """Copy the labels made by eye and their images into `folder`; returns the path of the labels."""
    for pair in json.loads(DEVELOPMENT.read_text())['pairs']:
        for side in ('first', 'second'):
            shutil.copy(development_folder() / pair[side], folder)
    return Path(shutil.copy(DEVELOPMENT, folder))
