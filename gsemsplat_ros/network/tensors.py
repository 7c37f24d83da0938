"""Encodings and predictions as named tensors: what a recorded or an exported graph takes and gives.

Names are those of the dataclasses: 'tokens', 'maps.4', 'first.pts3d'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from torch import Tensor

from gsemsplat_ros.network.model import Encoding, Prediction, ViewPrediction


def encoding_tensors(encoding: Encoding) -> dict[str, Tensor]:
    """The tensors that are there, by their names."""
    tensors = {'images': encoding.images, 'tokens': encoding.tokens}
    tensors |= {f'maps.{stride}': map_ for stride, map_ in encoding.maps.items()}
    return tensors if encoding.context is None else {**tensors, 'context': encoding.context}


def encoding_from(tensors: Mapping[str, Tensor]) -> Encoding:
    """The encoding whose `encoding_tensors` these are."""
    maps = {int(name[5:]): map_ for name, map_ in tensors.items() if name.startswith('maps.')}
    return Encoding(tensors['images'], tensors['tokens'], maps, tensors.get('context'))


def prediction_tensors(prediction: Prediction) -> dict[str, Tensor]:
    """The tensors that are there, by their names."""
    return {
        f'{view}.{field.name}': tensor
        for view in ('first', 'second')
        for field in fields(ViewPrediction)
        if (tensor := getattr(getattr(prediction, view), field.name)) is not None
    }


def prediction_from(tensors: Mapping[str, Tensor]) -> Prediction:
    """The prediction whose `prediction_tensors` these are."""

    def view(name: str) -> ViewPrediction:
        start = name + '.'
        return ViewPrediction(**{k[len(start) :]: t for k, t in tensors.items() if k.startswith(start)})

    return Prediction(view('first'), view('second'))
