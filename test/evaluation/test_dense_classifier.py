"""The untrained classifier, with one whose classes are colours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.labelled_pairs import copy_development_labels
from support.tiny_network import TINY

from gsemsplat_ros.checkpoints import checkpoint
from gsemsplat_ros.evaluation.dense_classifier import LONG_SIDES, ClassifierPeer, network_input
from gsemsplat_ros.evaluation.pair_labels import read_labels
from gsemsplat_ros.network.model import GSemSplat

NAMES = ('red', 'green', 'blue')


class Words:
    """Colours along the axes; "amber" lies between red and green."""

    name, dim = 'colours', 3

    def encode(self, phrases):
        rows = {name: np.eye(3, dtype=np.float32)[i] for i, name in enumerate(NAMES)}
        rows['amber'] = np.float32([0.5, 0.5, 0]) ** 0.5
        return np.stack([rows[phrase] for phrase in phrases])


def logits(images):
    """The mean colour of each cell."""
    return F.avg_pool2d(images, 32)


def picture(height, width):
    """Blue, with a red rectangle at the left and a green one at the right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = 255
    image[height // 4 : height // 2, : width // 4] = (255, 0, 0)
    image[height // 2 :, width // 2 :] = (0, 255, 0)
    return image


@pytest.mark.parametrize('height, width', [(480, 640), (500, 300), (96, 128)])
def test_peaks_lie_on_what_is_meant(height, width):
    classifier = ClassifierPeer(logits, NAMES, Words())
    image = picture(height, width)
    (red, (u, v)), (green, pixel), (amber, _) = classifier.peaks(image, ('red', 'green', 'amber'))
    assert u < width / 4 and height / 4 < v < height / 2
    assert image[round(pixel[1]), round(pixel[0])].tolist() == [0, 255, 0]
    assert 0 < red <= 1.001 and green == pytest.approx(1, abs=1e-3)
    assert amber == pytest.approx(0, abs=0.01)  # half of green's 1 and red's -1
    assert classifier.peaks(image, ()) == []


def test_the_classifier_inside_a_network(tmp_path):
    pytest.importorskip('stereodemo')
    assert ClassifierPeer.of(GSemSplat(TINY)) is None, 'the public architecture has none'
    peer = ClassifierPeer.of(checkpoint.load().model)
    desk = read_labels(copy_development_labels(tmp_path))[1]
    monitor, table = (thing for thing in desk.objects if thing.text in ('computer monitor', 'desk'))
    peaks = peer.peaks(desk.pair.first.image, (monitor.text, table.text, 'toilet'))
    assert monitor.contains(peaks[0][1]) and table.contains(peaks[1][1])
    assert min(peaks[0][0], peaks[1][0]) > peaks[2][0]


def test_images_come_in_whole_cells():
    for side in LONG_SIDES:
        given = network_input(picture(375, 1242), side)
        assert max(given.shape) == side and not any(length % 32 for length in given.shape[2:])
        assert given.dtype == torch.float32 and -1 <= given.min() < given.max() <= 1
    assert network_input(picture(2000, 100), 384).shape == (1, 3, 384, 32)
