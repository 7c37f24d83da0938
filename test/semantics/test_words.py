"""The reading of a phrase: its letters made plain, and what is not understood is said."""

import pytest

from gsemsplat_ros.semantics.words import is_latin, normalised, read


@pytest.mark.parametrize(
    'text, plain',
    [
        ('  red\tchair \n', 'red chair'),
        ('ａｒｍｃｈａｉｒ', 'armchair'),
        ('armchair🪑', 'armchair 🪑'),
        ('a🪑b', 'a 🪑 b'),
        ('👩🏽\u200d🚀', '👩 🏽 🚀'),  # woman, skin tone, joiner, rocket
        ('❤\ufe0f', '❤'),
        ('arm\u00adchair', 'armchair'),  # soft hyphen
        ('\u202echair', 'chair'),  # right to left
        ('chair\x00\x1b', 'chair'),
        ('\ud83d', ''),  # half of an emoji
        ('doll’s house', "doll's house"),
        ('café ﬁlm №5', 'café film No5'),
        ('salt & pepper', 'salt & pepper'),
        ('椅子', '椅子'),
    ],
)
def test_normalised(text, plain):
    assert normalised(text) == plain == normalised(plain) and plain.isprintable()


@pytest.mark.parametrize('word', ['chair', 'T-shirt', 'café', 'ŁÓŻKO', '7', 'A&B', "doll's", '50%', '€5'])
def test_latin(word):
    assert is_latin(word)


@pytest.mark.parametrize('word', ['椅子', 'стул', 'καρέκλα', 'كرسي', 'イス', '🪑', 'chair🪑', '٣', 'сhair'])
def test_not_latin(word):
    assert not is_latin(word)


@pytest.mark.parametrize(
    'phrase, words, note',
    [
        ('armchair', 'armchair', ''),
        ('"Armchair".', 'Armchair', ''),
        ("a doll's house (old)", "a doll's house old", ''),
        ('knot, nothingness and a non-stick pan', 'knot nothingness and a non-stick pan', ''),
        ('no-entry sign', 'no-entry sign', ''),
        ('armchair 🪑', 'armchair', "left out, as not understood: '🪑'"),
        ('red 椅子 🪑', 'red', "left out, as not understood: '椅子 🪑'"),
        ('椅子', '', "not understood: '椅子'; ask in English letters, such as 'chair'"),
        ('🪑 🚪', '', "not understood: '🪑 🚪'; ask in English letters, such as 'chair'"),
        ('?!', '', "not understood: '?!'; ask in English letters, such as 'chair'"),
        ('& 🪑', '', "not understood: '& 🪑'; ask in English letters, such as 'chair'"),
    ],
)
def test_read(phrase, words, note):
    reading = read(phrase, is_latin)
    assert (reading.words, reading.note) == (words, note)


@pytest.mark.parametrize(
    'phrase, negation',
    [
        ('not an armchair', 'not'),
        ('No armchair', 'No'),
        ('anything but an armchair', 'anything but'),
        ('a cup without a handle', 'without'),
        ("what isn't a chair", "isn't"),
        ('things other than chairs', 'other than'),
        ('chair, not the red one', 'not'),
    ],
)
def test_negations_are_not_understood(phrase, negation):
    reading = read(phrase, is_latin)
    note = f"not understood: the negation '{negation}'; name the thing itself, such as 'chair'"
    assert (reading.words, reading.note) == ('', note)


def test_the_encoder_says_what_it_knows():
    assert read('flub chair', lambda word: word == 'chair').note == "left out, as not understood: 'flub'"
