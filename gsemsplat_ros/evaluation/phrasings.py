"""Queries that training did not use: descriptions and commands, each with the nouns that it may mean."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from gsemsplat_ros.datasets.phrase_table import read_phrase_table
from gsemsplat_ros.datasets.sample import Sample
from gsemsplat_ros.evaluation.metrics import at_keyframe, nearest
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene


@lru_cache(1)
def read_phrasings() -> dict[str, frozenset[str]]:
    """Phrase -> the nouns that it may mean, from phrasings.txt."""
    return {phrase: frozenset(nouns.split()) for phrase, nouns in read_phrase_table('evaluation')}


def ask_phrasings(
    pipeline: Pipeline, scene: Scene, sample: Sample, nouns: dict[str, str], min_fraction: float
) -> Iterator[dict]:
    """Query view 1 of a sample with every phrase that means an object in it.

    nouns: base noun of every name of the sample; min_fraction: least share of the image that these objects
    cover. Yields rows {text; localised: the peak lies on one of them, found or not; found; chance: the same
    for a random pixel}.
    """
    meant = np.array([nouns.get(name, '') if row else '' for row, name in enumerate(sample.names)])
    full = sample.instance[0]
    labels = at_keyframe(scene.keyframe, full)
    for text, wanted in read_phrasings().items():
        rows = np.flatnonzero(np.isin(meant, sorted(wanted)))
        chance = float(np.isin(labels, rows).mean())
        if chance < min_fraction:
            continue
        answer = pipeline.query(scene, text)
        peak = answer.peak_pixel
        yield {
            'text': text,
            'localised': peak is not None and bool(nearest(full, np.array(peak)) in rows),
            'found': answer.found,
            'chance': chance,
        }
