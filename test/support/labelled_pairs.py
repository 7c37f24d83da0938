"""Labelled stereo pairs on disk."""

import json

import cv2
import numpy as np

WIDTH, HEIGHT = 32, 16


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
    calibration = {'fx': 20, 'fy': 21.0, 'cx': 15.5, 'cy': 7.5, 'baseline': 0.2}
    content = {
        'pairs': [
            {
                'left': 'a_left.png',
                'right': 'a_right.png',
                'calibration': dict(calibration),
                'disparity': 'a_disparity.npz',
                'objects': [
                    {'text': 'chair', 'box': [4, 2, 12, 10]},
                    {'text': 'door', 'box': [16, 0, 32, 16]},
                ],
                'absent': ['bed', 'sink'],
            },
            {
                'left': 'b_left.png',
                'right': 'b_right.png',
                'calibration': dict(calibration),
                'objects': [{'text': 'lamp', 'box': [0, 0, 8, 4]}],
                'absent': ['tree'],
            },
        ]
    }
    if change:
        change(content)
    path = folder / 'labels.json'
    path.write_text(json.dumps(content))
    return path
