"""The linear code of the context-aware branch, fitted to pictures without labels.

A class's score counts against what it usually is: against the mean, over pictures, of its highest score in a
picture, in units of the spread of these. Of the feature of a pixel, its 1,080 counts, the code keeps what
household words ask for: the principal directions under the metric of the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gsemsplat_ros.network.config import CLASSES

# beside those of the classifier, the counts of the detector are this much larger, because its
# names were learnt in real scenes, and lower, because an absent one is told by its absence
DETECTOR_GAIN = 2.0
DETECTOR_SHIFT = 0.8
LEAST = 1e-9  # energy of a direction, beside the largest, that is more than rounding
OTHERS = 0.1  # weight of a class by itself beside that of a word


@dataclass(frozen=True)
class ContextCode:
    """slope, offset (1080,): counts = slope * logits + offset; encoder (D, 1080) and its bias (D,): codes of
    counts; decoder (1080, D) and its bias (1080,): counts of codes."""

    slope: Tensor
    offset: Tensor
    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor


def fit_code(scores: Sequence[Tensor], words: Tensor, dim: int) -> ContextCode:
    """The code of width `dim` from the scores (1080, P) of each picture, for words (W, 1080).

    Raises ValueError for pictures that are too much alike, or too few.
    """
    peaks = torch.stack([picture.float().amax(1) for picture in scores]).double()
    gain, shift = torch.ones(len(peaks[0])).double(), torch.zeros(len(peaks[0])).double()
    gain[CLASSES:], shift[CLASSES:] = DETECTOR_GAIN, DETECTOR_SHIFT
    deviation = peaks.std(0)
    if not (deviation > 0).all():
        raise ValueError('the pictures score the same for some class: wanted pictures of many things')
    slope = gain / deviation
    offset = -slope * peaks.mean(0) - gain * shift
    # counts = slope * scores + offset; their mean over pixels, and their covariance around it
    usual = torch.stack([picture.double().mean(1) for picture in scores]).mean(0)
    covariance = torch.zeros(len(usual), len(usual)).double()
    for picture in scores:
        counts = slope[:, None] * (picture.double() - usual[:, None])
        covariance += counts @ counts.T / counts.shape[1] / len(scores)
    metric = words.double().T @ words.double() + OTHERS**2 * torch.eye(len(usual)).double()
    values, vectors = torch.linalg.eigh(metric)
    root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    energy, directions = torch.linalg.eigh(root @ covariance @ root)
    if not energy[-dim] > LEAST * energy[-1]:
        raise ValueError(f'the pictures are too few or too plain for a code of {dim} channels: wanted more')
    kept, spread = directions[:, -dim:], energy[-dim:].sqrt()  # codes of unit spread
    encoder, usual = (kept / spread).T @ root, slope * usual + offset
    return ContextCode(
        slope.float(),
        offset.float(),
        encoder.float(),
        (-encoder @ usual).float(),
        (inverse @ kept * spread).float(),
        usual.float(),
    )
