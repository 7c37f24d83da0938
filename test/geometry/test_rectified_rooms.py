"""Which changes of real rectified pairs are noticed: the rooms of stereodemo, by their images alone.

`pytest test/geometry/test_rectified_rooms.py -m heavy -s` prints the table of docs/measurements.md.
"""

from collections import Counter
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from gsemsplat_ros.datasets.demo_pairs import QUERIES, load_scene
from gsemsplat_ros.geometry.features import gray
from gsemsplat_ros.geometry.matches import disparity
from gsemsplat_ros.geometry.rectified import contradiction
from gsemsplat_ros.images.detail import blank

if find_spec('stereodemo') is None:  # it cannot be imported without what it needs itself
    pytest.skip('the pictures are in stereodemo, which is not installed', allow_module_level=True)
FEW = ('desk', 'living_room', 'stairs')
KINDS = {
    '': 'taken',
    'exchanged on': 'exchanged',
    'nothing in common': 'nothing in common',
    'the rows of': 'rows',
    'too far away': 'too far',
    'one and the same': 'one image',
}


def noisy(image, light, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape[:2])[..., None]
    return (image * light + noise).clip(0, 255).astype(np.uint8)


def turned(image, degrees):
    matrix = cv2.getRotationMatrix2D((image.shape[1] / 2, image.shape[0] / 2), degrees, 1)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


def lower(image, rows):
    matrix = np.float32([[1, 0, 0], [0, 1, rows]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


def covered(image):
    return noisy(cv2.GaussianBlur(image, (0, 0), 60), 0.3, 3)


def half(image):
    image = image.copy()
    image[:, : image.shape[1] // 2] = 0
    return image


def upside_down(image):
    return np.ascontiguousarray(image[::-1, ::-1])


# name: (change of left, right and another room's right; what is said of it)
CHANGES = {
    'as they are': (lambda a, b, c: (a, b), 'taken'),
    'an eighth of the light, noise of 2': (
        lambda a, b, c: (noisy(a, 0.125, 2), noisy(b, 0.125, 2, 1)),
        'taken',
    ),
    'right at half the light': (lambda a, b, c: (a, noisy(b, 0.5, 2)), 'taken'),
    'noise of 12': (lambda a, b, c: (noisy(a, 1, 12), noisy(b, 1, 12, 1)), 'taken'),
    'right 2 rows lower': (lambda a, b, c: (a, lower(b, 2)), 'taken'),
    'right turned by 1 degree': (lambda a, b, c: (a, turned(b, 1)), 'taken'),
    'upside down and exchanged': (lambda a, b, c: (upside_down(b), upside_down(a)), 'taken'),
    'half of the right one black': (lambda a, b, c: (a, half(b)), None),
    'exchanged': (lambda a, b, c: (b, a), 'exchanged'),
    'upside down': (lambda a, b, c: (upside_down(a), upside_down(b)), 'exchanged'),
    'mirrored': (lambda a, b, c: (a[:, ::-1].copy(), b[:, ::-1].copy()), 'exchanged'),
    'right of another room': (lambda a, b, c: (a, c), 'nothing in common'),
    'right 5 rows lower': (lambda a, b, c: (a, lower(b, 5)), None),
    'right 20 rows lower': (lambda a, b, c: (a, lower(b, 20)), 'rows'),
    'right turned by 3 degrees': (lambda a, b, c: (a, turned(b, 3)), None),
    'left twice': (lambda a, b, c: (a, a), 'one image'),
    'right black': (lambda a, b, c: (a, np.zeros_like(b)), 'blank'),
    'left white': (lambda a, b, c: (np.full_like(a, 255), b), 'blank'),
    'right covered': (lambda a, b, c: (a, covered(b)), 'blank'),
    'right without signal': (lambda a, b, c: (a, noisy(b, 0, 3)), 'blank'),
}


def verdict(left, right):
    if blank(left) or blank(right):
        return 'blank'
    a, b = gray(left)[0], gray(right)[0]
    words = contradiction(a, b, disparity(a, b), 0.0, lambda: disparity(b, a))
    return next(kind for part, kind in KINDS.items() if (part in words if part else not words))


@pytest.mark.parametrize('names', [FEW, pytest.param(tuple(QUERIES), marks=pytest.mark.heavy)])
def test_what_contradicts_itself_is_noticed_and_nothing_else(names):
    pairs = [load_scene(name).pair for name in names]
    images = [(pair.first.image, pair.second.image) for pair in pairs]
    for name, (change, wanted) in CHANGES.items():
        said = Counter(
            verdict(*change(*images[i], images[(i + 1) % len(images)][1])) for i in range(len(images))
        )
        print(f'| {name} | {", ".join(f"{kind} {count}" for kind, count in said.most_common())} |')
        assert wanted is None or said == {wanted: len(images)}, (name, said)
